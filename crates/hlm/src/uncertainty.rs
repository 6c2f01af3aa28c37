//! Uncertainty of a drafted token, and the 4-bit scores that are sent.
//!
//! Invariant: it is computed once, on the device, from the drafter's raw logits; the verifier only reads the score.

use crate::TokenId;
use crate::coupling::Noise;
use crate::named::named;
use crate::probabilities::{Highest, below_highest};
use dunlin_wire::Score;

/// A number in 0..=1.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Unit(f32);

/// The number of scores; a score is the index of one of 16 bins of equal width.
pub const SCORES: usize = Score::MAX.get() as usize + 1;

named! {
    /// The form of uncertainty; each is 0 for a certain token and 1 for an impossible one.
    #[derive(Default)]
    Form, "form of uncertainty":
    /// `1 − ½∫₀² softmax(z/θ)_d dθ` by 8-node Gauss–Legendre: the expectation of [`Form::Sampled`], to 3e-4 (root
    /// mean square) on ordinary rows and within 0.025, less than half a score, where thousands of tokens tie.
    #[default]
    Quadrature = "quadrature",
    /// The share of 20 draws at temperatures uniform on (0, 2) that differ from the token (U-HLM, 2412.12687).
    Sampled = "sampled",
    /// `1 − q(d)`: costs nothing, since `q` is known.
    OneMinusQ = "one-minus-q",
}

/// The uncertainty of the drafted token at a position, from the drafter's raw logits (one per token of the
/// vocabulary) and the probability it was drawn with.
///
/// 1 if the logits give the token no probability: a row without mass, a NaN, an id beyond the row.
pub fn uncertainty(
    form: Form,
    logits: &[f32],
    drafted: TokenId,
    q_of_drafted: f64,
    seed: u64,
    position: u64,
) -> Unit {
    match form {
        Form::Quadrature => Quadrature::new(logits).uncertainty(drafted),
        Form::Sampled => sampled(logits, drafted, &Noise::new(DOMAIN_RESAMPLES, seed, position)),
        Form::OneMinusQ => Unit::clamped(1.0 - q_of_drafted.max(0.0)),
    }
}

/// [`Form::Quadrature`] for several tokens of one row; the shared sums are computed once.
#[derive(Clone, Copy, Debug)]
pub struct Quadrature<'a> {
    row: Tempered<'a, NODE_COUNT>,
}

impl<'a> Quadrature<'a> {
    /// Prepares a drafter's raw logits.
    pub fn new(logits: &'a [f32]) -> Self {
        Self { row: Tempered::new(logits, NODES.map(|(temperature, _)| temperature)) }
    }

    /// The uncertainty of a token as if it were drafted.
    pub fn uncertainty(&self, drafted: TokenId) -> Unit {
        let certainty = self.row.certainty(drafted);
        Unit::clamped(1.0 - NODES.iter().zip(certainty).map(|((_, weight), p)| weight * p).sum::<f64>())
    }
}

/// The score of a number: the index of its bin.
pub fn to_score4(x: Unit) -> Score {
    Score::new((x.0 * SCORES as f32) as u8).unwrap_or(Score::MAX)
}

/// The middle of a bin, which is at most 1/32 from every number in it.
pub fn from_score4(score: Score) -> Unit {
    Unit((f32::from(score.get()) + 0.5) / SCORES as f32)
}

impl Unit {
    /// 0.
    pub const ZERO: Self = Self(0.0);
    /// 1.
    pub const ONE: Self = Self(1.0);

    /// The number; `None` outside 0..=1.
    pub fn new(x: f32) -> Option<Self> {
        (0.0..=1.0).contains(&x).then_some(Self(x))
    }

    /// The number, as a plain one.
    pub fn get(self) -> f32 {
        self.0
    }

    /// The nearest number in 0..=1; 0 for NaN.
    pub(crate) fn clamped(x: f64) -> Self {
        if x.is_nan() { Self::ZERO } else { Self(x.clamp(0.0, 1.0) as f32) }
    }
}

/// "resample": a domain of its own, independent of the noise that drew the token, so that a draw is not judged by
/// itself.
const DOMAIN_RESAMPLES: u64 = 0x7265_7361_6D70_6C65;

/// The temperatures of U-HLM are uniform on (0, 2).
const TEMPERATURE_SPAN: f64 = 2.0;

const RESAMPLES: usize = 20;

/// Terms of a softmax below e^−40 of the largest are left out.
const NEGLIGIBLE: f64 = -40.0;

const NODE_COUNT: usize = 8;

/// Temperatures on (0, 2), ascending, and weights that sum to 1: Gauss–Legendre, 8 nodes.
const NODES: [(f64, f64); NODE_COUNT] = [
    (1.0 - 0.960_289_856_497_536_2, 0.5 * 0.101_228_536_290_376_26),
    (1.0 - 0.796_666_477_413_626_7, 0.5 * 0.222_381_034_453_374_47),
    (1.0 - 0.525_532_409_916_329, 0.5 * 0.313_706_645_877_887_3),
    (1.0 - 0.183_434_642_495_649_8, 0.5 * 0.362_683_783_378_362),
    (1.0 + 0.183_434_642_495_649_8, 0.5 * 0.362_683_783_378_362),
    (1.0 + 0.525_532_409_916_329, 0.5 * 0.313_706_645_877_887_3),
    (1.0 + 0.796_666_477_413_626_7, 0.5 * 0.222_381_034_453_374_47),
    (1.0 + 0.960_289_856_497_536_2, 0.5 * 0.101_228_536_290_376_26),
];

