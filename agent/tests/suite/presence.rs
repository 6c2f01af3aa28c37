//! A device's presence as others see it: at a real broker, and at a test broker that observes how the device leaves.

use crate::proxy::packet;
use dunlin_agent::link::{INFLIGHT_MAX, Link, LinkConfig, LinkEvent};
use dunlin_hlm::device::{Channel, PresenceScope, Transmit};
use dunlin_link::raw::{RawClient, RawMessage};
use dunlin_link::{ConnectOptions, Security};
use dunlin_mosquitto::{Mosquitto, OPEN};
use dunlin_wire::topic::Topic;
use dunlin_wire::{DeviceId, DevicePresence, Liveness};
use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

/// Number of disconnections in a row. If one goes wrong, the broker publishes `lost` before the next connection.
const ROUNDS: usize = 12;
/// Well beyond what any machine needs.
const PATIENCE: Duration = Duration::from_secs(60);
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
            security: Security::Plain,
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

/// The answer that grants a SUBSCRIBE its three filters.
pub(crate) fn granted(subscribe: &[u8]) -> [u8; 8] {
    [0x90, 6, subscribe[2], subscribe[3], 0, 1, 0, 1]
}

/// Accepts one connection; returns true if the device keeps it open for a while after its DISCONNECT.
fn is_awaited(listener: &TcpListener) -> bool {
    let (mut device, _) = listener.accept().unwrap();
    loop {
        let packet = packet(&mut device).unwrap();
        match packet[0] >> 4 {
            1 => device.write_all(&[0x20, 3, 0, 0, 0]).unwrap(),
            // SUBACK that grants all three subscriptions.
            8 => device.write_all(&granted(&packet)).unwrap(),
            14 => break,
            _ => {}
        }
    }
    device.set_read_timeout(Some(DAWDLE)).unwrap();
    matches!(device.peek(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

/// Takes one connection and answers its subscriptions so, then reads on until it ends.
fn answers(listener: &TcpListener, codes: [u8; 3]) {
    let (mut device, _) = listener.accept().unwrap();
    while let Ok(packet) = packet(&mut device) {
        match packet[0] >> 4 {
            1 => device.write_all(&[0x20, 3, 0, 0, 0]).unwrap(),
            8 => {
                let answer = [&granted(&packet)[..5], &codes].concat();
                device.write_all(&answer).unwrap();
            }
            _ => {}
        }
    }
}

#[test]
fn refused_subscriptions_are_tried_again_on_another_connection() {
    const NOT_AUTHORISED: u8 = 0x87;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let broker = std::thread::spawn(move || {
        // The access list is mended after the second connection.
        answers(&listener, [1, NOT_AUTHORISED, 1]);
        answers(&listener, [NOT_AUTHORISED; 3]);
        answers(&listener, [1, 0, 1]);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut link = link(port);
        for _ in 0..2 {
            let LinkEvent::Down(loss) = next(&mut link).await else { panic!("the link is no use") };
            assert!(loss.refused && loss.reason.contains("refuses pi-7 its subscriptions"), "{loss:?}");
            assert!(!link.is_up());
        }
        assert_eq!(next(&mut link).await, LinkEvent::Up);
    });
    drop(runtime);
    broker.join().unwrap();
}

/// The next event but one that tells of room.
async fn next(link: &mut Link) -> LinkEvent {
    loop {
        let event = tokio::time::timeout(PATIENCE, link.next()).await.expect("the link goes on");
        if event != LinkEvent::Room {
            return event;
        }
    }
}

fn retain(client: &RawClient, verifier: &str, payload: &[u8]) {
    let topic = Topic::VerifierPresence(verifier.parse().unwrap()).name();
    client.publish(RawMessage { retain: true, ..RawMessage::new(topic, payload) });
}

fn from(verifier: &str, payload: &[u8]) -> LinkEvent {
    LinkEvent::Presence(vec![(verifier.parse().unwrap(), payload.to_vec())])
}

#[test]
fn all_verifiers_are_known_before_the_link_is_up_and_later_the_lessor_alone() {
    let broker = Mosquitto::with(OPEN);
    let names: Vec<String> = (0..9).map(|n| format!("v{n}")).collect();
    let mut verifiers = RawClient::connect(broker.port, "verifiers", &["dl1/v/v8/st"]);
    names.iter().for_each(|name| retain(&verifiers, name, &[1]));
    verifiers.blocking_next();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut link = link(broker.port);
        link.watch(PresenceScope::All);
        let LinkEvent::Presence(mut seen) = next(&mut link).await else { panic!("presence comes first") };
        seen.sort();
        assert_eq!(seen.iter().map(|(id, _)| id.to_string()).collect::<Vec<_>>(), names);
        assert_eq!(next(&mut link).await, LinkEvent::Up);
        link.watch(PresenceScope::Lessor("v3".parse().unwrap()));
        assert_eq!(next(&mut link).await, from("v3", &[1]), "what is retained of it");
        retain(&verifiers, "v4", &[2]);
        retain(&verifiers, "v3", &[2]);
        // The end of the other subscription may come after the message to it.
        while next(&mut link).await != from("v3", &[2]) {}
        retain(&verifiers, "v4", &[3]);
        retain(&verifiers, "v3", &[3]);
        let event = loop {
            // A broker may deliver a message once for each of two subscriptions.
            match next(&mut link).await {
                event if event == from("v3", &[2]) => {}
                event => break event,
            }
        };
        assert_eq!(event, from("v3", &[3]), "and nothing of v4");
        link.watch(PresenceScope::Nobody);
        link.watch(PresenceScope::All);
        let LinkEvent::Presence(again) = next(&mut link).await else { panic!("presence alone") };
        assert_eq!(again.len(), names.len(), "together");
        link.close().await;
    });
}

#[test]
fn the_broker_hangs_up_first() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let broker = std::thread::spawn(move || is_awaited(&listener));
    come_and_go(port);
    assert!(broker.join().unwrap(), "the device closed the connection before the broker had");
}
