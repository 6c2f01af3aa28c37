//! A real mosquitto beside tests, benches and the stand: on a port of its own, with its log, and gone with its guard.
//!
//! Nothing here is part of what users run.

use anyhow::{Context, Result, anyhow, bail};
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

/// Everybody may connect. All else is mosquitto's default.
pub const DEFAULTS: &str = "allow_anonymous true\n";
/// Everybody may connect, and small packets are not delayed.
pub const OPEN: &str = "allow_anonymous true\nset_tcp_nodelay true\n";
/// The site's file, whose listener is replaced.
pub const SITE: &str = include_str!("../../../broker-verifier/mosquitto.conf");
/// The listener of the site's file.
const SITE_LISTENER: &str = "listener 1883 127.0.0.1\n";
/// How long it may take to be up.
const UP_WITHIN: Duration = Duration::from_secs(20);
/// The end of the line that it logs once its port is open.
const RUNNING: &str = " running";

/// What a mosquitto is started with.
#[derive(Clone, Copy, Debug)]
pub struct MosquittoOptions<'a> {
    /// Its configuration without the listener. What it logs must include information.
    pub lines: &'a str,
    /// Names with their passwords. Where there are any, nobody else may connect.
    pub accounts: &'a [(&'a str, &'a str)],
    /// The access list; empty: everybody may read and write everything.
    pub acl: &'a str,
    /// The folder of its logs, one for each start; none: a temporary one.
    pub logs: Option<&'a Path>,
    /// Its port; none: a free one.
    pub port: Option<u16>,
}

impl Default for MosquittoOptions<'_> {
    fn default() -> Self {
        Self { lines: OPEN, accounts: &[], acl: "", logs: None, port: None }
    }
}

/// A mosquitto that keeps its port and its configuration over restarts. It is killed when this is dropped.
#[derive(Debug)]
pub struct Mosquitto {
    /// Its port on this machine.
    pub port: u16,
    dir: TempDir,
    logs: PathBuf,
    starts: usize,
    process: Option<Child>,
}

impl Mosquitto {
    /// A mosquitto with these lines of configuration, which is up.
    ///
    /// # Panics
    /// It does not come up.
    #[must_use]
    #[track_caller]
    pub fn with(lines: &str) -> Self {
        match Self::started(&MosquittoOptions { lines, ..MosquittoOptions::default() }) {
            Ok(mosquitto) => mosquitto,
            Err(error) => panic!("{error:#}"),
        }
    }

    /// A mosquitto that is up.
    ///
    /// # Errors
    /// Its files can't be written, or it does not come up.
    pub fn started(options: &MosquittoOptions<'_>) -> Result<Self> {
        let mut mosquitto = Self::new(options)?;
        mosquitto.start()?;
        Ok(mosquitto)
    }

    /// A mosquitto with a port of its own that is not up yet.
    ///
    /// # Errors
    /// Its files can't be written.
    pub fn new(options: &MosquittoOptions<'_>) -> Result<Self> {
        let dir = TempDir::new().context("a folder for mosquitto")?;
        let port = options.port.unwrap_or_else(free_port);
        let [passwords, list] = ["passwords", "acl"].map(|name| dir.path().join(name));
        // As root, mosquitto would become a user who may not read its files. For others the line says nothing.
        let mut text = format!("listener {port} 127.0.0.1\nuser root\nlog_dest stderr\n");
        text += &options.lines.replace(SITE_LISTENER, "");
        if !options.accounts.is_empty() {
            write_passwords(&passwords, options.accounts)?;
            text += &format!("\nallow_anonymous false\npassword_file {}\n", passwords.display());
        }
        if !options.acl.is_empty() {
            fs::write(&list, options.acl).with_context(|| list.display().to_string())?;
            text += &format!("\nacl_file {}\n", list.display());
        }
        let config = dir.path().join("mosquitto.conf");
        fs::write(&config, text).with_context(|| config.display().to_string())?;
        let logs = options.logs.unwrap_or(dir.path()).to_owned();
        Ok(Self { port, dir, logs, starts: 0, process: None })
    }

    /// Starts it, unless it was started and not killed, and returns when its port is open.
    ///
    /// # Errors
    /// It is not installed, or it does not come up; the error contains its log.
    pub fn start(&mut self) -> Result<()> {
        if self.process.is_some() {
            return Ok(());
        }
        self.starts += 1;
        let log = self.logs.join(format!("mosquitto-{}.log", self.starts));
        self.come_up(&log).map_err(|error| {
            self.kill();
            let said = fs::read_to_string(&log).unwrap_or_default();
            anyhow!("mosquitto on port {} is not up: {error:#}; {}:\n{said}", self.port, log.display())
        })
    }

