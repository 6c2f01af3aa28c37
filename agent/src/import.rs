//! `import`: makes a drafter's folder of a published model.

use crate::bar::Bar;
use crate::exit::{DONE, INTERRUPTED};
use crate::screen::Colour;
use crate::terminal::{ColourChoice, abilities};
use anyhow::{Context, Result};
use dunlin_import::{HeadBits, Import, ImportReport, LayerChoice, Loadable, Watch, import};
use dunlin_lm::Role;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;

/// Flags of `import`.
#[derive(Debug, clap::Args)]
pub struct ImportFlags {
    /// The model: a .gguf file, a folder with one, or a Hugging Face folder with .safetensors files.
    #[arg(value_name = "SRC")]
    source: PathBuf,
    /// The drafter's folder to make.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The drafter's name in reports [default: the source's].
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The side that the model is for: a board's drafter in ONNX, or a server's target in GGUF, which is made of
    /// .safetensors files only.
    #[arg(long, value_enum, default_value_t)]
    role: ImportRole,
    /// Take these layers only, from 0, for a smaller drafter: 0,1,2,4.
    #[arg(long, value_name = "LAYERS", value_delimiter = ',', conflicts_with = "drop_layers")]
    layers: Option<Vec<usize>>,
    /// Leave these layers out: 3,5.
    #[arg(long, value_name = "LAYERS", value_delimiter = ',')]
    drop_layers: Option<Vec<usize>>,
    /// Bits of the head's weights, 4 or 8: 8 take twice the head's bytes and time, and bring drafts nearer to the
    /// target. `auto` measures both and takes 8 where 4 cost more than 0.01 of acceptance.
    #[arg(long, value_name = "BITS", default_value = "auto", value_parser = head_bits)]
    head_bits: HeadBits,
    /// When to use colours.
    #[arg(long, value_enum, default_value_t)]
    color: ColourChoice,
}

/// The side that an imported model is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum ImportRole {
    #[default]
    Drafter,
    Target,
}

impl ImportFlags {
    fn job(&self) -> Import {
        let layers = match (&self.layers, &self.drop_layers) {
            (Some(layers), _) => LayerChoice::Only(layers.clone()),
            (None, Some(layers)) => LayerChoice::Without(layers.clone()),
            (None, None) => LayerChoice::All,
        };
        Import {
            source: self.source.clone(),
            out: self.out.clone(),
            name: self.name.clone(),
            role: match self.role {
                ImportRole::Drafter => Role::Drafter,
                ImportRole::Target => Role::Target,
            },
            layers,
            head: self.head_bits,
        }
    }
}

fn head_bits(text: &str) -> Result<HeadBits, &'static str> {
    match text {
        "auto" => Ok(HeadBits::Measured),
        "4" => Ok(HeadBits::Four),
        "8" => Ok(HeadBits::Eight),
        _ => Err("expected auto, 4 or 8"),
    }
}

/// Runs the command; returns the exit code. The first interrupt ends the work and removes what was made.
///
/// # Errors
/// The source can't be imported, or the folder can't be written.
pub async fn run_import(flags: &ImportFlags) -> Result<u8> {
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let is_ended = Arc::new(AtomicBool::new(false));
    let (job, ended, choice) = (flags.job(), Arc::clone(&is_ended), flags.color);
    let work = spawn_blocking(move || watched(&job, &ended, choice));
    tokio::pin!(work);
    let report = tokio::select! {
        done = &mut work => done,
        _ = interrupt.recv() => { is_ended.store(true, Ordering::Relaxed); work.await }
        _ = terminate.recv() => { is_ended.store(true, Ordering::Relaxed); work.await }
    };
    match report.context("the import's thread")? {
        Err(error) if is_ended.load(Ordering::Relaxed) => {
            // Ignore the error: standard error may be closed.
            let _ = writeln!(io::stderr(), "dunlin-agent: {error:#}");
            Ok(INTERRUPTED)
        }
        report => write(&report?).map(|()| DONE),
    }
}

