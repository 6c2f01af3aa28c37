//! A test stand in virtual time: chip, sensor, meter and ledger, with exactly known power.

use dunlin_hlm::time::{Duration, Instant};
use dunlin_power::calibration::Correction;
use dunlin_power::ina219::{Averaging, Config, ShuntRange};
use dunlin_power::ina219_sensor::Ina219Sensor;
use dunlin_power::ledger::{Ledger, ReadingFaults, Span};
use dunlin_power::meter::{MeterEvent, Metering};
use dunlin_power::phase::{ByPhase, EnergyPhase, PHASES};
use dunlin_power::sensor::SensorError;
use dunlin_power::simulated::chip::{Chip, Troubles, Wiring};
use dunlin_power::simulated::waveform::StepWaveform;
use dunlin_power::timebase::{Timebase, VirtualTime};

/// The bus clock: at 100 kHz, three transactions would take longer than two conversions.
const BUS_HZ: u32 = 400_000;

/// A board's activity, step by step, and the ends of its rounds.
#[derive(Clone, Debug, Default)]
pub(super) struct Script {
    /// Steps as (phase, µs, W).
    steps: Vec<(EnergyPhase, u64, f64)>,
    rounds: Vec<u64>,
    length: u64,
    seed: u64,
}

impl Script {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    pub(super) fn step(&mut self, phase: EnergyPhase, micros: u64, watts: f64) {
        self.steps.push((phase, micros, watts));
        self.length += micros;
    }

    pub(super) fn end_round(&mut self) {
        self.rounds.push(self.length);
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// A pseudo-random number in 0..1.
    pub(super) fn draw(&mut self) -> f64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn waveform(&self) -> StepWaveform {
        StepWaveform::new(self.steps.iter().map(|(_, micros, watts)| (*micros, *watts))).unwrap()
    }

    /// Energy of each phase between two times, J.
    fn truth(&self, from: u64, until: u64) -> ByPhase<f64> {
        let (mut at, mut truth) = (0, ByPhase::default());
        for (phase, micros, watts) in &self.steps {
            let (begin, end) = (at.max(from), (at + micros).min(until));
            truth[*phase] += end.saturating_sub(begin) as f64 / 1e6 * watts;
            at += micros;
        }
        truth
    }
}

/// The settings and faults of a measurement.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub(super) averaging: u8,
    pub(super) troubles: Troubles,
    /// Intervals in which the reader sleeps, µs.
    pub(super) stalls: Vec<(u64, u64)>,
    /// Minimum time between two readings, µs; 0 for no limit.
    pub(super) slowed_to: u64,
}

impl Setup {
    pub(super) fn averaged(averaging: u8) -> Self {
        Self { averaging, troubles: Troubles::default(), stalls: Vec::new(), slowed_to: 0 }
    }
}

/// Measured and true energies.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) spans: Vec<Span>,
    truths: Vec<ByPhase<f64>>,
    pub(super) faults: ReadingFaults,
    pub(super) samples_per_second: f64,
}

impl Outcome {
    /// Relative error in total.
    pub(super) fn total(&self) -> f64 {
        let measured: f64 = self.spans.iter().map(Span::total_j).sum();
        let truth: f64 = self.truths.iter().flat_map(|truth| truth.0).sum();
        measured / truth - 1.0
    }

    /// Absolute relative errors of the rounds, ascending.
    fn rounds(&self) -> Vec<f64> {
        let error = |(span, truth): (&Span, &ByPhase<f64>)| {
            (span.total_j() / truth.0.iter().sum::<f64>() - 1.0).abs()
        };
        let mut errors: Vec<f64> = self.spans.iter().zip(&self.truths).map(error).collect();
        errors.sort_by(f64::total_cmp);
        errors
    }

    pub(super) fn median(&self) -> f64 {
        let errors = self.rounds();
        errors[errors.len() / 2]
    }

    pub(super) fn p95(&self) -> f64 {
        let errors = self.rounds();
        errors[errors.len() * 95 / 100]
    }

