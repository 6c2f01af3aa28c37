//! Bytes of MQTT packets as they are on the wire, below which only TCP and TLS add their own.
//!
//! Counted as traffic of the protocol: every PUBLISH, with fixed header, topic or alias, properties and
//! payload, in both directions, presence included. Counted apart as control: CONNECT, CONNACK, SUBSCRIBE,
//! SUBACK, PUBACK, PINGREQ, PINGRESP, DISCONNECT.

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAck, PubAckReason, Publish};

/// Bytes of a PINGREQ, a PINGRESP and a DISCONNECT without a reason.
pub const BARE_BYTES: u64 = 2;
/// Bytes of a PUBACK without a reason.
pub const PUBACK_BYTES: u64 = 4;
/// Bytes of a PUBACK with a reason and no properties, whose length brokers leave out.
const PUBACK_REASON_BYTES: u64 = 5;

/// Bytes of MQTT packets, counted since the link was made.
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
    /// What was counted after `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            publish_up: self.publish_up - earlier.publish_up,
            publish_down: self.publish_down - earlier.publish_down,
            control_up: self.control_up - earlier.control_up,
            control_down: self.control_down - earlier.control_down,
        }
    }

    /// Counts a received packet.
    pub(crate) fn received(&mut self, packet: &Packet) {
        match packet {
            Packet::Publish(publish) => self.publish_down += publish_bytes(publish),
            other => self.control_down += control_bytes(other),
        }
    }
}

/// Bytes of a PUBLISH on the wire; one that still waits for its packet id is counted with it.
pub fn publish_bytes(publish: &Publish) -> u64 {
    if publish.qos == QoS::AtMostOnce || publish.pkid != 0 {
        return publish.size() as u64;
    }
    Publish { pkid: 1, ..publish.clone() }.size() as u64
}

/// Bytes of any other packet on the wire.
pub(crate) fn control_bytes(packet: &Packet) -> u64 {
    match packet {
        Packet::PingReq(_) | Packet::PingResp(_) => BARE_BYTES,
        Packet::PubAck(PubAck { reason, properties: None, .. }) if *reason != PubAckReason::Success => {
            PUBACK_REASON_BYTES
        }
        packet => packet.size() as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rumqttc::v5::mqttbytes::v5::PublishProperties;

    fn publish(topic: &str, qos: QoS, payload: usize, properties: Option<PublishProperties>) -> u64 {
        publish_bytes(&Publish::new(topic, qos, vec![0; payload], properties))
    }

    #[test]
    fn a_frame_by_topic() {
        // header 1, length 1, topic 2 + 17, no properties 1, payload 31
        assert_eq!(publish("dl1/d/pi-7/u/f/v1", QoS::AtMostOnce, 31, None), 53);
    }

    #[test]
    fn a_frame_by_alias() {
        let alias = || Some(PublishProperties { topic_alias: Some(1), ..PublishProperties::default() });
        // header 1, length 1, topic 2 + 0, properties 1 + 3, payload 31
        assert_eq!(publish("", QoS::AtMostOnce, 31, alias()), 39);
        assert_eq!(publish("dl1/d/pi-7/u/f/v1", QoS::AtMostOnce, 31, alias()), 56);
    }

    #[test]
    fn an_open_has_a_packet_id_and_properties() {
        let properties = PublishProperties {
            message_expiry_interval: Some(5),
            response_topic: Some("dl1/d/pi-7/n/op".into()),
            correlation_data: Some(vec![0; 4].into()),
            ..PublishProperties::default()
        };
        // header 1, length 1, topic 2 + 15, id 2, properties 1 + 5 + (3 + 15) + (3 + 4), payload 40
        assert_eq!(publish("dl1/d/pi-7/u/op", QoS::AtLeastOnce, 40, Some(properties)), 92);
    }

    #[test]
    fn the_length_takes_a_second_byte_at_128() {
        assert_eq!(publish("t", QoS::AtMostOnce, 123, None), 129);
        assert_eq!(publish("t", QoS::AtMostOnce, 124, None), 131);
        assert_eq!(publish("t", QoS::AtLeastOnce, 121, None), 129);
        assert_eq!(publish("t", QoS::AtLeastOnce, 122, None), 131);
    }
}
