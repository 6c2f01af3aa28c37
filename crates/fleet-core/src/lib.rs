//! The core of fleet updates: signed documents, and the store of a board's generations.
//!
//! Invariants:
//! - Nothing here reads a clock, a socket or a random number. Files are reached through a [`Disk`] alone.
//! - What a signature is of begins with its purpose and, where it has one, its addressee.
//! - Power may fail before any step on the disk: a generation that counts is whole, and one of them can always be run.

pub mod block_table;
pub mod disk;
pub mod document;
mod hash;
mod hex;
pub mod lot;
pub mod memory_disk;
pub mod moment;
pub mod record;
pub mod rejection;
pub mod release;
mod role;
pub mod rollout;
pub mod root;
pub mod start;
pub mod store;
pub mod store_server;
pub mod transfer;
pub mod updater;

pub use block_table::{BLOCK_SIZES, BlockTable, TABLE_BYTES_MAX};
pub use disk::{Disk, StdDisk};
pub use document::{
    PublicKey, Purpose, SignError, SignedDocument, SigningKey, sign_command, sign_rollout, sign_time,
};
pub use hash::object_id;
pub use hex::{HexError, hex, parse_hex};
pub use memory_disk::MemoryDisk;
pub use record::{FAILED_MAX, TRIES_MAX, TriesRecord, UpdateState};
pub use rejection::Rejection;
pub use release::{Gate, GateNeed, GoldenPrompt, ObjectKind, Release, ReleaseArch, ReleaseObject};
pub use role::KeyRole;
pub use root::{RoleKeys, RolloutNews, Root, RootDraft, RootLink};
pub use start::{Start, StartChoice, next_start};
pub use store::{BlockError, Download, Store, StoreError};
