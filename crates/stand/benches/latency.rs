//! The latency of a round without the target: from frame sent to verdict received, through a real mosquitto and the
//! real verifier with a scripted target. For comparison, a bare ping-pong of the same bytes through the same mosquitto.
//!
//! Both use the same hand-written client, so that neither figure includes the device's own software.

mod support;

use anyhow::{Context, Result, bail, ensure};
use dunlin_hlm::coupling::couple;
use dunlin_hlm::probabilities::{Distribution, Sampling};
use dunlin_lm::{Extend, Target, Toy};
use dunlin_mosquitto::{Mosquitto, MosquittoOptions, SITE, url};
use dunlin_verifier::reference::{Request, write};
use dunlin_wire::topic::Topic;
use dunlin_wire::{
    Context as Chunk, DeviceId, Down, Draft, DraftFrame, Open, PREFIX_EMPTY, PrefixDigest, Reply, Rows,
    SamplingParams, Score, Vocabulary, token_bits,
};
use serde_json::json;
use std::env;
use std::hint::black_box;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use support::mqtt::Client;
use support::report;

/// Vocabulary of the demo pair.
const VOCABULARY: u32 = 2048;
const SEED: u64 = 7;
const TEMPERATURE: f32 = 0.8;
/// Drafts in each frame; all are accepted, which is the most work for the verifier.
const DRAFTS: usize = 8;
/// Blocks of rounds and of ping-pongs; they alternate, so that a disturbance affects both.
const BLOCKS: usize = 10;
const BLOCK: usize = 200;
/// Rounds that are not counted.
const WARM_UP: usize = 100;
const PROMPT: usize = 16;

