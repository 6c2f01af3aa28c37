//! The fit of two models before either is loaded: tokens, prompt forms, stop tokens, contexts.

use anyhow::{Context, Result};
use dunlin_hlm::prefixes::Prefixes;
use dunlin_lm::bundle::hex;
use dunlin_lm::{ModelDir, Vocabulary};
use serde::Serialize;

/// The user's words of a one-line chat.
const CHAT: &str = "Hello";

/// The fit of a drafter and a target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairFit {
    /// The drafter's side.
    pub drafter: SideFacts,
    /// The target's side.
    pub target: SideFacts,
    /// The tokens of one beside those of the other.
    pub tokens: TokenFit,
    /// True if both sides' forms give a one-line chat the same tokens.
    pub same_form: bool,
    /// The first of the drafter's tokens for a one-line chat that the target does not know.
    pub unknown_to_target: Option<u32>,
}

/// One side's facts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SideFacts {
    /// The model's name.
    pub name: String,
    /// Number of its tokens, up to the last one in use.
    pub vocabulary: u32,
    /// Their fingerprint in hex.
    pub fingerprint: String,
    /// Rows of its embedding, padding included.
    pub rows: u32,
    /// Most tokens of a context.
    pub context: usize,
    /// A one-line chat, as text.
    pub form: String,
    /// The same as tokens.
    pub form_ids: Vec<u32>,
    /// Tokens that end a reply, in order.
    pub stop: Vec<StopToken>,
}

/// A token that ends a reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StopToken {
    /// Its id.
    pub id: u32,
    /// Its text.
    pub text: String,
}

/// Two vocabularies, compared as a device compares its own with a verifier's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "fit")]
pub enum TokenFit {
    /// All tokens are the same.
    Equal,
    /// The drafter's tokens are the beginning of the target's.
    DrafterIsPrefix {
        /// Tokens that only the target has.
        more: u32,
    },
    /// The target's tokens are the beginning of the drafter's.
    TargetIsPrefix {
        /// Tokens that only the drafter has.
        more: u32,
    },
    /// They differ at a token that both have.
    Parted {
        /// The first id that differs.
        id: u32,
        /// The drafter's token there; `None` if the id is unused.
        drafter: Option<String>,
        /// The target's token there.
        target: Option<String>,
    },
}

impl PairFit {
    /// Compares two models.
    ///
    /// # Errors
    /// A form refuses a one-line chat.
    pub fn of(drafter: &ModelDir, target: &ModelDir) -> Result<Self> {
        let (own, other) = (SideFacts::of(drafter)?, SideFacts::of(target)?);
        let same_form = own.form_ids == other.form_ids;
        let unknown_to_target = own.form_ids.iter().copied().find(|id| *id >= target.vocabulary.size);
        Ok(Self {
            drafter: own,
            target: other,
            tokens: TokenFit::of(drafter, target),
            same_form,
            unknown_to_target,
        })
    }

    /// The reason why no verifier with this target would serve this drafter.
    pub fn problem(&self) -> Option<String> {
        if let TokenFit::Parted { id, drafter, target } = &self.tokens {
            let shown =
                |token: &Option<String>| token.as_ref().map_or("unused".into(), |text| format!("{text:?}"));
            return Some(format!(
                "the vocabularies part at token {id}: {} of the drafter, {} of the target; take a drafter with the \
                 target's tokenizer",
                shown(drafter),
                shown(target)
            ));
        }
        let id = self.unknown_to_target?;
        Some(format!("the drafter's prompt form writes token {id}, which the target does not have"))
    }

    /// Differences that a pair works with, each in a sentence.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if !self.same_form {
            remarks.push(format!(
                "the prompt forms differ: the device writes {:?}, the target was made for {:?}; the device's counts",
                self.drafter.form, self.target.form
            ));
        }
        let missing = self.stops_missing();
        if !missing.is_empty() {
            remarks.push(format!(
                "the target also ends a reply with {}, which the device does not stop at",
                words(&missing)
            ));
        }
        if self.drafter.stop.is_empty() {
            remarks
                .push("the drafter names no token that ends a reply, so replies end at their length".into());
        }
        let (own, other) = (self.drafter.context, self.target.context);
        if own < other {
            remarks.push(format!(
                "the drafter's context of {own} tokens is shorter than the target's {other}: in a longer text the \
                 device reads the beginning and the end again"
            ));
        }
        remarks
    }

    /// The target's stop tokens that the drafter's side does not have.
    fn stops_missing(&self) -> Vec<StopToken> {
        let is_known = |stop: &&StopToken| self.drafter.stop.iter().any(|own| own.id == stop.id);
        self.target.stop.iter().filter(|stop| !is_known(stop)).cloned().collect()
    }

    /// True if both sides end a reply with the same tokens.
    pub fn same_stops(&self) -> bool {
        self.drafter.stop == self.target.stop
    }
}

