//! Scripted models for tests: logits are a hash of the last few tokens, so they cost nothing and are the same
//! on every machine.

use crate::draft::{Draft, Rows};
use crate::error::{Error, Result};
use crate::identity::TargetIdentity;
use crate::session::SessionId;
use crate::target::{Extend, Target, check_part, check_tokens};
use dunlin_wire::Promise;
use dunlin_wire::Vocabulary;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Logits are spread evenly over 0 to this: at 8, about a fifth of the tokens hold most of the probability.
const SPREAD: f32 = 8.0;

/// The script that a toy target and a toy drafter share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Toy {
    /// The seed of all logits.
    pub seed: u64,
    /// Number of tokens.
    pub vocabulary: u32,
    /// Number of last tokens that logits depend on.
    pub order: usize,
    /// The most tokens in a context.
    pub context_max: usize,
    /// Share of contexts, 0 to 1, in which the drafter's logits are the target's.
    pub agreement: f64,
}

impl Toy {
    /// A script of `vocabulary` tokens that looks 3 tokens back, in contexts of up to 4096 tokens.
    pub fn new(seed: u64, vocabulary: u32, agreement: f64) -> Self {
        Self { seed, vocabulary, order: 3, context_max: 4096, agreement }
    }

    /// The target of this script.
    pub fn target(self) -> ToyTarget {
        ToyTarget { identity: self.identity(), toy: self, next: 0, sessions: BTreeMap::new() }
    }

    /// The drafter of this script.
    pub fn drafter(self) -> ToyDrafter {
        ToyDrafter { toy: self, context: Vec::new() }
    }

    /// The target's logits for the token after `context`.
    pub fn target_logits(&self, context: &[u32]) -> Vec<f32> {
        let state = self.state(context);
        (0..self.vocabulary).map(|token| SPREAD * unit(mix(state, u64::from(token))) as f32).collect()
    }

    /// The drafter's logits for the token after `context`.
    pub fn draft_logits(&self, context: &[u32]) -> Vec<f32> {
        let agrees = unit(mix(self.state(context), u64::MAX)) < self.agreement;
        let other = Self { seed: mix(self.seed, 1), ..*self };
        if agrees { self.target_logits(context) } else { other.target_logits(context) }
    }

    /// Attention of the last token of `context` over all of it.
    fn attention(&self, context: &[u32]) -> Vec<f32> {
        let state = self.state(context);
        let weights: Vec<f32> =
            (0..context.len()).map(|at| 0.01 + unit(mix(state, !(at as u64))) as f32).collect();
        let sum: f32 = weights.iter().sum();
        weights.into_iter().map(|weight| weight / sum).collect()
    }

    fn state(&self, context: &[u32]) -> u64 {
        let recent = &context[context.len().saturating_sub(self.order)..];
        recent.iter().fold(mix(self.seed, 0), |state, token| mix(state, u64::from(*token)))
    }

    /// The target's identity: the numbers that determine its logits take the place of weights.
    fn identity(&self) -> TargetIdentity {
        let numbers = [self.seed, self.vocabulary.into(), self.order as u64];
        let bytes: Vec<u8> = numbers.into_iter().flat_map(u64::to_le_bytes).collect();
        TargetIdentity {
            model: "toy".into(),
            weights: Sha256::digest(bytes).into(),
            engine: "toy".into(),
            numerics: "any".into(),
        }
    }

    fn described(&self) -> Vocabulary {
        Vocabulary { size: self.vocabulary, fingerprint: mix(0, u64::from(self.vocabulary)).to_le_bytes() }
    }
}

/// A scripted [`Target`].
#[derive(Clone, Debug)]
pub struct ToyTarget {
    toy: Toy,
    identity: TargetIdentity,
    next: u64,
    sessions: BTreeMap<SessionId, Vec<u32>>,
}

impl ToyTarget {
    fn part(&mut self, batch: &[Extend<'_>], index: usize) -> Result<Vec<f32>> {
        let part = &batch[index];
        let length = self.len(part.session)?;
        check_part(batch, index, length, self.toy.context_max, self.toy.vocabulary)?;
        let context = self.sessions.get_mut(&part.session).ok_or(Error::UnknownSession(part.session))?;
        context.truncate(part.keep);
        context.extend_from_slice(part.tokens);
        let first = context.len() - part.rows;
        Ok((first..context.len()).flat_map(|last| self.toy.target_logits(&context[..=last])).collect())
    }
}

impl Target for ToyTarget {
    fn vocabulary(&self) -> Vocabulary {
        self.toy.described()
    }

    fn context_max(&self) -> usize {
        self.toy.context_max
    }

    fn identity(&self) -> &TargetIdentity {
        &self.identity
    }

    fn promise(&self) -> Promise {
        Promise::Exact
    }

    fn cache_bytes_per_token(&self) -> u64 {
        size_of::<u32>() as u64
    }

    fn open(&mut self) -> Result<SessionId> {
        let session = SessionId::new(self.next);
        self.next += 1;
        self.sessions.insert(session, Vec::new());
        Ok(session)
    }

    fn fork(&mut self, session: SessionId, len: usize) -> Result<Option<SessionId>> {
        let length = self.len(session)?;
        let context = self.sessions[&session].get(..len).ok_or(Error::Keep { keep: len, length })?.to_vec();
        let fork = self.open()?;
        self.sessions.insert(fork, context);
        Ok(Some(fork))
    }

