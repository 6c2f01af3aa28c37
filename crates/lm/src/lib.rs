//! Language models for Dunlin: a drafter on tract, a target on candle, their tokenizer, scripted toys, and an
//! encoder that measures how close a text is to another.
//!
//! This is the only crate that names those three libraries, each in one module: tract in `onnx`, candle
//! in `gguf`, tokenizers in [`tokenizer`]. Everything else is plain slices of `u32` tokens and `f32` logits.
//!
//! Invariants:
//! - Nothing here knows a frame, a policy, a clock, a socket or a random number: a model is a function of
//!   the tokens it was given.
//! - A [`Target`]'s logits don't depend on what else is in the batch, on how a prompt was cut into chunks, or
//!   on what was rolled back before: the same tokens give the same bits.
//! - No file's content can make this crate panic: a bad file is an [`Error`] that names it.

pub mod bertscore;
pub mod bundle;
pub mod draft;
pub mod drafter;
pub mod encoder;
mod error;
mod gguf;
mod guard;
mod kv;
mod llama;
mod math;
mod onnx;
pub mod target;
pub mod tokenizer;
pub mod toy;

pub use bertscore::{BertScore, bert_score};
pub use bundle::{ModelDir, PromptForm, Role, SpecialIds, Vocabulary};
pub use draft::{Draft, Rows};
pub use drafter::Drafter;
pub use encoder::{Embeddings, Encoder};
pub use error::{Error, Result};
pub use gguf::{THREADS_VARIABLE, threads};
pub use llama::LlamaTarget;
pub use onnx::Warning;
pub use target::{Extend, SessionId, Target};
pub use tokenizer::{TextStream, Tokenizer};
pub use toy::{Toy, ToyDrafter, ToyTarget};
