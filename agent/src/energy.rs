//! Power measured on the board, and charged to what the board was doing.
//!
//! Invariant: nothing here says a joule without its source.

pub mod calibration;
pub mod fit;
pub mod health;
pub mod hwmon;
pub mod ina219;
pub mod ina219_sensor;
pub mod ledger;
pub mod meter;
pub mod phase;
pub mod pmic;
pub mod powercap;
pub mod rhythm;
pub mod sensor;
pub mod simulated;
mod sysfs;
pub mod timebase;
pub mod units;
