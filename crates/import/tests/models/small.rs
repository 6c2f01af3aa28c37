//! Small decoders with weights that 4 bits hold exactly, written as GGUF files and safetensors folders, and a plain
//! forward pass in f64 that shares no code with the crate.

use crate::build::File;
use crate::files::{Random, fixture};
use dunlin_import::{HeadBits, Import, ImportReport, LayerChoice, Watch, import};
use dunlin_lm::{Draft, Error, ModelDir, Role};
use dunlin_lm_tract::Drafter;
use half::{bf16, f16};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A tensor in Hugging Face's order: name, shape, numbers.
pub(crate) type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Shape and settings of a small decoder.
#[derive(Clone)]
pub(crate) struct Small {
    pub(crate) architecture: &'static str,
    pub(crate) layers: usize,
    pub(crate) hidden: usize,
    pub(crate) inner: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) vocabulary: usize,
    pub(crate) is_tied: bool,
    pub(crate) has_bias: bool,
    pub(crate) base: f64,
    pub(crate) factor: f64,
    /// Divisors of the angles.
    pub(crate) divisors: Option<Vec<f32>>,
    /// A factor of the head: with a larger one, its rounding changes choices more.
    pub(crate) head_scale: f32,
    /// Weights that 4 bits hold exactly, or any.
    pub(crate) is_exact: bool,
}

pub(crate) const EPSILON: f64 = 1e-5;
/// The chat template of the written GGUF files.
pub(crate) const TEMPLATE: &str =
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}";

impl Small {
    /// Two layers, 256 wide, 4 query heads over 2 key heads of a size of their own.
    pub(crate) fn new(architecture: &'static str) -> Self {
        Self {
            architecture,
            layers: 2,
            hidden: 256,
            inner: 512,
            heads: 4,
            kv_heads: 2,
            head_dim: 128,
            vocabulary: 288,
            is_tied: false,
            has_bias: architecture == "qwen2",
            base: 10000.0,
            factor: 1.0,
            divisors: None,
            head_scale: 1.0,
            is_exact: true,
        }
    }

    /// The same with Llama 3's rule of positions, from its published formula: few turns in 32 positions are slowed
    /// down by 8.
    pub(crate) fn with_llama3(&self) -> Self {
        let divisor = |pair: usize| {
            let turns = 32.0 * self.base.powf(-2.0 * pair as f64 / 128.0) / std::f64::consts::TAU;
            let smooth = (turns - 1.0) / 3.0;
            (1.0 / ((1.0 - smooth) / 8.0 + smooth).clamp(1.0 / 8.0, 1.0)) as f32
        };
        Self { divisors: Some((0..64).map(divisor).collect()), ..self.clone() }
    }

    fn has_head_norms(&self) -> bool {
        self.architecture == "qwen3"
    }

    /// The tensors, in Hugging Face's order of rows.
    pub(crate) fn tensors(&self) -> Tensors {
        let (queries, keys) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let (hidden, inner) = (self.hidden, self.inner);
        let mut shapes = vec![
            ("model.embed_tokens.weight".to_string(), vec![self.vocabulary, hidden]),
            ("model.norm.weight".into(), vec![hidden]),
        ];
        if !self.is_tied {
            shapes.push(("lm_head.weight".into(), vec![self.vocabulary, hidden]));
        }
        for layer in 0..self.layers {
            let mut of =
                |name: &str, shape: Vec<usize>| shapes.push((format!("model.layers.{layer}.{name}"), shape));
            of("input_layernorm.weight", vec![hidden]);
            of("post_attention_layernorm.weight", vec![hidden]);
            of("self_attn.q_proj.weight", vec![queries, hidden]);
            of("self_attn.k_proj.weight", vec![keys, hidden]);
            of("self_attn.v_proj.weight", vec![keys, hidden]);
            of("self_attn.o_proj.weight", vec![hidden, queries]);
            of("mlp.gate_proj.weight", vec![inner, hidden]);
            of("mlp.up_proj.weight", vec![inner, hidden]);
            of("mlp.down_proj.weight", vec![hidden, inner]);
            if self.has_bias {
                of("self_attn.q_proj.bias", vec![queries]);
                of("self_attn.k_proj.bias", vec![keys]);
                of("self_attn.v_proj.bias", vec![keys]);
            }
            if self.has_head_norms() {
                of("self_attn.q_norm.weight", vec![self.head_dim]);
                of("self_attn.k_norm.weight", vec![self.head_dim]);
            }
        }
        let random = &mut Random(5);
        let mut tensors: Tensors = shapes
            .into_iter()
            .map(|(name, shape)| (name, (shape.clone(), self.numbers(random, &shape))))
            .collect();
        if let Some((_, head)) = tensors.get_mut("lm_head.weight") {
            head.iter_mut().for_each(|number| *number *= self.head_scale);
        }
        tensors
    }

