//! Three verifiers and eight agents; verifiers are killed or stopped in the middle of replies. Every text is the target's
//! own, and the gap in it is short. `DUNLIN_FAILOVER=N` strikes N times of each kind and holds the gaps to their limits;
//! without it there are a few strikes, and the gaps are only reported, since the machine may be busy with other tests.

use crate::paced;
use crate::processes::{AgentProcess, Ask, VerifierProcess, model, prompts};
use crate::reference::Reference;
use dunlin_link::raw::RawClient;
use dunlin_mosquitto::{Mosquitto, OPEN};
use dunlin_stand::process::Process;
use dunlin_wire::{Down, LogTime};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const AGENTS: [&str; 8] = ["fail-0", "fail-1", "fail-2", "fail-3", "fail-4", "fail-5", "fail-6", "fail-7"];
const VERIFIERS: [&str; 3] = ["failing-1", "failing-2", "failing-3"];
/// Strikes of each kind in the short form.
const STRIKES: usize = 3;
/// Time of a pass where verifiers are stopped, in the short and in the long form. The long one is long beside the round
/// trips that it takes to find out, and to ask another verifier.
const PASSES: [Duration; 2] = [Duration::from_millis(1_000), Duration::from_millis(2_000)];
/// Longest gap where verifiers are killed.
const KILLED_MAX: Duration = Duration::from_secs(1);
/// Longest gap where verifiers are stopped, in announced times of a frame.
const STOPPED_MAX: f64 = 3.0;
const TOKENS: usize = 24;
/// Policies of the agents; every fourth one has the second.
const POLICIES: [&str; 2] = ["lossless", "stream"];
/// Prompts, which all agents share.
const PROMPTS: usize = 8;
const SEED: u64 = 11;
const TEMPERATURE: f32 = 1.0;

/// The time of a frame, queue and pass, as each device's last answer announced it.
type Promises = BTreeMap<String, Duration>;

/// The promises that went over the broker.
#[derive(Clone)]
struct Announced(Arc<Mutex<Promises>>);

impl Announced {
    fn listen(broker: u16) -> Self {
        let announced = Self(Arc::default());
        let heard = announced.clone();
        let mut client = RawClient::connect(broker, "listener", &["dl1/d/+/n/c"]);
        std::thread::spawn(move || {
            while let Some(message) = client.blocking_next() {
                let (pass, queue) = match Down::decode(&message.payload) {
                    Ok(Down::Verdict(verdict)) => (verdict.pass, verdict.queue),
                    Ok(Down::Continuation(text)) => (text.pass, text.queue),
                    _ => continue,
                };
                let us = |time: LogTime| time.us().unwrap_or(0);
                let device = message.topic.split('/').nth(2).unwrap().to_owned();
                heard.0.lock().unwrap().insert(device, Duration::from_micros(us(pass) + us(queue)));
            }
        });
        announced
    }

    fn now(&self) -> Promises {
        self.0.lock().unwrap().clone()
    }
}

/// A strike, and the announced times of a frame then.
struct Strike {
    at: Instant,
    announced: Promises,
}

/// A reply: the prompt's number, and each token with the time at which it was shown.
struct TimedReply {
    device: &'static str,
    policy: &'static str,
    prompt: usize,
    tokens: Vec<(Instant, u32)>,
    /// Requests for a lease.
    opens: u64,
    resent: u64,
}

/// All agents of a run, each in a thread that asks one prompt after the other.
struct Crowd {
    threads: Vec<JoinHandle<Vec<TimedReply>>>,
    /// The number of an agent for each token that it shows.
    shown: Receiver<usize>,
    stop: Arc<AtomicBool>,
}

/// Writes until it is told to stop.
fn write(
    ask: Ask,
    number: usize,
    prompts: &[String],
    stop: &AtomicBool,
    shown: &Sender<usize>,
) -> Vec<TimedReply> {
    let mut agent = AgentProcess::start(&ask);
    let mut replies = Vec::new();
    for prompt in (0..prompts.len()).cycle().skip(number) {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        agent.ask(&prompts[prompt]);
        replies.push(read(&mut agent, (ask.device, ask.policy, prompt), || {
            // Nobody counts any more once the strikes are over.
            let _ = shown.send(number);
        }));
    }
    replies
}

