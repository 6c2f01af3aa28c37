//! The device's side of the connection to the broker: the queue of messages to send, and the routing of received
//! ones.
//!
//! Frames use QoS 0 and lease requests QoS 1; delivery of neither is assumed. A connection counts as up only after
//! its subscriptions are granted and presence is announced. Messages for which the link has no room stay with the
//! machine.
//!
//! Invariant: no code here interprets a message, and no call blocks.

mod watch;

use dunlin_hlm::device::{Channel, PresenceScope, Transmit};
use dunlin_link::{
    Alias, Arrival, CORRELATION_BYTES, ConnectOptions, ConnectionEnd, CountedArrival, Dialer, GOODBYE_MAX,
    Loss, Message, Outgoing, Publisher, SendOutcome, Traffic, Will,
};
use dunlin_wire::topic::{Topic, TopicName};
use dunlin_wire::{DeviceId, DevicePresence, Liveness, VerifierId, limits};
use std::collections::VecDeque;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};
use watch::{Granted, Watch};

/// Unacknowledged QoS 1 publishes.
pub const INFLIGHT_MAX: u16 = 8;
/// Messages that wait for the MQTT client.
const OUTBOX_MAX: usize = 8;
/// Events that wait for the loop; beyond it, the task stops reading the connection.
const EVENTS_MAX: usize = 64;
/// The alias of the frame topic. The link uses no other.
const FRAMES_ALIAS: u16 = 1;

/// Parameters of the connection, and the device.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// Broker, login and client id. The client id is the device's name, unless another program of the device may be
    /// connected.
    pub options: ConnectOptions,
    /// The device.
    pub device: DeviceId,
    /// True to announce the device and receive its messages; false to receive all verifiers' presence only.
    pub announce: bool,
}

/// An event for the loop.
#[derive(Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// Connected, subscribed, announced.
    Up,
    /// Not connected, or no longer connected.
    Down(Loss),
    /// From the lease topic.
    Reply(Vec<u8>),
    /// From the verdict topic.
    Verdict(Vec<u8>),
    /// From verifiers' presence topics.
    Presence(Vec<(VerifierId, Vec<u8>)>),
    /// There may be room for another message.
    Room,
}

/// An event of the connection's task.
enum TaskEvent {
    /// From the connection of this generation.
    Arrived(u32, CountedArrival),
    /// The connection failed or was lost.
    Lost(Loss),
}

/// The link to the broker.
pub struct Link {
    config: LinkConfig,
    events: mpsc::Receiver<TaskEvent>,
    task: JoinHandle<()>,
    connection: Option<Connection>,
    outbox: VecDeque<Transmit>,
    watch: Watch,
    /// An event that follows the one returned last.
    following: Option<LinkEvent>,
    traffic: Traffic,
    oversize: u64,
    too_large: u64,
    opens: u32,
}

struct Connection {
    publisher: Publisher,
    up: bool,
    alias: Option<BoundAlias>,
    generation: u32,
}

/// A topic alias that the broker allows, and the topic it is bound to.
#[derive(Default)]
struct BoundAlias {
    // Empty until a frame has bound the alias on this connection.
    topic: Option<TopicName>,
}

impl Link {
    /// Starts to connect; must be called within a runtime.
    pub fn start(config: LinkConfig) -> Self {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let task = tokio::spawn(keep_connected(config.clone(), sender));
        let scope = if config.announce { PresenceScope::Nobody } else { PresenceScope::All };
        Self {
            watch: Watch::of(scope),
            following: None,
            config,
            events,
            task,
            connection: None,
            outbox: VecDeque::with_capacity(OUTBOX_MAX),
            traffic: Traffic::default(),
            oversize: 0,
            too_large: 0,
            opens: 0,
        }
    }

    /// The next event. Safe to cancel.
    pub async fn next(&mut self) -> LinkEvent {
        if let Some(event) = self.following.take() {
            return event;
        }
        loop {
            let Some(event) = self.events.recv().await else {
                return std::future::pending().await;
            };
            if let Some(event) = self.handle(event) {
                return event;
            }
        }
    }

