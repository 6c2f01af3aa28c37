//! The exit codes of all commands.

/// Done.
pub const DONE: u8 = 0;
/// Something failed.
pub const FAILED: u8 = 1;
/// A flag or the configuration is wrong.
pub const USAGE: u8 = 2;
/// The broker could not be reached in time, or refuses this device.
pub const NO_BROKER: u8 = 3;
/// The verifier refuses: vocabulary, sampling or limits.
pub const REFUSED: u8 = 4;
/// The broker was there, but the reply was not complete in time.
pub const TIMED_OUT: u8 = 5;
/// Interrupted.
pub const INTERRUPTED: u8 = 130;
