//! Time and energy by the agent's activity: the layer between the loop and the [books](super::books).
//!
//! The loop marks its phases and fetches the meter's readings. Without a sensor, only time is counted, and queries
//! for energy return `None`.

use super::books::{Books, Idle};
use super::clock::Clock;
use super::health::Health;
use super::ledger::Span;
use super::meter::{Meter, MeterEvent};
use super::phase::{ByPhase, EnergyPhase};
use super::probe;
use super::report::{MeterUse, TurnEnergy, on_wire};
use super::sensor::{SensorError, SensorSource};
use super::settings::PowerSettings;
use super::simulated::board::SimulatedBoard;
use anyhow::Result;
use dunlin_hlm::device::DeviceCounters;
use dunlin_hlm::stop::Prices;
use dunlin_hlm::time::{Duration, Instant};
use dunlin_wire::{EnergyReport, Telemetry};
use std::future::Future;
use tracing::{info, warn};

/// Interval at which spans are closed.
const TICK: Duration = Duration::from_millis(1000);
/// Limits of the wait for a reading after a reply's end, in periods and as a time.
const GRACE_PERIODS: u64 = 4;
const GRACE_MIN: Duration = Duration::from_millis(60);
const GRACE_MAX: Duration = Duration::from_millis(2500);
/// Interval at which the meter is read while the loop does something else.
const TAKE_IN: std::time::Duration = std::time::Duration::from_millis(200);

/// Time and, if there is a sensor, energy by the agent's activity.
#[derive(Debug)]
pub struct EnergyAccount {
    clock: Clock,
    phase: EnergyPhase,
    since: Instant,
    micros: ByPhase<u64>,
    metered: Option<MeteredEnergy>,
}

/// The part that exists only with a sensor.
#[derive(Debug)]
struct MeteredEnergy {
    source: SensorSource,
    meter: Meter,
    books: Books,
    health: Health,
    /// The simulated board, and the true energy of its phases when the reply began.
    board: Option<(SimulatedBoard, ByPhase<f64>)>,
    next_tick: Instant,
    ended: Option<EndedPhase>,
    telemetry_every: Option<Duration>,
    next_telemetry: Instant,
    telemetry_due: bool,
    report_due: bool,
    counted: ReplyTotals,
    /// The last error that was logged, so that the same error is not logged again.
    logged: Option<SensorError>,
}

/// A reply that has ended but whose energy is not yet known.
#[derive(Debug)]
struct EndedPhase {
    wait_until: Instant,
    truth: Option<ByPhase<f64>>,
}

/// Sums over replies for the published reports.
#[derive(Clone, Copy, Debug, Default)]
struct ReplyTotals {
    run: u32,
    reports: u32,
    requests: u32,
    committed: u64,
    drafted: u64,
    frames: u64,
}

impl EnergyAccount {
    /// Counts only time, starting now.
    pub fn unmetered(phase: EnergyPhase) -> Self {
        let clock = Clock::start();
        Self { clock, phase, since: clock.now(), micros: ByPhase::default(), metered: None }
    }

    /// Starts the meter of the configured source, if there is one. Reports carry the random number `run`, which
    /// distinguishes the counters of different starts of the program.
    ///
    /// # Errors
    /// The configured source doesn't answer, or the thread can't be started.
    pub fn start(settings: &PowerSettings, run: u32, phase: EnergyPhase) -> Result<Self> {
        let unmetered = Self::unmetered(phase);
        let metered = MeteredEnergy::start(settings, run, phase, unmetered.clock)?;
        Ok(Self { metered, ..unmetered })
    }

    /// The clock of all times here.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Begins a phase.
    pub fn mark(&mut self, phase: EnergyPhase, now: Instant) {
        self.micros[self.phase] += now.since(self.since).0;
        self.since = now;
        if phase == self.phase {
            return;
        }
        self.phase = phase;
        tracing::trace!(phase = phase.name(), at_us = now.0);
        let Some(metered) = &mut self.metered else { return };
        if let Some((board, _)) = &metered.board {
            board.mark(phase, now);
        }
        metered.books.handle_phase(phase, now);
    }

    /// Time of each phase up to the last mark, µs.
    pub fn micros(&self) -> ByPhase<u64> {
        self.micros
    }

    /// Time of each phase up to `now`, µs, the current phase included.
    pub fn micros_until(&self, now: Instant) -> ByPhase<u64> {
        let mut micros = self.micros;
        micros[self.phase] += now.since(self.since).0;
        micros
    }

