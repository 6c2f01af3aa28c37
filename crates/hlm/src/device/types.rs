//! Input and output types of the device's protocol machine.

use super::pinned::PinnedTarget;
use crate::TokenId;
use crate::counters::counters;
use crate::importance::RecentImportances;
use crate::policy::Rules;
use crate::prefixes::Prefixes;
use crate::probabilities::Sampling;
use crate::time::Duration;
use crate::uncertainty::Unit;
use alloc::vec::Vec;
use dunlin_wire::limits::FRAME_BYTES_MAX;
use dunlin_wire::{DecodeError, RefusalReason, TargetId, VerifierId, Vocabulary};
use thiserror::Error;

/// The device's behaviour when no verifier answers for [`DeviceConfig::give_up_after`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Offline {
    /// It waits and reports that once.
    #[default]
    Wait,
    /// It commits its own tokens, marked unverified, until it has a lease again.
    Trust,
}

/// Settings shared by all sessions of a device.
#[derive(Clone, Debug)]
pub struct DeviceConfig {
    /// The drafter's vocabulary.
    pub vocabulary: Vocabulary,
    /// Fingerprints of its beginnings, for targets with fewer tokens.
    pub prefixes: Prefixes,
    /// The policy: what is sent and when.
    pub policy: Rules,
    /// The reaction to a long silence.
    pub offline: Offline,
    /// The length of silence after which `offline` applies.
    pub give_up_after: Duration,
    /// Most tokens in a session's text: the drafter's context.
    pub context_tokens_max: usize,
    /// True when a verifier with another model may continue a text.
    pub accept_model_change: bool,
}

/// One session's identity and sampling. The shell draws number, epoch and nonce at random, so that a device that
/// lost its state is not mistaken for its earlier run.
#[derive(Clone, Debug)]
pub struct SessionIdentity {
    /// The session's number on the wire.
    pub number: u8,
    /// The first epoch.
    pub epoch: u8,
    /// Distinguishes this session from any other of the device.
    pub nonce: u64,
    /// Seed of the coupling.
    pub seed: u64,
    /// Sampling settings of the target.
    pub sampling: Sampling,
}

/// Limits of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyLimits {
    /// Most tokens of the reply.
    pub tokens_max: usize,
    /// Tokens that end the reply; they are committed too.
    pub stop: Vec<TokenId>,
}

/// A prompt that was not taken. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SayError {
    /// The session was closed.
    #[error("the session is closed")]
    Closed,
    /// A reply is under way.
    #[error("a reply is under way: wait for it or cancel it")]
    Busy,
    /// The prompt has no token, or `tokens_max` is 0.
    #[error("the prompt and the reply need at least one token each")]
    Empty,
    /// A token outside the vocabulary.
    #[error("token {0} is outside the vocabulary")]
    UnknownToken(TokenId),
    /// The context has no room for a reply.
    #[error("the text would have {length} tokens, the context holds {limit}")]
    TooLong {
        /// Tokens of the text including the prompt.
        length: usize,
        /// Most tokens of the session's text.
        limit: usize,
    },
}

/// Number of a run of the drafter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DraftJobId(pub u64);

/// A run of the drafter: cut its cache to `keep` tokens, append `tokens`, return the last row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DraftJob {
    /// Returned with the row.
    pub id: DraftJobId,
    /// Tokens kept in the cache.
    pub keep: usize,
    /// Tokens to append, at least one.
    pub tokens: Vec<TokenId>,
}

/// Result of a run of the drafter.
#[derive(Clone, Copy, Debug)]
pub struct DraftRow<'a> {
    /// Logits after the last token, one per vocabulary entry.
    pub logits: &'a [f32],
    /// Attention of the last token's query, one weight per position, averaged over heads; `None` where the model has
    /// no such output.
    pub attention: Option<&'a [f32]>,
    /// Duration of the run.
    pub took: Duration,
    /// True if the drafter's own context was full, so that it read a part of the text again.
    pub refilled: bool,
}

/// The source of a committed token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Drafted here and confirmed by the target.
    Accepted,
    /// Chosen by the target: a correction, or the token after the last accepted draft.
    Target,
    /// Drafted here and kept by the policy: never verified, or kept although the target chose another token.
    Trusted,
    /// Drafted here while no verifier answered.
    Unverified,
}

/// A committed token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Its position in the session's text.
    pub position: usize,
    /// The token.
    pub token: TokenId,
    /// Its source.
    pub origin: Origin,
}

/// The reason why a reply ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// A stop token was committed.
    Stop,
    /// The reply reached [`ReplyLimits::tokens_max`].
    TokensMax,
    /// The context is full.
    ContextFull,
    /// The user cancelled it.
    Cancelled,
    /// No verifier accepts the session.
    Refused(RefusalReason),
    /// The verifier refused a frame for good: the two sides disagree on limits or vocabulary.
    Rejected,
    /// The verifier refuses lossy policies, which keep tokens that the target would not have chosen.
    LossyRefused,
    /// No verifier has the target that wrote the text so far, and a change of model is not accepted.
    OtherTarget {
        /// The target that wrote the text.
        ours: TargetId,
        /// The target that is available.
        theirs: TargetId,
    },
    /// The drafter failed.
    DrafterFailed,
}

