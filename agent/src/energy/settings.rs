//! What a configuration says of power: which source, where it is, and what is told to others.

use super::calibration::{Calibration, Correction};
use super::ina219::{ADDRESS_FIRST, ADDRESS_LAST, Averaging, Config, ShuntRange};
use anyhow::{Context, Result, anyhow, bail};
use dunlin_hlm::time::Duration;
use dunlin_wire::PowerSource;
use serde::Deserialize;
use std::path::{Path, PathBuf};

const I2C: &str = "/dev/i2c-1";
const SHUNT_MILLIOHMS: f64 = 100.0;
const AVERAGING: u8 = 8;
const SUPPLY_VOLTS: f64 = 5.0;
/// What an INA219 can be in: less feeds no board, and its inputs end at 26 V.
const SUPPLY_VOLTS_MIN: f64 = 1.0;
const SUPPLY_VOLTS_MAX: f64 = 26.0;
const TELEMETRY_SECONDS: u32 = 1;
/// The range of shunts that make sense, mΩ.
const SHUNT_MILLIOHMS_MIN: f64 = 0.1;
const SHUNT_MILLIOHMS_MAX: f64 = 10_000.0;
const SYSFS: &str = "/sys";
const VCGENCMD: &str = "vcgencmd";

/// `[power]` of the agent's or a board's file. Every key can be left out; paths are relative to the file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PowerTable {
    source: Option<String>,
    i2c: Option<PathBuf>,
    address: Option<u8>,
    shunt_milliohms: Option<f64>,
    averaging: Option<u8>,
    supply_volts: Option<f64>,
    rails: Option<Vec<String>>,
    trace: Option<PathBuf>,
    calibration: Option<PathBuf>,
    telemetry_seconds: Option<u32>,
    sysfs: Option<PathBuf>,
    vcgencmd: Option<PathBuf>,
}

/// Which source is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The first that answers.
    #[default]
    Auto,
    /// None: nothing is measured.
    None,
    /// This one, or an error.
    Only(PowerSource),
}

/// The settings, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct PowerSettings {
    /// Which source is used.
    pub choice: Choice,
    /// The I2C bus of an INA219.
    pub i2c: PathBuf,
    /// Its address there.
    pub address: u8,
    /// How it measures.
    pub ina219: Config,
    /// What the board is fed with, V.
    pub supply_v: f64,
    /// The rails to add up; the usual ones where none is named.
    pub rails: Vec<String>,
    /// The trace to replay.
    pub trace: Option<PathBuf>,
    /// What a known load taught.
    pub calibration: Calibration,
    /// Between two messages of telemetry; `None` sends none.
    pub telemetry: Option<Duration>,
    /// Where the kernel's tree is.
    pub sysfs: PathBuf,
    /// The firmware's command on a Raspberry Pi.
    pub vcgencmd: PathBuf,
}

impl Choice {
    /// The choice of a name.
    ///
    /// # Errors
    /// Lists the names there are.
    pub fn named(name: &str) -> Result<Self> {
        let sources = PowerSource::ALL.map(PowerSource::name);
        match name {
            "auto" => Ok(Self::Auto),
            "none" => Ok(Self::None),
            _ => match PowerSource::ALL.into_iter().find(|source| source.name() == name) {
                Some(source) => Ok(Self::Only(source)),
                None => bail!("unknown power source {name:?}; known are auto, none, {}", sources.join(", ")),
            },
        }
    }
}

impl PowerTable {
    /// The same table with its paths taken from `dir`.
    #[must_use]
    pub fn within(self, dir: &Path) -> Self {
        let from = |path: Option<PathBuf>| path.map(|path| dir.join(path));
        Self { trace: from(self.trace), calibration: from(self.calibration), ..self }
    }

    /// This table with `under` for what it leaves out.
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

