//! A board's power as its phases have it, for a chip to measure: the truth that a ledger's split is held against.

use super::super::phase::{ByPhase, Phase};
use super::waveform::Waveform;
use dunlin_hlm::time::{Duration, Instant};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Steps of power that are kept: some seconds of them, where a conversion looks back at a tenth.
const STEPS_MAX: usize = 16_384;
/// A radio burst after messages were handed over.
const BURST: Duration = Duration::from_millis(4);
/// What it draws above its phase, W.
const BURST_W: f64 = 1.2;
/// Power of each phase, W: a board of 2.7 W idle and 6.8 W while it drafts.
const WATTS: ByPhase<f64> = ByPhase([5.2, 6.8, 4.6, 4.0, 2.9, 2.7]);

/// Power over time, made of marks of phases. Its copies are the same board.
#[derive(Clone, Debug)]
pub struct Board(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// Where each step of power begins, and the energy by then.
    steps: VecDeque<Step>,
    phase: Phase,
    /// Until when the radio is awake.
    burst_until: Instant,
    /// Energy of each phase up to the last step.
    truth: ByPhase<f64>,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    begin: Instant,
    joules: f64,
    watts: f64,
}

impl Board {
    /// A board that begins in `phase`.
    pub fn new(phase: Phase, now: Instant) -> Self {
        let first = Step { begin: now, joules: 0.0, watts: WATTS[phase] };
        Self(Arc::new(Mutex::new(State {
            steps: VecDeque::from([first]),
            phase,
            burst_until: Instant(0),
            truth: ByPhase::default(),
        })))
    }

    /// The board does something else from now on.
    pub fn mark(&self, phase: Phase, now: Instant) {
        let mut state = self.state();
        if state.phase == phase {
            return;
        }
        state.live_until(now);
        if phase == Phase::Send {
            state.burst_until = now + BURST;
        }
        state.step(now, phase);
    }

    /// What each phase has really taken up to `now`, J.
    pub fn truth(&self, now: Instant) -> ByPhase<f64> {
        let mut state = self.state();
        state.live_until(now);
        let last = state.last();
        let mut truth = state.truth;
        truth[state.phase] += last.watts * now.since(last.begin).as_secs_f64();
        truth
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn last(&self) -> Step {
        *self.steps.back().expect("never empty")
    }

    /// Ends a burst that is over by `now`.
    fn live_until(&mut self, now: Instant) {
        if self.burst_until.0 > 0 && self.burst_until <= now {
            let end = std::mem::take(&mut self.burst_until);
            self.step(end, self.phase);
        }
    }

    /// A step of power begins: what the one before took is its phase's.
    fn step(&mut self, at: Instant, phase: Phase) {
        let last = self.last();
        let at = at.max(last.begin);
        let joules = last.watts * at.since(last.begin).as_secs_f64();
        self.truth[self.phase] += joules;
        self.phase = phase;
        let burst = if self.burst_until > at { BURST_W } else { 0.0 };
        self.steps.push_back(Step { begin: at, joules: last.joules + joules, watts: WATTS[phase] + burst });
        if self.steps.len() > STEPS_MAX {
            self.steps.pop_front();
        }
    }
}

impl Waveform for Board {
    fn joules(&self, at: Instant) -> f64 {
        let mut state = self.state();
        state.live_until(at);
        let step = state.steps.partition_point(|step| step.begin <= at).saturating_sub(1);
        let Step { begin, joules, watts } = state.steps[step];
        joules + watts * at.since(begin).as_secs_f64()
    }
}
