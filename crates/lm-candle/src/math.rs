//! The parts of a Llama between its matrix products, on slices.
//!
//! Invariant: every function handles one position with a fixed order of summation, so that its bits don't depend on the
//! batch.

use dunlin_lm::vector::dot;

/// Adds `scale × b` to `a`.
pub(crate) fn add_scaled(a: &mut [f32], b: &[f32], scale: f32) {
    for (a, b) in a.iter_mut().zip(b) {
        *a += scale * b;
    }
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

/// `gate ← silu(gate) × up`.
pub(crate) fn silu_times(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate *= up / (1.0 + (-*gate).exp());
    }
}

/// Cosines and sines of one position's rotary angles.
pub(crate) struct Rotation {
    angles: Vec<(f32, f32)>,
}

impl Rotation {
    /// The rotation of `position` under `frequencies`.
    pub(crate) fn new(position: usize, frequencies: &[f32]) -> Self {
        let angle = |frequency: &f32| position as f32 * frequency;
        Self { angles: frequencies.iter().map(|f| (angle(f).cos(), angle(f).sin())).collect() }
    }

    /// Rotates the neighbouring pairs at the beginning of each head of `head_dim` in `x`.
    pub(crate) fn apply(&self, x: &mut [f32], head_dim: usize) {
        for head in x.chunks_exact_mut(head_dim) {
            let (pairs, _) = head.as_chunks_mut::<2>();
            for ([a, b], (cos, sin)) in pairs.iter_mut().zip(&self.angles) {
                (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
            }
        }
    }
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

    /// Attention of one position: writes `output` (`query_width`) from its `query` and the `keys` and `values` of all
    /// positions up to it (`[t × kv_width]`). `scores` is scratch memory.
    pub(crate) fn attend(
        &self,
        query: &[f32],
        keys: &[f32],
        values: &[f32],
        scores: &mut Vec<f32>,
        output: &mut [f32],
    ) {
        let seen = keys.len() / self.kv_width();
        let scale = 1.0 / (self.dim as f32).sqrt();
        scores.clear();
        scores.resize(seen * self.query, 0.0);
        for (position, key) in keys.chunks_exact(self.kv_width()).enumerate() {
            for (head, query) in query.chunks_exact(self.dim).enumerate() {
                scores[head * seen + position] = dot(query, self.kv_head(key, head)) * scale;
            }
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
        heads.attend(&[1.0; 8], &[0.5; 4], &[1.0, 2.0, 3.0, 4.0], &mut Vec::new(), &mut output);
        assert_eq!(output, [1.0, 2.0, 1.0, 2.0, 3.0, 4.0, 3.0, 4.0]);
    }

    #[test]
    fn rotation_turns_pairs() {
        let mut x = [1.0, 0.0, 5.0, 6.0];
        Rotation::new(1, &[std::f32::consts::FRAC_PI_2]).apply(&mut x, 4);
        assert!(x[0].abs() < 1e-6 && (x[1] - 1.0).abs() < 1e-6);
        assert_eq!(x[2..], [5.0, 6.0]);
    }
}
