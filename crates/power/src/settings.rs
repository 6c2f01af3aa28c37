//! Settings of power measurement: the source, its place, and telemetry.

use super::calibration::{Correction, PowerCalibration};
use super::ina219::{Averaging, Config, ShuntRange};
use anyhow::{Context, Result, anyhow, bail};
pub use dunlin_board::Choice;
use dunlin_board::{ADDRESS_FIRST, PowerTable};
use dunlin_hlm::time::Duration;
use dunlin_wire::PowerSource;
use std::path::PathBuf;

const I2C: &str = "/dev/i2c-1";
const SHUNT_MILLIOHMS: f64 = 100.0;
const AVERAGING: u8 = 8;
const SUPPLY_VOLTS: f64 = 5.0;
const TELEMETRY_SECONDS: u32 = 1;
const SYSFS: &str = "/sys";
const VCGENCMD: &str = "vcgencmd";

/// The settings, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct PowerSettings {
    /// The source to use.
    pub choice: Choice,
    /// The I2C bus of an INA219.
    pub i2c: PathBuf,
    /// Its address there.
    pub address: u8,
    /// Its ranges and averaging.
    pub ina219: Config,
    /// Supply voltage of the board, V.
    pub supply_v: f64,
    /// The rails to add up; empty for the usual ones.
    pub rails: Vec<String>,
    /// The trace to replay.
    pub trace: Option<PathBuf>,
    /// Corrections from known loads.
    pub calibration: PowerCalibration,
    /// Interval of telemetry; `None` sends none.
    pub telemetry: Option<Duration>,
    /// Root of the kernel's tree.
    pub sysfs: PathBuf,
    /// The firmware's command on a Raspberry Pi.
    pub vcgencmd: PathBuf,
}

impl PowerSettings {
    /// The settings of a table; `source` comes from a flag and overrides the table's.
    ///
    /// # Errors
    /// Names the key that is wrong.
    pub fn of(table: PowerTable, source: Option<&str>) -> Result<Self> {
        table.check()?;
        let choice = match source {
            Some(name) => Choice::named(name).map_err(|what| anyhow!("--power: {what}"))?,
            None => table.choice()?,
        };
        if choice == Choice::Only(PowerSource::Replay) && table.trace.is_none() {
            bail!("power.source \"replay\" needs power.trace");
        }
        let ina219 = ina219(&table)?;
        let calibration = table.calibration.as_deref().map(PowerCalibration::load).transpose()?;
        let seconds = table.telemetry_seconds.unwrap_or(TELEMETRY_SECONDS);
        Ok(Self {
            choice,
            i2c: table.i2c.unwrap_or_else(|| I2C.into()),
            address: table.address.unwrap_or(ADDRESS_FIRST),
            ina219,
            supply_v: table.supply_volts.unwrap_or(SUPPLY_VOLTS),
            rails: table.rails.unwrap_or_default(),
            trace: table.trace,
            calibration: calibration.unwrap_or_default(),
            telemetry: (seconds > 0).then_some(Duration(u64::from(seconds) * 1_000_000)),
            sysfs: table.sysfs.unwrap_or_else(|| SYSFS.into()),
            vcgencmd: table.vcgencmd.unwrap_or_else(|| VCGENCMD.into()),
        })
    }

    /// The correction of an INA219's current.
    pub fn correction(&self) -> Correction {
        self.calibration.correction(self.supply_v)
    }

    /// Power of the idle board from the calibration file, W.
    pub fn idle_w(&self) -> Option<f64> {
        self.calibration.idle.map(|idle| idle.watts)
    }
}

/// The chip's settings from a table.
fn ina219(table: &PowerTable) -> Result<Config> {
    let milliohms = table.shunt_milliohms.unwrap_or(SHUNT_MILLIOHMS);
    let conversions = table.averaging.unwrap_or(AVERAGING);
    let averaging = Averaging::of(conversions).context("power.averaging is not a power of two")?;
    Ok(Config {
        shunt_micro_ohms: (milliohms * 1000.0).round() as u32,
        range: ShuntRange::Mv320,
        shunt: averaging,
        bus: averaging,
    })
}

