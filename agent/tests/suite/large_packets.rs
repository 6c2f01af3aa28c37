//! Messages larger than any of the protocol, from whoever may publish.

use crate::broker::Broker;
use dunlin_agent::link::{Broker as Address, Link, LinkConfig, LinkEvent};
use dunlin_wire::DeviceId;
use dunlin_wire::topic::Topic;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::{AsyncClient, MqttOptions};

/// More QoS 1 messages than mosquitto has under way to one client.
const TIMES: usize = 21;

fn large_messages_dont_silence_an_agent(broker: &Broker) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let device: DeviceId = "pi-7".parse().unwrap();
        let mut link = Link::start(LinkConfig {
            broker: Address { host: "127.0.0.1".into(), port: broker.port },
            device: device.clone(),
            client_id: "pi-7".into(),
            credentials: None,
            keep_alive: std::time::Duration::from_secs(5),
            announce: true,
        });
        while link.next().await != LinkEvent::Up {}
        let (client, mut events) = AsyncClient::new(MqttOptions::new("x", "127.0.0.1", broker.port), 64);
        tokio::spawn(async move { while events.poll().await.is_ok() {} });
        let reply = Topic::Reply(device).name();
        for size in [3000; TIMES].into_iter().chain([3]) {
            client.publish(reply.as_str(), QoS::AtLeastOnce, false, vec![0; size]).await.unwrap();
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
