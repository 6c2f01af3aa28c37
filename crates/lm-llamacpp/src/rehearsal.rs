//! A file is loaded and run in a child process before it is loaded here: llama.cpp ends the process on some invalid files,
//! by assertions, by exceptions that nobody catches, and by reading outside of its memory.
//!
//! The child does what this process is about to do: the load, the trial of rows, the context of the sessions, and a pass in
//! it. So its trial is the only one. It is this same program, for its processor and its kernels must be the same.
//!
//! Invariants:
//! - A child ends within a bound of time that grows with the file, has a bound of memory, and ends with its parent.
//! - What a child prints is bounded, and escaped before it is shown.

mod answer;
mod child;
mod watch;

use crate::build::check_processor;
use crate::facts::Facts;
use crate::journal::shown;
use crate::order::{LlamaSettings, Order};
use crate::trial::Findings;
use answer::Answer;
pub use child::rehearse;
use dunlin_lm::{Error, LoadProgress, LoadStep, ModelDir, Result, Role};
use std::process::Command;
use std::time::Duration;
use watch::{End, watch};

/// Time that a child has whatever the file's size.
const TIME_MIN: Duration = Duration::from_secs(120);
/// Bytes of weights for which it has another second: slow disks, and 120 rows on a slow processor.
const BYTES_PER_SECOND: u64 = 4 << 20;

/// A model whose file was loaded and run in a child process; the proof that it may be loaded here.
#[derive(Debug)]
pub struct Rehearsed {
    pub(crate) dir: ModelDir,
    pub(crate) order: Order,
    pub(crate) facts: Facts,
    pub(crate) findings: Findings,
}

impl Rehearsed {
    /// Checks the GGUF file of `dir`, searches it for holes, and has a child process load and run it.
    ///
    /// `child` is this program with what makes it call [`rehearse`]; the arguments for it are added here.
    ///
    /// # Errors
    /// The processor lacks what llama.cpp was compiled for, the file can't be a target, or the child was ended by it: names
    /// the file and the remedy.
    pub fn in_child(
        dir: &ModelDir,
        settings: LlamaSettings,
        child: Command,
        progress: &mut LoadProgress,
    ) -> Result<Self> {
        check_processor().map_err(|message| Error::engine("llama.cpp", message))?;
        if dir.role == Some(Role::Drafter) {
            return Err(Error::value(&dir.path, "role", "target", "drafter"));
        }
        let facts = Facts::read(&dir.weights)?;
        let context_max = dir.context_max.min(facts.context_length);
        let context_max = settings.context_max.map_or(context_max, |max| max.min(context_max));
        let order = Order { weights: dir.weights.clone(), rows: dir.rows, context_max, settings };
        facts.search(&order.weights, &mut |done, total| progress(LoadStep::Searching, done, total))?;
        let findings = ask(child, &order, facts.tensor_bytes, progress)?;
        Ok(Self { dir: dir.clone(), order, facts, findings })
    }
}

/// Runs the child, and reads its outcome.
fn ask(mut child: Command, order: &Order, bytes: u64, progress: &mut LoadProgress) -> Result<Findings> {
    child.args(order.arguments());
    // llama.cpp would start a debugger on its own process.
    child.env("GGML_NO_BACKTRACE", "1").env_remove("NOTIFY_SOCKET");
    let within = TIME_MIN + Duration::from_secs(bytes / BYTES_PER_SECOND);
    let mut outcome = None;
    let mut hear = |line: &str| match Answer::parse(line) {
        Some(Answer::Read(done)) => progress(LoadStep::Trying, done.min(bytes), bytes),
        Some(Answer::Warned(words)) => tracing::warn!("{}", shown(&words)),
        Some(other) => outcome = Some(other),
        None => {}
    };
    let ended = watch(child, within, &mut hear).map_err(|error| {
        Error::engine(
            "llama.cpp",
            format!("its process, which tries the file first, can't be started: {error}"),
        )
    })?;
    let path = &order.weights;
    match (ended.end, outcome) {
        (End::Status, Some(Answer::Sound(findings))) => Ok(findings),
        (End::Status, Some(Answer::Refused(words))) => Err(Error::Tried(words)),
        (end, _) => Err(Error::format(path, "GGUF", format!("{end}{}; {}", ended.explain(), end.remedy()))),
    }
}
