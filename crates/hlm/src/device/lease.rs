//! The lease: asked for, held, lost and asked for again.

use super::candidates::{Demands, Fit};
use super::{Device, Event, Finish, Offline, PinnedTarget};
use crate::time::{Duration, Instant};
use alloc::vec::Vec;
use dunlin_wire::{CloseReason, Closed, Lease, RefusalReason, Reply, Resync, VerifierId, VerifierPresence};

/// Unanswered sends of one frame after which the verifier counts as lost.
pub(crate) const SILENT_SENDS_MAX: u32 = 3;
/// Time in which a verifier that fits may still announce itself to a session without text.
const UNSUITED_AFTER: Duration = Duration::from_millis(1_000);
/// First wait before a lease is asked for again; doubled each time.
const OPEN_BACKOFF: Duration = Duration::from_millis(500);
/// Longest wait before a lease is asked for again.
const OPEN_BACKOFF_MAX: Duration = Duration::from_millis(30_000);

/// Who verifies.
#[derive(Debug)]
pub(super) enum Lessor {
    /// Nobody was asked.
    None,
    /// A lease is wanted.
    Opening(Opening),
    /// A verifier promised.
    Leased(Leased),
}

/// A wanted lease.
#[derive(Debug)]
pub(super) struct Opening {
    /// When to ask, or ask again.
    pub(super) due: Instant,
    /// Since when verifiers are looked for.
    pub(super) since: Instant,
    /// The verifiers that were asked, or fell silent; each of the others comes first.
    pub(super) asked: Vec<VerifierId>,
}

impl Opening {
    pub(super) fn at(now: Instant) -> Self {
        Self { due: now, since: now, asked: Vec::new() }
    }
}

/// A lease.
#[derive(Debug)]
pub(super) struct Leased {
    pub(super) verifier: VerifierId,
    pub(super) target: PinnedTarget,
    pub(super) draft_tokens_max: usize,
    pub(super) context_tokens_max: usize,
    /// Tokens of the text that the verifier has, as far as is known.
    pub(super) synced: usize,
    /// Rounds of this epoch so far.
    pub(super) round: u32,
    pub(super) flight: Option<Flight>,
}

/// The frame under way.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) round: u32,
    /// Length of the text the frame continues.
    pub(super) base: usize,
    /// The frame, last, and what goes before it.
    pub(super) messages: Vec<Vec<u8>>,
    /// Of the frame's bytes, its count of sends left out.
    pub(super) digest: u64,
    /// Committed tokens in front of the drafts.
    pub(super) riding: usize,
    pub(super) drafts: usize,
    /// Whether a verdict that accepts all drafts brings one more token.
    pub(super) bonus: bool,
    /// The next of the messages to be sent, or sent again; `None` where all of them are out.
    pub(super) next: Option<usize>,
    pub(super) sent: u32,
    pub(super) first_sent: Instant,
    /// When it counts as unanswered.
    pub(super) due: Option<Instant>,
}

impl Flight {
    /// What was sent into a dead connection is sent again on the next one.
    pub(super) fn link(&mut self, up: bool) {
        self.due = None;
        if up {
            self.next = Some(0);
        }
    }
}

impl Device {
    /// Takes a message from the reply topic.
    pub fn handle_reply(&mut self, bytes: &[u8], now: Instant) {
        self.counters.payload_bytes_down += bytes.len() as u64;
        match Reply::decode(bytes) {
            Err(error) => self.malformed(error),
            Ok(Reply::Lease(lease)) if self.asked(lease.session, lease.epoch, lease.nonce) => {
                self.on_lease(lease, now);
            }
            Ok(Reply::Refusal(refusal)) if self.asked(refusal.session, refusal.epoch, refusal.nonce) => {
                match refusal.reason {
                    RefusalReason::Full | RefusalReason::Draining => self.ask_another(now),
                    reason => self.leave(Finish::Refused(reason)),
                }
            }
            Ok(_) => self.counters.stale += 1,
        }
        self.go_on(now);
    }

