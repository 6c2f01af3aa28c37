//! A decoder's tensors, each checked against its shape.

use super::architecture::Architecture;
use super::config::Config;
use super::rotary::LONG_FACTORS;
use crate::gguf::Gguf;
use crate::math::add;
use crate::matrix::Matrix;
use dunlin_lm::{Error, Result};
use std::collections::BTreeSet;

const FREQUENCY_FACTORS: &str = "rope_freqs.weight";

/// Queries, keys and values in one tensor.
const FUSED_INPUTS: &str = "attn_qkv";

/// Norms of each head's queries and keys.
const HEAD_NORMS: [&str; 2] = ["attn_q_norm", "attn_k_norm"];

/// Norms of what attention and MLP add.
const POST_NORMS: [&str; 2] = ["post_attention_norm", "post_ffw_norm"];

/// A layer's matrices that every architecture has, each of which may have a bias.
const PROJECTIONS: [&str; 7] =
    ["attn_q", "attn_k", "attn_v", FUSED_INPUTS, "attn_output", "ffn_up", "ffn_down"];

const ADVICE: &str =
    "use a dense model of its published architecture, with as many layers as its metadata says";

/// All tensors of a decoder.
#[derive(Debug)]
pub(super) struct Weights {
    pub(super) embedding: Matrix,
    pub(super) layers: Vec<Layer>,
    pub(super) norm: Vec<f32>,
    /// `None` when the embedding also serves as the head.
    own_head: Option<Projection>,
}

/// One layer's tensors.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) attention_norm: Vec<f32>,
    pub(super) query: Projection,
    pub(super) key: Projection,
    pub(super) value: Projection,
    /// Norms of each head's queries and keys.
    pub(super) head_norms: Option<[Vec<f32>; 2]>,
    pub(super) output: Projection,
    /// Norms of what attention and MLP add.
    pub(super) post_norms: Option<[Vec<f32>; 2]>,
    pub(super) ffn_norm: Vec<f32>,
    pub(super) gate: Projection,
    pub(super) up: Projection,
    pub(super) down: Projection,
}

/// A matrix, with a bias where the file has one.
#[derive(Debug)]
pub(super) struct Projection {
    matrix: Matrix,
    bias: Option<Vec<f32>>,
}

impl Projection {
    /// The projection of each row of `input`.
    pub(super) fn of(&self, input: &[f32]) -> Result<Vec<f32>> {
        let mut output = self.matrix.multiply(input)?;
        if let Some(bias) = &self.bias {
            output.chunks_exact_mut(bias.len()).for_each(|row| add(row, bias));
        }
        Ok(output)
    }

    /// The matrix `name` of `rows` outputs and `columns` inputs with its bias, or those rows of a fused one that begin at
    /// `first` of `total`.
    fn read(gguf: &mut Gguf, name: &str, part: Part, columns: usize) -> Result<Self> {
        let Part { first, rows, total } = part;
        let matrix = gguf.matrix_part(&format!("{name}.weight"), (total, columns), first..first + rows)?;
        let bias_name = format!("{name}.bias");
        let bias = gguf.has_tensor(&bias_name).then(|| gguf.vector(&bias_name, total)).transpose()?;
        let bias = bias.map(|bias| bias[first..first + rows].to_vec());
        Ok(Self { matrix, bias })
    }
}

/// Some rows of a matrix.
#[derive(Clone, Copy, Debug)]
struct Part {
    first: usize,
    rows: usize,
    total: usize,
}

impl Part {
    fn whole(rows: usize) -> Self {
        Self { first: 0, rows, total: rows }
    }
}

impl Weights {
    /// Reads every tensor; refuses a file with a tensor that the architecture doesn't have.
    ///
    /// Divides the rotary angles of `config` by the file's factors, if it has them.
    pub(super) fn read(gguf: &mut Gguf, config: &mut Config) -> Result<Self> {
        check_names(gguf, config)?;
        gguf.check_types()?;
        scale_frequencies(gguf, config)?;
        let Config { hidden, vocabulary, .. } = *config;
        let embedding = gguf.matrix("token_embd.weight", vocabulary, hidden)?;
        let layers = 0..config.layers.len();
        let layers = layers.map(|index| Layer::read(gguf, config, index)).collect::<Result<_>>()?;
        let norm = gguf.vector("output_norm.weight", hidden)?;
        let has_head = gguf.has_tensor("output.weight");
        let own_head = has_head.then(|| Projection::read(gguf, "output", Part::whole(vocabulary), hidden));
        Ok(Self { embedding, layers, norm, own_head: own_head.transpose()? })
    }

    /// The logits of each row of normalized hidden states.
    pub(super) fn logits(&self, input: &[f32]) -> Result<Vec<f32>> {
        match &self.own_head {
            Some(head) => head.of(input),
            None => self.embedding.multiply(input),
        }
    }
}

