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
