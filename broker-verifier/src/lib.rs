//! The verifier of Dunlin: checks the devices' drafts with the large model.
//!
//! A verifier subscribes at its broker, keeps the devices' sessions in the protocol machine of `dunlin_hlm`, runs the
//! target in a thread or asks the server that runs it, and publishes verdicts. [`run`] shows the whole path of a frame.
//!
//! Invariants:
//! - Only [`link`] publishes and receives, only [`embedded`] names the broker, only [`engine`] opens a target.
//! - No code here knows a byte layout or a topic string, or decides the answer to a frame.
//! - Every queue is bounded by a named constant.

pub mod budget;
pub mod check;
pub mod choices;
pub mod cli;
pub mod config;
mod contexts;
mod devices;
pub mod embedded;
pub mod energy;
pub mod engine;
pub mod exit;
pub mod link;
mod load;
#[cfg(test)]
mod logged;
pub mod ration;
pub mod reference;
pub mod report;
pub mod run;
pub mod setup;
pub mod worker;
pub mod workers;

pub use config::Config;
pub use report::{End, Report};
pub use run::{Hooks, Served, serve};
