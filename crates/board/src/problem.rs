//! An invalid value of the right type.

use std::fmt::Display;
use thiserror::Error;

/// A key with an invalid value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{key}: {what}")]
pub struct Problem {
    /// The key with its tables: `power.address`.
    pub key: String,
    /// Why its value is invalid, and which values are valid.
    pub what: String,
}

impl Problem {
    /// A problem with a key.
    pub fn new(key: impl Into<String>, what: impl Display) -> Self {
        Self { key: key.into(), what: what.to_string() }
    }
}

/// Reports a failed check of `key`.
pub(crate) fn ensure(good: bool, key: &str, what: impl FnOnce() -> String) -> Result<(), Problem> {
    if good { Ok(()) } else { Err(Problem::new(key, what())) }
}
