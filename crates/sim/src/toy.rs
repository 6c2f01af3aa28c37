//! Toy models: logits are a hash of the last two tokens, so that a run takes microseconds.

use dunlin_hlm::TokenId;

/// A target and a drafter that is similar to it as far as `agreement` tells.
#[derive(Clone, Copy, Debug)]
pub struct ToyPair {
    /// Size of the vocabulary.
    pub vocabulary: u32,
    /// Seed of the pair's logits.
    pub seed: u64,
    /// Weight of the target's logits in the drafter's: 1 makes them equal, 0 independent.
    pub agreement: f32,
}

impl ToyPair {
    /// The target's logits after `text`, one per vocabulary entry.
    pub fn target(&self, text: &[TokenId]) -> Vec<f32> {
        (0..self.vocabulary).map(|token| self.logit(text, token, 0)).collect()
    }

    /// The drafter's logits after `text`, one per vocabulary entry.
    pub fn drafter(&self, text: &[TokenId]) -> Vec<f32> {
        let mix = |token| {
            let (own, target) = (self.logit(text, token, 1), self.logit(text, token, 0));
            own + (target - own) * self.agreement
        };
        (0..self.vocabulary).map(mix).collect()
    }

    /// A logit in [−4, 4).
    fn logit(&self, text: &[TokenId], token: TokenId, model: u64) -> f32 {
        let mut last = text.iter().rev().map(|token| u64::from(*token) + 1);
        let (one, two) = (last.next().unwrap_or(0), last.next().unwrap_or(0));
        let key = [self.seed, model, one, two, u64::from(token)];
        let hash = key.into_iter().fold(0x9e37_79b9_7f4a_7c15, |h: u64, x| {
            let h = (h ^ x).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (h ^ (h >> 29)).wrapping_mul(0x94d0_49bb_1331_11eb)
        });
        (hash >> 40) as f32 / (1 << 24) as f32 * 8.0 - 4.0
    }
}
