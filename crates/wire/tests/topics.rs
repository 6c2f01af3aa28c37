//! Topics and ids: each has exactly one name, and any other text is refused.

use dunlin_wire::limits::{
    BLOCK_MESSAGE_BYTES_MAX, CERTIFICATE_BYTES_MAX, FRAME_BYTES_MAX, ID_BYTES_MAX, PACKET_BYTES_ANNOUNCED,
    PACKET_BYTES_MAX, TOPIC_BYTES_MAX, UPDATE_PACKET_BYTES_MAX,
};
use dunlin_wire::topic::{
    ENROL_FILTER, FLEET_FILTER, SETUP_FILTER, STORE_PRESENCE_FILTER, Topic, TopicName,
    VERIFIER_PRESENCE_FILTER, energy_filter, filter_delivery, frames_filter, open_filter, telemetry_filter,
    wanted_filter,
};
use dunlin_wire::{DeviceId, IdError, RingId, StoreId, VerifierId};
use proptest::prelude::*;

fn topic() -> impl Strategy<Value = Topic> {
    (0..22u8, "[a-z0-9-]{1,32}", "[a-z0-9-]{1,32}").prop_map(|(which, dev, ver)| {
        let text = ver;
        let (dev, ver) = (dev.parse().expect("an id"), text.parse().expect("an id"));
        match which {
            11 => Topic::Fleet(dev),
            12 => Topic::Wanted(dev, text.parse().expect("an id")),
            13 => Topic::Block(dev),
            14 => Topic::Pin(dev),
            15 => Topic::Command(dev),
            16 => Topic::StorePresence(text.parse().expect("an id")),
            17 => text.parse().map_or(Topic::Root, Topic::Ring),
            18 => Topic::Root,
            19 => Topic::Time,
            20 => Topic::Enrol(text.parse().expect("an id")),
            21 => Topic::Certificate(text.parse().expect("an id")),
            0 => Topic::DevicePresence(dev),
            1 => Topic::Open(dev, ver),
            2 => Topic::Reply(dev),
            3 => Topic::Frames(dev, ver),
            4 => Topic::Verdicts(dev),
            5 => Topic::Energy(dev, ver),
            6 => Topic::Telemetry(dev, ver),
            7 => Topic::Setup(dev),
            8 => Topic::DeviceProbe(dev),
            9 => Topic::VerifierProbe(ver),
            _ => Topic::VerifierPresence(ver),
        }
    })
}

/// True when an MQTT filter without `#` matches a topic name.
fn matches(filter: &str, name: &str) -> bool {
    let (wanted, levels) = (filter.split('/'), name.split('/'));
    wanted.clone().count() == levels.clone().count() && wanted.zip(levels).all(|(w, l)| w == "+" || w == l)
}

