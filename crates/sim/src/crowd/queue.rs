//! The target of a crowd: a queue of jobs that passes take in batches, as the verifier's worker does.
//!
//! Invariant: work is done in the order of arrival, at most one job of a slot and [`BATCH_JOBS_MAX`] jobs in a pass.

use super::CrowdModels;
use anyhow::Result;
use dunlin_hlm::passes::{BATCH_JOBS_MAX, PassSize};
use dunlin_hlm::verifier::{VerifierEvent, VerifyJob, VerifyJobId};
use std::collections::VecDeque;

/// The time of a pass of the target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PassModel {
    /// Time of a pass, whatever its size, µs.
    pub pass_us: f64,
    /// Time of each token fed, µs.
    pub token_us: f64,
}

impl PassModel {
    /// Time of a pass that feeds so many tokens, µs.
    pub fn us(&self, tokens: usize) -> u64 {
        (self.pass_us + self.token_us * tokens as f64).round() as u64
    }
}

/// A pass of the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TargetPass {
    /// Its beginning, µs.
    pub began_us: u64,
    /// Its end, µs.
    pub ended_us: u64,
    /// Its size; the tokens fed include those of prompts.
    pub size: PassSize,
    /// Rows of logits that it gave: a token of a prompt gives none, except the last.
    pub rows: usize,
    /// Mean time that its jobs waited for it, µs.
    pub waited_us: u64,
}

impl TargetPass {
    /// Its duration, µs.
    pub fn took_us(&self) -> u64 {
        self.ended_us - self.began_us
    }
}

/// Work that waits, with the device that caused it and the time at which it came, µs.
#[derive(Debug)]
struct WaitingWork {
    device: usize,
    came_us: u64,
    work: VerifierEvent,
}

/// A job of the pass under way, with its rows.
#[derive(Debug)]
pub(super) struct PassJob {
    /// The device that caused it.
    pub(super) device: usize,
    /// Its number.
    pub(super) id: VerifyJobId,
    /// `rows × vocabulary` logits.
    pub(super) rows: Vec<f32>,
}

/// The queue and the pass under way.
#[derive(Debug)]
pub(super) struct TargetQueue {
    model: PassModel,
    waiting: VecDeque<WaitingWork>,
    running: Vec<PassJob>,
    pass: TargetPass,
}

impl TargetQueue {
    pub(super) fn new(model: PassModel) -> Self {
        Self { model, waiting: VecDeque::new(), running: Vec::new(), pass: TargetPass::default() }
    }

    /// Adds work that a device caused.
    pub(super) fn push(&mut self, device: usize, work: VerifierEvent, now_us: u64) {
        self.waiting.push_back(WaitingWork { device, came_us: now_us, work });
    }

    /// Begins a pass with what waits, and returns the time of its end; `None` while one is under way or nothing waits.
    ///
    /// # Errors
    /// The target fails.
    pub(super) fn begin(&mut self, models: &mut dyn CrowdModels, now_us: u64) -> Result<Option<u64>> {
        if !self.running.is_empty() {
            return Ok(None);
        }
        let (mut jobs, mut waited): (Vec<(usize, VerifyJob)>, u64) = (Vec::new(), 0);
        while jobs.len() < BATCH_JOBS_MAX
            && let Some(WaitingWork { work, .. }) = self.waiting.front()
            && let VerifierEvent::Verify(VerifyJob { slot, .. }) | VerifierEvent::Release(slot) = work
            && jobs.iter().all(|(_, job)| job.slot != *slot)
            && let Some(WaitingWork { device, came_us, work }) = self.waiting.pop_front()
        {
            match work {
                VerifierEvent::Release(slot) => models.of(device).release(slot),
                VerifierEvent::Verify(job) => {
                    waited += now_us - came_us;
                    jobs.push((device, job));
                }
            }
        }
        if jobs.is_empty() {
            return Ok(None);
        }
        let size = PassSize::of(jobs.iter().map(|(_, job)| job));
        self.pass = TargetPass {
            began_us: now_us,
            ended_us: now_us + self.model.us(size.tokens),
            size,
            rows: jobs.iter().map(|(_, job)| job.rows).sum(),
            waited_us: waited / jobs.len() as u64,
        };
        // The rows are computed now: a session that ends during the pass may take its cache with it.
        for (device, job) in jobs {
            let rows = models.of(device).verify(&job)?;
            self.running.push(PassJob { device, id: job.id, rows });
        }
        Ok(Some(self.pass.ended_us))
    }

