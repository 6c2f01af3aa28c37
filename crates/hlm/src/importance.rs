//! Importance of a drafted token, from the drafter's last-layer attention averaged over heads (*ours*).
//!
//! Position 0 is always left out: models put surplus attention there whatever the text (the attention sink).
//! Weights that are negative, infinite or NaN count as 0.

use crate::uncertainty::Unit;

/// The largest accepted absolute value of λ, in standard deviations.
pub const LAMBDA_MAX: f32 = 8.0;

/// Number of tokens after which an importance has faded to 1/e in the running mean and deviation.
pub const MEMORY_TOKENS: f64 = 32.0;

/// Running mean and deviation of the last importances, weighted by age.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RecentImportances {
    count: f64,
    mean: f64,
    squares: f64,
}

/// The threshold `I_th = μ + λσ` over the last importances; λ is its strictness (*ours*).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdaptiveThreshold {
    lambda: f32,
}

/// A λ beyond ±[`LAMBDA_MAX`], or NaN.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("importance lambda {0} is not within -{LAMBDA_MAX} and {LAMBDA_MAX}")]
pub struct LambdaError(pub f32);

/// Concentration of the attention of the query that produced a token: 1 − H/H_even, where H is the entropy of its
/// weights (one per context position, without the sink) and H_even that of equal weights.
///
/// 0 is even attention, 1 is attention to a single position. Also 0 if fewer than two positions or no weight
/// remain. Source: ours.
pub fn row(attention: &[f32]) -> Unit {
    let Some(total) = total_without_sink(attention) else { return Unit::ZERO };
    let even = libm::log(attention.len() as f64 - 1.0);
    if even <= 0.0 {
        return Unit::ZERO;
    }
    let entropy: f64 = attention[1..].iter().map(|&weight| surprise(sane(weight) / total)).sum();
    Unit::clamped(1.0 - entropy / even)
}

/// The attention that later draft positions pay to the token at context position `index`, relative to even attention.
///
/// `later_rows` has one row per later query, each with one weight per position of its own context. Without the sink,
/// a row is renormalised and multiplied by its length, so that `x = 1` is even attention. The result is `x / (1 + x)`
/// of the mean x: ½ is even, more is closer to 1. `None` for the sink, and if no row reaches the token: the last
/// token of a draft has no later query. Source: ours.
pub fn received<R: AsRef<[f32]>>(later_rows: &[R], index: usize) -> Option<Unit> {
    if index == 0 {
        return None;
    }
    let (mut sum, mut count) = (0.0, 0.0);
    for attention in later_rows.iter().map(AsRef::as_ref) {
        if let (Some(&weight), Some(total)) = (attention.get(index), total_without_sink(attention)) {
            sum += sane(weight) / total * (attention.len() as f64 - 1.0);
            count += 1.0;
        }
    }
    (count > 0.0).then(|| Unit::clamped(sum / (sum + count)))
}

impl RecentImportances {
    /// Adds one importance.
    pub fn push(&mut self, importance: Unit) {
        let (weight, keep) = (f64::from(importance.get()), 1.0 - 1.0 / MEMORY_TOKENS);
        self.count = keep * self.count + 1.0;
        let off = weight - self.mean;
        self.mean += off / self.count;
        self.squares = keep * self.squares + off * (weight - self.mean);
    }

    /// The mean μ; 0 before the first importance.
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// The standard deviation σ (of the population, not the sample); 0 before the first importance.
    pub fn deviation(&self) -> f64 {
        if self.count > 0.0 { libm::sqrt(self.squares.max(0.0) / self.count) } else { 0.0 }
    }
}

impl AdaptiveThreshold {
    /// λ = 0: the mean itself.
    pub const MEAN: Self = Self { lambda: 0.0 };

    /// A threshold λ standard deviations above the mean; below it if λ is negative.
    ///
    /// # Errors
    /// λ is beyond ±[`LAMBDA_MAX`] or NaN.
    pub fn new(lambda: f32) -> Result<Self, LambdaError> {
        if libm::fabsf(lambda) <= LAMBDA_MAX { Ok(Self { lambda }) } else { Err(LambdaError(lambda)) }
    }

    /// λ, in standard deviations above the mean.
    pub fn lambda(&self) -> f32 {
        self.lambda
    }

    /// The threshold after these importances.
    pub fn of(&self, recent: &RecentImportances) -> f64 {
        recent.mean() + f64::from(self.lambda) * recent.deviation()
    }

    /// True when a token stands out from the last ones, itself included; false if all of them are equal.
    pub fn exceeded(&self, recent: &RecentImportances, importance: Unit) -> bool {
        f64::from(importance.get()) > self.of(recent)
    }
}

fn sane(weight: f32) -> f64 {
    if weight.is_finite() && weight > 0.0 { f64::from(weight) } else { 0.0 }
}

