//! The target that a session stays with.

use dunlin_wire::{Promise, TargetId};

/// The target that a session's text is written by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinnedTarget {
    /// Its weights and numerics.
    pub id: TargetId,
    /// What it promises.
    pub promise: Promise,
}

impl PinnedTarget {
    /// True where the other target goes on with the same text, or for a target that is not exact, with one of the
    /// same law.
    pub fn is_same(self, other: Self) -> bool {
        let exact = self.promise == Promise::Exact;
        let weights = self.id.has_weights_of(other.id);
        self.promise == other.promise && if exact { self.id == other.id } else { weights }
    }
}
