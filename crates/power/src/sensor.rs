//! The interface of power sources: the measured quantities, independent of the hardware.

use super::units::{Amperes, Joules, Volts, Watts};
use dunlin_hlm::time::Duration;
use dunlin_wire::PowerSource;
use std::fmt;
use thiserror::Error;

/// A source of power readings. One thread owns it, and a call may take as long as its bus or file does.
pub trait PowerSensor: Send {
    /// Its description.
    fn source(&self) -> &SensorSource;

    /// The next reading; `None` if there is no new one.
    ///
    /// # Errors
    /// This reading is lost. The next call tries again, and configures the sensor again if necessary.
    fn read(&mut self) -> Result<Option<Reading>, SensorError>;
}

/// Description of a source, and the uncertainty of its figures.
#[derive(Clone, Debug, PartialEq)]
pub struct SensorSource {
    /// Its kind.
    pub kind: PowerSource,
    /// Part and place: `0x40 on /dev/i2c-1`, `ina3221 VDD_IN`.
    pub part: String,
    /// The consumers that its figures include and leave out, in words.
    pub boundary: String,
    /// Uncertainty of its figures.
    pub uncertainty: Uncertainty,
    /// Time between two readings.
    pub period: Duration,
    /// Time between two looks while a reading is due; at most `period`.
    pub poll: Duration,
}

impl fmt::Display for SensorSource {
    /// `measured (ina219)`: precedes every figure in joules.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self.kind {
            PowerSource::Replay => "replayed",
            PowerSource::Simulated => "simulated",
            _ => "measured",
        };
        match self.kind {
            PowerSource::Replay => f.write_str(how),
            PowerSource::Simulated => write!(f, "{how} (ina219)"),
            kind => write!(f, "{how} ({})", kind.name()),
        }
    }
}

/// Uncertainty of a power figure: a relative part and an offset.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Uncertainty {
    /// Relative part: shunt tolerance and gain.
    pub relative: f64,
    /// Offset, W.
    pub offset_w: f64,
}

/// A reading of a sensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reading {
    /// Mean power over a window of time.
    Power {
        /// The power.
        power: Watts,
        /// Voltage and current, if the source has them.
        rail: Option<(Volts, Amperes)>,
        /// True at the end of the sensor's range, where the true value may be larger.
        clipped: bool,
        /// Time between the end of the window and the reading.
        ended: Duration,
        /// Length of the window; 0 for a value without a window.
        lasted: Duration,
    },
    /// Energy since some fixed time; only increases.
    Energy(Joules),
}

/// The reason why a reading is lost.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SensorError {
    /// The chip reported an overflow, so its result is invalid.
    #[error("{0}: the result overflowed")]
    Overflow(String),
    /// The sensor had lost its settings, for example by a brown-out, and was configured again.
    #[error("{0}: the sensor had lost its settings and was set up again")]
    Reinitialised(String),
    /// The bus or the file failed.
    #[error("{place}: {reason}")]
    Failed {
        /// Bus and register, or file.
        place: String,
        /// The reason.
        reason: String,
    },
    /// A trace has no more readings.
    #[error("{0}: the trace has ended")]
    Ended(String),
}