impl Layer {
    fn read(gguf: &mut Gguf, config: &Config, index: usize) -> Result<Self> {
        let Config { hidden, inner, heads, ref architecture, .. } = *config;
        let name = |part: &str| format!("blk.{index}.{part}");
        let norm =
            |gguf: &mut Gguf, part: &str, length| gguf.vector(&format!("{}.weight", name(part)), length);
        let pair = |gguf: &mut Gguf, exists: bool, parts: [&str; 2], length| {
            let both = |gguf: &mut Gguf| Ok([norm(gguf, parts[0], length)?, norm(gguf, parts[1], length)?]);
            exists.then(|| both(gguf)).transpose()
        };
        let [query, key, value] = attention_inputs(gguf, config, &name)?;
        let [gate, up] = mlp_inputs(gguf, config, &name)?;
        Ok(Self {
            attention_norm: norm(gguf, "attn_norm", hidden)?,
            query,
            key,
            value,
            head_norms: pair(gguf, architecture.has_head_norms, HEAD_NORMS, heads.dim)?,
            output: Projection::read(gguf, &name("attn_output"), Part::whole(hidden), heads.query_width())?,
            post_norms: pair(gguf, architecture.has_post_norms, POST_NORMS, hidden)?,
            ffn_norm: norm(gguf, "ffn_norm", hidden)?,
            gate,
            up,
            down: Projection::read(gguf, &name("ffn_down"), Part::whole(hidden), inner)?,
        })
    }
}

/// Queries, keys and values, which may be the rows of one tensor.
fn attention_inputs(
    gguf: &mut Gguf,
    config: &Config,
    name: &dyn Fn(&str) -> String,
) -> Result<[Projection; 3]> {
    let (queries, kv) = (config.heads.query_width(), config.heads.kv_width());
    let (fused, total) = (name(FUSED_INPUTS), queries + 2 * kv);
    let is_fused = gguf.has_tensor(&format!("{fused}.weight"));
    let mut read = |part: &str, first, rows| {
        let (name, part) = if is_fused {
            (fused.clone(), Part { first, rows, total })
        } else {
            (name(part), Part::whole(rows))
        };
        Projection::read(gguf, &name, part, config.hidden)
    };
    Ok([read("attn_q", 0, queries)?, read("attn_k", queries, kv)?, read("attn_v", queries + kv, kv)?])
}

/// The MLP's gate and its other input, which are the rows of one tensor in some architectures.
fn mlp_inputs(gguf: &mut Gguf, config: &Config, name: &dyn Fn(&str) -> String) -> Result<[Projection; 2]> {
    let (inner, total) = (config.inner, 2 * config.inner);
    let is_fused = config.architecture.has_fused_gate;
    let mut read = |part: &str, first| {
        let part_of = if is_fused { Part { first, rows: inner, total } } else { Part::whole(inner) };
        Projection::read(gguf, &name(part), part_of, config.hidden)
    };
    Ok([read(if is_fused { "ffn_up" } else { "ffn_gate" }, 0)?, read("ffn_up", inner)?])
}

/// Refuses a tensor that the architecture doesn't have: ignoring an expert would give wrong text without an error.
fn check_names(gguf: &Gguf, config: &Config) -> Result<()> {
    let known = known_names(&config.architecture, config.layers.len());
    match gguf.tensor_names().find(|name| !known.contains(*name)) {
        Some(name) => Err(Error::unsupported(gguf.path(), format!("tensor {}", name.escape_debug()), ADVICE)),
        None => Ok(()),
    }
}

fn known_names(architecture: &Architecture, layers: usize) -> BTreeSet<String> {
    let (mut norms, mut projections) = (vec!["attn_norm", "ffn_norm"], PROJECTIONS.to_vec());
    if architecture.has_head_norms {
        norms.extend(HEAD_NORMS);
    }
    if architecture.has_post_norms {
        norms.extend(POST_NORMS);
    }
    if !architecture.has_fused_gate {
        projections.push("ffn_gate");
    }
    let mut known: BTreeSet<String> =
        ["token_embd.weight", "output_norm.weight", "output.weight", "output.bias", FREQUENCY_FACTORS]
            .map(String::from)
            .into();
    if architecture.has_long_rope {
        known.extend(LONG_FACTORS.map(String::from));
    }
    for layer in 0..layers {
        let weights = norms.iter().chain(&projections).map(|part| format!("blk.{layer}.{part}.weight"));
        known.extend(weights.chain(projections.iter().map(|part| format!("blk.{layer}.{part}.bias"))));
    }
    known
}

fn scale_frequencies(gguf: &mut Gguf, config: &mut Config) -> Result<()> {
    if gguf.has_tensor(FREQUENCY_FACTORS) {
        let factors = factors(gguf, FREQUENCY_FACTORS, config.rotary[0].pairs())?;
        config.rotary[0].divide(&factors);
    }
    if config.rotary[0].context_max().is_some() {
        let factors = factors(gguf, LONG_FACTORS[0], config.rotary[0].pairs())?;
        config.rotary[0].divide(&factors);
    }
    Ok(())
}

/// The vector of `length` numbers above 0 in the tensor `name`.
fn factors(gguf: &mut Gguf, name: &str, length: usize) -> Result<Vec<f32>> {
    let factors = gguf.vector(name, length)?;
    match factors.iter().find(|factor| !(factor.is_finite() && **factor > 0.0)) {
        Some(factor) => Err(Error::value(gguf.path(), format!("tensor {name}"), "numbers above 0", factor)),
        None => Ok(factors),
    }
}
