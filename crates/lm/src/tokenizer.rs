//! Text to tokens and back, with the `tokenizers` library; no other module uses it.
//!
//! A prompt's text can't become a control token. Only the prompt form, which comes from the model's directory, is
//! encoded with control tokens. The user's text is encoded separately by a second tokenizer without such tokens, so
//! `<|assistant|>` typed by a user is plain characters. As a consequence no merge crosses the border between form and
//! text, and a tokenizer that begins every text with a space also does so at that border. What a chat template writes
//! is encoded as one string; see [`typed`] for how a user's text stays text in it.
//!
//! Decoding works on bytes, because one character may be spread over several tokens.

mod framed;
pub(crate) mod from_gguf;
mod typed;

use crate::error::{Error, Result};
use crate::guard::no_panic;
pub use framed::{Framed, FramedTokenizer};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use tokenizers::{
    AddedToken, AddedVocabulary, DecoderWrapper, ModelWrapper, NormalizerWrapper, PostProcessorWrapper,
    PreTokenizer, TokenizerImpl,
};
pub(crate) use typed::REPLY;
use typed::{Markup, Unbroken};

const PLACE: &str = "{prompt}";
const FORMAT: &str = "tokenizer.json";

/// The library's tokenizer with a pre-tokenizer `P`.
type Encoder<P> = TokenizerImpl<ModelWrapper, NormalizerWrapper, P, PostProcessorWrapper, DecoderWrapper>;

/// A model's tokenizer; a clone shares its tables.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// With the added tokens, for prompt forms and rendered conversations.
    inner: Unbroken,
    /// Without the added tokens that no user may write, for users' text.
    plain: tokenizers::Tokenizer,
    control: BTreeSet<u32>,
    added: BTreeSet<u32>,
    /// Ids whose tokens fill the list and occur in no text.
    unused: BTreeSet<u32>,
    markup: Markup,
    spelling: Spelling,
    size: u32,
}

/// The rule that maps a token's string to bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spelling {
    /// Each character stands for a byte (GPT-2's table).
    ByteLevel,
    /// `▁` is a space; with `bytes`, `<0x0A>` is a byte; with `strip`, a text's first space is dropped.
    Metaspace { bytes: bool, strip: bool },
}

impl Tokenizer {
    /// Reads a `tokenizer.json` whose decoder is byte-level or of the SentencePiece kind.
    ///
    /// Truncation and padding in the file are not used, which the log says: they would cut or fill prompts.
    pub fn open(path: &Path) -> Result<Self> {
        let mut inner = read(path)?;
        let ignored = switch_off(&mut inner).map_err(|message| Error::format(path, FORMAT, message))?;
        if !ignored.is_empty() {
            tracing::info!(path = %path.display(), "ignoring {} of the tokenizer", ignored.join(" and "));
        }
        let plain = plain(&inner).map_err(|message| Error::format(path, FORMAT, message))?;
        Self::from_parts(path, inner, plain, BTreeSet::new())
    }

    /// A tokenizer of `inner`, for prompt forms, and `plain`, for users' text, in which the tokens of the ids `unused` never
    /// occur. `path` is for messages.
    ///
    /// # Errors
    /// The decoder is of another kind.
    fn from_parts(
        path: &Path,
        inner: tokenizers::Tokenizer,
        plain: tokenizers::Tokenizer,
        unused: BTreeSet<u32>,
    ) -> Result<Self> {
        // The decoder must be known before anything is decoded: an unknown one would garble text without an error.
        let spelling = spelling(path, &inner)?;
        let decoder: BTreeMap<_, _> = inner.get_added_tokens_decoder().into_iter().collect();
        let control = decoder.iter().filter(|(_, token)| token.special).map(|(id, _)| *id).collect();
        let added = decoder.keys().copied().collect();
        let markup =
            Markup::new(decoder.iter().map(|(id, token)| (*id, token.content.as_str(), token.special)));
        let size = size(&inner);
        let inner = typed::unbroken(&inner).map_err(|message| Error::format(path, FORMAT, message))?;
        let markup = markup.without_unknown(&inner);
        Ok(Self { shared: Arc::new(Shared { inner, plain, control, added, unused, markup, spelling, size }) })
    }

