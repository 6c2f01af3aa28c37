//! Models that are refused by name before llama.cpp opens their file.

use dunlin_gguf::{Header, Value};
use dunlin_lm::{Error, Result};
use std::path::Path;

/// Largest accepted size of a dimension, or number of layers.
const SIZE_MAX: u64 = 1 << 20;

/// Architectures that write no text from left to right, and what they are.
const NOT_DECODERS: [(&str, &str); 17] = [
    ("bert", ENCODER),
    ("modern-bert", ENCODER),
    ("nomic-bert", ENCODER),
    ("nomic-bert-moe", ENCODER),
    ("neo-bert", ENCODER),
    ("jina-bert-v2", ENCODER),
    ("jina-bert-v3", ENCODER),
    ("eurobert", ENCODER),
    ("gemma-embedding", ENCODER),
    ("llama-embed", ENCODER),
    ("t5encoder", ENCODER),
    ("t5", "a model with an encoder of its own"),
    ("clip", "a model of images"),
    ("wavtokenizer-dec", "a model of sound"),
    ("dream", DIFFUSION),
    ("llada", DIFFUSION),
    ("llada-moe", DIFFUSION),
];
const ENCODER: &str = "an encoder, which writes no text";
const DIFFUSION: &str = "a diffusion model, which doesn't write from left to right";

/// Architectures whose sliding window the linked llama.cpp applies; with others it computes without one.
const WINDOWED: [&str; 27] = [
    "afmoe",
    "cohere2",
    "cohere2moe",
    "deepseek4",
    "dots3note",
    "exaone-moe",
    "exaone4",
    "gemma2",
    "gemma3",
    "gemma3n",
    "gemma4",
    "gpt-oss",
    "granite-swa",
    "laguna",
    "lfm2",
    "llama4",
    "maple",
    "mellum",
    "mimo2",
    "muse-glimmer",
    "olmo2",
    "plamo3",
    "smallthinker",
    "spark2-5",
    "step35",
    "modern-bert",
    "gemma-embedding",
];

/// Settings of YaRN that it doesn't apply as published models mean them, and the values that change nothing.
const YARN_FACTORS: [(&str, f32); 4] =
    [("attn_factor", 1.0), ("yarn_attn_factor", 1.0), ("yarn_beta_fast", 32.0), ("yarn_beta_slow", 1.0)];

/// LongRoPE's factors for long texts.
const LONG_FACTORS: &str = "rope_factors_long.weight";

/// The remedy for a setting that llama.cpp would pass over in silence.
const TAKE_CANDLE: &str = "take the engine candle, which applies it where it has the architecture";

/// The remedy for a model that can't be a target.
pub(crate) const TAKE_A_DECODER: &str = "take a decoder, such as a Llama, Qwen, Gemma or Mistral";

/// Checks the header of the file at `path`.
///
/// # Errors
/// Names what can't be a target, or a size that can't be right.
pub(crate) fn check(path: &Path, header: &Header) -> Result<()> {
    let architecture = header.string("general.architecture").map_err(|e| Error::gguf(path, e))?;
    if let Some((_, what)) = NOT_DECODERS.iter().find(|(name, _)| *name == architecture) {
        let what = format!("architecture {:?}: {what}, so it", architecture);
        return Err(Error::unsupported(path, what, TAKE_A_DECODER));
    }
    for rest in ["block_count", "embedding_length", "context_length", "attention.head_count"] {
        let key = format!("{architecture}.{rest}");
        match header.metadata().get(&key) {
            // One for each layer; or none, where the architecture has no such size.
            Some(Value::Array(_)) | None => {}
            Some(value) => match value.to_u64() {
                Some(1..=SIZE_MAX) => {}
                _ if rest == "context_length" && value.to_u64().is_some_and(|length| length > 0) => {}
                _ => return Err(Error::value(path, key, format!("1 to {SIZE_MAX}"), value)),
            },
        }
    }
    check_applied(path, header, architecture)
}

/// Checks that llama.cpp applies what the file asks for; measured by `make families`.
fn check_applied(path: &Path, header: &Header, architecture: &str) -> Result<()> {
    let gguf = |error| Error::gguf(path, error);
    let key = format!("{architecture}.attention.sliding_window");
    let window =
        if WINDOWED.contains(&architecture) { None } else { header.optional_u32(&key).map_err(gguf)? };
    let context = header.context_length().map_err(gguf)?;
    if let Some(window) = window.filter(|window| (1..context).contains(window)) {
        return Err(Error::unsupported(path, format!("{key} of {window}"), TAKE_CANDLE));
    }
    for (rest, neutral) in YARN_FACTORS {
        let key = format!("{architecture}.rope.scaling.{rest}");
        let factor = header.optional_f32(&key).map_err(gguf)?;
        if let Some(factor) = factor.filter(|factor| *factor != neutral && *factor != 0.0) {
            return Err(Error::unsupported(path, format!("{key} of {factor}"), TAKE_CANDLE));
        }
    }
    // Which factors it takes depends on the size of the context, which is rounded up.
    if header.tensors().contains_key(LONG_FACTORS) {
        return Err(Error::unsupported(path, format!("tensor {LONG_FACTORS}"), TAKE_CANDLE));
    }
    Ok(())
}

/// The error of a model whose state can't be rolled back.
pub(crate) fn recurrent(path: &Path, architecture: &str) -> Error {
    let what = format!(
        "architecture {architecture:?}: its recurrent state can't be rolled back to drafts that stand, so it"
    );
    Error::unsupported(path, what, TAKE_A_DECODER)
}
