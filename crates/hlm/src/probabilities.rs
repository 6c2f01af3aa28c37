//! Converts logits to a distribution: temperature, then top-k, then top-p, in 64-bit floating point.
//!
//! Invariant: a [`Distribution`] is never empty, its support is in the order of token ids and its
//! probabilities sum to 1. Nothing here draws: see [`crate::coupling`].

use crate::TokenId;
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Ordering;

/// The highest accepted temperature.
pub const TEMPERATURE_MAX: f32 = 10.0;

/// The longest accepted row of logits, in tokens.
pub const VOCABULARY_MAX: usize = dunlin_wire::limits::VOCABULARY_SIZE_MAX as usize;

/// Sampling settings; drafter and target must use the same ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    temperature: f32,
    top_p: f32,
    top_k: u32,
}

/// A [`Sampling`] setting out of its range.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum SamplingError {
    /// The temperature is negative, above [`TEMPERATURE_MAX`] or NaN.
    #[error("temperature {0} is not within 0 and {TEMPERATURE_MAX}")]
    Temperature(f32),
    /// `top_p` is not in (0, 1].
    #[error("top-p {0} is not above 0 and at most 1")]
    TopP(f32),
}

/// A row of logits that does not define a distribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogitsError {
    /// No token has a logit above −∞ (NaN counts as −∞), or the row is empty.
    #[error("no token of the row has a logit above minus infinity")]
    NoMass,
    /// The row is longer than [`VOCABULARY_MAX`].
    #[error("a row of {0} logits is longer than {VOCABULARY_MAX}")]
    TooLong(usize),
}

/// One token of a distribution's support.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The token.
    pub token: TokenId,
    /// Its probability; 0 if it is too small for an `f64`.
    pub probability: f64,
    /// The natural logarithm of its probability; finite.
    pub ln_probability: f64,
}

/// A distribution over tokens after temperature, top-k and top-p: `q` of the drafter or `p` of the target.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    support: Vec<Candidate>,
    greedy_margin: Option<f64>,
}

impl Sampling {
    /// Sampling with a temperature in 0..=[`TEMPERATURE_MAX`] (0 is greedy), `top_p` in (0, 1] (1 is off) and `top_k`
    /// tokens (0 is off).
    ///
    /// # Errors
    /// Names the setting that is out of range.
    pub fn new(temperature: f32, top_p: f32, top_k: u32) -> Result<Self, SamplingError> {
        if !(0.0..=TEMPERATURE_MAX).contains(&temperature) {
            return Err(SamplingError::Temperature(temperature));
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err(SamplingError::TopP(top_p));
        }
        Ok(Self { temperature, top_p, top_k })
    }

    /// Greedy sampling: always the most probable token.
    pub const fn greedy() -> Self {
        Self { temperature: 0.0, top_p: 1.0, top_k: 0 }
    }

    /// True when the most probable token is always taken.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }

    /// The temperature; 0 is greedy.
    pub fn temperature(&self) -> f32 {
        self.temperature
    }

    /// The share of probability that top-p keeps; 1 keeps all of it.
    pub fn top_p(&self) -> f32 {
        self.top_p
    }

    /// The number of most probable tokens that top-k keeps; 0 keeps all of them.
    pub fn top_k(&self) -> u32 {
        self.top_k
    }
}

impl Distribution {
    /// All the probability on one token; also a start value for [`Self::refill`].
    pub fn certain(token: TokenId) -> Self {
        Self {
            support: vec![Candidate { token, probability: 1.0, ln_probability: 0.0 }],
            greedy_margin: None,
        }
    }

    /// The distribution proportional to weights, which must be in ascending order of tokens. Weights that are 0,
    /// negative, infinite or NaN are left out; `None` if none remains.
    pub fn from_weights(weights: impl IntoIterator<Item = (TokenId, f64)>) -> Option<Self> {
        let has_mass = |weight: f64| weight > 0.0 && weight < f64::INFINITY;
        let candidate = |(token, weight): (TokenId, f64)| Candidate {
            token,
            probability: weight,
            ln_probability: libm::log(weight),
        };
        let support: Vec<Candidate> =
            weights.into_iter().filter(|(_, weight)| has_mass(*weight)).map(candidate).collect();
        debug_assert!(
            support.is_sorted_by(|a, b| a.token < b.token),
            "weights come in the order of their tokens"
        );
        if support.is_empty() {
            return None;
        }
        let mut distribution = Self { support, greedy_margin: None };
        distribution.normalise();
        Some(distribution)
    }

