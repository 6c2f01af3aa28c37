//! The program with the demo pair: flags, exit codes, reports, sockets.

use crate::presence::Watch;
use crate::proxy::packet;
use crate::verifier::{self, Alone, Plan, Scripted};
use dunlin_hlm::probabilities::Sampling;
use dunlin_lm::ModelDir;
use dunlin_lm_candle::CandleTarget;
use dunlin_mosquitto::{Mosquitto, MosquittoOptions, OPEN, free_port, url};
use dunlin_wire::topic::Topic;
use dunlin_wire::{
    CouplingProfile, DevicePresence, Liveness, Price, Promise, TargetId, VerifierPresence, Vocabulary,
};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write, pipe};
use std::net::{Shutdown, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

const CACHE_BYTES_MAX: usize = 1 << 28;
pub(crate) const PROMPT: &str = "I need to reserve a seat on the bus.";
pub(crate) const SEED: u64 = 5;

pub(crate) fn demo(role: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models/demo").join(role)
}

pub(crate) fn target() -> Box<CandleTarget> {
    Box::new(CandleTarget::load(&ModelDir::open(demo("target")).unwrap(), CACHE_BYTES_MAX).unwrap())
}

fn verified() -> (Mosquitto, Scripted) {
    let broker = Mosquitto::with(OPEN);
    let verifier = verifier::start(broker.port, target(), Plan::default());
    (broker, verifier)
}

/// A command of the agent with common flags, for a broker at `url`.
fn agent(command: &str, url: &str) -> Command {
    agent_with(command, url, &demo("drafter"))
}

fn agent_with(command: &str, url: &str, model: &Path) -> Command {
    let mut agent = Command::new(env!("CARGO_BIN_EXE_dunlin-agent"));
    agent.arg(command).args(["--device", "pi-7", "--broker", url, "--model"]).arg(model);
    agent.env_remove("RUST_LOG").stdin(Stdio::null());
    agent
}

pub(crate) fn generate(url: &str) -> Command {
    generate_with(url, &demo("drafter"))
}

fn generate_with(url: &str, model: &Path) -> Command {
    let mut agent = agent_with("generate", url, model);
    agent.args(["--prompt", PROMPT, "--seed", &SEED.to_string(), "--temperature", "0.8", "--top-p", "0.9"]);
    agent
}

/// The target alone, under the same settings.
pub(crate) fn alone() -> Alone {
    Alone::new(target(), Sampling::new(0.8, 0.9, 0).unwrap(), SEED)
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

pub(crate) fn tokens(report: &Value) -> Vec<u32> {
    report["tokens"].as_array().unwrap().iter().map(|token| token.as_u64().unwrap() as u32).collect()
}

#[test]
fn generate_writes_what_the_target_alone_would() {
    let (broker, _verifier) = verified();
    let output =
        generate(&broker.url()).args(["--json", "--max-tokens", "80", "--power", "none"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let model = ModelDir::open(demo("drafter")).unwrap();
    let expected = alone().reply(&model.first_turn(PROMPT).unwrap(), 80, &model.prompt.stop);
    assert_eq!(tokens(&report), expected);
    assert_eq!(report["text"], model.tokenizer.decode(&expected));
    assert_eq!(report["prompt"], PROMPT);
    assert_eq!((report["policy"].as_str(), report["seed"].as_u64()), (Some("lossless"), Some(SEED)));
    assert_eq!(report["committed_tokens"], expected.len());
    assert_eq!(report["unverified_tokens"], 0);
    let phases = report["phases"].as_object().unwrap();
    assert_eq!(phases.keys().collect::<Vec<_>>(), ["draft", "idle", "score", "send", "wait"]);
    let sum: f64 = phases.values().map(|seconds| seconds.as_f64().unwrap()).sum();
    assert!((sum - report["seconds"].as_f64().unwrap()).abs() < 0.01);
    assert_eq!(report["prices"], serde_json::json!({"draft": 1.0, "wait": 1.0, "unit": "s/s"}));
    assert_eq!(report["energy"], serde_json::json!({"source": "none"}));
    assert!(report["mqtt_bytes_up"].as_u64() > report["payload_bytes_up"].as_u64());
    assert!(stderr(&output).is_empty(), "{}", stderr(&output));
}

#[test]
fn generate_streams_plain_text_to_a_pipe_and_a_report_to_a_file() {
    let (broker, _verifier) = verified();
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("report.json");
    let output =
        generate(&broker.url()).args(["--max-tokens", "12", "--report"]).arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let report: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(String::from_utf8(output.stdout.clone()).unwrap().trim_end_matches('\n'), report["text"]);
    let summary = stderr(&output);
    for word in ["tokens in", "accepted", "payload", "MQTT", "draft", "wait"] {
        assert!(summary.contains(word), "no {word:?} in {summary}");
    }
    assert!(!summary.contains('\x1b'));
}

/// A published chat model has its template beside its tokenizer, and takes a system prompt if the template does.
#[test]
fn a_chat_model_is_prompted_by_its_template() {
    let (broker, _verifier) = verified();
    let dir = TempDir::new().unwrap();
    fs::copy(demo("tokenizer.json"), dir.path().join("tokenizer.json")).unwrap();
    fs::write(dir.path().join("config.json"), r#"{"vocab_size": 2048, "eos_token_id": [2, 3]}"#).unwrap();
    let template = "<|bos|>{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}{% elif m.role == \
                    'user' %}<|user|>{{ m.content }}<|assistant|>{% else %}{{ m.content }}{% endif %}{% endfor %}";
    let config = serde_json::json!({"bos_token": "<|bos|>", "chat_template": template});
    fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    let model = ModelDir::open_tokenizer(dir.path()).unwrap();
    for system in [None, Some("A hotel.")] {
        let mut agent = generate_with(&broker.url(), dir.path());
        agent.args(["--json", "--max-tokens", "16", "--policy", "stream"]);
        system.map(|text| agent.args(["--system", text]));
        let output = agent.output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let model = model.clone().with_system(system.map(String::from)).unwrap();
        let prompt = model.first_turn(PROMPT).unwrap();
        assert_eq!(tokens(&report), alone().reply(&prompt, 16, &model.prompt.stop), "{system:?}");
        let plain = ModelDir::open(demo("drafter")).unwrap().first_turn(PROMPT).unwrap();
        assert_eq!(prompt == plain, system.is_none(), "the template is the demo's form");
    }
    let output = generate(&broker.url()).args(["--system", "A hotel."]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("so a system prompt has no place"), "{}", stderr(&output));
}

/// The tokens that count in the calibration of the only entry.
fn observed(file: &Path) -> f64 {
    let learned: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!(learned["entries"].as_array().unwrap().len(), 1);
    let bins = learned["entries"][0]["learned"]["calibration"].as_array().unwrap();
    bins.iter().map(|bin| bin["observed"].as_f64().unwrap()).sum()
}

#[test]
fn what_was_learned_survives_a_restart() {
    let (broker, _verifier) = verified();
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("learned.json");
    let run = |by_flag: bool| {
        let mut agent = generate(&broker.url());
        agent.args(["--json", "--max-tokens", "40", "--policy", "auto"]);
        if by_flag {
            agent.arg("--state").arg(dir.path())
        } else {
            agent.env("STATE_DIRECTORY", dir.path())
        };
        let output = agent.output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output)
    };
    assert_eq!(run(true), "");
    let once = observed(&file);
    assert_eq!(run(false), "", "as a service manager says it");
    let twice = observed(&file);
    assert!(once > 0.0 && twice > 1.3 * once, "{once} {twice}: the second run went on from the first");
    // Another target wrote last: the first lease says that it is this one, and its own entry is used.
    let mut learned: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let mut other = learned["entries"][0].clone();
    other["target"] = "0000000000000000-0000".into();
    for bin in other["learned"]["calibration"].as_array_mut().unwrap() {
        *bin = serde_json::json!({"observed": 0.0, "rejected": 0.0});
    }
    learned["entries"].as_array_mut().unwrap().push(other.clone());
    fs::write(&file, learned.to_string()).unwrap();
    assert_eq!(run(true), "");
    let mut learned: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(learned["entries"][0]["learned"]["calibration"], other["learned"]["calibration"]);
    learned["entries"].as_array_mut().unwrap().remove(0);
    fs::write(&file, learned.to_string()).unwrap();
    let thrice = observed(&file);
    assert!(thrice > 1.1 * twice, "{twice} {thrice}");
    let spoilt = fs::read_to_string(&file).unwrap().replacen("\"observed\":", "\"observed\":999999", 1);
    fs::write(&file, spoilt).unwrap();
    let said = run(true);
    assert!(said.contains("not used: calibration has a number that is no measurement"), "{said}");
    assert!(observed(&file) < thrice, "it began anew");
}

#[test]
fn without_a_broker_time_is_up() {
    let output = generate(&url(free_port())).args(["--timeout", "1.5"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let said = stderr(&output);
    assert!(said.contains("waiting for the broker: nothing listens at 127.0.0.1"), "{said}");
    assert!(said.contains("time was up while waiting for the broker"), "{said}");
}

#[test]
fn without_a_verifier_time_is_up() {
    let broker = Mosquitto::with(OPEN);
    let output = generate(&broker.url()).args(["--timeout", "1.5"]).output().unwrap();
    assert_eq!(output.status.code(), Some(5));
    assert!(stderr(&output).contains("time was up while waiting for a verifier"), "{}", stderr(&output));
}

#[test]
fn trust_goes_on_without_a_broker() {
    let mut agent = generate(&url(free_port()));
    agent.args(["--offline", "trust", "--give-up-after", "0.1", "--max-tokens", "20", "--json"]);
    let output = agent.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["committed_tokens"].as_u64() > Some(0));
    assert_eq!(report["unverified_tokens"], report["committed_tokens"]);
    assert!(stderr(&output).contains("going on alone"));
}

#[test]
fn a_broker_that_refuses_is_said_plainly() {
    let dir = TempDir::new().unwrap();
    let options = MosquittoOptions { accounts: &[("pi", "right")], ..MosquittoOptions::default() };
    let broker = Mosquitto::started(&options).unwrap();
    let config = dir.path().join("agent.toml");
    fs::write(&config, "[mqtt]\nuser = \"pi\"\npassword_file = \"secret\"\n").unwrap();
    fs::write(dir.path().join("secret"), "wrong\n").unwrap();
    let output = generate(&broker.url()).arg("--config").arg(&config).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("refuses the connection: not authorised (user: pi)"),
        "{}",
        stderr(&output)
    );
    fs::write(dir.path().join("secret"), "right\n").unwrap();
    let _verifier = Mosquitto::with(OPEN);
    let output =
        generate(&broker.url()).arg("--config").arg(&config).args(["--timeout", "0.5"]).output().unwrap();
    assert!(stderr(&output).contains("waiting for a verifier"), "{}", stderr(&output));
}

#[test]
fn mistakes_are_named() {
    let run = |mut agent: Command| {
        let output = agent.output().unwrap();
        (output.status.code().unwrap(), stderr(&output))
    };
    let nowhere = url(free_port());
    let mut flag = generate(&nowhere);
    flag.arg("--polizy");
    assert!(matches!(run(flag), (2, said) if said.contains("--polizy")));
    let address = generate("mqtt://me:hush@host:0");
    assert!(matches!(run(address), (2, said) if said.contains("***@host:0") && !said.contains("hush")));
    let dir = TempDir::new().unwrap();
    let config = dir.path().join("agent.toml");
    fs::write(&config, "device = \"a\"\nmodell = \"b\"\n").unwrap();
    let mut key = generate(&nowhere);
    key.arg("--config").arg(&config);
    assert!(matches!(run(key), (2, said) if said.contains("agent.toml:2: unknown field `modell`")));
    let mut model = Command::new(env!("CARGO_BIN_EXE_dunlin-agent"));
    model.args(["generate", "--prompt", "x", "--model"]).arg(dir.path().join("none"));
    assert!(matches!(run(model), (1, said) if said.contains("none")));
    let mut sampling = generate(&nowhere);
    sampling.args(["--top-k", "0", "--draft-tokens-max", "17"]);
    assert!(matches!(run(sampling), (2, said) if said.contains("--draft-tokens-max")));
}

#[test]
fn an_interrupt_keeps_what_is_committed() {
    let broker = Mosquitto::with(OPEN);
    // The verifier gets a context chunk and one draft frame, then falls silent, so the reply can't end by itself.
    let plan = Plan { frames_max: Some(2), ..Plan::default() };
    let _verifier = verifier::start(broker.port, target(), plan);
    let mut agent = generate(&broker.url());
    let mut child = agent
        .args(["--draft-tokens-max", "2"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(stderr(&output).contains("ended: cancelled"));
    let model = ModelDir::open(demo("drafter")).unwrap();
    let expected = alone().reply(&model.first_turn(PROMPT).unwrap(), 3, &model.prompt.stop);
    let written = [&first[..], &output.stdout].concat();
    let written = String::from_utf8(written).unwrap();
    assert!(model.tokenizer.decode(&expected).starts_with(written.trim_end_matches('\n')), "{written}");
}

#[test]
fn an_interrupt_after_the_reply_ends_the_measurement_of_the_idle_board_alone() {
    let (broker, _verifier) = verified();
    let mut seen = Watch::start(broker.port);
    let dir = TempDir::new().unwrap();
    let report = dir.path().join("report.json");
    let mut agent = generate(&broker.url());
    agent.args(["--max-tokens", "3", "--power", "simulated", "--idle-seconds", "5", "--report"]).arg(&report);
    let child = agent.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    // It has said goodbye, so that only the idle board is left.
    assert_eq!([seen.next().liveness, seen.next().liveness], [Liveness::Here, Liveness::Left]);
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    assert_eq!(report["finish"], "tokens_max");
    assert_eq!(report["energy"]["idle_from"], "measured");
}

#[test]
fn a_killed_agent_is_announced_as_lost() {
    let broker = Mosquitto::with(OPEN);
    let mut seen = Watch::start(broker.port);
    let mut child = generate(&broker.url()).stderr(Stdio::null()).spawn().unwrap();
    let born = seen.next();
    assert_eq!(born.liveness, Liveness::Here);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(seen.next(), DevicePresence { liveness: Liveness::Lost, ..born });
}

/// Outputs that can't be written to, and the system's error for each.
fn outputs_that_fail() -> [(Stdio, &'static str); 2] {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let (reader, unread) = pipe().unwrap();
    drop(reader);
    [(full.into(), "No space left on device"), (unread.into(), "Broken pipe")]
}

#[test]
fn a_reply_that_cannot_be_written_ends_with_code_1() {
    let (broker, _verifier) = verified();
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("report.json");
    for (stdout, what) in outputs_that_fail() {
        let mut agent = generate(&broker.url());
        let output = agent.arg("--report").arg(&path).stdout(stdout).output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("dunlin-agent: standard output: {what}")), "{said}");
        let report: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(report["finish"], "cancelled", "nothing is drafted for nobody");
    }
}

#[test]
fn serve_ends_with_code_1_where_standard_output_takes_nothing() {
    let (broker, _verifier) = verified();
    for flags in [&[][..], &["--json"]] {
        for (stdout, what) in outputs_that_fail() {
            let mut agent = serve(&broker.url());
            agent.args(flags).stdin(Stdio::piped()).stdout(stdout).stderr(Stdio::piped());
            let mut child = agent.spawn().unwrap();
            // Standard input stays open, so that its end can't end the agent.
            let mut prompts = child.stdin.take().unwrap();
            writeln!(prompts, "{PROMPT}").unwrap();
            let output = child.wait_with_output().unwrap();
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(said.contains(&format!("dunlin-agent: standard output: {what}")), "{said}");
        }
    }
}

fn events(lines: impl Iterator<Item = std::io::Result<String>>) -> Vec<Value> {
    lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
}

fn finished(events: &[Value]) -> Vec<&Value> {
    events.iter().filter(|event| event["event"] == "finished").collect()
}

/// The expected tokens of two turns, and of a third one in a new session.
fn three_turns() -> [Vec<u32>; 3] {
    let model = ModelDir::open(demo("drafter")).unwrap();
    let stop = &model.prompt.stop;
    let mut target = alone();
    let first = target.reply(&model.first_turn(PROMPT).unwrap(), 10, stop);
    let mut next = model.next_turn("For two people.").unwrap();
    // The token that ended the reply also begins the next turn, and is not sent twice.
    assert!(first.last() == next.first() && stop.contains(&next.remove(0)));
    let second = target.reply(&next, 10, stop);
    let third = alone().reply(&model.first_turn("What's my balance?").unwrap(), 7, stop);
    [first, second, third]
}

pub(crate) fn serve(url: &str) -> Command {
    let mut agent = agent("serve", url);
    agent.args(["--seed", &SEED.to_string(), "--temperature", "0.8", "--top-p", "0.9", "--max-tokens", "10"]);
    agent
}

#[test]
fn serve_keeps_the_session_between_lines() {
    let (broker, _verifier) = verified();
    let mut child =
        serve(&broker.url()).arg("--json").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let third = r#"{"prompt": "What's my balance?", "max_tokens": 7, "new_session": true}"#;
    write!(child.stdin.take().unwrap(), "{PROMPT}\n{{\"promt\": 1}}\nFor two people.\n{third}\n").unwrap();
    let events = events(BufReader::new(child.stdout.take().unwrap()).lines());
    assert!(child.wait().unwrap().success());
    let replies: Vec<Vec<u32>> = finished(&events).into_iter().map(tokens).collect();
    assert_eq!(replies, three_turns());
    let streamed = events.iter().filter(|event| event["event"] == "token");
    let streamed: Vec<u32> = streamed.map(|event| event["token"].as_u64().unwrap() as u32).collect();
    assert_eq!(streamed, replies.concat());
    assert!(events.iter().any(|event| event["event"] == "error"));
}

#[test]
fn the_status_is_logged_on_request_and_at_the_end() {
    let (broker, _verifier) = verified();
    let mut agent = serve(&broker.url());
    agent.arg("--json").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = agent.spawn().unwrap();
    let mut prompts = child.stdin.take().unwrap();
    writeln!(prompts, "{PROMPT}\n/new\n{PROMPT}").unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert_eq!(lines.by_ref().filter(|line| line.contains("\"finished\"")).take(2).count(), 2);
    assert!(Command::new("kill").args(["-USR1", &child.id().to_string()]).status().unwrap().success());
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let mut next = |group: &str| log.find(|line| line.contains(&format!("status: {group} "))).unwrap();
    assert!(next("agent").contains(" sessions=2 replies=2"));
    let committed = 2 * three_turns()[0].len();
    assert!(next("device").contains(&format!(" committed={committed} unverified=0 ")));
    assert!(next("link").contains(" connected=1 "));
    drop(prompts);
    assert!(next("agent").contains(" replies=2"));
    assert!(next("link").contains(" connected=0 "));
    assert!(child.wait().unwrap().success());
}

#[test]
fn serve_answers_clients_of_its_socket_in_one_session() {
    let (broker, _verifier) = verified();
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("agent.sock");
    let mut agent = serve(&broker.url());
    let mut child =
        agent.arg("--socket").arg(&path).stderr(Stdio::piped()).env("RUST_LOG", "info").spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(log.any(|line| line.contains("listening")));
    let ask = |lines: &str| {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(lines.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        events(BufReader::new(stream).lines())
    };
    let [first, second, third] = three_turns();
    assert_eq!(tokens(finished(&ask(&format!("{PROMPT}\n")))[0]), first);
    let renewed = r#"{"prompt": "What's my balance?", "max_tokens": 7, "new_session": true}"#;
    let events = ask(&format!("For two people.\n{renewed}\n"));
    let replies: Vec<Vec<u32>> = finished(&events).into_iter().map(tokens).collect();
    assert_eq!(replies, [second, third]);
    let second_agent = serve(&broker.url()).arg("--socket").arg(&path).output().unwrap();
    assert_eq!(second_agent.status.code(), Some(1));
    assert!(stderr(&second_agent).contains("another agent serves there"));
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    assert!(!log.any(|line| line.contains("WARN") || line.contains("ERROR")));
    assert!(child.wait().unwrap().success());
    assert!(!path.exists(), "the socket's file is removed");
}

#[test]
fn check_says_what_is_right_and_what_is_missing() {
    let (broker, verifier) = verified();
    let output = agent("check", &broker.url()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    assert_eq!(said.lines().filter(|line| line.starts_with('✓')).count(), 9, "{said}");
    assert!(said.contains("(without TLS, on this machine)"), "{said}");
    assert!(said.contains("✓ access: the broker passes this device's messages"), "{said}");
    assert!(said.contains("a longer text: when 1024 tokens are full, the drafter reads 513 again"), "{said}");
    assert!(said.contains("a one-line chat: \"<|bos|><|user|>Hello<|assistant|>\""), "{said}");
    assert!(said.contains("verifier: v1 with scripted (010101010101-0101; scripted, bits; exact), 0 % of its sessions in use"), "{said}");
    drop((verifier, broker));
    let output = agent("check", &url(free_port())).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("✗ broker: nothing listens") && said.contains("→ start the broker"), "{said}");
    let mut agent = Command::new(env!("CARGO_BIN_EXE_dunlin-agent"));
    let output =
        agent.args(["check", "--broker", &url(free_port()), "--model", "/nowhere"]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "a model is missing too: {said}");
}

/// Takes the connection of a check; what it retains comes before the answer to the subscription.
fn retains_first(listener: &TcpListener) {
    let (mut device, _) = listener.accept().unwrap();
    while let Ok(packet) = packet(&mut device) {
        match packet[0] >> 4 {
            1 => device.write_all(&[0x20, 3, 0, 0, 0]).unwrap(),
            8 => {
                device.write_all(&retained_presence()).unwrap();
                device.write_all(&[0x90, 4, packet[2], packet[3], 0, 1]).unwrap();
            }
            14 => break,
            _ => {}
        }
    }
}

/// A retained PUBLISH of a verifier with the drafter's vocabulary.
fn retained_presence() -> Vec<u8> {
    let vocabulary = ModelDir::open(demo("drafter")).unwrap().vocabulary;
    let presence = VerifierPresence {
        generation: 1,
        liveness: Liveness::Here,
        vocabulary: Vocabulary { size: vocabulary.size, fingerprint: vocabulary.fingerprint },
        target: TargetId::from_bytes([1; 8]),
        promise: Promise::Exact,
        coupling: CouplingProfile::SplitMix,
        model: "early".try_into().unwrap(),
        engine: "scripted".try_into().unwrap(),
        numerics: "bits".try_into().unwrap(),
        price: Price::default(),
        load: 0,
        draining: false,
    };
    let name = Topic::VerifierPresence("v1".parse().unwrap()).name();
    let mut body = (name.as_str().len() as u16).to_be_bytes().to_vec();
    body.extend(name.as_str().as_bytes());
    body.push(0); // no properties
    body.extend(presence.encode().unwrap());
    assert!(body.len() < 128, "the length is one byte");
    [&[0x31, body.len() as u8][..], &body].concat()
}

#[test]
fn check_is_not_misled_by_what_comes_before_the_subscription_is_granted() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let broker = std::thread::spawn(move || retains_first(&listener));
    let output = agent("check", &url(port)).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("✓ broker: connected") && said.contains("✓ verifier: v1 with early"), "{said}");
    assert!(output.status.success(), "{said}");
    broker.join().unwrap();
}

/// Calibrates with three prompts; writes the files to `dir`.
fn calibrate(url: &str, dir: &TempDir) -> Command {
    let prompts = dir.path().join("held-out.txt");
    fs::write(&prompts, format!("{PROMPT}\n\nWhat's my balance?\nI'd like to find a one way flight.\n"))
        .unwrap();
    let mut agent = agent("calibrate", url);
    agent.args(["--seed", &SEED.to_string(), "--temperature", "0.8", "--top-p", "0.9", "--max-tokens", "30"]);
    agent.arg("--prompts").arg(prompts).arg("--out").arg(dir.path().join("out"));
    agent
}

/// The JSON record that `calibrate` wrote.
fn calibration(dir: &TempDir) -> Value {
    let out = dir.path().join("out");
    assert!(fs::read_to_string(out.join("calibration.svg")).unwrap().starts_with("<svg "));
    assert_eq!(fs::read_dir(&out).unwrap().count(), 2);
    serde_json::from_str(&fs::read_to_string(out.join("calibration.json")).unwrap()).unwrap()
}

#[test]
fn calibrate_measures_the_pair() {
    let (broker, _verifier) = verified();
    let dir = TempDir::new().unwrap();
    let mut agent = calibrate(&broker.url(), &dir);
    let output = agent.args(["--miss-rate", "1", "--miss-rate", "0.1"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let found = calibration(&dir);
    let judged = found["tokens"].as_u64().unwrap();
    assert!((20..=90).contains(&judged), "{judged} tokens of three replies of 30");
    assert_eq!((&found["ended"], &found["prompts"]["answered"]), (&"prompts".into(), &3.into()));
    assert_eq!(found["verifier"], serde_json::json!({"id": "v1", "model": "scripted"}));
    assert_eq!(found["drafter"]["name"], "dunlin-demo-drafter");
    let of_bins = |key: &str| -> u64 {
        found["bins"].as_array().unwrap().iter().map(|bin| bin[key].as_u64().unwrap()).sum()
    };
    assert_eq!(of_bins("tokens"), judged);
    let rejection = found["rejection"].as_f64().unwrap();
    assert!((rejection - of_bins("rejected") as f64 / judged as f64).abs() < 1e-9 && rejection > 0.0);
    let proposals = found["proposals"].as_array().unwrap();
    assert_eq!((proposals.len(), &proposals[0]["miss_rate"]), (2, &0.1.into()));
    assert_eq!((&proposals[1]["uncertainty_max"], &proposals[1]["trusted"]), (&1.0.into(), &1.0.into()));
    let said = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(
        said.contains("uncertainty_max = ") && said.contains("dunlin-demo-drafter judged by scripted"),
        "{said}"
    );
    let progress = stderr(&output);
    assert!(progress.contains(&format!("only {judged} tokens were judged")), "{progress}");
    assert!(!said.contains('\x1b') && !progress.contains('\x1b'));
    // A second calibration, with its own end, must replace the files.
    let output = calibrate(&broker.url(), &dir).args(["--tokens", "10"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("10 of 10 tokens, prompt "), "{}", stderr(&output));
    let found = calibration(&dir);
    assert_eq!((&found["tokens"], &found["ended"]), (&10.into(), &"tokens".into()));
}

#[test]
fn an_interrupted_calibration_keeps_what_it_has() {
    let broker = Mosquitto::with(OPEN);
    let plan = Plan { frames_max: Some(3), ..Plan::default() };
    let _verifier = verifier::start(broker.port, target(), plan);
    let dir = TempDir::new().unwrap();
    let mut child =
        calibrate(&broker.url(), &dir).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(said.any(|line| line.contains("waiting for the answer of verifier")));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert!(said.any(|line| line.contains("the thresholds are a guess")));
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let found = calibration(&dir);
    assert_eq!(found["ended"], "interrupted");
    assert!(found["tokens"].as_u64() >= Some(2));
}

#[test]
fn a_calibration_whose_verifier_is_gone_gives_up() {
    let broker = Mosquitto::with(OPEN);
    let dir = TempDir::new().unwrap();
    let alone = calibrate(&broker.url(), &dir).args(["--timeout", "1.5"]).output().unwrap();
    assert_eq!(alone.status.code(), Some(5), "{}", stderr(&alone));
    assert!(stderr(&alone).contains("no verdict was received, so nothing is written"), "{}", stderr(&alone));
    assert_eq!(fs::read_dir(dir.path().join("out")).unwrap().count(), 0);
    let plan = Plan { frames_max: Some(3), ..Plan::default() };
    let _verifier = verifier::start(broker.port, target(), plan);
    let left = calibrate(&broker.url(), &dir).args(["--timeout", "1.5"]).output().unwrap();
    assert_eq!(left.status.code(), Some(5), "{}", stderr(&left));
    assert!(stderr(&left).contains("time was up while waiting for"), "{}", stderr(&left));
    assert_eq!(calibration(&dir)["ended"], "timed_out");
    let nowhere = calibrate(&url(free_port()), &dir).args(["--timeout", "1.5"]).output().unwrap();
    assert_eq!(nowhere.status.code(), Some(3), "{}", stderr(&nowhere));
}

#[test]
fn mistakes_in_a_calibration_are_named() {
    let dir = TempDir::new().unwrap();
    let run = |flags: &[&str]| {
        let output = calibrate(&url(free_port()), &dir).args(flags).output().unwrap();
        (output.status.code().unwrap(), stderr(&output))
    };
    assert!(matches!(run(&["--miss-rate", "1.5"]), (2, said) if said.contains("between 0 and 1")));
    assert!(matches!(run(&["--tokens", "0"]), (2, said) if said.contains("above 0")));
    let mut unnamed = Command::new(env!("CARGO_BIN_EXE_dunlin-agent"));
    unnamed.args(["calibrate", "--prompts", "none", "--out"]).arg(dir.path().join("out"));
    let output = unnamed.output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("--model"), "{}", stderr(&output));
    assert!(!dir.path().join("out").exists(), "nothing is made for a command that can't begin");
    let wrong = dir.path().join("held-out.json");
    let mut agent = agent("calibrate", &url(free_port()));
    agent.arg("--prompts").arg(&wrong);
    for (text, what) in [("{\n\"prompts\": 1}", "at line 2"), ("\n", "no prompts in it")] {
        fs::write(&wrong, text).unwrap();
        let output = agent.output().unwrap();
        let said = stderr(&output);
        assert!(
            output.status.code() == Some(1) && said.contains("held-out.json: ") && said.contains(what),
            "{said}"
        );
    }
}
