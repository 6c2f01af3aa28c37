//! Connections to a real mosquitto, with its defaults and with the site's file.
#![allow(clippy::unwrap_used)] // everything here is a test

use dunlin_link::raw::{RawClient, RawMessage};
use dunlin_link::{
    Arrival, Arrivals, ConnectOptions, Dialer, Ended, Message, Outgoing, Taken, Traffic, probe, retain,
};
use dunlin_wire::topic::{SETUP_FILTER, Topic};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The site's file, without its listener.
const SITE: &str = include_str!("../../../broker-verifier/mosquitto.conf");
const LISTENER: &str = "listener 1883 127.0.0.1\n";
/// More QoS 1 messages than mosquitto keeps in flight per client.
const TIMES: usize = 21;

struct Mosquitto {
    port: u16,
    child: Child,
    _dir: tempfile::TempDir,
}

impl Mosquitto {
    fn with_defaults() -> Self {
        Self::with("allow_anonymous true\n")
    }

    fn with_the_sites_file() -> Self {
        assert!(SITE.contains(LISTENER));
        Self::with(&SITE.replace(LISTENER, ""))
    }

    fn with(lines: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let file = dir.path().join("mosquitto.conf");
        std::fs::write(&file, format!("listener {port} 127.0.0.1\nlog_dest stderr\n{lines}")).unwrap();
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/usr/local/sbin";
        let mut command = Command::new("mosquitto");
        command.env("PATH", path).arg("-c").arg(file).stderr(Stdio::piped());
        let mut child = command.spawn().expect("mosquitto runs: apt-get install mosquitto");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.ends_with(" running")), "mosquitto did not start");
        std::thread::spawn(move || lines.count());
        Self { port, child, _dir: dir }
    }

    fn options(&self, client_id: &str) -> ConnectOptions {
        ConnectOptions {
            broker: format!("127.0.0.1:{}", self.port).parse().unwrap(),
            login: None,
            client_id: client_id.into(),
            keep_alive: Duration::from_secs(5),
            inflight_max: 8,
        }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
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
    let (mut arrivals, _publisher) = subscribed(mosquitto.options("pi-7"), &reply().name()).await;
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
    large_messages_dont_wedge_a_client(Mosquitto::with_defaults()).await;
}

#[tokio::test]
async fn large_messages_dont_wedge_a_client_of_mosquitto_with_the_sites_file() {
    large_messages_dont_wedge_a_client(Mosquitto::with_the_sites_file()).await;
}

#[tokio::test]
async fn a_probe_tells_the_brokers_limits() {
    let facts = probe(&Mosquitto::with_the_sites_file().options("check")).await.unwrap();
    assert_eq!((facts.packet_bytes_max, facts.alias_max, facts.shares), (Some(65_536), 1024, true));
    let facts = probe(&Mosquitto::with_defaults().options("check")).await.unwrap();
    assert_eq!((facts.packet_bytes_max, facts.alias_max, facts.shares), (None, 10, true));
    let nobody = Mosquitto::with_defaults().options("check");
    let loss = probe(&nobody).await.unwrap_err();
    assert_eq!(loss.reason, format!("nothing listens at {}", nobody.broker));
}

#[tokio::test]
async fn a_message_is_retained_and_removed() {
    let mosquitto = Mosquitto::with_defaults();
    let topic = Topic::Setup("pi-7".parse().unwrap());
    let leave = async |payload: &[u8]| {
        retain(&mosquitto.options("setup"), &Outgoing::new(topic.clone(), payload.to_vec())).await.unwrap();
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
    let mosquitto = Mosquitto::with_defaults();
    let mut watch = RawClient::connect(mosquitto.port, "watch", &[&reply().name()]);
    let (mut arrivals, publisher) = subscribed(mosquitto.options("v"), &reply().name()).await;
    let message = Outgoing { correlation: Some(vec![1, 2]), ..Outgoing::new(reply(), b"hello".to_vec()) };
    assert_eq!(publisher.send(&message), Taken::Yes);
    assert!(publisher.has_unsent() && publisher.leave());
    let mut traffic = Traffic::default();
    let ended = loop {
        match arrivals.next().await {
            Ok(arrived) => traffic.add(&arrived.traffic),
            Err(ended) => break ended,
        }
    };
    assert_eq!(ended, Ended::Left);
    assert_eq!(arrivals.next().await.err(), Some(Ended::Left), "it does not connect again");
    assert_eq!(traffic.publish_up, message.shape().bytes() as u64);
    let heard = watch.next().await.unwrap();
    assert_eq!((heard.payload, heard.correlation), (b"hello".to_vec(), Some(vec![1, 2])));
    assert_eq!(heard.expiry_seconds, Some(5));
}

#[tokio::test]
async fn a_message_over_the_brokers_limit_is_not_sent() {
    let mosquitto = Mosquitto::with("allow_anonymous true\nmax_packet_size 200\n");
    let (_arrivals, publisher) = subscribed(mosquitto.options("v"), &reply().name()).await;
    assert_eq!(publisher.send(&Outgoing::new(reply(), vec![0; 200])), Taken::TooLarge);
    assert!(!publisher.has_unsent());
}
