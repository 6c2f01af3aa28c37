//! The trial of a release: switch, gate, and then its commit or the way back.

use super::gate::{Gate, GateVerdict, UNIT_WITHIN};
use super::{
    AfterSave, AgentNews, GateAnswer, GateStep, ReleaseFacts, Stage, UpdateOutcome, Updater, UpdaterEvent,
};
use crate::moment::Moment;
use crate::record::{TRIES_MAX, UpdateState};
use dunlin_wire::{FleetPhase, FleetReason, SystemSlot};

impl Updater {
    /// Goes on where the record says that the updater was.
    pub(super) fn resume(&mut self) {
        // The first state of a board with slots: it was installed with the one that runs.
        if self.state.slot_good == 0 && self.boot.slot != SystemSlot::None {
            self.state.slot_good = number_of(self.boot.slot);
            self.save(None);
        }
        let UpdateState { good, trial, slot_good, slot_trial, .. } = self.state;
        let elsewhere = number_of(self.boot.slot) != slot_good;
        if trial == 0 {
            // A slot that is not on trial is not to run.
            if elsewhere {
                self.events.push_back(UpdaterEvent::Revert { release: good, slot: Some(slot_of(slot_good)) });
            }
            return;
        }
        // The boot loader took the kept slot: no try of the other is left.
        if slot_trial != 0 && !elsewhere && self.boot.tries < TRIES_MAX {
            return self.roll_back(FleetReason::Tries);
        }
        self.stage = Stage::Resuming;
        self.events.push_back(UpdaterEvent::ReadGeneration(trial));
    }

    pub(super) fn handle_trial_release(&mut self, release: Result<ReleaseFacts, FleetReason>, now: Moment) {
        match release {
            Ok(facts) if facts.number == self.state.trial => self.facts = Some(facts),
            Ok(_) => return self.roll_back(FleetReason::Content),
            Err(reason) => return self.roll_back(reason),
        }
        self.stage = Stage::Trial(now.mono + UNIT_WITHIN);
        // The system was to be started, and was not: the power was cut before the boot loader knew.
        if self.state.slot_trial != 0 && number_of(self.boot.slot) == self.state.slot_good {
            return self.switch(now);
        }
        if let Some(running) = self.running {
            self.started(running, now);
        }
    }

    /// Starts the trial of what is staged, if nothing is in the way.
    pub(super) fn try_switch(&mut self, now: Moment) {
        let (Stage::Waiting, Some(goal)) = (self.stage, self.goal) else { return };
        if self.busy || goal.order.paused {
            return;
        }
        // What was held back for long may be over by now.
        if let Some(reason) = self.refusal(&goal.order, now) {
            return self.refuse(reason);
        }
        let Some(facts) = &self.facts else { return };
        let system = facts.objects.iter().any(|object| object.system);
        self.state.begin_trial(facts.number);
        self.state.slot_trial = if system { number_of(other(self.boot.slot)) } else { 0 };
        self.before = self.health;
        (self.tries, self.starts, self.repeats) = (TRIES_MAX, 0, 0);
        self.stage = Stage::Deciding;
        self.outcome = UpdateOutcome { phase: FleetPhase::Trial, reason: FleetReason::None };
        self.save(Some(AfterSave::Switch));
    }

    pub(super) fn switch(&mut self, now: Moment) {
        let slot = (self.state.slot_trial != 0).then(|| slot_of(self.state.slot_trial));
        self.stage = Stage::Trial(now.mono + UNIT_WITHIN);
        self.running = None;
        self.events.push_back(UpdaterEvent::Switch { release: self.state.trial, slot });
    }

    /// Takes news of the agent's process, at the updater's start too.
    pub fn handle_agent(&mut self, news: AgentNews, now: Moment) {
        match news {
            AgentNews::Started { release, tries } => {
                self.running = Some(release);
                self.tries = tries;
                self.started(release, now);
            }
            AgentNews::Ended => {
                self.running = None;
                if let Stage::Gate(_) = self.stage {
                    self.stage = Stage::Trial(now.mono + UNIT_WITHIN);
                }
            }
        }
    }

