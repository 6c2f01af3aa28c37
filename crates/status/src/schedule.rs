//! The schedule of logs that nobody requested.

use dunlin_hlm::time::{Duration, Instant};

/// Time between two logs of a long-running program.
pub const LOG_INTERVAL: Duration = Duration::from_millis(600_000);

/// Regular times, one [`LOG_INTERVAL`] apart.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    next: Instant,
}

impl Schedule {
    /// A schedule whose first time is one interval after `now`.
    pub fn start(now: Instant) -> Self {
        Self { next: now + LOG_INTERVAL }
    }

    /// The time to call [`is_due`](Self::is_due).
    pub fn deadline(&self) -> Instant {
        self.next
    }

    /// Returns true if a log is due. The next one is due an interval after `now`, so that a program that was
    /// suspended logs only once.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let due = now >= self.next;
        if due {
            self.next = now + LOG_INTERVAL;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_due_every_ten_minutes_and_once_after_a_pause() {
        let minutes = |minutes: u64| Instant(minutes * 60_000_000);
        let mut schedule = Schedule::start(minutes(1));
        let mut due = |at: u64| schedule.is_due(minutes(at));
        assert_eq!([1, 10, 11, 11, 20, 21].map(&mut due), [false, false, true, false, false, true]);
        assert_eq!([95, 96, 104, 105].map(&mut due), [true, false, false, true], "after a long pause");
        assert_eq!(schedule.deadline(), minutes(115));
    }
}
