//! The target: a thread that holds the model and its context, and the calls that it answers.

use crate::build::{ENGINE, LlamaBuild, baseline, instruction_sets};
use crate::decoder::{CELLS_STEP, Decoder, Layout, Part, SEQUENCES_MAX, Shape};
use crate::facts::Facts;
use crate::journal::Journal;
use crate::rehearsal::{Order, Rehearsed};
use crate::sessions::{Limits, OwnedExtend, Sessions};
use crate::trial::{Findings, try_out};
use dunlin_lm::{
    Error, Extend, LoadProgress, LoadStep, ModelDir, Promise, Result, SessionId, Target, TargetIdentity,
    Vocabulary,
};
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::{LogOptions, send_logs_to_tracing};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

/// Settings of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LlamaSettings {
    /// Bytes that the caches of all sessions may take. All of them are taken when the target is loaded.
    pub kv_bytes_max: usize,
    /// The most sessions that are open at once; fewer if the caches hold fewer.
    pub sessions_max: usize,
    /// The most tokens of a session, below those of the model.
    pub context_max: Option<usize>,
    /// Threads of a pass.
    pub threads: usize,
    /// True for caches of 32-bit floats, which take twice the memory of 16 bits.
    pub is_wide: bool,
}

/// A model on llama.cpp, with the caches of its sessions.
#[derive(Debug)]
pub struct LlamaTarget {
    calls: Option<Sender<Call>>,
    thread: Option<JoinHandle<()>>,
    vocabulary: Vocabulary,
    context_max: usize,
    identity: TargetIdentity,
    promise: Promise,
    token_bytes: u64,
    sessions_max: usize,
}

/// Work for the thread.
type Call = Box<dyn for<'m> FnOnce(&mut Sessions<'m>) + Send>;

/// Messages of a thread that loads.
enum Loading {
    Progress(LoadStep, u64, u64),
    Loaded { weights: [u8; 32], shape: Shape },
    Failed(Error),
}

impl LlamaTarget {
    /// Loads a model that a child process has loaded and run before.
    ///
    /// # Errors
    /// Its file was changed since then, or llama.cpp fails: names the file and the remedy.
    pub fn load(rehearsed: Rehearsed, mut progress: LoadProgress) -> Result<Self> {
        let Rehearsed { dir, order, facts, findings } = rehearsed;
        let (calls, waiting) = channel();
        let (sender, loading) = channel();
        let context_max = order.context_max;
        let job = Job { order, facts, findings, vocabulary: dir.vocabulary.size };
        let thread =
            thread::Builder::new().name("llama.cpp".into()).spawn(move || job.run(&sender, &waiting));
        let thread = thread.map_err(|error| Error::engine("llama.cpp", error))?;
        for message in loading {
            match message {
                Loading::Progress(step, done, total) => progress(step, done, total),
                Loading::Failed(error) => return Err(error),
                Loading::Loaded { weights, shape } => {
                    return Ok(Self {
                        calls: Some(calls),
                        thread: Some(thread),
                        vocabulary: dir.vocabulary,
                        context_max,
                        identity: identity(&dir, weights, shape),
                        promise: if findings.is_exact { Promise::Exact } else { Promise::Distribution },
                        token_bytes: findings.token_bytes,
                        sessions_max: shape.sequences,
                    });
                }
            }
        }
        Err(died())
    }

    /// The engine, its build and its processor in words.
    pub fn description(&self) -> String {
        let LlamaBuild { repacks, tiles, is_native, .. } = LlamaBuild::LINKED;
        let kernels = match (repacks, tiles) {
            (false, false) => "kernels that compute each row alike",
            _ => "fast kernels",
        };
        let compiled = if is_native { "compiled for the machine that built it" } else { "compiled for any" };
        format!("{ENGINE}, {kernels}, {compiled} {}", baseline())
    }

    fn ask<R: Send + 'static>(
        &self,
        call: impl for<'m> FnOnce(&mut Sessions<'m>) -> R + Send + 'static,
    ) -> Result<R> {
        let (sender, answer) = channel();
        // Ignore the error: nobody takes an answer any more.
        let call: Call = Box::new(move |sessions| drop(sender.send(call(sessions))));
        self.calls.as_ref().and_then(|calls| calls.send(call).ok()).ok_or_else(died)?;
        answer.recv().map_err(|_| died())
    }
}

impl Drop for LlamaTarget {
    fn drop(&mut self) {
        drop(self.calls.take());
        if let Some(thread) = self.thread.take() {
            // Ignore the error: a thread that panicked has freed its memory, too.
            let _ = thread.join();
        }
    }
}

impl Target for LlamaTarget {
    fn vocabulary(&self) -> Vocabulary {
        self.vocabulary
    }

    fn context_max(&self) -> usize {
        self.context_max
    }

    fn identity(&self) -> &TargetIdentity {
        &self.identity
    }

    fn promise(&self) -> Promise {
        self.promise
    }

    fn cache_bytes_per_token(&self) -> u64 {
        self.token_bytes
    }

