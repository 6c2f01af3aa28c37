//! Connects once to learn a broker's properties.

use crate::connection::{Arrival, Ended, connect};
use crate::loss::Loss;
use crate::options::ConnectOptions;
use rumqttc::v5::mqttbytes::v5::ConnAck;

/// The properties that a broker reports when it accepts a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerFacts {
    /// Maximum packet size in bytes, if there is a limit.
    pub packet_bytes_max: Option<u32>,
    /// Maximum number of topic aliases.
    pub alias_max: u16,
    /// True if it supports shared subscriptions.
    pub shares: bool,
}

impl BrokerFacts {
    pub(crate) fn of(ack: &ConnAck) -> Self {
        let properties = ack.properties.as_ref();
        Self {
            packet_bytes_max: properties.and_then(|p| p.max_packet_size),
            alias_max: properties.and_then(|p| p.topic_alias_max).unwrap_or(0),
            shares: properties.and_then(|p| p.shared_subscription_available) != Some(0),
        }
    }
}

/// Connects once, publishes nothing, and disconnects.
///
/// # Errors
/// The reason why there is no connection.
pub async fn probe(options: &ConnectOptions) -> Result<BrokerFacts, Loss> {
    let mut arrivals = connect(options, None);
    loop {
        match arrivals.next().await {
            Ok(arrived) => {
                if let Arrival::Accepted(publisher) = arrived.arrival {
                    return Ok(publisher.broker().clone());
                }
            }
            Err(Ended::Lost(loss)) => return Err(loss),
            Err(Ended::Left) => return Err(Loss::passing(format!("{} hung up", options.broker))),
        }
    }
}
