//! `make test-boot`: boots an image in an emulated machine and checks the behaviour of a board.
//!
//! Its exit status is 0 only if every step passed.

use anyhow::{Context, Result};
use clap::Parser;
use dunlin_board::{Board, find};
use dunlin_power::simulated::waveform::StepWaveform as Power;
use dunlin_stand::boot::scenes::{BootFigures, play};
use dunlin_stand::boot::sensor::Sensor;
use dunlin_stand::boot::stand::{Stand, StandPlaces};
use dunlin_stand::boot::steps::BootSteps;
use dunlin_stand::wait::Stop;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The power that a sensor measures with `--sensor`: µs and W of each step.
const SHOWN: [(u64, f64); 2] = [(2_000_000, 3.0), (2_000_000, 5.0)];

/// Boots a board's image in QEMU, with a broker, a verifier and a simulated INA219 on USB around it.
#[derive(Parser)]
struct Args {
    /// The image's board; its file names the QEMU machine that boots it.
    #[arg(long, value_name = "BOARD", default_value = "virt")]
    board: PathBuf,
    /// The board's image [default: target/image/dunlin-BOARD.img]
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// Directory of logs, disks and the report.
    #[arg(long, value_name = "DIR", default_value = "target/boot")]
    out: PathBuf,
    /// Seed of the random moments.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Boot nothing; serve the sensor at a socket until interrupted, for a machine of your own.
    #[arg(long, value_name = "SOCKET")]
    sensor: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Args::parse();
    let done = Stop::on_signals().and_then(|stop| match &arguments.sensor {
        Some(path) => serve(path, &stop).map(|()| true),
        None => test(&arguments, &stop),
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("test-boot: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the test; true if all steps passed.
fn test(arguments: &Args, stop: &Stop) -> Result<bool> {
    let Args { out, seed, .. } = arguments;
    let started = Instant::now();
    let board = Board::load(&find(&arguments.board, Path::new(""), &[root()?.join("boards")])?)?;
    let image =
        arguments.image.clone().unwrap_or_else(|| format!("target/image/dunlin-{}.img", board.name).into());
    let image = image.as_path();
    eprintln!("test-boot: {}, seed {seed}; logs in {}", image.display(), out.display());
    let mut stand = Stand::new(places(&board, image, out)?, *seed, stop)?;
    let (mut steps, mut figures) =
        (BootSteps::default(), BootFigures { seed: *seed, ..BootFigures::default() });
    let played = play(&mut stand, &mut steps, &mut figures).is_ok();
    let report = out.join("report.json");
    steps.write(&report, &figures)?;
    summary(&steps, &figures, started.elapsed());
    if !played {
        eprintln!("Look into {} (consoles, broker, verifier, ssh).", out.display());
        let board = arguments.board.display();
        eprintln!(
            "The same again: dunlin-test-boot --board {board} --seed {seed} --image {}",
            image.display()
        );
    }
    eprintln!("Report: {}", report.display());
    Ok(played)
}

/// The root of the checkout, which has boards and models.
fn root() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().context("the checkout was moved: build again")
}

/// Paths of the test's files; the other programs are beside this one.
fn places(board: &Board, image: &Path, out: &Path) -> Result<StandPlaces> {
    let own = std::env::current_exe().context("can't tell where this program is")?;
    let verifier = own.with_file_name("dunlin-verifier");
    anyhow::ensure!(verifier.is_file(), "{} is missing: run `make build`", verifier.display());
    let name = &board.name;
    anyhow::ensure!(image.is_file(), "{} is missing: run `make image BOARD={name}`", image.display());
    let recipe = board.image.clone().with_context(|| format!("no image is made for {name}"))?;
    let out = std::path::absolute(out).context("the folder for logs")?;
    let (models, card_script) = (root()?.join("models/demo"), root()?.join("boards/image/card.sh"));
    Ok(StandPlaces { image: image.into(), recipe, verifier, models, card_script, out })
}

fn summary(steps: &BootSteps, figures: &BootFigures, took: Duration) {
    let (passed, all) = steps.passed();
    let BootFigures { boot_to_connected_seconds: boots, samples_per_second: rates, .. } = figures;
    eprintln!("\n{passed} of {all} steps passed in {:.0} s.", took.as_secs_f64());
    if let Some(range) = range(boots) {
        eprintln!("Boot to connected: {range} guest seconds.");
    }
    if let Some(range) = range(rates) {
        eprintln!("Readings: {range} a second (USB is slow where it is emulated).");
    }
    eprintln!(
        "{} replies identical to the target's; {} power cuts.",
        figures.identical_replies, figures.cuts
    );
    if figures.state_cuts > 0 {
        let BootFigures { state_cuts: cuts, state_cuts_bad: bad, .. } = figures;
        eprintln!("State files of the slots: {cuts} cut points, {bad} bad.");
    }
}

/// The least and the largest of some numbers, as text.
fn range(numbers: &[f64]) -> Option<String> {
    let least = numbers.iter().copied().reduce(f64::min)?;
    let most = numbers.iter().copied().reduce(f64::max)?;
    Some(format!("{least:.1} to {most:.1}"))
}

fn serve(path: &Path, stop: &Stop) -> Result<()> {
    let sensor = Sensor::start(path, Power::new(SHOWN).context("no power")?)?;
    eprintln!("test-boot: an INA219 at 0x40 behind a USB I2C adapter at {}; add to QEMU:", path.display());
    eprintln!("  -device qemu-xhci -chardev socket,id=s,path={} -device usb-redir,chardev=s", path.display());
    loop {
        if stop.check().is_err() {
            eprintln!("test-boot: {:?}", sensor.counted());
            return Ok(());
        }
        #[expect(clippy::disallowed_methods, reason = "the pause between two looks at a signal")]
        std::thread::sleep(Duration::from_millis(100));
    }
}
