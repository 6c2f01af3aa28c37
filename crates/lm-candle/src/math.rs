//! The parts of a decoder between its matrix products, on slices.
//!
//! Invariant: every function handles one position with a fixed order of summation, so that its bits don't depend on the
//! batch.

use dunlin_lm::vector::dot;

/// Adds `b` to `a`.
pub(crate) fn add(a: &mut [f32], b: &[f32]) {
    for (a, b) in a.iter_mut().zip(b) {
        *a += b;
    }
}

/// Adds `scale × b` to `a`.
pub(crate) fn add_scaled(a: &mut [f32], b: &[f32], scale: f32) {
    for (a, b) in a.iter_mut().zip(b) {
        *a += scale * b;
    }
}

/// Multiplies each of `numbers` by `factor`.
pub(crate) fn scale(numbers: &mut [f32], factor: f32) {
    numbers.iter_mut().for_each(|number| *number *= factor);
}

/// Root-mean-square norm of each row of `x`, `[n × weight.len()]`.
pub(crate) fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32) -> Vec<f32> {
    let mut normed = Vec::with_capacity(x.len());
    for row in x.chunks_exact(weight.len()) {
        let mean = dot(row, row) / weight.len() as f32;
        let scale = 1.0 / (mean + epsilon).sqrt();
        normed.extend(row.iter().zip(weight).map(|(x, w)| x * scale * w));
    }
    normed
}

/// The function of a gated MLP's gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    Silu,
    /// GELU by its approximation with tanh.
    Gelu,
}

impl Activation {
    /// `gate ← activation(gate) × up`.
    pub(crate) fn gate(self, gate: &mut [f32], up: &[f32]) {
        match self {
            Self::Silu => {
                for (gate, up) in gate.iter_mut().zip(up) {
                    *gate *= up / (1.0 + (-*gate).exp());
                }
            }
            Self::Gelu => {
                for (gate, up) in gate.iter_mut().zip(up) {
                    *gate = gelu(*gate) * up;
                }
            }
        }
    }
}

fn gelu(x: f32) -> f32 {
    const ROOT_OF_2_OVER_PI: f32 = 0.797_884_6;
    0.5 * x * (1.0 + (ROOT_OF_2_OVER_PI * (x + 0.044715 * x * x * x)).tanh())
}

/// Moves numbers smoothly into `-cap..cap`.
pub(crate) fn soft_cap(numbers: &mut [f32], cap: f32) {
    for number in numbers {
        *number = cap * (*number / cap).tanh();
    }
}

/// The numbers of a head that rotary positions rotate together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pairs {
    /// 0 and 1, 2 and 3: the order of llama.cpp's files of the Llama family.
    Neighbours,
    /// The first of either half, the second of either half: GPT-NeoX's order.
    Halves,
}

/// Cosines and sines of one position's rotary angles.
pub(crate) struct Rotation {
    pairs: Pairs,
    angles: Vec<(f32, f32)>,
}

impl Rotation {
    /// The rotation of `position` under `frequencies`, which also multiplies by `magnitude`.
    pub(crate) fn new(position: usize, frequencies: &[f32], magnitude: f32, pairs: Pairs) -> Self {
        let angle = |frequency: &f32| position as f32 * frequency;
        let turn = |f: &f32| (angle(f).cos() * magnitude, angle(f).sin() * magnitude);
        Self { pairs, angles: frequencies.iter().map(turn).collect() }
    }

    /// Rotates the pairs at the beginning of each head of `head_dim` in `x`.
    pub(crate) fn apply(&self, x: &mut [f32], head_dim: usize) {
        let turn = |a: &mut f32, b: &mut f32, (cos, sin): &(f32, f32)| {
            (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
        };
        for head in x.chunks_exact_mut(head_dim) {
            match self.pairs {
                Pairs::Neighbours => {
                    let (pairs, _) = head.as_chunks_mut::<2>();
                    for ([a, b], angle) in pairs.iter_mut().zip(&self.angles) {
                        turn(a, b, angle);
                    }
                }
                Pairs::Halves => {
                    let (first, rest) = head.split_at_mut(self.angles.len());
                    for ((a, b), angle) in first.iter_mut().zip(rest).zip(&self.angles) {
                        turn(a, b, angle);
                    }
                }
            }
        }
    }
}

/// From the product of a query and a key to their score, before the softmax.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scoring {
    /// Factor of the product.
    pub(crate) scale: f32,
    /// Bound that scores approach smoothly, if there is one.
    pub(crate) cap: Option<f32>,
}