    /// The settings; `source` is a flag's, over the table's.
    ///
    /// # Errors
    /// Names the key that is wrong.
    pub fn checked(self, source: Option<&str>) -> Result<PowerSettings> {
        let choice = match source {
            Some(name) => Choice::named(name).context("--power")?,
            None => Choice::named(self.source.as_deref().unwrap_or("auto")).context("power.source")?,
        };
        if choice == Choice::Only(PowerSource::Replay) && self.trace.is_none() {
            bail!("power.source \"replay\" needs power.trace");
        }
        let (ina219, address, supply_v) = (self.ina219()?, self.address()?, self.supply_v()?);
        let calibration = self.calibration.as_deref().map(Calibration::load).transpose()?;
        let seconds = self.telemetry_seconds.unwrap_or(TELEMETRY_SECONDS);
        Ok(PowerSettings {
            choice,
            i2c: self.i2c.unwrap_or_else(|| I2C.into()),
            address,
            ina219,
            supply_v,
            rails: self.rails.unwrap_or_default(),
            trace: self.trace,
            calibration: calibration.unwrap_or_default(),
            telemetry: (seconds > 0).then_some(Duration(u64::from(seconds) * 1_000_000)),
            sysfs: self.sysfs.unwrap_or_else(|| SYSFS.into()),
            vcgencmd: self.vcgencmd.unwrap_or_else(|| VCGENCMD.into()),
        })
    }

    fn address(&self) -> Result<u8> {
        let address = self.address.unwrap_or(ADDRESS_FIRST);
        if !(ADDRESS_FIRST..=ADDRESS_LAST).contains(&address) {
            bail!("power.address {address:#04x} is not within {ADDRESS_FIRST:#04x} and {ADDRESS_LAST:#04x}");
        }
        Ok(address)
    }

    fn supply_v(&self) -> Result<f64> {
        let volts = self.supply_volts.unwrap_or(SUPPLY_VOLTS);
        if !(SUPPLY_VOLTS_MIN..=SUPPLY_VOLTS_MAX).contains(&volts) {
            bail!("power.supply_volts {volts} is not within {SUPPLY_VOLTS_MIN} and {SUPPLY_VOLTS_MAX}");
        }
        Ok(volts)
    }

    fn ina219(&self) -> Result<Config> {
        let milliohms = self.shunt_milliohms.unwrap_or(SHUNT_MILLIOHMS);
        if !(SHUNT_MILLIOHMS_MIN..=SHUNT_MILLIOHMS_MAX).contains(&milliohms) {
            bail!(
                "power.shunt_milliohms {milliohms} is not within {SHUNT_MILLIOHMS_MIN} and {SHUNT_MILLIOHMS_MAX}"
            );
        }
        let conversions = self.averaging.unwrap_or(AVERAGING);
        let averaging = Averaging::of(conversions)
            .ok_or_else(|| anyhow!("power.averaging {conversions} is none of 1, 2, 4, 8, 16, 32, 64, 128"))?;
        Ok(Config {
            shunt_micro_ohms: (milliohms * 1000.0).round() as u32,
            range: ShuntRange::Mv320,
            shunt: averaging,
            bus: averaging,
        })
    }
}

impl PowerSettings {
    /// The correction of an INA219's current.
    pub fn correction(&self) -> Correction {
        self.calibration.correction(self.supply_v)
    }

    /// The power of the idle board by an earlier measurement, W.
    pub fn idle_w(&self) -> Option<f64> {
        self.calibration.idle.map(|idle| idle.watts)
    }
}

