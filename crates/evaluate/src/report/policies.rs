//! The runs named `main`: comparison of policies, dominance, and energy by phase.

use super::{Builder, Groups, joules_above_idle_per_token, joules_per_token, place};
use crate::plots::{Bars, LineChart, Series, SeriesMark};
use crate::record::CellRecord;
use crate::tables::{Table, code, fixed, optional, percent, significant};
use anyhow::Result;
use dunlin_hlm::policy::Policy;

/// The baseline: the target's own text with another seed, which shows the text metrics of two samples of the same
/// distribution.
const AGAIN: &str = "target-again";
/// A distance below this is a rounding error.
const TV_ZERO: f64 = 1e-6;

/// Text, radio, computation and energy of each policy, cell by cell.
pub(super) fn main(report: &mut Builder, records: &[CellRecord]) -> Result<()> {
    let again = |record: &&CellRecord| record.policy == AGAIN;
    let cells = Groups::new(records.iter().filter(|record| !again(record)), "main", place);
    if cells.is_empty() {
        return Ok(());
    }
    report.heading("Policies side by side");
    report.paragraph(
        "TV and KL are means per token of the policy's one-step law against the target's at the same prefix; NLL \
         is of the committed tokens under the target, in nats. ROUGE-L, slots and BERTScore compare with what the \
         target alone writes with the same seed. The saving is 1 − J/J(`hlm`) per committed token: *gross* with \
         what the idle board draws, *above idle* without.",
    );
    let all_again: Vec<&CellRecord> = records.iter().filter(again).collect();
    for (cell, records) in cells.iter() {
        report.subheading(cell);
        let floor = all_again
            .iter()
            .filter(|floor| records.iter().any(|record| record.temperature == floor.temperature));
        report.table(&text(&records.iter().copied().chain(floor.copied()).collect::<Vec<_>>()));
        report.table(&radio(records));
        report.table(&compute(records));
        let point = |record: &&CellRecord| {
            let at = (record.upload_rate(), record.tv);
            Series::new(&record.label, SeriesMark::Points, [at])
        };
        let chart = LineChart {
            title: format!("Policies: {cell}"),
            x: "draft frames up per committed token".to_string(),
            y: "TV per token".to_string(),
            series: records.iter().map(point).collect(),
        };
        report.chart("policies", &chart)?;
    }
    Ok(())
}

/// The cost with the modelled times of other drafters; the text stays that of the pair.
pub(super) fn other_sizes(report: &mut Builder, records: &[CellRecord]) {
    let cells = Groups::new(records, "size", |record| {
        format!("{}, {:.0} M parameters", place(record), record.drafter_parameters / 1e6)
    });
    if cells.is_empty() {
        return;
    }
    report.heading("With another drafter on the clock");
    report.paragraph(
        "The text and the frames are those of the pair; a draft takes the time of a drafter of this size. What \
         drafting costs, no policy that drafts can save.",
    );
    for (cell, records) in cells.iter() {
        report.subheading(cell);
        report.table(&compute(records));
    }
}

/// The gain of a baseline from our additions to its paper.
pub(super) fn bonus(report: &mut Builder, records: &[CellRecord]) {
    let cells = Groups::new(records, "bonus", place);
    if cells.is_empty() {
        return;
    }
    report.heading("What the bonus token is worth");
    report.paragraph(
        "The same trigger, payload and coupling, with held tokens verified instead of trusted: a frame brings one \
         more token where all of its drafts stand, and the device drafts ahead while it waits.",
    );
    for (cell, records) in cells.iter() {
        report.subheading(cell);
        report.table(&radio(records));
        report.table(&compute(records));
    }
}

fn text(records: &[&CellRecord]) -> Table {
    let bert = records.iter().any(|record| record.bertscore.is_some());
    let mut heads = vec!["policy", "exact", "TV", "KL, nats", "NLL, nats", "ROUGE-L", "slots"];
    heads.extend(bert.then_some("BERTScore"));
    let mut table = Table::new(heads);
    for record in records {
        let noise = if record.policy == AGAIN { " (noise floor)" } else { "" };
        let mut row = vec![
            code(&record.label) + noise,
            percent(record.exact, 1),
            fixed(record.tv, 4),
            optional(record.kl, 4),
            fixed(record.nll, 3),
            fixed(record.rouge_l, 3),
            percent(record.slots, 1),
        ];
        row.extend(bert.then(|| optional(record.bertscore, 3)));
        table.row(row);
    }
    table
}

