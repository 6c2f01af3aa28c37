//! Typed text in a rendered conversation: a control token's spelling in it stays text.
//!
//! A rendered conversation is encoded as one string, as the model saw it in training. In it, a spelling that the
//! template wrote becomes a token, and the same spelling typed by a user must not. So the typed one is broken before
//! the template gets it: after its first character stands [`BREAK`], two characters that Unicode reserves for a
//! program's own use. The library looks for added tokens first, and does not find a broken one. Directly before the
//! pre-tokenizer, when that search is over, [`Whole`] takes the breaks out. From there on the text is what was typed:
//! merges cross the place, and all other tokens are those that the library gives for the unbroken text.
//!
//! The break is inside the spelling and no blank, so a template may trim, compare and split a text as ever. A user who
//! types [`MARK`] itself gets it back, because it is escaped.
//!
//! Added tokens that consist of blanks, such as `"\n\n"`, and those that are HTML, such as Gemma's `<b>`, are plain text
//! and not broken.

use super::{Encoder, Tokenizer};
use crate::error::{Error, Result};
use crate::guard::no_panic;
use std::collections::{BTreeMap, BTreeSet};
use tokenizers::{NormalizedString, PreTokenizedString, PreTokenizer, PreTokenizerWrapper};

/// Begins every sequence of this module; a noncharacter.
const MARK: char = '\u{fdd0}';
/// Breaks a spelling.
const BREAK: &str = "\u{fdd0}\u{fdd1}";
/// Stands for a typed [`MARK`].
const ESCAPE: &str = "\u{fdd0}\u{fdd2}";
/// Stands for a reply in a rendered conversation; no typed text contains it.
pub(crate) const REPLY: &str = "\u{fdd0}\u{fdd3}";
/// A text that no model knows, to see what it gives for one; a noncharacter too.
const UNKNOWN: &str = "\u{fdd4}";
/// The most searches for spellings that only the library's normalizer makes into a token.
const SEARCHES_MAX: usize = 8;

/// Elements of HTML that are plain text, though vocabularies have them as added tokens. `s` isn't one of them: `<s>` begins
/// a text.
const HTML: [&str; 41] = [
    "a",
    "article",
    "b",
    "blockquote",
    "body",
    "br",
    "caption",
    "code",
    "div",
    "em",
    "footer",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "head",
    "header",
    "hr",
    "html",
    "i",
    "iframe",
    "img",
    "li",
    "ol",
    "p",
    "pre",
    "span",
    "strong",
    "sub",
    "sup",
    "table",
    "tbody",
    "td",
    "tfoot",
    "th",
    "thead",
    "tr",
    "u",
    "ul",
];

/// A tokenizer that takes the breaks out.
pub(super) type Unbroken = Encoder<Whole>;

/// A pre-tokenizer that makes broken spellings whole and then does what the model's does.
#[derive(Clone, Debug)]
pub(super) struct Whole {
    inner: Option<PreTokenizerWrapper>,
}

impl PreTokenizer for Whole {
    fn pre_tokenize(&self, text: &mut PreTokenizedString) -> tokenizers::Result<()> {
        text.normalize(|part: &mut NormalizedString| {
            if part.get().contains(MARK) {
                part.replace(BREAK, "")?;
                part.replace(ESCAPE, MARK.encode_utf8(&mut [0; 4]))?;
            }
            Ok(())
        })?;
        self.inner.as_ref().map_or(Ok(()), |inner| inner.pre_tokenize(text))
    }
}

/// The same tokenizer, but with [`Whole`].
pub(super) fn unbroken(tokenizer: &tokenizers::Tokenizer) -> std::result::Result<Unbroken, String> {
    let mut unbroken = Unbroken::new(tokenizer.get_model().clone());
    unbroken.with_normalizer(tokenizer.get_normalizer().cloned()).map_err(|e| e.to_string())?;
    unbroken.with_pre_tokenizer(Some(Whole { inner: tokenizer.get_pre_tokenizer().cloned() }));
    unbroken.with_post_processor(tokenizer.get_post_processor().cloned());
    unbroken.with_decoder(tokenizer.get_decoder().cloned());
    unbroken.with_added_vocabulary(tokenizer.get_added_vocabulary().clone());
    Ok(unbroken)
}

/// The tokenizer that [`unbroken`] made this one of.
pub(super) fn with_own_pre_tokenizer(
    unbroken: &Unbroken,
) -> std::result::Result<tokenizers::Tokenizer, String> {
    let mut tokenizer = tokenizers::Tokenizer::new(unbroken.get_model().clone());
    tokenizer.with_normalizer(unbroken.get_normalizer().cloned()).map_err(|e| e.to_string())?;
    tokenizer.with_pre_tokenizer(unbroken.get_pre_tokenizer().and_then(|whole| whole.inner.clone()));
    tokenizer.with_post_processor(unbroken.get_post_processor().cloned());
    tokenizer.with_decoder(unbroken.get_decoder().cloned());
    tokenizer.with_added_vocabulary(unbroken.get_added_vocabulary().clone());
    Ok(tokenizer)
}

/// True for an added token that no user may write: a control token, or any other that isn't plain text.
pub(super) fn is_markup(spelling: &str, is_special: bool) -> bool {
    let is_blank = spelling.chars().all(|c| c.is_whitespace() || c == '▁');
    // A single character can't be broken. If it is no control token, it is no more than a word.
    is_special || !(is_blank || spelling.chars().nth(1).is_none() || is_html(spelling))
}

