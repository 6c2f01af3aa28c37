//! Energy by phase: takes readings and the times of phases, returns spans with their joules.
//!
//! Between the middles of two readings' windows, power is taken as a straight line (trapezoid rule), cut exactly at
//! the ends of phases and spans. A reading is a mean over its window, so near the edge of a phase the line carries
//! energy of one phase into another. The ledger corrects that: it knows each phase's share of every window and, from
//! the [fit](super::fit), each phase's power. Let `p(t)` be the power line, `s(t)` the shares interpolated in the
//! same way, `w` the fitted powers, and `T` the phases' times. Then phase i gets `∫ᵢ p dt + wᵢ·Tᵢ − Σⱼ wⱼ ∫ᵢ sⱼ dt`:
//! the trapezoids, plus the difference between the phases' times and the times in the windows, weighted by the
//! phases' powers (a regression estimator, as in Cochran's "Sampling Techniques").
//!
//! Invariant: no clock, no file, no thread; memory is bounded. The caller provides the times, which never decrease.

use super::fit::PowerFit;
use super::phase::{ByPhase, EnergyPhase, PHASES};
use dunlin_hlm::time::{Duration, Instant};
use heapless::Deque;

/// Changes of phase that wait for readings; four seconds at a thousand per second.
const EDGES_MAX: usize = 4096;
/// Ends of spans that wait for readings.
const CUTS_MAX: usize = 64;
/// Two readings further apart than this many periods leave a gap.
const GAP_PERIODS: u64 = 3;

/// A reading on the ledger's clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Start of its window.
    pub from: Instant,
    /// End of its window.
    pub until: Instant,
    /// Mean power in it, W.
    pub watts: f64,
    /// True if the true value may be larger.
    pub clipped: bool,
}

impl Sample {
    /// The middle of its window.
    pub fn middle(&self) -> Instant {
        Instant(self.from.0 + self.until.since(self.from).0 / 2)
    }
}

/// Losses, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadingFaults {
    /// Intervals without a reading, bridged by a straight line.
    pub gaps: u64,
    /// Total length of these intervals.
    pub gap_time: Duration,
    /// Readings at the end of the sensor's range.
    pub clipped: u64,
    /// Results that overflowed.
    pub overflowed: u64,
    /// Times that the sensor had to be configured again.
    pub reinitialised: u64,
    /// Readings that failed: bus or file.
    pub failed: u64,
}

/// Time and energy between two cuts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Span {
    /// Its start.
    pub from: Instant,
    /// Its end.
    pub until: Instant,
    /// Energy of each phase, J.
    pub joules: ByPhase<f64>,
    /// Time of each phase, µs.
    pub micros: ByPhase<u64>,
    /// Readings in it.
    pub samples: u64,
    /// The largest reading, W.
    pub peak_w: f64,
    /// Its losses.
    pub faults: ReadingFaults,
    /// Time before the first or after the last reading, charged with that reading's power.
    pub extrapolated: Duration,
}

impl Span {
    /// Energy of all phases, J.
    pub fn total_j(&self) -> f64 {
        self.joules.0.iter().sum()
    }

    /// Its length.
    pub fn time(&self) -> Duration {
        self.until.since(self.from)
    }

    /// Adds the span that follows it.
    pub fn take_in(&mut self, next: &Self) {
        self.until = next.until;
        for i in 0..PHASES {
            self.joules.0[i] += next.joules.0[i];
            self.micros.0[i] += next.micros.0[i];
        }
        self.samples += next.samples;
        self.peak_w = self.peak_w.max(next.peak_w);
        self.faults.add(&next.faults);
        self.extrapolated.0 += next.extrapolated.0;
    }
}

/// A point of the power line: the middle of a reading's window.
#[derive(Clone, Copy, Debug)]
struct Knot {
    at: Instant,
    watts: f64,
    shares: ByPhase<f64>,
}

/// Sums since the last cut.
#[derive(Clone, Debug, Default)]
struct PhaseSums {
    from: Instant,
    /// ∫ p over each phase, J.
    line: ByPhase<f64>,
    /// ∫ sⱼ over phase i, s.
    seen: [ByPhase<f64>; PHASES],
    micros: ByPhase<u64>,
    samples: u64,
    peak_w: f64,
    faults: ReadingFaults,
    extrapolated: Duration,
}

/// The ledger.
#[derive(Debug)]
pub struct Ledger {
    period: Duration,
    /// Starts of the phases, oldest first; the last phase is the current one. Never empty.
    edges: Deque<(Instant, EnergyPhase), EDGES_MAX>,
    cuts: Deque<Instant, CUTS_MAX>,
    knot: Option<Knot>,
    /// Energy is charged up to this time.
    charged: Instant,
    sums: PhaseSums,
    fit: PowerFit,
    done: Deque<Span, CUTS_MAX>,
}

