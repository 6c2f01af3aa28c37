//! Power cuts at every step of an update and of a roll back: afterwards a generation can be run, it is whole, and what
//! was reported as done is done. Orders that are wrong, and syncs left out, are caught.

#![allow(clippy::unwrap_used, reason = "a test that can't go on stops")]

mod common;

use common::{Made, known};
use dunlin_fleet_core::{
    BlockError, Disk, Download, MemoryDisk, Start, StartChoice, Store, StoreError, TriesRecord, UpdateState,
    hex, next_start, object_id,
};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::sync::LazyLock;
use std::time::Duration;

/// Outcomes of each cut that are tried.
const SEEDS: u64 = 1000;
/// Outcomes of each cut of a mutant; a wrong order shows in far fewer.
const MUTANT_SEEDS: u64 = 60;
const CAPACITY: u64 = 64 << 20;

/// The steps that a script reported as done before the power failed.
#[derive(Clone, Copy, Debug, Default)]
struct Done {
    objects: usize,
    assembled: bool,
    count: u64,
    good: u32,
    trial: u32,
    tries: Option<(u32, u8)>,
}

/// A script of steps on a disk; it ends with an error where the power fails.
type Script = fn(&dyn Disk, &RefCell<Done>) -> Result<(), StoreError>;

/// A disk by reference, so that a store can have it.
struct Ref<'a>(&'a dyn Disk);

impl Disk for Ref<'_> {
    fn size(&self, path: &str) -> io::Result<Option<u64>> {
        self.0.size(path)
    }
    fn read_at(&self, path: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(path, offset, buffer)
    }
    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        self.0.list(path)
    }
    fn make_dir(&self, path: &str) -> io::Result<()> {
        self.0.make_dir(path)
    }
    fn write(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.0.write(path, bytes)
    }
    fn write_at(&self, path: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(path, offset, bytes)
    }
    fn sync(&self, path: &str) -> io::Result<()> {
        self.0.sync(path)
    }
    fn sync_dir(&self, path: &str) -> io::Result<()> {
        self.0.sync_dir(path)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.link(from, to)
    }
    fn remove(&self, path: &str) -> io::Result<()> {
        self.0.remove(path)
    }
    fn free(&self) -> io::Result<u64> {
        self.0.free()
    }
}

fn disk_error(error: io::Error) -> StoreError {
    StoreError::Disk("a record".to_owned(), error)
}

fn disk_failure(error: BlockError) -> StoreError {
    match error {
        BlockError::Store(error) => error,
        other => panic!("{other}"),
    }
}

fn fetch(store: &Store<Ref<'_>>, made: &Made, done: &RefCell<Done>) -> Result<(), StoreError> {
    store.put(&made.file)?;
    for ((object, bytes), table) in made.release.objects.iter().zip(&made.objects).zip(&made.tables) {
        if store.size_of(&object.sha256)?.is_none() {
            let mut download: Download = store.begin(object.sha256, object.size, Some(table.clone()))?;
            let missing: Vec<u32> = download.missing().collect();
            for index in missing {
                let block = bytes.chunks(4096).nth(index as usize).unwrap();
                // Ten seconds a block: each is made lasting, with its mark.
                let now = Duration::from_secs(10 * u64::from(index));
                store.write(&mut download, index, block, now).map_err(disk_failure)?;
            }
            store.finish(download)?;
        }
        done.borrow_mut().objects += 1;
    }
    store.assemble(&made.id(), &made.release)?;
    done.borrow_mut().assembled = true;
    Ok(())
}

fn saved(state: &mut UpdateState, disk: &dyn Disk, done: &RefCell<Done>) -> Result<(), StoreError> {
    state.save(&Ref(disk)).map_err(disk_error)?;
    let done = &mut *done.borrow_mut();
    (done.count, done.good, done.trial) = (state.count, state.good, state.trial);
    Ok(())
}

/// The start of a trial, as the launcher does it.
fn started(disk: &dyn Disk, done: &RefCell<Done>) -> Result<StartChoice, StoreError> {
    let Start { choice, problem } = next_start(&Ref(disk));
    match problem {
        Some(error) => Err(disk_error(error)),
        None => {
            if let StartChoice::Trial { number, left } = choice {
                done.borrow_mut().tries = Some((number, left));
            }
            Ok(choice)
        }
    }
}

