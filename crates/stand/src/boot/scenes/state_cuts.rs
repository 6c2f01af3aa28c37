//! Power cuts at each sector that is written while U-Boot counts tries and a system commits a slot: judged on paper, and a card
//! of each state that they leave started by U-Boot itself.

use super::super::choice::{BootSlot, BootState, SlotChoice, TRIAL_OF_A, TRIAL_OF_B, state_file};
use super::super::disk::{SECTOR_BYTES, TestDisk};
use super::super::lost_power::{FatImage, judge_cuts};
use super::super::machine::{Machine, PowerUp};
use super::super::stand::{BOOT_WITHIN, Stand};
use super::super::steps::{BootSteps, Failed, heading};
use super::super::writes::{DiskEvent, SectorWrite, partition_events};
use super::BootFigures;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};

/// U-Boot's words when it has chosen a slot.
const CHOSE: &str = "Dunlin: slot ";
/// Fewest cuts that a log of the whole scene gives: U-Boot's three counts and the two writes of a system.
const CUTS_MIN: usize = 12;

pub(super) fn play(
    stand: &mut Stand,
    steps: &mut BootSteps,
    figures: &mut BootFigures,
    image: &FatImage,
    log: &Path,
) -> Result<(), Failed> {
    heading("Power cuts at each sector of the state files");
    let cards = stand.places.out.join("cards");
    steps.see("the judge finds a torn state file and a damaged table", || {
        let spoilt = FatImage::copied(&stand.disk, &stand.places.out.join("spoilt.fat"))?;
        spoil(&spoilt, &cards.join("spoilt"))
    })?;
    let verdict = steps.step("no cut leaves a damaged card or a state between two", || {
        let events = partition_events(log, stand.disk.partition(1)?)?;
        let verdict = judge_cuts(image, &events, &states(), &cards)?;
        figures.state_cuts = verdict.cuts;
        figures.state_cuts_bad = verdict.bad.len();
        verdict.ensure_good()?;
        let (cuts, found) = (verdict.cuts, verdict.cards.len());
        ensure!(cuts >= CUTS_MIN, "only {cuts} cuts: something was not written");
        ensure!(found == states().len(), "{found} states of {}", states().len());
        Ok((format!("{cuts} cut points, 0 bad; {found} states"), verdict))
    })?;
    steps
        .see("U-Boot chooses on each of these cards as the judge does", || started(stand, &verdict.cards))?;
    steps.see("and on cards whose state files are missing or garbage", || {
        let odd = odd_cards(stand, image, &cards)?;
        started(stand, &odd)
    })
}

/// The states that the scene goes through, in order.
fn states() -> [BootState; 6] {
    let counted = |left: u8| BootState::of("good=a\n", &format!("left={left}\ntry=b\n"));
    [
        BootState::of("good=a\n", TRIAL_OF_B),
        counted(2),
        counted(1),
        counted(0),
        BootState::of("good=b\n", "left=0\ntry=b\n"),
        BootState::of("good=b\n", TRIAL_OF_A),
    ]
}

/// Checks that the judge finds damage.
fn spoil(image: &FatImage, cards: &Path) -> Result<String> {
    let state = [image.state()?];
    let good =
        state[0].good.as_deref().and_then(|bytes| image.find(bytes).transpose()).context("no good.env")??;
    let sector =
        |offset, fill| DiskEvent::Write(SectorWrite { offset, bytes: Box::new([fill; SECTOR_BYTES]) });
    let torn = judge_cuts(image, &[sector(good, b'=')], &state, cards)?;
    ensure!(torn.bad.len() == 1 && torn.cuts == 2, "a torn state file: {:?}", torn.bad);
    let damaged = judge_cuts(image, &[sector(image.table()?, 0)], &state, cards)?;
    ensure!(damaged.bad.iter().any(|text| text.contains("fsck.fat")), "a damaged table: {:?}", damaged.bad);
    Ok(format!("{} of {} cuts and {} of {}", torn.bad.len(), torn.cuts, damaged.bad.len(), damaged.cuts))
}

/// Cards with odd state files, each with its state.
fn odd_cards(stand: &mut Stand, image: &FatImage, cards: &Path) -> Result<Vec<(BootState, PathBuf)>> {
    let mut noise = || -> Option<Vec<u8>> { Some((0..SECTOR_BYTES).map(|_| stand.dice.u8(..)).collect()) };
    let odd = [
        BootState::default(),
        BootState { good: noise(), trial: noise() },
        BootState { good: Some(Vec::new()), trial: Some(Vec::new()) },
        BootState { good: Some(b"good=b".to_vec()), trial: None },
        BootState::of("good=c\n", "try=c\nleft=2\n"),
        BootState::of("good=b\n", "try=a\nleft=4\n"),
        BootState::of("good=b\n", "try=a; reset\nleft=1\n"),
        BootState { good: Some(state_file("good=b\n")), trial: Some(b"left=1\ntry=a\n".to_vec()) },
    ];
    odd.into_iter()
        .enumerate()
        .map(|(number, state)| {
            let path = cards.join(format!("odd-{number}.img"));
            image.card(&path)?;
            let disk = TestDisk::at(&path)?;
            disk.set_state(&state)?;
            ensure!(disk.state()? == state, "the card has not the state {state}");
            Ok((state, path))
        })
        .collect()
}

/// Starts U-Boot on all cards at once, and compares its choice and its count with the model's.
fn started(stand: &Stand, cards: &[(BootState, PathBuf)]) -> Result<String> {
    let how = PowerUp { alone: true, ..PowerUp::default() };
    let mut running = Vec::new();
    for (state, path) in cards {
        let disk = TestDisk::at(path)?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        running.push((state, Machine::power_up(&stand.machine, &disk, &name, how)?, disk));
    }
    let mut chosen = String::new();
    for (state, mut machine, disk) in running {
        let line = machine.line(&stand.stop, BOOT_WITHIN, &[CHOSE, "left"])?;
        machine.cut();
        let SlotChoice { slot, left } = state.choice();
        let named = line.split_once(CHOSE).is_some_and(|(_, rest)| rest.starts_with(slot.name()));
        ensure!(named, "{state}: U-Boot says {line:?}, not slot {}", slot.name());
        let expected = BootState { good: state.good.clone(), trial: counted(state, slot, left) };
        let after = disk.state()?;
        ensure!(after == expected, "{state}: after U-Boot {after}");
        chosen.push_str(slot.name());
    }
    Ok(format!("{} cards: {chosen}", cards.len()))
}

/// `try.env` as U-Boot leaves it.
fn counted(state: &BootState, slot: BootSlot, left: Option<u8>) -> Option<Vec<u8>> {
    match left {
        Some(left) => Some(state_file(&format!("left={left}\ntry={}\n", slot.name()))),
        None => state.trial.clone(),
    }
}