impl Ledger {
    /// A ledger that begins in `phase` and expects one reading per `period`.
    pub fn new(phase: EnergyPhase, now: Instant, period: Duration) -> Self {
        let mut edges = Deque::new();
        edges.push_back((now, phase)).expect("an empty queue has room");
        Self {
            period,
            edges,
            cuts: Deque::new(),
            knot: None,
            charged: now,
            sums: PhaseSums { from: now, ..PhaseSums::default() },
            fit: PowerFit::default(),
            done: Deque::new(),
        }
    }

    /// The board changes to another phase.
    pub fn handle_phase(&mut self, phase: EnergyPhase, now: Instant) {
        let (last, current) = *self.edges.back().expect("never empty");
        if current == phase {
            return;
        }
        let now = now.max(last);
        if now == last && self.edges.len() > 1 {
            // Drop a phase without length.
            self.edges.pop_back();
        }
        if self.edges.is_full() {
            // There was no reading for very long: charge the pending time with the last known power.
            self.settle(now);
        }
        self.edges.push_back((now, phase)).expect("settling left one edge");
    }

    /// Ends a span here; [`Self::poll_span`] returns it once a later reading has arrived.
    pub fn handle_cut(&mut self, now: Instant) {
        // Time that is already charged can't be split any more.
        let now = now.max(self.charged);
        if self.cuts.is_full() {
            self.settle(now);
        }
        self.cuts.push_back(now).expect("settling left no cut");
    }

    /// Counts a fault.
    pub fn handle_fault(&mut self, count: impl FnOnce(&mut ReadingFaults)) {
        count(&mut self.sums.faults);
    }

    /// Adds a reading. One from before the charged time only improves the estimate of the phases' powers.
    pub fn handle_sample(&mut self, sample: &Sample) {
        self.sums.faults.clipped += u64::from(sample.clipped);
        if !sample.watts.is_finite() {
            self.sums.faults.failed += 1;
            return;
        }
        let knot = Knot { at: sample.middle(), watts: sample.watts, shares: self.shares(sample) };
        self.fit.observe(&knot.shares, knot.watts);
        self.sums.samples += 1;
        self.sums.peak_w = self.sums.peak_w.max(knot.watts);
        match self.knot {
            // Its time is already charged.
            Some(_) if knot.at <= self.charged => return,
            Some(before) => {
                let apart = knot.at.since(before.at);
                if apart.0 > GAP_PERIODS * self.period.0 {
                    self.sums.faults.gaps += 1;
                    self.sums.faults.gap_time.0 += apart.0;
                }
                self.charge(before, knot);
            }
            // The first reading comes after its time was settled.
            None if knot.at <= self.charged => {}
            None => {
                // The first reading's power counts for the time before it, too.
                self.sums.extrapolated.0 += knot.at.since(self.charged).0;
                self.charge(Knot { at: self.charged, ..knot }, knot);
            }
        }
        self.knot = Some(Knot { at: knot.at.max(self.charged), ..knot });
        self.forget(sample.from);
    }

    /// Charges everything up to `now` with the last reading's power, without waiting for another reading.
    pub fn settle(&mut self, now: Instant) {
        let nothing = Knot { at: self.charged, watts: 0.0, shares: ByPhase::default() };
        let last = Knot { at: self.charged, ..self.knot.unwrap_or(nothing) };
        if now > self.charged {
            self.sums.extrapolated.0 += now.since(self.charged).0;
            self.charge(last, Knot { at: now, ..last });
            self.knot = self.knot.map(|knot| Knot { at: now, ..knot });
        }
        self.take_cuts(now);
        self.forget(now);
    }

    /// The next complete span.
    pub fn poll_span(&mut self) -> Option<Span> {
        self.done.pop_front()
    }

    /// The power of a phase according to all readings so far, W; `None` if fewer than `readings` contain the phase.
    pub fn power_w(&self, phase: EnergyPhase, readings: f64) -> Option<f64> {
        (self.fit.weight(phase) >= readings).then(|| self.fit.watts()[phase])
    }

    /// The phases' shares of a reading's window.
    fn shares(&self, sample: &Sample) -> ByPhase<f64> {
        let mut shares = ByPhase::default();
        let whole = sample.until.since(sample.from).0;
        if whole == 0 {
            shares[self.phase_at(sample.from)] = 1.0;
            return shares;
        }
        for (phase, from, until) in self.stretches(sample.from, sample.until) {
            shares[phase] += until.since(from).0 as f64 / whole as f64;
        }
        shares
    }

    fn phase_at(&self, at: Instant) -> EnergyPhase {
        let (_, first) = *self.edges.front().expect("never empty");
        self.edges.iter().rev().find(|(begin, _)| *begin <= at).map_or(first, |(_, phase)| *phase)
    }

