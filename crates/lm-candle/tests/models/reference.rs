//! Compares the target with plain decoders in f64, written from the papers' formulas and sharing no code with it.
//! `make families` compares the same architectures with transformers.

use crate::files::Random;
use crate::tiny::{Opened, Tiny, open};
use candle_core::Device;
use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::Value;
use dunlin_lm::{Extend, Target};

const GEMMAS: [&str; 3] = ["gemma", "gemma2", "gemma3"];

/// Gemma 2's bounds, here so small that they matter.
const SCORE_CAP: f64 = 2.0;
const LOGIT_CAP: f64 = 3.0;

struct Reference<'a> {
    tiny: &'a Tiny,
    model: &'a Opened,
    rope: Rope,
}

/// The angles that are expected of a model with settings of its own for them: per position, for each pair, and the factor
/// of everything that is rotated.
#[derive(Clone, Default)]
struct Rope {
    frequencies: Option<Vec<f64>>,
    magnitude: Option<f64>,
    /// Numbers of a head that are rotated, if not all.
    rotated: Option<usize>,
    base: Option<f64>,
    /// Base of windowed layers, which are then not compressed.
    local_base: Option<f64>,
    /// Growth of queries with each of so many positions.
    temperature: Option<(f64, usize)>,
}

impl Reference<'_> {
    fn tensor(&self, name: &str) -> Vec<f64> {
        self.optional(name).unwrap()
    }

    fn optional(&self, name: &str) -> Option<Vec<f64>> {
        let (_, tensor) = self.model.tensors.iter().find(|(other, _)| other == name)?;
        let flat = tensor.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap();
        Some(flat.to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect())
    }

    fn layer(&self, layer: usize, part: &str) -> Vec<f64> {
        self.tensor(&format!("blk.{layer}.{part}.weight"))
    }

    /// The product of a layer's matrix with each input, with its bias if it has one.
    fn project(&self, layer: usize, part: &str, inputs: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let weights = self.layer(layer, part);
        let bias = self.optional(&format!("blk.{layer}.{part}.bias"));
        let project = |input: &Vec<f64>| {
            let mut row = product(&weights, input);
            for (number, bias) in row.iter_mut().zip(bias.iter().flatten()) {
                *number += bias;
            }
            row
        };
        inputs.iter().map(project).collect()
    }

    fn is(&self, architectures: &[&str]) -> bool {
        architectures.contains(&self.tiny.architecture)
    }

    /// Logits after each token.
    fn logits(&self, tokens: &[u32]) -> Vec<Vec<f64>> {
        let tiny = self.tiny;
        let embedding = self.tensor("token_embd.weight");
        let scale = if self.is(&GEMMAS) { (tiny.hidden as f64).sqrt() } else { 1.0 };
        let row = |token: &u32| {
            let begin = *token as usize * tiny.hidden;
            embedding[begin..begin + tiny.hidden].iter().map(|number| number * scale).collect()
        };
        let mut hidden: Vec<Vec<f64>> = tokens.iter().map(row).collect();
        for layer in 0..tiny.layers {
            self.add(layer, "post_attention_norm", self.attention(layer, &hidden), &mut hidden);
            self.add(layer, "post_ffw_norm", self.mlp(layer, &hidden), &mut hidden);
        }
        let head = if tiny.head_kind.is_some() { self.tensor("output.weight") } else { embedding };
        let norm = self.tensor("output_norm.weight");
        let logits = |x: &Vec<f64>| -> Vec<f64> {
            product(&head, &rms_norm(x, &norm))
                .into_iter()
                .map(|logit| self.capped(logit, LOGIT_CAP))
                .collect()
        };
        hidden.iter().map(logits).collect()
    }

    /// Gemma 2's bound of scores and logits.
    fn capped(&self, number: f64, cap: f64) -> f64 {
        if self.is(&["gemma2"]) { cap * (number / cap).tanh() } else { number }
    }

    fn add(&self, layer: usize, norm: &str, more: Vec<Vec<f64>>, hidden: &mut [Vec<f64>]) {
        for (x, more) in hidden.iter_mut().zip(more) {
            let more =
                if self.tiny.has_post_norms() { rms_norm(&more, &self.layer(layer, norm)) } else { more };
            x.iter_mut().zip(more).for_each(|(x, y)| *x += y);
        }
    }

    fn mlp(&self, layer: usize, hidden: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let norm = self.layer(layer, "ffn_norm");
        let inputs: Vec<Vec<f64>> = hidden.iter().map(|x| rms_norm(x, &norm)).collect();
        let up = self.project(layer, "ffn_up", &inputs);
        let both: Vec<Vec<f64>> = if self.is(&["phi3"]) {
            up.iter().map(|row| self.gated(&row[..self.tiny.inner], &row[self.tiny.inner..])).collect()
        } else {
            let gate = self.project(layer, "ffn_gate", &inputs);
            gate.iter().zip(&up).map(|(gate, up)| self.gated(gate, up)).collect()
        };
        self.project(layer, "ffn_down", &both)
    }

    fn gated(&self, gate: &[f64], up: &[f64]) -> Vec<f64> {
        let silu = |x: f64| x / (1.0 + (-x).exp());
        let gelu = |x: f64| {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
        };
        let is_gemma = self.is(&GEMMAS);
        gate.iter().zip(up).map(|(g, u)| if is_gemma { gelu(*g) } else { silu(*g) } * u).collect()
    }

    /// Queries, keys and values of each position, rotated.
    fn inputs(&self, layer: usize, hidden: &[Vec<f64>]) -> [Vec<Vec<f64>>; 3] {
        let tiny = self.tiny;
        let norm = self.layer(layer, "attn_norm");
        let inputs: Vec<Vec<f64>> = hidden.iter().map(|x| rms_norm(x, &norm)).collect();
        let (queries, kv) = (tiny.heads * tiny.head_dim, tiny.kv_heads * tiny.head_dim);
        let [mut queries, mut keys, values] = if self.is(&["phi3"]) {
            let all = self.project(layer, "attn_qkv", &inputs);
            let part = |from, to| all.iter().map(|row: &Vec<f64>| row[from..to].to_vec()).collect();
            [part(0, queries), part(queries, queries + kv), part(queries + kv, queries + 2 * kv)]
        } else {
            ["attn_q", "attn_k", "attn_v"].map(|part| self.project(layer, part, &inputs))
        };
        for (rows, norm) in [(&mut queries, "attn_q_norm"), (&mut keys, "attn_k_norm")] {
            for (position, row) in rows.iter_mut().enumerate() {
                for head in row.chunks_mut(tiny.head_dim) {
                    if tiny.has_head_norms() {
                        let normed = rms_norm(head, &self.layer(layer, norm));
                        head.copy_from_slice(&normed);
                    }
                    self.rotate(layer, head, position);
                }
            }
        }
        for (position, query) in queries.iter_mut().enumerate() {
            if let Some((growth, step)) = self.rope.temperature {
                let factor = 1.0 + growth * (1.0 + (position / step) as f64).ln();
                query.iter_mut().for_each(|number| *number *= factor);
            }
        }
        [queries, keys, values]
    }

    fn attention(&self, layer: usize, hidden: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let tiny = self.tiny;
        let [queries, keys, values] = self.inputs(layer, hidden);
        let is_wide = self.is(&["gemma2"]) && tiny.layers == 46;
        let width = if is_wide { tiny.hidden / tiny.heads } else { tiny.head_dim } as f64;
        let mut all = Vec::new();
        for (position, row) in queries.iter().enumerate() {
            let mut mixed = vec![0.0; tiny.heads * tiny.head_dim];
            let begin = self.window(layer).map_or(0, |window| (position + 1).saturating_sub(window));
            for head in 0..tiny.heads {
                let kv = head * tiny.kv_heads / tiny.heads;
                let part =
                    |row: &[f64], head: usize| row[head * tiny.head_dim..(head + 1) * tiny.head_dim].to_vec();
                let query = part(row, head);
                let scores: Vec<f64> = (begin..=position)
                    .map(|seen| {
                        let dot: f64 = query.iter().zip(part(&keys[seen], kv)).map(|(q, k)| q * k).sum();
                        self.capped(dot / width.sqrt(), SCORE_CAP).exp()
                    })
                    .collect();
                let sum: f64 = scores.iter().sum();
                for (seen, score) in (begin..).zip(&scores) {
                    for (i, v) in part(&values[seen], kv).into_iter().enumerate() {
                        mixed[head * tiny.head_dim + i] += score / sum * v;
                    }
                }
            }
            all.push(mixed);
        }
        self.project(layer, "attn_output", &all)
    }

    fn window(&self, layer: usize) -> Option<usize> {
        let step = match self.tiny.architecture {
            "gemma2" => Some(2),
            "gemma3" => Some(6),
            _ => None,
        };
        let is_global = self.tiny.window_step.or(step).is_some_and(|step| layer % step == step - 1);
        self.tiny.window.filter(|_| !is_global)
    }

    fn rotate(&self, layer: usize, head: &mut [f64], position: usize) {
        if self.is(&["smollm3"]) && layer % 4 == 3 {
            return;
        }
        let local = self.rope.local_base.filter(|_| self.window(layer).is_some());
        let base = local.or(self.rope.base).unwrap_or(10000.0);
        let rotated = self.rope.rotated.unwrap_or(head.len());
        let pairs = rotated / 2;
        for pair in 0..pairs {
            let mut angle = base.powf(-2.0 * pair as f64 / rotated as f64);
            angle /= f64::from(self.tiny.linear_scale.filter(|_| local.is_none()).unwrap_or(1.0));
            if let Some(factors) = &self.tiny.frequency_factors {
                angle /= f64::from(factors[pair]);
            }
            if let Some(frequencies) = &self.rope.frequencies {
                angle = frequencies[pair];
            }
            let angle = position as f64 * angle;
            let are_neighbours = self.is(&["llama", "mistral3", "smollm3"]);
            let (i, j) = if are_neighbours { (2 * pair, 2 * pair + 1) } else { (pair, pairs + pair) };
            let (a, b) = (head[i], head[j]);
            let magnitude = self.rope.magnitude.unwrap_or(1.0);
            head[i] = magnitude * (a * angle.cos() - b * angle.sin());
            head[j] = magnitude * (a * angle.sin() + b * angle.cos());
        }
    }
}

