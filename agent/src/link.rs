//! The link to the broker: the only module that names rumqttc, and the only one that names MQTT's properties.
//!
//! Frames go as QoS 0, requests for a lease as QoS 1; neither is trusted to arrive. A connection counts as up only
//! when its subscriptions are granted and presence is announced. What the link can't take stays with the machine.
//!
//! Invariant: nothing here knows what a message means, and no call blocks.

mod connection;
mod generation;
mod retained;

use crate::mqtt_bytes::{Traffic, control_bytes, publish_bytes};
pub use connection::Loss;
use connection::Said;
use dunlin_hlm::device::{Channel, Transmit};
use dunlin_wire::topic::{self, Topic, TopicName};
use dunlin_wire::{DeviceId, DevicePresence, Liveness, VerifierId, limits};
pub use retained::retain;
use rumqttc::v5::AsyncClient;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, Filter, Packet, Publish, PublishProperties, SubAck, Subscribe, SubscribeReasonCode,
};
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

/// Messages that wait for rumqttc's request channel.
const OUTBOX_MAX: usize = 8;
/// Events of the polling task that wait for the loop.
const EVENTS_MAX: usize = 64;
/// A request for a lease that is older helps nobody.
const OPEN_EXPIRY_SECONDS: u32 = 5;
/// The frame topic's alias, and the only one.
const FRAMES_ALIAS: u16 = 1;
/// How long a goodbye may take, what waits before it and the broker's hanging up included.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Where the broker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v6 = self.host.contains(':');
        let (open, close) = if v6 { ("[", "]") } else { ("", "") };
        write!(f, "{open}{}{close}:{}", self.host, self.port)
    }
}

/// How to connect, and as whom.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// Where to.
    pub broker: Broker,
    /// The device.
    pub device: DeviceId,
    /// The MQTT client id; the device's own where nothing else is at work.
    pub client_id: String,
    /// User name and password.
    pub credentials: Option<(String, String)>,
    /// Silence after which the link is tested; at least 5 s.
    pub keep_alive: Duration,
    /// Whether to announce the device and to listen for its messages; false only looks at verifiers' presence.
    pub announce: bool,
}

/// What the link tells the loop.
#[derive(Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// Connected, subscribed, announced.
    Up,
    /// Not connected, or no longer.
    Down(Loss),
    /// From the lease topic.
    Reply(Vec<u8>),
    /// From the verdict topic.
    Verdict(Vec<u8>),
    /// From a verifier's presence topic.
    Presence(VerifierId, Vec<u8>),
    /// There may be room for another message.
    Room,
}

/// The link to the broker.
pub struct Link {
    config: LinkConfig,
    said: mpsc::Receiver<Said>,
    task: JoinHandle<()>,
    connection: Option<Connection>,
    outbox: VecDeque<Transmit>,
    traffic: Traffic,
    oversize: u64,
    too_large: u64,
    opens: u32,
}

struct Connection {
    client: AsyncClient,
    up: bool,
    alias: Option<Alias>,
    packet_bytes_max: u64,
    presence: Option<DevicePresence>,
    /// Sizes of the publishes that rumqttc holds, oldest first.
    unsent: VecDeque<u64>,
}

/// The broker takes aliases; which topic ours stands for.
#[derive(Default)]
struct Alias {
    bound: Option<TopicName>,
}

impl Link {
    /// Starts to connect; must be called within a runtime.
    pub fn start(config: LinkConfig) -> Self {
        let (say, said) = mpsc::channel(EVENTS_MAX);
        let task = tokio::spawn(connection::keep(config.clone(), say));
        Self {
            config,
            said,
            task,
            connection: None,
            outbox: VecDeque::with_capacity(OUTBOX_MAX),
            traffic: Traffic::default(),
            oversize: 0,
            too_large: 0,
            opens: 0,
        }
    }

    /// What happens next. Safe to cancel.
    pub async fn next(&mut self) -> LinkEvent {
        loop {
            let Some(said) = self.said.recv().await else {
                return std::future::pending().await;
            };
            if let Some(event) = self.hear(said) {
                return event;
            }
        }
    }

