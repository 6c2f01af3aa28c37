//! A target that runs on a server: vLLM, SGLang or llama.cpp's `llama-server`.
//!
//! The server gets the prefixes of a frame as one request and chooses one token behind each; its choices are what is
//! committed. A [`RemoteTarget`] is a [`dunlin_lm::Chooser`], so it serves several requests at once.
//!
//! Invariants:
//! - Nothing that a server sends can make this crate panic, allocate more than [`ANSWER_BYTES_MAX`] for an answer, or
//!   commit a token that isn't in the vocabulary. Its texts are escaped before they reach an error or a log.
//! - A request ends: with choices, or with an error within the patience that the settings give it.
//! - Only this crate names hyper.

mod answer;
mod backoff;
mod body;
mod http;
mod probe;
#[cfg(feature = "scripted")]
pub mod scripted;
mod server;
mod settings;
mod target;

pub use http::ANSWER_BYTES_MAX;
pub use probe::Comparison;
pub use settings::{RemoteSettings, ServerKind};
pub use target::RemoteTarget;
