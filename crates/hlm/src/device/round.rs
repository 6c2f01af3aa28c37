//! How the time between two verdicts divides: with a run of the drafter under way, and without.
//!
//! Invariant: no clock; it is told what begins and ends, and when. The two parts sum to the time between the verdicts,
//! whatever ran across them.

use crate::time::{Duration, Instant};

/// The round under way.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// When the last verdict of this reply came: a reply's first round pays for its prompt and says nothing of the rest.
    started: Option<Instant>,
    /// Runs of the drafter that ended since.
    drafting: Duration,
    /// Since when the run under way counts.
    running: Option<Instant>,
}

/// What a round took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RoundTime {
    /// With the drafter running.
    pub(super) drafting: Duration,
    /// Without.
    pub(super) waiting: Duration,
}

impl Round {
    /// What was going on has no end that says anything.
    pub(super) fn forget(&mut self) {
        self.started = None;
    }

    /// The drafter was given a run.
    pub(super) fn run_begins(&mut self, now: Instant) {
        self.running = Some(now);
    }

    /// It gave the run back.
    pub(super) fn run_ends(&mut self, now: Instant) {
        if let Some(since) = self.running.take() {
            self.drafting = self.drafting + now.since(since);
        }
    }

    /// A verdict ends the round and begins the next; `None` for a round that says nothing. A run under way belongs
    /// to both, each with its part.
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
        let mut round = Round::default();
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
        let mut round = Round::default();
        round.verdict(Instant(0));
        round.run_begins(Instant(10));
        round.forget();
        assert_eq!(round.verdict(Instant(20)), None);
        round.run_ends(Instant(25));
        assert_eq!(round.verdict(Instant(40)), time(5, 15));
    }

    #[test]
    fn a_clock_that_steps_back_leaves_the_sum() {
        let mut round = Round::default();
        round.verdict(Instant(0));
        round.run_begins(Instant(0));
        round.run_ends(Instant(80));
        round.run_begins(Instant(20));
        round.run_ends(Instant(90));
        assert_eq!(round.verdict(Instant(100)), time(100, 0));
        assert_eq!(round.verdict(Instant(50)), time(0, 0));
    }
}
