//! A mosquitto process that can be killed and restarted on the same port.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

pub(crate) struct Broker {
    dir: TempDir,
    pub(crate) port: u16,
    child: Option<Child>,
}

impl Broker {
    pub(crate) fn start() -> Self {
        Self::with("allow_anonymous true\n")
    }

    /// A broker with `lines` of configuration in addition to its listener.
    pub(crate) fn with(lines: &str) -> Self {
        let mut broker = Self { dir: TempDir::new().unwrap(), port: free_port(), child: None };
        let listener = format!("listener {} 127.0.0.1\nset_tcp_nodelay true\nlog_dest stderr\n", broker.port);
        fs::write(broker.dir.path().join("mosquitto.conf"), listener + lines).unwrap();
        broker.restart();
        broker
    }

    pub(crate) fn url(&self) -> String {
        url(self.port)
    }

    /// Kills the broker with SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts the broker; returns once it reports that it runs.
    pub(crate) fn restart(&mut self) {
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/usr/local/sbin";
        let mut child = Command::new("mosquitto")
            .env("PATH", path)
            .arg("-c")
            .arg(self.dir.path().join("mosquitto.conf"))
            .stderr(Stdio::piped())
            .spawn()
            .expect("mosquitto runs: apt-get install mosquitto");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.ends_with(" running")), "mosquitto did not start");
        std::thread::spawn(move || lines.count());
        self.child = Some(child);
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn url(port: u16) -> String {
    format!("mqtt://127.0.0.1:{port}")
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
