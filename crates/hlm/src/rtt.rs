//! Round-trip time beyond the time that was announced, and the retransmission timeout (RFC 6298, with Karn's rule left to the caller).
//!
//! A doubled timeout stays doubled until a round trip is measured. On a link that became slower, every frame is sent
//! twice at first and none of these rounds may be measured. If the timeout fell back after each, every frame would
//! be sent twice for ever.

use crate::time::Duration;

/// Timeout before the first measurement.
const RTO_FIRST: Duration = Duration::from_millis(2_000);
/// Least timeout: a shorter one would resend while a scheduler or a radio is merely busy. A busy target says so.
const RTO_MIN: Duration = Duration::from_millis(100);
/// Largest timeout, doubling included.
pub(crate) const RTO_MAX: Duration = Duration::from_millis(30_000);

/// Smoothed time of a round trip, or of the gap between two messages.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rtt {
    smoothed_us: u64,
    deviation_us: u64,
    measured: bool,
    /// Doublings since the last measurement.
    doubled: u32,
}

impl Rtt {
    /// Takes the duration of a round whose frame was sent once.
    pub(crate) fn observe(&mut self, sample: Duration) {
        let sample = sample.0;
        self.doubled = 0;
        if !self.measured {
            *self = Self { smoothed_us: sample, deviation_us: sample / 2, measured: true, doubled: 0 };
            return;
        }
        let error = self.smoothed_us.abs_diff(sample);
        self.deviation_us = (self.deviation_us - self.deviation_us / 4).saturating_add(error / 4);
        self.smoothed_us = (self.smoothed_us - self.smoothed_us / 8).saturating_add(sample / 8);
    }

    /// Doubles the timeout after a frame that was not answered in time.
    pub(crate) fn back_off(&mut self) {
        self.doubled = self.doubled.saturating_add(1);
    }

    /// The time to wait for an answer.
    pub(crate) fn timeout(&self) -> Duration {
        self.doubled(self.bound().unwrap_or(RTO_FIRST.0))
    }

    /// As [`Self::timeout`], and no less than what `other` measured, which stands in where nothing was measured here.
    pub(crate) fn timeout_beside(&self, other: &Self) -> Duration {
        self.doubled(self.bound().max(other.bound()).unwrap_or(RTO_FIRST.0))
    }

    /// As [`Self::timeout_beside`], without doublings.
    pub(crate) fn undoubled_beside(&self, other: &Self) -> Duration {
        Self { doubled: 0, ..*self }.timeout_beside(other)
    }

    /// A time that few round trips exceed, µs; `None` before the first measurement.
    fn bound(&self) -> Option<u64> {
        let bound = self.smoothed_us.saturating_add(self.deviation_us.saturating_mul(4));
        self.measured.then_some(bound.max(RTO_MIN.0))
    }

    fn doubled(&self, us: u64) -> Duration {
        Duration(us.saturating_mul(1 << self.doubled.min(16)).min(RTO_MAX.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_cautious_then_follows_and_is_bounded() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.timeout(), RTO_FIRST);
        (0..100).for_each(|_| rtt.observe(Duration::from_millis(1_000)));
        let steady = rtt.timeout().0;
        assert!((1_000_000..1_100_000).contains(&steady), "{steady}");
        rtt.back_off();
        assert_eq!(rtt.timeout().0, steady * 2);
        rtt.observe(Duration::from_millis(1_000));
        assert!(rtt.timeout().0 <= steady, "a measurement ends the doubling");
        (0..100).for_each(|_| rtt.back_off());
        assert_eq!(rtt.timeout(), RTO_MAX);
        (0..100).for_each(|_| rtt.observe(Duration(10)));
        assert_eq!(rtt.timeout(), RTO_MIN);
        rtt.observe(Duration(u64::MAX));
        assert_eq!(rtt.timeout(), RTO_MAX);
    }
}