    fn numbers(&self, random: &mut Random, shape: &[usize]) -> Vec<f32> {
        let count: usize = shape.iter().product();
        if let [_] = shape {
            // Few bits, so that bf16 holds them.
            return (0..count).map(|_| 0.5 + random.below(16) as f32 / 16.0).collect();
        }
        let scale = 2.0 / (shape[1] as f32).sqrt();
        if !self.is_exact {
            return (0..count).map(|_| scale * random.number()).collect();
        }
        let mut numbers = Vec::with_capacity(count);
        for _ in 0..shape[0] {
            for block in (0..shape[1]).step_by(32) {
                // A power of two times 1 to 7: what Q4_K's two levels of scales hold.
                let step = (scale / 32.0).log2().floor().exp2() * (1 + random.below(7)) as f32;
                let length = 32.min(shape[1] - block);
                let lowest = random.below(length);
                numbers.extend(
                    (0..length)
                        .map(|i| step * if i == lowest { -8.0 } else { random.below(16) as f32 - 8.0 }),
                );
            }
        }
        numbers
    }

    /// The bytes of a GGUF file whose matrices have the type `kind`.
    pub(crate) fn gguf(&self, kind: &str) -> Vec<u8> {
        self.gguf_file(kind, |file| file)
    }

    /// The same with a change of the file.
    pub(crate) fn gguf_file(&self, kind: &str, change: impl Fn(File) -> File) -> Vec<u8> {
        let mut file = change(vocabulary(self.keys(), self.vocabulary));
        for (name, (shape, numbers)) in self.tensors() {
            let numbers = self.permuted(&name, numbers, *shape.last().unwrap());
            let name = gguf_name(&name);
            let dims: Vec<u64> = shape.iter().rev().map(|size| *size as u64).collect();
            let (number, bytes) =
                if shape.len() == 1 { encoded("F32", &numbers) } else { encoded(kind, &numbers) };
            file = file.tensor(&name, &dims, number, &bytes);
        }
        if let Some(divisors) = &self.divisors {
            file = file.tensor("rope_freqs.weight", &[divisors.len() as u64], 0, &encoded("F32", divisors).1);
        }
        file.bytes().0
    }

    fn keys(&self) -> File {
        let key = |rest: &str| format!("{}.{rest}", self.architecture);
        let number = |file: File, rest: &str, n: usize| file.key(&key(rest), 4, &(n as u32).to_le_bytes());
        let float = |file: File, rest: &str, n: f64| file.key(&key(rest), 6, &(n as f32).to_le_bytes());
        let mut file = File::new().text("general.architecture", self.architecture);
        for (rest, n) in [
            ("block_count", self.layers),
            ("embedding_length", self.hidden),
            ("feed_forward_length", self.inner),
            ("attention.head_count", self.heads),
            ("attention.head_count_kv", self.kv_heads),
            ("attention.key_length", self.head_dim),
            ("context_length", 64),
        ] {
            file = number(file, rest, n);
        }
        file = float(file, "attention.layer_norm_rms_epsilon", EPSILON);
        file = float(file, "rope.freq_base", self.base);
        if self.factor != 1.0 {
            file = file.text(&key("rope.scaling.type"), "linear");
            file = float(file, "rope.scaling.factor", self.factor);
        }
        file
    }

