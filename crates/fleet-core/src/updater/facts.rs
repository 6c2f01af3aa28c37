//! Inputs and orders of the updater's machine: the board, a release, the disk, the agent.

use crate::record::UpdateState;
use dunlin_wire::{BoardId, CommandVerb, DeviceId, ObjectId, RingId, SystemSlot};

/// The board and its updater.
#[derive(Clone, Debug)]
pub struct UpdaterConfig {
    /// The device.
    pub device: DeviceId,
    /// Its ring.
    pub ring: RingId,
    /// The kind of board.
    pub board: BoardId,
    /// The updater's version, as in its report.
    pub version: u32,
    /// Varies the jitter.
    pub seed: u64,
}

/// The state of the board at the updater's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootFacts {
    /// The slot that the system was started from.
    pub slot: SystemSlot,
    /// Starts that are left of what is on trial; [`TRIES_MAX`](crate::TRIES_MAX) before its first one.
    pub tries: u8,
    /// The health before the switch to the release on trial, as it was saved.
    pub health: AgentHealth,
}

/// The health of an agent; a new release must not be worse than the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AgentHealth {
    /// True if the agent had a lease in the last hour.
    pub lease: bool,
    /// True if the power sensor answered.
    pub sensor: bool,
}

/// The peers that a new release must reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateNeeds {
    /// Only a start.
    Nothing,
    /// The broker.
    Broker,
    /// The broker and a lease.
    Lease,
}

/// An object of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectFacts {
    /// The object.
    pub id: ObjectId,
    /// Its bytes.
    pub size: u64,
    /// The object that is its table.
    pub table: ObjectId,
    /// Bytes of a block.
    pub block_bytes: u32,
    /// True for a system, which is written to the other slot.
    pub system: bool,
}

impl ObjectFacts {
    /// Bytes of its table.
    pub fn table_bytes(&self) -> u64 {
        self.size.div_ceil(u64::from(self.block_bytes.max(1))) * 32
    }
}

/// A release whose signatures, board and processor were found right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseFacts {
    /// Its number.
    pub number: u32,
    /// The lowest release that is taken once this one is kept.
    pub floor: u32,
    /// Its objects.
    pub objects: Vec<ObjectFacts>,
    /// SHA-256 of the tokens that the agent drafts on this board for the golden prompt.
    pub golden: Option<[u8; 32]>,
    /// Most memory of the agent in MiB; 0 for no limit.
    pub rss_mib: u32,
    /// Seconds without a restart.
    pub soak_seconds: u32,
    /// The peers that it must reach.
    pub needs: GateNeeds,
}

/// The parts of an object that are on the board.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ObjectState {
    /// All of it.
    pub whole: bool,
    /// Its table.
    pub table: bool,
}

/// News of the agent's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentNews {
    /// The launcher started it.
    Started {
        /// The release that it is of; 0 for what the board was installed with.
        release: u32,
        /// Starts of a trial that are left.
        tries: u8,
    },
    /// It ended, or its watchdog ended it.
    Ended,
}

/// A check of the new release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GateStep {
    /// The unit is active, and the agent says that it is ready.
    Unit,
    /// The agent is connected to the broker.
    Broker,
    /// A verifier gave it a lease.
    Lease,
    /// It drafts the golden prompt's tokens.
    Golden,
    /// Its memory.
    Memory,
    /// The power sensor answers.
    Sensor,
    /// It runs on without a restart.
    Soak,
}

/// The answer to a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateAnswer {
    /// The condition holds.
    Holds,
    /// It can't hold any more.
    Fails,
    /// SHA-256 of the tokens that were drafted.
    Tokens([u8; 32]),
    /// Memory of the agent in MiB.
    MemoryMib(u32),
}

/// An order to the shell. Those with an answer name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpdaterEvent {
    /// Write the health and then the state to disk: [`Updater::handle_saved`](super::Updater::handle_saved).
    Save(UpdateState, AgentHealth),
    /// Check these bytes as the signed release of this number, for this board, and keep them:
    /// [`Updater::handle_release`](super::Updater::handle_release).
    Judge {
        /// The number that the rollout names.
        release: u32,
        /// The signed document.
        bytes: Vec<u8>,
    },
    /// Read the signed release of a generation that is on disk:
    /// [`Updater::handle_release`](super::Updater::handle_release).
    ReadGeneration(u32),
    /// Find what is here of these objects, and whether the rest has room:
    /// [`Updater::handle_prepared`](super::Updater::handle_prepared).
    Prepare(Vec<ObjectFacts>),
    /// Keep a table, whose hash was checked.
    KeepTable(ObjectId, Vec<u8>),
    /// Make room for an object, and copy to it what the board has already; for a system, in the other slot:
    /// [`Updater::handle_opened`](super::Updater::handle_opened).
    Open(ObjectFacts),
    /// Keep a block, whose hash was checked.
    KeepBlock {
        /// The object.
        object: ObjectId,
        /// The block's number.
        block: u32,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// Read the object back and check all of it: [`Updater::handle_sealed`](super::Updater::handle_sealed).
    Seal(ObjectFacts),
    /// Make a generation of the release's objects: [`Updater::handle_staged`](super::Updater::handle_staged).
    Stage(u32),
    /// Start the release on trial: its generation, and with `slot` its system, once.
    Switch {
        /// The release.
        release: u32,
        /// The slot of its system.
        slot: Option<SystemSlot>,
    },
    /// Check the new release: [`Updater::handle_check`](super::Updater::handle_check).
    Check(GateStep),
    /// Keep the slot that runs: [`Updater::handle_slot`](super::Updater::handle_slot).
    CommitSlot(SystemSlot),
    /// Start the kept release again, and with `slot` its system.
    Revert {
        /// The release.
        release: u32,
        /// The slot of its system.
        slot: Option<SystemSlot>,
    },
    /// Carry out a command, once.
    Command(CommandVerb),
    /// Check these bytes as the signed root that follows the present one, and keep them.
    AdoptRoot(Vec<u8>),
}
