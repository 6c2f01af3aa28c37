//! The roles of keys.

use std::fmt;

/// A role of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyRole {
    /// Signs releases.
    Release,
    /// Signs rollouts, commands and the time.
    Rollout,
    /// Signs roots.
    Root,
}

impl fmt::Display for KeyRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Release => "release",
            Self::Rollout => "rollout",
            Self::Root => "root",
        })
    }
}
