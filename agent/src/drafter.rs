//! The drafter's worker thread. A run takes milliseconds to seconds, and the loop must not wait for it, so runs
//! happen one at a time in a thread of their own.

use crate::slot::{Giver, Taker, slot};
use anyhow::{Context, Result, anyhow};
use dunlin_hlm::device::{DraftJob, DraftJobId, DraftRow};
use dunlin_hlm::time::Duration;
use dunlin_lm::{Draft, Vocabulary, Window, WindowRows};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};

/// Finished runs that wait for the loop, so that the thread can go on with the next job.
const DONE_MAX: usize = 2;
/// Tokens of a prompt in one run of the model. Limits memory, because the rows of all of them are held at once.
const CHUNK_TOKENS_MAX: usize = 64;

/// The properties of a loaded drafter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described {
    /// The tokens it knows.
    pub vocabulary: Vocabulary,
    /// Tokens its context holds; a text may be longer.
    pub context_max: usize,
    /// Tokens that it reads again when its context is full.
    pub refill_tokens: usize,
    /// Memory that each token of its context takes at most, bytes.
    pub cache_bytes_per_token: u64,
}

/// A drafter, and the use of its context.
pub struct WorkingDrafter {
    /// The drafter.
    pub drafter: Box<dyn Draft>,
    /// Most tokens of its context to use.
    pub context_max: usize,
    /// Tokens of a text's beginning that stay in a full context.
    pub head: usize,
}

impl From<Box<dyn Draft>> for WorkingDrafter {
    /// All of its context, of which nothing stays but a text's end.
    fn from(drafter: Box<dyn Draft>) -> Self {
        Self { drafter, context_max: usize::MAX, head: 0 }
    }
}

/// A drafter in a thread of its own.
pub struct Worker {
    jobs: Giver<Job>,
    done: mpsc::Receiver<Done>,
    described: Described,
    /// Jobs whose rows are outstanding.
    owed: usize,
    steps: Steps,
}

/// Counts the runs of the model, so that a watchdog can tell slow from stuck.
#[derive(Clone, Debug, Default)]
struct Steps(Arc<AtomicU64>);

impl Steps {
    fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct Job {
    session: u64,
    job: DraftJob,
}

/// A finished run.
pub struct Done {
    /// The agent's session that requested it.
    pub session: u64,
    /// The job.
    pub id: DraftJobId,
    /// The last row, or the error.
    pub rows: Result<WindowRows, dunlin_lm::Error>,
    /// Its duration.
    pub took: Duration,
}

impl Done {
    /// The row of the last token.
    ///
    /// # Errors
    /// The drafter failed, or gave no row.
    pub fn last_row(&self) -> Result<DraftRow<'_>> {
        let WindowRows { rows, refilled } =
            self.rows.as_ref().map_err(|error| anyhow!("the drafter failed: {error}"))?;
        let last = rows.len().checked_sub(1).context("the drafter gave no row")?;
        let (logits, attention) = (rows.logits(last), rows.attention(last));
        Ok(DraftRow { logits, attention, took: self.took, refilled: *refilled })
    }
}

impl Worker {
    /// Starts the thread and loads the drafter in it, for texts that may be longer than its context.
    ///
    /// # Errors
    /// The drafter can't be loaded.
    pub async fn start<L>(load: L) -> Result<Self>
    where
        L: FnOnce() -> Result<WorkingDrafter> + Send + 'static,
    {
        let (jobs, to_do) = slot();
        let (finished, done) = mpsc::channel(DONE_MAX);
        let (loaded, described) = oneshot::channel();
        let steps = Steps::default();
        let counted = steps.clone();
        let work = move || match load() {
            Err(error) => drop(loaded.send(Err(error))),
            Ok(WorkingDrafter { drafter, context_max, head }) => {
                let (vocabulary, cache_bytes_per_token) =
                    (drafter.vocabulary(), drafter.cache_bytes_per_token());
                let window = Window::new(drafter, context_max, head);
                let (context_max, refill_tokens) = (window.context_max(), window.refill_tokens());
                let described = Described { vocabulary, context_max, refill_tokens, cache_bytes_per_token };
                if loaded.send(Ok(described)).is_ok() {
                    work(window, &to_do, &finished, &counted);
                }
            }
        };
        thread::Builder::new().name("drafter".into()).spawn(work).context("no thread for the drafter")?;
        let described = described.await.context("the drafter's thread ended while it loaded the model")??;
        Ok(Self { jobs, done, described, owed: 0, steps })
    }

