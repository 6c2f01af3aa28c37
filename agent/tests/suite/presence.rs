//! What others see of a device's presence: at a real broker, and at one that watches how the device leaves.

use crate::broker::Broker;
use crate::proxy::packet;
use dunlin_agent::link::{Broker as Address, Link, LinkConfig, LinkEvent};
use dunlin_hlm::device::{Channel, Transmit};
use dunlin_wire::topic::Topic;
use dunlin_wire::{DeviceId, DevicePresence, Liveness};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{Client, Connection, Event, MqttOptions};
use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

/// Goodbyes in a row: a lost one shows as a `lost` before the next connection.
const ROUNDS: usize = 12;
/// How long the watching broker keeps a device that has said goodbye waiting.
const DAWDLE: Duration = Duration::from_millis(200);

fn device() -> DeviceId {
    "pi-7".parse().unwrap()
}

/// Sees every presence of the device from now on, and the retained one first.
pub(crate) struct Watch {
    _client: Client,
    connection: Connection,
}

impl Watch {
    pub(crate) fn start(port: u16) -> Self {
        let (client, mut connection) = Client::new(MqttOptions::new("watch", "127.0.0.1", port), 8);
        let topic = Topic::DevicePresence(device()).name();
        client.subscribe(topic.as_str(), QoS::AtLeastOnce).unwrap();
        let granted = |event| matches!(event, Event::Incoming(Packet::SubAck(_)));
        assert!(connection.iter().any(|event| granted(event.unwrap())));
        Self { _client: client, connection }
    }

    pub(crate) fn next(&mut self) -> DevicePresence {
        let seen = self.connection.iter().find_map(|event| match event.unwrap() {
            Event::Incoming(Packet::Publish(publish)) => Some(publish.payload),
            _ => None,
        });
        DevicePresence::decode(&seen.unwrap()).unwrap()
    }
}

fn link(port: u16) -> Link {
    Link::start(LinkConfig {
        broker: Address { host: "127.0.0.1".into(), port },
        device: device(),
        client_id: "pi-7".into(),
        credentials: None,
        keep_alive: Duration::from_secs(5),
        announce: true,
    })
}

/// Connects, sends as much as the link takes at once, and leaves.
fn come_and_go(port: u16) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut link = link(port);
        while link.next().await != LinkEvent::Up {}
        for _ in 0..8 {
            let channel = Channel::Frames("v1".parse().unwrap());
            link.send(Transmit { channel, bytes: Default::default() });
        }
        link.close().await;
    });
}

#[test]
fn each_goodbye_is_heard_and_each_generation_is_greater() {
    let broker = Broker::start();
    let mut seen = Watch::start(broker.port);
    let mut last = 0;
    for round in 0..ROUNDS {
        come_and_go(broker.port);
        let (here, left) = (seen.next(), seen.next());
        assert_eq!((here.liveness, left.liveness), (Liveness::Here, Liveness::Left), "round {round}");
        assert_eq!(left.generation, here.generation);
        assert!(here.generation > last, "{} after {last}", here.generation);
        last = here.generation;
    }
    assert_eq!(
        Watch::start(broker.port).next(),
        DevicePresence { generation: last, liveness: Liveness::Left },
        "what is retained"
    );
}

/// Takes one connection, and hangs up a while after the device's goodbye; whether the device was still there then.
fn is_awaited(listener: &TcpListener) -> bool {
    let (mut device, _) = listener.accept().unwrap();
    loop {
        let packet = packet(&mut device).unwrap();
        match packet[0] >> 4 {
            1 => device.write_all(&[0x20, 3, 0, 0, 0]).unwrap(),
            // Both subscriptions are granted.
            8 => device.write_all(&[0x90, 5, packet[2], packet[3], 0, 1, 0]).unwrap(),
            14 => break,
            _ => {}
        }
    }
    device.set_read_timeout(Some(DAWDLE)).unwrap();
    matches!(device.peek(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn the_broker_hangs_up_first() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let broker = std::thread::spawn(move || is_awaited(&listener));
    come_and_go(port);
    assert!(broker.join().unwrap(), "the device closed the connection before the broker had");
}
