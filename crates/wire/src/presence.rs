//! Presence: retained messages that tell which devices and verifiers are online.

use crate::codec::{self, Kind};
use crate::limits::{ENGINE_NAME_BYTES_MAX, MESSAGE_BYTES_MAX, MODEL_NAME_BYTES_MAX};
use crate::session::{Vocabulary, check_vocabulary};
use crate::{CouplingProfile, DecodeError, EncodeError, Price, Promise, TargetId};
use heapless::{String, Vec};
use serde::{Deserialize, Serialize};

/// A model's name in a presence message.
pub type ModelName = String<MODEL_NAME_BYTES_MAX>;
/// The name of an engine or of its numerics in a presence message.
pub type EngineName = String<ENGINE_NAME_BYTES_MAX>;

/// A name truncated to `N` bytes at a character boundary.
pub fn fitting_name<const N: usize>(name: &str) -> String<N> {
    let mut short = String::new();
    // The name ends before the first character that doesn't fit.
    let _ = name.chars().try_for_each(|letter| short.push(letter));
    short
}

/// The connection state of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Liveness {
    /// Connected.
    Here,
    /// Disconnected in order.
    Left,
    /// Lost by the broker, which sends this as the peer's MQTT Will.
    Lost,
}

/// A device's presence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DevicePresence {
    /// Count of the connections; a `Lost` of an older one is ignored.
    pub generation: u32,
    /// Its connection state.
    pub liveness: Liveness,
}

/// A verifier's presence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifierPresence {
    /// Count of the connections; a `Lost` of an older one is ignored.
    pub generation: u32,
    /// Its connection state.
    pub liveness: Liveness,
    /// The target's vocabulary.
    pub vocabulary: Vocabulary,
    /// The target's identity.
    pub target: TargetId,
    /// The target's promise.
    pub promise: Promise,
    /// The rule by which the target's choices are drawn.
    pub coupling: CouplingProfile,
    /// The target's name.
    pub model: ModelName,
    /// The engine that runs the target.
    pub engine: EngineName,
    /// The kernels and the cache type that determine its exact bits.
    pub numerics: EngineName,
    /// The price of the verifier's work.
    pub price: Price,
    /// Its number of sessions relative to its maximum, rounded down to eighths and scaled to 0..=255.
    pub load: u8,
    /// True while it finishes its sessions and accepts no new one.
    pub draining: bool,
}

impl DevicePresence {
    /// Encodes the message.
    ///
    /// # Errors
    /// None in practice: the message's size is below the limit.
    pub fn encode(&self) -> Result<Vec<u8, MESSAGE_BYTES_MAX>, EncodeError> {
        codec::put(Kind::DevicePresence, self)
    }

    /// Decodes a message from a device's presence topic.
    ///
    /// # Errors
    /// The bytes are malformed; see [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        match codec::open(bytes)? {
            (Kind::DevicePresence, rest) => codec::take_all(rest),
            (kind, _) => Err(DecodeError::UnknownKind(kind as u8)),
        }
    }
}

impl VerifierPresence {
    /// Encodes the message.
    ///
    /// # Errors
    /// Names the field that is outside its limits.
    pub fn encode(&self) -> Result<Vec<u8, MESSAGE_BYTES_MAX>, EncodeError> {
        check_vocabulary(&self.vocabulary).map_err(EncodeError::OutOfRange)?;
        codec::put(Kind::VerifierPresence, self)
    }

    /// Decodes a message from a verifier's presence topic.
    ///
    /// # Errors
    /// The bytes are malformed; see [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let presence: Self = match codec::open(bytes)? {
            (Kind::VerifierPresence, rest) => codec::take_all(rest)?,
            (kind, _) => return Err(DecodeError::UnknownKind(kind as u8)),
        };
        check_vocabulary(&presence.vocabulary).map_err(DecodeError::Impossible)?;
        Ok(presence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_cut_between_characters() {
        assert_eq!(fitting_name::<64>(&"é".repeat(40)).as_str(), "é".repeat(32));
        assert_eq!(fitting_name::<5>("aéé€b").as_str(), "aéé");
        assert_eq!(fitting_name::<64>("short").as_str(), "short");
    }
}