impl SideFacts {
    fn of(model: &ModelDir) -> Result<Self> {
        let form = || format!("the prompt form of {}", model.path.display());
        let mut stop = model.prompt.stop.clone();
        stop.sort_unstable();
        stop.dedup();
        let token = |id: u32| StopToken { id, text: model.tokenizer.token(id).unwrap_or_default() };
        Ok(Self {
            name: model.name.clone(),
            vocabulary: model.vocabulary.size,
            fingerprint: hex(&model.vocabulary.fingerprint),
            rows: model.rows,
            context: model.context_max,
            form: model.shown_form().with_context(form)?,
            form_ids: model.first_turn(CHAT).with_context(form)?,
            stop: stop.into_iter().map(token).collect(),
        })
    }
}

impl TokenFit {
    fn of(drafter: &ModelDir, target: &ModelDir) -> Self {
        let of = |model: &ModelDir| (model.vocabulary, Prefixes::from(model.prefixes.clone()));
        let ((own, own_prefixes), (other, other_prefixes)) = (of(drafter), of(target));
        match Self::of_beginnings((own, &own_prefixes), (other, &other_prefixes)) {
            Some(fit) => fit,
            None => {
                let both = drafter.prefixes.iter().zip(target.prefixes.iter());
                // A fingerprint covers all tokens before it, so the first difference is the token's own.
                let id = both.take_while(|(own, other)| own == other).count() as u32;
                let token = |model: &ModelDir| model.tokenizer.token(id);
                Self::Parted { id, drafter: token(drafter), target: token(target) }
            }
        }
    }

    /// The fit of two vocabularies of which one is the beginning of the other.
    fn of_beginnings(own: (Vocabulary, &Prefixes), other: (Vocabulary, &Prefixes)) -> Option<Self> {
        let more = own.0.size.abs_diff(other.0.size);
        if own.0 == other.0 {
            Some(Self::Equal)
        } else if other.1.contain(other.0, own.0) {
            Some(Self::DrafterIsPrefix { more })
        } else if own.1.contain(own.0, other.0) {
            Some(Self::TargetIsPrefix { more })
        } else {
            None
        }
    }
}

/// Stop tokens in words.
pub fn words(stops: &[StopToken]) -> String {
    let named = |stop: &StopToken| format!("{} {:?}", stop.id, stop.text);
    if stops.is_empty() { "none".into() } else { stops.iter().map(named).collect::<Vec<_>>().join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn side(form_ids: &[u32], stop: &[u32], context: usize) -> SideFacts {
        SideFacts {
            name: "a".into(),
            vocabulary: 4,
            fingerprint: String::new(),
            rows: 4,
            context,
            form: format!("{form_ids:?}"),
            form_ids: form_ids.to_vec(),
            stop: stop.iter().map(|id| StopToken { id: *id, text: format!("<{id}>") }).collect(),
        }
    }

    fn fit(drafter: SideFacts, target: SideFacts) -> PairFit {
        let same_form = drafter.form_ids == target.form_ids;
        PairFit { drafter, target, tokens: TokenFit::Equal, same_form, unknown_to_target: None }
    }

    #[test]
    fn one_of_two_vocabularies_may_be_the_beginning_of_the_other() {
        let prefixes =
            |bytes: &[u8]| Prefixes::from(Arc::from(bytes.iter().map(|b| [*b; 8]).collect::<Vec<_>>()));
        let vocabulary =
            |bytes: &[u8]| Vocabulary { size: bytes.len() as u32, fingerprint: [*bytes.last().unwrap(); 8] };
        let compared = |own: &[u8], other: &[u8]| {
            TokenFit::of_beginnings((vocabulary(own), &prefixes(own)), (vocabulary(other), &prefixes(other)))
        };
        assert_eq!(compared(&[1, 2, 3], &[1, 2, 3]), Some(TokenFit::Equal));
        assert_eq!(compared(&[1, 2], &[1, 2, 3]), Some(TokenFit::DrafterIsPrefix { more: 1 }));
        assert_eq!(compared(&[1, 2, 3], &[1]), Some(TokenFit::TargetIsPrefix { more: 2 }));
        assert_eq!(compared(&[1, 4], &[1, 2, 3]), None);
        assert_eq!(compared(&[1, 4, 5], &[1, 2, 3]), None);
    }

    #[test]
    fn only_tokens_make_a_pair_impossible() {
        let differs = fit(side(&[1, 2], &[], 64), side(&[1, 3], &[2, 3], 128));
        assert_eq!(differs.problem(), None);
        let remarks = differs.remarks();
        assert_eq!(remarks.len(), 4, "{remarks:?}");
        assert!(remarks[1].contains("ends a reply with 2 \"<2>\", 3 \"<3>\""), "{}", remarks[1]);
        let same = fit(side(&[1, 2], &[2], 64), side(&[1, 2], &[2], 64));
        assert_eq!((same.problem(), same.remarks(), same.same_stops()), (None, Vec::new(), true));
        let unknown = PairFit { unknown_to_target: Some(9), ..same.clone() };
        assert!(unknown.problem().unwrap().contains("writes token 9, which the target does not have"));
        let tokens = TokenFit::Parted { id: 2, drafter: Some("a".into()), target: None };
        let parted = PairFit { tokens, ..same }.problem().unwrap();
        assert!(parted.contains("part at token 2: \"a\" of the drafter, unused of the target"), "{parted}");
    }
}
