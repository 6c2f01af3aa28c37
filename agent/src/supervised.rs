//! The agent's status for the service manager: its connection to the broker, and its model.
//!
//! Readiness doesn't depend on the broker: an agent without one works and keeps looking for it.

use crate::drafter::Worker;
use dunlin_hlm::time::Instant;
use dunlin_link::{BrokerAddress, Loss};
use dunlin_service::Service;
use dunlin_wire::VerifierId;

/// The service manager's interface, and the facts for its status line.
pub struct Supervised {
    service: Service,
    broker: String,
    model: String,
}

impl Supervised {
    /// An agent without a service manager.
    pub fn by_nobody() -> Self {
        Self { service: Service::unmanaged(), broker: String::new(), model: String::new() }
    }

    /// An agent that drafts with `model` and looks for `broker`.
    pub fn by(service: Service, broker: &BrokerAddress, model: &str) -> Self {
        let mut supervised = Self { service, broker: broker.url(), model: model.into() };
        supervised.say("looking for the broker at");
        supervised
    }

    /// The connection is up.
    pub(crate) fn connected(&mut self) {
        self.say("connected to");
    }

    /// A verifier gave a lease.
    pub(crate) fn leased(&mut self, verifier: &VerifierId) {
        self.status(&format!("connected to {}, checked by {verifier}", self.broker));
    }

    /// The connection failed or was lost.
    pub(crate) fn lost(&mut self, loss: &Loss) {
        let text = match loss.refused {
            true => format!("refused by {}: {}", self.broker, loss.reason),
            false => format!("looking for the broker at {}: {}", self.broker, loss.reason),
        };
        self.status(&text);
    }

    /// The agent is about to end.
    pub(crate) fn stopping(&mut self) {
        self.service.stopping();
    }

    /// Time by which the loop must call [`pass`](Self::pass) to satisfy the watchdog.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.service.deadline()
    }

    /// Reports one pass of the loop.
    pub(crate) fn pass(&mut self, worker: &Worker, now: Instant) {
        self.service.pass(worker.owed(), now);
    }

    fn say(&mut self, how: &str) {
        self.status(&format!("{how} {}", self.broker));
    }

    fn status(&mut self, text: &str) {
        self.service.status(&format!("{text}; drafting with {}", self.model));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_hlm::device::{DraftJob, DraftJobId};
    use dunlin_hlm::time::Duration;
    use dunlin_lm::{Draft, Rows, Toy, Vocabulary};
    use dunlin_service::Tell;
    use std::sync::mpsc::{Receiver, channel};
    use std::sync::{Arc, Mutex};

    const SECOND: u64 = 1_000_000;

    /// A service with a watchdog of 10 s, and the messages that it sent.
    fn supervised() -> (Supervised, Arc<Mutex<Vec<String>>>) {
        let said = Arc::new(Mutex::new(Vec::new()));
        let to = said.clone();
        let tell: Tell = Box::new(move |news| {
            to.lock().unwrap().extend(news.iter().map(ToString::to_string));
            Ok(())
        });
        let broker = "b".parse().unwrap();
        (Supervised::by(Service::managed(tell, Some(Duration(10 * SECOND))), &broker, "m"), said)
    }

    /// A drafter that produces a row only when it is released.
    struct Held {
        toy: Box<dyn Draft>,
        go_on: Receiver<()>,
    }

    impl Draft for Held {
        fn vocabulary(&self) -> Vocabulary {
            self.toy.vocabulary()
        }
        fn context_max(&self) -> usize {
            self.toy.context_max()
        }
        fn len(&self) -> usize {
            self.toy.len()
        }
        fn truncate(&mut self, keep: usize) {
            self.toy.truncate(keep);
        }
        fn extend(&mut self, tokens: &[u32]) -> dunlin_lm::Result<Rows> {
            self.go_on.recv().unwrap();
            self.toy.extend(tokens)
        }
    }

    #[tokio::test]
    async fn a_drafter_that_is_stuck_starves_the_watchdog() {
        let (mut supervised, said) = supervised();
        let fed = || said.lock().unwrap().drain(..).filter(|news| news == "WATCHDOG=1").count();
        let (release, go_on) = channel();
        let load = move || {
            let drafter: Box<dyn Draft> =
                Box::new(Held { toy: Box::new(Toy::new(1, 64, 1.0).drafter()), go_on });
            Ok(drafter.into())
        };
        let mut worker = Worker::start(load).await.unwrap();
        let mut passes = |worker: &Worker, seconds: std::ops::Range<u64>| {
            seconds.for_each(|second| supervised.pass(worker, Instant(second * SECOND)));
            fed()
        };
        assert_eq!(passes(&worker, 0..60), 12, "idle: every 5 s");
        worker.run(0, DraftJob { id: DraftJobId(1), keep: 0, tokens: vec![1, 2, 3] });
        assert_eq!(passes(&worker, 60..600), 13, "until it was stuck for a minute");
        release.send(()).unwrap();
        assert!(worker.next().await.unwrap().last_row().is_ok());
        assert_eq!(passes(&worker, 600..660), 12, "it moves again");
    }

    #[test]
    fn the_status_says_how_it_stands_with_the_broker() {
        let (mut supervised, said) = supervised();
        supervised.lost(&Loss { reason: "nothing listens".into(), refused: false });
        supervised.connected();
        supervised.leased(&"v1".parse().unwrap());
        supervised.lost(&Loss { reason: "not authorised".into(), refused: true });
        assert_eq!(
            *said.lock().unwrap(),
            [
                "STATUS=looking for the broker at mqtt://b:1883; drafting with m",
                "STATUS=looking for the broker at mqtt://b:1883: nothing listens; drafting with m",
                "STATUS=connected to mqtt://b:1883; drafting with m",
                "STATUS=connected to mqtt://b:1883, checked by v1; drafting with m",
                "STATUS=refused by mqtt://b:1883: not authorised; drafting with m",
            ]
        );
    }
}
