//! Many sessions of light clients at one verifier, for `make bench`: the real protocol machine and the real target's
//! thread, over a scripted target of settable cost, without a broker.
//!
//! `crowd [PASS_US TOKEN_US [SESSIONS]]` prints one line of JSON. Without arguments it measures two targets: one that
//! costs nothing, and one of 2 ms a pass and 20 µs a token.

use anyhow::{Context, Result, bail, ensure};
use dunlin_hlm::TokenId;
use dunlin_hlm::passes::{BATCH_JOBS_MAX, PassPrices};
use dunlin_hlm::time::{Duration as Span, Instant as Now};
use dunlin_hlm::verifier::{TargetDescription, Verifier, VerifierConfig, VerifierEvent};
use dunlin_lm::{Extend, Target, Toy, ToyTarget, Vocabulary, WithExtend};
use dunlin_verifier::engine::memory_mib;
use dunlin_verifier::worker::{Batch, WorkBounds, Worker};
use dunlin_wire::{
    Context as Chunk, DeviceId, Down, Draft, DraftFrame, Open, PREFIX_EMPTY, PrefixDigest, Rows,
    SamplingParams, Score, token_bits,
};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::{Write, stdout};
use std::time::{Duration, Instant};
use std::{env, process};
use tokio::runtime;
use tokio::time::sleep_until;

const VOCABULARY: u32 = 256;
/// Tokens of a prompt; all begin with the same ones but the last.
const PROMPT: usize = 64;
const DRAFTS: usize = 4;
/// Time from a verdict to the client's next frame.
const THINK: Duration = Duration::from_millis(20);
/// Time before the measured part, in which all contexts are read, and time of it.
const WARM_UP: Duration = Duration::from_millis(3000);
const MEASURED: Duration = Duration::from_millis(4000);
const SESSIONS: [usize; 3] = [100, 500, 1000];
const WORK_MAX: usize = 256;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let numbers = arguments.iter().map(|argument| argument.parse().context("a number"));
    let costs = match numbers.collect::<Result<Vec<u64>>>()?.as_slice() {
        [] => vec![(0, 0), (2000, 20)],
        [pass_us, token_us] => vec![(*pass_us, *token_us)],
        [pass_us, token_us, sessions] => {
            let cost = Cost { pass_us: *pass_us, token_us: *token_us };
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            let case = runtime.block_on(measure(cost, *sessions as usize))?;
            return writeln!(stdout(), "{case}").context("standard output");
        }
        _ => bail!("usage: crowd [PASS_US TOKEN_US [SESSIONS]]"),
    };
    let mut cases: Vec<Value> = Vec::new();
    for (pass_us, token_us) in costs {
        for sessions in SESSIONS {
            // A process of its own, so that its memory is that of these sessions.
            let mut child = process::Command::new(env::current_exe().context("this program's path")?);
            child.args([pass_us.to_string(), token_us.to_string(), sessions.to_string()]);
            let output = child.stderr(process::Stdio::inherit()).output().context("a run")?;
            ensure!(output.status.success(), "a run of {sessions} sessions failed");
            cases.push(serde_json::from_slice(&output.stdout).context("a run's figures")?);
        }
    }
    writeln!(stdout(), "{}", json!({ "cases": cases })).context("standard output")
}

/// The time of a pass.
#[derive(Clone, Copy)]
struct Cost {
    pass_us: u64,
    token_us: u64,
}

/// A scripted target whose passes take their time.
fn priced(toy: Toy, cost: Cost) -> impl Target + 'static {
    let extend = move |target: &mut ToyTarget, batch: &[Extend<'_>]| {
        let started = Instant::now();
        let tokens: usize = batch.iter().map(|part| part.tokens.len()).sum();
        let answers = target.extend(batch);
        let took = Duration::from_micros(cost.pass_us + cost.token_us * tokens as u64);
        #[allow(clippy::disallowed_methods, reason = "a pass takes as long as it is told")]
        std::thread::sleep(took.saturating_sub(started.elapsed()));
        answers
    };
    WithExtend { target: toy.target(), extend }
}

