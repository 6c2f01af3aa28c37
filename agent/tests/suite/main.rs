//! The agent against a real mosquitto and a scripted verifier: in process with toy models, and as a process with the
//! demo pair.
#![allow(clippy::unwrap_used)] // everything here is a test

mod energy;
mod first_boot;
mod import;
mod in_process;
mod large_packets;
mod package;
mod power;
mod presence;
mod process;
mod proxy;
mod recorder;
mod service;
mod verifier;
