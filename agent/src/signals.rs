//! Interrupts: the first one asks the agent to end its work, the second ends the process.

use crate::exit::INTERRUPTED;
use crate::run::Control;
use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Ignores SIGUSR1, which requests the status, until there is a loop that answers it. By default it ends the process.
///
/// # Errors
/// The handler can't be installed.
pub(crate) fn expect_status() -> Result<()> {
    // The runtime's handler stays installed when the stream of signals is dropped.
    signal(SignalKind::user_defined1()).map(drop).context("SIGUSR1")
}

/// Sends [`Control::LogStatus`] at SIGUSR1, where at most one other control waits: one log answers many requests, and a
/// request never takes the place of an interrupt.
///
/// # Errors
/// The handler can't be installed.
pub(crate) fn forward_status(to: mpsc::Sender<Control>) -> Result<()> {
    let mut asked = signal(SignalKind::user_defined1()).context("SIGUSR1")?;
    tokio::spawn(async move {
        while asked.recv().await.is_some() && !to.is_closed() {
            if to.capacity() + 1 >= to.max_capacity() {
                // Ignore the error: if the channel is closed, the agent has logged its status at its end.
                let _ = to.try_send(Control::LogStatus);
            }
        }
    });
    Ok(())
}

/// Sends `control` at the first SIGINT or SIGTERM.
///
/// # Errors
/// The handler can't be installed.
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
