//! A simulated board: the updater's machine, its disk, the launcher and the agent.

use crate::release::{Behaviour, Catalogue, GOLDEN, id_of};
use dunlin_fleet_core::moment::Moment;
use dunlin_fleet_core::transfer::ReusableBlocks;
use dunlin_fleet_core::updater::{
    AgentHealth, AgentNews, BootFacts, GateAnswer, GateStep, ObjectFacts, ObjectState, ReleaseFacts, Updater,
    UpdaterConfig, UpdaterEvent,
};
use dunlin_fleet_core::{TRIES_MAX, UpdateState};
use dunlin_wire::{DeviceId, FleetReason, ObjectId, SystemSlot};
use std::collections::{BTreeMap, BTreeSet};

const SECOND: u64 = 1_000_000;

/// An answer to the updater, after a while.
#[derive(Clone, Debug)]
pub(crate) enum BoardAnswer {
    Saved(UpdateState, AgentHealth),
    Release(Result<ReleaseFacts, FleetReason>),
    Prepared(Vec<ObjectState>),
    Opened(ObjectFacts),
    Sealed(ObjectFacts),
    Staged(u32),
    Checked(GateStep, GateAnswer),
    /// The launcher starts an agent.
    Launch,
    /// The agent with this number ended by itself.
    Crash(u64),
}

/// The state that outlives a power cut.
#[derive(Debug)]
struct BoardDisk {
    state: UpdateState,
    health: AgentHealth,
    /// The attempt and the starts that are left of it.
    tries: (u32, u8),
    whole: BTreeSet<ObjectId>,
    tables: BTreeSet<ObjectId>,
    parts: BTreeMap<ObjectId, BTreeSet<u32>>,
    generations: BTreeSet<u32>,
}

/// The agent's process.
#[derive(Clone, Copy, Debug)]
struct AgentProcess {
    release: u32,
    start: u64,
    since: u64,
}

/// A board.
#[derive(Debug)]
pub(crate) struct SimBoard {
    pub(crate) id: DeviceId,
    pub(crate) number: usize,
    config: UpdaterConfig,
    pub(crate) updater: Updater,
    disk: BoardDisk,
    agent: Option<AgentProcess>,
    starts: u64,
    /// Power cuts; answers to an earlier life are lost.
    pub(crate) life: u64,
    /// True while it has power.
    pub(crate) on: bool,
    /// The time for which its timer is set.
    pub(crate) armed: Option<u64>,
    /// Releases that its agent was ever of.
    pub(crate) ran: BTreeSet<u32>,
    /// Checked bytes that earlier lives took.
    taken: u64,
}

impl SimBoard {
    pub(crate) fn new(
        config: UpdaterConfig,
        number: usize,
        catalogue: &Catalogue,
        release: u32,
        now: Moment,
    ) -> Self {
        let facts = &catalogue.releases[&release].facts;
        let state = UpdateState { good: release, ..UpdateState::default() };
        let disk = BoardDisk {
            state: state.clone(),
            health: AgentHealth::default(),
            tries: (0, 0),
            whole: facts.objects.iter().map(|object| object.id).collect(),
            tables: facts.objects.iter().map(|object| object.table).collect(),
            parts: BTreeMap::new(),
            generations: [release].into(),
        };
        let boot = BootFacts { slot: SystemSlot::None, tries: TRIES_MAX, health: AgentHealth::default() };
        let mut updater = Updater::new(config.clone(), state, boot, now);
        updater.handle_health(AgentHealth { lease: true, sensor: true });
        let agent = Some(AgentProcess { release, start: 0, since: 0 });
        updater.handle_agent(AgentNews::Started { release, tries: TRIES_MAX }, now);
        Self {
            id: config.device.clone(),
            number,
            config,
            updater,
            disk,
            agent,
            starts: 0,
            life: 0,
            on: true,
            armed: None,
            ran: [release].into(),
            taken: 0,
        }
    }

    /// Takes the power away and gives it back: what was not on disk is lost.
    pub(crate) fn restart(&mut self, now: Moment) -> Vec<(u64, BoardAnswer)> {
        self.life += 1;
        self.taken = self.bytes_good();
        self.agent = None;
        self.armed = None;
        let boot = BootFacts { slot: SystemSlot::None, tries: self.tries(), health: self.disk.health };
        let config = UpdaterConfig { seed: self.config.seed ^ self.life << 32, ..self.config.clone() };
        self.updater = Updater::new(config, self.disk.state.clone(), boot, now);
        self.updater.handle_health(AgentHealth { lease: true, sensor: true });
        vec![(10 * SECOND, BoardAnswer::Launch)]
    }

    /// The release that runs.
    pub(crate) fn runs(&self) -> Option<u32> {
        self.agent.map(|agent| agent.release)
    }

