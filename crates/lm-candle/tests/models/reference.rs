//! Compares the target with a plain Llama in f64, written from the paper's formulas and sharing no code with it.

use crate::files::Random;
use crate::tiny::{Opened, Tiny, open};
use candle_core::Device;
use candle_core::quantized::GgmlDType;
use dunlin_lm::{Extend, Target};

struct Reference<'a> {
    tiny: &'a Tiny,
    model: &'a Opened,
}

impl Reference<'_> {
    fn tensor(&self, name: &str) -> Vec<f64> {
        let (_, tensor) = self.model.tensors.iter().find(|(other, _)| other == name).unwrap();
        let flat = tensor.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap();
        flat.to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect()
    }

    fn layer(&self, layer: usize, part: &str) -> Vec<f64> {
        self.tensor(&format!("blk.{layer}.{part}.weight"))
    }

    /// Logits after each token.
    fn logits(&self, tokens: &[u32]) -> Vec<Vec<f64>> {
        let tiny = self.tiny;
        let embedding = self.tensor("token_embd.weight");
        let mut hidden: Vec<Vec<f64>> = tokens
            .iter()
            .map(|token| {
                embedding[*token as usize * tiny.hidden..(*token as usize + 1) * tiny.hidden].to_vec()
            })
            .collect();
        for layer in 0..tiny.layers {
            self.attention(layer, &mut hidden);
            let norm = self.layer(layer, "ffn_norm");
            let (gate, up, down) =
                (self.layer(layer, "ffn_gate"), self.layer(layer, "ffn_up"), self.layer(layer, "ffn_down"));
            for x in &mut hidden {
                let input = rms_norm(x, &norm);
                let (gate, up) = (product(&gate, &input), product(&up, &input));
                let both: Vec<f64> = gate.iter().zip(&up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
                x.iter_mut().zip(product(&down, &both)).for_each(|(x, y)| *x += y);
            }
        }
        let head = if tiny.head_kind.is_some() { self.tensor("output.weight") } else { embedding };
        let norm = self.tensor("output_norm.weight");
        hidden.iter().map(|x| product(&head, &rms_norm(x, &norm))).collect()
    }

    fn attention(&self, layer: usize, hidden: &mut [Vec<f64>]) {
        let tiny = self.tiny;
        let norm = self.layer(layer, "attn_norm");
        let inputs: Vec<Vec<f64>> = hidden.iter().map(|x| rms_norm(x, &norm)).collect();
        let project = |part: &str| -> Vec<Vec<f64>> {
            let weights = self.layer(layer, part);
            inputs.iter().map(|x| product(&weights, x)).collect()
        };
        let (mut queries, mut keys, values) = (project("attn_q"), project("attn_k"), project("attn_v"));
        for rows in [&mut queries, &mut keys] {
            for (position, row) in rows.iter_mut().enumerate() {
                row.chunks_mut(tiny.head_dim).for_each(|head| self.rotate(head, position));
            }
        }
        let output = self.layer(layer, "attn_output");
        for (position, x) in hidden.iter_mut().enumerate() {
            let mut mixed = vec![0.0; tiny.heads * tiny.head_dim];
            for head in 0..tiny.heads {
                let kv = head * tiny.kv_heads / tiny.heads;
                let part =
                    |row: &[f64], head: usize| row[head * tiny.head_dim..(head + 1) * tiny.head_dim].to_vec();
                let query = part(&queries[position], head);
                let scores: Vec<f64> = (0..=position)
                    .map(|seen| {
                        let dot: f64 = query.iter().zip(part(&keys[seen], kv)).map(|(q, k)| q * k).sum();
                        (dot / (tiny.head_dim as f64).sqrt()).exp()
                    })
                    .collect();
                let sum: f64 = scores.iter().sum();
                for (seen, score) in scores.iter().enumerate() {
                    for (i, v) in part(&values[seen], kv).into_iter().enumerate() {
                        mixed[head * tiny.head_dim + i] += score / sum * v;
                    }
                }
            }
            x.iter_mut().zip(product(&output, &mixed)).for_each(|(x, y)| *x += y);
        }
    }

    fn rotate(&self, head: &mut [f64], position: usize) {
        for pair in 0..head.len() / 2 {
            let mut angle = position as f64 / 10000f64.powf(2.0 * pair as f64 / head.len() as f64);
            angle /= f64::from(self.tiny.linear_scale.unwrap_or(1.0));
            if let Some(factors) = &self.tiny.frequency_factors {
                angle /= f64::from(factors[pair]);
            }
            let (a, b) = (head[2 * pair], head[2 * pair + 1]);
            head[2 * pair] = a * angle.cos() - b * angle.sin();
            head[2 * pair + 1] = a * angle.sin() + b * angle.cos();
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
fn difference(tiny: &Tiny) -> (f64, f64) {
    let model = open(tiny);
    let tokens = Random(3).tokens(24, tiny.vocabulary);
    let mut target = model.target();
    let session = target.open().unwrap();
    let batch = [Extend { session, keep: 0, tokens: &tokens, rows: tokens.len() }];
    let found = target.extend(&batch).pop().unwrap().unwrap();
    // The tokenizer has fewer tokens than the model rows: the rest is padding and not given out.
    let width = target.vocabulary().size as usize;
    let expected = Reference { tiny, model: &model }.logits(&tokens);
    let expected = expected.iter().flat_map(|row| row[..width].to_vec()).collect::<Vec<f64>>();
    assert_eq!(found.len(), expected.len());
    let largest = found.iter().zip(&expected).map(|(f, e)| (f64::from(*f) - e).abs()).fold(0.0, f64::max);
    let spread = (expected.iter().map(|e| e * e).sum::<f64>() / expected.len() as f64).sqrt();
    (largest, spread)
}

/// Asserts that logits are the reference's within `share` of their spread.
fn assert_close(tiny: &Tiny, share: f64) {
    let (largest, spread) = difference(tiny);
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

/// For these types the engine rounds activations to 8 bits; the reference doesn't.
#[test]
fn quantized_weights_match_within_rounding() {
    let q4k = Tiny { head_kind: Some(GgmlDType::Q6K), ..Tiny::new(GgmlDType::Q4K) };
    assert_close(&q4k, 0.2);
    assert_close(&Tiny::new(GgmlDType::Q8_0), 0.2);
    assert_close(&Tiny::new(GgmlDType::Q4_0), 0.2);
}
