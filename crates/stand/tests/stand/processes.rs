//! Real processes on one machine: mosquitto, verifier, agents, and a connection between them that can be cut.

use dunlin_stand::process::Process;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longest wait for any condition.
const PATIENCE: Duration = Duration::from_secs(120);

/// The demo pair of the checkout.
pub(crate) fn model(role: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/demo").join(role)
}

/// The fixed list of held-out prompts.
pub(crate) fn prompts() -> Vec<String> {
    let text = std::fs::read_to_string(model("prompts.json")).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    json["prompts"].as_array().unwrap().iter().map(|prompt| prompt.as_str().unwrap().to_owned()).collect()
}

/// A program of the workspace, in the directory of the test's own program.
fn program(name: &str) -> Command {
    let own = std::env::current_exe().unwrap();
    let path = own.parent().unwrap().parent().unwrap().join(name);
    assert!(path.is_file(), "{} is missing: run `make build`", path.display());
    Command::new(path)
}

/// Repeats a check until it is true.
pub(crate) fn until(what: &str, mut is: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is() {
        assert!(started.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::yield_now();
    }
}

/// The verifier with the demo target.
pub(crate) struct VerifierProcess {
    process: Process,
    broker: u16,
    ready: PathBuf,
    id: &'static str,
    model: PathBuf,
}

impl VerifierProcess {
    pub(crate) fn start(dir: &TempDir, broker: u16) -> Self {
        Self::serve(dir, broker, "verifier-1", &model("target"))
    }

    /// Starts a verifier with the name `id` and the target of `model`.
    pub(crate) fn serve(dir: &TempDir, broker: u16, id: &'static str, model: &Path) -> Self {
        let ready = dir.path().join(format!("ready-{id}"));
        let process = Self::spawn(&ready, broker, id, model);
        Self { process, broker, ready, id, model: model.into() }
    }

    fn spawn(ready: &Path, broker: u16, id: &str, model: &Path) -> Process {
        let _ = std::fs::remove_file(ready);
        let mut command = program("dunlin-verifier");
        command.args([
            "serve",
            "--broker",
            &format!("mqtt://127.0.0.1:{broker}"),
            "--threads",
            "1",
            "--id",
            id,
            "--model",
        ]);
        command.arg(model).arg("--ready-file").arg(ready);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        until("the verifier is ready", || ready.is_file());
        child.into()
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    pub(crate) fn kill_and_restart(&mut self) {
        self.kill();
        self.process = Self::spawn(&self.ready, self.broker, self.id, &self.model);
    }
}

/// The settings of an agent for all its prompts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    pub(crate) broker: u16,
    pub(crate) device: &'static str,
    pub(crate) seed: u64,
    pub(crate) temperature: f32,
    pub(crate) tokens_max: usize,
    pub(crate) policy: &'static str,
}

/// `dunlin-agent serve --json`: prompts in, events out.
pub(crate) struct AgentProcess {
    _process: Process,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl AgentProcess {
    pub(crate) fn start(ask: &Ask) -> Self {
        Self::with_flags(ask, &[])
    }

    pub(crate) fn with_flags(ask: &Ask, flags: &[&str]) -> Self {
        Self::with_drafter(ask, &model("drafter"), flags)
    }

    pub(crate) fn with_drafter(ask: &Ask, drafter: &Path, flags: &[&str]) -> Self {
        let mut command = program("dunlin-agent");
        command.args(["serve", "--json", "--broker", &format!("mqtt://127.0.0.1:{}", ask.broker)]);
        command.args([
            "--policy",
            ask.policy,
            "--device",
            ask.device,
            "--seed",
            &ask.seed.to_string(),
            "--top-p",
            "1",
        ]);
        command.args(["--temperature", &ask.temperature.to_string()]);
        command.args(["--max-tokens", &ask.tokens_max.to_string(), "--model"]).arg(drafter);
        command.args(flags).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { _process: child.into(), input, output: BufReader::new(output) }
    }

    /// Sends a prompt that starts a new session.
    pub(crate) fn ask(&mut self, prompt: &str) {
        writeln!(self.input, "{}", json!({"prompt": prompt, "new_session": true})).unwrap();
    }

    /// The next event. Without a time limit: if it never comes, the test runner ends the test.
    pub(crate) fn event(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the agent ended");
        serde_json::from_str(&line).unwrap()
    }

    /// Reads events up to the end of the reply and returns that.
    pub(crate) fn reply(&mut self) -> Value {
        loop {
            let event = self.event();
            match event["event"].as_str().unwrap() {
                "finished" => return event,
                "error" => panic!("{event}"),
                _ => {}
            }
        }
    }
}

/// A connection between an agent and the broker that can be cut.
pub(crate) struct Wire {
    pub(crate) port: u16,
    ends: Arc<Mutex<Vec<TcpStream>>>,
}

impl Wire {
    pub(crate) fn to(broker: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let ends = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&ends);
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let address = SocketAddr::from(([127, 0, 0, 1], broker));
                // If the broker is down, drop the connection at once, as a missing broker would refuse it.
                let Ok(far) = TcpStream::connect(address) else { continue };
                near.set_nodelay(true).unwrap();
                far.set_nodelay(true).unwrap();
                kept.lock().unwrap().extend([near.try_clone().unwrap(), far.try_clone().unwrap()]);
                carry(near.try_clone().unwrap(), far.try_clone().unwrap());
                carry(far, near);
            }
        });
        Self { port, ends }
    }

    /// Breaks every connection now.
    pub(crate) fn cut(&self) {
        for end in self.ends.lock().unwrap().drain(..) {
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

/// Copies one direction until either end is gone, then closes both.
fn carry(mut from: TcpStream, mut to: TcpStream) {
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    });
}
