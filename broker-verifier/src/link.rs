//! The MQTT link: the only module that names the MQTT client.
//!
//! Invariant: `poll()` runs in a task of its own and is never dropped half-way; publishing never waits. Each
//! connection has a client of its own, so nothing that was queued for one reaches the next, and each
//! connection subscribes and is announced anew, whatever the broker remembers.

mod aliases;
mod backoff;
mod connect;
mod generation;
mod outbox;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use dunlin_wire::limits::PACKET_BYTES_MAX;
use dunlin_wire::topic::{ENERGY_FILTER, OPEN_FILTER, SETUP_FILTER, TELEMETRY_FILTER, Topic, frames_filter};
use dunlin_wire::{DeviceId, Liveness, VerifierId, VerifierPresence};
use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnAck, Filter, LastWill, Packet, Publish, RetainForwardRule};
use rumqttc::v5::{AsyncClient, Event};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::config::{Broker, Login};
use aliases::Aliases;
use backoff::Backoff;
use connect::{connect_options, explain, packet_max, subscribed};
use outbox::{Outbox, Wire};

pub use connect::{BrokerFacts, probe};
pub use outbox::Message;

/// Requests that the MQTT client holds: small, for what waits there can't be taken back.
const REQUESTS_MAX: usize = 8;
/// Received messages that wait for the loop; beyond it the socket is not read.
const EVENTS_MAX: usize = 64;
/// Bytes of correlation data that are given back; longer ones are left out.
const CORRELATION_BYTES_MAX: usize = 64;

/// What a link connects to, and as whom.
#[derive(Clone, Debug)]
pub struct LinkOptions {
    /// The broker.
    pub broker: Broker,
    /// Name and password for it.
    pub login: Option<Login>,
    /// The verifier.
    pub id: VerifierId,
    /// Time between signs of life.
    pub keep_alive: Duration,
    /// What is announced; the link fills in generation and liveness.
    pub presence: VerifierPresence,
}

/// What a link reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// Connected and subscribed.
    Up,
    /// Not connected, for a reason that was not reported last.
    Down(String),
    /// A device asks for a lease.
    Open {
        /// The device.
        device: DeviceId,
        /// The message.
        bytes: Vec<u8>,
        /// What its reply shall carry.
        correlation: Option<Vec<u8>>,
    },
    /// A device sent something on its frame topic.
    Frame {
        /// The device.
        device: DeviceId,
        /// The message.
        bytes: Vec<u8>,
    },
    /// A device reports its energy.
    Energy {
        /// The device.
        device: DeviceId,
        /// The message.
        bytes: Vec<u8>,
    },
    /// A device says that its set-up file was not taken, or with no bytes that it is all right now.
    Setup {
        /// The device.
        device: DeviceId,
        /// The message.
        bytes: Vec<u8>,
    },
    /// A device says how its power is now.
    Telemetry {
        /// The device.
        device: DeviceId,
        /// The message.
        bytes: Vec<u8>,
    },
}

/// What happened on a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Connections that were subscribed.
    pub connections: u64,
    /// Messages handed to the client.
    pub published: u64,
    /// Verdicts among them whose topic was an alias alone.
    pub aliased: u64,
    /// Messages dropped: no connection, or the outbox was full.
    pub dropped: u64,
    /// Messages larger than the broker takes.
    pub oversize: u64,
    /// Messages received that were larger than any of the protocol.
    pub too_large: u64,
    /// Messages received on topics that are not ours.
    pub foreign: u64,
    /// Requests whose response topic was not their device's own.
    pub redirected: u64,
}

/// The state both sides of the link see.
struct Shared {
    outbox: Outbox,
    presence: VerifierPresence,
}

/// A verifier's connection to its broker, kept up for as long as this value lives.
pub struct Link {
    id: VerifierId,
    shared: Arc<Mutex<Shared>>,
    events: mpsc::Receiver<LinkEvent>,
    task: JoinHandle<()>,
}

impl Link {
    /// Starts to connect; needs a runtime.
    pub fn start(options: LinkOptions) -> Self {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let presence = options.presence.clone();
        let shared = Arc::new(Mutex::new(Shared { outbox: Outbox::default(), presence }));
        let id = options.id.clone();
        let task = Task { options, shared: shared.clone(), events: sender };
        Self { id, shared, events, task: tokio::spawn(task.run()) }
    }

    /// The next event; `None` once the link has ended. May be dropped while it waits.
    pub async fn next(&mut self) -> Option<LinkEvent> {
        self.events.recv().await
    }

