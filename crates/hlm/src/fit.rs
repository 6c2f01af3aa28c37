//! Statistics of rejection by uncertainty for a pair of models, to choose the threshold of a trusting policy.
//!
//! Invariant: a fit depends on its samples but not on their order; nothing fades and there is no prior. The estimate
//! used while drafting is [`calibration`](crate::calibration).

use crate::uncertainty::SCORES;
use alloc::vec::Vec;

/// Slope of CU-HLM's line of expected rejection by uncertainty (2505.11788), for comparison.
pub const PUBLISHED_SLOPE: f64 = 0.815;

/// The intercept of that line.
pub const PUBLISHED_INTERCEPT: f64 = -0.066;

/// The two-sided 95 % quantile of the normal distribution.
const Z_95: f64 = 1.959_963_984_540_054;

/// The tokens in one of the 16 bins of uncertainty; the bins are those of the scores.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FitBin {
    /// Number of tokens.
    pub count: usize,
    /// Number of rejected tokens.
    pub rejected: usize,
    /// The sum of their uncertainties.
    pub uncertainty_sum: f64,
}

/// Tokens of a model pair with their statistics. Each token has an uncertainty and was accepted or rejected.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    /// Uncertainties, ascending.
    uncertainties: Vec<f64>,
    /// Running count of rejected tokens, each token included.
    rejected: Vec<usize>,
    bins: [FitBin; SCORES],
    slope: f64,
    intercept: f64,
    correlation: f64,
    auc: f64,
}

impl FitBin {
    /// The mean uncertainty, 0..=1; 0 without tokens.
    pub fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.uncertainty_sum / self.count as f64 }
    }

    /// The share of rejected tokens, 0..=1; 0 without tokens.
    pub fn rate(&self) -> f64 {
        share(self.rejected, self.count)
    }

    /// The 95 % Wilson score interval of the share, lower end first; (0, 1) without tokens.
    pub fn interval(&self) -> (f64, f64) {
        if self.count == 0 {
            return (0.0, 1.0);
        }
        let (n, p, z2) = (self.count as f64, self.rate(), Z_95 * Z_95);
        let middle = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
        let half = Z_95 / (1.0 + z2 / n) * libm::sqrt(p * (1.0 - p) / n + z2 / (4.0 * n * n));
        // Rounding must not push the ends beyond 0..=1, nor past the rate, which they equal at 0 and 1.
        ((middle - half).clamp(0.0, p), (middle + half).clamp(p, 1.0))
    }

    fn push(&mut self, uncertainty: f64, rejected: bool) {
        self.count += 1;
        self.rejected += usize::from(rejected);
        self.uncertainty_sum += uncertainty;
    }
}

impl Fit {
    /// Fits samples of (uncertainty in 0..=1, rejected by the target). Uncertainties out of range and NaN are left out.
    /// `None` if no token remains.
    pub fn new(samples: impl IntoIterator<Item = (f64, bool)>) -> Option<Self> {
        let mut samples: Vec<(f64, bool)> =
            samples.into_iter().filter(|(uncertainty, _)| (0.0..=1.0).contains(uncertainty)).collect();
        samples.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let mut bins = [FitBin::default(); SCORES];
        let mut total = 0;
        let mut rejected = Vec::with_capacity(samples.len());
        for &(uncertainty, is_rejected) in &samples {
            bins[bin_of(uncertainty)].push(uncertainty, is_rejected);
            total += usize::from(is_rejected);
            rejected.push(total);
        }
        let moments = Moments::of(&samples)?;
        Some(Self {
            slope: moments.slope(),
            intercept: moments.mean_rejected - moments.slope() * moments.mean_uncertainty,
            correlation: moments.correlation(),
            auc: auc(&samples),
            uncertainties: samples.into_iter().map(|(uncertainty, _)| uncertainty).collect(),
            rejected,
            bins,
        })
    }

    /// The number of tokens, at least 1.
    pub fn count(&self) -> usize {
        self.uncertainties.len()
    }

    /// The share of rejected tokens, 0..=1.
    pub fn rejection(&self) -> f64 {
        self.rejected_among(self.count())
    }

    /// The slope of the least-squares line of rejection (0 or 1) on uncertainty; 0 if uncertainty doesn't vary.
    pub fn slope(&self) -> f64 {
        self.slope
    }

    /// The least-squares line at uncertainty 0; [`Self::rejection`] if uncertainty doesn't vary.
    pub fn intercept(&self) -> f64 {
        self.intercept
    }

