//! Policies, coupling and both protocol machines of Dunlin.
//!
//! Invariant: nothing here reads a clock, a socket, a file or a random number. Time, randomness and model outputs
//! are arguments. Messages to send and actions for the shell come out of `poll_*`.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod acceptance;
pub mod calibration;
pub mod conformal;
mod counters;
pub mod coupling;
pub mod device;
pub mod economy;
mod fading;
pub mod fit;
pub mod importance;
pub mod limits;
mod named;
pub mod passes;
pub mod payload;
pub mod policy;
pub mod prefixes;
pub mod probabilities;
mod promise;
mod rtt;
pub mod schedule;
pub mod stop;
mod text;
pub mod time;
pub mod uncertainty;
pub mod verifier;

pub use dunlin_wire::TokenId;
