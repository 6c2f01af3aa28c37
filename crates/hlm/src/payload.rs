//! Payloads: the part of a judged token's distribution that is sent, and how the verifier reads it.
//!
//! Invariant: both ends turn the payload into a distribution with [`read`]. The device draws the token from that
//! distribution, so rejection sampling against it is exact. The one exception is [`PayloadForm::TopK`], whose token
//! is drawn from the drafter's full distribution.

use crate::TokenId;
use crate::policy::{Payload, PayloadForm};
use crate::probabilities::{Candidate, Distribution};
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Ordering;
use dunlin_wire::{Entry, Row};

/// The largest weight: that of the most probable token where weights are relative, else that of probability 1.
const WEIGHT_MAX: f64 = 255.0;

/// The payload of one distribution.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sent {
    /// Nothing.
    #[default]
    Nothing,
    /// One weight per vocabulary entry.
    Weights(Vec<u8>),
    /// Some tokens, ascending, with their weights.
    Entries(Vec<Entry>),
}

/// The payload of `q`, for a vocabulary of `size` tokens.
pub fn quantise(q: &Distribution, payload: Payload, size: u32) -> Sent {
    let highest = q.support().iter().map(|c| c.probability).fold(0.0, f64::max);
    let entries = usize::from(payload.entries);
    match payload.form {
        PayloadForm::Ids => Sent::Nothing,
        PayloadForm::Full => {
            let mut weights = vec![0; size as usize];
            for candidate in q.support() {
                weights[candidate.token as usize] = rounded(WEIGHT_MAX * candidate.probability / highest);
            }
            Sent::Weights(weights)
        }
        PayloadForm::TopK => Sent::Entries(weighed(&top(q, entries), |p| rounded(WEIGHT_MAX * p))),
        PayloadForm::TopKSampled => {
            Sent::Entries(weighed(&top(q, entries), |p| rounded(WEIGHT_MAX * p / highest)))
        }
        PayloadForm::Lattice => Sent::Entries(lattice(&top(q, entries), payload.resolution)),
    }
}

/// The distribution that a payload describes, over a vocabulary of `size` tokens; `None` if it has no mass.
pub fn read(sent: &Sent, form: PayloadForm, size: u32) -> Option<Distribution> {
    match sent {
        Sent::Nothing => None,
        Sent::Weights(weights) => {
            Distribution::from_weights((0..).zip(weights.iter().map(|&w| f64::from(w))))
        }
        Sent::Entries(entries) if form == PayloadForm::TopK => with_even_tail(entries, size),
        Sent::Entries(entries) => {
            Distribution::from_weights(entries.iter().map(|entry| (entry.token, f64::from(entry.weight))))
        }
    }
}

/// The distribution a token is drawn from and the one the verifier judges by, for a drafter's distribution `q`.
pub fn laws(q: Distribution, payload: Payload, size: u32) -> (Distribution, Distribution) {
    match read(&quantise(&q, payload, size), payload.form, size) {
        None => (q.clone(), q),
        Some(sent) if payload.form.is_drawn_from() => (sent.clone(), sent),
        Some(sent) => (q, sent),
    }
}

/// The payload in a frame's row.
pub fn from_row(row: &Row) -> Sent {
    Sent::Entries(row.entries.to_vec())
}

/// The `count` most probable tokens, ascending by id; ties go to the lower id.
fn top(q: &Distribution, count: usize) -> Vec<Candidate> {
    let mut support = q.support().to_vec();
    if count < support.len() {
        let by_rank = |a: &Candidate, b: &Candidate| match b.probability.total_cmp(&a.probability) {
            Ordering::Equal => a.token.cmp(&b.token),
            order => order,
        };
        support.select_nth_unstable_by(count, by_rank);
        support.truncate(count);
        support.sort_unstable_by_key(|c| c.token);
    }
    support
}

