//! Imports of small models that the tests write, and of the demo's target.

#![allow(clippy::unwrap_used, reason = "a test that can't go on stops")]

#[allow(dead_code, reason = "its own suite uses all of it")]
#[path = "../../../gguf/tests/files/build.rs"]
mod build;
mod demo;
#[path = "../../../lm/tests/models/files.rs"]
mod files;
mod folders;
mod logits;
mod once;
mod refusals;
mod small;
mod targets;
