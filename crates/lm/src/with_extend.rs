//! A target whose passes are another's with something around them: a price, a failure, a wait.

use crate::error::Result;
use crate::identity::TargetIdentity;
use crate::session::SessionId;
use crate::target::{Extend, Target};
use dunlin_wire::{Promise, Vocabulary};

/// A target that is `target` in all but [`Target::extend`], which `extend` does.
#[derive(Debug)]
pub struct WithExtend<T, E> {
    /// The target behind it.
    pub target: T,
    /// Gets the target and the batch; returns the rows of the batch.
    pub extend: E,
}

impl<T, E> Target for WithExtend<T, E>
where
    T: Target,
    E: FnMut(&mut T, &[Extend<'_>]) -> Vec<Result<Vec<f32>>> + Send,
{
    fn vocabulary(&self) -> Vocabulary {
        self.target.vocabulary()
    }

    fn context_max(&self) -> usize {
        self.target.context_max()
    }

    fn identity(&self) -> &TargetIdentity {
        self.target.identity()
    }

    fn promise(&self) -> Promise {
        self.target.promise()
    }

    fn cache_bytes_per_token(&self) -> u64 {
        self.target.cache_bytes_per_token()
    }

    fn warm_up(&mut self) -> Result<()> {
        self.target.warm_up()
    }

    fn open(&mut self) -> Result<SessionId> {
        self.target.open()
    }

    fn fork(&mut self, session: SessionId, len: usize) -> Result<Option<SessionId>> {
        self.target.fork(session, len)
    }

    fn extend(&mut self, batch: &[Extend<'_>]) -> Vec<Result<Vec<f32>>> {
        (self.extend)(&mut self.target, batch)
    }

    fn truncate(&mut self, session: SessionId, len: usize) -> Result<()> {
        self.target.truncate(session, len)
    }

    fn len(&self, session: SessionId) -> Result<usize> {
        self.target.len(session)
    }

    fn close(&mut self, session: SessionId) {
        self.target.close(session);
    }
}