    /// Ends the pass under way.
    pub(super) fn end(&mut self) -> (TargetPass, Vec<PassJob>) {
        (self.pass, std::mem::take(&mut self.running))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toy::{ToyModels, ToyPair};
    use dunlin_hlm::probabilities::Sampling;
    use dunlin_hlm::verifier::Slot;

    const PAIR: ToyPair = ToyPair { vocabulary: 4, seed: 1, agreement: 1.0 };
    const MODEL: PassModel = PassModel { pass_us: 100.0, token_us: 2.5 };

    fn job(id: u64, slot: u64, keep: usize, tokens: usize) -> VerifierEvent {
        let (id, slot, tokens) = (VerifyJobId(id), Slot(slot), vec![1; tokens]);
        let (sampling, seed) = (Sampling::greedy(), 0);
        VerifierEvent::Verify(VerifyJob { id, slot, keep, tokens, rows: 1, sampling, seed })
    }

    fn queue(work: impl IntoIterator<Item = VerifierEvent>) -> (TargetQueue, Vec<ToyModels>) {
        let mut queue = TargetQueue::new(MODEL);
        work.into_iter().enumerate().for_each(|(i, work)| queue.push(0, work, i as u64 * 10));
        (queue, vec![ToyModels::new(PAIR)])
    }

    /// Plays a pass; its jobs by number.
    fn pass(queue: &mut TargetQueue, models: &mut Vec<ToyModels>, now_us: u64) -> (TargetPass, Vec<u64>) {
        queue.begin(models, now_us).unwrap().unwrap();
        assert_eq!(queue.begin(models, now_us).unwrap(), None, "one pass at a time");
        let (pass, jobs) = queue.end();
        (pass, jobs.iter().map(|job| job.id.0).collect())
    }

    #[test]
    fn a_pass_by_hand() {
        let (mut queue, mut models) = queue([job(1, 1, 0, 3), job(2, 2, 0, 1)]);
        let (pass, jobs) = pass(&mut queue, &mut models, 50);
        // 100 + 4 · 2.5 µs. The first job waited for 50 µs, the second for 40.
        let (began_us, ended_us) = (50, 160);
        let expected = TargetPass {
            began_us,
            ended_us,
            size: PassSize { jobs: 2, tokens: 4, longest: 3 },
            rows: 2,
            waited_us: 45,
        };
        assert_eq!((pass, jobs), (expected, vec![1, 2]));
        assert_eq!(queue.begin(&mut models, 160).unwrap(), None, "nothing waits");
    }

    #[test]
    fn a_pass_is_bounded_and_the_rest_comes_first_in_the_next() {
        let most = BATCH_JOBS_MAX as u64;
        let (mut queue, mut models) = queue((0..most + 2).map(|i| job(i, i, 0, 1)));
        let (_, first) = pass(&mut queue, &mut models, 1_000);
        queue.push(0, job(99, 0, 1, 1), 1_000);
        assert_eq!(first, (0..most).collect::<Vec<_>>());
        assert_eq!(pass(&mut queue, &mut models, 1_200).1, [most, most + 1, 99]);
    }

    #[test]
    fn a_slot_is_in_a_pass_once_and_released_in_its_turn() {
        let work = [job(1, 1, 0, 2), job(2, 1, 2, 1), VerifierEvent::Release(Slot(1)), job(3, 2, 0, 1)];
        let (mut queue, mut models) = queue(work);
        assert_eq!(pass(&mut queue, &mut models, 100).1, [1]);
        assert_eq!(pass(&mut queue, &mut models, 200).1, [2], "the release waits for the pass");
        assert_eq!(models[0].slots(), 1);
        assert_eq!(pass(&mut queue, &mut models, 300).1, [3]);
        assert_eq!(models[0].slots(), 1, "the second slot's");
    }
}
