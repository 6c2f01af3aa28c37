//! Sending on one connection.

use crate::facts::BrokerFacts;
use crate::packet::{PublishShape, control_bytes};
use dunlin_wire::topic::{Qos, Topic, filter_delivery};
use rumqttc::v5::AsyncClient;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    Filter, Packet, Publish, PublishProperties, RetainForwardRule, Subscribe, Unsubscribe,
};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A topic alias of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Alias {
    /// No alias.
    #[default]
    None,
    /// The alias, which is bound to the topic from now on.
    Bind(u16),
    /// The alias instead of the topic.
    Only(u16),
}

/// A message to publish; its topic defines QoS, retention and expiry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The topic.
    pub topic: Topic,
    /// The message.
    pub payload: Vec<u8>,
    /// The alias of the topic.
    pub alias: Alias,
    /// The topic on which an answer is expected.
    pub response_topic: Option<Topic>,
    /// Correlation data of a request or of its answer.
    pub correlation: Option<Vec<u8>>,
}

impl Outgoing {
    /// A message without alias, response topic and correlation data.
    pub fn new(topic: Topic, payload: Vec<u8>) -> Self {
        Self { topic, payload, alias: Alias::None, response_topic: None, correlation: None }
    }

    /// The parts that determine its size.
    pub fn shape(&self) -> PublishShape {
        let shape = PublishShape::new(&self.topic, self.payload.len());
        let shape = match self.alias {
            Alias::None => shape,
            Alias::Bind(_) => shape.binding_alias(),
            Alias::Only(_) => shape.by_alias(),
        };
        let shape = self.response_topic.as_ref().map_or(shape, |topic| shape.answered_on(topic));
        self.correlation.as_ref().map_or(shape, |data| shape.correlated(data.len()))
    }

    /// The message in the MQTT client's form.
    pub(crate) fn publish(&self) -> Publish {
        let delivery = self.topic.delivery();
        let (name, topic_alias) = match self.alias {
            Alias::None => (self.topic.name(), None),
            Alias::Bind(alias) => (self.topic.name(), Some(alias)),
            Alias::Only(alias) => (Default::default(), Some(alias)),
        };
        let properties = PublishProperties {
            topic_alias,
            message_expiry_interval: delivery.expiry_seconds,
            response_topic: self.response_topic.as_ref().map(|topic| topic.name().as_str().into()),
            correlation_data: self.correlation.clone().map(Into::into),
            ..PublishProperties::default()
        };
        let has_any = properties != PublishProperties::default();
        let qos = client_qos(delivery.qos);
        let publish = Publish::new(name.as_str(), qos, self.payload.clone(), has_any.then_some(properties));
        Publish { retain: delivery.retain, ..publish }
    }
}

/// The result of sending a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// Accepted; sent unless the connection is lost first.
    Yes,
    /// There is no room now.
    NoRoom,
    /// The message exceeds the broker's packet limit and can never be sent.
    TooLarge,
}

/// The sending side of one connection; no call waits.
#[derive(Clone)]
pub struct Publisher {
    client: AsyncClient,
    unsent: Unsent,
    broker: BrokerFacts,
}

impl Publisher {
    pub(crate) fn new(client: AsyncClient, unsent: Unsent, broker: BrokerFacts) -> Self {
        Self { client, unsent, broker }
    }

    /// The properties of the broker.
    pub fn broker(&self) -> &BrokerFacts {
        &self.broker
    }

    /// Subscribes to filters of the protocol, each with the QoS of its topics; returns false if there is no room.
    ///
    /// Only topics with retained messages deliver those.
    pub fn subscribe<'a>(&self, filters: impl IntoIterator<Item = &'a str>) -> bool {
        let filters = filters.into_iter().map(|filter| {
            let delivery = filter_delivery(filter).expect("a filter of the protocol");
            let mut wanted = Filter::new(filter, client_qos(delivery.qos));
            if !delivery.retain {
                wanted.retain_forward_rule = RetainForwardRule::Never;
            }
            wanted
        });
        let subscribe = Subscribe::new_many(filters, None);
        let bytes = control_bytes(&Packet::Subscribe(subscribe.clone()));
        let mut unsent = self.unsent.lock();
        let paths = subscribe.filters.iter().map(|filter| filter.path.clone()).collect();
        let taken = self.client.try_subscribe_many(subscribe.filters).is_ok();
        if taken {
            unsent.filters.push_back(paths);
            unsent.control_bytes += bytes;
        }
        taken
    }

    /// Ends the subscription to a filter; returns false if there is no room.
    pub fn unsubscribe(&self, filter: &str) -> bool {
        let bytes = control_bytes(&Packet::Unsubscribe(Unsubscribe::new(filter, None)));
        let mut unsent = self.unsent.lock();
        let taken = self.client.try_unsubscribe(filter).is_ok();
        if taken {
            unsent.control_bytes += bytes;
        }
        taken
    }

    /// Sends a message.
    pub fn send(&self, message: &Outgoing) -> SendOutcome {
        let bytes = message.shape().bytes();
        if self.broker.packet_bytes_max.is_some_and(|max| bytes > max as usize) {
            return SendOutcome::TooLarge;
        }
        let Publish { topic, qos, retain, payload, properties, .. } = message.publish();
        let topic = String::from_utf8_lossy(&topic).into_owned();
        // Hold the lock until the size is recorded: the connection's task reads it as soon as the packet is sent.
        let mut unsent = self.unsent.lock();
        let sent = match properties {
            Some(properties) => {
                self.client.try_publish_with_properties(topic, qos, retain, payload, properties)
            }
            None => self.client.try_publish(topic, qos, retain, payload),
        };
        if sent.is_err() {
            return SendOutcome::NoRoom;
        }
        unsent.publish_bytes.push_back(bytes as u64);
        SendOutcome::Yes
    }

    /// True if an accepted message is not yet sent.
    pub fn has_unsent(&self) -> bool {
        !self.unsent.lock().publish_bytes.is_empty()
    }

    /// Disconnects after everything accepted so far; returns false if there is no room. The broker then closes.
    pub fn leave(&self) -> bool {
        self.client.try_disconnect().is_ok()
    }
}

/// The messages that the MQTT client holds; shared by both sides of a connection.
#[derive(Clone, Default)]
pub(crate) struct Unsent(Arc<Mutex<UnsentMessages>>);

/// See [`Unsent`]; bounded by the client's channel.
#[derive(Default)]
pub(crate) struct UnsentMessages {
    /// Sizes of the publishes, oldest first.
    pub(crate) publish_bytes: VecDeque<u64>,
    /// Bytes of other packets for which the client reports no event.
    pub(crate) control_bytes: u64,
    /// The filters of each SUBSCRIBE that was not answered yet, oldest first.
    pub(crate) filters: VecDeque<Vec<String>>,
}

impl Unsent {
    pub(crate) fn lock(&self) -> MutexGuard<'_, UnsentMessages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The MQTT client's name for a QoS.
pub(crate) fn client_qos(qos: Qos) -> QoS {
    match qos {
        Qos::AtMostOnce => QoS::AtMostOnce,
        Qos::AtLeastOnce => QoS::AtLeastOnce,
    }
}
