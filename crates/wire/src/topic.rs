//! Topics and filters; no other module builds or parses them.
//!
//! [`access`](crate::access) says who may publish and receive on them.

use crate::limits::TOPIC_BYTES_MAX;
use crate::{DeviceId, VerifierId};
use core::fmt::Write;
use heapless::String;

/// Seconds after which a request or an answer is of no use any more.
const ANSWER_EXPIRY_SECONDS: u32 = 5;

/// A topic or filter.
pub type TopicName = String<TOPIC_BYTES_MAX>;

/// The filter for set-up reports.
pub const SETUP_FILTER: &str = "dl1/d/+/u/su";
/// The filter for every verifier's presence; a device subscribes to it only while it seeks a lease.
pub const VERIFIER_PRESENCE_FILTER: &str = "dl1/v/+/st";

/// MQTT's quality of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    /// QoS 0: once or not at all.
    AtMostOnce,
    /// QoS 1: sent again until it is acknowledged.
    AtLeastOnce,
}

/// The delivery of a topic's messages, as in the table of `docs/wire.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The QoS for publishing and for subscribing.
    pub qos: Qos,
    /// True when the broker keeps the last message for later subscribers.
    pub retain: bool,
    /// Seconds after which the broker drops an undelivered message.
    pub expiry_seconds: Option<u32>,
}

/// A topic of the protocol, with the ids in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topic {
    /// `dl1/d/<dev>/u/st`: a device's presence, retained.
    DevicePresence(DeviceId),
    /// `dl1/d/<dev>/u/op/<ver>`: a device asks a verifier for a lease.
    Open(DeviceId, VerifierId),
    /// `dl1/d/<dev>/n/op`: the answer to a request for a lease.
    Reply(DeviceId),
    /// `dl1/d/<dev>/u/f/<ver>`: drafts and context, to the verifier that holds the lease.
    Frames(DeviceId, VerifierId),
    /// `dl1/d/<dev>/n/c`: verdicts.
    Verdicts(DeviceId),
    /// `dl1/d/<dev>/u/en/<ver>`: energy reports, to the verifier of the last lease.
    Energy(DeviceId, VerifierId),
    /// `dl1/d/<dev>/u/tm/<ver>`: telemetry of the device's power, to the verifier of the last lease.
    Telemetry(DeviceId, VerifierId),
    /// `dl1/d/<dev>/u/su`: mistakes in the device's set-up file, retained.
    Setup(DeviceId),
    /// `dl1/d/<dev>/p`: a device's message to itself, which shows that the broker delivers.
    DeviceProbe(DeviceId),
    /// `dl1/v/<ver>/st`: a verifier's presence, retained.
    VerifierPresence(VerifierId),
    /// `dl1/v/<ver>/p`: a verifier's message to itself.
    VerifierProbe(VerifierId),
}

impl Topic {
    /// The topic's name.
    pub fn name(&self) -> TopicName {
        let mut name = TopicName::new();
        let written = match self {
            Self::DevicePresence(dev) => write!(name, "dl1/d/{dev}/u/st"),
            Self::Open(dev, ver) => write!(name, "dl1/d/{dev}/u/op/{ver}"),
            Self::Reply(dev) => write!(name, "dl1/d/{dev}/n/op"),
            Self::Frames(dev, ver) => write!(name, "dl1/d/{dev}/u/f/{ver}"),
            Self::Verdicts(dev) => write!(name, "dl1/d/{dev}/n/c"),
            Self::Energy(dev, ver) => write!(name, "dl1/d/{dev}/u/en/{ver}"),
            Self::Telemetry(dev, ver) => write!(name, "dl1/d/{dev}/u/tm/{ver}"),
            Self::Setup(dev) => write!(name, "dl1/d/{dev}/u/su"),
            Self::DeviceProbe(dev) => write!(name, "dl1/d/{dev}/p"),
            Self::VerifierPresence(ver) => write!(name, "dl1/v/{ver}/st"),
            Self::VerifierProbe(ver) => write!(name, "dl1/v/{ver}/p"),
        };
        written.expect("two ids of 32 bytes and their levels fit TOPIC_BYTES_MAX");
        name
    }

