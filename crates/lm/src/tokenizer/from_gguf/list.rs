//! The tokens of a GGUF file's metadata with their kinds, checked.

use super::ids::{NAMED, is_end};
use crate::error::{Error, Result};
use dunlin_gguf::Header;
use std::collections::HashMap;
use std::path::Path;

pub(super) const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";

/// Most tokens; the largest vocabularies in use have 262 144.
const TOKENS_MAX: usize = 1 << 20;
/// Most bytes of one token; the longest in use has 1024.
const TOKEN_BYTES_MAX: usize = 4096;
/// Most bytes of all added tokens together: their automaton takes many times as much memory.
const ADDED_BYTES_MAX: usize = 1 << 21;
/// Characters of a token shown in a message.
const SHOWN_CHARACTERS_MAX: usize = 40;

/// A token's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// A piece of text.
    Normal,
    /// Stands for what no token spells.
    Unknown,
    /// Has no text.
    Control,
    /// A piece of text that is found before all others.
    Defined,
    /// Never used; fills the list.
    Unused,
    /// A byte, as `<0x0A>`.
    Byte,
}

/// The tokens; a token without a text is a hole in the list.
pub(super) struct TokenList<'h> {
    pub(super) tokens: &'h [String],
    pub(super) kinds: Vec<TokenKind>,
}

impl<'h> TokenList<'h> {
    /// The list of a header; `None` if the file has none.
    ///
    /// # Errors
    /// The list is empty, or not of one length with the kinds; a token is too long, not UTF-8 or occurs twice; a kind
    /// is unknown: with file and key.
    pub(super) fn read(path: &Path, header: &'h Header) -> Result<Option<Self>> {
        let wrong = |error| Error::gguf(path, error);
        let Some(tokens) = header.strings(TOKENS).map_err(wrong)? else {
            return Ok(None);
        };
        if tokens.is_empty() || tokens.len() > TOKENS_MAX {
            return Err(Error::value(path, TOKENS, format!("1 to {TOKENS_MAX} tokens"), tokens.len()));
        }
        let kinds = match header.integers(TYPES).map_err(wrong)? {
            Some(numbers) => kinds(path, tokens, &numbers)?,
            None => {
                tracing::warn!(path = %path.display(), "{TYPES} is missing: only the tokens with a role count as control");
                let mut kinds = vec![TokenKind::Normal; tokens.len()];
                for key in NAMED {
                    let id = header.optional_u32(key).map_err(wrong)?;
                    if let Some(kind) = id.and_then(|id| kinds.get_mut(id as usize)) {
                        *kind = TokenKind::Control;
                    }
                }
                kinds
            }
        };
        let mut list = Self { tokens, kinds };
        list.mark_ends(path);
        list.check(path)?;
        Ok(Some(list))
    }

    /// The token at `id`; `None` for a hole or a missing one.
    pub(super) fn token(&self, id: u32) -> Option<&'h str> {
        let id = usize::try_from(id).ok()?;
        self.tokens.get(id).map(String::as_str).filter(|token| !is_hole(id, token))
    }

    /// Every token with its id and kind, without holes.
    pub(super) fn each(&self) -> impl Iterator<Item = (u32, &'h str, TokenKind)> + '_ {
        let ids = 0..u32::try_from(self.tokens.len()).unwrap_or(u32::MAX);
        ids.filter_map(|id| self.token(id).map(|token| (id, token, self.kinds[id as usize])))
    }

    /// True for a token that the tokenizer finds before any other rule applies.
    pub(super) fn is_added(kind: TokenKind) -> bool {
        matches!(kind, TokenKind::Control | TokenKind::Unknown | TokenKind::Defined)
    }

    /// Makes tokens with the name of an end control tokens, as llama.cpp does: some converters forget it, and then a
    /// user could write one.
    fn mark_ends(&mut self, path: &Path) {
        for (token, kind) in self.tokens.iter().zip(&mut self.kinds) {
            if is_end(token) && *kind != TokenKind::Control {
                tracing::warn!(path = %path.display(), "the token {token:?} counts as control, not as {kind:?}");
                *kind = TokenKind::Control;
            }
        }
    }

    fn check(&self, path: &Path) -> Result<()> {
        let mut ids = HashMap::with_capacity(self.tokens.len());
        let mut added_bytes = 0usize;
        for (id, token, kind) in self.each() {
            if token.len() > TOKEN_BYTES_MAX {
                let expected = format!("at most {TOKEN_BYTES_MAX} bytes a token");
                return Err(Error::value(path, TOKENS, expected, format!("{} at {id}", token.len())));
            }
            if let Some(first) = ids.insert(token, id) {
                let found = format!("{} at {first} and {id}", shown(token));
                return Err(Error::value(path, TOKENS, "each token once", found));
            }
            added_bytes += if Self::is_added(kind) { token.len() } else { 0 };
        }
        if ids.is_empty() {
            return Err(Error::value(path, TOKENS, "at least one token with a text", "none"));
        }
        if added_bytes > ADDED_BYTES_MAX {
            let expected = format!("at most {ADDED_BYTES_MAX} bytes of control and user-defined tokens");
            return Err(Error::value(path, TOKENS, expected, added_bytes));
        }
        Ok(())
    }
}

fn kinds(path: &Path, tokens: &[String], numbers: &[i64]) -> Result<Vec<TokenKind>> {
    if numbers.len() != tokens.len() {
        return Err(Error::value(
            path,
            TYPES,
            format!("one for each of {} tokens", tokens.len()),
            numbers.len(),
        ));
    }
    let kind = |(id, number): (usize, &i64)| match number {
        // 0 is "undefined", which llama.cpp treats as a token of no special kind.
        0 | 1 => Ok(TokenKind::Normal),
        2 => Ok(TokenKind::Unknown),
        3 => Ok(TokenKind::Control),
        4 => Ok(TokenKind::Defined),
        5 => Ok(TokenKind::Unused),
        6 => Ok(TokenKind::Byte),
        other => Err(Error::value(path, TYPES, "0 to 6", format!("{other} at {id}"))),
    };
    numbers.iter().enumerate().map(kind).collect()
}

/// True for an id that no tokenizer knows: it has no text, or the converters' `[PAD…]` that fills the embedding.
pub(super) fn is_hole(id: usize, token: &str) -> bool {
    let number = token.strip_prefix("[PAD").and_then(|rest| rest.strip_suffix(']'));
    token.is_empty() || number.is_some_and(|number| number.parse() == Ok(id))
}

/// A token in a message: escaped and shortened.
pub(super) fn shown(token: &str) -> String {
    match token.char_indices().nth(SHOWN_CHARACTERS_MAX) {
        Some((end, _)) => format!("{:?}…", &token[..end]),
        None => format!("{token:?}"),
    }
}
