//! Tests over whole models: the demo pair, small files made on the spot, and a Hugging Face export.

#![allow(clippy::unwrap_used, reason = "a test that can't go on stops")]

mod bundle;
mod drafter;
mod encoder;
mod files;
mod golden;
mod onnx;
mod reference;
mod target;
mod tokenizer;