fn rms_norm(x: &[f64], weight: &[f64]) -> Vec<f64> {
    let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
    x.iter().zip(weight).map(|(x, w)| x / (mean + 1e-5).sqrt() * w).collect()
}

fn product(weights: &[f64], x: &[f64]) -> Vec<f64> {
    weights.chunks(x.len()).map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
}

/// The largest difference, and the spread of the reference's logits.
fn difference(tiny: &Tiny, rope: &Rope) -> (f64, f64) {
    let model = open(tiny);
    let tokens = Random(3).tokens(24, tiny.vocabulary);
    let mut target = model.target();
    let session = target.open().unwrap();
    let batch = [Extend { session, keep: 0, tokens: &tokens, rows: tokens.len() }];
    let found = target.extend(&batch).pop().unwrap().unwrap();
    // The tokenizer has fewer tokens than the model rows: the rest is padding and not given out.
    let width = target.vocabulary().size as usize;
    let expected = Reference { tiny, model: &model, rope: rope.clone() }.logits(&tokens);
    let expected = expected.iter().flat_map(|row| row[..width].to_vec()).collect::<Vec<f64>>();
    assert_eq!(found.len(), expected.len());
    let largest = found.iter().zip(&expected).map(|(f, e)| (f64::from(*f) - e).abs()).fold(0.0, f64::max);
    let spread = (expected.iter().map(|e| e * e).sum::<f64>() / expected.len() as f64).sqrt();
    (largest, spread)
}

