//! `power calibrate`: measures the idle board's power and, with two known loads, the sensor's own error.
//!
//! Invariant: a file is written whole, and only if the agent itself would accept it.

use super::gather::Gather;
use super::reader::{Interrupts, ReadingEnd, SensorReader};
use super::say;
use super::tally::Tally;
use crate::draft_file::DraftFile;
use crate::exit::{DONE, INTERRUPTED};
use crate::flags::{Common, seconds};
use crate::report;
use crate::screen::{Abilities, Colour};
use crate::terminal::{ColourChoice, abilities};
use anyhow::{Context, Result, bail};
use dunlin_power::calibration::{CurrentTable, IdleTable, PowerCalibration};
use dunlin_power::phase::EnergyPhase;
use dunlin_power::settings::PowerSettings;
use dunlin_wire::PowerSource;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader, Stdin};

/// The largest current of a load, A.
const LOAD_MAX_A: f64 = 100.0;

/// Flags of `power calibrate`.
#[derive(Debug, clap::Args)]
pub(super) struct PowerCalibrateFlags {
    /// The calibration file; without --load, the `[current]` table of an existing one is kept.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// A known load in amperes, as a reference meter shows it; give two, or none.
    #[arg(long = "load", value_name = "AMPERES", value_parser = amperes)]
    loads: Vec<f64>,
    /// Relative uncertainty of that meter, as a share.
    #[arg(long, value_name = "SHARE", default_value_t = 0.005)]
    meter_uncertainty: f64,
    /// How long to read each load.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    seconds: Duration,
    /// How long to read the idle board.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    idle_seconds: Duration,
    /// Don't wait for Enter: another program sets the loads.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

impl PowerCalibrateFlags {
    /// Checks that the flags fit together.
    pub(super) fn check(&self) -> Result<()> {
        self.loads().map(|_| ())
    }

    /// The two loads, in the order given.
    fn loads(&self) -> Result<Option<[f64; 2]>> {
        match self.loads[..] {
            [] => Ok(None),
            [first, second] => {
                let (low, high) = (first.min(second), first.max(second));
                // Check with readings equal to the loads, so that only the loads or the meter's uncertainty can be
                // wrong.
                CurrentTable::through((low, low), (high, high), self.meter_uncertainty).context("--load")?;
                Ok(Some([first, second]))
            }
            _ => bail!("--load is given {} times: two loads make a line", self.loads.len()),
        }
    }
}

/// A calibration under way.
struct Bench<'a> {
    args: &'a PowerCalibrateFlags,
    settings: &'a PowerSettings,
    errors: Abilities,
    interrupts: Interrupts,
    input: BufReader<Stdin>,
}

/// Measures and writes the file; returns the exit code.
pub(super) async fn calibrate(
    args: &PowerCalibrateFlags,
    settings: &PowerSettings,
    color: ColourChoice,
) -> Result<u8> {
    let loads = args.loads()?;
    let kept = if args.out.exists() { PowerCalibration::load(&args.out)?.current } else { None };
    let draft = DraftFile::new(&args.out)?;
    let (errors, interrupts) = (abilities(color, &io::stderr()), Interrupts::listen()?);
    let mut bench = Bench { args, settings, errors, interrupts, input: BufReader::new(tokio::io::stdin()) };
    let current = match loads {
        None => kept,
        Some(loads) => match bench.current(loads).await? {
            Some(table) => Some(table),
            None => return bench.interrupted("nothing is written"),
        },
    };
    let idle = bench.idle(current, loads.is_some()).await?;
    if idle.is_none() && loads.is_none() {
        return bench.interrupted("nothing is written");
    }
    publish(draft, &PowerCalibration { current, idle })?;
    say(&format!("written: {}", args.out.display()))?;
    say(&format!("in the configuration:\n\n[power]\ncalibration = {}", named(&args.out)?))?;
    match idle {
        Some(_) => Ok(DONE),
        None => bench.interrupted("the idle board was not measured"),
    }
}

