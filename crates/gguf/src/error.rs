//! Errors of files. Each message names the key or tensor, but not the file, which the caller knows.

use crate::block_type::BlockType;
use std::io;

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
    #[error("it is cut off in {within}")]
    CutOff {
        /// Key, tensor or part that was being read.
        within: String,
    },
    /// A declared number exceeds its bound.
    #[error("{within}: {found} {what}, at most {max} are allowed")]
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
    #[error("{what} {name:?} occurs twice")]
    Repeated {
        /// `key` or `tensor`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The number of a type is unknown.
    #[error("{within} has the unknown type {found}")]
    Type {
        /// Key or tensor.
        within: String,
        /// The type's number in the file.
        found: u32,
    },
    /// A value, or a tensor's shape or offset, is not the expected one.
    #[error("{key}: expected {expected}, found {found}")]
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
