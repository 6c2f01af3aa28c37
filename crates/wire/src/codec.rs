//! The start of a message: one or two bytes for version and kind, then a postcard header.

use crate::limits::{
    ANNOTATED_BYTES_MAX, BLOCK_MESSAGE_BYTES_MAX, CERTIFICATE_BYTES_MAX, CODES_BYTES_MAX, COMMAND_BYTES_MAX,
    CONTEXT_BYTES_MAX, DRAFT_BYTES_MAX, ENERGY_BYTES_MAX, ENROL_BYTES_MAX, FLEET_BYTES_MAX,
    MESSAGE_BYTES_MAX, ROLLOUT_BYTES_MAX, SETUP_BYTES_MAX, TELEMETRY_BYTES_MAX, TIME_BYTES_MAX,
    WANTED_BYTES_MAX,
};
use crate::{DecodeError, EncodeError};
use heapless::Vec;
use serde::{Deserialize, Serialize};

/// The protocol version of this build, in the high nibble of a message's first byte.
pub const VERSION: u8 = 1;

/// Largest header of any message: the size of the buffer that checks the canonical form.
const HEADER_BYTES_MAX: usize = FLEET_BYTES_MAX;
const _: () = assert!(HEADER_BYTES_MAX >= MESSAGE_BYTES_MAX && HEADER_BYTES_MAX >= ENERGY_BYTES_MAX);

/// The low nibble that marks an extended kind: kinds from 16 on are in the next byte.
const EXTENDED: u8 = 15;

/// The kind of a message: the low nibble of the first byte, or for kinds from 16 on the byte after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Draft = 1,
    Context = 2,
    Close = 3,
    Verdict = 4,
    Resync = 5,
    Closed = 6,
    Open = 7,
    Lease = 8,
    Refusal = 9,
    DevicePresence = 10,
    VerifierPresence = 11,
    Annotated = 12,
    Codes = 13,
    Audited = 14,
    Energy = 16,
    Telemetry = 17,
    Setup = 18,
    Continuation = 19,
    Working = 20,
    Fleet = 21,
    Rollout = 22,
    Wanted = 23,
    Block = 24,
    Command = 25,
    Time = 26,
    Enrol = 27,
    Certificate = 28,
    StorePresence = 29,
    Root = 30,
}

impl Kind {
    const ALL: [Self; 29] = [
        Self::Draft,
        Self::Context,
        Self::Close,
        Self::Verdict,
        Self::Resync,
        Self::Closed,
        Self::Open,
        Self::Lease,
        Self::Refusal,
        Self::DevicePresence,
        Self::VerifierPresence,
        Self::Annotated,
        Self::Codes,
        Self::Audited,
        Self::Energy,
        Self::Telemetry,
        Self::Setup,
        Self::Continuation,
        Self::Working,
        Self::Fleet,
        Self::Rollout,
        Self::Wanted,
        Self::Block,
        Self::Command,
        Self::Time,
        Self::Enrol,
        Self::Certificate,
        Self::StorePresence,
        Self::Root,
    ];

    /// The first byte, and for an extended kind the second.
    fn bytes(self) -> (u8, Option<u8>) {
        let kind = self as u8;
        if kind < EXTENDED { (VERSION << 4 | kind, None) } else { (VERSION << 4 | EXTENDED, Some(kind)) }
    }

    fn bytes_max(self) -> usize {
        match self {
            Self::Draft => DRAFT_BYTES_MAX,
            Self::Context => CONTEXT_BYTES_MAX,
            Self::Annotated => ANNOTATED_BYTES_MAX,
            Self::Codes => CODES_BYTES_MAX,
            Self::Energy => ENERGY_BYTES_MAX,
            Self::Telemetry => TELEMETRY_BYTES_MAX,
            Self::Setup => SETUP_BYTES_MAX,
            Self::Fleet => FLEET_BYTES_MAX,
            Self::Rollout => ROLLOUT_BYTES_MAX,
            Self::Wanted => WANTED_BYTES_MAX,
            Self::Block => BLOCK_MESSAGE_BYTES_MAX,
            Self::Command => COMMAND_BYTES_MAX,
            Self::Time => TIME_BYTES_MAX,
            Self::Enrol => ENROL_BYTES_MAX,
            Self::Certificate => CERTIFICATE_BYTES_MAX,
            _ => MESSAGE_BYTES_MAX,
        }
    }
}

