//! The part of [`Energy`](super::Energy) that is there only with a sensor: meter, books, and what is told of them.

use super::books::{Books, Idle};
use super::clock::Clock;
use super::health::Health;
use super::ledger::Span;
use super::meter::{Heard, Meter};
use super::phase::{ByPhase, Phase};
use super::probe;
use super::report::{MeterUse, TurnEnergy, on_wire};
use super::sensor::{SensorError, Source};
use super::settings::PowerSettings;
use super::simulated::board::Board;
use anyhow::Result;
use dunlin_hlm::device::Counters;
use dunlin_hlm::stop::Prices;
use dunlin_hlm::time::{Duration, Instant};
use dunlin_wire::{EnergyReport, Telemetry};
use tracing::{info, warn};

/// Between two closings of what is open.
const TICK: Duration = Duration::from_millis(1000);
/// Periods that the reading behind a reply's end is waited for, and at least and at most how long.
const GRACE_PERIODS: u64 = 4;
const GRACE_MIN: Duration = Duration::from_millis(60);
const GRACE_MAX: Duration = Duration::from_millis(2500);

#[derive(Debug)]
pub(super) struct Metered {
    clock: Clock,
    source: Source,
    meter: Meter,
    books: Books,
    health: Health,
    /// The simulated board, and what its phases had taken when the reply began.
    board: Option<(Board, ByPhase<f64>)>,
    next_tick: Instant,
    ended: Option<Ended>,
    telemetry_every: Option<Duration>,
    next_telemetry: Instant,
    telemetry_due: bool,
    report_due: bool,
    counted: Counted,
    /// What was said of the sensor last: the same trouble is said once.
    said: Option<SensorError>,
}

/// A reply that ended and whose energy is not known yet.
#[derive(Debug)]
struct Ended {
    wait_until: Instant,
    truth: Option<ByPhase<f64>>,
}

/// What the wire's counters need beside the books.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    run: u32,
    reports: u32,
    requests: u32,
    committed: u64,
    drafted: u64,
    frames: u64,
}

impl Metered {
    pub(super) fn start(
        settings: &PowerSettings,
        run: u32,
        phase: Phase,
        clock: Clock,
    ) -> Result<Option<Self>> {
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
        let counted = Counted { run, ..Counted::default() };
        Ok(Some(Self {
            clock,
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
            counted,
            said: None,
        }))
    }

    pub(super) fn mark(&mut self, phase: Phase, now: Instant) {
        if let Some((board, _)) = &self.board {
            board.mark(phase, now);
        }
        self.books.handle_phase(phase, now);
    }

    pub(super) fn begin_reply(&mut self, now: Instant) {
        self.books.begin_reply(now);
        if let Some((board, begin)) = &mut self.board {
            *begin = board.truth(now);
        }
    }

    pub(super) fn end_reply(&mut self, counters: &Counters, now: Instant) {
        self.books.end_reply(now);
        let grace = Duration(GRACE_PERIODS * self.source.period.0).clamp(GRACE_MIN, GRACE_MAX);
        let truth = self.board.as_ref().map(|(board, begin)| less(board.truth(now), begin));
        self.ended = Some(Ended { wait_until: now + grace, truth });
        let counted = &mut self.counted;
        counted.requests = counted.requests.saturating_add(1);
        counted.committed += counters.committed;
        counted.drafted += counters.drafted;
        counted.frames += counters.frames_up;
    }

    pub(super) fn is_open(&self) -> bool {
        self.ended.is_some()
    }

    pub(super) fn poll_reply(&mut self, now: Instant) -> Option<TurnEnergy> {
        self.take_in(now);
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
            load_j: self.books.total().joules[Phase::Load],
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

    pub(super) fn force_reply(&mut self, now: Instant) -> Option<TurnEnergy> {
        self.ended.as_mut()?.wait_until = now;
        self.poll_reply(now)
    }

    pub(super) fn take_in(&mut self, now: Instant) {
        while let Some(heard) = self.meter.next() {
            match heard {
                Heard::Sample(sample, _) => self.books.handle_sample(&sample),
                Heard::Lost(error) => self.on_loss(error),
                Heard::Health(health) => self.health = health,
            }
        }
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            self.books.tick(now);
        }
        if let Some(every) = self.telemetry_every.filter(|_| now >= self.next_telemetry) {
            self.next_telemetry = now + every;
            self.telemetry_due = true;
        }
    }

    pub(super) fn close(&mut self, now: Instant) {
        self.take_in(now);
        self.books.tick(now);
        self.books.settle(now);
    }

    pub(super) fn deadline(&self, now: Instant) -> Instant {
        // The channel wakes nobody: a reading that is waited for is looked for.
        let look =
            self.ended.as_ref().map(|_| now + Duration((self.source.period.0 / 2).clamp(1000, 50_000)));
        let telemetry = self.telemetry_every.map(|_| self.next_telemetry);
        [look, telemetry].into_iter().flatten().fold(self.next_tick, Instant::min)
    }

    pub(super) fn prices(&self) -> Option<Prices> {
        self.books.prices()
    }

    pub(super) fn total(&self) -> &Span {
        self.books.total()
    }

    pub(super) fn idle(&self) -> Option<Idle> {
        self.books.idle()
    }

    pub(super) fn poll_report(&mut self) -> Option<EnergyReport> {
        if !std::mem::take(&mut self.report_due) {
            return None;
        }
        let counted = &mut self.counted;
        counted.reports = counted.reports.saturating_add(1);
        let total = self.books.total();
        let Counted { run, reports, requests, committed, drafted, frames } = *counted;
        Some(EnergyReport {
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
        })
    }

    pub(super) fn poll_telemetry(&mut self) -> Option<Telemetry> {
        if !std::mem::take(&mut self.telemetry_due) {
            return None;
        }
        let (tick, total) = (self.books.take_tick(), self.books.total());
        let seconds = tick.time().as_secs_f64();
        let mean = if seconds > 0.0 { tick.total_j() / seconds } else { 0.0 };
        Some(Telemetry {
            run: self.counted.run,
            at_us: self.clock.now().0,
            source: self.source.kind,
            mean_mw: on_wire::milli(mean),
            peak_mw: on_wire::milli(tick.peak_w),
            energy_uj: on_wire::micro(total.total_j()),
            temperature_dc: self.health.temperature_c.map(|c| (c * 10.0).round() as i16),
            throttling: self.health.throttling,
            faults: on_wire::faults(&total.faults),
        })
    }

    fn on_loss(&mut self, error: SensorError) {
        self.books.handle_loss(&error);
        if self.said.as_ref() != Some(&error) {
            warn!("power: {error}");
            self.said = Some(error);
        }
    }
}

/// What each phase took since `begin`.
fn less(now: ByPhase<f64>, begin: &ByPhase<f64>) -> ByPhase<f64> {
    ByPhase(std::array::from_fn(|i| now.0[i] - begin.0[i]))
}
