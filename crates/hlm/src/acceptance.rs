//! The verifier's judgement of a frame: the acceptance rules of both couplings, and the treatment of held tokens.
//!
//! Invariant: the outcome depends only on the frame, the target's rows, the sampling and the session's seed, so a
//! frame that is judged twice gets the same answer. The noise of each rule is part of the protocol.

use crate::TokenId;
use crate::coupling::{Noise, couple, couple_residual};
use crate::payload::{self, Sent};
use crate::policy::PayloadForm;
use crate::probabilities::{Distribution, Sampling};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use dunlin_wire::{DraftFrame, Rows};

/// "acceptin": a domain of its own, so that the coin is independent of the noise that draws tokens.
const DOMAIN_ACCEPTANCE: u64 = 0x6163_6365_7074_696e;

/// A frame and the inputs that its tokens are judged with.
#[derive(Clone, Copy, Debug)]
pub struct JudgedFrame<'a> {
    /// The frame.
    pub frame: &'a DraftFrame,
    /// The weights received for it, one per vocabulary entry; used only if its rows are full.
    pub weights: &'a [u8],
    /// Size of the vocabulary.
    pub vocabulary: u32,
    /// Seed of the session.
    pub seed: u64,
    /// Sampling settings of the target.
    pub sampling: Sampling,
}

/// A token that an engine chose by itself, from logits that it doesn't show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChosenToken {
    /// The token.
    pub token: TokenId,
    /// True if the engine ends its text with it.
    pub ends: bool,
}

/// The target's answer to a job.
#[derive(Clone, Copy, Debug)]
pub enum TargetAnswer<'a> {
    /// Logits of an engine of rows, `rows × vocabulary`, row-major.
    Rows(&'a [f32]),
    /// The tokens of an engine of choices, one for each row.
    Choices(&'a [ChosenToken]),
}

/// The judgement of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Number of leading drafts that are appended to the text.
    pub accepted: usize,
    /// The token that follows them.
    pub token: TokenId,
    /// Bit i: held draft i differs from the target's choice.
    pub missed: u16,
}

/// The probability that rejection sampling accepts a token drawn from `q` for a target `p`: `min(1, p/q)`.
///
/// A token with `q = 0`, which could not have been drawn, is accepted if `p > 0`, as the limit of `p/q` demands.
pub fn acceptance(p: &Distribution, q: &Distribution, token: TokenId) -> f64 {
    let (p, q) = (p.probability(token), q.probability(token));
    if p >= q && p > 0.0 {
        1.0
    } else if q > 0.0 {
        p / q
    } else {
        0.0
    }
}

/// The distribution of a rejected token's replacement: `(p − q)⁺`, normalised; `p` itself if `q` is nowhere below it.
pub fn residual(p: &Distribution, q: &Distribution) -> Distribution {
    let left = p.support().iter().map(|c| (c.token, c.probability - q.probability(c.token)));
    Distribution::from_weights(left.filter(|(_, weight)| *weight > 0.0)).unwrap_or_else(|| p.clone())
}

/// The distribution of the token that one step commits. A token is drawn from `drawn_from`; if it is `flushed` it is
/// judged for a target `p` by the distribution `sent`, else it stays. Tokens ascending, probabilities above 0.
///
/// It equals `p` if every token is flushed and `sent` equals `drawn_from`.
pub fn law(
    p: &Distribution,
    drawn_from: &Distribution,
    sent: &Distribution,
    flushed: impl Fn(TokenId) -> bool,
) -> Vec<(TokenId, f64)> {
    let mut law: BTreeMap<TokenId, f64> = BTreeMap::new();
    let mut refused = 0.0;
    for drawn in drawn_from.support() {
        let kept = if flushed(drawn.token) { acceptance(p, sent, drawn.token) } else { 1.0 };
        *law.entry(drawn.token).or_default() += drawn.probability * kept;
        refused += drawn.probability * (1.0 - kept);
    }
    if refused > 0.0 {
        for candidate in residual(p, sent).support() {
            *law.entry(candidate.token).or_default() += refused * candidate.probability;
        }
    }
    law.into_iter().filter(|(_, probability)| *probability > 0.0).collect()
}