/// An update from 5 to 6 that stays, with the garbage of 4.
fn update(disk: &dyn Disk, done: &RefCell<Done>) -> Result<(), StoreError> {
    trial(disk, done)?;
    let mut state = UpdateState::load(&Ref(disk)).map_err(disk_error)?;
    if state.trial == 6 {
        state.commit(5);
        saved(&mut state, disk, done)?;
    }
    Store::open(Ref(disk))?.collect_garbage(&state, &[])
}

/// An update from 5 to 6 that is given up.
fn roll_back(disk: &dyn Disk, done: &RefCell<Done>) -> Result<(), StoreError> {
    trial(disk, done)?;
    let mut state = UpdateState::load(&Ref(disk)).map_err(disk_error)?;
    if state.trial == 6 {
        state.roll_back();
        saved(&mut state, disk, done)?;
    }
    Store::open(Ref(disk))?.collect_garbage(&state, &[])
}

fn trial(disk: &dyn Disk, done: &RefCell<Done>) -> Result<(), StoreError> {
    let mut state = UpdateState::load(&Ref(disk)).map_err(disk_error)?;
    if state.good == 6 || state.failed[0] == 6 {
        return Ok(());
    }
    let store = Store::open(Ref(disk))?;
    fetch(&store, known(6), done)?;
    if state.trial != 6 {
        state.begin_trial(6);
        saved(&mut state, disk, done)?;
    }
    started(disk, done).map(drop)
}

/// A board that runs 5, and ran 4 before it; 3 is garbage.
fn board() -> MemoryDisk {
    let disk = MemoryDisk::new(CAPACITY);
    let store = Store::open(Ref(&disk)).unwrap();
    for number in [3, 4, 5] {
        fetch(&store, known(number), &RefCell::default()).unwrap();
    }
    let mut state = UpdateState { good: 5, previous: 4, min_number: 1, ..UpdateState::default() };
    state.save(&disk).unwrap();
    disk
}

/// The fault of a disk after a power cut.
fn wrong(disk: &MemoryDisk, done: Done) -> Option<String> {
    let state = UpdateState::load(disk).unwrap();
    for name in disk.list("objects").unwrap() {
        if !name.contains('.') && !whole_object(disk, &name) {
            return Some(format!("object {name} is not what its name says"));
        }
    }
    let store = Store::open(Ref(disk)).unwrap();
    for number in store.generations().unwrap() {
        if let Some(what) = mixture(disk, number) {
            return Some(format!("generation {number} counts: {what}"));
        }
    }
    if state.count < done.count {
        return Some("the state went back".to_owned());
    }
    if (state.good == 6) != (state.min_number == 5) {
        return Some("the lowest release rose without a commit".to_owned());
    }
    if done.assembled && state.trial == 6 && mixture(disk, 6).is_some() {
        return Some("the assembled generation is gone".to_owned());
    }
    let tries = TriesRecord::load(disk).unwrap().left_of(&state);
    if let Some((number, left)) = done.tries
        && state.trial == number
        && tries > left
    {
        return Some("a try came back".to_owned());
    }
    for object in known(6).release.objects.iter().take(done.objects).filter(|_| !done.assembled) {
        if store.size_of(&object.sha256).unwrap() != Some(object.size) {
            return Some(format!("{} was finished and is gone", object.name));
        }
    }
    marked(disk, &store).or_else(|| runnable(disk, &state))
}

/// A block that is marked as there and is not.
fn marked(disk: &MemoryDisk, store: &Store<Ref<'_>>) -> Option<String> {
    let made = known(6);
    for ((object, bytes), table) in made.release.objects.iter().zip(&made.objects).zip(&made.tables) {
        let part = format!("objects/{}.part", hex(&object.sha256.0));
        if disk.size(&part).unwrap().is_none() {
            continue;
        }
        let (download, there) =
            (store.begin(object.sha256, object.size, Some(table.clone())).unwrap(), all(disk, &part));
        for (block, index) in bytes.chunks(4096).zip(0..) {
            let start = 4096 * index as usize;
            if download.has(index) && there.get(start..start + block.len()) != Some(block) {
                return Some(format!("block {index} of {} is marked and is not there", object.name));
            }
        }
    }
    None
}

/// True if an object has the bytes that its name says; all objects here are known.
fn whole_object(disk: &MemoryDisk, name: &str) -> bool {
    static OBJECTS: LazyLock<BTreeMap<String, &[u8]>> = LazyLock::new(|| {
        let named = |bytes: &'static Vec<u8>| (hex(&object_id(bytes).0), &bytes[..]);
        (3..=6)
            .flat_map(|number| known(number).objects.iter().chain([&known(number).file]))
            .map(named)
            .collect()
    });
    OBJECTS.get(name).is_some_and(|bytes| all(disk, &format!("objects/{name}")) == *bytes)
}

