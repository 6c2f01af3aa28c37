//! Radio traffic per committed token, for the demo pair and a toy pair with a modelled board and link.
//!
//! The last bits of the demo pair's rows, and sometimes a token, depend on the processor's kernels. So its figures are
//! compared with those of `radio.txt` within a band; `DUNLIN_RADIO=write` rewrites the file, and `DUNLIN_RADIO=default`
//! compares only the default policy's line, an eighth of the work. The toy's rows have the same bits everywhere, and its
//! table is a snapshot.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and speak")]

use dunlin_hlm::device::{
    Device, DeviceConfig, DraftJob, Learned, Offline, Origin, ReplyLimits, SessionIdentity,
};
use dunlin_hlm::policy::{PolicyTable, Rules};
use dunlin_hlm::probabilities::Sampling;
use dunlin_hlm::time::Duration;
use dunlin_hlm::verifier::{Slot, TargetDescription, Verifier, VerifierConfig, VerifyJob};
use dunlin_lm::{Draft, Extend, ModelDir, SessionId, Target, Toy};
use dunlin_lm_candle::CandleTarget;
use dunlin_lm_tract::Drafter;
use dunlin_sim::mqtt::{MessageKind, VERIFIER};
use dunlin_sim::quiet::{Carried, Costs, DrafterRow, Models, SessionOutcome, play};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

/// Held-out prompts of the table.
const PROMPTS: usize = 40;
/// Most tokens of one reply.
const TOKENS: usize = 48;
const SAMPLING: (f32, f32, u32) = (0.8, 1.0, 0);
/// Modelled times: 8 ms per drafted token, 30 ms per pass of the target, 40 ms each way on the link.
const COSTS: Costs = Costs { draft_us: 8_000, target_us: 30_000, link_us: 40_000 };
/// Relative difference allowed between a figure of the demo pair and the file's. Between AVX-512 and AVX2 it is up to
/// 0.03.
const BAND: f64 = 0.06;

struct Pair {
    drafter: Box<dyn Draft>,
    target: Box<dyn Target>,
    slots: BTreeMap<Slot, SessionId>,
    prompts: Vec<Vec<u32>>,
    stop: Vec<u32>,
}

impl Pair {
    fn demo() -> Self {
        let models = models();
        let dir = ModelDir::open(models.join("drafter")).unwrap();
        let (drafter, warnings) = Drafter::load(&dir).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        let target = CandleTarget::load(&ModelDir::open(models.join("target")).unwrap(), 64 << 20).unwrap();
        let prompts = prompts().iter().take(PROMPTS).map(|prompt| dir.first_turn(prompt).unwrap()).collect();
        let (drafter, target) = (Box::new(drafter), Box::new(target));
        Self { drafter, target, slots: BTreeMap::new(), prompts, stop: dir.prompt.stop }
    }

    fn toy() -> Self {
        let toy = Toy::new(3, 1024, 0.7);
        let prompts = (0..PROMPTS as u32).map(|i| (i..i + 12).collect()).collect();
        let (drafter, target) = (Box::new(toy.drafter()), Box::new(toy.target()));
        Self { drafter, target, slots: BTreeMap::new(), prompts, stop: (0..20).collect() }
    }
}

impl Models for Pair {
    fn draft(&mut self, job: &DraftJob) -> anyhow::Result<DrafterRow> {
        self.drafter.truncate(job.keep);
        let rows = self.drafter.extend(&job.tokens)?;
        let last = rows.len() - 1;
        Ok(DrafterRow { logits: rows.logits(last).into(), attention: rows.attention(last).map(Into::into) })
    }

    fn verify(&mut self, job: &VerifyJob) -> anyhow::Result<Vec<f32>> {
        let target = &mut self.target;
        let session = *self.slots.entry(job.slot).or_insert_with(|| target.open().unwrap());
        let part = Extend { session, keep: job.keep, tokens: &job.tokens, rows: job.rows };
        Ok(target.extend(&[part]).pop().unwrap()?)
    }
}

fn models() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/demo")
}

