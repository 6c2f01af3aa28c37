//! `power watch`: shows the power live as one line that is repainted; without a terminal, a line per second.

use super::line::{LiveLine, SPARK_MAX};
use super::reader::{Interrupts, Listener, ReadingEnd, SensorReader};
use super::tally::Tally;
use crate::flags::{Common, seconds};
use crate::report;
use crate::screen::{Abilities, Colour};
use crate::terminal::{ColourChoice, abilities, columns};
use anyhow::{Context, Result, bail};
use dunlin_power::meter::MeterEvent;
use dunlin_power::phase::EnergyPhase;
use dunlin_power::settings::PowerSettings;
use std::io::{self, Write};
use std::time::Duration;

/// Interval between repaints, and between lines that stay.
const PAINTED_EVERY: Duration = Duration::from_millis(100);
const WRITTEN_EVERY: Duration = Duration::from_secs(1);
/// Moves to the start of the line and clears it.
const ERASE_LINE: &str = "\r\x1b[K";

/// Flags of `power watch`.
#[derive(Debug, clap::Args)]
pub(super) struct WatchFlags {
    /// How long to watch; by default until an interrupt.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    seconds: Option<Duration>,
    #[command(flatten)]
    pub(super) common: Common,
}

/// Shows the power; returns the exit code.
pub(super) async fn watch(args: &WatchFlags, settings: &PowerSettings, color: ColourChoice) -> Result<u8> {
    let (out, errors) = (abilities(color, &io::stdout()), abilities(color, &io::stderr()));
    let mut interrupts = Interrupts::listen()?;
    let reader = SensorReader::open(settings, EnergyPhase::Idle, errors)?;
    let mut watch = Watch::new(Tally::new(reader.source()), out, errors);
    let end = reader.read(args.seconds, &mut interrupts, &mut watch).await?;
    watch.end()?;
    if watch.tally.readings() == 0 && end != ReadingEnd::Interrupt {
        bail!("{}, {}: no reading came", reader.source(), reader.source().part);
    }
    if end == ReadingEnd::Trace {
        report::line(errors, Colour::Yellow, "the trace has ended");
    }
    Ok(end.code())
}

struct Watch {
    tally: Tally,
    out: Abilities,
    errors: Abilities,
    /// Mean powers of the latest intervals between two lines, W.
    watts: Vec<f64>,
    /// Time of the next line.
    due: Duration,
    /// True while the current line will be repainted.
    painted: bool,
}

impl Watch {
    fn new(tally: Tally, out: Abilities, errors: Abilities) -> Self {
        let due = if out.cursor { PAINTED_EVERY } else { WRITTEN_EVERY };
        Self { tally, out, errors, watts: Vec::new(), due, painted: false }
    }

    /// Shows the readings since the last line, if there are any.
    fn show(&mut self) -> Result<()> {
        let Some(now_w) = self.tally.take_lately_w() else { return Ok(()) };
        if self.watts.len() == SPARK_MAX {
            self.watts.remove(0);
        }
        self.watts.push(now_w);
        let line = LiveLine::new(&self.tally, now_w);
        let text = match self.out.cursor {
            true => format!("{ERASE_LINE}{}", line.within(columns(), &self.watts, self.out)),
            false => line.whole(self.out) + "\n",
        };
        self.painted = self.out.cursor;
        write(&text)
    }

    /// Writes the last line, which stays.
    fn end(&mut self) -> Result<()> {
        self.tally.finish();
        self.show()?;
        if std::mem::take(&mut self.painted) { write("\n") } else { Ok(()) }
    }
}

impl Listener for Watch {
    fn heard(&mut self, heard: &MeterEvent) -> Result<()> {
        let Some(trouble) = self.tally.hear(heard) else { return Ok(()) };
        if std::mem::take(&mut self.painted) {
            write(ERASE_LINE)?;
        }
        report::line(self.errors, Colour::Yellow, &trouble);
        Ok(())
    }

    fn passed(&mut self, time: Duration) -> Result<()> {
        if time < self.due {
            return Ok(());
        }
        self.due = time + if self.out.cursor { PAINTED_EVERY } else { WRITTEN_EVERY };
        self.tally.close();
        self.show()
    }
}

fn write(text: &str) -> Result<()> {
    let mut out = io::stdout();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("standard output")
}
