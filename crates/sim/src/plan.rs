//! The plan of a run, drawn from its seed only.

use crate::toy::ToyPair;
use dunlin_hlm::TokenId;
use dunlin_hlm::device::ReplyLimits;
use dunlin_hlm::policy::{Coupling, HeldTokens, Policy, PolicyTable, Rules};
use dunlin_hlm::probabilities::Sampling;
use dunlin_hlm::uncertainty::{Form, Unit};
use dunlin_wire::TargetId;
use fastrand::Rng;

/// Faults happen before this virtual time, µs; then the network heals.
pub const FAULTS_END_US: u64 = 60_000_000;

/// One turn of a session.
#[derive(Clone, Debug)]
pub struct ScriptedTurn {
    /// The user's prompt.
    pub prompt: Vec<TokenId>,
    /// Limits of the reply.
    pub reply: ReplyLimits,
    /// Time before the user sends the prompt, µs.
    pub think_us: u64,
}

/// The script of one device.
#[derive(Clone, Debug)]
pub struct Script {
    /// Its turns; a restarted device begins again with the first.
    pub turns: Vec<ScriptedTurn>,
    /// Size of the drafter's vocabulary, which may be shorter or longer than the target's.
    pub vocabulary: u32,
    /// Seed of the coupling.
    pub seed: u64,
    /// Sampling settings of the target.
    pub sampling: Sampling,
    /// Its policy.
    pub policy: PolicyTable,
    /// The rules of that policy.
    pub rules: Rules,
    /// True when it continues alone if no verifier answers.
    pub trust: bool,
    /// Silence after which it gives up, µs.
    pub give_up_us: u64,
    /// Most tokens of a session's text, on both sides.
    pub context_tokens_max: usize,
    /// Time of one drafted token, µs.
    pub draft_us: u64,
    /// True when another model may continue the text.
    pub accept_model_change: bool,
}

/// The target of a verifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serves {
    /// The pair's own target.
    Home,
    /// The pair's own target, with other numerics.
    OtherNumerics,
    /// A target with other weights.
    OtherWeights,
}

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The device's connection is down for so many µs.
    LinkDown(usize, u64),
    /// The broker is down, and with it every connection, for so many µs.
    BrokerDown(u64),
    /// Connections stay up but carry no message, for so many µs.
    Silence(u64),
    /// The verifier restarts without its state.
    VerifierRestart(usize),
    /// The verifier drains, and restarts after so many µs.
    VerifierDrain(usize, u64),
    /// The verifier is killed, so that its presence says that it is lost, and starts again after so many µs.
    VerifierKill(usize, u64),
    /// The verifier does nothing for so many µs, and its presence stays.
    VerifierHang(usize, u64),
    /// The device restarts without its state.
    DeviceRestart(usize),
    /// Every device and verifier receives malformed messages.
    Garbage,
}

/// The plan of a whole run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The models.
    pub pair: ToyPair,
    /// The devices.
    pub devices: Vec<Script>,
    /// The verifiers, by their target.
    pub verifiers: Vec<Serves>,
    /// Most sessions of each verifier.
    pub sessions_max: usize,
    /// Probability that a message is lost.
    pub loss: f64,
    /// Probability that it arrives twice.
    pub duplicate: f64,
    /// Least delay of a message, µs.
    pub delay_us: u64,
    /// Most additional delay, µs; it is random, so messages overtake each other.
    pub jitter_us: u64,
    /// Most tokens of a credit; 0 refuses credit.
    pub credit_tokens_max: u16,
    /// Tokens of a continuation.
    pub continuation_tokens: u8,
    /// Time after which written tokens are sent, µs.
    pub continuation_us: u64,
    /// Probability that the target fails on a job or has no memory for it.
    pub target_failure: f64,
    /// Time of one target pass, µs.
    pub target_us: u64,
    /// Time of a pass as verifiers announce it, µs; 0 if they announce none.
    pub announced_us: u64,
    /// The faults and their virtual times, µs.
    pub faults: Vec<(u64, Fault)>,
}

