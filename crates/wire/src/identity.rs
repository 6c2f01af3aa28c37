//! Names at the broker: a device has the name of its certificate, and a service has a dot in its name.
//!
//! A broker has one space of names. With the dot, no device can be named like a service and so get its rights.

use crate::{DeviceId, IdError};
use core::{fmt, str::FromStr};
use thiserror::Error;

/// The role of whoever connects to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BrokerRole {
    /// A board.
    Device,
    /// `v.<id>`: a verifier.
    Verifier,
    /// `o.<id>`: a person who runs the fleet.
    Operator,
    /// `s.<id>`: a store of updates.
    Store,
    /// `w.<id>`: a program that only reads.
    Watcher,
    /// `e.<id>`: a board that asks for its first certificate.
    Enrolment,
}

impl BrokerRole {
    /// All roles, in the order of the table in `docs/access.md`.
    pub const ALL: [Self; 6] =
        [Self::Device, Self::Verifier, Self::Operator, Self::Store, Self::Watcher, Self::Enrolment];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Verifier => "verifier",
            Self::Operator => "operator",
            Self::Store => "store",
            Self::Watcher => "watcher",
            Self::Enrolment => "enrolment",
        }
    }

    /// The letter before the dot of a service's name; `None` for devices.
    pub const fn letter(self) -> Option<char> {
        match self {
            Self::Device => None,
            Self::Verifier => Some('v'),
            Self::Operator => Some('o'),
            Self::Store => Some('s'),
            Self::Watcher => Some('w'),
            Self::Enrolment => Some('e'),
        }
    }
}

/// A text that is not a name at the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RoleNameError {
    /// The part before the dot is not the letter of a role.
    #[error("before the dot of a service's name stands v, o, s, w or e")]
    Role,
    /// A device's name, or the part behind the dot, is not an id.
    #[error(transparent)]
    Id(#[from] IdError),
}

/// A name at the broker, displayed as the common name of its certificate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// The role.
    pub role: BrokerRole,
    /// The name without the role.
    pub id: DeviceId,
}

impl FromStr for Identity {
    type Err = RoleNameError;

    fn from_str(text: &str) -> Result<Self, RoleNameError> {
        let Some((letter, id)) = text.split_once('.') else {
            return Ok(Self { role: BrokerRole::Device, id: text.parse()? });
        };
        let mut letters = letter.chars();
        let first = letters.next().filter(|_| letters.next().is_none()).ok_or(RoleNameError::Role)?;
        let role = BrokerRole::ALL.into_iter().find(|role| role.letter() == Some(first));
        Ok(Self { role: role.ok_or(RoleNameError::Role)?, id: id.parse()? })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.role.letter() {
            Some(letter) => write!(f, "{letter}.{}", self.id),
            None => write!(f, "{}", self.id),
        }
    }
}
