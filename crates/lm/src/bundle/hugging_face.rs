//! Directories as published by others, without checksums. Their chat templates are read elsewhere.

use super::{CacheShape, ModelDir, PromptForm, SpecialIds, check_rows, fingerprints, read_text, vocabulary};
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;
use dunlin_wire::limits::SESSION_TOKENS_MAX;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

/// The part of a `config.json` that is used. A number has another name in each family of models.
#[derive(Default, Deserialize)]
struct Config {
    vocab_size: Option<u32>,
    num_hidden_layers: Option<usize>,
    n_layer: Option<usize>,
    n_layers: Option<usize>,
    num_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    n_head: Option<usize>,
    n_heads: Option<usize>,
    num_heads: Option<usize>,
    hidden_size: Option<usize>,
    n_embd: Option<usize>,
    d_model: Option<usize>,
    num_key_value_heads: Option<usize>,
    num_kv_heads: Option<usize>,
    n_head_kv: Option<usize>,
    multi_query: Option<bool>,
    new_decoder_architecture: Option<bool>,
    head_dim: Option<usize>,
    max_position_embeddings: Option<usize>,
    n_positions: Option<usize>,
    n_ctx: Option<usize>,
    max_seq_len: Option<usize>,
    max_sequence_length: Option<usize>,
    seq_length: Option<usize>,
    #[serde(flatten)]
    ids: Ids,
}

impl Config {
    /// The most tokens of a context.
    fn context(&self) -> Option<usize> {
        self.max_position_embeddings
            .or(self.n_positions)
            .or(self.n_ctx)
            .or(self.max_seq_len)
            .or(self.max_sequence_length)
            .or(self.seq_length)
    }

    /// The cache's shape, if all of it is named or follows from what is named.
    fn cache_shape(&self, file: &Path) -> Result<Option<CacheShape>> {
        let layers = self.num_hidden_layers.or(self.n_layer).or(self.n_layers).or(self.num_layers);
        let heads = self.num_attention_heads.or(self.n_head).or(self.n_heads).or(self.num_heads);
        let (Some(layers), Some(heads)) = (layers, heads) else { return Ok(None) };
        let derived =
            match self.hidden_size.or(self.n_embd).or(self.d_model).map(|width| width.checked_div(heads)) {
                Some(None) => return Err(Error::value(file, "num_attention_heads", "at least 1", heads)),
                Some(size) => size,
                None => None,
            };
        let one = self.multi_query == Some(true) && self.new_decoder_architecture != Some(true);
        let named = self.num_key_value_heads.or(self.num_kv_heads).or(self.n_head_kv);
        let kv_heads = if one { 1 } else { named.unwrap_or(heads) };
        Ok(self.head_dim.or(derived).map(|head_dim| CacheShape { layers, kv_heads, head_dim }))
    }
}

#[derive(Default, Deserialize)]
struct Ids {
    bos_token_id: Option<OneOrMany>,
    eos_token_id: Option<OneOrMany>,
    pad_token_id: Option<OneOrMany>,
}

/// Ids of tokens; a negative one, as -1, stands for none.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(i64),
    Many(Vec<i64>),
}

impl OneOrMany {
    fn into_vec(self) -> Vec<u32> {
        let ids = match self {
            Self::One(id) => vec![id],
            Self::Many(ids) => ids,
        };
        // One that is too large stays so, and is refused with those that no vocabulary has.
        ids.into_iter().filter(|id| *id >= 0).map(|id| u32::try_from(id).unwrap_or(u32::MAX)).collect()
    }
}

/// Opens an ONNX file with the `tokenizer.json` of `path` and, where they are there, its `config.json` and
/// `generation_config.json`.
pub(super) fn open_onnx(path: &Path, weights: PathBuf) -> Result<ModelDir> {
    let file = path.join("config.json");
    let config: Config = if file.exists() { read_json(&file)? } else { Config::default() };
    let generation = path.join("generation_config.json");
    let generation: Ids = if generation.exists() { read_json(&generation)? } else { Ids::default() };
    let cache_shape = config.cache_shape(&file)?;
    let context_max = config.context().unwrap_or_else(|| {
        let (file, most) = (file.display(), SESSION_TOKENS_MAX);
        tracing::warn!(
            "{file} doesn't name the longest context (max_position_embeddings), so {most} tokens are taken"
        );
        SESSION_TOKENS_MAX as usize
    });
    let stop = stops([generation.eos_token_id, config.ids.eos_token_id]);
    let special = SpecialIds {
        bos: first(generation.bos_token_id.or(config.ids.bos_token_id)),
        eos: stop.first().copied(),
        pad: first(generation.pad_token_id.or(config.ids.pad_token_id)),
        ..SpecialIds::default()
    };
    if config.vocab_size.is_none() {
        let file = file.display();
        tracing::warn!("{file} doesn't name the vocab_size, so the tokenizer's number of tokens is taken");
    }
    let dir = assemble(path, weights, config.vocab_size, special, stop)?;
    Ok(ModelDir { context_max, cache_shape, ..dir })
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
    let (vocabulary, prefixes) = vocabulary(&tokenizer, &fingerprints(&tokenizer, size));
    Ok(ModelDir {
        path: path.into(),
        name,
        role: None,
        weights,
        weights_data: Vec::new(),
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
