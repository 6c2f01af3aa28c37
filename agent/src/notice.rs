//! Notices for the user, shown besides the text.

use dunlin_link::Loss;
use dunlin_wire::{DecodeError, VerifierId};
use std::fmt;

/// An event that deserves a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// There has been no connection for a second or more.
    NoBroker(Option<Loss>),
    /// No verifier has granted a lease for a second or more.
    NoVerifier,
    /// The verifier has not answered for a second or more.
    NoVerdict(VerifierId),
    /// The verifier says that it works on the answer, which takes longer than it announced.
    Working(VerifierId),
    /// Nobody has answered for long; tokens from here on are committed unverified.
    GaveUp,
    /// A verifier answers again.
    Returned,
    /// From this token of the reply on, another target writes: the named model, or the same model with other
    /// numerics.
    TargetChanged(usize, Option<String>),
    /// The session had no room for the prompt, so a new one began with it.
    NewSession,
    /// The verifier accepts no credit, so each token costs a round trip.
    NoCredit,
    /// The verifier's text contradicted the committed one at this token of the session's text.
    Contradicted(usize),
    /// A malformed message was dropped.
    Malformed(DecodeError),
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoBroker(None) => f.write_str("waiting for the broker"),
            Self::NoBroker(Some(loss)) => write!(f, "waiting for the broker: {}", loss.reason),
            Self::NoVerifier => f.write_str("waiting for a verifier: no lease yet"),
            Self::NoVerdict(verifier) => write!(f, "waiting for the answer of verifier {verifier}"),
            Self::Working(verifier) => {
                write!(f, "verifier {verifier} is at work; its answer takes longer than usual")
            }
            Self::GaveUp => f.write_str("no answer: going on alone, the tokens are unverified"),
            Self::Returned => f.write_str("a verifier answers again"),
            Self::TargetChanged(token, Some(writer)) => {
                write!(f, "another model writes from token {token} on: {writer}")
            }
            Self::TargetChanged(token, None) => {
                write!(f, "not reproducible from token {token} on: the verifier has other numerics")
            }
            Self::NewSession => {
                f.write_str("the session is full: a new one begins, without what was said before")
            }
            Self::NoCredit => {
                f.write_str("the verifier serves no streams: each token is a request of its own")
            }
            Self::Contradicted(token) => write!(
                f,
                "the verifier's text contradicts the one so far at token {token}; it was dropped, and the session is \
                 opened again"
            ),
            Self::Malformed(error) => write!(f, "dropped a malformed message: {error}"),
        }
    }
}
