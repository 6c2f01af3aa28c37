//! A decoder's shape, from the metadata of its GGUF file.

use super::architecture::{ADVICE, Architecture, LOGIT_CAP, SCORE_CAP, TEMPERATURE_SCALE};
use super::rotary::{RotaryPositions, original_context};
use super::windows::windows;
use crate::gguf::{DIMENSION_MAX, Gguf};
use crate::math::{Heads, Scoring};
use dunlin_lm::{Error, Result};

/// The most tokens a vocabulary may have.
const VOCABULARY_MAX: usize = 1 << 18;

/// The most layers a model may have.
const LAYERS_MAX: usize = 1024;

/// Shape and constants of a decoder.
#[derive(Clone, Debug)]
pub(super) struct Config {
    pub(super) architecture: Architecture,
    pub(super) hidden: usize,
    pub(super) inner: usize,
    pub(super) heads: Heads,
    pub(super) vocabulary: usize,
    pub(super) context_length: usize,
    pub(super) epsilon: f32,
    pub(super) scoring: Scoring,
    /// Bound that logits approach smoothly, if there is one.
    pub(super) logit_cap: Option<f32>,
    pub(super) temperature: Option<Temperature>,
    /// The kinds of rotary positions that layers have.
    pub(super) rotary: Vec<RotaryPositions>,
    pub(super) layers: Vec<LayerKind>,
}

/// One layer's differences from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LayerKind {
    /// The number of positions that one sees, its own included; `None` for all.
    pub(super) window: Option<usize>,
    /// Index of its rotary positions; `None` if it has none.
    pub(super) rotary: Option<usize>,
}

/// A factor of queries that grows with their position, in steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Temperature {
    growth: f32,
    /// Positions in a step.
    step: u32,
}

impl Temperature {
    fn read(gguf: &Gguf, architecture: &Architecture) -> Result<Option<Self>> {
        if !architecture.keys.contains(&TEMPERATURE_SCALE) {
            return Ok(None);
        }
        let key = architecture.key(TEMPERATURE_SCALE);
        match gguf.optional_f32(&key)? {
            None | Some(0.0) => Ok(None),
            Some(growth) if growth.is_finite() && growth > 0.0 => {
                Ok(Some(Self { growth, step: original_context(gguf, architecture)? }))
            }
            Some(found) => Err(Error::value(gguf.path(), key, "a number of at least 0", found)),
        }
    }

    /// The factor of the query at `position`.
    pub(super) fn at(&self, position: usize) -> f32 {
        1.0 + self.growth * (1.0 + (position / self.step as usize) as f32).ln()
    }
}

impl Config {
    /// Every number outside of the tensors that a pass depends on, bits for those with a point.
    pub(super) fn settings(&self) -> Vec<u64> {
        let Self { heads, rotary, .. } = self;
        let sizes = [self.layers.len(), self.hidden, self.inner, heads.query, heads.kv, heads.dim];
        let mut settings: Vec<u64> = sizes.map(|size| size as u64).into();
        let [rotated, base, factor] = rotary[0].plain_settings();
        settings.extend([rotated, self.epsilon.to_bits().into(), base, factor]);
        if !self.is_plain_llama() {
            settings.extend(self.other_settings());
        }
        settings
    }

    /// True if there is no setting but those that every Llama has.
    fn is_plain_llama(&self) -> bool {
        let is_plain = |layer: &LayerKind| layer.window.is_none();
        self.architecture.name == "llama"
            && self.layers.iter().all(is_plain)
            && self.rotary.iter().all(|rotary| rotary.more_settings().is_empty())
    }

    fn other_settings(&self) -> Vec<u64> {
        let optional = |number: Option<f32>| number.map_or(0, |number| u64::from(number.to_bits()));
        let mut name = [0; size_of::<u64>()];
        name.iter_mut().zip(self.architecture.name.bytes()).for_each(|(to, from)| *to = from);
        let mut settings = vec![
            u64::from_le_bytes(name),
            self.scoring.scale.to_bits().into(),
            optional(self.scoring.cap),
            optional(self.logit_cap),
            optional(self.temperature.map(|temperature| temperature.growth)),
            self.temperature.map_or(0, |temperature| temperature.step.into()),
        ];
        for rotary in &self.rotary {
            let more = rotary.more_settings();
            settings.extend(rotary.plain_settings());
            settings.push(more.len() as u64);
            settings.extend(more);
        }
        for LayerKind { window, rotary } in &self.layers {
            let one_more = |index: usize| index as u64 + 1;
            settings.extend([window.map_or(0, |window| window as u64), rotary.map_or(0, one_more)]);
        }
        settings
    }

