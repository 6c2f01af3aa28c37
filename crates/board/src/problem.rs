//! What is wrong with a value that is of the right type.

use std::fmt::Display;
use thiserror::Error;

/// A key and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{key}: {what}")]
pub struct Problem {
    /// The key with its tables: `power.address`.
    pub key: String,
    /// What is wrong with its value, and what would be right.
    pub what: String,
}

impl Problem {
    /// A problem with a key.
    pub fn new(key: impl Into<String>, what: impl Display) -> Self {
        Self { key: key.into(), what: what.to_string() }
    }
}

/// All is well, or a problem with `key`.
pub(crate) fn ensure(good: bool, key: &str, what: impl FnOnce() -> String) -> Result<(), Problem> {
    if good { Ok(()) } else { Err(Problem::new(key, what())) }
}
