//! Servers with scripts: every form of answer, every fault, restarts.

#![allow(clippy::unwrap_used)] // applies to the tests' helpers, too

use dunlin_lm::{ChoiceRequest, Chooser, EngineChoice, ModelDir, Promise};
use dunlin_lm_remote::scripted::{ScriptedAnswer, ScriptedModel, ScriptedRequest, ScriptedServer};
use dunlin_lm_remote::{ANSWER_BYTES_MAX, RemoteSettings, RemoteTarget, ServerKind};
use std::path::Path;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const KINDS: [ServerKind; 3] = [ServerKind::Vllm, ServerKind::Sglang, ServerKind::LlamaServer];
const EOS: u32 = 2;

fn dir() -> ModelDir {
    ModelDir::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo/target")).unwrap()
}

/// The model ends a text behind token 7.
fn next(prefix: &[u32]) -> u32 {
    match prefix.last() {
        Some(7) => EOS,
        _ => 100 + prefix.iter().sum::<u32>() % 1000,
    }
}

fn model(kind: ServerKind) -> ScriptedModel {
    ScriptedModel { kind, name: "m", vocabulary: 2048, context: 512, eos: EOS, deterministic: false, next }
}

fn settings(server: &ScriptedServer, kind: ServerKind) -> RemoteSettings {
    let pause = Duration::from_millis(1);
    RemoteSettings { model: Some("m".into()), pause, ..RemoteSettings::new(&server.url(), kind) }
}

fn request(tokens: &[u32], choices: usize) -> ChoiceRequest {
    ChoiceRequest { tokens: tokens.to_vec(), choices, temperature: 0.0, top_p: 1.0, top_k: 0, seed: 5 }
}

fn is_completion(request: &ScriptedRequest) -> bool {
    ["/v1/completions", "/generate", "/completion"].contains(&request.path.as_str())
}

/// A server of a model, which answers the requests for tokens behind the trial with `faults`, one after the other, and
/// then as it should. Second: the number of those requests so far.
fn faulty(kind: ServerKind, faults: Vec<ScriptedAnswer>) -> (ScriptedServer, Arc<Mutex<usize>>) {
    let (dir, count) = (dir(), Arc::new(Mutex::new(0usize)));
    let asked = Arc::clone(&count);
    let server = ScriptedServer::start(move |request| {
        if is_completion(request) {
            let mut asked = asked.lock().unwrap();
            *asked += 1;
            if let Some(fault) = asked.checked_sub(2).and_then(|index| faults.get(index)) {
                return fault.clone();
            }
        }
        model(kind).answer(request, |text| dir.tokenizer.encode_text(text).unwrap())
    });
    (server.unwrap(), count)
}

async fn connect(settings: &RemoteSettings) -> RemoteTarget {
    RemoteTarget::connect(settings, &dir()).await.unwrap()
}

async fn refusal(settings: &RemoteSettings) -> String {
    RemoteTarget::connect(settings, &dir()).await.unwrap_err().to_string()
}

#[tokio::test]
async fn each_kind_of_server_chooses_a_token_behind_every_prefix() {
    for kind in KINDS {
        let (server, count) = faulty(kind, vec![]);
        let target = connect(&settings(&server, kind)).await;
        assert_eq!((target.context_max(), target.vocabulary().size), (512, 2048));
        assert_eq!(target.promise(), Promise::Distribution);
        let engine = &target.identity().engine;
        assert!(engine.starts_with(kind.name()) && !engine.contains("unknown"), "{engine}");
        let choices = target.choose(&request(&[3, 4, 7], 3)).await.unwrap();
        let expected = [(103, false), (107, false), (EOS, true)];
        assert_eq!(choices, expected.map(|(token, ends)| EngineChoice { token, ends }), "{kind:?}");
        assert_eq!(*count.lock().unwrap(), 2, "the trial and one request for all prefixes");
        let alone = target.choose(&request(&[3, 4], 1)).await.unwrap();
        assert_eq!(alone, [EngineChoice { token: 107, ends: false }]);
        let comparison = target.comparison();
        let agree = comparison.agree.join("; ");
        assert!(agree.contains("model \"m\"") && agree.contains("tokens of a text"), "{agree}");
        let unknown = comparison.unknown.join("; ");
        assert!(unknown.contains("the weights"), "{unknown}");
        assert_eq!(unknown.contains("size of the vocabulary"), kind != ServerKind::LlamaServer);
    }
}