    /// The least-squares line at an uncertainty, clipped to 0..=1.
    pub fn line(&self, uncertainty: f64) -> f64 {
        (self.slope * uncertainty + self.intercept).clamp(0.0, 1.0)
    }

    /// Pearson's correlation of uncertainty and rejection (point-biserial), −1..=1; 0 if either doesn't vary.
    pub fn correlation(&self) -> f64 {
        self.correlation
    }

    /// The area under the ROC curve, 0..=1: the probability that a rejected token is more uncertain than an accepted
    /// one, ties counting half. ½ if no token or every token was rejected.
    pub fn auc(&self) -> f64 {
        self.auc
    }

    /// Sixteen bins of equal width, by uncertainty.
    pub fn bins(&self) -> &[FitBin; SCORES] {
        &self.bins
    }

    /// The largest threshold, out of 1 and the uncertainties seen, with [`Self::missed`] at most `miss_rate`; 0 if no
    /// threshold satisfies that or `miss_rate` is NaN.
    ///
    /// The share is that of all tokens up to the threshold. So a few rejected tokens at the low end don't keep it down
    /// once enough accepted ones follow. It never falls as `miss_rate` grows. For a pair without such a threshold the
    /// result is 0, but [`Self::missed`] at 0 may still exceed `miss_rate` because of tokens with uncertainty 0.
    pub fn threshold(&self, miss_rate: f64) -> f64 {
        if self.rejection() <= miss_rate {
            return 1.0;
        }
        let count = self.count();
        let is_last = |upto: usize| upto == count || self.uncertainties[upto - 1] < self.uncertainties[upto];
        let fits = |&upto: &usize| is_last(upto) && self.rejected_among(upto) <= miss_rate;
        (1..=count).rev().find(fits).map_or(0.0, |upto| self.uncertainties[upto - 1])
    }

    /// The share of tokens with an uncertainty of at most `threshold`, which a policy would not send. 0..=1.
    pub fn skipped(&self, threshold: f64) -> f64 {
        share(self.upto(threshold), self.count())
    }

    /// The share of rejected tokens among those with an uncertainty of at most `threshold`, 0..=1; 0 if there are none.
    pub fn missed(&self, threshold: f64) -> f64 {
        self.rejected_among(self.upto(threshold))
    }

    /// The number of tokens with an uncertainty of at most `threshold`.
    fn upto(&self, threshold: f64) -> usize {
        self.uncertainties.partition_point(|&uncertainty| uncertainty <= threshold)
    }

    fn rejected_among(&self, first: usize) -> f64 {
        first.checked_sub(1).map_or(0.0, |last| share(self.rejected[last], first))
    }
}

/// Means and sums of squares about them.
struct Moments {
    mean_uncertainty: f64,
    mean_rejected: f64,
    uncertainty: f64,
    rejected: f64,
    both: f64,
}

impl Moments {
    /// The moments of samples in ascending order; `None` without any.
    fn of(samples: &[(f64, bool)]) -> Option<Self> {
        let (lowest, highest) = (samples.first()?.0, samples.last()?.0);
        let count = samples.len() as f64;
        let mean_uncertainty = samples.iter().map(|(uncertainty, _)| uncertainty).sum::<f64>() / count;
        let rejected = samples.iter().filter(|(_, rejected)| *rejected).count() as f64;
        let mean_rejected = rejected / count;
        let (mut squares, mut both) = (0.0, 0.0);
        // The computed mean of equal numbers may differ from them in the last bit; that must not count as variation.
        if lowest < highest {
            for &(uncertainty, rejected) in samples {
                let off = uncertainty - mean_uncertainty;
                squares += off * off;
                both += off * (f64::from(u8::from(rejected)) - mean_rejected);
            }
        }
        let rejected = rejected * (1.0 - mean_rejected);
        Some(Self { mean_uncertainty, mean_rejected, uncertainty: squares, rejected, both })
    }

    fn slope(&self) -> f64 {
        if self.uncertainty > 0.0 { self.both / self.uncertainty } else { 0.0 }
    }

    fn correlation(&self) -> f64 {
        let spread = libm::sqrt(self.uncertainty) * libm::sqrt(self.rejected);
        if spread > 0.0 { (self.both / spread).clamp(-1.0, 1.0) } else { 0.0 }
    }
}

