//! The inputs and the outcome of a crowd.

use super::{PassModel, TargetPass};
use dunlin_hlm::TokenId;
use dunlin_hlm::device::{Finish, ReplyLimits};
use dunlin_hlm::policy::Rules;
use dunlin_hlm::probabilities::Sampling;
use dunlin_wire::Vocabulary;

/// The place in which a crowd plays.
#[derive(Clone, Copy, Debug)]
pub struct CrowdPlan {
    /// The vocabulary of both models.
    pub vocabulary: Vocabulary,
    /// Most tokens of a text.
    pub context_tokens_max: usize,
    /// Time of the drafter per token, scoring included, µs.
    pub draft_us: u64,
    /// Delay of the link one way, µs.
    pub link_us: u64,
    /// The target's times.
    pub pass: PassModel,
    /// Tokens of long contexts in a pass; `None` for as many as its time allows.
    pub prefill: Option<usize>,
    /// Virtual time after which nothing is looked at any more, µs.
    pub until_us: u64,
}

/// A reply to write.
#[derive(Clone, Debug)]
pub struct CrowdTurn {
    /// The prompt.
    pub prompt: Vec<TokenId>,
    /// Limits of the reply.
    pub reply: ReplyLimits,
    /// Seed of the coupling.
    pub seed: u64,
    /// Sampling settings of the target.
    pub sampling: Sampling,
}

/// A device of a crowd, or one of its sessions. Each turn is a session of its own; the next begins when the reply ends.
#[derive(Clone, Debug)]
pub struct CrowdMember {
    /// The number of the member whose device it is, for devices with several sessions at once.
    pub device: Option<usize>,
    /// Its policy.
    pub policy: Rules,
    /// Its turns.
    pub turns: Vec<CrowdTurn>,
    /// True when it begins again with the first turn behind the last.
    pub repeats: bool,
    /// Time of its first turn, µs.
    pub starts_us: u64,
    /// Tokens after whose commit its link carries nothing any more, for good.
    pub silent_after: Option<usize>,
}

/// A reply that ended.
#[derive(Clone, Debug, PartialEq)]
pub struct CrowdReply {
    /// Number of its turn in [`CrowdMember::turns`].
    pub turn: usize,
    /// Its tokens.
    pub tokens: Vec<TokenId>,
    /// The reason of its end.
    pub finish: Finish,
}

/// A draft frame and its verdict, by the times at which the verifier received and sent them, µs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnsweredRound {
    /// Time at which the frame arrived.
    pub arrived_us: u64,
    /// Time at which the verdict left.
    pub answered_us: u64,
}

/// The replies of a device, and their cost to the target.
#[derive(Debug, Default)]
pub struct MemberOutcome {
    /// Its replies that ended.
    pub replies: Vec<CrowdReply>,
    /// Time of each committed token, µs.
    pub committed_us: Vec<u64>,
    /// Its rounds.
    pub rounds: Vec<AnsweredRound>,
    /// Frames that arrived, each once, and were not answered by a verdict.
    pub unanswered: usize,
    /// Length of text that the last credit which arrived permits, if there was one.
    pub credited_until: Option<usize>,
    /// Jobs of the target for it, one for each pass with it.
    pub jobs: usize,
    /// Tokens that the target was fed for it.
    pub fed: usize,
    /// Tokens that were committed when its link fell silent.
    pub silent_at: Option<usize>,
}

/// The outcome of a crowd.
#[derive(Debug, Default)]
pub struct CrowdOutcome {
    /// One for each member.
    pub members: Vec<MemberOutcome>,
    /// Every pass that ended.
    pub passes: Vec<TargetPass>,
    /// Virtual time at the end, µs.
    pub ended_us: u64,
}
