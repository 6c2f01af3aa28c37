//! What a user should know besides the text.

use dunlin_link::Loss;
use dunlin_wire::{DecodeError, VerifierId};
use std::fmt;

/// Something worth a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// For a second or more there has been no connection.
    NoBroker(Option<Loss>),
    /// For a second or more no verifier gave a lease.
    NoVerifier,
    /// For a second or more the verifier did not answer.
    NoVerdict(VerifierId),
    /// Nobody answered for long: tokens are committed unverified from here.
    GaveUp,
    /// A verifier answers again.
    Returned,
    /// From this token of the reply on another target writes: one with this model, or the same with other numerics.
    TargetChanged(usize, Option<String>),
    /// A message came that is none; nothing changed.
    Malformed(DecodeError),
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoBroker(None) => f.write_str("waiting for the broker"),
            Self::NoBroker(Some(loss)) => write!(f, "waiting for the broker: {}", loss.reason),
            Self::NoVerifier => f.write_str("waiting for a verifier: no lease yet"),
            Self::NoVerdict(verifier) => write!(f, "waiting for the answer of verifier {verifier}"),
            Self::GaveUp => f.write_str("no answer: going on alone, the tokens are unverified"),
            Self::Returned => f.write_str("a verifier answers again"),
            Self::TargetChanged(token, Some(writer)) => {
                write!(f, "another model writes from token {token} on: {writer}")
            }
            Self::TargetChanged(token, None) => {
                write!(f, "not reproducible from token {token} on: the verifier has other numerics")
            }
            Self::Malformed(error) => write!(f, "dropped a malformed message: {error}"),
        }
    }
}
