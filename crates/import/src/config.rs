//! A decoder's shape and constants, whatever file they come from.

use crate::layers::LayerChoice;
use crate::store::{LayerPart, Part, Store};
use dunlin_lm::{Error, Result};
use std::path::Path;

/// Largest accepted size of a dimension: no language model exceeds it, and products of sizes can't overflow below it.
pub(crate) const DIMENSION_MAX: usize = 1 << 20;
/// Most layers.
const LAYERS_MAX: usize = 1024;
/// Most tokens in a vocabulary.
const VOCABULARY_MAX: usize = 1 << 20;

/// Shape and constants of a decoder.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Decoder {
    pub(crate) architecture: &'static str,
    pub(crate) layers: usize,
    pub(crate) hidden: usize,
    pub(crate) inner: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) vocabulary: usize,
    pub(crate) context: usize,
    pub(crate) epsilon: f32,
    /// The base of the rotary angles.
    pub(crate) base: f64,
    pub(crate) scaling: Scaling,
    /// Angle per position of each rotated pair.
    pub(crate) frequencies: Vec<f64>,
    /// True if the rows of queries and keys are ordered for pairs of neighbours, as llama.cpp's converter orders them.
    pub(crate) is_permuted: bool,
    /// True if queries and keys are normalized by head.
    pub(crate) has_head_norms: bool,
}

/// Compression of the angles of rotary positions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scaling {
    /// All by this factor, which may be 1.
    Linear(f64),
    /// Llama 3's: long wavelengths by the factor, short ones not at all.
    Llama3 { factor: f64, low: f64, high: f64, original: f64 },
}

/// Angle per position of each pair of a head.
pub(crate) fn frequencies(head_dim: usize, base: f64, scaling: Scaling) -> Vec<f64> {
    let plain = (0..head_dim / 2).map(|pair| base.powf(-2.0 * pair as f64 / head_dim as f64));
    plain.map(|frequency| scaling.of(frequency)).collect()
}

impl Scaling {
    fn of(self, frequency: f64) -> f64 {
        match self {
            Self::Linear(factor) => frequency / factor,
            Self::Llama3 { factor, low, high, original } => {
                let turns = original * frequency / std::f64::consts::TAU;
                let smooth = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                frequency * ((1.0 - smooth) / factor + smooth)
            }
        }
    }
}

/// A size from a file with its key.
pub(crate) fn size(path: &Path, key: &str, found: u64, max: usize) -> Result<usize> {
    match usize::try_from(found) {
        Ok(size) if (1..=max).contains(&size) => Ok(size),
        _ => Err(Error::value(path, key, format!("1 to {max}"), found)),
    }
}

/// A number above 0 from a file with its key.
pub(crate) fn positive(path: &Path, key: &str, found: f64) -> Result<f64> {
    if found.is_finite() && found > 0.0 {
        return Ok(found);
    }
    Err(Error::value(path, key, "a number above 0", found))
}

impl Decoder {
    /// Checks the sizes, and that every tensor is there in the shape that follows from them.
    ///
    /// # Errors
    /// Names the value or tensor.
    pub(crate) fn check(&self, path: &Path, store: &Store) -> Result<()> {
        let wrong = |key: &str, expected: String, found: usize| Err(Error::value(path, key, expected, found));
        let (heads, kv) = (self.heads, self.kv_heads);
        for (key, found, max) in [
            ("layers", self.layers, LAYERS_MAX),
            ("vocabulary", self.vocabulary, VOCABULARY_MAX),
            ("width", self.hidden, DIMENSION_MAX),
            ("inner width", self.inner, DIMENSION_MAX),
            ("heads", heads, DIMENSION_MAX),
            ("key heads", kv, heads),
            ("head size", self.head_dim, DIMENSION_MAX / heads.max(1)),
        ] {
            size(path, key, found as u64, max)?;
        }
        if !heads.is_multiple_of(kv) {
            return wrong("key heads", format!("a divisor of {heads}"), kv);
        }
        if !self.head_dim.is_multiple_of(2) {
            return wrong("head size", "an even number".into(), self.head_dim);
        }
        if store.layers() > self.layers {
            return wrong("layers", format!("at least the {} of its tensors", store.layers()), self.layers);
        }
        store.check(Part::Embedding, &[self.vocabulary, self.hidden])?;
        store.check(Part::Norm, &[self.hidden])?;
        if store.has(Part::Head) {
            store.check(Part::Head, &[self.vocabulary, self.hidden])?;
        }
        (0..self.layers).try_for_each(|layer| self.check_layer(path, store, layer))
    }

