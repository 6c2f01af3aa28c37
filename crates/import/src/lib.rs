//! Drafters and targets from published models: a Llama, Mistral, SmolLM, Qwen2 or Qwen3 in a GGUF file or a Hugging Face folder of
//! safetensors becomes a folder with an ONNX file of 4-bit weights, a tokenizer, a chat template and `model.toml`.
//!
//! Weights pass through tensor by tensor, in pieces of rows, so memory does not grow with the model. The folder is made
//! beside its place and moved there when it is whole. A model that is used without an import is imported on first use,
//! and kept beside its source.
//!
//! Invariants:
//! - No file's content can make this crate panic, or allocate more than the file has bytes.
//! - A tensor that the graph has no place for is an error: leaving one out would give another model without a word.
//! - The result is addressed as its source is: the same ids, stops and chat template.

mod agreement;
mod config;
mod convert;
mod data;
mod gguf;
mod graph;
mod hugging_face;
mod import;
mod layers;
mod once;
mod quantize;
mod report;
mod store;
mod target;
mod watch;

pub use agreement::{QUESTION, REPLY};
pub use import::{HeadBits, Import, import};
pub use layers::LayerChoice;
pub use once::{Loadable, PendingImport};
pub use quantize::{BLOCK, quantize_block};
pub use report::{Agreement, HEAD_COST_MAX, ImportReport, Kept, TEMPERATURE, TensorReport};
pub use watch::Watch;
