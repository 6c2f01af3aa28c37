//! What waits to be published: a bounded queue in front of the MQTT client's small channel.
//!
//! Invariant: nothing here waits. What the client can't take now stays in order; what was meant for a lost
//! connection is dropped with it, for its receivers ask again.

use std::collections::VecDeque;

use dunlin_wire::topic::Topic;
use dunlin_wire::{DeviceId, VerifierId};
use rumqttc::v5::AsyncClient;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::PublishProperties;

use super::LinkCounters;
use super::aliases::{Aliases, Form};

/// Messages that wait while the client is busy; beyond it the oldest is dropped and counted.
pub(super) const OUTBOX_MAX: usize = 1024;
/// Seconds after which nobody waits for a reply any more.
const REPLY_EXPIRY_S: u32 = 5;
/// Bytes of a packet besides topic, payload and correlation data: headers and properties.
const PACKET_OVERHEAD: usize = 32;

/// A message to publish.
#[derive(Clone, Debug)]
pub enum Message {
    /// To a device's verdict topic, at most once.
    Verdict {
        /// The device.
        device: DeviceId,
        /// The message.
        bytes: Vec<u8>,
    },
    /// To a device's reply topic, at least once.
    Reply {
        /// The device.
        device: DeviceId,
        /// The message.
        bytes: Vec<u8>,
        /// What the request carried to be given back.
        correlation: Option<Vec<u8>>,
    },
    /// To the verifier's own presence topic, retained.
    Presence {
        /// The verifier.
        verifier: VerifierId,
        /// The message.
        bytes: Vec<u8>,
    },
}

/// A connection that can be published to.
pub(super) struct Wire {
    pub(super) client: AsyncClient,
    pub(super) aliases: Aliases,
    /// Bytes of a packet that the broker takes.
    pub(super) packet_max: usize,
}

/// The queue, and the connection it empties into.
#[derive(Default)]
pub(super) struct Outbox {
    waiting: VecDeque<Message>,
    wire: Option<Wire>,
    /// Say goodbye once everything is sent.
    closing: bool,
    pub(super) counters: LinkCounters,
}

impl Outbox {
    /// Opens the way to a new connection.
    pub(super) fn open(&mut self, wire: Wire) {
        self.wire = Some(wire);
    }

    /// The connection is gone, and with it what was to be sent on it.
    pub(super) fn lose(&mut self) {
        self.wire = None;
        self.counters.dropped += self.waiting.len() as u64;
        self.waiting.clear();
    }

    /// Whether a connection is open.
    pub(super) fn is_open(&self) -> bool {
        self.wire.is_some()
    }

    /// Sends everything that waits, then DISCONNECT.
    pub(super) fn close(&mut self) {
        self.closing = true;
        self.pump();
    }

    /// Takes a message; without a connection it is dropped and counted.
    pub(super) fn push(&mut self, message: Message) {
        if self.wire.is_none() {
            self.counters.dropped += 1;
            return;
        }
        if self.waiting.len() == OUTBOX_MAX {
            self.waiting.pop_front();
            self.counters.dropped += 1;
        }
        self.waiting.push_back(message);
        self.pump();
    }

    /// Hands the client as much as it takes.
    pub(super) fn pump(&mut self) {
        let Some(wire) = &mut self.wire else { return };
        while let Some(message) = self.waiting.front() {
            if message.size() > wire.packet_max {
                self.counters.oversize += 1;
            } else if wire.send(message, &mut self.counters) {
                self.counters.published += 1;
            } else {
                return;
            }
            self.waiting.pop_front();
        }
        if self.closing && wire.client.try_disconnect().is_ok() {
            self.closing = false;
        }
    }
}

