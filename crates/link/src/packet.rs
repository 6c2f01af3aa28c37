//! Sizes of MQTT packets in bytes, without the bytes of TCP and TLS.
//!
//! PUBLISH packets count as traffic of the protocol, in both directions and presence included: fixed header, topic or
//! alias, properties and payload. CONNECT, CONNACK, SUBSCRIBE, SUBACK, PUBACK, PINGREQ, PINGRESP and DISCONNECT are
//! counted separately as control traffic.

use dunlin_wire::topic::{Qos, Topic};
use rumqttc::v5::MqttOptions;
use rumqttc::v5::mqttbytes::v5::{Connect, Packet, PubAck, PubAckReason};

/// Bytes of correlation data in a lease request; the answer repeats it.
pub const CORRELATION_BYTES: usize = size_of::<u32>();

/// Bytes of a PINGREQ, a PINGRESP and a DISCONNECT without a reason.
pub(crate) const BARE_BYTES: u64 = 2;
/// Bytes of a PUBACK without a reason.
pub(crate) const PUBACK_BYTES: u64 = 4;
/// Bytes of a PUBACK with a reason and without properties, for which brokers omit the property length.
const PUBACK_REASON_BYTES: u64 = 5;

/// Bytes of MQTT packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// PUBLISH packets sent.
    pub publish_up: u64,
    /// PUBLISH packets received.
    pub publish_down: u64,
    /// Other packets sent.
    pub control_up: u64,
    /// Other packets received.
    pub control_down: u64,
}

impl Traffic {
    /// Bytes counted after `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            publish_up: self.publish_up - earlier.publish_up,
            publish_down: self.publish_down - earlier.publish_down,
            control_up: self.control_up - earlier.control_up,
            control_down: self.control_down - earlier.control_down,
        }
    }

    /// Adds other counts.
    pub fn add(&mut self, other: &Self) {
        self.publish_up += other.publish_up;
        self.publish_down += other.publish_down;
        self.control_up += other.control_up;
        self.control_down += other.control_down;
    }
}

/// The parts of a PUBLISH that decide its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishShape {
    topic_bytes: usize,
    has_packet_id: bool,
    properties_bytes: usize,
    payload_bytes: usize,
}

impl PublishShape {
    /// A message with `payload_bytes` on `topic`, with the topic's expiry and no other property.
    pub fn new(topic: &Topic, payload_bytes: usize) -> Self {
        let delivery = topic.delivery();
        Self {
            topic_bytes: topic.name().len(),
            has_packet_id: delivery.qos == Qos::AtLeastOnce,
            properties_bytes: delivery.expiry_seconds.map_or(0, |seconds| 1 + size_of_val(&seconds)),
            payload_bytes,
        }
    }

    /// Adds an alias beside the topic.
    #[must_use]
    pub fn binding_alias(self) -> Self {
        self.property(size_of::<u16>())
    }

    /// Replaces the topic by an alias.
    #[must_use]
    pub fn by_alias(self) -> Self {
        Self { topic_bytes: 0, ..self }.binding_alias()
    }

    /// Adds a response topic.
    #[must_use]
    pub fn answered_on(self, topic: &Topic) -> Self {
        self.property(2 + topic.name().len())
    }

    /// Adds this many bytes of correlation data.
    #[must_use]
    pub fn correlated(self, bytes: usize) -> Self {
        self.property(2 + bytes)
    }

    /// Adds a property with its key and `bytes`.
    fn property(self, bytes: usize) -> Self {
        Self { properties_bytes: self.properties_bytes + 1 + bytes, ..self }
    }

    /// Bytes of the PUBLISH.
    pub fn bytes(&self) -> usize {
        let id = if self.has_packet_id { 2 } else { 0 };
        let properties = length_bytes(self.properties_bytes) + self.properties_bytes;
        let rest = 2 + self.topic_bytes + id + properties + self.payload_bytes;
        1 + length_bytes(rest) + rest
    }
}

/// Bytes of a variable-length integer, which has seven bits per byte.
fn length_bytes(length: usize) -> usize {
    match length {
        0..128 => 1,
        128..16_384 => 2,
        16_384..2_097_152 => 3,
        _ => 4,
    }
}

