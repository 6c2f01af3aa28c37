//! The marks that every run must reach, and the report of them.

use crate::outcome::RunOutcome;
use dunlin_fleet_core::rollout::{RolloutNote, RolloutState};
use serde::Serialize;

/// Most bytes that stores may send, without those that the network lost, over the bytes that boards need.
pub const BYTES_RATIO_MAX: f64 = 1.05;

/// The figures of a scenario.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScenarioFigures {
    /// Its name.
    pub name: &'static str,
    /// True if all boards were to keep the new release.
    pub sound: bool,
    /// The rollout's last state.
    pub state: &'static str,
    /// Boards without power until late.
    pub offline: usize,
    /// Boards of the step in which the first board failed, or of the last step.
    pub members: usize,
    /// Boards on which a bad release ran.
    pub damaged: usize,
    /// Those of them that did not belong to that step.
    pub damaged_beyond_step: usize,
    /// Boards that in the end didn't run and keep the release that they should.
    pub not_back: usize,
    /// Bytes sent and not lost, over bytes needed.
    pub bytes_ratio: f64,
    /// Wrong blocks that boards refused.
    pub bad_blocks: u32,
    /// Kills of controller, stores, broker and boards.
    pub kills: [usize; 4],
    /// Minutes from the start to the end of the rollout, or to the stop.
    pub minutes: Option<u64>,
}

/// The figures of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RolloutFigures {
    /// Boards of each scenario.
    pub devices: usize,
    /// The seed.
    pub seed: u64,
    /// The sum over the scenarios.
    pub damaged_beyond_step: usize,
    /// The sum over the scenarios.
    pub not_back: usize,
    /// The largest of the scenarios.
    pub bytes_ratio: f64,
    /// Each scenario.
    pub scenarios: Vec<ScenarioFigures>,
    /// The marks that were missed, in words.
    pub missed: Vec<String>,
}

impl ScenarioFigures {
    fn of(outcome: &RunOutcome) -> Self {
        let ended = |note: &RolloutNote| matches!(note, RolloutNote::Stopped(_) | RolloutNote::Finished(_));
        let end = outcome.notes.iter().find(|(_, note)| ended(note)).map(|(seconds, _)| *seconds);
        let began = outcome.notes.first().map_or(0, |(seconds, _)| *seconds);
        let killed = outcome.killed;
        Self {
            name: outcome.name,
            sound: outcome.sound,
            state: outcome.state.map_or("none", RolloutState::name),
            offline: outcome.offline,
            members: outcome.members,
            damaged: outcome.damaged,
            damaged_beyond_step: outcome.damaged_beyond_step,
            not_back: outcome.not_back,
            bytes_ratio: outcome.bytes_ratio(),
            bad_blocks: outcome.bad_blocks,
            kills: [killed.controller, killed.store, killed.broker, killed.boards],
            minutes: end.map(|end| (end - began) / 60),
        }
    }
}

impl RolloutFigures {
    /// The figures of a run, with what it missed.
    pub fn of(outcomes: &[RunOutcome], seed: u64) -> Self {
        let scenarios: Vec<ScenarioFigures> = outcomes.iter().map(ScenarioFigures::of).collect();
        Self {
            devices: outcomes.iter().map(|outcome| outcome.devices).max().unwrap_or(0),
            seed,
            damaged_beyond_step: scenarios.iter().map(|one| one.damaged_beyond_step).sum(),
            not_back: scenarios.iter().map(|one| one.not_back).sum(),
            bytes_ratio: scenarios.iter().map(|one| one.bytes_ratio).fold(0.0, f64::max),
            missed: outcomes.iter().flat_map(missed).collect(),
            scenarios,
        }
    }
}

/// The marks that a scenario missed.
pub fn missed(outcome: &RunOutcome) -> Vec<String> {
    let RunOutcome { name, devices, .. } = outcome;
    let mut missed = Vec::new();
    let mut check = |right: bool, text: String| {
        if !right {
            missed.push(format!("{name}: {text}"));
        }
    };
    let beyond = outcome.damaged_beyond_step;
    check(beyond == 0, format!("a bad release ran on {beyond} boards beyond the step in which it failed"));
    check(
        outcome.not_back == 0,
        format!("{} of {devices} boards don't run what they should", outcome.not_back),
    );
    let ratio = outcome.bytes_ratio();
    check(ratio <= BYTES_RATIO_MAX, format!("{ratio:.3} × the bytes that boards needed"));
    if outcome.sound {
        check(outcome.state == Some(RolloutState::Finished), format!("the rollout is {:?}", outcome.state));
        check(outcome.failed == 0, format!("{} boards call a sound release bad", outcome.failed));
    } else {
        check(outcome.state == Some(RolloutState::Stopped), format!("the rollout is {:?}", outcome.state));
        check(outcome.damaged > 0, "the bad release ran nowhere".to_string());
    }
    missed
}
