//! A tokenizer from the metadata of a GGUF file, which has all of it: tokens, their kinds, merges or scores, and the
//! pre-tokenizer's name.
//!
//! Three kinds are built: byte-level BPE (`gpt2`), SentencePiece's BPE (`llama`), whose merges follow from scores, and
//! Gemma 4's (`gemma4`), which has SentencePiece's spelling and merges.
//! Everything in the file is foreign, so it is checked before the library sees it.

mod agree;
mod ids;
mod list;
mod pre;
mod scores;

use super::Tokenizer;
use crate::error::{Error, Result};
use crate::guard::no_panic;
pub(crate) use agree::{compare_texts, compare_tokens};
use dunlin_gguf::Header;
pub(crate) use ids::RoleIds;
use list::{TokenKind, TokenList, shown};
use pre::PreTokenizing;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::{AddedToken, DecoderWrapper, NormalizerWrapper, PreTokenizerWrapper};

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const MERGES: &str = "tokenizer.ggml.merges";
const SCORES: &str = "tokenizer.ggml.scores";
/// The key that says whether a context begins with a token.
pub(crate) const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";
const ADD_SPACE: &str = "tokenizer.ggml.add_space_prefix";
const REMOVE_SPACES: &str = "tokenizer.ggml.remove_extra_whitespaces";

/// The tokenizer that a file's metadata describe.
pub(crate) enum Described {
    /// A tokenizer.
    Built {
        /// The tokenizer.
        tokenizer: Tokenizer,
        /// True when a context begins with the file's first token.
        begins: bool,
        /// True when the file doesn't name its pre-tokenizer, so that the pieces of a text are a guess.
        guessed: bool,
    },
    /// No tokenizer that can be built.
    Unknown {
        /// The reason, in words.
        reason: String,
    },
}

impl Tokenizer {
    /// The tokenizer of a GGUF file's metadata; `path` is the file's, for messages.
    ///
    /// # Errors
    /// The metadata have no tokenizer, or one of a kind that can't be built, or they are invalid.
    pub fn from_gguf(path: &Path, header: &Header) -> Result<Self> {
        match described(path, header)? {
            Described::Built { tokenizer, .. } => Ok(tokenizer),
            Described::Unknown { reason } => Err(Error::unsupported(path, reason, ADVICE)),
        }
    }
}

/// The remedy if a file's tokenizer can't be built.
pub(crate) const ADVICE: &str = "put the model's own tokenizer.json beside the file";

/// Everything of a tokenizer but its vocabulary.
struct BpeParts {
    merges: Vec<(u32, u32)>,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    decoder: Value,
    /// The id that stands for what no token spells.
    unknown: Option<u32>,
    byte_fallback: bool,
    /// True when a piece that is a token isn't merged from its parts.
    whole: bool,
}

/// Builds the tokenizer of a header.
///
/// # Errors
/// The metadata are invalid: with file and key.
pub(crate) fn described(path: &Path, header: &Header) -> Result<Described> {
    let wrong = |error| Error::gguf(path, error);
    let Some(list) = TokenList::read(path, header)? else {
        return Ok(Described::Unknown { reason: format!("no {},", list::TOKENS) });
    };
    let flag = |key, default| header.optional_bool(key).map_err(wrong).map(|flag| flag.unwrap_or(default));
    // A reply follows every prompt, so the token at a text's end is never added; its type is checked all the same.
    flag(ADD_EOS, false)?;
    let (parts, begins, guessed) = match header.optional_string(MODEL).map_err(wrong)? {
        Some("llama") => (sentence_piece(path, header, &list)?, true, false),
        Some("gemma4") => (spaced(path, header, &list)?, true, false),
        Some("gpt2") => {
            let name = header.optional_string(PRE).map_err(wrong)?;
            let Some(pre) = pre_tokenizer(path, name) else {
                return Ok(Described::Unknown { reason: unknown_pre(name) });
            };
            (byte_level(path, header, &list, pre)?, pre.begins, name.is_none())
        }
        other => return Ok(Described::Unknown { reason: unknown_model(other) }),
    };
    let begins = flag(ADD_BOS, begins)?;
    let build = || build(&list, &parts);
    let (inner, plain) = no_panic(build).map_err(|message| Error::format(path, "GGUF", message))?;
    let unused = list.each().filter(|(_, _, kind)| *kind == TokenKind::Unused).map(|(id, ..)| id).collect();
    let tokenizer = Tokenizer::from_parts(path, inner, plain, unused)?;
    Ok(Described::Built { tokenizer, begins, guessed })
}

