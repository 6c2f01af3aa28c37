//! A GGUF file as a source.

use crate::config::DIMENSION_MAX;
use crate::config::{Decoder, Scaling, frequencies, positive, size, windowed};
use crate::store::{LayerPart, Part, Store, layer_part};
use dunlin_gguf::Header;
use dunlin_lm::{Error, Result, check_plain};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

const ADVICE: &str =
    "use a Llama, Mistral, SmolLM, Qwen2 or Qwen3 with plain, linear or Llama-3 rotary positions";
const LICENCE: &str = "general.license";

/// Architectures: whether llama.cpp's converter permutes queries and keys, and whether their heads are normalized.
const ARCHITECTURES: [(&str, bool, bool); 3] =
    [("llama", true, false), ("qwen2", false, false), ("qwen3", false, true)];

/// A source's decoder, its tensors, and the licence that it names.
pub(crate) type Opened = (Decoder, Store, Option<String>);

/// Opens a file; what is left out or limited is added to `notices`.
pub(crate) fn open(path: &Path, notices: &mut Vec<String>) -> Result<Opened> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let bytes = file.metadata().map_err(|e| Error::io(path, e))?.len();
    let header = Header::read(&mut BufReader::new(&file), bytes).map_err(|e| Error::gguf(path, e))?;
    let keys = Keys::of(path, &header)?;
    let mut decoder = keys.decoder(notices)?;
    let mut store = Store::default();
    let index = store.add_file(path, file);
    for (name, info) in header.tensors() {
        let part = part(name).ok_or_else(|| {
            let what = format!("tensor {name} in a model of architecture {}", keys.architecture);
            Error::unsupported(path, what, ADVICE)
        })?;
        store.add(part, index, name, info.clone())?;
    }
    divide(&mut decoder, &mut store)?;
    let licence = header.optional_string(LICENCE).map_err(|e| Error::gguf(path, e))?.map(String::from);
    Ok((decoder, store, licence))
}

/// The part that a tensor's name stands for.
fn part(name: &str) -> Option<Part> {
    match name {
        "token_embd.weight" => Some(Part::Embedding),
        "output.weight" => Some(Part::Head),
        "output_norm.weight" => Some(Part::Norm),
        "rope_freqs.weight" => Some(Part::RotaryFactors),
        _ => {
            let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
            layer_part(layer.parse().ok()?, rest, |row: &(LayerPart, &'static str, &'static str)| row.1)
        }
    }
}

/// Divides the angles by the factors of a tensor, as Llama 3's files have it.
fn divide(decoder: &mut Decoder, store: &mut Store) -> Result<()> {
    if !store.has(Part::RotaryFactors) {
        return Ok(());
    }
    store.check(Part::RotaryFactors, &[decoder.frequencies.len()])?;
    let factors = store.vector(Part::RotaryFactors)?;
    for (frequency, factor) in decoder.frequencies.iter_mut().zip(factors) {
        if factor <= 0.0 {
            return Err(store.not_finite(Part::RotaryFactors, factor));
        }
        *frequency /= f64::from(factor);
    }
    Ok(())
}

/// The keys of one architecture.
struct Keys<'h> {
    path: &'h Path,
    header: &'h Header,
    architecture: &'static str,
    is_permuted: bool,
    has_head_norms: bool,
}

impl<'h> Keys<'h> {
    fn of(path: &'h Path, header: &'h Header) -> Result<Self> {
        let found = header.string("general.architecture").map_err(|e| Error::gguf(path, e))?;
        let known = ARCHITECTURES.into_iter().find(|(name, ..)| *name == found);
        let Some((architecture, is_permuted, has_head_norms)) = known else {
            return Err(Error::unsupported(path, format!("architecture {found:?}"), ADVICE));
        };
        Ok(Self { path, header, architecture, is_permuted, has_head_norms })
    }

