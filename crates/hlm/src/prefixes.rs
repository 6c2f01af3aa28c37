//! Two vocabularies of different sizes: models share one if the smaller is the beginning of the larger.
//!
//! One tokenizer is saved with a pad and without it, or with a few control tokens more; all of its common ids mean the
//! same. Both ends hash their first *n* tokens for each *n*, so that either can compare at the smaller size.

use alloc::sync::Arc;
use dunlin_wire::Vocabulary;

/// The fingerprints of a vocabulary's first 1, 2, 3, … tokens. Empty, it compares equal sizes alone.
#[derive(Clone, Debug, Default)]
pub struct Prefixes(Arc<[[u8; 8]]>);

impl Prefixes {
    /// True if `other` is `own` or its beginning.
    pub fn contain(&self, own: Vocabulary, other: Vocabulary) -> bool {
        other == own || other.size < own.size && self.of(other.size) == Some(other)
    }

    /// The first `size` tokens.
    fn of(&self, size: u32) -> Option<Vocabulary> {
        let index = usize::try_from(size).ok()?.checked_sub(1)?;
        self.0.get(index).map(|fingerprint| Vocabulary { size, fingerprint: *fingerprint })
    }
}

impl From<Arc<[[u8; 8]]>> for Prefixes {
    /// Element *n* − 1 is the fingerprint of the first *n* tokens.
    fn from(fingerprints: Arc<[[u8; 8]]>) -> Self {
        Self(fingerprints)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn a_beginning_is_contained_and_nothing_else() {
        let prefixes = Prefixes::from(Arc::from(vec![[1; 8], [2; 8], [3; 8]]));
        let vocabulary = |size, byte| Vocabulary { size, fingerprint: [byte; 8] };
        let own = vocabulary(3, 3);
        for other in [own, vocabulary(1, 1), vocabulary(2, 2)] {
            assert!(prefixes.contain(own, other), "{other}");
        }
        for other in
            [vocabulary(3, 4), vocabulary(2, 1), vocabulary(0, 0), vocabulary(4, 3), vocabulary(4, 4)]
        {
            assert!(!prefixes.contain(own, other), "{other}");
        }
        assert!(Prefixes::default().contain(own, own));
        assert!(!Prefixes::default().contain(own, vocabulary(2, 2)));
    }
}
