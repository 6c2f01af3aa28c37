//! The environment of a board: the broker of its fleet, the verifier, and a listener.

use super::lines::Lines;
use super::machine::HOST_INSIDE;
use crate::process::Process;
use crate::wait::Stop;
use anyhow::{Context, Result, bail, ensure};
use dunlin_fleet::{Fleet, FleetPlan};
use dunlin_mosquitto::{Mosquitto, MosquittoOptions, free_port};
use dunlin_wire::{BrokerRole, DeviceId, Identity};
use serde_json::Value;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use time::OffsetDateTime;

/// Longest time until broker and verifier are ready, including loading and checking the target.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// The verifier's name.
const VERIFIER: &str = "v.verifier-1";
/// The listener's name.
const LISTENER: &str = "o.listener";

/// mosquitto as `dunlin-fleet` sets it up, which requires a certificate, and a listener for the boards' messages.
pub struct SiteBroker {
    mosquitto: Mosquitto,
    listener: Option<(Process, Lines)>,
    logs: PathBuf,
    fleet: Fleet,
    /// The folder of the fleet.
    _dir: TempDir,
}

/// A message on a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicMessage {
    /// The topic.
    pub topic: String,
    /// True when it was published before the listener subscribed.
    pub retained: bool,
    /// Its payload.
    pub payload: Vec<u8>,
}

// A fleet holds keys and doesn't show itself.
impl fmt::Debug for SiteBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SiteBroker").field("mosquitto", &self.mosquitto).finish_non_exhaustive()
    }
}

impl SiteBroker {
    /// A broker on a port of its own, not started yet.
    ///
    /// # Errors
    /// Its files can't be written, or mosquitto is not installed.
    pub fn new(logs: &Path) -> Result<Self> {
        let dir = tempfile::tempdir().context("a folder for the fleet")?;
        let (folder, port) = (dir.path().join("fleet"), free_port());
        let services = [VERIFIER, LISTENER].map(|name| name.parse().expect("the name of a service"));
        let plan = FleetPlan {
            broker: format!("mqtts://{HOST_INSIDE}:{port}").parse().context("the broker's address")?,
            broker_dir: folder.join("broker"),
            services: services.into(),
        };
        let fleet = Fleet::init(&folder, &plan, OffsetDateTime::now_utc())?;
        let conf = plan.broker_dir.join("mosquitto.conf");
        let conf = fs::read_to_string(&conf).with_context(|| conf.display().to_string())?;
        let own_listener = format!("listener {port}\n");
        ensure!(conf.contains(&own_listener), "the fleet's mosquitto.conf has no listener of its own");
        let lines = format!("log_type all\n{}", conf.replace(&own_listener, ""));
        let options = MosquittoOptions {
            lines: &lines,
            logs: Some(logs),
            port: Some(port),
            ..MosquittoOptions::default()
        };
        Ok(Self { mosquitto: Mosquitto::new(&options)?, listener: None, logs: logs.into(), fleet, _dir: dir })
    }

    /// The lines of a board's card.
    ///
    /// # Errors
    /// The fleet's files can't be read or written.
    pub fn card(&mut self, board: &DeviceId) -> Result<String> {
        self.fleet
            .issue(&Identity { role: BrokerRole::Device, id: board.clone() }, OffsetDateTime::now_utc())?;
        self.fleet.card(board)
    }

    /// Its port on this machine.
    pub fn port(&self) -> u16 {
        self.mosquitto.port
    }

    /// Starts it and the listener.
    ///
    /// # Errors
    /// It does not come up.
    pub fn start(&mut self, stop: &Stop) -> Result<()> {
        if self.listener.is_some() {
            return Ok(());
        }
        let started = self.mosquitto.start();
        stop.check()?;
        started?;
        let heard = self.logs.join(format!("heard-{}.log", self.mosquitto.starts()));
        self.listener = Some(Process::heard(&mut self.listen(), &heard)?);
        Ok(())
    }

    /// Kills it; its retained messages are lost.
    pub fn kill(&mut self) {
        self.mosquitto.kill();
        self.listener = None;
    }

    /// The number of messages received so far.
    pub fn heard(&self) -> usize {
        self.ear().map_or(0, Lines::count)
    }

    /// The received messages from number `from` on.
    pub fn said(&self, from: usize) -> Vec<TopicMessage> {
        let lines = self.ear().map(|ear| ear.since(from)).unwrap_or_default();
        lines.iter().filter_map(|line| TopicMessage::parse(line)).collect()
    }

