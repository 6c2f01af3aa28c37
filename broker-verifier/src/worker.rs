//! The target's thread: runs the waiting jobs in ragged passes.
//!
//! Invariant: it knows devices, slots and tokens, but neither the protocol's sessions nor the link. Work and results go
//! through bounded channels, and [`PassQueue`] decides what a pass holds. After a pass the thread waits until the loop
//! has handed over what follows from it at once. Otherwise the next pass would begin without the sessions whose text
//! goes on, and these would split into two halves that take turns, each with a pass of its own.

use crate::contexts::SlotContexts;
use anyhow::{Context, Error, Result, anyhow};
use dunlin_hlm::passes::{MeasuredPasses, PassSize};
use dunlin_hlm::schedule::{PassPart, PassQueue};
use dunlin_hlm::time::Duration as Span;
use dunlin_hlm::verifier::{RowsError, Slot, VerifierEvent, VerifyJobId};
use dunlin_lm::Target;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Finished batches that wait for the loop; beyond it, the target pauses.
const BATCHES_MAX: usize = 2;

/// The result of one pass of the target.
#[derive(Debug)]
pub struct Batch {
    /// Rows of each job that it answers, row-major.
    pub rows: Vec<(VerifyJobId, Result<Vec<f32>, RowsError>)>,
    /// Jobs that were dropped since the last batch: their sessions ended, or another job took their tokens over.
    pub dropped: Vec<VerifyJobId>,
    /// Size of the pass; no jobs if there was nothing but dropped ones.
    pub size: PassSize,
    /// Parts of contexts in the pass that later passes continue.
    pub chunks: usize,
    /// Tokens that were copied from other contexts instead of being computed in it.
    pub shared: usize,
    /// Duration of the pass.
    pub took: Duration,
    /// Mean time that its whole jobs waited for the pass.
    pub waited: Duration,
}

/// Bounds of the target's thread.
#[derive(Clone, Debug)]
pub struct WorkBounds {
    /// Pieces of work in the channel.
    pub work: usize,
    /// Jobs that wait in the thread.
    pub jobs: usize,
    /// Tokens of long contexts in a pass; `None` for as many as the measured time allows.
    pub prefill: Option<usize>,
    /// Passes that were measured before there was work.
    pub measured: MeasuredPasses,
}

/// The loop's end of the target's thread.
pub struct Worker {
    work: SyncSender<(Instant, VerifierEvent)>,
    batches: mpsc::Receiver<Batch>,
    /// Lets the thread begin the next pass.
    handed: SyncSender<()>,
    thread: JoinHandle<()>,
    /// Jobs whose rows are outstanding.
    owed: usize,
    /// Number of batches received.
    finished: u64,
}

impl Worker {
    /// Starts the thread.
    ///
    /// # Errors
    /// The thread can't be started.
    pub fn start(target: Box<dyn Target>, bounds: WorkBounds) -> Result<Self> {
        let (work, waiting) = sync_channel(bounds.work);
        let (sender, batches) = mpsc::channel(BATCHES_MAX);
        let (handed, next) = sync_channel(BATCHES_MAX);
        let run = move || Model::new(target, bounds, sender, next).run(&waiting);
        let thread =
            thread::Builder::new().name("target".into()).spawn(run).context("the target's thread")?;
        Ok(Self { work, batches, handed, thread, owed: 0, finished: 0 })
    }

    /// Queues work, or returns it while the queue is full. Work for a dead thread is dropped; [`Self::next`] then
    /// returns `None`.
    pub fn push(&mut self, work: VerifierEvent) -> Result<(), VerifierEvent> {
        let owes = usize::from(matches!(work, VerifierEvent::Verify(_)));
        match self.work.try_send((Instant::now(), work)) {
            Err(TrySendError::Full((_, work))) => return Err(work),
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
        }
        self.owed += owes;
        Ok(())
    }

    /// The next finished batch; `None` if the thread has died. Safe to cancel.
    pub async fn next(&mut self) -> Option<Batch> {
        let batch = self.batches.recv().await?;
        self.owed = self.owed.saturating_sub(batch.rows.len() + batch.dropped.len());
        self.finished += 1;
        Some(batch)
    }

    /// Lets the next pass begin: what follows at once from the last batch was pushed. Due once for each batch.
    pub fn hand_over(&self) {
        // Ignore the error: a thread that died takes nothing, and the channel has room for every batch there can be.
        let _ = self.handed.try_send(());
    }

    /// Number of finished batches while rows are outstanding; `None` while none are.
    pub fn owed(&self) -> Option<u64> {
        (self.owed > 0).then_some(self.finished)
    }

