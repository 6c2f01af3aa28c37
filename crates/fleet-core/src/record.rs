//! Small records in two copies each: the updater's state and the launcher's tries.
//!
//! Each has one writer. A copy is a format byte, the record in postcard, and a CRC-32 of both; the newest valid one
//! counts, and the other one is written next.

use crate::disk::{Disk, read_all, replace};
use crate::hash::sha256;
use dunlin_wire::RolloutScope;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io;

/// Releases that are remembered as failed.
pub const FAILED_MAX: usize = 16;
/// Starts of a trial.
pub const TRIES_MAX: u8 = 3;
/// The format of the records.
const FORMAT: u8 = 1;
/// Bytes of a copy.
const RECORD_BYTES_MAX: usize = 256;

/// A record with two copies.
pub(crate) trait Record: Serialize + DeserializeOwned + Default {
    /// The name of the copies, before `.0` and `.1`.
    const NAME: &'static str;
    /// The number of the copy.
    fn count(&self) -> u64;
    /// Numbers the copy.
    fn set_count(&mut self, count: u64);
}

/// The updater's state. The launcher only reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateState {
    /// Writes of the state; [`save`](Self::save) counts them.
    pub count: u64,
    /// The generation that runs; 0 for what the board was installed with.
    pub good: u32,
    /// The one that ran before; 0 for what the board was installed with.
    pub previous: u32,
    /// The generation on trial; 0 for none.
    pub trial: u32,
    /// Trials that were begun, which tells one trial's tries from another's.
    pub attempt: u32,
    /// The lowest release that is still taken.
    pub min_number: u32,
    /// The newest rollout of the ring.
    pub rollout: u32,
    /// The ring that it is of, by the first bytes of its name's SHA-256.
    pub ring: [u8; 4],
    /// The newest rollout that pinned this device.
    pub pin: u32,
    /// The last command.
    pub command: u32,
    /// The last signed time's number.
    pub time: u32,
    /// The slot that runs: 0 for none, 1 or 2.
    pub slot_good: u8,
    /// The slot on trial: 0 for none, 1 or 2.
    pub slot_trial: u8,
    /// The release of the running slot's system.
    pub system: u32,
    /// Releases that failed here, the newest first; 0 for none.
    pub failed: [u32; FAILED_MAX],
    /// The lowest time that it can be, in Unix seconds.
    pub clock_floor: u64,
}

/// The launcher's tries. The updater only reads them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriesRecord {
    /// Writes of the tries; [`save`](Self::save) counts them.
    pub count: u64,
    /// The trial, as in [`UpdateState::attempt`].
    pub attempt: u32,
    /// Starts that are left.
    pub left: u8,
}

impl Record for UpdateState {
    const NAME: &'static str = "state";

    fn count(&self) -> u64 {
        self.count
    }

    fn set_count(&mut self, count: u64) {
        self.count = count;
    }
}

impl Record for TriesRecord {
    const NAME: &'static str = "tries";

    fn count(&self) -> u64 {
        self.count
    }

    fn set_count(&mut self, count: u64) {
        self.count = count;
    }
}

