//! Rotary positions: the angle per position of each pair, from metadata and tensors.

use super::architecture::{Architecture, LOCAL_BASE, ROTARY_MAGNITUDE, YARN_LOG_MULTIPLIER};
use crate::gguf::Gguf;
use crate::math::{Pairs, Rotation};
use dunlin_lm::{Error, Result};
use std::f64::consts::TAU;

const ADVICE: &str = "use a file with plain, linear, Llama-3, YaRN or LongRoPE rotary positions";

/// The tensors of LongRoPE's factors of angles, for texts within the original context and for longer ones.
pub(super) const LONG_FACTORS: [&str; 2] = ["rope_factors_short.weight", "rope_factors_long.weight"];

const TYPE: &str = "rope.scaling.type";
const FACTOR: &str = "rope.scaling.factor";
const ORIGINAL_CONTEXT: &str = "rope.scaling.original_context_length";

/// Rotary positions of some layers.
#[derive(Clone, Debug)]
pub(super) struct RotaryPositions {
    /// Numbers of a head that are rotated, in pairs.
    rotated: usize,
    base: f32,
    stretch: Stretch,
    pairs: Pairs,
    /// Factor of everything that is rotated.
    magnitude: f32,
    /// Angle per position of each rotated pair.
    frequencies: Vec<f32>,
    /// Longest text that has these angles; `None` if all have.
    context_max: Option<usize>,
}

/// The compression of positions, by which a model reads longer texts than it was first trained on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stretch {
    /// Every angle by this factor; 1 leaves them as they are.
    Linear(f32),
    Yarn(Yarn),
}

/// The settings of YaRN: slow pairs are compressed, fast ones not at all.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Yarn {
    factor: f32,
    original_context: u32,
    /// Turns within the original context from which on a pair is not compressed.
    beta_fast: f32,
    /// Turns up to which it is compressed in full.
    beta_slow: f32,
    /// Factor of everything that is rotated: compressed positions need sharper attention.
    magnitude: f32,
}

impl RotaryPositions {
    /// Reads the metadata of `gguf`; `head_dim` is the size of a head.
    pub(super) fn read(gguf: &Gguf, architecture: &Architecture, head_dim: usize) -> Result<Self> {
        let rotated = rotated(gguf, architecture, head_dim)?;
        let base = positive(gguf, &architecture.key("rope.freq_base"), 10000.0)?;
        let stretch = Stretch::read(gguf, architecture)?;
        if base <= 1.0 && matches!(stretch, Stretch::Yarn(_)) {
            let key = architecture.key("rope.freq_base");
            return Err(Error::value(gguf.path(), key, "a number above 1 for YaRN", base));
        }
        let named_magnitude = if architecture.has_long_rope {
            positive(gguf, &architecture.key(ROTARY_MAGNITUDE), 1.0)?
        } else {
            1.0
        };
        let magnitude = match stretch {
            Stretch::Linear(_) => named_magnitude,
            Stretch::Yarn(yarn) => yarn.magnitude * named_magnitude,
        };
        let is_long = LONG_FACTORS.iter().any(|name| gguf.has_tensor(name));
        let context_max = is_long.then(|| original_context(gguf, architecture)).transpose()?;
        let (pairs, frequencies) = (architecture.pairs, stretch.frequencies(rotated, base));
        let context_max = context_max.map(|length| length as usize);
        Ok(Self { rotated, base, stretch, pairs, magnitude, frequencies, context_max })
    }

    /// The rotary positions of windowed layers, if they have some of their own: without any compression.
    pub(super) fn read_local(
        gguf: &Gguf,
        architecture: &Architecture,
        head_dim: usize,
    ) -> Result<Option<Self>> {
        let Some(base) = architecture.local_base else {
            return Ok(None);
        };
        let base = positive(gguf, &architecture.key(LOCAL_BASE), base)?;
        let stretch = Stretch::Linear(1.0);
        let rotated = rotated(gguf, architecture, head_dim)?;
        let (pairs, frequencies) = (architecture.pairs, stretch.frequencies(rotated, base));
        Ok(Some(Self { rotated, base, stretch, pairs, magnitude: 1.0, frequencies, context_max: None }))
    }

