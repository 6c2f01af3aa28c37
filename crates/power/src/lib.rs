//! Power measured on the board, and charged to what the board was doing.
//!
//! A [meter](meter) thread reads a [sensor](sensor); the loop marks its phases in [`Energy`] and takes what the meter read; the
//! [books](books) and the [ledger](ledger) below them make joules of both. Without a sensor only time is counted.
//!
//! Invariant: nothing here says a joule without its source, and no call waits for a sensor.

pub mod books;
pub mod calibration;
pub mod clock;
mod energy;
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
pub mod probe;
pub mod replay;
pub mod report;
mod rhythm;
pub mod sensor;
pub mod settings;
pub mod simulated;
mod sysfs;
pub mod timebase;
pub mod units;

pub use energy::Energy;