fn unknown_model(model: Option<&str>) -> String {
    let known = "llama (SentencePiece with scores), gpt2 (byte-level BPE) and gemma4 can be built";
    match model {
        None => format!("a tokenizer without {MODEL}, of which {known},"),
        Some("t5") => format!("the tokenizer t5 (SentencePiece's unigram), of which {known},"),
        Some("bert") => format!("the tokenizer bert (WordPiece), of which {known},"),
        Some(other) => format!("the tokenizer {}, of which {known},", shown(other)),
    }
}

fn pre_tokenizer(path: &Path, name: Option<&str>) -> Option<PreTokenizing> {
    if name.is_none() {
        let taken = pre::DEFAULT;
        tracing::warn!(path = %path.display(), "{PRE} is missing, taken as {taken}: texts may be split differently");
    }
    pre::named(name.unwrap_or(pre::DEFAULT))
}

fn unknown_pre(name: Option<&str>) -> String {
    format!("an unknown {PRE} {} (known are {}),", shown(name.unwrap_or_default()), pre::names())
}

fn byte_level(path: &Path, header: &Header, list: &TokenList<'_>, pre: PreTokenizing) -> Result<BpeParts> {
    let merges = read_merges(path, header, list)?;
    let split = |expression: &&str| {
        let pattern = json!({"Regex": expression});
        json!({"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false})
    };
    let mut steps: Vec<Value> = pre.splits.iter().map(split).collect();
    let bytes =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
    steps.push(bytes.clone());
    warn_of_missing_bytes(path, list);
    Ok(BpeParts {
        merges,
        normalizer: pre.composed.then(|| json!({"type": "NFC"})),
        pre_tokenizer: Some(json!({"type": "Sequence", "pretokenizers": steps})),
        decoder: bytes,
        unknown: None,
        byte_fallback: false,
        whole: pre.whole,
    })
}

/// A byte without a token is left out of texts, so the log tells of it.
fn warn_of_missing_bytes(path: &Path, list: &TokenList<'_>) {
    let single = |token: &str| {
        let mut characters = token.chars();
        characters.next().filter(|_| characters.next().is_none())
    };
    let bytes: BTreeSet<u8> =
        list.each().filter_map(|(_, token, _)| single(token).and_then(super::byte_of_char)).collect();
    // These occur in no UTF-8 text.
    let needed = (0..=u8::MAX).filter(|byte| !matches!(byte, 0xc0 | 0xc1 | 0xf5..));
    let missing = needed.filter(|byte| !bytes.contains(byte)).count();
    if missing > 0 {
        tracing::warn!(path = %path.display(), "{missing} bytes have no token and are left out of texts");
    }
}

fn read_merges(path: &Path, header: &Header, list: &TokenList<'_>) -> Result<Vec<(u32, u32)>> {
    let texts = header.strings(MERGES).map_err(|error| Error::gguf(path, error))?;
    let texts = texts.ok_or_else(|| Error::value(path, MERGES, "a list of merges", "nothing"))?;
    if texts.len() > scores::MERGES_MAX {
        return Err(Error::value(path, MERGES, format!("at most {}", scores::MERGES_MAX), texts.len()));
    }
    let ids: HashMap<&str, u32> = list.each().map(|(id, token, _)| (token, id)).collect();
    let mut seen = BTreeSet::new();
    let mut merges = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let wrong =
            |expected: &str| Err(Error::value(path, MERGES, expected, format!("{} at {index}", shown(text))));
        // The space that divides the parts isn't the first character.
        let second = text.char_indices().nth(1).map_or(text.len(), |(at, _)| at);
        let Some(space) = text[second..].find(' ').map(|at| second + at) else {
            return wrong("two tokens with a space between them");
        };
        let (left, right) = (&text[..space], &text[space + 1..]);
        let (Some(left_id), Some(right_id)) = (ids.get(left), ids.get(right)) else {
            return wrong("two tokens of the file's list");
        };
        if !ids.contains_key(format!("{left}{right}").as_str()) {
            return wrong("two tokens whose union is a token");
        }
        // The first of two equal merges counts.
        if seen.insert((*left_id, *right_id)) {
            merges.push((*left_id, *right_id));
        }
    }
    Ok(merges)
}

fn sentence_piece(path: &Path, header: &Header, list: &TokenList<'_>) -> Result<BpeParts> {
    let wrong = |error| Error::gguf(path, error);
    let scores = header.floats(SCORES).map_err(wrong)?;
    let count = list.tokens.len();
    let scores = scores.ok_or_else(|| Error::value(path, SCORES, format!("{count} numbers"), "nothing"))?;
    if scores.len() != count {
        return Err(Error::value(path, SCORES, format!("one for each of {count} tokens"), scores.len()));
    }
    if let Some(id) = scores.iter().position(|score| score.is_nan()) {
        return Err(Error::value(path, SCORES, "numbers", format!("NaN at {id}")));
    }
    let takes_part = |id: usize| {
        matches!(list.kinds[id], TokenKind::Normal | TokenKind::Defined)
            && !list::is_hole(id, &list.tokens[id])
    };
    let merges = scores::merges(list.tokens, scores, takes_part)
        .map_err(|found| Error::value(path, SCORES, "a vocabulary of usual size", found))?;
    let prefix = header.optional_bool(ADD_SPACE).map_err(wrong)?.unwrap_or(true);
    let mut normalizers = Vec::new();
    if header.optional_bool(REMOVE_SPACES).map_err(wrong)?.unwrap_or(false) {
        normalizers.push(json!({"type": "Strip", "strip_left": true, "strip_right": true}));
        normalizers.push(json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}));
    }
    if prefix {
        normalizers.push(json!({"type": "Prepend", "prepend": "▁"}));
    }
    normalizers.push(to_spaced());
    let mut decoders = from_spaced();
    if prefix {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let unknown = unknown(path, header, list)?;
    Ok(BpeParts {
        merges,
        normalizer: Some(json!({"type": "Sequence", "normalizers": normalizers})),
        pre_tokenizer: None,
        decoder: json!({"type": "Sequence", "decoders": decoders}),
        unknown,
        byte_fallback: true,
        whole: false,
    })
}