    /// The message that the broker retains on a topic.
    ///
    /// # Errors
    /// The broker can't be reached.
    pub fn kept(&self, topic: &str) -> Result<Option<TopicMessage>> {
        let output = self.listener().args(["--retained-only", "-W", "3", "-C", "1", "-t", topic]).output();
        let output = output.context("mosquitto_sub: apt-get install mosquitto-clients")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.lines().next().and_then(TopicMessage::parse))
    }

    /// The folder of a service's files.
    fn files(&self, service: &str) -> PathBuf {
        self.fleet.folder(&service.parse().expect("the name of a service"))
    }

    fn ear(&self) -> Option<&Lines> {
        self.listener.as_ref().map(|(_, ear)| ear)
    }

    fn listen(&self) -> Command {
        let mut command = self.listener();
        command.args(["-t", "dl1/d/+/u/st", "-t", "dl1/d/+/u/su"]);
        command
    }

    fn listener(&self) -> Command {
        let mut command = Command::new("mosquitto_sub");
        command.args(["-V", "5", "-h", "localhost", "-p", &self.port().to_string(), "-q", "1"]);
        let files = self.files(LISTENER);
        for (flag, name) in [("--cafile", "ca.pem"), ("--cert", "cert.pem"), ("--key", "key.pem")] {
            command.arg(flag).arg(files.join(name));
        }
        command.args(["-F", "%t %r %x"]);
        command.stderr(Stdio::null());
        command
    }
}

impl TopicMessage {
    /// Parses a line with topic, retain flag and payload in hexadecimal.
    fn parse(line: &str) -> Option<Self> {
        let mut parts = line.split(' ');
        let (topic, retained) = (parts.next()?.to_owned(), parts.next()? == "1");
        let hex = parts.next().unwrap_or_default();
        let payload: Option<Vec<u8>> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()).collect();
        Some(Self { topic, retained, payload: payload? })
    }
}

/// The verifier with the demo target.
#[derive(Debug)]
pub struct SiteVerifier {
    _process: Process,
    energy: PathBuf,
}

impl SiteVerifier {
    /// Starts it; it connects to its broker as soon as that is up.
    ///
    /// # Errors
    /// It is not built, or not ready in time.
    pub fn start(
        program: &Path,
        model: &Path,
        broker: &SiteBroker,
        dir: &Path,
        logs: &Path,
        stop: &Stop,
    ) -> Result<Self> {
        let [config, ready] = ["verifier.toml", "verifier.ready"].map(|name| dir.join(name));
        let [energy, log] = ["energy.jsonl", "verifier.log"].map(|name| logs.join(name));
        for old in [&ready, &energy] {
            let _ = fs::remove_file(old);
        }
        let files = broker.files(VERIFIER);
        let mut text = format!("broker = 'mqtts://localhost:{}'\n[tls]\n", broker.port());
        for (key, name) in [("ca_file", "ca.pem"), ("cert_file", "cert.pem"), ("key_file", "key.pem")] {
            text += &format!("{key} = '{}'\n", files.join(name).display());
        }
        fs::write(&config, text).with_context(|| config.display().to_string())?;
        let out = File::create(&log).with_context(|| log.display().to_string())?;
        let mut command = Command::new(program);
        command.args(["serve", "--threads", "1", "--config"]).arg(&config).arg("--model").arg(model);
        command.arg("--energy-log").arg(&energy).arg("--ready-file").arg(&ready);
        let mut process = Process::start(command.stdout(Stdio::null()).stderr(out))?;
        stop.until(&format!("the verifier is ready ({})", log.display()), READY_WITHIN, || {
            if let Some(status) = process.ended()? {
                bail!("the verifier ended with {status}: {}", log.display());
            }
            Ok(ready.is_file().then_some(()))
        })?;
        Ok(Self { _process: process, energy })
    }

    /// The devices' energy reports, oldest first; there is one after each request.
    ///
    /// # Errors
    /// A line is not JSON.
    pub fn energy(&self) -> Result<Vec<Value>> {
        let text = fs::read_to_string(&self.energy).unwrap_or_default();
        // The last line may be incomplete.
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let all: Result<Vec<Value>, _> = lines.map(serde_json::from_str).collect();
        let all = all.with_context(|| self.energy.display().to_string())?;
        Ok(all.into_iter().filter(|line: &Value| line["message"] == "energy").collect())
    }
}

/// The target-only reply with the sampling of a report.
///
/// # Errors
/// The report lacks the sampling, or the target can't be run.
pub fn reference(program: &Path, model: &Path, report: &Value, tokens_max: usize) -> Result<Value> {
    let prompt = report["prompt"].as_str().context("the report has no prompt")?;
    let mut command = Command::new(program);
    command.args(["reference", "--json", "--threads", "1", "--prompt", prompt, "--model"]).arg(model);
    for name in ["temperature", "top_p", "top_k", "seed"] {
        command.arg(format!("--{}", name.replace('_', "-"))).arg(report[name].to_string());
    }
    let output = command.args(["--max-tokens", &tokens_max.to_string()]).stdin(Stdio::null()).output();
    let output = output.context("the target alone")?;
    ensure!(output.status.success(), "the target alone: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("the target alone wrote no JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_read() {
        let said = TopicMessage::parse("dl1/d/kestrel/u/st 1 1a800101").unwrap();
        assert_eq!((said.topic.as_str(), said.retained), ("dl1/d/kestrel/u/st", true));
        assert_eq!(said.payload, [0x1a, 0x80, 1, 1]);
        assert!(TopicMessage::parse("t 0 ").unwrap().payload.is_empty());
        assert_eq!(TopicMessage::parse("t 0 1"), None);
        assert_eq!(TopicMessage::parse("t 0 é1"), None);
        assert_eq!(TopicMessage::parse("t"), None);
    }
}
