//! Dunlin's target: any GGUF file on llama.cpp in this process. No other crate uses llama.cpp.
//!
//! A thread holds the model and one context, of which each session is a sequence. [`LlamaTarget`] hands work to it.
//!
//! Invariants:
//! - [`Promise::Exact`](dunlin_lm::Promise::Exact) is announced only by a build whose kernels can keep it, and after rows
//!   of the loaded model were compared bit for bit: see `trial`.
//! - The memory of the caches is taken once, within the budget; a session that finds no room disturbs no other.
//! - No instruction of llama.cpp runs on a processor that it wasn't compiled for.
//! - A file is checked by our own reader before llama.cpp opens it. llama.cpp trusts a file further than our reader can
//!   check, so a child process loads and runs it first: see `rehearsal`.

mod build;
mod decoder;
mod facts;
mod journal;
mod load;
mod order;
mod refusals;
mod rehearsal;
mod sessions;
mod target;
mod trial;

pub use build::{LlamaBuild, check_processor};
pub use decoder::TILES_OFF;
pub use order::LlamaSettings;
pub use rehearsal::{Rehearsed, rehearse};
pub use target::LlamaTarget;
