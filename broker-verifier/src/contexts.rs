//! The target's sessions by slot, with their tokens. A new context that begins like another is copied from it.
//!
//! Invariant: the tokens of a slot are those that the target's session holds.

use dunlin_hlm::schedule::PassPart;
use dunlin_hlm::verifier::{Slot, VerifyJob};
use dunlin_lm::{Extend, Result, SessionId, Target};
use std::collections::BTreeMap;

/// Tokens that two contexts share at least for one to be copied: a few are as quickly computed.
const SHARED_TOKENS_MIN: usize = 32;

/// The context of a slot.
struct SlotContext {
    session: SessionId,
    tokens: Vec<u32>,
}

/// The contexts of all slots.
pub(crate) struct SlotContexts {
    target: Box<dyn Target>,
    slots: BTreeMap<Slot, SlotContext>,
}

impl SlotContexts {
    pub(crate) fn new(target: Box<dyn Target>) -> Self {
        Self { target, slots: BTreeMap::new() }
    }

    /// Copies the longest beginning of a new context that another slot holds; returns its number of tokens. The rows of
    /// the job are still to be computed.
    pub(crate) fn copy(&mut self, job: &VerifyJob) -> usize {
        if self.slots.contains_key(&job.slot) {
            return 0;
        }
        let wanted = &job.tokens[..job.tokens.len() - job.rows.min(job.tokens.len())];
        let shared = |held: &SlotContext| held.tokens.iter().zip(wanted).take_while(|(a, b)| a == b).count();
        let found = self.slots.values().map(|held| (shared(held), held.session));
        let Some((length, session)) = found.max_by_key(|(length, _)| *length) else { return 0 };
        if length < SHARED_TOKENS_MIN {
            return 0;
        }
        match self.target.fork(session, length) {
            Ok(Some(session)) => {
                let tokens = wanted[..length].to_vec();
                self.slots.insert(job.slot, SlotContext { session, tokens });
                length
            }
            Ok(None) => 0,
            // The context is computed instead, and has its own error if there is no memory for it.
            Err(error) => {
                tracing::debug!(slot = job.slot.0, %error, "a context was not copied");
                0
            }
        }
    }

    /// Runs the parts in one pass of the target: an answer for each.
    pub(crate) fn extend<T>(&mut self, parts: &[PassPart<T>]) -> Vec<Result<Vec<f32>>> {
        let opened: Vec<Result<SessionId>> = parts.iter().map(|part| self.session(part.job.slot)).collect();
        let batch: Vec<Extend<'_>> = parts
            .iter()
            .zip(&opened)
            .filter_map(|(PassPart { job, .. }, session)| {
                let session = *session.as_ref().ok()?;
                Some(Extend { session, keep: job.keep, tokens: &job.tokens, rows: job.rows })
            })
            .collect();
        let mut answers = self.target.extend(&batch).into_iter();
        let mut next = || answers.next().unwrap_or(Ok(Vec::new()));
        let answers: Vec<_> = opened.into_iter().map(|session| session.and_then(|_| next())).collect();
        for (part, answer) in parts.iter().zip(&answers) {
            self.follow(&part.job, answer.is_ok());
        }
        answers
    }

    /// Closes the session of a slot, if it has one.
    pub(crate) fn close(&mut self, slot: Slot) {
        if let Some(context) = self.slots.remove(&slot) {
            self.target.close(context.session);
        }
    }

    /// The target's session of a slot, opened at first use.
    fn session(&mut self, slot: Slot) -> Result<SessionId> {
        if let Some(context) = self.slots.get(&slot) {
            return Ok(context.session);
        }
        let session = self.target.open()?;
        self.slots.insert(slot, SlotContext { session, tokens: Vec::new() });
        Ok(session)
    }

    /// Notes the tokens that a slot holds after a job.
    fn follow(&mut self, job: &VerifyJob, done: bool) {
        let Some(context) = self.slots.get_mut(&job.slot) else { return };
        if done {
            context.tokens.truncate(job.keep);
            context.tokens.extend(&job.tokens);
        } else {
            context.tokens.truncate(self.target.len(context.session).unwrap_or(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_hlm::probabilities::Sampling;
    use dunlin_hlm::verifier::VerifyJobId;
    use dunlin_lm::Toy;

    fn toy() -> Toy {
        Toy::new(3, 50, 0.5)
    }

    fn job(slot: u64, keep: usize, tokens: &[u32], rows: usize) -> VerifyJob {
        let device = format!("d{slot}").parse().unwrap();
        let (id, sampling, tokens) = (VerifyJobId(slot), Sampling::greedy(), tokens.to_vec());
        VerifyJob { device, id, slot: Slot(slot), keep, tokens, rows, sampling, seed: 0 }
    }

    fn extend(contexts: &mut SlotContexts, job: VerifyJob) -> Result<Vec<f32>> {
        contexts.extend(&[PassPart { job, came: (), begins: true, ends: true }]).pop().unwrap()
    }

    fn text(length: usize, last: u32) -> Vec<u32> {
        (0..length as u32 - 1).map(|i| i * i % 50).chain([last]).collect()
    }

    #[test]
    fn a_context_is_copied_from_the_one_with_the_longest_same_beginning() {
        let mut contexts = SlotContexts::new(Box::new(toy().target()));
        extend(&mut contexts, job(1, 0, &text(41, 1), 1)).unwrap();
        extend(&mut contexts, job(2, 0, &text(61, 1), 1)).unwrap();
        let third = text(81, 1);
        assert_eq!(contexts.copy(&job(3, 0, &third, 1)), 60);
        assert_eq!(extend(&mut contexts, job(3, 60, &third[60..], 1)).unwrap(), toy().target_logits(&third));
        assert_eq!(contexts.copy(&job(3, 0, &third, 1)), 0, "it has a context already");
        let same = job(4, 0, &third, 3);
        assert_eq!(contexts.copy(&same), 78, "the rows are computed");
        assert_eq!(contexts.copy(&job(5, 0, &text(SHARED_TOKENS_MIN, 7), 1)), 0, "too short");
    }

    /// Tokens that were rolled back, or never read, are nobody's beginning.
    #[test]
    fn only_tokens_that_are_held_are_copied() {
        let mut contexts = SlotContexts::new(Box::new(toy().target()));
        let long = text(100, 1);
        extend(&mut contexts, job(1, 0, &long, 1)).unwrap();
        extend(&mut contexts, job(1, 40, &[7], 1)).unwrap();
        assert_eq!(contexts.copy(&job(2, 0, &long, 1)), 40);
        contexts.close(Slot(2));
        extend(&mut contexts, job(1, 41, &[99], 1)).unwrap_err();
        assert_eq!(contexts.copy(&job(3, 0, &long, 1)), 40, "the same after a job that failed");
        contexts.close(Slot(3));
        contexts.close(Slot(1));
        assert_eq!(contexts.copy(&job(4, 0, &long, 1)), 0, "after its end");
    }
}
