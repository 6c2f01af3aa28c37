//! The device side of Dunlin: drafts with a small model, sends the frames that are worth their cost, shows the reply.
//!
//! `dunlin_hlm` contains the machine that decides; this crate is the shell around it. [`run`] is the loop, [`link`]
//! the connection to the broker, and [`drafter`] a thread that runs the model.
//!
//! Invariants:
//! - No code here decides what is sent or when, or interprets a message.
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
pub mod import;
pub mod link;
pub mod memory;
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
