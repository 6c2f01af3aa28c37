//! Dunlin's drafter and encoder: ONNX files on tract, and a writer of such files. No other crate uses tract.
//!
//! Invariant: no file's content can make this crate panic: an invalid file is an error that names it.

pub mod drafter;
pub mod encoder;
pub mod graph;
mod onnx;

pub use drafter::Drafter;
pub use encoder::Encoder;
pub use onnx::Warning;