    /// The rows of queries and keys in the order of llama.cpp's converter.
    fn permuted(&self, name: &str, numbers: Vec<f32>, columns: usize) -> Vec<f32> {
        let is_turned = name.contains("q_proj") || name.contains("k_proj");
        if self.architecture != "llama" || !is_turned {
            return numbers;
        }
        let columns = if name.ends_with("bias") { 1 } else { columns };
        let (half, mut out) = (self.head_dim / 2, Vec::with_capacity(numbers.len()));
        for head in numbers.chunks(self.head_dim * columns) {
            for row in 0..self.head_dim {
                let from = (row % 2) * half + row / 2;
                out.extend(&head[from * columns..(from + 1) * columns]);
            }
        }
        out
    }

    /// Writes a Hugging Face folder whose tensors have the type `kind`, in so many files.
    pub(crate) fn safetensors(&self, folder: &Path, kind: &str, files: usize) {
        let mut parts: Vec<Tensors> = vec![Tensors::new(); files];
        let mut index = serde_json::Map::new();
        for (place, (name, tensor)) in self.tensors().into_iter().enumerate() {
            index.insert(name.clone(), format!("part-{}.safetensors", place % files).into());
            parts[place % files].insert(name, tensor);
        }
        for (place, part) in parts.iter().enumerate() {
            let name =
                if files == 1 { "model.safetensors".into() } else { format!("part-{place}.safetensors") };
            fs::write(folder.join(name), safetensors(part, kind)).unwrap();
        }
        if files > 1 {
            let index = serde_json::json!({"weight_map": index});
            fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
        }
        fs::copy(fixture("hf-llama/tokenizer.json"), folder.join("tokenizer.json")).unwrap();
        fs::write(folder.join("config.json"), self.config().to_string()).unwrap();
    }