    /// Longest text that has these angles; `None` if all have.
    pub(super) fn context_max(&self) -> Option<usize> {
        self.context_max
    }

    /// The rotation of `position`.
    pub(super) fn at(&self, position: usize) -> Rotation {
        Rotation::new(position, &self.frequencies, self.magnitude, self.pairs)
    }

    /// The number of rotated pairs of a head.
    pub(super) fn pairs(&self) -> usize {
        self.frequencies.len()
    }

    /// Divides the angles by factors above 0, one for each pair.
    pub(super) fn divide(&mut self, factors: &[f32]) {
        for (frequency, factor) in self.frequencies.iter_mut().zip(factors) {
            *frequency /= factor;
        }
    }

    /// The numbers that the angles of a Llama are computed from: those rotated, the base's bits, and the factor's.
    ///
    /// The angles are given by what they are computed from: a power may differ in its last bit from one processor to
    /// another.
    pub(super) fn plain_settings(&self) -> [u64; 3] {
        let factor = match self.stretch {
            Stretch::Linear(factor) => factor,
            Stretch::Yarn(yarn) => yarn.factor,
        };
        [self.rotated as u64, self.base.to_bits().into(), factor.to_bits().into()]
    }

    /// Further settings of the angles; empty for a Llama's own.
    pub(super) fn more_settings(&self) -> Vec<u64> {
        match self.stretch {
            Stretch::Linear(_) if self.magnitude.to_bits() == 1f32.to_bits() => vec![],
            Stretch::Linear(_) => vec![self.magnitude.to_bits().into()],
            Stretch::Yarn(Yarn { original_context, beta_fast, beta_slow, .. }) => vec![
                original_context.into(),
                beta_fast.to_bits().into(),
                beta_slow.to_bits().into(),
                self.magnitude.to_bits().into(),
            ],
        }
    }
}

impl Stretch {
    fn read(gguf: &Gguf, architecture: &Architecture) -> Result<Self> {
        let key = architecture.key(TYPE);
        match if gguf.has(&key) { gguf.string(&key)? } else { "linear" } {
            "none" => Ok(Self::Linear(1.0)),
            // LongRoPE compresses by a tensor of factors alone.
            "longrope" if gguf.has_tensor(LONG_FACTORS[0]) => {
                let key = architecture.key(FACTOR);
                match positive(gguf, &key, 1.0)? {
                    factor if (factor - 1.0).abs() > 0.0 => {
                        Err(Error::unsupported(gguf.path(), format!("{key} of {factor}"), ADVICE))
                    }
                    _ => Ok(Self::Linear(1.0)),
                }
            }
            "linear" => {
                let old = positive(gguf, &architecture.key("rope.scale_linear"), 1.0)?;
                Ok(Self::Linear(positive(gguf, &architecture.key(FACTOR), old)?))
            }
            "yarn" => Ok(Self::Yarn(Yarn::read(gguf, architecture)?)),
            other => Err(Error::unsupported(gguf.path(), format!("rotary scaling {other:?}"), ADVICE)),
        }
    }

    /// Angle per position of each rotated pair, before the factors of a tensor.
    fn frequencies(self, rotated: usize, base: f32) -> Vec<f32> {
        let plain = |pair: usize| f64::from(base).powf(-2.0 * pair as f64 / rotated as f64);
        let frequency = |pair: usize| match self {
            Self::Linear(factor) => plain(pair) / f64::from(factor),
            Self::Yarn(yarn) => {
                let kept = 1.0 - yarn.ramp(pair, rotated, base);
                plain(pair) * (kept + (1.0 - kept) / f64::from(yarn.factor))
            }
        };
        (0..rotated / 2).map(|pair| frequency(pair) as f32).collect()
    }
}

