//! Simulation of both ends of Dunlin on a hostile link in virtual time, compared with an oracle that has no protocol.
//!
//! Invariant: a run depends only on its seed. Nothing here is part of the installed programs.

pub mod crowd;
pub mod mqtt;
pub mod oracle;
pub mod plan;
mod pump;
pub mod quiet;
pub mod settings;
pub mod toy;
pub mod world;