    /// The reason why the thread died. Waits until it has ended.
    pub fn died(self) -> Error {
        drop((self.work, self.handed));
        match self.thread.join() {
            Ok(()) => anyhow!("the target's thread ended early"),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
                anyhow!("the target's thread panicked: {}", text.unwrap_or("no message"))
            }
        }
    }
}

/// The thread's state.
struct Model {
    contexts: SlotContexts,
    queue: PassQueue<Instant>,
    jobs_max: usize,
    /// Jobs that were dropped since the last batch.
    dropped: Vec<VerifyJobId>,
    batches: mpsc::Sender<Batch>,
    /// A message when the loop has handed over what follows from a batch.
    handed: Receiver<()>,
}

impl Model {
    fn new(
        target: Box<dyn Target>,
        bounds: WorkBounds,
        batches: mpsc::Sender<Batch>,
        handed: Receiver<()>,
    ) -> Self {
        let mut queue = PassQueue::new(bounds.prefill);
        queue.expect(&bounds.measured);
        Self {
            contexts: SlotContexts::new(target),
            queue,
            jobs_max: bounds.jobs,
            dropped: Vec::new(),
            batches,
            handed,
        }
    }

    /// Runs the waiting work; ends when nobody queues work or takes results any more.
    fn run(mut self, waiting: &Receiver<(Instant, VerifierEvent)>) {
        loop {
            if self.queue.is_empty() {
                match waiting.recv() {
                    Ok(first) => self.take(first),
                    Err(_) => return,
                }
            }
            while self.queue.len() < self.jobs_max
                && let Ok(next) = waiting.try_recv()
            {
                self.take(next);
            }
            self.pass();
            if self.batches.is_closed() {
                return;
            }
        }
    }

    /// Queues a job, or frees a slot and drops what waits for it.
    fn take(&mut self, (at, work): (Instant, VerifierEvent)) {
        match work {
            VerifierEvent::Verify(job) => self.dropped.extend(self.queue.push(job, at)),
            VerifierEvent::Release(slot) => {
                self.dropped.extend(self.queue.release(slot));
                self.contexts.close(slot);
            }
        }
    }

    /// Runs the next pass and sends the rows.
    fn pass(&mut self) {
        let started = Instant::now();
        let mut shared = 0;
        let parts = self.queue.next_pass(&mut |job| {
            let copied = self.contexts.copy(job);
            shared += copied;
            copied
        });
        if parts.is_empty() && self.dropped.is_empty() {
            return;
        }
        let whole: Vec<&PassPart<Instant>> = parts.iter().filter(|part| part.begins && part.ends).collect();
        let waited: Duration = whole.iter().map(|part| started.saturating_duration_since(part.came)).sum();
        let waited = waited / whole.len().max(1) as u32;
        let size = PassSize::of(parts.iter().map(|part| &part.job));
        let answers = self.contexts.extend(&parts);
        let mut rows = Vec::with_capacity(parts.len());
        for (PassPart { job, ends, .. }, answer) in parts.iter().zip(answers) {
            if let Err(error) = &answer {
                let error = failed(job.slot, error);
                // What was to continue a part that failed fails with it.
                self.queue
                    .release(job.slot)
                    .into_iter()
                    .filter(|id| *id != job.id)
                    .for_each(|id| rows.push((id, Err(error))));
                rows.push((job.id, Err(error)));
            } else if let (true, Ok(answer)) = (ends, answer) {
                rows.push((job.id, Ok(answer)));
            }
        }
        let took = started.elapsed();
        self.queue.observe(size, Span(took.as_micros() as u64));
        let chunks = parts.iter().filter(|part| !part.ends).count();
        let dropped = std::mem::take(&mut self.dropped);
        let batch = Batch { rows, dropped, size, chunks, shared, took, waited };
        // Ignore the error: without a receiver, the loop has ended and this thread ends, too.
        let _ = self.batches.blocking_send(batch);
        let _ = self.handed.recv();
    }
}

