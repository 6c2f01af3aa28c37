//! When a snapshot is logged without being asked for.

use dunlin_hlm::time::{Duration, Instant};

/// Time between two logs of a program that runs on.
pub const LOG_INTERVAL: Duration = Duration::from_millis(600_000);

/// Regular times, each a [`LOG_INTERVAL`] behind the one before.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    next: Instant,
}

impl Schedule {
    /// A schedule whose first time is an interval behind `now`.
    pub fn start(now: Instant) -> Self {
        Self { next: now + LOG_INTERVAL }
    }

    /// The time to ask again at.
    pub fn deadline(&self) -> Instant {
        self.next
    }

    /// Whether a log is due; it is then due again an interval behind `now`, so that a program that was held up logs
    /// once and not once for each interval it missed.
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
