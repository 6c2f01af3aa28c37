//! Proof that `wire`, `hlm` and the driver of the power sensor need no operating system.
//!
//! With its feature `proof` this crate brings its own panic handler. Were the standard library anywhere among its
//! dependencies there would be two, and it would not compile: so it checks on any host what a build for a bare-metal
//! target checks where that target is installed.
#![no_std]

pub use dunlin_hlm::{device::Device, verifier::Verifier};
pub use dunlin_wire::DraftFrame;

#[path = "../../../power/src/ina219.rs"]
pub mod ina219;
#[path = "../../../power/src/units.rs"]
pub mod units;

#[cfg(feature = "proof")]
#[panic_handler]
fn halt(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
