//! A Hugging Face folder of safetensors as a source.

use crate::config::{DIMENSION_MAX, Decoder, Scaling, frequencies, positive, size, windowed};
use crate::gguf::Opened;
use crate::store::{Part, Store, layer_part};
use dunlin_gguf::{BlockType, TensorInfo};
use dunlin_lm::{Error, Result};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Take};
use std::path::{Component, Path, PathBuf};

const ADVICE: &str =
    "use a Llama, Mistral, SmolLM, Qwen2 or Qwen3 with plain, linear or Llama-3 rotary positions";
const INDEX: &str = "model.safetensors.index.json";
const WHOLE: &str = "model.safetensors";
const FORMAT: &str = "safetensors";
const CARD: &str = "README.md";
/// Most bytes of a model card in which its head is sought.
const CARD_HEAD_BYTES_MAX: u64 = 64 << 10;
/// Most bytes of a licence's name.
const LICENCE_BYTES_MAX: usize = 128;
/// Most bytes of a file's header, as the format has it.
const HEADER_BYTES_MAX: u64 = 100_000_000;
/// Most bytes of a JSON file.
const JSON_BYTES_MAX: u64 = 64 << 20;
/// Most files of one model.
const FILES_MAX: usize = 1024;

/// Names of architectures in `model_type`, and whether the heads of queries and keys are normalized.
const ARCHITECTURES: [(&str, bool); 4] =
    [("llama", false), ("mistral", false), ("qwen2", false), ("qwen3", true)];

/// True for a folder with weights in safetensors.
pub(crate) fn is_source(folder: &Path) -> bool {
    folder.join(INDEX).is_file() || folder.is_dir() && !only_safetensors(folder).is_empty()
}

/// Opens a folder; what is left out or limited is added to `notices`.
pub(crate) fn open(folder: &Path, notices: &mut Vec<String>) -> Result<Opened> {
    let path = folder.join("config.json");
    // Others have other keys: their kind comes first, or a key would be reported as missing that they never have.
    let ModelType { model_type } = read_json(&path)?;
    let known = ARCHITECTURES.into_iter().find(|(name, _)| *name == model_type);
    let row = known.ok_or_else(|| Error::unsupported(&path, format!("model_type {model_type:?}"), ADVICE))?;
    let config: Config = read_json(&path)?;
    config.check(&path)?;
    let mut store = Store::default();
    for file in files(folder)? {
        add_file(&mut store, &file, &config.model_type)?;
    }
    let tied = config.tie_word_embeddings.unwrap_or(false);
    match (tied, store.has(Part::Head)) {
        (true, true) => {
            let name = store.remove(Part::Head).unwrap_or_default();
            notices
                .push(format!("{name} is left out: the model's head is its embedding (tie_word_embeddings)"));
        }
        (false, false) => {
            let expected = "a tensor, since tie_word_embeddings of config.json is not true";
            return Err(Error::value(folder, "tensor lm_head.weight", expected, "nothing"));
        }
        _ => {}
    }
    Ok((config.decoder(&path, row, notices)?, store, licence(folder)))
}

/// The licence that the model card names in its head: the lines between two lines of `---`.
fn licence(folder: &Path) -> Option<String> {
    let mut text = Vec::new();
    File::open(folder.join(CARD)).ok()?.take(CARD_HEAD_BYTES_MAX).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text);
    let (head, _) = text.strip_prefix("---\n")?.split_once("\n---")?;
    let named = head.lines().find_map(|line| line.strip_prefix("license:"))?;
    let named: String = named.trim().trim_matches(['"', '\'']).chars().filter(|c| !c.is_control()).collect();
    (!named.is_empty() && named.len() <= LICENCE_BYTES_MAX).then_some(named)
}

#[derive(Deserialize)]
struct ModelType {
    model_type: String,
}