    pub(crate) fn config(&self) -> serde_json::Value {
        let scaling = match &self.divisors {
            Some(_) => serde_json::json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 32}),
            None if self.factor != 1.0 => serde_json::json!({"type": "linear", "factor": self.factor}),
            None => serde_json::Value::Null,
        };
        serde_json::json!({
            "model_type": self.architecture, "vocab_size": self.vocabulary, "hidden_size": self.hidden,
            "intermediate_size": self.inner, "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads, "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim, "max_position_embeddings": 64, "rms_norm_eps": EPSILON,
            "rope_theta": self.base, "rope_scaling": scaling, "hidden_act": "silu",
            "tie_word_embeddings": self.is_tied, "bos_token_id": 1, "eos_token_id": 2,
        })
    }

    /// Logits and the last layer's mean attention after each token.
    pub(crate) fn reference(
        &self,
        tensors: &Tensors,
        tokens: &[u32],
        layers: &[usize],
    ) -> Vec<(Vec<f64>, Vec<f64>)> {
        let of = |name: &str| tensors[name].1.as_slice();
        let embedding = of("model.embed_tokens.weight");
        let row = |token: &u32| {
            embedding[*token as usize * self.hidden..][..self.hidden].iter().map(|x| f64::from(*x)).collect()
        };
        let mut hidden: Vec<Vec<f64>> = tokens.iter().map(row).collect();
        let mut seen = Vec::new();
        for layer in layers {
            seen = self.attention(tensors, *layer, &mut hidden);
            let of = |name: &str| of(&format!("model.layers.{layer}.{name}.weight"));
            for x in &mut hidden {
                let input = rms_norm(x, of("post_attention_layernorm"));
                let (gate, up) = (product(of("mlp.gate_proj"), &input), product(of("mlp.up_proj"), &input));
                let both: Vec<f64> = gate.iter().zip(&up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
                x.iter_mut().zip(product(of("mlp.down_proj"), &both)).for_each(|(x, y)| *x += y);
            }
        }
        let head = if self.is_tied { embedding } else { of("lm_head.weight") };
        let logits = |x: &Vec<f64>| product(head, &rms_norm(x, of("model.norm.weight")));
        hidden.iter().map(logits).zip(seen).collect()
    }

    fn attention(&self, tensors: &Tensors, layer: usize, hidden: &mut [Vec<f64>]) -> Vec<Vec<f64>> {
        let name = |rest: &str| format!("model.layers.{layer}.{rest}");
        let of = |rest: &str| tensors[&name(rest)].1.as_slice();
        let optional = |rest: &str| tensors.get(&name(rest)).map(|tensor| tensor.1.as_slice());
        let dim = self.head_dim;
        let inputs: Vec<Vec<f64>> =
            hidden.iter().map(|x| rms_norm(x, of("input_layernorm.weight"))).collect();
        let project = |part: &str, norm: &str, rotated: bool| -> Vec<Vec<f64>> {
            let rows = inputs.iter().enumerate().map(|(position, x)| {
                let mut row = product(of(&format!("self_attn.{part}_proj.weight")), x);
                if let Some(bias) = optional(&format!("self_attn.{part}_proj.bias")) {
                    row.iter_mut().zip(bias).for_each(|(x, b)| *x += f64::from(*b));
                }
                for head in row.chunks_mut(dim) {
                    if let Some(norm) = optional(norm) {
                        let normed = rms_norm(head, norm);
                        head.copy_from_slice(&normed);
                    }
                    if rotated {
                        self.rotate(head, position);
                    }
                }
                row
            });
            rows.collect()
        };
        let queries = project("q", "self_attn.q_norm.weight", true);
        let keys = project("k", "self_attn.k_norm.weight", true);
        let values = project("v", "", false);
        let mut means = Vec::new();
        for (position, x) in hidden.iter_mut().enumerate() {
            let mut mixed = vec![0.0; self.heads * dim];
            let mut mean = vec![0.0; position + 1];
            for head in 0..self.heads {
                let kv = head / (self.heads / self.kv_heads) * dim;
                let query = &queries[position][head * dim..][..dim];
                let dot = |seen: usize| query.iter().zip(&keys[seen][kv..]).map(|(q, k)| q * k).sum::<f64>();
                let scores: Vec<f64> = (0..=position).map(|seen| dot(seen) / (dim as f64).sqrt()).collect();
                let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
                let sum: f64 = weights.iter().sum();
                for (seen, weight) in weights.iter().enumerate() {
                    mean[seen] += weight / sum / self.heads as f64;
                    for i in 0..dim {
                        mixed[head * dim + i] += weight / sum * values[seen][kv + i];
                    }
                }
            }
            means.push(mean);
            x.iter_mut().zip(product(of("self_attn.o_proj.weight"), &mixed)).for_each(|(x, y)| *x += y);
        }
        means
    }

    fn rotate(&self, head: &mut [f64], position: usize) {
        let half = head.len() / 2;
        for pair in 0..half {
            let mut frequency = self.base.powf(-2.0 * pair as f64 / head.len() as f64) / self.factor;
            if let Some(divisors) = &self.divisors {
                frequency /= f64::from(divisors[pair]);
            }
            let (sin, cos) = (position as f64 * frequency).sin_cos();
            let (a, b) = (head[pair], head[pair + half]);
            (head[pair], head[pair + half]) = (a * cos - b * sin, b * cos + a * sin);
        }
    }
}

fn rms_norm(x: &[f64], weight: &[f32]) -> Vec<f64> {
    let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
    x.iter().zip(weight).map(|(x, w)| x / (mean + EPSILON).sqrt() * f64::from(*w)).collect()
}

fn product(weights: &[f32], x: &[f64]) -> Vec<f64> {
    weights.chunks(x.len()).map(|row| row.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum()).collect()
}

