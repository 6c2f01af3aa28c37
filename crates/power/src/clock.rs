//! The process's monotonic clock, in the machine's microseconds.

use dunlin_hlm::time::Instant;
use std::time::Duration;

/// Time since the clock was started.
#[derive(Clone, Copy, Debug)]
pub struct Clock(tokio::time::Instant);

impl Clock {
    /// A clock at zero.
    pub fn start() -> Self {
        Self(tokio::time::Instant::now())
    }

    /// The time since the start.
    pub fn now(&self) -> Instant {
        Instant(u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// The time `at` on the runtime's clock; `None` gives a time a year ahead.
    pub fn deadline(&self, at: Option<Instant>) -> tokio::time::Instant {
        const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);
        self.0 + at.map_or(NEVER, |at| Duration::from_micros(at.0).min(NEVER))
    }
}
