//! Directories as published by others, without checksums. Their chat templates are read elsewhere.

use super::{CacheShape, ModelDir, PromptForm, SpecialIds, check_rows, read_text, vocabulary};
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;
use dunlin_wire::limits::SESSION_TOKENS_MAX;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
struct Config {
    vocab_size: u32,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    hidden_size: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: usize,
    #[serde(flatten)]
    ids: Ids,
}

#[derive(Default, Deserialize)]
struct Ids {
    bos_token_id: Option<OneOrMany>,
    eos_token_id: Option<OneOrMany>,
    pad_token_id: Option<OneOrMany>,
}

#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(u32),
    Many(Vec<u32>),
}

impl OneOrMany {
    fn into_vec(self) -> Vec<u32> {
        match self {
            Self::One(id) => vec![id],
            Self::Many(ids) => ids,
        }
    }
}

/// Opens a directory with `config.json`, `tokenizer.json` and `model.onnx` or `onnx/model.onnx`.
pub(super) fn open_directory(path: &Path) -> Result<ModelDir> {
    let file = path.join("config.json");
    let config: Config = read_json(&file)?;
    let generation = path.join("generation_config.json");
    let generation: Ids = if generation.exists() { read_json(&generation)? } else { Ids::default() };
    let shape = cache_shape(&file, &config)?;
    let stop = stops([generation.eos_token_id, config.ids.eos_token_id]);
    let special = SpecialIds {
        bos: first(generation.bos_token_id.or(config.ids.bos_token_id)),
        eos: stop.first().copied(),
        pad: first(generation.pad_token_id.or(config.ids.pad_token_id)),
        ..SpecialIds::default()
    };
    let weights = find_onnx(path)?;
    let mut dir = assemble(path, weights, Some(config.vocab_size), special, stop)?;
    dir.context_max = config.max_position_embeddings;
    dir.cache_shape = Some(shape);
    Ok(dir)
}

/// The part of a `config.json` without weights beside it that a device needs.
#[derive(Default, Deserialize)]
struct TokenizerConfig {
    vocab_size: Option<u32>,
    #[serde(flatten)]
    ids: Ids,
}

/// Opens a directory with `tokenizer.json` and, where they are there, `config.json` with the vocabulary's size, which
/// may exceed the tokenizer's, and `generation_config.json` with the ids that end a text.
pub(super) fn open_tokenizer(path: &Path) -> Result<ModelDir> {
    let config = path.join("config.json");
    let config: TokenizerConfig = if config.exists() { read_json(&config)? } else { Default::default() };
    let generation = path.join("generation_config.json");
    let generation: Ids = if generation.exists() { read_json(&generation)? } else { Ids::default() };
    let stop = stops([generation.eos_token_id, config.ids.eos_token_id]);
    let special = SpecialIds {
        bos: first(generation.bos_token_id.or(config.ids.bos_token_id)),
        eos: stop.first().copied(),
        ..SpecialIds::default()
    };
    let file = path.join("tokenizer.json");
    let mut dir = assemble(path, file, config.vocab_size, special, stop)?;
    dir.context_max = SESSION_TOKENS_MAX as usize;
    Ok(dir)
}

/// A model of the folder's tokenizer. Without a `size`, its vocabulary is the tokenizer's.
fn assemble(
    path: &Path,
    weights: PathBuf,
    size: Option<u32>,
    special: SpecialIds,
    stop: Vec<u32>,
) -> Result<ModelDir> {
    let tokenizer = Tokenizer::open(&path.join("tokenizer.json"))?;
    let size = size.unwrap_or(tokenizer.size());
    check_rows(&weights, "vocabulary size", &tokenizer, size)?;
    let special = SpecialIds { pad: special.pad.filter(|pad| *pad < size), ..special };
    let name = weights.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    // Add a first token only if the model's own tokenizer does: not every model was trained with one.
    let begin = special.bos.filter(|bos| tokenizer.begins_with(*bos)).and_then(|bos| tokenizer.token(bos));
    let prompt = PromptForm {
        form: format!("{}{{prompt}}", begin.unwrap_or_default()),
        next_turn: "{prompt}".into(),
        stop,
    };
    let (vocabulary, prefixes) = vocabulary(&tokenizer, size);
    Ok(ModelDir {
        path: path.into(),
        name,
        role: None,
        weights,
        weights_sha256: None,
        quantization: None,
        tokenizer,
        vocabulary,
        prefixes,
        rows: size,
        special,
        prompt,
        chat: None,
        system: None,
        context_max: 0,
        licence: None,
        cache_shape: None,
    })
}

fn cache_shape(file: &Path, config: &Config) -> Result<CacheShape> {
    let heads = config.num_attention_heads;
    let derived = config.hidden_size.checked_div(heads);
    let Some(head_dim) = config.head_dim.or(derived) else {
        return Err(Error::value(file, "num_attention_heads", "at least 1", heads));
    };
    let kv_heads = config.num_key_value_heads.unwrap_or(heads);
    Ok(CacheShape { layers: config.num_hidden_layers, kv_heads, head_dim })
}

fn find_onnx(path: &Path) -> Result<PathBuf> {
    let places = [path.join("model.onnx"), path.join("onnx/model.onnx")];
    let found = places.into_iter().find(|place| place.exists());
    found.ok_or_else(|| Error::value(path, "weights", "model.onnx or onnx/model.onnx", "neither"))
}

/// All the ids that end a text, each once and in order: a file that names some does not take back another's.
fn stops(named: [Option<OneOrMany>; 2]) -> Vec<u32> {
    let mut stops = Vec::new();
    for id in named.into_iter().flatten().flat_map(OneOrMany::into_vec) {
        if !stops.contains(&id) {
            stops.push(id);
        }
    }
    stops
}

fn first(ids: Option<OneOrMany>) -> Option<u32> {
    ids.and_then(|ids| ids.into_vec().first().copied())
}

pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    serde_json::from_str(&read_text(path)?).map_err(|error| Error::Syntax {
        path: path.into(),
        line: error.line(),
        message: error.to_string(),
    })
}
