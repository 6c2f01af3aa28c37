//! The broker's side of Dunlin: checks drafts with the large model.
//!
//! A verifier subscribes to its broker, keeps the sessions of its devices in the protocol machine of
//! `dunlin_hlm`, runs the target on a thread of its own, and publishes verdicts. [`run`] shows every hop.
//!
//! Invariants:
//! - [`link`] alone publishes and receives, [`embedded`] alone names the broker, [`engine`] alone an engine of the target.
//! - Nothing here knows a byte layout or a topic string, nor decides what a frame is answered.
//! - Every queue is bounded, by a constant with a name.

pub mod check;
pub mod cli;
pub mod config;
mod devices;
pub mod embedded;
pub mod energy;
pub mod engine;
pub mod exit;
pub mod link;
#[cfg(test)]
mod logged;
pub mod ration;
pub mod reference;
pub mod report;
pub mod run;
pub mod setup;
pub mod worker;

pub use config::Config;
pub use report::{End, Report};
pub use run::{Hooks, Served, serve};