    /// The distribution of one row of logits, one per token of the vocabulary.
    pub fn from_logits(logits: &[f32], sampling: &Sampling) -> Result<Self, LogitsError> {
        let mut distribution = Self::certain(0);
        distribution.refill(logits, sampling)?;
        Ok(distribution)
    }

    /// Replaces the distribution with that of one row of logits, reusing its memory; unchanged after an error.
    ///
    /// NaN counts as −∞; tokens at +∞ share all the probability evenly. Ties in top-k and top-p go to the lower id.
    /// Costs O(V) plus a sort of the tokens that top-k or top-p can keep.
    pub fn refill(&mut self, logits: &[f32], sampling: &Sampling) -> Result<(), LogitsError> {
        let highest = Highest::of(logits)?;
        if sampling.is_greedy() {
            *self = Self { greedy_margin: Some(highest.margin()), ..Self::certain(highest.token) };
            return Ok(());
        }
        self.greedy_margin = None;
        self.temper(logits, highest.logit, f64::from(sampling.temperature));
        self.keep_top_k(sampling.top_k as usize);
        self.normalise();
        if sampling.top_p < 1.0 {
            self.keep_top_p(f64::from(sampling.top_p));
            self.normalise();
        }
        Ok(())
    }

    /// The tokens that can be drawn, in the order of their ids.
    pub fn support(&self) -> &[Candidate] {
        &self.support
    }

    /// The probability of a token; 0 outside the support.
    pub fn probability(&self, token: TokenId) -> f64 {
        match self.support.binary_search_by_key(&token, |c| c.token) {
            Ok(index) => self.support[index].probability,
            Err(_) => 0.0,
        }
    }

    /// At temperature 0 the difference between the two highest logits (+∞ if only one is above −∞); `None` at other
    /// temperatures.
    pub fn greedy_margin(&self) -> Option<f64> {
        self.greedy_margin
    }

    fn temper(&mut self, logits: &[f32], highest: f32, temperature: f64) {
        let candidate = |(token, &logit): (TokenId, &f32)| {
            let ln_probability = below_highest(logit, highest)? / temperature;
            Some(Candidate { token, probability: libm::exp(ln_probability), ln_probability })
        };
        self.support.clear();
        self.support.extend((0..).zip(logits).filter_map(candidate));
    }

    fn keep_top_k(&mut self, top_k: usize) {
        if top_k == 0 || top_k >= self.support.len() {
            return;
        }
        self.support.select_nth_unstable_by(top_k - 1, by_rank);
        self.support.truncate(top_k);
        self.support.sort_unstable_by_key(|c| c.token);
    }

    /// Keeps the fewest most probable tokens that together reach `top_p`.
    fn keep_top_p(&mut self, top_p: f64) {
        // All tokens below this bound together weigh less than 1 − top_p, so none of them is kept. Dropping them first
        // avoids sorting a whole vocabulary. The factor ½ guards against rounding.
        let negligible = 0.5 * (1.0 - top_p) / self.support.len() as f64;
        self.support.retain(|c| c.probability >= negligible);
        self.support.sort_unstable_by(by_rank);
        let mut total = 0.0;
        let reaches = self.support.iter().position(|c| {
            total += c.probability;
            total >= top_p
        });
        if let Some(last) = reaches {
            self.support.truncate(last + 1);
        }
        self.support.sort_unstable_by_key(|c| c.token);
    }

    fn normalise(&mut self) {
        let total: f64 = self.support.iter().map(|c| c.probability).sum();
        let ln_total = libm::log(total);
        for candidate in &mut self.support {
            candidate.probability /= total;
            candidate.ln_probability -= ln_total;
        }
    }
}

