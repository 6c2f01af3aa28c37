//! The updater's machine: from a rollout's message to a release that is kept, or to the former one.
//!
//! Invariants:
//! - What decides which release starts is saved before it is acted on, so a restart at any point goes on from the
//!   state on disk. Nothing depends on a message that arrives once.
//! - One release at a time is on trial. What comes meanwhile waits for its end.
//! - `min_number` rises when a release is kept, and at no other time.
//! - Messages come with their signatures checked, by the caller: this machine knows no keys. It checks everything that
//!   depends on what this device has seen before.

mod facts;
mod fetching;
mod gate;
mod orders;
mod trial;

pub use facts::{
    AgentHealth, AgentNews, BootFacts, GateAnswer, GateNeeds, GateStep, ObjectFacts, ObjectState,
    ReleaseFacts, UpdaterConfig, UpdaterEvent,
};
pub use gate::{BROKER_WITHIN, CHECK_WITHIN, GOLDEN_WITHIN, SAMPLE_EVERY, UNIT_WITHIN};

use crate::moment::Moment;
use crate::record::{FAILED_MAX, UpdateState};
use crate::transfer::{Transfer, TransferCounters};
use dunlin_hlm::time::{Duration, Instant};
use dunlin_wire::{
    CommandFields, CommandVerb, DeviceId, FleetDetail, FleetPhase, FleetReason, FleetReport, ObjectBlock,
    RolloutFields, RootNotice, StoreId, TimeFields, WantedPieces,
};
use gate::Gate;
use std::collections::VecDeque;

/// Progress between two reports of a phase, in permille.
const PROGRESS_STEP: u16 = 100;

/// Time for which an update waits for a root that was announced. The announcement is not signed, so it may be a lie.
const ROOT_WITHIN: Duration = Duration::from_millis(300_000);

/// The status of a phase in the words of AWS IoT Jobs.
pub const fn job_status(phase: FleetPhase) -> &'static str {
    match phase {
        FleetPhase::Idle | FleetPhase::Committed => "SUCCEEDED",
        FleetPhase::Refused => "REJECTED",
        FleetPhase::Queued => "QUEUED",
        FleetPhase::RolledBack => "FAILED",
        FleetPhase::TimedOut => "TIMED_OUT",
        FleetPhase::Removed => "REMOVED",
        FleetPhase::Manifest
        | FleetPhase::Tables
        | FleetPhase::Blocks
        | FleetPhase::Staged
        | FleetPhase::Waiting
        | FleetPhase::Trial
        | FleetPhase::Gate
        | FleetPhase::Paused => "IN_PROGRESS",
    }
}

/// Messages that changed nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpdaterCounters {
    /// Rollouts older than one that was seen.
    pub replayed_rollouts: u32,
    /// Commands that are not above the last.
    pub replayed_commands: u32,
    /// Commands whose time is over.
    pub expired_commands: u32,
    /// Messages with wrong signatures.
    pub unsigned: u32,
    /// Rollouts for others.
    pub misaddressed: u32,
}

/// The place in the update.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Nothing to do; the outcome says why.
    Idle,
    /// Waits for its turn, with the time of it once it is known.
    Queued(Option<Instant>),
    Manifest,
    Judging,
    Preparing,
    Table(usize),
    Opening(usize),
    Blocks(usize),
    Sealing(usize),
    Staging,
    Waiting,
    /// The updater was restarted during a trial, and reads what is on trial.
    Resuming,
    /// The agent must start by then.
    Trial(Instant),
    Gate(Gate),
    CommittingSlot,
    /// A decision is being saved.
    Deciding,
}

/// The end of the last update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct UpdateOutcome {
    phase: FleetPhase,
    reason: FleetReason,
}

const DONE: UpdateOutcome = UpdateOutcome { phase: FleetPhase::Idle, reason: FleetReason::None };

/// The release that the device is to run.
#[derive(Clone, Copy, Debug)]
struct Goal {
    order: RolloutFields,
    pinned: bool,
    /// The time at which the device gives up, once it began.
    deadline: Option<Instant>,
}