/// Asserts that logits are the reference's within `share` of their spread.
fn assert_close(tiny: &Tiny, share: f64) {
    assert_rotated(tiny, &Rope::default(), share);
}

fn assert_rotated(tiny: &Tiny, rope: &Rope, share: f64) {
    let (largest, spread) = difference(tiny, rope);
    assert!(largest < share * spread, "{tiny:?}: {largest} off, spread {spread}");
}

#[test]
fn floats_match() {
    assert_close(&Tiny::new(GgmlDType::F32), 1e-4);
    assert_close(&Tiny::new(GgmlDType::F16), 1e-4);
    assert_close(&Tiny::new(GgmlDType::BF16), 1e-4);
}

#[test]
fn rotary_scaling_matches() {
    let plain = Tiny::new(GgmlDType::F32);
    assert_close(&Tiny { linear_scale: Some(4.0), ..plain.clone() }, 1e-4);
    let factors = (0..32).map(|pair| 1.0 + pair as f32 / 4.0).collect();
    assert_close(&Tiny { frequency_factors: Some(factors), ..plain }, 1e-4);
}

#[test]
fn a_head_of_its_own_and_wide_heads_match() {
    let plain = Tiny::new(GgmlDType::F32);
    assert_close(&Tiny { head_kind: Some(GgmlDType::F32), ..plain.clone() }, 1e-4);
    assert_close(&Tiny { head_dim: 96, heads: 6, kv_heads: 2, ..plain.clone() }, 1e-4);
    assert_close(&Tiny { kv_heads: 4, ..plain }, 1e-4);
}