    /// The text of a `tokenizer.json` with the same tokens, merges and rules. Tokens that only fill the list are left
    /// out, except those that merges need.
    ///
    /// The ids of [`Self::encode_text`] may differ after [`Self::open`], if this tokenizer was built from a GGUF file
    /// with tokens of blanks that its text contains: a file has no word for tokens of users' text.
    ///
    /// # Errors
    /// The library can't write it.
    pub fn to_json(&self) -> Result<String> {
        let plain = typed::with_own_pre_tokenizer(&self.shared.inner).map_err(Error::Tokenizer)?;
        let wrong = |error: serde_json::Error| Error::Tokenizer(error.to_string());
        let mut file = serde_json::to_value(&plain).map_err(wrong)?;
        self.leave_out_unused(&mut file);
        serde_json::to_string_pretty(&file).map_err(wrong)
    }

    /// Removes the unused tokens from the vocabulary of a `tokenizer.json`. A file has no type of tokens: left in, they
    /// would count as tokens in use.
    fn leave_out_unused(&self, file: &mut Value) {
        let part = |merge: &Value, at: usize| merge.get(at).and_then(Value::as_str).map(String::from);
        let merges = file["model"]["merges"].as_array().into_iter().flatten();
        // The library refuses a merge of tokens that it doesn't know, or to one.
        let needed: BTreeSet<String> = merges
            .filter_map(|merge| Some((part(merge, 0)?, part(merge, 1)?)))
            .flat_map(|(left, right)| [format!("{left}{right}"), left, right])
            .filter(|token| self.id(token).is_some_and(|id| self.shared.unused.contains(&id)))
            .collect();
        let Some(tokens) = file["model"]["vocab"].as_object_mut() else { return };
        let is_unused = |id: &Value| {
            id.as_u64().is_some_and(|id| u32::try_from(id).is_ok_and(|id| self.shared.unused.contains(&id)))
        };
        tokens.retain(|token, id| needed.contains(token) || !is_unused(id));
    }

    /// One more than the highest id.
    pub fn size(&self) -> u32 {
        self.shared.size
    }

    /// The token's string as `tokenizer.json` spells it.
    pub fn token(&self, id: u32) -> Option<String> {
        self.shared.inner.id_to_token(id)
    }

    /// The string of a token that occurs in texts; `None` for one that only fills the list.
    pub(crate) fn used(&self, id: u32) -> Option<String> {
        self.token(id).filter(|_| !self.shared.unused.contains(&id))
    }

    /// One more than the highest id of [`Self::used`].
    pub(crate) fn used_size(&self) -> u32 {
        let last = (0..self.size()).rev().find(|id| self.used(*id).is_some());
        last.map_or(0, |id| id + 1)
    }

    /// The id that stands for what no token spells, if the model has one.
    pub(crate) fn unknown(&self) -> Option<u32> {
        match self.shared.plain.get_model() {
            ModelWrapper::BPE(model) => self.id(model.unk_token.as_deref()?),
            ModelWrapper::WordLevel(model) => self.id(&model.unk_token),
            ModelWrapper::WordPiece(model) => self.id(&model.unk_token),
            ModelWrapper::Unigram(_) => None,
        }
    }

