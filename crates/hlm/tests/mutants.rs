//! Wrong variants of rejection sampling, some of them known from public implementations. Each is caught, with a lower
//! bound of its error. [`check`] compares a rule with the target's own probabilities: exactly for one token, and by
//! chi-square at one in a million with fixed seeds for texts of two.
#![allow(clippy::print_stdout, reason = "a test may speak")]

mod models;

use dunlin_hlm::TokenId;
use dunlin_hlm::acceptance::{acceptance, residual};
use dunlin_hlm::coupling::{couple, gumbel};
use dunlin_hlm::payload::{quantise, read};
use dunlin_hlm::policy::{Payload, PayloadForm};
use dunlin_hlm::probabilities::{Distribution, total_variation};
use models::{BASE, CONTEXTS, Models, chi_square, distribution, drawn_from, sampling};

/// "acceptin" and "residual", as in `docs/wire.md`.
const COIN: u64 = 0x6163_6365_7074_696e;
const REPLACEMENT: u64 = 0x7265_7369_6475_616c;
const SIZE: u32 = 12;
const SEEDS: u64 = 60_000;
/// A coarse payload, so that it differs from the drafter's row.
const LATTICE: Payload = Payload { form: PayloadForm::Lattice, entries: 6, resolution: 12 };

/// The place where a token is drawn and judged.
#[derive(Clone, Copy)]
struct At {
    seed: u64,
    position: u64,
}

/// The real rule for one token; a mutant replaces one method.
trait Rule {
    fn payload(&self) -> Payload {
        LATTICE
    }

    fn read_as(&self) -> PayloadForm {
        self.payload().form
    }

    /// The distribution that the verifier believes the token was drawn from.
    fn sent(&self, models: &Models, last: TokenId) -> Distribution {
        let sent = quantise(models.q(last), self.payload(), models.size);
        read(&sent, self.read_as(), models.size).expect("the most probable token has a weight")
    }

    fn drawn_from(&self, models: &Models, last: TokenId) -> Distribution {
        let payload = self.payload();
        let sent = quantise(models.q(last), payload, models.size);
        drawn_from(models.q(last), &sent, payload.form, models.size)
    }

    fn target(&self, models: &Models, last: TokenId) -> Distribution {
        models.p(last).clone()
    }

    fn acceptance(&self, p: &Distribution, q: &Distribution, drafted: TokenId) -> f64 {
        acceptance(p, q, drafted)
    }

    fn replaced_from(&self, p: &Distribution, q: &Distribution, _drafted: TokenId) -> Distribution {
        residual(p, q)
    }

    fn coin(&self, at: At) -> f64 {
        coin(at.seed, at.position)
    }

    fn replacement(&self, left: &Distribution, at: At) -> TokenId {
        couple(left, at.seed ^ REPLACEMENT, at.position)
    }
}

/// The distributions of a rule behind one context.
struct Step {
    p: Distribution,
    sent: Distribution,
    drawn_from: Distribution,
}

/// The evidence that a rule differs from the real one.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Deviation {
    /// The distance of one token's exact law from the target's, on average over the contexts.
    law: f64,
    /// χ² of texts of two tokens, where it is above its limit.
    texts: Option<f64>,
}

fn coin(seed: u64, position: u64) -> f64 {
    libm::exp(-libm::exp(-gumbel(seed ^ COIN, position, 0)))
}

impl Step {
    fn of(rule: &impl Rule, models: &Models, last: TokenId) -> Self {
        Self {
            p: rule.target(models, last),
            sent: rule.sent(models, last),
            drawn_from: rule.drawn_from(models, last),
        }
    }

    fn commit(&self, rule: &impl Rule, at: At) -> TokenId {
        let drafted = couple(&self.drawn_from, at.seed, at.position);
        if rule.coin(at) < rule.acceptance(&self.p, &self.sent, drafted) {
            return drafted;
        }
        rule.replacement(&rule.replaced_from(&self.p, &self.sent, drafted), at)
    }

