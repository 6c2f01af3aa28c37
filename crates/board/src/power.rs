//! The table `[power]` of a file.

use crate::problem::{Problem, ensure};
use dunlin_wire::PowerSource;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The address of an INA219 with both of its jumpers open.
pub const ADDRESS_FIRST: u8 = 0x40;
/// The address with both jumpers at SCL.
pub const ADDRESS_LAST: u8 = 0x4f;
/// The supply voltages of an INA219, V: no board runs on less, and the chip's inputs allow at most 26 V.
const SUPPLY_VOLTS_MIN: f64 = 1.0;
const SUPPLY_VOLTS_MAX: f64 = 26.0;
/// The allowed range of shunts, mΩ.
const SHUNT_MILLIOHMS_MIN: f64 = 0.1;
const SHUNT_MILLIOHMS_MAX: f64 = 10_000.0;
/// The most conversions of one reading.
const AVERAGING_MAX: u8 = 128;

/// The configured power source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The first source that answers.
    #[default]
    Auto,
    /// No source: nothing is measured.
    None,
    /// This source only; it is an error if it doesn't answer.
    Only(PowerSource),
}

impl Choice {
    /// The choice with this name.
    ///
    /// # Errors
    /// Lists the known names.
    pub fn named(name: &str) -> Result<Self, String> {
        match name {
            "auto" => Ok(Self::Auto),
            "none" => Ok(Self::None),
            _ => match PowerSource::ALL.into_iter().find(|source| source.name() == name) {
                Some(source) => Ok(Self::Only(source)),
                None => {
                    let known = PowerSource::ALL.map(PowerSource::name).join(", ");
                    Err(format!("unknown power source {name:?}; known are auto, none, {known}"))
                }
            },
        }
    }
}

/// `[power]` of the agent's or a board's file. Every key can be left out; paths are relative to the file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PowerTable {
    /// The name of a [`Choice`].
    pub source: Option<String>,
    /// The I2C bus of an INA219.
    pub i2c: Option<PathBuf>,
    /// Its address there.
    pub address: Option<u8>,
    /// The resistor beside it, mΩ.
    pub shunt_milliohms: Option<f64>,
    /// Its conversions for one reading.
    pub averaging: Option<u8>,
    /// Supply voltage of the board, V.
    pub supply_volts: Option<f64>,
    /// The rails of hwmon whose power is added up.
    pub rails: Option<Vec<String>>,
    /// The trace to replay.
    pub trace: Option<PathBuf>,
    /// The calibration file, from a known load.
    pub calibration: Option<PathBuf>,
    /// Interval of telemetry, s; 0 sends none.
    pub telemetry_seconds: Option<u32>,
    /// Root of the kernel's tree.
    pub sysfs: Option<PathBuf>,
    /// The firmware's command on a Raspberry Pi.
    pub vcgencmd: Option<PathBuf>,
}

impl PowerTable {
    /// The same table with its paths relative to `dir`.
    #[must_use]
    pub fn within(self, dir: &Path) -> Self {
        let from = |path: Option<PathBuf>| path.map(|path| dir.join(path));
        Self { trace: from(self.trace), calibration: from(self.calibration), ..self }
    }

    /// This table, with `under` for missing keys.
    #[must_use]
    pub fn over(self, under: Self) -> Self {
        Self {
            source: self.source.or(under.source),
            i2c: self.i2c.or(under.i2c),
            address: self.address.or(under.address),
            shunt_milliohms: self.shunt_milliohms.or(under.shunt_milliohms),
            averaging: self.averaging.or(under.averaging),
            supply_volts: self.supply_volts.or(under.supply_volts),
            rails: self.rails.or(under.rails),
            trace: self.trace.or(under.trace),
            calibration: self.calibration.or(under.calibration),
            telemetry_seconds: self.telemetry_seconds.or(under.telemetry_seconds),
            sysfs: self.sysfs.or(under.sysfs),
            vcgencmd: self.vcgencmd.or(under.vcgencmd),
        }
    }

