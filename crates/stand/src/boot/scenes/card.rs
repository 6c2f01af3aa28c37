//! An emulated Raspberry Pi: its own device tree, card, USB and serial console, and the image's drivers for them.
//!
//! It has no sensor, since no I2C device answers on QEMU's Raspberry Pi.

use super::super::choice::{BootSlot, BootState, TRIAL_OF_B};
use super::super::stand::{BOOT_WITHIN, SETUP, Stand};
use super::super::steps::{BootSteps, Failed, heading};
use super::BootFigures;
use super::cuts::while_writing;
use super::first_boot::healthy;
use super::slots::runs_from;
use anyhow::ensure;

/// Prints the device tree's model and the devices that must have a driver: the pin header's I2C bus and the card.
const DRIVEN: &str = "tr -d '\\0' < /proc/device-tree/model; echo; ls /dev/i2c-1 /dev/mmcblk0p2";

pub(super) fn play(
    stand: &mut Stand,
    steps: &mut BootSteps,
    figures: &mut BootFigures,
) -> Result<(), Failed> {
    heading("A card in a board");
    let mut connected = steps.step("it sets itself up and connects, over its USB", || {
        stand.surround()?;
        stand.insert_card()?;
        stand.disk.set_state(&BootState::of("good=a\n", TRIAL_OF_B))?;
        let mut connected = stand.boot_connected("card", None)?;
        let seconds = stand.boot_seconds(&mut connected)?;
        figures.boot_to_connected_seconds.push(seconds);
        Ok((format!("connected after {seconds:.1} guest seconds"), connected))
    })?;
    steps.see("U-Boot counted a try of slot b on the card, found it empty and started slot a", || {
        let state = stand.disk.state()?;
        ensure!(state == BootState::of("good=a\n", "left=2\ntry=b\n"), "the state is {state}");
        runs_from(stand, BootSlot::A)
    })?;
    steps.see("its file is gone", || {
        let disk = &stand.disk;
        connected.running.until(&stand.stop, &format!("{SETUP} is gone"), BOOT_WITHIN, |_| {
            let names = disk.names().unwrap_or_else(|_| vec![SETUP.into()]);
            Ok((!names.iter().any(|name| name == SETUP)).then_some(()))
        })?;
        Ok("its passwords with it".into())
    })?;
    steps.see("its devices are driven, and nothing failed in it", || {
        let devices = stand.guest.run(DRIVEN)?;
        Ok(format!("{}; {}", devices.trim().replace('\n', ", "), healthy(stand)?))
    })?;
    steps.see("it answers", || {
        let prompt = stand.prompt();
        let reply = stand.reply(&prompt)?;
        let source = reply["energy"]["source"].as_str().unwrap_or_default().to_owned();
        ensure!(source == "none", "source of the energy: {source}");
        figures.note(&reply);
        Ok(format!("{} tokens, the target's; energy: {source}", reply["committed_tokens"]))
    })?;
    heading("A power cut");
    while_writing(stand, steps, figures, connected)?.running.cut();
    Ok(())
}