#[tokio::test]
async fn what_passes_is_asked_again_until_it_is_answered() {
    let status = |status, head| ScriptedAnswer::Status(status, head, "{}".into());
    let faults = vec![
        status(500, ""),
        status(502, ""),
        status(503, "retry-after: 0\r\n"),
        status(429, "retry-after: soon\r\n"),
        status(408, ""),
        ScriptedAnswer::Broken,
        ScriptedAnswer::Garbage,
        ScriptedAnswer::Hangup,
    ];
    for kind in KINDS {
        let (server, count) = faulty(kind, faults.clone());
        let target = connect(&settings(&server, kind)).await;
        let choices = target.choose(&request(&[3], 1)).await.unwrap();
        assert_eq!(choices[0].token, 103);
        assert_eq!(*count.lock().unwrap(), 2 + faults.len());
    }
}

#[tokio::test]
async fn a_silent_server_is_asked_again_after_the_time_out() {
    let (server, count) = faulty(ServerKind::Vllm, vec![ScriptedAnswer::Silent]);
    let target = connect(&RemoteSettings { timeout_s: 1, ..settings(&server, ServerKind::Vllm) }).await;
    assert_eq!(target.choose(&request(&[3], 1)).await.unwrap()[0].token, 103);
    assert_eq!(*count.lock().unwrap(), 3);
}

#[tokio::test]
async fn what_lasts_fails_at_once_and_says_why() {
    let status = |status| ScriptedAnswer::Status(status, "", "why\u{1b}".into());
    let json = |text: &str| ScriptedAnswer::Json(serde_json::from_str(text).unwrap());
    let large = ScriptedAnswer::Status(200, "", "x".repeat(ANSWER_BYTES_MAX + 1));
    let cases = [
        (status(400), "status 400: \"why\\u{1b}\""),
        (status(401), "status 401 (the key: see remote.key_file)"),
        (status(404), "status 404 (see remote.url, remote.kind and remote.model)"),
        (status(307), "status 307 (name the address that it redirects to"),
        (status(200), "not the expected JSON"),
        (large, "an answer of more than 1048576 bytes"),
        (json("{\"model\":\"m\",\"choices\":[]}"), "0 answers to 2 prompts"),
        (
            json(
                "{\"model\":\"other\",\"choices\":[{\"index\":0,\"token_ids\":[1]},{\"index\":1,\"token_ids\":[1]}]}",
            ),
            "another model now",
        ),
        (
            json("{\"choices\":[{\"index\":0,\"token_ids\":[2048]},{\"index\":1,\"token_ids\":[1]}]}"),
            "outside the vocabulary",
        ),
    ];
    for (fault, words) in cases {
        let (server, count) = faulty(ServerKind::Vllm, vec![fault]);
        let target = connect(&settings(&server, ServerKind::Vllm)).await;
        let error = target.choose(&request(&[3, 4], 2)).await.unwrap_err().to_string();
        assert!(error.contains(words) && !error.contains('\u{1b}'), "{error}");
        assert_eq!(*count.lock().unwrap(), 2, "asked once: {words}");
        assert!(target.choose(&request(&[3], 1)).await.is_ok(), "and the next request is served");
    }
}

#[tokio::test]
async fn patience_ends() {
    let (server, _) = faulty(ServerKind::Vllm, vec![]);
    let settings = RemoteSettings { timeout_s: 1, patience_s: 1, ..settings(&server, ServerKind::Vllm) };
    let target = connect(&settings).await;
    drop(server);
    let error = target.choose(&request(&[3], 1)).await.unwrap_err().to_string();
    assert!(error.contains("given up after") && error.contains("in 1 s"), "{error}");
    let error = refusal(&settings).await;
    assert!(error.contains("/v1/models") && error.contains("given up after"), "{error}");
}

