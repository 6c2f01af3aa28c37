//! Requests to an engine of choices: each job is a request of its own, and several are under way at once.
//!
//! Invariant: it knows slots and tokens, but neither the protocol's sessions nor the link. As many requests are under
//! way as the engine takes, the others wait in the order of arrival, and both numbers are bounded. Every job is answered
//! once, also that of a slot that was released meanwhile.

use dunlin_hlm::acceptance::ChosenToken;
use dunlin_hlm::passes::PassSize;
use dunlin_hlm::verifier::{RowsError, Slot, VerifierEvent, VerifyJob, VerifyJobId};
use dunlin_lm::{ChoiceRequest, Chooser, EngineChoice};
use std::collections::{BTreeMap, VecDeque};
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::{AbortHandle, Id, JoinSet};

/// The result of one request.
#[derive(Debug)]
pub struct ChosenBatch {
    /// The job.
    pub id: VerifyJobId,
    /// Its choices.
    pub choices: Result<Vec<ChosenToken>, RowsError>,
    /// Size of the request.
    pub size: PassSize,
    /// Duration of the request.
    pub took: Duration,
    /// Time that the job waited for it.
    pub waited: Duration,
}

/// A job that waits, or whose request is under way.
struct Requested {
    id: VerifyJobId,
    slot: Slot,
    size: PassSize,
    came: Instant,
    started: Instant,
}

/// The loop's end of an engine of choices.
pub struct ChoiceWorker {
    chooser: Arc<dyn Chooser>,
    /// The most jobs that wait.
    waiting_max: usize,
    /// Each slot's text.
    texts: BTreeMap<Slot, Vec<u32>>,
    waiting: VecDeque<(Requested, ChoiceRequest)>,
    running: JoinSet<dunlin_lm::Result<Vec<EngineChoice>>>,
    requested: BTreeMap<VerifyJobId, (Requested, AbortHandle)>,
    /// Answers that need no request.
    answered: VecDeque<ChosenBatch>,
    /// Number of answers given.
    finished: u64,
}

impl ChoiceWorker {
    /// A worker of which up to `waiting_max` jobs may wait.
    pub fn new(chooser: Arc<dyn Chooser>, waiting_max: usize) -> Self {
        Self {
            chooser,
            waiting_max,
            texts: BTreeMap::new(),
            waiting: VecDeque::new(),
            running: JoinSet::new(),
            requested: BTreeMap::new(),
            answered: VecDeque::new(),
            finished: 0,
        }
    }

    /// Takes work, or returns it while too much waits.
    ///
    /// # Errors
    /// The work itself: too many jobs wait.
    pub fn push(&mut self, work: VerifierEvent) -> Result<(), VerifierEvent> {
        match work {
            VerifierEvent::Release(slot) => self.release(slot),
            VerifierEvent::Verify(job) => {
                if self.waiting.len() + self.answered.len() >= self.waiting_max {
                    return Err(VerifierEvent::Verify(job));
                }
                self.take(&job);
                self.start_waiting();
            }
        }
        Ok(())
    }

    /// The next answer; waits for ever while nothing is asked. Safe to cancel.
    pub async fn next(&mut self) -> ChosenBatch {
        let batch = match self.answered.pop_front() {
            Some(batch) => batch,
            None => self.next_answer().await,
        };
        self.finished += 1;
        self.start_waiting();
        batch
    }

    /// Number of answers given while jobs are outstanding; `None` while none are.
    pub fn owed(&self) -> Option<u64> {
        let owed = self.waiting.len() + self.answered.len() + self.requested.len();
        (owed > 0).then_some(self.finished)
    }

    async fn next_answer(&mut self) -> ChosenBatch {
        let Some(joined) = self.running.join_next_with_id().await else { return pending().await };
        let (task, answer) = match joined {
            Ok((task, answer)) => (task, Ok(answer)),
            Err(error) => (error.id(), Err(error)),
        };
        let job = self.ended(task);
        let choices = match answer {
            Ok(Ok(choices)) => Ok(choices.into_iter().map(chosen).collect()),
            Ok(Err(error)) => {
                tracing::warn!(slot = job.slot.0, %error, "the target failed on a session");
                Err(RowsError::Failed)
            }
            Err(ended) => {
                if ended.is_panic() {
                    tracing::error!(slot = job.slot.0, error = %ended, "a request to the target panicked");
                }
                Err(RowsError::Failed)
            }
        };
        job.answered(choices)
    }

    /// Removes and returns the job of a task that has ended.
    fn ended(&mut self, task: Id) -> Requested {
        let found = self.requested.iter().find(|(_, (_, handle))| handle.id() == task).map(|(id, _)| *id);
        let found = found.and_then(|id| self.requested.remove(&id));
        found.expect("every task is noted when it starts").0
    }

