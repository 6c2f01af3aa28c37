//! The two ways to write a text, by the protocol machines over a modelled link: `lossless` and `stream`.

use super::conditions::PairConditions;
use super::speed::AssumedTimes;
use crate::channel::ModelledChannel;
use crate::plan::{Cell, EvaluationPlan, ModelledBoard, Objective, Server, Size, Writer};
use crate::record::CellRecord;
use crate::setting::Setting;
use anyhow::{Result, ensure};
use dunlin_board::Modelled;
use dunlin_hlm::policy::{DRAFT_TOKENS_MAX, Policy};
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;

/// The way that drafts, and the one that it is compared with.
const WAYS: [Policy; 2] = [Policy::Lossless, Policy::Stream];
/// Name of the cells' run.
const RUN: &str = "pair";

/// The longest time until a first frame is answered, µs. A device sends again after 30 s at the latest, so one whose
/// answers took longer would never get one in time.
const ANSWER_US_MAX: f64 = 25e6;

/// A drafter of one byte and one parameter: the machine's rates are then the measured times.
pub const MACHINE_SIZE: Size = Size { drafter_parameters: 1.0, drafter_bits: 8.0 };

/// A round trip and both ways at it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RoundTripFigures {
    /// Round trip of an empty message, ms.
    pub rtt_ms: f64,
    /// Drafting by `lossless`.
    pub lossless: WayFigures,
    /// Streaming.
    pub stream: WayFigures,
    /// True if drafting writes more tokens per second.
    pub pays: bool,
}

/// The figures of one way, per committed token where nothing else is said.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WayFigures {
    /// Tokens per second, from the prompt to the end.
    pub tokens_per_s: f64,
    /// Frames up.
    pub frames: f64,
    /// Bytes of MQTT packets up.
    pub mqtt_up: f64,
    /// Bytes of MQTT packets down.
    pub mqtt_down: f64,
    /// Bytes up with TLS, TCP and IP, retransmissions and acknowledgements.
    pub tls_up: f64,
    /// Drafted tokens.
    pub drafted: f64,
    /// Share of judged drafts that the target accepted.
    pub accepted: f64,
    /// Passes of the target.
    pub passes: f64,
    /// Modelled energy of the board, J.
    pub modelled_j: f64,
    /// Share of replies that are the target's own, token for token.
    pub identical: f64,
}

/// The modelled machine and the channels of an assessment.
#[derive(Clone, Debug)]
pub struct TrafficPlan {
    machine: Arc<ModelledBoard>,
    server: Server,
    channels: Vec<Arc<ModelledChannel>>,
}

impl TrafficPlan {
    /// A machine with the assumed times and a board's powers, whose drafted tokens are among `shared_size`.
    pub fn new(conditions: &PairConditions, times: &AssumedTimes, shared_size: u32) -> Self {
        let modelled = Modelled {
            run_us: 0.0,
            weight_bytes_per_s: 1e6 / times.draft_us,
            flops: 2e6 / times.prompt_us,
            score_ns_per_entry: times.score_us * 1e3 / f64::from(shared_size.max(1)),
            ..conditions.board.modelled
        };
        let channel = |rtt: &f64| Arc::new(ModelledChannel { rtt_ms: *rtt, ..conditions.channel.clone() });
        Self {
            machine: Arc::new(ModelledBoard { modelled, ..conditions.board.clone() }),
            server: Server { pass_us: times.pass_us, token_us: times.token_us, sessions: 1.0, watts: None },
            channels: conditions.rtt_ms.iter().map(channel).collect(),
        }
    }

    /// Checks that the pass over a prompt of `tokens` tokens is answered before the device gives up waiting.
    ///
    /// # Errors
    /// Names the time and the remedies.
    pub fn check(&self, tokens: usize) -> Result<()> {
        let rtt_ms = self.channels.iter().map(|channel| channel.rtt_ms).fold(0.0, f64::max);
        let fed = tokens + usize::from(DRAFT_TOKENS_MAX);
        let answer_us = rtt_ms * 1e3 + self.server.pass_us + self.server.token_us * fed as f64;
        ensure!(
            answer_us <= ANSWER_US_MAX,
            "the target takes {:.1} s to answer a prompt of {tokens} tokens, longer than a device waits: take shorter \
             prompts, or give the time of a pass on the verifier's machine by --pass-ms",
            answer_us / 1e6
        );
        Ok(())
    }

    /// A plan with both ways at each round trip.
    pub fn plan(&self, conditions: &PairConditions) -> EvaluationPlan {
        let mut cells = Vec::new();
        for channel in &self.channels {
            cells.extend(WAYS.map(|policy| self.cell(policy, channel, conditions)));
        }
        EvaluationPlan {
            name: RUN.into(),
            seed: conditions.seed,
            pair: PathBuf::new(),
            boards_dir: PathBuf::new(),
            channels_dir: PathBuf::new(),
            prompts: 0,
            tokens_max: conditions.tokens_max,
            server: self.server,
            modelled: None,
            cells,
        }
    }

    /// The device decides by seconds: the board's powers don't belong to this machine's times.
    fn cell(&self, policy: Policy, channel: &Arc<ModelledChannel>, conditions: &PairConditions) -> Cell {
        let name = policy.name().to_owned();
        let setting = Setting { policy: name.clone(), label: name, rules: policy.rules() };
        Cell {
            run: RUN.into(),
            writer: Writer::Policy(Box::new(setting), Arc::clone(&self.machine), Arc::clone(channel)),
            temperature: conditions.temperature.into(),
            seeds: 1,
            tokens: false,
            size: None,
            server: self.server,
            objective: Objective::Seconds,
            costs_only: false,
            acceptance: None,
            learned: false,
        }
    }
}

/// Both ways at each round trip, from the records of [`TrafficPlan::plan`]'s cells in their order.
pub fn compare(records: &[CellRecord]) -> Vec<RoundTripFigures> {
    let both = |records: &[CellRecord]| {
        let (lossless, stream) = (WayFigures::of(&records[0]), WayFigures::of(&records[1]));
        let pays = lossless.tokens_per_s > stream.tokens_per_s;
        RoundTripFigures { rtt_ms: records[0].rtt_ms, lossless, stream, pays }
    };
    records.chunks_exact(WAYS.len()).map(both).collect()
}

impl WayFigures {
    fn of(record: &CellRecord) -> Self {
        let each = |count: u64| record.per_token(count as f64);
        Self {
            tokens_per_s: record.committed as f64 / record.seconds.max(1e-9),
            frames: each(record.frames_up),
            mqtt_up: each(record.mqtt_up),
            mqtt_down: each(record.mqtt_down),
            tls_up: each(record.tls_up),
            drafted: each(record.drafted),
            accepted: record.accepted as f64 / record.judged.max(1) as f64,
            passes: each(record.target_passes),
            modelled_j: record.per_token(record.joules()),
            identical: record.exact,
        }
    }
}
