//! The verifiers that a device may ask for a lease, known by their presence messages.
//!
//! Invariant: at most [`CANDIDATES_MAX`] are kept, whatever peers announce, and one that fits is not displaced.

use super::pinned::PinnedTarget;
use crate::prefixes::Prefixes;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use dunlin_wire::{Liveness, PREFIX_EMPTY, TargetId, VerifierId, VerifierPresence, Vocabulary};

/// Most verifiers whose presence a device keeps.
pub const CANDIDATES_MAX: usize = 64;

/// The last presence of each verifier.
#[derive(Clone, Debug, Default)]
pub(crate) struct Candidates {
    known: BTreeMap<VerifierId, Candidate>,
}

#[derive(Clone, Debug)]
struct Candidate {
    presence: VerifierPresence,
    /// True if it refused the device's vocabulary.
    refused: bool,
}

/// A session's demands on a verifier.
#[derive(Clone, Debug)]
pub(super) struct Demands {
    pub(super) vocabulary: Vocabulary,
    pub(super) prefixes: Prefixes,
    /// The target that wrote the text so far, if any.
    pub(super) target: Option<PinnedTarget>,
    /// True when a target with other weights may continue the text.
    pub(super) any_model: bool,
    /// Spreads sessions over verifiers that fit equally well.
    pub(super) nonce: u64,
}

/// A verifier's fit for a session, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TargetFit {
    /// It continues the text as the present target would; always so before there is a target.
    Same,
    /// It has the same weights, but other numerics or another promise.
    OtherNumerics,
    /// It has other weights for the same vocabulary.
    OtherWeights,
    /// It has another vocabulary.
    OtherVocabulary,
}

impl Demands {
    /// The fit of a verifier.
    fn fit(&self, candidate: &Candidate) -> TargetFit {
        let theirs = candidate.presence.vocabulary;
        // The beginning of a larger vocabulary is known to its verifier alone, so that one is asked.
        let may_share = self.shares(theirs) || theirs.size > self.vocabulary.size;
        if candidate.refused || !may_share {
            return TargetFit::OtherVocabulary;
        }
        self.fit_of(target_of(&candidate.presence))
    }

    /// True if a target's vocabulary is the device's or its beginning.
    pub(super) fn shares(&self, theirs: Vocabulary) -> bool {
        self.prefixes.contain(self.vocabulary, theirs)
    }

    /// The fit of a target whose vocabulary is shared.
    pub(super) fn fit_of(&self, offered: PinnedTarget) -> TargetFit {
        match self.target {
            None => TargetFit::Same,
            Some(target) if target.is_same(offered) => TargetFit::Same,
            Some(target) if target.id.has_weights_of(offered.id) => TargetFit::OtherNumerics,
            Some(_) => TargetFit::OtherWeights,
        }
    }

    /// True when the session accepts a target of this fit.
    pub(super) fn take(&self, fit: TargetFit) -> bool {
        fit < TargetFit::OtherWeights || fit == TargetFit::OtherWeights && self.any_model
    }

    /// Rank of a verifier among those that fit equally well: a hash of its name and the nonce, highest first
    /// (rendezvous hashing, Thaler and Ravishankar 1998). A verifier that comes or goes moves only its own sessions.
    fn rank(&self, verifier: &VerifierId) -> u64 {
        let halves = [(self.nonce >> 32) as u32, self.nonce as u32];
        let parts = halves.into_iter().chain(verifier.as_str().bytes().map(u32::from));
        u64::from_be_bytes(parts.fold(PREFIX_EMPTY, |digest, part| digest.push(part)).full())
    }
}

fn target_of(presence: &VerifierPresence) -> PinnedTarget {
    PinnedTarget { id: presence.target, promise: presence.promise }
}

fn serves(presence: &VerifierPresence) -> bool {
    presence.liveness == Liveness::Here && !presence.draining
}

impl Candidates {
    /// Takes a verifier's presence; false if it is dropped because all places are taken.
    pub(super) fn update(
        &mut self,
        verifier: VerifierId,
        presence: VerifierPresence,
        demands: &Demands,
    ) -> bool {
        if let Some(Candidate { presence: known, refused }) = self.known.get_mut(&verifier) {
            // The MQTT Will of an older connection may arrive after the presence of the newer one.
            let late = presence.liveness == Liveness::Lost && presence.generation < known.generation;
            if !late {
                *refused &= presence.vocabulary == known.vocabulary;
                *known = presence;
            }
            return true;
        }
        let newcomer = Candidate { presence, refused: false };
        if self.known.len() >= CANDIDATES_MAX {
            // A fitting newcomer displaces one that doesn't fit, so that strangers can't fill all places.
            let fits =
                |candidate: &Candidate| serves(&candidate.presence) && demands.take(demands.fit(candidate));
            let spare = self.known.iter().find(|(_, candidate)| !fits(candidate)).map(|(id, _)| id.clone());
            let Some(spare) = spare.filter(|_| fits(&newcomer)) else { return false };
            self.known.remove(&spare);
        }
        self.known.insert(verifier, newcomer);
        true
    }

