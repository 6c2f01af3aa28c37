//! Targets from small files made by the tests, and from the demo pair.

#![allow(clippy::unwrap_used, reason = "a test that can't go on stops")]

mod dequantize;
#[path = "../../../lm/tests/models/files.rs"]
mod files;
mod identity;
mod reference;
#[path = "../../../lm/tests/engines/suite.rs"]
mod suite;
mod target;
#[path = "../../../lm/tests/engines/tiny.rs"]
mod tiny;
mod warm_up;
