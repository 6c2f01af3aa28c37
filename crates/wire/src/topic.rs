//! Topics and filters; no other module builds or parses them.
//!
//! [`access`](crate::access) says who may publish and receive on them.

use crate::limits::TOPIC_BYTES_MAX;
use crate::{DeviceId, EnrolTokenId, RingId, StoreId, VerifierId};
use core::fmt::{Display, Write};
use heapless::String;

/// Seconds after which a request or an answer is of no use any more.
const ANSWER_EXPIRY_SECONDS: u32 = 5;
/// Seconds after which a device has asked another time for a block.
const BLOCK_EXPIRY_SECONDS: u32 = 10;
/// Seconds after which an operator has given a command up.
const COMMAND_EXPIRY_SECONDS: u32 = 60;
/// Seconds after which a board has asked another time for its certificate.
const ENROL_EXPIRY_SECONDS: u32 = 300;

/// A topic or filter.
pub type TopicName = String<TOPIC_BYTES_MAX>;

/// The filter for set-up reports.
pub const SETUP_FILTER: &str = "dl1/d/+/u/su";
/// The filter for every verifier's presence; a device subscribes to it only while it seeks a lease.
pub const VERIFIER_PRESENCE_FILTER: &str = "dl1/v/+/st";

/// The filter for every device's state of its update.
pub const FLEET_FILTER: &str = "dl1/d/+/u/fl";
/// The filter for every store's presence.
pub const STORE_PRESENCE_FILTER: &str = "dl1/s/+/st";
/// The filter for requests for certificates.
pub const ENROL_FILTER: &str = "dl1/e/+/u";

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
    /// `dl1/d/<dev>/u/fl`: the state of a device's update, retained.
    Fleet(DeviceId),
    /// `dl1/d/<dev>/u/bq/<store>`: a device asks a store for pieces of an object.
    Wanted(DeviceId, StoreId),
    /// `dl1/d/<dev>/n/bk`: pieces of objects.
    Block(DeviceId),
    /// `dl1/d/<dev>/n/fl`: the rollout that pins a device, retained.
    Pin(DeviceId),
    /// `dl1/d/<dev>/n/cm`: commands.
    Command(DeviceId),
    /// `dl1/s/<store>/st`: a store's presence, retained.
    StorePresence(StoreId),
    /// `dl1/r/<ring>`: the rollout of a ring, retained.
    Ring(RingId),
    /// `dl1/r/root`: the newest root, retained.
    Root,
    /// `dl1/t`: the time, retained.
    Time,
    /// `dl1/e/<token>/u`: requests for certificates.
    Enrol(EnrolTokenId),
    /// `dl1/e/<token>/n`: their answers.
    Certificate(EnrolTokenId),
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
            Self::Fleet(dev) => write!(name, "dl1/d/{dev}/u/fl"),
            Self::Wanted(dev, store) => write!(name, "dl1/d/{dev}/u/bq/{store}"),
            Self::Block(dev) => write!(name, "dl1/d/{dev}/n/bk"),
            Self::Pin(dev) => write!(name, "dl1/d/{dev}/n/fl"),
            Self::Command(dev) => write!(name, "dl1/d/{dev}/n/cm"),
            Self::StorePresence(store) => write!(name, "dl1/s/{store}/st"),
            Self::Ring(ring) => write!(name, "dl1/r/{ring}"),
            Self::Root => write!(name, "dl1/r/root"),
            Self::Time => write!(name, "dl1/t"),
            Self::Enrol(token) => write!(name, "dl1/e/{token}/u"),
            Self::Certificate(token) => write!(name, "dl1/e/{token}/n"),
        };
        written.expect("two ids of 32 bytes and their levels fit TOPIC_BYTES_MAX");
        name
    }

    /// The delivery of its messages.
    pub fn delivery(&self) -> Delivery {
        let (qos, retain, expiry_seconds) = match self {
            Self::DevicePresence(_)
            | Self::VerifierPresence(_)
            | Self::StorePresence(_)
            | Self::Setup(_)
            | Self::Fleet(_)
            | Self::Pin(_)
            | Self::Ring(_)
            | Self::Root
            | Self::Time => (Qos::AtLeastOnce, true, None),
            Self::Open(..) | Self::Reply(_) | Self::DeviceProbe(_) | Self::VerifierProbe(_) => {
                (Qos::AtLeastOnce, false, Some(ANSWER_EXPIRY_SECONDS))
            }
            // A device asks again for what it lacks, and a lost answer costs no more than its bytes.
            Self::Wanted(..) | Self::Block(_) => (Qos::AtMostOnce, false, Some(BLOCK_EXPIRY_SECONDS)),
            Self::Command(_) => (Qos::AtLeastOnce, false, Some(COMMAND_EXPIRY_SECONDS)),
            Self::Enrol(_) | Self::Certificate(_) => (Qos::AtLeastOnce, false, Some(ENROL_EXPIRY_SECONDS)),
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
        let (class, id) = (levels.next()?, levels.next());
        let rest = (levels.next(), levels.next(), levels.next(), levels.next());
        match (class, id, rest) {
            ("t", None, ..) => Some(Self::Time),
            ("r", Some("root"), (None, ..)) => Some(Self::Root),
            ("r", Some(ring), (None, ..)) => Some(Self::Ring(ring.parse().ok()?)),
            ("v", Some(ver), (Some("st"), None, ..)) => Some(Self::VerifierPresence(ver.parse().ok()?)),
            ("v", Some(ver), (Some("p"), None, ..)) => Some(Self::VerifierProbe(ver.parse().ok()?)),
            ("s", Some(store), (Some("st"), None, ..)) => Some(Self::StorePresence(store.parse().ok()?)),
            ("e", Some(token), (Some("u"), None, ..)) => Some(Self::Enrol(token.parse().ok()?)),
            ("e", Some(token), (Some("n"), None, ..)) => Some(Self::Certificate(token.parse().ok()?)),
            ("d", Some(dev), rest) => Self::of_device(dev.parse().ok()?, rest),
            _ => None,
        }
    }

    /// The topic of a device with these levels behind its id.
    fn of_device(
        dev: DeviceId,
        rest: (Option<&str>, Option<&str>, Option<&str>, Option<&str>),
    ) -> Option<Self> {
        match rest {
            (Some("u"), Some("st"), None, _) => Some(Self::DevicePresence(dev)),
            (Some("u"), Some("op"), Some(ver), None) => Some(Self::Open(dev, ver.parse().ok()?)),
            (Some("n"), Some("op"), None, _) => Some(Self::Reply(dev)),
            (Some("u"), Some("f"), Some(ver), None) => Some(Self::Frames(dev, ver.parse().ok()?)),
            (Some("n"), Some("c"), None, _) => Some(Self::Verdicts(dev)),
            (Some("u"), Some("en"), Some(ver), None) => Some(Self::Energy(dev, ver.parse().ok()?)),
            (Some("u"), Some("tm"), Some(ver), None) => Some(Self::Telemetry(dev, ver.parse().ok()?)),
            (Some("u"), Some("su"), None, _) => Some(Self::Setup(dev)),
            (Some("u"), Some("fl"), None, _) => Some(Self::Fleet(dev)),
            (Some("u"), Some("bq"), Some(store), None) => Some(Self::Wanted(dev, store.parse().ok()?)),
            (Some("n"), Some("bk"), None, _) => Some(Self::Block(dev)),
            (Some("n"), Some("fl"), None, _) => Some(Self::Pin(dev)),
            (Some("n"), Some("cm"), None, _) => Some(Self::Command(dev)),
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

/// The filter by which store `store` receives what devices want of it.
pub fn wanted_filter(store: &StoreId) -> TopicName {
    addressed("bq", store)
}

/// The filter for the messages of one kind that devices address to a service.
fn addressed(kind: &str, service: impl Display) -> TopicName {
    let mut name = TopicName::new();
    write!(name, "dl1/d/+/u/{kind}/{service}").expect("one id of 32 bytes fits TOPIC_BYTES_MAX");
    name
}