    fn come_up(&mut self, log: &Path) -> Result<()> {
        let file = File::create(log)?;
        // Debian has it where only root looks.
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/usr/local/sbin";
        let mut command = Command::new("mosquitto");
        command.env("PATH", path).arg("-c").arg(self.dir.path().join("mosquitto.conf"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().context("mosquitto can't be run: apt-get install mosquitto")?;
        let said = child.stderr.take().expect("standard error is a pipe");
        let child = self.process.insert(child);
        let (running, up) = sync_channel(1);
        thread::spawn(move || keep(said, file, &running));
        match up.recv_timeout(UP_WITHIN) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => bail!("not within {} s", UP_WITHIN.as_secs()),
            Err(RecvTimeoutError::Disconnected) => bail!("it ended with {}", child.wait()?),
        }
        TcpStream::connect(("127.0.0.1", self.port)).context("its port takes no connection")?;
        Ok(())
    }

    /// Ends it the hard way; it forgets what was retained.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.process.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// How often it was started.
    #[must_use]
    pub fn starts(&self) -> usize {
        self.starts
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        url(self.port)
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Keeps what it says in `log`, and tells once that it runs.
fn keep(said: ChildStderr, mut log: File, running: &SyncSender<()>) {
    for line in BufReader::new(said).split(b'\n').map_while(std::io::Result::ok) {
        // It must not wait for a reader, so that it is read to its end whatever becomes of the log.
        let _ = log.write_all(&[&line, &b"\n"[..]].concat());
        if line.ends_with(RUNNING.as_bytes()) {
            let _ = running.try_send(());
        }
    }
}

fn write_passwords(file: &Path, accounts: &[(&str, &str)]) -> Result<()> {
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    created.with_context(|| file.display().to_string())?;
    for (user, password) in accounts {
        let mut command = Command::new("mosquitto_passwd");
        let output = command.arg("-b").arg(file).args([user, password]).output();
        let output = output.context("mosquitto_passwd can't be run: apt-get install mosquitto")?;
        if !output.status.success() {
            bail!("mosquitto_passwd: {} ({})", String::from_utf8_lossy(&output.stderr).trim(), output.status);
        }
    }
    Ok(())
}

/// The address of a broker on this machine.
#[must_use]
pub fn url(port: u16) -> String {
    format!("mqtt://127.0.0.1:{port}")
}

/// A port that nobody listens on now.
///
/// # Panics
/// All ports of this machine are taken.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    listener.expect("this machine has a free port").port()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(port: u16) -> bool {
        TcpStream::connect(("127.0.0.1", port)).is_err()
    }

    #[test]
    fn it_comes_back_on_its_port_and_goes_with_its_guard() {
        let logs = TempDir::new().unwrap();
        let options = MosquittoOptions { logs: Some(logs.path()), ..MosquittoOptions::default() };
        let mut mosquitto = Mosquitto::new(&options).unwrap();
        let port = mosquitto.port;
        assert!(refused(port));
        for starts in 1..=2 {
            mosquitto.start().unwrap();
            mosquitto.start().unwrap();
            assert_eq!(mosquitto.starts(), starts, "what is up is not started again");
            assert!(!refused(port));
            let log = fs::read_to_string(logs.path().join(format!("mosquitto-{starts}.log"))).unwrap();
            assert!(log.contains(RUNNING), "{log}");
            mosquitto.kill();
            assert!(refused(port));
        }
        mosquitto.start().unwrap();
        drop(mosquitto);
        assert!(refused(port));
    }

    #[test]
    fn one_that_does_not_come_up_says_why() {
        let options = MosquittoOptions { lines: "no_such_line true\n", ..MosquittoOptions::default() };
        let error = format!("{:#}", Mosquitto::started(&options).unwrap_err());
        assert!(error.starts_with("mosquitto on port "), "{error}");
        assert!(error.contains("no_such_line") && error.contains("it ended with exit status"), "{error}");
    }

    #[test]
    fn one_without_its_port_says_so() {
        let mut mosquitto = Mosquitto::new(&MosquittoOptions::default()).unwrap();
        let _other = TcpListener::bind(("127.0.0.1", mosquitto.port)).unwrap();
        let error = format!("{:#}", mosquitto.start().unwrap_err());
        assert!(error.contains("Address already in use"), "{error}");
    }

    #[test]
    fn the_sites_file_has_no_listener_but_its_own() {
        assert!(SITE.contains(SITE_LISTENER));
        let mosquitto = Mosquitto::with(SITE);
        let text = fs::read_to_string(mosquitto.dir.path().join("mosquitto.conf")).unwrap();
        assert!(text.contains("max_packet_size 65536\n"), "{text}");
        let listeners: Vec<_> = text.lines().filter(|line| line.starts_with("listener ")).collect();
        assert_eq!(listeners, [format!("listener {} 127.0.0.1", mosquitto.port)]);
    }
}