/// Gemma 4's BPE: SentencePiece's spelling, with merges in place of scores, and without a space before a text.
fn spaced(path: &Path, header: &Header, list: &TokenList<'_>) -> Result<BpeParts> {
    let merges = read_merges(path, header, list)?;
    let unknown = unknown(path, header, list)?;
    let lines = json!({"Regex": r"[^\n]+|\n+"});
    Ok(BpeParts {
        merges,
        normalizer: Some(to_spaced()),
        pre_tokenizer: Some(
            json!({"type": "Split", "pattern": lines, "behavior": "Isolated", "invert": false}),
        ),
        decoder: json!({"type": "Sequence", "decoders": from_spaced()}),
        unknown,
        byte_fallback: true,
        whole: false,
    })
}

fn to_spaced() -> Value {
    json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"})
}

fn from_spaced() -> Vec<Value> {
    let spaces = json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "});
    vec![spaces, json!({"type": "ByteFallback"}), json!({"type": "Fuse"})]
}

/// The id that stands for a text that no token spells; `None` if no token does and every byte has one.
fn unknown(path: &Path, header: &Header, list: &TokenList<'_>) -> Result<Option<u32>> {
    let named = header.optional_u32(ids::UNKNOWN).map_err(|error| Error::gguf(path, error))?;
    let first = list.each().find(|(_, _, kind)| *kind == TokenKind::Unknown).map(|(id, ..)| id);
    let unknown = named.filter(|id| list.token(*id).is_some()).or(first);
    // The library leaves a character out of a text if it has neither.
    let bytes = list.each().filter(|(_, token, _)| super::named_byte(token).is_some()).count();
    if unknown.is_none() && bytes < 256 {
        let expected = "a token, because not every byte has one";
        return Err(Error::value(path, ids::UNKNOWN, expected, "nothing"));
    }
    Ok(unknown)
}

