//! The conditions under which a pair is assessed.

use super::speed::GivenTimes;
use crate::channel::ModelledChannel;
use crate::plan::ModelledBoard;
use anyhow::{Context, Result, ensure};
use dunlin_board::Board;
use dunlin_hlm::probabilities::Sampling;
use std::path::Path;

/// The longest accepted round trip or given time, ms.
pub const MS_MAX: f64 = 10_000.0;

/// Conditions of the replies.
#[derive(Clone, Debug)]
pub struct PairConditions {
    /// Most tokens of a reply.
    pub tokens_max: usize,
    /// Temperature of both models; top-p and top-k are off.
    pub temperature: f32,
    /// The seed from which every reply's seed is derived.
    pub seed: u64,
    /// Round trips of an empty message, ms.
    pub rtt_ms: Vec<f64>,
    /// Times in place of this machine's.
    pub given: GivenTimes,
    /// The board whose powers are used.
    pub board: ModelledBoard,
    /// The channel; each round trip takes the place of its own.
    pub channel: ModelledChannel,
}

impl PairConditions {
    /// Checks every number.
    ///
    /// # Errors
    /// Names the one that is out of range.
    pub fn check(&self) -> Result<()> {
        self.sampling()?;
        ensure!(self.tokens_max > 0, "a reply of 0 tokens");
        ensure!(!self.rtt_ms.is_empty(), "no round trip");
        for ms in &self.rtt_ms {
            ensure!((0.0..=MS_MAX).contains(ms), "a round trip of {ms} ms is not within 0 and {MS_MAX}");
        }
        for ms in [self.given.draft_ms, self.given.pass_ms].into_iter().flatten() {
            ensure!(ms > 0.0 && ms <= MS_MAX, "a time of {ms} ms is not above 0 and at most {MS_MAX}");
        }
        Ok(())
    }

    /// The sampling of both models.
    ///
    /// # Errors
    /// The temperature is out of range.
    pub fn sampling(&self) -> Result<Sampling> {
        Ok(Sampling::new(self.temperature, 1.0, 0)?)
    }
}

/// Reads the board whose powers are used.
///
/// # Errors
/// The file is missing or invalid, or has no table `[modelled]`.
pub fn board(path: &Path) -> Result<ModelledBoard> {
    let Board { name, link, modelled, .. } = Board::load(path)?;
    let modelled = modelled.with_context(|| format!("{}: a board without [modelled]", path.display()))?;
    Ok(ModelledBoard { name, context_tokens_max: None, radio: link.radio, modelled })
}
