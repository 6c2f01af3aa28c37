//! Signatures of messages: they are of the purpose, the topic and the fields, so that none holds for anything else.

use crate::codec::{self, Kind};
use crate::limits::{SIGNATURES_BYTES_MAX, SIGNATURES_MAX, SIGNED_TEXT_BYTES_MAX};
use crate::topic::Topic;
use crate::{DecodeError, EncodeError};
use heapless::Vec;
use serde::{Deserialize, Serialize};

/// The bytes that the signatures of a message are of.
pub type SignedText = Vec<u8, SIGNED_TEXT_BYTES_MAX>;
/// Encoded signatures.
pub type SignatureBytes = Vec<u8, SIGNATURES_BYTES_MAX>;
/// The signatures of a message or a document: at least one, by ascending keys.
pub type Signatures = Vec<Signature, SIGNATURES_MAX>;

/// The short name of a public key: the first bytes of its SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeyId(pub [u8; 8]);

/// An Ed25519 signature and the key that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(KeyId, [u8; 32], [u8; 32])", into = "(KeyId, [u8; 32], [u8; 32])")]
pub struct Signature {
    /// The key.
    pub key: KeyId,
    /// The signature.
    pub bytes: [u8; 64],
}

impl From<(KeyId, [u8; 32], [u8; 32])> for Signature {
    fn from((key, low, high): (KeyId, [u8; 32], [u8; 32])) -> Self {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&low);
        bytes[32..].copy_from_slice(&high);
        Self { key, bytes }
    }
}

impl From<Signature> for (KeyId, [u8; 32], [u8; 32]) {
    fn from(signature: Signature) -> Self {
        let (mut low, mut high) = ([0; 32], [0; 32]);
        low.copy_from_slice(&signature.bytes[..32]);
        high.copy_from_slice(&signature.bytes[32..]);
        (signature.key, low, high)
    }
}

/// The bytes of signatures: their number, and each one with its key.
///
/// # Errors
/// No signature, or keys that don't ascend.
pub fn put_signatures(signatures: &Signatures) -> Result<SignatureBytes, EncodeError> {
    check(signatures).map_err(EncodeError::OutOfRange)?;
    let mut bytes = SignatureBytes::new();
    bytes.push(signatures.len() as u8).map_err(|_| EncodeError::NoRoom)?;
    signatures.iter().try_for_each(|signature| codec::append(&mut bytes, signature))?;
    Ok(bytes)
}

/// Reads signatures that end the bytes.
///
/// # Errors
/// The bytes are malformed; see [`DecodeError`].
pub fn take_signatures(bytes: &[u8]) -> Result<Signatures, DecodeError> {
    let (&count, mut bytes) = bytes.split_first().ok_or(DecodeError::Truncated)?;
    if !(1..=SIGNATURES_MAX).contains(&usize::from(count)) {
        return Err(DecodeError::Impossible("signatures"));
    }
    let mut signatures = Signatures::new();
    for _ in 0..count {
        let (signature, behind) = codec::take(bytes)?;
        signatures.push(signature).map_err(|_| DecodeError::Impossible("signatures"))?;
        bytes = behind;
    }
    if !bytes.is_empty() {
        return Err(DecodeError::Trailing);
    }
    check(&signatures).map_err(DecodeError::Impossible)?;
    Ok(signatures)
}

fn check(signatures: &Signatures) -> Result<(), &'static str> {
    let ascending = signatures.is_sorted_by(|one, next| one.key < next.key);
    if signatures.is_empty() || !ascending { Err("signatures") } else { Ok(()) }
}

/// The text that signatures of a message are of.
pub(crate) fn text<H: Serialize>(
    purpose: &str,
    addressee: &Topic,
    fields: &H,
) -> Result<SignedText, EncodeError> {
    let mut text = SignedText::new();
    for part in [purpose.as_bytes(), &[0], addressee.name().as_bytes(), &[0]] {
        text.extend_from_slice(part).map_err(|_| EncodeError::NoRoom)?;
    }
    codec::append(&mut text, fields)?;
    Ok(text)
}

/// A message of fields and signatures.
pub(crate) fn put<H: Serialize, const N: usize>(
    kind: Kind,
    fields: &H,
    signatures: &Signatures,
) -> Result<Vec<u8, N>, EncodeError> {
    let mut bytes: Vec<u8, N> = codec::put(kind, fields)?;
    bytes.extend_from_slice(&put_signatures(signatures)?).map_err(|_| EncodeError::NoRoom)?;
    Ok(bytes)
}

/// The fields and signatures of a message behind its kind.
pub(crate) fn take<'a, H>(bytes: &'a [u8]) -> Result<(H, Signatures), DecodeError>
where
    H: Serialize + Deserialize<'a>,
{
    let (fields, tail) = codec::take(bytes)?;
    Ok((fields, take_signatures(tail)?))
}
