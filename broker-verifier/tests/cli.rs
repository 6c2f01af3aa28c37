//! The program: messages, exit codes, and a whole life with the demo's target.

#![allow(clippy::unwrap_used)] // applies to the tests' helpers, too

mod common;

use common::{Client, DEADLINE, PROMPT_TEXT, hang_up, until};
use dunlin_mosquitto::{Mosquitto, MosquittoOptions, SITE, free_port};
use dunlin_wire::Liveness;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::channel;
use std::{fs, thread};

const PROGRAM: &str = env!("CARGO_BIN_EXE_dunlin-verifier");

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo/target")
}

fn program(args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(args).env_remove("RUST_LOG").env("CANDLE_NUM_THREADS", "1");
    command
}

fn run(args: &[&str]) -> Output {
    program(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs the program and checks the exit code and words on standard error; returns standard error.
fn fails(args: &[&str], code: i32, words: &[&str]) -> String {
    let output = run(args);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{args:?} should say {word:?}: {said}");
    }
    said
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// Waits for a program's end; returns its exit code and its standard error.
fn ended(mut child: Child) -> (Option<i32>, String) {
    let (tell, end) = channel();
    thread::spawn(move || {
        let said = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
        tell.send((child.wait().unwrap().code(), said))
    });
    end.recv_timeout(DEADLINE).expect("the end comes in time")
}

/// Starts serving with the demo's target; returns the program and the broker's port from the ready file.
fn serving(args: &[&str], directory: &Path) -> (Child, u16) {
    let ready = directory.join("ready");
    fs::write(&ready, "stale").unwrap();
    let (model, file) = (demo(), ready.to_str().unwrap().to_owned());
    let mut command = program(&["serve", "--model", model.to_str().unwrap(), "--ready-file", &file]);
    let mut child = command.args(args).stderr(Stdio::piped()).spawn().unwrap();
    let port = until("the ready file", directory, || {
        assert!(child.try_wait().unwrap().is_none(), "it ended at once");
        fs::read_to_string(&ready).ok()?.trim().rsplit_once(':')?.1.parse().ok()
    });
    (child, port)
}

#[test]
fn help_is_what_it_says_without_a_command() {
    let bare = run(&[]);
    assert_eq!(bare.status.code(), Some(0));
    let help = text(&bare.stdout);
    for word in ["serve", "reference", "check", "MQTT 5"] {
        assert!(help.contains(word), "{help}");
    }
    assert_eq!(text(&run(&["--help"]).stdout), help);
}

#[test]
fn a_wrong_command_line_is_named() {
    fails(&["serve", "--sesions", "3"], 2, &["--sesions", "--sessions"]);
    fails(&["listen"], 2, &["unrecognized subcommand 'listen'"]);
    fails(&["serve"], 2, &["no target", "--model"]);
    fails(&["serve", "--id", "Verifier"], 2, &["--id", "a-z"]);
    fails(&["serve", "--broker", "wss://host"], 2, &["doesn't speak wss://"]);
    fails(&["serve", "--model", "m", "--broker", "mqtt://host"], 2, &["host:1883 has no TLS", "--insecure"]);
    let said = fails(&["serve", "--broker", "wss://me:hush@host"], 2, &["***@host"]);
    assert!(!said.contains("hush"), "{said}");
    fails(&["serve", "--broker", "mqtt://h", "--embedded-broker"], 2, &["cannot be used with"]);
    fails(&["serve", "--model", "x", "--listen", "127.0.0.1:0"], 2, &["--embedded-broker"]);
    fails(&["serve", "--model", "x", "--sessions", "0"], 2, &["sessions: 0 is outside 1 to 65535"]);
    fails(&["reference", "--model", "x", "--prompt", "a", "--top-p", "2"], 2, &["sampling"]);
}

#[test]
fn a_wrong_configuration_is_named_with_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("verifier.toml");
    let path = file.to_str().unwrap();
    for (written, words) in [
        ("id = \"v1\"\nsesions = 3\n", ["verifier.toml:2: ", "unknown field `sesions`"]),
        ("id = \"v1\"\n\nsessions = \"many\"\n", ["verifier.toml:3: ", "sessions"]),
        ("broker = \"http://h\"\n", ["verifier.toml:1: ", "unknown scheme \"http\""]),
        ("id = \"V1\"\n", ["verifier.toml:1: ", "a-z"]),
        ("[mqtt]\nkeep_alive_seconds = 1\n", ["mqtt.keep_alive_seconds", "within 5 and 65535"]),
        (
            "id = \"v1\"\nusername = \"a\"\n",
            ["verifier.toml:2: username is now user under [mqtt]", "migrate-config"],
        ),
    ] {
        fs::write(&file, written).unwrap();
        fails(&["serve", "--config", path], 2, &words);
    }
    let missing = directory.path().join("none.toml");
    fails(&["serve", "--config", missing.to_str().unwrap()], 2, &["none.toml", "No such file"]);
}

/// The script that the package runs after an upgrade.
#[test]
fn an_upgrade_rewrites_the_keys_of_an_earlier_version() {
    let root = tempfile::tempdir().unwrap();
    let (etc, bin) = (root.path().join("etc/dunlin"), Path::new(PROGRAM).parent().unwrap());
    fs::create_dir_all(&etc).unwrap();
    let config = etc.join("verifier.toml");
    fs::write(&config, "# who\nusername = \"v\"\npassword = \"hush\"\nkeep_alive_s = 20\n").unwrap();
    fails(&["serve", "--config", config.to_str().unwrap()], 2, &["verifier.toml:2: username is now user"]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../boards/package/verifier/debian/dunlin-verifier.postinst");
    let upgrade = || {
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("sh");
        let output = command.arg(&script).arg("configure").env("DPKG_ROOT", root.path()).env("PATH", path);
        let output = output.output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(!said.contains("hush"), "{said}");
        said
    };
    assert!(upgrade().contains("rewritten with today's keys; its password is in "));
    let rewritten = fs::read_to_string(&config).unwrap();
    let keys = "# who\nuser = \"v\"\npassword_file = \"verifier.mqtt-password\"\nkeep_alive_seconds = 20\n";
    assert_eq!(rewritten, format!("\n[mqtt]\n{keys}"));
    assert_eq!(fs::read_to_string(etc.join("verifier.mqtt-password")).unwrap(), "hush\n");
    fails(&["serve", "--config", config.to_str().unwrap()], 2, &["no target"]);
    assert!(upgrade().contains("nothing to rewrite"));
}

#[test]
fn paths_in_the_configuration_count_from_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("verifier.toml");
    fs::write(&file, "model = \"target\"\n").unwrap();
    fails(
        &["serve", "--config", file.to_str().unwrap()],
        1,
        &[directory.path().join("target").to_str().unwrap()],
    );
    let (model, log) = (demo(), directory.path().join("none/energy.jsonl"));
    let args = ["serve", "--config", file.to_str().unwrap(), "--model", model.to_str().unwrap()];
    fs::write(&file, "energy_log = \"none/energy.jsonl\"\n").unwrap();
    let said = format!("energy log {}: No such file", log.display());
    fails(&args, 1, &[&said]);
    fails(&[&args[..], &["--energy-log", "/nowhere/e.jsonl"]].concat(), 1, &["energy log /nowhere/e.jsonl"]);
}

/// A copy of the demo's target with one change in its `model.toml`.
fn broken(directory: &Path, from: &str, to: &str) -> PathBuf {
    let target = directory.join("target");
    fs::create_dir(&target).unwrap();
    fs::copy(demo().join("../tokenizer.json"), directory.join("tokenizer.json")).unwrap();
    fs::copy(demo().join("target.gguf"), target.join("target.gguf")).unwrap();
    let manifest = fs::read_to_string(demo().join("model.toml")).unwrap();
    let line = manifest.lines().find(|line| line.starts_with(from)).unwrap();
    fs::write(target.join("model.toml"), manifest.replacen(line, to, 1)).unwrap();
    target
}

#[test]
fn a_model_that_cannot_be_used_is_named() {
    fails(&["serve", "--model", "/nowhere"], 1, &["/nowhere", "No such file"]);
    let directory = tempfile::tempdir().unwrap();
    fails(&["serve", "--model", directory.path().to_str().unwrap()], 1, &["model.toml"]);
    let other = broken(directory.path(), "fingerprint", "fingerprint = \"0011223344556677\"");
    fails(&["serve", "--model", other.to_str().unwrap()], 1, &["fingerprint", "0011223344556677"]);
    let directory = tempfile::tempdir().unwrap();
    let cut = broken(directory.path(), "name", "name = \"cut\"");
    fs::write(cut.join("target.gguf"), b"GGUF").unwrap();
    fails(&["serve", "--model", cut.to_str().unwrap()], 1, &["target.gguf"]);
}

#[test]
fn the_embedded_broker_stays_at_home() {
    let model = demo();
    let args = ["serve", "--model", model.to_str().unwrap(), "--embedded-broker", "--listen", "0.0.0.0:0"];
    fails(&args, 1, &["0.0.0.0:0 is not a loopback address"]);
}

#[test]
fn the_reference_is_the_same_every_time() {
    let model = demo();
    let base =
        ["reference", "--model", model.to_str().unwrap(), "--prompt", PROMPT_TEXT, "--max-tokens", "12"];
    let json = |more: &[&str]| -> serde_json::Value {
        let output = run(&[&base, more].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let first = json(&["--json", "--seed", "3"]);
    assert_eq!(first, json(&["--json", "--seed", "3", "--threads", "2"]), "threads don't change bits");
    assert_ne!(first["tokens"], json(&["--json", "--seed", "4"])["tokens"]);
    assert!(matches!(first["finish"].as_str(), Some("stop" | "tokens-max")));
    assert_eq!(first["prompt_tokens"][0], 1, "the prompt begins with the model's own first token");
    let plain = run(&[&base[..], &["--seed", "3"]].concat());
    assert_eq!(text(&plain.stdout).trim_end_matches('\n'), first["text"].as_str().unwrap());
}

#[test]
fn a_check_says_what_is_there_and_what_is_not() {
    let mosquitto = Mosquitto::with(SITE);
    let (model, broker) = (demo(), format!("mqtt://127.0.0.1:{}", mosquitto.port));
    let model = model.to_str().unwrap();
    let good = run(&["check", "--model", model, "--broker", &broker]);
    let said = text(&good.stdout);
    assert_eq!(good.status.code(), Some(0), "{said}");
    for word in [
        "✓ configuration: verifier verifier-1, 64 sessions",
        "✓ model: dunlin-demo-target, weights ",
        ", candle 0.",
        " MiB after the first pass",
        "✓ memory: caches of 512 MiB hold ",
        "✓ broker: connected to 127.0.0.1",
        "up to 65536 bytes, 1024 topic aliases",
    ] {
        assert!(said.contains(word), "{said}");
    }
    let tight = ["--model", model, "--broker", &broker, "--kv-mib", "1"];
    let tight = |command: &str| run(&[&[command][..], &tight].concat());
    let checked = tight("check");
    assert_eq!(checked.status.code(), Some(1));
    let words = "kv_mib: 1 MiB hold ";
    assert!(text(&checked.stdout).contains(&format!("✗ {words}")), "{}", text(&checked.stdout));
    let served = tight("serve");
    assert_eq!(served.status.code(), Some(1));
    assert!(text(&served.stderr).contains(words), "{}", text(&served.stderr));
    let nobody = format!("127.0.0.1:{}", free_port());
    let alone = run(&["check", "--model", model, "--broker", &nobody]);
    let said = text(&alone.stdout);
    assert_eq!(alone.status.code(), Some(3), "{said}");
    assert!(
        said.contains(&format!("✗ broker: nothing listens at {nobody}\n  → start the broker at {nobody}")),
        "{said}"
    );
    let nothing = run(&["check", "--broker", &broker]);
    let said = text(&nothing.stdout);
    assert_eq!(nothing.status.code(), Some(1), "{said}");
    assert!(said.contains("✗ model: no target") && said.contains("✓ broker: "), "{said}");
    let wrong = run(&["check", "--broker", "mqtt://me:hush@h:0"]);
    let said = text(&wrong.stdout);
    assert_eq!(wrong.status.code(), Some(2), "{said}");
    assert!(
        said.starts_with("✗ configuration: broker \"mqtt://***@h:0\"") && !said.contains("hush"),
        "{said}"
    );
}

#[test]
fn a_life_with_the_embedded_broker() {
    let directory = tempfile::tempdir().unwrap();
    let (child, port) = serving(&["--embedded-broker", "--listen", "127.0.0.1:0"], directory.path());
    assert_ne!(port, 0);
    signal(&child, "-TERM");
    let (code, said) = ended(child);
    assert_eq!(code, Some(0), "{said}");
    for word in [
        "target loaded",
        "target warmed up",
        "embedded broker",
        "connected and subscribed",
        "draining",
        "status: target batches=0 ",
        "status: energy reports=0 ",
    ] {
        assert!(said.contains(word), "{said}");
    }
    assert!(said.find("target warmed up") < said.find("connected and subscribed"), "{said}");
    assert!(!directory.path().join("ready").exists(), "what isn't served any more isn't ready");
}

#[test]
fn the_status_is_logged_on_request_and_at_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let (mut child, _) = serving(&["--embedded-broker", "--listen", "127.0.0.1:0"], directory.path());
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let mut next = |group: &str| log.find(|line| line.contains(&format!("status: {group} "))).unwrap();
    signal(&child, "-USR1");
    let asked = next("verifier");
    assert!(asked.contains(" sessions=0 ") && asked.contains(" connected=1"), "{asked}");
    assert!(next("link").contains(" connections=1 "));
    signal(&child, "-TERM");
    assert!(next("verifier").contains(" connected=0"));
    assert!(next("setup").contains(" reports=0 "));
    assert!(child.wait().unwrap().success());
}

#[tokio::test]
async fn a_life_with_mosquitto() {
    let mosquitto = Mosquitto::with(SITE);
    let broker = format!("127.0.0.1:{}", mosquitto.port);
    let directory = tempfile::tempdir().unwrap();
    let mut watcher = Client::connect(mosquitto.port, "watcher", "dl1/v/verifier-1/st").await;
    let (mut child, _) = serving(&["--broker", &broker], directory.path());
    let here = watcher.presence(|presence| presence.liveness == Liveness::Here).await;
    assert_eq!((here.model.as_str(), here.vocabulary.size), ("dunlin-demo-target", 2048));
    child.kill().unwrap();
    child.wait().unwrap();
    let lost = watcher.presence(|presence| presence.liveness == Liveness::Lost).await;
    assert_eq!(lost.generation, here.generation);

    let (child, _) = serving(&["--broker", &broker], directory.path());
    let again = watcher.presence(|presence| presence.liveness == Liveness::Here).await;
    assert!(again.generation > here.generation, "a restart counts on");
    signal(&child, "-INT");
    let left = watcher.presence(|presence| presence.liveness == Liveness::Left).await;
    assert_eq!(left.generation, again.generation);
    assert_eq!(ended(child).0, Some(0));
}

#[test]
fn an_absent_broker_is_said_once() {
    let mut mosquitto =
        Mosquitto::new(&MosquittoOptions { lines: SITE, ..MosquittoOptions::default() }).unwrap();
    let (model, broker) = (demo(), format!("127.0.0.1:{}", mosquitto.port));
    let mut command = program(&["serve", "--model", model.to_str().unwrap(), "--broker", &broker]);
    let directory = tempfile::tempdir().unwrap();
    let ready = directory.path().join("ready");
    let child = command.arg("--ready-file").arg(&ready).stderr(Stdio::piped()).spawn().unwrap();
    hang_up(mosquitto.port, 4);
    mosquitto.start().unwrap();
    until("the ready file", directory.path(), || ready.exists().then_some(()));
    signal(&child, "-TERM");
    let (code, said) = ended(child);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said.matches("no broker; trying again").count(), said.matches("reason=").count(), "{said}");
    assert_eq!(said.matches(&format!("{broker} closed the connection")).count(), 1, "{said}");
}
