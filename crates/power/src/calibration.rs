//! Corrections from known loads, and the idle board's power: a small TOML file.

use super::sensor::Uncertainty;
use super::units::Amperes;
use anyhow::{Result, bail};
use dunlin_board::{read, wrong};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The largest plausible gain. A larger one means that `shunt_milliohms` is wrong.
const GAIN_MAX: f64 = 1.5;

/// Limits of the distance between two loads, A: closer loads can't separate gain and offset, and no board draws more.
const LOADS_APART_MIN_A: f64 = 0.05;
const LOADS_APART_MAX_A: f64 = 100.0;

/// The file. Every key can be left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PowerCalibration {
    /// Correction of the current.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<CurrentTable>,
    /// Power of the idle board.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<IdleTable>,
}

/// `true = gain · shown + offset`, in A.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CurrentTable {
    /// Gain; 1 means no correction.
    pub gain: f64,
    /// Offset, A.
    pub offset_a: f64,
    /// Relative uncertainty of the reference meter.
    pub meter_uncertainty: f64,
}

/// Power of the idle board.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdleTable {
    /// Mean power, W.
    pub watts: f64,
    /// Duration of the measurement, s.
    pub seconds: f64,
}

/// A correction of the current, ready to be applied.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Correction {
    table: Option<CurrentTable>,
    /// Supply voltage of the board, V; converts an offset in current to one in power.
    pub supply_v: f64,
    /// Uncertainty of a corrected figure; `None` without a correction, when the data sheet's applies.
    pub uncertainty: Option<Uncertainty>,
}

/// Maximum gain error of the bus voltage (SBOS448), a share. Calibrating the current doesn't remove it.
const BUS_GAIN: f64 = 0.01;

impl PowerCalibration {
    /// Reads the file.
    ///
    /// # Errors
    /// Names the file, line and key that is wrong.
    pub fn load(path: &Path) -> Result<Self> {
        let calibration: Self = read(path)?;
        if let Err(what) = calibration.check() {
            return Err(wrong(path, "", None, what));
        }
        Ok(calibration)
    }

    fn check(&self) -> Result<()> {
        if let Some(CurrentTable { gain, offset_a, meter_uncertainty }) = self.current {
            if !(1.0 / GAIN_MAX..=GAIN_MAX).contains(&gain) {
                bail!("gain {gain} is not within 1/{GAIN_MAX} and {GAIN_MAX}: is shunt_milliohms right?");
            }
            if !(-1.0..=1.0).contains(&offset_a) {
                bail!("offset_a {offset_a} is not within -1 and 1");
            }
            if !(0.0..0.5).contains(&meter_uncertainty) {
                bail!("meter_uncertainty {meter_uncertainty} is not within 0 and 0.5");
            }
        }
        match self.idle {
            Some(IdleTable { watts, seconds }) if !((0.0..1e4).contains(&watts) && seconds > 0.0) => {
                bail!("idle of {watts} W over {seconds} s")
            }
            _ => Ok(()),
        }
    }

    /// The correction of the current for a board with a supply of `supply_v` volts.
    pub fn correction(&self, supply_v: f64) -> Correction {
        let uncertainty = self
            .current
            .map(|table| Uncertainty { relative: table.meter_uncertainty.hypot(BUS_GAIN), offset_w: 0.0 });
        Correction { table: self.current, supply_v, uncertainty }
    }
}

impl CurrentTable {
    /// The line through two loads, each as the sensor's current and the meter's current, A.
    ///
    /// # Errors
    /// The loads are too close to each other, or the line is implausible.
    pub fn through(low: (f64, f64), high: (f64, f64), meter_uncertainty: f64) -> Result<Self> {
        let apart = high.1 - low.1;
        if !(LOADS_APART_MIN_A..LOADS_APART_MAX_A).contains(&apart) {
            bail!("the two loads are {apart:.3} A apart: take some 0.1 A and 1 A");
        }
        let gain = apart / (high.0 - low.0);
        let table = Self { gain, offset_a: low.1 - gain * low.0, meter_uncertainty };
        PowerCalibration { current: Some(table), idle: None }.check()?;
        Ok(table)
    }
}

impl Default for Correction {
    /// No correction, at 5 V.
    fn default() -> Self {
        PowerCalibration::default().correction(5.0)
    }
}

impl Correction {
    /// True if the current isn't corrected.
    pub fn is_none(&self) -> bool {
        self.table.is_none()
    }

    /// The current without the sensor's error.
    pub fn corrected(&self, shown: Amperes) -> Amperes {
        match self.table {
            None => shown,
            Some(table) => Amperes::from_f64(table.gain * shown.as_f64() + table.offset_a),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::write;

    fn load(text: &str) -> Result<PowerCalibration> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("power.toml");
        write(&path, text).unwrap();
        PowerCalibration::load(&path)
    }

    #[test]
    fn two_loads_make_a_line() {
        let table = CurrentTable::through((0.11, 0.1), (1.03, 1.0), 0.005).unwrap();
        let correction = PowerCalibration { current: Some(table), idle: None }.correction(5.0);
        let corrected = |a: f64| correction.corrected(Amperes::from_f64(a)).as_f64();
        assert!((corrected(0.11) - 0.1).abs() < 2e-6 && (corrected(1.03) - 1.0).abs() < 2e-6);
        assert!((corrected(0.57) - 0.55).abs() < 2e-6);
        assert!((correction.uncertainty.unwrap().relative - 0.0111803).abs() < 1e-6);
        let written = toml::to_string(&PowerCalibration { current: Some(table), idle: None }).unwrap();
        assert_eq!(load(&written).unwrap().current, Some(table));
    }

    #[test]
    fn what_can_not_be_is_refused() {
        let said = |low, high| CurrentTable::through(low, high, 0.0).unwrap_err().to_string();
        assert!(said((0.1, 0.1), (0.12, 0.12)).contains("0.020 A apart"));
        assert!(said((0.01, 0.1), (0.1, 1.0)).contains("is shunt_milliohms right?"));
        assert!(said((0.5, 0.1), (0.5, 1.0)).contains("gain inf"));
        assert!(said((0.5, 0.1), (0.5, f64::NAN)).contains("apart"));
        let cases = [
            ("[current]\ngain = 1.0\noffset_a = 9.0\nmeter_uncertainty = 0.0\n", "offset_a 9"),
            ("[current]\ngain = nan\noffset_a = 0.0\nmeter_uncertainty = 0.0\n", "gain NaN"),
            ("[current]\ngain = 1.0\noffset_a = 0.0\nmeter_uncertainty = 2.0\n", "meter_uncertainty 2"),
            ("[current]\ngain = 1.0\n", "power.toml:1: missing field `offset_a`"),
            ("[idle]\nwatts = -1.0\nseconds = 30.0\n", "idle of -1 W"),
            ("idle_w = 3.0\n", "power.toml:1: unknown field `idle_w`"),
        ];
        for (text, expected) in cases {
            let error = format!("{:#}", load(text).unwrap_err());
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert_eq!(load("").unwrap(), PowerCalibration::default());
    }
}
