//! A model's directory: its weights, its tokenizer, and their checksums.
//!
//! Three forms are read into a [`ModelDir`]: Dunlin's own (`model.toml`), one exported for Hugging Face
//! (`config.json`, `tokenizer.json`, an ONNX file), and a bare `.gguf` file, which has its tokenizer in itself. Only the
//! first carries checksums, and a prompt form of its own. The others are prompted by the chat template that they bring.

mod conversation;
mod gguf;
mod hugging_face;
mod manifest;
mod onnx;
mod template;

use crate::chat::ChatTemplate;
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;
use dunlin_wire::Vocabulary;
pub use manifest::{FileSum, NewManifest};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// The end of the link that a model is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The small model on the device.
    Drafter,
    /// The large model beside the broker.
    Target,
}

/// Ids of the control tokens; `None` for those that the model lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct SpecialIds {
    /// Begins a context.
    pub bos: Option<u32>,
    /// Ends a text.
    pub eos: Option<u32>,
    /// Begins a user's turn.
    pub user: Option<u32>,
    /// Begins the model's turn.
    pub assistant: Option<u32>,
    /// Fills a row.
    pub pad: Option<u32>,
}

impl SpecialIds {
    fn named(&self) -> [(&'static str, Option<u32>); 5] {
        let Self { bos, eos, user, assistant, pad } = *self;
        [
            ("special.bos", bos),
            ("special.eos", eos),
            ("special.user", user),
            ("special.assistant", assistant),
            ("special.pad", pad),
        ]
    }
}

/// A prompt form: text with `{prompt}` once and the control tokens around it written out.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptForm {
    /// For a context's first turn.
    pub form: String,
    /// For each later turn.
    pub next_turn: String,
    /// Tokens that end a reply.
    pub stop: Vec<u32>,
}

/// A model's files and metadata, checked.
#[derive(Clone, Debug)]
pub struct ModelDir {
    /// The directory.
    pub path: PathBuf,
    /// The model's name.
    pub name: String,
    /// The end of the link that it is made for, if the directory tells.
    pub role: Option<Role>,
    /// The weights' file.
    pub weights: PathBuf,
    /// Files beside the weights' file that hold a part of them, and whose checksums the directory tells.
    pub weights_data: Vec<PathBuf>,
    /// SHA-256 of the weights' file in hex, if the directory tells.
    pub weights_sha256: Option<String>,
    /// The weights' format in words, if the directory tells.
    pub quantization: Option<String>,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// The tokens in use that have a row: padding behind them is no part of it.
    pub vocabulary: Vocabulary,
    /// Fingerprints of the vocabulary's first 1, 2, 3, … tokens.
    pub prefixes: Arc<[[u8; 8]]>,
    /// Rows of the embedding, one logit each: at least the vocabulary's size.
    pub rows: u32,
    /// Ids of the control tokens.
    pub special: SpecialIds,
    /// The prompt template of `model.toml`, or one that continues a text; only its stop tokens count beside a
    /// [`Self::chat`].
    pub prompt: PromptForm,
    /// The chat template; a `model.toml` may have a form of its own in its place.
    pub chat: Option<ChatTemplate>,
    /// The system prompt before every conversation; set it with [`Self::with_system`].
    pub system: Option<String>,
    /// The most tokens a context can hold.
    pub context_max: usize,
    /// The weights' licence, if the directory tells.
    pub licence: Option<String>,
    /// Shape of the key/value cache, if `config.json` tells.
    pub cache_shape: Option<CacheShape>,
}

/// Shape of a key/value cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheShape {
    /// Decoder layers.
    pub layers: usize,
    /// Heads of keys and values in each layer.
    pub kv_heads: usize,
    /// Numbers in each head.
    pub head_dim: usize,
}

