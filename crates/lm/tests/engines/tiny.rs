//! Small GGUF files made by the tests of engines.

#![allow(dead_code, reason = "no suite uses all of it")]

use crate::files::{Random, fixture};
use dunlin_lm::ModelDir;
use dunlin_lm_candle::CandleTarget;
use dunlin_lm_candle::files::gguf_file::{self, Value};
use dunlin_lm_candle::files::{Device, GgmlDType, QTensor, Tensor};
use std::fs::File;
use std::path::Path;

/// Storage types of matrices that both engines compute with.
pub(crate) const KINDS: [GgmlDType; 7] = [
    GgmlDType::Q8_0,
    GgmlDType::Q4_0,
    GgmlDType::Q4K,
    GgmlDType::Q6K,
    GgmlDType::F32,
    GgmlDType::F16,
    GgmlDType::BF16,
];

/// The shape of a small model, and the storage types of its matrices.
#[derive(Clone, Debug)]
pub(crate) struct Tiny {
    pub(crate) architecture: &'static str,
    /// True if every matrix of a layer has a bias.
    pub(crate) has_biases: bool,
    pub(crate) window: Option<usize>,
    /// Every so manieth layer has no window, as the metadata must say.
    pub(crate) window_step: Option<usize>,
    pub(crate) layers: usize,
    pub(crate) hidden: usize,
    pub(crate) inner: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) vocabulary: usize,
    pub(crate) context: u32,
    pub(crate) kind: GgmlDType,
    pub(crate) head_kind: Option<GgmlDType>,
    pub(crate) linear_scale: Option<f32>,
    pub(crate) frequency_factors: Option<Vec<f32>>,
    /// LongRoPE's factors for short texts; those for long ones are twice as large.
    pub(crate) long_factors: Option<Vec<f32>>,
    pub(crate) metadata: Vec<(String, Value)>,
    pub(crate) without: Option<&'static str>,
    pub(crate) extra: Option<&'static str>,
}

impl Tiny {
    /// Two layers, 256 wide, 4 query heads over 2 key heads: every kind of block fits.
    pub(crate) fn new(kind: GgmlDType) -> Self {
        Self {
            architecture: "llama",
            has_biases: false,
            window: None,
            window_step: None,
            layers: 2,
            hidden: 256,
            inner: 512,
            heads: 4,
            kv_heads: 2,
            head_dim: 64,
            vocabulary: 96,
            context: 128,
            kind,
            head_kind: None,
            linear_scale: None,
            frequency_factors: None,
            long_factors: None,
            metadata: Vec::new(),
            without: None,
            extra: None,
        }
    }

    /// The same for another architecture, in small: 6 layers, of which some have a window of 9 or no rotary positions
    /// where the architecture has such layers.
    pub(crate) fn of(architecture: &'static str) -> Self {
        let is_gemma = architecture.starts_with("gemma");
        Self {
            architecture,
            window: is_gemma.then_some(9),
            layers: 6,
            hidden: 64,
            inner: 96,
            head_dim: if architecture == "phi3" { 16 } else { 24 },
            metadata: Self::needed(architecture),
            head_kind: (!is_gemma).then_some(GgmlDType::F32),
            ..Self::new(GgmlDType::F32)
        }
    }

    /// True if queries and keys are normalized by head.
    pub(crate) fn has_head_norms(&self) -> bool {
        ["qwen3", "gemma3"].contains(&self.architecture)
    }

    /// True if what a layer adds is normalized.
    pub(crate) fn has_post_norms(&self) -> bool {
        ["gemma2", "gemma3"].contains(&self.architecture)
    }

    /// A key of the architecture with its value.
    pub(crate) fn key(&self, rest: &str, value: Value) -> (String, Value) {
        (format!("{}.{rest}", self.architecture), value)
    }

    /// The settings that a file of the architecture must have.
    fn needed(architecture: &str) -> Vec<(String, Value)> {
        let caps = [("attn_logit_softcapping", 2.0), ("final_logit_softcapping", 3.0)];
        let caps = caps.map(|(key, cap)| (format!("{architecture}.{key}"), Value::F32(cap)));
        if architecture == "gemma2" { caps.into() } else { vec![] }
    }