    /// Forgets a verifier that withdrew its presence.
    pub(super) fn remove(&mut self, verifier: &VerifierId) {
        self.known.remove(verifier);
    }

    /// Replaces the target that a verifier announced by the one that its lease names.
    pub(super) fn correct(&mut self, verifier: &VerifierId, target: PinnedTarget) {
        if let Some(Candidate { presence: known, .. }) = self.known.get_mut(verifier) {
            (known.target, known.promise) = (target.id, target.promise);
        }
    }

    /// Notes that a verifier refused the device's vocabulary for its own.
    pub(super) fn refused(&mut self, verifier: &VerifierId, own: Vocabulary) {
        if let Some(candidate) = self.known.get_mut(verifier) {
            candidate.refused = true;
            candidate.presence.vocabulary = own;
        }
    }

    /// The last presence received from a verifier.
    pub(super) fn get(&self, verifier: &VerifierId) -> Option<&VerifierPresence> {
        self.known.get(verifier).map(|candidate| &candidate.presence)
    }

    /// A verifier with this target, preferably one that serves.
    pub(super) fn with_target(&self, target: TargetId) -> Option<(&VerifierId, &VerifierPresence)> {
        let all = self.known.iter().map(|(id, candidate)| (id, &candidate.presence));
        all.filter(|(_, presence)| presence.target == target).max_by_key(|(_, presence)| serves(presence))
    }

    /// True when there is a serving verifier that the session accepts.
    pub(super) fn any(&self, demands: &Demands) -> bool {
        self.serving(demands).any(|(fit, _)| demands.take(fit))
    }

    /// The verifier to ask next: the best that is not in `asked`, else the best of all. Among those that fit equally
    /// well, one whose vocabulary is known to be shared comes first, and `left` last. The flag is true for one that was not
    /// asked yet.
    pub(super) fn choose(
        &self,
        demands: &Demands,
        asked: &[VerifierId],
        left: Option<&VerifierId>,
    ) -> Option<(&VerifierId, bool)> {
        let mut fit: Vec<_> = self.serving(demands).filter(|(fit, _)| demands.take(*fit)).collect();
        let unsure = |id| self.get(id).is_none_or(|presence| !demands.shares(presence.vocabulary));
        fit.sort_by_key(|(fit, id)| {
            (*fit, unsure(id), Some(*id) == left, core::cmp::Reverse(demands.rank(id)))
        });
        let fresh = fit.iter().find(|(_, id)| !asked.contains(id));
        fresh.map(|(_, id)| (*id, true)).or_else(|| fit.first().map(|(_, id)| (*id, false)))
    }

    /// The best of the serving verifiers that the session does not accept.
    pub(super) fn unsuited(&self, demands: &Demands) -> Option<(TargetFit, &VerifierPresence)> {
        let best = self.serving(demands).filter(|(fit, _)| !demands.take(*fit)).min_by_key(|(fit, _)| *fit);
        best.and_then(|(fit, id)| Some((fit, self.get(id)?)))
    }

