//! Dunlin's target: a Llama from a GGUF file on candle. This is the only crate that names it, and in
//! it `matrix` alone.
//!
//! Invariants:
//! - A target's logits don't depend on what else is in the batch, on how a prompt was cut into chunks, or on what was
//!   rolled back before: the same tokens give the same bits.
//! - No file's content can make this crate panic: a bad file is an error that names it.

mod gguf;
mod kv;
mod llama;
mod math;
mod matrix;
mod numerics;

pub use llama::LlamaTarget;
pub use matrix::{THREADS_VARIABLE, threads};
