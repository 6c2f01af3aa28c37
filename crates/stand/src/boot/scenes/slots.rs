//! The slots: one that panics is given up after three tries, one that doesn't load gives way to the other, and one that a
//! running system commits is started.

use super::super::choice::{BootSlot, BootState, TRIAL_OF_A, TRIAL_OF_B};
use super::super::lost_power::FatImage;
use super::super::machine::{PowerUp, RunningMachine};
use super::super::stand::{BOOT_WITHIN, Stand};
use super::super::steps::{BootSteps, Failed, heading};
use super::{BootFigures, state_cuts};
use anyhow::{Context, Result, ensure};

/// U-Boot's words before a slot's kernel starts.
const STARTS: &str = "Dunlin: starting slot ";
/// A kernel's words when it gives up.
const PANICS: &str = "Kernel panic - not syncing";
/// Commits slot b, then asks for a trial of slot a: one sector each, in place.
const COMMIT: &str = "mount -o remount,rw /boot/firmware && cd /boot/firmware && \
    printf 'good=b\\n' | dd of=good.env bs=512 conv=sync,notrunc,fsync status=none && \
    printf 'try=a\\nleft=3\\n' | dd of=try.env bs=512 conv=sync,notrunc,fsync status=none && \
    cd / && mount -o remount,ro /boot/firmware";

/// Leaves the disk with slot b committed, and equal to slot a.
pub(super) fn play(
    stand: &mut Stand,
    steps: &mut BootSteps,
    figures: &mut BootFigures,
) -> Result<(), Failed> {
    heading("A slot that panics");
    let log = stand.places.out.join("writes.log");
    let (mut running, image, heard) =
        steps.step("it is tried three times, then slot a is started", || {
            stand.disk.write_panicking_slot(BootSlot::B, &stand.places.out)?;
            stand.disk.set_state(&BootState::of("good=a\n", TRIAL_OF_B))?;
            let image = FatImage::copied(&stand.disk, &stand.places.out.join("card.fat"))?;
            let heard = stand.broker.heard();
            let how = PowerUp { restarts: true, write_log: Some(&log), ..PowerUp::default() };
            let mut running = stand.boot_as("panics", None, how)?;
            running.line(&stand.stop, BOOT_WITHIN, &[STARTS, "slot a"])?;
            Ok((tried(&running)?, (running, image, heard)))
        })?;
    steps.see("it commits slot b, and asks for a trial of slot a", || {
        running.until(&stand.stop, "the board is there", BOOT_WITHIN, |_| {
            Ok(stand.is_there(heard).then_some(()))
        })?;
        stand.reachable(&mut running)?;
        let seen = runs_from(stand, BootSlot::A)?;
        stand.guest.run(COMMIT)?;
        let state = stand.disk.state()?;
        ensure!(state == BootState::of("good=b\n", TRIAL_OF_A), "the state is {state}");
        Ok(seen)
    })?;
    running.cut();
    state_cuts::play(stand, steps, figures, &image, &log)?;
    heading("The other slot");
    steps.see("a committed slot that doesn't load gives way to the other", || {
        stand.disk.set_state(&BootState::of("good=b\n", "left=0\n"))?;
        stand.disk.clear_slot(BootSlot::B)?;
        let mut running = stand.boot("leaves-out", None)?;
        running.line(&stand.stop, BOOT_WITHIN, &["Dunlin: slot b cannot be started"])?;
        let line = running.line(&stand.stop, BOOT_WITHIN, &[STARTS])?;
        ensure!(line.contains("slot a"), "{line}");
        running.cut();
        stand.disk.copy_slot(BootSlot::A, BootSlot::B)?;
        Ok(line)
    })
}

/// Checks that the running system is the slot's, by its kernel's arguments and by its root.
pub(super) fn runs_from(stand: &Stand, slot: BootSlot) -> Result<String> {
    let text = stand.guest.run("cat /proc/cmdline; findmnt -no SOURCE /")?;
    let mut lines = text.lines();
    let arguments = lines.next().unwrap_or_default();
    let root = lines.next().unwrap_or_default();
    ensure!(arguments.split(' ').any(|word| word == format!("dunlin.slot={}", slot.name())), "{arguments}");
    ensure!(root.ends_with(&slot.partition().to_string()), "slot {} on {root}", slot.name());
    Ok(format!("slot {}, on {root}", slot.name()))
}

/// Checks that slot b was started three times and panicked each time, and that slot a came then.
fn tried(running: &RunningMachine) -> Result<String> {
    let lines = running.console().since(0);
    let starts: Vec<&str> =
        lines.iter().filter_map(|line| line.split_once(STARTS)).map(|(_, slot)| slot).collect();
    // The fourth line may still be incomplete.
    let slots = starts.iter().take(3).all(|slot| *slot == "b") && starts.len() >= 3;
    let panics = lines.iter().filter(|line| line.contains(PANICS)).count();
    ensure!(slots && starts.iter().skip(3).all(|slot| *slot == "a"), "started: {starts:?}");
    ensure!(panics == 3, "{panics} panics");
    let first = lines.iter().find(|line| line.contains(PANICS)).context("no panic")?;
    Ok(format!("started b, b, b, a in {:.0} s; {}", running.up().as_secs_f64(), first.trim()))
}