/// Imports with a bar on a terminal.
fn watched(job: &Import, is_ended: &AtomicBool, choice: ColourChoice) -> Result<ImportReport> {
    let mut view = ImportView::new(choice)?;
    let report = import(
        job,
        &mut Watch::new(&mut |done, total| {
            view.show(done, total);
            !is_ended.load(Ordering::Relaxed)
        }),
    );
    view.end();
    let report = report?;
    view.notices(&report);
    Ok(report)
}

/// The path of the drafter that the model at `path` can be loaded as. A GGUF file or a folder of safetensors is imported
/// on first use, with a bar on a terminal and lines elsewhere.
///
/// # Errors
/// The model can't be imported, or its folder can't be written.
pub(crate) fn loadable(path: &Path) -> Result<PathBuf> {
    let pending = match Loadable::of(path, Role::Drafter)? {
        Loadable::At(path) => return Ok(path),
        Loadable::Pending(pending) => pending,
    };
    let mut view = ImportView::new(ColourChoice::default())?;
    let out = pending.out.display();
    view.line(Colour::Plain, &pending.to_string());
    view.logged = Some(0);
    let report = pending.run(&mut Watch::new(&mut |done, total| {
        view.show(done, total);
        true
    }));
    view.end();
    if let Some(report) = report? {
        view.notices(&report);
        let twice = report.tensors.iter().filter(|tensor| tensor.is_rounded_twice()).count();
        let rounded = match twice {
            0 => String::new(),
            _ => format!("; {twice} of {} tensors were rounded before, in the source", report.tensors.len()),
        };
        view.line(
            Colour::Plain,
            &format!("{out}: {} MiB of weights{rounded}", report.bytes.div_ceil(1 << 20)),
        );
    }
    Ok(pending.out)
}

/// Share of an import between two lines, where there is no bar.
const LINE_PERCENT: u64 = 25;

/// The progress of an import.
struct ImportView {
    bar: Bar,
    /// Percent at the last line; `None` for no lines.
    logged: Option<u64>,
}

impl ImportView {
    fn new(choice: ColourChoice) -> Result<Self> {
        let bar = Bar::new(100, "{pos} % {msg}", abilities(choice, &io::stderr()))?;
        Ok(Self { bar, logged: None })
    }

    fn show(&mut self, done: u64, total: u64) {
        let percent = done.saturating_mul(100).checked_div(total).unwrap_or(100);
        self.bar.set(percent, format!("{} M numbers", done / 1_000_000));
        if self.logged.is_some_and(|logged| percent >= logged + LINE_PERCENT) && !self.bar.is_shown() {
            let reached = percent / LINE_PERCENT * LINE_PERCENT;
            self.line(Colour::Plain, &format!("importing: {reached} %"));
            self.logged = Some(reached);
        }
    }

    fn line(&self, colour: Colour, text: &str) {
        self.bar.line(colour, text);
    }

    fn notices(&self, report: &ImportReport) {
        report.notices.iter().for_each(|notice| self.line(Colour::Yellow, notice));
    }

    fn end(&self) {
        self.bar.end();
    }
}

/// Writes the report: a line for each tensor, and what they come to.
fn write(report: &ImportReport) -> Result<()> {
    let mut out = io::stdout().lock();
    for tensor in &report.tensors {
        writeln!(out, "{tensor}").context("standard output")?;
    }
    let ImportReport { architecture, layers, source_layers, tensors, .. } = report;
    let twice = tensors.iter().filter(|tensor| tensor.is_rounded_twice()).count();
    if twice > 0 {
        writeln!(out, "{twice} of {} were rounded before, in the source, and once more here", tensors.len())?;
    }
    if let Some(worst) = report.worst().filter(|worst| worst.error > 0.0) {
        writeln!(out, "largest error: {:.4}, {}", worst.error, worst.name)?;
    }
    if let Some(agreement) = &report.agreement {
        writeln!(out, "{agreement}").context("standard output")?;
    }
    let (mib, folder) = (report.bytes.div_ceil(1 << 20), report.folder.display());
    writeln!(
        out,
        "{folder}: {architecture}, {} of {source_layers} layers, {mib} MiB of weights",
        layers.len()
    )?;
    Ok(())
}