    /// The largest error of a phase's energy, as a share of the whole.
    pub(super) fn split(&self) -> f64 {
        let whole: f64 = self.truths.iter().flat_map(|truth| truth.0).sum();
        let error = |i: usize| {
            let measured: f64 = self.spans.iter().map(|span| span.joules.0[i]).sum();
            let truth: f64 = self.truths.iter().map(|truth| truth.0[i]).sum();
            (measured - truth).abs() / whole
        };
        (0..PHASES).map(error).fold(0.0, f64::max)
    }
}

/// Measures a script from beginning to end.
pub(super) fn measure(script: &Script, setup: &Setup) -> Outcome {
    let time = VirtualTime::default();
    let wiring = Wiring { bus_hz: BUS_HZ, ..Wiring::default() };
    let chip = Chip::new(script.waveform(), time.clone(), wiring, setup.troubles.clone());
    let averaging = Averaging::of(setup.averaging).unwrap();
    let config =
        Config { shunt_micro_ohms: 100_000, range: ShuntRange::Mv320, shunt: averaging, bus: averaging };
    let sensor = Ina219Sensor::new(chip, "a test's bus", 0x40, config, Correction::default(), time.clone());
    let mut metering = Metering::new(Box::new(sensor), time.clone());
    let period = Duration(metering.source().period.0.max(setup.slowed_to));
    let mut ledger = Ledger::new(script.steps[0].0, Instant(0), period);
    let (mut marks, mut cuts) = (marks(script), script.rounds.clone().into_iter().peekable());
    let mut spans = Vec::new();
    let behind = script.length + 4 * period.0;
    while time.now().0 < behind {
        let (heard, pause) = metering.look();
        let now = time.now().0;
        while let Some((at, phase)) = marks.next_if(|(at, _)| *at <= now) {
            ledger.handle_phase(phase, Instant(at));
        }
        while let Some(at) = cuts.next_if(|at| *at <= now) {
            ledger.handle_cut(Instant(at));
        }
        let taken = matches!(heard, Some(MeterEvent::Sample(..)));
        match heard {
            Some(MeterEvent::Sample(sample, _)) => ledger.handle_sample(&sample),
            Some(MeterEvent::Lost(error)) => ledger.handle_fault(|faults| count(faults, &error)),
            Some(MeterEvent::Health(_)) | None => {}
        }
        spans.extend(std::iter::from_fn(|| ledger.poll_span()));
        let stall = setup.stalls.iter().find(|(from, until)| (*from..*until).contains(&now));
        let slowed = if taken { setup.slowed_to } else { 0 };
        time.wait(stall.map_or(Duration(pause.0.max(slowed)), |(_, until)| Duration(until - now)));
    }
    ledger.settle(time.now());
    spans.extend(std::iter::from_fn(|| ledger.poll_span()));
    outcome(script, spans)
}

fn marks(script: &Script) -> std::iter::Peekable<std::vec::IntoIter<(u64, EnergyPhase)>> {
    let mut at = 0;
    let marks: Vec<(u64, EnergyPhase)> = script
        .steps
        .iter()
        .map(|(phase, micros, _)| {
            at += micros;
            (at - micros, *phase)
        })
        .collect();
    marks.into_iter().peekable()
}

fn count(faults: &mut ReadingFaults, error: &SensorError) {
    match error {
        SensorError::Overflow(_) => faults.overflowed += 1,
        SensorError::Reinitialised(_) => faults.reinitialised += 1,
        SensorError::Failed { .. } | SensorError::Ended(_) => faults.failed += 1,
    }
}

fn outcome(script: &Script, spans: Vec<Span>) -> Outcome {
    let mut faults = ReadingFaults::default();
    spans.iter().for_each(|span| faults.add(&span.faults));
    let truths = spans.iter().map(|span| script.truth(span.from.0, span.until.0)).collect();
    let samples: u64 = spans.iter().map(|span| span.samples).sum();
    let samples_per_second = samples as f64 / (script.length as f64 / 1e6);
    Outcome { spans, truths, faults, samples_per_second }
}
