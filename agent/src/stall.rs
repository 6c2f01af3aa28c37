//! Detects that a reply has made no progress for a second, and reports what it waits for.

use crate::notice::Notice;
use dunlin_hlm::time::{Duration, Instant};
use dunlin_link::Loss;
use dunlin_wire::VerifierId;

/// Silence after which the user is notified.
const PATIENCE: Duration = Duration::from_millis(1000);

/// The missing part of a reply, and how long it has been missing.
#[derive(Debug, Default)]
pub(crate) struct Stall {
    /// Time of the next check; `None` while no reply is in progress or after the notice was given.
    deadline: Option<Instant>,
    /// True while a reply is in progress.
    active: bool,
    verifier: Option<VerifierId>,
    loss: Option<Loss>,
    /// True if the verifier said since the last progress that it works.
    works: bool,
    /// The last notice, so that it isn't repeated.
    said: Option<Notice>,
}

impl Stall {
    /// Time to call [`notice`](Self::notice).
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    pub(crate) fn begin(&mut self, now: Instant) {
        self.active = true;
        self.moved_on(now);
    }

    pub(crate) fn end(&mut self) {
        self.active = false;
        self.deadline = None;
    }

    /// A token was committed.
    pub(crate) fn moved_on(&mut self, now: Instant) {
        (self.said, self.works) = (None, false);
        self.watch(now);
    }

    /// The verifier says that it works.
    pub(crate) fn works(&mut self, now: Instant) {
        // What is shown may be that its answer is missing.
        if !std::mem::replace(&mut self.works, true) {
            self.watch(now);
        }
    }

    pub(crate) fn connected(&mut self, now: Instant) {
        self.loss = None;
        self.watch(now);
    }

    pub(crate) fn disconnected(&mut self, loss: Loss, now: Instant) {
        self.verifier = None;
        self.loss = Some(loss);
        self.watch(now);
    }

    pub(crate) fn leased(&mut self, verifier: VerifierId, now: Instant) {
        (self.verifier, self.works) = (Some(verifier), false);
        self.watch(now);
    }

    /// The notice for a stalled reply; given once until there is progress.
    pub(crate) fn notice(&mut self, up: bool, waiting: bool, now: Instant) -> Option<Notice> {
        // Nothing is missing while the drafter is at work; check again after another period of silence.
        let Some(notice) = self.missing(up, waiting) else {
            self.watch(now);
            return None;
        };
        self.deadline = None;
        let news = self.said.as_ref() != Some(&notice);
        self.said = Some(notice.clone());
        news.then_some(notice)
    }

    /// The missing part: the connection, a lease, or a verdict.
    pub(crate) fn missing(&self, up: bool, waiting: bool) -> Option<Notice> {
        match &self.verifier {
            _ if !up => Some(Notice::NoBroker(self.loss.clone())),
            None => Some(Notice::NoVerifier),
            Some(verifier) if self.works => waiting.then(|| Notice::Working(verifier.clone())),
            Some(verifier) => waiting.then(|| Notice::NoVerdict(verifier.clone())),
        }
    }

    fn watch(&mut self, now: Instant) {
        if self.active {
            self.deadline = Some(now + PATIENCE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss() -> Loss {
        Loss { reason: "nothing listens at host:1883".into(), refused: false }
    }

    #[test]
    fn says_each_thing_once() {
        let second = Instant(1_000_000);
        let mut stall = Stall::default();
        stall.disconnected(loss(), Instant(0));
        assert_eq!(stall.deadline(), None);
        stall.begin(Instant(0));
        assert_eq!(stall.deadline(), Some(second));
        assert_eq!(stall.notice(false, true, second), Some(Notice::NoBroker(Some(loss()))));
        stall.disconnected(loss(), second);
        assert_eq!(stall.notice(false, true, Instant(2_000_000)), None);
        stall.connected(second);
        assert_eq!(stall.notice(true, true, Instant(2_000_000)), Some(Notice::NoVerifier));
        let verifier: VerifierId = "v1".parse().unwrap();
        stall.leased(verifier.clone(), second);
        assert_eq!(stall.notice(true, false, second), None);
        assert!(stall.deadline().is_some());
        assert_eq!(stall.notice(true, true, second), Some(Notice::NoVerdict(verifier.clone())));
        stall.works(second);
        assert_eq!(stall.notice(true, true, second), Some(Notice::Working(verifier.clone())));
        stall.works(second);
        assert_eq!((stall.deadline(), stall.notice(true, true, second)), (None, None), "said already");
        stall.moved_on(second);
        assert_eq!(stall.notice(true, true, second), Some(Notice::NoVerdict(verifier)));
        stall.end();
        assert_eq!(stall.deadline(), None);
    }
}
