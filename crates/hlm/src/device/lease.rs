//! The lease: requesting it, holding it, losing it and requesting it again.

use super::candidates::{Demands, TargetFit};
use super::drafting::judged_max;
use super::offer::{Offer, Parting};
use super::stream::Stream;
use super::{Device, DeviceEvent, Finish, Offline, PinnedTarget};
use crate::time::{Duration, Instant};
use alloc::vec::Vec;
use dunlin_wire::{
    CloseReason, Closed, CouplingProfile, Lease, Price, RefusalReason, Reply, Resync, VerifierId,
};

/// Sends in a row without any sign of the verifier after which the lease is given up.
pub(crate) const SILENT_SENDS_MAX: u32 = 3;
/// Time that a session without text waits for a fitting verifier to announce itself.
const UNSUITED_AFTER: Duration = Duration::from_millis(1_000);
/// First wait before the next request for a lease; doubled each time.
const OPEN_BACKOFF: Duration = Duration::from_millis(500);
/// Longest wait before the next request for a lease.
const OPEN_BACKOFF_MAX: Duration = Duration::from_millis(30_000);

/// The session's relation to a verifier.
#[allow(clippy::large_enum_variant)] // a device has one, and almost always a lease
#[derive(Debug)]
pub(super) enum Lessor {
    /// No lease is wanted.
    None,
    /// A lease is being requested.
    Opening(Opening),
    /// A verifier granted a lease.
    Leased(Leased),
}

/// A lease that is being requested.
#[derive(Debug)]
pub(super) struct Opening {
    /// Time of the next request.
    pub(super) due: Instant,
    /// Start of the search for a verifier.
    pub(super) since: Instant,
    /// Verifiers that were asked already or fell silent; all others are asked first.
    pub(super) asked: Vec<VerifierId>,
    /// The verifier of the lease before, if it was given up for a fault of its own: others that fit alike come first.
    pub(super) left: Option<VerifierId>,
    /// The lease before, if its verifier fell silent: it's returned once another verifier has the session.
    pub(super) silent: Option<Parting>,
    /// Time of the last request; `None` once it was answered, or where the link was lost since.
    pub(super) asked_at: Option<Instant>,
    /// A lease that was granted while another verifier is asked beside.
    pub(super) offer: Option<Offer>,
}

impl Opening {
    pub(super) fn at(now: Instant) -> Self {
        Self {
            due: now,
            since: now,
            asked: Vec::new(),
            left: None,
            silent: None,
            asked_at: None,
            offer: None,
        }
    }
}

/// A lease.
#[derive(Debug)]
pub(super) struct Leased {
    pub(super) verifier: VerifierId,
    pub(super) target: PinnedTarget,
    /// The rule by which its target's choices are drawn, and so the drafts.
    pub(super) coupling: CouplingProfile,
    /// The price of its work, as it said last.
    pub(super) price: Price,
    pub(super) draft_tokens_max: usize,
    pub(super) context_tokens_max: usize,
    /// Size of the target's vocabulary: every id of the session is below it.
    pub(super) vocabulary_size: u32,
    /// Most tokens of one credit; 0 if the verifier accepts none.
    pub(super) credit_tokens_max: usize,
    /// Tokens of the text that the verifier is believed to have.
    pub(super) synced: usize,
    /// Rounds of this epoch so far.
    pub(super) round: u32,
    pub(super) flight: Option<Flight>,
    /// True once the broker has answered since the verifier fell silent.
    pub(super) link_works: bool,
    /// The credit in use.
    pub(super) stream: Option<Stream>,
    /// A frame that ends the credit of a reply that has ended.
    pub(super) farewell: Option<Vec<u8>>,
}

/// The frame under way.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) round: u32,
    /// Length of the text that the frame continues.
    pub(super) base: usize,
    /// Messages in sending order: the weights of full rows, then the frame.
    pub(super) messages: Vec<Vec<u8>>,
    /// Digest of the frame's bytes without its send count.
    pub(super) digest: u64,
    /// Committed tokens in front of the drafts.
    pub(super) riding: usize,
    pub(super) drafts: usize,
    /// True when a verdict that accepts all drafts adds one more token.
    pub(super) bonus: bool,
    /// True when a continuation answers it and no verdict: it has credit and no drafts.
    pub(super) streams: bool,
    /// True when it asks for text again that may have been sent already.
    pub(super) asks_again: bool,
    /// Index of the next message to send; `None` when all of them are sent.
    pub(super) next: Option<usize>,
    pub(super) sent: u32,
    /// Sends without an answer since the last sign that the verifier or the link is alive.
    pub(super) silent: u32,
    pub(super) first_sent: Instant,
    /// The time from the frame's arrival to its answer, by what the verifier announced.
    pub(super) promised: Duration,
    /// The time from the frame's arrival to the first word on it, by what the verifier announced.
    pub(super) word: Duration,
    /// Time of the first message since then that the verifier works on it.
    pub(super) worked: Option<Instant>,
    /// Time at which the frame counts as unanswered; `None` until it is sent.
    pub(super) due: Option<Instant>,
}

