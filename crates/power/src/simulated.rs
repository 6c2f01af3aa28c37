//! A simulated sensor: an INA219 at register level, and the power that it measures.
//!
//! Invariant: all its readings are labelled as simulated.

pub mod board;
pub mod chip;
pub mod waveform;
