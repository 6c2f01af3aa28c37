//! Checks of settings against the protocol's limits.

use core::ops::RangeInclusive;
use dunlin_wire::Vocabulary;
use dunlin_wire::limits::VOCABULARY_SIZE_MAX;
use thiserror::Error;

/// A setting outside the protocol's limits.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{name} is {found}, the protocol takes {} to {}", allowed.start(), allowed.end())]
pub struct LimitError {
    name: &'static str,
    found: u32,
    allowed: RangeInclusive<u32>,
}

impl LimitError {
    pub(crate) fn check(name: &'static str, found: u32, allowed: RangeInclusive<u32>) -> Result<(), Self> {
        if allowed.contains(&found) { Ok(()) } else { Err(Self { name, found, allowed }) }
    }

    pub(crate) fn check_vocabulary(vocabulary: &Vocabulary) -> Result<(), Self> {
        Self::check("vocabulary size", vocabulary.size, 1..=VOCABULARY_SIZE_MAX)
    }
}
