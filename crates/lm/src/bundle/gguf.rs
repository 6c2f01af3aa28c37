//! A bare `.gguf` file. Its metadata have all that is needed, its tokenizer too.

use super::{ModelDir, PromptForm, SpecialIds, check_rows, files_with, fingerprints, vocabulary};
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;
use crate::tokenizer::from_gguf::{
    ADD_BOS, ADVICE, Described, RoleIds, compare_texts, compare_tokens, described,
};
use dunlin_gguf::Header;
use dunlin_wire::limits::MODEL_NAME_BYTES_MAX;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

const NAME: &str = "general.name";
const ARCHITECTURE: &str = "general.architecture";
const TEMPLATE: &str = "tokenizer.chat_template";
const PARTS: &str = "split.count";

/// Most files named in a message.
const NAMED_MAX: usize = 12;

const JOIN: &str = "join the parts with `llama-gguf-split --merge FIRST-PART JOINED.gguf` of llama.cpp, then give the joined file";

/// Opens a `.gguf` file; a `tokenizer.json` beside it must agree with it.
pub(super) fn open(path: &Path) -> Result<ModelDir> {
    let header = read_header(path)?;
    let wrong = |error| Error::gguf(path, error);
    let size = header.vocabulary_size().map_err(wrong)?;
    let (tokenizer, begins) = choose(path, &header)?;
    check_rows(path, "vocabulary size", &tokenizer, size)?;
    let RoleIds { bos, eos, pad, stop } = RoleIds::read(path, &header, &tokenizer, size)?;
    // None of the file's keys says that the tokenizer.json adds a first token, but that file does.
    let begins = begins.unwrap_or_else(|| bos.is_some_and(|bos| tokenizer.begins_with(bos)));
    let begin = bos.filter(|bos| begins && tokenizer.is_control(*bos)).and_then(|bos| tokenizer.token(bos));
    if begins && begin.is_none() {
        tracing::warn!(path = %path.display(), "no control token begins a context, though the model expects one");
    }
    let form = format!("{}{{prompt}}", begin.unwrap_or_default());
    let (vocabulary, prefixes) = vocabulary(&tokenizer, &fingerprints(&tokenizer, size));
    let dir = ModelDir {
        path: path.parent().unwrap_or(Path::new("")).into(),
        name: name(path, &header)?,
        role: None,
        weights: path.into(),
        weights_data: Vec::new(),
        weights_sha256: None,
        quantization: None,
        vocabulary,
        prefixes,
        rows: size,
        tokenizer,
        special: SpecialIds { bos, eos, pad, ..SpecialIds::default() },
        prompt: PromptForm { form, next_turn: "{prompt}".into(), stop },
        chat: None,
        system: None,
        context_max: header.context_length().map_err(wrong)? as usize,
        licence: None,
        cache_shape: None,
    };
    // The folder may hold other models, too, so the file's own template comes first.
    match header.optional_string(TEMPLATE).map_err(wrong)? {
        Some(source) => dir.with_template(source, path),
        None => dir.prompted(),
    }
}

/// The header of a file that has the whole model.
fn read_header(path: &Path) -> Result<Header> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let bytes = file.metadata().map_err(|e| Error::io(path, e))?.len();
    if let Some(part) = PartName::of(path).filter(|part| part.count > 1) {
        let what =
            format!("a model in {} parts, {:?} to {:?},", part.count, part.name(1), part.name(part.count));
        return Err(Error::unsupported(path, what, JOIN));
    }
    let wrong = |error| Error::gguf(path, error);
    let header = Header::read(&mut BufReader::new(file), bytes).map_err(wrong)?;
    match header.optional_u32(PARTS).map_err(wrong)? {
        Some(count) if count > 1 => {
            Err(Error::unsupported(path, format!("one of a model's {count} parts"), JOIN))
        }
        _ => Ok(header),
    }
}

