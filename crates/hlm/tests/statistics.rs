//! The acceptance rule of shared-seed coupling over a small vocabulary, and wrong variants of it.
//!
//! [`check_rule`] compares a rule with exact figures: the text the target alone writes, the probability of each short
//! text, and the probability that drafter and target agree, which has a closed form. All tests reject at one in a
//! million with fixed seeds, so the outcome is the same each time.

use dunlin_hlm::TokenId;
use dunlin_hlm::coupling::{couple, gumbel};
use dunlin_hlm::probabilities::{Distribution, Sampling, overlap, total_variation};
use std::collections::BTreeMap;

const VOCABULARY: usize = 5;
const DRAFT_TOKENS: u64 = 3;
/// Long enough for a full first round with its bonus token and the start of the next.
const SHORT_TEXT: usize = 5;
const LONG_TEXT: usize = 16;
const SEEDS: u64 = 30_000;
/// Standard deviations that a correct figure exceeds one time in a million.
const LIMIT: f64 = 4.9;

const TARGET: [[f32; VOCABULARY]; VOCABULARY] = [
    [1.2, 0.3, -0.4, 0.9, -2.0],
    [-0.5, 1.6, 0.8, 0.1, 0.6],
    [0.0, 0.2, 0.4, 0.6, 0.9],
    [2.2, -1.0, 0.5, 0.4, 0.3],
    [0.7, 0.7, -0.3, 1.1, -0.6],
];
const DRAFTER: [[f32; VOCABULARY]; VOCABULARY] = [
    [0.9, 0.8, -0.2, 0.2, -1.0],
    [0.1, 1.1, 1.0, -0.6, 0.2],
    [0.9, 0.0, 0.3, 0.4, 0.2],
    [1.0, -0.2, 0.6, 0.7, -2.0],
    [1.5, 0.1, 0.0, 0.6, -0.9],
];

const TEMPERATURE: f32 = 0.8;
const TOP_P: f32 = 0.9;

/// First-order Markov models of both sides; the last token selects the row, and the first row starts.
struct World {
    p: Vec<Distribution>,
    q: Vec<Distribution>,
}

/// The place where a token is drawn.
#[derive(Clone, Copy)]
struct At {
    seed: u64,
    position: u64,
    last: TokenId,
}

/// One round of the lossless policy. The default methods are the real rule; a mutant replaces one.
trait Rule {
    fn draft(&self, world: &World, at: At) -> TokenId {
        couple(world.q(at), at.seed, at.position)
    }

    fn choose(&self, world: &World, at: At) -> TokenId {
        couple(world.p(at), at.seed, at.position)
    }

    fn accepts(&self, _world: &World, _at: At, drafted: TokenId, chosen: TokenId) -> bool {
        drafted == chosen
    }

    fn correction(&self, _world: &World, _at: At, chosen: TokenId) -> TokenId {
        chosen
    }

    fn bonus(&self, world: &World, at: At) -> TokenId {
        self.choose(world, at)
    }

    fn position_after_miss(&self, position: u64) -> u64 {
        position + 1
    }
}

/// The evidence that a rule differs from the real one.
#[derive(Debug, Default, PartialEq)]
struct Deviation {
    /// The first seed whose text is not the target's own.
    text: Option<u64>,
    /// Short texts have other probabilities than the target's: χ² and its limit.
    distribution: Option<(f64, f64)>,
    /// A context whose drafts are accepted more or less often than the coupling predicts.
    acceptance: Option<TokenId>,
}

/// A text in progress, with the drafts seen and accepted by context.
struct Session {
    seed: u64,
    position: u64,
    text: Vec<TokenId>,
    drafts: [(u64, u64); VOCABULARY],
}

impl World {
    fn new(temperature: f32, top_p: f32) -> Self {
        let rows = |logits: &[[f32; VOCABULARY]; VOCABULARY]| {
            logits.iter().map(|row| distribution(row, temperature, top_p)).collect()
        };
        Self { p: rows(&TARGET), q: rows(&DRAFTER) }
    }

    fn p(&self, at: At) -> &Distribution {
        &self.p[at.last as usize]
    }

    fn q(&self, at: At) -> &Distribution {
        &self.q[at.last as usize]
    }