fn read(
    agent: &mut AgentProcess,
    (device, policy, prompt): (&'static str, &'static str, usize),
    shown: impl Fn(),
) -> TimedReply {
    let mut tokens = Vec::new();
    loop {
        let event = agent.event();
        match event["event"].as_str().unwrap() {
            "token" => {
                tokens.push((Instant::now(), event["token"].as_u64().unwrap() as u32));
                shown();
            }
            "finished" => {
                let count = |name: &str| event[name].as_u64().unwrap();
                assert_eq!(count("unverified_tokens"), 0, "{event}");
                let (opens, resent) = (count("opens"), count("resent"));
                return TimedReply { device, policy, prompt, tokens, opens, resent };
            }
            "error" => panic!("{event}"),
            _ => {}
        }
    }
}

impl TimedReply {
    /// The longer one of the gap in which a strike fell and the next, in case an answer was on its way; `None` outside of
    /// the reply.
    fn gap_at(&self, strike: Instant) -> Option<Duration> {
        let hit = self.tokens.windows(2).skip_while(|pair| pair[1].0 <= strike);
        let gap = |pair: &[(Instant, u32)]| pair[1].0 - pair[0].0;
        (self.tokens[0].0 <= strike).then(|| hit.take(2).map(gap).max())?
    }
}

impl Crowd {
    fn start(broker: u16, prompts: &Arc<Vec<String>>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, shown) = channel();
        let writer = |(number, device)| {
            let policy = POLICIES[usize::from(number % 4 == 3)];
            let (seed, temperature, tokens_max) = (SEED, TEMPERATURE, TOKENS);
            let ask = Ask { broker, device, seed, temperature, tokens_max, policy };
            let (prompts, stop, sender) = (Arc::clone(prompts), Arc::clone(&stop), sender.clone());
            std::thread::spawn(move || write(ask, number, &prompts, &stop, &sender))
        };
        let threads = AGENTS.into_iter().enumerate().map(writer).collect();
        Self { threads, shown, stop }
    }

    /// Waits until every agent has shown so many tokens more.
    fn go_on(&self, tokens: usize) {
        let mut more = [0; AGENTS.len()];
        // What was shown before counts for nothing.
        self.shown.try_iter().for_each(drop);
        while more.iter().any(|count| *count < tokens) {
            more[self.shown.recv().expect("an agent that goes on")] += 1;
        }
    }

    fn end(self) -> Vec<TimedReply> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    }
}

/// Prompts with a long reply, each with the target's own.
fn expected() -> (Arc<Vec<String>>, Vec<Vec<u32>>) {
    let mut reference = Reference::load();
    let replies = prompts().into_iter().map(|prompt| {
        let tokens = reference.tokens(&prompt, SEED, TEMPERATURE, TOKENS);
        (prompt, tokens)
    });
    let (prompts, texts) = replies.filter(|(_, tokens)| tokens.len() == TOKENS).take(PROMPTS).unzip();
    (Arc::new(prompts), texts)
}

/// Strikes of a kind: the longest gap in each text that was hit.
struct Findings {
    strikes: usize,
    replies: usize,
    resent: u64,
    gaps: Vec<Duration>,
    /// The same gaps as parts of the announced time of a frame.
    shares: Vec<f64>,
}

impl Findings {
    /// Compares every text, and measures those that asked for another lease after a strike.
    fn of(replies: &[&TimedReply], texts: &[Vec<u32>], strikes: &[Strike]) -> Self {
        let (mut gaps, mut shares) = (Vec::new(), Vec::new());
        for reply in replies {
            let tokens: Vec<u32> = reply.tokens.iter().map(|(_, token)| *token).collect();
            assert_eq!(tokens, texts[reply.prompt], "prompt {}", reply.prompt);
            let hit = strikes.iter().filter(|_| reply.opens > 1);
            let hit = hit.filter_map(|strike| Some((reply.gap_at(strike.at)?, strike)));
            if let Some((gap, strike)) = hit.max_by_key(|(gap, _)| *gap) {
                gaps.push(gap);
                shares.push(gap.as_secs_f64() / strike.announced[reply.device].as_secs_f64());
            }
        }
        let resent = replies.iter().map(|reply| reply.resent).sum();
        gaps.sort_unstable();
        shares.sort_unstable_by(f64::total_cmp);
        Self { strikes: strikes.len(), replies: replies.len(), resent, gaps, shares }
    }

