//! The standing of a ring's devices, counted from their reports.

use super::plan::RingRollout;
use crate::lot::Lot;
use crate::moment::Moment;
use dunlin_hlm::time::{Duration, Instant};
use dunlin_wire::{DeviceId, FleetPhase, FleetReason, FleetReport};
use std::collections::BTreeMap;

/// A device as its last report shows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct DeviceView {
    /// The rollout's message that it follows.
    rollout: u32,
    /// The release that it runs.
    release: u32,
    /// The release that it was told to run.
    target: u32,
    standing: RolloutStanding,
    /// The time of its last report.
    heard: Instant,
    /// True while the broker says that its connection is lost.
    pub(super) lost: bool,
}

/// The standing of a device in a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RolloutStanding {
    Waiting,
    Started,
    Succeeded,
    Failed,
    TimedOut,
    Refused,
}

impl DeviceView {
    pub(super) fn new(report: &FleetReport, lost: bool, now: Moment) -> Self {
        Self {
            rollout: report.rollout,
            release: report.release,
            target: report.target,
            standing: standing(report),
            heard: now.mono,
            lost,
        }
    }
}

fn standing(report: &FleetReport) -> RolloutStanding {
    match report.phase {
        FleetPhase::Committed | FleetPhase::Idle if report.release == report.target => {
            RolloutStanding::Succeeded
        }
        FleetPhase::Idle | FleetPhase::Committed | FleetPhase::Queued | FleetPhase::Removed => {
            RolloutStanding::Waiting
        }
        // Its failure is known from before; a restart must not hide it.
        FleetPhase::Refused if report.reason == FleetReason::Failed => RolloutStanding::Failed,
        FleetPhase::Refused => RolloutStanding::Refused,
        FleetPhase::RolledBack => RolloutStanding::Failed,
        FleetPhase::TimedOut => RolloutStanding::TimedOut,
        _ => RolloutStanding::Started,
    }
}

/// The devices of a ring, by their standing in its rollout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingCount {
    /// Devices that follow the rollout.
    pub known: u32,
    /// Those of the step that are connected.
    pub members: u32,
    /// Devices that began.
    pub started: u32,
    /// Devices that run the release.
    pub succeeded: u32,
    /// Devices that went back.
    pub failed: u32,
    /// Devices that gave up at the deadline.
    pub timed_out: u32,
    /// Devices that began and were not heard of for longer than the deadline.
    pub silent: u32,
    /// Devices that can't or won't take the release; they count neither as started nor as finished.
    pub refused: u32,
}

impl RingCount {
    /// Counts a ring's devices; pinned ones follow their pins.
    pub(super) fn of(
        ring: &RingRollout,
        views: &BTreeMap<DeviceId, DeviceView>,
        is_pinned: impl Fn(&DeviceId) -> bool,
        now: Moment,
    ) -> Self {
        let mut count = Self::default();
        let deadline = Duration::from_millis(u64::from(ring.plan.deadline_min) * 60_000);
        for (device, view) in views {
            if !ring.numbers.contains(&view.rollout) || is_pinned(device) {
                continue;
            }
            count.known += 1;
            let drawn = Lot::of(ring.order.salt, device).is_member(ring.order.permille);
            count.members += u32::from(drawn && !view.lost);
            let targeted = view.target == ring.plan.release.number;
            match view.standing {
                RolloutStanding::Succeeded if view.release == ring.plan.release.number => {
                    count.started += 1;
                    count.succeeded += 1;
                }
                RolloutStanding::Failed if targeted => {
                    count.started += 1;
                    count.failed += 1;
                }
                RolloutStanding::TimedOut if targeted => {
                    count.started += 1;
                    count.timed_out += 1;
                }
                RolloutStanding::Started if targeted => {
                    count.started += 1;
                    count.silent += u32::from(now.mono.since(view.heard) > deadline);
                }
                RolloutStanding::Refused if targeted => count.refused += 1,
                _ => {}
            }
        }
        count
    }

    /// Devices that ended badly.
    pub fn bad(&self) -> u32 {
        self.failed + self.timed_out + self.silent
    }

    /// Devices that ended.
    pub fn finished(&self) -> u32 {
        self.succeeded + self.bad()
    }

    /// The number of devices that must have finished before the step is judged.
    pub fn needed(&self, finished_min: u32) -> u32 {
        finished_min.min(self.members.saturating_sub(self.refused)).max(u32::from(self.members > 0))
    }
}
