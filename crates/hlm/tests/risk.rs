//! The share of kept tokens that the target would not have chosen, measured through both machines and their messages.
//! It approaches ε whatever the script, because the verdicts steer the threshold.

mod machines;
mod models;

use dunlin_hlm::TokenId;
use dunlin_hlm::device::{
    Channel, Device, DeviceConfig, DeviceEvent, DraftRow, Learned, Offline, ReplyLimits, SessionIdentity,
};
use dunlin_hlm::policy::{Policy, PolicyTable, Rules};
use dunlin_hlm::probabilities::Sampling;
use dunlin_hlm::time::{Duration, Instant};
use dunlin_hlm::uncertainty::{Form, uncertainty};
use dunlin_hlm::verifier::{self, Answer, TargetDescription, Verifier, VerifierConfig};
use dunlin_wire::{DeviceId, Vocabulary};
use machines::VOCABULARY;
use models::uniform;
use std::collections::BTreeMap;

const SIZE: u32 = 8;
const REPLY: usize = 1_000;
/// Held tokens of the warm-up, before the share is measured.
const WARM: u64 = 2_000;

/// The drafter's and the target's choices at each position, fixed in advance.
#[derive(Clone, Copy)]
struct Script {
    number: u64,
    /// The probability of a miss by uncertainty.
    line: fn(f64) -> f64,
}

/// Both machines for one session of a script.
struct Pair {
    script: Script,
    device: Device,
    verifier: Verifier,
    name: DeviceId,
    now: Instant,
    drafter: usize,
    target: usize,
    finished: bool,
    /// True by position if a verdict marked the held token as missed.
    held: BTreeMap<usize, bool>,
}

impl Script {
    fn token(&self, position: usize) -> TokenId {
        (uniform(self.number, position as u64, 0) * f64::from(SIZE)) as TokenId
    }

    /// The drafter's row: one token leads by a random gap, so the uncertainty varies from nearly 0 to that of a tie.
    fn draft(&self, position: usize) -> Vec<f32> {
        let share = uniform(self.number, position as u64, 1);
        let gap = 0.05 / (share * share);
        (0..SIZE)
            .map(|token| if token == self.token(position) { gap.min(40.0) as f32 } else { 0.0 })
            .collect()
    }

    fn misses(&self, position: usize) -> bool {
        let row = self.draft(position);
        let score = uncertainty(Form::Quadrature, &row, self.token(position), 1.0, 0, 0).get();
        uniform(self.number, position as u64, 2) < (self.line)(f64::from(score))
    }

    fn target(&self, position: usize) -> Vec<f32> {
        let chosen = (self.token(position) + u32::from(self.misses(position))) % SIZE;
        (0..SIZE).map(|token| if token == chosen { 9.0 } else { 0.0 }).collect()
    }
}

impl Pair {
    fn new(epsilon: f32, script: Script, learned: Learned) -> Self {
        let vocabulary = Vocabulary { size: SIZE, ..VOCABULARY };
        let config = DeviceConfig {
            vocabulary,
            prefixes: Default::default(),
            policy: Rules::new(&PolicyTable { epsilon: Some(epsilon), ..Policy::Risk.table() })
                .expect("valid settings"),
            offline: Offline::Wait,
            give_up_after: Duration::from_millis(120_000),
            context_tokens_max: 2_048,
            accept_model_change: false,
        };
        let session =
            SessionIdentity { number: 1, epoch: 0, nonce: 5, seed: 6, sampling: Sampling::greedy() };
        let verifier = VerifierConfig {
            id: "desk".parse().expect("a valid id"),
            vocabulary,
            prefixes: Default::default(),
            target: TargetDescription::default(),
            context_tokens_max: 2_048,
            sessions_max: 1,
            draft_tokens_max: 16,
            credit_tokens_max: 0,
            continuation_tokens: 8,
            continuation_interval: Duration::from_millis(100),
            lossy: true,
            idle_max: Duration::from_millis(600_000),
        };
        Self {
            script,
            device: Device::new(config, session, learned).expect("valid settings"),
            verifier: Verifier::new(verifier).expect("valid settings"),
            name: "device-1".parse().expect("a valid id"),
            now: Instant(0),
            drafter: 0,
            target: 0,
            finished: false,
            held: BTreeMap::new(),
        }
    }