    fn sessions_max(&self) -> Option<usize> {
        Some(self.sessions_max)
    }

    fn open(&mut self) -> Result<SessionId> {
        self.ask(|sessions| sessions.open())?
    }

    fn fork(&mut self, session: SessionId, len: usize) -> Result<Option<SessionId>> {
        self.ask(move |sessions| sessions.fork(session, len))?.map(Some)
    }

    fn extend(&mut self, batch: &[Extend<'_>]) -> Vec<Result<Vec<f32>>> {
        let owned: Vec<OwnedExtend> = batch
            .iter()
            .map(|Extend { session, keep, tokens, rows }| OwnedExtend {
                session: *session,
                keep: *keep,
                tokens: tokens.to_vec(),
                rows: *rows,
            })
            .collect();
        let answered = self.ask(move |sessions| sessions.extend(&owned));
        answered.unwrap_or_else(|_| batch.iter().map(|_| Err(died())).collect())
    }

    fn truncate(&mut self, session: SessionId, len: usize) -> Result<()> {
        self.ask(move |sessions| sessions.truncate(session, len))?
    }

    fn len(&self, session: SessionId) -> Result<usize> {
        self.ask(move |sessions| sessions.len(session))?
    }

    fn close(&mut self, session: SessionId) {
        // Ignore the error: a thread that died holds no session.
        let _ = self.ask(move |sessions| sessions.close(session));
    }
}

fn died() -> Error {
    Error::engine("llama.cpp", "its thread died; start again")
}

fn identity(dir: &ModelDir, weights: [u8; 32], shape: Shape) -> TargetIdentity {
    let layout = match shape.layout {
        Layout::Apart => "apart",
        Layout::Shared => "shared",
    };
    let sets: Vec<&str> = instruction_sets().collect();
    let sets = if sets.is_empty() { std::env::consts::ARCH.into() } else { sets.join("+") };
    let kind = if shape.is_wide { "f32" } else { "f16" };
    let numerics = format!("{} {sets} {kind} {layout}", LlamaBuild::LINKED.name());
    TargetIdentity { model: dir.name.clone(), weights, engine: ENGINE.into(), numerics }
}

/// A model to load, for the thread.
struct Job {
    order: Order,
    facts: Facts,
    findings: Findings,
    /// Tokens whose logits are given out.
    vocabulary: u32,
}

impl Job {
    /// Loads the model, then answers calls until nobody makes any.
    fn run(self, sender: &Sender<Loading>, calls: &Receiver<Call>) {
        let journal = Journal::default();
        let outer = tracing::dispatcher::get_default(Clone::clone);
        with_journal(&journal, || {
            let failed = |error| drop(sender.send(Loading::Failed(error)));
            let total = self.facts.tensor_bytes;
            let report = sender.clone();
            let progress = move |done| report.send(Loading::Progress(LoadStep::Reading, done, total)).is_ok();
            let unchanged = self.facts.unchanged(&self.order.weights);
            let loaded = unchanged.and_then(|()| load_model(&self.order, total, progress, &journal));
            let (backend, model) = match loaded {
                Ok(loaded) => loaded,
                Err(error) => return failed(error),
            };
            let mut sessions = match self.prepare(backend, &model, sender, &journal) {
                Ok(sessions) => sessions,
                Err(error) => return failed(error),
            };
            let warnings = journal.take();
            tracing::dispatcher::with_default(&outer, || {
                // The cell that a context has beyond the model's is ours.
                let foreign =
                    warnings.iter().filter(|line| !line.contains("possible training context overflow"));
                foreign.for_each(|line| tracing::warn!("llama.cpp: {line}"));
            });
            for call in calls {
                call(&mut sessions);
            }
        });
    }

    /// Makes the context of a loaded model and tells the caller.
    fn prepare<'m>(
        &self,
        backend: &LlamaBackend,
        model: &'m LlamaModel,
        sender: &Sender<Loading>,
        journal: &Journal,
    ) -> Result<Sessions<'m>> {
        let Self { order, facts, findings, vocabulary } = self;
        let shape = shape(&order.settings, order.context_max, *findings);
        let decoder = Decoder::new(model, backend, shape, journal)
            .map_err(|message| Error::engine("llama.cpp", message))?;
        let hashed = &mut |done, total| drop(sender.send(Loading::Progress(LoadStep::Hashing, done, total)));
        let weights = facts.weights(&order.weights, hashed)?;
        let limits = Limits {
            context_max: order.context_max,
            vocabulary: *vocabulary,
            rows: order.rows,
            token_bytes: findings.token_bytes,
        };
        // Ignore the error: a caller that went away drops the calls, which ends this thread.
        let _ = sender.send(Loading::Loaded { weights, shape });
        Ok(Sessions::new(decoder, limits))
    }
}

/// Runs `work` with llama.cpp's lines in the journal.
fn with_journal<R>(journal: &Journal, work: impl FnOnce() -> R) -> R {
    tracing::dispatcher::with_default(&tracing::Dispatch::new(journal.clone()), work)
}