impl UpdateState {
    /// The newest state on the disk; the first one if there is no valid copy.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn load(disk: &impl Disk) -> io::Result<Self> {
        load(disk)
    }

    /// Writes the state.
    ///
    /// # Errors
    /// Those of the disk; the former state counts then.
    pub fn save(&mut self, disk: &impl Disk) -> io::Result<()> {
        save(self, disk)
    }

    /// The newest number of this ring or device.
    pub fn last_rollout(&self, scope: &RolloutScope) -> u32 {
        match scope {
            RolloutScope::Ring(ring) if ring_mark(ring.as_str()) == self.ring => self.rollout,
            // Numbers are from one sequence, but each ring has its own newest one.
            RolloutScope::Ring(_) => 0,
            RolloutScope::Device(_) => self.pin,
        }
    }

    /// Remembers the newest number of this ring or device.
    pub fn take_rollout(&mut self, scope: &RolloutScope, number: u32) {
        match scope {
            RolloutScope::Ring(ring) => (self.rollout, self.ring) = (number, ring_mark(ring.as_str())),
            RolloutScope::Device(_) => self.pin = number,
        }
    }

    /// Puts a generation on trial.
    pub fn begin_trial(&mut self, number: u32) {
        self.trial = number;
        self.attempt = self.attempt.wrapping_add(1);
    }

    /// Keeps the generation on trial. `floor` is its release's.
    pub fn commit(&mut self, floor: u32) {
        if self.trial != self.good {
            self.previous = self.good;
        }
        self.good = self.trial;
        self.trial = 0;
        self.min_number = self.min_number.max(floor);
    }

    /// Goes back to the good generation, and remembers the other one as failed.
    pub fn roll_back(&mut self) {
        let number = self.trial;
        self.trial = 0;
        if number != 0 && !self.failed.contains(&number) {
            self.failed.rotate_right(1);
            self.failed[0] = number;
        }
    }
}

impl TriesRecord {
    /// The newest tries on the disk; the first ones if there is no valid copy.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn load(disk: &impl Disk) -> io::Result<Self> {
        load(disk)
    }

    /// Writes the tries.
    ///
    /// # Errors
    /// Those of the disk; the former tries count then.
    pub fn save(&mut self, disk: &impl Disk) -> io::Result<()> {
        save(self, disk)
    }

    /// Starts that are left of a trial.
    pub fn left_of(&self, state: &UpdateState) -> u8 {
        if self.attempt == state.attempt { self.left.min(TRIES_MAX) } else { TRIES_MAX }
    }
}

fn ring_mark(ring: &str) -> [u8; 4] {
    let mut mark = [0; 4];
    mark.copy_from_slice(&sha256(ring.as_bytes())[..4]);
    mark
}

fn copies<R: Record>(disk: &impl Disk) -> io::Result<[Option<R>; 2]> {
    let copy = |index| -> io::Result<Option<R>> {
        let bytes = read_all(disk, &name::<R>(index), RECORD_BYTES_MAX as u64);
        // A copy that is too large is damaged.
        let bytes = match bytes {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => None,
            bytes => bytes?,
        };
        Ok(bytes.and_then(|bytes| decode(&bytes)))
    };
    Ok([copy(0)?, copy(1)?])
}

fn name<R: Record>(index: usize) -> String {
    format!("{}.{index}", R::NAME)
}

fn load<R: Record>(disk: &impl Disk) -> io::Result<R> {
    let [first, second] = copies::<R>(disk)?;
    let newest = [first, second].into_iter().flatten().max_by_key(Record::count);
    Ok(newest.unwrap_or_default())
}

fn save<R: Record>(record: &mut R, disk: &impl Disk) -> io::Result<()> {
    let [first, second] = copies::<R>(disk)?;
    let (first, second) = (first.as_ref().map(Record::count), second.as_ref().map(Record::count));
    record.set_count(first.max(second).unwrap_or(0) + 1);
    let older = usize::from(second < first);
    replace(disk, "", &name::<R>(older), &encode(record))
}

fn encode<R: Record>(record: &R) -> Vec<u8> {
    let mut buffer = [0; RECORD_BYTES_MAX];
    buffer[0] = FORMAT;
    let used = postcard::to_slice(record, &mut buffer[1..]).expect("a record has at most 251 bytes").len();
    let mut bytes = buffer[..=used].to_vec();
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

fn decode<R: Record>(bytes: &[u8]) -> Option<R> {
    let (content, crc) = bytes.split_last_chunk()?;
    let (&FORMAT, record) = content.split_first()? else { return None };
    if crc32fast::hash(content) != u32::from_le_bytes(*crc) {
        return None;
    }
    match postcard::take_from_bytes(record) {
        Ok((record, [])) => Some(record),
        _ => None,
    }
}