/// True for an HTML tag without attributes, as `<b>` or `</b>`.
pub(super) fn is_html(token: &str) -> bool {
    let name = token.strip_prefix('<').and_then(|rest| rest.strip_suffix('>'));
    name.is_some_and(|name| HTML.contains(&name.strip_prefix('/').unwrap_or(name)))
}

/// The added tokens that no user may write: see [`is_markup`].
#[derive(Debug)]
pub(super) struct Markup {
    ids: BTreeSet<u32>,
    /// For each first character the spellings that have it, and their lengths in bytes.
    spellings: BTreeMap<char, (BTreeSet<usize>, BTreeSet<String>)>,
}

impl Markup {
    /// The markup among added tokens, each with its id, its spelling, and whether it is special.
    pub(super) fn new<'t>(added: impl Iterator<Item = (u32, &'t str, bool)>) -> Self {
        let mut markup = Self { ids: BTreeSet::new(), spellings: BTreeMap::new() };
        for (id, spelling, is_special) in added {
            let Some(first) = spelling.chars().next() else { continue };
            if is_markup(spelling, is_special) {
                markup.ids.insert(id);
                let (lengths, spellings) = markup.spellings.entry(first).or_default();
                lengths.insert(spelling.len());
                spellings.insert(spelling.into());
            }
        }
        markup
    }

    /// The same, but a token of what the model does not know is no markup: it takes no part in a conversation's form.
    pub(super) fn without_unknown(mut self, tokenizer: &Unbroken) -> Self {
        let unknown = no_panic(|| tokenizer.encode_fast(UNKNOWN, false).map_err(|e| e.to_string()));
        // A model that has no such token gives an error.
        for id in unknown.iter().flat_map(|encoding| encoding.get_ids()) {
            self.ids.remove(id);
        }
        self
    }

    /// True if `text` begins with a spelling.
    fn begins(&self, text: &str) -> bool {
        let Some(first) = text.chars().next() else { return false };
        let Some((lengths, spellings)) = self.spellings.get(&first) else { return false };
        lengths.iter().any(|length| text.get(..*length).is_some_and(|start| spellings.contains(start)))
    }

    /// A spelling that is one edit away from `name`.
    pub(super) fn one_edit_from(&self, name: &str) -> Option<&str> {
        let all = self.spellings.values().flat_map(|(_, spellings)| spellings);
        all.map(String::as_str).find(|spelling| strsim::levenshtein(spelling, name) == 1)
    }
}

impl Tokenizer {
    /// Typed text with every spelling of a control or other added token broken, to be written into a conversation
    /// that is then encoded by [`Self::encode_chat`].
    ///
    /// # Errors
    /// A control token in it can't be broken.
    pub fn shield(&self, text: &str) -> Result<String> {
        let mut shielded = String::with_capacity(text.len());
        for (at, c) in text.char_indices() {
            if c == MARK {
                shielded.push_str(ESCAPE);
                continue;
            }
            shielded.push(c);
            if self.shared.markup.begins(&text[at..]) {
                shielded.push_str(BREAK);
            }
        }
        // A normalizer may turn other characters into a spelling, such as full-width ones.
        for _ in 0..SEARCHES_MAX {
            let mut found = self.spans(&shielded)?;
            found.retain(|(id, ..)| self.is_markup(*id));
            if found.is_empty() {
                return Ok(shielded);
            }
            for (_, start, end) in found.into_iter().rev() {
                let broken: String =
                    shielded[start..end].chars().flat_map(|c| [c.to_string(), BREAK.into()]).collect();
                shielded.replace_range(start..end, &broken);
            }
        }
        let left = self.spans(&shielded)?.into_iter().find(|(id, ..)| self.is_markup(*id));
        let token = left.and_then(|(id, ..)| self.token(id)).unwrap_or_default();
        Err(Error::PromptControl { token })
    }

    /// Tokens of a rendered conversation, in which typed text is shielded.
    ///
    /// # Errors
    /// Typed text would become a control token, or the tokenizer fails.
    pub fn encode_chat(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.spans(text)?.into_iter().map(|(id, ..)| id).collect())
    }

    /// Tokens of what follows the first `end` bytes of a rendered conversation. They are those of the whole text, if
    /// none of them reaches over that place, or else those of the rest alone.
    ///
    /// # Errors
    /// As [`Self::encode_chat`].
    pub(crate) fn encode_chat_after(&self, text: &str, end: usize) -> Result<Vec<u32>> {
        let spans = self.spans(text)?;
        if spans.iter().any(|(_, start, stop)| *start < end && *stop > end) {
            return self.encode_chat(&text[end..]);
        }
        Ok(spans.into_iter().filter(|(_, start, _)| *start >= end).map(|(id, ..)| id).collect())
    }

    /// True for a control token and for any other added token that isn't plain text.
    pub(crate) fn is_markup(&self, id: u32) -> bool {
        self.shared.markup.ids.contains(&id)
    }

    /// The tokens of a text, each with the bytes that it covers.
    fn spans(&self, text: &str) -> Result<Vec<(u32, usize, usize)>> {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let encoding = self.shared.inner.encode(text, false).map_err(|e| Error::Tokenizer(e.to_string()))?;
        let mut spans = Vec::with_capacity(encoding.len());
        for (id, (start, end)) in encoding.get_ids().iter().zip(encoding.get_offsets()) {
            let covered = text.get(*start..*end).unwrap_or_default();
            // The last guard: a token over a broken place can only be what the user typed.
            if self.is_markup(*id) && covered.contains(MARK) {
                return Err(Error::PromptControl { token: self.token(*id).unwrap_or_default() });
            }
            spans.push((*id, *start, *end));
        }
        Ok(spans)
    }
}