impl Bench<'_> {
    /// The line through the readings at two loads; `None` if interrupted.
    async fn current(&mut self, loads: [f64; 2]) -> Result<Option<CurrentTable>> {
        let [first, second] = loads;
        // A simulated board provides the loads by its phases: idling for the smaller, drafting for the larger.
        let phases = if first < second {
            [EnergyPhase::Idle, EnergyPhase::Draft]
        } else {
            [EnergyPhase::Draft, EnergyPhase::Idle]
        };
        let mut points = Vec::new();
        for (load, phase) in loads.into_iter().zip(phases) {
            let Some(shown) = self.shown(load, phase).await? else { return Ok(None) };
            points.push((shown, load));
        }
        points.sort_by(|a, b| a.1.total_cmp(&b.1));
        let table = CurrentTable::through(points[0], points[1], self.args.meter_uncertainty)?;
        say(&format!("current: {:.6} times what is shown, and {:+.6} A", table.gain, table.offset_a))?;
        Ok(Some(table))
    }

    /// The mean current that the sensor reads at a load, A; `None` if interrupted.
    async fn shown(&mut self, load: f64, phase: EnergyPhase) -> Result<Option<f64>> {
        if !self.prompt(&format!("set the load to {load} A and press Enter")).await? {
            return Ok(None);
        }
        let reader = self.open(None, phase)?;
        let kind = reader.source().kind;
        if !matches!(kind, PowerSource::Ina219 | PowerSource::Simulated) {
            bail!(
                "{}: only the current of an INA219 that the agent reads itself can be corrected; leave --load out to \
                 measure the idle board",
                reader.source()
            );
        }
        let what = format!("load of {load} A");
        let Some(tally) = self.gather(&what, self.args.seconds, &reader).await? else { return Ok(None) };
        let shown = tally.mean_a().context("the source gives no current")?;
        say(&format!("{}: {shown:.4} A shown at {load} A", reader.source()))?;
        Ok(Some(shown))
    }

    /// Power of the idle board, with the current corrected; `None` if interrupted.
    async fn idle(&mut self, current: Option<CurrentTable>, loaded: bool) -> Result<Option<IdleTable>> {
        if loaded && !self.prompt("take the loads off, leave the board idle and press Enter").await? {
            return Ok(None);
        }
        let reader = self.open(current, EnergyPhase::Idle)?;
        let gathered = self.gather("idle board", self.args.idle_seconds, &reader).await?;
        let Some(tally) = gathered else { return Ok(None) };
        let (watts, seconds) = (rounded(tally.mean_w()), rounded(tally.time().as_secs_f64()));
        say(&format!("{}: the idle board draws {watts:.3} W over {seconds:.1} s", reader.source()))?;
        Ok(Some(IdleTable { watts, seconds }))
    }

    fn open(&self, current: Option<CurrentTable>, phase: EnergyPhase) -> Result<SensorReader> {
        let calibration = PowerCalibration { current, idle: None };
        SensorReader::open(&PowerSettings { calibration, ..self.settings.clone() }, phase, self.errors)
    }

    /// The sums of a measurement; `None` if interrupted.
    async fn gather(&mut self, what: &str, span: Duration, reader: &SensorReader) -> Result<Option<Tally>> {
        let gathered = Gather::run(what, span, reader, None, &mut self.interrupts, self.errors);
        let (tally, end) = gathered.await?;
        Ok((end != ReadingEnd::Interrupt).then_some(tally))
    }

    /// Asks the user to do something and waits for Enter; `false` if interrupted.
    async fn prompt(&mut self, text: &str) -> Result<bool> {
        if self.args.yes {
            return Ok(true);
        }
        report::line(self.errors, Colour::Cyan, text);
        let mut line = String::new();
        let read = self.interrupts.during(self.input.read_line(&mut line)).await;
        let Some(read) = read else { return Ok(false) };
        if read.context("standard input")? == 0 {
            bail!("standard input ended before {text:?} was answered; --yes asks no questions");
        }
        Ok(true)
    }

    fn interrupted(&self, text: &str) -> Result<u8> {
        report::line(self.errors, Colour::Yellow, &format!("interrupted: {text}"));
        Ok(INTERRUPTED)
    }
}

/// Publishes the file if the agent itself would accept it.
fn publish(draft: DraftFile, calibration: &PowerCalibration) -> Result<()> {
    let text = toml::to_string(calibration).context("the calibration as TOML")?;
    draft.file()?.write_all(text.as_bytes()).context("the calibration")?;
    PowerCalibration::load(draft.path()).context("the measurements give no valid calibration")?;
    draft.publish()
}

/// The absolute path of the file, as a configuration anywhere can name it.
fn named(out: &Path) -> Result<toml::Value> {
    let path = std::path::absolute(out).with_context(|| out.display().to_string())?;
    Ok(path.to_string_lossy().into_owned().into())
}

/// Rounds to 0.1 milli-units; finer digits are noise.
fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

/// Parses a current, A.
fn amperes(text: &str) -> Result<f64, String> {
    let amperes = text.parse::<f64>().ok().filter(|amperes| (0.0..=LOAD_MAX_A).contains(amperes));
    amperes.ok_or_else(|| format!("expected amperes from 0 to {LOAD_MAX_A}"))
}
