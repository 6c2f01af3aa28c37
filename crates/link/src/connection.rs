//! One connection to the broker, from CONNECT to its end.

use crate::facts::BrokerFacts;
use crate::loss::Loss;
use crate::options::{ConnectOptions, Will};
use crate::packet::{BARE_BYTES, PUBACK_BYTES, Traffic, connect_bytes, control_bytes};
use crate::publisher::{Publisher, Unsent};
use dunlin_wire::limits::PACKET_BYTES_MAX;
use dunlin_wire::topic::Topic;
use rumqttc::Outgoing as Sent;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason, Publish, SubAck, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Requests that the MQTT client queues. Few, because queued requests are lost with the connection.
pub(crate) const REQUESTS_MAX: usize = 8;

/// A message of the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its topic.
    pub topic: Topic,
    /// Its bytes, not decoded and possibly invalid.
    pub payload: Vec<u8>,
    /// The topic on which the sender expects the answer.
    pub response_topic: Option<String>,
    /// Correlation data that the answer must repeat.
    pub correlation: Option<Vec<u8>>,
}

/// An event on a connection.
pub enum Arrival {
    /// The broker accepted the connection.
    Accepted(Publisher),
    /// The oldest unanswered subscription was answered: its refused filters, each with the reason.
    Subscribed(Vec<(String, String)>),
    /// A message on a topic of the protocol.
    Message(Message),
    /// A message on a topic outside the protocol was dropped.
    Foreign,
    /// A message that exceeds the protocol's packet limit was dropped; its size in bytes.
    TooLarge(u64),
    /// The oldest accepted message was written to the socket.
    Sent,
    /// The broker acknowledged a QoS 1 message.
    Acknowledged,
    /// The broker rejected a QoS 1 message, for this reason.
    NotTaken(String),
    /// A packet that only counts as traffic.
    Other,
}

/// An event, with the bytes sent and received since the previous event.
pub struct CountedArrival {
    /// The event.
    pub arrival: Arrival,
    /// Bytes since the previous event.
    pub traffic: Traffic,
}

/// The end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// Closed after the goodbye.
    Left,
    /// Lost, for this reason.
    Lost(Loss),
}

/// The receiving side of one connection.
pub struct Arrivals {
    options: ConnectOptions,
    events: EventLoop,
    client: AsyncClient,
    unsent: Unsent,
    connect_bytes: u64,
    leaving: bool,
    accepted: Arc<AtomicBool>,
    ready: VecDeque<CountedArrival>,
    ended: Option<ConnectionEnd>,
}

/// Prepares a connection; [`Arrivals::next`] opens it.
pub(crate) fn connect(options: &ConnectOptions, will: Option<Will>) -> Arrivals {
    let (client_options, ended) = match options.client(will) {
        Ok(client_options) => (client_options, None),
        // The event loop below is never polled.
        Err(error) => (unused(), Some(ConnectionEnd::Lost(Loss::unready(options, &error)))),
    };
    let connect_bytes = connect_bytes(&client_options);
    let (client, events) = AsyncClient::new(client_options, REQUESTS_MAX);
    Arrivals {
        options: options.clone(),
        events,
        client,
        unsent: Unsent::default(),
        connect_bytes,
        leaving: false,
        accepted: Arc::default(),
        ready: VecDeque::new(),
        ended,
    }
}

/// The options of a client that never connects.
fn unused() -> MqttOptions {
    MqttOptions::new("unused", "localhost", 0)
}

impl Arrivals {
    /// A flag that is true once the broker has accepted the connection, and stays true after its end.
    pub(crate) fn accepted(&self) -> Arc<AtomicBool> {
        self.accepted.clone()
    }

    /// The next event. Await it in a task of its own and never drop the future: the MQTT client's `poll` is not known
    /// to be safe to cancel.
    ///
    /// # Errors
    /// The reason why the connection ended; every later call returns the same.
    pub async fn next(&mut self) -> Result<CountedArrival, ConnectionEnd> {
        loop {
            if let Some(arrived) = self.ready.pop_front() {
                return Ok(arrived);
            }
            if let Some(ended) = &self.ended {
                return Err(ended.clone());
            }
            match self.events.poll().await {
                Ok(event) => self.take(event),
                Err(error) => {
                    // Events that were read together with the end of the connection are still queued; deliver them
                    // first.
                    let rest: Vec<_> = self.events.state.events.drain(..).collect();
                    rest.into_iter().for_each(|event| self.take(event));
                    self.ended = Some(self.end(&error));
                }
            }
        }
    }

