//! The table of access: it says what `docs/access.md` says, and the topics of the programs are in it.

#![allow(clippy::unwrap_used, reason = "a test that can't go on stops")]

use dunlin_wire::access::{GrantSpan, RULES, emqx, markdown, mosquitto};
use dunlin_wire::topic::{
    SETUP_FILTER, Topic, VERIFIER_PRESENCE_FILTER, energy_filter, frames_filter, open_filter,
    telemetry_filter,
};
use dunlin_wire::{BrokerRole, DeviceId, Identity, RoleNameError, VerifierId};
use proptest::prelude::*;

const DOC: &str = include_str!("../../../docs/access.md");

fn services() -> [Identity; 2] {
    ["v.verifier-1", "o.anna"].map(|name| name.parse().unwrap())
}

fn device() -> DeviceId {
    "plover-1".parse().unwrap()
}

fn verifier() -> VerifierId {
    "verifier-1".parse().unwrap()
}

/// The text of the code block after a heading.
fn block(heading: &str) -> &'static str {
    let section = DOC.split_once(&format!("\n## {heading}\n")).expect(heading).1;
    let block = section.split_once("```text\n").expect(heading).1;
    block.split_once("```").expect(heading).0
}

#[test]
fn the_documents_table_is_the_codes() {
    let mut table = String::new();
    markdown(&mut table).unwrap();
    assert!(DOC.contains(&format!("\n{table}\n")), "docs/access.md lacks this table:\n{table}");
}

#[test]
fn the_documents_lists_are_the_codes() {
    let (mut list, mut cluster) = (String::new(), String::new());
    mosquitto(&mut list, &services()).unwrap();
    emqx(&mut cluster, &services()).unwrap();
    assert_eq!(block("The list of mosquitto"), list);
    assert_eq!(block("The list of EMQX"), cluster);
}

#[test]
fn every_topic_of_the_programs_has_a_rule() {
    let (dev, ver) = (device, verifier);
    let topics = [
        Topic::DevicePresence(dev()),
        Topic::Open(dev(), ver()),
        Topic::Frames(dev(), ver()),
        Topic::Energy(dev(), ver()),
        Topic::Telemetry(dev(), ver()),
        Topic::Setup(dev()),
        Topic::Reply(dev()),
        Topic::Verdicts(dev()),
        Topic::DeviceProbe(dev()),
        Topic::VerifierPresence(ver()),
        Topic::VerifierProbe(ver()),
    ];
    for topic in topics {
        let name = topic.name();
        let rule = RULES.iter().find(|rule| filled(rule.topic) == name.as_str());
        assert!(rule.is_some_and(|rule| !rule.reserved), "{name}");
    }
}

#[test]
fn every_filter_of_the_programs_is_granted() {
    let mut list = String::new();
    mosquitto(&mut list, &services()).unwrap();
    let ver = verifier();
    let filters = [open_filter(&ver), frames_filter(&ver), energy_filter(&ver), telemetry_filter(&ver)];
    for filter in filters.iter().map(|filter| filter.as_str()).chain([SETUP_FILTER]) {
        assert!(list.contains(&format!("\ntopic read {filter}\n")), "{filter}");
    }
    assert!(list.contains(&format!("\npattern read {VERIFIER_PRESENCE_FILTER}\n")));
}

/// The topics of updates; each has a rule, whoever uses it.
#[test]
fn every_topic_of_updates_has_a_rule() {
    let (dev, store, token) = (device, || "store-1".parse().unwrap(), || "token-1".parse().unwrap());
    let topics = [
        Topic::Fleet(dev()),
        Topic::Wanted(dev(), store()),
        Topic::Block(dev()),
        Topic::Pin(dev()),
        Topic::Command(dev()),
        Topic::StorePresence(store()),
        Topic::Ring("stable".parse().unwrap()),
        Topic::Time,
        Topic::Enrol(token()),
        Topic::Certificate(token()),
    ];
    for topic in topics {
        let name = topic.name();
        assert!(RULES.iter().any(|rule| filled(rule.topic) == name.as_str()), "{name}");
    }
    // The root is where a ring would be: operators write it, and everybody reads it.
    let ring = RULES.iter().find(|rule| rule.topic == "dl1/r/<ring>").unwrap();
    assert_eq!(ring.topic.replace("<ring>", "root"), Topic::Root.name().as_str());
    assert_eq!(ring.writers, [(BrokerRole::Operator, GrantSpan::All)]);
}

fn filled(topic: &str) -> String {
    let places = [
        ("<dev>", "plover-1"),
        ("<ver>", "verifier-1"),
        ("<store>", "store-1"),
        ("<ring>", "stable"),
        ("<token>", "token-1"),
    ];
    places.iter().fold(topic.to_owned(), |text, (place, id)| text.replace(place, id))
}

#[test]
fn what_a_pattern_grants_everybody_has() {
    for rule in RULES {
        for grants in [rule.writers, rule.readers] {
            if grants.contains(&(BrokerRole::Device, GrantSpan::All)) {
                assert!(
                    BrokerRole::ALL.iter().all(|role| grants.contains(&(*role, GrantSpan::All))),
                    "{}",
                    rule.topic
                );
            }
        }
    }
}

#[test]
fn only_a_role_with_a_place_in_the_topic_has_its_own() {
    for rule in RULES {
        for (role, _) in
            [rule.writers, rule.readers].concat().iter().filter(|grant| grant.1 == GrantSpan::Own)
        {
            let place = match role {
                BrokerRole::Device => "<dev>",
                BrokerRole::Verifier => "<ver>",
                BrokerRole::Store => "<store>",
                other => panic!("{} has no topics of its own: {}", other.name(), rule.topic),
            };
            assert!(rule.topic.contains(place), "{}", rule.topic);
        }
    }
}

#[test]
fn nobody_writes_where_nobody_reads() {
    for rule in RULES {
        assert!(!rule.writers.is_empty() && !rule.readers.is_empty(), "{}", rule.topic);
    }
}

#[test]
fn a_wrong_name_is_refused() {
    for name in ["x.a", ".a", "vv.a", "V.a", "v", "v.", "v.a.b", "v.A", "", "a_b"] {
        let parsed = name.parse::<Identity>();
        assert_eq!(parsed.is_ok(), name == "v", "{name}: {parsed:?}");
    }
    assert_eq!("x.a".parse::<Identity>(), Err(RoleNameError::Role));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_name_comes_back_and_only_a_service_has_a_dot(name in "([vosweVx]\\.)?[a-z0-9-]{0,33}") {
        if let Ok(identity) = name.parse::<Identity>() {
            prop_assert_eq!(identity.to_string(), name.clone());
            prop_assert_eq!(identity.role == BrokerRole::Device, !name.contains('.'));
            prop_assert_eq!(identity.role == BrokerRole::Device, name.parse::<DeviceId>().is_ok());
        } else {
            prop_assert!(name.parse::<DeviceId>().is_err());
        }
    }
}