/// Half the sum of |p − q| over all tokens, in 0..=1.
pub fn total_variation(a: &Distribution, b: &Distribution) -> f64 {
    let mut sum = 0.0;
    for_each_pair(a, b, |p, q| sum += libm::fabs(p - q));
    (0.5 * sum).min(1.0)
}

/// The sum of min(p, q) over all tokens, in 0..=1: the acceptance of rejection sampling (2211.17192).
pub fn overlap(a: &Distribution, b: &Distribution) -> f64 {
    let mut sum = 0.0;
    for_each_pair(a, b, |p, q| sum += p.min(q));
    sum.min(1.0)
}

/// A logit minus the highest of its row, ≤ 0; `None` if its probability is 0.
pub(crate) fn below_highest(logit: f32, highest: f32) -> Option<f64> {
    if logit == highest {
        return Some(0.0);
    }
    let below = f64::from(logit) - f64::from(highest);
    (below > f64::NEG_INFINITY).then_some(below)
}

/// The highest logit of a row with its token, and the second highest logit.
pub(crate) struct Highest {
    token: TokenId,
    pub(crate) logit: f32,
    second: f32,
}

impl Highest {
    pub(crate) fn of(logits: &[f32]) -> Result<Self, LogitsError> {
        if logits.len() > VOCABULARY_MAX {
            return Err(LogitsError::TooLong(logits.len()));
        }
        let mut highest = Self { token: 0, logit: f32::NEG_INFINITY, second: f32::NEG_INFINITY };
        for (token, &logit) in (0..).zip(logits) {
            if logit > highest.logit {
                highest = Self { token, logit, second: highest.logit };
            } else if logit > highest.second {
                highest.second = logit;
            }
        }
        if highest.logit == f32::NEG_INFINITY { Err(LogitsError::NoMass) } else { Ok(highest) }
    }

    fn margin(&self) -> f64 {
        below_highest(self.second, self.logit).map_or(f64::INFINITY, |below| -below)
    }
}

fn by_rank(a: &Candidate, b: &Candidate) -> Ordering {
    b.ln_probability.total_cmp(&a.ln_probability).then(a.token.cmp(&b.token))
}