#[derive(Deserialize)]
struct Config {
    model_type: String,
    vocab_size: u64,
    hidden_size: u64,
    intermediate_size: u64,
    num_hidden_layers: u64,
    num_attention_heads: u64,
    num_key_value_heads: Option<u64>,
    head_dim: Option<u64>,
    max_position_embeddings: u64,
    rms_norm_eps: Option<f64>,
    rope_theta: Option<f64>,
    rope_scaling: Option<Rotary>,
    rope_parameters: Option<Rotary>,
    hidden_act: Option<String>,
    tie_word_embeddings: Option<bool>,
    sliding_window: Option<u64>,
    use_sliding_window: Option<bool>,
    layer_types: Option<Vec<String>>,
    partial_rotary_factor: Option<f64>,
    quantization_config: Option<Value>,
}

/// The settings of rotary positions.
#[derive(Clone, Deserialize)]
struct Rotary {
    rope_type: Option<String>,
    r#type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
}

impl Config {
    fn decoder(
        &self,
        path: &Path,
        (architecture, has_head_norms): (&'static str, bool),
        notices: &mut Vec<String>,
    ) -> Result<Decoder> {
        let size = |key, found| size(path, key, found, DIMENSION_MAX);
        let (hidden, heads) =
            (size("hidden_size", self.hidden_size)?, size("num_attention_heads", self.num_attention_heads)?);
        let head_dim = size("head_dim", self.head_dim.unwrap_or((hidden / heads) as u64))?;
        let kv_heads = self.num_key_value_heads.unwrap_or(self.num_attention_heads);
        let epsilon = positive(path, "rms_norm_eps", self.rms_norm_eps.unwrap_or(1e-6))?;
        let context =
            crate::config::size(path, "max_position_embeddings", self.max_position_embeddings, usize::MAX)?;
        let (base, scaling) = self.rotary(path)?;
        Ok(Decoder {
            architecture,
            layers: size("num_hidden_layers", self.num_hidden_layers)?,
            hidden,
            inner: size("intermediate_size", self.intermediate_size)?,
            heads,
            kv_heads: size("num_key_value_heads", kv_heads)?,
            head_dim,
            vocabulary: size("vocab_size", self.vocab_size)?,
            context: windowed(context, self.window(), notices),
            epsilon: epsilon as f32,
            base,
            scaling,
            frequencies: frequencies(head_dim, base, scaling),
            is_permuted: false,
            has_head_norms,
        })
    }

    /// Refuses settings that the graph can't express.
    fn check(&self, path: &Path) -> Result<()> {
        let refused = |what: String| Err(Error::unsupported(path, what, ADVICE));
        if let Some(quantization) = &self.quantization_config {
            let method = quantization.get("quant_method").and_then(Value::as_str).unwrap_or("of some kind");
            let what = format!("quantization {method:?} in safetensors");
            return Err(Error::unsupported(
                path,
                what,
                "use the model's unquantized weights, or a GGUF file",
            ));
        }
        match self.hidden_act.as_deref() {
            None | Some("silu" | "swish") => {}
            Some(other) => return refused(format!("hidden_act {other:?}")),
        }
        match self.partial_rotary_factor {
            Some(part) if part != 1.0 => refused(format!("partial_rotary_factor {part}")),
            _ => Ok(()),
        }
    }

    /// The number of tokens that any layer looks back, if it is limited.
    fn window(&self) -> Option<usize> {
        // Mistral has no switch, Qwen has one that is off by default.
        let is_on = self.use_sliding_window.unwrap_or(self.model_type == "mistral");
        let slides =
            self.layer_types.as_ref().is_none_or(|types| types.iter().any(|t| t != "full_attention"));
        let window = self.sliding_window.filter(|window| *window > 0 && is_on && slides)?;
        usize::try_from(window).ok()
    }

    /// The base of the rotary angles, and their scaling.
    fn rotary(&self, path: &Path) -> Result<(f64, Scaling)> {
        let rotary = self.rope_parameters.as_ref().or(self.rope_scaling.as_ref());
        let base = self.rope_theta.or(rotary.and_then(|rotary| rotary.rope_theta)).unwrap_or(10000.0);
        let base = positive(path, "rope_theta", base)?;
        let Some(rotary) = rotary else { return Ok((base, Scaling::Linear(1.0))) };
        let number = |key: &str, found: Option<f64>| {
            let found = found.ok_or_else(|| Error::value(path, key, "a number above 0", "nothing"))?;
            positive(path, key, found)
        };
        let scaling = match rotary.rope_type.as_deref().or(rotary.r#type.as_deref()) {
            None | Some("default") => Scaling::Linear(1.0),
            Some("linear") => Scaling::Linear(number("rope_scaling.factor", rotary.factor)?),
            Some("llama3") => Scaling::Llama3 {
                factor: number("rope_scaling.factor", rotary.factor)?,
                low: number("rope_scaling.low_freq_factor", rotary.low_freq_factor)?,
                high: number("rope_scaling.high_freq_factor", rotary.high_freq_factor)?,
                original: number(
                    "rope_scaling.original_max_position_embeddings",
                    rotary.original_max_position_embeddings,
                )?,
            },
            Some(other) => return Err(Error::unsupported(path, format!("rotary scaling {other:?}"), ADVICE)),
        };
        Ok((base, scaling))
    }
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The files of the weights.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let index = folder.join(INDEX);
    if index.is_file() {
        let named: BTreeSet<String> = read_json::<Index>(&index)?.weight_map.into_values().collect();
        if named.len() > FILES_MAX {
            return Err(Error::value(
                &index,
                "weight_map",
                format!("at most {FILES_MAX} files"),
                named.len(),
            ));
        }
        let is_plain = |name: &String| {
            matches!(Path::new(name).components().collect::<Vec<_>>()[..], [Component::Normal(_)])
        };
        if let Some(name) = named.iter().find(|name| !is_plain(name)) {
            return Err(Error::value(
                &index,
                "weight_map",
                "names of files in its folder",
                format!("{name:?}"),
            ));
        }
        return Ok(named.into_iter().map(|name| folder.join(name)).collect());
    }
    if folder.join(WHOLE).is_file() {
        return Ok(vec![folder.join(WHOLE)]);
    }
    let mut found = only_safetensors(folder);
    match found.len() {
        1 => Ok(vec![found.remove(0)]),
        count => {
            let found = format!("{count} .safetensors files and no {INDEX}");
            Err(Error::value(folder, "weights", format!("{WHOLE}, or {INDEX} with its files"), found))
        }
    }
}

fn only_safetensors(folder: &Path) -> Vec<PathBuf> {
    let entries = folder.read_dir().into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|end| end == "safetensors")).collect();
    found.sort();
    found
}