/// The tokens whose weight is above 0; if there are none, the most probable one with weight 1.
fn weighed(top: &[Candidate], weight: impl Fn(f64) -> u8) -> Vec<Entry> {
    let entry = |c: &Candidate| Entry { token: c.token, weight: weight(c.probability) };
    let entries: Vec<Entry> = top.iter().map(entry).filter(|entry| entry.weight > 0).collect();
    if !entries.is_empty() {
        return entries;
    }
    let best = top.iter().reduce(|best, c| if c.probability > best.probability { c } else { best });
    best.map(|c| Entry { token: c.token, weight: 1 }).into_iter().collect()
}

/// The nearest integer weights with the sum `resolution`: rounded, then corrected by ±1 where the rounding error is
/// largest (2507.00605).
fn lattice(top: &[Candidate], resolution: u8) -> Vec<Entry> {
    let total: f64 = top.iter().map(|c| c.probability).sum();
    let wanted: Vec<f64> = top.iter().map(|c| f64::from(resolution) * c.probability / total).collect();
    let mut weights: Vec<i32> = wanted.iter().map(|w| libm::round(*w) as i32).collect();
    let mut excess = weights.iter().sum::<i32>() - i32::from(resolution);
    while excess != 0 {
        let step = excess.signum();
        let off = |i: usize| f64::from(step) * (f64::from(weights[i]) - wanted[i]);
        let candidates = (0..weights.len()).filter(|&i| weights[i] >= step);
        let Some(worst) = candidates.reduce(|a, b| if off(b) > off(a) { b } else { a }) else { break };
        weights[worst] -= step;
        excess -= step;
    }
    let entry = |(c, weight): (&Candidate, i32)| Entry { token: c.token, weight: weight as u8 };
    top.iter().zip(weights).filter(|(_, weight)| *weight > 0).map(entry).collect()
}

/// The distribution of top-k entries with probabilities in 255ths; the rest is spread evenly over all other tokens
/// (CU-HLM, 2505.11788).
fn with_even_tail(entries: &[Entry], size: u32) -> Option<Distribution> {
    let sum: f64 = entries.iter().map(|entry| f64::from(entry.weight)).sum();
    let others = f64::from(size) - entries.len() as f64;
    let tail = if others > 0.0 { (WEIGHT_MAX - sum).max(0.0) / others } else { 0.0 };
    let mut listed = entries.iter().peekable();
    Distribution::from_weights((0..size).map(|token: TokenId| {
        match listed.next_if(|entry| entry.token == token) {
            Some(entry) => (token, f64::from(entry.weight)),
            None => (token, tail),
        }
    }))
}

