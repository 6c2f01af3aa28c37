//! The exact distribution of the token that one step commits, for each coupling and payload. It equals the target's
//! where that is claimed; elsewhere it differs by as much as theory predicts.

mod models;

use dunlin_hlm::TokenId;
use dunlin_hlm::acceptance::law;
use dunlin_hlm::payload::{quantise, read};
use dunlin_hlm::policy::{Payload, PayloadForm};
use dunlin_hlm::probabilities::{Distribution, total_variation};
use dunlin_hlm::uncertainty::{Form, uncertainty};
use models::{CONTEXTS, Models, drawn_from, sampling};

const EXACT: [PayloadForm; 3] = [PayloadForm::Full, PayloadForm::TopKSampled, PayloadForm::Lattice];
/// Tolerance for rounding.
const NOTHING: f64 = 1e-12;

/// Weights over tokens 0, 1, 2 …
fn of(weights: &[f64]) -> Distribution {
    Distribution::from_weights((0..).zip(weights.iter().copied())).expect("some weight is above 0")
}

fn payload(form: PayloadForm, entries: u8, resolution: u8) -> Payload {
    Payload { form, entries, resolution }
}

/// Half the sum of |out − p|; `out` need not be normalised.
fn distance(out: &[(TokenId, f64)], p: &Distribution, size: u32) -> f64 {
    let out = |token| out.iter().find(|(t, _)| *t == token).map_or(0.0, |(_, probability)| *probability);
    0.5 * (0..size).map(|token| (out(token) - p.probability(token)).abs()).sum::<f64>()
}

/// The distance from `p` of the rule's distribution when every token is flushed.
fn judged(p: &Distribution, q: &Distribution, payload: Payload, size: u32) -> f64 {
    let sent = quantise(q, payload, size);
    let drawn_from = drawn_from(q, &sent, payload.form, size);
    let sent = read(&sent, payload.form, size).expect("the most probable token has a weight");
    distance(&law(p, &drawn_from, &sent, |_| true), p, size)
}

/// Like [`judged`], but by the formula of speculative decoding written out; only probabilities come from the crate.
fn judged_by_hand(p: &Distribution, drawn: &Distribution, sent: &Distribution, size: u32) -> f64 {
    let at = |d: &Distribution, t: TokenId| d.probability(t);
    let kept = |t: TokenId| {
        let (p, q) = (at(p, t), at(sent, t));
        if q > 0.0 { (p / q).min(1.0) } else { f64::from(u8::from(p > 0.0)) }
    };
    let refused: f64 = (0..size).map(|t| at(drawn, t) * (1.0 - kept(t))).sum();
    let excess: f64 = (0..size).map(|t| (at(p, t) - at(sent, t)).max(0.0)).sum();
    let out = |t: TokenId| {
        let replacement = if excess > 0.0 { (at(p, t) - at(sent, t)).max(0.0) / excess } else { at(p, t) };
        at(drawn, t) * kept(t) + refused * replacement
    };
    0.5 * (0..size).map(|t| (out(t) - at(p, t)).abs()).sum::<f64>()
}

fn small_worlds() -> impl Iterator<Item = Models> {
    let settings = [(0.3, 1.0), (0.8, 0.9), (1.0, 1.0), (1.0, 0.6), (2.5, 1.0), (0.0, 1.0)];
    (5..=12).flat_map(move |size| settings.map(|(t, top_p)| Models::new(size, sampling(t, top_p))))
}

#[test]
fn rejection_against_what_was_drawn_from_is_exact() {
    for models in small_worlds() {
        for (context, form) in (0..CONTEXTS as u32).flat_map(|context| EXACT.map(|form| (context, form))) {
            let (p, q) = (models.p(context), models.q(context));
            for (entries, resolution) in [(1, 1), (2, 3), (4, 10), (30, 100), (64, 255)] {
                let off = judged(p, q, payload(form, entries, resolution), models.size);
                let name = format!("{form} {entries} {resolution} of {} row {context}", models.size);
                assert!(off <= NOTHING, "{name} {:?}: {off}", models.sampling);
            }
        }
    }
}

#[test]
fn rejection_is_exact_where_the_two_share_no_token() {
    let (p, q) = (of(&[0.5, 0.5, 0.0, 0.0]), of(&[0.0, 0.0, 0.25, 0.75]));
    for form in EXACT {
        assert!(judged(&p, &q, payload(form, 4, 10), 4) <= NOTHING);
        assert!(judged(&p, &p, payload(form, 4, 10), 4) <= NOTHING);
    }
}

/// q = (1/2, 1/4, 1/8, 1/8) is drawn from; one entry says 128/255 for token 0 and 127/765 for each other. The target
/// is (1/4, 1/4, 1/4, 1/4), so token 0 is kept with 255/512 and every other always. Refused: 257/1024. The residual
/// is even over 1, 2 and 3, so each gets 257/3072: the outcome is (255, 256, 128, 128)/1024 + (0, 1, 1, 1) · 257/3072.
/// Token 1 is above a quarter by 257/3072, the others below it by 3/3072 and 127/3072 twice.
#[test]
fn an_even_tail_is_off_by_what_fractions_say() {
    let (q, p) = (of(&[0.5, 0.25, 0.125, 0.125]), of(&[0.25; 4]));
    let off = judged(&p, &q, payload(PayloadForm::TopK, 1, 1), 4);
    assert!((off - 257.0 / 3072.0).abs() <= NOTHING, "{off}");
}

