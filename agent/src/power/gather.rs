//! A measurement of known length: its sums, its progress, and an optional trace.

use super::progress::PowerProgress;
use super::reader::{Interrupts, Listener, ReadingEnd, SensorReader};
use super::tally::Tally;
use crate::screen::{Abilities, Colour};
use anyhow::{Context, Result, bail};
use dunlin_power::meter::MeterEvent;
use dunlin_power::replay::TraceWriter;
use std::fs::File;
use std::time::Duration;

/// The measurement.
pub(super) struct Gather {
    tally: Tally,
    progress: PowerProgress,
    trace: Option<TraceWriter<File>>,
}

impl Gather {
    /// Reads for `span`; returns the sums and the reason why it ended. Readings are also written to `trace`, if
    /// given.
    ///
    /// # Errors
    /// There was no reading, or the trace can't be written.
    pub(super) async fn run(
        what: &str,
        span: Duration,
        reader: &SensorReader,
        trace: Option<TraceWriter<File>>,
        interrupts: &mut Interrupts,
        errors: Abilities,
    ) -> Result<(Tally, ReadingEnd)> {
        let tally = Tally::new(reader.source());
        let mut gather = Self { tally, progress: PowerProgress::new(what, span, errors)?, trace };
        let end = reader.read(Some(span), interrupts, &mut gather).await;
        gather.progress.end();
        if let Some(trace) = gather.trace {
            trace.finish().context("the trace")?;
        }
        gather.tally.finish();
        let end = end?;
        if gather.tally.readings() == 0 && end != ReadingEnd::Interrupt {
            bail!("{}, {}: no reading came", reader.source(), reader.source().part);
        }
        Ok((gather.tally, end))
    }
}

impl Listener for Gather {
    fn heard(&mut self, heard: &MeterEvent) -> Result<()> {
        if let Some(trouble) = self.tally.hear(heard) {
            self.progress.line(Colour::Yellow, &trouble);
        }
        match (heard, &mut self.trace) {
            (MeterEvent::Sample(sample, rail), Some(trace)) => trace.push(sample, *rail).context("the trace"),
            _ => Ok(()),
        }
    }

    fn passed(&mut self, time: Duration) -> Result<()> {
        self.progress.at(time, self.tally.readings());
        Ok(())
    }
}