impl Default for PowerSettings {
    fn default() -> Self {
        PowerTable::default().checked(None).expect("what is left out has a valid default")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::write;

    fn table(text: &str) -> PowerTable {
        toml::from_str(text).unwrap()
    }

    fn message(text: &str, source: Option<&str>) -> String {
        format!("{:#}", table(text).checked(source).unwrap_err())
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let settings = PowerSettings::default();
        assert_eq!((settings.choice, settings.address), (Choice::Auto, 0x40));
        assert_eq!((settings.i2c.as_path(), settings.sysfs.as_path()), (Path::new(I2C), Path::new("/sys")));
        assert_eq!((settings.ina219.shunt_micro_ohms, settings.ina219.period_micros()), (100_000, 8512));
        assert_eq!(settings.telemetry, Some(Duration::from_millis(1000)));
        assert!(settings.correction().is_none() && settings.idle_w().is_none() && settings.rails.is_empty());
    }

    #[test]
    fn sources_by_name() {
        assert_eq!(Choice::named("auto").unwrap(), Choice::Auto);
        assert_eq!(Choice::named("none").unwrap(), Choice::None);
        for source in PowerSource::ALL {
            assert_eq!(Choice::named(source.name()).unwrap(), Choice::Only(source));
        }
        let said = Choice::named("Auto").unwrap_err().to_string();
        assert_eq!(
            said,
            "unknown power source \"Auto\"; known are auto, none, ina219, hwmon, pmic, powercap, replay, simulated"
        );
    }

    #[test]
    fn a_flag_goes_over_the_agents_table_and_that_over_the_boards() {
        let board = "source = 'hwmon'\naddress = 0x41\nrails = ['VDD_IN']\ni2c = '/dev/i2c-7'\n";
        let agent = "source = 'ina219'\naddress = 0x45\nshunt_milliohms = 12.5\naveraging = 16\n\
                     telemetry_seconds = 0\nsysfs = 's'\nvcgencmd = 'v'\ntrace = 't.csv'\n";
        let both = table(agent).over(table(board));
        let settings = both.clone().checked(None).unwrap();
        assert_eq!((settings.choice, settings.address), (Choice::Only(PowerSource::Ina219), 0x45));
        assert_eq!(
            (settings.i2c.as_path(), settings.rails.as_slice()),
            (Path::new("/dev/i2c-7"), &["VDD_IN".into()][..])
        );
        assert_eq!((settings.ina219.shunt_micro_ohms, settings.ina219.period_micros()), (12_500, 17_024));
        assert_eq!((settings.telemetry, settings.trace.as_deref()), (None, Some(Path::new("t.csv"))));
        assert_eq!((settings.sysfs.as_path(), settings.vcgencmd.as_path()), (Path::new("s"), Path::new("v")));
        assert_eq!(both.checked(Some("none")).unwrap().choice, Choice::None);
    }

    #[test]
    fn a_wrong_key_is_named() {
        assert!(
            message("source = 'ina218'", None).starts_with("power.source: unknown power source \"ina218\"")
        );
        assert!(message("source = 'none'", Some("x")).starts_with("--power: unknown power source \"x\""));
        assert_eq!(message("", Some("replay")), "power.source \"replay\" needs power.trace");
        for address in ["0x3f", "0x50"] {
            let said = message(&format!("address = {address}"), None);
            assert_eq!(said, format!("power.address {address} is not within 0x40 and 0x4f"));
        }
        for shunt in ["0.09", "10001", "nan", "-100"] {
            let said = message(&format!("shunt_milliohms = {shunt}"), None);
            assert!(
                said.starts_with("power.shunt_milliohms ") && said.ends_with("within 0.1 and 10000"),
                "{said}"
            );
        }
        for averaging in [0, 3, 255] {
            let said = message(&format!("averaging = {averaging}"), None);
            assert_eq!(said, format!("power.averaging {averaging} is none of 1, 2, 4, 8, 16, 32, 64, 128"));
        }
        let unknown = toml::from_str::<PowerTable>("shunt_ohms = 0.1").unwrap_err();
        assert!(unknown.message().contains("unknown field `shunt_ohms`"));
    }

    #[test]
    fn a_calibration_is_read_from_beside_the_file_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let named = || table("calibration = 'power.toml'\ntrace = 't.csv'\nsysfs = 'sys'").within(dir.path());
        assert!(format!("{:#}", named().checked(None).unwrap_err()).contains("power.toml: No such file"));
        let path = dir.path().join("power.toml");
        let current = "[current]\ngain = 1.1\noffset_a = 0.0\nmeter_uncertainty = 0.01\n";
        write(&path, format!("{current}[idle]\nwatts = 2.5\nseconds = 30.0\n")).unwrap();
        let settings = named().checked(None).unwrap();
        assert!(!settings.correction().is_none());
        assert_eq!((settings.idle_w(), settings.trace), (Some(2.5), Some(dir.path().join("t.csv"))));
        assert_eq!(settings.sysfs, Path::new("sys"), "no file of the configuration's");
        write(&path, current.replace("1.1", "1.6")).unwrap();
        assert!(format!("{:#}", named().checked(None).unwrap_err()).contains("power.toml:1: gain 1.6"));
    }
}
