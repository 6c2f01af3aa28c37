//! The properties of a broker.

use rumqttc::v5::mqttbytes::v5::ConnAck;

/// The properties that a broker reports when it accepts a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerFacts {
    /// Bytes of a packet it takes, where it has a limit.
    pub packet_bytes_max: Option<u32>,
    /// Topic aliases it allows.
    pub alias_max: u16,
}

impl BrokerFacts {
    pub(crate) fn of(ack: &ConnAck) -> Self {
        let properties = ack.properties.as_ref();
        Self {
            packet_bytes_max: properties.and_then(|p| p.max_packet_size),
            alias_max: properties.and_then(|p| p.topic_alias_max).unwrap_or(0),
        }
    }
}
