//! A mosquitto that runs with the files of a fleet.

use crate::client::{Arrival, Client, tls};
use dunlin_fleet::{Fleet, FleetPlan};
use dunlin_mosquitto::{Mosquitto, MosquittoOptions};
use rustls::ClientConfig;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;
use time::OffsetDateTime;

/// All names: two devices, of which one is called as a verifier is, and each kind of service.
pub(crate) const NAMES: [&str; 8] =
    ["plover-1", "verifier-1", "v.verifier-1", "v.verifier-2", "o.anna", "s.store-1", "w.grafana", "e.claim"];

/// A fleet and its broker.
pub(crate) struct Site {
    dir: TempDir,
    fleet: Fleet,
    mosquitto: Mosquitto,
}

impl Site {
    /// A fleet with all names, and its broker.
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let folder = dir.path().join("fleet");
        let plan = FleetPlan {
            broker: "mqtts://127.0.0.1".parse().unwrap(),
            broker_dir: folder.join("broker"),
            services: NAMES
                .iter()
                .filter(|name| name.contains('.'))
                .map(|name| name.parse().unwrap())
                .collect(),
        };
        let now = OffsetDateTime::now_utc();
        let mut fleet = Fleet::init(&folder, &plan, now).unwrap();
        for name in NAMES.iter().filter(|name| !name.contains('.')) {
            fleet.issue(&name.parse().unwrap(), now).unwrap();
        }
        let text = fleet.mosquitto_conf();
        assert!(text.contains("\nlistener 8883\n"), "{text}");
        // The helper sets the listener; everything else is as generated.
        let options =
            MosquittoOptions { lines: &text.replace("listener 8883\n", ""), ..MosquittoOptions::default() };
        let mosquitto = Mosquitto::started(&options).unwrap();
        Self { dir, fleet, mosquitto }
    }

    /// The broker's port.
    pub(crate) fn port(&self) -> u16 {
        self.mosquitto.port
    }

    /// The folder of a name's files.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.fleet.folder(&name.parse().unwrap())
    }

    /// Connects under a name.
    pub(crate) fn connect(&self, name: &str, id: &str, will: Option<Arrival>) -> io::Result<Client> {
        Client::connect(&self.tls_with(&self.folder(name)), self.port(), id, will)
    }

    fn authority(&self) -> PathBuf {
        self.dir.path().join("fleet/ca.pem")
    }

    /// TLS with the certificate and key in a folder.
    pub(crate) fn tls_with(&self, folder: &Path) -> Arc<ClientConfig> {
        tls(&self.authority(), Some((&folder.join("cert.pem"), &folder.join("key.pem"))))
    }

    /// TLS that shows no certificate.
    pub(crate) fn tls_without_certificate(&self) -> Arc<ClientConfig> {
        tls(&self.authority(), None)
    }

    /// TLS with the broker's own certificate.
    pub(crate) fn tls_as_server(&self) -> Arc<ClientConfig> {
        let folder = self.fleet.broker_folder();
        tls(&self.authority(), Some((&folder.join("server.pem"), &folder.join("server.key"))))
    }

    /// Revokes a name, and restarts the broker.
    pub(crate) fn revoke(&mut self, name: &str) {
        assert_eq!(self.fleet.revoke(name, OffsetDateTime::now_utc()).unwrap(), 1);
        self.mosquitto.kill();
        self.mosquitto.start().unwrap();
    }

    /// Issues a certificate.
    pub(crate) fn issue(&mut self, name: &str) {
        assert!(self.fleet.issue(&name.parse().unwrap(), OffsetDateTime::now_utc()).unwrap());
    }
}