    fn decoder(&self, notices: &mut Vec<String>) -> Result<Decoder> {
        let hidden = self.size("embedding_length")?;
        let heads = self.size("attention.head_count")?;
        let kv_heads = self.optional_size("attention.head_count_kv")?.unwrap_or(heads);
        let head_dim = self.optional_size("attention.key_length")?.unwrap_or(hidden / heads);
        for key in ["attention.value_length", "rope.dimension_count"] {
            if let Some(found) = self.optional_size(key)?.filter(|found| *found != head_dim) {
                let expected = format!("the head size {head_dim}");
                return Err(Error::value(self.path, self.key(key), expected, found));
            }
        }
        let scale = 1.0 / (head_dim as f64).sqrt();
        check_plain(self.path, self.header, self.architecture, scale, &["attention.sliding_window"])?;
        let epsilon = self.float("attention.layer_norm_rms_epsilon")?;
        let key = self.key("attention.layer_norm_rms_epsilon");
        let epsilon = epsilon.ok_or_else(|| Error::value(self.path, &key, "a number", "nothing"))?;
        let base = self.float("rope.freq_base")?.unwrap_or(10000.0);
        let base = positive(self.path, &self.key("rope.freq_base"), base)?;
        let window = self.optional("attention.sliding_window")?.filter(|window| *window > 0);
        let context = self.size("context_length")?;
        let scaling = Scaling::Linear(self.linear_factor()?);
        Ok(Decoder {
            architecture: self.architecture,
            layers: self.size("block_count")?,
            hidden,
            inner: self.size("feed_forward_length")?,
            heads,
            kv_heads,
            head_dim,
            vocabulary: self.header.vocabulary_size().map_err(|e| Error::gguf(self.path, e))? as usize,
            context: windowed(context, window.map(|window| window as usize), notices),
            epsilon: positive(self.path, &key, epsilon)? as f32,
            base,
            scaling,
            frequencies: frequencies(head_dim, base, scaling),
            is_permuted: self.is_permuted,
            has_head_norms: self.has_head_norms,
        })
    }

    /// The factor by which positions are compressed: 1 unless the scaling is linear.
    fn linear_factor(&self) -> Result<f64> {
        let key = self.key("rope.scaling.type");
        let kind = self.header.optional_string(&key).map_err(|e| Error::gguf(self.path, e))?;
        match kind.unwrap_or("linear") {
            "none" => Ok(1.0),
            "linear" => {
                let named = |key| self.float(key).map(|found| found.filter(|factor| *factor != 0.0));
                let old = named("rope.scale_linear")?;
                let factor = named("rope.scaling.factor")?.or(old).unwrap_or(1.0);
                positive(self.path, &self.key("rope.scaling.factor"), factor)
            }
            other => Err(Error::unsupported(self.path, format!("rotary scaling {other:?}"), ADVICE)),
        }
    }

    fn key(&self, rest: &str) -> String {
        format!("{}.{rest}", self.architecture)
    }

    fn optional(&self, rest: &str) -> Result<Option<u32>> {
        self.header.optional_u32(&self.key(rest)).map_err(|e| Error::gguf(self.path, e))
    }

    fn float(&self, rest: &str) -> Result<Option<f64>> {
        let found = self.header.optional_f32(&self.key(rest)).map_err(|e| Error::gguf(self.path, e))?;
        Ok(found.map(f64::from))
    }

    fn optional_size(&self, rest: &str) -> Result<Option<usize>> {
        let found = self.optional(rest)?;
        found.map(|found| size(self.path, &self.key(rest), found.into(), DIMENSION_MAX)).transpose()
    }

    fn size(&self, rest: &str) -> Result<usize> {
        let found = self.header.u32(&self.key(rest)).map_err(|e| Error::gguf(self.path, e))?;
        // A context may be longer than any dimension.
        let max = if rest == "context_length" { usize::MAX } else { DIMENSION_MAX };
        size(self.path, &self.key(rest), found.into(), max)
    }
}