fn prompts() -> Vec<String> {
    let text = std::fs::read_to_string(models().join("prompts.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    json["prompts"].as_array().unwrap().iter().map(|prompt| prompt.as_str().unwrap().to_owned()).collect()
}

#[derive(Default)]
struct Sum {
    committed: usize,
    frames: usize,
    payload: usize,
    up: usize,
    up_all: usize,
    down: usize,
    drafted: u64,
    sent: u64,
    accepted: u64,
    seconds: f64,
}

impl Sum {
    fn add(&mut self, outcome: &SessionOutcome) {
        assert!(outcome.commits.iter().all(|commit| commit.origin != Origin::Unverified));
        self.committed += outcome.commits.len();
        self.frames += outcome.counters.frames_up as usize;
        self.drafted += outcome.counters.drafted;
        self.sent += outcome.counters.sent_drafts;
        self.accepted += outcome.counters.accepted;
        self.seconds += outcome.took.as_secs_f64();
        // The first messages on a session's frame topic are its context; the first of them binds the alias.
        for Carried { kind, payload, mqtt, .. } in &outcome.carried {
            self.up_all += if kind.is_up() { *mqtt } else { 0 };
            match kind {
                MessageKind::Draft => {
                    self.payload += payload;
                    self.up += mqtt;
                }
                MessageKind::Verdict => self.down += mqtt,
                _ => {}
            }
        }
    }

    fn line(&self, label: &str) -> String {
        let per = |x: usize| x as f64 / self.committed as f64;
        format!(
            "{label:<18} {:>6.2} {:>8.2} {:>8.1} {:>9.1} {:>10.1} {:>8.2} {:>10.2} {:>9.1}",
            per(self.frames),
            per(self.payload),
            per(self.up),
            per(self.up_all),
            per(self.down),
            self.drafted as f64 / self.committed as f64,
            self.accepted as f64 / (self.sent.max(1)) as f64,
            self.committed as f64 / self.seconds,
        )
    }
}

fn run(pair: &mut Pair, draft_tokens_max: u8, stop_rule: bool) -> Sum {
    let policy = PolicyTable {
        draft_tokens_max: Some(draft_tokens_max),
        stop_rule: Some(stop_rule),
        ..PolicyTable::default()
    };
    let mut learned = Learned::default();
    let mut sum = Sum::default();
    let vocabulary = pair.drafter.vocabulary();
    for (i, tokens) in pair.prompts.clone().iter().enumerate() {
        let config = DeviceConfig {
            vocabulary,
            prefixes: Default::default(),
            policy: Rules::new(&policy).unwrap(),
            offline: Offline::Wait,
            give_up_after: Duration::from_millis(10_000),
            context_tokens_max: pair.drafter.context_max(),
            accept_model_change: false,
        };
        let sampling = Sampling::new(SAMPLING.0, SAMPLING.1, SAMPLING.2).unwrap();
        let session = SessionIdentity { number: 1, epoch: 1, nonce: i as u64, seed: i as u64, sampling };
        let mut device = Device::new(config, session, learned).unwrap();
        let mut verifier = Verifier::new(VerifierConfig {
            id: VERIFIER.parse().unwrap(),
            vocabulary,
            prefixes: Default::default(),
            target: TargetDescription::default(),
            context_tokens_max: pair.target.context_max() as u32,
            sessions_max: 1,
            draft_tokens_max: 16,
            credit_tokens_max: 0,
            continuation_tokens: 8,
            continuation_interval: Duration::from_millis(100),
            lossy: true,
            idle_max: Duration::from_millis(600_000),
        })
        .unwrap();
        let reply = ReplyLimits { tokens_max: TOKENS, stop: pair.stop.clone() };
        sum.add(&play(&mut device, &mut verifier, pair, &mut COSTS.clone(), tokens, reply).unwrap());
        for (_, session) in std::mem::take(&mut pair.slots) {
            pair.target.close(session);
        }
        learned = device.learned();
    }
    sum
}

/// A line of the table: the stop rule, and most tokens of a draft.
type Line = (bool, u8);
const LINES: [Line; 8] =
    [(false, 1), (false, 4), (false, 8), (false, 16), (true, 1), (true, 4), (true, 8), (true, 16)];

/// The table of a pair, and the sum of its last line. That of `LINES` is the default policy's.
fn table(pair: &mut Pair, what: &str, lines: &[Line]) -> (String, Sum) {
    let mut table = String::new();
    writeln!(table, "{PROMPTS} {what}, at most {TOKENS} tokens each, temperature {}", SAMPLING.0).unwrap();
    writeln!(table, "modelled: draft 8 ms a token, target 30 ms a pass, link 40 ms each way").unwrap();
    writeln!(table, "per committed token, but acceptance (accepted / sent drafts) and tokens per second\n")
        .unwrap();
    let heads =
        ["frames", "payload", "MQTT up", "with open", "MQTT down", "drafts", "acceptance", "tokens/s"];
    let [a, b, c, d, e, f, g, h] = heads;
    writeln!(table, "{:<18} {a:>6} {b:>8} {c:>8} {d:>9} {e:>10} {f:>8} {g:>10} {h:>9}", "").unwrap();
    let mut last = Sum::default();
    for &(stop_rule, limit) in lines {
        last = run(pair, limit, stop_rule);
        let rule = if stop_rule { "stop rule" } else { "full frames" };
        writeln!(table, "{}", last.line(&format!("{rule}, {limit}"))).unwrap();
    }
    (table, last)
}

/// True when two words are equal, or numbers within the band and one unit of their last digit.
fn near(here: &str, file: &str) -> bool {
    let (Ok(a), Ok(b)) = (here.parse::<f64>(), file.parse::<f64>()) else { return here == file };
    let decimals = file.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    let unit = 0.1f64.powi(decimals as i32);
    (a - b).abs() <= BAND * b.abs() + 1.01 * unit
}

/// The lines of a table that differ from the file's by more than the band.
fn apart(here: &str, file: &str) -> Vec<String> {
    let words = |line: &str| line.split_whitespace().map(String::from).collect::<Vec<_>>();
    let mut apart = Vec::new();
    for i in 0..here.lines().count().max(file.lines().count()) {
        let line = |text: &str| text.lines().nth(i).map(words).unwrap_or_default();
        let (here, file) = (line(here), line(file));
        if here.len() != file.len() || !here.iter().zip(&file).all(|(here, file)| near(here, file)) {
            apart.push(format!("{} instead of {}", here.join(" "), file.join(" ")));
        }
    }
    apart
}

#[test]
fn frames_and_bytes_per_committed_token() {
    let wish = std::env::var("DUNLIN_RADIO").unwrap_or_default();
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/radio.txt");
    let first = if wish == "default" { LINES.len() - 1 } else { 0 };
    let (table, default) = table(&mut Pair::demo(), "held-out prompts", &LINES[first..]);
    println!("{table}");
    if wish == "write" {
        std::fs::write(&path, &table).unwrap();
    }
    let mut file: Vec<String> = std::fs::read_to_string(path).unwrap().lines().map(String::from).collect();
    let heads = file.len() - LINES.len();
    file.drain(heads..heads + first);
    let apart = apart(&table, &file.join("\n"));
    assert!(apart.is_empty(), "beyond the band: {apart:#?}");
    assert!(default.frames as f64 <= 0.30 * default.committed as f64, "frames of the default policy");
    assert!(default.up as f64 <= 12.0 * default.committed as f64, "MQTT bytes of the default policy");
}

#[test]
fn a_toy_takes_the_same_frames_and_bytes_on_every_processor() {
    insta::assert_snapshot!("toy", table(&mut Pair::toy(), "prompts of a toy", &LINES).0);
}

#[test]
fn figures_beyond_the_band_are_found() {
    let file = "toy, 4  0.50 12 x\n7.00\n";
    assert!(apart(file, file).is_empty());
    assert!(apart("toy, 4  0.54 13 x\n7.43\n", file).is_empty());
    for (other, count) in [
        ("toy, 4  0.55 12 x\n7.00\n", 1),
        ("toy, 4  0.45 12 y\n7.44\n", 2),
        ("toy, 4  0.50 12\n7.00\n", 1),
        ("toy, 4  0.50 12 x\n7.00\n8\n", 1),
        ("toy, 4  0.50 12 x\n", 1),
        ("toy, 4  NaN 12 x\n7.00\n", 1),
    ] {
        assert_eq!(apart(other, file).len(), count, "{other}");
    }
}