    /// Whether an answer is to the request that is open.
    fn asked(&self, session: u8, epoch: u8, nonce: u64) -> bool {
        let own = (self.session.number, self.session.epoch, self.session.nonce);
        matches!(self.lessor, Lessor::Opening(_)) && (session, epoch, nonce) == own
    }

    fn on_lease(&mut self, lease: Lease, now: Instant) {
        let synced = self.agreed_length(lease.length, lease.digest);
        let target = PinnedTarget { id: lease.target, promise: lease.promise };
        if !self.take_target(target) {
            return;
        }
        self.events.push_back(Event::Leased { verifier: lease.verifier.clone(), target });
        self.lessor = Lessor::Leased(Leased {
            verifier: lease.verifier,
            target,
            draft_tokens_max: lease.draft_tokens_max.into(),
            context_tokens_max: lease.context_tokens_max as usize,
            synced,
            round: 0,
            flight: None,
        });
        if self.silence.go_online() {
            self.round.forget();
            self.events.push_back(Event::Returned);
        }
        if self.text.len() >= self.context_limit() {
            self.finish(Finish::ContextFull);
        }
        self.note_silence(now);
    }

    /// The verifier lacks part of the text: what is missing goes first, then the frame again.
    pub(super) fn on_resync(&mut self, resync: &Resync) {
        let agreed = self.agreed_length(resync.length, resync.digest);
        if let Lessor::Leased(leased) = &mut self.lessor
            && let Some(flight) = leased.flight.as_mut().filter(|flight| flight.round == resync.round)
        {
            leased.synced = agreed;
            flight.next = Some(0);
            self.counters.resyncs += 1;
            self.events.push_back(Event::Resynced);
        } else {
            self.counters.stale += 1;
        }
    }

    pub(super) fn on_closed(&mut self, closed: &Closed, now: Instant) {
        match closed.reason {
            CloseReason::Rejected => self.leave(Finish::Rejected),
            CloseReason::Policy => self.leave(Finish::LossyRefused),
            CloseReason::Unknown | CloseReason::Draining | CloseReason::Failed => self.reopen(now),
        }
    }

    /// How much of the text a verifier shares that has `length` tokens with that digest: all of those or none.
    fn agreed_length(&self, length: u32, digest: dunlin_wire::Digest) -> usize {
        let length = length as usize;
        if self.text.full(length) == Some(digest) { length } else { 0 }
    }

    /// Gives the lease up and wants a new one under the next epoch, from another verifier where there is one.
    pub(super) fn reopen(&mut self, now: Instant) {
        self.session.epoch = self.session.epoch.wrapping_add(1);
        let mut opening = Opening::at(now);
        if let Lessor::Leased(leased) = &self.lessor {
            opening.asked.push(leased.verifier.clone());
        }
        self.lessor = Lessor::Opening(opening);
        if self.silence.tries() > 0 {
            self.ask_later(now);
        }
        self.note_silence(now);
    }

    /// Gives the lease up with the reply; what this epoch's verifier still says means nothing.
    pub(super) fn leave(&mut self, finish: Finish) {
        self.session.epoch = self.session.epoch.wrapping_add(1);
        self.lessor = Lessor::None;
        self.finish(finish);
    }

    /// Takes a verifier's presence; no bytes take it back.
    pub fn handle_presence(&mut self, verifier: &VerifierId, bytes: &[u8], now: Instant) {
        let had = self.has_candidate();
        match bytes {
            [] => self.learned.candidates.remove(verifier),
            bytes => match VerifierPresence::decode(bytes) {
                Err(error) => self.malformed(error),
                Ok(presence) => {
                    let demands = self.demands();
                    let kept = self.learned.candidates.update(verifier.clone(), presence, &demands);
                    self.counters.stale += u64::from(!kept);
                }
            },
        }
        if !had
            && self.has_candidate()
            && let Lessor::Opening(opening) = &mut self.lessor
        {
            opening.due = now;
        }
        self.go_on(now);
    }

