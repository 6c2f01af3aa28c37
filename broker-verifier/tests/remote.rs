//! A verifier before a scripted server, between a real broker and a device made of raw frames.

#![allow(clippy::unwrap_used)] // applies to the tests' helpers, too

mod common;

use common::{Broker, Device, Running, config, soon};
use dunlin_lm::ModelDir;
use dunlin_lm_remote::scripted::{ScriptedAnswer, ScriptedModel, ScriptedRequest, ScriptedServer};
use dunlin_lm_remote::{RemoteSettings, ServerKind};
use dunlin_verifier::Config;
use dunlin_verifier::engine::{OpenedTarget, open};
use dunlin_wire::{CloseReason, Closed, CouplingProfile, Down, DraftFrame, Lease, Promise, Reply, Up};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const KINDS: [ServerKind; 3] = [ServerKind::Vllm, ServerKind::Sglang, ServerKind::LlamaServer];
const PROMPT: [u32; 3] = [5, 6, 9];
const MODEL: ScriptedModel = ScriptedModel {
    kind: ServerKind::Vllm,
    name: "m",
    vocabulary: 2048,
    context: 512,
    eos: 2,
    deterministic: false,
    next,
};

fn next(prefix: &[u32]) -> u32 {
    prefix.iter().fold(prefix.len() as u32, |sum, token| (sum * 31 + token) % 2000) + 10
}

/// The text that the server writes by itself.
fn greedy(tokens: usize) -> Vec<u32> {
    let mut text = PROMPT.to_vec();
    (0..tokens).for_each(|_| text.push(next(&text)));
    text
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo/target")
}

fn is_completion(request: &ScriptedRequest) -> bool {
    ["/v1/completions", "/generate", "/completion"].contains(&request.path.as_str())
}

/// A server that answers as its model does, unless `fault` has another answer to the request for tokens of this number.
fn server(
    kind: ServerKind,
    fault: impl Fn(usize) -> Option<ScriptedAnswer> + Send + Sync + 'static,
) -> ScriptedServer {
    let (dir, count) = (ModelDir::open(folder()).unwrap(), std::sync::atomic::AtomicUsize::new(0));
    let model = ScriptedModel { kind, ..MODEL };
    let script = move |request: &ScriptedRequest| {
        let faulty = is_completion(request)
            .then(|| count.fetch_add(1, std::sync::atomic::Ordering::SeqCst))
            .and_then(&fault);
        faulty.unwrap_or_else(|| model.answer(request, |text| dir.tokenizer.encode_text(text).unwrap()))
    };
    ScriptedServer::start(script).unwrap()
}

async fn running(broker: &Broker, server: &ScriptedServer, kind: ServerKind) -> Running {
    let remote =
        RemoteSettings { pause: Duration::from_millis(1), ..RemoteSettings::new(&server.url(), kind) };
    let config = Config { model: Some(folder()), remote: Some(remote), ..config(broker.port()) };
    let OpenedTarget { engine, .. } = open(&config).await.unwrap();
    let (running, ready) = Running::begin_with(config, engine);
    soon("the verifier", ready).await.unwrap();
    running
}

async fn leased(broker: &Broker) -> Device {
    let mut device = Device::connect(broker.port(), "d1").await;
    device.vocabulary = ModelDir::open(folder()).unwrap().vocabulary;
    let Reply::Lease(Lease { length: 0, promise: Promise::Distribution, context_tokens_max: 512, .. }) =
        device.open().await
    else {
        panic!("no lease")
    };
    device.say(&PROMPT);
    device
}

#[tokio::test]
async fn a_session_gives_the_servers_own_text() {
    for kind in KINDS {
        let (broker, server) = (Broker::mosquitto(), server(kind, |_| None));
        let running = running(&broker, &server, kind).await;
        let mut device = leased(&broker).await;
        let text = greedy(8);
        assert_eq!(device.verify(&text[3..6]).await, 3, "right drafts stand");
        let wrong = text[8] + 1;
        assert_eq!(device.verify(&[text[7], wrong, 7]).await, 1, "up to the first wrong one");
        assert_eq!(device.verify(&[wrong]).await, 0);
        assert_eq!(device.verify(&[]).await, 0);
        assert_eq!(device.tokens, text, "{kind:?}");
        let report = running.drained().await;
        assert_eq!((report.protocol.verdicts, report.target.jobs), (4, 4));
    }
}

#[tokio::test]
async fn a_lease_names_the_servers_noise_if_that_is_set_and_true() {
    let broker = Broker::mosquitto();
    for deterministic in [true, false] {
        let model = ScriptedModel { kind: ServerKind::Sglang, deterministic, ..MODEL };
        let dir = ModelDir::open(folder()).unwrap();
        let tokens = move |text: &str| dir.tokenizer.encode_text(text).unwrap();
        let server = ScriptedServer::start(move |request| model.answer(request, &tokens)).unwrap();
        let remote =
            RemoteSettings { shared_noise: true, ..RemoteSettings::new(&server.url(), ServerKind::Sglang) };
        let config = Config { model: Some(folder()), remote: Some(remote), ..config(broker.port()) };
        match open(&config).await {
            Ok(OpenedTarget { engine, .. }) => {
                assert!(deterministic);
                let (_running, ready) = Running::begin_with(config, engine);
                soon("the verifier", ready).await.unwrap();
                let mut device = Device::connect(broker.port(), "d1").await;
                device.vocabulary = ModelDir::open(folder()).unwrap().vocabulary;
                let Reply::Lease(lease) = device.open().await else { panic!("no lease") };
                assert_eq!(lease.coupling, CouplingProfile::Murmur);
            }
            Err(error) => {
                let message = format!("{error:#}");
                assert!(!deterministic && message.contains("--enable-deterministic-inference"), "{message}");
            }
        }
    }
}

