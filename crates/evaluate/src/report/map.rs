//! Who should write, by link, drafter, board, target, load and acceptance, and how close the automatic choice comes.
//!
//! The run `map` has the heat maps; `map-acceptance` and `map-learned` add to the tables.

use super::Builder;
use crate::plots::HeatMap;
use crate::record::CellRecord;
use crate::tables::{Table, fixed, percent, setting};
use anyhow::Result;
use dunlin_hlm::policy::Policy;
use serde::Serialize;
use std::collections::BTreeMap;

/// Costs of one cell in the unit of its objective, for each committed token.
#[derive(Clone, Copy, Debug, Default)]
struct Costs {
    stream: Option<f64>,
    lossless: Option<f64>,
    auto: Option<f64>,
}

/// The run with the heat maps, and the beginning of the other runs' names.
const MAP: &str = "map";

/// The conditions of a cell, as text that orders and names them.
type Conditions<'a> = (String, &'a str, &'a str, &'a str, String, String, &'a str, String, String);

/// A cell with all three costs.
struct MapCell<'a> {
    /// The drafter's acceptance, and what the device knew before.
    setting: String,
    /// True for a cell of the run [`MAP`].
    is_mapped: bool,
    objective: &'a str,
    board: &'a str,
    drafter: String,
    x: String,
    y: String,
    stream: f64,
    lossless: f64,
    auto: f64,
}

/// The automatic choice beside the better of both ways.
#[derive(Debug, PartialEq, Serialize)]
struct MapSummary {
    cells: usize,
    /// Share of the cells in which it costs at most 3 % more, 0..=1.
    within_3_percent: f64,
    /// The same for 10 %.
    within_10_percent: f64,
    /// Largest ratio of its cost to that of the better way.
    worst: f64,
    /// Cells in which it costs at least 3 % less than either way.
    better_than_both: usize,
    /// Share of the cells in which drafting is cheaper than streaming.
    drafting_pays: f64,
}

/// The summary of a part of the cells.
#[derive(Debug, Serialize)]
struct NamedSummary<'a> {
    setting: String,
    objective: &'a str,
    #[serde(flatten)]
    summary: MapSummary,
}

impl MapCell<'_> {
    /// The automatic choice's cost over that of the better way.
    fn ratio(&self) -> f64 {
        self.auto / self.stream.min(self.lossless)
    }
}

