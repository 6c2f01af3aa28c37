//! The result of a scenario.

use crate::scenario::{Kills, Scenario};
use dunlin_fleet_core::rollout::{RolloutNote, RolloutState};

/// The state of a board, as pictures show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShownState {
    /// Runs the new release and keeps it.
    New,
    /// Tries the new release.
    Trial,
    /// Fetches it.
    Fetching,
    /// Went back to the old one.
    RolledBack,
    /// Refused, or gave up at the deadline.
    Refused,
    /// Runs the old release.
    Old,
    /// Has no power.
    Off,
}

impl ShownState {
    /// All of them, from the bottom of a picture to its top.
    pub const ALL: [Self; 7] =
        [Self::New, Self::Trial, Self::Fetching, Self::RolledBack, Self::Refused, Self::Old, Self::Off];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new release",
            Self::Trial => "on trial",
            Self::Fetching => "fetching",
            Self::RolledBack => "rolled back",
            Self::Refused => "refused or timed out",
            Self::Old => "old release",
            Self::Off => "without power",
        }
    }
}

/// The boards by state at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateSample {
    /// Virtual seconds.
    pub seconds: u64,
    /// Boards in each state, in the order of [`ShownState::ALL`].
    pub counts: [usize; ShownState::ALL.len()],
}

/// The result of a scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct RunOutcome {
    /// Its name.
    pub name: &'static str,
    /// True if its release was a sound one.
    pub sound: bool,
    /// The boards.
    pub devices: usize,
    /// Those without power until late.
    pub offline: usize,
    /// The permille of the step in which the first board failed.
    pub failed_in_step: Option<u16>,
    /// Boards of that step, or of the last one where none failed.
    pub members: usize,
    /// Boards on which a bad release ran.
    pub damaged: usize,
    /// Those of them that did not belong to the step in which the first board failed.
    pub damaged_beyond_step: usize,
    /// Boards that in the end didn't run and keep the release that they should.
    pub not_back: usize,
    /// Boards that remember the release as failed.
    pub failed: usize,
    /// Bytes that stores sent.
    pub bytes_sent: u64,
    /// Those of them that the network lost.
    pub bytes_lost: u64,
    /// Checked bytes that boards took.
    pub bytes_good: u64,
    /// Wrong blocks that boards saw.
    pub bad_blocks: u32,
    /// Wrong blocks that stores sent.
    pub poisoned_sent: u64,
    /// Kills that happened.
    pub killed: Kills,
    /// The rollout's last state.
    pub state: Option<RolloutState>,
    /// The controller's notes, with seconds.
    pub notes: Vec<(u64, RolloutNote)>,
    /// The states over time.
    pub samples: Vec<StateSample>,
}

impl RunOutcome {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        Self {
            name: scenario.name,
            sound: scenario.is_sound(),
            devices: scenario.devices,
            offline: 0,
            failed_in_step: None,
            members: 0,
            damaged: 0,
            damaged_beyond_step: 0,
            not_back: 0,
            failed: 0,
            bytes_sent: 0,
            bytes_lost: 0,
            bytes_good: 0,
            bad_blocks: 0,
            poisoned_sent: 0,
            killed: Kills::default(),
            state: None,
            notes: Vec::new(),
            samples: Vec::new(),
        }
    }

    /// Bytes that stores sent and the network didn't lose, over the bytes that boards needed: 1 if nothing that arrived
    /// was sent in vain.
    pub fn bytes_ratio(&self) -> f64 {
        self.bytes_sent.saturating_sub(self.bytes_lost) as f64 / self.bytes_good.max(1) as f64
    }
}
