//! Power cuts at random moments: during the set-up, during the boot, and while a reply is written.
//!
//! A cut ends the emulator with SIGKILL, so data that the machine had not written to its disk is lost. Losses inside a
//! card's own controller are not simulated.

use super::super::disk::TestDisk;
use super::super::machine::RunningMachine;
use super::super::stand::{BOOT_WITHIN, Connected, SETUP, SOON, Stand, TOKENS_MAX};
use super::super::steps::{BootSteps, Failed, heading};
use super::BootFigures;
use anyhow::{Context, Result, ensure};
use std::time::Duration;

/// The unit that sets up a board, by its name on the console.
const SETTING_UP: &str = "dunlin-first-boot";
/// Latest cut after that unit starts, ms.
const SET_UP_MS: u64 = 3000;
/// Latest token of a reply at which the power is cut; the demo's replies are short.
const TOKENS: usize = 4;
/// The partitions in use: the running root and the data partition.
const WRITTEN: [usize; 2] = [2, 4];

pub(super) fn play(
    stand: &mut Stand,
    steps: &mut BootSteps,
    figures: &mut BootFigures,
    connected: Connected,
) -> Result<(), Failed> {
    heading("Power cuts");
    let lines = connected.running.console().count().max(2);
    let mut connected = while_writing(stand, steps, figures, connected)?;
    connected = while_writing(stand, steps, figures, connected)?;
    connected.running.cut();
    for _ in 0..2 {
        let booted = while_booting(stand, steps, figures, lines)?;
        booted.running.cut();
    }
    let booted = while_setting_up(stand, steps, figures)?;
    booted.running.cut();
    Ok(())
}

pub(super) fn while_writing(
    stand: &mut Stand,
    steps: &mut BootSteps,
    figures: &mut BootFigures,
    mut connected: Connected,
) -> Result<Connected, Failed> {
    let token = 1 + stand.dice.usize(..TOKENS);
    steps.see(&format!("a cut at token {token} of a reply"), || {
        let prompt = stand.prompt();
        let log = stand.places.out.join("cut-reply.jsonl");
        let mut asked = stand.guest.ask(&prompt, TOKENS_MAX, &log)?;
        let is_over = connected.running.until(&stand.stop, &format!("token {token}"), SOON, |_| {
            // The reply may end before that token.
            let is_over = asked.end()?.is_some();
            Ok((asked.tokens() >= token || is_over).then_some(is_over))
        })?;
        connected.running.cut();
        let sound = sound(&stand.disk)?;
        Ok(format!("{sound}; the reply {}", if is_over { "was over" } else { "went on" }))
    })?;
    back(stand, steps, figures, "writing", None)
}

fn while_booting(
    stand: &mut Stand,
    steps: &mut BootSteps,
    figures: &mut BootFigures,
    lines: usize,
) -> Result<Connected, Failed> {
    let line = 1 + stand.dice.usize(..lines - 1);
    steps.see(&format!("a cut at line {line} of about {lines} of a boot"), || {
        let mut running = stand.boot("cut-booting", None)?;
        running.until(&stand.stop, &format!("line {line}"), BOOT_WITHIN, |console| {
            let is_up = || console.find(0, |line| line.contains("login:")).is_some();
            Ok((console.count() >= line || is_up()).then_some(()))
        })?;
        running.cut();
        sound(&stand.disk)
    })?;
    back(stand, steps, figures, "booting", None)
}

fn while_setting_up(
    stand: &mut Stand,
    steps: &mut BootSteps,
    figures: &mut BootFigures,
) -> Result<Connected, Failed> {
    let delay = stand.dice.u64(..SET_UP_MS);
    let disk = steps.step(&format!("a cut {delay} ms into the set-up of a new board"), || {
        let disk = stand.places.new_disk("new.img")?;
        disk.put(SETUP, &stand.setup_file()?)?;
        let mut running = stand.boot("cut-set-up", Some(&disk))?;
        running.line(&stand.stop, BOOT_WITHIN, &[SETTING_UP])?;
        cut_after(running, Duration::from_millis(delay));
        let was_left = disk.names()?.iter().any(|name| name == SETUP);
        let seen = sound(&disk)?;
        Ok((format!("{seen}; {SETUP} was {}", if was_left { "still there" } else { "gone" }), disk))
    })?;
    let connected = back(stand, steps, figures, "setting-up", Some(&disk))?;
    steps.see("it is set up", || {
        ensure!(!disk.names()?.iter().any(|name| name == SETUP), "{SETUP} is still there");
        Ok(format!("{SETUP} is gone"))
    })?;
    Ok(connected)
}

/// Cuts the power after a delay.
fn cut_after(running: RunningMachine, delay: Duration) {
    #[expect(clippy::disallowed_methods, reason = "a power cut waits for nothing: its moment is drawn")]
    std::thread::sleep(delay);
    running.cut();
}

/// Checks that the board boots again and answers.
fn back(
    stand: &mut Stand,
    steps: &mut BootSteps,
    figures: &mut BootFigures,
    name: &str,
    disk: Option<&TestDisk>,
) -> Result<Connected, Failed> {
    steps.step("it comes back and answers", || {
        let mut connected = stand.boot_connected(&format!("after-{name}"), disk)?;
        let seconds = stand.boot_seconds(&mut connected)?;
        let prompt = stand.prompt();
        let reply = stand.reply(&prompt).with_context(|| connected.running.log().display().to_string())?;
        figures.note(&reply);
        figures.boot_to_connected_seconds.push(seconds);
        figures.cuts += 1;
        let tokens = &reply["committed_tokens"];
        Ok((format!("connected after {seconds:.1} guest seconds; {tokens} tokens, the target's"), connected))
    })
}

/// Checks the file systems in use.
fn sound(disk: &TestDisk) -> Result<String> {
    for partition in WRITTEN {
        disk.check(partition)?;
    }
    Ok("file systems sound".into())
}
