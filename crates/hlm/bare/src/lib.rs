//! Proof that `wire`, `hlm` and the power sensor's driver need no operating system.
//!
//! With the feature `proof` this crate defines a panic handler. If any dependency used the standard library there
//! would be two, and the crate would not compile. So any host can check this, even without a bare-metal target
//! installed.
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