/// Shape of grouped-query attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heads {
    pub(crate) query: usize,
    pub(crate) kv: usize,
    pub(crate) dim: usize,
}

impl Heads {
    /// Numbers in one position's keys; its values have as many.
    pub(crate) fn kv_width(&self) -> usize {
        self.kv * self.dim
    }

    /// Numbers in one position's queries.
    pub(crate) fn query_width(&self) -> usize {
        self.query * self.dim
    }

    /// Attention of one position: writes `output` (`query_width`) from its `query` and the `keys` and `values` of the
    /// positions that it sees (`[t × kv_width]`). `scores` is scratch memory.
    pub(crate) fn attend(
        &self,
        scoring: Scoring,
        query: &[f32],
        keys: &[f32],
        values: &[f32],
        scores: &mut Vec<f32>,
        output: &mut [f32],
    ) {
        let seen = keys.len() / self.kv_width();
        scores.clear();
        scores.resize(seen * self.query, 0.0);
        for (position, key) in keys.chunks_exact(self.kv_width()).enumerate() {
            for (head, query) in query.chunks_exact(self.dim).enumerate() {
                scores[head * seen + position] = dot(query, self.kv_head(key, head)) * scoring.scale;
            }
        }
        if let Some(cap) = scoring.cap {
            soft_cap(scores, cap);
        }
        scores.chunks_exact_mut(seen).for_each(softmax);
        output.fill(0.0);
        for (position, value) in values.chunks_exact(self.kv_width()).enumerate() {
            for (head, output) in output.chunks_exact_mut(self.dim).enumerate() {
                add_scaled(output, self.kv_head(value, head), scores[head * seen + position]);
            }
        }
    }

    /// The part of a position's keys or values that query head `head` uses.
    fn kv_head<'a>(&self, row: &'a [f32], head: usize) -> &'a [f32] {
        let start = head / (self.query / self.kv) * self.dim;
        &row[start..start + self.dim]
    }
}

fn softmax(scores: &mut [f32]) {
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = (*score - max).exp();
        sum += *score;
    }
    for score in scores {
        *score /= sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attention_of_one_position_is_its_value() {
        let heads = Heads { query: 4, kv: 2, dim: 2 };
        let mut output = [9.0; 8];
        let scoring = Scoring { scale: 0.7, cap: None };
        heads.attend(scoring, &[1.0; 8], &[0.5; 4], &[1.0, 2.0, 3.0, 4.0], &mut Vec::new(), &mut output);
        assert_eq!(output, [1.0, 2.0, 1.0, 2.0, 3.0, 4.0, 3.0, 4.0]);
    }

    #[test]
    fn rotation_turns_pairs() {
        let quarter = [std::f32::consts::FRAC_PI_2];
        let mut x = [1.0, 0.0, 5.0, 6.0];
        Rotation::new(1, &quarter, 1.0, Pairs::Neighbours).apply(&mut x, 4);
        assert!(x[0].abs() < 1e-6 && (x[1] - 1.0).abs() < 1e-6);
        assert_eq!(x[2..], [5.0, 6.0]);
        // Two angles rotate the first four numbers of a head of five.
        let mut x = [1.0, 2.0, 0.0, 0.0, 5.0];
        Rotation::new(1, &[quarter[0], 0.0], 3.0, Pairs::Halves).apply(&mut x, 5);
        assert!(x[0].abs() < 1e-6 && (x[2] - 3.0).abs() < 1e-6);
        assert_eq!([x[1], x[3], x[4]], [6.0, 0.0, 5.0]);
    }

    /// Values of torch's `gelu(x, approximate="tanh")`.
    #[test]
    fn gelu_is_that_of_tanh() {
        for (x, expected) in [(-2.0, -0.045_402_3), (-0.5, -0.154_286), (0.0, 0.0), (1.0, 0.841_192)] {
            assert!((gelu(x) - expected).abs() < 1e-6, "{x}");
        }
    }

    #[test]
    fn a_soft_cap_bounds_and_keeps_small_numbers() {
        let mut numbers = [1e-3, -1000.0, 1000.0];
        soft_cap(&mut numbers, 30.0);
        assert!((numbers[0] - 1e-3).abs() < 1e-6);
        assert_eq!(numbers[1..], [-30.0, 30.0]);
    }
}
