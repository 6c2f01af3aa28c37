//! One message that stays with the broker, over a connection of its own.

use crate::connection::{Arrival, Ended, connect};
use crate::loss::Loss;
use crate::options::ConnectOptions;
use crate::publisher::{Outgoing, Taken};

/// Leaves a message with the broker, on a topic whose messages are retained and acknowledged; without a payload, removes
/// the one that is there. Nobody is announced.
///
/// # Errors
/// The broker wasn't reached, or did not take it.
pub async fn retain(options: &ConnectOptions, message: &Outgoing) -> Result<(), Loss> {
    let mut arrivals = connect(options, None);
    let (mut connection, mut taken) = (None, false);
    let name = message.topic.name();
    loop {
        match arrivals.next().await.map(|arrived| arrived.arrival) {
            Ok(Arrival::Accepted(publisher)) => match publisher.send(message) {
                Taken::Yes => connection = Some(publisher),
                Taken::NoRoom => return Err(Loss::passing(format!("no room for a message on {name}"))),
                Taken::TooLarge => {
                    let reason = format!("the message on {name} is more than {} takes", options.broker);
                    return Err(Loss { reason, refused: true });
                }
            },
            Ok(Arrival::Acknowledged) => {
                taken = true;
                // Without a goodbye the connection ends all the same, with the client.
                connection.as_ref().map(|publisher| publisher.leave());
            }
            Ok(Arrival::NotTaken(why)) => {
                let reason = format!("{} takes nothing on {name}: {why}", options.broker);
                return Err(Loss { reason, refused: true });
            }
            Ok(_) => {}
            // The broker hangs up after the goodbye.
            Err(_) if taken => return Ok(()),
            Err(Ended::Lost(loss)) => return Err(loss),
            Err(Ended::Left) => return Err(Loss::passing(format!("{} hung up", options.broker))),
        }
    }
}
