//! The verifier's commits over many seeds and positions have the target's distribution: chi-square tests at one in a
//! million with fixed seeds, so the outcome is the same each time. Also: only the frame, the rows, the sampling and
//! the seed decide.

mod models;

use dunlin_hlm::TokenId;
use dunlin_hlm::acceptance::{JudgedFrame, acceptance, residual};
use dunlin_hlm::coupling::{couple, gumbel};
use dunlin_hlm::payload::read;
use dunlin_hlm::policy::{Payload, PayloadForm, Policy};
use dunlin_hlm::probabilities::{Distribution, Sampling};
use models::{BASE, CONTEXTS, Models, chi_square, sampling};
use std::collections::BTreeMap;

/// "acceptin" and "residual", as in `docs/wire.md`.
const COIN: u64 = 0x6163_6365_7074_696e;
const REPLACEMENT: u64 = 0x7265_7369_6475_616c;

/// Compares one committed token per seed behind each context with p.
fn check_one_step(payload: Payload, size: u32, sampling: Sampling, seeds: u64) -> Result<(), String> {
    let models = Models::new(size, sampling);
    for last in 0..CONTEXTS as TokenId {
        let mut counts = vec![0u64; size as usize];
        for seed in 0..seeds {
            // Positions differ too: the noise is a function of both.
            let position = BASE + (seed % 50) as u32;
            let drafted = models.draft(payload, seed, position, last, 1);
            let (_, committed) = models.judge(&drafted, false, seed, position, last);
            assert_eq!(committed.len(), 1, "a frame without bonus brings one token");
            counts[committed[0] as usize] += 1;
        }
        let p = models.p(last);
        let cells = (0..size).map(|t| (counts[t as usize], p.probability(t) * seeds as f64));
        let (chi, limit) = chi_square(cells);
        if chi > limit {
            return Err(format!("{} row {last} of {size}: {chi} above {limit}", payload.form));
        }
    }
    Ok(())
}

/// Compares texts of three tokens, written in frames of `drafts` with bonus tokens, with the product of the rows.
fn check_short_texts(payload: Payload, drafts: usize, models: &Models, seeds: u64) -> Result<(), String> {
    let mut texts: BTreeMap<Vec<TokenId>, u64> = BTreeMap::new();
    for seed in 0..seeds {
        let mut text: Vec<TokenId> = vec![0];
        while text.len() < 4 {
            let position = BASE + text.len() as u32;
            let last = *text.last().expect("it starts with a token");
            let drafted = models.draft(payload, seed, position, last, drafts);
            let (outcome, committed) = models.judge(&drafted, true, seed, position, last);
            assert_eq!(committed.len(), outcome.accepted + 1);
            text.extend(committed);
        }
        *texts.entry(text[1..4].to_vec()).or_default() += 1;
    }
    let mut cells = Vec::new();
    for first in models.p(0).support() {
        for second in models.p(first.token).support() {
            for third in models.p(second.token).support() {
                let seen = texts.remove(&vec![first.token, second.token, third.token]).unwrap_or(0);
                let probability = first.probability * second.probability * third.probability;
                cells.push((seen, probability * seeds as f64));
            }
        }
    }
    assert!(texts.is_empty(), "texts that the target never writes: {texts:?}");
    let (chi, limit) = chi_square(cells);
    if chi > limit {
        Err(format!("{} frames of {drafts}: {chi} above {limit}", payload.form))
    } else {
        Ok(())
    }
}

fn of(policy: Policy) -> Payload {
    policy.rules().payload()
}

#[test]
fn what_the_exact_policies_commit_is_distributed_as_the_targets_own() {
    for policy in [Policy::Hlm, Policy::LosslessSparse, Policy::Lossless] {
        for (size, sampling, seeds) in [
            (64, sampling(1.0, 1.0), 15_000),
            (512, sampling(1.0, 1.0), 8_000),
            (200, sampling(0.7, 0.9), 10_000),
        ] {
            assert_eq!(check_one_step(of(policy), size, sampling, seeds), Ok(()), "{policy}");
        }
    }
    let sampled = Payload { entries: 5, ..Payload::of(PayloadForm::TopKSampled) };
    assert_eq!(check_one_step(sampled, 64, sampling(1.0, 1.0), 15_000), Ok(()));
}