fn total_without_sink(attention: &[f32]) -> Option<f64> {
    let total: f64 = attention.iter().skip(1).map(|&weight| sane(weight)).sum();
    (total > 0.0).then_some(total)
}

fn surprise(share: f64) -> f64 {
    if share > 0.0 { -share * libm::log(share) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(x: f32) -> Unit {
        Unit::new(x).unwrap()
    }

    #[test]
    fn rows_run_from_even_to_single() {
        assert!(row(&[0.9, 0.025, 0.025, 0.025, 0.025]).get() < 1e-6);
        assert_eq!(row(&[0.9, 0.0, 0.1, 0.0]), Unit::ONE);
        assert!((row(&[0.0, 0.5, 0.5, 0.0, 0.0]).get() - 0.5).abs() < 1e-6);
        assert_eq!(row(&[0.99, 0.0, 0.006, 0.004]), row(&[0.0, 0.0, 0.6, 0.4]), "the sink takes no part");
    }

    #[test]
    fn rows_without_anything_to_tell_are_zero() {
        for attention in
            [&[] as &[f32], &[1.0], &[0.5, 0.5], &[1.0, 0.0, 0.0], &[1.0, f32::NAN, -1.0, f32::INFINITY]]
        {
            assert_eq!(row(attention), Unit::ZERO, "{attention:?}");
        }
    }

    #[test]
    fn received_compares_with_even_attention() {
        let even = [[0.2f32, 0.2, 0.2, 0.2, 0.2]];
        assert!((received(&even, 3).unwrap().get() - 0.5).abs() < 1e-6);
        let twice = [[0.5f32, 0.1, 0.1, 0.2, 0.1 - 0.1]];
        assert!((received(&twice, 3).unwrap().get() - 2.0 / 3.0).abs() < 1e-6);
        let rows: [&[f32]; 3] = [&[0.5, 0.5], &[0.0, 0.0, 1.0], &[0.0, 0.0, 0.5, 0.5]];
        let x = (2.0 + 1.5) / 2.0;
        assert!(
            (f64::from(received(&rows, 2).unwrap().get()) - x / (1.0 + x)).abs() < 1e-6,
            "row 0 ends before it"
        );
        assert_eq!(received(&rows, 0), None);
        assert_eq!(received(&rows, 4), None);
        assert_eq!(received::<&[f32]>(&[], 2), None);
    }

    #[test]
    fn thresholds_follow_the_last_tokens() {
        let mut recent = RecentImportances::default();
        assert_eq!((recent.mean(), recent.deviation()), (0.0, 0.0));
        let pushed = [0.2, 0.4, 0.4, 0.4, 0.5, 0.5, 0.7, 0.9];
        pushed.iter().for_each(|&weight| recent.push(unit(weight)));
        let aged = || {
            (0..)
                .zip(pushed.iter().rev())
                .map(|(age, &w)| (libm::pow(31.0 / 32.0, f64::from(age)), f64::from(w)))
        };
        let total: f64 = aged().map(|(age, _)| age).sum();
        let mean = aged().map(|(age, w)| age * w).sum::<f64>() / total;
        let variance = aged().map(|(age, w)| age * (w - mean) * (w - mean)).sum::<f64>() / total;
        assert!(
            (recent.mean() - mean).abs() < 1e-9 && (recent.deviation() - libm::sqrt(variance)).abs() < 1e-9
        );
        let strict = AdaptiveThreshold::new(1.5).unwrap();
        assert!((strict.of(&recent) - mean - 1.5 * libm::sqrt(variance)).abs() < 1e-9);
        assert!(strict.exceeded(&recent, unit(0.9)) && !strict.exceeded(&recent, unit(0.7)));
        assert!(AdaptiveThreshold::new(-1.0).unwrap().exceeded(&recent, unit(0.4)));
    }

    #[test]
    fn what_is_long_past_has_no_weight() {
        let mut recent = RecentImportances::default();
        (0..50).for_each(|_| recent.push(unit(0.9)));
        (0..500).for_each(|_| recent.push(unit(0.1)));
        assert!((recent.mean() - 0.1).abs() < 1e-6 && recent.deviation() < 1e-3);
    }

    #[test]
    fn nothing_stands_out_of_equals() {
        let mut step = RecentImportances::default();
        for _ in 0..3 {
            step.push(unit(0.3));
            assert!(!AdaptiveThreshold::new(-8.0).unwrap().exceeded(&step, unit(0.3)));
        }
    }

    #[test]
    fn lambdas_out_of_range_are_refused() {
        for bad in [8.1, -8.1, f32::NAN, f32::INFINITY] {
            assert!(AdaptiveThreshold::new(bad).is_err(), "{bad}");
        }
    }
}