fn for_each_pair(a: &Distribution, b: &Distribution, mut pair: impl FnMut(f64, f64)) {
    let (mut left, mut right) = (a.support.iter().peekable(), b.support.iter().peekable());
    loop {
        let token = match (left.peek(), right.peek()) {
            (Some(l), Some(r)) => l.token.min(r.token),
            (Some(l), None) => l.token,
            (None, Some(r)) => r.token,
            (None, None) => return,
        };
        let p = left.next_if(|c| c.token == token).map_or(0.0, |c| c.probability);
        let q = right.next_if(|c| c.token == token).map_or(0.0, |c| c.probability);
        pair(p, q);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampling(temperature: f32, top_p: f32, top_k: u32) -> Sampling {
        Sampling::new(temperature, top_p, top_k).unwrap()
    }

    fn tokens(distribution: &Distribution) -> Vec<TokenId> {
        distribution.support().iter().map(|c| c.token).collect()
    }

    #[test]
    fn settings_out_of_range_are_named() {
        for bad in [-0.1, TEMPERATURE_MAX + 0.1, f32::NAN, f32::INFINITY] {
            assert!(matches!(Sampling::new(bad, 1.0, 0), Err(SamplingError::Temperature(_))), "{bad}");
        }
        for bad in [0.0, -1.0, 1.000_1, f32::NAN] {
            assert!(matches!(Sampling::new(1.0, bad, 0), Err(SamplingError::TopP(_))), "{bad}");
        }
        assert!(Sampling::new(TEMPERATURE_MAX, 1.0, u32::MAX).is_ok());
        assert_eq!(Sampling::new(0.0, 1.0, 0), Ok(Sampling::greedy()));
    }

    #[test]
    fn softmax_by_hand() {
        let d = Distribution::from_logits(&[0.0, 2.0], &sampling(2.0, 1.0, 0)).unwrap();
        let e = core::f64::consts::E;
        assert!((d.probability(1) - e / (1.0 + e)).abs() < 1e-15);
        assert!((d.support()[0].ln_probability - libm::log(d.probability(0))).abs() < 1e-15);
        assert_eq!(d.probability(2), 0.0);
    }

    #[test]
    fn ties_go_to_the_lower_id() {
        let row = [1.0, 3.0, 1.0, 3.0, 1.0];
        let kept =
            |top_p, top_k| tokens(&Distribution::from_logits(&row, &sampling(1.0, top_p, top_k)).unwrap());
        assert_eq!(kept(1.0, 1), [1]);
        assert_eq!(kept(1.0, 3), [0, 1, 3]);
        assert_eq!(kept(1e-9, 0), [1]);
        assert_eq!(kept(0.85, 0), [0, 1, 3]);
        let greedy = Distribution::from_logits(&row, &Sampling::greedy()).unwrap();
        assert_eq!((tokens(&greedy).as_slice(), greedy.greedy_margin()), ([1].as_slice(), Some(0.0)));
    }

    #[test]
    fn top_k_goes_before_top_p() {
        let row = [1.0f32, 0.9, 0.8, 0.7, 0.6];
        let d = Distribution::from_logits(&row, &sampling(1.0, 0.6, 2)).unwrap();
        assert_eq!(tokens(&d), [0, 1]);
        let d = Distribution::from_logits(&row, &sampling(1.0, 0.5, 2)).unwrap();
        assert_eq!(tokens(&d), [0]);
    }

    #[test]
    fn nan_is_minus_infinity_and_plus_infinity_takes_all() {
        let row = [f32::NAN, 1.0, f32::NEG_INFINITY, 1.0];
        assert_eq!(tokens(&Distribution::from_logits(&row, &sampling(1.0, 1.0, 0)).unwrap()), [1, 3]);
        let row = [f32::INFINITY, f32::MAX, f32::NAN, f32::INFINITY];
        let d = Distribution::from_logits(&row, &sampling(0.5, 1.0, 0)).unwrap();
        assert_eq!((tokens(&d).as_slice(), d.probability(3)), ([0, 3].as_slice(), 0.5));
        let greedy = Distribution::from_logits(&[2.0, f32::INFINITY], &Sampling::greedy()).unwrap();
        assert_eq!(
            (tokens(&greedy).as_slice(), greedy.greedy_margin()),
            ([1].as_slice(), Some(f64::INFINITY))
        );
    }

    #[test]
    fn a_row_without_mass_is_an_error_and_changes_nothing() {
        let mut d = Distribution::certain(7);
        for row in [&[] as &[f32], &[f32::NAN, f32::NEG_INFINITY]] {
            assert_eq!(d.refill(row, &Sampling::greedy()), Err(LogitsError::NoMass));
        }
        let row = vec![0.0; VOCABULARY_MAX + 1];
        assert_eq!(d.refill(&row, &sampling(1.0, 1.0, 0)), Err(LogitsError::TooLong(row.len())));
        assert_eq!(d, Distribution::certain(7));
    }

    #[test]
    fn the_widest_flat_row_is_taken_whole() {
        let row = vec![0.0; VOCABULARY_MAX];
        for top_p in [1.0, 0.5] {
            let d = Distribution::from_logits(&row, &sampling(1.0, top_p, 0)).unwrap();
            assert_eq!(d.support().len(), (VOCABULARY_MAX as f32 * top_p) as usize);
        }
        let d = Distribution::from_logits(&row, &sampling(1.0, f32::MIN_POSITIVE, 0)).unwrap();
        assert_eq!(tokens(&d), [0]);
    }

    #[test]
    fn distances_of_overlapping_supports() {
        let a = Distribution::from_logits(&[0.0, 0.0, f32::NAN], &sampling(1.0, 1.0, 0)).unwrap();
        let b = Distribution::from_logits(&[f32::NAN, 0.0, 0.0], &sampling(1.0, 1.0, 0)).unwrap();
        assert_eq!((total_variation(&a, &b), overlap(&a, &b)), (0.5, 0.5));
        assert_eq!((total_variation(&a, &a), overlap(&a, &a)), (0.0, 1.0));
        assert_eq!(
            (total_variation(&Distribution::certain(9), &b), overlap(&Distribution::certain(9), &b)),
            (1.0, 0.0)
        );
    }
}