#[test]
fn an_even_tail_is_off_by_what_the_formula_says() {
    let mut worst = 0.0f64;
    for models in small_worlds() {
        for (context, entries) in (0..CONTEXTS as u32).flat_map(|context| [1, 2, 3, 6].map(|k| (context, k)))
        {
            let (p, q) = (models.p(context), models.q(context));
            let payload = payload(PayloadForm::TopK, entries, 1);
            let sent = read(&quantise(q, payload, models.size), payload.form, models.size).expect("a weight");
            let (off, by_hand) =
                (judged(p, q, payload, models.size), judged_by_hand(p, q, &sent, models.size));
            assert!((off - by_hand).abs() <= NOTHING, "{off} against {by_hand}");
            worst = worst.max(off);
        }
    }
    assert!(worst > 0.05, "{worst}");
}

/// The mean over the contexts of `off` for p, q and the drafter's logits.
fn mean(models: &Models, off: impl Fn(&Distribution, &Distribution, &[f32]) -> f64) -> f64 {
    let rows = (0..CONTEXTS).map(|c| off(models.p(c as u32), models.q(c as u32), &models.drafter[c]));
    rows.sum::<f64>() / CONTEXTS as f64
}

#[test]
fn an_even_tail_of_thirty_is_off_by_percents_on_rows_like_a_models() {
    for (size, least, most) in [(128, 0.01, 0.06), (512, 0.02, 0.06), (4096, 0.02, 0.08)] {
        let models = Models::new(size, sampling(1.0, 1.0));
        let top_k = mean(&models, |p, q, _| judged(p, q, Payload::of(PayloadForm::TopK), size));
        println!("V {size} top-k 30, even tail: TV {top_k:.4}");
        assert!(top_k > least && top_k < most, "V {size}: {top_k}");
        for form in EXACT {
            let off = mean(&models, |p, q, _| judged(p, q, Payload::of(form), size));
            assert!(off <= NOTHING, "V {size} {form}: {off}");
        }
    }
}

/// A token that is not flushed keeps its excess probability, so the distance is Σ (q − p)⁺ over those tokens.
#[test]
fn trusted_tokens_are_off_by_what_they_have_too_much_of() {
    for models in small_worlds() {
        for (context, form) in (0..CONTEXTS as u32).flat_map(|context| EXACT.map(|form| (context, form))) {
            let (p, q) = (models.p(context), models.q(context));
            let sent = quantise(q, payload(form, 4, 20), models.size);
            let q = read(&sent, form, models.size).expect("a weight");
            for pattern in 0..1u32 << models.size.min(6) {
                let flushed = |token: TokenId| pattern >> (token % 6) & 1 == 1;
                let too_much: f64 = (0..models.size)
                    .filter(|token| !flushed(*token))
                    .map(|token| (q.probability(token) - p.probability(token)).max(0.0))
                    .sum();
                let off = distance(&law(p, &q, &q, flushed), p, models.size);
                assert!((off - too_much).abs() <= NOTHING, "{pattern:b}: {off} against {too_much}");
            }
            let nothing_flushed = distance(&law(p, &q, &q, |_| false), p, models.size);
            assert!((nothing_flushed - total_variation(p, &q)).abs() <= NOTHING);
        }
    }
}

#[test]
fn the_stricter_the_threshold_the_nearer_the_text() {
    let models = Models::new(512, sampling(1.0, 1.0));
    let at = |threshold: f32| {
        let trusted = |p: &Distribution, q: &Distribution, logits: &[f32]| {
            let sent = quantise(q, Payload::of(PayloadForm::Full), 512);
            let q = read(&sent, PayloadForm::Full, 512).expect("a weight");
            let score = |token| {
                uncertainty(Form::Quadrature, logits, token, q.probability(token), 0, 0).get() > threshold
            };
            let out = law(p, &q, &q, score);
            let flushed = q.support().iter().filter(|c| score(c.token)).map(|c| c.probability).sum::<f64>();
            (distance(&out, p, 512), flushed)
        };
        let (off, flushed) =
            (mean(&models, |p, q, z| trusted(p, q, z).0), mean(&models, |p, q, z| trusted(p, q, z).1));
        println!("trusted where u ≤ {threshold}: TV {off:.4}, {:.3} of the tokens flushed", flushed + 0.0);
        off
    };
    let off = [0.0, 0.3, 0.5, 0.7, 0.9, 1.0].map(at);
    assert!(off[0] <= NOTHING && off.is_sorted(), "{off:?}");
    let all = mean(&models, |p, q, _| {
        let sent = quantise(q, Payload::of(PayloadForm::Full), 512);
        total_variation(p, &read(&sent, PayloadForm::Full, 512).expect("a weight"))
    });
    assert!((off[5] - all).abs() <= NOTHING && all > 0.1, "{all}");
}