impl MapSummary {
    fn of<'a>(cells: impl Iterator<Item = &'a MapCell<'a>>) -> Self {
        let cells: Vec<&MapCell<'_>> = cells.collect();
        let count = |test: &dyn Fn(&MapCell<'_>) -> bool| cells.iter().filter(|cell| test(cell)).count();
        let share = |test: &dyn Fn(&MapCell<'_>) -> bool| count(test) as f64 / cells.len().max(1) as f64;
        Self {
            cells: cells.len(),
            within_3_percent: share(&|cell| cell.ratio() <= 1.03),
            within_10_percent: share(&|cell| cell.ratio() <= 1.1),
            worst: cells.iter().map(|cell| cell.ratio()).fold(0.0, f64::max),
            better_than_both: count(&|cell| cell.ratio() < 0.97),
            drafting_pays: share(&|cell| cell.lossless < cell.stream),
        }
    }
}

/// The section, its heat maps, and `map.json`.
pub(super) fn section(report: &mut Builder, records: &[CellRecord]) -> Result<()> {
    let cells = cells(records);
    if cells.is_empty() {
        return Ok(());
    }
    report.heading("Who should write");
    report.paragraph(
        "Drafting (`lossless`), streaming (`stream`) and the automatic choice (`auto`), in modelled joules or seconds \
         per token, whichever the device minimises. Where nothing else is said, a cell starts with nothing learned but \
         the drafter's speed, so the automatic choice pays for learning, too. `learned before`: it had played as many \
         replies before. `acceptance 0.5`: the target accepts a draft with this probability, whatever its score, in \
         place of the pair's own acceptance.",
    );
    let mut table = Table::new([
        "setting",
        "objective",
        "cells",
        "drafting is cheaper",
        "auto within 3 %",
        "within 10 %",
        "worst",
        "cheaper than both by 3 %",
    ]);
    let objectives = distinct(cells.iter().map(|cell| cell.objective));
    let mut summaries = Vec::new();
    for (name, objective) in distinct(cells.iter().map(|cell| (cell.setting.clone(), cell.objective))) {
        let here = |cell: &&MapCell<'_>| cell.setting == name && cell.objective == objective;
        let summary = MapSummary::of(cells.iter().filter(here));
        table.row(vec![
            name.clone(),
            objective.to_string(),
            summary.cells.to_string(),
            percent(summary.drafting_pays, 1),
            percent(summary.within_3_percent, 1),
            percent(summary.within_10_percent, 1),
            fixed(summary.worst, 2),
            summary.better_than_both.to_string(),
        ]);
        summaries.push(NamedSummary { setting: name, objective, summary });
    }
    report.table(&table);
    for objective in &objectives {
        report.subheading(&format!("By {objective}"));
        let mut table = Table::new([
            "board, drafter",
            "drafting is cheaper",
            "median of lossless / stream",
            "least",
            "most",
        ]);
        let here = || cells.iter().filter(|cell| cell.is_mapped && cell.objective == *objective);
        for place in distinct(here().map(|cell| (cell.board, cell.drafter.clone()))) {
            let of: Vec<&MapCell<'_>> =
                here().filter(|cell| (cell.board, &cell.drafter) == (place.0, &place.1)).collect();
            let mut ratios: Vec<f64> = of.iter().map(|cell| cell.lossless / cell.stream).collect();
            ratios.sort_by(f64::total_cmp);
            let pays = ratios.iter().filter(|ratio| **ratio < 1.0).count() as f64 / ratios.len() as f64;
            let at = |i: usize| fixed(ratios[i], 2);
            let name = format!("{}, {}", place.0, place.1);
            let most = ratios.len() - 1;
            table.row(vec![name.clone(), percent(pays, 0), at(most / 2), at(0), at(most)]);
            let map = heat_map(&format!("{name}, by {objective}"), &of);
            report.plot("map", &map.title, map.svg()?);
        }
        report.table(&table);
    }
    report.plots.push(("map.json".to_string(), json(&cells, &summaries)));
    Ok(())
}

/// The summaries for programs.
fn json(cells: &[MapCell<'_>], parts: &[NamedSummary<'_>]) -> String {
    let all = MapSummary::of(cells.iter());
    let json = serde_json::json!({
        "cells": all.cells,
        "within_3_percent": all.within_3_percent,
        "within_10_percent": all.within_10_percent,
        "worst": all.worst,
        "better_than_both": all.better_than_both,
        "parts": parts,
    });
    format!("{json:#}\n")
}

fn cells(records: &[CellRecord]) -> Vec<MapCell<'_>> {
    let mut costs: BTreeMap<usize, (Conditions<'_>, Costs)> = BTreeMap::new();
    let mut places: BTreeMap<Conditions<'_>, usize> = BTreeMap::new();
    for record in records.iter().filter(|record| record.run.starts_with(MAP)) {
        let conditions = conditions(record);
        let next = places.len();
        let place = *places.entry(conditions.clone()).or_insert(next);
        let (_, entry) = costs.entry(place).or_insert((conditions, Costs::default()));
        let cost = if record.objective == "seconds" { record.seconds } else { record.joules() };
        let cost = Some(record.per_token(cost));
        match record.policy.parse() {
            Ok(Policy::Stream) => entry.stream = cost,
            Ok(Policy::Lossless) => entry.lossless = cost,
            Ok(Policy::Auto) => entry.auto = cost,
            _ => {}
        }
    }
    costs
        .into_values()
        .filter_map(|((setting, run, objective, board, drafter, rtt, channel, pass, sessions), costs)| {
            Some(MapCell {
                setting,
                is_mapped: run == MAP,
                objective,
                board,
                drafter,
                x: format!("{channel} {rtt}"),
                y: format!("{pass} ms, {sessions}"),
                stream: costs.stream?,
                lossless: costs.lossless?,
                auto: costs.auto?,
            })
        })
        .collect()
}

fn conditions(record: &CellRecord) -> Conditions<'_> {
    let millions = record.drafter_parameters / 1e6;
    let drafter =
        if millions < 1000.0 { format!("{millions:.0} M") } else { format!("{:.1} B", millions / 1e3) };
    (
        knowledge(record),
        &record.run,
        &record.objective,
        &record.board,
        drafter,
        setting(record.rtt_ms),
        &record.channel,
        setting(record.pass_ms),
        setting(record.sessions),
    )
}

/// The drafter's acceptance, and what the device knew before.
fn knowledge(record: &CellRecord) -> String {
    let acceptance = match record.acceptance {
        Some(probability) => format!("acceptance {}", setting(probability)),
        None => "the pair's acceptance".into(),
    };
    if record.learned { format!("{acceptance}, learned before") } else { acceptance }
}

/// The ratio of drafting's cost to streaming's, by channel and round trip, and by pass and sessions.
fn heat_map(name: &str, cells: &[&MapCell<'_>]) -> HeatMap {
    let (x, y) = (
        distinct(cells.iter().map(|cell| cell.x.clone())),
        distinct(cells.iter().map(|cell| cell.y.clone())),
    );
    let mut values = vec![vec![f64::NAN; x.len()]; y.len()];
    for cell in cells {
        let place = (y.iter().position(|name| *name == cell.y), x.iter().position(|name| *name == cell.x));
        if let (Some(row), Some(column)) = place {
            values[row][column] = cell.lossless / cell.stream;
        }
    }
    HeatMap {
        title: format!("Cost of drafting over streaming: {name}"),
        x_name: "channel and round trip, ms".to_string(),
        y_name: "pass and sessions".to_string(),
        x,
        y,
        values,
    }
}

fn distinct<T: PartialEq>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = Vec::new();
    for value in values {
        if !seen.contains(&value) {
            seen.push(value);
        }
    }
    seen
}