    /// The distribution of one committed token, given that coin and replacement are independent of the draft.
    fn law(&self, rule: &impl Rule) -> Vec<f64> {
        let mut law = vec![0.0; SIZE as usize];
        for drawn in self.drawn_from.support() {
            let kept = rule.acceptance(&self.p, &self.sent, drawn.token).min(1.0);
            law[drawn.token as usize] += drawn.probability * kept;
            if kept < 1.0 {
                for candidate in rule.replaced_from(&self.p, &self.sent, drawn.token).support() {
                    law[candidate.token as usize] += drawn.probability * (1.0 - kept) * candidate.probability;
                }
            }
        }
        law
    }
}

fn check(rule: &impl Rule) -> Result<Deviation, Deviation> {
    let models = Models::new(SIZE, sampling(0.9, 1.0));
    let steps: Vec<Step> = (0..CONTEXTS as TokenId).map(|last| Step::of(rule, &models, last)).collect();
    let mut off = 0.0;
    for (last, step) in (0..).zip(&steps) {
        let (law, p) = (step.law(rule), models.p(last));
        let distances = (0..SIZE).map(|token| (law[token as usize] - p.probability(token)).abs());
        off += 0.5 * distances.sum::<f64>() / CONTEXTS as f64;
    }
    let mut texts = vec![0u64; (SIZE * SIZE) as usize];
    for seed in 0..SEEDS {
        let at = At { seed, position: BASE.into() };
        let first = steps[0].commit(rule, at);
        let second = steps[Models::context(first)].commit(rule, At { position: at.position + 1, ..at });
        texts[(first * SIZE + second) as usize] += 1;
    }
    let expected = |index: u32| {
        let (first, second) = (index / SIZE, index % SIZE);
        models.p(0).probability(first) * models.p(first).probability(second) * SEEDS as f64
    };
    let (chi, limit) = chi_square((0..SIZE * SIZE).map(|index| (texts[index as usize], expected(index))));
    let deviation = Deviation { law: off, texts: (chi > limit).then_some(chi) };
    if off < 1e-12 && chi <= limit { Ok(deviation) } else { Err(deviation) }
}

/// Asserts that both checks catch the rule and that it is off by at least this.
fn assert_caught(name: &str, rule: &impl Rule, least: f64) {
    let found = check(rule).expect_err(name);
    println!("{name}: TV {:.3}", found.law);
    assert!(found.law >= least && found.texts.is_some(), "{name}: {found:?}");
}

struct Real(Payload);
impl Rule for Real {
    fn payload(&self) -> Payload {
        self.0
    }
}

fn payloads() -> [Payload; 3] {
    let payload = |form| Payload { form, ..LATTICE };
    [LATTICE, payload(PayloadForm::TopKSampled), payload(PayloadForm::Full)]
}

#[test]
fn the_real_rule_passes() {
    for payload in payloads() {
        assert!(check(&Real(payload)).is_ok(), "{}", payload.form);
    }
}

#[test]
fn the_rule_held_up_here_is_the_verifiers() {
    let models = Models::new(SIZE, sampling(0.9, 1.0));
    for payload in payloads() {
        let rule = Real(payload);
        for (seed, last) in (0..2_000).flat_map(|seed| (0..CONTEXTS as TokenId).map(move |last| (seed, last)))
        {
            let drafted = models.draft(payload, seed, BASE, last, 1);
            let (_, committed) = models.judge(&drafted, false, seed, BASE, last);
            let at = At { seed, position: BASE.into() };
            assert_eq!(
                committed,
                [Step::of(&rule, &models, last).commit(&rule, at)],
                "{} {seed}",
                payload.form
            );
        }
    }
}

struct RatioInverted;
impl Rule for RatioInverted {
    fn acceptance(&self, p: &Distribution, q: &Distribution, drafted: TokenId) -> f64 {
        acceptance(q, p, drafted)
    }
}

#[test]
fn accepting_by_the_inverted_ratio_is_caught() {
    assert_caught("the ratio inverted", &RatioInverted, 0.1);
}

struct SingleProbability;
impl Rule for SingleProbability {
    fn replaced_from(&self, p: &Distribution, _: &Distribution, drafted: TokenId) -> Distribution {
        let others = p.support().iter().filter(|c| c.token != drafted).map(|c| (c.token, c.probability));
        Distribution::from_weights(others).unwrap_or_else(|| p.clone())
    }
}

