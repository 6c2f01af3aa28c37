//! Errors of models, their files, and requests to them. Each message names the file or input, the expected and the
//! found value.

use crate::session::SessionId;
use dunlin_gguf::printable;
use std::io;
use std::path::{Path, PathBuf};

/// A result whose error is this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// The reason why a model could not be loaded or a request could not be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file can't be read.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error; not a `source`, so that a chain of errors shows it once.
        cause: io::Error,
    },
    /// `model.toml` or a JSON file has a mistake at a known line.
    #[error("{}:{line}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// The parser's message, with the key.
        message: String,
    },
    /// A file changed between two steps that must see the same one.
    #[error("{}: it was changed or replaced while it was read; start again", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A drafter was asked to run that was never loaded.
    #[error("the policy drafts nothing, so no drafter was loaded")]
    NoDrafter,
    /// A value in a file is not the expected one.
    #[error("{}: {}: expected {expected}, found {}", path.display(), shown(key), shown(found))]
    Value {
        /// The file.
        path: PathBuf,
        /// The key, tensor, input or output that holds the value.
        key: String,
        /// The expected value, in words.
        expected: String,
        /// The value that was found, in words.
        found: String,
    },
    /// A file isn't in the format that its name tells.
    #[error("{}: not a usable {format} file: {}", path.display(), printable(message, MESSAGE_CHARACTERS_MAX))]
    Format {
        /// The file.
        path: PathBuf,
        /// The format.
        format: &'static str,
        /// The parser's message.
        message: String,
    },
    /// A file is well-formed but uses something this crate refuses.
    #[error("{}: {} is not supported: {advice}", path.display(), printable(what, MESSAGE_CHARACTERS_MAX))]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The thing that is refused.
        what: String,
        /// The remedy.
        advice: &'static str,
    },
    /// A child process tried a model and refused it, in the words of its own error.
    #[error("{}", printable(_0, MESSAGE_CHARACTERS_MAX))]
    Tried(String),
    /// A token id is outside the vocabulary.
    #[error("token {token} is outside the vocabulary of {vocabulary}")]
    Token {
        /// The id.
        token: u32,
        /// Number of tokens in the vocabulary.
        vocabulary: u32,
    },
    /// A prompt form can't be used with this tokenizer.
    #[error("prompt form {form:?}: {message}")]
    Form {
        /// The form.
        form: String,
        /// The mistake.
        message: String,
    },
    /// A chat template has a mistake, refuses a conversation or exceeds a limit.
    #[error("{}{}: {}", chat_place(path.as_deref()), chat_line(*line), message.escape_debug())]
    Chat {
        /// The template's file, or the file that holds it.
        path: Option<PathBuf>,
        /// Line of the template, from 1, if the reason has one.
        line: Option<usize>,
        /// The reason; it may be the template's own text.
        message: String,
    },
    /// The user's text would become a control token.
    #[error("the prompt's text would become the control token {token:?}")]
    PromptControl {
        /// The control token.
        token: String,
    },
    /// A tokenizer failed on a text.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// More tokens than the model's context holds.
    #[error("context full: {length} tokens held and {added} more exceed the limit of {max}")]
    ContextFull {
        /// Tokens already held.
        length: usize,
        /// Tokens to add.
        added: usize,
        /// The limit.
        max: usize,
    },
    /// The caches of all sessions together would exceed their budget.
    #[error("cache full: {needed} bytes more than the {used} in use exceed the budget of {max} bytes")]
    CacheFull {
        /// Bytes that this request needs in addition.
        needed: usize,
        /// Bytes all sessions hold.
        used: usize,
        /// The budget, `kv_bytes_max`.
        max: usize,
    },
    /// A session isn't open.
    #[error("{0} is not open")]
    UnknownSession(SessionId),
    /// A session occurs twice in one batch.
    #[error("{0} occurs twice in one batch")]
    RepeatedSession(SessionId),
    /// A rollback to more tokens than are held.
    #[error("can't keep {keep} tokens of {length}")]
    Keep {
        /// Tokens to keep.
        keep: usize,
        /// Tokens held.
        length: usize,
    },
    /// More logit rows were requested than tokens were given.
    #[error("{rows} rows of logits asked for {tokens} tokens")]
    Rows {
        /// Rows requested.
        rows: usize,
        /// Tokens given.
        tokens: usize,
    },
    /// An engine failed while it ran.
    #[error("{engine}: {message}")]
    Engine {
        /// The engine.
        engine: &'static str,
        /// Its message.
        message: String,
    },
}

/// Characters of a message that are shown; parts of it may come from a file.
const MESSAGE_CHARACTERS_MAX: usize = 2000;
/// The same of a name or a value.
const PART_CHARACTERS_MAX: usize = 400;

fn shown(part: &str) -> String {
    printable(part, PART_CHARACTERS_MAX)
}

fn chat_place(path: Option<&Path>) -> String {
    path.map_or("chat template".into(), |path| format!("{}: chat template", path.display()))
}

fn chat_line(line: Option<usize>) -> String {
    line.map_or_else(String::new, |line| format!(", line {line}"))
}

impl Error {
    /// The error of a file that can't be read.
    pub fn io(path: &Path, cause: io::Error) -> Self {
        Self::Io { path: path.into(), cause }
    }

    /// The error of a value that is not the expected one.
    pub fn value(path: &Path, key: impl Into<String>, expected: impl ToString, found: impl ToString) -> Self {
        Self::Value {
            path: path.into(),
            key: key.into(),
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }

    /// The error of a file that isn't in its format.
    pub fn format(path: &Path, format: &'static str, message: impl ToString) -> Self {
        Self::Format { path: path.into(), format, message: message.to_string() }
    }

    /// The error of something that is refused.
    pub fn unsupported(path: &Path, what: impl Into<String>, advice: &'static str) -> Self {
        Self::Unsupported { path: path.into(), what: what.into(), advice }
    }

    /// The error of a GGUF file.
    pub fn gguf(path: &Path, error: dunlin_gguf::Error) -> Self {
        match error {
            dunlin_gguf::Error::Io(cause) => Self::io(path, cause),
            dunlin_gguf::Error::Value { key, expected, found } => Self::value(path, key, expected, found),
            other => Self::format(path, "GGUF", other),
        }
    }

    /// The error of an engine that failed while it ran.
    pub fn engine(engine: &'static str, message: impl ToString) -> Self {
        Self::Engine { engine, message: message.to_string() }
    }
}
