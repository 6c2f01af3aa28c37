//! The verifier's side of the connection to the broker: the queue of messages to send, and the routing of received
//! ones.
//!
//! Invariant: receiving runs in a task of its own, and publishing never waits. Every connection subscribes and
//! announces the verifier again, even if the broker remembers the previous one.

mod aliases;
mod outbox;

use crate::ration::WarningRation;
use aliases::Aliases;
use dunlin_hlm::verifier::Correlation;
use dunlin_link::{Arrival, Arrivals, ConnectOptions, ConnectionEnd, Dialer, Publisher, Will};
use dunlin_wire::limits::PACKET_BYTES_MAX;
use dunlin_wire::topic::{
    SETUP_FILTER, Topic, TopicName, energy_filter, frames_filter, open_filter, telemetry_filter,
};
use dunlin_wire::{DeviceId, Liveness, VerifierId, VerifierPresence};
use outbox::{Outbox, Wire};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub use outbox::Message;

/// Unacknowledged QoS 1 publishes.
pub const INFLIGHT_MAX: u16 = 64;
/// Received messages that wait for the loop; beyond it, the task stops reading the connection.
const EVENTS_MAX: usize = 64;

/// Parameters of the connection, and the verifier.
#[derive(Clone, Debug)]
pub struct LinkOptions {
    /// Broker, login and client id.
    pub connect: ConnectOptions,
    /// The verifier.
    pub id: VerifierId,
    /// The presence to announce; the link fills in generation and liveness.
    pub presence: VerifierPresence,
}

/// An event for the loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// Connected and subscribed.
    Up,
    /// Not connected; sent only if the reason differs from the last one.
    Down(String),
    /// A device requests a lease.
    Open {
        /// The device.
        device: DeviceId,
        /// The message.
        bytes: Vec<u8>,
        /// Correlation data, for the reply.
        correlation: Option<Correlation>,
    },
    /// A device sent a message on its frame topic.
    Frame {
        /// The device.
        device: DeviceId,
        /// The message.
        bytes: Vec<u8>,
    },
    /// A device reported its energy.
    Energy {
        /// The device.
        device: DeviceId,
        /// The message.
        bytes: Vec<u8>,
    },
    /// A device reported a rejected set-up file. Without bytes: it withdrew the report.
    Setup {
        /// The device.
        device: DeviceId,
        /// The message.
        bytes: Vec<u8>,
    },
    /// A device sent telemetry.
    Telemetry {
        /// The device.
        device: DeviceId,
        /// The message.
        bytes: Vec<u8>,
    },
}

/// Counters of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Connections whose subscriptions were granted.
    pub connections: u64,
    /// Messages accepted by the MQTT client.
    pub published: u64,
    /// Verdicts among them that were sent with only an alias as topic.
    pub aliased: u64,
    /// Messages dropped because there was no connection or the outbox was full.
    pub dropped: u64,
    /// Messages that exceeded the broker's packet limit.
    pub oversize: u64,
    /// Received messages that exceeded the protocol's limit.
    pub too_large: u64,
    /// Messages received on other topics than the protocol's.
    pub foreign: u64,
    /// Requests whose response topic was not the device's own reply topic.
    pub redirected: u64,
    /// Messages that the broker did not take.
    pub not_taken: u64,
    /// Warnings of them that were not logged, because there were too many.
    pub unlogged: u64,
}

/// The state that both sides of the link share.
struct Shared {
    outbox: Outbox,
    presence: VerifierPresence,
    /// For messages that the broker did not take: a device without access to its own topics causes one with each request.
    not_taken: WarningRation,
}