    /// The source that the table names.
    ///
    /// # Errors
    /// No source has that name.
    pub fn choice(&self) -> Result<Choice, Problem> {
        let name = self.source.as_deref().unwrap_or("auto");
        Choice::named(name).map_err(|what| Problem::new("power.source", what))
    }

    /// Checks the range of every value.
    ///
    /// # Errors
    /// Names the first key that is out of range.
    pub fn check(&self) -> Result<(), Problem> {
        self.choice()?;
        let address = self.address.unwrap_or(ADDRESS_FIRST);
        ensure((ADDRESS_FIRST..=ADDRESS_LAST).contains(&address), "power.address", || {
            format!("{address:#04x} is not within {ADDRESS_FIRST:#04x} and {ADDRESS_LAST:#04x}")
        })?;
        within("power.shunt_milliohms", self.shunt_milliohms, SHUNT_MILLIOHMS_MIN, SHUNT_MILLIOHMS_MAX)?;
        within("power.supply_volts", self.supply_volts, SUPPLY_VOLTS_MIN, SUPPLY_VOLTS_MAX)?;
        let conversions = self.averaging.unwrap_or(AVERAGING_MAX);
        ensure(conversions.is_power_of_two(), "power.averaging", || {
            format!("{conversions} is invalid; use one of 1, 2, 4, 8, 16, 32, 64, {AVERAGING_MAX}")
        })
    }

    /// Checks that the named source reads every key; `auto` may read any of them.
    ///
    /// # Errors
    /// Names the first key that it doesn't read.
    pub(crate) fn check_belongs(&self) -> Result<(), Problem> {
        let choice = self.choice()?;
        let name = self.source.as_deref().unwrap_or("auto");
        let stray = self.keys().into_iter().find(|(_, there, readers)| {
            *there
                && match choice {
                    Choice::Auto => false,
                    Choice::None => true,
                    Choice::Only(source) => !readers.contains(&source),
                }
        });
        match stray {
            Some((key, ..)) => {
                Err(Problem::new(key, format!("has no effect with power.source = {name:?}; remove it")))
            }
            None if choice == Choice::Only(PowerSource::Replay) && self.trace.is_none() => {
                Err(Problem::new("power.source", "\"replay\" needs power.trace"))
            }
            None => Ok(()),
        }
    }

    /// The keys that only some sources read, with whether each is set, and the sources that read it.
    fn keys(&self) -> [(&'static str, bool, &'static [PowerSource]); 9] {
        use PowerSource::{Hwmon, Ina219, Pmic, Replay, Simulated};
        const CHIP: &[PowerSource] = &[Ina219, Simulated];
        [
            ("power.i2c", self.i2c.is_some(), &[Ina219]),
            ("power.address", self.address.is_some(), CHIP),
            ("power.shunt_milliohms", self.shunt_milliohms.is_some(), CHIP),
            ("power.averaging", self.averaging.is_some(), CHIP),
            ("power.supply_volts", self.supply_volts.is_some(), CHIP),
            ("power.rails", self.rails.is_some(), &[Hwmon]),
            ("power.trace", self.trace.is_some(), &[Replay]),
            ("power.vcgencmd", self.vcgencmd.is_some(), &[Pmic]),
            ("power.telemetry_seconds", self.telemetry_seconds.is_some(), &PowerSource::ALL),
        ]
    }
}