#[test]
fn what_an_even_tail_commits_is_not() {
    let error = check_one_step(of(Policy::CuHlm), 512, sampling(1.0, 1.0), 8_000).unwrap_err();
    assert!(error.starts_with("top-k row"), "{error}");
}

#[test]
fn texts_of_frames_of_several_drafts_are_distributed_as_the_targets_own() {
    let models = Models::new(14, sampling(0.9, 1.0));
    for payload in [of(Policy::Lossless), of(Policy::LosslessSparse), Payload::of(PayloadForm::TopKSampled)] {
        for drafts in 2..=4 {
            assert_eq!(check_short_texts(payload, drafts, &models, 40_000), Ok(()));
        }
    }
    // Tokens of a coarse lattice are rejected often, so the replacements are tested too.
    let coarse = Payload { entries: 4, resolution: 6, ..of(Policy::LosslessSparse) };
    assert_eq!(check_short_texts(coarse, 3, &models, 40_000), Ok(()));
    assert_eq!(check_short_texts(of(Policy::Hlm), 1, &models, 40_000), Ok(()), "full rows are one draft's");
}

#[test]
fn with_the_shared_seed_the_token_is_the_targets_own_draw_whatever_the_draft() {
    let models = Models::new(40, sampling(1.0, 0.95));
    for seed in 0..300 {
        let p = models.p(2);
        let own = couple(p, seed, u64::from(BASE));
        for draft in 0..models.size {
            let mut drafted = models.draft(Payload::IDS, seed, BASE, 2, 1);
            drafted.tokens[0] = draft;
            for bonus in [false, true] {
                let (outcome, committed) = models.judge(&drafted, bonus, seed, BASE, 2);
                assert_eq!(committed[0], own);
                assert_eq!(outcome.accepted, usize::from(bonus && draft == own), "{draft} {own}");
            }
        }
    }
}

/// The rule of `docs/wire.md`, written from its formulas: U = e^(−e^(−G)) is the coin.
fn by_the_document(p: &Distribution, q: &Distribution, token: TokenId, seed: u64, position: u64) -> TokenId {
    let coin = libm::exp(-libm::exp(-gumbel(seed ^ COIN, position, 0)));
    if coin * q.probability(token) < p.probability(token) {
        return token;
    }
    let left = |t: TokenId| p.probability(t) - q.probability(t);
    let above = p.support().iter().map(|c| c.token).filter(|&t| left(t) > 0.0);
    let score = |t: TokenId| libm::log(left(t)) + gumbel(seed ^ REPLACEMENT, position, t);
    above.max_by(|&a, &b| score(a).total_cmp(&score(b)).then(b.cmp(&a))).expect("p is somewhere above q")
}

#[test]
fn coin_and_replacement_are_those_of_the_wire_document() {
    let models = Models::new(60, sampling(1.0, 1.0));
    let mut refused = 0;
    for form in [PayloadForm::Full, PayloadForm::TopK, PayloadForm::TopKSampled, PayloadForm::Lattice] {
        let payload = Payload { entries: 6, ..Payload::of(form) };
        for seed in 0..4_000u64 {
            let (position, last) = (BASE + (seed % 97) as u32, (seed % 6) as TokenId);
            let drafted = models.draft(payload, seed, position, last, 1);
            let q = read(&drafted.sent[0], form, models.size).expect("a weight");
            let expected = by_the_document(models.p(last), &q, drafted.tokens[0], seed, u64::from(position));
            let (_, committed) = models.judge(&drafted, false, seed, position, last);
            assert_eq!(committed, [expected], "{form} seed {seed}");
            refused += u32::from(expected != drafted.tokens[0]);
        }
    }
    assert!((2_000..8_000).contains(&refused), "both branches count: {refused}");
}