    /// Whether the connection is up.
    pub fn is_up(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.up)
    }

    /// Whether [`send`](Self::send) takes a message.
    pub fn has_room(&self) -> bool {
        self.is_up() && self.outbox.len() < OUTBOX_MAX
    }

    /// Sends a message; the caller has seen that there [is room](Self::has_room).
    pub fn send(&mut self, message: Transmit) {
        debug_assert!(self.has_room());
        self.outbox.push_back(message);
        self.flush();
    }

    /// Tells who listens something about this device, where there is a connection with room; a frame goes first.
    pub fn tell(&mut self, topic: fn(DeviceId) -> Topic, bytes: &[u8]) {
        let topic = topic(self.config.device.clone());
        // A report is counted once; telemetry that is late is of no use.
        let qos = if matches!(topic, Topic::Energy(_)) { QoS::AtLeastOnce } else { QoS::AtMostOnce };
        let publish = Publish::new(topic.name().as_str(), qos, bytes.to_vec(), None);
        let has_room = self.has_room() && self.outbox.is_empty();
        let Some(connection) = self.connection.as_mut().filter(|_| has_room) else { return };
        if publish_bytes(&publish) > connection.packet_bytes_max || !connection.publish(publish) {
            debug!("no room to tell {topic:?}");
        }
    }

    /// Bytes of MQTT so far.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Messages that were larger than the broker takes and were left out.
    pub fn oversize(&self) -> u64 {
        self.oversize
    }

    /// Messages received that were larger than any of the protocol and were dropped.
    pub fn too_large(&self) -> u64 {
        self.too_large
    }

    /// Sends what waits, says goodbye, waits until the broker hangs up, and returns the bytes of all.
    pub async fn close(mut self) -> Traffic {
        if tokio::time::timeout(CLOSE_TIMEOUT, self.goodbye()).await.is_err() {
            debug!("the broker did not close the connection");
        }
        self.task.abort();
        self.traffic
    }

    /// Ends with the polling task, or with a connection that is lost before.
    async fn goodbye(&mut self) {
        let mut left = false;
        while self.connection.is_some() {
            if !left && !self.has_unsent() {
                self.leave();
                left = true;
                continue;
            }
            let Some(said) = self.said.recv().await else { return };
            self.hear(said);
        }
    }

    /// Whether a message waits, here or with rumqttc: a goodbye might find no room behind it.
    fn has_unsent(&self) -> bool {
        !self.outbox.is_empty() || self.connection.as_ref().is_some_and(|c| !c.unsent.is_empty())
    }

    fn hear(&mut self, said: Said) -> Option<LinkEvent> {
        match said {
            Said::Connected { client, connack, presence, connect_bytes } => {
                self.traffic.control_up += connect_bytes;
                self.traffic.received(&Packet::ConnAck(connack.clone()));
                self.connect(client, &connack, presence);
                None
            }
            Said::Incoming(packet) => {
                self.traffic.received(&packet);
                self.receive(packet)
            }
            Said::TooLarge(bytes) => {
                self.traffic.publish_down += bytes;
                self.too_large += 1;
                if self.too_large.is_power_of_two() {
                    let limit = limits::PACKET_BYTES_MAX;
                    warn!(
                        "dropped {} messages over {limit} bytes so far, the last of {bytes}",
                        self.too_large
                    );
                }
                None
            }
            Said::PublishSent => {
                let sent = self.connection.as_mut().and_then(|connection| connection.unsent.pop_front());
                self.traffic.publish_up += sent.unwrap_or(0);
                self.flush();
                Some(LinkEvent::Room)
            }
            Said::ControlSent(bytes) => {
                self.traffic.control_up += bytes;
                None
            }
            Said::Lost(loss) => {
                self.connection = None;
                self.outbox.clear();
                info!("{}", loss.reason);
                Some(LinkEvent::Down(loss))
            }
        }
    }

    /// Subscribes and announces: both before anything else on a new connection.
    fn connect(&mut self, client: AsyncClient, connack: &ConnAck, presence: Option<DevicePresence>) {
        let properties = connack.properties.as_ref();
        let aliases = properties.and_then(|p| p.topic_alias_max).unwrap_or(0);
        let packet_bytes_max = properties.and_then(|p| p.max_packet_size).map_or(u64::MAX, u64::from);
        if packet_bytes_max < u64::from(limits::PACKET_BYTES_MAX) {
            let needed = limits::PACKET_BYTES_MAX;
            warn!("the broker takes packets of {packet_bytes_max} bytes, the protocol may need {needed}");
        }
        let subscribe = Subscribe::new_many(self.filters(), None);
        self.traffic.control_up += control_bytes(&Packet::Subscribe(subscribe.clone()));
        if client.try_subscribe_many(subscribe.filters).is_err() {
            warn!("a new connection had no room for its subscriptions");
        }
        let alias = (aliases >= FRAMES_ALIAS).then(Alias::default);
        let unsent = VecDeque::new();
        self.connection = Some(Connection { client, up: false, alias, packet_bytes_max, presence, unsent });
        self.announce(Liveness::Here);
    }

    fn filters(&self) -> Vec<Filter> {
        let device = || self.config.device.clone();
        if !self.config.announce {
            return vec![Filter::new(topic::VERIFIER_PRESENCE_FILTER, QoS::AtLeastOnce)];
        }
        vec![
            Filter::new(Topic::Reply(device()).name().as_str(), QoS::AtLeastOnce),
            Filter::new(Topic::Verdicts(device()).name().as_str(), QoS::AtMostOnce),
        ]
    }

    fn announce(&mut self, liveness: Liveness) {
        let Some(connection) = &mut self.connection else { return };
        let Some(presence) = connection.presence else { return };
        let Ok(bytes) = (DevicePresence { liveness, ..presence }).encode() else { return };
        let name = Topic::DevicePresence(self.config.device.clone()).name();
        let mut publish = Publish::new(name.as_str(), QoS::AtLeastOnce, bytes.to_vec(), None);
        publish.retain = true;
        if !connection.publish(publish) {
            debug!("no room to announce {liveness:?}");
        }
    }

    fn leave(&mut self) {
        self.announce(Liveness::Left);
        if let Some(connection) = &self.connection
            && connection.client.try_disconnect().is_err()
        {
            self.connection = None;
        }
    }

    fn receive(&mut self, packet: Packet) -> Option<LinkEvent> {
        if let Some(reason) = connection::refused_publish(&packet) {
            warn!("the broker did not take a publish of {}: {reason:?}", self.config.device);
        }
        match packet {
            Packet::SubAck(ack) => self.subscribed(&ack),
            Packet::Publish(publish) => route(&publish),
            _ => None,
        }
    }

    fn subscribed(&mut self, ack: &SubAck) -> Option<LinkEvent> {
        if let Some(code) = ack.return_codes.iter().find(|c| !matches!(c, SubscribeReasonCode::Success(_))) {
            let (device, broker) = (&self.config.device, &self.config.broker);
            let reason = format!("the broker at {broker} refuses {device} its subscriptions: {code:?}");
            return Some(LinkEvent::Down(Loss { reason, refused: true }));
        }
        self.connection.as_mut()?.up = true;
        Some(LinkEvent::Up)
    }

    /// Hands rumqttc as much of the outbox as it takes.
    fn flush(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        while let Some(message) = self.outbox.front() {
            let publish = publish_of(&self.config.device, message, connection.alias.as_ref(), self.opens);
            let bytes = publish_bytes(&publish);
            if bytes > connection.packet_bytes_max {
                warn!("a message of {bytes} bytes is more than the broker takes");
                self.oversize += 1;
            } else if !connection.publish(publish) {
                return;
            } else {
                connection.bind(&self.config.device, &message.channel);
            }
            self.opens = self.opens.wrapping_add(u32::from(matches!(message.channel, Channel::Open)));
            self.outbox.pop_front();
        }
    }
}