/// A server that is silent from its first request behind the trial on; each such request sends a message.
fn silent() -> (ScriptedServer, Receiver<()>) {
    let (came, arrived) = channel();
    let fault = move |number| {
        (number > 0).then(|| {
            came.send(()).unwrap();
            ScriptedAnswer::Silent
        })
    };
    (server(ServerKind::Sglang, fault), arrived)
}

#[tokio::test]
async fn a_frame_waits_for_a_server_that_restarts() {
    let (broker, (first, arrived)) = (Broker::mosquitto(), silent());
    let address = first.address();
    let running = running(&broker, &first, ServerKind::Sglang).await;
    let mut device = leased(&broker).await;
    let frame = device.frame(&greedy(2)[3..]);
    device.send_frame(&frame);
    tokio::task::spawn_blocking(move || arrived.recv().unwrap()).await.unwrap();
    drop(first);
    let model = ScriptedModel { kind: ServerKind::Sglang, ..MODEL };
    let _again = ScriptedServer::start_at(address, move |request| model.answer(request, |_| vec![])).unwrap();
    let Down::Verdict(verdict) = device.down().await else { panic!("no verdict") };
    assert_eq!((verdict.accepted, verdict.token), (2, greedy(3)[5]));
    let report = running.drained().await;
    assert_eq!((report.protocol.leases, report.protocol.verdicts), (1, 1), "the lease survived");
}

#[tokio::test]
async fn a_refusal_of_the_server_ends_the_lease_and_loses_nothing() {
    let fault = |number| (number == 2).then(|| ScriptedAnswer::Status(400, "", "no".into()));
    let (broker, server) = (Broker::mosquitto(), server(ServerKind::Vllm, fault));
    let running = running(&broker, &server, ServerKind::Vllm).await;
    let mut device = leased(&broker).await;
    assert_eq!(device.verify(&[]).await, 0);
    let frame = device.frame(&[]);
    device.send_frame(&frame);
    let closed = device.down().await;
    assert!(matches!(closed, Down::Closed(Closed { reason: CloseReason::Failed, .. })), "{closed:?}");
    // What a device does at such an end: it opens again with its text.
    device.nonce += 1;
    let kept = std::mem::take(&mut device.tokens);
    assert!(matches!(device.open().await, Reply::Lease(_)));
    device.say(&kept);
    assert_eq!(device.verify(&greedy(3)[4..]).await, 2);
    assert_eq!(device.tokens, greedy(4));
    running.drained().await;
}

#[tokio::test]
async fn a_policy_that_needs_rows_is_refused() {
    let (broker, server) = (Broker::mosquitto(), server(ServerKind::Vllm, |_| None));
    let running = running(&broker, &server, ServerKind::Vllm).await;
    let mut device = leased(&broker).await;
    let Ok(Up::Draft(plain)) = Up::decode(&device.frame(&[7, 8])) else { panic!("a frame") };
    device.send_frame(&DraftFrame { held: 1, ..plain }.encode().unwrap());
    let closed = device.down().await;
    assert!(matches!(closed, Down::Closed(Closed { reason: CloseReason::Policy, .. })), "{closed:?}");
    assert_eq!(running.drained().await.target.jobs, 0, "the server wasn't asked");
}

fn check(url: &str, rest: &str) -> (Output, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("verifier.toml");
    let model = folder().canonicalize().unwrap();
    let text = format!(
        "model = {model:?}\nembedded_broker = true\n[remote]\nurl = '{url}'\nkind = 'llama-server'\n{rest}"
    );
    std::fs::write(&file, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_dunlin-verifier"))
        .args(["check", "--config"])
        .arg(&file)
        .env_remove("RUST_LOG")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout.clone()).unwrap();
    (output, said)
}

#[test]
fn check_tells_what_was_compared_and_what_is_served() {
    let server = server(ServerKind::LlamaServer, |_| None);
    let (output, said) = check(&server.url(), "model = 'm'");
    for words in [
        "llama-server b1",
        "context 512",
        "model \"m\", vocabulary of 2048 tokens, tokens of a text of",
        "not compared: the weights",
        "policies served: those that send drafts under the shared seed",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert_eq!(output.status.code(), Some(0), "{said}");
    let (output, said) = check(&server.url(), "model = 'n'");
    assert!(said.contains("remote.model: \"n\" isn't one of the server's: \"m\""), "{said}");
    assert!(said.contains("start the server and correct [remote]"), "{said}");
    assert_eq!(output.status.code(), Some(1), "{said}");
    let (output, said) = check("http://me:hush@localhost", "");
    assert!(said.contains("remote.url: a user or password") && !said.contains("hush"), "{said}");
    assert_eq!(output.status.code(), Some(2), "{said}");
}
