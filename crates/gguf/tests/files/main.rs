//! Files built byte by byte: sound ones, and ones with a mistake each.

#![allow(clippy::unwrap_used, reason = "a test that can't go on stops")]

mod build;
mod mutated;
mod refused;
mod sound;
