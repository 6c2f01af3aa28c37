//! Drafters and encoders: the demo pair, small files made by the tests, and a Hugging Face export.

#![allow(clippy::unwrap_used, reason = "a test that can't go on stops")]

mod attention;
mod drafter;
mod encoder;
#[path = "../../../lm/tests/models/files.rs"]
mod files;
mod golden;
mod memory;
mod onnx;
mod signatures;
mod variants;