fn radio(records: &[&CellRecord]) -> Table {
    let mut table = Table::new(["up per token", "frames", "payload, B", "MQTT, B", "TLS, B", "down MQTT, B"]);
    for record in records.iter().filter(|record| record.policy != AGAIN) {
        let bytes = |bytes: u64| fixed(record.per_token(bytes as f64), 1);
        table.row(vec![
            code(&record.label),
            fixed(record.upload_rate(), 3),
            bytes(record.payload_up),
            bytes(record.mqtt_up),
            bytes(record.tls_up),
            bytes(record.mqtt_down),
        ]);
    }
    table
}

fn compute(records: &[&CellRecord]) -> Table {
    let hlm = preset(records, "hlm");
    let stream = preset(records, "stream");
    let mut table = Table::new([
        "policy",
        "accepted",
        "drafted per token",
        "target tokens per token",
        "target passes per token",
        "target ms/token (modelled)",
        "tokens/s (modelled)",
        "J/token (modelled)",
        "gross saving (modelled)",
        "saving above idle (modelled)",
        "gross saving against stream (modelled)",
        "board and server J/token (modelled)",
    ]);
    for record in records {
        let against = |cost: fn(&CellRecord) -> f64| {
            percent(hlm.map_or(f64::NAN, |hlm| saving(cost(record), cost(hlm))), 1)
        };
        table.row(vec![
            code(&record.label),
            percent(record.accepted as f64 / record.judged as f64, 1),
            fixed(record.per_token(record.drafted as f64), 2),
            fixed(record.per_token(record.target_tokens as f64), 2),
            fixed(record.per_token(record.target_passes as f64), 2),
            fixed(record.per_token(record.target_seconds * 1e3), 1),
            fixed(record.committed as f64 / record.seconds, 1),
            significant(joules_per_token(record)),
            against(joules_per_token),
            against(joules_above_idle_per_token),
            percent(
                stream.map_or(f64::NAN, |own| saving(joules_per_token(record), joules_per_token(own))),
                1,
            ),
            significant(if record.server_j > 0.0 {
                record.per_token(record.joules() + record.server_j)
            } else {
                f64::NAN
            }),
        ]);
    }
    table
}

/// The share of a cost that is saved.
fn saving(cost: f64, of: f64) -> f64 {
    1.0 - cost / of
}

/// The record of a policy with its default settings, else its first.
fn preset<'a>(records: &[&'a CellRecord], policy: &str) -> Option<&'a CellRecord> {
    let mut found = records.iter().copied().filter(|record| record.policy == policy);
    found.clone().find(|record| record.label == policy).or_else(|| found.next())
}

/// True when the exact policy dominates: it needs at most as many frames, and only the other policy's text deviates.
fn dominates(lossless: &CellRecord, other: &CellRecord) -> bool {
    lossless.upload_rate() <= other.upload_rate() && lossless.tv < TV_ZERO && other.tv >= TV_ZERO
}

/// True when the text of a policy is the target's or has its distribution.
fn is_exact(policy: &str) -> bool {
    policy == AGAIN || policy.parse::<Policy>().is_ok_and(|policy| policy.rules().is_exact())
}

/// Compares the frames of `lossless` with those of the policies that trade text for frames.
pub(super) fn dominance(report: &mut Builder, records: &[CellRecord]) {
    let (mut holds, mut fails) = (0, Vec::new());
    let mut table = Table::new([
        "policy",
        "where",
        "frames per token",
        "of `lossless`",
        "TV",
        "of `lossless`",
        "dominated",
    ]);
    for (cell, records) in Groups::new(records, "main", place).iter() {
        let Some(lossless) = preset(records, "lossless") else { continue };
        for other in records.iter().filter(|record| !is_exact(&record.policy)) {
            let held = dominates(lossless, other);
            holds += usize::from(held);
            if !held {
                fails.push(format!("{} ({cell})", code(&other.label)));
            }
            table.row(vec![
                code(&other.label),
                cell.to_string(),
                fixed(other.upload_rate(), 3),
                fixed(lossless.upload_rate(), 3),
                fixed(other.tv, 4),
                fixed(lossless.tv, 4),
                if held { "yes" } else { "no" }.to_string(),
            ]);
        }
    }
    if table.is_empty() {
        return;
    }
    report.heading("Does `lossless` dominate?");
    report.paragraph(
        "Dominated: `lossless` sends at most as many frames per token, and its law is the target's (TV below 1e-6) \
         where the other's is not.",
    );
    report.table(&table);
    let all = holds + fails.len();
    report.paragraph(&match fails.len() {
        0 => format!("It holds for all {all}."),
        failed => format!("It holds for {holds} of {all}. It does not for {failed}: {}.", fails.join(", ")),
    });
}

