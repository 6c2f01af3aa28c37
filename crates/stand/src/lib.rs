//! Real processes on one machine: the demo, the boot test, and helpers of tests and benches that start programs.
//!
//! Nothing here is part of the installed programs.

pub mod boot;
pub mod process;
pub mod usb;
pub mod wait;