/// A verifier's connection to its broker; it is kept up until this value is dropped.
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
        let shared = Arc::new(Mutex::new(Shared {
            outbox: Outbox::default(),
            presence,
            not_taken: WarningRation::default(),
        }));
        let id = options.id.clone();
        let task = Task { options, shared: shared.clone(), events: sender, started: Instant::now() };
        Self { id, shared, events, task: tokio::spawn(task.run()) }
    }

    /// The next event; `None` once the link has ended. Safe to cancel.
    pub async fn next(&mut self) -> Option<LinkEvent> {
        self.events.recv().await
    }

    /// Publishes a message, or queues it until the client accepts it.
    pub fn publish(&mut self, message: Message) {
        lock(&self.shared).outbox.push(message);
    }

    /// Changes and announces the presence. Without a connection, the next one announces it.
    pub fn announce(&mut self, change: impl FnOnce(&mut VerifierPresence)) {
        let mut shared = lock(&self.shared);
        change(&mut shared.presence);
        let bytes = encode(&shared.presence);
        shared.outbox.push(Message::Presence { verifier: self.id.clone(), bytes });
    }

    /// True while connected and subscribed.
    pub fn is_up(&self) -> bool {
        lock(&self.shared).outbox.is_open()
    }

    /// The counters so far.
    pub fn counters(&self) -> LinkCounters {
        lock(&self.shared).outbox.counters
    }

    /// Announces the end, sends the queued messages and disconnects; false if that took longer than `limit`.
    pub async fn close(mut self, limit: Duration) -> bool {
        if !self.is_up() {
            self.task.abort();
            return true;
        }
        self.announce(|presence| presence.liveness = Liveness::Left);
        lock(&self.shared).outbox.close();
        // Keep taking events: the task can't reach its end while it waits for room in the channel.
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

/// The reason why a connection ended.
enum End {
    /// Closed on request, or nobody receives events any more.
    Closed,
    /// Lost, for this reason.
    Lost(String),
}

/// The receiving side of the link.
struct Task {
    options: LinkOptions,
    shared: Arc<Mutex<Shared>>,
    events: mpsc::Sender<LinkEvent>,
    started: Instant,
}

impl Task {
    /// Connects again and again, with growing pauses.
    async fn run(self) {
        let mut dialer = Dialer::start(self.options.connect.clone()).await;
        let mut told = None;
        loop {
            let connected = lock(&self.shared).outbox.counters.connections;
            let will = self.will(dialer.generation());
            let End::Lost(reason) = self.connection(dialer.dial(Some(will))).await else { return };
            // This attempt succeeded for a while, so its loss is news even if the reason is the same as before.
            if lock(&self.shared).outbox.counters.connections != connected {
                told = None;
            }
            if told.as_ref() != Some(&reason) {
                told = Some(reason.clone());
                if self.events.send(LinkEvent::Down(reason)).await.is_err() {
                    return;
                }
            }
            dialer.pause().await;
        }
    }

    /// Runs one connection, from CONNECT to its end.
    async fn connection(&self, mut arrivals: Arrivals) -> End {
        let mut publisher = None;
        loop {
            let event = match arrivals.next().await {
                Ok(arrived) => match self.arrived(arrived.arrival, &mut publisher) {
                    Ok(event) => event,
                    Err(reason) => return self.lost(End::Lost(reason)),
                },
                Err(ConnectionEnd::Left) => return self.lost(End::Closed),
                Err(ConnectionEnd::Lost(loss)) => return self.lost(End::Lost(loss.reason)),
            };
            if let Some(event) = event
                && self.events.send(event).await.is_err()
            {
                return self.lost(End::Closed);
            }
            // Any event may mean room in the MQTT client (`Arrival::Sent` always does).
            lock(&self.shared).outbox.pump();
        }
    }

    fn lost(&self, end: End) -> End {
        lock(&self.shared).outbox.lose();
        end
    }

    /// Handles an event of the connection; returns the event for the loop, if any. An error ends the connection.
    fn arrived(
        &self,
        arrival: Arrival,
        publisher: &mut Option<Publisher>,
    ) -> Result<Option<LinkEvent>, String> {
        match arrival {
            Arrival::Accepted(accepted) => {
                let (needed, reports) = (needed_filters(&self.options.id), report_filters(&self.options.id));
                let own = needed.iter().chain(&reports).map(|filter| filter.as_str());
                if !accepted.subscribe(own.chain([SETUP_FILTER])) {
                    return Err("a new connection had no room for its subscriptions".into());
                }
                *publisher = Some(accepted);
            }
            Arrival::Subscribed(refused) => {
                check_refusals(&refused, &self.options.id)?;
                self.up(publisher.take());
                return Ok(Some(LinkEvent::Up));
            }
            Arrival::Message(message) => return Ok(self.received(message)),
            Arrival::TooLarge(bytes) => self.drop_too_large(bytes),
            Arrival::Foreign => lock(&self.shared).outbox.counters.foreign += 1,
            Arrival::NotTaken(reason) => {
                let Shared { outbox, not_taken, .. } = &mut *lock(&self.shared);
                warn_not_taken(not_taken, &mut outbox.counters, &reason, self.started.elapsed());
            }
            Arrival::Sent | Arrival::Acknowledged | Arrival::Other => {}
        }
        Ok(None)
    }

    /// Opens the outbox and announces the verifier, in this order: devices that see the presence may send at once.
    fn up(&self, publisher: Option<Publisher>) {
        let Some(publisher) = publisher else { return };
        let aliases = Aliases::new(publisher.broker().alias_max);
        let mut shared = lock(&self.shared);
        shared.outbox.counters.connections += 1;
        shared.outbox.open(Wire { publisher, aliases });
        let bytes = encode(&shared.presence);
        shared.outbox.push(Message::Presence { verifier: self.options.id.clone(), bytes });
    }

    /// The Will of a connection. Sets the connection's generation, which its presence carries too.
    fn will(&self, generation: u32) -> Will {
        let mut shared = lock(&self.shared);
        shared.presence.generation = generation;
        let lost = VerifierPresence { liveness: Liveness::Lost, load: 0, ..shared.presence.clone() };
        Will { topic: Topic::VerifierPresence(self.options.id.clone()), payload: encode(&lost) }
    }

    fn received(&self, message: dunlin_link::Message) -> Option<LinkEvent> {
        let dunlin_link::Message { topic, payload: bytes, response_topic, correlation } = message;
        match topic {
            Topic::Frames(device, verifier) if verifier == self.options.id => {
                Some(LinkEvent::Frame { device, bytes })
            }
            Topic::Open(device, verifier) if verifier == self.options.id => {
                self.count_redirected(&device, response_topic.as_deref());
                // Drop longer correlation data, because no data of a peer is kept without a bound.
                let correlation = correlation.and_then(|data| Correlation::from_slice(&data).ok());
                Some(LinkEvent::Open { device, bytes, correlation })
            }
            Topic::Energy(device, verifier) if verifier == self.options.id => {
                Some(LinkEvent::Energy { device, bytes })
            }
            Topic::Telemetry(device, verifier) if verifier == self.options.id => {
                Some(LinkEvent::Telemetry { device, bytes })
            }
            Topic::Setup(device) => Some(LinkEvent::Setup { device, bytes }),
            _ => {
                lock(&self.shared).outbox.counters.foreign += 1;
                None
            }
        }
    }

    fn drop_too_large(&self, bytes: u64) {
        let mut shared = lock(&self.shared);
        shared.outbox.counters.too_large += 1;
        let dropped = shared.outbox.counters.too_large;
        if dropped.is_power_of_two() {
            tracing::warn!(dropped, bytes, limit = PACKET_BYTES_MAX, "dropped a message that is too large");
        }
    }

    /// Counts requests with a foreign response topic. Replies always go to the device's own topic.
    fn count_redirected(&self, device: &DeviceId, response_topic: Option<&str>) {
        let own = Topic::Reply(device.clone()).name();
        if response_topic.is_some_and(|topic| topic != own.as_str()) {
            lock(&self.shared).outbox.counters.redirected += 1;
        }
    }
}

fn warn_not_taken(ration: &mut WarningRation, counters: &mut LinkCounters, reason: &str, now: Duration) {
    counters.not_taken += 1;
    if ration.take("messages that the broker did not take", now) {
        tracing::warn!(reason, "the broker did not take a message");
    } else {
        counters.unlogged += 1;
    }
}

/// The subscriptions that serving needs.
fn needed_filters(own: &VerifierId) -> [TopicName; 2] {
    [frames_filter(own), open_filter(own)]
}

/// Further subscriptions, besides that of set-up reports: without them, drafts are still verified, but what devices report
/// is not logged.
fn report_filters(own: &VerifierId) -> [TopicName; 2] {
    [energy_filter(own), telemetry_filter(own)]
}

/// Logs refused filters; the first one that serving needs is returned as an error.
fn check_refusals(refused: &[(String, String)], own: &VerifierId) -> Result<(), String> {
    for (filter, reason) in refused {
        if needed_filters(own).iter().any(|needed| needed.as_str() == filter) {
            return Err(format!("the broker refuses the subscription to {filter}: {reason}"));
        }
        tracing::warn!(
            filter,
            reason,
            "the broker refuses a subscription; what devices report there is not logged"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logged::logged;
    use crate::ration::WARNINGS_MAX;

    #[test]
    fn messages_that_are_not_taken_do_not_flood_the_log() {
        let (mut ration, mut counters) = (WarningRation::default(), LinkCounters::default());
        let mut refuse = |_| warn_not_taken(&mut ration, &mut counters, "NotAuthorized", Duration::ZERO);
        let ((), said) = logged(|| (0..1000).for_each(&mut refuse));
        assert_eq!(said.lines().count(), WARNINGS_MAX as usize + 1, "{said}");
        assert_eq!((counters.not_taken, counters.unlogged), (1000, 1000 - u64::from(WARNINGS_MAX)));
    }

    #[test]
    fn a_refusal_ends_a_connection_only_where_serving_needs_the_subscription() {
        let own = "v1".parse().unwrap();
        let refused = |filter: &str| check_refusals(&[(filter.to_owned(), "NotAuthorized".to_owned())], &own);
        assert_eq!(check_refusals(&[], &own), Ok(()));
        for needed in ["dl1/d/+/u/f/v1", "dl1/d/+/u/op/v1"] {
            assert!(refused(needed).is_err_and(|reason| reason.contains(needed)));
        }
        for optional in [SETUP_FILTER, "dl1/d/+/u/en/v1", "dl1/d/+/u/tm/v1"] {
            assert_eq!(refused(optional), Ok(()));
        }
    }
}