    /// Index of the 99th percentile: of fewer than a hundred the largest.
    fn p99(&self) -> usize {
        (self.gaps.len() * 99).div_ceil(100) - 1
    }

    /// Prints the findings and writes them to the report.
    fn report(&self, kind: &str) {
        let Self { strikes, replies, resent, gaps, shares } = self;
        let (hit, p99) = (gaps.len(), self.p99());
        let (gap, median, share) = (gaps[p99], gaps[hit / 2], shares[p99]);
        println!(
            "{kind}: {strikes} strikes hit {hit} texts of {replies}, all identical; gap p99 {gap:?}, median {median:?}, \
             p99 {share:.2} announced frames"
        );
        let own = std::env::current_exe().unwrap();
        let path = own.ancestors().nth(3).unwrap().join("failover");
        let file = path.join("report.json");
        static REPORT: Mutex<()> = Mutex::new(());
        let _one_at_a_time = REPORT.lock().unwrap();
        std::fs::create_dir_all(path).unwrap();
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let mut report: Value = serde_json::from_str(&text).unwrap_or_else(|_| json!({}));
        report[kind] = json!({
            "strikes": strikes, "replies": replies, "identical": true, "texts_hit": hit, "resent": resent,
            "gap_p99_ms": gap.as_millis() as u64, "gap_median_ms": median.as_millis() as u64,
            "gap_p99_announced_frames": share,
        });
        std::fs::write(file, serde_json::to_string_pretty(&report).unwrap()).unwrap();
    }

    /// Reports, and in the long form compares: `short` says of a gap and its share whether it is short enough.
    fn judge(&self, kind: &str, short: impl Fn(Duration, f64) -> bool) {
        if self.gaps.is_empty() {
            assert!(wanted().is_none(), "no strike hit a text of {kind}");
            return println!("{kind}: {} strikes hit no text; all {} identical", self.strikes, self.replies);
        }
        self.report(kind);
        if wanted().is_some() {
            let p99 = self.p99();
            assert!(short(self.gaps[p99], self.shares[p99]), "{:?} {:?}", self.gaps, self.shares);
        }
    }
}

fn wanted() -> Option<usize> {
    let text = std::env::var("DUNLIN_FAILOVER").ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("DUNLIN_FAILOVER={text} is no number")))
}

#[test]
fn verifiers_are_killed() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Mosquitto::with(OPEN);
    let serve = |id| VerifierProcess::serve(&dir, broker.port, id, &model("target"));
    let mut verifiers = VERIFIERS.map(serve);
    let (prompts, texts) = expected();
    let announced = Announced::listen(broker.port);
    let crowd = Crowd::start(broker.port, &prompts);
    let mut strikes = Vec::new();
    for strike in 0..wanted().unwrap_or(STRIKES) {
        crowd.go_on(TOKENS / 2);
        strikes.push(Strike { at: Instant::now(), announced: announced.now() });
        verifiers[strike % VERIFIERS.len()].kill_and_restart();
    }
    crowd.go_on(TOKENS / 2);
    let replies = crowd.end();
    let replies: Vec<&TimedReply> = replies.iter().collect();
    Findings::of(&replies, &texts, &strikes).judge("killed", |gap, _| gap < KILLED_MAX);
}

#[test]
fn verifiers_are_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Mosquitto::with(OPEN);
    let pass = PASSES[usize::from(wanted().is_some())];
    let verifiers: [Process; 3] = VERIFIERS.map(|id| paced::spawn(dir.path(), broker.port, id, pass));
    let (prompts, texts) = expected();
    let announced = Announced::listen(broker.port);
    let crowd = Crowd::start(broker.port, &prompts);
    let mut strikes = Vec::new();
    for strike in 0..wanted().unwrap_or(STRIKES) {
        crowd.go_on(TOKENS / 8);
        let verifier = &verifiers[strike % VERIFIERS.len()];
        strikes.push(Strike { at: Instant::now(), announced: announced.now() });
        verifier.pause().unwrap();
        crowd.go_on(TOKENS / 8);
        verifier.resume().unwrap();
    }
    let replies = crowd.end();
    for policy in POLICIES {
        let (of_policy, _): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.policy == policy);
        let kind = format!("stopped, {policy}");
        Findings::of(&of_policy, &texts, &strikes).judge(&kind, |_, share| share < STOPPED_MAX);
    }
}
