//! Energy of a reply, for the agent's report and for the published report.

use super::books::{Idle, IdleFrom};
use super::health::Health;
use super::ledger::Span;
use super::phase::{ByPhase, EnergyPhase};
use super::sensor::{SensorSource, Uncertainty};
use dunlin_hlm::device::DeviceCounters;
use dunlin_hlm::time::Duration;
use serde::Serialize;

/// The energy of one reply.
#[derive(Clone, Debug, PartialEq)]
pub struct TurnEnergy {
    /// Source of the figures.
    pub source: SensorSource,
    /// From the prompt to the end of the reply.
    pub span: Span,
    /// Power of the idle board.
    pub idle: Option<Idle>,
    /// Energy of loading the model, once for all replies of the process, J.
    pub load_j: f64,
    /// State of the board at the end.
    pub health: Health,
    /// True energy of a simulated board's phases, J.
    pub truth: Option<ByPhase<f64>>,
    /// Cost of the meter itself.
    pub meter: MeterUse,
}

/// Cost of the meter itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct MeterUse {
    /// True if its thread has real-time priority.
    pub realtime: bool,
    /// Events dropped because the loop was too slow.
    pub dropped: u64,
    /// Processor time of its thread, as a share of the process's time.
    pub cpu_share: f64,
}

impl Uncertainty {
    /// Uncertainty of an energy, J. The errors are taken as systematic, so both parts add up over time.
    pub fn of(&self, joules: f64, time: Duration) -> f64 {
        self.relative * joules.abs() + self.offset_w * time.as_secs_f64()
    }
}

/// The `energy` object of a report. Its field names are an interface; without a sensor, there is only `source`.
#[derive(Clone, Debug, Serialize)]
pub struct EnergyFields {
    /// `measured (…)`, `simulated (ina219)`, `replayed`, or `none`.
    pub source: String,
    /// The other fields.
    #[serde(flatten)]
    pub measured: Option<MeasuredFields>,
}

/// Fields that exist only with a sensor.
#[derive(Clone, Debug, Serialize)]
pub struct MeasuredFields {
    /// Part and place of the source.
    pub part: String,
    /// The consumers that the figures include and leave out.
    pub boundary: String,
    /// Gross energy of the reply, J.
    pub joules: f64,
    /// Uncertainty of `joules`, J.
    pub uncertainty_joules: f64,
    /// Power of the idle board, W.
    pub idle_watts: Option<f64>,
    /// `measured` or `calibration`.
    pub idle_from: Option<&'static str>,
    /// Gross energy minus the idle board's energy in the same time, J.
    pub joules_above_idle: Option<f64>,
    /// Gross energy divided by committed tokens, J.
    pub joules_per_committed_token: Option<f64>,
    /// Gross energy divided by tokens that the drafter produced, J.
    pub joules_per_drafted_token: Option<f64>,
    /// Gross energy divided by draft frames, J.
    pub joules_per_frame: Option<f64>,
    /// Gross energy by phase, J.
    pub phases: PhaseNumbers,
    /// Mean power by phase, W; 0 for a phase without time.
    pub watts: PhaseNumbers,
    /// Energy of loading the model, once per process, J.
    pub load_joules: f64,
    /// Number of readings.
    pub samples: u64,
    /// Readings per second.
    pub samples_per_second: f64,
    /// Intervals without a reading.
    pub gaps: u64,
    /// Total length of these intervals, s.
    pub gap_seconds: f64,
    /// Readings at the end of the range.
    pub clipped: u64,
    /// Results that overflowed.
    pub overflowed: u64,
    /// Times that the sensor was configured again.
    pub reinitialised: u64,
    /// Readings that failed.
    pub failed: u64,
    /// Time charged with a neighbouring reading's power, s.
    pub extrapolated_seconds: f64,
    /// Temperature of the processor, °C.
    pub temperature_c: Option<f64>,
    /// Causes of throttling.
    pub throttling: Option<ThrottlingFields>,
    /// Cost of the meter itself.
    pub meter: MeterUse,
    /// True energy of a simulated board, by phase, J.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truth: Option<PhaseNumbers>,
}

/// A number for each phase of a reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct PhaseNumbers {
    /// The drafter ran.
    pub draft: f64,
    /// Sampling, scores, policy and display.
    pub score: f64,
    /// Handing messages to the link.
    pub send: f64,
    /// Only an answer was missing.
    pub wait: f64,
    /// No reply was in progress.
    pub idle: f64,
}

/// Causes of throttling, now and at any time since the board started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ThrottlingFields {
    /// Present flags: 1 under-voltage, 2 frequency capped, 4 throttled, 8 soft temperature limit.
    pub now: u8,
    /// The same flags at any time since the start.
    pub since_start: u8,
}

impl From<&ByPhase<f64>> for PhaseNumbers {
    fn from(numbers: &ByPhase<f64>) -> Self {
        Self {
            draft: numbers[EnergyPhase::Draft],
            score: numbers[EnergyPhase::Score],
            send: numbers[EnergyPhase::Send],
            wait: numbers[EnergyPhase::Wait],
            idle: numbers[EnergyPhase::Idle],
        }
    }
}

