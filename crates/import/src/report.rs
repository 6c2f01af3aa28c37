//! The report of an import: each tensor's form and error.

use dunlin_gguf::BlockType;
use std::fmt;
use std::path::PathBuf;

/// The temperature at which choices are compared.
pub const TEMPERATURE: f64 = 0.8;

/// The acceptance that 4 bits of the head may cost; beyond it, the head gets 8.
pub const HEAD_COST_MAX: f64 = 0.01;

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

/// The mean overlap of two models' choices, 1 − TV of their distributions, on the same text: the rate at which the
/// source would accept the drafter's drafts there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    /// Tokens compared.
    pub tokens: usize,
    /// With a head of 4 bits.
    pub four: f64,
    /// With the source's own head, which one of 8 bits comes near.
    pub own: f64,
}

impl Agreement {
    /// True if 4 bits of the head cost more acceptance than [`HEAD_COST_MAX`].
    pub fn needs_eight_bits(&self) -> bool {
        self.own - self.four > HEAD_COST_MAX
    }
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tokens, four, own } = self;
        let bits = if self.needs_eight_bits() { 8 } else { 4 };
        write!(
            f,
            "acceptance by the source: {four:.3} with a head of 4 bits, {own:.3} with the source's; {bits} bits are taken \
             ({tokens} tokens of a built-in text, temperature {TEMPERATURE})"
        )
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
