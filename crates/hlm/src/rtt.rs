//! Round-trip time and the retransmission timeout (RFC 6298, with Karn's rule left to the caller).

use crate::time::Duration;

/// Timeout before the first measurement.
const RTO_FIRST: Duration = Duration::from_millis(2_000);
/// Least timeout: shorter ones resend into a verifier that is merely busy.
const RTO_MIN: Duration = Duration::from_millis(200);
/// Largest timeout, doubling included.
pub(crate) const RTO_MAX: Duration = Duration::from_millis(30_000);

/// Smoothed round-trip time from frame to verdict, the target's work included.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rtt {
    smoothed_us: u64,
    deviation_us: u64,
    measured: bool,
}

impl Rtt {
    /// Takes the time of a round whose frame was sent once.
    pub(crate) fn observe(&mut self, sample: Duration) {
        let sample = sample.0;
        if !self.measured {
            *self = Self { smoothed_us: sample, deviation_us: sample / 2, measured: true };
            return;
        }
        let error = self.smoothed_us.abs_diff(sample);
        self.deviation_us = (self.deviation_us - self.deviation_us / 4).saturating_add(error / 4);
        self.smoothed_us = (self.smoothed_us - self.smoothed_us / 8).saturating_add(sample / 8);
    }

    /// The timeout of a frame that was already sent again `resent` times.
    pub(crate) fn timeout(&self, resent: u32) -> Duration {
        let base = if self.measured {
            self.smoothed_us.saturating_add(self.deviation_us.saturating_mul(4)).max(RTO_MIN.0)
        } else {
            RTO_FIRST.0
        };
        Duration(base.saturating_mul(1 << resent.min(16)).min(RTO_MAX.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_cautious_then_follows_and_is_bounded() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.timeout(0), RTO_FIRST);
        (0..100).for_each(|_| rtt.observe(Duration::from_millis(1_000)));
        let steady = rtt.timeout(0).0;
        assert!((1_000_000..1_100_000).contains(&steady), "{steady}");
        assert_eq!(rtt.timeout(1).0, steady * 2);
        assert_eq!(rtt.timeout(u32::MAX), RTO_MAX);
        (0..100).for_each(|_| rtt.observe(Duration(10)));
        assert_eq!(rtt.timeout(0), RTO_MIN);
        rtt.observe(Duration(u64::MAX));
        assert_eq!(rtt.timeout(0), RTO_MAX);
    }
}