#[test]
fn biases_match() {
    for architecture in ["llama", "qwen2", "phi3"] {
        assert_close(&Tiny { has_biases: true, ..Tiny::of(architecture) }, 1e-4);
    }
}

#[test]
fn architectures_match() {
    for architecture in
        ["llama", "mistral3", "qwen2", "qwen3", "smollm3", "phi3", "gemma", "gemma2", "gemma3"]
    {
        assert_close(&Tiny::of(architecture), 1e-4);
    }
}

#[test]
fn windows_match() {
    // Every second or sixth layer has none, unless the file has a pattern of its own.
    for window in [1, 9, 23] {
        for architecture in ["gemma2", "gemma3"] {
            assert_close(&Tiny { window: Some(window), ..Tiny::of(architecture) }, 1e-4);
        }
    }
    let (step, flags) = (Value::U32(3), [true, true, false, true, true, false].map(Value::Bool));
    for pattern in [step, Value::Array(flags.into())] {
        let mut tiny = Tiny { window_step: Some(3), ..Tiny::of("gemma2") };
        tiny.metadata.push(tiny.key("attention.sliding_window_pattern", pattern));
        assert_close(&tiny, 1e-4);
    }
    for window in [1, 7, 23, 24] {
        for architecture in ["llama", "qwen2"] {
            assert_close(&Tiny { window: Some(window), ..Tiny::of(architecture) }, 1e-4);
        }
    }
}

/// Frequencies and magnitude are values of transformers' `_compute_yarn_parameters` for a head of 16, base 10000, factor 4,
/// 64 positions.
#[test]
fn yarn_matches() {
    let frequencies = [
        1.0,
        0.23717081546783447,
        0.04999999701976776,
        0.007905694656074047,
        0.0024999999441206455,
        0.0007905694656074047,
        0.0002500000118743628,
        7.905694656074047e-05,
    ];
    let yarn = |architecture, more: &[(&str, Value)]| {
        let tiny = Tiny { head_dim: 16, context: 256, ..Tiny::of(architecture) };
        let mut metadata = vec![
            tiny.key("rope.scaling.type", Value::String("yarn".into())),
            tiny.key("rope.scaling.factor", Value::F32(4.0)),
            tiny.key("rope.scaling.original_context_length", Value::U32(64)),
        ];
        metadata.extend(more.iter().map(|(key, value)| tiny.key(key, value.clone())));
        Tiny { metadata, ..tiny }
    };
    let rope = |magnitude| Rope {
        frequencies: Some(frequencies.into()),
        magnitude: Some(magnitude),
        ..Rope::default()
    };
    assert_rotated(&yarn("llama", &[]), &rope(1.138629436111989), 1e-4);
    assert_rotated(&yarn("qwen2", &[]), &rope(1.138629436111989), 1e-4);
    let given = [("rope.scaling.yarn_attn_factor", Value::F32(1.5))];
    assert_rotated(&yarn("qwen3", &given), &rope(1.5), 1e-4);
    let multiplier = [("rope.scaling.yarn_log_multiplier", Value::F32(1.0))];
    assert_rotated(&yarn("mistral3", &multiplier), &rope(1.0), 1e-4);
}

