//! Verifiers' presence: the ones to choose from while a lease is sought, and the lessor's end while there is one.
//!
//! Invariant: presence is a hint. It moves a request or a resend forward, and never commits or drops a token.

use super::Device;
use super::candidates::PresenceEffect;
use super::lease::{Leased, Lessor};
use crate::time::Instant;
use dunlin_wire::{Liveness, VerifierId, VerifierPresence};

/// The verifiers whose presence a device must receive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PresenceScope {
    /// None: no lease is sought.
    #[default]
    Nobody,
    /// This one, which gave the lease.
    Lessor(VerifierId),
    /// All: one of them is sought.
    All,
}

impl Device {
    /// The verifiers whose presence is needed now. The last presence of the others stays known.
    pub fn presence_scope(&self) -> PresenceScope {
        match &self.lessor {
            // Others may be needed soon, and what the broker sends of them shows that the link works.
            Lessor::Leased(leased) if leased.is_silent() => PresenceScope::All,
            Lessor::Leased(leased) => PresenceScope::Lessor(leased.verifier.clone()),
            Lessor::Opening(_) if self.saying.is_some() => PresenceScope::All,
            Lessor::Opening(_) | Lessor::None => PresenceScope::Nobody,
        }
    }

    /// Takes a verifier's presence; an empty message withdraws it.
    pub fn handle_presence(&mut self, verifier: &VerifierId, bytes: &[u8], now: Instant) {
        let had = self.has_candidate();
        match bytes {
            [] => self.learned.candidates.remove(verifier),
            bytes => match VerifierPresence::decode(bytes) {
                Err(error) => self.malformed(error),
                Ok(presence) => self.on_presence(verifier, presence, now),
            },
        }
        let has = self.has_candidate();
        if let Lessor::Opening(opening) = &mut self.lessor {
            match (had, has) {
                // The first verifier to appear is asked at once, without waiting for the backoff to end.
                (false, true) => opening.due = now,
                // The last one went: the time in which another may appear begins here.
                (true, false) => opening.since = now,
                _ => {}
            }
        }
        self.go_on(now);
    }

    fn on_presence(&mut self, verifier: &VerifierId, presence: VerifierPresence, now: Instant) {
        let demands = self.demands();
        let (is_here, is_draining) = (presence.liveness == Liveness::Here, presence.draining);
        let reconnected = match self.learned.candidates.update(verifier.clone(), presence, &demands) {
            PresenceEffect::Dropped => {
                self.counters.stale += 1;
                false
            }
            PresenceEffect::Late => return,
            PresenceEffect::Kept { reconnected } => reconnected,
        };
        let round_trip = self.usual_round_trip();
        match &mut self.lessor {
            Lessor::Leased(leased) if leased.verifier != *verifier && leased.is_silent() => {
                leased.link_works = true;
                let due = now + round_trip;
                if let Some(flight) = &mut leased.flight {
                    flight.due = flight.due.map(|at| at.min(due));
                }
            }
            Lessor::Leased(leased) if leased.verifier == *verifier && !is_here => self.lessor_gone(now),
            Lessor::Leased(leased) if leased.verifier == *verifier && reconnected => {
                leased.hurry(self.link_up, now);
            }
            // The one that was asked can't answer any more, so the next one is asked.
            Lessor::Opening(opening)
                if opening.asked.last() == Some(verifier)
                    && opening.asked_at.is_some()
                    && (!is_here || is_draining) =>
            {
                opening.asked_at = None;
                self.ask_another(now);
            }
            _ => {}
        }
    }

    /// The lessor's connection ended. Another verifier is asked at once: no backoff, since it's known what happened.
    fn lessor_gone(&mut self, now: Instant) {
        self.counters.lessors_lost += 1;
        self.reopen(now);
        let others = self.has_candidate();
        if let Lessor::Opening(opening) = &mut self.lessor
            && others
        {
            opening.due = now;
        }
    }

    /// Notes that the lessor's answer committed tokens.
    pub(super) fn prove_lessor(&mut self) {
        if let Lessor::Leased(leased) = &self.lessor {
            self.learned.candidates.prove(&leased.verifier);
        }
    }
}

impl Leased {
    /// True from the time at which the verifier was asked a second time until it answers.
    fn is_silent(&self) -> bool {
        self.flight.as_ref().is_some_and(|flight| flight.silent > 0)
    }

    /// The verifier connected anew. What was sent to its old connection, or by it, may be lost, so everything is sent
    /// again at once. If it has restarted, it answers that it doesn't know the lease.
    fn hurry(&mut self, link_up: bool, now: Instant) {
        if let Some(flight) = self.flight.as_mut().filter(|flight| flight.sent > 0) {
            flight.link(link_up);
        } else if let Some(stream) = &mut self.stream {
            stream.link(link_up, now);
        }
    }
}