/// A device with one session, whose drafts are what the target writes.
struct Client {
    id: DeviceId,
    text: Vec<TokenId>,
    prefix: PrefixDigest,
    round: u32,
    sent: Instant,
}

impl Client {
    fn new(number: usize) -> Result<Self> {
        let text: Vec<TokenId> =
            (1..PROMPT as u32).chain([number as u32]).map(|token| token % VOCABULARY).collect();
        let prefix = text.iter().fold(PREFIX_EMPTY, |digest, token| digest.push(*token));
        let id = format!("d{number}").parse().context("an id")?;
        Ok(Self { id, text, prefix, round: 0, sent: Instant::now() })
    }

    fn open(&self, vocabulary: Vocabulary) -> Result<Vec<u8>> {
        let sampling = SamplingParams { temperature: 0.0, top_p: 1.0, top_k: 0 };
        let open =
            Open { session: 1, epoch: 1, nonce: 1, seed: 1, sampling, vocabulary, length: PROMPT as u32 };
        Ok(open.encode()?.to_vec())
    }

    fn context(&self) -> Result<Vec<u8>> {
        let tokens = self.text.iter().copied().collect();
        let (prefix, token_bits) = (PREFIX_EMPTY.short(), token_bits(VOCABULARY));
        let chunk = Chunk { session: 1, epoch: 1, offset: 0, prefix, token_bits, tokens };
        Ok(chunk.encode()?.to_vec())
    }

    fn frame(&mut self, toy: &Toy) -> Result<Vec<u8>> {
        self.round += 1;
        self.sent = Instant::now();
        let mut text = self.text[self.text.len() - toy.order..].to_vec();
        for _ in 0..DRAFTS {
            text.push(best(&toy.target_logits(&text)));
        }
        let score = Score::default();
        let draft = |token: &TokenId| Draft { token: *token, uncertainty: score, importance: score };
        let frame = DraftFrame {
            session: 1,
            epoch: 1,
            round: self.round,
            send: 1,
            base: self.text.len() as u32,
            prefix: self.prefix.short(),
            token_bits: token_bits(VOCABULARY),
            drafts: text[toy.order..].iter().map(draft).collect(),
            held: 0,
            bonus: true,
            rows: Rows::None,
            credit: None,
        };
        // What the verdict must confirm, all but its own token.
        text.drain(..toy.order);
        text.into_iter().for_each(|token| self.push(token));
        Ok(frame.encode()?.to_vec())
    }

    fn push(&mut self, token: TokenId) {
        self.text.push(token);
        self.prefix = self.prefix.push(token);
    }
}

/// The token with the largest logit, the first of several.
fn best(logits: &[f32]) -> TokenId {
    let best = (0..logits.len()).rev().max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
    best.unwrap_or(0) as TokenId
}

/// The verifier's machine and thread, as its loop drives them.
struct Stand {
    machine: Verifier,
    worker: Worker,
    backlog: VecDeque<VerifierEvent>,
    prices: PassPrices,
    started: Instant,
}

impl Stand {
    fn new(cost: Cost, toy: Toy, sessions: usize) -> Result<Self> {
        let target = priced(toy, cost);
        let machine = VerifierConfig {
            id: "crowd".parse().context("an id")?,
            vocabulary: target.vocabulary(),
            prefixes: Default::default(),
            target: TargetDescription::default(),
            context_tokens_max: toy.context_max as u32,
            sessions_max: sessions,
            draft_tokens_max: 16,
            credit_tokens_max: 0,
            continuation_tokens: 8,
            continuation_interval: Span::from_millis(100),
            lossy: false,
            idle_max: Span::from_millis(600_000),
        };
        let bounds = WorkBounds {
            work: WORK_MAX,
            jobs: sessions + BATCH_JOBS_MAX,
            prefill: None,
            measured: Default::default(),
        };
        Ok(Self {
            machine: Verifier::new(machine)?,
            worker: Worker::start(Box::new(target), bounds)?,
            backlog: VecDeque::new(),
            prices: PassPrices::default(),
            started: Instant::now(),
        })
    }

    fn now(&self) -> Now {
        Now(self.started.elapsed().as_micros() as u64)
    }

