//! Messages of an operator to a fleet: rollouts, commands, the time, and where the newest root is. All but the last are
//! signed.

use crate::codec::{self, Kind};
use crate::limits::{
    COMMAND_BYTES_MAX, MESSAGE_BYTES_MAX, PERMILLE_MAX, ROLLOUT_BYTES_MAX, SIGNED_DOCUMENT_BYTES_MAX,
    TIME_BYTES_MAX,
};
use crate::signed::{self, Signatures, SignedText};
use crate::topic::Topic;
use crate::{DecodeError, DeviceId, EncodeError, RingId};
use heapless::Vec;
use serde::{Deserialize, Serialize};

/// The SHA-256 of an object, which is its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectId(pub [u8; 32]);

/// The addressee of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RolloutScope {
    /// All devices of a ring.
    Ring(RingId),
    /// One device, which is pinned to a release.
    Device(DeviceId),
}

impl RolloutScope {
    /// The topic of its rollout.
    pub fn topic(&self) -> Topic {
        match self {
            Self::Ring(ring) => Topic::Ring(ring.clone()),
            Self::Device(device) => Topic::Pin(device.clone()),
        }
    }
}

/// The release that a ring or a device gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutFields {
    /// Its number, from one sequence for all rings and devices, never 0. An older one is a replay.
    pub number: u32,
    /// When it was signed, in Unix seconds.
    pub at: u64,
    /// Its end, in Unix seconds, after `at`.
    pub until: u64,
    /// The release, never 0.
    pub release: u32,
    /// The object of the signed release.
    pub object: ObjectId,
    /// Bytes of that object, never 0.
    pub size: u16,
    /// The part of the devices that start.
    pub permille: u16,
    /// Decides with a device's name which devices these are.
    pub salt: u32,
    /// True while no device may start or go on.
    pub paused: bool,
    /// Most bytes in a second that a device fetches; 0 for as many as it can.
    pub bytes_per_s: u32,
    /// Minutes after which a device gives up, never 0.
    pub deadline_min: u16,
}

/// A signed rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// The signed fields.
    pub fields: RolloutFields,
    /// By keys of the role `rollout`.
    pub signatures: Signatures,
}

/// The order of a [`BoardCommand`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandVerb {
    /// Report now.
    Report,
    /// Restart the agent.
    Restart,
    /// Restart the board.
    Reboot,
    /// Forget which releases failed, so that they may be tried again.
    Forget,
    /// Report the agent's newest line of log as the detail.
    Log,
}

/// A command to one board.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandFields {
    /// Its number for this board, never 0. One that is not above the last is a replay.
    pub number: u32,
    /// Its end, in Unix seconds.
    pub until: u64,
    /// The order.
    pub verb: CommandVerb,
}

/// A signed command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoardCommand {
    /// The signed fields.
    pub fields: CommandFields,
    /// By keys of the role `rollout`.
    pub signatures: Signatures,
}

/// The time, for boards without a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeFields {
    /// Unix seconds.
    pub at: u64,
    /// Its number, never 0.
    pub number: u32,
}

/// The signed time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetTime {
    /// The signed fields.
    pub fields: TimeFields,
    /// By keys of the role `rollout`.
    pub signatures: Signatures,
}

/// The newest root. Not signed: the object is, by the former root's keys and its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootNotice {
    /// Its version, never 0.
    pub version: u32,
    /// The object of the signed root.
    pub object: ObjectId,
    /// Bytes of that object, never 0.
    pub size: u16,
}

fn document_size(size: u16) -> Result<(), &'static str> {
    if (1..=SIGNED_DOCUMENT_BYTES_MAX).contains(&usize::from(size)) { Ok(()) } else { Err("size") }
}