/// Adds the tensors of a file, after its header and length were compared.
fn add_file(store: &mut Store, path: &Path, model_type: &str) -> Result<()> {
    let mut file = File::open(path).map_err(|e| Error::io(path, e))?;
    let length = file.metadata().map_err(|e| Error::io(path, e))?.len();
    let (metadata, begin) = header(path, &mut file, length)?;
    let index = store.add_file(path, file);
    for name in metadata.offset_keys() {
        // Checkpoints of some years ago store what follows from the settings.
        if name.ends_with(".rotary_emb.inv_freq") {
            continue;
        }
        let part = part(&name).ok_or_else(|| {
            let what = format!("tensor {name} in a model of model_type {model_type:?}");
            Error::unsupported(path, what, ADVICE)
        })?;
        let Some(info) = metadata.info(&name) else { continue };
        let kind = kind(path, &name, info.dtype)?;
        let (from, to) = info.data_offsets;
        let shape: Vec<u64> = info.shape.iter().map(|size| *size as u64).collect();
        if shape.is_empty() || shape.contains(&0) {
            return Err(Error::value(
                path,
                format!("tensor {name}"),
                "a vector or matrix",
                format!("{shape:?}"),
            ));
        }
        let info = TensorInfo { kind, shape, offset: begin + from as u64, bytes: (to - from) as u64 };
        store.add(part, index, &name, info)?;
    }
    Ok(())
}

