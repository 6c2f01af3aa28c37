//! Combines the ledger's spans: energy of replies, of the time between them, and in total.
//!
//! Invariant: no clock and no thread. Totals only increase, and each span is counted once.

use super::ledger::{Ledger, ReadingFaults, Sample, Span};
use super::phase::EnergyPhase;
use super::sensor::SensorError;
use dunlin_hlm::stop::Prices;
use dunlin_hlm::time::{Duration, Instant};
use std::collections::VecDeque;

/// Idle time required to know the idle power, s.
const IDLE_MIN_S: f64 = 0.5;
/// Idle time after which the weight of an idle measurement has fallen to 1/e, s.
const IDLE_MEMORY_S: f64 = 300.0;
/// Readings of a phase required to know its price.
const READINGS_MIN: f64 = 4.0;

/// The reason why a span ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// Telemetry is due.
    Tick,
    /// A reply begins.
    Begin,
    /// A reply ends.
    End,
}

/// Origin of an idle power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdleFrom {
    /// Measured by this process while it had no work.
    Measured,
    /// From the calibration file.
    Calibration,
}

/// Power of the idle board.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Idle {
    /// Mean power, W.
    pub watts: f64,
    /// Its origin.
    pub from: IdleFrom,
}

/// Energy by reply, by telemetry interval and in total.
#[derive(Debug)]
pub struct Books {
    ledger: Ledger,
    cuts: VecDeque<Cut>,
    /// Sum of the spans since a reply last began or ended.
    open: Span,
    /// The last reply's span.
    reply: Option<Span>,
    total: Span,
    /// Sum of the spans since the last telemetry.
    tick: Span,
    /// Energy and duration of idle time, both with fading weight, J and s.
    idle: (f64, f64),
    calibrated_idle_w: Option<f64>,
}

impl Books {
    /// Books that begin in `phase`, with one reading per `period`, and a calibrated idle power if there is one.
    pub fn new(phase: EnergyPhase, now: Instant, period: Duration, calibrated_idle_w: Option<f64>) -> Self {
        let begin = Span { from: now, until: now, ..Span::default() };
        Self {
            ledger: Ledger::new(phase, now, period),
            cuts: VecDeque::new(),
            open: begin,
            reply: None,
            total: begin,
            tick: begin,
            idle: (0.0, 0.0),
            calibrated_idle_w,
        }
    }

    /// The board changes to another phase.
    pub fn handle_phase(&mut self, phase: EnergyPhase, now: Instant) {
        self.ledger.handle_phase(phase, now);
        self.collect();
    }

    /// Adds a reading.
    pub fn handle_sample(&mut self, sample: &Sample) {
        self.ledger.handle_sample(sample);
        self.collect();
    }

    /// Counts a lost reading.
    pub fn handle_loss(&mut self, error: &SensorError) {
        self.ledger.handle_fault(|faults: &mut ReadingFaults| match error {
            SensorError::Overflow(_) => faults.overflowed += 1,
            SensorError::Reinitialised(_) => faults.reinitialised += 1,
            SensorError::Failed { .. } => faults.failed += 1,
            // The end of a trace is not a fault; it shows as extrapolated time.
            SensorError::Ended(_) => {}
        });
    }

    /// A reply begins.
    pub fn begin_reply(&mut self, now: Instant) {
        self.reply = None;
        self.cut(Cut::Begin, now);
    }

    /// A reply ends. [`Self::take_reply`] returns it once a later reading has arrived.
    pub fn end_reply(&mut self, now: Instant) {
        self.cut(Cut::End, now);
    }

    /// Ends a span for telemetry.
    pub fn tick(&mut self, now: Instant) {
        self.cut(Cut::Tick, now);
    }

    /// Charges everything up to `now` without waiting for a later reading.
    pub fn settle(&mut self, now: Instant) {
        self.ledger.settle(now);
        self.collect();
    }

    /// Takes the reply that ended, once it is complete.
    pub fn take_reply(&mut self) -> Option<Span> {
        self.reply.take()
    }

    /// Takes the sum of the spans since the last call.
    pub fn take_tick(&mut self) -> Span {
        let next = Span { from: self.tick.until, until: self.tick.until, ..Span::default() };
        std::mem::replace(&mut self.tick, next)
    }

    /// The sum of all spans.
    pub fn total(&self) -> &Span {
        &self.total
    }

    /// Power of the idle board: measured, or else from a calibration.
    pub fn idle(&self) -> Option<Idle> {
        let (joules, seconds) = self.idle;
        if seconds >= IDLE_MIN_S {
            return Some(Idle { watts: joules / seconds, from: IdleFrom::Measured });
        }
        self.calibrated_idle_w.map(|watts| Idle { watts, from: IdleFrom::Calibration })
    }

