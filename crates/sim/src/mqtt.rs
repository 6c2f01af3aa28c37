//! Sizes of the MQTT packets that the protocol's messages travel in.
//!
//! Invariant: sizes alone; what a message means is none of this module's business.

use dunlin_wire::topic::Topic;
use dunlin_wire::{DeviceId, VerifierId};

/// Name of the modelled device: its length is part of every size.
pub const DEVICE: &str = "pi-7";
/// Name of the modelled verifier.
pub const VERIFIER: &str = "verifier-1";

/// Property that names a topic by a number: key and number.
const ALIAS_BYTES: usize = 3;
/// Packet id of a QoS 1 packet.
const PACKET_ID_BYTES: usize = 2;
/// Message expiry: key and seconds.
const EXPIRY_BYTES: usize = 5;
/// Eight bytes of correlation data, their length and the key.
const CORRELATION_BYTES: usize = 11;

/// What a message is, as far as its packet depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// A request for a lease.
    Open,
    /// Committed text for the verifier.
    Context,
    /// Drafts to check.
    Draft,
    /// Anything else on the frame topic.
    Other,
    /// An answer to a request for a lease.
    Reply,
    /// A verdict.
    Verdict,
}

impl MessageKind {
    /// Whether the device sends it.
    pub fn is_up(self) -> bool {
        !matches!(self, Self::Reply | Self::Verdict)
    }
}

/// The packets of one connection: the first frame binds an alias that stands for the topic from then on.
#[derive(Clone, Debug)]
pub struct Packets {
    open: usize,
    reply: usize,
    frames: usize,
    verdicts: usize,
    bound: bool,
}

impl Packets {
    /// A connection of `device` that sends frames to `verifier`.
    pub fn new(device: &DeviceId, verifier: &VerifierId) -> Self {
        let length = |topic: Topic| topic.name().len();
        Self {
            open: length(Topic::Open(device.clone(), verifier.clone())),
            reply: length(Topic::Reply(device.clone())),
            frames: length(Topic::Frames(device.clone(), verifier.clone())),
            verdicts: length(Topic::Verdicts(device.clone())),
            bound: false,
        }
    }

    /// Bytes of the next packet with `payload` bytes in it.
    pub fn bytes(&mut self, kind: MessageKind, payload: usize) -> usize {
        match kind {
            // QoS 1, with an expiry, the topic to answer on and correlation data.
            MessageKind::Open => {
                let properties = EXPIRY_BYTES + 3 + self.reply + CORRELATION_BYTES;
                publish_bytes(self.open, PACKET_ID_BYTES + properties, payload)
            }
            // QoS 1, with the correlation data given back.
            MessageKind::Reply => publish_bytes(self.reply, PACKET_ID_BYTES + CORRELATION_BYTES, payload),
            MessageKind::Verdict => publish_bytes(self.verdicts, 0, payload),
            MessageKind::Context | MessageKind::Draft | MessageKind::Other => {
                let topic = if std::mem::replace(&mut self.bound, true) { 0 } else { self.frames };
                publish_bytes(topic, ALIAS_BYTES, payload)
            }
        }
    }
}

/// Bytes of a QoS 0 PUBLISH: header and length, topic, properties, payload.
fn publish_bytes(topic: usize, properties: usize, payload: usize) -> usize {
    let rest = 2 + topic + 1 + properties + payload;
    1 + length_bytes(rest) + rest
}

/// Bytes of a length that carries seven bits in each byte.
fn length_bytes(length: usize) -> usize {
    match length {
        0..128 => 1,
        128..16_384 => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets() -> Packets {
        Packets::new(&DEVICE.parse().unwrap(), &VERIFIER.parse().unwrap())
    }

    #[test]
    fn the_first_frame_names_its_topic_and_the_next_its_alias() {
        let mut packets = packets();
        // header 1, length 1, topic 2 + 25, properties 1 + 3, payload 31
        assert_eq!(packets.bytes(MessageKind::Context, 31), 64);
        assert_eq!(packets.bytes(MessageKind::Draft, 31), 39);
        assert_eq!(packets.bytes(MessageKind::Verdict, 10), 1 + 1 + 2 + 14 + 1 + 10);
    }

    #[test]
    fn a_request_carries_an_id_and_properties() {
        // header 1, length 1, topic 2 + 26, id 2, properties 1 + 5 + (3 + 15) + (3 + 8), payload 40
        assert_eq!(packets().bytes(MessageKind::Open, 40), 107);
    }

    #[test]
    fn a_length_takes_another_byte_at_128_and_16384() {
        assert_eq!(publish_bytes(0, 0, 124), 129);
        assert_eq!(publish_bytes(0, 0, 125), 131);
        assert_eq!(publish_bytes(0, 0, 16_380), 16_386);
        assert_eq!(publish_bytes(0, 0, 16_381), 16_388);
    }
}