    /// The delivery of its messages.
    pub fn delivery(&self) -> Delivery {
        let (qos, retain, expiry_seconds) = match self {
            Self::DevicePresence(_) | Self::VerifierPresence(_) | Self::Setup(_) => {
                (Qos::AtLeastOnce, true, None)
            }
            Self::Open(..) | Self::Reply(_) | Self::DeviceProbe(_) | Self::VerifierProbe(_) => {
                (Qos::AtLeastOnce, false, Some(ANSWER_EXPIRY_SECONDS))
            }
            // Sent again until acknowledged, without expiry: a run's last report contains the sums of the whole run.
            Self::Energy(..) => (Qos::AtLeastOnce, false, None),
            // The protocol itself sends lost frames and verdicts again, and late telemetry is of no use.
            Self::Frames(..) | Self::Verdicts(_) | Self::Telemetry(..) => (Qos::AtMostOnce, false, None),
        };
        Delivery { qos, retain, expiry_seconds }
    }

    /// Parses a topic name; `None` if it is not a topic of this protocol.
    pub fn parse(name: &str) -> Option<Self> {
        let mut levels = name.split('/');
        if levels.next() != Some("dl1") {
            return None;
        }
        let (class, id) = (levels.next()?, levels.next()?);
        let rest = (levels.next(), levels.next(), levels.next(), levels.next());
        if class == "v" {
            return match rest {
                (Some("st"), None, ..) => Some(Self::VerifierPresence(id.parse().ok()?)),
                (Some("p"), None, ..) => Some(Self::VerifierProbe(id.parse().ok()?)),
                _ => None,
            };
        }
        let dev = if class == "d" { id.parse().ok()? } else { return None };
        match rest {
            (Some("u"), Some("st"), None, _) => Some(Self::DevicePresence(dev)),
            (Some("u"), Some("op"), Some(ver), None) => Some(Self::Open(dev, ver.parse().ok()?)),
            (Some("n"), Some("op"), None, _) => Some(Self::Reply(dev)),
            (Some("u"), Some("f"), Some(ver), None) => Some(Self::Frames(dev, ver.parse().ok()?)),
            (Some("n"), Some("c"), None, _) => Some(Self::Verdicts(dev)),
            (Some("u"), Some("en"), Some(ver), None) => Some(Self::Energy(dev, ver.parse().ok()?)),
            (Some("u"), Some("tm"), Some(ver), None) => Some(Self::Telemetry(dev, ver.parse().ok()?)),
            (Some("u"), Some("su"), None, _) => Some(Self::Setup(dev)),
            (Some("p"), None, ..) => Some(Self::DeviceProbe(dev)),
            _ => None,
        }
    }
}

/// The delivery of the messages that `filter` matches; `None` if it is not a filter of this protocol.
pub fn filter_delivery(filter: &str) -> Option<Delivery> {
    let mut name = TopicName::new();
    for character in filter.chars() {
        // Any id will do: the delivery doesn't depend on it.
        name.push(if character == '+' { 'x' } else { character }).ok()?;
    }
    Some(Topic::parse(&name)?.delivery())
}

/// The filter by which verifier `ver` receives requests for its leases.
pub fn open_filter(ver: &VerifierId) -> TopicName {
    addressed("op", ver)
}

/// The filter by which verifier `ver` receives the frames of all its devices.
pub fn frames_filter(ver: &VerifierId) -> TopicName {
    addressed("f", ver)
}

/// The filter by which verifier `ver` receives the energy reports that devices address to it.
pub fn energy_filter(ver: &VerifierId) -> TopicName {
    addressed("en", ver)
}

/// The filter by which verifier `ver` receives the telemetry that devices address to it.
pub fn telemetry_filter(ver: &VerifierId) -> TopicName {
    addressed("tm", ver)
}

/// The filter for the messages of one kind that devices address to a verifier.
fn addressed(kind: &str, ver: &VerifierId) -> TopicName {
    let mut name = TopicName::new();
    write!(name, "dl1/d/+/u/{kind}/{ver}").expect("one id of 32 bytes fits TOPIC_BYTES_MAX");
    name
}
