//! A token bucket: the bytes that may be sent now, at a rate with bursts up to a capacity.

use dunlin_hlm::time::{Duration, Instant};

const MICROS: u64 = 1_000_000;

/// A token bucket of bytes, in whole numbers so that it is the same on every machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenBucket {
    /// Bytes per second; 0 for no limit.
    rate: u32,
    /// Bytes of a burst.
    capacity: u32,
    /// Millionths of a byte that may be sent at `at`.
    level: u64,
    at: Instant,
}

impl TokenBucket {
    /// A full bucket. A `rate` of 0 is no limit.
    pub(crate) fn new(rate: u32, capacity: u32, now: Instant) -> Self {
        Self { rate, capacity, level: u64::from(capacity) * MICROS, at: now }
    }

    /// Sets another rate; what the bucket holds stays.
    pub(crate) fn set_rate(&mut self, rate: u32, now: Instant) {
        self.fill(now);
        self.rate = rate;
    }

    fn fill(&mut self, now: Instant) {
        let gained = now.since(self.at).0.saturating_mul(u64::from(self.rate));
        self.level = self.level.saturating_add(gained).min(u64::from(self.capacity) * MICROS);
        self.at = self.at.max(now);
    }

    /// The bytes that may be sent now.
    pub(crate) fn available(&mut self, now: Instant) -> u32 {
        if self.rate == 0 {
            return u32::MAX;
        }
        self.fill(now);
        u32::try_from(self.level / MICROS).unwrap_or(u32::MAX)
    }

    /// Takes bytes that are [available](Self::available).
    pub(crate) fn take(&mut self, bytes: u32) {
        self.level = self.level.saturating_sub(u64::from(bytes) * MICROS);
    }

    /// The time at which `bytes`, or the capacity if that is less, are available.
    pub(crate) fn ready_at(&self, bytes: u32) -> Instant {
        let lacking = (u64::from(bytes.min(self.capacity)) * MICROS).saturating_sub(self.level);
        match self.rate {
            0 => self.at,
            rate => self.at + Duration(lacking.div_ceil(u64::from(rate))),
        }
    }

    /// The time in which the rate passes `bytes`.
    pub(crate) fn span_of(&self, bytes: u32) -> Duration {
        match self.rate {
            0 => Duration(0),
            rate => Duration((u64::from(bytes) * MICROS).div_ceil(u64::from(rate))),
        }
    }

    /// True if it holds its capacity.
    pub(crate) fn is_full(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.rate == 0 || self.level == u64::from(self.capacity) * MICROS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_a_burst_and_then_its_rate() {
        let mut bucket = TokenBucket::new(1000, 4000, Instant(0));
        assert_eq!(bucket.available(Instant(0)), 4000);
        bucket.take(4000);
        assert_eq!((bucket.available(Instant(0)), bucket.ready_at(500)), (0, Instant(500_000)));
        assert_eq!(bucket.available(Instant(500_000)), 500);
        assert_eq!(bucket.span_of(500), Duration(500_000));
        assert!(!bucket.is_full(Instant(3_999_999)) && bucket.is_full(Instant(4_000_000)));
        assert_eq!(bucket.available(Instant(9_000_000)), 4000, "no more than the capacity");
        bucket.take(4000);
        assert_eq!(bucket.ready_at(9000), Instant(13_000_000), "more than the capacity is never waited for");
    }

    #[test]
    fn a_rate_of_zero_is_no_limit() {
        let mut bucket = TokenBucket::new(0, 10, Instant(0));
        bucket.take(1_000_000);
        assert_eq!((bucket.available(Instant(0)), bucket.ready_at(5)), (u32::MAX, Instant(0)));
        assert_eq!(bucket.span_of(5), Duration(0));
        bucket.set_rate(10, Instant(0));
        assert_eq!(bucket.available(Instant(500_000)), 5);
    }

    #[test]
    fn a_clock_that_steps_back_gives_nothing() {
        let mut bucket = TokenBucket::new(1000, 1000, Instant(5_000_000));
        bucket.take(1000);
        assert_eq!(bucket.available(Instant(0)), 0);
        assert_eq!(bucket.available(Instant(5_100_000)), 100);
    }
}