    fn started(&mut self, release: u32, now: Moment) {
        let on_trial = matches!(self.stage, Stage::Trial(_) | Stage::Gate(_));
        let good = self.state.good;
        match release {
            _ if !on_trial && self.state.trial != 0 => {}
            // What is being saved decides.
            _ if matches!(self.stage, Stage::Deciding) => {}
            // The way back was saved, and the updater ended before the agent was started again.
            release if !on_trial && release != good && self.repeats < TRIES_MAX => {
                self.repeats += 1;
                self.events.push_back(UpdaterEvent::Revert { release: good, slot: None });
            }
            _ if !on_trial => {}
            release if release == self.state.trial => {
                self.starts = self.starts.saturating_add(1);
                if self.starts > TRIES_MAX {
                    return self.roll_back(FleetReason::Restart);
                }
                self.stage = Stage::Gate(Gate::new(now.mono));
                self.events.push_back(UpdaterEvent::Check(GateStep::Unit));
            }
            // It was never started: the updater ended between its record and the switch.
            _ if self.tries == TRIES_MAX && self.starts == 0 && self.repeats < TRIES_MAX => {
                self.repeats += 1;
                self.switch(now);
            }
            _ => self.roll_back(FleetReason::Tries),
        }
    }

    /// Takes the answer to a check.
    pub fn handle_check(&mut self, step: GateStep, answer: GateAnswer, now: Moment) {
        let (Stage::Gate(mut gate), Some(facts)) = (self.stage, &self.facts) else { return };
        let verdict = gate.handle(step, answer, (facts, self.before), now.mono);
        self.stage = Stage::Gate(gate);
        self.obey(verdict);
    }

    pub(super) fn obey(&mut self, verdict: GateVerdict) {
        match verdict {
            GateVerdict::Open => {}
            GateVerdict::Ask(step) => self.events.push_back(UpdaterEvent::Check(step)),
            GateVerdict::Failed(reason) => self.roll_back(reason),
            GateVerdict::Passed if self.state.slot_trial != 0 => {
                self.stage = Stage::CommittingSlot;
                self.events.push_back(UpdaterEvent::CommitSlot(self.boot.slot));
            }
            GateVerdict::Passed => self.commit(),
        }
    }

    /// Takes the result of the boot loader's commit: true if it keeps the slot.
    pub fn handle_slot(&mut self, kept: bool) {
        match self.stage {
            Stage::CommittingSlot if kept => self.commit(),
            Stage::CommittingSlot => self.roll_back(FleetReason::Disk),
            _ => {}
        }
    }

    fn commit(&mut self) {
        self.state.commit(self.facts.as_ref().map_or(0, |facts| facts.floor));
        if self.state.slot_trial != 0 {
            (self.state.slot_good, self.state.system) = (self.state.slot_trial, self.state.good);
            self.state.slot_trial = 0;
        }
        self.stage = Stage::Deciding;
        self.outcome = UpdateOutcome { phase: FleetPhase::Gate, reason: FleetReason::None };
        self.save(Some(AfterSave::Commit));
    }

    pub(super) fn committed(&mut self, now: Moment) {
        self.end(UpdateOutcome { phase: FleetPhase::Committed, reason: FleetReason::None });
        self.repeats = 0;
        // The launcher may have started the former release while the record was on its way to the disk.
        let good = self.state.good;
        if self.running.is_some_and(|running| running != good) {
            self.events.push_back(UpdaterEvent::Revert { release: good, slot: None });
        }
        self.reconsider(now);
    }

    /// Gives the release on trial up.
    pub(super) fn roll_back(&mut self, reason: FleetReason) {
        let system = self.state.slot_trial != 0;
        self.state.roll_back();
        self.state.slot_trial = 0;
        self.stage = Stage::Deciding;
        self.outcome = UpdateOutcome { phase: FleetPhase::Gate, reason };
        self.save(Some(AfterSave::RollBack(reason, system)));
    }

    pub(super) fn rolled_back(&mut self, reason: FleetReason, system: bool, now: Moment) {
        let slot = system.then(|| slot_of(self.state.slot_good));
        self.end(UpdateOutcome { phase: FleetPhase::RolledBack, reason });
        self.repeats = 0;
        let release = self.state.good;
        if system || self.running != Some(release) {
            self.events.push_back(UpdaterEvent::Revert { release, slot });
        }
        self.reconsider(now);
    }
}

fn other(slot: SystemSlot) -> SystemSlot {
    match slot {
        SystemSlot::None => SystemSlot::None,
        SystemSlot::A => SystemSlot::B,
        SystemSlot::B => SystemSlot::A,
    }
}

/// A slot's number in the state.
fn number_of(slot: SystemSlot) -> u8 {
    match slot {
        SystemSlot::None => 0,
        SystemSlot::A => 1,
        SystemSlot::B => 2,
    }
}

fn slot_of(number: u8) -> SystemSlot {
    match number {
        1 => SystemSlot::A,
        2 => SystemSlot::B,
        _ => SystemSlot::None,
    }
}