/// Converts an error for the protocol machine, and logs it in full.
fn failed(slot: Slot, error: &dunlin_lm::Error) -> RowsError {
    if let dunlin_lm::Error::CacheFull { .. } = error {
        tracing::debug!(slot = slot.0, %error, "no room for a session");
        return RowsError::Budget;
    }
    if let dunlin_lm::Error::Keep { .. } = error {
        tracing::debug!(slot = slot.0, %error, "an earlier job of the session failed");
        return RowsError::Lost;
    }
    tracing::warn!(slot = slot.0, %error, "the target failed on a session");
    RowsError::Failed
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_hlm::passes::BATCH_JOBS_MAX;
    use dunlin_hlm::probabilities::Sampling;
    use dunlin_hlm::verifier::VerifyJob;
    use dunlin_lm::Toy;

    const TOY: u64 = 3;
    const BOUNDS: WorkBounds =
        WorkBounds { work: 4, jobs: 1000, prefill: Some(32), measured: MeasuredPasses::new() };

    fn toy() -> Toy {
        Toy::new(TOY, 16, 0.5)
    }

    fn job(id: u64, slot: u64, keep: usize, tokens: &[u32], rows: usize) -> VerifierEvent {
        VerifierEvent::Verify(VerifyJob {
            device: format!("d{slot}").parse().unwrap(),
            id: VerifyJobId(id),
            slot: Slot(slot),
            keep,
            tokens: tokens.to_vec(),
            rows,
            sampling: Sampling::greedy(),
            seed: 0,
        })
    }

    /// The batches of a thread that finds all this work waiting at its start.
    fn batches(work: Vec<VerifierEvent>) -> Vec<Batch> {
        let (sender, waiting) = sync_channel(work.len());
        work.into_iter().for_each(|work| sender.try_send((Instant::now(), work)).unwrap());
        drop(sender);
        let (sender, mut batches) = mpsc::channel(64);
        let target = Box::new(toy().target());
        // Nobody hands anything over: all work is there from the beginning.
        let (_, handed) = sync_channel(1);
        Model::new(target, BOUNDS, sender, handed).run(&waiting);
        std::iter::from_fn(|| batches.try_recv().ok()).collect()
    }

    #[test]
    fn waiting_jobs_form_one_batch() {
        let done = batches(vec![job(1, 1, 0, &[1, 2], 2), job(2, 2, 0, &[3], 1)]);
        assert_eq!(done.len(), 1);
        let (id, rows) = &done[0].rows[1];
        assert_eq!((id, rows.as_ref().unwrap()), (&VerifyJobId(2), &toy().target_logits(&[3])));
        assert_eq!(done[0].rows[0].1.as_ref().unwrap().len(), 2 * 16);
    }

    #[test]
    fn a_slot_is_asked_once_a_batch_and_keeps_its_cache() {
        let done = batches(vec![job(1, 1, 0, &[1, 2], 1), job(2, 1, 1, &[5], 1)]);
        assert_eq!(done.len(), 2);
        assert_eq!(done[1].rows[0].1.as_ref().unwrap(), &toy().target_logits(&[1, 5]));
    }

    #[test]
    fn a_released_slot_starts_afresh() {
        let done =
            batches(vec![job(1, 1, 0, &[1], 1), VerifierEvent::Release(Slot(1)), job(2, 1, 1, &[2], 1)]);
        assert_eq!(done[0].dropped, [VerifyJobId(1)], "its session ended before its pass");
        assert_eq!(done[0].rows, [(VerifyJobId(2), Err(RowsError::Lost))], "nothing is kept of it");
    }

    #[test]
    fn a_long_context_is_read_in_chunks_between_the_others() {
        let long: Vec<u32> = (0..100).map(|token| token % 16).collect();
        let done = batches(vec![job(1, 1, 0, &long, 1), job(2, 2, 0, &[3, 4], 2), job(3, 2, 2, &[5], 1)]);
        let answered: Vec<Vec<u64>> =
            done.iter().map(|batch| batch.rows.iter().map(|(id, _)| id.0).collect()).collect();
        assert_eq!(answered, [vec![2], vec![3], vec![], vec![1]]);
        assert_eq!(done.iter().map(|batch| batch.size.tokens).collect::<Vec<_>>(), [34, 33, 32, 4]);
        assert_eq!(done.iter().map(|batch| batch.chunks).sum::<usize>(), 3);
        assert_eq!(done[3].rows[0].1.as_ref().unwrap(), &toy().target_logits(&long));
    }

    /// Ten contexts with the same first 200 tokens that come at once: each copies what the one before it has read.
    #[test]
    fn a_beginning_that_contexts_share_is_computed_once() {
        let prompt: Vec<u32> = (0..200).map(|i| i * i % 16).collect();
        let texts: Vec<Vec<u32>> = (0..10).map(|i| [&prompt[..], &[i, i + 1, i + 2]].concat()).collect();
        let done = batches(texts.iter().zip(1..).map(|(text, slot)| job(slot, slot, 0, text, 1)).collect());
        let tokens: usize = done.iter().map(|batch| batch.size.tokens).sum();
        let shared: usize = done.iter().map(|batch| batch.shared).sum();
        assert_eq!(tokens + shared, 10 * 203, "each token is computed or copied");
        assert!(tokens < 1000, "{tokens} of 2030 tokens were computed");
        for (id, rows) in done.iter().flat_map(|batch| &batch.rows) {
            let text = &texts[id.0 as usize - 1];
            assert_eq!(rows.as_ref().unwrap(), &toy().target_logits(text), "{id:?}");
        }
        let late = batches(vec![job(1, 1, 0, &texts[0], 1)]);
        assert_eq!(late.iter().map(|batch| batch.shared).sum::<usize>(), 0, "nobody is there");
    }

    #[test]
    fn a_chunk_that_fails_ends_its_job() {
        let mut long = [1; 100];
        long[40] = 99;
        let done = batches(vec![job(1, 1, 0, &long, 1), job(2, 1, 100, &[1], 1)]);
        let rows: Vec<_> =
            done.iter().flat_map(|batch| &batch.rows).map(|(id, rows)| (id.0, rows.is_ok())).collect();
        assert_eq!(rows, [(2, false), (1, false)], "and the job behind it");
        assert_eq!(done.len(), 2);
    }

    #[test]
    fn a_lease_that_ends_takes_the_rest_of_its_context_along() {
        let done = batches(vec![
            job(1, 1, 0, &[1; 1000], 1),
            job(2, 2, 0, &[1], 1),
            VerifierEvent::Release(Slot(1)),
        ]);
        assert_eq!(done.len(), 1);
        assert_eq!((done[0].size.tokens, done[0].dropped.as_slice()), (1, &[VerifyJobId(1)][..]));
    }

    #[test]
    fn one_part_may_fail_alone() {
        let done = batches(vec![job(1, 1, 0, &[99], 1), job(2, 2, 0, &[3], 1)]);
        assert_eq!(done[0].rows[0].1, Err(RowsError::Failed));
        assert!(done[0].rows[1].1.is_ok());
    }

    #[test]
    fn a_batch_is_bounded() {
        let work = (0..BATCH_JOBS_MAX as u64 + 1).map(|i| job(i, i, 0, &[1], 1)).collect();
        let sizes: Vec<_> = batches(work).iter().map(|batch| batch.rows.len()).collect();
        assert_eq!(sizes, [BATCH_JOBS_MAX, 1]);
    }

    #[tokio::test]
    async fn outstanding_rows_are_counted() {
        let mut worker = Worker::start(Box::new(toy().target()), BOUNDS).unwrap();
        assert_eq!(worker.owed(), None);
        assert!(worker.push(job(1, 1, 0, &[1], 1)).is_ok());
        assert_eq!(worker.owed(), Some(0));
        assert!(worker.next().await.is_some());
        worker.hand_over();
        assert_eq!(worker.owed(), None);
        assert!(
            worker.push(VerifierEvent::Release(Slot(1))).is_ok()
                && worker.push(job(2, 2, 0, &[1], 1)).is_ok()
        );
        assert_eq!(worker.owed(), Some(1));
    }

    /// Two texts that go on: whenever the loop is slow between two pushes, the thread must wait for the second one.
    #[tokio::test]
    async fn what_follows_from_a_batch_runs_in_one_pass() {
        let mut worker = Worker::start(Box::new(toy().target()), BOUNDS).unwrap();
        for round in 0..200 {
            for slot in 0..2 {
                let first = round == 0;
                let (keep, tokens) = if first { (0, &[1, 2][..]) } else { (round + 1, &[3][..]) };
                assert!(worker.push(job(2 * round as u64 + slot, slot, keep, tokens, 1)).is_ok());
                (0..50).for_each(|_| thread::yield_now());
            }
            if round > 0 {
                worker.hand_over();
            }
            // The very first job may run alone: nothing was handed over before it.
            let mut jobs = worker.next().await.unwrap().rows.len();
            if round == 0 && jobs == 1 {
                worker.hand_over();
                jobs += worker.next().await.unwrap().rows.len();
            }
            assert_eq!(jobs, 2, "round {round}");
        }
    }

    #[test]
    fn work_beyond_the_bound_is_given_back() {
        let (work, _waiting) = sync_channel(1);
        let (_sender, batches) = mpsc::channel(1);
        let (handed, _) = sync_channel(1);
        let mut worker = Worker { work, batches, handed, thread: thread::spawn(|| {}), owed: 0, finished: 0 };
        assert_eq!(worker.push(VerifierEvent::Release(Slot(1))), Ok(()));
        assert_eq!(worker.push(VerifierEvent::Release(Slot(2))), Err(VerifierEvent::Release(Slot(2))));
    }
}