    fn target_only(&self, seed: u64, length: usize) -> Vec<TokenId> {
        let mut last = 0;
        let next = |position| {
            last = couple(&self.p[last as usize], seed, position);
            last
        };
        (0..length as u64).map(next).collect()
    }

    /// The probability that the target writes this.
    fn probability(&self, text: &[TokenId]) -> f64 {
        let lasts = std::iter::once(&0).chain(text);
        lasts.zip(text).map(|(&last, &token)| self.p[last as usize].probability(token)).product()
    }

    /// The exact probability that both sides choose the same token.
    fn agreement(&self, last: usize) -> f64 {
        agreement(&self.p[last], &self.q[last])
    }
}

impl Session {
    fn write(rule: &impl Rule, world: &World, seed: u64, length: usize) -> Self {
        let mut session = Self { seed, position: 0, text: Vec::new(), drafts: [(0, 0); VOCABULARY] };
        while session.text.len() < length {
            session.round(rule, world);
        }
        session.text.truncate(length);
        session
    }

    fn round(&mut self, rule: &impl Rule, world: &World) {
        let start =
            At { seed: self.seed, position: self.position, last: self.text.last().copied().unwrap_or(0) };
        let mut at = start;
        for drafted in draft(rule, world, start) {
            let chosen = rule.choose(world, at);
            let accepted = rule.accepts(world, at, drafted, chosen);
            self.drafts[at.last as usize].0 += 1;
            if !accepted {
                self.text.push(rule.correction(world, at, chosen));
                self.position = rule.position_after_miss(at.position);
                return;
            }
            self.drafts[at.last as usize].1 += 1;
            self.text.push(drafted);
            at = At { position: at.position + 1, last: drafted, ..at };
        }
        self.text.push(rule.bonus(world, at));
        self.position = at.position + 1;
    }
}

fn draft(rule: &impl Rule, world: &World, mut at: At) -> Vec<TokenId> {
    let next = |_| {
        let token = rule.draft(world, at);
        at = At { position: at.position + 1, last: token, ..at };
        token
    };
    (0..DRAFT_TOKENS).map(next).collect()
}

/// The probability that `argmax(ln p + G) = argmax(ln q + G)`: as exponential races with shared clocks, both
/// choose i with probability `1 / Σ_j max(p_j / p_i, q_j / q_i)`.
fn agreement(p: &Distribution, q: &Distribution) -> f64 {
    let tokens = || (0..VOCABULARY as TokenId).map(|t| (p.probability(t), q.probability(t)));
    let both = tokens().filter(|&(pi, qi)| pi > 0.0 && qi > 0.0);
    both.map(|(pi, qi)| 1.0 / tokens().map(|(pj, qj)| (pj / pi).max(qj / qi)).sum::<f64>()).sum()
}

fn distribution(logits: &[f32], temperature: f32, top_p: f32) -> Distribution {
    let sampling = Sampling::new(temperature, top_p, 0).expect("tests use settings in range");
    Distribution::from_logits(logits, &sampling).expect("the tables are finite")
}

fn target_row(at: At, temperature: f32, top_p: f32) -> Distribution {
    distribution(&TARGET[at.last as usize], temperature, top_p)
}

fn drafter_row(at: At, temperature: f32, top_p: f32) -> Distribution {
    distribution(&DRAFTER[at.last as usize], temperature, top_p)
}

fn check_rule(rule: &impl Rule) -> Result<(), Deviation> {
    let world = World::new(TEMPERATURE, TOP_P);
    let mut deviation = Deviation::default();
    let mut texts: BTreeMap<Vec<TokenId>, u64> = BTreeMap::new();
    let mut drafts = [(0, 0); VOCABULARY];
    for seed in 0..SEEDS {
        let session = Session::write(rule, &world, seed, LONG_TEXT);
        if deviation.text.is_none() && session.text != world.target_only(seed, LONG_TEXT) {
            deviation.text = Some(seed);
        }
        *texts.entry(session.text[..SHORT_TEXT].to_vec()).or_default() += 1;
        for (total, seen) in drafts.iter_mut().zip(session.drafts) {
            *total = (total.0 + seen.0, total.1 + seen.1);
        }
    }
    deviation.distribution = off_distribution(&world, &texts);
    deviation.acceptance =
        (0..VOCABULARY).find(|&last| off_acceptance(&world, last, drafts[last])).map(|t| t as TokenId);
    if deviation == Deviation::default() { Ok(()) } else { Err(deviation) }
}