impl JudgedFrame<'_> {
    /// The index of the first draft whose row of the target is needed; the number of drafts if none is.
    pub fn first_row(&self) -> usize {
        first_row(self.frame)
    }

    /// Judges the frame by the target's rows of `vocabulary` logits each, starting with that of draft
    /// [`Self::first_row`].
    ///
    /// `None` if a row is missing or has no finite mass, or if a payload is not a distribution.
    pub fn judge(&self, rows: &[f32], scratch: &mut Distribution) -> Option<Outcome> {
        let frame = self.frame;
        let sent = self.sent();
        let mut sent = sent.iter();
        let mut rows = rows.chunks_exact(self.vocabulary as usize);
        let mut missed = 0;
        let first = self.first_row();
        for (index, draft) in frame.drafts.iter().enumerate() {
            let position = u64::from(frame.base) + index as u64;
            if index < first {
                continue;
            }
            let last = index + 1 == frame.drafts.len() && !frame.bonus;
            // The frame asks for nothing but this token, and the policy keeps it: no row was computed for it.
            if last && frame.is_held(index) {
                return Some(Outcome { accepted: index, token: draft.token, missed });
            }
            scratch.refill(rows.next()?, &self.sampling).ok()?;
            // Only the shared seed can tell what the target would have chosen; the token stays in any case.
            if frame.is_held(index) {
                let miss = frame.rows == Rows::None && couple(scratch, self.seed, position) != draft.token;
                missed |= u16::from(miss) << index;
                continue;
            }
            let choice = match frame.rows {
                Rows::None => couple(scratch, self.seed, position),
                _ => {
                    let q = payload::read(sent.next()?, form(&frame.rows), self.vocabulary)?;
                    self.reject(scratch, &q, draft.token, position)
                }
            };
            if choice != draft.token || last {
                return Some(Outcome { accepted: index, token: choice, missed });
            }
        }
        scratch.refill(rows.next()?, &self.sampling).ok()?;
        let accepted = frame.drafts.len();
        let token = couple(scratch, self.seed, u64::from(frame.base) + accepted as u64);
        Some(Outcome { accepted, token, missed })
    }

    /// Judges the frame by the tokens that an engine chose behind each of its prefixes: a draft stands while it is the
    /// token chosen at its position, and nothing stands behind a token that ends the engine's text.
    ///
    /// `None` if the frame is not plain ([`is_plain`]), if a choice is missing, or if one is outside the vocabulary.
    pub fn judge_choices(&self, choices: &[ChosenToken]) -> Option<Outcome> {
        let frame = self.frame;
        if !is_plain(frame) || choices.iter().any(|choice| choice.token >= self.vocabulary) {
            return None;
        }
        for (index, draft) in frame.drafts.iter().enumerate() {
            let choice = choices.get(index)?;
            let last = index + 1 == frame.drafts.len() && !frame.bonus;
            if choice.token != draft.token || choice.ends || last {
                return Some(Outcome { accepted: index, token: choice.token, missed: 0 });
            }
        }
        let accepted = frame.drafts.len();
        choices.get(accepted).map(|choice| Outcome { accepted, token: choice.token, missed: 0 })
    }

    /// Returns the token if it is accepted, else its replacement.
    fn reject(&self, p: &Distribution, q: &Distribution, token: TokenId, position: u64) -> TokenId {
        let coin = Noise::new(DOMAIN_ACCEPTANCE, self.seed, position).unit(0);
        if coin < acceptance(p, q, token) {
            token
        } else {
            couple_residual(&residual(p, q), self.seed, position)
        }
    }

    /// The payload of each judged draft.
    fn sent(&self) -> Vec<Sent> {
        match &self.frame.rows {
            Rows::None => Vec::new(),
            // A frame with full rows has a single judged draft.
            Rows::Full => alloc::vec![Sent::Weights(self.weights.to_vec())],
            Rows::TopK(rows) | Rows::TopKSampled(rows) | Rows::Lattice { rows, .. } => {
                rows.iter().map(payload::from_row).collect()
            }
        }
    }
}

/// True if the target's choices alone decide a frame: the shared seed couples its drafts, and none is held.
pub(crate) fn is_plain(frame: &DraftFrame) -> bool {
    frame.rows == Rows::None && frame.held == 0
}

/// See [`JudgedFrame::first_row`].
pub(crate) fn first_row(frame: &DraftFrame) -> usize {
    match frame.rows {
        Rows::None => 0,
        _ => (0..frame.drafts.len()).find(|&index| !frame.is_held(index)).unwrap_or(frame.drafts.len()),
    }
}

fn form(rows: &Rows) -> PayloadForm {
    match rows {
        Rows::None => PayloadForm::Ids,
        Rows::Full => PayloadForm::Full,
        Rows::TopK(_) => PayloadForm::TopK,
        Rows::TopKSampled(_) => PayloadForm::TopKSampled,
        Rows::Lattice { .. } => PayloadForm::Lattice,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table in `docs/wire.md`: seed, position, hash, and U of the coin.
    #[test]
    fn the_coin_is_pinned() {
        let pinned = [
            (0, 0, 0xb82d_c45f_a5e3_48c3u64, 0.719_448),
            (1, 2, 0x494c_c7d8_9efe_b928, 0.286_328),
            (u64::MAX, u64::MAX, 0x57b3_537d_c86c_203d, 0.342_580),
        ];
        for (seed, position, hash, rounded) in pinned {
            let coin = Noise::new(DOMAIN_ACCEPTANCE, seed, position).unit(0);
            assert_eq!(coin, ((hash >> 12) as f64 + 0.5) / (1u64 << 52) as f64);
            assert!((coin - rounded).abs() < 1e-6, "{coin}");
        }
    }

    #[test]
    fn domains_spell_what_they_are_for() {
        assert_eq!(DOMAIN_ACCEPTANCE.to_be_bytes(), *b"acceptin");
    }

    #[test]
    fn acceptance_and_residual_by_hand() {
        let of = |weights: [f64; 3]| Distribution::from_weights((0..).zip(weights)).unwrap();
        let (p, q) = (of([0.5, 0.5, 0.0]), of([0.25, 0.0, 0.75]));
        assert_eq!([0, 1, 2, 3].map(|token| acceptance(&p, &q, token)), [1.0, 1.0, 0.0, 0.0]);
        assert_eq!(acceptance(&q, &p, 0), 0.5);
        let left = residual(&p, &q);
        assert!((left.probability(0) - 1.0 / 3.0).abs() < 1e-15 && left.probability(2) == 0.0);
        assert_eq!(residual(&p, &p), p, "nothing is left of equal ones");
    }
}
