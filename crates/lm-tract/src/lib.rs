//! Dunlin's drafter and encoder: ONNX files on tract. No other crate uses tract.
//!
//! Invariant: no file's content can make this crate panic: an invalid file is an error that names it.

pub mod drafter;
pub mod encoder;
mod onnx;

pub use drafter::Drafter;
pub use encoder::Encoder;
pub use onnx::Warning;
