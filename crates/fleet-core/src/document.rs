//! Signed documents and the keys that sign them.
//!
//! A signed document is a file: the signatures as in a message (their number, then each one with its key), and the text
//! behind them. The signatures are of the purpose, which ends with a zero byte, and the text.

use crate::hash::{object_id, sha256};
use crate::rejection::Rejection;
use dunlin_wire::limits::{DOCUMENT_BYTES_MAX, SIGNATURE_ENTRY_BYTES, SIGNATURES_MAX};
use dunlin_wire::{
    BoardCommand, CommandFields, DeviceId, EncodeError, FleetTime, KeyId, ObjectId, Rollout, RolloutFields,
    RolloutScope, Signature, Signatures, TimeFields, put_signatures, take_signatures,
};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

/// An Ed25519 public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// Its short name.
    pub fn id(&self) -> KeyId {
        let mut id = KeyId([0; 8]);
        id.0.copy_from_slice(&sha256(&self.0)[..8]);
        id
    }

    pub(crate) fn verifies(&self, text: &[u8], signature: &Signature) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(text, &signature.bytes).is_ok()
    }
}

/// An Ed25519 key pair.
pub struct SigningKey(Ed25519KeyPair);

/// Bytes that are not an Ed25519 key pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not an Ed25519 key (PKCS#8)")]
pub struct KeyError;

/// Signatures that can't be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// No key, or too many.
    #[error("{0} keys were given; a document has 1 to {SIGNATURES_MAX} signatures")]
    Keys(usize),
    /// The same key twice.
    #[error("the same key was given twice")]
    Twice,
    /// A message that is outside its limits.
    #[error(transparent)]
    Message(#[from] EncodeError),
    /// A text that is too long.
    #[error("the document has {0} bytes; {DOCUMENT_BYTES_MAX} is the limit")]
    Length(usize),
}

impl SigningKey {
    /// The key pair of a PKCS#8 document, as in a fleet's `release.key`.
    ///
    /// # Errors
    /// The bytes are anything else.
    pub fn from_pkcs8(bytes: &[u8]) -> Result<Self, KeyError> {
        Ed25519KeyPair::from_pkcs8(bytes).map(Self).map_err(|_| KeyError)
    }

    /// The key pair of a seed.
    ///
    /// # Errors
    /// The seed has no 32 bytes.
    pub fn from_seed(seed: &[u8]) -> Result<Self, KeyError> {
        Ed25519KeyPair::from_seed_unchecked(seed).map(Self).map_err(|_| KeyError)
    }

    /// Its public key.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.public_key().as_ref().try_into().expect("an Ed25519 public key has 32 bytes"))
    }

    fn sign(&self, text: &[u8]) -> Signature {
        let bytes = self.0.sign(text).as_ref().try_into().expect("an Ed25519 signature has 64 bytes");
        Signature { key: self.public().id(), bytes }
    }
}

/// Signatures of a text by all of the keys.
fn signatures(text: &[u8], keys: &[&SigningKey]) -> Result<Signatures, SignError> {
    let mut made: Vec<Signature> = keys.iter().map(|key| key.sign(text)).collect();
    made.sort_by_key(|signature| signature.key);
    if made.windows(2).any(|pair| pair[0].key == pair[1].key) {
        return Err(SignError::Twice);
    }
    Signatures::from_slice(&made).ok().filter(|made| !made.is_empty()).ok_or(SignError::Keys(keys.len()))
}

/// A rollout for a ring or a device, signed.
///
/// # Errors
/// A field is outside its limits, or the keys are not 1 to 3 different ones.
pub fn sign_rollout(
    fields: RolloutFields,
    scope: &RolloutScope,
    keys: &[&SigningKey],
) -> Result<Rollout, SignError> {
    let signatures = signatures(&fields.signed_text(scope)?, keys)?;
    Ok(Rollout { fields, signatures })
}

/// A command for a device, signed.
///
/// # Errors
/// A field is outside its limits, or the keys are not 1 to 3 different ones.
pub fn sign_command(
    fields: CommandFields,
    device: &DeviceId,
    keys: &[&SigningKey],
) -> Result<BoardCommand, SignError> {
    let signatures = signatures(&fields.signed_text(device)?, keys)?;
    Ok(BoardCommand { fields, signatures })
}

/// The time, signed.
///
/// # Errors
/// A field is outside its limits, or the keys are not 1 to 3 different ones.
pub fn sign_time(fields: TimeFields, keys: &[&SigningKey]) -> Result<FleetTime, SignError> {
    let signatures = signatures(&fields.signed_text()?, keys)?;
    Ok(FleetTime { fields, signatures })
}

/// The purpose of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// `release.toml`.
    Release,
    /// `root.toml`.
    Root,
}

impl Purpose {
    fn prefix(self) -> &'static [u8] {
        match self {
            Self::Release => b"dunlin release 1\0",
            Self::Root => b"dunlin root 1\0",
        }
    }

    pub(crate) fn text(self, text: &str) -> Vec<u8> {
        [self.prefix(), text.as_bytes()].concat()
    }
}

/// A document with its signatures, not verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedDocument {
    /// The document.
    pub text: String,
    /// Its signatures.
    pub signatures: Signatures,
}

impl SignedDocument {
    /// A document signed by all of the keys.
    ///
    /// # Errors
    /// The text is too long, or the keys are not 1 to 3 different ones.
    pub fn sign(purpose: Purpose, text: String, keys: &[&SigningKey]) -> Result<Self, SignError> {
        if text.len() > DOCUMENT_BYTES_MAX {
            return Err(SignError::Length(text.len()));
        }
        let signatures = signatures(&purpose.text(&text), keys)?;
        Ok(Self { text, signatures })
    }

    /// The same document with the signatures of both.
    ///
    /// # Errors
    /// The documents differ, or there are too many signatures.
    pub fn joined(&self, other: &Self) -> Result<Self, SignError> {
        let mut all: Vec<Signature> = self.signatures.iter().chain(&other.signatures).copied().collect();
        all.sort_by_key(|signature| signature.key);
        all.dedup_by_key(|signature| signature.key);
        let signatures = Signatures::from_slice(&all).ok().filter(|_| self.text == other.text);
        Ok(Self { text: self.text.clone(), signatures: signatures.ok_or(SignError::Keys(all.len()))? })
    }

    /// The file.
    pub fn encode(&self) -> Vec<u8> {
        let head = put_signatures(&self.signatures).expect("a document has 1 to 3 ascending signatures");
        [&head, self.text.as_bytes()].concat()
    }

    /// The document of a file.
    ///
    /// # Errors
    /// It is too long, has no signatures, or is not text.
    pub fn decode(bytes: &[u8]) -> Result<Self, Rejection> {
        let malformed = |what: &str| Rejection::Malformed(format!("the signed document {what}"));
        let count = usize::from(*bytes.first().ok_or_else(|| malformed("is empty"))?);
        let head = bytes.split_at_checked(1 + count * SIGNATURE_ENTRY_BYTES);
        let (head, text) = head.ok_or_else(|| malformed("ends early"))?;
        let signatures = take_signatures(head).map_err(|error| malformed(&format!("is damaged: {error}")))?;
        if text.len() > DOCUMENT_BYTES_MAX {
            return Err(malformed(&format!("has more than {DOCUMENT_BYTES_MAX} bytes")));
        }
        let text = std::str::from_utf8(text).map_err(|_| malformed("is not text"))?;
        Ok(Self { text: text.to_owned(), signatures })
    }

    /// Its name as an object.
    pub fn id(&self) -> ObjectId {
        object_id(&self.encode())
    }
}
