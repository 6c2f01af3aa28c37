//! What goes into the device's machine and what comes out of it.

use super::candidates::Candidates;
use super::pinned::PinnedTarget;
use crate::TokenId;
use crate::calibration::Calibration;
use crate::conformal::Conformal;
use crate::counters::counters;
use crate::importance::RecentImportances;
use crate::policy::Rules;
use crate::probabilities::Sampling;
use crate::rtt::Rtt;
use crate::stop::{StopConfig, StopRule};
use crate::time::Duration;
use crate::uncertainty::Unit;
use alloc::vec::Vec;
use dunlin_wire::limits::FRAME_BYTES_MAX;
use dunlin_wire::{DecodeError, RefusalReason, TargetId, VerifierId, Vocabulary};
use thiserror::Error;

/// What a device does when nobody answers for [`DeviceConfig::give_up_after`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Offline {
    /// It waits, and says so once.
    #[default]
    Wait,
    /// It commits its own tokens, marked unverified, until a verifier answers again.
    Trust,
}

/// What a device needs to know for all its sessions.
#[derive(Clone, Debug)]
pub struct DeviceConfig {
    /// The drafter's vocabulary.
    pub vocabulary: Vocabulary,
    /// What is sent and when.
    pub policy: Rules,
    /// What to do when nobody answers.
    pub offline: Offline,
    /// After how much silence.
    pub give_up_after: Duration,
    /// Tokens a session may reach: the drafter's context.
    pub context_tokens_max: usize,
    /// Whether a verifier with another model may go on with a text.
    pub accept_model_change: bool,
}

/// One session's identity and sampling. Number, epoch and nonce are drawn at random by the shell, so that a
/// device that lost its state is not taken for its former self.
#[derive(Clone, Debug)]
pub struct Session {
    /// The session's number on the wire.
    pub number: u8,
    /// The first epoch.
    pub epoch: u8,
    /// Tells this session from any other of the device.
    pub nonce: u64,
    /// Seed of the coupling.
    pub seed: u64,
    /// How the target is sampled.
    pub sampling: Sampling,
}

/// What was learned of the model pair and of the link; a later session starts from it.
#[derive(Clone, Debug)]
pub struct Learned {
    /// Rejection against uncertainty.
    pub calibration: Calibration,
    /// Times of drafting and of rounds, and their prices.
    pub stop: StopRule,
    /// Which tokens stay whatever the verdict; `None` before the first session.
    pub conformal: Option<Conformal>,
    pub(crate) rtt: Rtt,
    /// The verifiers that announced themselves.
    pub(crate) candidates: Candidates,
}

impl Default for Learned {
    fn default() -> Self {
        Self {
            calibration: Calibration::new(),
            stop: StopRule::new(&StopConfig::default()),
            conformal: None,
            rtt: Rtt::default(),
            candidates: Candidates::default(),
        }
    }
}

/// How long a reply may get and what ends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Tokens at most.
    pub tokens_max: usize,
    /// Tokens that end it, themselves committed.
    pub stop: Vec<TokenId>,
}

/// Why a prompt was not taken. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SayError {
    /// The session was closed.
    #[error("the session is closed")]
    Closed,
    /// A reply is under way.
    #[error("a reply is under way: wait for it or cancel it")]
    Busy,
    /// No prompt token, or a reply of no token.
    #[error("the prompt and the reply need at least one token each")]
    Empty,
    /// A token outside the vocabulary.
    #[error("token {0} is outside the vocabulary")]
    UnknownToken(TokenId),
    /// No room for a reply.
    #[error("the text would have {length} tokens, the context holds {limit}")]
    TooLong {
        /// Tokens with the prompt.
        length: usize,
        /// Tokens the session may reach.
        limit: usize,
    },
}

/// The machine's number for a run of the drafter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobId(pub u64);

/// A run of the drafter: cut its cache to `keep` tokens, append `tokens`, give the last row back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DraftJob {
    /// To be given back with the row.
    pub id: JobId,
    /// Tokens of the cache that stay.
    pub keep: usize,
    /// Tokens to append, at least one.
    pub tokens: Vec<TokenId>,
}

/// What a run of the drafter gave.
#[derive(Clone, Copy, Debug)]
pub struct DraftRow<'a> {
    /// Logits after the last token, one per vocabulary entry.
    pub logits: &'a [f32],
    /// Attention of the last token's query over all positions, averaged over heads, where the model gives it.
    pub attention: Option<&'a [f32]>,
    /// How long the run took.
    pub took: Duration,
}

