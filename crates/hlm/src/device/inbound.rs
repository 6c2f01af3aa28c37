//! Verdicts: drafted tokens are committed or rolled back.

use super::lease::{Flight, Leased, Lessor};
use super::{Device, DeviceEvent, Judged, Origin};
use crate::policy::HeldTokens;
use crate::promise::{WORKED_MAX, believed};
use crate::time::{Duration, Instant};
use alloc::vec::Vec;
use dunlin_wire::{CloseReason, Closed, DecodeError, Down, LogTime, Verdict, Working};

impl Device {
    /// Takes a message from the verdict topic.
    pub fn handle_down(&mut self, bytes: &[u8], now: Instant) {
        self.counters.payload_bytes_down += bytes.len() as u64;
        match Down::decode(bytes) {
            Err(error) => self.malformed(error),
            Ok(Down::Verdict(verdict)) if self.holds(verdict.session, verdict.epoch) => {
                self.on_verdict(&verdict, now);
            }
            Ok(Down::Resync(resync)) if self.holds(resync.session, resync.epoch) => self.on_resync(&resync),
            Ok(Down::Closed(closed))
                if self.holds(closed.session, closed.epoch) && self.is_meant(&closed) =>
            {
                self.on_closed(&closed, now)
            }
            Ok(Down::Continuation(text)) if self.holds(text.session, text.epoch) => {
                self.on_continuation(&text, now);
            }
            Ok(Down::Working(working)) if self.holds(working.session, working.epoch) => {
                self.on_working(&working, now);
            }
            Ok(_) => self.counters.stale += 1,
        }
        self.go_on(now);
    }

    /// Waits longer. The message shows that the frame arrived and that the verifier lives, so the silence begins anew.
    fn on_working(&mut self, working: &Working, now: Instant) {
        let wait = believed(working.wait);
        let Lessor::Leased(leased) = &mut self.lessor else { return };
        let flight = leased.flight.as_mut().filter(|flight| flight.round == working.round && flight.sent > 0);
        let counts = match flight {
            Some(flight) => {
                let is_first = flight.worked.is_none();
                let since = *flight.worked.get_or_insert(now);
                // Sent a known time after the frame arrived, so it measures the round trip without the target.
                if is_first && flight.sent == 1 {
                    let sample = now.since(flight.first_sent) - flight.word;
                    self.learned.rtt.observe(sample);
                }
                let due = now + wait + self.learned.rtt.timeout_beside(&self.learned.handshake);
                let believed = now.since(since) < WORKED_MAX;
                if believed {
                    (flight.silent, flight.due) = (0, Some(due));
                    // What was about to be sent again has arrived.
                    flight.next = None;
                }
                believed
            }
            None => {
                let due = now + wait + self.round_trip();
                self.works_on_text(working.round, now, due)
            }
        };
        if counts {
            self.counters.working += 1;
            self.silence.restart(now);
            self.events.push_back(DeviceEvent::Working);
        } else {
            self.counters.stale += 1;
        }
    }

    /// Takes the times of an answer; unknown ones change nothing.
    pub(super) fn note_price(&mut self, pass: LogTime, queue: LogTime) {
        if let Lessor::Leased(leased) = &mut self.lessor
            && pass != LogTime::default()
        {
            (leased.price.pass, leased.price.queue) = (pass, queue);
        }
    }

    /// The time to wait for an answer that takes the target no time.
    pub(super) fn round_trip(&self) -> Duration {
        self.learned.rtt.timeout_beside(&self.learned.handshake)
    }

    /// The same without the doublings of a silence, which say nothing of the link where it is known to work.
    pub(super) fn usual_round_trip(&self) -> Duration {
        self.learned.rtt.undoubled_beside(&self.learned.handshake)
    }

    pub(super) fn malformed(&mut self, error: DecodeError) {
        self.counters.malformed += 1;
        self.events.push_back(DeviceEvent::Malformed(error));
    }

    /// True when a message belongs to the current lease.
    fn holds(&self, session: u8, epoch: u8) -> bool {
        matches!(self.lessor, Lessor::Leased(_))
            && (session, epoch) == (self.session.number, self.session.epoch)
    }

    /// True when a close message carries what a stranger can't guess: the session's nonce or, from a verifier that does
    /// not know the session, the digest of the frame under way.
    fn is_meant(&self, closed: &Closed) -> bool {
        match closed.reason {
            CloseReason::Unknown => self.flight().is_some_and(|flight| flight.digest == closed.nonce),
            _ => closed.nonce == self.session.nonce,
        }
    }