    /// The id of a token's string.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.shared.inner.token_to_id(token)
    }

    /// True for a control token, which has no text.
    pub fn is_control(&self, id: u32) -> bool {
        self.shared.control.contains(&id)
    }

    /// True if every id from `size` on is an added token: one that a model with fewer rows never writes.
    pub(crate) fn only_adds_beyond(&self, size: u32) -> bool {
        (size..self.size()).all(|id| self.token(id).is_none() || self.shared.added.contains(&id))
    }

    /// True when the tokenizer itself adds `id` before every text.
    pub(crate) fn begins_with(&self, id: u32) -> bool {
        let empty = self.shared.inner.encode_fast("", true);
        empty.is_ok_and(|encoding| encoding.get_ids().first() == Some(&id))
    }

    /// Tokens of `form` with `prompt` in the place of `{prompt}`.
    ///
    /// Control tokens written in the form become tokens; those written in the prompt stay text. `form` must contain
    /// `{prompt}` exactly once. A `<|…|>` in it that is no token stays text, unless it is one edit from a token.
    pub fn encode_prompt(&self, form: &str, prompt: &str) -> Result<Vec<u32>> {
        let (before, after) = self.split_form(form)?;
        let mut tokens = encode(&self.shared.inner, before)?;
        tokens.extend(self.encode_text(prompt)?);
        tokens.extend(encode(&self.shared.inner, after)?);
        Ok(tokens)
    }

    /// Tokens of plain text, never a control token.
    pub fn encode_text(&self, text: &str) -> Result<Vec<u32>> {
        let tokens = encode(&self.shared.plain, text)?;
        // The model itself, not only the added tokens, may have a control token as a word.
        match tokens.iter().find(|id| self.is_control(**id)) {
            Some(id) => Err(Error::PromptControl { token: self.token(*id).unwrap_or_default() }),
            None => Ok(tokens),
        }
    }

    fn split_form<'f>(&self, form: &'f str) -> Result<(&'f str, &'f str)> {
        let wrong = |message: String| Error::Form { form: form.into(), message };
        let split = form.split_once(PLACE).filter(|(_, after)| !after.contains(PLACE));
        let (before, after) = split.ok_or_else(|| wrong(format!("expected {PLACE} exactly once")))?;
        for name in self.plain_markers(form) {
            if let Some(token) = self.shared.markup.one_edit_from(name) {
                return Err(wrong(format!(
                    "{name:?} is no token of this tokenizer; did you mean {token:?}?"
                )));
            }
        }
        Ok((before, after))
    }

    /// Every `<|…|>` of a prompt form that is no token of this tokenizer, and so is encoded as plain text.
    pub(crate) fn plain_markers<'f>(&self, form: &'f str) -> Vec<&'f str> {
        control_names(form).filter(|name| self.id(name).is_none()).collect()
    }

    /// The text of `tokens`. Control tokens are left out; bytes that aren't UTF-8 become U+FFFD.
    pub fn decode(&self, tokens: &[u32]) -> String {
        let mut stream = TextStream::new(self);
        let mut text = String::new();
        for token in tokens {
            text.push_str(&stream.push(*token));
        }
        text.push_str(&stream.finish());
        text
    }

    /// The bytes of a token; none for a control token or an unknown id.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        match self.token(id) {
            Some(token) if !self.is_control(id) => self.bytes_of(id, &token),
            _ => Vec::new(),
        }
    }

    fn bytes_of(&self, id: u32, token: &str) -> Vec<u8> {
        let literal = || token.as_bytes().to_vec();
        match self.shared.spelling {
            // Added tokens are stored as plain text, not in the bytes' spelling.
            Spelling::ByteLevel if self.shared.added.contains(&id) => literal(),
            Spelling::ByteLevel => {
                let bytes: Option<Vec<u8>> = token.chars().map(byte_of_char).collect();
                bytes.unwrap_or_else(literal)
            }
            Spelling::Metaspace { bytes, .. } => match named_byte(token) {
                Some(byte) if bytes => vec![byte],
                _ => token.replace('▁', " ").into_bytes(),
            },
        }
    }
}

/// Decodes text as its tokens arrive; a character is held back until all of its bytes are there.
#[derive(Clone, Debug)]
pub struct TextStream {
    tokenizer: Tokenizer,
    held: Vec<u8>,
    begun: bool,
}

