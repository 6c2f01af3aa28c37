//! Opening a session: a device's request, and the lease or refusal that answers it.

use crate::codec::{self, Kind};
use crate::digest::Digest;
use crate::id::VerifierId;
use crate::limits::{DRAFT_TOKENS_MAX, MESSAGE_BYTES_MAX, SESSION_TOKENS_MAX, VOCABULARY_SIZE_MAX};
use crate::{CouplingProfile, DecodeError, EncodeError, Price, Promise, TargetId};
use core::fmt;
use heapless::Vec;
use serde::{Deserialize, Serialize};

/// A model's tokens, or the first ones of them. Two models share a vocabulary if one's is the beginning of the other's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vocabulary {
    /// Number of tokens, up to the last one in use.
    pub size: u32,
    /// First 8 bytes of the SHA-256 over the byte length (u32, little-endian) and bytes of every token's string; an
    /// unused id counts as an empty string.
    pub fingerprint: [u8; 8],
}

impl fmt::Display for Vocabulary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tokens, ", self.size)?;
        self.fingerprint.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Sampling settings of the target; the verifier checks their ranges.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SamplingParams {
    /// Softmax temperature; 0 is greedy.
    pub temperature: f32,
    /// Nucleus mass, in (0, 1].
    pub top_p: f32,
    /// Number of most probable tokens kept; 0 keeps all.
    pub top_k: u32,
}

/// A device's request for a lease, to start a session or resume one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Open {
    /// The device's number for the session.
    pub session: u8,
    /// The epoch of the requested lease: one more than the last.
    pub epoch: u8,
    /// Random number drawn for each session; it distinguishes sessions from before and after a restart. The answer
    /// repeats it.
    pub nonce: u64,
    /// The session's seed: target, prompt, sampling and seed determine the text.
    pub seed: u64,
    /// Sampling settings of the target.
    pub sampling: SamplingParams,
    /// The device's vocabulary, or as many of its tokens as the verifier's has.
    pub vocabulary: Vocabulary,
    /// Length in tokens of the committed text.
    pub length: u32,
}

/// A verifier's promise to check the frames of one session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The device's number for the session.
    pub session: u8,
    /// The requested epoch.
    pub epoch: u8,
    /// The request's nonce.
    pub nonce: u64,
    /// The verifier; frames go to its topic.
    pub verifier: VerifierId,
    /// The target; its names are in the verifier's presence.
    pub target: TargetId,
    /// The target's promise.
    pub promise: Promise,
    /// The rule by which the target's choices are drawn.
    pub coupling: CouplingProfile,
    /// The price of the verifier's work.
    pub price: Price,
    /// Most drafted tokens that the verifier accepts in one frame.
    pub draft_tokens_max: u8,
    /// Most tokens that a frame's [`Credit`](crate::Credit) may request beyond its base; 0 if credit is not offered.
    pub credit_tokens_max: u16,
    /// Most tokens of the session's text.
    pub context_tokens_max: u32,
    /// Size of the target's vocabulary, at least the request's: the session's ids are below it, and it sets their width.
    pub vocabulary_size: u32,
    /// Length in tokens of the session's text that the verifier still has, at most the request's.
    pub length: u32,
    /// Digest of that text.
    pub digest: Digest,
}

/// The reason why a verifier refuses a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusalReason {
    /// The request's vocabulary is not the beginning of the target's, which is given.
    Vocabulary(Vocabulary),
    /// Temperature, top-p or top-k is outside its range.
    Sampling,
    /// The text is longer than the target's context, whose length is given.
    TooLong(u32),
    /// Every place is taken by a session that is being verified.
    Full,
    /// The verifier is going away.
    Draining,
}

/// The refusal of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The device's number for the session.
    pub session: u8,
    /// The requested epoch.
    pub epoch: u8,
    /// The request's nonce.
    pub nonce: u64,
    /// The reason.
    pub reason: RefusalReason,
}

/// The answer to an [`Open`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The lease is granted.
    Lease(Lease),
    /// The lease is refused.
    Refusal(Refusal),
}

impl Open {
    /// Encodes the request.
    ///
    /// # Errors
    /// Names the field that is outside its limits.
    pub fn encode(&self) -> Result<Vec<u8, MESSAGE_BYTES_MAX>, EncodeError> {
        self.check().map_err(EncodeError::OutOfRange)?;
        codec::put(Kind::Open, self)
    }

    /// Decodes a message from an open topic.
    ///
    /// # Errors
    /// The bytes are malformed; see [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let open: Self = match codec::open(bytes)? {
            (Kind::Open, rest) => codec::take_all(rest)?,
            (kind, _) => return Err(DecodeError::UnknownKind(kind as u8)),
        };
        open.check().map_err(DecodeError::Impossible)?;
        Ok(open)
    }

    fn check(&self) -> Result<(), &'static str> {
        check_vocabulary(&self.vocabulary)?;
        if self.length > SESSION_TOKENS_MAX { Err("length") } else { Ok(()) }
    }
}

impl Reply {
    /// Encodes the answer.
    ///
    /// # Errors
    /// Names the field that is outside its limits.
    pub fn encode(&self) -> Result<Vec<u8, MESSAGE_BYTES_MAX>, EncodeError> {
        self.check().map_err(EncodeError::OutOfRange)?;
        match self {
            Self::Lease(lease) => codec::put(Kind::Lease, lease),
            Self::Refusal(refusal) => codec::put(Kind::Refusal, refusal),
        }
    }

    /// Decodes a message from a reply topic.
    ///
    /// # Errors
    /// The bytes are malformed; see [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let reply = match codec::open(bytes)? {
            (Kind::Lease, rest) => Self::Lease(codec::take_all(rest)?),
            (Kind::Refusal, rest) => Self::Refusal(codec::take_all(rest)?),
            (kind, _) => return Err(DecodeError::UnknownKind(kind as u8)),
        };
        reply.check().map_err(DecodeError::Impossible)?;
        Ok(reply)
    }

    fn check(&self) -> Result<(), &'static str> {
        match self {
            Self::Lease(l) if l.length > SESSION_TOKENS_MAX => Err("length"),
            Self::Lease(l) if l.context_tokens_max > SESSION_TOKENS_MAX => Err("context_tokens_max"),
            Self::Lease(l) if !(1..=VOCABULARY_SIZE_MAX).contains(&l.vocabulary_size) => {
                Err("vocabulary_size")
            }
            Self::Lease(l) if !(1..=DRAFT_TOKENS_MAX).contains(&l.draft_tokens_max.into()) => {
                Err("draft_tokens_max")
            }
            Self::Refusal(Refusal { reason: RefusalReason::Vocabulary(v), .. }) => check_vocabulary(v),
            _ => Ok(()),
        }
    }
}

pub(crate) fn check_vocabulary(vocabulary: &Vocabulary) -> Result<(), &'static str> {
    if (1..=VOCABULARY_SIZE_MAX).contains(&vocabulary.size) { Ok(()) } else { Err("vocabulary") }
}
