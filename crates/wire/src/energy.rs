//! Power and energy as the device measured them.
//!
//! Invariant: every counter grows within a run and starts from zero in the next one, so that a lost message costs only
//! resolution in time.

use crate::codec::{self, Kind};
use crate::limits::{ENERGY_BYTES_MAX, TELEMETRY_BYTES_MAX};
use crate::{DecodeError, EncodeError};
use heapless::Vec;
use serde::{Deserialize, Serialize};

/// The source of a device's power figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PowerSource {
    /// An INA219 on the I2C bus.
    Ina219,
    /// A power monitor with a kernel driver (hwmon).
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

/// Energy, time and counts of a device since its run began; sent once per request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnergyReport {
    /// Random number drawn at each start of the agent, which distinguishes the counters of its runs.
    pub run: u32,
    /// Reports of the run, this one included, never 0: a gap shows a lost one.
    pub reports: u32,
    /// The source of the figures.
    pub source: PowerSource,
    /// Requests answered.
    pub requests: u32,
    /// Energy and time by phase.
    pub phases: PhaseTotals,
    /// The baseline in milliwatts that idle-subtracted figures use; `None` if it was not measured.
    pub idle_mw: Option<u32>,
    /// Uncertainty of the sum of the phases' energy, in microjoules.
    pub uncertainty_uj: u64,
    /// Tokens committed.
    pub committed: u64,
    /// Tokens drafted.
    pub drafted: u64,
    /// Draft frames sent.
    pub frames: u64,
    /// Faults of the meter.
    pub faults: MeterFaults,
}

/// The present state of a device's power; sent about once a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Telemetry {
    /// The run, as in [`EnergyReport`].
    pub run: u32,
    /// Microseconds since the run began.
    pub at_us: u64,
    /// The source of the figures.
    pub source: PowerSource,
    /// Mean power in milliwatts since the previous telemetry message.
    pub mean_mw: u32,
    /// Largest power in milliwatts since the previous telemetry message.
    pub peak_mw: u32,
    /// Energy of all phases since the run began, in microjoules.
    pub energy_uj: u64,
    /// Temperature in tenths of a degree Celsius; `None` if it is unknown.
    pub temperature_dc: Option<i16>,
    /// Reasons that slow the board down; `None` if they are unknown.
    pub throttling: Option<Throttling>,
    /// Faults of the meter.
    pub faults: MeterFaults,
}

/// Energy and time by phase, since the run began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseTotals {
    /// Loading models.
    pub load: PhaseTotal,
    /// Drafting tokens.
    pub draft: PhaseTotal,
    /// Scoring them.
    pub score: PhaseTotal,
    /// Sending frames.
    pub send: PhaseTotal,
    /// Waiting for verdicts.
    pub wait: PhaseTotal,
    /// Idle.
    pub idle: PhaseTotal,
}

/// Energy and time of one phase, since the run began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseTotal {
    /// Microjoules.
    pub energy_uj: u64,
    /// Microseconds.
    pub time_us: u64,
}

/// Faults of a meter since the run began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeterFaults {
    /// Gaps without samples.
    pub gaps: u32,
    /// Total length of the gaps in microseconds.
    pub gap_us: u64,
    /// Samples at the end of the sensor's range.
    pub clipped: u32,
    /// Samples that the sensor itself reported as invalid.
    pub overflowed: u32,
    /// Number of times that the sensor lost its settings and was configured again.
    pub reinitialised: u32,
    /// Readings that failed.
    pub failed: u32,
}

/// Reasons that slow a board down, one bit each: bits 0 to 3 now, bits 4 to 7 at any time since it booted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttling(u8);

impl PowerSource {
    /// Every source.
    pub const ALL: [Self; 6] =
        [Self::Ina219, Self::Hwmon, Self::Pmic, Self::Powercap, Self::Replay, Self::Simulated];

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

impl EnergyReport {
    /// Encodes the message.
    ///
    /// # Errors
    /// Names the field that is outside its limits.
    pub fn encode(&self) -> Result<Vec<u8, ENERGY_BYTES_MAX>, EncodeError> {
        self.check().map_err(EncodeError::OutOfRange)?;
        codec::put(Kind::Energy, self)
    }

    /// Decodes a message from an energy topic.
    ///
    /// # Errors
    /// The bytes are malformed; see [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let report: Self = match codec::open(bytes)? {
            (Kind::Energy, rest) => codec::take_all(rest)?,
            (kind, _) => return Err(DecodeError::UnknownKind(kind as u8)),
        };
        report.check().map_err(DecodeError::Impossible)?;
        Ok(report)
    }

    fn check(&self) -> Result<(), &'static str> {
        if self.reports == 0 { Err("reports") } else { Ok(()) }
    }
}

impl Telemetry {
    /// Encodes the message.
    ///
    /// # Errors
    /// None in practice: the message's size is below the limit.
    pub fn encode(&self) -> Result<Vec<u8, TELEMETRY_BYTES_MAX>, EncodeError> {
        codec::put(Kind::Telemetry, self)
    }

    /// Decodes a message from a telemetry topic.
    ///
    /// # Errors
    /// The bytes are malformed; see [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        match codec::open(bytes)? {
            (Kind::Telemetry, rest) => codec::take_all(rest),
            (kind, _) => Err(DecodeError::UnknownKind(kind as u8)),
        }
    }
}

impl PhaseTotals {
    /// The phases with their names, in the order in which they are sent.
    pub const fn named(&self) -> [(&'static str, PhaseTotal); 6] {
        let Self { load, draft, score, send, wait, idle } = *self;
        [("load", load), ("draft", draft), ("score", score), ("send", send), ("wait", wait), ("idle", idle)]
    }

    /// The sum of all phases; saturates at 64 bits.
    pub fn sum(&self) -> PhaseTotal {
        self.named().iter().fold(PhaseTotal::default(), |sum, (_, phase)| PhaseTotal {
            energy_uj: sum.energy_uj.saturating_add(phase.energy_uj),
            time_us: sum.time_us.saturating_add(phase.time_us),
        })
    }
}

impl Throttling {
    /// The flag of a supply below what the board needs.
    pub const UNDER_VOLTAGE: u8 = 1;
    /// The flag of a capped clock.
    pub const FREQUENCY_CAPPED: u8 = 1 << 1;
    /// The flag of a throttled processor.
    pub const THROTTLED: u8 = 1 << 2;
    /// The flag of a temperature at its soft limit.
    pub const SOFT_TEMPERATURE_LIMIT: u8 = 1 << 3;

    /// Present flags in the low four bits, those since boot in the high four.
    pub const fn new(flags: u8) -> Self {
        Self(flags)
    }

    /// All eight flags.
    pub const fn flags(self) -> u8 {
        self.0
    }

    /// True when the supply voltage is too low now.
    pub const fn under_voltage(self) -> bool {
        self.0 & Self::UNDER_VOLTAGE != 0
    }

    /// True when the clock is capped now.
    pub const fn frequency_capped(self) -> bool {
        self.0 & Self::FREQUENCY_CAPPED != 0
    }

    /// True when the processor is throttled now.
    pub const fn throttled(self) -> bool {
        self.0 & Self::THROTTLED != 0
    }

    /// True when the temperature is at its soft limit now.
    pub const fn soft_temperature_limit(self) -> bool {
        self.0 & Self::SOFT_TEMPERATURE_LIMIT != 0
    }

    /// The flags since boot, in the place of the present ones.
    #[must_use]
    pub const fn since_boot(self) -> Self {
        Self(self.0 >> 4)
    }
}
