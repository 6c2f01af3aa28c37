//! A verifier's messages on a device's verdict topic.

use crate::codec::{self, Kind};
use crate::continuation::Continuation;
use crate::digest::Digest;
use crate::limits::{DRAFT_TOKENS_MAX, MESSAGE_BYTES_MAX, SESSION_TOKENS_MAX, VOCABULARY_SIZE_MAX};
use crate::{DecodeError, EncodeError, LogTime, TokenId};
use heapless::Vec;
use serde::{Deserialize, Serialize};

/// The answer to one frame, which acknowledges it. The same frame always gets the same answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The device's number for the session.
    pub session: u8,
    /// The lease the answered frame belonged to.
    pub epoch: u8,
    /// The round answered, never 0.
    pub round: u32,
    /// A check of the answered frame's bytes, which distinguishes frames from before and after a device's restart.
    pub check: u8,
    /// The send of the frame that is answered, counted from 1.
    pub send: u8,
    /// Duration of the target's pass.
    pub pass: LogTime,
    /// Wait before the pass.
    pub queue: LogTime,
    /// Number of leading drafts that are accepted.
    pub accepted: u8,
    /// The target's own token that follows them.
    pub token: TokenId,
    /// Bit i: held draft i, one of the accepted ones, differs from the target's choice.
    pub missed: u16,
}

/// A request for context: the verifier's text differs from the frame's. The device sends the text from `length` on, or
/// all of it if the digest differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resync {
    /// The device's number for the session.
    pub session: u8,
    /// The lease.
    pub epoch: u8,
    /// The round of the frame that can't be judged yet; never 0.
    pub round: u32,
    /// Length in tokens of the verifier's text.
    pub length: u32,
    /// Digest of that text.
    pub digest: Digest,
}

/// The reason why a verifier ends a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CloseReason {
    /// The verifier does not know the lease: it restarted, or evicted the session. Open again.
    Unknown,
    /// The verifier is going away. Open again elsewhere.
    Draining,
    /// The target failed on this session. Open again.
    Failed,
    /// The frame has a token outside the vocabulary or a text beyond the limits. Do not send it again.
    Rejected,
    /// The verifier accepts no lossy policy.
    Policy,
}

/// The verifier ends a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// The device's number for the session.
    pub session: u8,
    /// The lease that ended.
    pub epoch: u8,
    /// The session's nonce; for an unknown lease the [digest](crate::frame_digest) of the frame that named it.
    pub nonce: u64,
    /// The reason.
    pub reason: CloseReason,
}

/// The verifier works for a session longer than it announced. It changes nothing but the time for which the device waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Working {
    /// The device's number for the session.
    pub session: u8,
    /// The lease.
    pub epoch: u8,
    /// The round of the frame that waits or is being judged, or of the credit that is being used; never 0.
    pub round: u32,
    /// Time within which the answer or another such message follows; never unknown.
    pub wait: LogTime,
}

/// Any message on a device's verdict topic.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)] // no allocator to box the large one with
pub enum Down {
    /// The answer to a frame.
    Verdict(Verdict),
    /// A request for context.
    Resync(Resync),
    /// The end of a lease.
    Closed(Closed),
    /// Tokens beyond a verdict.
    Continuation(Continuation),
    /// The verifier is at work.
    Working(Working),
}

/// The fields of a verdict without `missed`, which is sent only if it is not 0.
#[derive(Serialize, Deserialize)]
struct VerdictHeader {
    session: u8,
    epoch: u8,
    round: u32,
    check: u8,
    send: u8,
    pass: LogTime,
    queue: LogTime,
    accepted: u8,
    token: TokenId,
}

impl VerdictHeader {
    fn of(verdict: &Verdict) -> Self {
        let Verdict { session, epoch, round, check, send, pass, queue, accepted, token, .. } = *verdict;
        Self { session, epoch, round, check, send, pass, queue, accepted, token }
    }

    fn verdict(self) -> Verdict {
        let Self { session, epoch, round, check, send, pass, queue, accepted, token } = self;
        Verdict { session, epoch, round, check, send, pass, queue, accepted, token, missed: 0 }
    }
}

impl Down {
    /// Encodes the message.
    ///
    /// # Errors
    /// Names the field that is outside its limits.
    pub fn encode(&self) -> Result<Vec<u8, MESSAGE_BYTES_MAX>, EncodeError> {
        self.check().map_err(EncodeError::OutOfRange)?;
        match self {
            Self::Verdict(verdict) if verdict.missed != 0 => codec::put(Kind::Audited, verdict),
            Self::Verdict(verdict) => codec::put(Kind::Verdict, &VerdictHeader::of(verdict)),
            Self::Resync(resync) => codec::put(Kind::Resync, resync),
            Self::Closed(closed) => codec::put(Kind::Closed, closed),
            Self::Continuation(continuation) => continuation.encode(),
            Self::Working(working) => codec::put(Kind::Working, working),
        }
    }

    /// Decodes a message from a verdict topic.
    ///
    /// # Errors
    /// The bytes are malformed; see [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let message = match codec::open(bytes)? {
            (Kind::Verdict, rest) => Self::Verdict(codec::take_all::<VerdictHeader>(rest)?.verdict()),
            (Kind::Audited, rest) => match codec::take_all(rest)? {
                Verdict { missed: 0, .. } => return Err(DecodeError::NotCanonical),
                verdict => Self::Verdict(verdict),
            },
            (Kind::Resync, rest) => Self::Resync(codec::take_all(rest)?),
            (Kind::Closed, rest) => Self::Closed(codec::take_all(rest)?),
            (Kind::Continuation, rest) => Self::Continuation(Continuation::decode(rest)?),
            (Kind::Working, rest) => Self::Working(codec::take_all(rest)?),
            (kind, _) => return Err(DecodeError::UnknownKind(kind as u8)),
        };
        message.check().map_err(DecodeError::Impossible)?;
        Ok(message)
    }

    fn check(&self) -> Result<(), &'static str> {
        match self {
            Self::Verdict(Verdict { round: 0, .. })
            | Self::Resync(Resync { round: 0, .. })
            | Self::Working(Working { round: 0, .. }) => Err("round"),
            Self::Working(Working { wait: LogTime(0), .. }) => Err("wait"),
            Self::Verdict(v) if v.send == 0 => Err("send"),
            Self::Verdict(v) if usize::from(v.accepted) > DRAFT_TOKENS_MAX => Err("accepted"),
            Self::Verdict(v) if v.token >= VOCABULARY_SIZE_MAX => Err("token"),
            Self::Verdict(v) if u32::from(v.missed) >> v.accepted != 0 => Err("missed"),
            Self::Resync(r) if r.length > SESSION_TOKENS_MAX => Err("length"),
            _ => Ok(()),
        }
    }
}