    /// True while the connection is up.
    pub fn is_up(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.up)
    }

    /// True if [`send`](Self::send) takes a message.
    pub fn has_room(&self) -> bool {
        self.is_up() && self.outbox.len() < OUTBOX_MAX
    }

    /// Sends a message; the caller has seen that there [is room](Self::has_room).
    pub fn send(&mut self, message: Transmit) {
        debug_assert!(self.has_room());
        self.outbox.push_back(message);
        self.flush();
    }

    /// Subscribes to the presence of these verifiers and of no others.
    pub fn watch(&mut self, scope: PresenceScope) {
        self.watch.set(scope);
        self.follow();
    }

    /// Passes changed subscriptions to the MQTT client.
    fn follow(&mut self) {
        let Some(connection) = &self.connection else { return };
        let device = &self.config.device;
        self.watch.flush(&connection.publisher, || Topic::Verdicts(device.clone()).name());
    }

    /// Publishes a report about this device to a verifier if the connection has room and no frame waits; returns false
    /// otherwise.
    pub fn tell(
        &mut self,
        topic: fn(DeviceId, VerifierId) -> Topic,
        verifier: &VerifierId,
        bytes: &[u8],
    ) -> bool {
        // Reports are optional, so they never delay a frame.
        let has_room = self.has_room() && self.outbox.is_empty();
        let Some(connection) = self.connection.as_ref().filter(|_| has_room) else { return false };
        let report = Outgoing::new(topic(self.config.device.clone(), verifier.clone()), bytes.to_vec());
        let sent = connection.publisher.send(&report) == SendOutcome::Yes;
        if !sent {
            debug!("no room for a report on {}", report.topic.name());
        }
        sent
    }

    /// MQTT bytes so far.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Messages left out because they exceed the broker's packet limit.
    pub fn oversize(&self) -> u64 {
        self.oversize
    }

    /// Received messages that were dropped because they exceed the protocol's limit.
    pub fn too_large(&self) -> u64 {
        self.too_large
    }

    /// Sends the queued messages, disconnects, waits until the broker closes the connection, and returns the total
    /// traffic.
    pub async fn close(mut self) -> Traffic {
        if tokio::time::timeout(GOODBYE_MAX, self.goodbye()).await.is_err() {
            debug!("the broker did not close the connection");
        }
        self.task.abort();
        self.traffic
    }

    /// Runs until the connection has ended, after the DISCONNECT or earlier.
    async fn goodbye(&mut self) {
        let mut left = false;
        while self.connection.is_some() {
            // Leave only once both queues are empty, because a full queue would refuse the DISCONNECT.
            if !left && !self.has_unsent() {
                self.leave();
                left = true;
                continue;
            }
            let Some(event) = self.events.recv().await else { return };
            self.handle(event);
        }
    }

    /// True while messages are queued here or in the MQTT client.
    fn has_unsent(&self) -> bool {
        !self.outbox.is_empty() || self.connection.as_ref().is_some_and(|c| c.publisher.has_unsent())
    }

    fn handle(&mut self, event: TaskEvent) -> Option<LinkEvent> {
        match event {
            TaskEvent::Arrived(generation, CountedArrival { arrival, traffic }) => {
                self.traffic.add(&traffic);
                self.arrived(generation, arrival)
            }
            TaskEvent::Lost(loss) => {
                self.connection = None;
                self.following = None;
                self.watch.lose();
                // Stale: after reconnecting, the machine sends again what is still needed.
                self.outbox.clear();
                info!("{}", loss.reason);
                Some(LinkEvent::Down(loss))
            }
        }
    }

    fn arrived(&mut self, generation: u32, arrival: Arrival) -> Option<LinkEvent> {
        let event = self.taken(generation, arrival);
        // Any event may mean room in the MQTT client.
        self.follow();
        event
    }

    fn taken(&mut self, generation: u32, arrival: Arrival) -> Option<LinkEvent> {
        match arrival {
            Arrival::Accepted(publisher) => self.connect(publisher, generation),
            // One that lacks a subscription is about to end.
            Arrival::Subscribed(refused) if !refused.is_empty() => {}
            Arrival::Subscribed(_) => return self.subscribed(),
            Arrival::Message(message) => return self.route(message),
            Arrival::Sent => {
                self.flush();
                return Some(LinkEvent::Room);
            }
            Arrival::TooLarge(bytes) => self.drop_too_large(bytes),
            Arrival::NotTaken(reason) => {
                warn!("the broker did not take a publish of {}: {reason}", self.config.device);
            }
            Arrival::Foreign => debug!("dropped a message on a topic that is not ours"),
            Arrival::Acknowledged | Arrival::Other => {}
        }
        None
    }

    fn drop_too_large(&mut self, bytes: u64) {
        self.too_large += 1;
        // Log only at powers of two, so that a flood of large messages doesn't flood the log.
        if self.too_large.is_power_of_two() {
            let limit = limits::PACKET_BYTES_MAX;
            warn!("dropped {} messages over {limit} bytes so far, the last of {bytes}", self.too_large);
        }
    }

    fn route(&mut self, Message { topic, payload, .. }: Message) -> Option<LinkEvent> {
        match topic {
            Topic::Reply(_) => Some(LinkEvent::Reply(payload)),
            Topic::Verdicts(_) => Some(LinkEvent::Verdict(payload)),
            Topic::VerifierPresence(verifier) => {
                let presences = self.watch.presence((verifier, payload));
                (!presences.is_empty()).then_some(LinkEvent::Presence(presences))
            }
            topic => {
                debug!("dropped a message on {}, which is not for this device", topic.name());
                None
            }
        }
    }

    /// Subscribes and announces presence, before any other message on a new connection.
    fn connect(&mut self, publisher: Publisher, generation: u32) {
        let needed = limits::PACKET_BYTES_MAX;
        if let Some(max) = publisher.broker().packet_bytes_max.filter(|max| *max < needed) {
            warn!("the broker takes packets of {max} bytes, the protocol may need {needed}");
        }
        self.watch.connect(self.own_topics());
        let alias = (publisher.broker().alias_max >= FRAMES_ALIAS).then(BoundAlias::default);
        self.connection = Some(Connection { publisher, up: false, alias, generation });
        self.follow();
        self.announce(Liveness::Here);
    }

    fn own_topics(&self) -> Vec<TopicName> {
        let device = || self.config.device.clone();
        let own = || vec![Topic::Reply(device()).name(), Topic::Verdicts(device()).name()];
        if self.config.announce { own() } else { Vec::new() }
    }

    fn announce(&mut self, liveness: Liveness) {
        let Some(connection) = self.connection.as_ref().filter(|_| self.config.announce) else { return };
        let Some(presence) = presence(&self.config.device, connection.generation, liveness) else { return };
        if connection.publisher.send(&presence) != SendOutcome::Yes {
            debug!("no room to announce {liveness:?}");
        }
    }

    fn leave(&mut self) {
        self.announce(Liveness::Left);
        // Without room for the DISCONNECT, drop the connection; this also ends `goodbye`.
        if self.connection.as_ref().is_some_and(|connection| !connection.publisher.leave()) {
            self.connection = None;
        }
    }

    fn subscribed(&mut self) -> Option<LinkEvent> {
        let (granted, presences) = self.watch.granted();
        let presences = (!presences.is_empty()).then_some(LinkEvent::Presence(presences));
        if granted != Some(Granted::Connection) {
            return presences;
        }
        self.connection.as_mut()?.up = true;
        // Who may be asked comes first: the device asks as soon as the link is up.
        if presences.is_some() {
            self.following = Some(LinkEvent::Up);
            return presences;
        }
        Some(LinkEvent::Up)
    }

    /// Passes queued messages to the MQTT client until it is full.
    fn flush(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        while let Some(message) = self.outbox.front() {
            let outgoing = outgoing(&self.config.device, message, connection.alias.as_ref(), self.opens);
            match connection.publisher.send(&outgoing) {
                SendOutcome::Yes => connection.bind(&outgoing.topic),
                // Keeps the order; `Arrival::Sent` calls this function again.
                SendOutcome::NoRoom => return,
                SendOutcome::TooLarge => {
                    // Dropped, because it would block the queue: the broker will never take it.
                    warn!("a message of {} bytes is more than the broker takes", outgoing.shape().bytes());
                    self.oversize += 1;
                }
            }
            self.opens = self.opens.wrapping_add(u32::from(matches!(message.channel, Channel::Open(_))));
            self.outbox.pop_front();
        }
    }
}