    fn take(&mut self, job: &VerifyJob) {
        let now = Instant::now();
        let size = PassSize::of([job].into_iter());
        let requested = Requested { id: job.id, slot: job.slot, size, came: now, started: now };
        let text = self.texts.entry(job.slot).or_default();
        let whole = text.len().min(job.keep) + job.tokens.len();
        if job.keep > text.len() {
            return self.answered.push_back(requested.answered(Err(RowsError::Lost)));
        }
        if job.rows > whole || whole > self.chooser.context_max() {
            let (held, rows) = (text.len(), job.rows);
            tracing::warn!(slot = job.slot.0, held, rows, whole, "a job doesn't fit its session");
            return self.answered.push_back(requested.answered(Err(RowsError::Failed)));
        }
        text.truncate(job.keep);
        text.extend(&job.tokens);
        if job.rows == 0 {
            // A context that is read ahead: a server reads it with the first frame, which carries it.
            return self.answered.push_back(requested.answered(Ok(Vec::new())));
        }
        let request = ChoiceRequest {
            tokens: text.clone(),
            choices: job.rows,
            temperature: job.sampling.temperature(),
            top_p: job.sampling.top_p(),
            top_k: job.sampling.top_k(),
            seed: job.seed,
        };
        self.waiting.push_back((requested, request));
    }

    fn start_waiting(&mut self) {
        while self.requested.len() < self.chooser.in_flight_max().max(1)
            && let Some((mut job, request)) = self.waiting.pop_front()
        {
            job.started = Instant::now();
            let chooser = Arc::clone(&self.chooser);
            let task = self.running.spawn(async move { chooser.choose(&request).await });
            self.requested.insert(job.id, (job, task));
        }
    }

    /// Forgets a slot, and cancels its requests: their answers have no reader.
    fn release(&mut self, slot: Slot) {
        self.texts.remove(&slot);
        for (job, task) in self.requested.values() {
            if job.slot == slot {
                task.abort();
            }
        }
        for (job, request) in std::mem::take(&mut self.waiting) {
            if job.slot == slot {
                self.answered.push_back(job.answered(Err(RowsError::Failed)));
            } else {
                self.waiting.push_back((job, request));
            }
        }
    }
}

impl Requested {
    fn answered(self, choices: Result<Vec<ChosenToken>, RowsError>) -> ChosenBatch {
        let Self { id, size, came, started, .. } = self;
        let waited = started.saturating_duration_since(came);
        ChosenBatch { id, choices, size, took: started.elapsed(), waited }
    }
}

