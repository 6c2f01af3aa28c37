//! `make test-boot`: boots a board's image in an emulated machine with the environment of a board.
//!
//! Outside are a broker with accounts, a verifier and a [sensor] whose power is known. Inside is the unchanged image.
//! [`scenes`] are the parts of the test.
//!
//! Invariant: every wait is for a condition; its time limit only turns a hang into a failure.

pub mod choice;
pub mod disk;
pub mod guest;
pub mod lines;
pub mod lost_power;
pub mod machine;
pub mod outside;
pub mod scenes;
pub mod sensor;
pub mod slots;
pub mod stand;
pub mod steps;
pub mod writes;
