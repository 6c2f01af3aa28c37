//! The clock of a sensor and its thread: real, or moved on by a test.

use super::clock::Clock;
use dunlin_hlm::time::{Duration, Instant};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A clock that can also wait.
pub trait Timebase: Clone + Send {
    /// The current time.
    fn now(&self) -> Instant;

    /// Waits for a span of time.
    fn wait(&self, span: Duration);
}

impl Timebase for Clock {
    fn now(&self) -> Instant {
        Clock::now(self)
    }

    fn wait(&self, span: Duration) {
        #[expect(
            clippy::disallowed_methods,
            reason = "waiting is what is asked for here; tests use VirtualTime"
        )]
        std::thread::sleep(std::time::Duration::from_micros(span.0));
    }
}

/// A clock that only `wait` moves; its copies share it.
#[derive(Clone, Debug, Default)]
pub struct VirtualTime(Arc<AtomicU64>);

impl Timebase for VirtualTime {
    fn now(&self) -> Instant {
        Instant(self.0.load(Ordering::Relaxed))
    }

    fn wait(&self, span: Duration) {
        self.0.fetch_add(span.0, Ordering::Relaxed);
    }
}
