//! Properties of distributions, coupling and uncertainty on arbitrary rows of logits.

use dunlin_hlm::TokenId;
use dunlin_hlm::coupling::{couple, couple_with_margin, gumbel};
use dunlin_hlm::importance::{received, row};
use dunlin_hlm::probabilities::{Candidate, Distribution, LogitsError, Sampling, overlap, total_variation};
use dunlin_hlm::uncertainty::{Form, uncertainty};
use proptest::prelude::*;

fn any_bits() -> impl Strategy<Value = Vec<f32>> {
    prop::collection::vec(any::<u32>().prop_map(f32::from_bits), 0..200)
}

fn usual_row() -> impl Strategy<Value = Vec<f32>> {
    prop::collection::vec(-12.0f32..12.0, 1..200)
}

fn any_sampling() -> impl Strategy<Value = Sampling> {
    let temperature = prop_oneof![Just(0.0f32), 1e-30f32..1e-3, 0.1f32..10.0];
    let top_p = prop_oneof![Just(1.0f32), f32::MIN_POSITIVE..1.0];
    (temperature, top_p, prop_oneof![Just(0u32), 1u32..20, Just(u32::MAX)])
        .prop_map(|(temperature, top_p, top_k)| Sampling::new(temperature, top_p, top_k).expect("in range"))
}

fn warm(top_p: f32, top_k: u32) -> Sampling {
    Sampling::new(1.0, top_p, top_k).expect("in range")
}

fn by_rank(distribution: &Distribution) -> Vec<(f64, TokenId)> {
    let mut ranked: Vec<_> = distribution.support().iter().map(|c| (c.ln_probability, c.token)).collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    ranked
}

/// Nodes and weights of Gauss–Legendre on (0, 1), by Newton's method.
fn gauss_legendre(count: usize) -> Vec<(f64, f64)> {
    let node = |i: usize| {
        let mut x = libm::cos(std::f64::consts::PI * (i as f64 + 0.75) / (count as f64 + 0.5));
        let mut slope = 0.0;
        for _ in 0..100 {
            let (mut now, mut before) = (1.0, 0.0);
            for k in 0..count {
                let k = k as f64;
                (now, before) = (((2.0 * k + 1.0) * x * now - k * before) / (k + 1.0), now);
            }
            slope = count as f64 * (x * now - before) / (x * x - 1.0);
            x -= now / slope;
        }
        (0.5 * (1.0 + x), 1.0 / ((1.0 - x * x) * slope * slope))
    };
    (0..count).map(node).collect()
}

/// `1 − ½∫₀² softmax(z/θ)_d dθ` with 64 nodes and nothing left out.
fn reference(logits: &[f32], drafted: usize) -> f64 {
    let highest = logits.iter().copied().map(f64::from).fold(f64::NEG_INFINITY, f64::max);
    let share = |temperature: f64| {
        let term = |z: f32| libm::exp((f64::from(z) - highest) / temperature);
        term(logits[drafted]) / logits.iter().map(|&z| term(z)).sum::<f64>()
    };
    1.0 - gauss_legendre(64).into_iter().map(|(x, weight)| weight * share(2.0 * x)).sum::<f64>()
}

