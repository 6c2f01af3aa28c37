//! What the agent says of itself to the service manager: how it stands with the broker, and with which model.
//!
//! Being ready has nothing to do with the broker: an agent without one is sound and keeps looking for it.

use crate::drafter::Worker;
use crate::link::{Broker, Loss};
use dunlin_hlm::time::Instant;
use dunlin_service::Service;
use dunlin_wire::VerifierId;

/// The service manager, and what it is told about.
pub struct Supervised {
    service: Service,
    broker: String,
    model: String,
}

impl Supervised {
    /// An agent that nobody manages.
    pub fn by_nobody() -> Self {
        Self { service: Service::unmanaged(), broker: String::new(), model: String::new() }
    }

    /// An agent that drafts with `model` and looks for `broker`.
    pub fn by(service: Service, broker: &Broker, model: &str) -> Self {
        let mut supervised = Self { service, broker: broker.to_string(), model: model.into() };
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

    /// There is no connection, or no longer.
    pub(crate) fn lost(&mut self, loss: &Loss) {
        let text = match loss.refused {
            true => format!("refused by {}: {}", self.broker, loss.reason),
            false => format!("looking for the broker at {}: {}", self.broker, loss.reason),
        };
        self.status(&text);
    }

    /// The agent ends.
    pub(crate) fn stopping(&mut self) {
        self.service.stopping();
    }

    /// When the loop should pass again for the manager's sake.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.service.deadline()
    }

    /// The loop passes.
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
