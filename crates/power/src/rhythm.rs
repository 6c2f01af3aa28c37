//! Estimates when a continuously converting chip finished each conversion, from looks that found it done or not.
//!
//! A look comes some tenths of a conversion late, and a board's phases can be shorter than that. But conversions
//! follow each other evenly. Each look gives two bounds for one end, and together the looks determine all ends.

use dunlin_hlm::time::Instant;

/// Share of the prediction error by which the period is corrected.
const GAIN: f64 = 1.0 / 32.0;
/// Maximum deviation of the chip's clock from the data sheet (SBOS448: at most 586 µs instead of 532).
const DRIFT_MAX: f64 = 0.12;

/// The rhythm of a chip's conversions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rhythm {
    nominal: f64,
    period: f64,
    /// End of the last conversion, µs.
    end: Option<f64>,
}

impl Rhythm {
    /// Conversions with the data sheet's period, µs.
    pub(super) fn new(period_us: u64) -> Self {
        let nominal = period_us as f64;
        Self { nominal, period: nominal, end: None }
    }

    /// Conversions start again.
    pub(super) fn restart(&mut self) {
        self.end = None;
    }

    /// The end of a conversion that was not done at `before` but done at `after`.
    pub(super) fn ended(&mut self, before: Instant, after: Instant) -> Instant {
        let (late, early) = (after.0 as f64, before.0 as f64);
        // If it had ended more than a period before the look, a newer result would be there.
        let early = early.max(late - self.period).min(late);
        let Some(last) = self.end else {
            let end = (early + late) / 2.0;
            self.end = Some(end);
            return Instant(end as u64);
        };
        // Looks may have missed whole conversions.
        let passed = ((late - last) / self.period).floor().max(1.0);
        let expected = last + passed * self.period;
        // The looks' bounds are certain; the prediction is only an estimate.
        let end = expected.clamp(early, late);
        let missed = (end - expected) / passed;
        let period = self.period + GAIN * missed;
        self.period = period.clamp(self.nominal * (1.0 - DRIFT_MAX), self.nominal * (1.0 + DRIFT_MAX));
        self.end = Some(end);
        Instant(end as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest error in the second half of 2000 looks, which are at most 1 ms late, µs.
    fn error(true_period: f64) -> f64 {
        let mut rhythm = Rhythm::new(8512);
        let mut worst: f64 = 0.0;
        for n in 1..2000_u32 {
            let end = 5000.0 + f64::from(n) * true_period;
            // Looks are a millisecond apart, with a changing offset from the conversions.
            let late = f64::from(n * 619 % 1000);
            let (before, after) = (Instant((end + late - 1000.0) as u64), Instant((end + late) as u64));
            let said = rhythm.ended(before, after);
            if n > 1000 {
                worst = worst.max((said.0 as f64 - end).abs());
            }
        }
        worst
    }

    #[test]
    fn looks_of_a_millisecond_tell_tenths() {
        for true_period in [8512.0, 8512.0 * 1.08, 8512.0 * 0.93] {
            let error = error(true_period);
            assert!(error < 150.0, "{true_period}: {error}");
        }
    }

    #[test]
    fn late_and_missed_looks_lose_nothing() {
        let mut rhythm = Rhythm::new(8512);
        for n in 1..500_u64 {
            rhythm.ended(Instant(n * 8512 - 500), Instant(n * 8512 + 500));
        }
        // After missing eleven and a half conversions, a reader sees the last whole one.
        let said = rhythm.ended(Instant(500 * 8512), Instant(511 * 8512 + 4000));
        assert!(said.0.abs_diff(511 * 8512) < 100, "{said:?}");
        rhythm.restart();
        assert_eq!(rhythm.ended(Instant(10_000_000), Instant(10_001_000)), Instant(10_000_500));
        assert_eq!(rhythm.ended(Instant(5), Instant(0)), Instant(0), "a clock that stepped back");
    }
}