proptest! {
    #[test]
    fn no_bit_pattern_breaks_anything(
        logits in any_bits(), other in any_bits(), sampling in any_sampling(), seed: u64, position: u64, drafted: u32,
        q: f64,
    ) {
        for &form in Form::ALL {
            for token in [drafted, drafted % 256] {
                let u = uncertainty(form, &logits, token, q, seed, position).get();
                prop_assert!((0.0..=1.0).contains(&u), "{form} {u}");
            }
        }
        prop_assert!((0.0..=1.0).contains(&row(&logits).get()));
        if let Some(x) = received(&[&logits, &other], drafted as usize % 256) {
            prop_assert!((0.0..=1.0).contains(&x.get()));
        }
        let usable = logits.iter().any(|&z| z > f32::NEG_INFINITY);
        match Distribution::from_logits(&logits, &sampling) {
            Err(error) => prop_assert!(error == LogitsError::NoMass && !usable),
            Ok(distribution) => {
                prop_assert!(usable);
                let choice = couple_with_margin(&distribution, seed, position);
                prop_assert!(choice.margin >= 0.0);
                prop_assert!(distribution.support().iter().any(|c| c.token == choice.token));
                prop_assert!(distribution.support().iter().all(|c| c.ln_probability.is_finite()));
                if let Ok(second) = Distribution::from_logits(&other, &sampling) {
                    let (tv, common) = (total_variation(&distribution, &second), overlap(&distribution, &second));
                    prop_assert!((tv + common - 1.0).abs() < 1e-9, "{tv} {common}");
                }
            }
        }
    }

    #[test]
    fn probabilities_sum_to_one_in_the_order_of_ids(logits in usual_row(), sampling in any_sampling()) {
        let distribution = Distribution::from_logits(&logits, &sampling).unwrap();
        let support = distribution.support();
        prop_assert!((support.iter().map(|c| c.probability).sum::<f64>() - 1.0).abs() < 1e-12);
        prop_assert!(support.is_sorted_by(|a, b| a.token < b.token));
        for candidate in support {
            prop_assert!((libm::exp(candidate.ln_probability) - candidate.probability).abs() < 1e-12);
            prop_assert_eq!(distribution.probability(candidate.token), candidate.probability);
        }
    }

    #[test]
    fn memory_of_another_row_leaves_no_trace(first in usual_row(), second in usual_row(), a in any_sampling(), b in any_sampling()) {
        let mut reused = Distribution::from_logits(&first, &a).unwrap();
        reused.refill(&second, &b).unwrap();
        prop_assert_eq!(reused, Distribution::from_logits(&second, &b).unwrap());
    }

    #[test]
    fn top_p_keeps_the_fewest_tokens_that_reach_it(logits in usual_row(), top_p in 0.01f32..1.0) {
        let whole = Distribution::from_logits(&logits, &warm(1.0, 0)).unwrap();
        let kept = by_rank(&Distribution::from_logits(&logits, &warm(top_p, 0)).unwrap());
        let ranked = by_rank(&whole);
        prop_assert!(kept.iter().map(|c| c.1).eq(ranked[..kept.len()].iter().map(|c| c.1)));
        let mass = |count: usize| ranked[..count].iter().map(|c| whole.probability(c.1)).sum::<f64>();
        prop_assert!(mass(kept.len()) >= f64::from(top_p) - 1e-12);
        prop_assert!(mass(kept.len() - 1) < f64::from(top_p) + 1e-12);
    }

    #[test]
    fn top_k_keeps_the_most_probable(logits in prop::collection::vec(-3i8..3, 1..100), top_k in 1u32..120) {
        let logits: Vec<f32> = logits.into_iter().map(f32::from).collect();
        let ranked = by_rank(&Distribution::from_logits(&logits, &warm(1.0, 0)).unwrap());
        let kept = by_rank(&Distribution::from_logits(&logits, &warm(1.0, top_k)).unwrap());
        prop_assert_eq!(kept.len(), logits.len().min(top_k as usize));
        prop_assert!(kept.iter().zip(&ranked).all(|(a, b)| a.1 == b.1));
    }

    #[test]
    fn renamed_tokens_keep_their_probabilities(
        (logits, order) in usual_row().prop_flat_map(|row| {
            let order: Vec<usize> = (0..row.len()).collect();
            (Just(row), Just(order).prop_shuffle())
        }),
        top_p in 0.1f32..1.0,
    ) {
        let renamed: Vec<f32> = order.iter().map(|&i| logits[i]).collect();
        let before = Distribution::from_logits(&logits, &warm(top_p, 0)).unwrap();
        let after = Distribution::from_logits(&renamed, &warm(top_p, 0)).unwrap();
        for (new, &old) in order.iter().enumerate() {
            prop_assert!((after.probability(new as TokenId) - before.probability(old as TokenId)).abs() < 1e-12);
        }
    }

    #[test]
    fn a_shift_of_all_logits_changes_nothing(logits in usual_row(), sampling in any_sampling(), shift in -8i8..8) {
        // Shifts by powers of two times small numbers stay exact on rows of sixteenths.
        let sixteenths: Vec<f32> = logits.iter().map(|z| (z * 16.0).round() / 16.0).collect();
        let shifted: Vec<f32> = sixteenths.iter().map(|z| z + f32::from(shift)).collect();
        let (a, b) = (Distribution::from_logits(&sixteenths, &sampling), Distribution::from_logits(&shifted, &sampling));
        prop_assert_eq!(a, b);
    }

    #[test]
    fn the_choice_is_the_highest_sum(logits in usual_row(), sampling in any_sampling(), seed: u64, position: u64) {
        let distribution = Distribution::from_logits(&logits, &sampling).unwrap();
        let scored = |c: &Candidate| (c.ln_probability + gumbel(seed, position, c.token), c.token);
        let chosen = couple_with_margin(&distribution, seed, position);
        let mut ranked: Vec<_> = distribution.support().iter().map(scored).collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        prop_assert_eq!(chosen.token, ranked[0].1);
        prop_assert_eq!(couple(&distribution, seed, position), chosen.token);
        if !sampling.is_greedy() {
            prop_assert_eq!(chosen.margin, ranked.get(1).map_or(f64::INFINITY, |second| ranked[0].0 - second.0));
        }
    }

    #[test]
    fn quadrature_stays_within_half_a_score(logits in usual_row(), pick: prop::sample::Index) {
        let drafted = pick.index(logits.len());
        prop_assert!(quadrature_error(&logits, drafted).abs() < 1.0 / 32.0);
    }
}