/// The header of a file, and the place where its data begin.
fn header(path: &Path, file: &mut File, length: u64) -> Result<(Metadata, u64)> {
    let wrong = |message: String| Error::format(path, FORMAT, message);
    let mut first = Vec::new();
    read(path, &mut file.take(9), &mut first)?;
    let (Some(bytes), Some(brace)) = (first.first_chunk::<8>(), first.get(8)) else {
        return Err(wrong(format!("it has {length} bytes: it is cut off")));
    };
    let bytes = u64::from_le_bytes(*bytes);
    if *brace != b'{' {
        let hint = guessed(&first);
        return Err(wrong(format!("it does not begin with a length and a list of tensors{hint}")));
    }
    if bytes > HEADER_BYTES_MAX || bytes > length.saturating_sub(8) {
        let most = HEADER_BYTES_MAX.min(length.saturating_sub(8));
        return Err(wrong(format!(
            "its header claims {bytes} bytes, at most {most} are possible: it is cut off or damaged"
        )));
    }
    let mut text = vec![b'{'];
    read(path, &mut file.take(bytes.saturating_sub(1)), &mut text)?;
    let metadata: Metadata =
        serde_json::from_slice(&text).map_err(|error| wrong(format!("its list of tensors: {error}")))?;
    let (begin, data) = (8 + bytes, metadata.data_len() as u64);
    if begin.checked_add(data) != Some(length) {
        let found = length - begin;
        return Err(wrong(format!(
            "it has {found} bytes of data and its header lists {data}: it is cut off or damaged"
        )));
    }
    Ok((metadata, begin))
}

/// A guess at the format of a file that isn't safetensors, in words; empty for an unknown one.
fn guessed(first: &[u8]) -> &'static str {
    match first {
        [b'P', b'K', ..] => ": it seems to be a zip archive, as PyTorch's .bin files are",
        [b'v', b'e', b'r', b's', b'i', b'o', b'n', ..] => {
            ": it seems to be a pointer of Git LFS; download the file itself, for example with `git lfs pull`"
        }
        [b'<', ..] => ": it seems to be a web page; download the file itself",
        [b'G', b'G', b'U', b'F', ..] => ": it is a GGUF file; name it .gguf",
        _ => "",
    }
}

fn read(path: &Path, from: &mut Take<&mut File>, to: &mut Vec<u8>) -> Result<()> {
    from.read_to_end(to).map(drop).map_err(|error| Error::io(path, error))
}

fn kind(path: &Path, name: &str, dtype: Dtype) -> Result<BlockType> {
    match dtype {
        Dtype::F32 => Ok(BlockType::F32),
        Dtype::F16 => Ok(BlockType::F16),
        Dtype::BF16 => Ok(BlockType::BF16),
        other => {
            let what = format!("tensor {name} of type {other:?}");
            Err(Error::unsupported(path, what, "use weights of type F32, F16 or BF16, or a GGUF file"))
        }
    }
}

/// The part that a tensor's name stands for.
fn part(name: &str) -> Option<Part> {
    match name {
        "model.embed_tokens.weight" => Some(Part::Embedding),
        "lm_head.weight" => Some(Part::Head),
        "model.norm.weight" => Some(Part::Norm),
        _ => {
            let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
            layer_part(layer.parse().ok()?, rest, |row| row.2)
        }
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let mut text = Vec::new();
    file.take(JSON_BYTES_MAX).read_to_end(&mut text).map_err(|e| Error::io(path, e))?;
    serde_json::from_slice(&text).map_err(|error| Error::Syntax {
        path: path.into(),
        line: error.line(),
        message: error.to_string(),
    })
}
