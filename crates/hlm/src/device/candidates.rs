//! The verifiers that a device may ask for a lease, known by their presence messages.
//!
//! Invariant: at most [`CANDIDATES_MAX`] are kept, whatever peers announce. One that has written a text with this device is
//! not displaced by one that hasn't, and nobody can choose a name that displaces the others.

use super::pinned::PinnedTarget;
use crate::prefixes::Prefixes;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::cmp::Ordering;
use dunlin_wire::{Liveness, PREFIX_EMPTY, TargetId, VerifierId, VerifierPresence, Vocabulary};

/// Most verifiers whose presence a device keeps.
pub const CANDIDATES_MAX: usize = 64;

/// Weight of a verifier whose sessions are all taken, in 255ths: it still takes some, since idle sessions make room.
const LEAST_WEIGHT: u16 = 32;

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
    /// True once an answer of it committed tokens.
    proven: bool,
    /// True if it left a request or a frame without an answer, until its presence changes.
    silent: bool,
}

/// The effect of a verifier's presence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PresenceEffect {
    /// Not kept: all places are taken by verifiers that are worth more.
    Dropped,
    /// The Will of an older connection, which changes nothing.
    Late,
    /// Kept; `reconnected` if it is of a later connection than the one known before.
    Kept { reconnected: bool },
}

/// Score of a verifier in the choice for one session.
#[derive(Clone, Copy, Debug, PartialEq)]
struct RendezvousScore(f64);

impl Eq for RendezvousScore {}

impl PartialOrd for RendezvousScore {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RendezvousScore {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
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