    /// Writes the file `model.gguf` with random weights, and returns its tensors.
    pub(crate) fn write(&self, dir: &Path) -> Vec<(String, QTensor)> {
        let tensors = self.tensors();
        let mut metadata = self.standard_metadata();
        metadata.retain(|(key, _)| !self.metadata.iter().any(|(other, _)| other == key));
        metadata.extend(self.metadata.iter().cloned());
        let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(k, v)| (k.as_str(), v)).collect();
        let named: Vec<(&str, &QTensor)> =
            tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let mut file = File::create(dir.join("model.gguf")).unwrap();
        gguf_file::write(&mut file, &metadata, &named).unwrap();
        tensors
    }

    fn standard_metadata(&self) -> Vec<(String, Value)> {
        let number = |n: usize| Value::U32(n as u32);
        let mut all = vec![
            self.key("block_count", number(self.layers)),
            self.key("embedding_length", number(self.hidden)),
            self.key("feed_forward_length", number(self.inner)),
            self.key("attention.head_count", number(self.heads)),
            self.key("attention.head_count_kv", number(self.kv_heads)),
            self.key("attention.key_length", number(self.head_dim)),
            self.key("attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
            self.key("context_length", Value::U32(self.context)),
            self.key("rope.freq_base", Value::F32(10000.0)),
        ];
        all.push(("general.architecture".into(), Value::String(self.architecture.into())));
        if let Some(factor) = self.linear_scale {
            all.push(self.key("rope.scaling.type", Value::String("linear".into())));
            all.push(self.key("rope.scaling.factor", Value::F32(factor)));
        }
        all.extend(self.window.map(|window| self.key("attention.sliding_window", number(window))));
        all
    }

    fn tensors(&self) -> Vec<(String, QTensor)> {
        let mut shapes = vec![("token_embd.weight".to_string(), vec![self.vocabulary, self.hidden])];
        for layer in 0..self.layers {
            let name = |part: &str, rest: &str| format!("blk.{layer}.{part}.{rest}");
            for (part, shape) in self.parts() {
                if self.has_biases && shape.len() > 1 {
                    shapes.push((name(part, "bias"), vec![shape[0]]));
                }
                shapes.push((name(part, "weight"), shape));
            }
        }
        shapes.push(("output_norm.weight".into(), vec![self.hidden]));
        if self.head_kind.is_some() {
            shapes.push(("output.weight".into(), vec![self.vocabulary, self.hidden]));
        }
        shapes.extend(self.extra.map(|name| (name.to_string(), vec![self.hidden])));
        shapes.retain(|(name, _)| Some(name.as_str()) != self.without);
        let mut random = Random(11);
        let factors = |name: &str, factors: Vec<f32>| {
            let factors = Tensor::from_slice(&factors, factors.len(), &Device::Cpu).unwrap();
            (name.to_string(), QTensor::quantize(&factors, GgmlDType::F32).unwrap())
        };
        let mut tensors: Vec<_> = shapes
            .into_iter()
            .map(|(name, shape)| (name.clone(), self.tensor(&mut random, &name, &shape)))
            .collect();
        tensors.extend(self.frequency_factors.iter().map(|all| factors("rope_freqs.weight", all.clone())));
        if let Some(short) = &self.long_factors {
            let long = short.iter().map(|factor| 2.0 * factor).collect();
            tensors.push(factors("rope_factors_short.weight", short.clone()));
            tensors.push(factors("rope_factors_long.weight", long));
        }
        tensors.retain(|(name, _)| Some(name.as_str()) != self.without);
        tensors
    }

    /// Names and shapes of a layer's weights.
    fn parts(&self) -> Vec<(&'static str, Vec<usize>)> {
        let (queries, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let (hidden, inner) = (self.hidden, self.inner);
        let is_fused = self.architecture == "phi3";
        let mut parts = vec![("attn_norm", vec![hidden])];
        if is_fused {
            parts.push(("attn_qkv", vec![queries + 2 * kv, hidden]));
        } else {
            let rows = [("attn_q", queries), ("attn_k", kv), ("attn_v", kv)];
            parts.extend(rows.map(|(part, rows)| (part, vec![rows, hidden])));
        }
        parts.extend([("attn_output", vec![hidden, queries]), ("ffn_norm", vec![hidden])]);
        if is_fused {
            parts.push(("ffn_up", vec![2 * inner, hidden]));
        } else {
            parts.extend(["ffn_gate", "ffn_up"].map(|part| (part, vec![inner, hidden])));
        }
        parts.push(("ffn_down", vec![hidden, inner]));
        if self.has_head_norms() {
            parts.extend(["attn_q_norm", "attn_k_norm"].map(|part| (part, vec![self.head_dim])));
        }
        if self.has_post_norms() {
            parts.extend(["post_attention_norm", "post_ffw_norm"].map(|part| (part, vec![hidden])));
        }
        parts
    }

    fn tensor(&self, random: &mut Random, name: &str, shape: &[usize]) -> QTensor {
        let count = shape.iter().product();
        let scale = 2.0 / (*shape.last().unwrap() as f32).sqrt();
        let numbers: Vec<f32> = match shape.len() {
            1 => (0..count).map(|_| 1.0 + 0.3 * random.number()).collect(),
            _ => (0..count).map(|_| scale * random.number()).collect(),
        };
        let kind = match (shape.len(), name) {
            (1, _) => GgmlDType::F32,
            (_, "output.weight") => self.head_kind.unwrap(),
            _ => self.kind,
        };
        QTensor::quantize(&Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap(), kind).unwrap()
    }
}

/// A bare GGUF file with a tokenizer that has fewer tokens, opened.
pub(crate) struct Opened {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) dir: ModelDir,
    pub(crate) tensors: Vec<(String, QTensor)>,
}

impl Opened {
    pub(crate) fn target(&self) -> CandleTarget {
        CandleTarget::load(&self.dir, usize::MAX).unwrap()
    }
}

pub(crate) fn open(tiny: &Tiny) -> Opened {
    let folder = tempfile::tempdir().unwrap();
    let tensors = tiny.write(folder.path());
    std::fs::copy(fixture("hf-llama/tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    let dir = ModelDir::open(folder.path().join("model.gguf")).unwrap();
    Opened { folder, dir, tensors }
}