fn main() -> Result<()> {
    let verifier = env::args().nth(1).filter(|argument| !argument.starts_with('-'));
    let Some(verifier) = verifier else { bail!("usage: latency PATH_OF_THE_EXAMPLE_scripted") };
    let mosquitto = Mosquitto::started(&MosquittoOptions { lines: SITE, ..MosquittoOptions::default() })?;
    let port = mosquitto.port;
    let _verifier = scripted(&verifier, port)?;
    let mut device = Device::open(port)?;
    let mut bare = PingPong::start(port)?;
    for _ in 0..WARM_UP {
        device.round()?;
        bare.round(device.up_bytes, device.down_bytes)?;
    }
    let (mut rounds, mut pings) = (Vec::new(), Vec::new());
    for _ in 0..BLOCKS {
        for _ in 0..BLOCK {
            rounds.push(micros(device.round()?));
        }
        for _ in 0..BLOCK {
            pings.push(micros(bare.round(device.up_bytes, device.down_bytes)?));
        }
    }
    let (up, down) = (device.up_bytes, device.down_bytes);
    let (target, draws) = computing()?;
    report(&json!({
        "round_us": rounds,
        "bare_us": pings,
        "target_us": target,
        "sampling_us": draws,
        "up_bytes": up,
        "down_bytes": down,
    }))
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn toy() -> Toy {
    let context_max = PROMPT + (WARM_UP + BLOCKS * BLOCK + 1) * (DRAFTS + 1);
    Toy { context_max, ..Toy::new(SEED, VOCABULARY, 1.0) }
}

/// A process that is killed when this is dropped.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        // Ignore the error: it may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the verifier with the scripted target and waits until it is ready.
fn scripted(program: &str, port: u16) -> Result<Guarded> {
    let toy = toy();
    let mut command = Command::new(program);
    command.arg(url(port));
    command.args([SEED.to_string(), VOCABULARY.to_string(), toy.context_max.to_string()]);
    command.env("RUST_LOG", "off").stdin(Stdio::null()).stdout(Stdio::piped());
    let mut process = Guarded(command.spawn().with_context(|| program.to_owned())?);
    let output = process.0.stdout.take().context("its output is a pipe")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    ensure!(line == "ready\n", "the scripted verifier did not start");
    Ok(process)
}

/// Microseconds of the scripted target and of sampling its rows by shared seed, the computing parts of a round.
fn computing() -> Result<(Vec<f64>, Vec<f64>)> {
    let mut target = toy().target();
    let session = target.open()?;
    let tokens = [1; DRAFTS + 1];
    let part = Extend { session, keep: 0, tokens: &tokens, rows: DRAFTS + 1 };
    let (sampling, mut distribution) = (sampling()?, Distribution::certain(0));
    let (mut passes, mut draws) = (Vec::new(), Vec::new());
    for _ in 0..BLOCK {
        let started = Instant::now();
        let rows = target.extend(&[part]).pop().context("an answer")??;
        passes.push(micros(started.elapsed()));
        let started = Instant::now();
        for (position, row) in rows.chunks_exact(VOCABULARY as usize).enumerate() {
            distribution.refill(row, &sampling)?;
            black_box(couple(&distribution, SEED, position as u64));
        }
        draws.push(micros(started.elapsed()));
    }
    Ok((passes, draws))
}

fn sampling() -> Result<Sampling> {
    Sampling::new(TEMPERATURE, 1.0, 0).ok().context("a temperature")
}

/// A device with one session, whose drafts are the tokens that the target will choose.
struct Device {
    client: Client,
    topic: String,
    text: Vec<u32>,
    length: usize,
    prefix: PrefixDigest,
    round: u32,
    up_bytes: usize,
    down_bytes: usize,
}

impl Device {
    fn open(port: u16) -> Result<Self> {
        let id: DeviceId = "bench".parse().ok().context("an id")?;
        let sampling = sampling()?;
        let toy = toy();
        let prompt: Vec<u32> = (1..=PROMPT as u32).collect();
        let request = Request {
            prompt: prompt.clone(),
            tokens_max: toy.context_max,
            stop: Vec::new(),
            sampling,
            seed: SEED,
        };
        let text = [prompt.clone(), write(&mut toy.target(), &request)?.0].concat();
        let mut client = Client::connect(port, "bench", "dl1/d/bench/n/#")?;
        let described = toy.target().vocabulary();
        let open = Open {
            session: 1,
            epoch: 1,
            nonce: 1,
            seed: SEED,
            sampling: SamplingParams { temperature: TEMPERATURE, top_p: 1.0, top_k: 0 },
            vocabulary: Vocabulary { size: described.size, fingerprint: described.fingerprint },
            length: 0,
        };
        let verifier = "verifier-1".parse().ok().context("an id")?;
        client.send(&Topic::Open(id.clone(), verifier).name(), &open.encode()?)?;
        let Reply::Lease(lease) = Reply::decode(client.receive()?)? else {
            bail!("the verifier gives no lease")
        };
        let topic = Topic::Frames(id, lease.verifier).name().as_str().to_owned();
        let bits = token_bits(VOCABULARY);
        let (prefix, tokens) = (PREFIX_EMPTY.short(), prompt.iter().copied().collect());
        let chunk = Chunk { session: 1, epoch: 1, offset: 0, prefix, token_bits: bits, tokens };
        client.send(&topic, &chunk.encode()?)?;
        let prefix = prompt.iter().fold(PREFIX_EMPTY, |digest, token| digest.push(*token));
        Ok(Self { client, topic, text, length: PROMPT, prefix, round: 0, up_bytes: 0, down_bytes: 0 })
    }

    /// Sends a frame and waits for its verdict.
    fn round(&mut self) -> Result<Duration> {
        self.round += 1;
        let drafts = &self.text[self.length..self.length + DRAFTS];
        let score = Score::default();
        let draft = |token: &u32| Draft { token: *token, uncertainty: score, importance: score };
        let frame = DraftFrame {
            session: 1,
            epoch: 1,
            round: self.round,
            send: 1,
            base: self.length as u32,
            prefix: self.prefix.short(),
            token_bits: token_bits(VOCABULARY),
            drafts: drafts.iter().map(draft).collect(),
            held: 0,
            bonus: true,
            rows: Rows::None,
            credit: None,
        };
        let bytes = frame.encode()?;
        let started = Instant::now();
        self.client.send(&self.topic, &bytes)?;
        let answer = self.client.receive()?;
        let took = started.elapsed();
        (self.up_bytes, self.down_bytes) = (bytes.len(), answer.len());
        let Down::Verdict(verdict) = Down::decode(answer)? else { bail!("no verdict") };
        let end = self.length + DRAFTS + 1;
        let as_written = usize::from(verdict.accepted) == DRAFTS && verdict.token == self.text[end - 1];
        ensure!(verdict.round == self.round && as_written, "another verdict than the target's text asks for");
        self.prefix =
            self.text[self.length..end].iter().fold(self.prefix, |digest, token| digest.push(*token));
        self.length = end;
        Ok(took)
    }
}

/// A client that sends and a client that answers, with only the broker between them.
struct PingPong {
    client: Client,
}

/// A topic as long as those of frames and verdicts.
const PING: &str = "dl1/d/bench/x/f/verifier-1";
const PONG: &str = "dl1/d/bench/y/c";

impl PingPong {
    fn start(port: u16) -> Result<Self> {
        let mut other = Client::connect(port, "bench-pong", PING)?;
        thread::spawn(move || -> Result<()> {
            loop {
                // The first byte is the number of bytes to answer with.
                let length = *other.receive()?.first().context("an empty ping")?;
                other.send(PONG, &vec![0; usize::from(length)])?;
            }
        });
        Ok(Self { client: Client::connect(port, "bench-ping", PONG)? })
    }

    fn round(&mut self, up: usize, down: usize) -> Result<Duration> {
        let mut ping = vec![0; up];
        ping[0] = u8::try_from(down)?;
        let started = Instant::now();
        self.client.send(PING, &ping)?;
        let answer = self.client.receive()?.len();
        let took = started.elapsed();
        ensure!(answer == down, "another pong than asked for");
        Ok(took)
    }
}
