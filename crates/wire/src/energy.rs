//! Power and energy as the device measured them.

use serde::{Deserialize, Serialize};

/// Where a device's figures of power come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PowerSource {
    /// An INA219 on the I2C bus.
    Ina219,
    /// A power monitor that the kernel reads.
    Hwmon,
    /// The power management chip of a Raspberry Pi 5.
    Pmic,
    /// The energy counters of an x86 processor.
    Powercap,
    /// A recorded trace.
    Replay,
    /// A simulated sensor: nothing was measured.
    Simulated,
}

impl PowerSource {
    /// Its name in configurations and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ina219 => "ina219",
            Self::Hwmon => "hwmon",
            Self::Pmic => "pmic",
            Self::Powercap => "powercap",
            Self::Replay => "replay",
            Self::Simulated => "simulated",
        }
    }
}