fn all(disk: &MemoryDisk, path: &str) -> Vec<u8> {
    let mut bytes = vec![0; disk.size(path).unwrap().unwrap_or(0) as usize];
    disk.read_at(path, 0, &mut bytes).unwrap();
    bytes
}

/// The fault of a generation.
fn mixture(disk: &MemoryDisk, number: u32) -> Option<String> {
    let made = known(number);
    for (object, bytes) in made.release.objects.iter().zip(&made.objects) {
        let place = format!("gen/{number}/{}", object.place().unwrap());
        if disk.size(&place).unwrap().is_none() {
            return Some(format!("{place} is missing"));
        }
        if all(disk, &place) != *bytes {
            return Some(format!("{place} has other bytes"));
        }
    }
    let release = format!("gen/{number}/release.signed");
    (all(disk, &release) != made.file).then(|| format!("{release} has other bytes"))
}

/// The generation that starts is the one that the state means, and is whole.
fn runnable(disk: &MemoryDisk, state: &UpdateState) -> Option<String> {
    let Start { choice, problem } = next_start(&disk.clone());
    let meant = if state.trial != 0 { state.trial } else { state.good };
    let number = match choice {
        StartChoice::Trial { number, .. } | StartChoice::Good(number) => number,
        StartChoice::Packaged => return Some(format!("nothing can be run: {problem:?}")),
    };
    if problem.is_some() || number != meant {
        return Some(format!("{number} is run instead of {meant}: {problem:?}"));
    }
    mixture(disk, number)
}

/// The number of a script's steps, that of the outcomes tried, `seeds` of each cut, and the wrong ones. Those of a mutant
/// end with the first wrong one.
fn outcomes(script: Script, seeds: u64, mutant: Option<&Mutant>) -> (u32, u64, Vec<String>) {
    let (board, mut step, mut wrongs) = (board(), 0, Vec::new());
    let mut tried = 0;
    loop {
        let (disk, done) = (board.cut_at(step), RefCell::default());
        let ran = match mutant {
            None => script(&disk, &done),
            Some(mutant) => script(&Careless { disk: &disk, mutant, held: RefCell::default() }, &done),
        };
        let done = *done.borrow();
        if !disk.is_cut() {
            ran.expect("a script ends without an error where the power doesn't fail");
            return (step, tried, wrongs);
        }
        for seed in 0..seeds {
            let mut random = fastrand::Rng::with_seed(seed << 16 | u64::from(step));
            // None, all, or any part of what is not lasting.
            let likely = [0.0, 1.0, 0.5, 0.1, 0.9][(seed % 5) as usize];
            let after = disk.after_cut(|| random.f64() < likely);
            tried += 1;
            if let Some(what) = wrong(&after, done) {
                wrongs.push(format!("step {step}, seed {seed}: {what}"));
            }
        }
        if mutant.is_some() && !wrongs.is_empty() {
            return (step, tried, wrongs);
        }
        step += 1;
    }
}

#[test]
fn every_cut_of_an_update_leaves_a_whole_generation() {
    let (steps, tried, wrongs) = outcomes(update, SEEDS, None);
    assert_eq!(wrongs, Vec::<String>::new());
    assert_eq!(tried, u64::from(steps) * SEEDS);
    assert!(steps > 60, "{steps} steps");
}

#[test]
fn every_cut_of_a_roll_back_leaves_a_whole_generation() {
    let (steps, tried, wrongs) = outcomes(roll_back, SEEDS, None);
    assert_eq!(wrongs, Vec::<String>::new());
    assert_eq!(tried, u64::from(steps) * SEEDS);
    assert!(steps > 60, "{steps} steps");
}

#[test]
fn an_update_that_was_cut_anywhere_and_twice_goes_on_to_its_end() {
    let board = board();
    for (script, good) in [(update as Script, 6), (roll_back, 5)] {
        let steps = outcomes(script, 0, None).0;
        for step in 0..steps {
            for seed in 0..12 {
                let mut random = fastrand::Rng::with_seed(seed << 16 | u64::from(step));
                let mut disk = board.cut_at(step);
                let _ = script(&disk, &RefCell::default());
                disk = disk.after_cut(|| random.bool()).cut_at(random.u32(0..steps));
                let _ = script(&disk, &RefCell::default());
                disk = disk.after_cut(|| random.bool());
                script(&disk, &RefCell::default()).unwrap();
                let state = UpdateState::load(&disk).unwrap();
                assert_eq!((state.good, state.trial), (good, 0), "step {step}, seed {seed}");
                assert_eq!(runnable(&disk, &state), None);
                let left = if good == 6 { vec![5, 6] } else { vec![4, 5] };
                assert_eq!(Store::open(Ref(&disk)).unwrap().generations().unwrap(), left, "garbage");
                let names = disk.list("objects").unwrap();
                assert!(names.iter().all(|name| !name.contains('.')), "{names:?}");
            }
        }
    }
}

