//! The target's interface: many sessions, extended together, each with its own context.

use crate::error::{Error, Result};
use crate::identity::TargetIdentity;
use crate::session::SessionId;
use dunlin_wire::Promise;
use dunlin_wire::Vocabulary;

/// One session's part of a batch: keep the first `keep` tokens, append `tokens`, return the last `rows` rows.
#[derive(Clone, Copy, Debug)]
pub struct Extend<'a> {
    /// The session.
    pub session: SessionId,
    /// Tokens of its context to keep; the others are rolled back first.
    pub keep: usize,
    /// Tokens to append.
    pub tokens: &'a [u32],
    /// Number of last tokens whose logits are wanted, at most `tokens.len()`.
    pub rows: usize,
}

/// A causal language model that holds many contexts and extends several in one pass.
pub trait Target: Send {
    /// The tokens the model knows.
    fn vocabulary(&self) -> Vocabulary;

    /// The most tokens one session can hold.
    fn context_max(&self) -> usize;

    /// The identity: two targets with the same one that promise [`Promise::Exact`] give the same bits.
    fn identity(&self) -> &TargetIdentity;

    /// The target's promise about its choices.
    fn promise(&self) -> Promise;

    /// Bytes of cache for each token of a session.
    fn cache_bytes_per_token(&self) -> u64;

    /// The most sessions that can be open at once; `None` if only their memory is bounded.
    fn sessions_max(&self) -> Option<usize> {
        None
    }

    /// Runs a first pass if the engine prepares weights in it, so that later passes take their usual memory and time.
    ///
    /// # Errors
    /// The pass fails, or the caches are too small for it.
    fn warm_up(&mut self) -> Result<()> {
        Ok(())
    }

    /// Opens an empty session.
    fn open(&mut self) -> Result<SessionId>;

    /// Opens a session that holds the first `len` tokens of another, without computing them again; `None` if the engine
    /// can't. The same tokens give the same bits as in a session that read them.
    ///
    /// # Errors
    /// The other session holds fewer tokens, or there is no room for a copy.
    fn fork(&mut self, _session: SessionId, _len: usize) -> Result<Option<SessionId>> {
        Ok(None)
    }

    /// Extends each session of `batch` and returns its requested rows, `[rows × vocabulary]`, in the order of the
    /// batch. A part that can't be served gets its own error, leaves its session unchanged and doesn't affect the
    /// others. When the engine itself fails, every part fails and each session holds `keep` tokens.
    fn extend(&mut self, batch: &[Extend<'_>]) -> Vec<Result<Vec<f32>>>;

    /// Keeps the first `len` tokens of a session; does nothing when it holds no more than that.
    fn truncate(&mut self, session: SessionId, len: usize) -> Result<()>;

    /// The number of tokens a session holds.
    fn len(&self, session: SessionId) -> Result<usize>;

    /// True when a session holds no token.
    fn is_empty(&self, session: SessionId) -> Result<bool> {
        Ok(self.len(session)? == 0)
    }

    /// Closes a session and frees its memory; an unknown session is ignored.
    fn close(&mut self, session: SessionId);
}

/// Checks part `index` of a batch against the length of its session.
pub fn check_part(
    batch: &[Extend<'_>],
    index: usize,
    length: usize,
    context_max: usize,
    vocabulary: u32,
) -> Result<()> {
    let part = &batch[index];
    if batch[..index].iter().any(|earlier| earlier.session == part.session) {
        return Err(Error::RepeatedSession(part.session));
    }
    if part.keep > length {
        return Err(Error::Keep { keep: part.keep, length });
    }
    if part.rows > part.tokens.len() {
        return Err(Error::Rows { rows: part.rows, tokens: part.tokens.len() });
    }
    check_tokens(part.tokens, part.keep, context_max, vocabulary)
}

/// Checks that `tokens` are in the vocabulary and fit after `length` others.
pub fn check_tokens(tokens: &[u32], length: usize, context_max: usize, vocabulary: u32) -> Result<()> {
    if let Some(&token) = tokens.iter().find(|token| **token >= vocabulary) {
        return Err(Error::Token { token, vocabulary });
    }
    if tokens.len() > context_max.saturating_sub(length) {
        return Err(Error::ContextFull { length, added: tokens.len(), max: context_max });
    }
    Ok(())
}