    /// True if the release that is kept runs.
    pub(crate) fn is_settled(&self) -> bool {
        self.disk.state.trial == 0 && self.runs() == Some(self.disk.state.good)
    }

    /// The release that is kept.
    pub(crate) fn good(&self) -> u32 {
        self.disk.state.good
    }

    /// True if this release failed here.
    pub(crate) fn has_failed(&self, release: u32) -> bool {
        self.disk.state.failed.contains(&release)
    }

    /// Checked bytes that it took.
    pub(crate) fn bytes_good(&self) -> u64 {
        self.taken + self.updater.transfer_counters().bytes_good
    }

    fn tries(&self) -> u8 {
        let (attempt, left) = self.disk.tries;
        if self.disk.state.attempt == attempt { left } else { TRIES_MAX }
    }

    /// Carries out an order; returns what comes back, and when.
    pub(crate) fn obey(&mut self, event: UpdaterEvent, catalogue: &Catalogue) -> Vec<(u64, BoardAnswer)> {
        let soon = SECOND / 50;
        let answer = match event {
            UpdaterEvent::Save(state, health) => BoardAnswer::Saved(state, health),
            UpdaterEvent::Judge { release, bytes } => {
                let known =
                    catalogue.releases.get(&release).filter(|known| known.name.object == id_of(&bytes));
                BoardAnswer::Release(known.map(|known| known.facts.clone()).ok_or(FleetReason::Signature))
            }
            UpdaterEvent::ReadGeneration(release) => {
                let here = self.disk.generations.contains(&release).then(|| catalogue.releases.get(&release));
                BoardAnswer::Release(here.flatten().map(|known| known.facts.clone()).ok_or(FleetReason::Disk))
            }
            UpdaterEvent::Prepare(objects) => {
                let state = |object: &ObjectFacts| ObjectState {
                    whole: self.disk.whole.contains(&object.id),
                    table: self.disk.tables.contains(&object.table),
                };
                BoardAnswer::Prepared(objects.iter().map(state).collect())
            }
            UpdaterEvent::KeepTable(id, bytes) => {
                assert_eq!(id_of(&bytes), id, "a table is checked before it is kept");
                self.disk.tables.insert(id);
                return Vec::new();
            }
            UpdaterEvent::Open(object) => {
                self.reuse(&object, catalogue);
                BoardAnswer::Opened(object)
            }
            UpdaterEvent::KeepBlock { object, block, bytes } => {
                self.keep_block(object, block, &bytes, catalogue);
                return Vec::new();
            }
            UpdaterEvent::Seal(object) => BoardAnswer::Sealed(object),
            UpdaterEvent::Stage(release) => BoardAnswer::Staged(release),
            UpdaterEvent::Switch { .. } | UpdaterEvent::Revert { .. } => {
                self.agent = None;
                return vec![(SECOND, BoardAnswer::Launch)];
            }
            UpdaterEvent::Check(step) => return self.check(step, catalogue),
            // These boards have no slots, and their fleet's root stays.
            UpdaterEvent::CommitSlot(_) | UpdaterEvent::AdoptRoot(_) => return Vec::new(),
            // Nobody orders more than reports here.
            UpdaterEvent::Command(_) => return Vec::new(),
        };
        vec![(soon, answer)]
    }

    fn keep_block(&mut self, object: ObjectId, block: u32, bytes: &[u8], catalogue: &Catalogue) {
        let whole = &catalogue.objects[&object];
        let facts = catalogue.releases.values().flat_map(|release| &release.facts.objects);
        let size = facts.filter(|facts| facts.id == object).map(|facts| facts.block_bytes as usize).next();
        let at = block as usize * size.expect("an object of a release");
        assert_eq!(&whole[at..at + bytes.len()], bytes, "no wrong byte is kept");
        assert!(self.disk.parts.entry(object).or_default().insert(block), "no block is kept twice");
    }

    /// Copies blocks of the kept release's objects.
    fn reuse(&mut self, object: &ObjectFacts, catalogue: &Catalogue) {
        let mut reusable = ReusableBlocks::default();
        for (source, held) in (0..).zip(&catalogue.releases[&self.disk.state.good].facts.objects) {
            if self.disk.whole.contains(&held.id) && held.block_bytes == object.block_bytes {
                reusable.add(source, catalogue.table(held));
            }
        }
        let part = self.disk.parts.entry(object.id).or_default();
        let hashes = catalogue.table(object).chunks(32);
        part.extend(
            (0..).zip(hashes).filter(|(_, hash)| reusable.find(hash).is_some()).map(|(block, _)| block),
        );
    }