/// SentencePiece tokens: `<unk>`, `<s>`, `</s>`, the bytes, a few pieces, and unused ones up to `count`.
fn vocabulary(file: File, count: usize) -> File {
    let mut tokens: Vec<(String, i32, f32)> =
        vec![("<unk>".into(), 2, 0.0), ("<s>".into(), 3, 0.0), ("</s>".into(), 3, 0.0)];
    tokens.extend((0..256).map(|byte| (format!("<0x{byte:02X}>"), 6, 0.0)));
    let pieces = ["▁", "h", "e", "l", "o", "he", "ll", "hell", "▁hell", "[", "]", "user"];
    tokens.extend(pieces.iter().enumerate().map(|(i, piece)| ((*piece).into(), 1, -(i as f32))));
    let first = tokens.len();
    tokens.extend((first..count).map(|id| (format!("unused{id}"), 5, 0.0)));
    let texts: Vec<u8> = tokens.iter().flat_map(|token| file.string(&token.0)).collect();
    let kinds: Vec<u8> = tokens.iter().flat_map(|token| token.1.to_le_bytes()).collect();
    let scores: Vec<u8> = tokens.iter().flat_map(|token| token.2.to_le_bytes()).collect();
    let (texts, kinds, scores) =
        (file.array(8, count, &texts), file.array(5, count, &kinds), file.array(6, count, &scores));
    file.text("tokenizer.ggml.model", "llama")
        .key("tokenizer.ggml.tokens", 9, &texts)
        .key("tokenizer.ggml.token_type", 9, &kinds)
        .key("tokenizer.ggml.scores", 9, &scores)
        .key("tokenizer.ggml.bos_token_id", 4, &1u32.to_le_bytes())
        .key("tokenizer.ggml.eos_token_id", 4, &2u32.to_le_bytes())
        .key("tokenizer.ggml.add_bos_token", 7, &[1])
        .text("tokenizer.chat_template", TEMPLATE)
        .text("general.license", "apache-2.0")
}

/// The name of a tensor in a GGUF file.
fn gguf_name(name: &str) -> String {
    let pairs = [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("model.layers", "blk"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    pairs.iter().fold(name.to_string(), |name, (from, to)| name.replace(from, to))
}

/// ggml's number of a type, and numbers in it. Quantized types take numbers that 4 bits hold.
fn encoded(kind: &str, numbers: &[f32]) -> (u32, Vec<u8>) {
    match kind {
        "F32" => (0, numbers.iter().flat_map(|x| x.to_le_bytes()).collect()),
        "F16" => (1, numbers.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect()),
        "BF16" => (30, numbers.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect()),
        "Q4_0" => (2, numbers.chunks(32).flat_map(|block| four_bits(block, false)).collect()),
        "Q4_1" => (3, numbers.chunks(32).flat_map(|block| four_bits(block, true)).collect()),
        "Q8_0" => (8, numbers.chunks(32).flat_map(q8_0).collect()),
        "Q4_K" => (12, numbers.chunks(256).flat_map(q4_k).collect()),
        other => panic!("{other}"),
    }
}

/// The scale of a block whose lowest level is −8, and its levels.
fn levels(block: &[f32]) -> (f32, Vec<i8>) {
    let scale = block.iter().copied().fold(0.0, f32::min) / -8.0;
    let levels: Vec<i8> = block.iter().map(|x| (x / scale).round() as i8).collect();
    (scale, levels)
}

fn nibbles(levels: &[i8]) -> impl Iterator<Item = u8> + '_ {
    let half = levels.len() / 2;
    (0..half).map(move |i| (levels[i] + 8) as u8 | ((levels[i + half] + 8) as u8) << 4)
}

fn four_bits(block: &[f32], has_minimum: bool) -> Vec<u8> {
    let (scale, levels) = levels(block);
    let mut bytes = f16::from_f32(scale).to_le_bytes().to_vec();
    if has_minimum {
        bytes.extend(f16::from_f32(-8.0 * scale).to_le_bytes());
    }
    bytes.extend(nibbles(&levels));
    bytes
}

fn q8_0(block: &[f32]) -> Vec<u8> {
    let (scale, levels) = levels(block);
    let mut bytes = f16::from_f32(scale).to_le_bytes().to_vec();
    bytes.extend(levels.iter().map(|level| level.cast_unsigned()));
    bytes
}

fn q4_k(block: &[f32]) -> Vec<u8> {
    let parts: Vec<(f32, Vec<i8>)> = block.chunks(32).map(levels).collect();
    let least = parts.iter().map(|part| part.0).fold(f32::INFINITY, f32::min);
    // Scales are a power of two times 1 to 7, so some power makes integers of them.
    let unit = (0..3).map(|i| (least.log2().floor() - i as f32).exp2());
    let unit = unit.into_iter().find(|unit| parts.iter().all(|part| (part.0 / unit).fract() == 0.0)).unwrap();
    let scales: Vec<u8> = parts.iter().map(|part| (part.0 / unit) as u8).collect();
    let mins: Vec<u8> = scales.iter().map(|scale| 8 * scale).collect();
    let mut packed = [0; 12];
    for i in 0..4 {
        packed[i] = scales[i] | scales[i + 4] >> 4 << 6;
        packed[i + 4] = mins[i] | mins[i + 4] >> 4 << 6;
        packed[i + 8] = scales[i + 4] & 15 | (mins[i + 4] & 15) << 4;
    }
    let mut bytes = [f16::from_f32(unit).to_le_bytes(), f16::from_f32(unit).to_le_bytes()].concat();
    bytes.extend(packed);
    for pair in parts.chunks(2) {
        bytes.extend(nibbles(&[&pair[0].1[..], &pair[1].1[..]].concat()));
    }
    bytes
}

/// The bytes of a safetensors file.
pub(crate) fn safetensors(tensors: &Tensors, kind: &str) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, (shape, numbers)) in tensors {
        let start = data.len();
        data.extend(encoded(kind, numbers).1);
        let entry = serde_json::json!({"dtype": kind, "shape": shape, "data_offsets": [start, data.len()]});
        header.insert(name.clone(), entry);
    }
    let header = serde_json::Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

