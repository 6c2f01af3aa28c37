//! `make test-boot`: a board's image booted in an emulated machine, with everything that a board has around it.
//!
//! Outside are a broker with accounts, a verifier and a [sensor] whose power is known; inside is the image as it is,
//! and nothing in it knows. [`scenes`] is what the board goes through.
//!
//! Invariant: what is waited for is a condition; a limit only turns a hang into a failure.

pub mod disk;
pub mod guest;
pub mod lines;
pub mod machine;
pub mod outside;
pub mod scenes;
pub mod sensor;
pub mod stand;
pub mod steps;
