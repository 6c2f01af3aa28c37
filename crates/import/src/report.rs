//! The report of an import: each tensor's form and error.

use crate::agreement::Agreement;
use dunlin_gguf::BlockType;
use std::fmt;
use std::path::PathBuf;

/// The form in which a tensor was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// The source's own 4-bit codes and scales, without loss.
    Codes,
    /// 4 bits by least squares.
    Rounded,
    /// 4 bits and 4 more for what they leave, about 8 together.
    RoundedTo8,
    /// 32-bit floats.
    Floats,
    /// 8 bits in blocks of 32, as GGUF has them.
    Bytes,
    /// 16-bit floats.
    Halves,
}

/// A stored tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorReport {
    /// Its name in the source.
    pub name: String,
    /// Its type in the source.
    pub source: BlockType,
    /// Its form in the drafter.
    pub kept: Kept,
    /// Root of the mean squared error over that of the mean square; 0 without loss.
    pub error: f64,
}

impl TensorReport {
    /// True if the source's numbers were rounded to few bits once before.
    pub fn is_rounded_twice(&self) -> bool {
        matches!(self.kept, Kept::Rounded | Kept::RoundedTo8 | Kept::Bytes)
            && !matches!(self.source, BlockType::F32 | BlockType::F16 | BlockType::BF16)
    }
}

impl fmt::Display for TensorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, source, kept, error } = self;
        match kept {
            Kept::Codes => write!(f, "{name}: {source} as it is"),
            Kept::Floats => write!(f, "{name}: {source} to floats"),
            Kept::Halves => write!(f, "{name}: {source} to 16-bit floats, error {error:.4}"),
            Kept::Rounded | Kept::RoundedTo8 | Kept::Bytes => {
                let bits = if *kept == Kept::Rounded { 4 } else { 8 };
                let twice = if self.is_rounded_twice() { ", rounded twice" } else { "" };
                write!(f, "{name}: {source} to {bits} bits{twice}, error {error:.4}")
            }
        }
    }
}

/// A finished import.
#[derive(Clone, Debug)]
pub struct ImportReport {
    /// The drafter's folder.
    pub folder: PathBuf,
    /// The source's architecture.
    pub architecture: &'static str,
    /// The layers taken, numbered as in the source.
    pub layers: Vec<usize>,
    /// The layers of the source.
    pub source_layers: usize,
    /// The agreement with the source, if it was measured.
    pub agreement: Option<Agreement>,
    /// Every matrix, and the embedding.
    pub tensors: Vec<TensorReport>,
    /// Bytes of the weights' files.
    pub bytes: u64,
    /// Everything that was left out, limited or guessed, in sentences.
    pub notices: Vec<String>,
}

impl ImportReport {
    /// The tensor whose rounding changed it most.
    pub fn worst(&self) -> Option<&TensorReport> {
        self.tensors.iter().max_by(|a, b| a.error.total_cmp(&b.error))
    }
}