    /// Reads and checks the metadata of `gguf`.
    pub(super) fn read(gguf: &Gguf) -> Result<Self> {
        let name = gguf.string("general.architecture")?;
        let architecture = Architecture::named(name)
            .ok_or_else(|| Error::unsupported(gguf.path(), format!("architecture {name:?}"), ADVICE))?;
        let hidden = gguf.size(&architecture.key("embedding_length"), DIMENSION_MAX)?;
        let layers = gguf.size(&architecture.key("block_count"), LAYERS_MAX)?;
        let heads = heads(gguf, &architecture, hidden)?;
        let scale = score_scale(&architecture, layers, hidden, heads);
        let scoring = Scoring { scale, cap: cap(gguf, &architecture, SCORE_CAP)? };
        gguf.check_plain(architecture.name, scoring.scale, &architecture.applied_keys())?;
        let vocabulary = gguf.vocabulary_size()? as usize;
        if vocabulary > VOCABULARY_MAX {
            let expected = format!("at most {VOCABULARY_MAX} tokens");
            return Err(Error::value(gguf.path(), "tensor token_embd.weight", expected, vocabulary));
        }
        let rotary = RotaryPositions::read(gguf, &architecture, heads.dim)?;
        let context_length = context_length(gguf, &rotary)?;
        let windows = windows(gguf, &architecture, layers)?;
        let local = RotaryPositions::read_local(gguf, &architecture, heads.dim)?;
        let layers = (1..).zip(windows).map(|(number, window)| {
            let is_unrotated = architecture.unrotated_step.is_some_and(|step| number % step == 0);
            let rotary = usize::from(window.is_some() && local.is_some());
            // A window of the context's length hides nothing.
            let window = window.filter(|window| *window < context_length);
            LayerKind { window, rotary: (!is_unrotated).then_some(rotary) }
        });
        let layers = layers.collect();
        Ok(Self {
            hidden,
            inner: gguf.size(&architecture.key("feed_forward_length"), DIMENSION_MAX)?,
            heads,
            vocabulary,
            context_length,
            epsilon: epsilon(gguf, &architecture)?,
            scoring,
            logit_cap: cap(gguf, &architecture, LOGIT_CAP)?,
            temperature: Temperature::read(gguf, &architecture)?,
            rotary: [rotary].into_iter().chain(local).collect(),
            layers,
            architecture,
        })
    }
}

/// The longest context: that of the file, but of two sets of rotary angles only the one for short texts is applied. A
/// longer text has the other set at all of its positions, so that every key of it would have to be computed again.
fn context_length(gguf: &Gguf, rotary: &RotaryPositions) -> Result<usize> {
    let context = gguf.context_length()?;
    match rotary.context_max() {
        Some(max) if max < context => {
            let path = gguf.path().display();
            tracing::warn!(%path, "the context is limited to {max} of {context} tokens: longer texts need other rotary positions (LongRoPE) from their beginning");
            Ok(max)
        }
        _ => Ok(context),
    }
}

/// The factor of the product of a query and a key.
fn score_scale(architecture: &Architecture, layers: usize, hidden: usize, heads: Heads) -> f32 {
    let is_wide = architecture.wide_scale_layers == Some(layers);
    let width = if is_wide { hidden / heads.query } else { heads.dim };
    1.0 / (width as f32).sqrt()
}

/// The bound at the key that ends with `rest`; `None` without one.
fn cap(gguf: &Gguf, architecture: &Architecture, rest: &str) -> Result<Option<f32>> {
    if !architecture.keys.contains(&rest) {
        return Ok(None);
    }
    let key = architecture.key(rest);
    match gguf.optional_f32(&key)? {
        None if !architecture.has_caps => Ok(None),
        Some(0.0) => Ok(None),
        Some(cap) if cap.is_finite() && cap > 0.0 => Ok(Some(cap)),
        found => {
            let found = found.map_or_else(|| "nothing".into(), |found| found.to_string());
            Err(Error::value(gguf.path(), key, "a number of at least 0 (0: none)", found))
        }
    }
}

fn epsilon(gguf: &Gguf, architecture: &Architecture) -> Result<f32> {
    let key = architecture.key("attention.layer_norm_rms_epsilon");
    let found = gguf.optional_f32(&key)?;
    found
        .filter(|epsilon| epsilon.is_finite() && *epsilon >= 0.0)
        .ok_or_else(|| Error::value(gguf.path(), key, "a number of at least 0", "none"))
}

fn heads(gguf: &Gguf, architecture: &Architecture, hidden: usize) -> Result<Heads> {
    let key = |rest: &str| architecture.key(rest);
    let query = gguf.size(&key("attention.head_count"), DIMENSION_MAX)?;
    let kv = gguf.optional_size(&key("attention.head_count_kv"))?.unwrap_or(query);
    let wrong = |rest: &str, expected: String, found: usize| {
        Err(Error::value(gguf.path(), key(rest), expected, found))
    };
    if !query.is_multiple_of(kv) {
        return wrong("attention.head_count_kv", format!("a divisor of {query}"), kv);
    }
    let dim = gguf.optional_size(&key("attention.key_length"))?.unwrap_or(hidden / query);
    if dim == 0 || dim % 2 != 0 || query * dim > DIMENSION_MAX {
        let expected = format!("an even number, at most {DIMENSION_MAX} in all heads");
        return wrong("attention.key_length", expected, dim);
    }
    let value = gguf.optional_size(&key("attention.value_length"))?.unwrap_or(dim);
    if value != dim {
        return wrong("attention.value_length", format!("the key length {dim}"), value);
    }
    Ok(Heads { query, kv, dim })
}
