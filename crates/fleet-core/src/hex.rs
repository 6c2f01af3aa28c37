//! 32 bytes as 64 hexadecimal digits: hashes and public keys in documents and file names.

use dunlin_wire::ObjectId;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

/// A text that is not 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("64 digits of 0-9 and a-f are expected")]
pub struct HexError;

/// The digits of bytes, in lower case.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of 64 digits in lower case.
///
/// # Errors
/// The text is anything else.
pub fn parse_hex(text: &str) -> Result<[u8; 32], HexError> {
    let digits = text.as_bytes();
    if digits.len() != 64 || !digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(HexError);
    }
    let mut bytes = [0; 32];
    for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| HexError)?;
    }
    Ok(bytes)
}

pub(crate) fn serialize<S: Serializer>(id: &ObjectId, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&hex(&id.0))
}

pub(crate) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<ObjectId, D::Error> {
    parse_hex(&String::deserialize(from)?).map(ObjectId).map_err(D::Error::custom)
}
