//! A device's presence as others see it: at a real broker, and at a test broker that observes how the device leaves.

use crate::proxy::packet;
use dunlin_agent::link::{INFLIGHT_MAX, Link, LinkConfig, LinkEvent};
use dunlin_hlm::device::{Channel, Transmit};
use dunlin_link::ConnectOptions;
use dunlin_link::raw::RawClient;
use dunlin_mosquitto::{Mosquitto, OPEN};
use dunlin_wire::topic::Topic;
use dunlin_wire::{DeviceId, DevicePresence, Liveness};
use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

/// Number of disconnections in a row. If one goes wrong, the broker publishes `lost` before the next connection.
const ROUNDS: usize = 12;
/// Time for which the test broker keeps a device waiting after its DISCONNECT.
const DAWDLE: Duration = Duration::from_millis(200);

fn device() -> DeviceId {
    "pi-7".parse().unwrap()
}

/// Receives every presence message of the device, starting with the retained one.
pub(crate) struct Watch(RawClient);

impl Watch {
    pub(crate) fn start(port: u16) -> Self {
        Self(RawClient::connect(port, "watch", &[&Topic::DevicePresence(device()).name()]))
    }

    pub(crate) fn next(&mut self) -> DevicePresence {
        DevicePresence::decode(&self.0.blocking_next().unwrap().payload).unwrap()
    }
}

/// The device's link to a broker on this machine.
pub(crate) fn link(port: u16) -> Link {
    Link::start(LinkConfig {
        options: ConnectOptions {
            broker: format!("127.0.0.1:{port}").parse().unwrap(),
            login: None,
            client_id: "pi-7".into(),
            keep_alive: Duration::from_secs(5),
            inflight_max: INFLIGHT_MAX,
        },
        device: device(),
        announce: true,
    })
}

/// Connects, sends as much as the link accepts at once, and leaves.
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
    let broker = Mosquitto::with(OPEN);
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

/// Accepts one connection; returns true if the device keeps it open for a while after its DISCONNECT.
fn is_awaited(listener: &TcpListener) -> bool {
    let (mut device, _) = listener.accept().unwrap();
    loop {
        let packet = packet(&mut device).unwrap();
        match packet[0] >> 4 {
            1 => device.write_all(&[0x20, 3, 0, 0, 0]).unwrap(),
            // SUBACK that grants all three subscriptions.
            8 => device.write_all(&[0x90, 6, packet[2], packet[3], 0, 1, 0, 1]).unwrap(),
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