    /// A reply begins.
    pub fn begin_reply(&mut self, now: Instant) {
        let Some(metered) = &mut self.metered else { return };
        metered.books.begin_reply(now);
        if let Some((board, begin)) = &mut metered.board {
            *begin = board.truth(now);
        }
    }

    /// A reply ends, with these counters. [`Self::poll_reply`] returns its energy once it is known.
    pub fn end_reply(&mut self, counters: &DeviceCounters, now: Instant) {
        let Some(metered) = &mut self.metered else { return };
        metered.books.end_reply(now);
        let grace = Duration(GRACE_PERIODS * metered.source.period.0).clamp(GRACE_MIN, GRACE_MAX);
        let truth = metered.board.as_ref().map(|(board, begin)| less(board.truth(now), begin));
        metered.ended = Some(EndedPhase { wait_until: now + grace, truth });
        let counted = &mut metered.counted;
        counted.requests = counted.requests.saturating_add(1);
        counted.committed += counters.committed;
        counted.drafted += counters.drafted;
        counted.frames += counters.frames_up;
    }

    /// True while the energy of a reply that ended is not yet known.
    pub fn is_open(&self) -> bool {
        self.metered.as_ref().is_some_and(|metered| metered.ended.is_some())
    }

    /// The energy of the reply that ended, once a later reading has arrived or the wait for it is over.
    pub fn poll_reply(&mut self, now: Instant) -> Option<TurnEnergy> {
        self.take_in(now);
        self.metered.as_mut()?.poll_reply(now)
    }

    /// The energy of the reply that ended, without further waiting.
    pub fn force_reply(&mut self, now: Instant) -> Option<TurnEnergy> {
        self.metered.as_mut()?.ended.as_mut()?.wait_until = now;
        self.poll_reply(now)
    }

    /// Processes the meter's events, and closes spans that are due.
    pub fn take_in(&mut self, now: Instant) {
        let Some(metered) = &mut self.metered else { return };
        while let Some(heard) = metered.meter.next() {
            match heard {
                MeterEvent::Sample(sample, _) => metered.books.handle_sample(&sample),
                MeterEvent::Lost(error) => metered.on_loss(error),
                MeterEvent::Health(health) => metered.health = health,
            }
        }
        if now >= metered.next_tick {
            metered.next_tick = now + TICK;
            metered.books.tick(now);
        }
        if let Some(every) = metered.telemetry_every.filter(|_| now >= metered.next_telemetry) {
            metered.next_telemetry = now + every;
            metered.telemetry_due = true;
        }
    }

    /// The latest time for the next call of [`Self::take_in`].
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let metered = self.metered.as_ref()?;
        // The meter's channel doesn't wake the loop, so look twice per period for an awaited reading.
        let period = Duration((metered.source.period.0 / 2).clamp(1000, 50_000));
        let look = metered.ended.as_ref().map(|_| now + period);
        let telemetry = metered.telemetry_every.map(|_| metered.next_telemetry);
        Some([look, telemetry].into_iter().flatten().fold(metered.next_tick, Instant::min))
    }

    /// Takes the report of the last reply for the verifier.
    pub fn poll_report(&mut self) -> Option<EnergyReport> {
        let metered = self.metered.as_mut()?;
        std::mem::take(&mut metered.report_due).then(|| metered.report())
    }

    /// Takes the telemetry of the last interval for the verifier, if due.
    pub fn poll_telemetry(&mut self) -> Option<Telemetry> {
        let metered = self.metered.as_mut()?;
        std::mem::take(&mut metered.telemetry_due).then(|| metered.telemetry(self.clock.now()))
    }

    /// Prices of a second, J, if known.
    pub fn prices(&self) -> Option<Prices> {
        self.metered.as_ref()?.books.prices()
    }

    /// Power of the idle board, if known.
    pub fn idle(&self) -> Option<Idle> {
        self.metered.as_ref()?.books.idle()
    }

    /// Energy and faults since the start; `None` without a sensor.
    pub fn total(&self) -> Option<&Span> {
        self.metered.as_ref().map(|metered| metered.books.total())
    }

    /// Runs `work` and processes readings meanwhile.
    pub async fn during<F: Future>(&mut self, work: F) -> F::Output {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                // Otherwise the meter's channel would overflow during long work.
                () = tokio::time::sleep(TAKE_IN), if self.metered.is_some() => self.take_in(self.clock.now()),
            }
        }
    }

    /// Measures the idle board until `end`; without a sensor nothing is waited for.
    pub async fn measure_idle(&mut self, end: impl Future<Output = ()>) {
        if self.metered.is_none() {
            return;
        }
        let before = self.phase;
        self.mark(EnergyPhase::Idle, self.clock.now());
        self.during(end).await;
        let now = self.clock.now();
        self.mark(before, now);
        self.take_in(now);
        if let Some(metered) = &mut self.metered {
            metered.books.tick(now);
            // Charge everything up to now, so that the idle power is known at once.
            metered.books.settle(now);
        }
    }
}