/// A drafted token that a verdict confirmed or rejected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged {
    /// Its position in the session's text.
    pub position: usize,
    /// The drafter's uncertainty of it.
    pub uncertainty: Unit,
    /// Its importance.
    pub importance: Unit,
    /// Running statistics of importance up to this token, its own included.
    pub recent: RecentImportances,
    /// True when the policy keeps it whatever the verdict.
    pub held: bool,
    /// True when the target rejected it or chose another token.
    pub rejected: bool,
}

/// An action or notification for the shell.
#[derive(Clone, Debug, PartialEq)]
pub enum DeviceEvent {
    /// Run the drafter and return the row.
    Draft(DraftJob),
    /// A token was committed.
    Committed(Commit),
    /// A verdict confirmed or rejected a drafted token.
    Judged(Judged),
    /// The reply ended.
    Finished(Finish),
    /// A verifier granted a lease.
    Leased {
        /// The verifier.
        verifier: VerifierId,
        /// Its target.
        target: PinnedTarget,
    },
    /// Another target writes from this position on.
    TargetChanged {
        /// The position in the session's text.
        position: usize,
        /// True when the weights differ; false when only the numerics do.
        model: bool,
    },
    /// The verifier's text differed; the missing part is sent again.
    Resynced,
    /// No verifier answered for too long; the device waits.
    Waiting,
    /// No verifier answered for too long; the device continues alone.
    GaveUp,
    /// A verifier answers again.
    Returned,
    /// A continuation contradicted the committed text, which did not change.
    Contradicted {
        /// Its position in the session's text.
        position: usize,
    },
    /// The verifier is still at work: its answer takes longer than it announced.
    Working,
    /// The verifier accepts no credit, so that each token is a request of its own.
    NoCredit,
    /// A malformed message arrived; nothing changed.
    Malformed(DecodeError),
}

/// The topic of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Channel {
    /// The device's open topic towards this verifier; at least once (QoS 1), with an expiry.
    Open(VerifierId),
    /// The device's frame topic towards this verifier; at most once (QoS 0).
    Frames(VerifierId),
}

/// A message to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Its topic.
    pub channel: Channel,
    /// The message.
    pub bytes: heapless::Vec<u8, FRAME_BYTES_MAX>,
}

/// The machine's activity, for the accounting of time and energy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No reply is under way.
    Idle,
    /// The drafter runs and no frame is under way.
    Drafting,
    /// The drafter runs while a frame awaits its verdict.
    DraftingAhead,
    /// The device waits for a verifier.
    Waiting,
    /// The device continues without a verifier.
    Offline,
}

counters! {
    /// Counts since the start of the session.
    pub struct DeviceCounters {
        /// Tokens committed.
        pub committed: u64,
        /// Committed tokens that were not verified because no verifier answered.
        pub unverified: u64,
        /// Committed tokens that the policy kept: never verified, or although the target chose another token.
        pub trusted: u64,
        /// Committed tokens that the drafter's vocabulary lacks, which it reads as its unknown token.
        pub foreign: u64,
        /// Runs of the drafter that read a part of the text again, because its context was full.
        pub refills: u64,
        /// Held drafts that were compared with the target's choice.
        pub audited: u64,
        /// Audited drafts that differed.
        pub missed: u64,
        /// Verdicts that answered the frame under way.
        pub rounds: u64,
        /// Draft frames sent, repeated ones included.
        pub frames_up: u64,
        /// Draft frames sent again.
        pub resent: u64,
        /// Context chunks sent.
        pub context_up: u64,
        /// Requests for a lease.
        pub opens: u64,
        /// Bytes of all messages sent.
        pub payload_bytes_up: u64,
        /// Bytes of all messages received, verifiers' presence left out: it belongs to no session.
        pub payload_bytes_down: u64,
        /// Tokens drafted, including those never sent.
        pub drafted: u64,
        /// Drafts put into frames.
        pub sent_drafts: u64,
        /// Drafts the target agreed with.
        pub accepted: u64,
        /// Resyncs (requests for context) that were answered.
        pub resyncs: u64,
        /// Malformed messages.
        pub malformed: u64,
        /// Messages that arrived too late to count, or that belong to another session or epoch.
        pub stale: u64,
        /// Tokens that the verifier wrote beyond its verdicts.
        pub streamed: u64,
        /// Frames that asked the verifier to continue the text, retransmissions not included.
        pub credits: u64,
        /// Continuations that contradicted the committed text.
        pub contradicted: u64,
        /// Messages that the verifier is still at work.
        pub working: u64,
        /// Leases given up because the verifier's presence said that it is gone.
        pub lessors_lost: u64,
    }
}