    /// The phases between two times, each with its start and end. The first known phase also counts for earlier
    /// times.
    fn stretches(
        &self,
        from: Instant,
        until: Instant,
    ) -> impl Iterator<Item = (EnergyPhase, Instant, Instant)> + '_ {
        let ends = self.edges.iter().skip(1).map(|(begin, _)| *begin).chain([Instant(u64::MAX)]);
        let begins = self
            .edges
            .iter()
            .enumerate()
            .map(|(i, (begin, phase))| (if i == 0 { Instant(0) } else { *begin }, *phase));
        begins
            .zip(ends)
            .map(move |((begin, phase), end)| (phase, begin.max(from), end.min(until)))
            .filter(|(_, begin, end)| end > begin)
    }

    /// Charges the line between two points, starting at the charged time, and ends the spans that end on it.
    fn charge(&mut self, left: Knot, right: Knot) {
        while let Some(cut) = self.cuts.front().copied().filter(|cut| *cut <= right.at) {
            self.charge_until(cut, left, right);
            self.cuts.pop_front();
            self.end_span(cut);
        }
        self.charge_until(right.at, left, right);
    }

    fn charge_until(&mut self, until: Instant, left: Knot, right: Knot) {
        let from = self.charged;
        if until <= from {
            return;
        }
        let length = right.at.since(left.at).0.max(1) as f64;
        let mut sums = std::mem::take(&mut self.sums);
        for (phase, begin, end) in self.stretches(from, until) {
            let micros = end.since(begin).0;
            let seconds = micros as f64 / 1e6;
            // The mean of a straight line is its value in the middle.
            let along = (begin.since(left.at).0 + end.since(left.at).0) as f64 / 2.0 / length;
            let mean = |l: f64, r: f64| l + (r - l) * along;
            sums.line[phase] += seconds * mean(left.watts, right.watts);
            for (seen, (l, r)) in
                sums.seen[phase as usize].0.iter_mut().zip(left.shares.0.iter().zip(&right.shares.0))
            {
                *seen += seconds * mean(*l, *r);
            }
            sums.micros[phase] += micros;
        }
        self.sums = sums;
        self.charged = until;
    }

    fn take_cuts(&mut self, now: Instant) {
        while let Some(cut) = self.cuts.front().copied().filter(|cut| *cut <= now) {
            self.cuts.pop_front();
            self.end_span(cut);
        }
    }

    fn end_span(&mut self, until: Instant) {
        let sums = std::mem::replace(&mut self.sums, PhaseSums { from: until, ..PhaseSums::default() });
        let span = sums.span(until, &self.fit.watts());
        // The queue is full because nobody takes the spans: merge this one into the last.
        if let Err(span) = self.done.push_back(span) {
            self.done.back_mut().expect("a full queue has a last one").take_in(&span);
        }
    }

    /// Drops the phases that are older than both the reading's window and the charged time.
    fn forget(&mut self, from: Instant) {
        let needed = from.min(self.charged);
        while self.edges.iter().nth(1).is_some_and(|(begin, _)| *begin <= needed) {
            self.edges.pop_front();
        }
    }
}

impl PhaseSums {
    fn span(&self, until: Instant, watts: &ByPhase<f64>) -> Span {
        let joules = std::array::from_fn(|i| {
            let seen: f64 = self.seen[i].0.iter().zip(&watts.0).map(|(seen, watts)| seen * watts).sum();
            self.line.0[i] + watts.0[i] * self.micros.0[i] as f64 / 1e6 - seen
        });
        Span {
            from: self.from,
            until,
            joules: ByPhase(not_below_zero(joules, self.line.0.iter().sum())),
            micros: self.micros,
            samples: self.samples,
            peak_w: self.peak_w,
            faults: self.faults,
            extrapolated: self.extrapolated,
        }
    }
}

/// Replaces negative energies by 0 and scales the others to keep the total; leaves all unchanged if that is
/// impossible.
fn not_below_zero(joules: [f64; PHASES], line: f64) -> [f64; PHASES] {
    let (total, kept) = (joules.iter().sum::<f64>(), joules.iter().map(|j| j.max(0.0)).sum::<f64>());
    if line <= 0.0 || kept <= 0.0 || total <= 0.0 {
        return joules;
    }
    joules.map(|j| j.max(0.0) * total / kept)
}

impl ReadingFaults {
    /// Adds other faults.
    pub fn add(&mut self, other: &Self) {
        self.gaps += other.gaps;
        self.gap_time.0 += other.gap_time.0;
        self.clipped += other.clipped;
        self.overflowed += other.overflowed;
        self.reinitialised += other.reinitialised;
        self.failed += other.failed;
    }
}
