//! Access to the inside of the machine by ssh.

use super::disk::run;
use super::lines::Lines;
use crate::process::Process;
use crate::wait::Stop;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Longest duration of a command inside; an emulated processor is about twenty times slower than the real one.
const COMMAND_WITHIN: Duration = Duration::from_secs(240);
/// Longest duration of a reply.
const REPLY_WITHIN: Duration = Duration::from_secs(300);

/// The login inside the machine.
#[derive(Debug)]
pub struct Guest {
    port: u16,
    key: PathBuf,
    /// Socket of the ssh connection that all commands share; its path must be short.
    shared: PathBuf,
    log: PathBuf,
    stop: Stop,
}

/// A prompt that is being answered.
#[derive(Debug)]
pub struct PendingPrompt {
    process: Process,
    lines: Lines,
}

impl Guest {
    /// Creates a key.
    ///
    /// # Errors
    /// `ssh-keygen` is not installed.
    pub fn new(port: u16, dir: &Path, logs: &Path, stop: &Stop) -> Result<Self> {
        let key = dir.join("key");
        let mut command = Command::new("ssh-keygen");
        run(command.args(["-q", "-t", "ed25519", "-N", "", "-C", "test-boot", "-f"]).arg(&key))?;
        let (shared, log) = (dir.join("ssh"), logs.join("ssh.log"));
        File::create(&log).with_context(|| log.display().to_string())?;
        Ok(Self { port, key, shared, log, stop: stop.clone() })
    }

    /// The key's public half.
    ///
    /// # Errors
    /// It was removed.
    pub fn public_key(&self) -> Result<String> {
        let text = fs::read_to_string(self.key.with_extension("pub")).context("the public key")?;
        Ok(text.trim().into())
    }

    /// Drops the shared connection, which is dead after a power cut.
    pub fn forget(&self) {
        // Ignore the error: there may be no connection.
        let _ = fs::remove_file(&self.shared);
    }

    /// Runs a command; returns true if it succeeded, and its output.
    ///
    /// # Errors
    /// ssh can't be run, or the command takes too long.
    pub fn attempt(&self, script: &str) -> Result<(bool, String)> {
        let log = self.shared.with_extension("out");
        let (mut process, lines) = Process::heard(&mut self.command(script)?, &log)?;
        let status = self.stop.until(&format!("the end of `{script}`"), COMMAND_WITHIN, || {
            // The shared connection's process outlives the command, but closes its standard output.
            Ok(process.ended()?.filter(|_| lines.is_over()))
        })?;
        Ok((status.success(), lines.since(0).join("\n")))
    }

    /// Runs a command and returns its output.
    ///
    /// # Errors
    /// It fails.
    pub fn run(&self, script: &str) -> Result<String> {
        let (done, text) = self.attempt(script)?;
        ensure!(done, "`{script}` in the machine failed: {text} (ssh: {})", self.log.display());
        Ok(text)
    }

    /// The last lines of the agent's log.
    ///
    /// # Errors
    /// The machine can't be reached.
    pub fn said(&self) -> Result<String> {
        self.run("journalctl -u dunlin-agent -b -o cat --no-pager -n 6")
    }

    /// The machine's uptime, s.
    ///
    /// # Errors
    /// The machine can't be reached.
    pub fn uptime(&self) -> Result<f64> {
        let text = self.run("cat /proc/uptime")?;
        text.split(' ').next().and_then(|word| word.parse().ok()).context("/proc/uptime has no number")
    }

    /// Sends a prompt to the serving agent, in a new session.
    ///
    /// # Errors
    /// ssh can't be run.
    pub fn ask(&self, prompt: &str, tokens_max: usize, log: &Path) -> Result<PendingPrompt> {
        let prompt = prompt.replace('\'', r"'\''");
        let script = format!("dunlin-agent ask --json --new --max-tokens {tokens_max} '{prompt}'");
        let (process, lines) = Process::heard(&mut self.command(&script)?, log)?;
        Ok(PendingPrompt { process, lines })
    }

    /// Sends a prompt and returns the last event, which has the whole reply.
    ///
    /// # Errors
    /// The agent can't be reached, or reports an error.
    pub fn reply(&self, prompt: &str, tokens_max: usize, log: &Path) -> Result<Value> {
        let mut asked = self.ask(prompt, tokens_max, log)?;
        self.stop.until(&format!("the end of a reply ({})", log.display()), REPLY_WITHIN, || asked.end())
    }

    fn command(&self, script: &str) -> Result<Command> {
        let mut command = Command::new("ssh");
        command.args(["-F", "none", "-p", &self.port.to_string(), "-i"]).arg(&self.key);
        for option in [
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "ConnectTimeout=30",
            "ServerAliveInterval=5",
            "ControlMaster=auto",
            "ControlPersist=yes",
        ] {
            command.args(["-o", option]);
        }
        command.arg("-o").arg(format!("ControlPath={}", self.shared.display()));
        let log = File::options().append(true).open(&self.log).context("the log of ssh")?;
        command.args(["root@127.0.0.1", script]).stderr(Stdio::from(log));
        Ok(command)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut command = Command::new("ssh");
        command.args(["-F", "none", "-O", "exit", "-o"]);
        command.arg(format!("ControlPath={}", self.shared.display())).arg("root@127.0.0.1");
        // Ignore the result: the connection may be gone.
        let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

impl PendingPrompt {
    /// Number of tokens received.
    pub fn tokens(&self) -> usize {
        self.lines.since(0).iter().filter(|line| line.contains("\"event\":\"token\"")).count()
    }

    /// The last event; `None` before it arrived.
    ///
    /// # Errors
    /// The agent reports an error or ends without a reply.
    pub fn end(&mut self) -> Result<Option<Value>> {
        let is_over = self.process.ended()?.is_some() && self.lines.is_over();
        for line in self.lines.since(0) {
            let event: Value = serde_json::from_str(&line).with_context(|| format!("no event: {line}"))?;
            match event["event"].as_str() {
                Some("finished") => return Ok(Some(event)),
                Some("error") => bail!("the agent says: {}", event["text"]),
                _ => {}
            }
        }
        ensure!(!is_over, "the agent ended without a reply");
        Ok(None)
    }
}
