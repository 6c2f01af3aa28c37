//! The reasons why a board takes no document or message.

use crate::role::KeyRole;
use dunlin_wire::FleetReason;
use thiserror::Error;

/// A document, message or release that a board does not take. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Rejection {
    /// It can't be read, or a field has an impossible value.
    #[error("{0}")]
    Malformed(String),
    /// Fewer valid signatures of the role than its threshold.
    #[error("signed by {found} of the {needed} keys that the role {role} needs")]
    Signature {
        /// The role.
        role: KeyRole,
        /// Valid signatures of different keys of the role.
        found: usize,
        /// The role's threshold.
        needed: usize,
    },
    /// The root's time is over.
    #[error("the fleet's root ended at {until} (Unix time), and it is {now}: publish a new one")]
    RootExpired {
        /// The root's end.
        until: u64,
        /// The time.
        now: u64,
    },
    /// A root that doesn't follow the present one.
    #[error("root {found} does not follow root {present}")]
    RootChain {
        /// The version of the present root.
        present: u32,
        /// The version of the other one.
        found: u32,
    },
    /// The time of a rollout or command is over.
    #[error("it ended at {until} (Unix time), and it is {now}")]
    Expired {
        /// Its end.
        until: u64,
        /// The time.
        now: u64,
    },
    /// A number that is not above the last one.
    #[error("number {found} was overtaken by number {last}")]
    Replayed {
        /// Its number.
        found: u32,
        /// The last number.
        last: u32,
    },
    /// Another number of bytes than announced.
    #[error("{found} bytes, {expected} were announced")]
    Size {
        /// Its bytes.
        found: u64,
        /// The announced bytes.
        expected: u64,
    },
    /// Bytes that don't have the announced hash.
    #[error("its bytes are not those that were announced")]
    Content,
    /// Another release than the rollout names.
    #[error("it is release {found}, the rollout names release {expected}")]
    Number {
        /// Its number.
        found: u32,
        /// The rollout's number of a release.
        expected: u32,
    },
    /// A release for other boards.
    #[error("release {0} is not for this kind of board")]
    Board(u32),
    /// A release for other processors.
    #[error("release {0} is not for this processor")]
    Arch(u32),
    /// A release below the lowest one that is allowed.
    #[error("release {number} is below {floor}, the lowest that this board still takes")]
    Floor {
        /// The release.
        number: u32,
        /// The lowest one.
        floor: u32,
    },
    /// A release that failed on this board.
    #[error("release {0} failed on this board before: publish it under a new number")]
    Failed(u32),
}

impl Rejection {
    /// The reason in a device's report.
    pub fn reason(&self) -> FleetReason {
        match self {
            Self::Malformed(_) | Self::Size { .. } | Self::Content | Self::Number { .. } => {
                FleetReason::Content
            }
            Self::Signature { .. } => FleetReason::Signature,
            Self::RootExpired { .. } | Self::RootChain { .. } => FleetReason::Root,
            Self::Expired { .. } => FleetReason::Expired,
            Self::Replayed { .. } => FleetReason::Replayed,
            Self::Board(_) => FleetReason::Board,
            Self::Arch(_) => FleetReason::Arch,
            Self::Floor { .. } => FleetReason::Floor,
            Self::Failed(_) => FleetReason::Failed,
        }
    }
}
