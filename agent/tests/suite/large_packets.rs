//! Messages that exceed the protocol's limit, from other clients of the broker.

use crate::presence::link;
use dunlin_agent::link::LinkEvent;
use dunlin_link::raw::{RawClient, RawMessage};
use dunlin_mosquitto::{Mosquitto, OPEN, SITE};
use dunlin_wire::topic::Topic;

/// More QoS 1 messages than mosquitto keeps in flight per client.
const TIMES: usize = 21;

fn large_messages_dont_silence_an_agent(broker: &Mosquitto) {
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
    large_messages_dont_silence_an_agent(&Mosquitto::with(OPEN));
}

#[test]
fn large_messages_over_mosquitto_with_the_sites_file() {
    large_messages_dont_silence_an_agent(&Mosquitto::with(SITE));
}
