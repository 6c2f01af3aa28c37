//! The plan of a rollout, and the controller's book of all plans.

use dunlin_wire::limits::PERMILLE_MAX;
use dunlin_wire::{DeviceId, ObjectId, RingId, RolloutFields};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use thiserror::Error;

/// Steps of a plan.
pub const STEPS_MAX: usize = 16;
/// Rings with a rollout.
pub const RINGS_MAX: usize = 64;
/// Pinned devices.
pub const PINS_MAX: usize = 4096;
/// Numbers of a rollout's messages that are remembered, so that a report of each counts.
pub const NUMBERS_MAX: usize = 256;

/// A release as a rollout names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseName {
    /// The release's number.
    pub number: u32,
    /// The object of the signed release.
    pub object: ObjectId,
    /// Bytes of that object.
    pub size: u16,
}

/// A rollout of a release to a ring, in steps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutPlan {
    /// The release.
    pub release: ReleaseName,
    /// The release that `abort` goes back to.
    pub former: Option<ReleaseName>,
    /// The permille of the ring in each step, each more than the one before; the last is all.
    pub steps: Vec<u16>,
    /// Seconds for which a step must have been good before the next.
    pub soak_seconds: u32,
    /// Devices that must have finished before a step is judged; a step with fewer devices needs all of its own.
    pub finished_min: u32,
    /// Per cent of the finished that must have succeeded before the next step.
    pub success_percent: u8,
    /// Per cent of the started above which the rollout pauses itself.
    pub abort_percent: u8,
    /// Minutes that a device has for the update; without news for as long, it counts as silent.
    pub deadline_min: u16,
    /// Bytes per second for each device; 0 for no limit.
    pub bytes_per_s: u32,
    /// Seconds for which a signed message of the rollout is valid.
    pub valid_seconds: u32,
}

/// A plan that can't be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// No steps, too many, not rising, or not ending with all.
    #[error("the steps must rise from above 0 to 100 %, at most {STEPS_MAX} of them")]
    Steps,
    /// A percentage above 100.
    #[error("a threshold is a percentage from 0 to 100")]
    Percent,
    /// A number of 0 that must not be 0.
    #[error("the deadline, the time of validity, and the release's number and size must not be 0")]
    Time,
    /// A ring beyond [`RINGS_MAX`].
    #[error("there are already rollouts for {RINGS_MAX} rings")]
    Rings,
    /// A pin beyond [`PINS_MAX`].
    #[error("there are already {PINS_MAX} pinned devices")]
    Pins,
    /// A ring without a rollout.
    #[error("this ring has no rollout")]
    NoRollout,
    /// A rollout without a former release.
    #[error("this rollout names no former release to go back to: start a rollout of an older one")]
    NoFormer,
    /// A rollout in a state in which the order has no sense.
    #[error("the rollout is not in a state for that: it is {0}")]
    State(&'static str),
    /// A device that is not pinned.
    #[error("this device is not pinned")]
    NotPinned,
}

impl RolloutPlan {
    /// Checks the plan's numbers.
    ///
    /// # Errors
    /// The first number out of range.
    pub fn check(&self) -> Result<(), PlanError> {
        let rises = self.steps.windows(2).all(|pair| pair[0] < pair[1]);
        let ends =
            self.steps.first().is_some_and(|first| *first > 0) && self.steps.last() == Some(&PERMILLE_MAX);
        if !rises || !ends || self.steps.len() > STEPS_MAX {
            return Err(PlanError::Steps);
        }
        if self.success_percent > 100 || self.abort_percent > 100 {
            return Err(PlanError::Percent);
        }
        let named = |release: &ReleaseName| release.number != 0 && release.size != 0;
        let all_named = named(&self.release) && self.former.as_ref().is_none_or(named);
        if self.deadline_min == 0 || self.valid_seconds == 0 || !all_named {
            return Err(PlanError::Time);
        }
        Ok(())
    }
}

/// The state of a ring's rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RolloutState {
    /// Devices of the step take the release.
    Running,
    /// An operator paused it.
    Paused,
    /// Too many devices failed, and it paused itself.
    Stopped,
    /// All devices that are there have the release; others may follow.
    Finished,
    /// The former release goes out to all.
    Aborted,
}

impl RolloutState {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped by failures",
            Self::Finished => "finished",
            Self::Aborted => "aborted",
        }
    }
}

/// A ring's rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingRollout {
    /// The operator's plan.
    pub plan: RolloutPlan,
    /// The state.
    pub state: RolloutState,
    /// The index of the step.
    pub step: usize,
    /// The newest message.
    pub order: RolloutFields,
    /// The numbers of its messages, the newest last.
    pub numbers: Vec<u32>,
}

/// All that the controller keeps on disk. It is a plan, not the truth about devices: that is in their reports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutBook {
    /// The highest number used.
    pub number: u32,
    /// The rollouts.
    pub rings: BTreeMap<RingId, RingRollout>,
    /// The pins. One of 0 permille is taken off; it stays, so that a broker that lost its messages gets it again.
    pub pins: BTreeMap<DeviceId, RolloutFields>,
}
