//! The target of a crowd: passes of modelled time over the verifier's own queue.

use super::CrowdModels;
use anyhow::{Context, Result};
use dunlin_hlm::passes::{MeasuredPasses, PassSize};
use dunlin_hlm::schedule::{PassPart, PassQueue};
use dunlin_hlm::time::Duration;
use dunlin_hlm::verifier::{Slot, VerifierEvent, VerifyJobId};
use std::collections::BTreeMap;

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

    /// The passes that a verifier measures at its start.
    pub(super) fn measured(&self) -> MeasuredPasses {
        let mut measured = MeasuredPasses::default();
        while let Some(tokens) = measured.next_tokens() {
            measured.push(tokens, Duration(self.us(tokens)));
        }
        measured
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

/// A job that a pass answers, with its rows.
#[derive(Debug)]
pub(super) struct PassJob {
    /// The member that caused it.
    pub(super) member: usize,
    /// Its number.
    pub(super) id: VerifyJobId,
    /// `rows × vocabulary` logits.
    pub(super) rows: Vec<f32>,
}

/// The queue and the pass under way.
#[derive(Debug)]
pub(super) struct TargetQueue {
    model: PassModel,
    waiting: PassQueue<u64>,
    /// The member that each slot works for.
    members: BTreeMap<Slot, usize>,
    running: Option<Vec<PassJob>>,
    pass: TargetPass,
}

impl TargetQueue {
    /// A queue that reads at most `prefill` tokens of long contexts in a pass, of a target that was measured at its start
    /// as a verifier measures its own.
    pub(super) fn new(model: PassModel, prefill: Option<usize>) -> Self {
        let mut waiting = PassQueue::new(prefill);
        waiting.expect(&model.measured());
        Self { model, waiting, members: BTreeMap::new(), running: None, pass: TargetPass::default() }
    }

    /// Adds work of a member; returns the jobs that nobody waits for any more.
    pub(super) fn push(
        &mut self,
        member: usize,
        work: VerifierEvent,
        models: &mut dyn CrowdModels,
        now_us: u64,
    ) -> Vec<VerifyJobId> {
        match work {
            VerifierEvent::Verify(job) => {
                self.members.insert(job.slot, member);
                self.waiting.push(job, now_us).into_iter().collect()
            }
            VerifierEvent::Release(slot) => {
                if let Some(member) = self.members.remove(&slot) {
                    models.of(member).release(slot);
                }
                self.waiting.release(slot)
            }
        }
    }

    /// Begins a pass at `now_us` if none is under way and work waits; returns the time of its end.
    pub(super) fn begin(&mut self, models: &mut dyn CrowdModels, now_us: u64) -> Result<Option<u64>> {
        if self.running.is_some() || self.waiting.is_empty() {
            return Ok(None);
        }
        let parts = self.waiting.next_pass(&mut |_| 0);
        let size = PassSize::of(parts.iter().map(|part| &part.job));
        let whole = || parts.iter().filter(|part| part.begins && part.ends);
        let waited: u64 = whole().map(|part| now_us - part.came).sum();
        self.pass = TargetPass {
            began_us: now_us,
            ended_us: now_us + self.model.us(size.tokens),
            size,
            rows: parts.iter().map(|part| part.job.rows).sum(),
            waited_us: waited / whole().count().max(1) as u64,
        };
        // The rows are computed now: a session that ends during the pass may take its cache with it.
        let mut running = Vec::new();
        for PassPart { job, ends, .. } in parts {
            let member = *self.members.get(&job.slot).context("a job of a slot that was released")?;
            let rows = models.of(member).verify(&job)?;
            if ends {
                running.push(PassJob { member, id: job.id, rows });
            }
        }
        self.running = Some(running);
        Ok(Some(self.pass.ended_us))
    }

    /// Ends the pass under way.
    pub(super) fn end(&mut self) -> (TargetPass, Vec<PassJob>) {
        self.waiting.observe(self.pass.size, Duration(self.pass.took_us()));
        (self.pass, self.running.take().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toy::{ToyModels, ToyPair};
    use dunlin_hlm::passes::BATCH_JOBS_MAX;
    use dunlin_hlm::probabilities::Sampling;
    use dunlin_hlm::verifier::VerifyJob;

    const PAIR: ToyPair = ToyPair { vocabulary: 4, seed: 1, agreement: 1.0 };
    const MODEL: PassModel = PassModel { pass_us: 100.0, token_us: 2.5 };

    fn job(id: u64, slot: u64, keep: usize, tokens: usize) -> VerifierEvent {
        let (id, slot, tokens) = (VerifyJobId(id), Slot(slot), vec![1; tokens]);
        let (device, sampling, seed) = ("d".parse().unwrap(), Sampling::greedy(), 0);
        VerifierEvent::Verify(VerifyJob { device, id, slot, keep, tokens, rows: 1, sampling, seed })
    }

    fn queue(work: impl IntoIterator<Item = VerifierEvent>) -> (TargetQueue, Vec<ToyModels>) {
        let (mut queue, mut models) = (TargetQueue::new(MODEL, Some(20)), vec![ToyModels::new(PAIR)]);
        for (i, work) in work.into_iter().enumerate() {
            queue.push(0, work, &mut models, i as u64 * 10);
        }
        (queue, models)
    }

    /// Plays a pass; the jobs that it answers, by number.
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
        queue.push(0, job(99, 0, 1, 1), &mut models, 1_000);
        assert_eq!(first, (0..most).collect::<Vec<_>>());
        assert_eq!(pass(&mut queue, &mut models, 1_200).1, [most, most + 1, 99]);
    }

    #[test]
    fn a_slot_is_in_a_pass_once_and_a_context_in_several() {
        let work = [job(1, 1, 0, 2), job(2, 1, 2, 1), job(3, 2, 0, 50)];
        let (mut queue, mut models) = queue(work);
        assert_eq!(pass(&mut queue, &mut models, 100).1, [1]);
        assert_eq!(pass(&mut queue, &mut models, 200).1, [2]);
        assert_eq!(pass(&mut queue, &mut models, 300).1, [3], "20 tokens in each of the passes");
        assert_eq!(models[0].slots(), 2);
    }

    #[test]
    fn a_released_slot_is_gone_with_its_work() {
        let (mut queue, mut models) = queue([job(1, 1, 0, 2), job(2, 2, 0, 50)]);
        pass(&mut queue, &mut models, 100);
        assert_eq!(queue.push(0, VerifierEvent::Release(Slot(2)), &mut models, 100), [VerifyJobId(2)]);
        assert_eq!(models[0].slots(), 1);
        assert_eq!(queue.begin(&mut models, 200).unwrap(), None);
    }
}