    fn check(&self, step: GateStep, catalogue: &Catalogue) -> Vec<(u64, BoardAnswer)> {
        let Some(agent) = self.agent else { return Vec::new() };
        let behaviour = self.behaviour(agent.release, catalogue);
        let answer = match (step, behaviour) {
            (GateStep::Unit, Behaviour::Hangs) | (GateStep::Broker, Behaviour::NoBroker) => {
                return Vec::new();
            }
            (GateStep::Golden, Behaviour::OtherTokens) => GateAnswer::Tokens([8; 32]),
            (GateStep::Golden, _) => GateAnswer::Tokens(GOLDEN),
            (GateStep::Memory, _) => GateAnswer::MemoryMib(0),
            _ => GateAnswer::Holds,
        };
        vec![(4 * SECOND, BoardAnswer::Checked(step, answer))]
    }

    fn behaviour(&self, release: u32, catalogue: &Catalogue) -> Behaviour {
        match catalogue.releases[&release].behaviour {
            Behaviour::CrashesOnSome(part) if self.number.is_multiple_of(part) => Behaviour::Crashes,
            Behaviour::CrashesOnSome(_) => Behaviour::Sound,
            behaviour => behaviour,
        }
    }

    fn memory_mib(&self, catalogue: &Catalogue, now: u64) -> u32 {
        let Some(agent) = self.agent else { return 0 };
        let seconds = (now - agent.since) / SECOND;
        100 + if self.behaviour(agent.release, catalogue) == Behaviour::Leaks {
            2 * seconds as u32
        } else {
            0
        }
    }

    /// Takes what came back; returns what comes next.
    pub(crate) fn answer(
        &mut self,
        answer: BoardAnswer,
        catalogue: &Catalogue,
        now: Moment,
    ) -> Vec<(u64, BoardAnswer)> {
        match answer {
            BoardAnswer::Saved(state, health) => {
                (self.disk.state, self.disk.health) = (state, health);
                self.updater.handle_saved(now);
            }
            BoardAnswer::Release(release) => self.updater.handle_release(release, now),
            BoardAnswer::Prepared(states) => self.updater.handle_prepared(Ok(states), now),
            BoardAnswer::Opened(object) => {
                let table = catalogue.table(&object).to_vec();
                let part = self.disk.parts.get(&object.id).cloned().unwrap_or_default();
                self.updater.handle_opened(Ok(table), |block| part.contains(&block), now);
            }
            BoardAnswer::Sealed(object) => {
                let blocks = object.size.div_ceil(u64::from(object.block_bytes));
                let here = self.disk.parts.remove(&object.id).map_or(0, |part| part.len() as u64);
                assert_eq!(here, blocks, "a sealed object has all its blocks");
                self.disk.whole.insert(object.id);
                self.updater.handle_sealed(Ok(()));
            }
            BoardAnswer::Staged(release) => {
                let objects = &catalogue.releases[&release].facts.objects;
                assert!(objects.iter().all(|object| self.disk.whole.contains(&object.id)), "all is here");
                self.disk.generations.insert(release);
                self.updater.handle_staged(Ok(()), now);
            }
            BoardAnswer::Checked(GateStep::Memory, _) => {
                let mib = self.memory_mib(catalogue, now.mono.0);
                self.updater.handle_check(GateStep::Memory, GateAnswer::MemoryMib(mib), now);
            }
            BoardAnswer::Checked(step, answer) => self.updater.handle_check(step, answer, now),
            BoardAnswer::Launch => return self.launch(catalogue, now),
            BoardAnswer::Crash(start) => {
                if self.agent.is_some_and(|agent| agent.start == start) {
                    self.agent = None;
                    self.updater.handle_agent(AgentNews::Ended, now);
                    return vec![(2 * SECOND, BoardAnswer::Launch)];
                }
            }
        }
        Vec::new()
    }

    /// The launcher: counts a try down on disk, then starts.
    fn launch(&mut self, catalogue: &Catalogue, now: Moment) -> Vec<(u64, BoardAnswer)> {
        if self.agent.is_some() {
            return Vec::new();
        }
        let state = self.disk.state.clone();
        let mut release = state.good;
        if state.trial != 0 && self.tries() > 0 {
            assert!(self.disk.generations.contains(&state.trial), "a release on trial is all here");
            self.disk.tries = (state.attempt, self.tries() - 1);
            release = state.trial;
        }
        self.starts += 1;
        self.ran.insert(release);
        self.agent = Some(AgentProcess { release, start: self.starts, since: now.mono.0 });
        let tries = if state.trial == 0 { TRIES_MAX } else { self.tries() };
        self.updater.handle_agent(AgentNews::Started { release, tries }, now);
        match self.behaviour(release, catalogue) {
            Behaviour::Crashes => vec![(3 * SECOND, BoardAnswer::Crash(self.starts))],
            _ => Vec::new(),
        }
    }
}