impl Connection {
    /// Notes which topic the alias stands for. Called only for packets that the client accepted.
    fn bind(&mut self, topic: &Topic) {
        if let (Some(alias), Topic::Frames(..)) = (&mut self.alias, topic) {
            alias.topic = Some(topic.name());
        }
    }
}

/// The loss of a connection without one of its subscriptions: nothing can be done with it, and its access list may be
/// mended before the next.
fn refusal(config: &LinkConfig, arrival: &Arrival) -> Option<Loss> {
    let Arrival::Subscribed(refused) = arrival else { return None };
    let (_, reason) = refused.first()?;
    let (device, broker) = (&config.device, &config.options.broker);
    let reason = format!("the broker at {broker} refuses {device} its subscriptions: {reason}");
    Some(Loss { reason, refused: true })
}

/// Connects, passes on what arrives, and connects again after a pause; ends after a goodbye or when the receiver is
/// gone.
async fn keep_connected(config: LinkConfig, events: mpsc::Sender<TaskEvent>) {
    let mut dialer = Dialer::start(config.options.clone()).await;
    loop {
        let generation = dialer.generation();
        // The Will carries the generation of its own connection, so each connection has its own.
        let lost = presence(&config.device, generation, Liveness::Lost).filter(|_| config.announce);
        let will = lost.map(|Outgoing { topic, payload, .. }| Will { topic, payload });
        let mut arrivals = dialer.dial(will);
        let loss = loop {
            match arrivals.next().await {
                Ok(arrived) => {
                    let refusal = refusal(&config, &arrived.arrival);
                    if events.send(TaskEvent::Arrived(generation, arrived)).await.is_err() {
                        return;
                    }
                    if let Some(loss) = refusal {
                        break loss;
                    }
                }
                Err(ConnectionEnd::Left) => return,
                Err(ConnectionEnd::Lost(loss)) => break loss,
            }
        };
        if events.send(TaskEvent::Lost(loss)).await.is_err() {
            return;
        }
        dialer.pause().await;
    }
}