#[test]
fn a_residual_from_the_drafted_tokens_probability_alone_is_caught() {
    assert_caught("the residual from a single probability", &SingleProbability, 0.02);
}

struct ReplacesByArgmax;
impl Rule for ReplacesByArgmax {
    fn replaced_from(&self, p: &Distribution, q: &Distribution, _: TokenId) -> Distribution {
        let left = residual(p, q);
        let best = left.support().iter().max_by(|a, b| a.probability.total_cmp(&b.probability));
        Distribution::certain(best.expect("a residual is never empty").token)
    }
}

#[test]
fn replacing_by_argmax_is_caught() {
    assert_caught("the replacement by argmax", &ReplacesByArgmax, 0.02);
}

struct ReplacesFromTarget;
impl Rule for ReplacesFromTarget {
    fn replaced_from(&self, p: &Distribution, _: &Distribution, _: TokenId) -> Distribution {
        p.clone()
    }
}

#[test]
fn replacing_from_the_whole_target_is_caught() {
    assert_caught("the replacement from the whole target", &ReplacesFromTarget, 0.02);
}

struct WithoutPositivePart;
impl Rule for WithoutPositivePart {
    fn replaced_from(&self, p: &Distribution, q: &Distribution, _: TokenId) -> Distribution {
        let off = (0..SIZE).map(|token| (token, (p.probability(token) - q.probability(token)).abs()));
        Distribution::from_weights(off).unwrap_or_else(|| p.clone())
    }
}

#[test]
fn a_residual_without_the_positive_part_is_caught() {
    assert_caught("the residual |p − q|", &WithoutPositivePart, 0.02);
}

/// The payload truncates the row, but the token is drawn from the whole row.
struct DrawsFromAll(Payload);
impl Rule for DrawsFromAll {
    fn payload(&self) -> Payload {
        self.0
    }

    fn drawn_from(&self, models: &Models, last: TokenId) -> Distribution {
        models.q(last).clone()
    }
}

#[test]
fn drawing_from_all_of_the_row_and_sending_its_top_is_caught() {
    let top = |form, entries| DrawsFromAll(Payload { form, entries, resolution: 255 });
    assert_caught("drawn from all, top-k sent, the rest even", &top(PayloadForm::TopK, 3), 0.01);
    assert_caught("drawn from all, top-k sent, the rest nothing", &top(PayloadForm::TopKSampled, 3), 0.02);
    assert_caught("drawn from all, a coarse lattice sent", &DrawsFromAll(LATTICE), 0.01);
}

struct DraftsHotter;
impl Rule for DraftsHotter {
    fn drawn_from(&self, models: &Models, last: TokenId) -> Distribution {
        let hot = distribution(&models.drafter[Models::context(last)], &sampling(1.6, 1.0));
        read(&quantise(&hot, LATTICE, SIZE), PayloadForm::Lattice, SIZE).expect("a weight")
    }
}

#[test]
fn drafting_at_another_temperature_than_is_sent_is_caught() {
    assert_caught("drafted at 1.6, sent at 0.9", &DraftsHotter, 0.02);
}

struct VerifiesHotter;
impl Rule for VerifiesHotter {
    fn target(&self, models: &Models, last: TokenId) -> Distribution {
        distribution(&models.target[Models::context(last)], &sampling(1.6, 1.0))
    }
}

#[test]
fn verifying_at_another_temperature_is_caught() {
    assert_caught("drafted at 0.9, verified at 1.6", &VerifiesHotter, 0.05);
}

struct AcceptsEverything;
impl Rule for AcceptsEverything {
    fn acceptance(&self, _: &Distribution, _: &Distribution, drafted: TokenId) -> f64 {
        let retokenised = drafted;
        f64::from(u8::from(drafted == retokenised))
    }
}