#[tokio::test]
async fn a_request_survives_a_restart_of_the_server() {
    let (came, arrived) = channel();
    let (known, trial) = (dir(), Mutex::new(true));
    let server = ScriptedServer::start(move |request| {
        if is_completion(request) && !std::mem::take(&mut *trial.lock().unwrap()) {
            came.send(()).unwrap();
            return ScriptedAnswer::Silent;
        }
        model(ServerKind::Sglang).answer(request, |text| known.tokenizer.encode_text(text).unwrap())
    });
    let server = server.unwrap();
    let (address, settings) = (server.address(), settings(&server, ServerKind::Sglang));
    let target = connect(&settings).await;
    let asked = tokio::spawn(async move { target.choose(&request(&[3, 4], 2)).await });
    tokio::task::spawn_blocking(move || arrived.recv().unwrap()).await.unwrap();
    drop(server);
    assert!(!asked.is_finished(), "the frame waits");
    let again = ScriptedServer::start_at(address, move |request| {
        model(ServerKind::Sglang).answer(request, |_| vec![])
    });
    let again = again.unwrap();
    let choices = asked.await.unwrap().unwrap();
    assert_eq!(choices.iter().map(|choice| choice.token).collect::<Vec<_>>(), [103, 107]);
    drop(again);
}

#[tokio::test]
async fn a_server_that_is_starting_is_waited_for() {
    let (count, known) = (Mutex::new(0u32), dir());
    let server = ScriptedServer::start(move |request| {
        let mut count = count.lock().unwrap();
        *count += 1;
        if *count <= 3 {
            return ScriptedAnswer::Status(503, "", "{\"error\":\"Loading model\"}".into());
        }
        model(ServerKind::LlamaServer).answer(request, |text| known.tokenizer.encode_text(text).unwrap())
    });
    let server = server.unwrap();
    connect(&settings(&server, ServerKind::LlamaServer)).await;
}

#[tokio::test]
async fn another_model_than_the_folders_is_refused() {
    let start = |model: ScriptedModel, tokens: fn(&str) -> Vec<u32>| {
        ScriptedServer::start(move |request| model.answer(request, tokens)).unwrap()
    };
    let right = |text: &str| dir().tokenizer.encode_text(text).unwrap();
    let (kind, llama) = (ServerKind::LlamaServer, model(ServerKind::LlamaServer));
    let other = start(llama, |text| text.bytes().map(u32::from).collect());
    let error = refusal(&settings(&other, kind)).await;
    assert!(error.contains("the server's tokenizer is not that of"), "{error}");
    let small = start(ScriptedModel { vocabulary: 1000, ..llama }, right);
    let error = refusal(&settings(&small, kind)).await;
    assert!(error.contains("the server's model has 1000 tokens") && error.contains("2048"), "{error}");
    let named = start(ScriptedModel { name: "n", ..llama }, right);
    let error = refusal(&settings(&named, kind)).await;
    assert!(error.contains("remote.model: \"m\" isn't one of the server's: \"n\""), "{error}");
    // A blank in front of the text is no other tokenizer.
    let blank = start(llama, |text| {
        let tokens = dir().tokenizer.encode_text(text).unwrap();
        [&[300, 301], &tokens[1..]].concat()
    });
    connect(&settings(&blank, kind)).await;
}

#[tokio::test]
async fn what_a_server_does_not_report_is_listed() {
    let server = ScriptedServer::start(move |request| match request.path.as_str() {
        "/v1/models" => ScriptedAnswer::Json(serde_json::json!({ "data": [{ "id": "m" }] })),
        "/tokenize" | "/version" => ScriptedAnswer::Status(404, "", "none".into()),
        _ => model(ServerKind::Vllm).answer(request, |_| vec![]),
    });
    let server = server.unwrap();
    let settings = RemoteSettings { model: None, context: Some(64), ..settings(&server, ServerKind::Vllm) };
    let target = connect(&settings).await;
    let unknown = target.comparison().unknown.join("; ");
    for fact in ["the model's name", "the tokenizer", "the longest context", "size of the vocabulary"] {
        assert!(unknown.contains(fact), "{fact}: {unknown}");
    }
    assert_eq!((target.context_max(), target.identity().engine.as_str()), (64, "vllm of unknown version"));
}

#[tokio::test]
async fn a_key_is_sent_and_its_refusal_is_told_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, "hush\n").unwrap();
    let known = dir();
    let server = ScriptedServer::start(move |request| match request.authorization.as_deref() {
        Some("Bearer hush") => {
            model(ServerKind::Vllm).answer(request, |text| known.tokenizer.encode_text(text).unwrap())
        }
        _ => ScriptedAnswer::Status(401, "", "no key".into()),
    });
    let server = server.unwrap();
    let without = settings(&server, ServerKind::Vllm);
    assert!(refusal(&without).await.contains("status 401 (the key: see remote.key_file): \"no key\""));
    let target = connect(&RemoteSettings { key_file: Some(file), ..without }).await;
    assert!(!format!("{target:?}").contains("hush"));
}
