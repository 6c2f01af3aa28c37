//! Targets on llama.cpp from small files made by the tests, and from the demo pair.

#![allow(clippy::unwrap_used, reason = "a test that can't go on stops")]

#[path = "../../../lm/tests/models/files.rs"]
mod files;
mod layout;
mod mutants;
mod refusals;
#[path = "../../../lm/tests/engines/suite.rs"]
mod suite;
mod target;
#[path = "../../../lm/tests/engines/tiny.rs"]
mod tiny;
