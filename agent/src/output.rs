//! Outputs of the loop: a terminal, a client of the socket, a test.

use crate::turn::Turn;
use dunlin_hlm::TokenId;
use dunlin_hlm::device::{Commit, Judged, SayError};
use dunlin_link::Loss;
use dunlin_wire::{DecodeError, VerifierId};
use std::fmt;
use std::io;
use std::ops::ControlFlow;

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
            Self::Malformed(error) => write!(f, "dropped a malformed message: {error}"),
        }
    }
}

/// An output for tokens and notices.
pub trait Output {
    /// The next prompt is taken up.
    fn begin(&mut self) {}

    /// A token was committed.
    fn committed(&mut self, commit: &Commit);

    /// A verdict revealed the fate of a drafted token.
    fn judged(&mut self, _judged: &Judged) {}

    /// A verifier gave a lease.
    fn leased(&mut self, _verifier: &VerifierId) {}

    /// The tokens drafted behind the committed text are now these.
    fn provisional(&mut self, tokens: &[TokenId]);

    /// Something worth a line happened.
    fn notice(&mut self, notice: &Notice);

    /// The prompt was not taken; `Break` ends the agent.
    fn rejected(&mut self, error: &SayError) -> ControlFlow<()>;

    /// The reply ended; `Break` ends the agent.
    fn finished(&mut self, turn: &Turn) -> ControlFlow<()>;

    /// False once nobody wants the reply any more.
    fn wanted(&self) -> bool {
        true
    }

    /// The error of a write that failed, once. The reply was unwanted from then on, and its end was the agent's.
    fn failure(&mut self) -> Option<io::Error> {
        None
    }
}
