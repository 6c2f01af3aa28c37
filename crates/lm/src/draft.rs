//! The drafter's interface: tokens in, one row of logits and attention per token out.

use crate::error::Result;
use dunlin_wire::Vocabulary;

/// A causal language model with one growing context that can be rolled back.
pub trait Draft {
    /// The tokens the model knows.
    fn vocabulary(&self) -> Vocabulary;

    /// The most tokens the context can hold.
    fn context_max(&self) -> usize;

    /// Memory that each token of the context takes at most, bytes; 0 for a model without a cache.
    fn cache_bytes_per_token(&self) -> u64 {
        0
    }

    /// The number of tokens in the context.
    fn len(&self) -> usize;

    /// True when the context holds no token.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps the first `len` tokens of the context; does nothing when it holds no more than that.
    fn truncate(&mut self, len: usize);

    /// Appends `tokens` and returns a row for each. On an error the context is unchanged.
    fn extend(&mut self, tokens: &[u32]) -> Result<Rows>;
}

/// Logits, and attention if the model outputs it, for each token of one [`Draft::extend`].
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    logits: Vec<f32>,
    width: usize,
    attention: Option<Vec<f32>>,
    past: usize,
}

impl Rows {
    /// Rows of `width` logits for tokens that follow `past` others.
    pub fn new(width: usize, past: usize) -> Self {
        Self { logits: Vec::new(), width, attention: None, past }
    }

    /// Appends rows of logits, `[n × width]`.
    pub fn push_logits(&mut self, logits: &[f32]) {
        self.logits.extend_from_slice(logits);
    }

    /// Appends the attention of the next row: its `past + row + 1` weights.
    pub fn push_attention(&mut self, weights: &[f32]) {
        self.attention.get_or_insert_default().extend_from_slice(weights);
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.logits.len() / self.width.max(1)
    }

    /// True when there is no row.
    pub fn is_empty(&self) -> bool {
        self.logits.is_empty()
    }

    /// Row `row`: one logit per token of the vocabulary, for the token after token `row` of the chunk.
    ///
    /// # Panics
    /// When `row` isn't less than [`len`](Self::len).
    pub fn logits(&self, row: usize) -> &[f32] {
        &self.logits[row * self.width..(row + 1) * self.width]
    }

    /// The last layer's attention of token `row` of the chunk, averaged over heads: one weight for each of the
    /// `past + row + 1` tokens it can see, itself last; the weights sum to 1. `None` when the model has no
    /// attention output.
    ///
    /// # Panics
    /// When `row` isn't less than [`len`](Self::len).
    pub fn attention(&self, row: usize) -> Option<&[f32]> {
        let start = row * self.past + row * (row + 1) / 2;
        self.attention.as_ref().map(|weights| &weights[start..start + self.past + row + 1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attention_rows_are_ragged() {
        let mut rows = Rows::new(1, 2);
        rows.push_logits(&[0.0, 1.0]);
        assert_eq!(rows.attention(0), None);
        rows.push_attention(&[1.0, 2.0, 3.0]);
        rows.push_attention(&[4.0, 5.0, 6.0, 7.0]);
        assert_eq!(rows.len(), 2);
        assert_eq!(rows.attention(0), Some(&[1.0, 2.0, 3.0][..]));
        assert_eq!(rows.attention(1), Some(&[4.0, 5.0, 6.0, 7.0][..]));
    }
}