#[test]
fn comparing_the_text_with_itself_is_caught() {
    assert_caught("the text compared with itself", &AcceptsEverything, 0.1);
    let models = Models::new(SIZE, sampling(0.9, 1.0));
    let step = |last| Step::of(&AcceptsEverything, &models, last);
    let tv = |last| total_variation(&step(last).drawn_from, models.p(last));
    let whole = (0..CONTEXTS as TokenId).map(tv).sum::<f64>() / CONTEXTS as f64;
    let found = check(&AcceptsEverything).expect_err("caught above");
    assert!((found.law - whole).abs() < 1e-12, "it is off by all that the two differ");
}

/// The device draws from the payload, but the verifier judges by the drafter's full row.
struct JudgesByUnquantised;
impl Rule for JudgesByUnquantised {
    fn sent(&self, models: &Models, last: TokenId) -> Distribution {
        models.q(last).clone()
    }
}

#[test]
fn judging_by_what_was_not_quantised_is_caught() {
    assert_caught("judged by the unquantised row", &JudgesByUnquantised, 0.01);
}

struct LatticeAsTopK;
impl Rule for LatticeAsTopK {
    fn read_as(&self) -> PayloadForm {
        PayloadForm::TopK
    }
}

#[test]
fn a_lattice_read_as_255ths_is_caught() {
    assert_caught("a lattice read as 255ths", &LatticeAsTopK, 0.05);
}

struct ReplacesWithNoiseOfDraft;
impl Rule for ReplacesWithNoiseOfDraft {
    fn replacement(&self, left: &Distribution, at: At) -> TokenId {
        couple(left, at.seed, at.position)
    }
}

/// Counts the commits of a rule behind one context, for rules whose noises depend on each other.
fn counted(rule: &impl Rule, last: TokenId) -> f64 {
    let models = Models::new(SIZE, sampling(0.9, 1.0));
    let step = Step::of(rule, &models, last);
    let mut counts = vec![0.0; SIZE as usize];
    for seed in 0..SEEDS {
        counts[step.commit(rule, At { seed, position: BASE.into() }) as usize] += 1.0 / SEEDS as f64;
    }
    0.5 * (0..SIZE).map(|t| (counts[t as usize] - models.p(last).probability(t)).abs()).sum::<f64>()
}

fn counted_mean(rule: &impl Rule) -> f64 {
    (0..CONTEXTS as TokenId).map(|last| counted(rule, last)).sum::<f64>() / CONTEXTS as f64
}

#[test]
fn replacing_with_the_noise_of_the_draft_is_caught_by_counting() {
    let found = check(&ReplacesWithNoiseOfDraft).expect_err("the noise of the draft");
    let (off, fair) = (counted_mean(&ReplacesWithNoiseOfDraft), counted_mean(&Real(LATTICE)));
    println!("replaced with the noise of the draft: TV {off:.3} counted, a fair rule {fair:.3}");
    assert!(found.law < 1e-12 && found.texts.is_some() && off > 2.0 * fair, "{found:?} {off} {fair}");
}

struct OneCoin;
impl Rule for OneCoin {
    fn coin(&self, at: At) -> f64 {
        coin(at.seed, BASE.into())
    }
}

#[test]
fn one_coin_for_all_positions_is_caught_by_the_texts_alone() {
    let found = check(&OneCoin).expect_err("one coin");
    let (off, fair) = (counted_mean(&OneCoin), counted_mean(&Real(LATTICE)));
    println!("one coin for all positions: TV of one token {off:.3} counted, a fair rule {fair:.3}");
    assert!(found.law < 1e-12 && found.texts.is_some() && off == fair, "{found:?} {off}");
}

struct CoinOfDraft;
impl Rule for CoinOfDraft {
    fn coin(&self, at: At) -> f64 {
        libm::exp(-libm::exp(-gumbel(at.seed, at.position, 0)))
    }
}

#[test]
fn a_coin_that_is_the_drafts_own_noise_is_caught_by_counting() {
    let found = check(&CoinOfDraft).expect_err("the noise of the draft");
    let (off, fair) = (counted_mean(&CoinOfDraft), counted_mean(&Real(LATTICE)));
    println!("the coin from the noise of the draft: TV {off:.3} counted, a fair rule {fair:.3}");
    assert!(found.law < 1e-12 && found.texts.is_some() && off > 2.0 * fair, "{found:?} {off} {fair}");
}