#[test]
fn a_token_that_could_not_be_drawn_is_judged_too() {
    let models = Models::new(20, sampling(1.0, 0.8));
    let payload = Payload { entries: 3, ..Payload::of(PayloadForm::Lattice) };
    for (seed, token) in (0..50).flat_map(|seed| (0..20).map(move |token| (seed, token))) {
        let mut drafted = models.draft(payload, seed, BASE, 1, 1);
        drafted.tokens[0] = token;
        let (p, q) = (models.p(1), read(&drafted.sent[0], payload.form, 20).expect("a weight"));
        let (outcome, committed) = models.judge(&drafted, true, seed, BASE, 1);
        if q.probability(token) == 0.0 {
            // With q = 0 the token is accepted if the target can choose it, else rejected.
            assert_eq!(outcome.accepted == 1, p.probability(token) > 0.0, "{token}");
            assert_eq!(acceptance(p, &q, token), f64::from(u8::from(p.probability(token) > 0.0)));
        }
        assert!(committed.iter().all(|token| *token < 20));
        if outcome.accepted == 0 {
            assert!(residual(p, &q).probability(committed[0]) > 0.0);
        }
    }
}

#[test]
fn a_frame_that_is_judged_twice_gets_the_same_answer_whatever_was_judged_before() {
    let models = Models::new(30, sampling(1.0, 1.0));
    for policy in [Policy::Lossless, Policy::LosslessSparse] {
        for seed in 0..300 {
            let drafted = models.draft(of(policy), seed, BASE, 0, 4);
            let first = models.judge(&drafted, true, seed, BASE, 0);
            let frame = drafted.frame(models.size, BASE, true);
            let asked =
                JudgedFrame { frame: &frame, weights: &[], vocabulary: 30, seed, sampling: models.sampling };
            let mut used = models.p(5).clone();
            let rows = models.rows(0, &drafted.tokens);
            assert_eq!(asked.judge(&rows, &mut used), Some(first.0));
            assert_eq!(asked.judge(&rows, &mut used), Some(first.0));
        }
    }
}

#[test]
fn what_stands_behind_the_first_miss_changes_nothing() {
    let models = Models::new(30, sampling(1.0, 1.0));
    for policy in [Policy::Lossless, Policy::LosslessSparse] {
        let mut missed = 0;
        for seed in 0..400 {
            let whole = models.draft(of(policy), seed, BASE, 0, 4);
            let (outcome, committed) = models.judge(&whole, true, seed, BASE, 0);
            if outcome.accepted == 4 {
                continue;
            }
            missed += 1;
            // Cut behind the miss, with and without a bonus, and with other drafts behind it.
            for length in outcome.accepted + 1..=4 {
                for bonus in [true, false] {
                    let mut cut = models.draft(of(policy), seed, BASE, 0, length);
                    assert_eq!(models.judge(&cut, bonus, seed, BASE, 0), (outcome, committed.clone()));
                    cut.tokens[outcome.accepted + 1..].fill(29);
                    assert_eq!(models.judge(&cut, bonus, seed, BASE, 0), (outcome, committed.clone()));
                }
            }
        }
        assert!(missed > 100, "{policy}: {missed}");
    }
}

#[test]
fn a_bonus_is_the_targets_draw_with_the_ordinary_noise() {
    let models = Models::new(30, sampling(1.0, 1.0));
    for policy in [Policy::Lossless, Policy::LosslessSparse] {
        let mut whole = 0;
        for seed in 0..400 {
            let drafted = models.draft(of(policy), seed, BASE, 0, 2);
            let (outcome, committed) = models.judge(&drafted, true, seed, BASE, 0);
            let (without, _) = models.judge(&drafted, false, seed, BASE, 0);
            if outcome.accepted < 2 {
                assert_eq!(without, outcome);
                continue;
            }
            whole += 1;
            assert_eq!(committed[2], couple(models.p(drafted.tokens[1]), seed, u64::from(BASE) + 2));
            assert_eq!((without.accepted, without.token), (1, drafted.tokens[1]), "the last draft itself");
        }
        assert!(whole > 30, "{policy}: {whole}");
    }
}
