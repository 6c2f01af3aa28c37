//! Who is there: retained messages of devices and verifiers.

use crate::codec::{self, Kind};
use crate::limits::{ENGINE_NAME_BYTES_MAX, MESSAGE_BYTES_MAX, MODEL_NAME_BYTES_MAX};
use crate::session::{Vocabulary, check_vocabulary};
use crate::{CouplingProfile, DecodeError, EncodeError, Price, Promise, TargetId};
use heapless::{String, Vec};
use serde::{Deserialize, Serialize};

/// A model's name in a presence message.
pub type ModelName = String<MODEL_NAME_BYTES_MAX>;
/// An engine's name, or that of its numerics, in a presence message.
pub type EngineName = String<ENGINE_NAME_BYTES_MAX>;

/// A name as far as there is room for it, cut between characters.
pub fn fitting_name<const N: usize>(name: &str) -> String<N> {
    let mut short = String::new();
    // The first character without room ends it.
    let _ = name.chars().try_for_each(|letter| short.push(letter));
    short
}

/// Whether a peer is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Liveness {
    /// Connected.
    Here,
    /// Said goodbye.
    Left,
    /// The broker lost it: sent as its Will.
    Lost,
}

/// A device's presence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DevicePresence {
    /// Counts the connections: a `Lost` of an older one means nothing.
    pub generation: u32,
    /// Whether it is there.
    pub liveness: Liveness,
}

/// A verifier's presence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifierPresence {
    /// Counts the connections: a `Lost` of an older one means nothing.
    pub generation: u32,
    /// Whether it is there.
    pub liveness: Liveness,
    /// The target's vocabulary.
    pub vocabulary: Vocabulary,
    /// The target's identity.
    pub target: TargetId,
    /// What the target promises.
    pub promise: Promise,
    /// How the target's choices are drawn.
    pub coupling: CouplingProfile,
    /// The target's name.
    pub model: ModelName,
    /// The engine that runs the target.
    pub engine: EngineName,
    /// The kernels and the cache type that its bits depend on.
    pub numerics: EngineName,
    /// What the verifier's time costs.
    pub price: Price,
    /// Sessions it holds, in 255ths of those it can.
    pub load: u8,
    /// True while it finishes what it has and takes no new session.
    pub draining: bool,
}

impl DevicePresence {
    /// The message as bytes.
    ///
    /// # Errors
    /// None in practice: the message has a size below the limit.
    pub fn encode(&self) -> Result<Vec<u8, MESSAGE_BYTES_MAX>, EncodeError> {
        codec::put(Kind::DevicePresence, self)
    }

    /// Decodes a message that came on a device's presence topic.
    ///
    /// # Errors
    /// Says what is wrong with the bytes; see [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        match codec::open(bytes)? {
            (Kind::DevicePresence, rest) => codec::take_all(rest),
            (kind, _) => Err(DecodeError::UnknownKind(kind as u8)),
        }
    }
}

impl VerifierPresence {
    /// The message as bytes.
    ///
    /// # Errors
    /// Names the field that is outside its limits.
    pub fn encode(&self) -> Result<Vec<u8, MESSAGE_BYTES_MAX>, EncodeError> {
        check_vocabulary(&self.vocabulary).map_err(EncodeError::OutOfRange)?;
        codec::put(Kind::VerifierPresence, self)
    }

    /// Decodes a message that came on a verifier's presence topic.
    ///
    /// # Errors
    /// Says what is wrong with the bytes; see [`DecodeError`].
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
