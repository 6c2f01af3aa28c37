//! Failures on a board: a full disk, a corrupt file, no sensor.

use super::super::choice::BootSlot;
use super::super::stand::{Connected, SOON, Stand};
use super::super::steps::{BootSteps, Failed, heading};
use super::BootFigures;
use super::slots::runs_from;
use anyhow::{Context, Result, ensure};
use dunlin_power::simulated::waveform::StepWaveform as Power;

/// Writes a board's file with an unknown key in its third line.
const CORRUPT: &str = "printf 'name = \"virt\"\\n[drafter]\\nthreds = 2\\n' > /data/dunlin/etc/corrupt.toml && \
    cp /data/dunlin/etc/agent.toml /data/dunlin/etc/agent.toml.kept && \
    sed -i '/^board *=/d' /data/dunlin/etc/agent.toml && \
    sed -i '1i board = \"/etc/dunlin/corrupt.toml\"' /data/dunlin/etc/agent.toml && \
    { systemctl restart dunlin-agent || true; }";
const MENDED: &str = "mv /data/dunlin/etc/agent.toml.kept /data/dunlin/etc/agent.toml && \
    rm /data/dunlin/etc/corrupt.toml && systemctl reset-failed dunlin-agent && systemctl restart dunlin-agent";
/// Fills the disk.
const FILLED: &str =
    "dd if=/dev/zero of=/data/full bs=1M 2>/dev/null; sync; df --output=avail /data | tail -1";

/// A full disk, then a corrupt file of the board.
pub(super) fn in_the_running_machine(
    stand: &mut Stand,
    steps: &mut BootSteps,
    figures: &mut BootFigures,
    connected: &mut Connected,
) -> Result<(), Failed> {
    heading("No room, and a corrupt file");
    steps.see("with no room on /data the agent starts and answers", || {
        let left = stand.guest.run(FILLED)?;
        let left: u64 = left.trim().parse().with_context(|| format!("room on /data: {left}"))?;
        ensure!(left < 1024, "{left} KiB are left");
        stand.guest.run("systemctl restart dunlin-agent")?;
        let prompt = stand.prompt();
        figures.note(&stand.reply(&prompt)?);
        stand.guest.run("rm /data/full")?;
        Ok(format!("{left} KiB left; the text is the target's"))
    })?;
    steps.see("a corrupt file of the board is named by line and key", || {
        stand.guest.run(CORRUPT)?;
        let line = connected.running.until(&stand.stop, "the agent says what is wrong", SOON, |_| {
            let said = stand.guest.run("journalctl -u dunlin-agent -b -o cat --no-pager")?;
            let names = |line: &&str| line.contains("corrupt.toml") && line.contains("threds");
            Ok(said.lines().rev().find(names).map(str::to_owned))
        })?;
        let state = stand.guest.run("systemctl show -p ActiveState -p NRestarts dunlin-agent")?;
        ensure!(state.contains("ActiveState=failed"), "it is tried again: {state}");
        Ok(line)
    })?;
    steps.see("the mended one is taken", || {
        stand.guest.run(MENDED)?;
        let prompt = stand.prompt();
        figures.note(&stand.reply(&prompt)?);
        Ok("the text is the target's".into())
    })
}

/// A boot without the sensor's cable, from the committed slot b.
pub(super) fn without_sensor(
    stand: &mut Stand,
    steps: &mut BootSteps,
    figures: &mut BootFigures,
) -> Result<(), Failed> {
    heading("The committed slot, and no sensor");
    stand.sensor.plug(false);
    stand.sensor.turn(Power::constant(4.0));
    steps.see("slot b connects and answers, and says that nothing is measured", || {
        let mut connected = stand.boot_connected("no-sensor", None)?;
        stand.reachable(&mut connected.running)?;
        let slot = runs_from(stand, BootSlot::B)?;
        let prompt = stand.prompt();
        let reply = stand.reply(&prompt)?;
        figures.note(&reply);
        let source = reply["energy"]["source"].as_str().unwrap_or_default().to_owned();
        ensure!(source == "none", "source of the energy: {source}");
        connected.running.cut();
        Ok(format!("{slot}; energy: {source}; the text is the target's"))
    })
}