/// χ² of short texts against the target's probabilities, rare texts pooled, with its limit; `None` below the limit.
fn off_distribution(world: &World, texts: &BTreeMap<Vec<TokenId>, u64>) -> Option<(f64, f64)> {
    let (mut chi, mut cells) = (0.0, 0.0);
    let mut cell = |seen: f64, expected: f64| {
        chi += (seen - expected) * (seen - expected) / expected.max(1e-9);
        cells += 1.0;
    };
    let (mut rare_seen, mut rare_expected) = (0.0, 0.0);
    for index in 0..VOCABULARY.pow(SHORT_TEXT as u32) {
        let text: Vec<TokenId> =
            (0..SHORT_TEXT).map(|i| (index / VOCABULARY.pow(i as u32) % VOCABULARY) as TokenId).collect();
        let seen = texts.get(&text).copied().unwrap_or(0) as f64;
        let expected = world.probability(&text) * SEEDS as f64;
        if expected >= 10.0 {
            cell(seen, expected);
        } else {
            rare_seen += seen;
            rare_expected += expected;
        }
    }
    cell(rare_seen, rare_expected);
    let limit = chi_square_limit(cells - 1.0);
    (chi > limit).then_some((chi, limit))
}

fn off_acceptance(world: &World, last: usize, (drafted, accepted): (u64, u64)) -> bool {
    let expected = world.agreement(last);
    let spread = (expected * (1.0 - expected) / drafted as f64).sqrt();
    (accepted as f64 / drafted as f64 - expected).abs() > LIMIT * spread
}

/// χ² that a sample of the true distribution exceeds one time in a million (Wilson–Hilferty).
fn chi_square_limit(freedom: f64) -> f64 {
    let spread = 2.0 / (9.0 * freedom);
    freedom * libm::pow(1.0 - spread + 4.753 * spread.sqrt(), 3.0)
}

/// Random numbers independent of the session's noise.
fn fresh(at: At) -> u64 {
    at.seed ^ 0x5EED_0000_0000_0000
}

fn coin(at: At) -> f64 {
    libm::exp(-libm::exp(-gumbel(fresh(at), at.position, 99)))
}

struct Real;
impl Rule for Real {}

#[test]
fn the_real_rule_passes() {
    assert_eq!(check_rule(&Real), Ok(()));
}

#[test]
fn at_temperature_zero_the_text_is_the_targets_greedy_one() {
    let world = World::new(0.0, 1.0);
    let greedy =
        |last: usize| (0..VOCABULARY).max_by(|&a, &b| TARGET[last][a].total_cmp(&TARGET[last][b])).unwrap();
    for seed in 0..100 {
        let text = Session::write(&Real, &world, seed, LONG_TEXT).text;
        let mut last = 0;
        for token in text {
            last = greedy(last);
            assert_eq!(token as usize, last);
        }
    }
}

#[test]
fn the_drafter_changes_the_pace_and_not_the_text() {
    let mut world = World::new(1.0, 1.0);
    let texts =
        |world: &World| -> Vec<_> { (0..500).map(|s| Session::write(&Real, world, s, LONG_TEXT)).collect() };
    let accepted = |sessions: &[Session]| sessions.iter().flat_map(|s| s.drafts).map(|d| d.1).sum::<u64>();
    let before = texts(&world);
    world.q.clone_from(&world.p);
    let same = texts(&world);
    world.q = vec![Distribution::certain(4); VOCABULARY];
    let stubborn = texts(&world);
    for other in [&same, &stubborn] {
        assert!(before.iter().zip(other).all(|(a, b)| a.text == b.text));
    }
    assert!(accepted(&same) > accepted(&before) && accepted(&before) > accepted(&stubborn));
    assert!(same.iter().flat_map(|s| s.drafts).all(|(drafted, accepted)| drafted == accepted));
}