impl MeteredEnergy {
    fn start(settings: &PowerSettings, run: u32, phase: EnergyPhase, clock: Clock) -> Result<Option<Self>> {
        let Some(found) = probe::open(settings, clock)? else { return Ok(None) };
        if let Some(caution) = &found.caution {
            warn!("power: {caution}");
        }
        let (now, board) = (clock.now(), found.board.clone());
        if let Some(board) = &board {
            board.mark(phase, now);
        }
        let metering = found.metering(clock);
        let source = metering.source().clone();
        info!("power: {source}, {}", source.part);
        let books = Books::new(phase, now, source.period, settings.idle_w());
        let meter = Meter::start(metering, probe::health(settings))?;
        Ok(Some(Self {
            source,
            meter,
            books,
            health: Health::default(),
            board: board.map(|board| (board, ByPhase::default())),
            next_tick: now + TICK,
            ended: None,
            telemetry_every: settings.telemetry,
            next_telemetry: now + settings.telemetry.unwrap_or_default(),
            telemetry_due: false,
            report_due: false,
            counted: ReplyTotals { run, ..ReplyTotals::default() },
            logged: None,
        }))
    }

    fn poll_reply(&mut self, now: Instant) -> Option<TurnEnergy> {
        let ended = self.ended.as_ref()?;
        if now >= ended.wait_until {
            self.books.settle(now);
        }
        let span = self.books.take_reply()?;
        let ended = self.ended.take()?;
        self.report_due = true;
        Some(TurnEnergy {
            source: self.source.clone(),
            span,
            idle: self.books.idle(),
            load_j: self.books.total().joules[EnergyPhase::Load],
            health: self.health,
            truth: ended.truth,
            meter: MeterUse {
                realtime: self.meter.is_realtime(),
                dropped: self.meter.dropped(),
                cpu_share: self.meter.cpu_time().as_secs_f64()
                    / now.since(Instant(0)).as_secs_f64().max(1e-6),
            },
        })
    }

    fn report(&mut self) -> EnergyReport {
        let counted = &mut self.counted;
        counted.reports = counted.reports.saturating_add(1);
        let total = self.books.total();
        let ReplyTotals { run, reports, requests, committed, drafted, frames } = *counted;
        EnergyReport {
            run,
            reports,
            source: self.source.kind,
            requests,
            phases: on_wire::phases(total),
            idle_mw: self.books.idle().map(|idle| on_wire::milli(idle.watts)),
            uncertainty_uj: on_wire::micro(self.source.uncertainty.of(total.total_j(), total.time())),
            committed,
            drafted,
            frames,
            faults: on_wire::faults(&total.faults),
        }
    }

    fn telemetry(&mut self, now: Instant) -> Telemetry {
        let (tick, total) = (self.books.take_tick(), self.books.total());
        let seconds = tick.time().as_secs_f64();
        let mean = if seconds > 0.0 { tick.total_j() / seconds } else { 0.0 };
        Telemetry {
            run: self.counted.run,
            at_us: now.0,
            source: self.source.kind,
            mean_mw: on_wire::milli(mean),
            peak_mw: on_wire::milli(tick.peak_w),
            energy_uj: on_wire::micro(total.total_j()),
            temperature_dc: self.health.temperature_c.map(|c| (c * 10.0).round() as i16),
            throttling: self.health.throttling,
            faults: on_wire::faults(&total.faults),
        }
    }

    fn on_loss(&mut self, error: SensorError) {
        self.books.handle_loss(&error);
        if self.logged.as_ref() != Some(&error) {
            warn!("power: {error}");
            self.logged = Some(error);
        }
    }
}

/// The difference of two energies by phase, J.
fn less(now: ByPhase<f64>, begin: &ByPhase<f64>) -> ByPhase<f64> {
    ByPhase(std::array::from_fn(|i| now.0[i] - begin.0[i]))
}
