//! Connections to a real mosquitto, with its defaults and with the site's file.
#![allow(clippy::unwrap_used)] // everything here is a test

use dunlin_link::raw::{RawClient, RawMessage};
use dunlin_link::{
    Arrival, Arrivals, ConnectOptions, ConnectionEnd, Dialer, Message, Outgoing, Security, SendOutcome,
    Traffic, probe, retain,
};
use dunlin_mosquitto::{DEFAULTS, Mosquitto, SITE};
use dunlin_wire::topic::{SETUP_FILTER, Topic};
use std::time::Duration;

/// More QoS 1 messages than mosquitto keeps in flight per client.
const TIMES: usize = 21;

fn options(mosquitto: &Mosquitto, client_id: &str) -> ConnectOptions {
    ConnectOptions {
        broker: format!("127.0.0.1:{}", mosquitto.port).parse().unwrap(),
        security: Security::Plain,
        login: None,
        client_id: client_id.into(),
        keep_alive: Duration::from_secs(5),
        inflight_max: 8,
    }
}

fn reply() -> Topic {
    Topic::Reply("pi-7".parse().unwrap())
}

/// Opens a connection that is subscribed to `filter`.
async fn subscribed(options: ConnectOptions, filter: &str) -> (Arrivals, dunlin_link::Publisher) {
    let mut arrivals = Dialer::start(options).await.dial(None);
    let mut publisher = None;
    loop {
        match arrivals.next().await.unwrap_or_else(|_| panic!("no connection")).arrival {
            Arrival::Accepted(accepted) => {
                assert!(accepted.subscribe([filter]));
                publisher = Some(accepted);
            }
            Arrival::Subscribed(refused) => {
                assert_eq!(refused, []);
                return (arrivals, publisher.unwrap());
            }
            _ => {}
        }
    }
}

async fn large_messages_dont_wedge_a_client(mosquitto: Mosquitto) {
    let (mut arrivals, _publisher) = subscribed(options(&mosquitto, "pi-7"), &reply().name()).await;
    let anybody = RawClient::connect(mosquitto.port, "x", &["x"]);
    for size in [3000; TIMES].into_iter().chain([60_000, 3]) {
        anybody.publish(RawMessage::new(reply().name(), vec![0; size]));
    }
    let mut dropped = 0;
    loop {
        match arrivals.next().await.unwrap_or_else(|_| panic!("no connection")).arrival {
            Arrival::TooLarge(_) => dropped += 1,
            Arrival::Message(Message { topic, payload, .. }) => {
                assert_eq!((topic, payload), (reply(), vec![0; 3]));
                break;
            }
            _ => {}
        }
    }
    assert_eq!(dropped, TIMES + 1);
}

#[tokio::test]
async fn large_messages_dont_wedge_a_client_of_mosquitto_with_its_defaults() {
    large_messages_dont_wedge_a_client(Mosquitto::with(DEFAULTS)).await;
}

#[tokio::test]
async fn large_messages_dont_wedge_a_client_of_mosquitto_with_the_sites_file() {
    large_messages_dont_wedge_a_client(Mosquitto::with(SITE)).await;
}

#[tokio::test]
async fn a_probe_tells_the_brokers_limits() {
    let facts = probe(&options(&Mosquitto::with(SITE), "check")).await.unwrap();
    assert_eq!((facts.packet_bytes_max, facts.alias_max), (Some(65_536), 1024));
    let facts = probe(&options(&Mosquitto::with(DEFAULTS), "check")).await.unwrap();
    assert_eq!((facts.packet_bytes_max, facts.alias_max), (None, 10));
    let nobody = options(&Mosquitto::with(DEFAULTS), "check");
    let loss = probe(&nobody).await.unwrap_err();
    assert_eq!(loss.reason, format!("nothing listens at {}", nobody.broker));
}

#[tokio::test]
async fn a_message_is_retained_and_removed() {
    let mosquitto = Mosquitto::with(DEFAULTS);
    let topic = Topic::Setup("pi-7".parse().unwrap());
    let leave = async |payload: &[u8]| {
        retain(&options(&mosquitto, "setup"), &Outgoing::new(topic.clone(), payload.to_vec())).await.unwrap();
    };
    leave(b"wrong").await;
    let mut late = RawClient::connect(mosquitto.port, "late", &[SETUP_FILTER]);
    let kept = late.next().await.unwrap();
    assert_eq!((kept.payload.as_slice(), kept.retain), (&b"wrong"[..], true));
    leave(b"").await;
    assert_eq!(late.next().await.unwrap().payload, b"");
    let mut later = RawClient::connect(mosquitto.port, "later", &[SETUP_FILTER]);
    leave(b"again").await;
    assert_eq!(later.next().await.unwrap().payload, b"again", "nothing was there any more");
}

#[tokio::test]
async fn a_goodbye_ends_a_connection_behind_what_was_sent() {
    let mosquitto = Mosquitto::with(DEFAULTS);
    let mut watch = RawClient::connect(mosquitto.port, "watch", &[&reply().name()]);
    let (mut arrivals, publisher) = subscribed(options(&mosquitto, "v"), &reply().name()).await;
    let message = Outgoing { correlation: Some(vec![1, 2]), ..Outgoing::new(reply(), b"hello".to_vec()) };
    assert_eq!(publisher.send(&message), SendOutcome::Yes);
    assert!(publisher.has_unsent() && publisher.leave());
    let mut traffic = Traffic::default();
    let ended = loop {
        match arrivals.next().await {
            Ok(arrived) => traffic.add(&arrived.traffic),
            Err(ended) => break ended,
        }
    };
    assert_eq!(ended, ConnectionEnd::Left);
    assert_eq!(arrivals.next().await.err(), Some(ConnectionEnd::Left), "it does not connect again");
    assert_eq!(traffic.publish_up, message.shape().bytes() as u64);
    let heard = watch.next().await.unwrap();
    assert_eq!((heard.payload, heard.correlation), (b"hello".to_vec(), Some(vec![1, 2])));
    assert_eq!(heard.expiry_seconds, Some(5));
}

#[tokio::test]
async fn a_message_over_the_brokers_limit_is_not_sent() {
    let mosquitto = Mosquitto::with("allow_anonymous true\nmax_packet_size 200\n");
    let (_arrivals, publisher) = subscribed(options(&mosquitto, "v"), &reply().name()).await;
    assert_eq!(publisher.send(&Outgoing::new(reply(), vec![0; 200])), SendOutcome::TooLarge);
    assert!(!publisher.has_unsent());
}
