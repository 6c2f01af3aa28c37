//! The measurements of the models and the link, kept over a restart: one file with an entry for each broker, drafter
//! and target.
//!
//! Invariant: the file is whole at any time, has at most [`ENTRIES_MAX`] entries, and is never needed. A file that
//! can't be used is reported and kept, and the agent learns anew.

use crate::draft_file::DraftFile;
use anyhow::{Context, Result, bail};
use dunlin_hlm::device::{Device, LearnedRecord};
use dunlin_hlm::time::{Duration, Instant};
use dunlin_wire::TargetId;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use tracing::warn;

/// The file's name in the state's folder.
pub const LEARNED_FILE: &str = "learned.json";
/// Version of the file's form.
const VERSION: u32 = 1;
/// Most entries; the one that was saved longest ago makes room.
const ENTRIES_MAX: usize = 16;
/// Largest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Least time between two writes while the agent runs, for the sake of the card. The agent's end writes in any case.
const SAVE_INTERVAL: Duration = Duration::from_millis(300_000);

/// The records that the agent keeps, and their file.
#[derive(Debug, Default)]
pub struct Memory {
    /// `None` to keep nothing.
    place: Option<PathBuf>,
    broker: String,
    drafter: String,
    /// Of all brokers, drafters and targets; the newest is the last.
    entries: Vec<Entry>,
    saved: Option<Instant>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    broker: String,
    drafter: String,
    target: String,
    learned: LearnedRecord,
}

impl Entry {
    fn has_place_of(&self, other: &Self) -> bool {
        (&self.broker, &self.drafter, &self.target) == (&other.broker, &other.drafter, &other.target)
    }
}

/// The part of the file that every version has.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    version: u32,
    entries: Vec<Entry>,
}

impl Memory {
    /// Reads the records in the state's folder `dir`, for this broker and drafter. A file that can't be used is reported.
    /// An invalid one is renamed, and one that can't be read or is of a later version stays and is not replaced.
    pub fn open(dir: Option<&Path>, broker: String, drafter: String) -> Self {
        let mut memory = Self { broker, drafter, ..Self::default() };
        let Some(dir) = dir else { return memory };
        let place = dir.join(LEARNED_FILE);
        match read(&place) {
            Ok(Found::Entries(entries)) => memory.entries = entries,
            Ok(Found::Invalid(problem)) => {
                let aside = place.with_extension("invalid.json");
                let problem = problem.escape_debug();
                if let Err(error) = fs::rename(&place, &aside) {
                    warn!(
                        "{}: {problem}; it can't be renamed ({error}), so nothing is kept",
                        place.display()
                    );
                    return memory;
                }
                warn!(
                    "{}: {problem}; it is now {}, and all is learned anew",
                    place.display(),
                    aside.display()
                );
            }
            Err(error) => {
                warn!("{}: {error:#}; nothing is kept of what is learned", place.display());
                return memory;
            }
        }
        memory.place = Some(place);
        memory
    }

    /// The target that wrote last, and what was learned with it.
    pub(crate) fn latest(&self) -> Option<(&str, &LearnedRecord)> {
        let entry = self.own().next_back()?;
        Some((&entry.target, &entry.learned))
    }

    /// The record of a target.
    pub(crate) fn of(&self, target: TargetId) -> Option<&LearnedRecord> {
        let target = target.to_string();
        self.own().find(|entry| entry.target == target).map(|entry| &entry.learned)
    }

    /// Notes what was learned with a target. It is written by [`Self::save`].
    pub(crate) fn note(&mut self, target: &str, learned: LearnedRecord) {
        let entry = Entry {
            broker: self.broker.clone(),
            drafter: self.drafter.clone(),
            target: target.into(),
            learned,
        };
        self.entries.retain(|old| !old.has_place_of(&entry));
        self.entries.push(entry);
        if self.entries.len() > ENTRIES_MAX {
            self.entries.remove(0);
        }
    }

    /// True if a running agent should write now.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.place.is_some() && self.saved.is_none_or(|saved| now.since(saved) >= SAVE_INTERVAL)
    }

    /// Writes what the machine learned with a target, if it had one.
    pub(crate) fn keep(&mut self, target: Option<&str>, device: &Device, now: Instant) {
        if let Some(target) = target {
            self.note(target, device.record());
            self.save(now);
        }
    }

    /// Writes the file. A failure is reported; the next time may do better.
    pub(crate) fn save(&mut self, now: Instant) {
        let Some(place) = &self.place else { return };
        self.saved = Some(now);
        if let Err(error) = write(place, &self.entries) {
            warn!("{error:#}: what was learned is not kept");
        }
    }

    fn own(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.broker == self.broker && entry.drafter == self.drafter)
    }
}

/// A file that can be replaced.
enum Found {
    Entries(Vec<Entry>),
    /// The problem, in words.
    Invalid(String),
}

