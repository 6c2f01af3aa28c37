//! Names of devices, services and rings: `[a-z0-9-]{1,32}`, so that a name is exactly one topic level.

use crate::limits::ID_BYTES_MAX;
use core::{fmt, str::FromStr};
use heapless::String;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A text that is not an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum IdError {
    /// No characters, or more than [`ID_BYTES_MAX`].
    #[error("an id has 1 to 32 characters")]
    Length,
    /// A character outside `[a-z0-9-]`.
    #[error("an id has only the characters a-z, 0-9 and '-'")]
    Character,
    /// A name that has another meaning in the same place of a topic.
    #[error("this name is the protocol's own: choose another one")]
    Reserved,
}

fn checked(text: &str, reserved: &[&str]) -> Result<String<ID_BYTES_MAX>, IdError> {
    if reserved.contains(&text) {
        return Err(IdError::Reserved);
    }
    if text.is_empty() || text.len() > ID_BYTES_MAX {
        return Err(IdError::Length);
    }
    if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        return Err(IdError::Character);
    }
    String::try_from(text).map_err(|_| IdError::Length)
}

macro_rules! id {
    ($name:ident, $doc:literal) => {
        id!($name, $doc, []);
    };
    ($name:ident, $doc:literal, $reserved:expr) => {
        #[doc = $doc]
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String<ID_BYTES_MAX>", into = "String<ID_BYTES_MAX>")]
        pub struct $name(String<ID_BYTES_MAX>);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                checked(text, &$reserved).map(Self)
            }
        }

        impl TryFrom<String<ID_BYTES_MAX>> for $name {
            type Error = IdError;
            fn try_from(text: String<ID_BYTES_MAX>) -> Result<Self, IdError> {
                checked(&text, &$reserved).map(Self)
            }
        }

        impl From<$name> for String<ID_BYTES_MAX> {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(DeviceId, "The name of a device: the common name of its certificate where it has one.");
id!(VerifierId, "The name of a verifier.");
id!(StoreId, "The name of a store of updates.");
id!(RingId, "The name of a ring: devices that get the same releases.", ["root"]);
id!(EnrolTokenId, "The public name of an enrolment token.");
id!(BoardId, "The name of a kind of board, such as `rpi4`.");
