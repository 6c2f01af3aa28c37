//! The acceptance rules on rows of the demo pair: committed tokens have the distribution of the target's row.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use dunlin_hlm::acceptance::JudgedFrame;
use dunlin_hlm::coupling::couple;
use dunlin_hlm::payload::{Sent, quantise, read};
use dunlin_hlm::policy::{Policy, Rules};
use dunlin_hlm::probabilities::{Distribution, Sampling, total_variation};
use dunlin_lm::{Draft, Extend, ModelDir, Target};
use dunlin_lm_candle::CandleTarget;
use dunlin_lm_tract::Drafter;
use dunlin_wire::{DraftFrame, PREFIX_EMPTY, Row, Rows, Score, token_bits};
use std::collections::BTreeMap;
use std::path::PathBuf;

const SEEDS: u64 = 4_000;
const PROMPTS: usize = 4;
/// Number of rows tested: the first in which both models leave a choice and differ.
const ROWS: usize = 6;
const CHOICES_MIN: usize = 8;
const DISTANCE_MIN: f64 = 0.1;

/// Rows of both models after the same text.
struct Step {
    drafter: Vec<f32>,
    target: Vec<f32>,
}

impl Step {
    fn laws(&self, size: u32) -> (Distribution, Distribution) {
        let of = |row: &[f32]| Distribution::from_logits(&row[..size as usize], &sampling()).unwrap();
        (of(&self.target), of(&self.drafter))
    }
}

fn sampling() -> Sampling {
    Sampling::new(0.8, 1.0, 0).unwrap()
}

fn rows() -> (Vec<Step>, u32) {
    let models = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/demo");
    let dir = ModelDir::open(models.join("drafter")).unwrap();
    let (mut drafter, _) = Drafter::load(&dir).unwrap();
    let mut target = CandleTarget::load(&ModelDir::open(models.join("target")).unwrap(), 64 << 20).unwrap();
    let json: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(models.join("prompts.json")).unwrap()).unwrap();
    let mut rows = Vec::new();
    for prompt in &json["prompts"].as_array().unwrap()[..PROMPTS] {
        let tokens = dir.first_turn(prompt.as_str().unwrap()).unwrap();
        for length in 3..=tokens.len() {
            let text = &tokens[..length];
            drafter.truncate(0);
            let drafted = drafter.extend(text).unwrap();
            let session = target.open().unwrap();
            let part = Extend { session, keep: 0, tokens: text, rows: 1 };
            let logits = target.extend(&[part]).pop().unwrap().unwrap();
            target.close(session);
            rows.push(Step { drafter: drafted.logits(drafted.len() - 1).to_vec(), target: logits });
        }
    }
    let size = dir.vocabulary.size;
    rows.retain(|step| {
        let (p, q) = step.laws(size);
        let choices = p.support().iter().filter(|c| c.probability * SEEDS as f64 >= 10.0);
        choices.count() >= CHOICES_MIN && total_variation(&p, &q) >= DISTANCE_MIN
    });
    rows.truncate(ROWS);
    assert_eq!(rows.len(), ROWS);
    (rows, size)
}

/// χ² that a sample of the true distribution exceeds one time in a million (Wilson–Hilferty).
fn chi_square_limit(freedom: f64) -> f64 {
    let spread = 2.0 / (9.0 * freedom);
    freedom * (1.0 - spread + 4.753 * spread.sqrt()).powi(3)
}

/// χ² of counted tokens against a distribution, rare ones pooled, divided by its limit.
fn excess(counts: &BTreeMap<u32, u64>, p: &Distribution) -> f64 {
    let (mut chi, mut cells, mut rare) = (0.0, 0.0, (0.0, 0.0));
    for c in p.support() {
        let (seen, expected) = (*counts.get(&c.token).unwrap_or(&0) as f64, c.probability * SEEDS as f64);
        if expected >= 10.0 {
            chi += (seen - expected) * (seen - expected) / expected;
            cells += 1.0;
        } else {
            rare = (rare.0 + seen, rare.1 + expected);
        }
    }
    if rare.1 >= 10.0 {
        chi += (rare.0 - rare.1) * (rare.0 - rare.1) / rare.1;
        cells += 1.0;
    }
    chi / chi_square_limit(cells - 1.0)
}

/// The token that one step of a policy commits, computed as by device and verifier.
fn committed(rows: &Step, rules: &Rules, size: u32, seed: u64) -> u32 {
    let (_, q) = rows.laws(size);
    let sent = quantise(&q, rules.payload(), size);
    let drawn_from = read(&sent, rules.payload().form, size).unwrap_or(q);
    let token = couple(&drawn_from, seed, 1);
    let row = |sent: &Sent| match sent {
        Sent::Entries(entries) => Row { entries: entries.iter().copied().collect() },
        _ => Row::default(),
    };
    let (weights, rows_sent) = match &sent {
        Sent::Nothing => (Vec::new(), Rows::None),
        Sent::Weights(weights) => (weights.clone(), Rows::Full),
        Sent::Entries(_) => {
            let rows = [row(&sent)].into_iter().collect();
            (Vec::new(), Rows::Lattice { resolution: rules.payload().resolution, rows })
        }
    };
    let draft = dunlin_wire::Draft { token, uncertainty: Score::default(), importance: Score::default() };
    let frame = DraftFrame {
        session: 1,
        epoch: 1,
        round: 1,
        send: 1,
        base: 1,
        prefix: PREFIX_EMPTY.short(),
        token_bits: token_bits(size),
        drafts: [draft].into_iter().collect(),
        held: 0,
        bonus: false,
        rows: rows_sent,
        credit: None,
    };
    let asked =
        JudgedFrame { frame: &frame, weights: &weights, vocabulary: size, seed, sampling: sampling() };
    asked.judge(&rows.target, &mut Distribution::certain(0)).unwrap().token
}

#[test]
fn exact_policies_follow_the_targets_rows() {
    let (rows, size) = rows();
    let check = |policy: Policy, rows: &Step| {
        let (p, _) = rows.laws(size);
        let mut counts = BTreeMap::new();
        let mut kept = 0;
        for seed in 0..SEEDS {
            let token = committed(rows, &policy.rules(), size, seed);
            kept += u64::from(token == couple(&p, seed, 1));
            *counts.entry(token).or_insert(0) += 1;
        }
        (excess(&counts, &p), kept)
    };
    std::thread::scope(|scope| {
        for policy in [Policy::Lossless, Policy::LosslessSparse, Policy::Hlm] {
            let (rows, check) = (&rows, &check);
            scope.spawn(move || {
                for (i, row) in rows.iter().enumerate() {
                    let (excess, same) = check(policy, row);
                    assert!(excess < 1.0, "{policy}, row {i}: χ² is {excess} of its limit");
                    assert!(
                        policy != Policy::Lossless || same == SEEDS,
                        "{policy}, row {i}: not the target's own"
                    );
                }
            });
        }
    });
}

#[test]
fn the_drafters_rows_would_be_told_from_the_targets() {
    let (rows, size) = rows();
    let told = rows.iter().filter(|row| {
        let (p, q) = row.laws(size);
        let mut counts = BTreeMap::new();
        (0..SEEDS).for_each(|seed| *counts.entry(couple(&q, seed, 1)).or_insert(0) += 1);
        excess(&counts, &p) > 1.0
    });
    assert_eq!(told.count(), rows.len());
}
