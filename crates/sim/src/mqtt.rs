//! Sizes of the MQTT packets that carry the protocol's messages.
//!
//! Invariant: it knows only sizes, not the meaning of messages.

use dunlin_link::{CORRELATION_BYTES, PublishShape};
use dunlin_wire::topic::Topic;
use dunlin_wire::{DeviceId, VerifierId};

/// Name of the modelled device; its length is part of every size.
pub const DEVICE: &str = "pi-7";
/// Name of the modelled verifier.
pub const VERIFIER: &str = "verifier-1";

/// The kind of a message, as far as its packet depends on it.
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
    /// True for messages that the device sends.
    pub fn is_up(self) -> bool {
        !matches!(self, Self::Reply | Self::Verdict)
    }
}

/// The packets of one connection. The first frame binds a topic alias, which later frames use instead of the topic.
#[derive(Clone, Debug)]
pub struct Packets {
    open: Topic,
    reply: Topic,
    frames: Topic,
    verdicts: Topic,
    bound: bool,
}

impl Packets {
    /// A connection of `device` that sends frames to `verifier`.
    pub fn new(device: &DeviceId, verifier: &VerifierId) -> Self {
        Self {
            open: Topic::Open(device.clone(), verifier.clone()),
            reply: Topic::Reply(device.clone()),
            frames: Topic::Frames(device.clone(), verifier.clone()),
            verdicts: Topic::Verdicts(device.clone()),
            bound: false,
        }
    }

    /// Bytes of the next packet with `payload` bytes in it.
    pub fn bytes(&mut self, kind: MessageKind, payload: usize) -> usize {
        let shape = match kind {
            MessageKind::Open => {
                let request = PublishShape::new(&self.open, payload);
                request.answered_on(&self.reply).correlated(CORRELATION_BYTES)
            }
            MessageKind::Reply => PublishShape::new(&self.reply, payload).correlated(CORRELATION_BYTES),
            MessageKind::Verdict => PublishShape::new(&self.verdicts, payload),
            MessageKind::Context | MessageKind::Draft | MessageKind::Other => {
                let frame = PublishShape::new(&self.frames, payload);
                if std::mem::replace(&mut self.bound, true) {
                    frame.by_alias()
                } else {
                    frame.binding_alias()
                }
            }
        };
        shape.bytes()
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
    fn a_request_and_its_answer_carry_an_id_and_properties() {
        // header 1, length 1, topic 2 + 26, id 2, properties 1 + 5 + (3 + 15) + (3 + 4), payload 40
        assert_eq!(packets().bytes(MessageKind::Open, 40), 103);
        // header 1, length 1, topic 2 + 15, id 2, properties 1 + 5 + (3 + 4), payload 40
        assert_eq!(packets().bytes(MessageKind::Reply, 40), 74);
    }
}