fn rounded(weight: f64) -> u8 {
    libm::round(weight).clamp(0.0, WEIGHT_MAX) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probabilities::{Sampling, total_variation};

    const SIZE: u32 = 40;

    fn q(sharpness: f32) -> Distribution {
        let row: Vec<f32> = (0..SIZE).map(|t| sharpness * (t * 7 % SIZE) as f32 / SIZE as f32).collect();
        Distribution::from_logits(&row, &Sampling::new(1.0, 1.0, 0).unwrap()).unwrap()
    }

    fn payload(form: PayloadForm, entries: u8) -> Payload {
        Payload { entries, ..Payload::of(form) }
    }

    fn entries(sent: &Sent) -> Vec<(TokenId, u8)> {
        let Sent::Entries(entries) = sent else { panic!("{sent:?}") };
        entries.iter().map(|entry| (entry.token, entry.weight)).collect()
    }

    fn of(weights: &[f64]) -> Distribution {
        Distribution::from_weights((0..).zip(weights.iter().copied())).unwrap()
    }

    #[test]
    fn weights_by_hand() {
        let q = of(&[0.5, 0.3, 0.15, 0.05]);
        assert_eq!(quantise(&q, payload(PayloadForm::Full, 1), 5), Sent::Weights(vec![255, 153, 77, 26, 0]));
        let top_k = quantise(&q, payload(PayloadForm::TopK, 3), 5);
        assert_eq!(entries(&top_k), [(0, 128), (1, 77), (2, 38)]);
        let sampled = quantise(&q, payload(PayloadForm::TopKSampled, 3), 5);
        assert_eq!(entries(&sampled), [(0, 255), (1, 153), (2, 77)]);
        let lattice = quantise(&q, Payload { resolution: 10, ..payload(PayloadForm::Lattice, 3) }, 5);
        assert_eq!(entries(&lattice), [(0, 5), (1, 3), (2, 2)]);
        assert_eq!(quantise(&q, Payload::IDS, 5), Sent::Nothing);
    }

    #[test]
    fn an_even_tail_takes_what_is_left() {
        let sent = Sent::Entries(vec![Entry { token: 1, weight: 155 }, Entry { token: 3, weight: 50 }]);
        let read = read(&sent, PayloadForm::TopK, 7).unwrap();
        assert!((read.probability(1) - 155.0 / 255.0).abs() < 1e-12);
        assert!((read.probability(6) - 10.0 / 255.0).abs() < 1e-12);
        let over = Sent::Entries(vec![Entry { token: 0, weight: 200 }, Entry { token: 1, weight: 200 }]);
        let read = super::read(&over, PayloadForm::TopK, 7).unwrap();
        assert_eq!((read.probability(0), read.probability(5)), (0.5, 0.0));
        let all = Sent::Entries((0..2).map(|token| Entry { token, weight: 100 }).collect());
        assert_eq!(super::read(&all, PayloadForm::TopK, 2).unwrap().probability(1), 0.5);
    }

    #[test]
    fn a_row_too_flat_for_eight_bits_keeps_its_best() {
        let flat = Distribution::from_logits(&vec![0.0; 4096], &Sampling::new(1.0, 1.0, 0).unwrap()).unwrap();
        assert_eq!(entries(&quantise(&flat, payload(PayloadForm::TopK, 30), 4096)), [(0, 1)]);
        let sampled = entries(&quantise(&flat, payload(PayloadForm::TopKSampled, 3), 4096));
        assert_eq!(sampled, [(0, 255), (1, 255), (2, 255)], "ties go to the lower id");
    }

    #[test]
    fn a_lattice_sums_to_its_resolution_and_is_the_nearest() {
        for resolution in [1, 2, 7, 100, 255] {
            for sharpness in [0.0, 0.5, 3.0, 12.0, 60.0] {
                let payload = Payload { resolution, ..payload(PayloadForm::Lattice, 30) };
                let weights = entries(&quantise(&q(sharpness), payload, SIZE));
                let sum: u32 = weights.iter().map(|&(_, weight)| u32::from(weight)).sum();
                assert_eq!(sum, u32::from(resolution), "{sharpness}");
                let kept = top(&q(sharpness), 30);
                let total: f64 = kept.iter().map(|c| c.probability).sum();
                let far = kept.iter().map(|c| {
                    let weight = weights.iter().find(|w| w.0 == c.token).map_or(0, |w| w.1);
                    (f64::from(weight) - f64::from(resolution) * c.probability / total).abs()
                });
                assert!(far.fold(0.0, f64::max) <= 1.0, "{resolution} {sharpness}");
            }
        }
    }

    #[test]
    fn finer_payloads_are_nearer() {
        let q = q(8.0);
        let distance = |payload: Payload| {
            total_variation(&q, &read(&quantise(&q, payload, SIZE), payload.form, SIZE).unwrap())
        };
        assert!(distance(payload(PayloadForm::Full, 1)) < 0.01);
        assert!(
            distance(payload(PayloadForm::TopKSampled, 30)) < distance(payload(PayloadForm::TopKSampled, 5))
        );
        assert!(distance(payload(PayloadForm::TopK, 30)) < distance(payload(PayloadForm::TopK, 5)));
        let lattice = |resolution| Payload { resolution, ..payload(PayloadForm::Lattice, 30) };
        assert!(distance(lattice(255)) < distance(lattice(10)));
    }

    #[test]
    fn nothing_or_no_mass_is_no_distribution() {
        assert_eq!(read(&Sent::Nothing, PayloadForm::Ids, SIZE), None);
        assert_eq!(read(&Sent::Weights(vec![0; 4]), PayloadForm::Full, 4), None);
        assert_eq!(read(&Sent::Entries(Vec::new()), PayloadForm::Lattice, 4), None);
    }
}
