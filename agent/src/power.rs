//! `power`: which sources of power there are, what they show, traces of them, and their calibration.
//!
//! Invariant: no watt and no joule is said without its source.

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
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the power sources that answer, their readings, and advice for the others.
    Probe(probe::Args),
    /// Show the board's power live.
    Watch(watch::Args),
    /// Write the readings to a trace for the source `replay`.
    Record(record::Args),
    /// Measure the idle board's power and, with two known loads, the sensor's own error.
    Calibrate(calibrate::Args),
}

impl Args {
    /// The settings.
    ///
    /// # Errors
    /// Names the flag or the key that is wrong.
    pub(crate) fn checked(&self) -> Result<PowerSettings> {
        if let Command::Calibrate(args) = &self.command {
            args.check()?;
        }
        Ok(self.common().settings(&PolicyFlags::default())?.power)
    }

    fn common(&self) -> &Common {
        match &self.command {
            Command::Probe(args) => &args.common,
            Command::Watch(args) => &args.common,
            Command::Record(args) => &args.common,
            Command::Calibrate(args) => &args.common,
        }
    }

    fn color(&self) -> ColourChoice {
        self.common().color
    }
}

/// Runs a command; returns the exit code.
///
/// # Errors
/// The source does not answer or gives no reading, or something can't be written.
pub async fn power(args: &Args, settings: &PowerSettings) -> Result<u8> {
    let color = args.color();
    match &args.command {
        Command::Probe(args) => probe::probe(args, settings, color).await,
        Command::Watch(args) => watch::watch(args, settings, color).await,
        Command::Record(args) => record::record(args, settings, color).await,
        Command::Calibrate(args) => calibrate::calibrate(args, settings, color).await,
    }
}

/// Writes a line to standard output.
fn say(text: &str) -> Result<()> {
    writeln!(io::stdout(), "{text}").context("standard output")
}
