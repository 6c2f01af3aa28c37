//! Acceptance and greedy agreement of a pair along the target's own replies.

use crate::pair::Pair;
use anyhow::{Context, Result};
use dunlin_hlm::TokenId;
use dunlin_hlm::probabilities::{Distribution, Sampling, overlap};
use dunlin_sim::quiet::Models;
use serde::Serialize;

/// The agreement of two models over the tokens of the target's own replies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct PairAgreement {
    /// Replies.
    pub replies: usize,
    /// Their tokens.
    pub tokens: usize,
    /// α: the mean of 1 − TV, that is Σ min(p, q), 0..=1.
    pub alpha: f64,
    /// Its standard error over replies; `None` for a single one.
    pub alpha_error: Option<f64>,
    /// Share of the tokens at which both models prefer the same token.
    pub greedy: f64,
}

/// Sums over replies.
#[derive(Clone, Debug)]
pub struct AgreementSums {
    shared_size: usize,
    /// Tokens and the sum of 1 − TV, by reply.
    replies: Vec<(usize, f64)>,
    agreed: usize,
}

impl AgreementSums {
    /// No replies of two models whose first `shared_size` tokens are the same.
    ///
    /// The drafter draws from these alone. What the target gives to others counts as disagreement.
    pub fn new(shared_size: u32) -> Self {
        Self { shared_size: shared_size as usize, replies: Vec::new(), agreed: 0 }
    }

    /// Adds the target's reply to a prompt.
    ///
    /// # Errors
    /// A model fails or returns invalid rows.
    pub fn add(
        &mut self,
        pair: &mut Pair<'_>,
        prompt: &[TokenId],
        reply: &[TokenId],
        sampling: &Sampling,
    ) -> Result<()> {
        let whole = [prompt, reply].concat();
        pair.begin(prompt.len());
        let mut sum = 0.0;
        for end in prompt.len()..whole.len() {
            let text = &whole[..end];
            let target = pair.target_rows(text, 1)?.pop().context("the target gave no row")?;
            let drafter = pair.drafter_row(text)?.logits;
            let drafter = &drafter[..self.shared_size.min(drafter.len())];
            let p = Distribution::from_logits(&target, sampling).context("the target's logits")?;
            let q = Distribution::from_logits(drafter, sampling).context("the drafter's logits")?;
            sum += overlap(&p, &q);
            self.agreed += usize::from(highest(&target) == highest(drafter));
        }
        self.replies.push((reply.len(), sum));
        Ok(())
    }

    /// The means.
    pub fn settle(&self) -> PairAgreement {
        let replies = self.replies.len();
        let tokens: usize = self.replies.iter().map(|(tokens, _)| tokens).sum();
        let mean = |sum: f64| sum / tokens.max(1) as f64;
        let alpha = mean(self.replies.iter().map(|(_, sum)| sum).sum());
        // The error of a ratio of two sums over replies (Cochran, Sampling Techniques, 2.11).
        let squares: f64 =
            self.replies.iter().map(|(tokens, sum)| (sum - alpha * *tokens as f64).powi(2)).sum();
        let n = replies as f64;
        let alpha_error = (replies > 1).then(|| mean((squares * n / (n - 1.0)).sqrt()));
        PairAgreement { replies, tokens, alpha, alpha_error, greedy: mean(self.agreed as f64) }
    }
}

/// The first of the highest logits' tokens.
fn highest(row: &[f32]) -> Option<usize> {
    (0..row.len()).rev().max_by(|a, b| row[*a].total_cmp(&row[*b]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_and_their_error_by_hand() {
        let sums = AgreementSums { shared_size: 4, replies: vec![(2, 1.0), (6, 5.0)], agreed: 6 };
        let settled = sums.settle();
        assert_eq!((settled.replies, settled.tokens, settled.alpha, settled.greedy), (2, 8, 0.75, 0.75));
        // Residuals are 1 − 1.5 and 5 − 4.5: √(0.5 · 2 / 1) / 8.
        assert_eq!(settled.alpha_error, Some(1.0 / 8.0));
        let one = AgreementSums { replies: vec![(2, 1.0)], ..sums };
        assert_eq!((one.settle().alpha, one.settle().alpha_error), (0.5, None));
        assert_eq!(AgreementSums::new(4).settle().alpha, 0.0);
    }

    #[test]
    fn the_first_of_equal_logits_is_the_highest() {
        assert_eq!(highest(&[0.0, 2.0, 2.0, 1.0]), Some(1));
        assert_eq!(highest(&[]), None);
    }
}
