//! The architectures that the engine computes, by their differences from a Llama.

use crate::math::{Activation, Pairs};

/// A decoder's differences from a Llama.
#[derive(Clone, Copy, Debug)]
pub(super) struct Architecture {
    /// The name in a GGUF file, which its keys begin with.
    pub(super) name: &'static str,
    pub(super) pairs: Pairs,
    pub(super) activation: Activation,
    /// True if queries and keys are normalized by head.
    pub(super) has_head_norms: bool,
    /// True if what attention and MLP add is normalized first.
    pub(super) has_post_norms: bool,
    /// True if the MLP's gate is the first half of the tensor of its other input.
    pub(super) has_fused_gate: bool,
    /// True if embeddings are multiplied by the root of their width.
    pub(super) scales_embedding: bool,
    /// True if scores and logits have a bound each, which the file must name.
    pub(super) has_caps: bool,
    /// Number of layers of the published model whose scores are scaled by its width over its heads, in place of the head
    /// size. No key of a file says so.
    pub(super) wide_scale_layers: Option<usize>,
    /// The base of rotary positions of windowed layers, if they have one of their own, in a file that names none.
    pub(super) local_base: Option<f32>,
    /// Layers whose number, from 1, is a multiple of this have no rotary positions.
    pub(super) unrotated_step: Option<usize>,
    /// True if a file may have two sets of factors of rotary angles, for short and for long texts.
    pub(super) has_long_rope: bool,
    /// The window of a file that names none.
    pub(super) window: Option<usize>,
    /// Layers whose number, from 1, is a multiple of this have no window, in a file that names no pattern; `None` if all
    /// have one.
    pub(super) unwindowed_step: Option<usize>,
    /// Keys that only this architecture applies.
    pub(super) keys: &'static [&'static str],
}

const LLAMA: Architecture = Architecture {
    name: "llama",
    pairs: Pairs::Neighbours,
    activation: Activation::Silu,
    has_head_norms: false,
    has_post_norms: false,
    has_fused_gate: false,
    scales_embedding: false,
    has_caps: false,
    wide_scale_layers: None,
    local_base: None,
    unrotated_step: None,
    has_long_rope: false,
    window: None,
    unwindowed_step: None,
    keys: &[],
};

const MISTRAL3: Architecture =
    Architecture { name: "mistral3", keys: &[TEMPERATURE_SCALE, YARN_LOG_MULTIPLIER], ..LLAMA };

const QWEN2: Architecture = Architecture { name: "qwen2", pairs: Pairs::Halves, ..LLAMA };

const QWEN3: Architecture = Architecture { name: "qwen3", has_head_norms: true, ..QWEN2 };

const SMOLLM3: Architecture = Architecture { name: "smollm3", unrotated_step: Some(4), ..LLAMA };

const PHI3: Architecture = Architecture {
    name: "phi3",
    pairs: Pairs::Halves,
    has_fused_gate: true,
    has_long_rope: true,
    keys: &[ROTARY_MAGNITUDE],
    ..LLAMA
};

const GEMMA: Architecture = Architecture {
    name: "gemma",
    pairs: Pairs::Halves,
    activation: Activation::Gelu,
    scales_embedding: true,
    ..LLAMA
};

const GEMMA2: Architecture = Architecture {
    name: "gemma2",
    has_post_norms: true,
    has_caps: true,
    wide_scale_layers: Some(46),
    window: Some(4096),
    unwindowed_step: Some(2),
    keys: &[SCORE_CAP, LOGIT_CAP],
    ..GEMMA
};

const GEMMA3: Architecture = Architecture {
    name: "gemma3",
    has_head_norms: true,
    has_caps: false,
    wide_scale_layers: Some(62),
    window: None,
    unwindowed_step: Some(6),
    local_base: Some(10000.0),
    keys: &[LOGIT_CAP, LOCAL_BASE],
    ..GEMMA2
};

/// All architectures, in the order in which messages name them.
const ALL: [Architecture; 9] = [LLAMA, MISTRAL3, QWEN2, QWEN3, SMOLLM3, PHI3, GEMMA, GEMMA2, GEMMA3];

/// The key of a factor of queries that grows with their position.
pub(super) const TEMPERATURE_SCALE: &str = "attention.temperature_scale";

/// The key of YaRN's `mscale_all_dim`.
pub(super) const YARN_LOG_MULTIPLIER: &str = "rope.scaling.yarn_log_multiplier";

/// The key of a factor of everything that is rotated.
pub(super) const ROTARY_MAGNITUDE: &str = "rope.scaling.attn_factor";

/// The key of the bound of scores.
pub(super) const SCORE_CAP: &str = "attn_logit_softcapping";

/// The key of the bound of logits.
pub(super) const LOGIT_CAP: &str = "final_logit_softcapping";

/// The key of the base of rotary positions of windowed layers.
pub(super) const LOCAL_BASE: &str = "rope.freq_base_swa";

/// The remedy for a file of another architecture.
pub(super) const ADVICE: &str =
    "use a file of the architecture llama, mistral3, qwen2, qwen3, smollm3, phi3, gemma, gemma2 or gemma3";

/// Keys that every architecture applies.
const KEYS: [&str; 2] = ["attention.sliding_window", "attention.sliding_window_pattern"];

impl Architecture {
    /// The architecture that a file calls `name`.
    pub(super) fn named(name: &str) -> Option<Self> {
        ALL.into_iter().find(|architecture| architecture.name == name)
    }

    /// The key of a file that ends with `rest`.
    pub(super) fn key(&self, rest: &str) -> String {
        format!("{}.{rest}", self.name)
    }

    /// The ends of the keys that are applied, besides those of every decoder.
    pub(super) fn applied_keys(&self) -> Vec<&'static str> {
        KEYS.into_iter().chain(self.keys.iter().copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_names_all_architectures() {
        for architecture in ALL {
            assert!(ADVICE.contains(architecture.name), "{}", architecture.name);
        }
    }
}
