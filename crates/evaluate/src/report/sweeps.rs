//! Runs that sweep one parameter: strictness, radio, round trip, risk.

use super::{Builder, Groups, joules_per_token, place};
use crate::plots::{LineChart, Series, SeriesMark};
use crate::record::CellRecord;
use crate::tables::{Table, code, fixed, percent, setting, significant};
use anyhow::Result;

/// A quantity of a record with its name and its format.
type Column = (&'static str, fn(&CellRecord) -> f64, fn(f64) -> String);

const RATE: Column = ("frames per token", CellRecord::upload_rate, |x| fixed(x, 3));
const TV: Column = ("TV per token", |record| record.tv, |x| fixed(x, 4));
const JOULES: Column = ("modelled J per token", joules_per_token, significant);
const SPEED: Column =
    ("modelled tokens/s", |record| record.committed as f64 / record.seconds, |x| fixed(x, 1));

/// λ and the uncertainty threshold.
pub(super) fn strictness(report: &mut Builder, records: &[CellRecord]) -> Result<()> {
    let groups =
        Groups::new(records, "strictness", |record| format!("{}, {}", code(&record.policy), place(record)));
    if groups.is_empty() {
        return Ok(());
    }
    report.heading("Strictness");
    report.paragraph(
        "λ of the importance threshold across, the uncertainty threshold down. Stricter thresholds send less and \
         trust more.",
    );
    for (group, records) in groups.iter() {
        report.subheading(group);
        for column in [RATE, TV, JOULES] {
            report.table(&grid(records, column));
        }
        let thresholds = distinct(records.iter().filter_map(|record| record.uncertainty_max));
        let line = |threshold: &f64| {
            let mut row: Vec<&CellRecord> =
                records.iter().copied().filter(|record| record.uncertainty_max == Some(*threshold)).collect();
            row.sort_by(|a, b| {
                a.importance_lambda.unwrap_or(0.0).total_cmp(&b.importance_lambda.unwrap_or(0.0))
            });
            let points = row.iter().map(|record| (record.upload_rate(), record.tv));
            Series::new(&format!("u > {}, λ varies", setting(*threshold)), SeriesMark::Both, points)
        };
        let chart = LineChart {
            title: format!("Strictness: {}", group.replace('`', "")),
            x: "draft frames up per committed token".to_string(),
            y: TV.0.to_string(),
            series: thresholds.iter().map(line).collect(),
        };
        report.chart("strictness", &chart)?;
    }
    Ok(())
}

fn grid(records: &[&CellRecord], (name, value, write): Column) -> Table {
    let lambdas = distinct(records.iter().filter_map(|record| record.importance_lambda));
    let heads = lambdas.iter().map(|lambda| format!("λ = {}", setting(*lambda)));
    let mut table = Table::new(std::iter::once(format!("{name}; u above")).chain(heads));
    for threshold in distinct(records.iter().filter_map(|record| record.uncertainty_max)) {
        let cell = |lambda: &f64| {
            let here = |record: &&&CellRecord| {
                (record.uncertainty_max, record.importance_lambda) == (Some(threshold), Some(*lambda))
            };
            write(records.iter().find(here).map_or(f64::NAN, |record| value(record)))
        };
        table.row(std::iter::once(setting(threshold)).chain(lambdas.iter().map(cell)).collect());
    }
    table
}

/// Throughput and energy over the radio's signal-to-noise ratio.
pub(super) fn snr(report: &mut Builder, records: &[CellRecord]) -> Result<()> {
    over(
        report,
        records,
        &Knob { run: "snr", heading: "Over the radio's quality", name: "SNR, dB", value: |r| r.snr_db },
    )
}

/// Throughput and energy over the round trip.
pub(super) fn rtt(report: &mut Builder, records: &[CellRecord]) -> Result<()> {
    let value = |record: &CellRecord| Some(record.rtt_ms);
    over(report, records, &Knob { run: "rtt", heading: "Over the round trip", name: "round trip, ms", value })
}

/// The parameter that a run sweeps.
struct Knob {
    run: &'static str,
    heading: &'static str,
    name: &'static str,
    value: fn(&CellRecord) -> Option<f64>,
}

fn over(report: &mut Builder, records: &[CellRecord], knob: &Knob) -> Result<()> {
    let key = if names_the_knob(records, knob) { place_but_channel } else { place };
    let groups = Groups::new(records, knob.run, key);
    if groups.is_empty() {
        return Ok(());
    }
    report.heading(knob.heading);
    for (group, records) in groups.iter() {
        report.subheading(group);
        for column in [SPEED, JOULES] {
            report.table(&by_knob(records, knob, column));
            let mut labels: Vec<&str> = Vec::new();
            for record in records {
                if !labels.contains(&record.label.as_str()) {
                    labels.push(&record.label);
                }
            }
            let line = |label: &&str| {
                let of = records.iter().filter(|record| record.label == **label);
                let mut points: Vec<(f64, f64)> =
                    of.filter_map(|record| Some(((knob.value)(record)?, column.1(record)))).collect();
                points.sort_by(|a, b| a.0.total_cmp(&b.0));
                Series::new(label, SeriesMark::Both, points)
            };
            let series = labels.iter().map(line).collect();
            let title = format!("{}: {group}", knob.heading);
            report.chart(
                knob.run,
                &LineChart { title, x: knob.name.to_string(), y: column.0.to_string(), series },
            )?;
        }
    }
    Ok(())
}

/// True when every channel has only one value of the parameter, so that the sweep is over channels.
fn names_the_knob(records: &[CellRecord], knob: &Knob) -> bool {
    let run: Vec<&CellRecord> = records.iter().filter(|record| record.run == knob.run).collect();
    run.iter().all(|a| run.iter().all(|b| a.channel != b.channel || (knob.value)(a) == (knob.value)(b)))
}

fn place_but_channel(record: &CellRecord) -> String {
    format!("temperature {}, {}", setting(record.temperature), record.board)
}

/// A table with policies in rows and the parameter in columns.
fn by_knob(records: &[&CellRecord], knob: &Knob, (name, value, write): Column) -> Table {
    let at = distinct(records.iter().filter_map(|record| (knob.value)(record)));
    let heads = at.iter().map(|x| format!("{} {}", knob.name, setting(*x)));
    let mut table = Table::new(std::iter::once(name.to_string()).chain(heads));
    let mut seen: Vec<&str> = Vec::new();
    for label in records.iter().map(|record| record.label.as_str()) {
        if seen.contains(&label) {
            continue;
        }
        seen.push(label);
        let cell = |x: &f64| {
            let here = |record: &&&CellRecord| record.label == label && (knob.value)(record) == Some(*x);
            write(records.iter().find(here).map_or(f64::NAN, |record| value(record)))
        };
        table.row(std::iter::once(code(label)).chain(at.iter().map(cell)).collect());
    }
    table
}

/// The share of misses among audited tokens, compared with ε.
pub(super) fn risk(report: &mut Builder, records: &[CellRecord]) {
    let groups = Groups::new(records, "risk", place);
    if groups.is_empty() {
        return;
    }
    report.heading("Is the risk held?");
    report.paragraph(
        "ε is the wanted share of misses among audited tokens, which stay whatever the verdict; TV is bounded from \
         above by the share of kept misses.",
    );
    for (group, records) in groups.iter() {
        let mut table = Table::new([
            "policy",
            "ε",
            "audited",
            "missed",
            "miss rate",
            "of ε",
            "frames per token",
            "TV at most",
            "J/token (modelled)",
        ]);
        for record in records {
            let rate = miss_rate(record);
            let epsilon = record.epsilon.unwrap_or(f64::NAN);
            table.row(vec![
                code(&record.label),
                fixed(epsilon, 3),
                record.audited.to_string(),
                record.missed.to_string(),
                percent(rate, 2),
                fixed(rate / epsilon, 2),
                fixed(record.upload_rate(), 3),
                fixed(record.tv, 4),
                significant(joules_per_token(record)),
            ]);
        }
        report.subheading(group);
        report.table(&table);
    }
}

/// Misses per audited token.
fn miss_rate(record: &CellRecord) -> f64 {
    record.missed as f64 / record.audited as f64
}

/// The distinct values in ascending order.
fn distinct(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.dedup();
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::record;

    #[test]
    fn a_grid_has_a_dash_where_nothing_was_run() {
        let at = |u, lambda, frames_up| CellRecord {
            uncertainty_max: Some(u),
            importance_lambda: Some(lambda),
            frames_up,
            committed: 10,
            ..record("x")
        };
        let (a, b, c) = (at(0.5, 1.0, 1), at(0.3, -1.0, 2), at(0.3, 1.0, 3));
        let table = grid(&[&a, &b, &c], RATE).to_string();
        let rows: Vec<Vec<&str>> =
            table.lines().map(|line| line.split('|').map(str::trim).collect()).collect();
        assert_eq!(rows[0][1..4], ["frames per token; u above", "λ = -1", "λ = 1"]);
        assert_eq!(
            (&rows[2][1..4], &rows[3][1..4]),
            (&["0.3", "0.200", "0.300"][..], &["0.5", "–", "0.100"][..])
        );
    }

    #[test]
    fn channels_are_apart_unless_they_are_the_sweep() {
        let at = |channel: &str, rtt_ms| CellRecord {
            run: "rtt".to_string(),
            channel: channel.to_string(),
            rtt_ms,
            ..record("hlm")
        };
        let headings = |records: &[CellRecord]| {
            let mut report = Builder::default();
            rtt(&mut report, records).unwrap();
            report
                .text
                .lines()
                .filter(|line| line.starts_with("### "))
                .map(str::to_string)
                .collect::<Vec<_>>()
        };
        let named = [at("near", 10.0), at("far", 90.0)];
        assert_eq!(headings(&named), ["### temperature 0.8, pi"]);
        let swept = [at("lte", 10.0), at("lte", 90.0), at("wifi", 10.0), at("wifi", 90.0)];
        assert_eq!(headings(&swept), ["### temperature 0.8, lte, pi", "### temperature 0.8, wifi, pi"]);
    }

    #[test]
    fn a_miss_rate_is_of_audited_tokens() {
        let risk = CellRecord { audited: 200, missed: 3, judged: 9, ..record("risk") };
        assert_eq!(miss_rate(&risk), 0.015);
        assert!(miss_rate(&CellRecord { audited: 0, missed: 0, ..risk }).is_nan());
        assert_eq!(distinct([2.0, 1.0, 2.0].into_iter()), [1.0, 2.0]);
    }
}
