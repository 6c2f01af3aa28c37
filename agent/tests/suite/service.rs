//! The agent as a service: its messages to the service manager, and `ask`.

use crate::process::{PROMPT, demo, serve, stderr, target, tokens};
use crate::verifier::{self, Plan};
use dunlin_lm::ModelDir;
use dunlin_mosquitto::{Mosquitto, MosquittoOptions, OPEN};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use tempfile::TempDir;

/// Time limit of waiting for a message: longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A service manager with one service.
struct Manager {
    news: Receiver<String>,
    agent: Child,
    dir: TempDir,
}

impl Manager {
    /// Starts the agent as its unit does.
    fn start(url: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let ear = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        let (heard, news) = channel();
        // Always read, as a manager does: the agent would block if nobody read its messages.
        std::thread::spawn(move || {
            let mut bytes = [0; 1024];
            while let Ok(read) = ear.recv(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..read]).trim_end().to_owned();
                if heard.send(text).is_err() {
                    return;
                }
            }
        });
        let mut agent = serve(url);
        agent.args(["--socket-for-group", "--socket"]).arg(dir.path().join("agent.sock"));
        agent.env("NOTIFY_SOCKET", dir.path().join("notify")).env("WATCHDOG_USEC", "200000");
        Self { news, agent: agent.spawn().unwrap(), dir }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("agent.sock")
    }

    /// The next message.
    fn next(&self) -> String {
        self.news.recv_timeout(PATIENCE).expect("the agent says something")
    }

    /// Waits for a message that contains `what`.
    fn until(&self, what: &str) -> String {
        loop {
            let news = self.next();
            if news.contains(what) {
                return news;
            }
        }
    }

    fn terminate(&mut self) {
        assert!(Command::new("kill").arg(self.agent.id().to_string()).status().unwrap().success());
        self.until("STOPPING=1");
        assert!(self.agent.wait().unwrap().success());
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        // Ignore the error: the agent may have ended already.
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}

fn ask(socket: &Path, flags: &[&str]) -> Output {
    let mut ask = Command::new(env!("CARGO_BIN_EXE_dunlin-agent"));
    ask.arg("ask").arg("--socket").arg(socket).args(flags);
    ask.env_remove("RUST_LOG").stdin(Stdio::null()).output().unwrap()
}

#[test]
fn a_service_is_ready_without_a_broker_lives_and_says_how_it_stands() {
    let mut broker = Mosquitto::new(&MosquittoOptions::default()).unwrap();
    let port = broker.port;
    let mut manager = Manager::start(&broker.url());
    let status = manager.next();
    assert_eq!(
        status,
        format!(
            "STATUS=looking for the broker at mqtt://127.0.0.1:{port}; drafting with dunlin-demo-drafter"
        )
    );
    manager.until("READY=1");
    assert!(manager.socket().exists(), "it listens once it is ready");
    manager.until("STATUS=looking for the broker at");
    for _ in 0..3 {
        manager.until("WATCHDOG=1");
    }
    broker.start().unwrap();
    manager.until("STATUS=connected to");
    broker.kill();
    manager.until("STATUS=looking for the broker at");
    manager.terminate();
}

#[test]
fn ask_writes_the_services_reply() {
    let broker = Mosquitto::with(OPEN);
    let _verifier = verifier::start(broker.port, target(), Plan::default());
    let mut manager = Manager::start(&broker.url());
    manager.until("READY=1");
    let mode = fs::metadata(manager.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let plain = ask(&manager.socket(), &[PROMPT]);
    assert!(plain.status.success(), "{}", stderr(&plain));
    manager.until("checked by v1");
    let again = ask(&manager.socket(), &["--json", "--new", "--max-tokens", "10", PROMPT]);
    let lines: Vec<Value> = again
        .stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    let report = lines.last().unwrap();
    assert_eq!(report["event"], "finished");
    assert!((1..=10).contains(&tokens(report).len()), "{report}");
    let text = ModelDir::open(demo("drafter")).unwrap().tokenizer.decode(&tokens(report));
    assert_eq!(String::from_utf8(plain.stdout).unwrap(), format!("{text}\n"), "of the same seed");
    let long = "x".repeat(1 << 16);
    let long = ask(&manager.socket(), &[&long]);
    assert_eq!(long.status.code(), Some(1));
    assert!(stderr(&long).contains("the prompt has 65536 bytes"), "{}", stderr(&long));
    manager.terminate();
    let nobody = ask(&manager.socket(), &[PROMPT]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(stderr(&nobody).contains("systemctl status dunlin-agent"), "{}", stderr(&nobody));
}

#[test]
fn a_client_that_leaves_many_prompts_behind_does_not_end_the_agent() {
    let broker = Mosquitto::with(OPEN);
    let _verifier = verifier::start(broker.port, target(), Plan::default());
    let mut manager = Manager::start(&broker.url());
    manager.until("READY=1");
    let mut client = UnixStream::connect(manager.socket()).unwrap();
    let prompt = json!({"prompt": PROMPT.repeat(8), "new_session": true});
    client.write_all(format!("{prompt}\n").repeat(60).as_bytes()).unwrap();
    drop(client);
    let after = ask(&manager.socket(), &["--new", "--max-tokens", "5", PROMPT]);
    assert!(after.status.success(), "{}", stderr(&after));
    manager.terminate();
}

#[test]
fn ask_says_when_the_agent_ends_before_the_reply() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("agent.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let hang_up = std::thread::spawn(move || drop(listener.accept().unwrap()));
    let output = ask(&path, &[PROMPT]);
    hang_up.join().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
}

#[test]
fn a_service_without_a_model_is_a_mistake_that_no_restart_mends() {
    let mut agent = Command::new(env!("CARGO_BIN_EXE_dunlin-agent"));
    let output = agent.args(["serve", "--device", "pi-7"]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("no model: give --model DIR"), "{}", stderr(&output));
}
