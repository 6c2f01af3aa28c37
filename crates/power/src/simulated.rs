//! A sensor that is not there: an INA219 at the level of its registers, and power to measure with it.
//!
//! Invariant: whatever is measured with it is called simulated.

pub mod board;
pub mod chip;
pub mod waveform;
