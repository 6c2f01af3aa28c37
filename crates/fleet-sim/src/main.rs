//! `make rollout`: all scenarios, their pictures, and a report.

use anyhow::{Context, Result, bail};
use dunlin_fleet_sim::{RolloutFigures, picture, run, scenarios};
use std::io::Write;
use std::path::PathBuf;
use std::{env, fs, io};

const DEVICES: usize = 1000;
const USAGE: &str = "usage: dunlin-fleet-sim FOLDER [SEED]";

fn main() -> Result<()> {
    let mut args = env::args().skip(1);
    let folder = PathBuf::from(args.next().context(USAGE)?);
    let seed = args.next().map_or(Ok(1), |seed| seed.parse()).context("the seed is a whole number")?;
    if args.next().is_some() {
        bail!(USAGE);
    }
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    };
    let mut outcomes = Vec::new();
    for scenario in scenarios(DEVICES, seed) {
        let outcome = run(&scenario);
        write(&format!("{}.svg", outcome.name), &picture(&outcome)?)?;
        outcomes.push(outcome);
    }
    let figures = RolloutFigures::of(&outcomes, seed);
    write("report.json", &format!("{}\n", serde_json::to_string_pretty(&figures)?))?;
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{:16} {:>20} {:>8} {:>8} {:>7} {:>9} {:>7}",
        "scenario", "state", "in step", "damaged", "beyond", "not back", "bytes"
    )?;
    for one in &figures.scenarios {
        writeln!(
            out,
            "{:16} {:>20} {:>8} {:>8} {:>7} {:>9} {:>7.3}",
            one.name,
            one.state,
            one.members,
            one.damaged,
            one.damaged_beyond_step,
            one.not_back,
            one.bytes_ratio
        )?;
    }
    if !figures.missed.is_empty() {
        bail!("{} (seed {seed})", figures.missed.join("; "));
    }
    Ok(writeln!(
        out,
        "All marks reached: {} boards in each scenario; see {}",
        figures.devices,
        folder.display()
    )?)
}
