//! Splits the time between two verdicts into time with the drafter running and time without.
//!
//! Invariant: it reads no clock; callers pass the time of each event. The two parts sum to the time between the
//! verdicts, even when a run of the drafter spans a verdict.

use crate::time::{Duration, Instant};

/// The round under way.
#[derive(Debug, Default)]
pub(super) struct RoundClock {
    /// Time of this reply's last verdict. `None` in its first round, which includes the prompt's prefill and is not
    /// measured.
    started: Option<Instant>,
    /// Total time of the drafter's runs since then.
    drafting: Duration,
    /// Start of the run under way, or the last verdict if that is later.
    running: Option<Instant>,
}

/// Duration of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RoundTime {
    /// Time with the drafter running.
    pub(super) drafting: Duration,
    /// Time without.
    pub(super) waiting: Duration,
}

impl RoundClock {
    /// True when the round under way will be measured.
    pub(super) fn has_begun(&self) -> bool {
        self.started.is_some()
    }

    /// Drops the round under way: it won't be measured.
    pub(super) fn forget(&mut self) {
        self.started = None;
    }

    /// The drafter starts a run.
    pub(super) fn run_begins(&mut self, now: Instant) {
        self.running = Some(now);
    }

    /// The drafter ends a run.
    pub(super) fn run_ends(&mut self, now: Instant) {
        if let Some(since) = self.running.take() {
            self.drafting = self.drafting + now.since(since);
        }
    }

    /// Ends the round at a verdict and begins the next; `None` for a round that isn't measured. A run under way counts
    /// in both rounds, each with its part.
    pub(super) fn verdict(&mut self, now: Instant) -> Option<RoundTime> {
        if self.running.is_some() {
            self.run_ends(now);
            self.run_begins(now);
        }
        let drafting = core::mem::take(&mut self.drafting);
        let took = now.since(self.started.replace(now)?);
        // A clock that stepped back may have counted a run twice.
        let drafting = drafting.min(took);
        Some(RoundTime { drafting, waiting: took - drafting })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(drafting: u64, waiting: u64) -> Option<RoundTime> {
        Some(RoundTime { drafting: Duration(drafting), waiting: Duration(waiting) })
    }

    #[test]
    fn a_run_across_a_verdict_belongs_to_both_rounds() {
        let mut round = RoundClock::default();
        round.run_begins(Instant(5));
        assert_eq!(round.verdict(Instant(10)), None, "nothing says when the first round began");
        round.run_ends(Instant(14));
        round.run_begins(Instant(20));
        assert_eq!(round.verdict(Instant(23)), time(4 + 3, 6));
        assert_eq!(round.verdict(Instant(30)), time(7, 0));
        round.run_ends(Instant(30));
        assert_eq!(round.verdict(Instant(32)), time(0, 2));
    }

    #[test]
    fn what_was_forgotten_counts_in_no_round() {
        let mut round = RoundClock::default();
        round.verdict(Instant(0));
        round.run_begins(Instant(10));
        round.forget();
        assert_eq!(round.verdict(Instant(20)), None);
        round.run_ends(Instant(25));
        assert_eq!(round.verdict(Instant(40)), time(5, 15));
    }

    #[test]
    fn a_clock_that_steps_back_leaves_the_sum() {
        let mut round = RoundClock::default();
        round.verdict(Instant(0));
        round.run_begins(Instant(0));
        round.run_ends(Instant(80));
        round.run_begins(Instant(20));
        round.run_ends(Instant(90));
        assert_eq!(round.verdict(Instant(100)), time(100, 0));
        assert_eq!(round.verdict(Instant(50)), time(0, 0));
    }
}