impl RolloutFields {
    fn check(&self) -> Result<(), &'static str> {
        match self {
            Self { number: 0, .. } => Err("number"),
            Self { at, until, .. } if until <= at => Err("until"),
            Self { release: 0, .. } => Err("release"),
            Self { permille, .. } if *permille > PERMILLE_MAX => Err("permille"),
            Self { deadline_min: 0, .. } => Err("deadline_min"),
            Self { size, .. } => document_size(*size),
        }
    }

    /// The text that its signatures are of.
    ///
    /// # Errors
    /// Names the field that is outside its limits.
    pub fn signed_text(&self, scope: &RolloutScope) -> Result<SignedText, EncodeError> {
        self.check().map_err(EncodeError::OutOfRange)?;
        signed::text("dunlin rollout 1", &scope.topic(), self)
    }
}

impl CommandFields {
    fn check(&self) -> Result<(), &'static str> {
        if self.number == 0 { Err("number") } else { Ok(()) }
    }

    /// The text that its signatures are of.
    ///
    /// # Errors
    /// Names the field that is outside its limits.
    pub fn signed_text(&self, device: &DeviceId) -> Result<SignedText, EncodeError> {
        self.check().map_err(EncodeError::OutOfRange)?;
        signed::text("dunlin command 1", &Topic::Command(device.clone()), self)
    }
}

impl TimeFields {
    fn check(&self) -> Result<(), &'static str> {
        if self.number == 0 { Err("number") } else { Ok(()) }
    }

    /// The text that its signatures are of.
    ///
    /// # Errors
    /// Names the field that is outside its limits.
    pub fn signed_text(&self) -> Result<SignedText, EncodeError> {
        self.check().map_err(EncodeError::OutOfRange)?;
        signed::text("dunlin time 1", &Topic::Time, self)
    }
}

macro_rules! signed_message {
    ($name:ident, $fields:ident, $kind:ident, $limit:ident, $on:literal) => {
        impl $name {
            /// Encodes the message.
            ///
            /// # Errors
            /// Names the field that is outside its limits.
            pub fn encode(&self) -> Result<Vec<u8, $limit>, EncodeError> {
                self.fields.check().map_err(EncodeError::OutOfRange)?;
                signed::put(Kind::$kind, &self.fields, &self.signatures)
            }

            #[doc = concat!("Decodes a message from ", $on, ". Its signatures are not checked here.")]
            ///
            /// # Errors
            /// The bytes are malformed; see [`DecodeError`].
            pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
                let (fields, signatures): ($fields, _) = match codec::open(bytes)? {
                    (Kind::$kind, rest) => signed::take(rest)?,
                    (kind, _) => return Err(DecodeError::UnknownKind(kind as u8)),
                };
                fields.check().map_err(DecodeError::Impossible)?;
                Ok(Self { fields, signatures })
            }
        }
    };
}

signed_message!(
    Rollout,
    RolloutFields,
    Rollout,
    ROLLOUT_BYTES_MAX,
    "the topic of a ring or of a pinned device"
);
signed_message!(BoardCommand, CommandFields, Command, COMMAND_BYTES_MAX, "a command topic");
signed_message!(FleetTime, TimeFields, Time, TIME_BYTES_MAX, "the topic of the time");

impl RootNotice {
    /// Encodes the message.
    ///
    /// # Errors
    /// Names the field that is outside its limits.
    pub fn encode(&self) -> Result<Vec<u8, MESSAGE_BYTES_MAX>, EncodeError> {
        self.check().map_err(EncodeError::OutOfRange)?;
        codec::put(Kind::Root, self)
    }

    /// Decodes a message from the topic of the root.
    ///
    /// # Errors
    /// The bytes are malformed; see [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let notice: Self = match codec::open(bytes)? {
            (Kind::Root, rest) => codec::take_all(rest)?,
            (kind, _) => return Err(DecodeError::UnknownKind(kind as u8)),
        };
        notice.check().map_err(DecodeError::Impossible)?;
        Ok(notice)
    }

    fn check(&self) -> Result<(), &'static str> {
        if self.version == 0 { Err("version") } else { document_size(self.size) }
    }
}
