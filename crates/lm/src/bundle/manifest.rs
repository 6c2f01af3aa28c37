//! Dunlin's own form of a model directory: `model.toml` names the files, their checksums and the vocabulary.

use super::{
    ModelDir, PromptForm, Role, SpecialIds, check_rows, fingerprints, gguf, has_extension, hex, read_text,
    sha256_file, vocabulary,
};
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

const FORMAT: u32 = 1;

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format: u32,
    name: String,
    role: Role,
    weights: Weights,
    tokenizer: FileSum,
    vocabulary: VocabularyTable,
    #[serde(default)]
    special: SpecialIds,
    prompt: PromptTable,
    limits: Limits,
    licence: Licence,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Weights {
    file: String,
    sha256: String,
    quantization: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    data: Vec<FileSum>,
}

/// A file of a model's directory and its checksum.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FileSum {
    /// The file, relative to the directory.
    pub file: String,
    /// Its SHA-256 in hex.
    pub sha256: String,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct PromptTable {
    form: String,
    next_turn: String,
    stop: Vec<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    template: Option<TemplateTable>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct TemplateTable {
    file: String,
    sha256: String,
    /// Special tokens by the names that templates use.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    tokens: BTreeMap<String, String>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct VocabularyTable {
    size: u32,
    fingerprint: String,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    context: usize,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Licence {
    weights: String,
}

/// Opens a directory that holds `model.toml`.
pub(super) fn open(path: &Path) -> Result<ModelDir> {
    let file = path.join("model.toml");
    let manifest = parse(&file, &read_text(&file)?)?;
    if manifest.format != FORMAT {
        return Err(Error::value(&file, "format", FORMAT, manifest.format));
    }
    let weights = resolve(&file, path, "weights.file", &manifest.weights.file)?;
    let tokenizer_file = resolve(&file, path, "tokenizer.file", &manifest.tokenizer.file)?;
    check_sum(&tokenizer_file, &manifest.tokenizer.sha256)?;
    check_sum(&weights, &manifest.weights.sha256)?;
    let mut weights_data = Vec::with_capacity(manifest.weights.data.len());
    for data in &manifest.weights.data {
        let place = resolve(&file, path, "weights.data.file", &data.file)?;
        check_sum(&place, &data.sha256)?;
        weights_data.push(place);
    }
    let tokenizer = Tokenizer::open(&tokenizer_file)?;
    if has_extension(&weights, "gguf") {
        gguf::check_tokens(&weights, &tokenizer_file, &tokenizer)?;
    }
    let size = manifest.vocabulary.size;
    check_rows(&file, "vocabulary.size", &tokenizer, size)?;
    let rows = fingerprints(&tokenizer, size);
    let found = rows.last().map(|fingerprint| hex(fingerprint)).unwrap_or_default();
    if found != manifest.vocabulary.fingerprint {
        let key = format!("vocabulary.fingerprint of {}", tokenizer_file.display());
        return Err(Error::value(&file, key, manifest.vocabulary.fingerprint, found));
    }
    let (vocabulary, prefixes) = vocabulary(&tokenizer, &rows);
    let PromptTable { form, next_turn, stop, template } = manifest.prompt;
    let dir = ModelDir {
        path: path.into(),
        name: manifest.name,
        role: Some(manifest.role),
        weights,
        weights_data,
        weights_sha256: Some(manifest.weights.sha256),
        quantization: Some(manifest.weights.quantization),
        tokenizer,
        vocabulary,
        prefixes,
        rows: size,
        special: manifest.special,
        prompt: PromptForm { form, next_turn, stop },
        chat: None,
        system: None,
        context_max: manifest.limits.context,
        licence: Some(manifest.licence.weights),
        cache_shape: None,
    };
    let Some(TemplateTable { file: name, sha256, tokens }) = template else { return Ok(dir) };
    let template = resolve(&file, path, "prompt.template.file", &name)?;
    check_sum(&template, &sha256)?;
    dir.with_template_file(&template, tokens)
}

/// The facts of a model made of another one that its `model.toml` tells beside those of the other.
#[derive(Clone, Debug)]
pub struct NewManifest<'m> {
    /// The model's name in reports.
    pub name: &'m str,
    /// The side that it is for.
    pub role: Role,
    /// The weights' format in words.
    pub quantization: &'m str,
    /// The weights' file.
    pub weights: FileSum,
    /// The files beside it.
    pub data: Vec<FileSum>,
    /// The tokenizer's file.
    pub tokenizer: FileSum,
    /// The chat template's file, if the other has one.
    pub template: Option<FileSum>,
    /// The most tokens a context can hold.
    pub context: usize,
    /// Rows of the embedding, one logit each.
    pub rows: u32,
    /// The weights' licence.
    pub licence: &'m str,
}

impl NewManifest<'_> {
    /// The text of the `model.toml` of a model that is addressed as `source` is: with its vocabulary, control
    /// tokens, prompt forms and stops.
    ///
    /// # Errors
    /// A value can't be written as TOML.
    pub fn made_of(self, source: &ModelDir) -> Result<String> {
        let names = source.chat.as_ref().map(|chat| chat.names().clone()).unwrap_or_default();
        let template =
            self.template.map(|FileSum { file, sha256 }| TemplateTable { file, sha256, tokens: names });
        let PromptForm { form, next_turn, stop } = source.prompt.clone();
        let FileSum { file, sha256 } = self.weights;
        let fingerprint = fingerprints(&source.tokenizer, self.rows).pop().unwrap_or_default();
        let manifest = Manifest {
            format: FORMAT,
            name: self.name.into(),
            role: self.role,
            weights: Weights { file, sha256, quantization: self.quantization.into(), data: self.data },
            tokenizer: self.tokenizer,
            vocabulary: VocabularyTable { size: self.rows, fingerprint: hex(&fingerprint) },
            special: source.special,
            prompt: PromptTable { form, next_turn, stop, template },
            limits: Limits { context: self.context },
            licence: Licence { weights: self.licence.into() },
        };
        toml::to_string(&manifest).map_err(|error| Error::format(&source.path, "model.toml", error))
    }
}

