//! Outputs of the loop: a terminal, a client of the socket, a test.

use crate::notice::Notice;
use crate::turn::Turn;
use dunlin_hlm::TokenId;
use dunlin_hlm::device::{Commit, Judged, SayError};
use dunlin_wire::VerifierId;
use std::io;
use std::ops::ControlFlow;

/// An output for tokens and notices.
pub trait Output {
    /// The next prompt is being answered.
    fn begin(&mut self) {}

    /// A token was committed.
    fn committed(&mut self, commit: &Commit);

    /// A verdict revealed the fate of a drafted token.
    fn judged(&mut self, _judged: &Judged) {}

    /// A verifier gave a lease.
    fn leased(&mut self, _verifier: &VerifierId) {}

    /// The tokens drafted behind the committed text; replaces the previous ones.
    fn provisional(&mut self, tokens: &[TokenId]);

    /// A notice for the user.
    fn notice(&mut self, notice: &Notice);

    /// The prompt was rejected; `Break` ends the agent.
    fn rejected(&mut self, error: &SayError) -> ControlFlow<()>;

    /// The reply ended; `Break` ends the agent.
    fn finished(&mut self, turn: &Turn) -> ControlFlow<()>;

    /// False once nobody reads the reply any more.
    fn wanted(&self) -> bool {
        true
    }

    /// Takes the error of a failed write. A failed write makes the reply unwanted, and the agent ends after it.
    fn failure(&mut self) -> Option<io::Error> {
        None
    }
}