impl PhaseNumbers {
    /// The values with the phases' names.
    pub fn named(&self) -> [(&'static str, f64); 5] {
        let Self { draft, score, send, wait, idle } = *self;
        [("draft", draft), ("score", score), ("send", send), ("wait", wait), ("idle", idle)]
    }
}

impl EnergyFields {
    /// The fields of a reply with these counters.
    pub fn new(energy: Option<&TurnEnergy>, counted: &DeviceCounters) -> Self {
        let source = energy.map_or("none".into(), |energy| energy.source.to_string());
        Self { source, measured: energy.map(|energy| MeasuredFields::new(energy, counted)) }
    }
}

impl MeasuredFields {
    fn new(energy: &TurnEnergy, counted: &DeviceCounters) -> Self {
        let TurnEnergy { source, span, idle, health, .. } = energy;
        let (joules, seconds) = (span.total_j(), span.time().as_secs_f64());
        let per = |count: u64| (count > 0).then(|| joules / count as f64);
        let watts = ByPhase(std::array::from_fn(|i| {
            let micros = span.micros.0[i];
            if micros == 0 { 0.0 } else { span.joules.0[i] / (micros as f64 / 1e6) }
        }));
        let faults = span.faults;
        Self {
            part: source.part.clone(),
            boundary: source.boundary.clone(),
            joules,
            uncertainty_joules: source.uncertainty.of(joules, span.time()),
            idle_watts: idle.map(|idle| idle.watts),
            idle_from: idle.map(|idle| match idle.from {
                IdleFrom::Measured => "measured",
                IdleFrom::Calibration => "calibration",
            }),
            joules_above_idle: idle.map(|idle| joules - idle.watts * seconds),
            joules_per_committed_token: per(counted.committed),
            joules_per_drafted_token: per(counted.drafted),
            joules_per_frame: per(counted.frames_up),
            phases: (&span.joules).into(),
            watts: (&watts).into(),
            load_joules: energy.load_j,
            samples: span.samples,
            samples_per_second: if seconds > 0.0 { span.samples as f64 / seconds } else { 0.0 },
            gaps: faults.gaps,
            gap_seconds: faults.gap_time.as_secs_f64(),
            clipped: faults.clipped,
            overflowed: faults.overflowed,
            reinitialised: faults.reinitialised,
            failed: faults.failed,
            extrapolated_seconds: span.extrapolated.as_secs_f64(),
            temperature_c: health.temperature_c,
            throttling: health.throttling.map(|throttling| ThrottlingFields {
                now: throttling.flags() & 0xf,
                since_start: throttling.flags() >> 4,
            }),
            meter: energy.meter,
            truth: energy.truth.as_ref().map(PhaseNumbers::from),
        }
    }

    /// Doubts about the figures, in words; empty if there are none.
    pub fn doubts(&self) -> Vec<String> {
        let counted = [
            (self.gaps, "gaps"),
            (self.clipped, "clipped readings"),
            (self.overflowed, "overflowed readings"),
            (self.reinitialised, "times the sensor was set up again"),
            (self.failed, "failed readings"),
        ];
        let mut doubts: Vec<String> = counted
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        if self.gaps > 0 {
            doubts.push(format!("{:.2} s bridged", self.gap_seconds));
        }
        if self.throttling.is_some_and(|throttling| throttling.now != 0) {
            doubts.push("the board is held back".into());
        }
        doubts
    }
}

/// Figures in the units of the messages.
pub(crate) mod on_wire {
    use crate::ledger::{ReadingFaults, Span};
    use crate::phase::EnergyPhase;
    use dunlin_wire::{MeterFaults, PhaseTotal, PhaseTotals};

    /// Rounds to thousandths; negative values become 0.
    pub(crate) fn milli(value: f64) -> u32 {
        (value * 1e3).round() as u32
    }

    /// Rounds to millionths; negative values become 0.
    pub(crate) fn micro(value: f64) -> u64 {
        (value * 1e6).round() as u64
    }

    pub(crate) fn phases(span: &Span) -> PhaseTotals {
        let of = |phase| PhaseTotal { energy_uj: micro(span.joules[phase]), time_us: span.micros[phase] };
        PhaseTotals {
            load: of(EnergyPhase::Load),
            draft: of(EnergyPhase::Draft),
            score: of(EnergyPhase::Score),
            send: of(EnergyPhase::Send),
            wait: of(EnergyPhase::Wait),
            idle: of(EnergyPhase::Idle),
        }
    }

    pub(crate) fn faults(faults: &ReadingFaults) -> MeterFaults {
        let count = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        MeterFaults {
            gaps: count(faults.gaps),
            gap_us: faults.gap_time.0,
            clipped: count(faults.clipped),
            overflowed: count(faults.overflowed),
            reinitialised: count(faults.reinitialised),
            failed: count(faults.failed),
        }
    }
}