    /// Score of a verifier among those that fit equally well, highest first: weighted rendezvous hashing (Thaler and
    /// Ravishankar 1998; weights as in Schindelhauer and Schomaker 2005), where the weight is the free share of its
    /// sessions and an eighth. A verifier that comes or goes moves only its own sessions.
    fn score(&self, verifier: &VerifierId, load: u8) -> RendezvousScore {
        let halves = [(self.nonce >> 32) as u32, self.nonce as u32];
        let parts = halves.into_iter().chain(verifier.as_str().bytes().map(u32::from));
        let hash = u64::from_be_bytes(parts.fold(PREFIX_EMPTY, |digest, part| digest.push(part)).full());
        let uniform = ((hash >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        RendezvousScore(f64::from(LEAST_WEIGHT + u16::from(u8::MAX - load)) / -libm::log(uniform))
    }

    /// Order in which candidates keep their places, the least first.
    fn worth(&self, id: &VerifierId, candidate: &Candidate) -> (bool, bool, bool, RendezvousScore) {
        let fits = serves(&candidate.presence) && self.take(self.fit(candidate));
        (candidate.proven, fits, !candidate.silent, self.score(id, candidate.presence.load))
    }
}

impl Candidate {
    fn update(&mut self, presence: VerifierPresence) -> PresenceEffect {
        // The MQTT Will of an older connection may arrive after the presence of the newer one.
        if presence.liveness == Liveness::Lost && presence.generation < self.presence.generation {
            return PresenceEffect::Late;
        }
        let reconnected = presence.generation > self.presence.generation;
        self.refused &= presence.vocabulary == self.presence.vocabulary;
        // A subscription delivers what is retained again, which says nothing new.
        self.silent &= presence == self.presence;
        self.presence = presence;
        PresenceEffect::Kept { reconnected }
    }
}

fn target_of(presence: &VerifierPresence) -> PinnedTarget {
    PinnedTarget { id: presence.target, promise: presence.promise }
}

fn serves(presence: &VerifierPresence) -> bool {
    presence.liveness == Liveness::Here && !presence.draining
}

impl Candidates {
    /// Takes a verifier's presence.
    pub(super) fn update(
        &mut self,
        verifier: VerifierId,
        presence: VerifierPresence,
        demands: &Demands,
    ) -> PresenceEffect {
        if let Some(known) = self.known.get_mut(&verifier) {
            return known.update(presence);
        }
        let newcomer = Candidate { presence, refused: false, proven: false, silent: false };
        if self.known.len() >= CANDIDATES_MAX {
            let worth = |(id, candidate)| demands.worth(id, candidate);
            let Some((id, least)) = self.known.iter().min_by_key(|entry| worth(*entry)) else {
                return PresenceEffect::Dropped;
            };
            if worth((id, least)) >= worth((&verifier, &newcomer)) {
                return PresenceEffect::Dropped;
            }
            let spare = id.clone();
            self.known.remove(&spare);
        }
        self.known.insert(verifier, newcomer);
        PresenceEffect::Kept { reconnected: false }
    }

    /// Notes that an answer of this verifier committed tokens.
    pub(super) fn prove(&mut self, verifier: &VerifierId) {
        if let Some(candidate) = self.known.get_mut(verifier) {
            (candidate.proven, candidate.silent) = (true, false);
        }
    }

    /// Notes that a verifier left a request or a frame without an answer.
    pub(super) fn blame(&mut self, verifier: &VerifierId) {
        if let Some(candidate) = self.known.get_mut(verifier) {
            candidate.silent = true;
        }
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
    /// well, one whose vocabulary is known to be shared comes first, and one that was silent and `left` come last. The
    /// flag is true for one that was not asked yet.
    pub(super) fn choose(
        &self,
        demands: &Demands,
        asked: &[VerifierId],
        left: Option<&VerifierId>,
    ) -> Option<(&VerifierId, bool)> {
        let mut fit: Vec<_> = self.serving(demands).filter(|(fit, _)| demands.take(*fit)).collect();
        let order = |fit: TargetFit, id: &VerifierId| {
            let known = self.known.get(id);
            let unsure = known.is_none_or(|known| !demands.shares(known.presence.vocabulary));
            let silent = known.is_some_and(|known| known.silent);
            let load = known.map_or(u8::MAX, |known| known.presence.load);
            (fit, unsure, silent, Some(id) == left, core::cmp::Reverse(demands.score(id, load)))
        };
        fit.sort_by_cached_key(|(fit, id)| order(*fit, id));
        let fresh = fit.iter().find(|(_, id)| !asked.contains(id));
        fresh.map(|(_, id)| (*id, true)).or_else(|| fit.first().map(|(_, id)| (*id, false)))
    }

    /// True if a serving verifier other than these two fits as well as `one`; one that was silent counts if `or_silent`.
    pub(super) fn has_equal(
        &self,
        demands: &Demands,
        (one, left): (&VerifierId, Option<&VerifierId>),
        or_silent: bool,
    ) -> bool {
        let Some(known) = self.known.get(one) else { return false };
        let (fit, or_silent) = (demands.fit(known), or_silent || known.silent);
        let is_equal = |(theirs, id): (TargetFit, &VerifierId)| {
            let silent = self.known.get(id).is_none_or(|known| known.silent);
            theirs == fit && id != one && Some(id) != left && (or_silent || !silent)
        };
        self.serving(demands).any(is_equal)
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

    const KEPT: PresenceEffect = PresenceEffect::Kept { reconnected: false };
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
        let mut candidates = Candidates::default();
        list.into_iter().for_each(|(name, presence)| {
            candidates.update(id(name), presence, &demands(None));
        });
        candidates
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
        assert_eq!(candidates.update(id("a"), lost(4), &wanted), PresenceEffect::Late);
        assert!(candidates.any(&wanted));
        assert_eq!(candidates.update(id("a"), lost(5), &wanted), KEPT);
        assert!(!candidates.any(&wanted));
        candidates.remove(&id("a"));
        assert!(candidates.get(&id("a")).is_none());
    }

    /// Sessions of each verifier, of 3000 with their own nonces.
    fn shares(candidates: &Candidates) -> BTreeMap<VerifierId, i32> {
        let mut counts = BTreeMap::new();
        for nonce in 0..3000 {
            let wanted = Demands { nonce, ..demands(None) };
            let chosen = candidates.choose(&wanted, &[], None).expect("one that fits").0;
            *counts.entry(chosen.clone()).or_insert(0) += 1;
        }
        counts
    }

    fn loaded(load: u8) -> VerifierPresence {
        VerifierPresence { load, ..presence(1, 1) }
    }

    #[test]
    fn sessions_spread_in_proportion_to_what_is_free() {
        let even = shares(&of([("a", loaded(255)), ("b", loaded(255)), ("c", loaded(255))]));
        assert_eq!(even.len(), 3);
        assert!(even.values().all(|count| (900..=1100).contains(count)), "{even:?}");
        let uneven = shares(&of([("a", loaded(0)), ("b", loaded(127)), ("c", loaded(255))]));
        // 287, 160 and 32 of 479.
        for (name, expected) in [("a", 1798), ("b", 1002), ("c", 200)] {
            let count = uneven[&id(name)];
            assert!((count - expected).abs() < 130, "{name}: {uneven:?}");
        }
    }

    #[test]
    fn a_verifier_that_goes_moves_only_its_own_sessions() {
        let all = of([("a", loaded(31)), ("b", loaded(95)), ("c", loaded(0))]);
        let mut rest = all.clone();
        rest.remove(&id("b"));
        for nonce in 0..500 {
            let wanted = Demands { nonce, ..demands(None) };
            let [before, after] = [&all, &rest].map(|known| known.choose(&wanted, &[], None).expect("one").0);
            assert!(before == after || *before == id("b"), "{nonce}: {before} became {after}");
        }
    }

    #[test]
    fn one_that_was_silent_comes_last_until_its_presence_changes() {
        let wanted = demands(None);
        let mut candidates = of([("a", presence(1, 1)), ("b", presence(1, 1))]);
        let first = candidates.choose(&wanted, &[], None).expect("one that fits").0.clone();
        candidates.blame(&first);
        let second = candidates.choose(&wanted, &[], None).expect("one that fits").0.clone();
        assert_ne!(first, second);
        candidates.update(first.clone(), presence(1, 1), &wanted);
        assert_eq!(candidates.choose(&wanted, &[], None), Some((&second, true)), "retained, and the same");
        candidates.update(first.clone(), VerifierPresence { generation: 6, ..presence(1, 1) }, &wanted);
        assert_eq!(candidates.choose(&wanted, &[], None), Some((&first, true)));
    }

    #[test]
    fn a_crowd_displaces_nobody_that_has_served() {
        let wanted = demands(None);
        let stranger =
            VerifierPresence { vocabulary: Vocabulary { size: 9, ..VOCABULARY }, ..presence(9, 9) };
        let mut candidates = Candidates::default();
        let crowd = |candidates: &mut Candidates, presence: &VerifierPresence, kind: char| {
            for number in 0..20 * CANDIDATES_MAX {
                candidates.update(id(&format!("{kind}{number}")), presence.clone(), &wanted);
            }
        };
        crowd(&mut candidates, &stranger, 's');
        assert_eq!(candidates.update(id("ours"), presence(1, 1), &wanted), KEPT, "it fits, they don't");
        crowd(&mut candidates, &stranger, 't');
        assert!(candidates.get(&id("ours")).is_some());
        candidates.prove(&id("ours"));
        crowd(&mut candidates, &presence(1, 1), 'f');
        assert!(candidates.get(&id("ours")).is_some(), "it has served, they haven't");
        assert_eq!(candidates.known.len(), CANDIDATES_MAX);
        let kept: Vec<_> = candidates.known.keys().filter(|id| id.as_str() != "ours").cloned().collect();
        let mean = kept.iter().map(|id| id.as_str()[1..].parse::<usize>().expect("a number")).sum::<usize>()
            / kept.len();
        assert!((400..900).contains(&mean), "neither the first nor the last ones of the crowd: {mean}");
        kept.iter().for_each(|id| candidates.blame(id));
        let late = (0..9).map(|n| candidates.update(id(&format!("l{n}")), presence(1, 1), &wanted));
        assert!(late.into_iter().all(|effect| effect == KEPT), "they answer nobody");
        assert_eq!(candidates.update(id("ours"), presence(2, 1), &wanted), KEPT, "known ones are kept");
    }
}