/// The filter of the verifier that a topic is addressed to.
fn own_filter(topic: &Topic) -> Option<TopicName> {
    Some(match topic {
        Topic::Frames(_, ver) => frames_filter(ver),
        Topic::Open(_, ver) => open_filter(ver),
        Topic::Energy(_, ver) => energy_filter(ver),
        Topic::Telemetry(_, ver) => telemetry_filter(ver),
        Topic::Wanted(_, store) => wanted_filter(store),
        _ => return None,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_topic_comes_back(topic in topic()) {
        let name = topic.name();
        prop_assert_eq!(Topic::parse(&name), Some(topic));
    }

    #[test]
    fn filters_match_their_topics_only(topic in topic(), other: VerifierIdText) {
        let name = topic.name();
        prop_assert_eq!(matches(VERIFIER_PRESENCE_FILTER, &name), matches!(topic, Topic::VerifierPresence(_)));
        prop_assert_eq!(matches(SETUP_FILTER, &name), matches!(topic, Topic::Setup(_)));
        prop_assert_eq!(matches(FLEET_FILTER, &name), matches!(topic, Topic::Fleet(_)));
        prop_assert_eq!(matches(STORE_PRESENCE_FILTER, &name), matches!(topic, Topic::StorePresence(_)));
        prop_assert_eq!(matches(ENROL_FILTER, &name), matches!(topic, Topic::Enrol(_)));
        let store = other.0.parse::<StoreId>().expect("an id");
        prop_assert_eq!(matches(&wanted_filter(&store), &name), matches!(&topic, Topic::Wanted(_, to) if *to == store));
        let other: VerifierId = other.0.parse().expect("an id");
        prop_assert_eq!(matches(&frames_filter(&other), &name), matches!(&topic, Topic::Frames(_, ver) if *ver == other));
        prop_assert_eq!(matches(&open_filter(&other), &name), matches!(&topic, Topic::Open(_, ver) if *ver == other));
        prop_assert_eq!(matches(&energy_filter(&other), &name), matches!(&topic, Topic::Energy(_, ver) if *ver == other));
        prop_assert_eq!(matches(&telemetry_filter(&other), &name), matches!(&topic, Topic::Telemetry(_, ver) if *ver == other));
        prop_assert!(own_filter(&topic).is_none_or(|filter| matches(&filter, &name)));
    }

    #[test]
    fn a_filter_is_delivered_as_its_topics_are(topic in topic()) {
        let name = topic.name();
        let own = own_filter(&topic).unwrap_or_else(|| name.clone());
        for filter in [SETUP_FILTER, VERIFIER_PRESENCE_FILTER, FLEET_FILTER, STORE_PRESENCE_FILTER, ENROL_FILTER, own.as_str()].into_iter().filter(|filter| matches(filter, &name)) {
            prop_assert_eq!(filter_delivery(filter), Some(topic.delivery()), "{}", filter);
        }
    }

    #[test]
    fn a_device_writes_under_u_and_reads_under_n(topic in topic()) {
        let name = topic.name();
        let side = name.split('/').nth(3);
        match topic {
            Topic::StorePresence(_) => prop_assert!(name.starts_with("dl1/s/")),
            Topic::Ring(_) | Topic::Root => prop_assert!(name.starts_with("dl1/r/")),
            Topic::Time => prop_assert_eq!(name.as_str(), "dl1/t"),
            Topic::Enrol(_) | Topic::Certificate(_) => prop_assert!(name.starts_with("dl1/e/")),
            Topic::Block(_) | Topic::Pin(_) | Topic::Command(_) => prop_assert_eq!(side, Some("n")),
            Topic::Reply(_) | Topic::Verdicts(_) => prop_assert_eq!(side, Some("n")),
            Topic::VerifierPresence(_) | Topic::VerifierProbe(_) => prop_assert!(name.starts_with("dl1/v/")),
            Topic::DeviceProbe(_) => prop_assert_eq!(side, Some("p")),
            _ => prop_assert_eq!(side, Some("u")),
        }
    }

    #[test]
    fn what_parses_is_the_name_of_what_it_parses_to(name in "(dl1|dl2|x)?/?([dv]|)/[a-zA-Z0-9+#-]{0,3}(/(u|n|st|op|f|c|en|tm|su|)){0,4}|.{0,40}") {
        if let Some(topic) = Topic::parse(&name) {
            prop_assert_eq!(topic.name(), name.as_str());
        }
    }

    #[test]
    fn an_id_is_1_to_32_of_its_characters(text in "[a-z0-9-]{0,34}|.{0,34}") {
        let good = text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        let expected = match text.len() {
            1..=ID_BYTES_MAX if good => Ok(text.clone()),
            1..=ID_BYTES_MAX => Err(IdError::Character),
            _ => Err(IdError::Length),
        };
        prop_assert_eq!(text.parse::<DeviceId>().map(|id| id.to_string()), expected.clone());
        prop_assert_eq!(text.parse::<VerifierId>().map(|id| id.as_str().to_owned()), expected);
    }
}

/// The text of an id.
#[derive(Debug)]
struct VerifierIdText(String);

impl Arbitrary for VerifierIdText {
    type Parameters = ();
    type Strategy = BoxedStrategy<Self>;
    fn arbitrary_with((): ()) -> Self::Strategy {
        "[a-z0-9-]{1,32}".prop_map(Self).boxed()
    }
}

#[test]
fn no_ring_is_named_like_the_root() {
    assert_eq!("root".parse::<RingId>(), Err(IdError::Reserved));
    assert_eq!(Topic::parse("dl1/r/root"), Some(Topic::Root));
    assert!("roots".parse::<RingId>().is_ok() && "root".parse::<StoreId>().is_ok());
}

#[test]
fn foreign_topics_are_none() {
    let long = format!("dl1/d/{}/u/st", "a".repeat(ID_BYTES_MAX + 1));
    let foreign = [
        "",
        "/",
        "dl1",
        "dl1/",
        "dl1/d",
        "dl1/d/",
        "dl1/d/a",
        "dl1/d/a/u",
        "dl1/d/a/u/",
        "dl1/d//u/st",
        "dl1/d/A/u/st",
        "dl1/d/+/u/st",
        "dl1/d/a/n/st",
        "dl1/d/a/u/c",
        "dl1/d/a/u/st/",
        "dl1/d/a/u/st/x",
        "dl1/d/a/u/op",
        "dl1/d/a/u/op/",
        "dl1/d/a/u/op/B",
        "dl1/d/a/u/op/b/c",
        "dl1/d/a/n/op/x",
        "dl1/d/a/n/c/x",
        "dl1/d/a/u/f",
        "dl1/d/a/u/f/",
        "dl1/d/a/u/f/B",
        "dl1/d/a/u/f/b/c",
        "dl1/d/a/n/f/b",
        "dl1/v/a",
        "dl1/v/a/u/st",
        "dl1/v/a/st/x",
        "dl1/v/+/st",
        "dl1/x/a/st",
        "/dl1/v/a/st",
        "dl2/v/a/st",
        "dl1/d/a/u/en",
        "dl1/d/a/u/en/",
        "dl1/d/a/u/en/B",
        "dl1/d/a/u/tm",
        "dl1/d/a/u/tm/x/y",
        "dl1/d/a/u/su/x",
        "dl1/d/a/n/su",
        "dl1/d/a/n/en",
        "dl1/d/a/n/tm",
        "dl1/v/a/u/tm",
        "dl1/d/a/p/",
        "dl1/d/a/p/x",
        "dl1/d/a/u/p",
        "dl1/v/a/p/x",
        "dl1/v/v.a/p",
        "dl1/d/o.a/p",
        "$share/energy/dl1/d/a/u/en/b",
        &open_filter(&"a".parse().expect("an id")),
        VERIFIER_PRESENCE_FILTER,
        "$SYS/broker/uptime",
        &long,
    ];
    for name in foreign {
        assert_eq!(Topic::parse(name), None, "{name}");
    }
}

#[test]
fn foreign_topics_near_those_of_updates_are_none() {
    let foreign = [
        "dl1/d/a/u/bq",
        "dl1/d/a/u/bq/s/x",
        "dl1/d/a/n/bq/s",
        "dl1/d/a/u/bk",
        "dl1/d/a/n/bk/x",
        "dl1/d/a/n/fl/x",
        "dl1/d/a/u/cm",
        "dl1/s/a",
        "dl1/s/a/p",
        "dl1/s/A/st",
        "dl1/r",
        "dl1/r/",
        "dl1/r/a/x",
        "dl1/r/root/x",
        "dl1/r/+",
        "dl1/t/",
        "dl1/t/x",
        "dl1/e/a",
        "dl1/e/a/x",
        "dl1/e/a/u/x",
    ];
    for name in foreign {
        assert_eq!(Topic::parse(name), None, "{name}");
    }
}

#[test]
fn a_foreign_filter_has_no_delivery() {
    let long = "x".repeat(TOPIC_BYTES_MAX + 1);
    for filter in ["", "#", "dl1/#", "$share/open/dl1/d/+/u/op/a", "$SYS/+", "dl1/d/+/u/+", &long] {
        assert_eq!(filter_delivery(filter), None, "{filter}");
    }
}

#[test]
fn the_longest_topic_has_the_named_length() {
    let text = "z".repeat(ID_BYTES_MAX);
    let (dev, ver) = (text.parse::<DeviceId>().unwrap(), text.parse::<VerifierId>().unwrap());
    assert_eq!(Topic::Open(dev.clone(), ver.clone()).name().len(), TOPIC_BYTES_MAX);
    assert!(Topic::Frames(dev, ver.clone()).name().len() <= TOPIC_BYTES_MAX);
    assert!(open_filter(&ver).len() <= TOPIC_BYTES_MAX);
    assert!(frames_filter(&ver).len() <= TOPIC_BYTES_MAX);
    assert_eq!("z".repeat(ID_BYTES_MAX + 1).parse::<DeviceId>(), Err(IdError::Length));
}

/// Bytes of an MQTT 5 PUBLISH: fixed header at most 5, topic with its length, packet id 2, length of the properties at
/// most 4.
#[test]
fn the_largest_message_fits_a_packet_with_room_for_properties() {
    let publish = 5 + 2 + TOPIC_BYTES_MAX + 2 + 4 + FRAME_BYTES_MAX;
    assert!(publish + 512 < PACKET_BYTES_MAX as usize, "{publish} bytes without properties");
    let publish = 5 + 2 + TOPIC_BYTES_MAX + 2 + 4 + BLOCK_MESSAGE_BYTES_MAX.max(CERTIFICATE_BYTES_MAX);
    assert!(publish + 512 < UPDATE_PACKET_BYTES_MAX as usize, "{publish} bytes without properties");
    const { assert!(UPDATE_PACKET_BYTES_MAX < PACKET_BYTES_ANNOUNCED) };
}
