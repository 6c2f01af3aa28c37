//! Publishes or removes one retained message, over a connection of its own.

use crate::connection::{Arrival, ConnectionEnd, connect};
use crate::loss::Loss;
use crate::options::ConnectOptions;
use crate::publisher::{Outgoing, SendOutcome};

/// Publishes a message on a topic whose messages are retained and use QoS 1; an empty payload removes the retained
/// one. No presence is announced.
///
/// # Errors
/// The broker can't be reached or rejects the message.
pub async fn retain(options: &ConnectOptions, message: &Outgoing) -> Result<(), Loss> {
    let mut arrivals = connect(options, None);
    let (mut connection, mut taken) = (None, false);
    let name = message.topic.name();
    loop {
        match arrivals.next().await.map(|arrived| arrived.arrival) {
            Ok(Arrival::Accepted(publisher)) => match publisher.send(message) {
                SendOutcome::Yes => connection = Some(publisher),
                SendOutcome::NoRoom => return Err(Loss::passing(format!("no room for a message on {name}"))),
                SendOutcome::TooLarge => {
                    let reason = format!("the message on {name} is more than {} takes", options.broker);
                    return Err(Loss { reason, refused: true });
                }
            },
            Ok(Arrival::Acknowledged) => {
                taken = true;
                // Ignore the result: without room for DISCONNECT, the connection ends when the client is dropped.
                connection.as_ref().map(|publisher| publisher.leave());
            }
            Ok(Arrival::NotTaken(why)) => {
                let reason = format!("{} takes nothing on {name}: {why}", options.broker);
                return Err(Loss { reason, refused: true });
            }
            Ok(_) => {}
            // The message was acknowledged, so the end of the connection is expected.
            Err(_) if taken => return Ok(()),
            Err(ConnectionEnd::Lost(loss)) => return Err(loss),
            Err(ConnectionEnd::Left) => return Err(Loss::passing(format!("{} hung up", options.broker))),
        }
    }
}
