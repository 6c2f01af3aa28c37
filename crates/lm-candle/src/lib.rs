//! Dunlin's target: a decoder from a GGUF file on candle. No other crate uses candle, and here only `matrix` does.
//!
//! Invariants:
//! - A target's logits don't depend on the rest of the batch, on the chunks of a prompt, or on earlier rollbacks: the
//!   same tokens give the same bits.
//! - No file's content can make this crate panic: an invalid file is an error that names it.

mod decoder;
#[cfg(feature = "files")]
pub mod files;
mod gguf;
mod kv;
mod math;
mod matrix;
mod numerics;

pub use decoder::CandleTarget;
pub use kv::KvType;
pub use matrix::{THREADS_VARIABLE, threads};
