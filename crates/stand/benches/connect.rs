//! The cost of TLS: connections to a mosquitto as `dunlin-fleet` sets it up, beside one without TLS.

mod support;

use anyhow::{Context, Result};
use dunlin_fleet::{Fleet, FleetPlan};
use dunlin_link::{BrokerAddress, ConnectOptions, MqttTable, TlsTable, probe};
use dunlin_mosquitto::{Mosquitto, MosquittoOptions, OPEN, free_port};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};
use support::report;
use time::OffsetDateTime;

/// Connections of each kind; they alternate, so that a disturbance affects both.
const CONNECTIONS: usize = 50;
/// The board that connects.
const BOARD: &str = "plover-1";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let dir = tempfile::tempdir().context("a folder for the fleet")?;
    let (tls, plain) = (secured(&dir.path().join("fleet"))?, Mosquitto::with(OPEN));
    let files = dir.path().join("fleet/devices").join(BOARD);
    let table = TlsTable {
        ca_file: Some(files.join("ca.pem")),
        cert_file: Some(files.join("cert.pem")),
        key_file: Some(files.join("key.pem")),
    };
    let with = options(&format!("mqtts://localhost:{}", tls.port), &table)?;
    let without = options(&plain.url(), &TlsTable::default())?;
    let (mut secure, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..CONNECTIONS {
        secure.push(connected(&with).await?);
        bare.push(connected(&without).await?);
    }
    report(&json!({ "tls_us": secure, "plain_us": bare }))
}

/// mosquitto with a fleet's certificates.
fn secured(folder: &Path) -> Result<Mosquitto> {
    let port = free_port();
    let plan = FleetPlan {
        broker: format!("mqtts://localhost:{port}").parse().context("the broker's address")?,
        broker_dir: folder.join("broker"),
        services: Vec::new(),
    };
    let now = OffsetDateTime::now_utc();
    let mut fleet = Fleet::init(folder, &plan, now)?;
    fleet.issue(&BOARD.parse().context("the board's name")?, now)?;
    let lines = fleet.mosquitto_conf().replace(&format!("listener {port}\n"), "");
    Mosquitto::started(&MosquittoOptions { lines: &lines, port: Some(port), ..MosquittoOptions::default() })
}

fn options(url: &str, tls: &TlsTable) -> Result<ConnectOptions> {
    let broker: BrokerAddress = url.parse()?;
    Ok(ConnectOptions {
        security: MqttTable::default().security(&broker, tls, Path::new("/nowhere"), None)?,
        broker,
        login: None,
        client_id: BOARD.into(),
        keep_alive: Duration::from_secs(5),
        inflight_max: 1,
    })
}

/// Microseconds from reading the certificates to the broker's CONNACK.
async fn connected(options: &ConnectOptions) -> Result<f64> {
    let begun = Instant::now();
    probe(options).await.map_err(|loss| anyhow::anyhow!(loss.reason))?;
    Ok(begun.elapsed().as_secs_f64() * 1e6)
}
