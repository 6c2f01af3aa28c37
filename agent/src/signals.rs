//! Interrupts: the first asks the agent to end what it does, the second ends the process.

use crate::exit::INTERRUPTED;
use crate::run::Control;
use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Sends `control` at the first SIGINT or SIGTERM.
///
/// # Errors
/// The system takes no handler.
pub(crate) fn forward(control: Control, to: mpsc::Sender<Control>) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    tokio::spawn(async move {
        let mut asked = false;
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if asked || to.try_send(control).is_err() {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "a second signal ends a program that does not react to the first"
                )]
                std::process::exit(INTERRUPTED.into());
            }
            asked = true;
        }
    });
    Ok(())
}