/// Changes the seed of a pair, to get a target with other weights.
const OTHER_WEIGHTS: u64 = 0x6f74_6865_7220_6f6e;

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64) -> Self {
        let rng = &mut Rng::with_seed(seed);
        let hostile = rng.u8(0..4) > 0;
        let pair = ToyPair { vocabulary: rng.u32(5..=20), seed: rng.u64(..), agreement: rng.f32() };
        let mut devices: Vec<Script> = (0..rng.usize(1..=2)).map(|_| script(rng, &pair)).collect();
        let verifiers = rng.usize(1..=2);
        let count = if hostile { rng.usize(0..=6) } else { 0 };
        let faults = (0..count).map(|_| (rng.u64(..FAULTS_END_US), fault(rng, devices.len(), verifiers)));
        let faults = faults.collect();
        let serves =
            |rng: &mut Rng| [Serves::Home, Serves::OtherNumerics, Serves::OtherWeights][rng.usize(..3)];
        let verifiers = (0..verifiers).map(|_| serves(rng)).collect();
        let target_us = if rng.u8(0..8) == 0 { rng.u64(500_000..4_000_000) } else { rng.u64(1_000..500_000) };
        devices.iter_mut().for_each(|script| script.accept_model_change = rng.u8(0..4) == 0);
        Self {
            pair,
            verifiers,
            sessions_max: rng.usize(1..=2),
            loss: if hostile { rng.f64() * 0.4 } else { 0.0 },
            duplicate: if hostile { rng.f64() * 0.3 } else { 0.0 },
            delay_us: rng.u64(100..50_000),
            jitter_us: if hostile { rng.u64(1..400_000) } else { 1 },
            target_failure: if hostile && rng.bool() { rng.f64() * 0.2 } else { 0.0 },
            target_us,
            announced_us: [0, target_us, target_us / 3, 3 * target_us][rng.usize(..4)],
            credit_tokens_max: if rng.u8(0..8) == 0 { 0 } else { rng.u16(1..=12) },
            continuation_tokens: rng.u8(1..=5),
            continuation_us: rng.u64(..400_000),
            faults,
            devices,
        }
    }
}

impl Serves {
    /// The pair whose target a verifier of this kind serves.
    pub fn pair(self, home: &ToyPair) -> ToyPair {
        match self {
            Self::Home | Self::OtherNumerics => *home,
            Self::OtherWeights => ToyPair { seed: home.seed ^ OTHER_WEIGHTS, ..*home },
        }
    }

    /// Its identity.
    pub fn target(self) -> TargetId {
        let (weights, numerics) = match self {
            Self::Home => (1, 1),
            Self::OtherNumerics => (1, 2),
            Self::OtherWeights => (2, 1),
        };
        TargetId::new(&[weights; 32], &[numerics; 32])
    }

    /// The kind of a verifier with this identity.
    pub fn of(target: TargetId) -> Option<Self> {
        [Self::Home, Self::OtherNumerics, Self::OtherWeights].into_iter().find(|kind| kind.target() == target)
    }
}

fn script(rng: &mut Rng, pair: &ToyPair) -> Script {
    let vocabulary = if rng.bool() { pair.vocabulary } else { rng.u32(3..=pair.vocabulary + 3) };
    let shared = vocabulary.min(pair.vocabulary);
    let turns: Vec<ScriptedTurn> =
        (0..rng.usize(1..=3)).map(|_| turn(rng, shared, pair.vocabulary + 3)).collect();
    let needed: usize = turns.iter().map(|turn| turn.prompt.len() + turn.reply.tokens_max).sum();
    let first = turns[0].prompt.len();
    let tight = turns.len() == 1 && rng.u8(0..8) == 0;
    let seed = rng.u64(..);
    let temperature = [0.0, 0.7, 1.0][rng.usize(..3)];
    let sampling = Sampling::new(temperature, [1.0, 0.9][rng.usize(..2)], rng.u32(0..2) * 4);
    let policy = policy(rng);
    let rules = Rules::new(&policy).expect("plans are valid");
    let trust = rng.u8(0..3) == 0;
    Script {
        // What is committed without the target may not have tokens that it lacks.
        vocabulary: if trust || rules.held() == HeldTokens::Trusted { shared } else { vocabulary },
        seed,
        sampling: sampling.expect("these are valid"),
        rules,
        policy,
        trust,
        give_up_us: rng.u64(500_000..4_000_000),
        context_tokens_max: if tight { first + rng.usize(1..=12) } else { needed + 1 },
        draft_us: rng.u64(1_000..100_000),
        accept_model_change: false,
        turns,
    }
}

