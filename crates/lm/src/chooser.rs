//! The interface of a target that chooses the tokens itself and shows no logits, such as a server that others run.

use crate::error::Result;
use crate::identity::TargetIdentity;
use dunlin_wire::{CouplingProfile, Promise, Vocabulary};
use std::future::Future;
use std::pin::Pin;

/// A text, and the sampling of the tokens to choose behind its end and behind some of its prefixes.
#[derive(Clone, Debug, PartialEq)]
pub struct ChoiceRequest {
    /// The text.
    pub tokens: Vec<u32>,
    /// Number of choices, at least 1 and at most `tokens.len()`: choice i is the token behind the first
    /// `tokens.len() - choices + 1 + i` tokens.
    pub choices: usize,
    /// Softmax temperature; 0 is greedy.
    pub temperature: f32,
    /// Probability mass kept by top-p sampling; 1 keeps all of it.
    pub top_p: f32,
    /// Number of most likely tokens kept by top-k sampling; 0 keeps all.
    pub top_k: u32,
    /// The session's seed.
    pub seed: u64,
}

impl ChoiceRequest {
    /// The prefixes behind which tokens are chosen, shortest first.
    pub fn prefixes(&self) -> impl Iterator<Item = &[u32]> {
        let first = (self.tokens.len() + 1).saturating_sub(self.choices);
        (first..=self.tokens.len()).map(|length| &self.tokens[..length])
    }
}

/// The token that a target chose at one position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineChoice {
    /// The token.
    pub token: u32,
    /// True if the engine ends its text with it.
    pub ends: bool,
}

/// The choices of a request, to be awaited; dropping it cancels the request.
pub type ChoiceFuture<'a> = Pin<Box<dyn Future<Output = Result<Vec<EngineChoice>>> + Send + 'a>>;

/// A causal language model that chooses tokens itself, and serves several requests at once.
pub trait Chooser: Send + Sync {
    /// The tokens the model knows.
    fn vocabulary(&self) -> Vocabulary;

    /// The most tokens one text can hold.
    fn context_max(&self) -> usize;

    /// The identity, as far as the engine reports one.
    fn identity(&self) -> &TargetIdentity;

    /// The target's promise about its choices.
    fn promise(&self) -> Promise;

    /// The noise by which the engine draws its choices, as far as drafts can share it.
    fn coupling(&self) -> CouplingProfile {
        CouplingProfile::SplitMix
    }

    /// The most requests that may be under way at once.
    fn in_flight_max(&self) -> usize;

    /// Chooses the tokens of a request, one for each of [`ChoiceRequest::prefixes`].
    ///
    /// # Errors
    /// The engine gives no valid answer, or none in the time it is given.
    fn choose<'a>(&'a self, request: &'a ChoiceRequest) -> ChoiceFuture<'a>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_prefix_is_the_whole_text() {
        let request = |choices| ChoiceRequest {
            tokens: vec![1, 2, 3],
            choices,
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            seed: 0,
        };
        assert_eq!(request(1).prefixes().collect::<Vec<_>>(), [&[1, 2, 3][..]]);
        assert_eq!(request(3).prefixes().collect::<Vec<_>>(), [&[1][..], &[1, 2], &[1, 2, 3]]);
    }
}
