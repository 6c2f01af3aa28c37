//! The pause before the next connection: it doubles, and no two verifiers keep the same time.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The first pause, at most.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// The pauses of a link.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The pause after a connection that lasted `lasted`: one that held longer than any pause starts afresh, so
    /// that two clients of one name don't throw each other out ten times a second.
    pub(super) fn pause(&mut self, lasted: Duration) -> Duration {
        if lasted > PAUSE_MAX {
            self.failures = 0;
        }
        let whole = PAUSE_MIN.saturating_mul(1 << self.failures.min(16)).min(PAUSE_MAX);
        self.failures = self.failures.saturating_add(1);
        let half = whole / 2;
        half + half.mul_f64(jitter())
    }
}

/// A number in [0, 1) that differs from process to process and call to call.
fn jitter() -> f64 {
    (RandomState::new().hash_one(0) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_limit_and_start_afresh() {
        let mut backoff = Backoff::default();
        for failure in 0..40 {
            let whole = PAUSE_MIN.saturating_mul(1 << failure.min(16)).min(PAUSE_MAX);
            let pause = backoff.pause(Duration::ZERO);
            assert!(whole / 2 <= pause && pause <= whole, "{failure}: {pause:?}");
        }
        assert!(backoff.pause(PAUSE_MAX * 2) <= PAUSE_MIN);
    }

    #[test]
    fn jitter_varies() {
        let first = jitter();
        assert!((0.0..1.0).contains(&first));
        assert!((0..64).any(|_| jitter() != first));
    }
}