/// With probability ½ the default policy, else any; in both cases with settings that differ from the preset's.
fn policy(rng: &mut Rng) -> PolicyTable {
    let any = Policy::ALL[rng.usize(..Policy::ALL.len())];
    let policy = if rng.bool() { Policy::Lossless } else { any };
    let preset = policy.rules();
    let draws = preset.draft_tokens_max() > 1;
    let streams = preset.held() == HeldTokens::Verified && preset.coupling() == Coupling::SharedSeed;
    PolicyTable {
        draft_tokens_max: draws.then(|| rng.u8(2..=16)),
        uncertainty_form: Some(Form::ALL[rng.usize(..Form::ALL.len())]),
        epsilon: (preset.epsilon() > Unit::ZERO).then(|| rng.f32()),
        payload_entries: Some(rng.u8(1..=8)),
        resolution: Some(rng.u8(1..=255)),
        credit_tokens_max: (streams && rng.bool()).then(|| rng.u16(1..=20)),
        ..match preset.held() {
            HeldTokens::Trusted => {
                let (max, lambda, rate) = (rng.f32(), rng.f32() * 2.0 - 1.0, rng.f32());
                PolicyTable {
                    uncertainty_max: preset.uncertainty_max().map(|_| max),
                    importance_lambda: preset.importance().map(|_| lambda),
                    random_rate: preset.random_rate().map(|_| rate),
                    ..policy.table()
                }
            }
            HeldTokens::Verified | HeldTokens::Audited => PolicyTable {
                stop_rule: Some(rng.bool()),
                uncertainty_max: rng.bool().then(|| rng.f32()),
                importance_lambda: rng.bool().then(|| rng.f32() * 2.0),
                ..policy.table()
            },
        }
    }
}

/// A turn with a prompt of tokens below `vocabulary`, and perhaps a stop below `stops`.
fn turn(rng: &mut Rng, vocabulary: u32, stops: u32) -> ScriptedTurn {
    let long = rng.u8(0..20) == 0;
    let length = if long { rng.usize(257..600) } else { rng.usize(1..=12) };
    let prompt = (0..length).map(|_| rng.u32(..vocabulary)).collect();
    let stop = if rng.bool() { vec![rng.u32(..stops)] } else { Vec::new() };
    ScriptedTurn {
        prompt,
        reply: ReplyLimits { tokens_max: rng.usize(1..=30), stop },
        think_us: rng.u64(..5_000_000),
    }
}

fn fault(rng: &mut Rng, devices: usize, verifiers: usize) -> Fault {
    let span = rng.u64(10_000..15_000_000);
    match rng.u8(0..12) {
        0 => Fault::LinkDown(rng.usize(..devices), span),
        1 => Fault::BrokerDown(span),
        2 => Fault::Silence(span),
        3 => Fault::VerifierRestart(rng.usize(..verifiers)),
        4..=6 => Fault::VerifierDrain(rng.usize(..verifiers), span),
        7 => Fault::DeviceRestart(rng.usize(..devices)),
        8 | 9 => Fault::VerifierKill(rng.usize(..verifiers), span),
        10 => Fault::VerifierHang(rng.usize(..verifiers), span),
        _ => Fault::Garbage,
    }
}
