//! Calibration of uncertainty scores for this pair of models: the share of tokens of each score that the target
//! rejects.
//!
//! Only the accepted tokens and the first rejected one count. Those behind it were drafted on a text that is not the
//! target's, so it is unknown whether they would have been accepted.

use crate::uncertainty::{SCORES, from_score4};
use dunlin_wire::Score;

/// The weight of the prior line in each bin, in tokens. It is small because the line is that of another pair; a larger
/// weight made drafts too short.
pub const PRIOR_TOKENS: f64 = 2.0;

/// Share of accepted tokens before any was judged (*ours*), and its weight in tokens.
pub const PRIOR_ACCEPTANCE: f64 = 0.7;
/// See [`PRIOR_ACCEPTANCE`].
pub const PRIOR_JUDGED: f64 = 16.0;

/// Number of observed tokens after which an observation has faded to 1/e, so that a changed domain is followed.
pub const MEMORY_TOKENS: f64 = 512.0;

/// Statistics of the tokens with one uncertainty score.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct CalibrationBin {
    /// Tokens seen, weighted by age.
    pub observed: f64,
    /// Rejected tokens, weighted by age.
    pub rejected: f64,
    /// The estimated share of rejected tokens, 0..=1; it never falls from one bin to the next.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub expected_rejection: f64,
}

/// Expected rejection β̂ by uncertainty score. The prior is CU-HLM's line `clip(0.815 u − 0.066, 0, 1)` (2505.11788);
/// verdicts correct it, and pooling adjacent violators keeps it monotone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Calibration {
    bins: [CalibrationBin; SCORES],
}

impl Calibration {
    /// The prior line, before any verdict.
    pub fn new() -> Self {
        let mut calibration = Self { bins: [CalibrationBin::default(); SCORES] };
        calibration.refit();
        calibration
    }

    /// The probability that the target rejects a token of this score, given that all before it were accepted.
    pub fn expected_rejection(&self, score: Score) -> f64 {
        self.bins[usize::from(score.get())].expected_rejection
    }

    /// The probability that the target rejects a token whose score is not known yet, given that all before it were
    /// accepted.
    pub fn mean_rejection(&self) -> f64 {
        let (observed, rejected) = self.sums();
        (PRIOR_TOKENS * line(0.5) + rejected) / (PRIOR_TOKENS + observed)
    }

    /// The share of tokens that the target accepts, given that it accepted those before, 0..=1.
    ///
    /// It starts at [`PRIOR_ACCEPTANCE`], which weighs as much as [`PRIOR_JUDGED`] tokens: the choice of who writes
    /// rests on it, and a few verdicts are no reason to change that.
    pub fn acceptance(&self) -> f64 {
        let (observed, rejected) = self.sums();
        (PRIOR_JUDGED * PRIOR_ACCEPTANCE + observed - rejected) / (PRIOR_JUDGED + observed)
    }

    /// Observed and rejected tokens of all scores, weighted by age.
    fn sums(&self) -> (f64, f64) {
        let sum = |count: fn(&CalibrationBin) -> f64| self.bins.iter().map(count).sum();
        (sum(|bin| bin.observed), sum(|bin| bin.rejected))
    }

    /// Takes the result for one token.
    pub fn observe(&mut self, score: Score, rejected: bool) {
        for bin in &mut self.bins {
            bin.observed *= 1.0 - 1.0 / MEMORY_TOKENS;
            bin.rejected *= 1.0 - 1.0 / MEMORY_TOKENS;
        }
        let bin = &mut self.bins[usize::from(score.get())];
        bin.observed += 1.0;
        bin.rejected += f64::from(u8::from(rejected));
        self.refit();
    }

    /// The calibration after these statistics; `None` if no tokens could have given them.
    pub fn from_bins(bins: [CalibrationBin; SCORES]) -> Option<Self> {
        // Sums that fade stay below their memory.
        let possible = |bin: &CalibrationBin| {
            (0.0..=MEMORY_TOKENS).contains(&bin.observed) && (0.0..=bin.observed).contains(&bin.rejected)
        };
        let mut calibration = Self { bins };
        calibration.refit();
        bins.iter().all(possible).then_some(calibration)
    }

    /// All bins, by score.
    pub fn bins(&self) -> &[CalibrationBin; SCORES] {
        &self.bins
    }

    fn refit(&mut self) {
        let mut blocks = [Block::default(); SCORES];
        let mut count = 0;
        for (score, bin) in (0..).zip(&self.bins) {
            let prior = line(from_score4(Score::new(score).unwrap_or_default()).get().into());
            let (tokens, rejected) = (PRIOR_TOKENS + bin.observed, PRIOR_TOKENS * prior + bin.rejected);
            let mut block = Block { bins: 1, tokens, rejected };
            while count > 0 && blocks[count - 1].rate() >= block.rate() {
                count -= 1;
                block = block.with(&blocks[count]);
            }
            blocks[count] = block;
            count += 1;
        }
        let fitted = blocks.iter().flat_map(|block| core::iter::repeat_n(block.rate(), block.bins));
        for (bin, rate) in self.bins.iter_mut().zip(fitted) {
            bin.expected_rejection = rate;
        }
    }
}

