//! Real processes on one machine: mosquitto, verifier and agents, compared with the target alone.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and speak")]

mod failover;
mod identity;
mod kills;
mod paced;
mod pairs;
mod processes;
mod reference;
mod targets;