impl Yarn {
    fn read(gguf: &Gguf, architecture: &Architecture) -> Result<Self> {
        let number = |rest: &str, otherwise| positive(gguf, &architecture.key(rest), otherwise);
        let mix = number("rope.scaling.yarn_ext_factor", 1.0)?;
        if mix.to_bits() != 1f32.to_bits() {
            let key = architecture.key("rope.scaling.yarn_ext_factor");
            return Err(Error::unsupported(gguf.path(), format!("{key} of {mix}"), ADVICE));
        }
        let factor = number(FACTOR, 1.0)?;
        // In f64, so that the rounded number is the same on every processor.
        let grown = |multiplier: f64| (0.1 * multiplier * f64::from(factor).ln()).max(0.0) + 1.0;
        let multiplier = number(YARN_LOG_MULTIPLIER, 0.0)?;
        let magnitude = grown(1.0) / if multiplier > 0.0 { grown(multiplier.into()) } else { 1.0 };
        Ok(Self {
            factor,
            original_context: original_context(gguf, architecture)?,
            beta_fast: number("rope.scaling.yarn_beta_fast", 32.0)?,
            beta_slow: number("rope.scaling.yarn_beta_slow", 1.0)?,
            magnitude: number("rope.scaling.yarn_attn_factor", magnitude as f32)?,
        })
    }

    /// The share of compression of a pair, 0 to 1.
    fn ramp(&self, pair: usize, rotated: usize, base: f32) -> f64 {
        let length = f64::from(self.original_context);
        // The pair that makes so many turns within the original context.
        let pair_of = |turns: f32| {
            rotated as f64 * (length / (f64::from(turns) * TAU)).ln() / (2.0 * f64::from(base).ln())
        };
        let low = pair_of(self.beta_fast).floor().max(0.0);
        let high = pair_of(self.beta_slow).ceil().min(rotated as f64 - 1.0);
        let width = if (high - low).abs() > 0.0 { high - low } else { 0.001 };
        ((pair as f64 - low) / width).clamp(0.0, 1.0)
    }
}

/// The numbers of a head that are rotated.
fn rotated(gguf: &Gguf, architecture: &Architecture, head_dim: usize) -> Result<usize> {
    let key = architecture.key("rope.dimension_count");
    let rotated = gguf.optional_size(&key)?.unwrap_or(head_dim);
    if rotated % 2 != 0 || rotated > head_dim {
        let expected = format!("an even number up to {head_dim}");
        return Err(Error::value(gguf.path(), key, expected, rotated));
    }
    Ok(rotated)
}

/// The context that the model was first trained on.
pub(super) fn original_context(gguf: &Gguf, architecture: &Architecture) -> Result<u32> {
    let key = architecture.key(ORIGINAL_CONTEXT);
    let found = gguf.optional_u32(&key)?;
    match found {
        Some(0) => Err(Error::value(gguf.path(), key, "at least 1", 0)),
        Some(length) => Ok(length),
        None => Ok(u32::try_from(gguf.context_length()?).unwrap_or(u32::MAX)),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of transformers' `_compute_yarn_parameters` for a head of 16, base 10000, factor 4, 64 positions.
    #[test]
    fn yarn_compresses_slow_pairs_only() {
        let yarn =
            Yarn { factor: 4.0, original_context: 64, beta_fast: 32.0, beta_slow: 1.0, magnitude: 1.0 };
        let found = Stretch::Yarn(yarn).frequencies(16, 10000.0);
        let expected = [
            1.0,
            0.23717081546783447,
            0.04999999701976776,
            0.007905694656074047,
            0.0024999999441206455,
            0.0007905694656074047,
            0.0002500000118743628,
            7.905694656074047e-05,
        ];
        for (found, expected) in found.iter().zip(expected) {
            assert!((f64::from(*found) / expected - 1.0).abs() < 1e-6, "{found} {expected}");
        }
    }
}