    fn hand_work_over(&mut self) {
        while let Some(work) = self.machine.poll_event() {
            self.backlog.push_back(work);
        }
        while let Some(work) = self.backlog.pop_front() {
            if let Err(work) = self.worker.push(work) {
                self.backlog.push_front(work);
                return;
            }
        }
    }

    fn on_batch(&mut self, batch: &Batch) {
        let span = |time: Duration| Span(time.as_micros() as u64);
        self.prices.observe(batch.size, span(batch.took), span(batch.waited));
        self.machine.set_price(self.prices.price());
        self.hand_work_over();
        self.worker.hand_over();
        let now = self.now();
        batch.dropped.iter().for_each(|id| self.machine.handle_rows(*id, Ok(&[]), now));
        for (id, rows) in &batch.rows {
            self.machine.handle_rows(*id, rows.as_deref().map_err(|error| *error), now);
        }
    }
}

/// Runs so many clients in a closed loop; the figures as JSON.
async fn measure(cost: Cost, sessions: usize) -> Result<Value> {
    let before = memory_mib().unwrap_or_default();
    let toy = Toy { context_max: 1 << 16, ..Toy::new(7, VOCABULARY, 1.0) };
    let mut stand = Stand::new(cost, toy, sessions)?;
    let vocabulary = toy.target().vocabulary();
    let mut clients = (0..sessions).map(Client::new).collect::<Result<Vec<_>>>()?;
    let mut due: VecDeque<(Instant, usize)> = VecDeque::new();
    for (number, client) in clients.iter().enumerate() {
        stand.machine.handle_open(&client.id, &client.open(vocabulary)?, None, stand.now());
        stand.machine.handle_frame(&client.id, &client.context()?, stand.now());
        due.push_back((stand.started + THINK * number as u32 / sessions as u32, number));
    }
    while stand.machine.poll_transmit().is_some() {}
    let (from, until) = (stand.started + WARM_UP, stand.started + WARM_UP + MEASURED);
    let (mut waits, mut jobs, mut passes) = (Vec::new(), 0, 0);
    while Instant::now() < until {
        while let Some((at, number)) = due.front().copied()
            && at <= Instant::now()
        {
            due.pop_front();
            let client = &mut clients[number];
            let frame = client.frame(&toy)?;
            stand.machine.handle_frame(&client.id, &frame, stand.now());
        }
        stand.hand_work_over();
        let next = due.front().map_or(until, |(at, _)| *at).min(until);
        tokio::select! {
            batch = stand.worker.next() => {
                let batch = batch.context("the target's thread died")?;
                passes += u64::from(Instant::now() > from);
                jobs += if Instant::now() > from { batch.rows.len() as u64 } else { 0 };
                stand.on_batch(&batch);
            }
            () = sleep_until(next.into()) => {}
        }
        while let Some(answer) = stand.machine.poll_transmit() {
            let number: usize = answer.device.as_str()[1..].parse()?;
            let client = &mut clients[number];
            let Down::Verdict(verdict) = Down::decode(&answer.bytes)? else { bail!("no verdict") };
            ensure!(usize::from(verdict.accepted) == DRAFTS, "a draft of the target's own was rejected");
            client.push(verdict.token);
            let now = Instant::now();
            if now > from {
                waits.push(now.duration_since(client.sent).as_secs_f64() * 1e3);
            }
            due.push_back((now + THINK, number));
        }
    }
    waits.sort_by(f64::total_cmp);
    let at = |share: f64| waits.get((waits.len() as f64 * share) as usize).copied().unwrap_or_default();
    let mib = memory_mib().unwrap_or_default();
    Ok(json!({
        "pass_us": cost.pass_us,
        "token_us": cost.token_us,
        "sessions": sessions,
        "rounds_per_second": waits.len() as f64 / MEASURED.as_secs_f64(),
        "p50_ms": at(0.5),
        "p99_ms": at(0.99),
        "jobs_per_pass": jobs as f64 / passes.max(1) as f64,
        "memory_mib": mib,
        "kib_per_session": mib.saturating_sub(before) as f64 * 1024.0 / sessions as f64,
    }))
}
