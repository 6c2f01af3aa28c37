//! The evaluation: policies side by side on real models, with a modelled network and board.
//!
//! Invariant: the text, the frames and their bytes are real; every second and every joule is modelled. A run is a
//! function of its plan, the models and the seed alone.

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
