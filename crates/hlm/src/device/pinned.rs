//! The target that a session is pinned to.

use dunlin_wire::{Promise, TargetId};

/// The target that writes a session's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinnedTarget {
    /// Its weights and numerics.
    pub id: TargetId,
    /// Its promise about the text.
    pub promise: Promise,
}

impl PinnedTarget {
    /// True when the other target would continue with the same text. For a promise other than [`Promise::Exact`]: when
    /// its text has the same distribution, which needs equal weights but not equal numerics.
    pub fn is_same(self, other: Self) -> bool {
        let exact = self.promise == Promise::Exact;
        let weights = self.id.has_weights_of(other.id);
        self.promise == other.promise && if exact { self.id == other.id } else { weights }
    }
}
