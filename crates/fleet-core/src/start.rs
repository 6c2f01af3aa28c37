//! The choice of the generation that the launcher starts.

use crate::disk::Disk;
use crate::record::{TriesRecord, UpdateState};
use crate::store::counts;
use std::io;

/// The program and settings of a start. A generation without an agent of its own is the board's own agent with other settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartChoice {
    /// A generation on trial, with the tries that are left after this one.
    Trial {
        /// The generation.
        number: u32,
        /// Tries that are left.
        left: u8,
    },
    /// A generation that stays.
    Good(u32),
    /// The agent that the board was installed with.
    Packaged,
}

/// A start, and why it is not the one that was meant.
#[derive(Debug)]
pub struct Start {
    /// The choice.
    pub choice: StartChoice,
    /// A disk that can't be read or written, or a generation that is missing.
    pub problem: Option<io::Error>,
}

/// Chooses what to start. A trial is counted down on the disk before it is returned, so that a generation that ends the
/// board's power at once is tried three times and not for ever.
pub fn next_start(disk: &impl Disk) -> Start {
    match UpdateState::load(disk) {
        Ok(state) => chosen(disk, &state),
        Err(error) => Start { choice: StartChoice::Packaged, problem: Some(error) },
    }
}

fn chosen(disk: &impl Disk, state: &UpdateState) -> Start {
    let mut problem = None;
    if state.trial != 0 {
        match tried(disk, state) {
            Ok(Some(left)) => {
                return Start { choice: StartChoice::Trial { number: state.trial, left }, problem: None };
            }
            Ok(None) => {}
            Err(error) => problem = Some(error),
        }
    }
    for number in [state.good, state.previous] {
        match whole(disk, number) {
            _ if number == 0 => break,
            Ok(()) => return Start { choice: StartChoice::Good(number), problem },
            Err(error) => problem = Some(error),
        }
    }
    Start { choice: StartChoice::Packaged, problem }
}

/// Takes a try; `None` if none is left.
fn tried(disk: &impl Disk, state: &UpdateState) -> io::Result<Option<u8>> {
    whole(disk, state.trial)?;
    let mut tries = TriesRecord::load(disk)?;
    let Some(left) = tries.left_of(state).checked_sub(1) else { return Ok(None) };
    (tries.attempt, tries.left) = (state.attempt, left);
    tries.save(disk)?;
    Ok(Some(left))
}

fn whole(disk: &impl Disk, number: u32) -> io::Result<()> {
    if counts(disk, number)? {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::NotFound, format!("generation {number} is missing")))
}