/// The action that waits for a save.
#[derive(Clone, Copy, Debug)]
enum AfterSave {
    Command(CommandVerb),
    Switch,
    Commit,
    RollBack(FleetReason, bool),
}

/// The updater's machine.
#[derive(Debug)]
pub struct Updater {
    config: UpdaterConfig,
    boot: BootFacts,
    state: UpdateState,
    stage: Stage,
    outcome: UpdateOutcome,
    goal: Option<Goal>,
    ring: Option<RolloutFields>,
    pin: Option<RolloutFields>,
    /// A root to fetch, and the time at which it is given up.
    root: Option<(RootNotice, Instant)>,
    facts: Option<ReleaseFacts>,
    states: Vec<ObjectState>,
    transfer: Transfer,
    health: AgentHealth,
    /// The health before the switch to the release on trial.
    before: AgentHealth,
    busy: bool,
    linked: bool,
    /// The release of the agent that runs, once it is known.
    running: Option<u32>,
    tries: u8,
    /// Starts of the release on trial that this machine saw.
    starts: u8,
    /// Times that it had to ask for a start again.
    repeats: u8,
    saving: Option<Vec<AfterSave>>,
    unsaved: Option<Vec<AfterSave>>,
    events: VecDeque<UpdaterEvent>,
    reports: u32,
    reported: Option<FleetReport>,
    detail: FleetDetail,
    free_mib: u32,
    counters: UpdaterCounters,
}

impl Updater {
    /// A machine at the updater's start. A trial that was under way goes on, once the agent's state is known by
    /// [`handle_agent`](Self::handle_agent).
    pub fn new(config: UpdaterConfig, state: UpdateState, boot: BootFacts, now: Moment) -> Self {
        let transfer = Transfer::new(config.device.clone(), config.seed, now.mono);
        let mut updater = Self {
            config,
            boot,
            state,
            stage: Stage::Idle,
            outcome: DONE,
            goal: None,
            ring: None,
            pin: None,
            root: None,
            facts: None,
            states: Vec::new(),
            transfer,
            health: AgentHealth::default(),
            before: boot.health,
            busy: false,
            linked: false,
            running: None,
            tries: boot.tries,
            starts: 0,
            repeats: 0,
            saving: None,
            unsaved: None,
            events: VecDeque::new(),
            reports: 0,
            reported: None,
            detail: FleetDetail::new(),
            free_mib: 0,
            counters: UpdaterCounters::default(),
        };
        updater.resume();
        updater
    }

    /// The state as it is, or will be once it is saved.
    pub fn state(&self) -> &UpdateState {
        &self.state
    }

    /// The counters of messages.
    pub fn counters(&self) -> UpdaterCounters {
        self.counters
    }

    /// The counters of the downloads.
    pub fn transfer_counters(&self) -> TransferCounters {
        self.transfer.counters()
    }

    /// Takes the state of the connection to the broker.
    pub fn handle_link(&mut self, up: bool) {
        self.linked = up;
        self.transfer.handle_link(up);
        // The broker may have lost what it retained.
        self.reported = None;
    }

    /// Takes a store's presence.
    pub fn handle_store(&mut self, store: &StoreId, here: bool) {
        self.transfer.handle_store(store, here);
    }

    /// Takes a message with blocks.
    pub fn handle_block(&mut self, block: &ObjectBlock<'_>, now: Moment) {
        self.transfer.handle_block(block, now.mono);
        self.drain_transfer(now);
    }

    /// Takes the agent's business: true while it writes a reply, or while the hour is wrong for a restart.
    pub fn handle_busy(&mut self, busy: bool, now: Moment) {
        self.busy = busy;
        self.transfer.set_paused(busy || self.is_paused(), now.mono);
        self.try_switch(now);
    }

    /// Takes what holds of the agent at present. The last before a switch counts.
    pub fn handle_health(&mut self, health: AgentHealth) {
        self.health = health;
    }

