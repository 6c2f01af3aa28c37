//! Dunlin's drafter and encoder: ONNX files on tract. This is the only crate that names it.
//!
//! Invariant: no file's content can make this crate panic: a bad file is an error that names it.

pub mod drafter;
pub mod encoder;
mod onnx;

pub use drafter::Drafter;
pub use encoder::Encoder;
pub use onnx::Warning;