    /// The properties of the drafter.
    pub fn described(&self) -> Described {
        self.described
    }

    /// Queues a run for one of the agent's sessions; it starts after the current run. A job that still waits is
    /// replaced: a session's machine requests one run at a time, so the waiting job belongs to an earlier session and
    /// its rows aren't needed.
    pub fn run(&mut self, session: u64, job: DraftJob) {
        // A replaced job never runs, so it gives its place in the count to the new one.
        if self.jobs.replace(Job { session, job }).is_none() {
            self.owed += 1;
        }
    }

    /// The next finished run. Safe to cancel.
    ///
    /// # Errors
    /// The thread ended.
    pub async fn next(&mut self) -> Result<Done> {
        let done = self.done.recv().await.context("the drafter's thread ended")?;
        self.owed = self.owed.saturating_sub(1);
        Ok(done)
    }

    /// Number of finished runs of the model while rows are outstanding; `None` while none are.
    pub fn owed(&self) -> Option<u64> {
        (self.owed > 0).then(|| self.steps.0.load(Ordering::Relaxed))
    }
}

fn work(mut window: Window, to_do: &Taker<Job>, finished: &mpsc::Sender<Done>, steps: &Steps) {
    while let Some(Job { session, job }) = to_do.take() {
        let started = Instant::now();
        let rows = window.run(job.keep, &job.tokens, CHUNK_TOKENS_MAX, || steps.count());
        let took = Duration(u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX));
        if finished.blocking_send(Done { session, id: job.id, rows, took }).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_lm::{Rows, Toy};
    use std::sync::mpsc::{Receiver, channel};

    /// A drafter that reports when a run begins and waits to be released.
    struct Held {
        toy: Box<dyn Draft>,
        begins: std::sync::mpsc::Sender<usize>,
        go_on: Receiver<()>,
    }

    impl Draft for Held {
        fn vocabulary(&self) -> Vocabulary {
            self.toy.vocabulary()
        }
        fn context_max(&self) -> usize {
            self.toy.context_max()
        }
        fn len(&self) -> usize {
            self.toy.len()
        }
        fn truncate(&mut self, keep: usize) {
            self.toy.truncate(keep);
        }
        fn extend(&mut self, tokens: &[u32]) -> dunlin_lm::Result<Rows> {
            self.begins.send(tokens.len()).unwrap();
            self.go_on.recv().unwrap();
            self.toy.extend(tokens)
        }
    }

    #[tokio::test]
    async fn of_many_sessions_that_ended_only_the_last_one_is_run() {
        let (begins, begun) = channel();
        let (release, go_on) = channel();
        let load = move || {
            let toy = Box::new(Toy::new(1, 64, 1.0).drafter());
            let drafter: Box<dyn Draft> = Box::new(Held { toy, begins, go_on });
            Ok(drafter.into())
        };
        let mut worker = Worker::start(load).await.unwrap();
        let job = |tokens: usize| DraftJob { id: DraftJobId(1), keep: 0, tokens: vec![1; tokens] };
        worker.run(0, job(1));
        assert_eq!(begun.recv().unwrap(), 1);
        (1..=60).for_each(|session| worker.run(session, job(2)));
        (0..2).for_each(|_| release.send(()).unwrap());
        let (first, last) = (worker.next().await.unwrap(), worker.next().await.unwrap());
        assert_eq!((first.session, last.session), (0, 60));
        assert!(last.last_row().is_ok());
        assert_eq!(worker.owed(), None, "nobody waits for what was replaced");
    }
}
