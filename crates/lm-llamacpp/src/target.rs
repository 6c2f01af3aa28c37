//! The target: a thread that holds the model and its context, and the calls that it answers.

use crate::build::{ENGINE, LlamaBuild, baseline, instruction_sets};
use crate::decoder::{Decoder, Layout, Shape};
use crate::facts::Facts;
use crate::journal::Journal;
use crate::load::{load_model, shape, with_journal};
use crate::order::Order;
use crate::rehearsal::Rehearsed;
use crate::sessions::{Limits, OwnedExtend, Sessions};
use crate::trial::Findings;
use dunlin_lm::{
    Error, Extend, LoadProgress, LoadStep, ModelDir, Promise, Result, SessionId, Target, TargetIdentity,
    Vocabulary,
};
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::model::LlamaModel;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

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
