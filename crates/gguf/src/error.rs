//! Errors of files. Each message names the key or tensor, but not the file, which the caller knows.

use crate::block_type::BlockType;
use std::io;

/// Characters of a name that are shown.
const NAME_CHARACTERS_MAX: usize = 120;
/// Characters of a value that are shown.
const TEXT_CHARACTERS_MAX: usize = 240;

/// Text of a file as it is shown: cut to this many characters, and without those that a terminal obeys or that can't be
/// seen.
pub fn printable(text: &str, characters_max: usize) -> String {
    let is_cut = text.char_indices().nth(characters_max).is_some();
    // Quotes and backslashes do no harm; everything else that `escape_debug` changes might.
    let is_plain = |c: char| matches!(c, '\'' | '"' | '\\') || c.escape_debug().count() == 1;
    let mut shown = String::new();
    for c in text.chars().take(characters_max) {
        if is_plain(c) { shown.push(c) } else { shown.extend(c.escape_debug()) }
    }
    if is_cut {
        shown.push('…');
    }
    shown
}

fn name_shown(name: &str) -> String {
    printable(name, NAME_CHARACTERS_MAX)
}

/// A result whose error is this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// The reason why a file, or a part of it, can't be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system failed on the file.
    #[error("{0}")]
    Io(io::Error),
    /// The file doesn't begin with `GGUF`.
    #[error("it doesn't begin with GGUF")]
    Magic,
    /// The file's numbers are big-endian.
    #[error("it is of a big-endian machine: convert it to little-endian")]
    BigEndian,
    /// A version of the format that isn't known.
    #[error("version {0} is unknown, expected 1 to 3")]
    Version(u32),
    /// The file ends too early.
    #[error("it is cut off in {}", name_shown(within))]
    CutOff {
        /// Key, tensor or part that was being read.
        within: String,
    },
    /// A declared number exceeds its bound.
    #[error("{}: {found} {what}, at most {max} are allowed", name_shown(within))]
    TooMany {
        /// Key, tensor or part that was being read.
        within: String,
        /// The counted things, in words.
        what: &'static str,
        /// The declared number.
        found: u64,
        /// The bound.
        max: u64,
    },
    /// A key or tensor occurs twice.
    #[error("{what} {:?} occurs twice", name_shown(name))]
    Repeated {
        /// `key` or `tensor`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The number of a type is unknown.
    #[error("{} has the unknown type {found}", name_shown(within))]
    Type {
        /// Key or tensor.
        within: String,
        /// The type's number in the file.
        found: u32,
    },
    /// A value, or a tensor's shape or offset, is not the expected one.
    #[error("{}: expected {expected}, found {}", name_shown(key), printable(found, TEXT_CHARACTERS_MAX))]
    Value {
        /// Key or tensor.
        key: String,
        /// The expected value, in words.
        expected: String,
        /// The value that was found, in words.
        found: String,
    },
    /// A type that can't be dequantized here.
    #[error(
        "numbers of type {0} can't be computed, only those of F32, F16, BF16, Q4_0 to Q8_0 and Q2_K to Q6_K"
    )]
    Dequantize(BlockType),
}

impl Error {
    pub(crate) fn value(key: impl Into<String>, expected: impl Into<String>, found: impl ToString) -> Self {
        Self::Value { key: key.into(), expected: expected.into(), found: found.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_file_is_cut_and_escaped() {
        assert_eq!(printable("it's \"é\\\"", 9), "it's \"é\\\"");
        assert_eq!(printable("a\u{1b}[2Jb\n\u{202e}", 9), "a\\u{1b}[2Jb\\n\\u{202e}");
        assert_eq!(printable("abcd", 3), "abc…");
        let name = "\u{1b}".repeat(1000);
        for error in [
            Error::CutOff { within: name.clone() },
            Error::TooMany { within: name.clone(), what: "keys", found: 2, max: 1 },
            Error::Repeated { what: "key", name: name.clone() },
            Error::Type { within: name.clone(), found: 99 },
            Error::value(name.clone(), "a number", name.clone()),
        ] {
            let shown = error.to_string();
            assert!(shown.len() < 4000 && !shown.contains('\u{1b}'), "{shown}");
        }
    }
}
