//! Measures power on the board, and charges it to the board's activities.
//!
//! A [meter](meter) thread reads a [sensor](sensor). The loop marks its phases in [`EnergyAccount`] and fetches the
//! readings. The [books](books) and the [ledger](ledger) compute joules from both. Without a sensor, only time is
//! counted.
//!
//! Invariant: no joules are reported without their source, and no call waits for a sensor.

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

pub use energy::EnergyAccount;