/// The tokenizer to use, and whether a context begins with the file's first token, if the file tells.
fn choose(path: &Path, header: &Header) -> Result<(Tokenizer, Option<bool>)> {
    let file = path.parent().unwrap_or(Path::new("")).join("tokenizer.json");
    let beside = if file.exists() { Some(Tokenizer::open(&file)?) } else { None };
    if let Some(other) = &beside {
        compare_tokens(path, header, &file, other, |_| true)?;
    }
    let architecture = header.optional_string(ARCHITECTURE).map_err(|error| Error::gguf(path, error))?;
    let tell = |used: &Path, reason: &str| {
        tracing::info!(model = %path.display(), ?architecture, tokenizer = %used.display(), "{reason}");
    };
    match (described(path, header)?, beside) {
        (Described::Built { tokenizer, begins, guessed: false }, Some(other)) => {
            compare_texts(path, &tokenizer, &file, &other)?;
            tell(path, "the tokenizer is the file's own, and the tokenizer.json beside it agrees");
            Ok((tokenizer, Some(begins)))
        }
        (Described::Built { guessed: true, .. }, Some(other)) => {
            tell(
                &file,
                "the model's file doesn't name its pre-tokenizer, so the tokenizer.json beside it is used",
            );
            Ok((other, told(path, header)?))
        }
        (Described::Built { tokenizer, begins, .. }, None) => {
            tell(path, "the tokenizer is the file's own");
            Ok((tokenizer, Some(begins)))
        }
        (Described::Unknown { reason }, Some(other)) => {
            tell(&file, &format!("the model's file has {reason} so the tokenizer.json beside it is used"));
            Ok((other, told(path, header)?))
        }
        (Described::Unknown { reason }, None) => Err(Error::unsupported(path, reason, ADVICE)),
    }
}

/// True if a context begins with the file's first token; `None` if the file has no such key.
fn told(path: &Path, header: &Header) -> Result<Option<bool>> {
    header.optional_bool(ADD_BOS).map_err(|error| Error::gguf(path, error))
}

/// Checks that a manifest's tokenizer has the tokens of its GGUF file, apart from control tokens.
///
/// # Errors
/// The first id whose two tokens differ, or a header that is invalid.
pub(super) fn check_tokens(path: &Path, file: &Path, tokenizer: &Tokenizer) -> Result<()> {
    // A manifest writes its control tokens out, so it may call them otherwise than the file.
    compare_tokens(path, &read_header(path)?, file, tokenizer, |id| !tokenizer.is_control(id))
}

/// The model's name in the file if it can be shown on one line, or else the file's.
fn name(path: &Path, header: &Header) -> Result<String> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let named =
        header.optional_string(NAME).map_err(|error| Error::gguf(path, error))?.unwrap_or_default().trim();
    let usable =
        !named.is_empty() && named.len() <= MODEL_NAME_BYTES_MAX && !named.contains(char::is_control);
    Ok(if usable { named.into() } else { stem.into_owned() })
}

/// The only `.gguf` file of a directory; `None` if it has none.
///
/// # Errors
/// It has several, or can't be read.
pub(super) fn only_file(directory: &Path) -> Result<Option<PathBuf>> {
    let mut files = files_with(directory, "gguf")?;
    if files.len() < 2 {
        return Ok(files.pop());
    }
    let names =
        files.iter().take(NAMED_MAX).map(|file| format!("{:?}", file.file_name().unwrap_or_default()));
    let more = if files.len() > NAMED_MAX { ", …" } else { "" };
    let found = format!("{}: {}{more}", files.len(), names.collect::<Vec<_>>().join(", "));
    Err(Error::value(directory, "model", "one .gguf file; give the path of the one to use", found))
}

/// A name as `model-00001-of-00003.gguf`.
struct PartName {
    stem: String,
    count: u32,
}

impl PartName {
    fn of(path: &Path) -> Option<Self> {
        let (rest, count) = path.file_stem()?.to_str()?.rsplit_once("-of-")?;
        let (stem, part) = rest.rsplit_once('-')?;
        let number = |text: &str| text.parse().ok().filter(|_| text.len() == 5);
        number(part)?;
        Some(Self { stem: stem.into(), count: number(count)? })
    }

    /// The name of a part, from 1.
    fn name(&self, part: u32) -> String {
        format!("{}-{part:05}-of-{:05}.gguf", self.stem, self.count)
    }
}
