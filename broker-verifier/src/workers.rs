//! The two ways in which a target works, behind one set of verbs: a thread with an engine of rows, or requests to an
//! engine of choices.

use crate::choices::{ChoiceWorker, ChosenBatch};
use crate::engine::TargetEngine;
use crate::worker::{Batch, WorkBounds, Worker};
use anyhow::{Error, Result, anyhow};
use dunlin_hlm::verifier::VerifierEvent;

/// Either worker.
pub enum EngineWorker {
    /// The thread of an engine of rows.
    Rows(Worker),
    /// The requests to an engine of choices.
    Choices(ChoiceWorker),
}

/// A result of either worker.
#[derive(Debug)]
pub enum EngineBatch {
    /// A pass of an engine of rows.
    Rows(Batch),
    /// A request to an engine of choices.
    Choices(ChosenBatch),
}

impl EngineWorker {
    /// Starts the worker that an engine needs.
    ///
    /// # Errors
    /// The thread of an engine of rows can't be started.
    pub fn start(engine: TargetEngine, bounds: WorkBounds) -> Result<Self> {
        Ok(match engine {
            TargetEngine::Rows(target) => Self::Rows(Worker::start(target, bounds)?),
            TargetEngine::Choices(chooser) => Self::Choices(ChoiceWorker::new(chooser, bounds.work)),
        })
    }

    /// Takes work, or returns it while too much waits.
    ///
    /// # Errors
    /// The work itself.
    pub fn push(&mut self, work: VerifierEvent) -> Result<(), VerifierEvent> {
        match self {
            Self::Rows(worker) => worker.push(work),
            Self::Choices(worker) => worker.push(work),
        }
    }

    /// The next result; `None` if the worker has died. Safe to cancel.
    pub async fn next(&mut self) -> Option<EngineBatch> {
        match self {
            Self::Rows(worker) => worker.next().await.map(EngineBatch::Rows),
            Self::Choices(worker) => Some(EngineBatch::Choices(worker.next().await)),
        }
    }

    /// Lets the next pass of an engine of rows begin. Due once for each of its batches.
    pub fn hand_over(&self) {
        if let Self::Rows(worker) = self {
            worker.hand_over();
        }
    }

    /// Number of results while work is outstanding; `None` while none is.
    pub fn owed(&self) -> Option<u64> {
        match self {
            Self::Rows(worker) => worker.owed(),
            Self::Choices(worker) => worker.owed(),
        }
    }

    /// The reason why the worker died.
    pub fn died(self) -> Error {
        match self {
            Self::Rows(worker) => worker.died(),
            Self::Choices(_) => anyhow!("the requests to the target ended early"),
        }
    }
}