fn quadrature_error(logits: &[f32], drafted: usize) -> f64 {
    let u = uncertainty(Form::Quadrature, logits, drafted as TokenId, 0.0, 0, 0);
    f64::from(u.get()) - reference(logits, drafted)
}

/// Rows of 300 logits with a bell-shaped spread, and the token drawn from each.
#[test]
fn quadrature_agrees_with_64_nodes_on_ordinary_rows() {
    let (mut squares, mut worst) = (0.0, 0.0f64);
    for row in 0..1000u64 {
        let bell = |token: u32| {
            (0..6).map(|i| libm::exp(-libm::exp(-gumbel(6, row * 6 + i, token))) - 0.5).sum::<f64>()
        };
        let scale = (1 + row % 4) as f64 * 1.4;
        let logits: Vec<f32> = (0..300).map(|token| (scale * bell(token)) as f32).collect();
        let drafted = couple(&Distribution::from_logits(&logits, &warm(1.0, 0)).unwrap(), 1, row);
        let error = quadrature_error(&logits, drafted as usize);
        squares += error * error;
        worst = worst.max(error.abs());
    }
    let rmse = (squares / 1000.0).sqrt();
    assert!(rmse < 5e-4 && worst < 4e-3, "rmse {rmse} worst {worst}");
}

/// The hardest rows found: one token a little above thousands that tie.
#[test]
fn quadrature_stays_within_a_fortieth_on_the_hardest_rows() {
    let mut worst = 0.0f64;
    for rivals in [1, 10, 100, 1000, 10_000] {
        for gap in 1..30 {
            let mut logits = vec![0.0; rivals + 1];
            logits[0] = gap as f32 * 0.1;
            for drafted in [0, 1] {
                worst = worst.max(quadrature_error(&logits, drafted).abs());
            }
        }
    }
    assert!(worst > 0.01 && worst < 0.025, "worst {worst}");
}