impl TextStream {
    /// A stream at the beginning of a text.
    pub fn new(tokenizer: &Tokenizer) -> Self {
        Self { tokenizer: tokenizer.clone(), held: Vec::new(), begun: false }
    }

    /// Adds a token and returns the text that is complete with it.
    pub fn push(&mut self, token: u32) -> String {
        let bytes = self.tokenizer.token_bytes(token);
        let strip = matches!(self.tokenizer.shared.spelling, Spelling::Metaspace { strip: true, .. });
        let skip = usize::from(strip && !self.begun && bytes.first() == Some(&b' '));
        self.begun |= !bytes.is_empty();
        self.held.extend_from_slice(&bytes[skip..]);
        self.take_complete()
    }

    /// Ends the text; bytes still held back become U+FFFD.
    pub fn finish(&mut self) -> String {
        self.begun = false;
        String::from_utf8_lossy(&std::mem::take(&mut self.held)).into_owned()
    }

    fn take_complete(&mut self) -> String {
        let mut text = String::new();
        loop {
            match std::str::from_utf8(&self.held) {
                Ok(rest) => {
                    text.push_str(rest);
                    self.held.clear();
                    return text;
                }
                Err(error) => {
                    let valid = error.valid_up_to();
                    text.push_str(&String::from_utf8_lossy(&self.held[..valid]));
                    // Without a length the bytes are the beginning of a character, whose rest may still arrive.
                    let Some(wrong) = error.error_len() else {
                        self.held.drain(..valid);
                        return text;
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    self.held.drain(..valid + wrong);
                }
            }
        }
    }
}

fn read(path: &Path) -> Result<tokenizers::Tokenizer> {
    let text = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let load = || tokenizers::Tokenizer::from_bytes(&text).map_err(|e| e.to_string());
    no_panic(load).map_err(|e| Error::format(path, FORMAT, e))
}

/// Switches off truncation and padding; returns a description of each that was on.
fn switch_off(tokenizer: &mut tokenizers::Tokenizer) -> std::result::Result<Vec<String>, String> {
    let mut ignored = Vec::new();
    if let Some(truncation) = tokenizer.get_truncation() {
        ignored.push(format!("truncation to {} tokens", truncation.max_length));
    }
    if tokenizer.get_padding().is_some() {
        ignored.push("padding".into());
    }
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(|e| e.to_string())?;
    Ok(ignored)
}

/// The same tokenizer for users' text: of the added tokens it has those that are plain text and words of its model. Others
/// would get new ids.
fn plain(inner: &tokenizers::Tokenizer) -> std::result::Result<tokenizers::Tokenizer, String> {
    let mut plain = inner.clone();
    plain.with_added_vocabulary(AddedVocabulary::new());
    let added: BTreeMap<_, _> = inner.get_added_tokens_decoder().into_iter().collect();
    let is_text = |(id, token): &(u32, AddedToken)| {
        !typed::is_markup(&token.content, token.special) && plain.token_to_id(&token.content) == Some(*id)
    };
    let texts: Vec<AddedToken> = added.into_iter().filter(is_text).map(|(_, token)| token).collect();
    plain.add_tokens(texts).map_err(|e| e.to_string())?;
    Ok(plain)
}

/// One more than the highest id.
fn size(tokenizer: &tokenizers::Tokenizer) -> u32 {
    #[expect(clippy::disallowed_methods, reason = "a maximum needs no order")]
    let highest = tokenizer.get_vocab(true).values().max().copied();
    highest.map_or(0, |id| id.saturating_add(1))
}

fn encode<P: PreTokenizer>(tokenizer: &Encoder<P>, text: &str) -> Result<Vec<u32>> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let encode = || tokenizer.encode_fast(text, false).map_err(|e| e.to_string());
    Ok(no_panic(encode).map_err(Error::Tokenizer)?.get_ids().to_vec())
}

