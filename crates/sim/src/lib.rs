//! Both ends of Dunlin on a hostile link in virtual time, against an oracle that has no protocol.
//!
//! Invariant: a run is a function of its seed alone. Nothing here is part of what users run.

pub mod mqtt;
pub mod oracle;
pub mod plan;
mod pump;
pub mod quiet;
pub mod toy;
pub mod world;