    fn demands(&self) -> Demands {
        Demands {
            vocabulary: self.config.vocabulary,
            target: self.target,
            any_model: self.config.accept_model_change,
            nonce: self.session.nonce,
        }
    }

    /// Whether a verifier is there that may be asked.
    pub(super) fn has_candidate(&self) -> bool {
        self.learned.candidates.any(&self.demands())
    }

    /// The verifier to ask now.
    pub(super) fn choose(&mut self) -> Option<VerifierId> {
        let demands = self.demands();
        let Lessor::Opening(opening) = &mut self.lessor else { return None };
        let (chosen, fresh) = self.learned.candidates.choose(&demands, &opening.asked)?;
        if !fresh {
            opening.asked.clear();
        }
        opening.asked.push(chosen.clone());
        Some(chosen.clone())
    }

    /// When it is settled that no verifier fits though some are there. A session without text waits until retained
    /// presence has come; one with text as long as for any answer, since the verifier that wrote it may come back.
    pub(super) fn unsuited_at(&self) -> Option<Instant> {
        let Lessor::Opening(opening) = &self.lessor else { return None };
        let waits = self.link_up && self.config.offline == Offline::Wait && !self.has_candidate();
        self.learned.candidates.unsuited(&self.demands()).filter(|_| waits)?;
        let patience = if self.target.is_some() { self.config.give_up_after } else { UNSUITED_AFTER };
        Some(opening.since + patience)
    }

    /// Ends the reply, for the reason that the best of the verifiers gives.
    pub(super) fn refuse_unsuited(&mut self) {
        let unsuited = self.learned.candidates.unsuited(&self.demands()).map(|(fit, presence)| {
            let theirs = presence.target;
            match self.target {
                Some(ours) if fit == Fit::OtherWeights => Finish::OtherTarget { ours: ours.id, theirs },
                _ => Finish::Refused(RefusalReason::Vocabulary(presence.vocabulary)),
            }
        });
        if let Some(finish) = unsuited {
            self.leave(finish);
        }
    }

    /// Holds a lease's target against the one that wrote the text; false where the lease is not taken.
    fn take_target(&mut self, offered: PinnedTarget) -> bool {
        let demands = self.demands();
        let fit = demands.fit(self.config.vocabulary, offered);
        let Some(pinned) = self.target.filter(|_| fit != Fit::Same) else { return true };
        if !demands.take(fit) {
            self.leave(Finish::OtherTarget { ours: pinned.id, theirs: offered.id });
            return false;
        }
        self.target = Some(offered);
        let (position, model) = (self.text.len(), fit == Fit::OtherWeights);
        self.events.push_back(Event::TargetChanged { position, model });
        true
    }

    /// Asks the next verifier at once, or where all were asked, the best one later.
    fn ask_another(&mut self, now: Instant) {
        let demands = self.demands();
        let Lessor::Opening(opening) = &mut self.lessor else { return };
        match self.learned.candidates.choose(&demands, &opening.asked) {
            Some((_, true)) => opening.due = now,
            _ => self.ask_later(now),
        }
    }

    fn ask_later(&mut self, now: Instant) {
        let due = now + self.backoff();
        if let Lessor::Opening(opening) = &mut self.lessor {
            opening.due = due;
        }
    }

    /// The wait before the next request: doubled each time, spread by a quarter so that a fleet does not ask at once.
    pub(super) fn backoff(&self) -> Duration {
        let doubled = OPEN_BACKOFF.0 << self.silence.tries().saturating_sub(1).min(16);
        let base = doubled.min(OPEN_BACKOFF_MAX.0);
        let spread = self.session.nonce.rotate_left(self.silence.tries()) % (base / 4 + 1);
        Duration(base - spread)
    }

    /// The frame was not answered in time.
    pub(super) fn resend(&mut self, now: Instant) {
        let Lessor::Leased(Leased { flight: Some(flight), .. }) = &mut self.lessor else { return };
        flight.due = None;
        self.learned.rtt.back_off();
        if flight.sent >= SILENT_SENDS_MAX {
            self.reopen(now);
        } else {
            flight.next = Some(0);
        }
    }
}