    fn extend(&mut self, batch: &[Extend<'_>]) -> Vec<Result<Vec<f32>>> {
        (0..batch.len()).map(|index| self.part(batch, index)).collect()
    }

    fn truncate(&mut self, session: SessionId, len: usize) -> Result<()> {
        let context = self.sessions.get_mut(&session).ok_or(Error::UnknownSession(session))?;
        context.truncate(len);
        Ok(())
    }

    fn len(&self, session: SessionId) -> Result<usize> {
        self.sessions.get(&session).map(Vec::len).ok_or(Error::UnknownSession(session))
    }

    fn close(&mut self, session: SessionId) {
        self.sessions.remove(&session);
    }
}

/// A scripted [`Draft`].
#[derive(Clone, Debug)]
pub struct ToyDrafter {
    toy: Toy,
    context: Vec<u32>,
}

impl Draft for ToyDrafter {
    fn vocabulary(&self) -> Vocabulary {
        self.toy.described()
    }

    fn context_max(&self) -> usize {
        self.toy.context_max
    }

    fn len(&self) -> usize {
        self.context.len()
    }

    fn truncate(&mut self, len: usize) {
        self.context.truncate(len);
    }

    fn extend(&mut self, tokens: &[u32]) -> Result<Rows> {
        let past = self.context.len();
        check_tokens(tokens, past, self.toy.context_max, self.toy.vocabulary)?;
        let mut rows = Rows::new(self.toy.vocabulary as usize, past);
        for token in tokens {
            self.context.push(*token);
            rows.push_logits(&self.toy.draft_logits(&self.context));
            rows.push_attention(&self.toy.attention(&self.context));
        }
        Ok(rows)
    }
}

/// One step of a hash (SplitMix64's finisher).
fn mix(state: u64, value: u64) -> u64 {
    let mut mixed = state.rotate_left(23) ^ value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A hash as a number in [0, 1).
fn unit(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Share of contexts in which both scripts rate the same token highest.
    fn greedy_agreement(toy: Toy) -> f64 {
        let best = |logits: Vec<f32>| (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
        let same =
            |n: &u32| best(toy.target_logits(&[n / 64, n % 64])) == best(toy.draft_logits(&[n / 64, n % 64]));
        (0..4096).filter(same).count() as f64 / 4096.0
    }

    #[test]
    fn agreement_is_tunable() {
        for agreement in [0.0, 0.5, 0.9, 1.0] {
            let measured = greedy_agreement(Toy::new(7, 64, agreement));
            assert!((measured - agreement).abs() < 0.04, "{measured} for {agreement}");
        }
    }

    #[test]
    fn rows_depend_on_the_last_tokens_alone() {
        let toy = Toy::new(1, 50, 0.5);
        assert_eq!(toy.target_logits(&[1, 2, 3, 4]), toy.target_logits(&[9, 2, 3, 4]));
        assert_ne!(toy.target_logits(&[1, 2, 3, 4]), toy.target_logits(&[1, 3, 3, 4]));
    }

    #[test]
    fn a_drafter_rolls_back() {
        let mut drafter = Toy::new(1, 50, 0.5).drafter();
        drafter.extend(&[1, 2, 3]).unwrap();
        let once = drafter.extend(&[4, 5]).unwrap();
        drafter.truncate(3);
        assert_eq!(drafter.extend(&[4, 5]).unwrap(), once);
        assert_eq!(once.len(), 2);
        let attention = once.attention(1).unwrap();
        assert_eq!(attention.len(), 5);
        assert!((attention.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }

    #[test]
    fn scripts_of_other_logits_have_other_identities() {
        let identity = |toy: Toy| toy.target().identity().clone();
        let toy = Toy::new(1, 50, 0.5);
        assert_eq!(identity(toy), identity(Toy { agreement: 0.9, context_max: 7, ..toy }));
        for other in [Toy { seed: 2, ..toy }, Toy { vocabulary: 51, ..toy }, Toy { order: 2, ..toy }] {
            assert_ne!(identity(toy).weights, identity(other).weights);
        }
    }

    #[test]
    fn a_target_keeps_what_it_is_told() {
        let toy = Toy::new(1, 50, 0.5);
        let mut target = toy.target();
        let session = target.open().unwrap();
        let mut extend = |keep, tokens| {
            target.extend(&[Extend { session, keep, tokens, rows: 1 }]).pop().unwrap().unwrap()
        };
        extend(0, &[1, 2, 3]);
        assert_eq!(extend(1, &[9]), toy.target_logits(&[1, 9]));
        assert_eq!(target.len(session).unwrap(), 2);
        target.close(session);
        assert!(matches!(target.len(session), Err(Error::UnknownSession(_))));
    }

    #[test]
    fn a_target_refuses_part_by_part() {
        let mut target = Toy::new(1, 50, 0.5).target();
        let (a, b) = (target.open().unwrap(), target.open().unwrap());
        let part = |session, keep, tokens, rows| Extend { session, keep, tokens, rows };
        let answers = target.extend(&[part(a, 1, &[1], 1), part(b, 0, &[1, 2], 1), part(b, 0, &[1], 1)]);
        assert!(matches!(answers[0], Err(Error::Keep { keep: 1, length: 0 })));
        assert_eq!(answers[1].as_ref().unwrap().len(), 50);
        assert!(matches!(answers[2], Err(Error::RepeatedSession(_))));
        assert_eq!(target.len(b).unwrap(), 2);
        let answers = target.extend(&[part(a, 0, &[50], 0), part(b, 0, &[1], 2)]);
        assert!(matches!(answers[0], Err(Error::Token { token: 50, vocabulary: 50 })));
        assert!(matches!(answers[1], Err(Error::Rows { rows: 2, tokens: 1 })));
    }
}
