//! A client for tests and test stands, driven by hand: any topic, payload and properties.

use crate::facts::BrokerFacts;
use crate::publisher::{Publisher, Unsent};
use rumqttc::NetworkOptions;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, Packet, Publish, PublishProperties};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

/// Requests that wait for the connection.
const REQUESTS_MAX: usize = 64;
/// Pause between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(20);

/// An MQTT message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawMessage {
    /// The topic.
    pub topic: String,
    /// The payload.
    pub payload: Vec<u8>,
    /// QoS 1 if true, else QoS 0.
    pub acknowledged: bool,
    /// True for a message that the broker shall retain (sent) or had retained (received).
    pub retain: bool,
    /// Seconds until it expires.
    pub expiry_seconds: Option<u32>,
    /// The topic on which an answer is expected.
    pub response_topic: Option<String>,
    /// Correlation data that the answer must repeat.
    pub correlation: Option<Vec<u8>>,
}

impl RawMessage {
    /// A QoS 1 message without retention.
    pub fn new(topic: impl AsRef<str>, payload: impl Into<Vec<u8>>) -> Self {
        let (topic, payload) = (topic.as_ref().into(), payload.into());
        Self { topic, payload, acknowledged: true, ..Self::default() }
    }
}

/// Messages that an [unconnected] publisher accepts.
pub const UNCONNECTED_ROOM: usize = crate::connection::REQUESTS_MAX;

/// Holds the messages that an [unconnected] publisher accepted.
pub struct Unconnected {
    _events: EventLoop,
}

/// A publisher whose messages are never sent.
pub fn unconnected(broker: BrokerFacts) -> (Publisher, Unconnected) {
    let (client, events) = AsyncClient::new(options(1, "unconnected"), UNCONNECTED_ROOM);
    (Publisher::new(client, Unsent::default(), broker), Unconnected { _events: events })
}

/// An event of a [`RawClient`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RawEvent {
    /// Connected and subscribed.
    Subscribed,
    /// A message.
    Message(RawMessage),
}

/// A client in a thread of its own, subscribed at QoS 1; it disconnects when dropped.
pub struct RawClient {
    client: AsyncClient,
    events: UnboundedReceiver<RawEvent>,
    _stop: oneshot::Sender<()>,
}

impl RawClient {
    /// Connects once and waits until it is subscribed to `filters`, which must not be empty.
    ///
    /// # Panics
    /// The connection fails.
    pub fn connect(port: u16, name: &str, filters: &[&str]) -> Self {
        Self::start(options(port, name), filters, false)
    }

    /// Connects with a user name, which is also the client id, and a password.
    ///
    /// # Panics
    /// The connection fails.
    pub fn logged_in(port: u16, user: &str, password: &str, filters: &[&str]) -> Self {
        let mut options = options(port, user);
        options.set_credentials(user, password);
        Self::start(options, filters, false)
    }

    /// Like [`connect`](Self::connect), but reconnects whenever the connection is lost.
    ///
    /// # Panics
    /// The thread can't be started.
    pub fn persistent(port: u16, name: &str, filters: &[&str]) -> Self {
        Self::start(options(port, name), filters, true)
    }

