//! A Llama's tensors, each checked against its shape.

use super::config::Config;
use crate::gguf::Gguf;
use crate::matrix::Matrix;
use dunlin_lm::{Error, Result};
use std::collections::BTreeSet;

const FREQUENCY_FACTORS: &str = "rope_freqs.weight";

/// All tensors of a Llama.
#[derive(Debug)]
pub(super) struct Weights {
    pub(super) embedding: Matrix,
    pub(super) layers: Vec<Layer>,
    pub(super) norm: Vec<f32>,
    /// `None` when the embedding also serves as the head.
    own_head: Option<Matrix>,
}

/// One layer's tensors.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) attention_norm: Vec<f32>,
    pub(super) query: Matrix,
    pub(super) key: Matrix,
    pub(super) value: Matrix,
    pub(super) output: Matrix,
    pub(super) ffn_norm: Vec<f32>,
    pub(super) gate: Matrix,
    pub(super) up: Matrix,
    pub(super) down: Matrix,
}

impl Weights {
    /// Reads every tensor; refuses a file with a tensor that a Llama doesn't have.
    ///
    /// Divides the frequencies of `config` by the file's factors (Llama 3), if it has them.
    pub(super) fn read(gguf: &mut Gguf, config: &mut Config) -> Result<Self> {
        check_names(gguf, config.layers)?;
        scale_frequencies(gguf, config)?;
        let Config { hidden, vocabulary, .. } = *config;
        let embedding = gguf.matrix("token_embd.weight", vocabulary, hidden)?;
        let layers =
            (0..config.layers).map(|index| Layer::read(gguf, config, index)).collect::<Result<_>>()?;
        let norm = gguf.vector("output_norm.weight", hidden)?;
        let has_head = gguf.has_tensor("output.weight");
        let own_head = has_head.then(|| gguf.matrix("output.weight", vocabulary, hidden)).transpose()?;
        Ok(Self { embedding, layers, norm, own_head })
    }

    /// The matrix from the last hidden state to logits.
    pub(super) fn head(&self) -> &Matrix {
        self.own_head.as_ref().unwrap_or(&self.embedding)
    }
}

impl Layer {
    fn read(gguf: &mut Gguf, config: &Config, index: usize) -> Result<Self> {
        let Config { hidden, inner, heads, .. } = *config;
        let (queries, kv) = (heads.query_width(), heads.kv_width());
        let name = |part: &str| format!("blk.{index}.{part}.weight");
        Ok(Self {
            attention_norm: gguf.vector(&name("attn_norm"), hidden)?,
            query: gguf.matrix(&name("attn_q"), queries, hidden)?,
            key: gguf.matrix(&name("attn_k"), kv, hidden)?,
            value: gguf.matrix(&name("attn_v"), kv, hidden)?,
            output: gguf.matrix(&name("attn_output"), hidden, queries)?,
            ffn_norm: gguf.vector(&name("ffn_norm"), hidden)?,
            gate: gguf.matrix(&name("ffn_gate"), inner, hidden)?,
            up: gguf.matrix(&name("ffn_up"), inner, hidden)?,
            down: gguf.matrix(&name("ffn_down"), hidden, inner)?,
        })
    }
}

/// Refuses a tensor that isn't a Llama's: ignoring a bias or an expert would give wrong text without an error.
fn check_names(gguf: &Gguf, layers: usize) -> Result<()> {
    let parts = [
        "attn_norm",
        "attn_q",
        "attn_k",
        "attn_v",
        "attn_output",
        "ffn_norm",
        "ffn_gate",
        "ffn_up",
        "ffn_down",
    ];
    let mut known: BTreeSet<String> = ["token_embd", "output_norm", "output", "rope_freqs"]
        .into_iter()
        .map(|name| format!("{name}.weight"))
        .collect();
    for layer in 0..layers {
        known.extend(parts.map(|part| format!("blk.{layer}.{part}.weight")));
    }
    match gguf.tensor_names().find(|name| !known.contains(*name)) {
        Some(name) => Err(Error::unsupported(
            gguf.path(),
            format!("tensor {name}"),
            "use a plain Llama: dense, without biases, with as many layers as its metadata says",
        )),
        None => Ok(()),
    }
}

fn scale_frequencies(gguf: &mut Gguf, config: &mut Config) -> Result<()> {
    if !gguf.has_tensor(FREQUENCY_FACTORS) {
        return Ok(());
    }
    let factors = gguf.vector(FREQUENCY_FACTORS, config.frequencies.len())?;
    for (frequency, factor) in config.frequencies.iter_mut().zip(factors) {
        if !(factor.is_finite() && factor > 0.0) {
            let key = format!("tensor {FREQUENCY_FACTORS}");
            return Err(Error::value(gguf.path(), key, "numbers above 0", factor));
        }
        *frequency /= factor;
    }
    Ok(())
}