/// Energy by phase.
pub(super) fn energy(report: &mut Builder, records: &[CellRecord]) -> Result<()> {
    const PARTS: [&str; 5] = ["draft", "score", "send", "wait", "idle"];
    let drafting = records.iter().filter(|record| record.policy != AGAIN);
    let cells = Groups::new(drafting, "main", place);
    if cells.is_empty() {
        return Ok(());
    }
    report.heading("Where the joules go");
    report.paragraph(
        "Modelled J per committed token. The first four are above idle: drafting, scoring, sending and receiving, \
         and the radio waiting for an answer; *idle* is what the idle board draws in all that time.",
    );
    for (cell, records) in cells.iter() {
        let parts = PARTS.map(|part| format!("{part}, modelled J"));
        let mut table =
            Table::new([&["policy".to_string()][..], &parts, &["J/token (modelled)".to_string()]].concat());
        let mut bars = Vec::new();
        for record in records {
            let parts = [record.draft_j, record.score_j, record.send_j, record.wait_j, record.idle_j];
            let parts = parts.map(|part| record.per_token(part));
            let mut row = vec![code(&record.label)];
            row.extend(parts.map(significant));
            row.push(significant(joules_per_token(record)));
            table.row(row);
            bars.push((record.label.clone(), parts.to_vec()));
        }
        report.subheading(cell);
        report.table(&table);
        let title = format!("Energy: {cell}");
        report.bars(
            "energy",
            &Bars { title, x: "modelled J per token".to_string(), parts: PARTS.to_vec(), bars },
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::record;

    #[test]
    fn savings_by_hand() {
        assert_eq!([saving(1.0, 4.0), saving(4.0, 4.0), saving(5.0, 4.0)], [0.75, 0.0, -0.25]);
        let a = CellRecord {
            committed: 10,
            draft_j: 1.0,
            score_j: 2.0,
            send_j: 3.0,
            wait_j: 4.0,
            idle_j: 5.0,
            ..record("a")
        };
        assert_eq!((joules_per_token(&a), joules_above_idle_per_token(&a)), (1.5, 1.0));
        let table =
            compute(&[&CellRecord { label: "hlm".to_string(), policy: "hlm".to_string(), ..a.clone() }, &a]);
        assert!(table.to_string().contains("0.0 %"), "{table}");
        let table = compute(&[&a]).to_string();
        assert!(table.contains("– |") && !table.contains("0.0 %"), "no hlm, no saving:\n{table}");
    }

    #[test]
    fn dominance_needs_frames_and_law() {
        let at = |frames_up, tv| CellRecord { frames_up, committed: 100, tv, ..record("x") };
        assert!(dominates(&at(30, 0.0), &at(30, 0.01)));
        assert!(dominates(&at(29, 1e-9), &at(30, 0.01)));
        assert!(!dominates(&at(31, 0.0), &at(30, 0.01)), "more frames");
        assert!(!dominates(&at(30, 0.0), &at(30, 0.0)), "the other is exact too");
        assert!(!dominates(&at(30, 0.01), &at(30, 0.02)), "neither is exact");
        assert!(dominates(&CellRecord { committed: 200, ..at(40, 0.0) }, &at(30, 0.01)), "per token");
    }

    #[test]
    fn the_preset_goes_before_its_variants() {
        let variant = CellRecord { policy: "hlm".to_string(), ..record("hlm x") };
        let plain = CellRecord { policy: "hlm".to_string(), ..record("hlm") };
        assert_eq!(preset(&[&variant, &plain], "hlm"), Some(&plain));
        assert_eq!(preset(&[&variant], "hlm"), Some(&variant));
        assert_eq!(preset(&[&variant], "u-hlm"), None);
    }
}