    fn start(options: MqttOptions, filters: &[&str], again: bool) -> Self {
        let name = options.client_id();
        let (client, eventloop) = AsyncClient::new(options, REQUESTS_MAX);
        #[expect(clippy::disallowed_methods, reason = "a test keeps everything that it receives")]
        let (say, events) = unbounded_channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let filters = filters.iter().map(|filter| Filter::new(*filter, QoS::AtLeastOnce)).collect();
        let poller = Poller { client: client.clone(), eventloop, filters, say, again };
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                tokio::select! { () = poller.run() => {}, _ = stopped => {} }
            });
        });
        let mut raw = Self { client, events, _stop: stop };
        let first = wait(&mut raw.events);
        assert_eq!(first, Some(RawEvent::Subscribed), "{name}");
        raw
    }

    /// Publishes without waiting.
    ///
    /// # Panics
    /// Too many messages wait.
    pub fn publish(&self, message: RawMessage) {
        let (qos, properties) = client_form(&message);
        let (topic, retain, payload) = (message.topic, message.retain, message.payload);
        let sent = self.client.try_publish_with_properties(topic, qos, retain, payload, properties);
        sent.expect("room for a message");
    }

    /// Publishes; waits for room.
    ///
    /// # Panics
    /// The connection is gone for good.
    pub async fn publish_in_turn(&self, message: RawMessage) {
        let (qos, properties) = client_form(&message);
        let (topic, retain, payload) = (message.topic, message.retain, message.payload);
        let sent = self.client.publish_with_properties(topic, qos, retain, payload, properties).await;
        sent.expect("a connection");
    }

    /// The next event; `None` if the connection is gone for good.
    pub async fn event(&mut self) -> Option<RawEvent> {
        self.events.recv().await
    }

    /// The next message; `None` if the connection is gone for good.
    pub async fn next(&mut self) -> Option<RawMessage> {
        loop {
            if let RawEvent::Message(message) = self.events.recv().await? {
                return Some(message);
            }
        }
    }

    /// The next message, outside of a runtime.
    pub fn blocking_next(&mut self) -> Option<RawMessage> {
        loop {
            if let RawEvent::Message(message) = self.events.blocking_recv()? {
                return Some(message);
            }
        }
    }

    /// A message that has already arrived.
    pub fn try_next(&mut self) -> Option<RawMessage> {
        while let Ok(event) = self.events.try_recv() {
            if let RawEvent::Message(message) = event {
                return Some(message);
            }
        }
        None
    }
}

/// The MQTT client's form of QoS and properties.
fn client_form(message: &RawMessage) -> (QoS, PublishProperties) {
    let qos = if message.acknowledged { QoS::AtLeastOnce } else { QoS::AtMostOnce };
    let properties = PublishProperties {
        message_expiry_interval: message.expiry_seconds,
        response_topic: message.response_topic.clone(),
        correlation_data: message.correlation.clone().map(Into::into),
        ..PublishProperties::default()
    };
    (qos, properties)
}

fn options(port: u16, name: &str) -> MqttOptions {
    let mut options = MqttOptions::new(name, "127.0.0.1", port);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options.set_network_options(network).set_keep_alive(Duration::from_secs(60));
    options.set_max_packet_size(Some(u32::MAX));
    options
}

/// The first event. Blocks on a thread of its own, because the caller may or may not be inside a runtime.
fn wait(events: &mut UnboundedReceiver<RawEvent>) -> Option<RawEvent> {
    std::thread::scope(|scope| {
        scope.spawn(|| events.blocking_recv()).join().expect("a thread that only waits")
    })
}

struct Poller {
    client: AsyncClient,
    eventloop: EventLoop,
    filters: Vec<Filter>,
    say: UnboundedSender<RawEvent>,
    again: bool,
}

impl Poller {
    async fn run(mut self) {
        loop {
            let told = match self.eventloop.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    self.client.try_subscribe_many(self.filters.clone()).expect("room for subscriptions");
                    Ok(())
                }
                Ok(Event::Incoming(Packet::SubAck(_))) => self.say.send(RawEvent::Subscribed),
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    self.say.send(RawEvent::Message(received(publish)))
                }
                Ok(_) => Ok(()),
                Err(_) if self.again => {
                    tokio::time::sleep(PAUSE).await;
                    Ok(())
                }
                Err(_) => return,
            };
            if told.is_err() {
                return;
            }
        }
    }
}

fn received(publish: Publish) -> RawMessage {
    let properties = publish.properties.unwrap_or_default();
    RawMessage {
        topic: String::from_utf8_lossy(&publish.topic).into_owned(),
        payload: publish.payload.to_vec(),
        acknowledged: publish.qos != QoS::AtMostOnce,
        retain: publish.retain,
        expiry_seconds: properties.message_expiry_interval,
        response_topic: properties.response_topic,
        correlation: properties.correlation_data.map(|data| data.to_vec()),
    }
}
