//! Model directories and tokenizers: the demo pair and a Hugging Face export.

#![allow(clippy::unwrap_used, reason = "a test that can't go on stops")]

#[allow(dead_code, reason = "its own suite uses all of it")]
#[path = "../../../gguf/tests/files/build.rs"]
mod build;
mod bundle;
mod chat;
mod files;
mod gguf;
mod gguf_files;
mod layouts;
mod tokenizer;