/// The tokenizer with all tokens, and the one for users' text.
fn build(
    list: &TokenList<'_>,
    parts: &BpeParts,
) -> std::result::Result<(tokenizers::Tokenizer, tokenizers::Tokenizer), String> {
    let users = |id: u32, token: &str, kind| match kind {
        TokenKind::Normal | TokenKind::Byte => true,
        TokenKind::Defined => !is_marker(token),
        TokenKind::Control | TokenKind::Unknown | TokenKind::Unused => Some(id) == parts.unknown,
    };
    let inner = assemble(list, parts, |_, _, _| true, TokenList::is_added)?;
    Ok((inner, assemble(list, parts, users, |kind| kind == TokenKind::Defined)?))
}

/// The tokenizer of the tokens that `has` says yes to; those of kinds that `is_added` says yes to are found first.
fn assemble(
    list: &TokenList<'_>,
    parts: &BpeParts,
    has: impl Fn(u32, &str, TokenKind) -> bool,
    is_added: impl Fn(TokenKind) -> bool,
) -> std::result::Result<tokenizers::Tokenizer, String> {
    let kept = || list.each().filter(|(id, token, kind)| has(*id, token, *kind));
    let vocabulary: Vocab = kept().map(|(id, token, _)| (token.to_string(), id)).collect();
    let text = |id: u32| list.tokens[id as usize].as_str();
    let known = |(left, right): &(u32, u32)| {
        let (left, right) = (text(*left), text(*right));
        let union = [left, right].concat();
        let all = [left, right, union.as_str()].iter().all(|token| vocabulary.contains_key(*token));
        all.then(|| (left.to_string(), right.to_string()))
    };
    let merges = parts.merges.iter().filter_map(known).collect();
    let mut model = BPE::builder().byte_fallback(parts.byte_fallback).ignore_merges(parts.whole);
    if let Some(unknown) = parts.unknown {
        model = model.unk_token(text(unknown).to_string()).fuse_unk(true);
    }
    let model = model.vocab_and_merges(vocabulary, merges).build().map_err(|e| e.to_string())?;
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    let normalizer: Option<NormalizerWrapper> = from_json(parts.normalizer.as_ref())?;
    tokenizer.with_normalizer(normalizer).map_err(|e| e.to_string())?;
    tokenizer.with_pre_tokenizer(from_json::<PreTokenizerWrapper>(parts.pre_tokenizer.as_ref())?);
    tokenizer.with_decoder(from_json::<DecoderWrapper>(Some(&parts.decoder))?);
    let added = kept().filter(|(_, _, kind)| is_added(*kind)).map(|(_, token, kind)| {
        let special = kind != TokenKind::Defined;
        AddedToken::from(token, special).normalized(false)
    });
    tokenizer.add_tokens(added).map_err(|e| e.to_string())?;
    Ok(tokenizer)
}

fn from_json<T: serde::de::DeserializeOwned>(
    value: Option<&Value>,
) -> std::result::Result<Option<T>, String> {
    value.map(|value| serde_json::from_value(value.clone()).map_err(|e| e.to_string())).transpose()
}

/// True for a user-defined token that looks like a control token, as `<|user|>` or `[INST]`: some files declare theirs
/// so, and no user may write one.
fn is_marker(token: &str) -> bool {
    let token = token.trim();
    if super::typed::is_html(token) {
        return false;
    }
    let enclosed = |open, close| token.len() > 2 && token.starts_with(open) && token.ends_with(close);
    enclosed('<', '>') || enclosed('[', ']') || token.contains("<|") || token.contains("|>")
}