/// The area under the ROC curve of samples in ascending order, by one pass over groups of equal uncertainty.
fn auc(samples: &[(f64, bool)]) -> f64 {
    let (mut accepted, mut rejected, mut wins) = (0.0, 0.0, 0.0);
    for group in samples.chunk_by(|(a, _), (b, _)| a == b) {
        let of_rejected = group.iter().filter(|(_, rejected)| *rejected).count() as f64;
        let of_accepted = group.len() as f64 - of_rejected;
        wins += of_rejected * (accepted + 0.5 * of_accepted);
        accepted += of_accepted;
        rejected += of_rejected;
    }
    if accepted * rejected > 0.0 { wins / (accepted * rejected) } else { 0.5 }
}

fn bin_of(uncertainty: f64) -> usize {
    ((uncertainty * SCORES as f64) as usize).min(SCORES - 1)
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibration::Calibration;
    use crate::uncertainty::{Unit, to_score4};
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn fit(samples: &[(f64, bool)]) -> Fit {
        Fit::new(samples.iter().copied()).unwrap()
    }

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-12
    }

    #[test]
    fn nothing_is_no_fit() {
        assert_eq!(Fit::new([]), None);
        let outside = [f64::NAN, f64::INFINITY, -f64::INFINITY, -1e-9, 1.0 + 1e-9];
        assert_eq!(Fit::new(outside.map(|u| (u, true))), None);
        let kept = outside.map(|u| (u, true)).into_iter().chain([(0.25, false), (0.0, true), (1.0, true)]);
        let kept = Fit::new(kept).unwrap();
        assert_eq!(kept.count(), 3);
        assert!(near(kept.rejection(), 2.0 / 3.0));
    }

    #[test]
    fn a_line_by_hand() {
        // Means ½ and ½; Sxy = 0.3, Sxx = 0.34, Syy = 1.
        let fit = fit(&[(0.9, true), (0.1, false), (0.6, false), (0.4, true)]);
        let sxx = 2.0 * (0.4 * 0.4 + 0.1 * 0.1);
        let sxy = 0.5 * (0.4 - 0.1 + 0.4 - 0.1);
        assert!(near(fit.slope(), sxy / sxx) && near(fit.intercept(), 0.5 - 0.5 * sxy / sxx));
        assert!(near(fit.line(0.5), 0.5));
        assert_eq!((fit.line(10.0), fit.line(-10.0)), (1.0, 0.0));
        assert!(near(fit.correlation(), sxy / sxx.sqrt()));
        // Pairs of a rejected and an accepted one: (0.9, 0.1), (0.9, 0.6), (0.4, 0.1) won, (0.4, 0.6) lost.
        assert!(near(fit.auc(), 0.75));
    }

    #[test]
    fn order_does_not_matter() {
        let samples = [(0.9, true), (0.1, false), (0.6, false), (0.6, true), (0.3, true)];
        let mut turned = samples;
        turned.reverse();
        let (a, b) = (fit(&samples), fit(&turned));
        assert_eq!(a.bins(), b.bins());
        assert!(near(a.slope(), b.slope()) && near(a.auc(), b.auc()));
        assert_eq!((a.threshold(0.4), a.missed(0.6)), (b.threshold(0.4), b.missed(0.6)));
    }

    #[test]
    fn where_nothing_varies_the_line_is_flat() {
        // The mean of these three is not 0.1 in binary.
        let alike = fit(&[(0.1, true), (0.1, false), (0.1, false)]);
        assert_eq!((alike.slope(), alike.correlation(), alike.auc()), (0.0, 0.0, 0.5));
        assert!(near(alike.intercept(), 1.0 / 3.0) && near(alike.line(0.9), 1.0 / 3.0));
        for rejected in [false, true] {
            let fit = fit(&[(0.1, rejected), (0.7, rejected)]);
            assert_eq!((fit.slope(), fit.correlation(), fit.auc()), (0.0, 0.0, 0.5));
            assert_eq!(fit.rejection(), fit.line(0.5));
        }
    }

    #[test]
    fn the_best_and_the_worst_score() {
        let best = fit(&[(0.1, false), (0.2, false), (0.8, true)]);
        assert_eq!(best.auc(), 1.0);
        let worst = fit(&[(0.1, true), (0.2, true), (0.8, false)]);
        assert_eq!(worst.auc(), 0.0);
        assert!(near(fit(&[(0.0, false), (1.0, true)]).correlation(), 1.0));
        assert!(near(fit(&[(0.0, true), (1.0, false)]).correlation(), -1.0));
    }

    #[test]
    fn bins_are_those_of_the_scores() {
        for i in 0..=1600 {
            let u = i as f32 / 1600.0;
            assert_eq!(bin_of(f64::from(u)), usize::from(to_score4(Unit::new(u).unwrap()).get()));
        }
        let fit = fit(&[(0.01, true), (0.03, true), (0.0624, false), (0.0625, true), (1.0, false)]);
        assert_eq!((fit.bins()[0].count, fit.bins()[0].rejected), (3, 2));
        assert!(near(fit.bins()[0].mean(), 0.1024 / 3.0) && near(fit.bins()[0].rate(), 2.0 / 3.0));
        assert_eq!((fit.bins()[1].count, fit.bins()[15].count), (1, 1));
        let empty = fit.bins()[7];
        assert_eq!((empty.mean(), empty.rate(), empty.interval()), (0.0, 0.0, (0.0, 1.0)));
    }

    #[test]
    fn intervals_by_the_book() {
        let of = |count, rejected| FitBin { count, rejected, uncertainty_sum: 0.0 }.interval();
        // Newcombe 1998, table I, method 3 (Wilson without continuity correction).
        for ((count, rejected), (low, high)) in [
            ((263, 81), (0.2553, 0.3662)),
            ((148, 15), (0.0624, 0.1605)),
            ((20, 0), (0.0, 0.1611)),
            ((29, 1), (0.0061, 0.1718)),
        ] {
            let (found_low, found_high) = of(count, rejected);
            assert!((found_low - low).abs() < 1e-4 && (found_high - high).abs() < 1e-4, "{rejected}/{count}");
        }
        assert_eq!((of(20, 0).0, of(20, 20).1), (0.0, 1.0));
    }

    #[test]
    fn thresholds_by_hand() {
        // Share of rejected tokens up to each uncertainty: 0 at 0.1, ½ at 0.2, ¼ at 0.3 (two tokens), ⅖ at 0.8.
        let fit = fit(&[(0.1, false), (0.2, true), (0.3, false), (0.3, false), (0.8, true)]);
        for (miss_rate, threshold) in
            [(0.0, 0.1), (0.24, 0.1), (0.25, 0.3), (0.39, 0.3), (0.4, 1.0), (1.0, 1.0), (f64::NAN, 0.0)]
        {
            assert_eq!(fit.threshold(miss_rate), threshold, "{miss_rate}");
        }
        assert!(near(fit.skipped(0.3), 0.8) && near(fit.missed(0.3), 0.25));
        assert!(near(fit.skipped(0.299), 0.4) && near(fit.missed(0.299), 0.5));
        assert_eq!((fit.skipped(0.05), fit.missed(0.05)), (0.0, 0.0));
        assert_eq!((fit.skipped(f64::NAN), fit.missed(f64::NAN)), (0.0, 0.0));
    }

    #[test]
    fn a_rejection_at_the_low_end_does_not_hold_the_threshold_down() {
        let accepted = (1..=99).map(|i| (f64::from(i) / 200.0, false));
        let fit = Fit::new([(0.001, true), (0.6, true)].into_iter().chain(accepted)).unwrap();
        assert_eq!(fit.threshold(0.01), 99.0 / 200.0);
        assert_eq!(fit.threshold(0.009), 0.0, "not even the lowest can be trusted so far");
    }

    #[test]
    fn tokens_that_are_all_alike_are_trusted_together_or_not_at_all() {
        let fit = fit(&[(0.5, false), (0.5, true), (0.5, false), (0.5, false)]);
        assert_eq!((fit.threshold(0.24), fit.threshold(0.25)), (0.0, 1.0));
        assert_eq!(fit.missed(fit.threshold(0.24)), 0.0);
    }

    #[test]
    fn the_published_line_is_that_of_the_calibration() {
        let calibration = Calibration::new();
        for u in [0.1, 0.53, 0.97] {
            let score = to_score4(Unit::new(u).unwrap());
            let middle = f64::from(crate::uncertainty::from_score4(score).get());
            let line = (PUBLISHED_SLOPE * middle + PUBLISHED_INTERCEPT).clamp(0.0, 1.0);
            assert!(near(calibration.expected_rejection(score), line), "{u}");
        }
    }

    /// Uncertainties partly on a coarse grid, so that many are equal, and some invalid ones.
    fn samples() -> impl Strategy<Value = Vec<(f64, bool)>> {
        let uncertainty = prop_oneof![
            8 => (0..=20_u8).prop_map(|i| f64::from(i) / 20.0),
            4 => 0.0..=1.0,
            1 => prop_oneof![Just(f64::NAN), Just(1.5), Just(-0.5)],
        ];
        vec((uncertainty, any::<bool>()), 1..60)
    }

    fn sane(samples: &[(f64, bool)]) -> Vec<(f64, bool)> {
        samples.iter().copied().filter(|(u, _)| *u >= 0.0 && *u <= 1.0).collect()
    }

    fn missed(samples: &[(f64, bool)], threshold: f64) -> f64 {
        let trusted: Vec<_> = samples.iter().filter(|(u, _)| *u <= threshold).collect();
        let rejected = trusted.iter().filter(|(_, rejected)| *rejected).count();
        if trusted.is_empty() { 0.0 } else { rejected as f64 / trusted.len() as f64 }
    }

    proptest! {
        #[test]
        fn the_auc_counts_pairs(samples in samples()) {
            let (fit, sane) = (Fit::new(samples.clone()), sane(&samples));
            prop_assert_eq!(fit.is_none(), sane.is_empty());
            let Some(fit) = fit else { return Ok(()) };
            let (mut pairs, mut wins) = (0.0, 0.0);
            for (low, _) in sane.iter().filter(|(_, rejected)| !rejected) {
                for (high, _) in sane.iter().filter(|(_, rejected)| *rejected) {
                    pairs += 1.0;
                    wins += if high > low { 1.0 } else if high == low { 0.5 } else { 0.0 };
                }
            }
            let expected = if pairs > 0.0 { wins / pairs } else { 0.5 };
            prop_assert!((fit.auc() - expected).abs() < 1e-12, "{} against {expected}", fit.auc());
        }

        #[test]
        fn the_threshold_is_the_largest_that_fits(samples in samples(), miss_rate in 0.0..=1.0_f64) {
            let sane = sane(&samples);
            let Some(fit) = Fit::new(samples) else { return Ok(()) };
            let candidates = sane.iter().map(|(u, _)| *u).chain([1.0]);
            let fitting = candidates.filter(|u| missed(&sane, *u) <= miss_rate);
            let expected = fitting.fold(0.0, f64::max);
            let found = fit.threshold(miss_rate);
            prop_assert_eq!(found, expected);
            prop_assert_eq!(fit.missed(found), missed(&sane, found));
            let trusted = sane.iter().filter(|(u, _)| *u <= found).count();
            prop_assert_eq!(fit.skipped(found), trusted as f64 / sane.len() as f64);
        }

        #[test]
        fn the_threshold_never_falls(samples in samples(), a in 0.0..=1.0_f64, b in 0.0..=1.0_f64) {
            let Some(fit) = Fit::new(samples) else { return Ok(()) };
            prop_assert!(fit.threshold(a.min(b)) <= fit.threshold(a.max(b)));
            prop_assert_eq!(fit.threshold(1.0), 1.0);
        }

        #[test]
        fn no_other_line_is_nearer(samples in samples(), turn in -0.5..0.5_f64, lift in -0.5..0.5_f64) {
            let sane = sane(&samples);
            let Some(fit) = Fit::new(samples) else { return Ok(()) };
            let squares = |slope: f64, intercept: f64| -> f64 {
                let off = |&(u, rejected): &(f64, bool)| {
                    f64::from(u8::from(rejected)) - slope * u - intercept
                };
                sane.iter().map(off).map(|off| off * off).sum()
            };
            let best = squares(fit.slope(), fit.intercept());
            prop_assert!(best <= squares(fit.slope() + turn, fit.intercept() + lift) + 1e-9);
            // The share of the variance that the line explains is the squared correlation.
            let spread = squares(0.0, fit.rejection());
            prop_assert!((spread - best - fit.correlation() * fit.correlation() * spread).abs() < 1e-9);
        }

        #[test]
        fn intervals_hold_their_rate(count in 1..2000_usize, share in 0.0..=1.0_f64) {
            let rejected = (share * count as f64) as usize;
            let bin = FitBin { count, rejected, uncertainty_sum: 0.0 };
            let (low, high) = bin.interval();
            prop_assert!(0.0 <= low && low <= bin.rate() && bin.rate() <= high && high <= 1.0);
            let more = FitBin { count: 2 * count, rejected: 2 * rejected, uncertainty_sum: 0.0 }.interval();
            prop_assert!(more.1 - more.0 < high - low);
        }
    }
}