impl Default for Calibration {
    fn default() -> Self {
        Self::new()
    }
}

/// Neighbouring bins that share one estimate.
#[derive(Clone, Copy, Default)]
struct Block {
    bins: usize,
    tokens: f64,
    rejected: f64,
}

impl Block {
    fn rate(&self) -> f64 {
        if self.tokens > 0.0 { self.rejected / self.tokens } else { 0.0 }
    }

    fn with(self, other: &Self) -> Self {
        Self {
            bins: self.bins + other.bins,
            tokens: self.tokens + other.tokens,
            rejected: self.rejected + other.rejected,
        }
    }
}

fn line(uncertainty: f64) -> f64 {
    (0.815 * uncertainty - 0.066).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coupling::Noise;

    fn score(index: u8) -> Score {
        Score::new(index).unwrap()
    }

    fn rates(calibration: &Calibration) -> [f64; 16] {
        calibration.bins().map(|bin| bin.expected_rejection)
    }

    #[test]
    fn starts_on_the_published_line() {
        let calibration = Calibration::new();
        assert_eq!(calibration.expected_rejection(score(0)), 0.0);
        assert!((calibration.expected_rejection(score(15)) - (0.815 * 31.0 / 32.0 - 0.066)).abs() < 1e-12);
        assert!((calibration.mean_rejection() - 0.3415).abs() < 1e-12);
    }

    #[test]
    fn acceptance_starts_at_its_prior_and_follows_the_verdicts() {
        let mut calibration = Calibration::new();
        assert_eq!(calibration.acceptance(), PRIOR_ACCEPTANCE);
        calibration.observe(score(3), true);
        let after = PRIOR_JUDGED * PRIOR_ACCEPTANCE / (PRIOR_JUDGED + 1.0);
        assert!((calibration.acceptance() - after).abs() < 1e-12);
        (0..5000).for_each(|i| calibration.observe(score(3), i % 10 == 0));
        assert!((calibration.acceptance() - 0.9).abs() < 0.02, "{}", calibration.acceptance());
    }

    #[test]
    fn one_token_moves_its_bin_by_its_share() {
        let mut calibration = Calibration::new();
        let before = calibration.expected_rejection(score(15));
        calibration.observe(score(15), true);
        let after = (PRIOR_TOKENS * before + 1.0) / (PRIOR_TOKENS + 1.0);
        assert!((calibration.expected_rejection(score(15)) - after).abs() < 1e-12);
        assert_eq!(rates(&calibration)[..15], rates(&Calibration::new())[..15]);
    }

    #[test]
    fn bins_out_of_order_share_their_estimate() {
        let mut calibration = Calibration::new();
        let line = rates(&calibration);
        (0..4).for_each(|_| calibration.observe(score(14), true));
        let seen = calibration.bins()[14].observed;
        let shared = (PRIOR_TOKENS * (line[14] + line[15]) + seen) / (2.0 * PRIOR_TOKENS + seen);
        assert!(
            (rates(&calibration)[14] - shared).abs() < 1e-12
                && (rates(&calibration)[15] - shared).abs() < 1e-12
        );
        assert_eq!(rates(&calibration)[..14], line[..14]);
    }

    #[test]
    fn stays_monotone_and_within_bounds() {
        let mut calibration = Calibration::new();
        let noise = Noise::new(1, 1, 1);
        for i in 0..5000 {
            // Rejection falls as the score grows: the worst case for keeping the estimate monotone.
            let bin = (noise.unit(3 * i) * 16.0) as u8;
            calibration.observe(score(bin), noise.unit(3 * i + 1) > f64::from(bin) / 16.0);
            let rates = rates(&calibration);
            assert!(rates.is_sorted() && rates[0] >= 0.0 && rates[15] <= 1.0, "{i}: {rates:?}");
        }
    }

    #[test]
    fn finds_the_pairs_own_curve() {
        let mut calibration = Calibration::new();
        let noise = Noise::new(2, 2, 2);
        for i in 0..20_000 {
            let bin = (noise.unit(2 * i) * 16.0) as u8;
            calibration.observe(score(bin), noise.unit(2 * i + 1) < truth(bin));
        }
        for bin in 0..16 {
            let estimate = calibration.expected_rejection(score(bin));
            assert!((estimate - truth(bin)).abs() < 0.12, "bin {bin}: {estimate} against {}", truth(bin));
        }
        let mean = (0..16).map(truth).sum::<f64>() / 16.0;
        assert!((calibration.mean_rejection() - mean).abs() < 0.05);
    }

    fn truth(bin: u8) -> f64 {
        let u = (f64::from(bin) + 0.5) / 16.0;
        0.1 + 0.5 * u * u
    }

    #[test]
    fn follows_a_changed_domain() {
        let mut calibration = Calibration::new();
        (0..5000).for_each(|_| calibration.observe(score(5), true));
        assert!(calibration.expected_rejection(score(5)) > 0.9);
        (0..1500).for_each(|_| calibration.observe(score(5), false));
        assert!(calibration.expected_rejection(score(5)) < 0.07);
        (0..20_000).for_each(|_| calibration.observe(score(0), false));
        let forgotten = calibration.bins()[5];
        assert!(forgotten.observed < 1e-6, "{forgotten:?}");
    }
}
