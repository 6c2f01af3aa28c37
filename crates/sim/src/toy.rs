//! Toy models: logits are a hash of the last two tokens, so that a run takes microseconds.

use crate::quiet::{DrafterRow, Models};
use anyhow::{Result, ensure};
use dunlin_hlm::TokenId;
use dunlin_hlm::coupling::couple;
use dunlin_hlm::device::DraftJob;
use dunlin_hlm::probabilities::{Distribution, LogitsError, Sampling};
use dunlin_hlm::verifier::{Slot, VerifyJob};
use std::collections::BTreeMap;

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

    /// The logits after `text` of a drafter with `size` tokens, whose first ones are the target's.
    pub fn drafter(&self, text: &[TokenId], size: u32) -> Vec<f32> {
        let mix = |token| {
            let (own, target) = (self.logit(text, token, 1), self.logit(text, token, 0));
            own + (target - own) * self.agreement
        };
        (0..size).map(mix).collect()
    }

    /// The token that the target alone writes behind `text`.
    ///
    /// # Errors
    /// None of the sampling settings leaves a token.
    pub fn next(&self, text: &[TokenId], sampling: &Sampling, seed: u64) -> Result<TokenId, LogitsError> {
        let law = Distribution::from_logits(&self.target(text), sampling)?;
        Ok(couple(&law, seed, text.len() as u64))
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

/// A device's toy models, each with its cache.
#[derive(Clone, Debug)]
pub struct ToyModels {
    pair: ToyPair,
    drafter: Vec<TokenId>,
    slots: BTreeMap<Slot, Vec<TokenId>>,
}

impl ToyModels {
    /// Models with empty caches.
    pub fn new(pair: ToyPair) -> Self {
        Self { pair, drafter: Vec::new(), slots: BTreeMap::new() }
    }

    /// Slots with a cache.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }
}

impl Models for ToyModels {
    fn draft(&mut self, job: &DraftJob) -> Result<DrafterRow> {
        ensure!(job.keep <= self.drafter.len(), "{job:?} on a cache of {}", self.drafter.len());
        self.drafter.truncate(job.keep);
        self.drafter.extend(&job.tokens);
        Ok(DrafterRow {
            logits: self.pair.drafter(&self.drafter, self.pair.vocabulary).into(),
            attention: None,
        })
    }

    fn verify(&mut self, job: &VerifyJob) -> Result<Vec<f32>> {
        let cache = self.slots.entry(job.slot).or_default();
        ensure!(job.keep <= cache.len(), "{job:?} on a cache of {}", cache.len());
        cache.truncate(job.keep);
        cache.extend(&job.tokens);
        let first = cache.len() + 1 - job.rows;
        Ok((first..=cache.len()).flat_map(|length| self.pair.target(&cache[..length])).collect())
    }

    fn begin(&mut self, _: usize) {
        self.drafter.clear();
    }

    fn release(&mut self, slot: Slot) {
        self.slots.remove(&slot);
    }
}