    fn end(&self, error: &ConnectionError) -> ConnectionEnd {
        // After a DISCONNECT, `next` polls until the broker closes the connection. Closing first, with an
        // acknowledgement unread in the socket, would reset the connection, and the broker could lose the DISCONNECT.
        if self.leaving {
            ConnectionEnd::Left
        } else {
            ConnectionEnd::Lost(Loss::explained(&self.options, error, self.accepted.load(Ordering::Relaxed)))
        }
    }

    fn take(&mut self, event: Event) {
        let mut traffic = Traffic { control_up: self.control_up(), ..Traffic::default() };
        let arrival = match event {
            Event::Incoming(Packet::Publish(publish)) => {
                traffic.publish_down = publish.size() as u64;
                received(publish)
            }
            Event::Incoming(packet) => {
                traffic.control_down = control_bytes(&packet);
                self.control(&packet, &mut traffic)
            }
            Event::Outgoing(Sent::Publish(_)) => {
                traffic.publish_up = self.unsent.lock().publish_bytes.pop_front().unwrap_or(0);
                Arrival::Sent
            }
            Event::Outgoing(Sent::PubAck(_)) => {
                traffic.control_up += PUBACK_BYTES;
                Arrival::Other
            }
            Event::Outgoing(sent) => {
                self.leaving |= sent == Sent::Disconnect;
                if matches!(sent, Sent::PingReq | Sent::Disconnect) {
                    traffic.control_up += BARE_BYTES;
                }
                Arrival::Other
            }
        };
        self.ready.push_back(CountedArrival { arrival, traffic });
    }

    /// Bytes of sent packets for which the client reports no event.
    fn control_up(&self) -> u64 {
        std::mem::take(&mut self.unsent.lock().control_bytes)
    }

    fn control(&self, packet: &Packet, traffic: &mut Traffic) -> Arrival {
        match packet {
            Packet::ConnAck(ack) => {
                self.accepted.store(true, Ordering::Relaxed);
                traffic.control_up += self.connect_bytes;
                let facts = BrokerFacts::of(ack);
                Arrival::Accepted(Publisher::new(self.client.clone(), self.unsent.clone(), facts))
            }
            Packet::SubAck(ack) => {
                let asked = self.unsent.lock().filters.pop_front().unwrap_or_default();
                Arrival::Subscribed(refused(&asked, ack))
            }
            Packet::PubAck(ack) => match ack.reason {
                PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Arrival::Acknowledged,
                reason => Arrival::NotTaken(format!("{reason:?}")),
            },
            _ => Arrival::Other,
        }
    }
}

/// The refused filters among `asked`; a missing code counts as a refusal.
fn refused(asked: &[String], ack: &SubAck) -> Vec<(String, String)> {
    let codes = ack.return_codes.iter().map(Some).chain(std::iter::repeat(None));
    let answered = asked.iter().zip(codes);
    let refusals = answered.filter_map(|(filter, code)| match code {
        Some(SubscribeReasonCode::Success(_)) => None,
        Some(code) => Some((filter.clone(), format!("{code:?}"))),
        None => Some((filter.clone(), "no answer".into())),
    });
    refusals.collect()
}

fn received(publish: Publish) -> Arrival {
    let bytes = publish.size() as u64;
    if bytes > u64::from(PACKET_BYTES_MAX) {
        return Arrival::TooLarge(bytes);
    }
    let Some(topic) = std::str::from_utf8(&publish.topic).ok().and_then(Topic::parse) else {
        return Arrival::Foreign;
    };
    let properties = publish.properties.unwrap_or_default();
    Arrival::Message(Message {
        topic,
        payload: publish.payload.to_vec(),
        response_topic: properties.response_topic,
        correlation: properties.correlation_data.map(|data| data.to_vec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use SubscribeReasonCode::{NotAuthorized, Success};
    use rumqttc::v5::mqttbytes::QoS::AtLeastOnce;

    #[test]
    fn each_refused_filter_is_named() {
        let asked = ["a", "b", "c"].map(String::from);
        let answered = |return_codes: &[SubscribeReasonCode]| {
            let ack = SubAck { pkid: 1, return_codes: return_codes.to_vec(), properties: None };
            refused(&asked, &ack)
        };
        let granted = Success(AtLeastOnce);
        assert_eq!(answered(&[granted; 3]), []);
        let middle = answered(&[granted, NotAuthorized, granted]);
        assert_eq!(middle, [("b".into(), "NotAuthorized".into())]);
        assert_eq!(answered(&[granted; 2]), [("c".into(), "no answer".into())]);
    }
}