/// [`Form::Sampled`]. A draw differs from the token exactly if a uniform number is at least the token's probability,
/// so the other token need not be drawn.
fn sampled(logits: &[f32], drafted: TokenId, noise: &Noise) -> Unit {
    let mut temperatures = [0.0; RESAMPLES];
    for (index, temperature) in (0..).zip(&mut temperatures) {
        *temperature = TEMPERATURE_SPAN * noise.unit(2 * index);
    }
    let certainty = Tempered::new(logits, temperatures).certainty(drafted);
    let differs = (0..).zip(certainty).filter(|&(index, p)| noise.unit(2 * index + 1) >= p).count();
    Unit::clamped(differs as f64 / RESAMPLES as f64)
}

/// A row of logits at several temperatures.
#[derive(Clone, Copy, Debug)]
struct Tempered<'a, const N: usize> {
    logits: &'a [f32],
    temperatures: [f64; N],
    highest: Option<f32>,
    totals: [f64; N],
}

impl<'a, const N: usize> Tempered<'a, N> {
    fn new(logits: &'a [f32], temperatures: [f64; N]) -> Self {
        let highest = Highest::of(logits).ok().map(|highest| highest.logit);
        let mut totals = [0.0; N];
        let below = |&z: &f32| below_highest(z, highest?);
        for other in logits.iter().filter_map(below) {
            for (total, temperature) in totals.iter_mut().zip(&temperatures) {
                *total += term(other / temperature);
            }
        }
        Self { logits, temperatures, highest, totals }
    }

    /// `softmax(z/θ)_d` at each of the temperatures; 0 if the row gives the token no probability.
    fn certainty(&self, token: TokenId) -> [f64; N] {
        let logit = self.logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
        let Some(below) = self.highest.and_then(|highest| below_highest(logit, highest)) else {
            return [0.0; N];
        };
        core::array::from_fn(|i| term(below / self.temperatures[i]) / self.totals[i])
    }
}

fn term(exponent: f64) -> f64 {
    if exponent < NEGLIGIBLE { 0.0 } else { libm::exp(exponent) }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn scores_round_trip_within_half_a_bin() {
        for index in 0..16 {
            let score = Score::new(index).unwrap();
            assert_eq!(to_score4(from_score4(score)), score);
        }
        assert_eq!(Score::new(16), None);
        for i in 0..=1000 {
            let x = Unit::new(i as f32 / 1000.0).unwrap();
            assert!((from_score4(to_score4(x)).get() - x.get()).abs() <= 1.0 / 32.0);
        }
        assert_eq!(to_score4(Unit::ONE).get(), 15);
    }

    #[test]
    fn units_outside_are_refused() {
        for bad in [-1e-6, 1.000_001, f32::NAN, f32::INFINITY] {
            assert_eq!(Unit::new(bad), None);
        }
        assert_eq!(Unit::clamped(f64::NAN), Unit::ZERO);
        assert_eq!(Unit::clamped(7.0), Unit::ONE);
    }

    #[test]
    fn forms_agree_on_certain_impossible_and_even() {
        for &form in Form::ALL {
            let of = |logits: &[f32], drafted, q| uncertainty(form, logits, drafted, q, 1, 2).get();
            assert_eq!(of(&[90.0, 0.0], 0, 1.0), 0.0, "{form}");
            assert_eq!(of(&[90.0, 0.0], 1, 0.0), 1.0, "{form}");
            assert_eq!(of(&[f32::NAN, 0.0], 0, 0.0), 1.0, "{form}");
            assert_eq!(of(&[f32::NAN], 0, f64::NAN), 1.0, "{form}");
            assert_eq!(of(&[], 3, 0.0), 1.0, "{form}");
            assert!((of(&[3.0, 3.0], 1, 0.5) - 0.5).abs() < 0.4, "{form}");
        }
        assert!((uncertainty(Form::Quadrature, &[3.0, 3.0], 1, 0.5, 0, 0).get() - 0.5).abs() < 1e-6);
    }

    #[test]
    fn samples_average_to_the_quadrature() {
        let logits = [1.0, 0.2, -0.5, 2.0, 1.9, -3.0];
        for drafted in 0..6 {
            let exact = uncertainty(Form::Quadrature, &logits, drafted, 0.0, 0, 0).get();
            let of = |n| f64::from(uncertainty(Form::Sampled, &logits, drafted, 0.0, 11, n).get());
            let mean = (0..20_000).map(of).sum::<f64>() / 20_000.0;
            assert!((mean - f64::from(exact)).abs() < 6e-3, "{drafted}: {mean} against {exact}");
        }
    }

    #[test]
    fn names_parse_back() {
        for form in Form::ALL {
            assert_eq!(form.to_string().parse(), Ok(*form));
        }
        let unknown = "entropy".parse::<Form>().unwrap_err().to_string();
        assert_eq!(unknown, "unknown form of uncertainty; known are quadrature, sampled, one-minus-q");
    }
}
