//! The watchdog: when it is due, and when it must not be fed.

use dunlin_hlm::time::{Duration, Instant};

/// Default time for which a worker may make no progress while it owes a result.
const PATIENCE: Duration = Duration::from_millis(60_000);

/// The effect of a pass of the loop on the watchdog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fed {
    /// Feed it now.
    Yes,
    /// It is not yet due.
    NotDue,
    /// It is due but not fed from now on, because the worker makes no progress.
    Stuck,
    /// It is still not fed.
    StillStuck,
}

/// A watchdog that uses only the loop's clock.
pub(crate) struct Watchdog {
    pub(crate) patience: Duration,
    /// Half of the manager's limit.
    every: Duration,
    due: Instant,
    /// The worker's progress, and the time when it last changed.
    owed: Option<(u64, Instant)>,
    stuck: bool,
}

impl Watchdog {
    /// A watchdog with a `limit` between two feedings; the first one is due at once.
    pub(crate) fn new(limit: Duration) -> Self {
        let every = Duration((limit.0 / 2).max(1));
        Self { patience: PATIENCE, every, due: Instant(0), owed: None, stuck: false }
    }

    /// The time at which it is due.
    pub(crate) fn deadline(&self) -> Instant {
        self.due
    }

    /// Records a pass of the loop; `owed` is the worker's progress if it owes a result.
    pub(crate) fn pass(&mut self, owed: Option<u64>, now: Instant) -> Fed {
        self.owed = owed.map(|step| match self.owed {
            // No progress: keep the time of the last change. A worker that owes nothing has no time at all.
            Some((seen, since)) if seen == step => (seen, since),
            _ => (step, now),
        });
        if now < self.due {
            return Fed::NotDue;
        }
        self.due = now + self.every;
        let was_stuck = self.stuck;
        self.stuck = self.owed.is_some_and(|(_, since)| now.since(since) > self.patience);
        match (self.stuck, was_stuck) {
            (false, _) => Fed::Yes,
            (true, false) => Fed::Stuck,
            (true, true) => Fed::StillStuck,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    /// The results of one pass per second, with the worker's progress from `steps`.
    fn passes(steps: &[Option<u64>]) -> Vec<Fed> {
        let mut watchdog = Watchdog::new(Duration(4 * SECOND));
        watchdog.patience = Duration(3 * SECOND);
        let at = |second: usize| Instant(second as u64 * SECOND);
        steps.iter().enumerate().map(|(second, step)| watchdog.pass(*step, at(second))).collect()
    }

    #[test]
    fn it_is_fed_twice_as_often_as_it_asks_for() {
        use Fed::{NotDue, Yes};
        assert_eq!(passes(&[None; 5]), [Yes, NotDue, Yes, NotDue, Yes]);
    }

    #[test]
    fn it_goes_hungry_while_a_worker_is_stuck() {
        use Fed::{NotDue, StillStuck, Stuck, Yes};
        let owed = [Some(7), Some(7), Some(7), Some(7), Some(7), Some(7), Some(7), Some(8), Some(8)];
        assert_eq!(passes(&owed), [Yes, NotDue, Yes, NotDue, Stuck, NotDue, StillStuck, NotDue, Yes]);
    }

    #[test]
    fn a_worker_that_moves_or_owes_nothing_may_take_long() {
        let moving: Vec<_> = (0..9).map(Some).collect();
        let fed = |steps: &[_]| passes(steps).iter().filter(|fed| **fed == Fed::Yes).count();
        assert_eq!((fed(&moving), fed(&[None; 9])), (5, 5));
        let paid = [Some(1), Some(1), Some(1), Some(1), None, Some(1), Some(1), Some(1), Some(1)];
        assert_eq!(fed(&paid), 5, "the next debt counts from its own beginning");
    }
}
