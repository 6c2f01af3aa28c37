//! Phases of the agent's work, for charging time and energy.

use std::ops::{Index, IndexMut};

/// Number of phases.
pub const PHASES: usize = 6;

/// A phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnergyPhase {
    /// The model is being loaded.
    Load,
    /// The drafter runs.
    Draft,
    /// Sampling, scores, policy and display.
    Score,
    /// Messages are passed to the link.
    Send,
    /// Only an answer is missing.
    Wait,
    /// No reply is in progress.
    Idle,
}

impl EnergyPhase {
    /// All phases, in the order of reports.
    pub const ALL: [Self; PHASES] =
        [Self::Load, Self::Draft, Self::Score, Self::Send, Self::Wait, Self::Idle];

    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Draft => "draft",
            Self::Score => "score",
            Self::Send => "send",
            Self::Wait => "wait",
            Self::Idle => "idle",
        }
    }
}

/// A number for each phase.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ByPhase<T>(pub [T; PHASES]);

impl<T> ByPhase<T> {
    /// The phases with their values.
    pub fn iter(&self) -> impl Iterator<Item = (EnergyPhase, &T)> {
        EnergyPhase::ALL.into_iter().zip(&self.0)
    }
}

impl<T> Index<EnergyPhase> for ByPhase<T> {
    type Output = T;
    fn index(&self, phase: EnergyPhase) -> &T {
        &self.0[phase as usize]
    }
}

impl<T> IndexMut<EnergyPhase> for ByPhase<T> {
    fn index_mut(&mut self, phase: EnergyPhase) -> &mut T {
        &mut self.0[phase as usize]
    }
}