    fn run(&mut self) {
        let presence = self.verifier.presence().encode().expect("a valid presence");
        self.device.handle_presence(&"desk".parse().expect("a valid id"), &presence, self.now);
        self.device.handle_link(true, self.now);
        self.device.say(&[1], ReplyLimits { tokens_max: REPLY, stop: Vec::new() }, self.now).expect("taken");
        while !self.finished {
            self.step();
        }
    }

    fn step(&mut self) {
        while let Some(message) = self.device.poll_transmit(self.now) {
            match message.channel {
                Channel::Open(_) => self.verifier.handle_open(&self.name, &message.bytes, None, self.now),
                Channel::Frames(_) => self.verifier.handle_frame(&self.name, &message.bytes, self.now),
            }
        }
        while let Some(event) = self.device.poll_event() {
            self.happened(event);
        }
        while let Some(event) = self.verifier.poll_event() {
            let verifier::VerifierEvent::Verify(job) = event else { continue };
            self.target = job.keep + job.tokens.len();
            self.now = self.now + Duration::from_millis(60);
            let first = self.target + 1 - job.rows;
            let rows: Vec<f32> =
                (first..=self.target).flat_map(|position| self.script.target(position)).collect();
            self.verifier.handle_rows(job.id, Ok(&rows), self.now);
        }
        while let Some(out) = self.verifier.poll_transmit() {
            match out.channel {
                Answer::Reply => self.device.handle_reply(&out.bytes, self.now),
                Answer::Verdict => self.device.handle_down(&out.bytes, self.now),
            }
        }
    }

    fn happened(&mut self, event: DeviceEvent) {
        match event {
            DeviceEvent::Draft(job) => {
                self.drafter = job.keep + job.tokens.len();
                let took = Duration::from_millis(20);
                self.now = self.now + took;
                let logits = self.script.draft(self.drafter);
                self.device.handle_draft(
                    job.id,
                    DraftRow { logits: &logits, attention: None, took, refilled: false },
                    self.now,
                );
            }
            DeviceEvent::Judged(judged) if judged.held => {
                assert_eq!(judged.rejected, self.script.misses(judged.position), "at {}", judged.position);
                self.held.insert(judged.position, judged.rejected);
            }
            DeviceEvent::Finished(_) => self.finished = true,
            _ => {}
        }
    }
}

fn published(uncertainty: f64) -> f64 {
    (0.815 * uncertainty - 0.066).clamp(0.0, 1.0)
}

fn harder(uncertainty: f64) -> f64 {
    (1.6 * uncertainty).clamp(0.0, 1.0)
}

/// Counts of held and missed tokens of the script after `goal` held ones, without the warm-up if there is one.
fn share(learned: &mut Learned, epsilon: f32, line: fn(f64) -> f64, goal: u64, stream: u64) -> (u64, u64) {
    let (mut held, mut missed) = (0, 0);
    for session in 0..2_000 {
        let mut pair =
            Pair::new(epsilon, Script { number: stream * 10_000 + session, line }, learned.clone());
        pair.run();
        *learned = pair.device.learned();
        let counters = pair.device.counters();
        assert_eq!(counters.audited, pair.held.len() as u64);
        assert_eq!(counters.missed, pair.held.values().filter(|missed| **missed).count() as u64);
        (held, missed) = (held + counters.audited, missed + counters.missed);
        if held >= goal {
            return (held, missed);
        }
    }
    panic!("{held} of {goal} tokens were held at {epsilon}");
}

#[test]
fn the_share_of_misses_comes_to_epsilon_though_the_script_changes_half_way() {
    for epsilon in [0.01, 0.05] {
        let mut learned = Learned::default();
        share(&mut learned, epsilon, published, WARM, 1);
        let first = share(&mut learned, epsilon, published, 25_000, 2);
        let second = share(&mut learned, epsilon, harder, 25_000, 3);
        let (held, missed) = (first.0 + second.0, first.1 + second.1);
        let ratio = missed as f64 / held as f64 / f64::from(epsilon);
        println!(
            "ε {epsilon}: {missed} of {held} held tokens missed, {ratio:.3} ε; {first:?} then {second:?}"
        );
        assert!(held >= 50_000 && (ratio - 1.0).abs() < 0.3, "{epsilon}: {missed} of {held}");
    }
}
