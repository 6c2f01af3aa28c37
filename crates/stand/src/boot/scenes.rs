//! What a board goes through, in order; each scene leaves what the next one needs.

mod answers;
mod card;
mod cuts;
mod first_boot;
mod trouble;

use super::stand::Stand;
use super::steps::{BootSteps, Failed};
use anyhow::ensure;
use dunlin_board::Emulated;
use serde::Serialize;

/// What was measured. Its field names are an interface.
#[derive(Clone, Debug, Default, Serialize)]
pub struct BootFigures {
    /// What the dice began with.
    pub seed: u64,
    /// From the kernel's start to connected, in the machine's seconds, of each boot with a broker there.
    pub boot_to_connected_seconds: Vec<f64>,
    /// Readings of the sensor a second, of each reply whose energy was looked at.
    pub samples_per_second: Vec<f64>,
    /// Share of the drafts that the target agreed with, of the same.
    pub acceptance: Vec<f64>,
    /// Replies that equal the target's own text, token for token.
    pub identical_replies: usize,
    /// Times that power was cut and the board came back.
    pub cuts: usize,
}

/// Plays all scenes of the machine.
///
/// # Errors
/// A step failed, and was said.
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
    trouble::without_sensor(stand, steps, figures)?;
    steps.see("the target corrected some of the drafts", || {
        let corrected = figures.acceptance.iter().filter(|share| **share < 1.0).count();
        ensure!(corrected > 0, "all drafts of {} replies were accepted", figures.acceptance.len());
        Ok(format!("in {corrected} of {} replies", figures.acceptance.len()))
    })
}
