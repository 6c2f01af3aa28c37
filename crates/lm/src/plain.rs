//! The keys of a GGUF file by which a model of a plain architecture computes something else.

use crate::error::{Error, Result};
use dunlin_gguf::{Header, Value};
use std::path::Path;

const ADVICE: &str = "use a model of its published architecture, without that setting";

/// Keys after the architecture's name, and the values that change nothing. 0 means none for most of them.
const NEUTRAL: [(&str, &[f64]); 12] = [
    ("attention.causal", &[1.0]),
    ("attention.clamp_kqv", &[0.0]),
    ("attention.max_alibi_bias", &[0.0]),
    ("attn_logit_softcapping", &[0.0]),
    ("final_logit_softcapping", &[0.0]),
    ("embedding_scale", &[0.0, 1.0]),
    ("residual_scale", &[0.0, 1.0]),
    ("logit_scale", &[0.0, 1.0]),
    ("expert_count", &[0.0]),
    ("rope.scaling.attn_factor", &[1.0]),
    ("use_parallel_residual", &[0.0]),
    ("nextn_predict_layers", &[0.0]),
];

/// The key of a factor of the attention's scores, 1/√(head size) in a plain model.
const SCALE: &str = "attention.scale";

/// Checks that no setting of a header makes a model of `architecture` compute more than a plain decoder does: RMS norms,
/// rotary positions, softmax attention with heads of `head_dim`, a gated MLP. A setting that is not applied would give
/// other text without a word.
///
/// # Errors
/// Names the first key whose value isn't neutral.
pub fn check_plain(path: &Path, header: &Header, architecture: &str, head_dim: usize) -> Result<()> {
    let scale = [0.0, 1.0 / (head_dim as f64).sqrt()];
    for (name, neutral) in NEUTRAL.into_iter().chain([(SCALE, &scale[..])]) {
        let key = format!("{architecture}.{name}");
        let Some(value) = header.metadata().get(&key) else { continue };
        let is_neutral = |number: f64| neutral.iter().any(|plain| (number - plain).abs() <= 1e-6);
        let number = number(value);
        if !number.is_some_and(is_neutral) {
            let found = number.map_or_else(|| value.to_string(), |number| number.to_string());
            return Err(Error::unsupported(path, format!("{key} of {found}"), ADVICE));
        }
    }
    Ok(())
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