#[test]
fn factors_of_angles_for_short_texts_match() {
    let factors: Vec<f32> = (0..8).map(|pair| 1.0 + pair as f32 / 8.0).collect();
    let divided = |(pair, factor): (usize, &f32)| 10000f64.powf(-(pair as f64) / 8.0) / f64::from(*factor);
    let frequencies = factors.iter().enumerate().map(divided).collect();
    let tiny = Tiny { long_factors: Some(factors), ..Tiny::of("phi3") };
    let metadata = vec![tiny.key("rope.scaling.attn_factor", Value::F32(1.2))];
    let rope = Rope { frequencies: Some(frequencies), magnitude: Some(f64::from(1.2f32)), ..Rope::default() };
    assert_rotated(&Tiny { metadata, ..tiny }, &rope, 1e-4);
}

/// Phi-4 mini rotates three quarters of each head.
#[test]
fn heads_that_are_rotated_in_part_match() {
    for architecture in ["qwen2", "phi3"] {
        let tiny = Tiny { head_dim: 16, ..Tiny::of(architecture) };
        let metadata = vec![tiny.key("rope.dimension_count", Value::U32(12))];
        let rope = Rope { rotated: Some(12), ..Rope::default() };
        assert_rotated(&Tiny { metadata, ..tiny }, &rope, 1e-4);
    }
}

/// Windowed layers of Gemma 3 have a base of their own and are never compressed, also where the window is longer than
/// the context.
#[test]
fn rotary_positions_of_windowed_layers_match() {
    for window in [9, 1000] {
        let tiny = Tiny { linear_scale: Some(8.0), window: Some(window), ..Tiny::of("gemma3") };
        let metadata = vec![
            tiny.key("rope.freq_base", Value::F32(500_000.0)),
            tiny.key("rope.freq_base_swa", Value::F32(5000.0)),
        ];
        let rope = Rope { base: Some(500_000.0), local_base: Some(5000.0), ..Rope::default() };
        assert_rotated(&Tiny { metadata, ..tiny.clone() }, &rope, 1e-4);
        // The base of a file that names none is 10000.
        let metadata = vec![tiny.key("rope.freq_base", Value::F32(500_000.0))];
        let rope = Rope { local_base: Some(10000.0), ..rope };
        assert_rotated(&Tiny { metadata, ..tiny }, &rope, 1e-4);
    }
}

/// The published model of 46 layers scales scores by its width over its heads, which no key says.
#[test]
fn scores_of_the_largest_gemma_match() {
    assert_close(&Tiny { layers: 46, ..Tiny::of("gemma2") }, 1e-3);
}

#[test]
fn queries_that_grow_with_their_position_match() {
    let tiny = Tiny::of("mistral3");
    let metadata = vec![
        tiny.key("attention.temperature_scale", Value::F32(0.5)),
        tiny.key("rope.scaling.original_context_length", Value::U32(5)),
    ];
    let rope = Rope { temperature: Some((0.5, 5)), ..Rope::default() };
    assert_rotated(&Tiny { metadata, ..tiny }, &rope, 1e-4);
}

/// For these types the engine rounds activations to 8 bits; the reference doesn't.
#[test]
fn quantized_weights_match_within_rounding() {
    let q4k = Tiny { head_kind: Some(GgmlDType::Q6K), ..Tiny::new(GgmlDType::Q4K) };
    assert_close(&q4k, 0.2);
    assert_close(&Tiny::new(GgmlDType::Q8_0), 0.2);
    assert_close(&Tiny::new(GgmlDType::Q4_0), 0.2);
}
