//! Decides when the load is announced.
//!
//! Invariant: it reads no clock. Two announcements of a load are at least [`ANNOUNCE_INTERVAL`] apart, since each is a
//! message to every device that seeks a lease.

use dunlin_hlm::time::{Duration, Instant};

/// Minimum time between two announcements of the load.
pub(crate) const ANNOUNCE_INTERVAL: Duration = Duration::from_millis(10_000);

/// The load that devices know. A connection announces it too, whatever its age.
#[derive(Debug, Default)]
pub(crate) struct AnnouncedLoad {
    load: u8,
    /// Time of the last announcement of a change.
    at: Option<Instant>,
}

impl AnnouncedLoad {
    /// The time at which `load` must be announced; `None` if devices know it.
    pub(crate) fn due(&self, load: u8) -> Option<Instant> {
        let due = self.at.map_or(Instant(0), |at| at + ANNOUNCE_INTERVAL);
        (load != self.load).then_some(due)
    }

    /// Notes that `load` was announced.
    pub(crate) fn announced(&mut self, load: u8, now: Instant) {
        *self = Self { load, at: Some(now) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_announcements_are_ten_seconds_apart() {
        let mut known = AnnouncedLoad::default();
        assert_eq!(known.due(0), None);
        assert_eq!(known.due(31), Some(Instant(0)), "the first change at once");
        known.announced(31, Instant(5_000_000));
        assert_eq!(known.due(31), None);
        assert_eq!(known.due(0), Some(Instant(15_000_000)));
    }
}