impl Wire {
    /// True once the client has taken the message.
    fn send(&mut self, message: &Message, counters: &mut LinkCounters) -> bool {
        match message {
            Message::Verdict { device, bytes } => self.send_verdict(device, bytes, counters),
            Message::Reply { device, bytes, correlation } => {
                let properties = PublishProperties {
                    message_expiry_interval: Some(REPLY_EXPIRY_S),
                    correlation_data: correlation.clone().map(Into::into),
                    ..PublishProperties::default()
                };
                let topic = Topic::Reply(device.clone()).name();
                let qos = QoS::AtLeastOnce;
                let (topic, bytes) = (topic.as_str(), bytes.clone());
                self.client.try_publish_with_properties(topic, qos, false, bytes, properties).is_ok()
            }
            Message::Presence { verifier, bytes } => {
                let topic = Topic::VerifierPresence(verifier.clone()).name();
                self.client.try_publish(topic.as_str(), QoS::AtLeastOnce, true, bytes.clone()).is_ok()
            }
        }
    }

    fn send_verdict(&mut self, device: &DeviceId, bytes: &[u8], counters: &mut LinkCounters) -> bool {
        let topic = || Topic::Verdicts(device.clone()).name().as_str().to_owned();
        let form = self.aliases.form(device);
        let (topic, topic_alias) = match form {
            Form::Full => (topic(), None),
            Form::Bind(alias) => (topic(), Some(alias)),
            Form::Alias(alias) => (String::new(), Some(alias)),
        };
        let properties = PublishProperties { topic_alias, ..PublishProperties::default() };
        let qos = QoS::AtMostOnce;
        let sent =
            self.client.try_publish_with_properties(topic, qos, false, bytes.to_vec(), properties).is_ok();
        if sent {
            self.aliases.sent(device, form);
            counters.aliased += u64::from(matches!(form, Form::Alias(_)));
        }
        sent
    }
}

impl Message {
    /// Bytes of its packet at most.
    fn size(&self) -> usize {
        let topic = dunlin_wire::limits::TOPIC_BYTES_MAX;
        PACKET_OVERHEAD
            + match self {
                Self::Verdict { bytes, .. } | Self::Presence { bytes, .. } => topic + bytes.len(),
                Self::Reply { bytes, correlation, .. } => {
                    topic + bytes.len() + correlation.as_ref().map_or(0, Vec::len)
                }
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rumqttc::v5::{EventLoop, MqttOptions};

    const REQUESTS: usize = 2;

    /// An outbox before a client that takes [`REQUESTS`] messages and sends none.
    fn outbox(packet_max: usize) -> (Outbox, EventLoop) {
        let (client, eventloop) = AsyncClient::new(MqttOptions::new("test", "localhost", 1), REQUESTS);
        let mut outbox = Outbox::default();
        outbox.open(Wire { client, aliases: Aliases::new(0), packet_max });
        (outbox, eventloop)
    }

    fn verdict() -> Message {
        Message::Verdict { device: "d1".parse().unwrap(), bytes: vec![0; 8] }
    }

    #[test]
    fn beyond_its_bound_the_oldest_is_dropped_and_counted() {
        let (mut outbox, _eventloop) = outbox(usize::MAX);
        for _ in 0..REQUESTS + OUTBOX_MAX + 3 {
            outbox.push(verdict());
        }
        assert_eq!(outbox.waiting.len(), OUTBOX_MAX);
        assert_eq!((outbox.counters.published, outbox.counters.dropped), (REQUESTS as u64, 3));
    }

    #[test]
    fn what_the_broker_would_not_take_is_not_sent() {
        let (mut outbox, _eventloop) = outbox(100);
        outbox.push(verdict());
        assert_eq!((outbox.counters.oversize, outbox.counters.published), (1, 0));
        assert!(outbox.waiting.is_empty());
    }

    #[test]
    fn a_lost_connection_takes_its_messages_along() {
        let (mut outbox, _eventloop) = outbox(usize::MAX);
        for _ in 0..REQUESTS + 5 {
            outbox.push(verdict());
        }
        outbox.lose();
        outbox.push(verdict());
        assert!(!outbox.is_open() && outbox.waiting.is_empty());
        assert_eq!(outbox.counters.dropped, 6);
    }
}
