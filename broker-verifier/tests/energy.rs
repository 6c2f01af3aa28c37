//! Energy reports and telemetry from a device through a real broker to the log.

#![allow(clippy::unwrap_used)] // applies to the tests' helpers, too

mod common;

use common::{Broker, DEADLINE, Device, Running, config, soon, toy, until};
use dunlin_mosquitto::{Mosquitto, MosquittoOptions, SITE};
use dunlin_verifier::energy::EnergyCounters;
use dunlin_verifier::{Config, End};
use dunlin_wire::topic::Topic;
use dunlin_wire::{
    DeviceId, EnergyReport, Lease, MeterFaults, PhaseTotals, PowerSource, Reply, Telemetry, VerifierId,
};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

fn report(reports: u32) -> Vec<u8> {
    let report = EnergyReport {
        run: 7,
        reports,
        source: PowerSource::Simulated,
        requests: reports,
        phases: PhaseTotals::default(),
        idle_mw: Some(2700),
        uncertainty_uj: 0,
        committed: 0,
        drafted: 0,
        frames: 0,
        faults: MeterFaults::default(),
    };
    report.encode().unwrap().to_vec()
}

fn telemetry(at_us: u64) -> Vec<u8> {
    let telemetry = Telemetry {
        run: 7,
        at_us,
        source: PowerSource::Simulated,
        mean_mw: 3000,
        peak_mw: 6000,
        energy_uj: 0,
        temperature_dc: None,
        throttling: None,
        faults: MeterFaults::default(),
    };
    telemetry.encode().unwrap().to_vec()
}

/// Waits for `count` lines of a file that the verifier writes.
async fn lines(path: &Path, count: usize) -> Vec<serde_json::Value> {
    let (path, folder) = (path.to_owned(), path.parent().unwrap().to_owned());
    let lines = move || {
        let text = std::fs::read_to_string(&path).unwrap();
        let whole: Vec<_> = text.split_inclusive('\n').filter(|line| line.ends_with('\n')).collect();
        (whole.len() == count).then(|| whole.iter().map(|line| serde_json::from_str(line).unwrap()).collect())
    };
    tokio::task::spawn_blocking(move || until("the lines", &folder, lines)).await.unwrap()
}

fn logging(port: u16) -> (Config, PathBuf, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("energy.jsonl");
    (Config { energy_log: Some(path.clone()), ..config(port) }, path, directory)
}

type ReportTopic = fn(DeviceId, VerifierId) -> Topic;

async fn post(device: &Device, topic: ReportTopic, bytes: &[u8]) {
    post_to("verifier-1", device, topic, bytes).await;
}

async fn post_to(verifier: &str, device: &Device, topic: ReportTopic, bytes: &[u8]) {
    device.client.post(&topic(device.id.clone(), verifier.parse().unwrap()).name(), bytes).await;
}

async fn leased(port: u16) -> Device {
    let mut device = Device::connect(port, "d1").await;
    assert!(matches!(device.open().await, Reply::Lease(Lease { .. })));
    device.say(&[3, 1, 4]);
    device
}

async fn what_a_device_reports_is_logged(broker: Broker) {
    let (config, path, _directory) = logging(broker.port());
    let running = Running::start(config, toy().target()).await;
    let mut device = leased(broker.port()).await;
    for number in [1, 4, 4, 2] {
        post(&device, Topic::Energy, &report(number)).await;
    }
    post(&device, Topic::Energy, b"garbage").await;
    post(&device, Topic::Telemetry, &telemetry(9)).await;
    device.verify(&[]).await;
    let written = lines(&path, 4).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    for line in &written {
        assert_eq!((&line["device"], &line["source"]), (&"d1".into(), &"simulated".into()));
        assert!((0.0..3600.0).contains(&(now - line["unix_s"].as_f64().unwrap())), "{line}");
    }
    let numbers = |key: &str| -> Vec<u64> { written.iter().filter_map(|line| line[key].as_u64()).collect() };
    assert_eq!(
        (numbers("reports"), numbers("at_us"), numbers("idle_mw")),
        (vec![1, 4, 2], vec![9], vec![2700; 3])
    );
    let done = running.drained().await;
    let expected = EnergyCounters {
        reports: 4,
        telemetry: 1,
        malformed: 1,
        unseen: 2,
        late: 1,
        repeated: 1,
        ..EnergyCounters::default()
    };
    assert_eq!((done.end, done.energy), (End::Drained, expected));
    assert_eq!(
        (done.protocol.frames, done.protocol.malformed, done.target.jobs, done.link.foreign),
        (1, 0, 1, 0)
    );
}

#[tokio::test]
async fn logged_over_mosquitto() {
    what_a_device_reports_is_logged(Broker::mosquitto()).await;
}

#[tokio::test]
async fn logged_over_the_embedded_broker() {
    what_a_device_reports_is_logged(Broker::embedded()).await;
}