    /// Takes the free space, for reports.
    pub fn handle_free_mib(&mut self, free_mib: u32) {
        self.free_mib = free_mib;
    }

    /// Takes a text for the next report; what isn't printable or too long is left out.
    pub fn handle_detail(&mut self, text: &str) {
        self.detail.clear();
        for character in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
            if self.detail.push(character).is_err() {
                break;
            }
        }
        self.reported = None;
    }

    /// Takes a command whose signatures are good. It is carried out once, whatever becomes of the updater.
    pub fn handle_command(&mut self, command: &CommandFields, now: Moment) {
        if command.number <= self.state.command {
            bump(&mut self.counters.replayed_commands);
            return;
        }
        if command.until < self.clock(now) {
            bump(&mut self.counters.expired_commands);
            return;
        }
        self.state.command = command.number;
        if command.verb == CommandVerb::Forget {
            self.state.failed = [0; FAILED_MAX];
        }
        self.save(Some(AfterSave::Command(command.verb)));
    }

    /// Takes the time, whose signatures are good. It only ever moves the floor of the clock up.
    pub fn handle_time(&mut self, time: &TimeFields) {
        if time.number > self.state.time {
            self.state.time = time.number;
            self.state.clock_floor = self.state.clock_floor.max(time.at);
            self.save(None);
        }
    }

    /// Takes the news that the state of the last [`UpdaterEvent::Save`] is on disk.
    pub fn handle_saved(&mut self, now: Moment) {
        for after in self.saving.take().unwrap_or_default() {
            match after {
                AfterSave::Command(CommandVerb::Report) => self.reported = None,
                AfterSave::Command(CommandVerb::Forget) => {
                    if let Stage::Idle = self.stage {
                        self.goal = None;
                    }
                    self.reconsider(now);
                }
                AfterSave::Command(verb) => self.events.push_back(UpdaterEvent::Command(verb)),
                AfterSave::Switch => self.switch(now),
                AfterSave::Commit => self.committed(now),
                AfterSave::RollBack(reason, system) => self.rolled_back(reason, system, now),
            }
        }
        if let Some(after) = self.unsaved.take() {
            self.saving = Some(after);
            self.events.push_back(UpdaterEvent::Save(self.state.clone(), self.before));
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Moment) {
        self.transfer.handle_timeout(now.mono);
        self.check_deadline(now);
        self.check_root(now);
        match self.stage {
            Stage::Queued(Some(at)) if at <= now.mono && !self.is_paused() => self.begin(now),
            Stage::Waiting => self.try_switch(now),
            Stage::Trial(until) if until <= now.mono => self.roll_back(FleetReason::Unit),
            Stage::Gate(mut gate) => {
                let verdict = gate.handle_timeout(now.mono);
                self.stage = Stage::Gate(gate);
                self.obey(verdict);
            }
            _ => {}
        }
    }

    /// The time of the next [`handle_timeout`](Self::handle_timeout).
    pub fn poll_timeout(&self, now: Moment) -> Option<Instant> {
        let stage = match self.stage {
            Stage::Queued(Some(at)) if !self.is_paused() => Some(at),
            Stage::Trial(until) => Some(until),
            Stage::Gate(gate) => Some(gate.poll_timeout()),
            _ => None,
        };
        let deadline = self.goal.and_then(|goal| goal.deadline).filter(|_| self.may_time_out());
        let root = self.root.map(|(_, until)| until);
        [stage, deadline, root, self.transfer.poll_timeout(now.mono)].into_iter().flatten().min()
    }

    /// The next request for blocks, and the store that it goes to.
    pub fn poll_transmit(&mut self, now: Moment) -> Option<(StoreId, WantedPieces)> {
        self.transfer.poll_transmit(now.mono)
    }

    /// The next order to the shell.
    pub fn poll_event(&mut self) -> Option<UpdaterEvent> {
        self.events.pop_front()
    }

    /// A report to publish, if there is something new to say.
    pub fn poll_report(&mut self, now: Moment) -> Option<FleetReport> {
        if !self.linked {
            return None;
        }
        let report = self.report(now);
        if self.reported.as_ref().is_some_and(|last| is_told(last, &report)) {
            return None;
        }
        self.reports = self.reports.wrapping_add(1).max(1);
        let report = FleetReport { report: self.reports, ..report };
        self.reported = Some(report.clone());
        Some(report)
    }

    /// The phase that a report would name.
    pub fn phase(&self, now: Moment) -> FleetPhase {
        self.progress(now).0
    }

    fn report(&self, now: Moment) -> FleetReport {
        let (phase, permille, reason) = self.progress(now);
        let transfer = self.transfer.counters();
        FleetReport {
            report: self.reports,
            rollout: self.goal.map_or(0, |goal| goal.order.number),
            command: self.state.command,
            release: self.running.unwrap_or(self.state.good),
            target: self.goal.map_or(0, |goal| goal.order.release),
            phase,
            permille,
            reason,
            detail: self.detail.clone(),
            slot: self.boot.slot,
            system: self.state.system,
            min_number: self.state.min_number,
            tries: self.tries,
            failures: transfer.bad.saturating_add(transfer.late).min(u32::from(u16::MAX)) as u16,
            free_mib: self.free_mib,
            board: self.config.board.clone(),
            updater: self.config.version,
        }
    }

    fn progress(&self, now: Moment) -> (FleetPhase, u16, FleetReason) {
        let phase = match self.stage {
            Stage::Idle | Stage::Deciding => self.outcome.phase,
            Stage::Queued(_) => FleetPhase::Queued,
            Stage::Manifest | Stage::Judging | Stage::Preparing => FleetPhase::Manifest,
            Stage::Table(_) => FleetPhase::Tables,
            Stage::Opening(_) | Stage::Blocks(_) | Stage::Sealing(_) => FleetPhase::Blocks,
            Stage::Staging => FleetPhase::Staged,
            Stage::Waiting => FleetPhase::Waiting,
            Stage::Resuming | Stage::Trial(_) => FleetPhase::Trial,
            Stage::Gate(_) | Stage::CommittingSlot => FleetPhase::Gate,
        };
        let permille = match self.stage {
            Stage::Gate(gate) => gate.permille(),
            Stage::Blocks(_) | Stage::Opening(_) | Stage::Sealing(_) => self.fetched_permille(),
            _ => 0,
        };
        let reason = match self.stage {
            Stage::Idle | Stage::Deciding => self.outcome.reason,
            _ if !self.transfer.is_busy() => FleetReason::None,
            _ if self.transfer.is_poisoned(now.mono) => FleetReason::Poisoned,
            _ if !self.transfer.has_store(now.mono) => FleetReason::NoStore,
            _ => FleetReason::None,
        };
        let stopped = self.is_paused() && self.is_working();
        (if stopped { FleetPhase::Paused } else { phase }, permille, reason)
    }

    /// Saves the state. What follows a save waits until the state as it is now is on disk.
    fn save(&mut self, after: Option<AfterSave>) {
        if self.saving.is_some() {
            self.unsaved.get_or_insert_default().extend(after);
        } else {
            self.saving = Some(after.into_iter().collect());
            self.events.push_back(UpdaterEvent::Save(self.state.clone(), self.before));
        }
    }

    /// The time by which documents expire, in Unix seconds.
    fn clock(&self, now: Moment) -> u64 {
        now.unix.max(self.state.clock_floor)
    }

    fn device(&self) -> &DeviceId {
        &self.config.device
    }
}

fn bump(counter: &mut u32) {
    *counter = counter.saturating_add(1);
}

/// True if a report says nothing that the last one didn't.
fn is_told(last: &FleetReport, report: &FleetReport) -> bool {
    let progress = report.permille.abs_diff(last.permille) >= PROGRESS_STEP;
    let same = FleetReport {
        report: last.report,
        permille: last.permille,
        failures: last.failures,
        free_mib: last.free_mib,
        ..report.clone()
    };
    !progress && same == *last
}

#[cfg(test)]
mod tests;
