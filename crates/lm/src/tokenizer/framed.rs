//! A tokenizer for an encoder: a whole text with the tokens that the tokenizer itself adds around it, such as `[CLS]`
//! and `[SEP]`. Nothing is decoded, so any kind of `tokenizer.json` will do.

use super::{read, size};
use crate::error::{Error, Result};
use crate::guard::no_panic;
use std::collections::BTreeSet;
use std::path::Path;
use tokenizers::{Encoding, TruncationParams};

/// Limit of tokens per text if `tokenizer.json` sets none: the number of positions of most encoders.
const TEXT_TOKENS_MAX: usize = 512;

/// A tokenizer that only encodes.
#[derive(Debug)]
pub struct FramedTokenizer {
    inner: tokenizers::Tokenizer,
    frame: BTreeSet<u32>,
    /// One more than the highest id.
    pub size: u32,
}

/// A text's tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Framed {
    /// Their ids.
    pub tokens: Vec<u32>,
    /// For each token, true if it is one of those that the tokenizer adds around texts.
    pub special: Vec<bool>,
}

impl FramedTokenizer {
    /// Reads any `tokenizer.json`; its padding is ignored.
    ///
    /// # Errors
    /// The file can't be read or isn't a tokenizer, or the tokens around a text exceed its limit.
    pub fn open(path: &Path) -> Result<Self> {
        let mut inner = read(path)?;
        let size = size(&inner);
        let wrong = |message: String| Error::format(path, "tokenizer.json", message);
        inner.with_padding(None);
        let limit = inner.get_truncation().cloned();
        inner.with_truncation(None).map_err(|e| wrong(e.to_string()))?;
        let frame = frame(&encode(&inner, "").map_err(wrong)?);
        let limit =
            limit.unwrap_or_else(|| TruncationParams { max_length: TEXT_TOKENS_MAX, ..Default::default() });
        // The library subtracts the frame from the limit without checking that it fits.
        if limit.max_length <= frame.len() {
            let expected = format!("more than the {} tokens around every text", frame.len());
            return Err(Error::value(path, "truncation.max_length", expected, limit.max_length));
        }
        inner.with_truncation(Some(limit)).map_err(|e| wrong(e.to_string()))?;
        let frame = frame.into_iter().collect();
        Ok(Self { inner, frame, size })
    }

    /// Tokens of `text`, truncated to the tokenizer's own limit.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn encode(&self, text: &str) -> Result<Framed> {
        let encoding = encode(&self.inner, text).map_err(Error::Tokenizer)?;
        let tokens = encoding.get_ids().to_vec();
        let special = tokens.iter().map(|id| self.frame.contains(id)).collect();
        Ok(Framed { tokens, special })
    }
}

fn encode(tokenizer: &tokenizers::Tokenizer, text: &str) -> std::result::Result<Encoding, String> {
    no_panic(|| tokenizer.encode_fast(text, true).map_err(|e| e.to_string()))
}

/// Ids of the tokens that the post-processor added.
fn frame(encoding: &Encoding) -> Vec<u32> {
    let added = encoding.get_ids().iter().zip(encoding.get_special_tokens_mask());
    added.filter(|(_, special)| **special == 1).map(|(id, _)| *id).collect()
}
