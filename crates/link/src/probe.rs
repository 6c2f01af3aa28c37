//! Connects once to learn a broker's properties, or whether its access list lets this program in.

use crate::connection::{Arrival, Arrivals, ConnectionEnd, CountedArrival, connect};
use crate::facts::BrokerFacts;
use crate::loss::Loss;
use crate::options::ConnectOptions;
use crate::publisher::Outgoing;
use dunlin_wire::topic::Topic;
use std::time::Duration;
use tokio::time::timeout;

/// Time limit for a message to come back.
const BACK_WITHIN: Duration = Duration::from_secs(3);
/// The message that is to come back.
const PROBE: &[u8] = b"probe";

/// Connects once, publishes nothing, and disconnects.
///
/// # Errors
/// The reason why there is no connection.
pub async fn probe(options: &ConnectOptions) -> Result<BrokerFacts, Loss> {
    let mut arrivals = connect(options, None);
    loop {
        if let Arrival::Accepted(publisher) = next(&mut arrivals, options).await?.arrival {
            return Ok(publisher.broker().clone());
        }
    }
}

/// Publishes on a topic that only this program may use, and waits until the message comes back.
///
/// # Errors
/// The reason why it did not, in words.
pub async fn round_trip(options: &ConnectOptions, topic: &Topic) -> Result<(), String> {
    let name = topic.name();
    let advice = || {
        let user = options.user();
        format!(
            "the access list of {} may be older, or lack this name ({user}): see docs/access.md",
            options.broker
        )
    };
    match timeout(BACK_WITHIN, passed(options, topic)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(why)) => Err(format!("no message passes on {name}: {why}; {}", advice())),
        Err(_) => Err(format!("a message on {name} did not come back in {BACK_WITHIN:?}; {}", advice())),
    }
}

async fn passed(options: &ConnectOptions, topic: &Topic) -> Result<(), String> {
    let mut arrivals = connect(options, None);
    let mut accepted = None;
    loop {
        match next(&mut arrivals, options).await.map_err(|loss| loss.reason)?.arrival {
            Arrival::Accepted(publisher) => {
                publisher.subscribe([topic.name().as_str()]);
                accepted = Some(publisher);
            }
            Arrival::Subscribed(refused) => match (refused.first(), &accepted) {
                (Some((_, why)), _) => return Err(format!("the broker refuses to deliver it ({why})")),
                (None, Some(publisher)) => {
                    publisher.send(&Outgoing::new(topic.clone(), PROBE.to_vec()));
                }
                (None, None) => {}
            },
            Arrival::NotTaken(why) => return Err(format!("the broker refuses it ({why})")),
            Arrival::Message(message) if message.topic == *topic && message.payload == PROBE => return Ok(()),
            _ => {}
        }
    }
}

async fn next(arrivals: &mut Arrivals, options: &ConnectOptions) -> Result<CountedArrival, Loss> {
    arrivals.next().await.map_err(|end| match end {
        ConnectionEnd::Lost(loss) => loss,
        ConnectionEnd::Left => Loss::passing(format!("{} hung up", options.broker)),
    })
}