/// Bytes of any packet except PUBLISH.
pub(crate) fn control_bytes(packet: &Packet) -> u64 {
    match packet {
        Packet::PingReq(_) | Packet::PingResp(_) => BARE_BYTES,
        Packet::PubAck(PubAck { reason, properties: None, .. }) if *reason != PubAckReason::Success => {
            PUBACK_REASON_BYTES
        }
        packet => packet.size() as u64,
    }
}

/// Bytes of the CONNECT that a client with `options` sends.
pub(crate) fn connect_bytes(options: &MqttOptions) -> u64 {
    let connect = Connect {
        keep_alive: options.keep_alive().as_secs() as u16,
        client_id: options.client_id(),
        clean_start: options.clean_start(),
        properties: options.connect_properties(),
    };
    control_bytes(&Packet::Connect(connect, options.last_will(), options.credentials()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publisher::{Alias, Outgoing};
    use proptest::prelude::*;

    fn device() -> dunlin_wire::DeviceId {
        "pi-7".parse().unwrap()
    }

    fn frames() -> Topic {
        Topic::Frames(device(), "v1".parse().unwrap())
    }

    fn open() -> Topic {
        Topic::Open(device(), "v1".parse().unwrap())
    }

    #[test]
    fn a_frame_by_topic() {
        // header 1, length 1, topic 2 + 17, no properties 1, payload 31
        assert_eq!(PublishShape::new(&frames(), 31).bytes(), 53);
    }

    #[test]
    fn a_frame_by_alias() {
        // header 1, length 1, topic 2 + 0, properties 1 + 3, payload 31
        assert_eq!(PublishShape::new(&frames(), 31).by_alias().bytes(), 39);
        assert_eq!(PublishShape::new(&frames(), 31).binding_alias().bytes(), 56);
    }

    #[test]
    fn a_request_for_a_lease_has_a_packet_id_and_properties() {
        let open = PublishShape::new(&open(), 40);
        let open = open.answered_on(&Topic::Reply(device())).correlated(CORRELATION_BYTES);
        // header 1, length 1, topic 2 + 18, id 2, properties 1 + 5 + (3 + 15) + (3 + 4), payload 40
        assert_eq!(open.bytes(), 95);
    }

    #[test]
    fn a_length_takes_another_byte_at_128_16384_and_2097152() {
        let bytes = |payload| PublishShape::new(&frames(), payload).by_alias().bytes();
        for (payload, packet) in [(121, 129), (122, 131), (16_377, 16_386), (16_378, 16_388)] {
            assert_eq!(bytes(payload), packet, "{payload}");
        }
        assert_eq!((bytes(2_097_145), bytes(2_097_146)), (2_097_155, 2_097_157));
    }

    #[test]
    fn counts_are_added_and_taken_apart() {
        let one = Traffic { publish_up: 1, publish_down: 2, control_up: 3, control_down: 4 };
        let mut both = one;
        both.add(&Traffic { publish_up: 10, publish_down: 20, control_up: 30, control_down: 40 });
        assert_eq!(both, Traffic { publish_up: 11, publish_down: 22, control_up: 33, control_down: 44 });
        assert_eq!(
            both.since(&one),
            Traffic { publish_up: 10, publish_down: 20, control_up: 30, control_down: 40 }
        );
    }

    proptest! {
        /// The counted size equals the size that the MQTT client sends.
        #[test]
        fn a_size_is_the_clients(
            which in 0..4u8,
            payload in 0..3000usize,
            alias in prop_oneof![Just(Alias::None), Just(Alias::Bind(1)), Just(Alias::Only(1))],
            correlation in proptest::option::of(0..300usize),
            answered in any::<bool>(),
        ) {
            let topic = match which {
                0 => open(),
                1 => frames(),
                2 => Topic::Energy(device(), "v1".parse().unwrap()),
                _ => Topic::DevicePresence(device()),
            };
            let message = Outgoing {
                alias,
                response_topic: answered.then(|| Topic::Reply(device())),
                correlation: correlation.map(|bytes| vec![0; bytes]),
                ..Outgoing::new(topic, vec![0; payload])
            };
            let mut publish = message.publish();
            publish.pkid = u16::from(publish.qos != rumqttc::v5::mqttbytes::QoS::AtMostOnce);
            prop_assert_eq!(message.shape().bytes(), publish.size());
        }
    }
}
