//! The constants behind modelled figures, with the source that their file gives.

use super::plan::{EvaluationPlan, Writer};
use super::report::Constant;
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::path::Path;
use toml_edit::{Decor, DocumentMut, Item, Table, Value};

/// The table with a board's modelled constants in its file.
const MODELLED: &str = "modelled";

/// Units by the suffix of a key.
const UNITS: [(&str, &str); 10] = [
    ("_bytes_per_s", "bytes/s"),
    ("_ns_per_entry", "ns"),
    ("_bps_max", "bit/s"),
    ("_bps_min", "bit/s"),
    ("_bytes", "bytes"),
    ("_db", "dB"),
    ("_hz", "Hz"),
    ("_ms", "ms"),
    ("_us", "µs"),
    ("_w", "W"),
];

/// The constants of all boards and channels of a plan, and of the server.
///
/// # Errors
/// A file can no longer be read.
pub fn constants(plan: &EvaluationPlan) -> Result<Vec<Constant>> {
    let (mut boards, mut channels) = (BTreeSet::new(), BTreeSet::new());
    for cell in &plan.cells {
        if let Writer::Policy(_, board, channel) = &cell.writer {
            boards.insert(&board.name);
            channels.insert(&channel.name);
        }
    }
    let mut all = Vec::new();
    let plan_says =
        |name: &str, value: String| Constant { name: name.into(), value, source: "the plan: ours".into() };
    all.push(plan_says("target, a pass", format!("{} µs", plan.server.pass_us)));
    all.push(plan_says("target, a token fed", format!("{} µs", plan.server.token_us)));
    if let Some(size) = plan.modelled {
        let value = format!("{} of {} bits", size.drafter_parameters, size.drafter_bits);
        all.push(plan_says("drafter, parameters", value));
    }
    for name in boards {
        let board = document(&plan.boards_dir.join(format!("{name}.toml")))?;
        let modelled = board.get(MODELLED).and_then(Item::as_table);
        all.extend(modelled.map(|table| of_table(table, name)).unwrap_or_default());
    }
    for name in channels {
        let channel = document(&plan.channels_dir.join(format!("{name}.toml")))?;
        all.extend(of_table(&channel, name));
    }
    Ok(all)
}

fn document(path: &Path) -> Result<DocumentMut> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    text.parse().with_context(|| path.display().to_string())
}

/// The numbers of a table and of the tables in it.
///
/// A number's source is the comment above or behind it. A key without a comment shares that of the key above, unless
/// there is an empty line between them; the first keys of a table share the table's.
fn of_table(table: &Table, owner: &str) -> Vec<Constant> {
    let mut constants = Vec::new();
    let mut source = comment(table.decor()).unwrap_or_default();
    for (key, item) in table {
        let Item::Value(value) = item else {
            constants.extend(item.as_table().map(|inner| of_table(inner, owner)).unwrap_or_default());
            continue;
        };
        let decor = table.key(key).map(|key| key.leaf_decor());
        let own = decor.and_then(comment).or_else(|| comment(value.decor()));
        let apart = decor.is_some_and(|decor| prefix(decor).contains('\n'));
        source = own.unwrap_or(if apart { String::new() } else { source });
        let number = match value {
            Value::Integer(number) => number.display_repr(),
            Value::Float(number) => number.display_repr(),
            _ => continue,
        };
        let unit = UNITS.iter().find(|(end, _)| key.ends_with(end)).map_or("", |(_, unit)| unit);
        let value = format!("{number} {unit}").trim_end().to_owned();
        constants.push(Constant { name: format!("{owner}, {key}"), value, source: source.clone() });
    }
    constants
}

