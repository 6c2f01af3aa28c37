//! Real processes on one machine: the demo, the boot test, and what tests and benches start around a program.
//!
//! Nothing here is part of what users run.

pub mod boot;
pub mod process;
pub mod usb;
pub mod wait;
