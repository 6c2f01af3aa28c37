//! A Llama's shape, from the metadata of its GGUF file.

use crate::gguf::{DIMENSION_MAX, Gguf};
use crate::math::Heads;
use dunlin_lm::{Error, Result};

const ADVICE: &str = "use a file of the Llama family with plain, linear or Llama-3 rotary positions";

/// The most tokens a vocabulary may have.
const VOCABULARY_MAX: usize = 1 << 18;

/// The most layers a model may have.
const LAYERS_MAX: usize = 1024;

/// Shape and constants of a Llama.
#[derive(Clone, Debug)]
pub(super) struct Config {
    pub(super) layers: usize,
    pub(super) hidden: usize,
    pub(super) inner: usize,
    pub(super) heads: Heads,
    pub(super) vocabulary: usize,
    pub(super) context_length: usize,
    pub(super) epsilon: f32,
    rotary: Rotary,
    /// Angle per position of each rotated pair.
    pub(super) frequencies: Vec<f32>,
}

/// What the angles of rotary positions are computed from, apart from the factors in a tensor.
#[derive(Clone, Copy, Debug)]
struct Rotary {
    /// Numbers of a head that are rotated, in pairs.
    rotated: usize,
    base: f32,
    /// The factor by which positions are compressed.
    factor: f32,
}

impl Config {
    /// Every number outside of the tensors that a pass depends on, bits for those with a point.
    ///
    /// The angles are given by what they are computed from: a power may differ in its last bit from one processor to
    /// another.
    pub(super) fn settings(&self) -> [u64; 10] {
        let Self { heads, rotary, .. } = self;
        let sizes = [self.layers, self.hidden, self.inner, heads.query, heads.kv, heads.dim, rotary.rotated];
        let numbers = [self.epsilon, rotary.base, rotary.factor];
        let mut settings = [0; 10];
        for (setting, size) in settings.iter_mut().zip(sizes) {
            *setting = size as u64;
        }
        for (setting, number) in settings[sizes.len()..].iter_mut().zip(numbers) {
            *setting = number.to_bits().into();
        }
        settings
    }

    /// Reads and checks the metadata of `gguf`.
    pub(super) fn read(gguf: &Gguf) -> Result<Self> {
        let architecture = gguf.string("general.architecture")?;
        if architecture != "llama" {
            return Err(Error::unsupported(gguf.path(), format!("architecture {architecture:?}"), ADVICE));
        }
        let hidden = size(gguf, "llama.embedding_length", DIMENSION_MAX)?;
        let heads = heads(gguf, hidden)?;
        gguf.check_plain(heads.dim)?;
        let epsilon = gguf.optional_f32("llama.attention.layer_norm_rms_epsilon")?;
        let epsilon = epsilon.filter(|e| e.is_finite() && *e >= 0.0);
        let rotary = Rotary::read(gguf, heads.dim)?;
        let vocabulary = gguf.vocabulary_size()? as usize;
        if vocabulary > VOCABULARY_MAX {
            let expected = format!("at most {VOCABULARY_MAX} tokens");
            return Err(Error::value(gguf.path(), "tensor token_embd.weight", expected, vocabulary));
        }
        Ok(Self {
            layers: size(gguf, "llama.block_count", LAYERS_MAX)?,
            hidden,
            inner: size(gguf, "llama.feed_forward_length", DIMENSION_MAX)?,
            heads,
            vocabulary,
            context_length: gguf.context_length()?,
            epsilon: epsilon.ok_or_else(|| {
                Error::value(
                    gguf.path(),
                    "llama.attention.layer_norm_rms_epsilon",
                    "a number of at least 0",
                    "none",
                )
            })?,
            rotary,
            frequencies: rotary.frequencies(),
        })
    }
}

/// The unsigned integer at `key`, from 1 to `max`.
fn size(gguf: &Gguf, key: &str, max: usize) -> Result<usize> {
    let found = gguf.u32(key)? as usize;
    if found == 0 || found > max {
        return Err(Error::value(gguf.path(), key, format!("1 to {max}"), found));
    }
    Ok(found)
}

fn optional_size(gguf: &Gguf, key: &str, otherwise: usize) -> Result<usize> {
    if gguf.has(key) { size(gguf, key, DIMENSION_MAX) } else { Ok(otherwise) }
}

fn heads(gguf: &Gguf, hidden: usize) -> Result<Heads> {
    let query = size(gguf, "llama.attention.head_count", DIMENSION_MAX)?;
    let kv = optional_size(gguf, "llama.attention.head_count_kv", query)?;
    let wrong = |key: &str, expected: String, found: usize| Error::value(gguf.path(), key, expected, found);
    if !query.is_multiple_of(kv) {
        return Err(wrong("llama.attention.head_count_kv", format!("a divisor of {query}"), kv));
    }
    let dim = optional_size(gguf, "llama.attention.key_length", hidden / query)?;
    if dim == 0 || dim % 2 != 0 || query * dim > DIMENSION_MAX {
        return Err(wrong(
            "llama.attention.key_length",
            format!("an even number, at most {DIMENSION_MAX} in all heads"),
            dim,
        ));
    }
    let value = optional_size(gguf, "llama.attention.value_length", dim)?;
    if value != dim {
        return Err(wrong("llama.attention.value_length", format!("the key length {dim}"), value));
    }
    Ok(Heads { query, kv, dim })
}

impl Rotary {
    fn read(gguf: &Gguf, head_dim: usize) -> Result<Self> {
        let rotated = optional_size(gguf, "llama.rope.dimension_count", head_dim)?;
        if rotated % 2 != 0 || rotated > head_dim {
            let expected = format!("an even number up to {head_dim}");
            return Err(Error::value(gguf.path(), "llama.rope.dimension_count", expected, rotated));
        }
        let base = positive(gguf, "llama.rope.freq_base", 10000.0)?;
        Ok(Self { rotated, base, factor: linear_factor(gguf)? })
    }

    /// Angle per position of each rotated pair, before the factors of a `rope_freqs.weight` tensor.
    fn frequencies(self) -> Vec<f32> {
        let Self { rotated, base, factor } = self;
        let frequency =
            |pair: usize| f64::from(base).powf(-2.0 * pair as f64 / rotated as f64) / f64::from(factor);
        (0..rotated / 2).map(|pair| frequency(pair) as f32).collect()
    }
}

/// The factor by which positions are compressed: 1 unless the scaling is linear.
fn linear_factor(gguf: &Gguf) -> Result<f32> {
    let key = "llama.rope.scaling.type";
    match if gguf.has(key) { gguf.string(key)? } else { "linear" } {
        "none" => Ok(1.0),
        "linear" => {
            let old = positive(gguf, "llama.rope.scale_linear", 1.0)?;
            positive(gguf, "llama.rope.scaling.factor", old)
        }
        other => Err(Error::unsupported(gguf.path(), format!("rotary scaling {other:?}"), ADVICE)),
    }
}

/// The number above 0 at `key`; `otherwise` if it is missing, or if it is a scaling factor of 0, which means none.
fn positive(gguf: &Gguf, key: &str, otherwise: f32) -> Result<f32> {
    match gguf.optional_f32(key)? {
        None => Ok(otherwise),
        Some(0.0) if key.contains("scal") => Ok(otherwise),
        Some(number) if number.is_finite() && number > 0.0 => Ok(number),
        Some(number) => Err(Error::value(gguf.path(), key, "a number above 0", number)),
    }
}
