//! Set-up reports from a device through a real broker to every verifier.

#![allow(clippy::unwrap_used)] // applies to the tests' helpers, too

mod common;

use common::{Broker, Device, Running, config, toy};
use dunlin_verifier::setup::SetupCounters;
use dunlin_verifier::{Config, End};
use dunlin_wire::topic::Topic;
use dunlin_wire::{Lease, Reply, SetupReport};

fn topic(device: &str) -> Topic {
    Topic::Setup(device.parse().unwrap())
}

fn report(text: &str) -> Vec<u8> {
    SetupReport::new(1, [text]).encode().unwrap().to_vec()
}

/// Waits for an answer. By then, the verifier has read all earlier messages.
async fn answered(device: &mut Device) {
    assert!(matches!(device.open().await, Reply::Lease(Lease { .. })));
    device.say(&[3, 1, 4]);
    device.verify(&[]).await;
}

async fn what_was_left_before_is_heard_of(broker: Broker) {
    let mut device = Device::connect(broker.port(), "d1").await;
    device.client.retain(&topic("d1"), &report("line 1: wrong")).await;
    device.client.retain(&topic("d2"), b"garbage").await;
    device.client.retain(&topic("d3"), &report("right by now")).await;
    device.client.retain(&topic("d3"), &[]).await;
    let running = Running::start(config(broker.port()), toy().target()).await;
    device.client.retain(&topic("d1"), &report("line 2: wrong")).await;
    device.client.retain(&topic("d1"), &report("line 2: wrong")).await;
    device.client.retain(&topic("d1"), &[]).await;
    answered(&mut device).await;
    let done = running.drained().await;
    let expected =
        SetupCounters { reports: 3, repeated: 1, settled: 1, malformed: 1, ..SetupCounters::default() };
    assert_eq!((done.end, done.setup), (End::Drained, expected));
    assert_eq!((done.protocol.malformed, done.link.foreign, done.link.connections), (0, 0, 1));
}

#[tokio::test]
async fn heard_of_over_mosquitto() {
    what_was_left_before_is_heard_of(Broker::mosquitto()).await;
}

#[tokio::test]
async fn heard_of_over_the_embedded_broker() {
    what_was_left_before_is_heard_of(Broker::embedded()).await;
}

#[tokio::test]
async fn each_verifier_hears_of_it() {
    let broker = Broker::mosquitto();
    let first = config(broker.port());
    let second = Config { id: "verifier-2".parse().unwrap(), ..first.clone() };
    let device = Device::connect(broker.port(), "d1").await;
    device.client.retain(&topic("d1"), &report("wrong")).await;
    for (config, name) in [(first, "d2"), (second, "d3")] {
        let mut other = Device::connect(broker.port(), name).await;
        other.verifier = config.id.clone();
        let running = Running::start(config, toy().target()).await;
        assert!(matches!(other.open().await, Reply::Lease(_)));
        assert_eq!(running.drained().await.setup.reports, 1);
    }
}