impl Connection {
    /// Hands rumqttc a publish; false where it has no room.
    fn publish(&mut self, publish: Publish) -> bool {
        let bytes = publish_bytes(&publish);
        let Publish { topic, qos, retain, payload, properties, .. } = publish;
        let topic = String::from_utf8_lossy(&topic).into_owned();
        let sent = match properties {
            Some(properties) => {
                self.client.try_publish_with_properties(topic, qos, retain, payload, properties)
            }
            None => self.client.try_publish(topic, qos, retain, payload),
        };
        if sent.is_ok() {
            self.unsent.push_back(bytes);
        }
        sent.is_ok()
    }

    /// Remembers the topic that the alias stands for after a frame was sent.
    fn bind(&mut self, device: &DeviceId, channel: &Channel) {
        if let (Some(alias), Channel::Frames(verifier)) = (&mut self.alias, channel) {
            alias.bound = Some(Topic::Frames(device.clone(), verifier.clone()).name());
        }
    }
}

fn route(publish: &Publish) -> Option<LinkEvent> {
    let name = std::str::from_utf8(&publish.topic).ok()?;
    let bytes = publish.payload.to_vec();
    match Topic::parse(name) {
        Some(Topic::Reply(_)) => Some(LinkEvent::Reply(bytes)),
        Some(Topic::Verdicts(_)) => Some(LinkEvent::Verdict(bytes)),
        Some(Topic::VerifierPresence(verifier)) => Some(LinkEvent::Presence(verifier, bytes)),
        _ => {
            debug!("a message on {name}, which is not ours");
            None
        }
    }
}

/// The PUBLISH for a message: its topic, delivery and properties.
fn publish_of(device: &DeviceId, message: &Transmit, alias: Option<&Alias>, opens: u32) -> Publish {
    let payload = message.bytes.to_vec();
    match &message.channel {
        Channel::Open => {
            let properties = PublishProperties {
                message_expiry_interval: Some(OPEN_EXPIRY_SECONDS),
                response_topic: Some(Topic::Reply(device.clone()).name().as_str().into()),
                correlation_data: Some(opens.to_be_bytes().to_vec().into()),
                ..PublishProperties::default()
            };
            let name = Topic::Open(device.clone()).name();
            Publish::new(name.as_str(), QoS::AtLeastOnce, payload, Some(properties))
        }
        Channel::Frames(verifier) => {
            let name = Topic::Frames(device.clone(), verifier.clone()).name();
            let Some(alias) = alias else {
                return Publish::new(name.as_str(), QoS::AtMostOnce, payload, None);
            };
            let properties =
                PublishProperties { topic_alias: Some(FRAMES_ALIAS), ..PublishProperties::default() };
            let known = alias.bound.as_ref() == Some(&name);
            let name = if known { "" } else { name.as_str() };
            Publish::new(name, QoS::AtMostOnce, payload, Some(properties))
        }
    }
}