/// Splits off the first one or two bytes and checks version, kind and size.
pub(crate) fn open(bytes: &[u8]) -> Result<(Kind, &[u8]), DecodeError> {
    let (&first, rest) = bytes.split_first().ok_or(DecodeError::Empty)?;
    let (found, ours) = (first >> 4, VERSION);
    if found > ours {
        return Err(DecodeError::NewerVersion { found, ours });
    }
    if found < ours {
        return Err(DecodeError::OlderVersion { found, ours });
    }
    let (number, rest) = number(first & 0x0f, rest)?;
    let kind = Kind::ALL.into_iter().find(|kind| *kind as u8 == number);
    let kind = kind.ok_or(DecodeError::UnknownKind(number))?;
    let (found, limit) = (bytes.len(), kind.bytes_max());
    if found > limit { Err(DecodeError::Oversize { found, limit }) } else { Ok((kind, rest)) }
}

/// The number of the kind, from the nibble or the byte after it, and the remaining bytes.
fn number(nibble: u8, rest: &[u8]) -> Result<(u8, &[u8]), DecodeError> {
    if nibble != EXTENDED {
        return Ok((nibble, rest));
    }
    let (&number, rest) = rest.split_first().ok_or(DecodeError::Truncated)?;
    if number > EXTENDED { Ok((number, rest)) } else { Err(DecodeError::NotCanonical) }
}

/// Reads a postcard header and returns the bytes behind it; refuses a header that is not in its shortest form.
pub(crate) fn take<'a, H>(bytes: &'a [u8]) -> Result<(H, &'a [u8]), DecodeError>
where
    H: Serialize + Deserialize<'a>,
{
    let (header, rest) = postcard::take_from_bytes::<H>(bytes).map_err(from_postcard)?;
    let used = &bytes[..bytes.len() - rest.len()];
    let mut scratch = [0; HEADER_BYTES_MAX];
    match postcard::to_slice(&header, &mut scratch) {
        Ok(canonical) if canonical == used => Ok((header, rest)),
        _ => Err(DecodeError::NotCanonical),
    }
}

/// Reads a message that consists of a header only.
pub(crate) fn take_all<'a, H>(bytes: &'a [u8]) -> Result<H, DecodeError>
where
    H: Serialize + Deserialize<'a>,
{
    match take(bytes)? {
        (header, []) => Ok(header),
        _ => Err(DecodeError::Trailing),
    }
}

/// Splits off exactly `length` bytes, then those behind them.
pub(crate) fn split(bytes: &[u8], length: usize) -> Result<(&[u8], &[u8]), DecodeError> {
    bytes.split_at_checked(length).ok_or(DecodeError::Truncated)
}

/// Splits off the rest of a message, which has exactly `length` bytes.
pub(crate) fn rest(bytes: &[u8], length: usize) -> Result<&[u8], DecodeError> {
    match split(bytes, length)? {
        (whole, []) => Ok(whole),
        _ => Err(DecodeError::Trailing),
    }
}

/// Writes the first one or two bytes and the postcard header into a vector with room for a tail.
pub(crate) fn put<H: Serialize, const N: usize>(kind: Kind, header: &H) -> Result<Vec<u8, N>, EncodeError> {
    let mut bytes = Vec::new();
    let (first, second) = kind.bytes();
    for byte in [first].into_iter().chain(second) {
        bytes.push(byte).map_err(|_| EncodeError::NoRoom)?;
    }
    append(&mut bytes, header)?;
    Ok(bytes)
}

/// Appends a postcard header.
pub(crate) fn append<H: Serialize, const N: usize>(
    bytes: &mut Vec<u8, N>,
    header: &H,
) -> Result<(), EncodeError> {
    let mut scratch = [0; HEADER_BYTES_MAX];
    let header = postcard::to_slice(header, &mut scratch).map_err(|_| EncodeError::NoRoom)?;
    bytes.extend_from_slice(header).map_err(|_| EncodeError::NoRoom)
}

fn from_postcard(error: postcard::Error) -> DecodeError {
    match error {
        postcard::Error::DeserializeUnexpectedEnd => DecodeError::Truncated,
        postcard::Error::DeserializeBadVarint => DecodeError::Impossible("number"),
        postcard::Error::DeserializeBadBool => DecodeError::Impossible("flag"),
        postcard::Error::DeserializeBadOption => DecodeError::Impossible("option"),
        // Ids, names and enums: postcard drops the details of serde's error.
        _ => DecodeError::Impossible("text or choice"),
    }
}
