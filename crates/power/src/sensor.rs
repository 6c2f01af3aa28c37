//! A source of power readings, by quantity: what is measured, not how.

use super::units::{Amperes, Joules, Volts, Watts};
use dunlin_hlm::time::Duration;
use dunlin_wire::PowerSource;
use std::fmt;
use thiserror::Error;

/// A source of power readings. One thread owns it, and a call may take as long as a bus or a file does.
pub trait PowerSensor: Send {
    /// Its description.
    fn source(&self) -> &SensorSource;

    /// The next reading, or `None` while there is nothing new.
    ///
    /// # Errors
    /// This reading is lost; the next call tries again, and sets the sensor up anew where that is needed.
    fn read(&mut self) -> Result<Option<Reading>, SensorError>;
}

/// Description of a source, and the uncertainty of its figures.
#[derive(Clone, Debug, PartialEq)]
pub struct SensorSource {
    /// Its kind.
    pub kind: PowerSource,
    /// Part and place: `0x40 on /dev/i2c-1`, `ina3221 VDD_IN`.
    pub part: String,
    /// What its figures include and leave out, in words.
    pub boundary: String,
    /// Uncertainty of its figures.
    pub uncertainty: Uncertainty,
    /// From one reading to the next.
    pub period: Duration,
    /// From a reading's being ready to the next look for one; at most `period`.
    pub poll: Duration,
}

impl fmt::Display for SensorSource {
    /// `measured (ina219)`: what stands before every figure in joules.
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

/// Uncertainty of a power figure: a share of it, and an offset.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Uncertainty {
    /// Share of the figure: shunt tolerance and gain.
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
        /// Voltage and current, where the source has them.
        rail: Option<(Volts, Amperes)>,
        /// At the end of the sensor's range: the true value may be larger.
        clipped: bool,
        /// Time between the end of the window and the reading.
        ended: Duration,
        /// Length of the window; 0 for a value of one moment.
        lasted: Duration,
    },
    /// Energy since some fixed moment: it only grows.
    Energy(Joules),
}

/// Why a reading is lost.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SensorError {
    /// The chip says that its result means nothing.
    #[error("{0}: the result overflowed")]
    Overflow(String),
    /// The sensor had lost its settings, as after a brown-out, and was set up again.
    #[error("{0}: the sensor had lost its settings and was set up again")]
    Reinitialised(String),
    /// The bus or the file failed: where, and what it said.
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
