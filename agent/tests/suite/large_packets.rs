//! Messages that exceed the protocol's limit, from other clients of the broker.

use crate::broker::Broker;
use crate::presence::link;
use dunlin_agent::link::LinkEvent;
use dunlin_link::raw::{RawClient, RawMessage};
use dunlin_wire::topic::Topic;

/// More QoS 1 messages than mosquitto keeps in flight per client.
const TIMES: usize = 21;

fn large_messages_dont_silence_an_agent(broker: &Broker) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut link = link(broker.port);
        while link.next().await != LinkEvent::Up {}
        let anybody = RawClient::connect(broker.port, "x", &["x"]);
        let reply = Topic::Reply("pi-7".parse().unwrap()).name();
        for size in [3000; TIMES].into_iter().chain([3]) {
            anybody.publish(RawMessage::new(&reply, vec![0; size]));
        }
        let heard = loop {
            match link.next().await {
                LinkEvent::Room => {}
                event => break event,
            }
        };
        assert_eq!(heard, LinkEvent::Reply(vec![0; 3]));
        assert_eq!(link.too_large(), TIMES as u64);
    });
}

#[test]
fn large_messages_over_mosquitto_with_its_defaults() {
    large_messages_dont_silence_an_agent(&Broker::start());
}

#[test]
fn large_messages_over_mosquitto_with_the_sites_file() {
    let file = include_str!("../../../broker-verifier/mosquitto.conf");
    let listener = "listener 1883 127.0.0.1\n";
    assert!(file.contains(listener));
    large_messages_dont_silence_an_agent(&Broker::with(&file.replace(listener, "")));
}