impl ModelDir {
    /// Opens a model: a directory with `model.toml`, an `.onnx` file or a directory with one and the `tokenizer.json` it
    /// needs, a `.gguf` file, or a directory with one.
    ///
    /// Of several ONNX files, one is taken by a fixed order, with a warning. A directory with both kinds is an ONNX
    /// model if it has a `config.json`, else a GGUF one.
    ///
    /// The files' checksums and the tokenizer's fingerprint are checked here; the weights themselves are checked when
    /// the model is loaded.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let dir = if has_extension(path, "gguf") {
            gguf::open(path)?
        } else if has_extension(path, "onnx") {
            onnx::open_file(path)?
        } else if path.join("model.toml").exists() {
            manifest::open(path)?
        } else if path.is_dir() {
            open_directory(path)?
        } else {
            return Err(missing(path));
        };
        dir.check()?;
        Ok(dir)
    }

    /// Opens a model of which only the tokenizer is needed: any form of [`Self::open`], a directory with a
    /// `tokenizer.json` but no weights, or that file itself. The vocabulary is then of the size that a `config.json`
    /// beside it names, or else the tokenizer's.
    ///
    /// # Errors
    /// There is neither a model nor a tokenizer, or a file is invalid.
    pub fn open_tokenizer(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let lone = path.is_file() && path.file_name().is_some_and(|name| name == "tokenizer.json");
        let folder = if lone { path.parent().unwrap_or(Path::new("")) } else { path };
        let has_model =
            path.is_dir() && (path.join("model.toml").exists() || !onnx::candidates(path)?.is_empty());
        if has_model || !folder.join("tokenizer.json").is_file() {
            return Self::open(path);
        }
        let dir = hugging_face::open_tokenizer(folder)?.prompted()?;
        dir.check()?;
        Ok(dir)
    }

    /// The id that stands for a token without a row: the tokenizer's unknown token, else the one that ends a text.
    pub fn unknown(&self) -> u32 {
        let known = |id: &u32| *id < self.rows;
        self.tokenizer.unknown().filter(known).or(self.special.eos.filter(known)).unwrap_or(0)
    }

    /// Checks that every id is in the vocabulary and that both forms can be encoded.
    fn check(&self) -> Result<()> {
        let size = self.rows;
        let stops = self.prompt.stop.iter().map(|id| ("prompt.stop", Some(*id)));
        for (key, id) in self.special.named().into_iter().chain(stops) {
            if let Some(id) = id.filter(|id| *id >= size) {
                return Err(Error::value(&self.path, key, format!("an id below {size}"), id));
            }
        }
        if self.context_max == 0 {
            return Err(Error::value(&self.path, "context", "at least 1 token", 0));
        }
        self.check_conversation()
    }
}

/// The file of weights that [`ModelDir::open`] takes at a path without `model.toml`; `None` without one.
///
/// # Errors
/// A directory can't be read, or has several GGUF files.
pub fn weights_of(path: &Path) -> Result<Option<PathBuf>> {
    if has_extension(path, "gguf") || has_extension(path, "onnx") {
        return Ok(Some(path.into()));
    }
    if !path.is_dir() {
        return Ok(None);
    }
    let (gguf, files) = weights_in(path)?;
    Ok(gguf.or(files.into_iter().next()))
}

/// The GGUF file of a directory without `model.toml`, if it counts, and the ONNX files.
fn weights_in(path: &Path) -> Result<(Option<PathBuf>, Vec<PathBuf>)> {
    let (has_config, files) = (path.join("config.json").exists(), onnx::candidates(path)?);
    // A GGUF file needs no config.json, so one that is there belongs to the ONNX file.
    let gguf = if has_config && !files.is_empty() { None } else { gguf::only_file(path)? };
    Ok((gguf, files))
}

/// Opens a directory without `model.toml`.
fn open_directory(path: &Path) -> Result<ModelDir> {
    let has_config = path.join("config.json").exists();
    let (gguf, files) = weights_in(path)?;
    match (gguf, files.is_empty()) {
        (Some(gguf), true) => gguf::open(&gguf),
        (Some(gguf), false) => {
            let (taken, other) = (gguf.display(), files[0].display());
            tracing::warn!(
                "taken of several models: {taken}; to take another, give its path, such as {other}"
            );
            gguf::open(&gguf)
        }
        (None, false) => onnx::open_first(path, files),
        (None, true) if has_config => {
            let expected = "an .onnx file in it or in its folder onnx, or a .gguf file";
            let found = match files_with(path, "safetensors")?.is_empty() {
                true => "neither",
                false => SAFETENSORS,
            };
            Err(Error::value(path, "weights", expected, found))
        }
        (None, true) => Err(missing(path)),
    }
}

