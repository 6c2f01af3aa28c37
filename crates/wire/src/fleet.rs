//! The report of a device on its update.

use crate::BoardId;
use crate::codec::{self, Kind};
use crate::limits::{DETAIL_BYTES_MAX, FLEET_BYTES_MAX, PERMILLE_MAX};
use crate::{DecodeError, EncodeError};
use heapless::{String, Vec};
use serde::{Deserialize, Serialize};

/// The detail of a report.
pub type FleetDetail = String<DETAIL_BYTES_MAX>;

/// The phase of a device's update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FleetPhase {
    /// Runs what it is meant to run.
    Idle,
    /// Refused the rollout.
    Refused,
    /// Waits for its turn.
    Queued,
    /// Fetches the release.
    Manifest,
    /// Fetches tables of blocks.
    Tables,
    /// Fetches blocks.
    Blocks,
    /// Has everything.
    Staged,
    /// Waits until no reply is written.
    Waiting,
    /// Starts the new release.
    Trial,
    /// Checks the new release.
    Gate,
    /// Keeps the new release.
    Committed,
    /// Went back to the former release.
    RolledBack,
    /// Paused by the rollout.
    Paused,
    /// Gave up at the deadline.
    TimedOut,
    /// The rollout was taken off.
    Removed,
}

/// The reason of a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FleetReason {
    /// None.
    None,
    /// A signature is missing, wrong, or of a key without the role.
    Signature,
    /// The root is missing or its time is over.
    Root,
    /// The rollout's time is over.
    Expired,
    /// The rollout is older than one that was seen.
    Replayed,
    /// The release is for other boards.
    Board,
    /// The release is for another processor.
    Arch,
    /// The release is below the lowest number allowed.
    Floor,
    /// The release failed here before.
    Failed,
    /// No room on the disk.
    NoSpace,
    /// An object, table or release is not what the release or the rollout says.
    Content,
    /// The board can't install an object of this kind.
    Unsupported,
    /// No store answers.
    NoStore,
    /// A store sends wrong blocks.
    Poisoned,
    /// The deadline is over.
    Deadline,
    /// A file can't be read or written.
    Disk,
    /// An installation command failed.
    Install,
    /// The agent didn't become ready.
    Unit,
    /// The agent didn't reach the broker.
    Broker,
    /// The agent got no lease.
    Lease,
    /// The agent drafted other tokens.
    Golden,
    /// The agent takes too much memory.
    Memory,
    /// The power sensor is silent.
    Sensor,
    /// The agent restarted or hung while it was observed.
    Restart,
    /// No try is left.
    Tries,
    /// The operator ended it.
    Operator,
}

/// The slot that the system runs from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SystemSlot {
    /// The board has no slots.
    None,
    /// The first one.
    A,
    /// The second one.
    B,
}

/// The state of a device's update; retained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetReport {
    /// Reports since the updater's start, this one included, never 0.
    pub report: u32,
    /// Number of the newest rollout that it takes; 0 if it has none.
    pub rollout: u32,
    /// Number of the last command that was carried out; 0 if it had none.
    pub command: u32,
    /// The release that runs; 0 for what the board was installed with.
    pub release: u32,
    /// The release that the rollout asks for; 0 if it has none.
    pub target: u32,
    /// The phase.
    pub phase: FleetPhase,
    /// Progress of the phase.
    pub permille: u16,
    /// The reason of the phase.
    pub reason: FleetReason,
    /// More on the reason; without control characters.
    pub detail: FleetDetail,
    /// The slot that runs.
    pub slot: SystemSlot,
    /// The release that the slot's system is of; 0 for what the board was installed with.
    pub system: u32,
    /// The lowest release that it still takes.
    pub min_number: u32,
    /// Starts of a trial that are left.
    pub tries: u8,
    /// Wrong blocks and repeated requests of this transfer.
    pub failures: u16,
    /// Free space in MiB.
    pub free_mib: u32,
    /// The kind of board.
    pub board: BoardId,
    /// The updater's version: major · 65536 + minor · 256 + patch.
    pub updater: u32,
}

impl FleetPhase {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 15] = [
        Self::Idle,
        Self::Refused,
        Self::Queued,
        Self::Manifest,
        Self::Tables,
        Self::Blocks,
        Self::Staged,
        Self::Waiting,
        Self::Trial,
        Self::Gate,
        Self::Committed,
        Self::RolledBack,
        Self::Paused,
        Self::TimedOut,
        Self::Removed,
    ];

    /// Its name in lists and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Refused => "refused",
            Self::Queued => "queued",
            Self::Manifest => "manifest",
            Self::Tables => "tables",
            Self::Blocks => "blocks",
            Self::Staged => "staged",
            Self::Waiting => "waiting",
            Self::Trial => "trial",
            Self::Gate => "gate",
            Self::Committed => "committed",
            Self::RolledBack => "rolled back",
            Self::Paused => "paused",
            Self::TimedOut => "timed out",
            Self::Removed => "removed",
        }
    }
}

impl FleetReason {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 26] = [
        Self::None,
        Self::Signature,
        Self::Root,
        Self::Expired,
        Self::Replayed,
        Self::Board,
        Self::Arch,
        Self::Floor,
        Self::Failed,
        Self::NoSpace,
        Self::Content,
        Self::Unsupported,
        Self::NoStore,
        Self::Poisoned,
        Self::Deadline,
        Self::Disk,
        Self::Install,
        Self::Unit,
        Self::Broker,
        Self::Lease,
        Self::Golden,
        Self::Memory,
        Self::Sensor,
        Self::Restart,
        Self::Tries,
        Self::Operator,
    ];

    /// Its name in lists and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Signature => "signature",
            Self::Root => "root",
            Self::Expired => "expired",
            Self::Replayed => "replayed",
            Self::Board => "board",
            Self::Arch => "arch",
            Self::Floor => "floor",
            Self::Failed => "failed",
            Self::NoSpace => "no space",
            Self::Content => "content",
            Self::Unsupported => "unsupported",
            Self::NoStore => "no store",
            Self::Poisoned => "poisoned",
            Self::Deadline => "deadline",
            Self::Disk => "disk",
            Self::Install => "install",
            Self::Unit => "unit",
            Self::Broker => "broker",
            Self::Lease => "lease",
            Self::Golden => "golden",
            Self::Memory => "memory",
            Self::Sensor => "sensor",
            Self::Restart => "restart",
            Self::Tries => "tries",
            Self::Operator => "operator",
        }
    }
}

impl FleetReport {
    /// Encodes the message.
    ///
    /// # Errors
    /// Names the field that is outside its limits.
    pub fn encode(&self) -> Result<Vec<u8, FLEET_BYTES_MAX>, EncodeError> {
        self.check().map_err(EncodeError::OutOfRange)?;
        codec::put(Kind::Fleet, self)
    }

    /// Decodes a message from a device's topic of updates.
    ///
    /// # Errors
    /// The bytes are malformed; see [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let report: Self = match codec::open(bytes)? {
            (Kind::Fleet, rest) => codec::take_all(rest)?,
            (kind, _) => return Err(DecodeError::UnknownKind(kind as u8)),
        };
        report.check().map_err(DecodeError::Impossible)?;
        Ok(report)
    }

    fn check(&self) -> Result<(), &'static str> {
        match self {
            Self { report: 0, .. } => Err("report"),
            Self { permille, .. } if *permille > PERMILLE_MAX => Err("permille"),
            Self { detail, .. } if detail.chars().any(char::is_control) => Err("detail"),
            _ => Ok(()),
        }
    }
}