#[test]
fn agreement_lies_between_its_bounds() {
    for temperature in [0.3, 0.8, 1.0, 3.0] {
        for top_p in [0.6, 0.9, 1.0] {
            let world = World::new(temperature, top_p);
            for last in 0..VOCABULARY {
                let (p, q) = (&world.p[last], &world.q[last]);
                let (tv, exact) = (total_variation(p, q), agreement(p, q));
                let name = format!("temperature {temperature} top-p {top_p} row {last}: {exact} at TV {tv}");
                assert!(exact >= (1.0 - tv) / (1.0 + tv) - 1e-12 && exact <= overlap(p, q) + 1e-12, "{name}");
            }
        }
    }
}

struct Inverted;
impl Rule for Inverted {
    fn accepts(&self, _: &World, _: At, drafted: TokenId, chosen: TokenId) -> bool {
        drafted != chosen
    }
}

#[test]
fn acceptance_inverted_is_caught() {
    let found = check_rule(&Inverted).unwrap_err();
    assert!(found.text.is_some() && found.distribution.is_some() && found.acceptance.is_some(), "{found:?}");
}

struct AcceptsEverything;
impl Rule for AcceptsEverything {
    fn accepts(&self, _: &World, _: At, drafted: TokenId, _: TokenId) -> bool {
        let retokenised = drafted;
        drafted == retokenised
    }
}

#[test]
fn comparing_tokens_with_themselves_is_caught() {
    let found = check_rule(&AcceptsEverything).unwrap_err();
    assert!(found.text.is_some() && found.distribution.is_some() && found.acceptance.is_some(), "{found:?}");
}

struct RatioInverted;
impl Rule for RatioInverted {
    fn accepts(&self, world: &World, at: At, drafted: TokenId, _: TokenId) -> bool {
        coin(at) * world.p(at).probability(drafted) < world.q(at).probability(drafted)
    }
}

#[test]
fn accepting_by_the_inverted_ratio_is_caught() {
    let found = check_rule(&RatioInverted).unwrap_err();
    assert!(found.text.is_some() && found.distribution.is_some() && found.acceptance.is_some(), "{found:?}");
}

struct RatioWithoutResidual;
impl Rule for RatioWithoutResidual {
    fn accepts(&self, world: &World, at: At, drafted: TokenId, _: TokenId) -> bool {
        coin(at) * world.q(at).probability(drafted) < world.p(at).probability(drafted)
    }
}

#[test]
fn accepting_by_the_ratio_and_correcting_by_the_coupled_token_is_caught() {
    let found = check_rule(&RatioWithoutResidual).unwrap_err();
    assert!(found.text.is_some() && found.distribution.is_some() && found.acceptance.is_some(), "{found:?}");
}

struct CorrectsByArgmax;
impl Rule for CorrectsByArgmax {
    fn correction(&self, _: &World, at: At, _: TokenId) -> TokenId {
        couple(&target_row(at, 0.0, 1.0), at.seed, at.position)
    }
}

#[test]
fn correction_by_argmax_is_caught() {
    let found = check_rule(&CorrectsByArgmax).unwrap_err();
    assert!(found.text.is_some() && found.distribution.is_some(), "{found:?}");
}

struct CorrectsFromDrafter;
impl Rule for CorrectsFromDrafter {
    fn correction(&self, world: &World, at: At, _: TokenId) -> TokenId {
        couple(world.q(at), fresh(at), at.position)
    }
}

#[test]
fn correction_from_the_drafters_distribution_is_caught() {
    let found = check_rule(&CorrectsFromDrafter).unwrap_err();
    assert!(found.text.is_some() && found.distribution.is_some(), "{found:?}");
}

struct CorrectsWithFreshNoise;
impl Rule for CorrectsWithFreshNoise {
    fn correction(&self, world: &World, at: At, _: TokenId) -> TokenId {
        couple(world.p(at), fresh(at), at.position)
    }
}

#[test]
fn correction_with_fresh_noise_is_caught() {
    let found = check_rule(&CorrectsWithFreshNoise).unwrap_err();
    assert!(found.text.is_some() && found.distribution.is_some(), "{found:?}");
}

struct BonusWithFreshNoise;
impl Rule for BonusWithFreshNoise {
    fn bonus(&self, world: &World, at: At) -> TokenId {
        couple(world.p(at), fresh(at), at.position)
    }
}