fn chosen(choice: EngineChoice) -> ChosenToken {
    ChosenToken { token: choice.token, ends: choice.ends }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_hlm::probabilities::Sampling;
    use dunlin_lm::{ChoiceFuture, Error, Promise, TargetIdentity, Vocabulary};
    use tokio::sync::Semaphore;

    const CONTEXT: usize = 8;

    /// Chooses a token's double; waits for a permit first, and fails on token 99.
    struct Doubles {
        identity: TargetIdentity,
        permits: Semaphore,
        in_flight: usize,
    }

    impl Chooser for Doubles {
        fn vocabulary(&self) -> Vocabulary {
            Vocabulary { size: 256, fingerprint: [0; 8] }
        }

        fn context_max(&self) -> usize {
            CONTEXT
        }

        fn identity(&self) -> &TargetIdentity {
            &self.identity
        }

        fn promise(&self) -> Promise {
            Promise::Distribution
        }

        fn in_flight_max(&self) -> usize {
            self.in_flight
        }

        fn choose<'a>(&'a self, request: &'a ChoiceRequest) -> ChoiceFuture<'a> {
            Box::pin(async move {
                self.permits.acquire().await.expect("never closed").forget();
                let last = |prefix: &[u32]| prefix[prefix.len() - 1];
                match request.prefixes().any(|prefix| last(prefix) == 99) {
                    true => Err(Error::engine("doubles", "no 99")),
                    false => Ok(request
                        .prefixes()
                        .map(|prefix| EngineChoice { token: 2 * last(prefix), ends: false })
                        .collect()),
                }
            })
        }
    }

    fn worker(permits: usize, in_flight: usize) -> (Arc<Doubles>, ChoiceWorker) {
        let identity = TargetIdentity {
            model: "doubles".into(),
            weights: [0; 32],
            engine: String::new(),
            numerics: String::new(),
        };
        let doubles = Arc::new(Doubles { identity, permits: Semaphore::new(permits), in_flight });
        (Arc::clone(&doubles), ChoiceWorker::new(doubles, 2))
    }

    fn job(id: u64, slot: u64, keep: usize, tokens: &[u32], rows: usize) -> VerifierEvent {
        VerifierEvent::Verify(VerifyJob {
            device: "d".parse().unwrap(),
            id: VerifyJobId(id),
            slot: Slot(slot),
            keep,
            tokens: tokens.to_vec(),
            rows,
            sampling: Sampling::greedy(),
            seed: 0,
        })
    }

    /// The next answer: its job and its tokens.
    async fn answer(worker: &mut ChoiceWorker) -> (u64, Result<Vec<u32>, RowsError>) {
        let batch = worker.next().await;
        (batch.id.0, batch.choices.map(|choices| choices.iter().map(|choice| choice.token).collect()))
    }

    #[tokio::test]
    async fn a_slot_keeps_its_text() {
        let (_, mut worker) = worker(9, 4);
        assert_eq!(worker.push(job(1, 1, 0, &[1, 2], 2)), Ok(()));
        assert_eq!(answer(&mut worker).await, (1, Ok(vec![2, 4])));
        assert_eq!(worker.push(job(2, 1, 1, &[5], 2)), Ok(()));
        assert_eq!(answer(&mut worker).await, (2, Ok(vec![2, 10])));
        assert_eq!(worker.push(VerifierEvent::Release(Slot(1))), Ok(()));
        assert_eq!(worker.push(job(3, 1, 1, &[5], 1)), Ok(()));
        assert_eq!(answer(&mut worker).await, (3, Err(RowsError::Lost)), "nothing is kept of it");
        assert_eq!(worker.owed(), None);
    }

    #[tokio::test]
    async fn a_context_is_read_with_its_first_frame() {
        let (doubles, mut worker) = worker(9, 4);
        assert_eq!(worker.push(job(1, 1, 0, &[1, 2], 0)), Ok(()));
        assert_eq!(worker.push(job(2, 1, 2, &[5], 1)), Ok(()));
        assert_eq!(answer(&mut worker).await, (1, Ok(vec![])));
        assert_eq!(answer(&mut worker).await, (2, Ok(vec![10])));
        assert_eq!(doubles.permits.available_permits(), 8, "one request in all");
    }

    #[tokio::test]
    async fn as_many_requests_run_as_the_engine_takes() {
        let (doubles, mut worker) = worker(0, 1);
        let (first, second, third) = (job(1, 1, 0, &[1], 1), job(2, 2, 0, &[2], 1), job(3, 3, 0, &[3], 1));
        assert_eq!((worker.push(first), worker.push(second), worker.push(third)), (Ok(()), Ok(()), Ok(())));
        assert_eq!((worker.requested.len(), worker.waiting.len()), (1, 2));
        let more = job(4, 4, 0, &[4], 1);
        assert_eq!(worker.push(more.clone()), Err(more), "what is too much is given back");
        assert_eq!(worker.owed(), Some(0));
        doubles.permits.add_permits(9);
        for id in 1..=3 {
            assert_eq!(answer(&mut worker).await, (id, Ok(vec![2 * id as u32])));
        }
        assert_eq!((worker.owed(), worker.finished), (None, 3));
    }

    #[tokio::test]
    async fn every_job_of_a_released_slot_is_answered() {
        let (doubles, mut worker) = worker(0, 1);
        assert_eq!(worker.push(job(1, 1, 0, &[1], 1)), Ok(()));
        assert_eq!(worker.push(job(2, 2, 0, &[2], 1)), Ok(()));
        assert_eq!(worker.push(VerifierEvent::Release(Slot(2))), Ok(()));
        assert_eq!(answer(&mut worker).await, (2, Err(RowsError::Failed)), "it never ran");
        assert_eq!(worker.push(VerifierEvent::Release(Slot(1))), Ok(()));
        assert_eq!(answer(&mut worker).await, (1, Err(RowsError::Failed)), "it was cancelled");
        assert_eq!((worker.owed(), doubles.permits.available_permits()), (None, 0));
    }

    #[tokio::test]
    async fn one_session_may_fail_alone() {
        let (_, mut worker) = worker(9, 1);
        assert_eq!(worker.push(job(1, 1, 0, &[99], 1)), Ok(()));
        assert_eq!(worker.push(job(2, 2, 0, &[3], 1)), Ok(()));
        assert_eq!(answer(&mut worker).await, (1, Err(RowsError::Failed)));
        assert_eq!(answer(&mut worker).await, (2, Ok(vec![6])));
    }

    #[tokio::test]
    async fn a_job_that_does_not_fit_is_not_asked() {
        for (bad, error) in [
            (job(1, 1, 1, &[1], 1), RowsError::Lost),
            (job(1, 1, 0, &[1], 2), RowsError::Failed),
            (job(1, 1, 0, &[1; CONTEXT + 1], 1), RowsError::Failed),
            (job(1, 1, 0, &[1; CONTEXT + 1], 0), RowsError::Failed),
        ] {
            let (_, mut worker) = worker(0, 1);
            assert_eq!(worker.push(bad), Ok(()));
            assert_eq!(answer(&mut worker).await, (1, Err(error)));
        }
    }
}
