//! A simulated board whose power depends on the phase. Its exact energy is the reference for the ledger's split.

use super::super::phase::{ByPhase, EnergyPhase};
use super::waveform::Waveform;
use dunlin_hlm::time::Instant;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Steps of power that are kept: some seconds of them. A conversion reaches back a tenth of a second.
const STEPS_MAX: usize = 16_384;
/// Power of each phase, W: 2.7 W while idle, 6.8 W while drafting.
const WATTS: ByPhase<f64> = ByPhase([5.2, 6.8, 4.6, 4.0, 2.9, 2.7]);

/// Power over time, determined by marks of phases. Copies share the same board.
#[derive(Clone, Debug)]
pub struct SimulatedBoard(Arc<Mutex<BoardState>>);

#[derive(Debug)]
struct BoardState {
    /// Start of each step of power, and the energy up to it.
    steps: VecDeque<BoardStep>,
    phase: EnergyPhase,
    /// Energy of each phase up to the last step.
    truth: ByPhase<f64>,
}

#[derive(Clone, Copy, Debug)]
struct BoardStep {
    begin: Instant,
    joules: f64,
    watts: f64,
}

impl SimulatedBoard {
    /// A board that begins in `phase`.
    pub fn new(phase: EnergyPhase, now: Instant) -> Self {
        let first = BoardStep { begin: now, joules: 0.0, watts: WATTS[phase] };
        Self(Arc::new(Mutex::new(BoardState {
            steps: VecDeque::from([first]),
            phase,
            truth: ByPhase::default(),
        })))
    }

    /// The board changes to another phase.
    pub fn mark(&self, phase: EnergyPhase, now: Instant) {
        let mut state = self.state();
        if state.phase == phase {
            return;
        }
        state.step(now, phase);
    }

    /// True energy of each phase up to `now`, J.
    pub fn truth(&self, now: Instant) -> ByPhase<f64> {
        let state = self.state();
        let last = state.last();
        let mut truth = state.truth;
        truth[state.phase] += last.watts * now.since(last.begin).as_secs_f64();
        truth
    }

    fn state(&self) -> MutexGuard<'_, BoardState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BoardState {
    fn last(&self) -> BoardStep {
        *self.steps.back().expect("never empty")
    }

    /// Begins a step of power, and charges the previous step to its phase.
    fn step(&mut self, at: Instant, phase: EnergyPhase) {
        let last = self.last();
        let at = at.max(last.begin);
        let joules = last.watts * at.since(last.begin).as_secs_f64();
        self.truth[self.phase] += joules;
        self.phase = phase;
        self.steps.push_back(BoardStep {
            begin: at,
            joules: last.joules + joules,
            watts: WATTS.0[phase as usize],
        });
        if self.steps.len() > STEPS_MAX {
            self.steps.pop_front();
        }
    }
}

impl Waveform for SimulatedBoard {
    fn joules(&self, at: Instant) -> f64 {
        let state = self.state();
        let step = state.steps.partition_point(|step| step.begin <= at).saturating_sub(1);
        let BoardStep { begin, joules, watts } = state.steps[step];
        joules + watts * at.since(begin).as_secs_f64()
    }
}