/// Every `<|…|>` in a text.
fn control_names(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("<|").filter_map(|(start, _)| {
        let length = text[start..].find("|>")?;
        Some(&text[start..start + length + 2])
    })
}

fn spelling(path: &Path, tokenizer: &tokenizers::Tokenizer) -> Result<Spelling> {
    let decoder =
        serde_json::to_value(tokenizer.get_decoder()).map_err(|e| Error::Tokenizer(e.to_string()))?;
    let steps = match decoder.get("decoders").and_then(|steps| steps.as_array()) {
        Some(steps) => steps.clone(),
        None => vec![decoder],
    };
    let kind = |step: &serde_json::Value| step["type"].as_str().unwrap_or("none").to_string();
    let kinds: Vec<String> = steps.iter().map(kind).collect();
    let has = |name: &str| kinds.iter().position(|kind| kind == name).map(|at| &steps[at]);
    if has("ByteLevel").is_some() {
        return Ok(Spelling::ByteLevel);
    }
    let bytes = has("ByteFallback").is_some();
    if let Some(metaspace) = has("Metaspace") {
        return Ok(Spelling::Metaspace { bytes, strip: metaspace["prepend_scheme"] != "never" });
    }
    if has("Replace").is_some_and(|step| step["pattern"]["String"] == "▁" && step["content"] == " ") {
        return Ok(Spelling::Metaspace { bytes, strip: has("Strip").is_some_and(|step| step["start"] == 1) });
    }
    Err(Error::value(path, "decoder", "ByteLevel, Metaspace or Replace ▁", kinds.join(", ")))
}

/// The byte that GPT-2's table spells as `c`: printable bytes are themselves, the others follow from U+0100 on.
fn byte_of_char(c: char) -> Option<u8> {
    let code = u32::from(c);
    if let Ok(byte) = u8::try_from(code) {
        return is_printable(byte).then_some(byte);
    }
    let index = usize::try_from(code.checked_sub(0x100)?).ok()?;
    (0..=u8::MAX).filter(|byte| !is_printable(*byte)).nth(index)
}

fn is_printable(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff)
}

/// The byte of a token like `<0x0A>`.
fn named_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    u8::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_byte_table_is_a_bijection() {
        let spelled = (0..0x200).filter_map(char::from_u32).filter_map(byte_of_char);
        let bytes: BTreeSet<u8> = spelled.clone().collect();
        assert_eq!(spelled.count(), 256);
        assert_eq!(bytes.len(), 256);
        assert_eq!(byte_of_char('Ġ'), Some(b' '));
        assert_eq!(byte_of_char('Ċ'), Some(b'\n'));
    }

    #[test]
    fn what_is_switched_off_is_described() {
        let mut tokenizer = tokenizers::Tokenizer::new(tokenizers::models::bpe::BPE::default());
        assert_eq!(switch_off(&mut tokenizer), Ok(vec![]));
        let limit = tokenizers::TruncationParams { max_length: 7, ..Default::default() };
        tokenizer.with_truncation(Some(limit)).unwrap();
        tokenizer.with_padding(Some(tokenizers::PaddingParams::default()));
        assert_eq!(switch_off(&mut tokenizer), Ok(vec!["truncation to 7 tokens".into(), "padding".into()]));
        assert_eq!(switch_off(&mut tokenizer), Ok(vec![]));
    }

    #[test]
    fn named_bytes() {
        assert_eq!(named_byte("<0x0A>"), Some(10));
        assert_eq!(named_byte("<0x0A0>"), None);
        assert_eq!(named_byte("0A"), None);
    }

    #[test]
    fn control_names_are_found() {
        assert_eq!(control_names("<|bos|>a<|user|>").collect::<Vec<_>>(), ["<|bos|>", "<|user|>"]);
        assert_eq!(control_names("a <| b").count(), 0);
    }
}