    /// Prices of a second of drafting and of waiting, J. Waiting costs the idle board's power if known, or else the
    /// power measured while waiting.
    pub fn prices(&self) -> Option<Prices> {
        let draft = self.ledger.power_w(EnergyPhase::Draft, READINGS_MIN)?;
        let idle = self.idle().map(|idle| idle.watts);
        let wait = idle.or_else(|| self.ledger.power_w(EnergyPhase::Wait, READINGS_MIN))?;
        Prices::new(draft, wait).ok()
    }

    fn cut(&mut self, cut: Cut, now: Instant) {
        self.cuts.push_back(cut);
        self.ledger.handle_cut(now);
        self.collect();
    }

    fn collect(&mut self) {
        while let Some(span) = self.ledger.poll_span() {
            self.total.take_in(&span);
            self.tick.take_in(&span);
            self.open.take_in(&span);
            // A tick doesn't end a reply or the time between two.
            if let Some(Cut::Begin | Cut::End) = self.cuts.front() {
                let next = Span { from: span.until, until: span.until, ..Span::default() };
                let closed = std::mem::replace(&mut self.open, next);
                if self.cuts.front() == Some(&Cut::End) {
                    self.reply = Some(closed);
                }
            }
            self.cuts.pop_front();
            self.learn_idle(&span);
        }
    }

    fn learn_idle(&mut self, span: &Span) {
        let seconds = span.micros[EnergyPhase::Idle] as f64 / 1e6;
        let keep = (-seconds / IDLE_MEMORY_S).exp();
        self.idle.0 = self.idle.0 * keep + span.joules[EnergyPhase::Idle];
        self.idle.1 = self.idle.1 * keep + seconds;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration(10_000);

    /// Readings of `watts` over whole periods up to `until`.
    fn read(books: &mut Books, at: &mut u64, until: u64, watts: f64) {
        while *at < until {
            let (from, end) = (Instant(*at), Instant(*at + PERIOD.0));
            books.handle_sample(&Sample { from, until: end, watts, clipped: false });
            *at += PERIOD.0;
        }
    }

    #[test]
    fn a_reply_is_what_lies_between_its_ends() {
        let (mut books, mut at) = (Books::new(EnergyPhase::Idle, Instant(0), PERIOD, Some(9.0)), 0);
        assert_eq!(books.idle(), Some(Idle { watts: 9.0, from: IdleFrom::Calibration }));
        read(&mut books, &mut at, 1_000_000, 2.0);
        books.begin_reply(Instant(1_000_000));
        books.handle_phase(EnergyPhase::Draft, Instant(1_000_000));
        read(&mut books, &mut at, 1_500_000, 6.0);
        books.tick(Instant(1_500_000));
        read(&mut books, &mut at, 3_000_000, 6.0);
        books.end_reply(Instant(3_000_000));
        books.handle_phase(EnergyPhase::Idle, Instant(3_000_000));
        assert_eq!(books.take_reply(), None, "no reading came behind its end yet");
        read(&mut books, &mut at, 4_000_000, 2.0);
        let reply = books.take_reply().unwrap();
        assert!((reply.total_j() - 12.0).abs() < 1e-6, "{reply:?}");
        assert_eq!((reply.from, reply.until), (Instant(1_000_000), Instant(3_000_000)));
        assert_eq!(reply.micros[EnergyPhase::Draft], 2_000_000);
        let idle = books.idle().unwrap();
        assert!((idle.watts - 2.0).abs() < 0.01 && idle.from == IdleFrom::Measured, "{idle:?}");
        let prices = books.prices().unwrap();
        assert!((prices.draft() - 6.0).abs() < 0.01 && (prices.wait() - 2.0).abs() < 0.01, "{prices:?}");
    }

    #[test]
    fn totals_are_the_sum_of_ticks() {
        let (mut books, mut at, mut sum) = (Books::new(EnergyPhase::Load, Instant(0), PERIOD, None), 0, 0.0);
        for second in 1..=5_u64 {
            read(&mut books, &mut at, second * 1_000_000, second as f64);
            books.tick(Instant(second * 1_000_000 - 7));
            let tick = books.take_tick();
            assert!(tick.total_j() > 0.0 || second == 1);
            sum += tick.total_j();
        }
        books.settle(Instant(5_000_000));
        sum += books.take_tick().total_j();
        assert!((books.total().total_j() - sum).abs() < 1e-9);
        assert!((sum - 15.0).abs() < 0.1, "{sum}");
        assert_eq!(books.prices(), None, "nothing was drafted");
    }
}
