//! Power measured on the board, and charged to what the board was doing.
//!
//! Invariant: nothing here says a joule without its source.

pub mod sensor;
pub mod units;
