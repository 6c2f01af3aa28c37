//! Model directories and tokenizers: the demo pair and a Hugging Face export.

#![allow(clippy::unwrap_used, reason = "a test that can't go on stops")]

mod bundle;
mod files;
mod tokenizer;