/// The comment at a key, a value or a table, joined to one line: the last paragraph above it, or the rest of its
/// line.
fn comment(decor: &Decor) -> Option<String> {
    let text = |line: &str| line.trim().strip_prefix('#').map(|text| text.trim().to_owned());
    let above = prefix(decor).trim_end();
    let above: Vec<String> = above.rsplit("\n\n").next().unwrap_or(above).lines().filter_map(text).collect();
    let behind = decor.suffix().and_then(|suffix| suffix.as_str()).and_then(text);
    if above.is_empty() { behind } else { Some(above.join(" ")) }
}

fn prefix(decor: &Decor) -> &str {
    decor.prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn constants_of(text: &str) -> Vec<Constant> {
        of_table(&text.parse::<DocumentMut>().unwrap(), "a")
    }

    fn constant(name: &str, value: &str, source: &str) -> Constant {
        Constant { name: format!("a, {name}"), value: value.into(), source: source.into() }
    }

    #[test]
    fn a_constant_has_the_comment_above_or_behind_it() {
        let text = "# A channel.\nname = \"a\"\n\n# Read\n# there.\nidle_w = 2.5\nrun_us = 3\n# ours\n\
                    flops = 1e9 # not this\nloss = 0.0\nscore_w = 1 # Guessed.\n\nlate_ms = 4\n\
                    \n# Of the stack.\n[stack]\nack_bytes = 40\n# Another.\ntls_bytes = 22\n";
        let expected = [
            constant("idle_w", "2.5 W", "Read there."),
            constant("run_us", "3 µs", "Read there."),
            constant("flops", "1e9", "ours"),
            constant("loss", "0.0", "ours"),
            constant("score_w", "1 W", "Guessed."),
            constant("late_ms", "4 ms", ""),
            constant("ack_bytes", "40 bytes", "Of the stack."),
            constant("tls_bytes", "22 bytes", "Another."),
        ];
        assert_eq!(constants_of(text), expected);
    }

    #[test]
    fn a_board_gives_its_modelled_table_alone() {
        let dir = tempfile::tempdir().unwrap();
        let board = "name = \"b\"\n[link]\nkeep_alive_seconds = 20\n[power]\n# Common modules carry 0.1 ohm.\n\
                     shunt_milliohms = 100\nsupply_volts = 5.0\n[modelled]\nidle_w = 2\n# Ours.\ndraft_w = 3.5\n\
                     score_w = 1\nrun_us = 100\nweight_bytes_per_s = 4e9\nflops = 16e9\nscore_ns_per_entry = 500\n";
        std::fs::write(dir.path().join("b.toml"), board).unwrap();
        let channels = Path::new(env!("CARGO_MANIFEST_DIR")).join("channels");
        let plan = format!(
            "name = 'p'\nseed = 1\npair = {pair:?}\nboards_dir = {boards:?}\nchannels_dir = {channels:?}\nprompts = 1\n\
             tokens_max = 8\nserver = {{ pass_us = 10, token_us = 1 }}\n[[run]]\nname = 'r'\nboards = ['b']\n\
             channels = ['wifi']\ntemperatures = [0.0]\npolicy = [{{ name = 'lossless' }}]\n",
            pair = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo"),
            boards = dir.path(),
        );
        std::fs::write(dir.path().join("p.toml"), plan).unwrap();
        let all = constants(&EvaluationPlan::load(&dir.path().join("p.toml")).unwrap()).unwrap();
        let of_board: Vec<(&str, &str)> = all
            .iter()
            .filter_map(|constant| Some((constant.name.strip_prefix("b, ")?, constant.source.as_str())))
            .collect();
        let keys = ["draft_w", "score_w", "run_us", "weight_bytes_per_s", "flops", "score_ns_per_entry"];
        let mut expected = vec![("idle_w", "")];
        expected.extend(keys.map(|key| (key, "Ours.")));
        assert_eq!(of_board, expected);
        let source = |name: &str| all.iter().find(|constant| constant.name == name).unwrap().source.clone();
        assert!(source("wifi, rate_bps_min").starts_with("802.11n: a channel of 20 MHz"));
        assert_eq!(source("wifi, tls_bytes"), "As on ethernet.");
    }
}