impl Flight {
    /// Stops the timeout and, once the link is up, sends everything again: it may be lost with the old connection.
    pub(super) fn link(&mut self, up: bool) {
        self.due = None;
        self.silent = 0;
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
                self.on_refusal(refusal.reason, now);
            }
            Ok(_) => self.counters.stale += 1,
        }
        self.go_on(now);
    }

    /// True when a reply answers the open request.
    fn asked(&self, session: u8, epoch: u8, nonce: u64) -> bool {
        let own = (self.session.number, self.session.epoch, self.session.nonce);
        matches!(self.lessor, Lessor::Opening(_)) && (session, epoch, nonce) == own
    }

    /// Asks the next verifier. A reason that stays ends the reply once no other verifier is left to ask.
    fn on_refusal(&mut self, reason: RefusalReason, now: Instant) {
        if let Lessor::Opening(opening) = &mut self.lessor {
            opening.asked_at = None;
        }
        if let RefusalReason::Vocabulary(theirs) = reason
            && let Lessor::Opening(opening) = &self.lessor
            && let Some(verifier) = opening.asked.last()
        {
            self.learned.candidates.refused(verifier, theirs);
            // One that fits may announce itself yet, as where no verifier's announcement fits.
            let waits = self.config.offline == Offline::Trust || self.unsuited_at().is_some();
            if waits && !self.has_candidate() {
                return self.ask_later(now);
            }
        }
        let passes = matches!(reason, RefusalReason::Full | RefusalReason::Draining);
        if passes || self.next_candidate().is_some_and(|(_, fresh)| fresh) {
            self.ask_another(now);
        } else {
            self.leave(Finish::Refused(reason));
        }
    }

    fn on_lease(&mut self, lease: Lease, now: Instant) {
        let synced = self.agreed_length(lease.length, lease.digest);
        let handshake = match &self.lessor {
            Lessor::Opening(opening) if opening.asked.len() == 1 => opening.asked_at.map(|at| now.since(at)),
            _ => None,
        };
        // The verifier has another text under this session's number and must drop it. Context that replaces it may be
        // lost, and the 16 bits of a frame's prefix must not decide between two texts that are known to differ.
        if synced < lease.length as usize {
            self.disowned = true;
            return self.ask_anew(now);
        }
        // The text may have come from a verifier, or a tokenizer, that has more tokens.
        if self.text.tokens().iter().any(|token| *token >= lease.vocabulary_size) {
            let theirs = self.learned.candidates.get(&lease.verifier).map(|presence| presence.vocabulary);
            let own = self.config.vocabulary;
            return self.leave(Finish::Refused(RefusalReason::Vocabulary(theirs.unwrap_or(own))));
        }
        if self.looks_further(&lease, now) {
            return;
        }
        let target = PinnedTarget { id: lease.target, promise: lease.promise };
        if !self.take_target(target) {
            self.learned.candidates.correct(&lease.verifier, target);
            if let Lessor::Opening(opening) = &mut self.lessor {
                opening.asked_at = None;
            }
            return self.ask_another(now);
        }
        self.part_from_silent(&lease.verifier);
        // Reset only now that the lease is accepted.
        self.disowned = false;
        self.events.push_back(DeviceEvent::Leased { verifier: lease.verifier.clone(), target });
        // What was drafted from more tokens than the target's, or from fewer, or with other noise, is not what its rules
        // would draw.
        if lease.vocabulary_size != self.vocabulary_size() || lease.coupling != CouplingProfile::SplitMix {
            self.drafted.clear();
            self.judged_max = judged_max(self.config.policy.payload(), lease.vocabulary_size);
        }
        self.lessor = Lessor::Leased(Leased {
            verifier: lease.verifier,
            target,
            coupling: lease.coupling,
            price: lease.price,
            vocabulary_size: lease.vocabulary_size,
            draft_tokens_max: lease.draft_tokens_max.into(),
            context_tokens_max: lease.context_tokens_max as usize,
            credit_tokens_max: lease.credit_tokens_max.into(),
            synced,
            round: 0,
            flight: None,
            link_works: false,
            stream: None,
            farewell: None,
        });
        if lease.credit_tokens_max == 0 && self.config.policy.credit_tokens_max() > 0 {
            self.events.push_back(DeviceEvent::NoCredit);
        }
        self.learned.economy.announce(lease.price);
        if let Some(sample) = handshake {
            self.learned.handshake.observe(sample);
            self.learned.economy.observe_handshake(sample);
        }
        // The time offline was not a round, so it must not count as the cost of a frame.
        if self.silence.go_online() {
            self.round.forget();
            self.events.push_back(DeviceEvent::Returned);
        }
        // The new verifier's context may be shorter than the one before.
        if self.text.len() >= self.context_limit() {
            self.finish(Finish::ContextFull);
        }
        self.note_silence(now);
    }

    /// Handles a request for context: sends the missing text first, then the same frame again.
    pub(super) fn on_resync(&mut self, resync: &Resync) {
        let agreed = self.agreed_length(resync.length, resync.digest);
        if let Lessor::Leased(leased) = &mut self.lessor
            && let Some(flight) = leased.flight.as_mut().filter(|flight| flight.round == resync.round)
        {
            leased.synced = agreed;
            flight.next = Some(0);
            flight.silent = 0;
            self.counters.resyncs += 1;
            self.events.push_back(DeviceEvent::Resynced);
        } else {
            self.counters.stale += 1;
        }
    }

    pub(super) fn on_closed(&mut self, closed: &Closed, now: Instant) {
        match closed.reason {
            // In these two cases the verifier would refuse the same frame again; in the others a new lease may help.
            CloseReason::Rejected => self.leave(Finish::Rejected),
            CloseReason::Policy => self.leave(Finish::LossyRefused),
            // It evicted the session or restarted, and may continue the same text at once. Where that led to no verdict
            // since the last request, others come first.
            CloseReason::Unknown if self.silence.tries() == 0 => self.reopen_anywhere(now),
            CloseReason::Unknown | CloseReason::Draining | CloseReason::Failed => self.reopen(now),
        }
    }

    /// Length of the text shared with a verifier that has `length` tokens with this digest: `length`, or 0 where the
    /// digest differs, since a digest can't show where two texts part.
    fn agreed_length(&self, length: u32, digest: dunlin_wire::Digest) -> usize {
        let length = length as usize;
        if self.text.full(length) == Some(digest) { length } else { 0 }
    }

    /// Gives up the lease of a verifier that doesn't answer.
    pub(super) fn leave_silent(&mut self, now: Instant) {
        let Lessor::Leased(leased) = &self.lessor else { return };
        self.learned.candidates.blame(&leased.verifier);
        let silent = self.parting(leased.verifier.clone(), self.session.epoch);
        self.reopen(now);
        if let Lessor::Opening(opening) = &mut self.lessor {
            opening.silent = Some(silent);
        }
    }

    /// Gives up the lease and requests a new one under the next epoch, from another verifier if one fits as well.
    pub(super) fn reopen(&mut self, now: Instant) {
        let left = match &self.lessor {
            Lessor::Leased(leased) => Some(leased.verifier.clone()),
            _ => None,
        };
        self.reopen_anywhere(now);
        if let Lessor::Opening(opening) = &mut self.lessor {
            opening.left = left;
        }
    }

    /// Gives up the lease and requests a new one under the next epoch.
    fn reopen_anywhere(&mut self, now: Instant) {
        self.session.epoch = self.session.epoch.wrapping_add(1);
        self.lessor = Lessor::Opening(Opening::at(now));
        // The first request goes out at once. Leases that never led to a verdict are requested more and more slowly.
        if self.silence.tries() > 0 {
            self.ask_later(now);
        }
        self.note_silence(now);
    }

    /// Ends the reply and gives up the lease. The new epoch makes later messages of that verifier stale.
    pub(super) fn leave(&mut self, finish: Finish) {
        self.session.epoch = self.session.epoch.wrapping_add(1);
        self.lessor = Lessor::None;
        self.finish(finish);
    }

    pub(super) fn demands(&self) -> Demands {
        Demands {
            vocabulary: self.config.vocabulary,
            prefixes: self.config.prefixes.clone(),
            target: self.target,
            any_model: self.config.accept_model_change,
            nonce: self.session.nonce,
        }
    }

    /// True when there is a verifier that may be asked.
    pub(super) fn has_candidate(&self) -> bool {
        self.learned.candidates.any(&self.demands())
    }

    /// Chooses the verifier to ask now and records it as asked.
    pub(super) fn choose(&mut self) -> Option<VerifierId> {
        if let Lessor::Opening(Opening { asked, asked_at: Some(_), .. }) = &self.lessor
            && let Some(last) = asked.last()
        {
            self.learned.candidates.blame(last);
        }
        let (next, fresh) = self.next_candidate()?;
        let next = next.clone();
        let Lessor::Opening(opening) = &mut self.lessor else { return None };
        let is_beside = opening.offer.is_some() && opening.asked.len() == 1;
        let chosen = if is_beside { next } else { opening.take_offer().unwrap_or(next) };
        // Two verifiers never hold leases of one epoch: what the one asked before still sends is stale from here on.
        if opening.asked.last().is_some_and(|last| *last != chosen) {
            self.session.epoch = self.session.epoch.wrapping_add(1);
        }
        // All of them were asked: start over with the best.
        if !fresh {
            opening.asked.clear();
        }
        opening.asked.push(chosen.clone());
        Some(chosen)
    }

    /// The verifier to ask next; the flag is true for one that was not asked since the lease ended.
    pub(super) fn next_candidate(&self) -> Option<(&VerifierId, bool)> {
        let Lessor::Opening(opening) = &self.lessor else { return None };
        self.learned.candidates.choose(&self.demands(), &opening.asked, opening.left.as_ref())
    }

    /// True if there is a verifier to ask that fits as well as the one that was asked.
    pub(super) fn has_equal(&self, or_silent: bool) -> bool {
        let Lessor::Opening(opening) = &self.lessor else { return false };
        let Some(last) = opening.asked.last() else { return false };
        self.learned.candidates.has_equal(&self.demands(), (last, opening.left.as_ref()), or_silent)
    }

    /// The time at which the device gives up because verifiers are online but none fits. A session without text waits
    /// only for retained presence messages to arrive. One with text waits for `give_up_after`, since the verifier that
    /// wrote the text may come back.
    pub(super) fn unsuited_at(&self) -> Option<Instant> {
        let Lessor::Opening(opening) = &self.lessor else { return None };
        let waits = self.link_up && self.config.offline == Offline::Wait && !self.has_candidate();
        self.learned.candidates.unsuited(&self.demands()).filter(|_| waits)?;
        let patience = if self.target.is_some() { self.config.give_up_after } else { UNSUITED_AFTER };
        Some(opening.since + patience)
    }

    /// Ends the reply; the reason is that of the verifier that fits best.
    pub(super) fn refuse_unsuited(&mut self) {
        let unsuited = self.learned.candidates.unsuited(&self.demands()).map(|(fit, presence)| {
            let theirs = presence.target;
            match self.target {
                Some(ours) if fit == TargetFit::OtherWeights => Finish::OtherTarget { ours: ours.id, theirs },
                _ => Finish::Refused(RefusalReason::Vocabulary(presence.vocabulary)),
            }
        });
        if let Some(finish) = unsuited {
            self.leave(finish);
        }
    }

    /// Compares a lease's target with the one that wrote the text; false if the lease is refused and the reply ended.
    fn take_target(&mut self, offered: PinnedTarget) -> bool {
        let demands = self.demands();
        let fit = demands.fit_of(offered);
        if fit == TargetFit::Same || !demands.take(fit) {
            return fit == TargetFit::Same;
        }
        self.target = Some(offered);
        let (position, model) = (self.text.len(), fit == TargetFit::OtherWeights);
        self.events.push_back(DeviceEvent::TargetChanged { position, model });
        true
    }

    /// Asks the next verifier at once; if all were asked, asks the best one again later.
    pub(super) fn ask_another(&mut self, now: Instant) {
        let fresh = self.next_candidate().is_some_and(|(_, fresh)| fresh);
        match &mut self.lessor {
            Lessor::Opening(opening) if fresh || opening.offer.is_some() => opening.due = now,
            _ => self.ask_later(now),
        }
    }

    /// Asks the same verifier under the next epoch.
    fn ask_anew(&mut self, now: Instant) {
        self.session.epoch = self.session.epoch.wrapping_add(1);
        if let Lessor::Opening(opening) = &mut self.lessor {
            opening.asked.pop();
            (opening.due, opening.asked_at) = (now, None);
        }
    }

    fn ask_later(&mut self, now: Instant) {
        let due = now + self.backoff();
        if let Lessor::Opening(opening) = &mut self.lessor {
            opening.due = due;
        }
    }

    /// The wait before the next request. It doubles each time and is shortened by up to a quarter, depending on the
    /// nonce, so that many devices don't ask at the same moment.
    pub(super) fn backoff(&self) -> Duration {
        let doubled = OPEN_BACKOFF.0 << self.silence.tries().saturating_sub(1).min(16);
        let base = doubled.min(OPEN_BACKOFF_MAX.0);
        let spread = self.session.nonce.rotate_left(self.silence.tries()) % (base / 4 + 1);
        Duration(base - spread)
    }

    /// Handles a frame that was not answered in time.
    pub(super) fn resend(&mut self, now: Instant) {
        let Lessor::Leased(Leased { flight: Some(flight), link_works, .. }) = &mut self.lessor else {
            return;
        };
        // The timer starts again with the next send.
        flight.due = None;
        flight.silent += 1;
        let is_hung = core::mem::take(link_works) && flight.silent > 1;
        self.learned.rtt.back_off();
        // After so many sends a lost message is unlikely: the verifier is gone or has lost the session.
        if flight.silent >= SILENT_SENDS_MAX || is_hung {
            self.leave_silent(now);
        } else {
            flight.next = Some(0);
        }
    }
}
