//! The keys of a GGUF file by which a model of a known architecture computes something else.

use crate::error::{Error, Result};
use dunlin_gguf::{Header, Value};
use std::path::Path;

const ADVICE: &str = "use a model of its published architecture, without that setting";

/// Longest part of a value that a message shows.
const SHOWN_CHARACTERS_MAX: usize = 80;

/// Keys after the architecture's name that every decoder has, or that change no number.
const COMMON: [&str; 19] = [
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "vocab_size",
    "expert_used_count",
    "pooling_type",
    "tensor_data_layout",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.finetuned",
];

/// Keys after the architecture's name, and the values besides 0 that change nothing.
const NEUTRAL: [(&str, f64); 5] = [
    ("attention.causal", 1.0),
    ("embedding_scale", 1.0),
    ("residual_scale", 1.0),
    ("logit_scale", 1.0),
    ("rope.scaling.attn_factor", 1.0),
];

/// Keys that matter only to a reader that computes YaRN, which `rope.scaling.type` names.
const YARN: [&str; 5] = [
    "rope.scaling.original_context_length",
    "rope.scaling.yarn_ext_factor",
    "rope.scaling.yarn_attn_factor",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
];

/// Keys whose value 0 isn't neutral.
const NOT_ZERO: [&str; 2] = ["attention.causal", "rope.scaling.attn_factor"];

/// The key of a factor of the attention's scores.
const SCALE: &str = "attention.scale";

/// Checks that no setting of a header makes a model of `architecture` compute more than its reader applies: a setting
/// that is not applied would give other text without a word.
///
/// `scale` is the factor of the attention's scores that is used, `applied` has the ends of the keys that the reader
/// applies besides those of every decoder. Any other key of the architecture must have a value that means nothing, which
/// is 0 for an unknown one.
///
/// # Errors
/// Names the first key whose value isn't neutral.
pub fn check_plain(
    path: &Path,
    header: &Header,
    architecture: &str,
    scale: f64,
    applied: &[&str],
) -> Result<()> {
    for (key, value) in header.metadata() {
        let Some(name) = key.strip_prefix(architecture).and_then(|rest| rest.strip_prefix('.')) else {
            continue;
        };
        if COMMON.contains(&name) || YARN.contains(&name) || applied.contains(&name) {
            continue;
        }
        let number = number(value);
        if !number.is_some_and(|number| is_neutral(name, number, scale)) {
            let found = number.map_or_else(|| shown(value), |number| number.to_string());
            return Err(Error::unsupported(path, format!("{} of {found}", key.escape_debug()), ADVICE));
        }
    }
    Ok(())
}

fn is_neutral(name: &str, number: f64, scale: f64) -> bool {
    let is = |neutral: f64| (number - neutral).abs() <= 1e-6;
    let named = NEUTRAL.iter().any(|(key, neutral)| *key == name && is(*neutral));
    named || name == SCALE && is(scale) || is(0.0) && !NOT_ZERO.contains(&name)
}

/// The value as a number, 0 or 1 for a truth value.
fn number(value: &Value) -> Option<f64> {
    match *value {
        Value::Bool(is_set) => Some(u8::from(is_set).into()),
        Value::F32(number) => Some(number.into()),
        Value::F64(number) => Some(number),
        ref other => other.to_u64().map(|number| number as f64),
    }
}

/// The beginning of a value's text, which in a file may have megabytes.
fn shown(value: &Value) -> String {
    value.to_string().chars().take(SHOWN_CHARACTERS_MAX).collect()
}
