//! Connects once to learn a broker's properties.

use crate::connection::{Arrival, ConnectionEnd, connect};
use crate::facts::BrokerFacts;
use crate::loss::Loss;
use crate::options::ConnectOptions;

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
            Err(ConnectionEnd::Lost(loss)) => return Err(loss),
            Err(ConnectionEnd::Left) => return Err(Loss::passing(format!("{} hung up", options.broker))),
        }
    }
}