    fn check_layer(&self, path: &Path, store: &Store, layer: usize) -> Result<()> {
        for (part, ..) in LayerPart::NAMES {
            let place = Part::Layer(layer, part);
            let is_head_norm = matches!(part, LayerPart::QueryNorm | LayerPart::KeyNorm);
            if is_head_norm && !self.has_head_norms {
                if store.has(place) {
                    let (name, _) = store.described(place)?;
                    let what = format!("tensor {name} in a model of architecture {}", self.architecture);
                    return Err(Error::unsupported(path, what, "use a model of its published architecture"));
                }
                continue;
            }
            let shape = self.shape(part);
            store.check(place, &shape)?;
            if store.has(Part::Bias(layer, part)) {
                store.check(Part::Bias(layer, part), &shape[..1])?;
            }
        }
        Ok(())
    }

    /// The shape of a layer's tensor.
    pub(crate) fn shape(&self, part: LayerPart) -> Vec<usize> {
        let (queries, keys) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        match part {
            LayerPart::InputNorm | LayerPart::MlpNorm => vec![self.hidden],
            LayerPart::QueryNorm | LayerPart::KeyNorm => vec![self.head_dim],
            LayerPart::Query => vec![queries, self.hidden],
            LayerPart::Key | LayerPart::Value => vec![keys, self.hidden],
            LayerPart::Output => vec![self.hidden, queries],
            LayerPart::Gate | LayerPart::Up => vec![self.inner, self.hidden],
            LayerPart::Down => vec![self.hidden, self.inner],
        }
    }

    /// The numbers in a layer's matrices.
    pub(crate) fn layer_numbers(&self) -> u64 {
        let shapes = LayerPart::NAMES.iter().map(|(part, ..)| self.shape(*part));
        shapes.filter(|shape| shape.len() == 2).map(|shape| (shape[0] * shape[1]) as u64).sum()
    }

    /// True if the rows of this matrix must be put back into the order of halves.
    pub(crate) fn is_permuted(&self, part: LayerPart) -> bool {
        self.is_permuted && matches!(part, LayerPart::Query | LayerPart::Key)
    }

    /// The layers to take.
    pub(crate) fn chosen(&self, path: &Path, choice: &LayerChoice) -> Result<Vec<usize>> {
        choice.of(path, self.layers)
    }
}

/// The context of a model that looks back `window` tokens only: within the window it is the same as without one.
pub(crate) fn windowed(context: usize, window: Option<usize>, notices: &mut Vec<String>) -> usize {
    match window {
        Some(window) if window < context => {
            notices.push(format!(
                "the model looks back {window} tokens (sliding window); its context is limited to them, where it needs no window"
            ));
            window
        }
        _ => context,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of transformers' `_compute_llama3_parameters` for a head of 16, base 500000, factor 8, 1 and 4 turns,
    /// 8192 positions.
    #[test]
    fn llama_3_compresses_long_waves_only() {
        let scaling = Scaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 8192.0 };
        let found = frequencies(16, 500_000.0, scaling);
        let plain = frequencies(16, 500_000.0, Scaling::Linear(1.0));
        assert_eq!(found[..4], plain[..4]);
        for pair in 5..8 {
            assert!((found[pair] - plain[pair] / 8.0).abs() < 1e-12, "{pair}");
        }
        assert!(found[4] < plain[4] && found[4] > plain[4] / 8.0);
    }

    #[test]
    fn a_window_limits_the_context() {
        let mut notices = Vec::new();
        assert_eq!(windowed(8192, Some(4096), &mut notices), 4096);
        assert!(notices[0].contains("4096 tokens (sliding window)"));
        assert_eq!(windowed(2048, Some(4096), &mut notices), 2048);
        assert_eq!(windowed(2048, None, &mut notices), 2048);
        assert_eq!(notices.len(), 1);
    }
}
