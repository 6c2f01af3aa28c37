//! GGUF files (versions 1 to 3): metadata, the list of tensors, block types, and dequantization. No engine is needed to
//! read one.
//!
//! Invariants:
//! - No file's content can make this crate panic, allocate more than a few times the file's size, or read outside of
//!   it.
//! - A [`Header`] that was read is consistent: every tensor is inside the file, names and keys are unique.

mod block_type;
mod dequantize;
mod error;
mod header;
mod metadata;
mod reader;
mod value;
pub mod write;

pub use block_type::BlockType;
pub use error::{Error, Result, printable};
pub use header::{Header, TensorInfo};
pub use value::{Array, Value};

/// Bounds on what a file may declare.
pub mod limits {
    /// Bytes of metadata and tensor list together.
    pub const HEADER_BYTES_MAX: u64 = 1 << 28;
    /// Metadata keys.
    pub const KEYS_MAX: u64 = 1 << 16;
    /// Tensors.
    pub const TENSORS_MAX: u64 = 1 << 16;
    /// Bytes of one string.
    pub const STRING_BYTES_MAX: u64 = 1 << 24;
    /// Elements of one array.
    pub const ARRAY_ELEMENTS_MAX: u64 = 1 << 24;
    /// Arrays within arrays.
    pub const ARRAY_DEPTH_MAX: usize = 4;
    /// Dimensions of one tensor.
    pub const DIMENSIONS_MAX: u32 = 4;
    /// Alignment of tensors in bytes.
    pub const ALIGNMENT_MAX: u64 = 1 << 20;
}
