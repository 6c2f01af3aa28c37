//! One turn: a prompt, its reply, and its cost.

use crate::notice::Notice;
use crate::provenance::Provenance;
use dunlin_hlm::TokenId;
use dunlin_hlm::device::{DeviceCounters, Finish};
use dunlin_hlm::stop::Prices;
use dunlin_hlm::time::Duration;
use dunlin_link::Traffic;
use dunlin_power::phase::{ByPhase, EnergyPhase};
use dunlin_power::report::TurnEnergy;
use dunlin_wire::{RefusalReason, Vocabulary};
use std::fmt::Write;

/// The reason why a reply ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The machine ended it.
    Machine(Finish),
    /// Its time was up; the notice says what it was waiting for, if anything.
    TimedOut(Option<Notice>),
    /// The drafter failed, for the reason given.
    DrafterFailed(String),
    /// The broker refuses this device, for the reason given.
    BrokerRefused(String),
    /// Only a verifier with another model was present; the text names it.
    OtherModel(String),
    /// The target wrote a token that the device's tokenizer lacks.
    UnknownToken(TokenId),
}

impl Ending {
    /// One word for reports.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Machine(Finish::Stop) => "stop",
            Self::Machine(Finish::TokensMax) => "tokens_max",
            Self::Machine(Finish::ContextFull) => "context_full",
            Self::Machine(Finish::Cancelled) => "cancelled",
            Self::Machine(Finish::Refused(_)) => "refused",
            Self::Machine(Finish::Rejected) => "rejected",
            Self::Machine(Finish::LossyRefused) => "lossy_refused",
            Self::Machine(Finish::DrafterFailed) | Self::DrafterFailed(_) => "drafter_failed",
            Self::TimedOut(_) => "timed_out",
            Self::BrokerRefused(_) => "broker_refused",
            Self::Machine(Finish::OtherTarget { .. }) | Self::OtherModel(_) => "other_model",
            Self::UnknownToken(_) => "unknown_token",
        }
    }

    /// Describes the problem if the reply did not end by itself; `own` is the drafter's vocabulary.
    pub fn problem(&self, own: &Vocabulary) -> Option<String> {
        match self {
            Self::Machine(Finish::Stop | Finish::TokensMax | Finish::ContextFull | Finish::Cancelled) => None,
            Self::Machine(Finish::Refused(reason)) => Some(refusal(reason, own)),
            Self::Machine(Finish::Rejected) => {
                Some("the verifier refused a frame: the two sides disagree on limits or vocabulary".into())
            }
            Self::Machine(Finish::LossyRefused) => Some(
                "the verifier refused this policy: either its setting `lossy` is off, or its target is on a server that \
                 takes only drafts under the shared seed, such as those of the policies lossless and auto"
                    .into(),
            ),
            Self::Machine(Finish::DrafterFailed) => {
                Some("the drafter gave a row that is no distribution".into())
            }
            Self::TimedOut(None) => Some("time was up before the reply was complete".into()),
            Self::TimedOut(Some(notice)) => Some(format!("time was up while {notice}")),
            Self::Machine(Finish::OtherTarget { ours, theirs }) => {
                Some(format!("the text so far was written by the target {ours}; only {theirs} is here"))
            }
            Self::UnknownToken(token) => Some(format!(
                "the target wrote its token {token}, which this device's tokenizer lacks, so the text can't be shown; \
                 use the target's tokenizer.json"
            )),
            Self::DrafterFailed(reason) | Self::BrokerRefused(reason) | Self::OtherModel(reason) => {
                Some(reason.clone())
            }
        }
    }
}

fn refusal(reason: &RefusalReason, own: &Vocabulary) -> String {
    match reason {
        RefusalReason::Vocabulary(target) => format!(
            "the verifier's model speaks another vocabulary: {}, the drafter's is {}; use models of one pair",
            described(target),
            described(own)
        ),
        RefusalReason::Sampling => "the verifier refuses temperature, top-p or top-k: out of range".into(),
        RefusalReason::TooLong(limit) => {
            format!("the text is longer than the verifier's context of {limit} tokens")
        }
        RefusalReason::Full => "the verifier has no free slot".into(),
        RefusalReason::Draining => "the verifier is going away".into(),
    }
}

/// A vocabulary in words: entries and fingerprint.
pub fn described(vocabulary: &Vocabulary) -> String {
    format!("{} tokens, fingerprint {}", vocabulary.size, fingerprint(&vocabulary.fingerprint))
}

/// A fingerprint in hexadecimal.
pub(crate) fn fingerprint(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a String takes every write");
    }
    text
}

/// Time by the device's activity; the five add up to the whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    /// The drafter ran.
    pub draft: Duration,
    /// Sampling, scores, policy and display.
    pub score: Duration,
    /// Handing messages to the link.
    pub send: Duration,
    /// Only an answer was missing.
    pub wait: Duration,
    /// No reply was under way.
    pub idle: Duration,
}

impl Phases {
    /// The time between two counts of microseconds.
    pub(crate) fn between(from: &ByPhase<u64>, until: &ByPhase<u64>) -> Self {
        let of = |phase| Duration(until[phase] - from[phase]);
        Self {
            draft: of(EnergyPhase::Draft),
            score: of(EnergyPhase::Score),
            send: of(EnergyPhase::Send),
            wait: of(EnergyPhase::Wait),
            idle: of(EnergyPhase::Idle),
        }
    }
}

/// A reply and its cost.
#[derive(Clone, Debug)]
pub struct Turn {
    /// The session's seed.
    pub seed: u64,
    /// The reply.
    pub tokens: Vec<TokenId>,
    /// The reason why it ended.
    pub ending: Ending,
    /// Its verifiers and targets.
    pub provenance: Provenance,
    /// From the prompt to the end.
    pub took: Duration,
    /// Time by phase.
    pub phases: Phases,
    /// The machine's counters for it.
    pub counters: DeviceCounters,
    /// The link's traffic for it.
    pub traffic: Traffic,
    /// Assumed cost of a second of drafting and of waiting.
    pub prices: Prices,
    /// Measured energy; `None` without a sensor.
    pub energy: Option<TurnEnergy>,
}