fn read(place: &Path) -> Result<Found> {
    let file = match File::open(place) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Entries(Vec::new())),
        file => file?,
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Ok(Found::Invalid(format!("larger than {FILE_BYTES_MAX} bytes")));
    }
    if let Ok(Versioned { version }) = serde_json::from_slice(&bytes)
        && version != VERSION
    {
        bail!("version {version}, and this program knows version {VERSION}; remove the file to learn anew");
    }
    let contents: Contents = match serde_json::from_slice(&bytes) {
        Ok(contents) => contents,
        Err(error) => return Ok(Found::Invalid(error.to_string())),
    };
    let mut entries = contents.entries;
    // The newest are the last.
    entries.drain(..entries.len().saturating_sub(ENTRIES_MAX));
    Ok(Found::Entries(entries))
}

fn write(place: &Path, entries: &[Entry]) -> Result<()> {
    let text = serde_json::to_string_pretty(&Contents { version: VERSION, entries: entries.to_vec() });
    let text = text.map_err(io::Error::from).with_context(|| place.display().to_string())?;
    if let Some(dir) = place.parent() {
        fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    }
    let draft = DraftFile::new(place)?;
    let written = draft.file()?.write_all(text.as_bytes());
    written.with_context(|| place.display().to_string())?;
    draft.publish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_hlm::device::Learned;

    fn memory(dir: &Path) -> Memory {
        Memory::open(Some(dir), "broker:1883".into(), "drafter".into())
    }

    /// A record that differs from another one's by its time of a token.
    fn record(ms: u64) -> LearnedRecord {
        let mut learned = Learned::default();
        learned.stop.start_at(Duration::from_millis(ms));
        learned.record()
    }

    fn target(byte: u8) -> TargetId {
        TargetId::from_bytes([byte; 8])
    }

    #[test]
    fn each_broker_drafter_and_target_has_its_own_entry() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = memory(dir.path());
        assert!(first.latest().is_none());
        first.note(&target(1).to_string(), record(1));
        first.note(&target(2).to_string(), record(2));
        first.note(&target(1).to_string(), record(3));
        first.save(Instant(0));
        let again = memory(dir.path());
        assert_eq!(again.latest(), Some((&*target(1).to_string(), &record(3))), "the newest");
        assert_eq!(again.of(target(2)), Some(&record(2)));
        assert_eq!(again.of(target(3)), None);
        for (broker, drafter) in [("other:1883", "drafter"), ("broker:1883", "another")] {
            let mut other = Memory::open(Some(dir.path()), broker.into(), drafter.into());
            assert!(other.latest().is_none() && other.of(target(1)).is_none(), "{broker} {drafter}");
            other.note(&target(1).to_string(), record(9));
            other.save(Instant(0));
        }
        assert_eq!(memory(dir.path()).of(target(1)), Some(&record(3)), "nobody else's was replaced");
    }

    #[test]
    fn a_peer_with_many_targets_displaces_the_oldest() {
        let dir = tempfile::tempdir().unwrap();
        let mut memory = memory(dir.path());
        for byte in 0..=ENTRIES_MAX as u8 {
            memory.note(&target(byte).to_string(), record(byte.into()));
        }
        assert_eq!((memory.entries.len(), memory.of(target(0))), (ENTRIES_MAX, None));
        memory.save(Instant(0));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_invalid_file_is_put_aside_and_one_of_a_later_version_stays() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join(LEARNED_FILE);
        let mut good = memory(dir.path());
        good.note("t", record(1));
        good.save(Instant(0));
        let text = fs::read_to_string(&place).unwrap();
        let longer = format!("{}{text}", " ".repeat(FILE_BYTES_MAX as usize));
        for invalid in ["", "[]", &text[..text.len() / 2], &text.replace("entries", "entrees"), &longer] {
            fs::write(&place, invalid).unwrap();
            let mut memory = memory(dir.path());
            assert!(memory.latest().is_none());
            assert_eq!(fs::read_to_string(dir.path().join("learned.invalid.json")).unwrap(), invalid);
            memory.note("t", record(2));
            memory.save(Instant(0));
            assert!(fs::read_to_string(&place).unwrap().contains("version"), "learned anew");
        }
        let later = text.replace("\"version\": 1", "\"version\": 2, \"more\": 0");
        assert_ne!(later, text);
        fs::write(&place, &later).unwrap();
        let mut memory = memory(dir.path());
        assert!(!memory.is_due(Instant(0)) && memory.latest().is_none());
        memory.note("t", record(2));
        memory.save(Instant(0));
        assert_eq!(fs::read_to_string(&place).unwrap(), later, "nothing is lost");
    }

    #[test]
    fn a_folder_that_takes_no_file_is_no_reason_to_end() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let mut blocked = memory(&file);
        blocked.note("t", record(1));
        blocked.save(Instant(0));
        let mut deeper = memory(&dir.path().join("a/b"));
        deeper.note("t", record(1));
        deeper.save(Instant(0));
        assert!(dir.path().join("a/b").join(LEARNED_FILE).exists(), "missing folders are made");
    }

    #[test]
    fn a_running_agent_writes_only_now_and_then() {
        let dir = tempfile::tempdir().unwrap();
        let mut memory = memory(dir.path());
        assert!(memory.is_due(Instant(7)));
        memory.save(Instant(7));
        assert!(!memory.is_due(Instant(SAVE_INTERVAL.0)) && memory.is_due(Instant(SAVE_INTERVAL.0 + 7)));
        assert!(!Memory::open(None, String::new(), String::new()).is_due(Instant(u64::MAX)));
    }
}
