//! The table of `docs/access.md`, which people read: what the matrix expects comes from there and not from the code.

use dunlin_wire::{BrokerRole, Identity};

const DOC: &str = include_str!("../../../../docs/access.md");
/// The places of topics, with the ids that they get.
const PLACES: [(&str, &[&str]); 5] = [
    ("<dev>", &["plover-1", "verifier-1"]),
    ("<ver>", &["verifier-1", "verifier-2"]),
    ("<store>", &["store-1", "store-2"]),
    ("<ring>", &["stable"]),
    ("<token>", &["token-1"]),
];
/// Topics that nobody may use.
const FOREIGN: [&str; 9] = [
    "dl1/other",
    "dl1/d/plover-1/u/other",
    "dl1/d/plover-1/n/other",
    "dl1/d/plover-1/u/en",
    "dl1/d/plover-1/x",
    "dl1/v/verifier-1/other",
    "dl2/d/plover-1/u/st",
    "homeassistant/x",
    "$SYS/x",
];

/// A topic, and the cells of its row: what each role may do.
pub(crate) struct TopicCells {
    /// Its name.
    pub(crate) name: String,
    /// The ids in it, by place.
    ids: Vec<(&'static str, &'static str)>,
    /// The cells in the order of [`BrokerRole::ALL`]; none for a foreign topic.
    cells: Vec<String>,
}

impl TopicCells {
    fn may(&self, who: &Identity, verb: &str) -> bool {
        let at = BrokerRole::ALL.iter().position(|role| *role == who.role).unwrap();
        let Some(cell) = self.cells.get(at) else { return false };
        let place = match who.role {
            BrokerRole::Device => "<dev>",
            BrokerRole::Verifier => "<ver>",
            BrokerRole::Store => "<store>",
            _ => "",
        };
        let own = self.ids.iter().any(|(name, id)| *name == place && *id == who.id.as_str());
        cell.split(", ").any(|grant| grant == format!("{verb} all") || own && grant == format!("{verb} own"))
    }

    /// True if `who` may publish there.
    pub(crate) fn writes(&self, who: &Identity) -> bool {
        self.may(who, "writes")
    }

    /// True if `who` receives what is published there.
    pub(crate) fn reads(&self, who: &Identity) -> bool {
        self.may(who, "reads")
    }
}

/// All topics of the table with all ids, and the foreign ones.
pub(crate) fn topics() -> Vec<TopicCells> {
    let table = DOC.split_once("| topic | used |").expect("a table of topics").1;
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let mut topics: Vec<_> =
        rows.flat_map(|row| filled(&row.split('|').map(str::trim).collect::<Vec<_>>())).collect();
    assert!(topics.len() > 40, "the table of docs/access.md has {} topics", topics.len());
    topics.extend(FOREIGN.map(|name| TopicCells { name: name.into(), ids: Vec::new(), cells: Vec::new() }));
    topics
}

/// The topics of a row: every combination of ids.
fn filled(row: &[&str]) -> Vec<TopicCells> {
    let cells: Vec<String> =
        row[3..3 + BrokerRole::ALL.len()].iter().map(|cell| (*cell).to_owned()).collect();
    let mut found = vec![(row[1].trim_matches('`').to_owned(), Vec::new())];
    for (place, ids) in PLACES {
        found = found
            .into_iter()
            .flat_map(|(name, known)| match name.contains(place) {
                false => vec![(name, known)],
                true => ids
                    .iter()
                    .map(|id| (name.replace(place, id), [known.clone(), vec![(place, *id)]].concat()))
                    .collect(),
            })
            .collect();
    }
    found.into_iter().map(|(name, ids)| TopicCells { name, ids, cells: cells.clone() }).collect()
}