/// Where a committed token came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Drafted here, and what the target chose.
    Accepted,
    /// The target's own: a correction, or the token after the last accepted draft.
    Target,
    /// Drafted here and kept as the policy says: unasked, or though the target chose another.
    Trusted,
    /// Drafted here because nobody answered.
    Unverified,
}

/// A committed token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Its position in the session's text.
    pub position: usize,
    /// The token.
    pub token: TokenId,
    /// Where it came from.
    pub origin: Origin,
}

/// Why a reply ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// A stop token was committed.
    Stop,
    /// The reply has as many tokens as asked for.
    TokensMax,
    /// The context is full.
    ContextFull,
    /// The user ended it.
    Cancelled,
    /// No verifier takes the session.
    Refused(RefusalReason),
    /// The verifier refused a frame for good: the two sides disagree on limits or vocabulary.
    Rejected,
    /// The verifier takes no policy that keeps tokens the target would not have chosen.
    LossyRefused,
    /// No verifier has the target that wrote the text so far, and a change of model is not accepted.
    OtherTarget {
        /// The target that wrote the text.
        ours: TargetId,
        /// The one that is there.
        theirs: TargetId,
    },
    /// The drafter failed.
    DrafterFailed,
}

/// A drafted token whose fate a verdict told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged {
    /// Its position in the session's text.
    pub position: usize,
    /// How unsure the drafter was.
    pub uncertainty: Unit,
    /// How much it matters.
    pub importance: Unit,
    /// The importances up to it, its own among them.
    pub recent: RecentImportances,
    /// Whether it stays all the same.
    pub held: bool,
    /// Whether the target rejected it, or chose another.
    pub rejected: bool,
}

/// What the shell must do or show.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Run the drafter and give the row back.
    Draft(DraftJob),
    /// A token was committed.
    Committed(Commit),
    /// A verdict told the fate of a drafted token.
    Judged(Judged),
    /// The reply ended.
    Finished(Finish),
    /// A verifier gave a lease.
    Leased {
        /// The verifier.
        verifier: VerifierId,
        /// Its target.
        target: PinnedTarget,
    },
    /// From a position of the text on another target writes.
    TargetChanged {
        /// The position in the session's text.
        position: usize,
        /// Whether the weights are others; else the numerics alone.
        model: bool,
    },
    /// The verifier's text differed and is sent again.
    Resynced,
    /// Nobody answered for long; the device waits.
    Waiting,
    /// Nobody answered for long; the device goes on by itself.
    GaveUp,
    /// A verifier answers again.
    Returned,
    /// Bytes came that are no message; nothing changed.
    Malformed(DecodeError),
}

/// Which topic a message goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Channel {
    /// The device's open topic towards this verifier, at least once, with an expiry.
    Open(VerifierId),
    /// The device's frame topic towards this verifier, at most once.
    Frames(VerifierId),
}

/// A message to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// On which topic.
    pub channel: Channel,
    /// The message.
    pub bytes: heapless::Vec<u8, FRAME_BYTES_MAX>,
}

/// What the machine is doing, for the account of time and energy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No reply is under way.
    Idle,
    /// The drafter runs, and nothing is under way.
    Drafting,
    /// The drafter runs while a verdict is under way.
    DraftingAhead,
    /// Nothing but an answer is missing.
    Waiting,
    /// The device goes on by itself.
    Offline,
}

counters! {
    /// What happened since the start of the session.
    pub struct Counters {
        /// Tokens committed.
        pub committed: u64,
        /// Those of them that were not verified because nobody answered.
        pub unverified: u64,
        /// Those of them that the policy keeps unasked, or though the target chose another.
        pub trusted: u64,
        /// Drafts that stayed and were compared with the target's choice.
        pub audited: u64,
        /// Those of them that differed.
        pub missed: u64,
        /// Verdicts that counted.
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
        /// Tokens the drafter gave, those never sent included.
        pub drafted: u64,
        /// Drafts put into frames.
        pub sent_drafts: u64,
        /// Drafts the target agreed with.
        pub accepted: u64,
        /// Requests for context that were answered.
        pub resyncs: u64,
        /// Messages that are none.
        pub malformed: u64,
        /// Messages that came too late to mean anything.
        pub stale: u64,
    }
}