/// Loads the model of an order; `progress` gets the bytes that were read, and returns false to stop.
fn load_model(
    order: &Order,
    tensor_bytes: u64,
    mut progress: impl FnMut(u64) -> bool + 'static,
    journal: &Journal,
) -> Result<(&'static LlamaBackend, LlamaModel)> {
    let path = order.weights.as_path();
    let backend = backend().ok_or_else(|| Error::engine("llama.cpp", "it can't be initialised"))?;
    // Without a receiver nobody wants the model any more.
    let params = LlamaModelParams::default().with_progress_callback(move |share| {
        progress((f64::from(share.clamp(0.0, 1.0)) * tensor_bytes as f64) as u64)
    });
    let model = LlamaModel::load_from_file(backend, path, &params);
    let model = model.map_err(|error| refused(path, &format!("{error}{}", journal.explain())))?;
    let rows = u32::try_from(model.n_vocab()).unwrap_or(0);
    if rows != order.rows {
        return Err(Error::value(path, "tokens of llama.cpp", order.rows, rows));
    }
    Ok((backend, model))
}

/// Loads and runs the model of an order as a target would: the trial of rows, the context of the sessions, and the last
/// position in it. llama.cpp's lines also go to standard error at once.
///
/// # Errors
/// It can't be a target, or llama.cpp fails.
pub(crate) fn rehearse(
    order: &Order,
    facts: &Facts,
    progress: impl FnMut(u64) -> bool + 'static,
) -> Result<Findings> {
    let journal = Journal::echoing();
    with_journal(&journal, || {
        let (backend, model) = load_model(order, facts.tensor_bytes, progress, &journal)?;
        let LlamaSettings { threads, is_wide, .. } = order.settings;
        let findings = try_out(&order.weights, &model, backend, (threads, is_wide), &journal)?;
        let shape = shape(&order.settings, order.context_max, findings);
        let failed = |message| Error::engine("llama.cpp", message);
        let mut decoder = Decoder::new(&model, backend, shape, &journal).map_err(failed)?;
        // Behind the last token of a full context; the company of a lone row takes one position more.
        let position = order.context_max.saturating_sub(1);
        let last = Part { sequence: shape.sequences - 1, position, tokens: &[order.rows - 1], rows: 1 };
        decoder.run(&[last]).map_err(failed)?;
        Ok(findings)
    })
}

fn refused(path: &Path, message: &str) -> Error {
    Error::format(
        path,
        "GGUF",
        format!("llama.cpp can't load it: {message}; convert it again, or take another model"),
    )
}

/// llama.cpp itself, which a process has once.
fn backend() -> Option<&'static LlamaBackend> {
    static BACKEND: OnceLock<Option<LlamaBackend>> = OnceLock::new();
    let init = || {
        send_logs_to_tracing(LogOptions::default());
        LlamaBackend::init().ok()
    };
    BACKEND.get_or_init(init).as_ref()
}

/// The context that the budget allows.
fn shape(settings: &LlamaSettings, context_max: usize, findings: Findings) -> Shape {
    let LlamaSettings { kv_bytes_max, sessions_max, threads, is_wide, .. } = *settings;
    let tokens = (kv_bytes_max as u64 / findings.token_bytes.max(1)).min(i32::MAX as u64 / 2) as usize;
    let sequences = sessions_max.clamp(1, SEQUENCES_MAX);
    // One cell more: see `company` of the decoder.
    let whole = (context_max + 1).next_multiple_of(CELLS_STEP);
    let least = |cells: usize| (cells / CELLS_STEP).max(1) * CELLS_STEP;
    if findings.is_exact {
        let sequences = sequences.min(tokens / whole).max(1);
        Shape { layout: Layout::Apart, sequences, cells: whole.min(least(tokens)), threads, is_wide }
    } else {
        let cells = least(tokens).min(whole.saturating_mul(sequences));
        Shape { layout: Layout::Shared, sequences, cells, threads, is_wide }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(tokens: usize, context: usize, is_exact: bool) -> (usize, usize) {
        let settings = LlamaSettings {
            kv_bytes_max: tokens * 100,
            sessions_max: 8,
            context_max: None,
            threads: 1,
            is_wide: false,
        };
        let Shape { sequences, cells, .. } =
            shape(&settings, context, Findings { token_bytes: 100, is_exact });
        (sequences, cells)
    }

    #[test]
    fn an_exact_target_has_as_many_sessions_as_full_contexts_fit() {
        assert_eq!(of(10_000, 2047, true), (4, 2048));
        assert_eq!(of(10_000, 2048, true), (4, 2304), "a cell more");
        assert_eq!(of(1_000_000, 100, true), (8, 256), "no more than are asked for");
        assert_eq!(of(1000, 2047, true), (1, 768), "within the budget, if no context fits");
        assert_eq!(of(0, 2047, true), (1, 256));
    }

    #[test]
    fn others_share_all_cells() {
        assert_eq!(of(10_000, 2047, false), (8, 9984));
        assert_eq!(of(1_000_000, 255, false), (8, 2048), "no more than all sessions can fill");
    }
}
