//! `power`: lists power sources and their readings, records traces, and calibrates sensors.
//!
//! Invariant: every figure of power or energy is shown with its source.

pub(crate) mod advice;
mod calibrate;
mod examine;
mod gather;
mod line;
mod probe;
mod progress;
mod reader;
mod record;
mod sparkline;
mod tally;
mod watch;

use crate::flags::{Common, PolicyFlags};
use crate::terminal::ColourChoice;
use anyhow::{Context, Result};
use dunlin_power::settings::PowerSettings;
use std::io::{self, Write};

/// Flags of `power`.
#[derive(Debug, clap::Args)]
pub struct PowerFlags {
    #[command(subcommand)]
    command: PowerCommand,
}

#[derive(Debug, clap::Subcommand)]
enum PowerCommand {
    /// List the power sources that answer, their readings, and advice for the others.
    Probe(probe::ProbeFlags),
    /// Show the board's power live.
    Watch(watch::WatchFlags),
    /// Write the readings to a trace for the source `replay`.
    Record(record::RecordFlags),
    /// Measure the idle board's power and, with two known loads, the sensor's own error.
    Calibrate(calibrate::PowerCalibrateFlags),
}

impl PowerFlags {
    /// The settings.
    ///
    /// # Errors
    /// Names the flag or key that is wrong.
    pub(crate) fn checked(&self) -> Result<PowerSettings> {
        if let PowerCommand::Calibrate(args) = &self.command {
            args.check()?;
        }
        Ok(self.common().settings(&PolicyFlags::default())?.power)
    }

    fn common(&self) -> &Common {
        match &self.command {
            PowerCommand::Probe(args) => &args.common,
            PowerCommand::Watch(args) => &args.common,
            PowerCommand::Record(args) => &args.common,
            PowerCommand::Calibrate(args) => &args.common,
        }
    }

    fn color(&self) -> ColourChoice {
        self.common().color
    }
}

/// Runs a command; returns the exit code.
///
/// # Errors
/// The source doesn't answer or gives no reading, or an output can't be written.
pub async fn power(args: &PowerFlags, settings: &PowerSettings) -> Result<u8> {
    let color = args.color();
    match &args.command {
        PowerCommand::Probe(args) => probe::probe(args, settings, color).await,
        PowerCommand::Watch(args) => watch::watch(args, settings, color).await,
        PowerCommand::Record(args) => record::record(args, settings, color).await,
        PowerCommand::Calibrate(args) => calibrate::calibrate(args, settings, color).await,
    }
}

/// Writes a line to standard output.
fn say(text: &str) -> Result<()> {
    writeln!(io::stdout(), "{text}").context("standard output")
}
