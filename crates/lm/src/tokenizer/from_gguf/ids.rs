//! Ids with a role, and the ids that end a reply.

use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;
use dunlin_gguf::Header;
use std::path::Path;

const BOS: &str = "tokenizer.ggml.bos_token_id";
const EOS: &str = "tokenizer.ggml.eos_token_id";
const EOT: &str = "tokenizer.ggml.eot_token_id";
const EOM: &str = "tokenizer.ggml.eom_token_id";
const PAD: &str = "tokenizer.ggml.padding_token_id";
pub(super) const UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";
/// The format's own spelling.
const SEPARATOR: &str = "tokenizer.ggml.seperator_token_id";

/// Keys of ids with a role.
pub(super) const NAMED: [&str; 7] = [BOS, EOS, EOT, EOM, PAD, UNKNOWN, SEPARATOR];

/// Names of control tokens that end a reply, as llama.cpp knows them. `</s>` isn't one: where it ends a text, the file
/// says so.
const ENDS: [&str; 24] = [
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|calls|>",
    "<|flush|>",
    "<end_of_turn>",
    "<turn|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<end_of_utterance>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
    "<|fim_pad|>",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<|tool_response>",
];

/// The ids that a file gives a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RoleIds {
    /// Begins a context.
    pub(crate) bos: Option<u32>,
    /// Ends a text.
    pub(crate) eos: Option<u32>,
    /// Fills a row.
    pub(crate) pad: Option<u32>,
    /// Ends a reply: sorted, each once.
    pub(crate) stop: Vec<u32>,
}

impl RoleIds {
    /// The ids of a header, whose tokens `tokenizer` has, among `size`.
    ///
    /// # Errors
    /// An id isn't a number below `size`: with file and key.
    pub(crate) fn read(path: &Path, header: &Header, tokenizer: &Tokenizer, size: u32) -> Result<Self> {
        let id = |key: &str| -> Result<Option<u32>> {
            let id = header.optional_u32(key).map_err(|error| Error::gguf(path, error))?;
            match id.filter(|id| *id >= size) {
                Some(id) => Err(Error::value(path, key, format!("an id below {size}"), id)),
                None => Ok(id),
            }
        };
        for key in NAMED {
            id(key)?;
        }
        // SentencePiece numbers its first tokens so; a file may leave out what is as usual.
        let usual = |key: &str, usual: u32, name: &str| -> Result<Option<u32>> {
            let is_usual = tokenizer.id(name) == Some(usual) && tokenizer.is_control(usual);
            Ok(id(key)?.or(is_usual.then_some(usual)))
        };
        let (bos, eos) = (usual(BOS, 1, "<s>")?, usual(EOS, 2, "</s>")?);
        let control = |name: &&str| tokenizer.id(name).filter(|id| tokenizer.is_control(*id) && *id < size);
        let mut stop: Vec<u32> = [eos, id(EOT)?, id(EOM)?].into_iter().flatten().collect();
        stop.extend(ENDS.iter().filter(|name| !between_messages(name, tokenizer)).filter_map(control));
        stop.sort_unstable();
        stop.dedup();
        Ok(Self { bos, eos, pad: id(PAD)?, stop })
    }
}

/// True for a control token's name that ends a reply.
pub(super) fn is_end(name: &str) -> bool {
    ENDS.contains(&name)
}

/// True for `<|end|>` where it ends one message of several in a reply: those vocabularies have ends of their own.
fn between_messages(name: &str, tokenizer: &Tokenizer) -> bool {
    let has = |name: &str| tokenizer.id(name).is_some();
    let calls = has("<|call|>") || has("<|calls|>");
    name == "<|end|>" && calls && (has("<|return|>") || has("<|flush|>"))
}
