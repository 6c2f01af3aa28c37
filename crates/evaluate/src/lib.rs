//! The evaluation: compares policies on real models, with a modelled network and board.
//!
//! Invariant: the text, the frames and their bytes are real; all times and energies are modelled. A run depends only on
//! its plan, the models and the seed.

pub mod capacity;
pub mod cell;
pub mod channel;
pub mod clock;
pub mod constants;
pub mod dice;
pub mod engine;
pub mod law;
pub mod metrics;
pub mod pair;
pub mod plan;
mod plots;
pub mod progress;
pub mod record;
pub mod report;
pub mod setting;
pub mod store;
mod tables;
pub mod worth;
