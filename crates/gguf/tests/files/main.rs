//! Files built byte by byte: valid ones, and ones with one mistake each.

#![allow(clippy::unwrap_used, reason = "a test that can't go on stops")]

mod build;
mod mutated;
mod refused;
mod sound;
