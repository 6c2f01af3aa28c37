//! Agreement of a GGUF file with a `tokenizer.json` beside it: they are often downloaded from two places.

use super::list::{TOKENS, is_hole, shown};
use crate::error::{Error, Result};
use crate::tokenizer::{Tokenizer, encode};
use dunlin_gguf::Header;
use std::path::Path;

/// Texts whose pieces differ between tokenizers in use: contractions, numbers, spaces, other scripts, code. They are in
/// NFC, because some files prescribe that form and others take texts as they are.
const PROBES: [&str; 5] = [
    "Hello, world! It's 12345 o'clock, isn't it?",
    " two  spaces\n\n\tand a tab   ",
    "Grüße an Jürgen: 日本語, 한국어, हिन्दी, 🐦",
    "fooBar(x) != y_1;  // 3.14\nHTTPServer, I'LL",
    "A\n b\r\n  c",
];

/// The remedy if a `tokenizer.json` is another model's.
const OTHER_MODEL: &str =
    "this tokenizer.json seems to be another model's; remove it, or put the model's own in its place";

/// Checks that the tokenizer of `file` has the tokens of the GGUF file at `path` at the ids that `compared` says yes to.
/// A token that only one of them has is no difference: either may have a longer list.
///
/// # Errors
/// The first id whose two tokens differ; a list that isn't one of UTF-8 strings.
pub(crate) fn compare_tokens(
    path: &Path,
    header: &Header,
    file: &Path,
    tokenizer: &Tokenizer,
    compared: impl Fn(u32) -> bool,
) -> Result<()> {
    let tokens = header.strings(TOKENS).map_err(|error| Error::gguf(path, error))?.unwrap_or_default();
    // Some converters write the spaces of user-defined tokens as such.
    let spaced = |token: &str| token.replace('▁', " ");
    for (id, token) in tokens.iter().enumerate().filter(|(id, token)| !is_hole(*id, token)) {
        let other = u32::try_from(id).ok().filter(|id| compared(*id)).and_then(|id| tokenizer.token(id));
        if let Some(other) = other.filter(|other| spaced(other) != spaced(token)) {
            let expected = format!("{} as in {}", shown(token), path.display());
            let found = format!("{}: {OTHER_MODEL}", shown(&other));
            return Err(Error::value(file, format!("token {id}"), expected, found));
        }
    }
    Ok(())
}

/// Checks that the tokenizer of `file` splits some texts as the one of the GGUF file at `path` does.
///
/// # Errors
/// The first text whose tokens differ; a failure of the library.
pub(crate) fn compare_texts(path: &Path, own: &Tokenizer, file: &Path, other: &Tokenizer) -> Result<()> {
    for text in PROBES {
        let expected = encode(&own.shared.inner, text)?;
        let found = encode(&other.shared.inner, text)?;
        if expected != found {
            let expected = format!("{expected:?} as from {}", path.display());
            let found = format!("{found:?}: {OTHER_MODEL}");
            return Err(Error::value(file, format!("tokens of {text:?}"), expected, found));
        }
    }
    Ok(())
}