    fn serving(&self, demands: &Demands) -> impl Iterator<Item = (TargetFit, &VerifierId)> {
        let serving = self.known.iter().filter(|(_, candidate)| serves(&candidate.presence));
        serving.map(|(id, candidate)| (demands.fit(candidate), id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_wire::{CouplingProfile, Price, Promise};
    use std::format;

    const VOCABULARY: Vocabulary = Vocabulary { size: 32, fingerprint: [7; 8] };

    fn presence(weights: u8, numerics: u8) -> VerifierPresence {
        VerifierPresence {
            generation: 5,
            liveness: Liveness::Here,
            vocabulary: VOCABULARY,
            target: TargetId::new(&[weights; 32], &[numerics; 32]),
            promise: Promise::Exact,
            coupling: CouplingProfile::SplitMix,
            model: Default::default(),
            engine: Default::default(),
            numerics: Default::default(),
            price: Price::default(),
            load: 0,
            draining: false,
        }
    }

    fn demands(target: Option<&VerifierPresence>) -> Demands {
        Demands {
            vocabulary: VOCABULARY,
            prefixes: Prefixes::default(),
            target: target.map(target_of),
            any_model: false,
            nonce: 1,
        }
    }

    fn id(text: &str) -> VerifierId {
        text.parse().expect("a valid id")
    }

    fn of<const N: usize>(list: [(&str, VerifierPresence); N]) -> Candidates {
        let known = list.map(|(name, presence)| (id(name), Candidate { presence, refused: false }));
        Candidates { known: known.into_iter().collect() }
    }

    #[test]
    fn the_same_target_comes_before_other_numerics_and_other_weights_not_at_all() {
        let candidates = of([("a", presence(2, 1)), ("b", presence(1, 2)), ("c", presence(1, 1))]);
        let wanted = demands(Some(&presence(1, 1)));
        assert_eq!(candidates.choose(&wanted, &[], None), Some((&id("c"), true)));
        assert_eq!(candidates.choose(&wanted, &[id("c")], None), Some((&id("b"), true)));
        assert_eq!(candidates.choose(&wanted, &[id("c"), id("b")], None), Some((&id("c"), false)), "never a");
        assert_eq!(candidates.unsuited(&wanted).map(|(fit, _)| fit), Some(TargetFit::OtherWeights));
        let any = Demands { any_model: true, ..wanted };
        assert_eq!(candidates.choose(&any, &[id("c"), id("b")], None), Some((&id("a"), true)));
        assert!(candidates.unsuited(&any).is_none());
    }

    #[test]
    fn numerics_matter_to_an_exact_target_alone() {
        let law = |weights, numerics| VerifierPresence {
            promise: Promise::Distribution,
            ..presence(weights, numerics)
        };
        let fit = |wanted: &VerifierPresence, offered: &VerifierPresence| {
            demands(Some(wanted)).fit_of(target_of(offered))
        };
        assert_eq!(fit(&law(1, 1), &law(1, 2)), TargetFit::Same);
        assert_eq!(fit(&law(1, 1), &law(2, 1)), TargetFit::OtherWeights);
        assert_eq!(fit(&presence(1, 1), &presence(1, 2)), TargetFit::OtherNumerics);
        assert_eq!(fit(&presence(1, 1), &law(1, 1)), TargetFit::OtherNumerics, "another promise");
    }

    #[test]
    fn who_left_drains_or_has_another_vocabulary_is_not_asked() {
        let wanted = demands(None);
        let other = Vocabulary { fingerprint: [8; 8], ..VOCABULARY };
        let absent = [
            VerifierPresence { liveness: Liveness::Left, ..presence(1, 1) },
            VerifierPresence { liveness: Liveness::Lost, ..presence(1, 1) },
            VerifierPresence { draining: true, ..presence(1, 1) },
        ];
        for presence in absent {
            let candidates = of([("a", presence)]);
            assert_eq!((candidates.choose(&wanted, &[], None), candidates.any(&wanted)), (None, false));
            assert!(candidates.unsuited(&wanted).is_none());
        }
        let candidates = of([("a", VerifierPresence { vocabulary: other, ..presence(1, 1) })]);
        assert_eq!(candidates.choose(&Demands { any_model: true, ..wanted.clone() }, &[], None), None);
        assert_eq!(candidates.unsuited(&wanted).map(|(fit, _)| fit), Some(TargetFit::OtherVocabulary));
    }

    #[test]
    fn a_will_of_an_older_connection_changes_nothing() {
        let mut candidates = of([("a", presence(1, 1))]);
        let wanted = demands(None);
        let lost = |generation| VerifierPresence { generation, liveness: Liveness::Lost, ..presence(1, 1) };
        assert!(candidates.update(id("a"), lost(4), &wanted));
        assert!(candidates.any(&wanted));
        assert!(candidates.update(id("a"), lost(5), &wanted));
        assert!(!candidates.any(&wanted));
        candidates.remove(&id("a"));
        assert!(candidates.get(&id("a")).is_none());
    }

    #[test]
    fn sessions_spread_over_verifiers_that_fit_alike() {
        let candidates = of([("a", presence(1, 1)), ("b", presence(1, 1)), ("c", presence(1, 1))]);
        let chosen = |nonce| {
            let wanted = Demands { nonce, ..demands(None) };
            candidates.choose(&wanted, &[], None).expect("one that fits").0.clone()
        };
        let mut counts = BTreeMap::new();
        (0..300).for_each(|nonce| *counts.entry(chosen(nonce)).or_insert(0) += 1);
        assert_eq!(counts.len(), 3);
        assert!(counts.values().all(|count| (60..=140).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_crowd_keeps_out_nobody_that_fits() {
        let wanted = demands(None);
        let stranger =
            VerifierPresence { vocabulary: Vocabulary { size: 9, ..VOCABULARY }, ..presence(9, 9) };
        let mut candidates = Candidates::default();
        for number in 0..CANDIDATES_MAX {
            assert!(candidates.update(id(&format!("s{number}")), stranger.clone(), &wanted));
        }
        assert!(!candidates.update(id("late"), stranger, &wanted), "a stranger takes no stranger's place");
        assert!(candidates.update(id("ours"), presence(1, 1), &wanted));
        assert_eq!(candidates.known.len(), CANDIDATES_MAX);
        let mut ours = Candidates::default();
        for number in 0..CANDIDATES_MAX {
            assert!(ours.update(id(&format!("v{number}")), presence(1, 1), &wanted));
        }
        assert!(!ours.update(id("more"), presence(1, 1), &wanted), "all places are taken by those that fit");
        assert!(ours.update(id("v0"), presence(2, 1), &wanted), "who is known is never kept out");
    }
}