impl Default for PowerSettings {
    fn default() -> Self {
        Self::of(PowerTable::default(), None).expect("what is left out has a valid default")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::write;
    use std::path::Path;

    fn checked(table: PowerTable, source: Option<&str>) -> Result<PowerSettings> {
        PowerSettings::of(table, source)
    }

    fn table(text: &str) -> PowerTable {
        toml::from_str(text).unwrap()
    }

    fn message(text: &str, source: Option<&str>) -> String {
        format!("{:#}", checked(table(text), source).unwrap_err())
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
    fn a_flag_goes_over_the_agents_table_and_that_over_the_boards() {
        let board = "source = 'hwmon'\naddress = 0x41\nrails = ['VDD_IN']\ni2c = '/dev/i2c-7'\n";
        let agent = "source = 'ina219'\naddress = 0x45\nshunt_milliohms = 12.5\naveraging = 16\n\
                     telemetry_seconds = 0\nsysfs = 's'\nvcgencmd = 'v'\ntrace = 't.csv'\n";
        let both = table(agent).over(table(board));
        let settings = checked(both.clone(), None).unwrap();
        assert_eq!((settings.choice, settings.address), (Choice::Only(PowerSource::Ina219), 0x45));
        assert_eq!(
            (settings.i2c.as_path(), settings.rails.as_slice()),
            (Path::new("/dev/i2c-7"), &["VDD_IN".into()][..])
        );
        assert_eq!((settings.ina219.shunt_micro_ohms, settings.ina219.period_micros()), (12_500, 17_024));
        assert_eq!((settings.telemetry, settings.trace.as_deref()), (None, Some(Path::new("t.csv"))));
        assert_eq!((settings.sysfs.as_path(), settings.vcgencmd.as_path()), (Path::new("s"), Path::new("v")));
        assert_eq!(checked(both, Some("none")).unwrap().choice, Choice::None);
    }

    #[test]
    fn a_wrong_key_is_named() {
        assert!(
            message("source = 'ina218'", None).starts_with("power.source: unknown power source \"ina218\"")
        );
        assert!(message("source = 'none'", Some("x")).starts_with("--power: unknown power source \"x\""));
        assert_eq!(message("", Some("replay")), "power.source \"replay\" needs power.trace");
        assert!(message("address = 0x50", None).starts_with("power.address: 0x50 is not within"));
        let unknown = toml::from_str::<PowerTable>("shunt_ohms = 0.1").unwrap_err();
        assert!(unknown.message().contains("unknown field `shunt_ohms`"));
    }

    #[test]
    fn a_calibration_is_read_from_beside_the_file_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let named = || table("calibration = 'power.toml'\ntrace = 't.csv'\nsysfs = 'sys'").within(dir.path());
        assert!(format!("{:#}", checked(named(), None).unwrap_err()).contains("power.toml: No such file"));
        let path = dir.path().join("power.toml");
        let current = "[current]\ngain = 1.1\noffset_a = 0.0\nmeter_uncertainty = 0.01\n";
        write(&path, format!("{current}[idle]\nwatts = 2.5\nseconds = 30.0\n")).unwrap();
        let settings = checked(named(), None).unwrap();
        assert!(!settings.correction().is_none());
        assert_eq!((settings.idle_w(), settings.trace), (Some(2.5), Some(dir.path().join("t.csv"))));
        assert_eq!(settings.sysfs, Path::new("sys"), "no file of the configuration's");
        write(&path, current.replace("1.1", "1.6")).unwrap();
        assert!(format!("{:#}", checked(named(), None).unwrap_err()).contains("power.toml:1: gain 1.6"));
    }
}
