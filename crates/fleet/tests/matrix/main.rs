//! Who gets what at a real mosquitto with the files of `dunlin-fleet init`: every role, topic and receiver, by delivery. A
//! subscription says nothing: mosquitto grants every one.

#![allow(clippy::unwrap_used, reason = "a test that can't go on stops")]

mod client;
mod report;
mod site;
mod table;

use client::Client;
use report::{Cell, Report};
use site::{NAMES, Site};
use std::collections::BTreeMap;
use table::{TopicCells, topics};

/// Topics that are published between two markers: with all filters that match them, less than mosquitto's queue holds.
const BATCH: usize = 12;
/// Filters that reach for everything.
const WILDCARDS: [&str; 9] = [
    "#",
    "dl1/#",
    "+/+/+/+/+",
    "+/+/+/+/+/+",
    "dl1/+/+/+",
    "$SYS/#",
    "dl1/d/+/n/#",
    "dl1/d/+/u/#",
    "dl1/e/+/+",
];
/// Filters of groups, which take messages from the rightful receivers of the same group.
const SHARED: [&str; 6] = [
    "$share/x/#",
    "$share/x/dl1/#",
    "$share/x/dl1/d/+/u/#",
    "$share/x/dl1/d/+/n/#",
    "$share/energy/dl1/d/+/u/en/+",
    "$share/open/dl1/d/+/u/op/+",
];

/// The connections of a name: one asks for each topic, one by wildcards, one as a stranger in groups.
struct Party {
    name: &'static str,
    clients: [Client; 3],
}

impl Party {
    fn new(site: &Site, name: &'static str, topics: &[TopicCells]) -> Self {
        let exact = topics.iter().map(|topic| topic.name.clone()).collect();
        let texts = |filters: &[&str]| filters.iter().map(|filter| (*filter).to_owned()).collect();
        let filters: [Vec<String>; 3] = [exact, texts(&WILDCARDS), texts(&SHARED)];
        let clients = filters.map(|mut filters| {
            let mut client = site.connect(name, &format!("{name}-{}", filters.len()), None).unwrap();
            filters.push(marker_topic(name));
            client.subscribe(&filters);
            client
        });
        Self { name, clients }
    }

    /// Receives everything that was published before.
    fn settle(&mut self, round: usize) {
        for (at, client) in self.clients.iter_mut().enumerate() {
            // The broker keeps the order, so nothing that was published before comes after this.
            let marker = format!("marker {round} {at}");
            assert_eq!(
                client.publish(&marker_topic(self.name), &marker),
                0,
                "{} has no topic of its own",
                self.name
            );
            client.receive_until(&marker);
        }
    }
}

/// A topic that every name may write and read: mosquitto grants the patterns of devices to services too.
fn marker_topic(name: &str) -> String {
    format!("dl1/d/{name}/p")
}

fn payload(kind: &str, writer: &str, topic: &str) -> String {
    format!("{kind} {writer} {topic}")
}

#[test]
fn everybody_gets_what_the_table_grants_and_nothing_else() {
    let site = Site::new();
    let topics = topics();
    let mut parties: Vec<_> = NAMES.iter().map(|name| Party::new(&site, name, &topics)).collect();
    let mut report = Report::default();
    let mut round = 0;
    for writer in 0..parties.len() {
        for batch in topics.chunks(BATCH) {
            for topic in batch {
                let name = parties[writer].name;
                let reason =
                    parties[writer].clients[0].publish(&topic.name, &payload("message", name, &topic.name));
                report.answer(name, topic, reason);
            }
            round += 1;
            parties.iter_mut().for_each(|party| party.settle(round));
        }
    }
    for name in NAMES {
        for batch in topics.chunks(BATCH) {
            for topic in batch {
                leave_a_will(&site, name, &topic.name);
            }
            round += 1;
            parties.iter_mut().for_each(|party| party.settle(round));
        }
    }
    judge(&parties, &topics, &mut report);
    let text = report.write(&topics);
    println!("{text}");
    assert!(report.is_right(), "{text}");
}

/// Connects with a Will, and vanishes. The second connection of the same id makes the broker end the first, Will included,
/// before it is answered.
fn leave_a_will(site: &Site, name: &str, topic: &str) {
    let id = format!("{name}-will");
    let will = Some((topic.to_owned(), payload("will", name, topic)));
    drop(site.connect(name, &id, will).unwrap());
    drop(site.connect(name, &id, None).unwrap());
}

/// Compares what arrived with what the table grants.
fn judge(parties: &[Party], topics: &[TopicCells], report: &mut Report) {
    for party in parties {
        let counts = party.clients.each_ref().map(|client| {
            let mut counts = BTreeMap::<(&str, &str), usize>::new();
            for (topic, payload) in &client.arrived {
                *counts.entry((topic, payload)).or_default() += 1;
            }
            counts
        });
        for topic in topics {
            for writer in NAMES {
                for kind in ["message", "will"] {
                    let payload = payload(kind, writer, &topic.name);
                    let [exact, wild, shared] = counts
                        .each_ref()
                        .map(|counts| counts.get(&(topic.name.as_str(), &*payload)).copied().unwrap_or(0));
                    let cell = Cell { writer, reader: party.name, topic, kind };
                    report.judge(&cell, exact, wild, shared);
                }
            }
        }
    }
}

#[test]
fn nobody_gets_in_without_a_valid_certificate_of_the_fleet() {
    let mut site = Site::new();
    let other = Site::new();
    let name = "plover-1";
    site.connect(name, "a", None).unwrap();
    let refused = |tls, what: &str| {
        let refusal = Client::connect(&tls, site.port(), "a", None).err();
        println!("{what}: {}", refusal.unwrap_or_else(|| panic!("{what} got in")));
    };
    refused(site.tls_without_certificate(), "no certificate");
    refused(site.tls_with(&other.folder(name)), "another authority of the same name");
    refused(site.tls_as_server(), "the broker's own certificate as a client");

    let old = site.tls_with(&site.folder(name));
    site.revoke(name);
    let refusal = Client::connect(&old, site.port(), "a", None).err().expect("a revoked certificate got in");
    println!("a revoked certificate: {refusal}");
    site.connect("verifier-1", "b", None).unwrap();
    site.issue(name);
    site.connect(name, "a", None).unwrap();
}
