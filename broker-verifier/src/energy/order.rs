//! The order of a device's messages.
//!
//! Invariant: counters are compared only within a run, and the message in [`Place::After`] can be subtracted.

use dunlin_wire::{EnergyReport, MeterFaults, PhaseTotals, Telemetry};
use std::cmp::Ordering;

/// A message whose counters grow within a run.
pub(super) trait Counted: Copy + PartialEq {
    /// The random number of the run.
    fn run(&self) -> u32;
    /// A number that increases with each message of the run.
    fn number(&self) -> u64;
    /// Counters that never decrease within the run.
    fn counters(&self) -> Vec<u64>;
}

/// The place of a message in the order of its device's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place<M> {
    /// The first message received from the device.
    First,
    /// The first message of a run, after one of another run.
    NewRun,
    /// The next message of its run after this one.
    After(M),
    /// A repetition of the last message.
    Repeated,
    /// Older than the last message, or from the run before.
    Late,
    /// From the run of the last message, but with a lower counter. Counting continues from this message.
    Contradictory,
}

/// The last message of a device, and the run before its run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Last<M> {
    last: Option<M>,
    run_before: Option<u32>,
}

impl<M> Default for Last<M> {
    fn default() -> Self {
        Self { last: None, run_before: None }
    }
}

impl<M: Counted> Last<M> {
    /// The place of a message; the message is remembered if it is the newest.
    pub(super) fn place(&mut self, message: &M) -> Place<M> {
        let place = self.compare(message);
        if place == Place::NewRun {
            self.run_before = self.last.map(|last| last.run());
        }
        if !matches!(place, Place::Repeated | Place::Late) {
            self.last = Some(*message);
        }
        place
    }

    fn compare(&self, message: &M) -> Place<M> {
        let Some(last) = self.last else { return Place::First };
        if message.run() != last.run() {
            // Without this check, a late message of the previous run would look like another new run.
            let late = self.run_before == Some(message.run());
            return if late { Place::Late } else { Place::NewRun };
        }
        match message.number().cmp(&last.number()) {
            Ordering::Less => Place::Late,
            Ordering::Equal if *message == last => Place::Repeated,
            Ordering::Greater if !falls(&last, message) => Place::After(last),
            Ordering::Equal | Ordering::Greater => Place::Contradictory,
        }
    }
}

/// True if a counter is lower than before.
fn falls(before: &impl Counted, after: &impl Counted) -> bool {
    before.counters().iter().zip(after.counters()).any(|(before, after)| after < *before)
}

impl Counted for EnergyReport {
    fn run(&self) -> u32 {
        self.run
    }

    fn number(&self) -> u64 {
        self.reports.into()
    }

    fn counters(&self) -> Vec<u64> {
        let Self { requests, committed, drafted, frames, .. } = *self;
        let own = [requests.into(), committed, drafted, frames];
        own.into_iter().chain(of_phases(&self.phases)).chain(of_faults(&self.faults)).collect()
    }
}

impl Counted for Telemetry {
    fn run(&self) -> u32 {
        self.run
    }

    fn number(&self) -> u64 {
        self.at_us
    }

    fn counters(&self) -> Vec<u64> {
        [self.energy_uj].into_iter().chain(of_faults(&self.faults)).collect()
    }
}

fn of_phases(phases: &PhaseTotals) -> impl Iterator<Item = u64> {
    phases.named().into_iter().flat_map(|(_, phase)| [phase.energy_uj, phase.time_us])
}

fn of_faults(faults: &MeterFaults) -> [u64; 6] {
    let MeterFaults { gaps, gap_us, clipped, overflowed, reinitialised, failed } = *faults;
    [gaps.into(), gap_us, clipped.into(), overflowed.into(), reinitialised.into(), failed.into()]
}
