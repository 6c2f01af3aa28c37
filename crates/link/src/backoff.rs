//! The pause before the next connection: doubled after each attempt, and jittered so that programs don't stay in
//! step.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

/// Upper limit of the first pause.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// The longest pause while the broker was seen recently, because it is then probably restarting.
const PAUSE_SEEN_MAX: Duration = Duration::from_secs(1);
/// Time after a connection that the broker accepted during which it counts as recently seen.
const SEEN: Duration = Duration::from_secs(60);

/// The pauses between the connections of one program.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
    /// The end of the last connection that the broker accepted.
    seen: Option<Instant>,
}

impl Backoff {
    /// The pause after a connection that lasted from `since` to `now`, and that the broker `accepted` or not.
    ///
    /// Only a connection that outlasted the longest pause resets the doubling. Two clients with the same id
    /// disconnect each other again and again; each of their connections lasts only for the other's pause. So their
    /// pauses grow to 1 s and stay there, instead of being reset to 0.1 s every time.
    ///
    /// If the broker has accepted a connection within the last minute, it is known to exist, and no pause exceeds
    /// [`PAUSE_SEEN_MAX`]: a device comes back soon after the broker does.
    pub(crate) fn pause(&mut self, since: Instant, now: Instant, accepted: bool) -> Duration {
        if accepted {
            self.seen = Some(now);
            if now.saturating_duration_since(since) > PAUSE_MAX {
                self.failures = 0;
            }
        }
        let lately = self.seen.is_some_and(|seen| now.saturating_duration_since(seen) < SEEN);
        let longest = if lately { PAUSE_SEEN_MAX } else { PAUSE_MAX };
        let whole = PAUSE_MIN.saturating_mul(1 << self.failures.min(16)).min(longest);
        self.failures = self.failures.saturating_add(1);
        // Between half of the pause and all of it.
        let half = whole / 2;
        half + half.mul_f64(jitter())
    }
}

/// A number in [0, 1) that differs between processes and calls.
fn jitter() -> f64 {
    (RandomState::new().hash_one(0) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Simulates `count` attempts that fail at once, starting at `now`; returns the end of the last pause.
    fn failing(backoff: &mut Backoff, mut now: Instant, count: u32, longest: Duration) -> Instant {
        for failure in 0..count {
            let whole = PAUSE_MIN.saturating_mul(1 << failure.min(16)).min(longest);
            let pause = backoff.pause(now, now, false);
            assert!(whole / 2 <= pause && pause <= whole, "{failure}: {pause:?}");
            now += pause;
        }
        now
    }

    #[test]
    fn pauses_double_up_to_their_limit_where_the_broker_was_never_seen() {
        failing(&mut Backoff::default(), Instant::now(), 40, PAUSE_MAX);
    }

    #[test]
    fn only_a_connection_that_outlasts_every_pause_starts_afresh() {
        let mut backoff = Backoff::default();
        let mut now = failing(&mut backoff, Instant::now(), 10, PAUSE_MAX);
        for lasted in [Duration::from_secs(5), PAUSE_MAX] {
            let pause = backoff.pause(now, now + lasted, true);
            assert!((PAUSE_SEEN_MAX / 2..=PAUSE_SEEN_MAX).contains(&pause), "{lasted:?}: {pause:?}");
            now += lasted + pause;
        }
        assert!(backoff.pause(now, now + PAUSE_MAX + Duration::from_millis(1), true) <= PAUSE_MIN);
    }

    #[test]
    fn pauses_stay_short_for_a_minute_after_an_accepted_connection() {
        let mut backoff = Backoff::default();
        let lost = failing(&mut backoff, Instant::now(), 10, PAUSE_MAX);
        let mut now = lost + backoff.pause(lost, lost, true);
        while now < lost + SEEN {
            let pause = backoff.pause(now, now, false);
            assert!(pause <= PAUSE_SEEN_MAX, "{:?} after the loss: {pause:?}", now - lost);
            now += pause;
        }
        assert!(
            backoff.pause(now, now, false) >= PAUSE_MAX / 2,
            "after that the broker may be gone for long"
        );
    }

    #[test]
    fn jitter_varies() {
        let first = jitter();
        assert!((0.0..1.0).contains(&first));
        assert!((0..64).any(|_| jitter() != first));
    }
}
