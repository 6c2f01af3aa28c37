//! What the matrix found: wrong cells by name, a table of roles and topics, and the count in the last line.

use crate::site::NAMES;
use crate::table::TopicCells;
use dunlin_wire::Identity;
use std::collections::BTreeSet;
use std::env;
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// The reason of a refused publish: not authorised.
const NOT_AUTHORISED: u8 = 0x87;
/// Wrong cells that are shown.
const SHOWN_MAX: usize = 40;
const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const PLAIN: &str = "\x1b[0m";

/// A writer, a topic and a reader.
pub(crate) struct Cell<'a> {
    /// The name that published.
    pub(crate) writer: &'static str,
    /// The name that may receive.
    pub(crate) reader: &'static str,
    /// The topic.
    pub(crate) topic: &'a TopicCells,
    /// A message or a Will.
    pub(crate) kind: &'static str,
}

/// The findings.
#[derive(Default)]
pub(crate) struct Report {
    cells: usize,
    wrong: Vec<String>,
    accepted: usize,
    refused: usize,
    rightful: usize,
    foreign: usize,
    /// Topics with the names that could publish there.
    written: BTreeSet<(String, &'static str)>,
    /// Topics with the names that received from there.
    read: BTreeSet<(String, &'static str)>,
}

impl Report {
    /// Notes the broker's answer to a publish.
    pub(crate) fn answer(&mut self, writer: &'static str, topic: &TopicCells, reason: u8) {
        let may = topic.writes(&identity(writer));
        let refused = reason >= 0x80;
        if !refused {
            self.written.insert((topic.name.clone(), writer));
        }
        if may {
            self.accepted += 1
        } else {
            self.refused += 1
        }
        if may == refused || refused && reason != NOT_AUTHORISED {
            self.wrong.push(format!("{writer} → {}: the broker answered {reason:#04x}", topic.name));
        }
    }

    /// Compares deliveries with the table: to a reader that asks for the topic, one that asks by wildcards, and a stranger
    /// in groups.
    pub(crate) fn judge(&mut self, cell: &Cell<'_>, exact: usize, wild: usize, shared: usize) {
        let Cell { writer, reader, topic, kind } = cell;
        let may = topic.writes(&identity(writer)) && topic.reads(&identity(reader));
        let expected = usize::from(may);
        if exact > 0 {
            self.read.insert((topic.name.clone(), reader));
        }
        if may {
            self.rightful += exact;
        } else {
            self.foreign += exact + wild + shared;
        }
        let judged = [
            ("by its name", exact, exact == expected),
            ("by wildcards", wild, (wild > 0) == may),
            // A group delivers to one of its members: to nobody who may not read, and to a reader maybe.
            ("in a group", shared, may || shared == 0),
        ];
        for (how, count, right) in judged {
            self.cells += 1;
            if !right {
                let name = &topic.name;
                self.wrong.push(format!(
                    "{kind} of {writer} → {name} → {reader} {how}: {count} times, not {expected}"
                ));
            }
        }
    }

    /// Writes the report for `make acl-matrix`; returns it.
    pub(crate) fn write(&self, topics: &[TopicCells]) -> String {
        let mut text = self.table(topics);
        for line in self.wrong.iter().take(SHOWN_MAX) {
            writeln!(text, "WRONG {line}").unwrap();
        }
        let Self { accepted, refused, rightful, foreign, .. } = self;
        writeln!(text, "{accepted} publishes accepted, {refused} refused with {NOT_AUTHORISED:#04x}")
            .unwrap();
        writeln!(text, "{rightful} messages and Wills to rightful receivers, {foreign} to others").unwrap();
        writeln!(text, "{} cells, {} wrong", self.cells, self.wrong.len()).unwrap();
        fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join("acl-matrix.txt"), &text).unwrap();
        text
    }

    /// True if enough was allowed to say something, and no cell is wrong.
    pub(crate) fn is_right(&self) -> bool {
        self.accepted > 50 && self.rightful > 100 && self.wrong.is_empty()
    }

    /// The roles that could write (W) and read (R) each topic; red where the table says otherwise.
    fn table(&self, topics: &[TopicCells]) -> String {
        let colour = env::var_os("NO_COLOR").is_none();
        let width = topics.iter().map(|topic| topic.name.len()).max().unwrap_or_default();
        let mut text = format!("{:width$}", "");
        NAMES.iter().for_each(|name| write!(text, " {name:>12}").unwrap());
        for topic in topics {
            write!(text, "\n{:width$}", topic.name).unwrap();
            // Nothing arrives from a topic that none of these names may write.
            let written = NAMES.iter().any(|name| topic.writes(&identity(name)));
            for name in NAMES {
                let who = identity(name);
                let key = (topic.name.clone(), name);
                let (writes, reads) = (self.written.contains(&key), self.read.contains(&key));
                let right = writes == topic.writes(&who) && reads == (written && topic.reads(&who));
                let letters = [if writes { "W" } else { "·" }, if reads { "R" } else { "·" }].concat();
                let (on, off) = match (colour, right, writes || reads) {
                    (true, false, _) => (RED, PLAIN),
                    (true, true, true) => (GREEN, PLAIN),
                    _ => ("", ""),
                };
                write!(text, " {on}{letters:>12}{off}").unwrap();
            }
        }
        text + "\n"
    }
}

fn identity(name: &str) -> Identity {
    name.parse().unwrap()
}