/// A step on the disk.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Sync(String),
    SyncDir(String),
    Rename(String, String),
    Link(String, String),
    Remove(String),
}

/// A wrong order: steps that are left out, or that are taken only behind the next step of another kind.
struct Mutant {
    name: &'static str,
    script: Script,
    step: fn(&Step) -> bool,
    behind: Option<fn(&Step) -> bool>,
}

struct Careless<'a> {
    disk: &'a MemoryDisk,
    mutant: &'a Mutant,
    held: RefCell<Vec<Step>>,
}

impl Careless<'_> {
    fn take(&self, step: &Step) -> io::Result<()> {
        match step {
            // Behind a rename, the file has another name.
            Step::Sync(path) if self.disk.size(path)?.is_none() => {
                self.disk.sync(path.trim_end_matches(".new").trim_end_matches(".part"))
            }
            Step::Sync(path) => self.disk.sync(path),
            Step::SyncDir(path) => self.disk.sync_dir(path),
            Step::Rename(from, to) => self.disk.rename(from, to),
            Step::Link(from, to) => self.disk.link(from, to),
            Step::Remove(path) => self.disk.remove(path),
        }
    }

    fn step(&self, step: Step) -> io::Result<()> {
        if (self.mutant.step)(&step) {
            if self.mutant.behind.is_some() {
                self.held.borrow_mut().push(step);
            }
            return Ok(());
        }
        self.take(&step)?;
        if self.mutant.behind.is_some_and(|behind| behind(&step)) {
            let held = std::mem::take(&mut *self.held.borrow_mut());
            held.iter().try_for_each(|step| self.take(step))?;
        }
        Ok(())
    }
}

impl Disk for Careless<'_> {
    fn size(&self, path: &str) -> io::Result<Option<u64>> {
        self.disk.size(path)
    }
    fn read_at(&self, path: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.disk.read_at(path, offset, buffer)
    }
    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        self.disk.list(path)
    }
    fn make_dir(&self, path: &str) -> io::Result<()> {
        self.disk.make_dir(path)
    }
    fn write(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.disk.write(path, bytes)
    }
    fn write_at(&self, path: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.write_at(path, offset, bytes)
    }
    fn sync(&self, path: &str) -> io::Result<()> {
        self.step(Step::Sync(path.to_owned()))
    }
    fn sync_dir(&self, path: &str) -> io::Result<()> {
        self.step(Step::SyncDir(path.to_owned()))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.step(Step::Rename(from.to_owned(), to.to_owned()))
    }
    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.step(Step::Link(from.to_owned(), to.to_owned()))
    }
    fn remove(&self, path: &str) -> io::Result<()> {
        self.step(Step::Remove(path.to_owned()))
    }
    fn free(&self) -> io::Result<u64> {
        self.disk.free()
    }
}

/// The first two blocks of an agent, each made lasting.
fn begin_to_fetch(disk: &dyn Disk, _: &RefCell<Done>) -> Result<(), StoreError> {
    let (store, made) = (Store::open(Ref(disk))?, known(6));
    let agent = &made.release.objects[0];
    let mut download = store.begin(agent.sha256, agent.size, Some(made.tables[0].clone()))?;
    for (block, index) in made.objects[0].chunks(4096).zip(0..2) {
        store.write(&mut download, index, block, Duration::ZERO).map_err(disk_failure)?;
        store.sync(&mut download, Duration::ZERO)?;
    }
    Ok(())
}

/// A state that names the new generation before that is on the disk.
fn state_first(disk: &dyn Disk, done: &RefCell<Done>) -> Result<(), StoreError> {
    let mut state = UpdateState::load(&Ref(disk)).map_err(disk_error)?;
    state.begin_trial(6);
    saved(&mut state, disk, done)?;
    fetch(&Store::open(Ref(disk))?, known(6), done)
}