    fn on_verdict(&mut self, verdict: &Verdict, now: Instant) {
        let Lessor::Leased(Leased { flight, target, vocabulary_size, .. }) = &mut self.lessor else { return };
        let target = *target;
        // Taking the flight makes any copy of this verdict stale, so that no token is committed twice.
        let known = verdict.token < *vocabulary_size;
        let Some(flight) = flight.take_if(|f| known && f.is_answered_by(verdict)) else {
            self.counters.stale += 1;
            return;
        };
        // Karn's rule: after a second send, the round-trip time of one send is unknown.
        if flight.sent == 1 {
            let sample = now.since(flight.first_sent);
            if flight.worked.is_none() {
                self.learned.rtt.observe(sample - flight.promised);
            }
            self.learned.economy.announce_pass(verdict.pass, verdict.queue);
            self.observe_round_trip(sample);
        }
        self.note_price(verdict.pass, verdict.queue);
        let interrupted = self.silence.is_reported();
        self.answered();
        self.prove_lessor();
        // The session is pinned here, not at the lease: a target that wrote nothing binds nothing.
        self.target.get_or_insert(target);
        let before = self.text.len();
        self.apply(&flight, verdict);
        let committed = self.text.len() - before;
        // A round with a reported silence measures an outage, not the cost of a frame.
        if let Some(took) = self.round.verdict(now).filter(|_| !interrupted) {
            self.learned.stop.observe_round(committed, took.drafting, took.waiting);
            self.observe_drafting(flight.drafts, committed, took);
        }
        if let Lessor::Leased(leased) = &mut self.lessor {
            leased.synced = self.text.len();
        }
        self.expect_text(now);
        self.choose_next();
    }

    /// Commits the accepted drafts and the verdict's token. Tokens drafted ahead stay if the device had guessed that
    /// token.
    fn apply(&mut self, flight: &Flight, verdict: &Verdict) {
        // The verdict counts and numbers the committed tokens that rode along; here only the drafts matter.
        let accepted = usize::from(verdict.accepted) - flight.riding;
        let missed = verdict.missed.checked_shr(flight.riding as u32).unwrap_or(0);
        let foreseen = self.drafted.get(accepted).map(|drafted| drafted.scored.token) == Some(verdict.token);
        // Index of the verdict's token when nothing was rejected: the bonus, or without one the last draft.
        let end = if flight.bonus { flight.drafts } else { flight.drafts - 1 };
        let kept = foreseen && accepted == end;
        let agreed = accepted + usize::from(kept);
        self.learn(flight, agreed, missed);
        self.counters.rounds += 1;
        self.counters.accepted += agreed.min(flight.drafts) as u64 - u64::from(missed.count_ones());
        let rest = self.drafted.split_off(accepted);
        let standing = core::mem::replace(
            &mut self.drafted,
            if kept { rest.into_iter().skip(1).collect() } else { Vec::new() },
        );
        for (index, drafted) in standing.into_iter().enumerate() {
            let against = drafted.scored.stays && missed >> index & 1 == 1;
            let origin = if against { Origin::Trusted } else { Origin::Accepted };
            self.commit(drafted.scored.token, origin);
        }
        self.commit(verdict.token, if kept { Origin::Accepted } else { Origin::Target });
    }

    /// Learns from each draft that the verdict decides: those up to the first rejected one, and the guess at the bonus.
    /// Drafts behind a rejected one continued another text, so they teach nothing.
    fn learn(&mut self, flight: &Flight, agreed: usize, missed: u16) {
        let (epsilon, audits) =
            (self.config.policy.epsilon(), self.config.policy.held() == HeldTokens::Audited);
        let known = (agreed + 1).min(flight.drafts + usize::from(flight.bonus));
        for (index, drafted) in self.drafted.iter().take(known).enumerate() {
            let scored = &drafted.scored;
            let held = scored.stays && index < flight.drafts;
            let rejected = if held { missed >> index & 1 == 1 } else { index == agreed };
            self.learned.calibration.observe(drafted.score, rejected);
            if audits && let Some(conformal) = &mut self.learned.conformal {
                if held {
                    conformal.observe_audited(rejected, epsilon)
                } else {
                    conformal.observe_judged(scored.uncertainty, rejected, epsilon)
                }
            }
            self.counters.audited += u64::from(held);
            self.counters.missed += u64::from(held && rejected);
            self.events.push_back(DeviceEvent::Judged(Judged {
                position: self.text.len() + index,
                uncertainty: scored.uncertainty,
                importance: scored.importance,
                recent: scored.recent,
                held,
                rejected,
            }));
        }
    }
}

impl Flight {
    /// True when the verdict answers this frame and its numbers are possible: it names a send that was made, accepts at
    /// least the committed tokens that rode along, and at most all drafts.
    fn is_answered_by(&self, verdict: &Verdict) -> bool {
        let most = self.riding + self.drafts - usize::from(!self.bonus);
        let check = dunlin_wire::check_of(self.digest);
        !self.streams
            && (self.round, check) == (verdict.round, verdict.check)
            && u32::from(verdict.send) <= self.sent
            && (self.riding..=most).contains(&usize::from(verdict.accepted))
    }
}
