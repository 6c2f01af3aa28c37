//! The scenes of the boot test, in order; each leaves the state that the next one needs.

mod answers;
mod card;
mod cuts;
mod first_boot;
mod slots;
mod state_cuts;
mod trouble;

use super::stand::Stand;
use super::steps::{BootSteps, Failed};
use anyhow::ensure;
use dunlin_board::Emulated;
use serde::Serialize;

/// The measurements. The field names are an interface.
#[derive(Clone, Debug, Default, Serialize)]
pub struct BootFigures {
    /// Seed of the random moments.
    pub seed: u64,
    /// Time from the kernel's start to the connection, in the machine's seconds, of each boot with a broker.
    pub boot_to_connected_seconds: Vec<f64>,
    /// Readings of the sensor per second, for each reply whose energy was checked.
    pub samples_per_second: Vec<f64>,
    /// Share of accepted drafts, for each of those replies.
    pub acceptance: Vec<f64>,
    /// Replies that equal the target's own text, token for token.
    pub identical_replies: usize,
    /// Number of power cuts from which the board recovered.
    pub cuts: usize,
    /// Number of judged cuts while the state files were written, and of those that left a bad card.
    pub state_cuts: usize,
    /// See [`Self::state_cuts`].
    pub state_cuts_bad: usize,
}

/// Plays all scenes of the machine.
///
/// # Errors
/// A step failed; the failure was shown.
pub fn play(stand: &mut Stand, steps: &mut BootSteps, figures: &mut BootFigures) -> Result<(), Failed> {
    match stand.machine.kind() {
        Emulated::Virt => with_everything(stand, steps, figures),
        Emulated::Raspi3b => card::play(stand, steps, figures),
    }
}

fn with_everything(
    stand: &mut Stand,
    steps: &mut BootSteps,
    figures: &mut BootFigures,
) -> Result<(), Failed> {
    let mut connected = first_boot::play(stand, steps)?;
    answers::play(stand, steps, figures, &mut connected)?;
    trouble::in_the_running_machine(stand, steps, figures, &mut connected)?;
    cuts::play(stand, steps, figures, connected)?;
    slots::play(stand, steps, figures)?;
    trouble::without_sensor(stand, steps, figures)?;
    steps.see("the target corrected some of the drafts", || {
        let corrected = figures.acceptance.iter().filter(|share| **share < 1.0).count();
        ensure!(corrected > 0, "all drafts of {} replies were accepted", figures.acceptance.len());
        Ok(format!("in {corrected} of {} replies", figures.acceptance.len()))
    })
}