    /// Publishes a message, or keeps it until the client takes it.
    pub fn publish(&mut self, message: Message) {
        lock(&self.shared).outbox.push(message);
    }

    /// Announces what has changed; while there is no connection, the next one will.
    pub fn announce(&mut self, change: impl FnOnce(&mut VerifierPresence)) {
        let mut shared = lock(&self.shared);
        change(&mut shared.presence);
        let bytes = encode(&shared.presence);
        shared.outbox.push(Message::Presence { verifier: self.id.clone(), bytes });
    }

    /// Whether it is connected and subscribed.
    pub fn is_up(&self) -> bool {
        lock(&self.shared).outbox.is_open()
    }

    /// What happened so far.
    pub fn counters(&self) -> LinkCounters {
        lock(&self.shared).outbox.counters
    }

    /// Says goodbye, sends everything that waits and disconnects; false where that took longer than `limit`.
    pub async fn close(mut self, limit: Duration) -> bool {
        if !self.is_up() {
            self.task.abort();
            return true;
        }
        self.announce(|presence| presence.liveness = Liveness::Left);
        lock(&self.shared).outbox.close();
        let ended = async { while self.events.recv().await.is_some() {} };
        let in_time = timeout(limit, ended).await.is_ok();
        self.task.abort();
        in_time
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn encode(presence: &VerifierPresence) -> Vec<u8> {
    presence.encode().expect("a presence made of checked values").to_vec()
}

/// Why a connection ended.
enum End {
    /// As asked, or nobody listens any more.
    Closed,
    /// For this reason.
    Lost(String),
}

/// The side of the link that owns the client's event loop.
struct Task {
    options: LinkOptions,
    shared: Arc<Mutex<Shared>>,
    events: mpsc::Sender<LinkEvent>,
}

impl Task {
    /// One connection after the other, with growing pauses.
    async fn run(self) {
        let (mut backoff, mut generation, mut told) = (Backoff::default(), generation::first().await, None);
        loop {
            let started = Instant::now();
            let connected = lock(&self.shared).outbox.counters.connections;
            let End::Lost(reason) = self.connection(generation).await else { return };
            if lock(&self.shared).outbox.counters.connections != connected {
                told = None;
            }
            if told.as_ref() != Some(&reason) {
                told = Some(reason.clone());
                if self.events.send(LinkEvent::Down(reason)).await.is_err() {
                    return;
                }
            }
            sleep(backoff.pause(started.elapsed())).await;
            generation = generation::next(generation);
        }
    }

    /// One connection, from CONNECT to its end.
    async fn connection(&self, generation: u32) -> End {
        let mut options =
            connect_options(&self.options.broker, self.options.login.as_ref(), &self.options.id);
        options.set_keep_alive(self.options.keep_alive);
        options.set_last_will(self.will(generation));
        let (client, mut eventloop) = AsyncClient::new(options, REQUESTS_MAX);
        let (mut connack, mut leaving) = (None, false);
        loop {
            let event = match eventloop.poll().await {
                Ok(Event::Outgoing(outgoing)) => {
                    leaving |= outgoing == Outgoing::Disconnect;
                    None
                }
                Ok(Event::Incoming(packet)) => match self.on_packet(packet, &client, &mut connack) {
                    Ok(event) => event,
                    Err(error) => return self.lost(End::Lost(format!("{error:#}"))),
                },
                // The broker hangs up first: a socket closed with an acknowledgement unread resets the connection,
                // and a DISCONNECT that the broker has not read by then is lost.
                Err(_) if leaving => return self.lost(End::Closed),
                Err(error) => return self.lost(End::Lost(explain(&error))),
            };
            if let Some(event) = event
                && self.events.send(event).await.is_err()
            {
                return self.lost(End::Closed);
            }
            lock(&self.shared).outbox.pump();
        }
    }

    fn lost(&self, end: End) -> End {
        lock(&self.shared).outbox.lose();
        end
    }

    fn on_packet(
        &self,
        packet: Packet,
        client: &AsyncClient,
        connack: &mut Option<ConnAck>,
    ) -> Result<Option<LinkEvent>> {
        match packet {
            Packet::ConnAck(ack) => {
                *connack = Some(ack);
                self.subscribe(client)?;
                Ok(None)
            }
            Packet::SubAck(ack) => {
                for (filter, code) in subscribed(&ack)? {
                    tracing::warn!(
                        filter,
                        ?code,
                        "the broker refuses a subscription; what devices say there is not logged"
                    );
                }
                self.up(client, connack.as_ref());
                Ok(Some(LinkEvent::Up))
            }
            Packet::Publish(publish) => Ok(self.received(&publish)),
            _ => Ok(None),
        }
    }

    /// Frames at most once, requests and energy shared with the other verifiers; of what was retained, reports of
    /// set-ups alone.
    fn subscribe(&self, client: &AsyncClient) -> Result<()> {
        let frames = frames_filter(&self.options.id);
        let filters = [
            (frames.as_str(), QoS::AtMostOnce),
            (OPEN_FILTER, QoS::AtLeastOnce),
            (ENERGY_FILTER, QoS::AtLeastOnce),
            (TELEMETRY_FILTER, QoS::AtMostOnce),
            (SETUP_FILTER, QoS::AtLeastOnce),
        ];
        let filters = filters.map(|(name, qos)| {
            let mut filter = Filter::new(name, qos);
            if name != SETUP_FILTER {
                filter.retain_forward_rule = RetainForwardRule::Never;
            }
            filter
        });
        client.try_subscribe_many(filters).context("the MQTT client refused the subscriptions")
    }

    /// Opens the outbox and announces the verifier: who sees the presence can count on the subscriptions.
    fn up(&self, client: &AsyncClient, connack: Option<&ConnAck>) {
        let properties = connack.and_then(|ack| ack.properties.clone());
        let alias_max = properties.as_ref().and_then(|p| p.topic_alias_max).unwrap_or(0);
        let packet_max = packet_max(properties.as_ref());
        let mut shared = lock(&self.shared);
        shared.outbox.counters.connections += 1;
        shared.outbox.open(Wire { client: client.clone(), aliases: Aliases::new(alias_max), packet_max });
        let bytes = encode(&shared.presence);
        shared.outbox.push(Message::Presence { verifier: self.options.id.clone(), bytes });
    }

    /// The Will of a connection; its generation is what the connection announces.
    fn will(&self, generation: u32) -> LastWill {
        let topic = Topic::VerifierPresence(self.options.id.clone()).name();
        let mut shared = lock(&self.shared);
        shared.presence.generation = generation;
        let lost = VerifierPresence { liveness: Liveness::Lost, slots_free: 0, ..shared.presence.clone() };
        LastWill::new(topic.as_str(), encode(&lost), QoS::AtLeastOnce, true, None)
    }

    fn received(&self, publish: &Publish) -> Option<LinkEvent> {
        if publish.size() > PACKET_BYTES_MAX as usize {
            self.drop_too_large(publish.size());
            return None;
        }
        let topic = std::str::from_utf8(&publish.topic).ok().and_then(Topic::parse);
        let bytes = publish.payload.to_vec();
        match topic {
            Some(Topic::Frames(device, verifier)) if verifier == self.options.id => {
                Some(LinkEvent::Frame { device, bytes })
            }
            Some(Topic::Open(device)) => {
                let correlation = self.correlation(&device, publish);
                Some(LinkEvent::Open { device, bytes, correlation })
            }
            Some(Topic::Energy(device)) => Some(LinkEvent::Energy { device, bytes }),
            Some(Topic::Telemetry(device)) => Some(LinkEvent::Telemetry { device, bytes }),
            Some(Topic::Setup(device)) => Some(LinkEvent::Setup { device, bytes }),
            _ => {
                lock(&self.shared).outbox.counters.foreign += 1;
                None
            }
        }
    }

    fn drop_too_large(&self, bytes: usize) {
        let mut shared = lock(&self.shared);
        shared.outbox.counters.too_large += 1;
        let dropped = shared.outbox.counters.too_large;
        if dropped.is_power_of_two() {
            tracing::warn!(dropped, bytes, limit = PACKET_BYTES_MAX, "dropped a message that is too large");
        }
    }

    /// A reply goes to its device's own topic and nowhere else; another response topic is only counted.
    fn correlation(&self, device: &DeviceId, publish: &Publish) -> Option<Vec<u8>> {
        let properties = publish.properties.as_ref()?;
        let own = Topic::Reply(device.clone()).name();
        if properties.response_topic.as_ref().is_some_and(|topic| topic != own.as_str()) {
            lock(&self.shared).outbox.counters.redirected += 1;
        }
        let data = properties.correlation_data.as_ref()?;
        (data.len() <= CORRELATION_BYTES_MAX).then(|| data.to_vec())
    }
}
