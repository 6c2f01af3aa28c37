//! Verdicts: what was drafted is committed or rolled back.

use super::lease::{Leased, Lessor};
use super::{Device, Event, Origin};
use crate::time::Instant;
use alloc::vec::Vec;
use dunlin_wire::{DecodeError, Down, Verdict};

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
            Ok(Down::Closed(closed)) if self.holds(closed.session, closed.epoch) => {
                self.on_closed(&closed, now)
            }
            Ok(_) => self.counters.stale += 1,
        }
        self.go_on(now);
    }

    pub(super) fn malformed(&mut self, error: DecodeError) {
        self.counters.malformed += 1;
        self.events.push_back(Event::Malformed(error));
    }

    /// Whether a message belongs to the lease that is held.
    fn holds(&self, session: u8, epoch: u8) -> bool {
        matches!(self.lessor, Lessor::Leased(_))
            && (session, epoch) == (self.session.number, self.session.epoch)
    }

    fn on_verdict(&mut self, verdict: &Verdict, now: Instant) {
        let Lessor::Leased(Leased { flight, .. }) = &mut self.lessor else { return };
        let (round, check, accepted) = (verdict.round, verdict.check, usize::from(verdict.accepted));
        let vocabulary = self.config.vocabulary.size;
        let known = verdict.token < vocabulary;
        let Some(flight) =
            flight.take_if(|f| known && f.round == round && f.check == check && accepted <= f.drafts)
        else {
            self.counters.stale += 1;
            return;
        };
        // Karn's rule: a round whose frame was sent twice says nothing about the time of one.
        if flight.sent == 1 {
            self.learned.rtt.observe(now.since(flight.first_sent));
        }
        self.counters.rounds += 1;
        self.counters.accepted += accepted as u64;
        let interrupted = self.told;
        self.answered();
        self.calibrate(accepted, flight.drafts, verdict);
        let before = self.text.len();
        self.apply(accepted, flight.drafts, verdict);
        let committed = self.text.len() - before;
        // An outage is no price of a frame.
        if let Some(started) = self.round_started.replace(now).filter(|_| !interrupted) {
            self.learned.stop.observe_round(committed, now.since(started));
        }
        if let Lessor::Leased(leased) = &mut self.lessor {
            leased.synced = self.text.len();
        }
    }

    /// Learns from the verdict; a draft made ahead was a guess at the verdict's own token, so its fate is known too.
    fn calibrate(&mut self, accepted: usize, sent: usize, verdict: &Verdict) {
        let guessed = self.drafted.get(sent).is_some_and(|ahead| ahead.scored.token == verdict.token);
        let agreed = accepted + usize::from(accepted == sent && guessed);
        let scores: Vec<_> = self.drafted.iter().take(sent + 1).map(|drafted| drafted.score).collect();
        self.learned.calibration.observe_verdict(&scores, agreed);
    }

    /// Commits what the target agreed with and its own token; keeps what was drafted ahead where that token was
    /// the one the device had drafted.
    fn apply(&mut self, accepted: usize, sent: usize, verdict: &Verdict) {
        let foreseen = self.drafted.get(accepted).map(|drafted| drafted.scored.token) == Some(verdict.token);
        let ahead = accepted == sent && foreseen;
        let rest = self.drafted.split_off(accepted);
        let agreed: Vec<_> = core::mem::take(&mut self.drafted);
        if ahead {
            self.drafted = rest.into_iter().skip(1).collect();
        }
        for drafted in agreed {
            self.commit(drafted.scored.token, Origin::Accepted);
        }
        let origin = if ahead { Origin::Accepted } else { Origin::Target };
        self.commit(verdict.token, origin);
    }
}
