//! A source of power readings, by quantity: what is measured, not how.

use super::units::{Amperes, Joules, Volts, Watts};
use dunlin_hlm::time::Duration;
use dunlin_wire::PowerSource;
use std::fmt;
use thiserror::Error;

/// What gives power readings. One thread owns it, and a call may take as long as a bus or a file does.
pub trait PowerSensor: Send {
    /// What it is.
    fn source(&self) -> &SensorSource;

    /// The next reading, or `None` while there is nothing new.
    ///
    /// # Errors
    /// This reading is lost; the next call tries again, and sets the sensor up anew where that is needed.
    fn read(&mut self) -> Result<Option<Reading>, SensorError>;
}

/// What a source is, and what its figures are worth.
#[derive(Clone, Debug, PartialEq)]
pub struct SensorSource {
    /// Which sort of source.
    pub kind: PowerSource,
    /// Which part and where: `0x40 on /dev/i2c-1`, `ina3221 VDD_IN`.
    pub part: String,
    /// What its figures take in and what they leave out, in words.
    pub boundary: String,
    /// How far its figures may be off.
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

/// How far a power figure may be off: a share of it, and a part that does not depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Uncertainty {
    /// Share of the figure: shunt tolerance and gain.
    pub relative: f64,
    /// Offset, W.
    pub offset_w: f64,
}

/// What a sensor gives.
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
        /// How long before the reading the window ended.
        ended: Duration,
        /// How long the window was; 0 for a value of one moment.
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
        /// What went wrong.
        reason: String,
    },
    /// A trace has no more readings.
    #[error("{0}: the trace has ended")]
    Ended(String),
}
