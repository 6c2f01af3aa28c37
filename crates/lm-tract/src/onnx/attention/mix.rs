//! The numbers of an attention over a cache: rotation, scores and weighted sums of one text, head by head.

use super::Attention;

/// Numbers summed side by side, which a processor adds at once.
const LANES: usize = 8;

/// Sizes of one run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// New tokens.
    pub(super) new: usize,
    /// Tokens before them.
    pub(super) past: usize,
    /// Numbers in a head.
    pub(super) size: usize,
}

/// Heads of the new tokens in a tensor whose rows may hold others, too.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows<'a> {
    pub(super) numbers: &'a [f32],
    /// Numbers from one token to the next.
    pub(super) stride: usize,
    /// Numbers before the first head.
    pub(super) skipped: usize,
    /// Numbers in a head.
    pub(super) size: usize,
}

impl<'a> Rows<'a> {
    fn head(self, token: usize, head: usize) -> &'a [f32] {
        &self.numbers[token * self.stride + self.skipped + head * self.size..][..self.size]
    }
}

/// A rotation by the position; numbers of a head behind the rotated ones stay.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rotary<'a> {
    /// [positions × half].
    pub(super) cos: &'a [f32],
    /// [positions × half].
    pub(super) sin: &'a [f32],
    /// Half the rotated numbers of a head.
    pub(super) half: usize,
    /// A pair is two neighbours; else a number and the one `half` behind it.
    pub(super) interleaved: bool,
}

impl Rotary<'_> {
    fn turn(self, head: &mut [f32], position: usize) {
        let angles = position * self.half..(position + 1) * self.half;
        for (pair, (cos, sin)) in self.cos[angles.clone()].iter().zip(&self.sin[angles]).enumerate() {
            let (a, b) = if self.interleaved { (2 * pair, 2 * pair + 1) } else { (pair, pair + self.half) };
            let (x, y) = (head[a], head[b]);
            head[a] = x * cos - y * sin;
            head[b] = y * cos + x * sin;
        }
    }
}

/// Fills `all`, [H × (P+S) × D], with the past, [H × P × D], and the new rows behind it, turned to their positions.
pub(super) fn join(all: &mut [f32], past: &[f32], new: Rows<'_>, rotary: Option<Rotary<'_>>, shape: Shape) {
    let Shape { new: count, past: before, size } = shape;
    for (head, all) in all.chunks_exact_mut(((before + count) * size).max(1)).enumerate() {
        let (old, rows) = all.split_at_mut(before * size);
        old.copy_from_slice(&past[head * before * size..][..before * size]);
        for (token, row) in rows.chunks_exact_mut(size.max(1)).enumerate() {
            row.copy_from_slice(new.head(token, head));
            if let Some(rotary) = rotary {
                rotary.turn(row, before + token);
            }
        }
    }
}

/// Fills `mixed`, [S × heads × D], with the values that each new token attends to. `keys` and `values` are
/// [H × (P+S) × D].
pub(super) fn attend(
    attention: &Attention,
    query: Rows<'_>,
    rotary: Option<Rotary<'_>>,
    (keys, values): (&[f32], &[f32]),
    mixed: &mut [f32],
    shape: Shape,
) {
    let Shape { new, past, size } = shape;
    let (all, group) = ((past + new) * size, attention.heads / attention.kv_heads);
    let scale = attention.scale.unwrap_or(1.0 / (size as f32).sqrt());
    let mut turned = vec![0.0; size];
    let mut weights = Vec::with_capacity(past + new);
    for (index, mixed) in mixed.chunks_exact_mut(size.max(1)).enumerate() {
        let (token, head) = (index / attention.heads, index % attention.heads);
        turned.copy_from_slice(query.head(token, head));
        if let Some(rotary) = rotary {
            rotary.turn(&mut turned, past + token);
        }
        let end = past + token + 1;
        let begin = attention.window.map_or(0, |window| end.saturating_sub(window));
        let seen = head / group * all + begin * size..head / group * all + end * size;
        weights.clear();
        weights.extend(keys[seen.clone()].chunks_exact(size).map(|key| scale * dot(&turned, key)));
        if let Some(cap) = attention.softcap {
            weights.iter_mut().for_each(|score| *score = cap * (*score / cap).tanh());
        }
        normalize(&mut weights);
        for (weight, value) in weights.iter().zip(values[seen].chunks_exact(size)) {
            mixed.iter_mut().zip(value).for_each(|(sum, number)| *sum += weight * number);
        }
    }
}

/// Turns scores into probabilities.
fn normalize(scores: &mut [f32]) {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    scores.iter_mut().for_each(|score| *score = (*score - largest).exp());
    let total: f32 = scores.iter().sum();
    scores.iter_mut().for_each(|score| *score /= total);
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let (whole_a, whole_b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = whole_a.remainder().iter().zip(whole_b.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in whole_a.zip(whole_b) {
        for (lane, (a, b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *lane += a * b;
        }
    }
    lanes.iter().sum::<f32>() + rest
}
