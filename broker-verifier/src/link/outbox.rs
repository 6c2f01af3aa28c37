//! A bounded queue of messages in front of the MQTT client's small channel.
//!
//! Invariant: no call waits. Messages that the client can't accept now are kept in order. Messages for a lost
//! connection are dropped, because the receivers ask again.

use super::LinkCounters;
use super::aliases::{Aliases, Form};
use dunlin_link::{Alias, Outgoing, Publisher, SendOutcome};
use dunlin_wire::topic::Topic;
use dunlin_wire::{DeviceId, VerifierId};
use std::collections::VecDeque;

/// Queued messages; beyond it, the oldest one is dropped and counted.
pub(super) const OUTBOX_MAX: usize = 1024;
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
        /// The request's correlation data.
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

/// A connection that accepts messages.
pub(super) struct Wire {
    pub(super) publisher: Publisher,
    pub(super) aliases: Aliases,
}

/// The queue, and the connection that it is sent on.
#[derive(Default)]
pub(super) struct Outbox {
    waiting: VecDeque<Message>,
    wire: Option<Wire>,
    /// True if DISCONNECT shall follow the last queued message.
    closing: bool,
    pub(super) counters: LinkCounters,
}

impl Outbox {
    /// Starts sending on a new connection.
    pub(super) fn open(&mut self, wire: Wire) {
        self.wire = Some(wire);
    }

    /// Drops the connection and its queued messages.
    pub(super) fn lose(&mut self) {
        self.wire = None;
        self.counters.dropped += self.waiting.len() as u64;
        self.waiting.clear();
    }

    /// True while a connection is open.
    pub(super) fn is_open(&self) -> bool {
        self.wire.is_some()
    }

    /// Sends everything that is queued, then DISCONNECT.
    pub(super) fn close(&mut self) {
        self.closing = true;
        self.pump();
    }

    /// Queues and sends a message; without a connection, it is dropped and counted.
    pub(super) fn push(&mut self, message: Message) {
        if self.wire.is_none() {
            self.counters.dropped += 1;
            return;
        }
        // Drop the oldest message, because its receiver is the most likely to have asked again.
        if self.waiting.len() == OUTBOX_MAX {
            self.waiting.pop_front();
            self.counters.dropped += 1;
        }
        self.waiting.push_back(message);
        self.pump();
    }

    /// Passes queued messages to the client until it is full.
    pub(super) fn pump(&mut self) {
        let Some(wire) = &mut self.wire else { return };
        while let Some(message) = self.waiting.front() {
            match wire.send(message, &mut self.counters) {
                SendOutcome::Yes => self.counters.published += 1,
                // Counted and removed: the broker will never take it, and it would block the queue.
                SendOutcome::TooLarge => self.counters.oversize += 1,
                SendOutcome::NoRoom => return,
            }
            self.waiting.pop_front();
        }
        // Without room for DISCONNECT, `closing` stays set and the next call tries again.
        if self.closing && wire.publisher.leave() {
            self.closing = false;
        }
    }
}

impl Wire {
    fn send(&mut self, message: &Message, counters: &mut LinkCounters) -> SendOutcome {
        match message {
            Message::Verdict { device, bytes } => self.send_verdict(device, bytes, counters),
            Message::Reply { device, bytes, correlation } => {
                let reply = Outgoing::new(Topic::Reply(device.clone()), bytes.clone());
                self.publisher.send(&Outgoing { correlation: correlation.clone(), ..reply })
            }
            Message::Presence { verifier, bytes } => {
                let topic = Topic::VerifierPresence(verifier.clone());
                self.publisher.send(&Outgoing::new(topic, bytes.clone()))
            }
        }
    }

    fn send_verdict(&mut self, device: &DeviceId, bytes: &[u8], counters: &mut LinkCounters) -> SendOutcome {
        let form = self.aliases.form(device);
        let alias = match form {
            Form::Full => Alias::None,
            Form::Bind(alias) => Alias::Bind(alias),
            Form::Alias(alias) => Alias::Only(alias),
        };
        let verdict = Outgoing::new(Topic::Verdicts(device.clone()), bytes.to_vec());
        let taken = self.publisher.send(&Outgoing { alias, ..verdict });
        if taken == SendOutcome::Yes {
            self.aliases.sent(device, form);
            counters.aliased += u64::from(matches!(form, Form::Alias(_)));
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_link::BrokerFacts;
    use dunlin_link::raw::{UNCONNECTED_ROOM, Unconnected, unconnected};

    /// An outbox with a connection that accepts [`UNCONNECTED_ROOM`] messages and sends none.
    fn outbox(packet_bytes_max: Option<u32>) -> (Outbox, Unconnected) {
        let (publisher, held) = unconnected(BrokerFacts { packet_bytes_max, ..BrokerFacts::default() });
        let mut outbox = Outbox::default();
        outbox.open(Wire { publisher, aliases: Aliases::new(0) });
        (outbox, held)
    }

    fn verdict() -> Message {
        Message::Verdict { device: "d1".parse().unwrap(), bytes: vec![0; 8] }
    }

    #[test]
    fn beyond_its_bound_the_oldest_is_dropped_and_counted() {
        let (mut outbox, _held) = outbox(None);
        for _ in 0..UNCONNECTED_ROOM + OUTBOX_MAX + 3 {
            outbox.push(verdict());
        }
        assert_eq!(outbox.waiting.len(), OUTBOX_MAX);
        assert_eq!((outbox.counters.published, outbox.counters.dropped), (UNCONNECTED_ROOM as u64, 3));
    }

    #[test]
    fn what_the_broker_would_not_take_is_not_sent() {
        let (mut outbox, _held) = outbox(Some(20));
        outbox.push(verdict());
        assert_eq!((outbox.counters.oversize, outbox.counters.published), (1, 0));
        assert!(outbox.waiting.is_empty());
    }

    #[test]
    fn a_lost_connection_takes_its_messages_along() {
        let (mut outbox, _held) = outbox(None);
        for _ in 0..UNCONNECTED_ROOM + 5 {
            outbox.push(verdict());
        }
        outbox.lose();
        outbox.push(verdict());
        assert!(!outbox.is_open() && outbox.waiting.is_empty());
        assert_eq!(outbox.counters.dropped, 6);
    }
}