fn within(key: &str, value: Option<f64>, min: f64, max: f64) -> Result<(), Problem> {
    ensure(value.is_none_or(|value| (min..=max).contains(&value)), key, || {
        format!("{} is not within {min} and {max}", value.unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> PowerTable {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn sources_by_name() {
        assert_eq!(Choice::named("auto"), Ok(Choice::Auto));
        assert_eq!(Choice::named("none"), Ok(Choice::None));
        for source in PowerSource::ALL {
            assert_eq!(Choice::named(source.name()), Ok(Choice::Only(source)));
        }
        let said = "unknown power source \"Auto\"; known are auto, none, ina219, hwmon, pmic, powercap, replay, simulated";
        assert_eq!(Choice::named("Auto"), Err(said.into()));
    }

    #[test]
    fn a_value_out_of_range_is_named() {
        let said = |text: &str| table(text).check().unwrap_err().to_string();
        for address in ["0x3f", "0x50"] {
            let expected = format!("power.address: {address} is not within 0x40 and 0x4f");
            assert_eq!(said(&format!("address = {address}")), expected);
        }
        for shunt in ["0.09", "10001", "nan", "-100"] {
            let said = said(&format!("shunt_milliohms = {shunt}"));
            assert!(said.starts_with("power.shunt_milliohms: ") && said.ends_with("0.1 and 10000"), "{said}");
        }
        for volts in ["0.9", "26.1", "inf"] {
            let said = said(&format!("supply_volts = {volts}"));
            assert!(said.starts_with("power.supply_volts: ") && said.ends_with("1 and 26"), "{said}");
        }
        for averaging in [0, 3, 255] {
            let expected =
                format!("power.averaging: {averaging} is invalid; use one of 1, 2, 4, 8, 16, 32, 64, 128");
            assert_eq!(said(&format!("averaging = {averaging}")), expected);
        }
        assert!(said("source = 'ina218'").starts_with("power.source: unknown power source \"ina218\""));
        table("address = 0x4f\nshunt_milliohms = 0.1\nsupply_volts = 26\naveraging = 128").check().unwrap();
    }

    #[test]
    fn a_key_of_another_source_is_named() {
        let stray = |text: &str| table(text).check_belongs().map_err(|problem| problem.to_string());
        let beside = |key: &str, source: &str| {
            Err(format!("power.{key}: has no effect with power.source = {source:?}; remove it"))
        };
        assert_eq!(stray("source = 'ina219'\nrails = ['VDD_IN']"), beside("rails", "ina219"));
        assert_eq!(stray("source = 'hwmon'\nrails = ['VDD_IN']\ni2c = '/dev/i2c-1'"), beside("i2c", "hwmon"));
        assert_eq!(stray("source = 'pmic'\naddress = 0x40"), beside("address", "pmic"));
        assert_eq!(stray("source = 'ina219'\nvcgencmd = 'v'"), beside("vcgencmd", "ina219"));
        assert_eq!(stray("source = 'simulated'\ntrace = 't'"), beside("trace", "simulated"));
        assert_eq!(stray("source = 'none'\ntelemetry_seconds = 1"), beside("telemetry_seconds", "none"));
        assert_eq!(stray("source = 'replay'"), Err("power.source: \"replay\" needs power.trace".into()));
        for good in [
            "rails = ['VDD_IN']\ni2c = '/dev/i2c-7'\naddress = 0x40\nvcgencmd = 'v'",
            "source = 'ina219'\ni2c = '/dev/i2c-1'\naddress = 0x40\nshunt_milliohms = 100\naveraging = 8\nsupply_volts = 5",
            "source = 'hwmon'\nrails = ['VDD_IN']\ntelemetry_seconds = 0\nsysfs = 's'",
            "source = 'replay'\ntrace = 't.csv'\ncalibration = 'c.toml'",
            "source = 'none'",
        ] {
            assert_eq!(stray(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn a_table_goes_over_another() {
        let own = table("source = 'ina219'\naddress = 0x45\ntrace = 't.csv'").within(Path::new("d"));
        let both =
            own.over(table("source = 'hwmon'\naddress = 0x41\nrails = ['VDD_IN']\ni2c = '/dev/i2c-7'"));
        assert_eq!((both.source.as_deref(), both.address), (Some("ina219"), Some(0x45)));
        assert_eq!((both.i2c, both.rails), (Some("/dev/i2c-7".into()), Some(vec!["VDD_IN".into()])));
        assert_eq!(both.trace, Some("d/t.csv".into()));
    }
}
