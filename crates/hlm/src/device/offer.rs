//! The choice between two verifiers by when their targets are free.
//!
//! A pass of a target can't be interrupted, so a text that moves waits for the one under way. With a slow target that is
//! most of the gap in the text, and the next verifier's target may be free much sooner.

use super::Device;
use super::lease::{Lessor, Opening};
use crate::time::{Duration, Instant};
use dunlin_wire::{Close, Lease, VerifierId};

/// Least wait for which another verifier is asked, too, as a multiple of a round trip.
const WORTH_ASKING: u64 = 2;
/// The same for one that left a request or a frame without an answer before.
const WORTH_ASKING_SILENT: u64 = 8;

/// A lease that was granted, and is kept in mind while another verifier is asked.
#[derive(Debug)]
pub(super) struct Offer {
    verifier: VerifierId,
    epoch: u8,
    /// Time at which its target takes the next frame.
    free: Instant,
}

/// The end of a lease at a verifier.
pub(super) type Parting = (VerifierId, Close);

impl Opening {
    /// The verifier to go back to: the offer stands, and the one that was asked beside it said nothing better.
    pub(super) fn take_offer(&mut self) -> Option<VerifierId> {
        self.offer.take().map(|offer| offer.verifier)
    }
}

impl Device {
    /// True if the lease isn't taken, since another verifier is asked first or has offered to begin sooner. A text that
    /// moves asks two, if the first would let it wait.
    pub(super) fn looks_further(&mut self, lease: &Lease, now: Instant) -> bool {
        let wait = Duration(lease.price.queue.us().unwrap_or(0));
        let round_trip = self.usual_round_trip();
        let others = self.has_equal(wait.0 > WORTH_ASKING_SILENT * round_trip.0);
        let Lessor::Opening(opening) = &mut self.lessor else { return false };
        let offer = Offer { verifier: lease.verifier.clone(), epoch: lease.epoch, free: now + wait };
        match opening.offer.take() {
            None => {
                let moves = opening.left.is_some() && opening.asked.len() == 1;
                let asks = moves && others && wait.0 > WORTH_ASKING * round_trip.0;
                if asks {
                    (opening.offer, opening.asked_at, opening.due) = (Some(offer), None, now);
                }
                asks
            }
            Some(first) if first.free < offer.free => {
                (opening.offer, opening.asked_at, opening.due) = (Some(first), None, now);
                self.part(offer);
                true
            }
            Some(first) => {
                self.part(first);
                false
            }
        }
    }

    /// Returns a lease that isn't used.
    fn part(&mut self, offer: Offer) {
        self.partings.push(self.parting(offer.verifier, offer.epoch));
    }

    /// The end of a lease of this session.
    pub(super) fn parting(&self, verifier: VerifierId, epoch: u8) -> Parting {
        (verifier, Close { session: self.session.number, epoch })
    }

    /// Returns the lease of a verifier that fell silent, now that `next` has the session. If it goes on, it must not write
    /// what nobody reads.
    pub(super) fn part_from_silent(&mut self, next: &VerifierId) {
        let Lessor::Opening(opening) = &mut self.lessor else { return };
        let silent = opening.silent.take().filter(|(verifier, _)| verifier != next);
        self.partings.extend(silent);
    }
}