/// Imports `source` into `out` with these layers.
pub(crate) fn imported(source: &Path, out: &Path, layers: LayerChoice) -> Result<ImportReport, Error> {
    let job = Import {
        source: source.into(),
        out: out.into(),
        name: None,
        role: Role::Drafter,
        layers,
        head: HeadBits::Four,
    };
    import(&job, &mut Watch::new(&mut |_, _| true))
}

/// The largest differences of an imported drafter's logits and attention from the reference, as parts of the spread of
/// the reference's logits and absolutely.
pub(crate) fn differences(small: &Small, tensors: &Tensors, out: &Path, layers: &[usize]) -> (f64, f64) {
    let dir = ModelDir::open(out).unwrap();
    let (mut drafter, warnings) = Drafter::load(&dir).unwrap();
    assert_eq!(warnings, []);
    // Rows behind the last token in use are no part of what a drafter gives.
    let used = dir.vocabulary.size as usize;
    let tokens = Random(3).tokens(24, small.vocabulary);
    // A prompt and single tokens behind it.
    let rows = [&tokens[..20], &tokens[20..21], &tokens[21..]].map(|part| drafter.extend(part).unwrap());
    let found = rows
        .iter()
        .flat_map(|rows| (0..rows.len()).map(move |row| (rows.logits(row), rows.attention(row).unwrap())));
    let expected = small.reference(tensors, &tokens, layers);
    let squares: f64 = expected.iter().flat_map(|row| &row.0).map(|x| x * x).sum();
    let spread = (squares / (expected.len() * small.vocabulary) as f64).sqrt();
    let most = |found: &[f32], expected: &[f64]| {
        assert_eq!(found.len(), expected.len());
        found.iter().zip(expected).map(|(f, e)| (f64::from(*f) - e).abs()).fold(0.0, f64::max)
    };
    let (mut logits, mut attention) = (0.0f64, 0.0f64);
    for ((found, seen), (expected, weights)) in found.zip(&expected) {
        logits = logits.max(most(found, &expected[..used]) / spread);
        attention = attention.max(most(seen, weights));
    }
    (logits, attention)
}