#[test]
fn bonus_token_with_fresh_noise_is_caught_by_the_text_alone() {
    let found = check_rule(&BonusWithFreshNoise).unwrap_err();
    assert!(found.text.is_some() && found.distribution.is_none() && found.acceptance.is_none(), "{found:?}");
}

struct VerifiesHotter;
impl Rule for VerifiesHotter {
    fn choose(&self, _: &World, at: At) -> TokenId {
        couple(&target_row(at, 1.0, TOP_P), at.seed, at.position)
    }
}

#[test]
fn verifying_at_another_temperature_is_caught() {
    let found = check_rule(&VerifiesHotter).unwrap_err();
    assert!(found.text.is_some() && found.distribution.is_some() && found.acceptance.is_some(), "{found:?}");
}

struct DraftsHotter;
impl Rule for DraftsHotter {
    fn draft(&self, _: &World, at: At) -> TokenId {
        couple(&drafter_row(at, 1.6, TOP_P), at.seed, at.position)
    }
}

#[test]
fn drafting_at_another_temperature_is_caught_by_acceptance_alone() {
    let found = check_rule(&DraftsHotter).unwrap_err();
    assert!(found.text.is_none() && found.distribution.is_none() && found.acceptance.is_some(), "{found:?}");
}

struct VerifiesWithoutTopP;
impl Rule for VerifiesWithoutTopP {
    fn choose(&self, _: &World, at: At) -> TokenId {
        couple(&target_row(at, TEMPERATURE, 1.0), at.seed, at.position)
    }
}

#[test]
fn top_p_on_the_drafters_side_alone_is_caught() {
    let found = check_rule(&VerifiesWithoutTopP).unwrap_err();
    assert!(found.text.is_some() && found.distribution.is_some(), "{found:?}");
}

struct DraftsWithoutTopP;
impl Rule for DraftsWithoutTopP {
    fn draft(&self, _: &World, at: At) -> TokenId {
        couple(&drafter_row(at, TEMPERATURE, 1.0), at.seed, at.position)
    }
}

#[test]
fn top_p_on_the_targets_side_alone_is_caught_by_acceptance_alone() {
    let found = check_rule(&DraftsWithoutTopP).unwrap_err();
    assert!(found.text.is_none() && found.distribution.is_none() && found.acceptance.is_some(), "{found:?}");
}

struct VerifierSeedOff;
impl Rule for VerifierSeedOff {
    fn choose(&self, world: &World, at: At) -> TokenId {
        couple(world.p(at), at.seed + 1, at.position)
    }
}

#[test]
fn verifier_seed_off_by_one_is_caught_by_text_and_acceptance() {
    let found = check_rule(&VerifierSeedOff).unwrap_err();
    assert!(found.text.is_some() && found.distribution.is_none() && found.acceptance.is_some(), "{found:?}");
}

struct VerifierPositionOff;
impl Rule for VerifierPositionOff {
    fn choose(&self, world: &World, at: At) -> TokenId {
        couple(world.p(at), at.seed, at.position + 1)
    }
}

#[test]
fn verifier_position_off_by_one_is_caught_by_text_and_acceptance() {
    let found = check_rule(&VerifierPositionOff).unwrap_err();
    assert!(found.text.is_some() && found.distribution.is_none() && found.acceptance.is_some(), "{found:?}");
}

struct PositionStandsStillAfterMiss;
impl Rule for PositionStandsStillAfterMiss {
    fn position_after_miss(&self, position: u64) -> u64 {
        position
    }
}

#[test]
fn position_not_advanced_after_a_correction_is_caught() {
    let found = check_rule(&PositionStandsStillAfterMiss).unwrap_err();
    assert!(found.text.is_some() && found.distribution.is_some() && found.acceptance.is_some(), "{found:?}");
}

struct CountsWholeDraftAfterMiss;
impl Rule for CountsWholeDraftAfterMiss {
    fn position_after_miss(&self, position: u64) -> u64 {
        position + DRAFT_TOKENS
    }
}

#[test]
fn position_that_counts_rejected_tokens_is_caught_by_the_text_alone() {
    let found = check_rule(&CountsWholeDraftAfterMiss).unwrap_err();
    assert!(found.text.is_some() && found.distribution.is_none() && found.acceptance.is_none(), "{found:?}");
}
