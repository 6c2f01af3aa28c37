//! Opening a session: what a device asks for, and the lease or refusal it gets.

use crate::codec::{self, Kind};
use crate::digest::Digest;
use crate::id::VerifierId;
use crate::limits::{DRAFT_TOKENS_MAX, MESSAGE_BYTES_MAX, SESSION_TOKENS_MAX, VOCABULARY_SIZE_MAX};
use crate::{CouplingProfile, DecodeError, EncodeError, Price, Promise, TargetId};
use core::fmt;
use heapless::Vec;
use serde::{Deserialize, Serialize};

/// The vocabulary a model speaks: both sides must have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vocabulary {
    /// Entries.
    pub size: u32,
    /// First 8 bytes of the SHA-256 over the byte length (u32, little-endian) and bytes of every token's string.
    pub fingerprint: [u8; 8],
}

impl fmt::Display for Vocabulary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tokens, ", self.size)?;
        self.fingerprint.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// How the target is sampled; the verifier checks the ranges.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SamplingParams {
    /// Softmax temperature; 0 is greedy.
    pub temperature: f32,
    /// Nucleus mass, in (0, 1].
    pub top_p: f32,
    /// Largest tokens kept; 0 keeps all.
    pub top_k: u32,
}

/// A device asks for a lease, for a new session or to resume one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Open {
    /// The device's number for the session.
    pub session: u8,
    /// The epoch the lease shall have: one more than the last.
    pub epoch: u8,
    /// Drawn for each session: tells a device's two lives apart; the answer repeats it.
    pub nonce: u64,
    /// The session's seed: text is a function of target, prompt, sampling and seed.
    pub seed: u64,
    /// How the target is sampled.
    pub sampling: SamplingParams,
    /// The drafter's vocabulary.
    pub vocabulary: Vocabulary,
    /// Length in tokens of the committed text.
    pub length: u32,
}

/// A verifier's promise to check the frames of one session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The device's number for the session.
    pub session: u8,
    /// The epoch asked for.
    pub epoch: u8,
    /// The request's nonce.
    pub nonce: u64,
    /// Who promises: frames go to this verifier's topic.
    pub verifier: VerifierId,
    /// The target; its names stand in the verifier's presence.
    pub target: TargetId,
    /// What the target promises.
    pub promise: Promise,
    /// How the target's choices are drawn.
    pub coupling: CouplingProfile,
    /// What the verifier's time costs.
    pub price: Price,
    /// Drafted tokens the verifier takes in one frame.
    pub draft_tokens_max: u8,
    /// Tokens that a frame's [`Credit`](crate::Credit) may ask for beyond its base; 0 where none is given.
    pub credit_tokens_max: u16,
    /// Tokens the session may reach.
    pub context_tokens_max: u32,
    /// Length in tokens of the text the verifier still has of this session, at most the request's.
    pub length: u32,
    /// Digest of that text.
    pub digest: Digest,
}

/// Why a verifier gives no lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusalReason {
    /// The target speaks another vocabulary, this one.
    Vocabulary(Vocabulary),
    /// Temperature, top-p or top-k is outside its range.
    Sampling,
    /// The text is longer than the target's context, which is this long.
    TooLong(u32),
    /// Every slot is in use by a session that is being answered.
    Full,
    /// The verifier is going away.
    Draining,
}

/// No lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The device's number for the session.
    pub session: u8,
    /// The epoch asked for.
    pub epoch: u8,
    /// The request's nonce.
    pub nonce: u64,
    /// Why.
    pub reason: RefusalReason,
}

/// The answer to an [`Open`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A lease.
    Lease(Lease),
    /// None.
    Refusal(Refusal),
}

impl Open {
    /// The request as bytes.
    ///
    /// # Errors
    /// Names the field that is outside its limits.
    pub fn encode(&self) -> Result<Vec<u8, MESSAGE_BYTES_MAX>, EncodeError> {
        self.check().map_err(EncodeError::OutOfRange)?;
        codec::put(Kind::Open, self)
    }

    /// Decodes a message that came on an open topic.
    ///
    /// # Errors
    /// Says what is wrong with the bytes; see [`DecodeError`].
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
    /// The answer as bytes.
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

    /// Decodes a message that came on a lease topic.
    ///
    /// # Errors
    /// Says what is wrong with the bytes; see [`DecodeError`].
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