/// A generation that starts before its try is on the disk.
fn try_after_start(disk: &dyn Disk, done: &RefCell<Done>) -> Result<(), StoreError> {
    let store = Store::open(Ref(disk))?;
    fetch(&store, known(6), done)?;
    let mut state = UpdateState::load(&Ref(disk)).map_err(disk_error)?;
    state.begin_trial(6);
    saved(&mut state, disk, done)?;
    done.borrow_mut().tries = Some((6, 2));
    started(disk, done).map(drop)
}

/// A release that raises the floor when its trial begins.
fn floor_at_trial(disk: &dyn Disk, done: &RefCell<Done>) -> Result<(), StoreError> {
    fetch(&Store::open(Ref(disk))?, known(6), done)?;
    let mut state = UpdateState::load(&Ref(disk)).map_err(disk_error)?;
    state.begin_trial(6);
    state.min_number = 5;
    saved(&mut state, disk, done)
}

fn none(_: &Step) -> bool {
    false
}

fn is_part(step: &Step) -> bool {
    matches!(step, Step::Sync(path) if path.ends_with(".part"))
}

fn is_link_of_content(step: &Step) -> bool {
    matches!(step, Step::Link(_, to) if to.starts_with("gen/6/") && !to.ends_with("release.signed"))
}

fn is_removal_of_release(step: &Step) -> bool {
    matches!(step, Step::Remove(path) if path == "gen/3/release.signed" || path == "gen/4/release.signed")
}

const MUTANTS: &[Mutant] = &[
    Mutant { name: "objects are not synced", script: update, step: is_part, behind: None },
    Mutant {
        name: "objects are synced behind the rename",
        script: update,
        step: is_part,
        behind: Some(|step| matches!(step, Step::Rename(from, _) if from.ends_with(".part"))),
    },
    Mutant {
        name: "marks are synced without their blocks",
        script: begin_to_fetch,
        step: is_part,
        behind: None,
    },
    Mutant {
        name: "the objects' folder is not synced",
        script: update,
        step: |step| matches!(step, Step::SyncDir(path) if path == "objects"),
        behind: None,
    },
    Mutant {
        name: "the generation's folder is not synced",
        script: update,
        step: |step| matches!(step, Step::SyncDir(path) if path == "gen/6"),
        behind: None,
    },
    Mutant {
        name: "the model's folder is not synced",
        script: update,
        step: |step| matches!(step, Step::SyncDir(path) if path == "gen/6/model"),
        behind: None,
    },
    Mutant {
        name: "the generations' folder is not synced",
        script: update,
        step: |step| matches!(step, Step::SyncDir(path) if path == "gen"),
        behind: None,
    },
    Mutant {
        name: "the release is linked before the rest",
        script: update,
        step: is_link_of_content,
        behind: Some(|step| matches!(step, Step::Link(_, to) if to == "gen/6/release.signed")),
    },
    Mutant {
        name: "the state is not synced",
        script: update,
        step: |step| matches!(step, Step::Sync(path) if path.starts_with("state.")),
        behind: None,
    },
    // A state that is synced behind its rename is no mistake: the other copy counts if it is lost.
    Mutant {
        name: "the records' folder is not synced",
        script: roll_back,
        step: |step| matches!(step, Step::SyncDir(path) if path.is_empty()),
        behind: None,
    },
    Mutant {
        name: "the tries are not synced",
        script: update,
        step: |step| matches!(step, Step::Sync(path) if path.starts_with("tries.")),
        behind: None,
    },
    Mutant {
        name: "a generation's release is removed last",
        script: update,
        step: is_removal_of_release,
        behind: Some(|step| matches!(step, Step::Remove(path) if path.ends_with("/settings.toml"))),
    },
    Mutant {
        name: "the removal of a release is not synced",
        script: update,
        step: |step| matches!(step, Step::SyncDir(path) if path == "gen/3" || path == "gen/4"),
        behind: None,
    },
    Mutant { name: "the state is written first", script: state_first, step: none, behind: None },
    Mutant { name: "a try is counted behind the start", script: try_after_start, step: none, behind: None },
    Mutant { name: "the floor rises at the trial", script: floor_at_trial, step: none, behind: None },
];

#[test]
fn a_sync_left_out_or_another_order_is_caught() {
    let missed: Vec<_> = MUTANTS
        .iter()
        .filter(|mutant| outcomes(mutant.script, MUTANT_SEEDS, Some(mutant)).2.is_empty())
        .map(|mutant| mutant.name)
        .collect();
    assert_eq!(missed, Vec::<&str>::new());
}