/// The files of a directory with this extension, by name.
///
/// # Errors
/// The directory can't be read.
fn files_with(directory: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in directory.read_dir().map_err(|e| Error::io(directory, e))? {
        let file = entry.map_err(|e| Error::io(directory, e))?.path();
        if has_extension(&file, extension) && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

/// Checks that a model with `size` rows has one for every token that a text can contain.
///
/// A tokenizer may have added tokens beyond them, often a pad that was never trained. Such a token is refused where it is
/// used.
fn check_rows(path: &Path, key: &str, tokenizer: &Tokenizer, size: u32) -> Result<()> {
    let known = tokenizer.size();
    if size < known && tokenizer.only_adds_beyond(size) && size > 0 {
        let path = path.display();
        tracing::info!(%path, "the tokenizer's tokens from id {size} on are beyond the model's rows: they can't be used");
        return Ok(());
    }
    if size < known || size == 0 {
        return Err(Error::value(path, key, format!("at least the tokenizer's {known}"), size));
    }
    Ok(())
}

/// The way on from a published folder of safetensors.
const SAFETENSORS: &str = "safetensors: make a drafter of them with `dunlin-agent import DIR --out DRAFTER`, \
     or a target with `dunlin-agent import DIR --role target --out TARGET`";

fn missing(path: &Path) -> Error {
    let expected = "a directory with model.toml or config.json, or a .gguf or .onnx file";
    let found = match path.metadata() {
        Err(_) if is_hub_name(path) => {
            "nothing; if it is a name on a model hub, download the model first: its .gguf file, or a folder with its \
             config.json, tokenizer.json and .onnx or .safetensors files"
        }
        Err(error) => return Error::io(path, error),
        Ok(metadata) if metadata.is_dir() => "a directory with none of them",
        Ok(_) => "another file",
    };
    Error::value(path, "model", expected, found)
}

/// True for a path like `organisation/model` that leads nowhere.
fn is_hub_name(path: &Path) -> bool {
    let parts: Vec<Component<'_>> = path.components().collect();
    matches!(parts[..], [Component::Normal(_), Component::Normal(_)])
        && path.parent().is_some_and(|parent| !parent.exists())
}

/// The SHA-256 of a file in hex, read in pieces.
fn sha256_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(|e| Error::io(path, e))?;
    let mut digest = Sha256::new();
    let mut piece = vec![0; 1 << 16];
    loop {
        match file.read(&mut piece).map_err(|e| Error::io(path, e))? {
            0 => return Ok(hex(&digest.finalize())),
            read => digest.update(&piece[..read]),
        }
    }
}

/// The fingerprints of a tokenizer's first 1, 2, … `size` tokens: the first 8 bytes of a SHA-256 over the byte length
/// (u32, little-endian) and the bytes of each. A missing or unused id counts as an empty string.
fn fingerprints(tokenizer: &Tokenizer, size: u32) -> Vec<[u8; 8]> {
    let mut digest = Sha256::new();
    let add = |id| {
        let token = tokenizer.used(id).unwrap_or_default();
        let length = u32::try_from(token.len()).unwrap_or(u32::MAX);
        digest.update(length.to_le_bytes());
        digest.update(token.as_bytes());
        let so_far = digest.clone().finalize();
        let mut fingerprint = [0; 8];
        fingerprint.copy_from_slice(&so_far[..8]);
        fingerprint
    };
    (0..size).map(add).collect()
}

/// The vocabulary of a model, and the fingerprints of its beginnings, from those of all its rows.
///
/// Models of one family are padded to different sizes. So the vocabulary ends with the last token in use: nobody writes
/// what is behind it.
fn vocabulary(tokenizer: &Tokenizer, rows: &[[u8; 8]]) -> (Vocabulary, Arc<[[u8; 8]]>) {
    let prefixes = &rows[..rows.len().min(tokenizer.used_size() as usize)];
    let fingerprint = prefixes.last().copied().unwrap_or_default();
    (Vocabulary { size: prefixes.len() as u32, fingerprint }, prefixes.into())
}

/// Bytes in hex, two digits each.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = Vec::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a Vec takes every write");
    }
    String::from_utf8(text).expect("hex digits are ASCII")
}

fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| Error::io(path, e))
}
