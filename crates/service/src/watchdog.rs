//! When the watchdog is due, and when it must go hungry.

use dunlin_hlm::time::{Duration, Instant};

/// How long a worker may go without moving while it owes something, unless it is told otherwise.
const PATIENCE: Duration = Duration::from_millis(60_000);

/// What a pass of the loop did for the watchdog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fed {
    /// Feed it now.
    Yes,
    /// It is not due.
    NotDue,
    /// It is due, and from here on it is not fed: the worker does not move.
    Stuck,
    /// As before.
    StillStuck,
}

/// Counts by the loop's clock alone.
pub(crate) struct Watchdog {
    pub(crate) patience: Duration,
    /// Half of what the manager allows.
    every: Duration,
    due: Instant,
    /// How far the worker had come when it was last seen to move, and when that was.
    owed: Option<(u64, Instant)>,
    stuck: bool,
}

impl Watchdog {
    /// A watchdog that bites after `limit` without food; at first it is hungry.
    pub(crate) fn new(limit: Duration) -> Self {
        let every = Duration((limit.0 / 2).max(1));
        Self { patience: PATIENCE, every, due: Instant(0), owed: None, stuck: false }
    }

    /// When it is due.
    pub(crate) fn deadline(&self) -> Instant {
        self.due
    }

    /// The loop passes; `owed` is how far the worker has come, where it owes something.
    pub(crate) fn pass(&mut self, owed: Option<u64>, now: Instant) -> Fed {
        self.owed = owed.map(|step| match self.owed {
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

    /// What passes once a second give, of a worker that has come as far as `steps` say.
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
