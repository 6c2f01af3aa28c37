//! The report of an evaluation: tables and plots of its records.
//!
//! Invariant: the same records give the same bytes. Every table comes only from the records, sections without a run are
//! left out, and every figure of time or energy is labelled as modelled.

mod ablation;
mod capacity;
mod map;
mod policies;
mod scores;
mod sweeps;
#[cfg(test)]
mod tests;

use super::capacity::VerifierCapacity;
use super::plots::{Bars, LineChart};
use super::record::{CellRecord, TokenRecord};
use super::tables::{Table, code, setting};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;

/// The facts about an evaluation at the head of its report.
#[derive(Clone, Debug, PartialEq)]
pub struct ReportHeader {
    /// The plan's name.
    pub plan: String,
    /// The model pair's name.
    pub pair: String,
    /// Prompts answered.
    pub prompts: usize,
    /// Most tokens of a reply.
    pub tokens_max: usize,
    /// The seed from which all others are derived.
    pub seed: u64,
    /// Replies written, over all settings.
    pub replies: u64,
    /// The capacity of one verifier, if the plan has the policies to compare.
    pub capacity: Option<VerifierCapacity>,
    /// The constants behind modelled time and energy.
    pub constants: Vec<Constant>,
}

/// A constant of the model of network and board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constant {
    /// Its name, with the board or channel it belongs to.
    pub name: String,
    /// Its value with its unit.
    pub value: String,
    /// Its source.
    pub source: String,
}

/// Writes `report.md` and its plots (`*.svg`) to a directory, which is created if it is missing.
///
/// # Errors
/// There are no records, a plot can't be drawn, or a file can't be written.
pub fn write(
    header: &ReportHeader,
    records: &[CellRecord],
    tokens: &[TokenRecord],
    out: &Path,
) -> Result<()> {
    let report = build(header, records, tokens)?;
    fs::create_dir_all(out).with_context(|| format!("creating {}", out.display()))?;
    let text = ("report.md".to_string(), report.text);
    for (name, bytes) in std::iter::once(text).chain(report.plots) {
        let path = out.join(name);
        fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn build(header: &ReportHeader, records: &[CellRecord], tokens: &[TokenRecord]) -> Result<Builder> {
    ensure!(!records.is_empty(), "there are no records to report on: no run of the plan wrote a reply");
    let mut report = Builder::default();
    head(&mut report, header);
    policies::main(&mut report, records)?;
    policies::other_sizes(&mut report, records);
    policies::bonus(&mut report, records);
    policies::dominance(&mut report, records);
    scores::uncertainty(&mut report, tokens)?;
    scores::importance(&mut report, tokens)?;
    ablation::section(&mut report, records)?;
    sweeps::strictness(&mut report, records)?;
    sweeps::snr(&mut report, records)?;
    sweeps::rtt(&mut report, records)?;
    policies::energy(&mut report, records)?;
    sweeps::risk(&mut report, records);
    map::section(&mut report, records)?;
    capacity::section(&mut report, header.capacity.as_ref());
    constants(&mut report, &header.constants);
    Ok(report)
}

fn head(report: &mut Builder, header: &ReportHeader) {
    let ReportHeader { plan, pair, prompts, tokens_max, seed, replies, .. } = header;
    report.text = format!("# Evaluation: {plan}\n");
    report.paragraph(&format!(
        "Pair {}, {prompts} prompts, at most {tokens_max} tokens each, seed {seed}; {replies} replies.",
        code(pair)
    ));
    report.paragraph(
        "**Real:** the text, the models' distributions, the frames and their bytes. **Modelled:** every second and \
         every joule. They follow from the real frames and passes by the constants at the end; nothing here was \
         measured on a board.",
    );
}

fn constants(report: &mut Builder, constants: &[Constant]) {
    if constants.is_empty() {
        return;
    }
    report.heading("Constants of the model");
    let mut table = Table::new(["constant", "value", "source"]);
    for Constant { name, value, source } in constants {
        table.row(vec![name.clone(), value.clone(), source.clone()]);
    }
    report.table(&table);
}

/// A report under construction.
#[derive(Debug, Default)]
struct Builder {
    text: String,
    /// File name and SVG.
    plots: Vec<(String, String)>,
}

impl Builder {
    fn heading(&mut self, text: &str) {
        self.text += &format!("\n## {text}\n");
    }

    fn subheading(&mut self, text: &str) {
        self.text += &format!("\n### {text}\n");
    }

    fn paragraph(&mut self, text: &str) {
        self.text += &format!("\n{text}\n");
    }

    fn table(&mut self, table: &Table) {
        if !table.is_empty() {
            self.text += &format!("\n{table}");
        }
    }

    /// Adds a chart as the next plot of a section; a chart without points is left out.
    fn chart(&mut self, section: &str, chart: &LineChart) -> Result<()> {
        if !chart.is_empty() {
            self.plot(
                section,
                &chart.title,
                chart.svg().with_context(|| format!("drawing {}", chart.title))?,
            );
        }
        Ok(())
    }

    fn bars(&mut self, section: &str, bars: &Bars) -> Result<()> {
        self.plot(section, &bars.title, bars.svg().with_context(|| format!("drawing {}", bars.title))?);
        Ok(())
    }

    fn plot(&mut self, section: &str, title: &str, svg: String) {
        let of_section =
            |(name, _): &&(String, String)| name.rsplit_once('-').is_some_and(|(of, _)| of == section);
        let name = format!("{section}-{}.svg", self.plots.iter().filter(of_section).count() + 1);
        self.paragraph(&format!("![{title}]({name})"));
        self.plots.push((name, svg));
    }
}

/// The records of one run, grouped by what they have in common, in the order of the plan.
struct Groups<'a>(Vec<(String, Vec<&'a CellRecord>)>);

impl<'a> Groups<'a> {
    fn new(
        records: impl IntoIterator<Item = &'a CellRecord>,
        run: &str,
        key: fn(&CellRecord) -> String,
    ) -> Self {
        let mut groups: Vec<(String, Vec<&CellRecord>)> = Vec::new();
        for record in records.into_iter().filter(|record| record.run == run) {
            let key = key(record);
            match groups.iter_mut().find(|(known, _)| *known == key) {
                Some((_, group)) => group.push(record),
                None => groups.push((key, vec![record])),
            }
        }
        Self(groups)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn iter(&self) -> impl Iterator<Item = (&str, &[&'a CellRecord])> {
        self.0.iter().map(|(key, group)| (key.as_str(), group.as_slice()))
    }
}

/// Temperature, channel and board of a record.
fn place(record: &CellRecord) -> String {
    format!("temperature {}, {}, {}", setting(record.temperature), record.channel, record.board)
}

fn joules_per_token(record: &CellRecord) -> f64 {
    record.per_token(record.joules())
}

fn joules_above_idle_per_token(record: &CellRecord) -> f64 {
    record.per_token(record.joules() - record.idle_j)
}