/// The presence message for the connection with this `generation`.
fn presence(device: &DeviceId, generation: u32, liveness: Liveness) -> Option<Outgoing> {
    let bytes = DevicePresence { generation, liveness }.encode().ok()?;
    Some(Outgoing::new(Topic::DevicePresence(device.clone()), bytes.to_vec()))
}

/// A message with its topic, alias and properties. `opens` numbers lease requests, as correlation data.
fn outgoing(device: &DeviceId, message: &Transmit, alias: Option<&BoundAlias>, opens: u32) -> Outgoing {
    let payload = message.bytes.to_vec();
    match &message.channel {
        Channel::Open(verifier) => {
            let number: [u8; CORRELATION_BYTES] = opens.to_be_bytes();
            Outgoing {
                response_topic: Some(Topic::Reply(device.clone())),
                correlation: Some(number.to_vec()),
                ..Outgoing::new(Topic::Open(device.clone(), verifier.clone()), payload)
            }
        }
        Channel::Frames(verifier) => {
            let topic = Topic::Frames(device.clone(), verifier.clone());
            let alias = match alias {
                None => Alias::None,
                Some(alias) if alias.topic.as_ref() == Some(&topic.name()) => Alias::Only(FRAMES_ALIAS),
                Some(_) => Alias::Bind(FRAMES_ALIAS),
            };
            Outgoing { alias, ..Outgoing::new(topic, payload) }
        }
    }
}