#[tokio::test]
async fn of_two_verifiers_each_logs_what_is_addressed_to_it() {
    let broker = Broker::mosquitto();
    let (first, path, _directory) = logging(broker.port());
    let second = Config { id: "verifier-2".parse().unwrap(), ..first.clone() };
    let both = [Running::start(first, toy().target()).await, Running::start(second, toy().target()).await];
    let device = Device::connect(broker.port(), "d1").await;
    for number in 1..=20 {
        let verifier = if number <= 13 { "verifier-1" } else { "verifier-2" };
        post_to(verifier, &device, Topic::Energy, &report(number)).await;
        post_to(verifier, &device, Topic::Telemetry, &telemetry(number.into())).await;
    }
    lines(&path, 40).await;
    let mut counts = Vec::new();
    for running in both {
        let energy = running.drained().await.energy;
        counts.push((energy.reports, energy.telemetry, energy.repeated));
    }
    assert_eq!(counts, [(13, 13, 0), (7, 7, 0)]);
}

#[tokio::test]
async fn a_flood_of_telemetry_holds_no_frame_up() {
    let broker = Broker::mosquitto();
    let running = Running::start(config(broker.port()), toy().target()).await;
    let mut device = leased(broker.port()).await;
    let other = Device::connect(broker.port(), "d2").await;
    for at in 0..5000 {
        post(&other, Topic::Telemetry, &telemetry(at)).await;
    }
    device.verify(&[]).await;
    let done = running.drained().await;
    assert!(done.energy.telemetry > 0);
    assert_eq!((done.protocol.verdicts, done.target.jobs, done.link.connections), (1, 1, 1));
}

#[tokio::test]
async fn a_list_that_knows_no_energy_leaves_serving_as_it_was() {
    let topics = ["dl1/d/+/u/op/+", "dl1/d/+/u/f/+", "dl1/d/+/n/#", "dl1/v/#"];
    let acl: String = topics.map(|topic| format!("topic readwrite {topic}\n")).concat();
    let options = MosquittoOptions { lines: SITE, acl: &acl, ..MosquittoOptions::default() };
    let mosquitto = Mosquitto::started(&options).unwrap();
    let running = Running::start(config(mosquitto.port), toy().target()).await;
    let mut device = leased(mosquitto.port).await;
    post(&device, Topic::Energy, &report(1)).await;
    device.verify(&[]).await;
    let done = running.drained().await;
    assert_eq!((done.protocol.verdicts, done.link.connections), (1, 1));
    assert_eq!(done.energy, EnergyCounters::default());
}

/// The rest of a packet after its first byte.
fn rest(client: &mut TcpStream) -> Vec<u8> {
    let (mut length, mut shift, mut byte) = (0, 0, [0x80]);
    while byte[0] & 0x80 != 0 {
        client.read_exact(&mut byte).unwrap();
        length |= usize::from(byte[0] & 0x7f) << shift;
        shift += 7;
    }
    let mut rest = vec![0; length];
    client.read_exact(&mut rest).unwrap();
    rest
}

/// Acts as a broker that answers one client's subscriptions with `codes`.
fn answer(listener: &TcpListener, codes: &[u8]) {
    let (mut client, _) = listener.accept().unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    loop {
        let mut first = [0];
        client.read_exact(&mut first).unwrap();
        let packet = rest(&mut client);
        match first[0] >> 4 {
            1 => client.write_all(&[0x20, 3, 0, 0, 0]).unwrap(),
            8 => {
                let head = [0x90, 3 + codes.len() as u8, packet[0], packet[1], 0];
                client.write_all(&[&head, codes].concat()).unwrap();
            }
            14 => return,
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_broker_that_refuses_the_subscriptions_of_energy_is_served() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let broker = tokio::task::spawn_blocking(move || answer(&listener, &[0, 1, 0x87, 0x83, 0x87]));
    let running = Running::start(config(port), toy().target()).await;
    let done = running.drained().await;
    assert_eq!((done.end, done.link.connections), (End::Drained, 1));
    soon("the broker's end", broker).await.unwrap();
}

#[tokio::test]
async fn a_log_that_cannot_be_opened_ends_the_start() {
    let energy_log = Some(PathBuf::from("/nowhere/energy.jsonl"));
    let (running, _ready) = Running::begin(Config { energy_log, ..config(1) }, toy().target());
    let error = format!("{:#}", running.ended().await.unwrap_err());
    assert!(error.starts_with("energy log /nowhere/energy.jsonl: No such file"), "{error}");
}

#[tokio::test]
async fn a_log_that_cannot_be_written_ends_nothing() {
    let broker = Broker::mosquitto();
    let energy_log = Some(PathBuf::from("/dev/full"));
    let running = Running::start(Config { energy_log, ..config(broker.port()) }, toy().target()).await;
    let mut device = leased(broker.port()).await;
    post(&device, Topic::Energy, &report(1)).await;
    post(&device, Topic::Energy, &report(2)).await;
    device.verify(&[]).await;
    let done = running.drained().await;
    assert_eq!((done.protocol.verdicts, done.energy.reports, done.energy.unwritten), (1, 2, 2));
}
