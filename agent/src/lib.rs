//! The device side of Dunlin: drafts with a small model, sends what is worth the radio, shows what comes of it.
//!
//! The machine that decides is `dunlin_hlm`'s; this crate is its shell. [`run`] is the loop, [`link`] the
//! connection to the broker, [`drafter`] the only one with a thread.
//!
//! Invariants:
//! - Nothing here decides what is sent, when, or what a message means.
//! - Every channel between threads and tasks is bounded, and the loop never waits to push into one.

pub mod ask;
mod bar;
pub mod calibrate;
pub mod check;
pub mod cli;
mod client;
pub mod config;
mod draft_file;
pub mod drafter;
pub mod exit;
pub mod first_boot;
pub mod flags;
pub mod generate;
pub mod link;
pub mod notice;
pub mod output;
pub mod power;
pub mod provenance;
pub mod random;
pub mod report;
mod request;
pub mod run;
pub mod screen;
pub mod serve;
mod setup;
mod signals;
mod slot;
mod socket;
mod stall;
mod status;
pub mod supervised;
pub mod terminal;
pub mod turn;
