//! One message that stays with the broker, over a connection of its own.

use super::connection::{Loss, loss, options, refused_publish};
use super::{LinkConfig, Topic};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event};

/// Requests that are queued: the message, and the goodbye behind it.
const REQUESTS_MAX: usize = 2;

/// Leaves `bytes` on `topic`; without bytes, takes back what was left there. Nobody is announced.
///
/// # Errors
/// The broker wasn't reached, or did not take it.
pub async fn retain(config: &LinkConfig, topic: &Topic, bytes: &[u8]) -> Result<(), Loss> {
    let (client, mut events) = AsyncClient::new(options(config, 0), REQUESTS_MAX);
    let name = topic.name().as_str().to_owned();
    let lost = |reason: String, refused| Loss { reason, refused };
    client
        .try_publish(name.clone(), QoS::AtLeastOnce, true, bytes.to_vec())
        .map_err(|error| lost(format!("{name}: {error}"), false))?;
    let mut taken = false;
    loop {
        match events.poll().await {
            Ok(Event::Incoming(packet)) => {
                if let Some(reason) = refused_publish(&packet) {
                    return Err(lost(format!("{} takes nothing on {name}: {reason:?}", config.broker), true));
                }
                if matches!(packet, Packet::PubAck(_)) {
                    taken = true;
                    // Without a goodbye the connection ends all the same, with the client.
                    let _ = client.try_disconnect();
                }
            }
            Ok(Event::Outgoing(_)) => {}
            // The broker hangs up after the goodbye.
            Err(_) if taken => return Ok(()),
            Err(error) => return Err(loss(config, &error)),
        }
    }
}
