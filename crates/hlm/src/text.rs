//! The text of a session: its tokens and the digest of every prefix.

use crate::TokenId;
use alloc::vec::Vec;
use dunlin_wire::{Digest, PREFIX_EMPTY, Prefix, PrefixDigest};

/// Tokens with the digest of each prefix, so that a rollback recomputes nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Text {
    tokens: Vec<TokenId>,
    /// `digests[n]` belongs to the first `n + 1` tokens.
    digests: Vec<PrefixDigest>,
}

impl Text {
    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    pub(crate) fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    pub(crate) fn push(&mut self, token: TokenId) {
        let last = self.digests.last().copied().unwrap_or(PREFIX_EMPTY);
        self.tokens.push(token);
        self.digests.push(last.push(token));
    }

    pub(crate) fn extend(&mut self, tokens: &[TokenId]) {
        tokens.iter().for_each(|token| self.push(*token));
    }

    pub(crate) fn truncate(&mut self, length: usize) {
        self.tokens.truncate(length);
        self.digests.truncate(length);
    }

    /// The short digest of the first `length` tokens; `None` if the text is shorter.
    pub(crate) fn short(&self, length: usize) -> Option<Prefix> {
        self.digest(length).map(PrefixDigest::short)
    }

    /// The full digest of the first `length` tokens; `None` if the text is shorter.
    pub(crate) fn full(&self, length: usize) -> Option<Digest> {
        self.digest(length).map(PrefixDigest::full)
    }

    fn digest(&self, length: usize) -> Option<PrefixDigest> {
        match length {
            0 => Some(PREFIX_EMPTY),
            _ => self.digests.get(length - 1).copied(),
        }
    }
}

/// The length of the longest common prefix.
pub(crate) fn shared_prefix<'a>(
    left: impl IntoIterator<Item = &'a TokenId>,
    right: impl IntoIterator<Item = &'a TokenId>,
) -> usize {
    left.into_iter().zip(right).take_while(|(l, r)| l == r).count()
}
