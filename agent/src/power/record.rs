//! `power record`: writes the readings of a source as a trace that can be replayed.

use super::gather::Gather;
use super::reader::{Interrupts, ReadingEnd, SensorReader};
use super::say;
use super::tally::{Tally, in_words};
use crate::draft_file::DraftFile;
use crate::flags::{Common, seconds};
use crate::report;
use crate::screen::Colour;
use crate::terminal::{ColourChoice, abilities};
use anyhow::{Context, Result};
use dunlin_power::phase::EnergyPhase;
use dunlin_power::replay::TraceWriter;
use dunlin_power::settings::PowerSettings;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Flags of `power record`.
#[derive(Debug, clap::Args)]
pub(super) struct RecordFlags {
    /// The trace, a CSV file; an existing one is replaced.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// How long to record.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    seconds: Duration,
    #[command(flatten)]
    pub(super) common: Common,
}

/// Records; returns the exit code. Readings before an interrupt are kept.
pub(super) async fn record(args: &RecordFlags, settings: &PowerSettings, color: ColourChoice) -> Result<u8> {
    let errors = abilities(color, &io::stderr());
    let mut interrupts = Interrupts::listen()?;
    let draft = DraftFile::new(&args.out)?;
    let reader = SensorReader::open(settings, EnergyPhase::Idle, errors)?;
    let trace = TraceWriter::new(draft.file()?, reader.source()).context("the trace")?;
    let gathered = Gather::run("recording", args.seconds, &reader, Some(trace), &mut interrupts, errors);
    let (tally, end) = gathered.await?;
    if tally.readings() == 0 {
        report::line(errors, Colour::Yellow, "interrupted before the first reading; nothing is written");
        return Ok(end.code());
    }
    draft.publish()?;
    if let Some(early) = early(end) {
        report::line(errors, Colour::Yellow, early);
    }
    if let Some(lost) = in_words(&tally.faults()) {
        report::line(errors, Colour::Yellow, &format!("{}: {lost}", tally.source()));
    }
    say(&summary(&tally))?;
    say(&format!("written: {}", args.out.display()))?;
    Ok(end.code())
}

/// The reason why the recording ended early, if it did.
fn early(end: ReadingEnd) -> Option<&'static str> {
    match end {
        ReadingEnd::Time => None,
        ReadingEnd::Trace => Some("the trace has ended"),
        ReadingEnd::Interrupt => Some("interrupted; the readings so far are kept"),
    }
}

fn summary(tally: &Tally) -> String {
    format!(
        "{}: {} readings over {:.2} s, {:.3} J ± {:.3} J, {:.3} W on average",
        tally.source(),
        tally.readings(),
        tally.time().as_secs_f64(),
        tally.joules(),
        tally.uncertainty_j(),
        tally.mean_w()
    )
}