fn parse(file: &Path, text: &str) -> Result<Manifest> {
    toml::from_str(text).map_err(|error| Error::Syntax {
        path: file.into(),
        line: error.span().map_or(1, |span| line_of(text, span.start)),
        message: error.message().into(),
    })
}

fn line_of(text: &str, byte: usize) -> usize {
    text.bytes().take(byte).filter(|b| *b == b'\n').count() + 1
}

/// The file a manifest names, relative to its directory.
fn resolve(manifest: &Path, dir: &Path, key: &str, name: &str) -> Result<PathBuf> {
    let relative =
        Path::new(name).components().all(|c| matches!(c, Component::Normal(_) | Component::ParentDir));
    if name.is_empty() || !relative {
        return Err(Error::value(manifest, key, "a path relative to this file", format!("{name:?}")));
    }
    Ok(dir.join(name))
}

fn check_sum(file: &Path, expected: &str) -> Result<()> {
    let found = sha256_file(file)?;
    if found.eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    Err(Error::value(file, "sha256", expected, found))
}

/// Refuses a size of 0 or one that the tokenizer exceeds.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_count_from_one() {
        assert_eq!(line_of("a\nb\nc", 0), 1);
        assert_eq!(line_of("a\nb\nc", 2), 2);
        assert_eq!(line_of("a\nb\nc", 4), 3);
    }

    #[test]
    fn only_relative_files() {
        let at = |name| resolve(Path::new("m"), Path::new("dir"), "weights.file", name);
        assert_eq!(at("../t.json").unwrap(), Path::new("dir/../t.json"));
        assert!(at("/etc/passwd").is_err());
        assert!(at("").is_err());
    }
}
