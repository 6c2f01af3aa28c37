use super::*;
use crate::record::TRIES_MAX;
use dunlin_hlm::time::Duration;
use dunlin_wire::limits::PIECE_BYTES;
use dunlin_wire::{BlockForm, ObjectId, RolloutScope, SystemSlot};
use ring::digest::{SHA256, digest};
use std::collections::BTreeMap;

const GOLDEN: [u8; 32] = [7; 32];
const DEADLINE_MIN: u16 = 60;

fn id_of(bytes: &[u8]) -> ObjectId {
    ObjectId(digest(&SHA256, bytes).as_ref().try_into().unwrap())
}

fn config() -> UpdaterConfig {
    UpdaterConfig {
        device: "plover-1".parse().unwrap(),
        ring: "stable".parse().unwrap(),
        board: "rpi4".parse().unwrap(),
        version: 1,
        seed: 5,
    }
}

/// The state of a board that keeps release 1.
fn state(trial: u32, slot_good: u8, slot_trial: u8) -> UpdateState {
    let mut state = UpdateState::default();
    (state.good, state.trial, state.slot_good, state.slot_trial) = (1, trial, slot_good, slot_trial);
    state
}

fn ring() -> RolloutScope {
    RolloutScope::Ring(config().ring)
}

fn pin() -> RolloutScope {
    RolloutScope::Device(config().device)
}

/// A board with an updater whose orders are carried out at once, but for those that a test holds back.
struct Bench {
    updater: Updater,
    now: Moment,
    disk: UpdateState,
    health: AgentHealth,
    objects: BTreeMap<ObjectId, Vec<u8>>,
    facts: BTreeMap<u32, ReleaseFacts>,
    kept: BTreeMap<ObjectId, ObjectState>,
    /// The orders so far.
    orders: Vec<UpdaterEvent>,
    answers: BTreeMap<GateStep, GateAnswer>,
    hold_saves: bool,
}

impl Bench {
    fn new() -> Self {
        Self::with(state(0, 0, 0), SystemSlot::None, TRIES_MAX)
    }

    fn with(disk: UpdateState, slot: SystemSlot, tries: u8) -> Self {
        let now = Moment { mono: Instant(0), unix: 1_800_000_000 };
        let boot = BootFacts { slot, tries, health: AgentHealth { lease: true, sensor: true } };
        let mut updater = Updater::new(config(), disk.clone(), boot, now);
        updater.handle_health(boot.health);
        let mut bench = Self {
            updater,
            now,
            disk,
            health: boot.health,
            objects: BTreeMap::new(),
            facts: BTreeMap::new(),
            kept: BTreeMap::new(),
            orders: Vec::new(),
            answers: BTreeMap::new(),
            hold_saves: false,
        };
        for step in [GateStep::Unit, GateStep::Broker, GateStep::Lease, GateStep::Sensor] {
            bench.answers.insert(step, GateAnswer::Holds);
        }
        bench.answers.insert(GateStep::Golden, GateAnswer::Tokens(GOLDEN));
        bench.answers.insert(GateStep::Memory, GateAnswer::MemoryMib(100));
        for release in 1..6 {
            bench.add(release, false);
        }
        bench.updater.handle_link(true);
        bench.updater.handle_store(&"store-1".parse().unwrap(), true);
        bench
    }

    /// The same disk with a new updater, as after a crash: what was not saved is lost.
    fn restarted(self, slot: SystemSlot, tries: u8) -> Self {
        let mut next = Self::with(self.disk, slot, tries);
        (next.facts, next.objects, next.kept, next.now) = (self.facts, self.objects, self.kept, self.now);
        next.health = self.health;
        next
    }

    fn add(&mut self, number: u32, system: bool) {
        let bytes = vec![number as u8; 3 * PIECE_BYTES + number as usize];
        let table: Vec<u8> = bytes.chunks(PIECE_BYTES).flat_map(|block| id_of(block).0).collect();
        let object = ObjectFacts {
            id: id_of(&bytes),
            size: bytes.len() as u64,
            table: id_of(&table),
            block_bytes: PIECE_BYTES as u32,
            system,
        };
        let document = format!("release {number}").into_bytes();
        for bytes in [bytes, table, document] {
            self.objects.insert(id_of(&bytes), bytes);
        }
        let facts = ReleaseFacts {
            number,
            floor: number - 1,
            objects: vec![object],
            golden: Some(GOLDEN),
            rss_mib: 200,
            soak_seconds: 120,
            needs: GateNeeds::Lease,
        };
        self.facts.insert(number, facts);
    }

    fn order(&self, number: u32, release: u32) -> RolloutFields {
        let document = format!("release {release}").into_bytes();
        RolloutFields {
            number,
            at: self.now.unix,
            until: self.now.unix + 100_000,
            release,
            object: id_of(&document),
            size: document.len() as u16,
            permille: 1000,
            salt: 1,
            paused: false,
            bytes_per_s: 0,
            deadline_min: DEADLINE_MIN,
        }
    }

    fn roll(&mut self, order: RolloutFields) {
        self.updater.handle_rollout(&ring(), &order, self.now);
        self.run();
    }

    /// Lets time pass, and carries out what is ordered.
    fn wait(&mut self, seconds: u64) {
        let end = self.now.mono + Duration::from_millis(seconds * 1000);
        loop {
            self.run();
            let next = self.updater.poll_timeout(self.now).filter(|at| *at <= end);
            let Some(at) = next.map(|at| at.max(self.now.mono)) else { break };
            self.pass(at.since(self.now.mono).0);
            self.updater.handle_timeout(self.now);
        }
        self.pass(end.since(self.now.mono).0);
    }

    fn pass(&mut self, micros: u64) {
        let before = self.now.mono.0 / 1_000_000;
        self.now.mono = self.now.mono + Duration(micros);
        self.now.unix += self.now.mono.0 / 1_000_000 - before;
    }

    fn run(&mut self) {
        loop {
            if let Some(event) = self.updater.poll_event() {
                self.orders.push(event.clone());
                self.obey(event);
            } else if let Some((_, wanted)) = self.updater.poll_transmit(self.now) {
                self.serve(&wanted);
            } else {
                return;
            }
        }
    }

    fn serve(&mut self, wanted: &WantedPieces) {
        let Some(bytes) = self.objects.get(&wanted.object).cloned() else { return };
        for span in &wanted.spans {
            let from = span.first as usize * PIECE_BYTES;
            let end = bytes.len().min(from + usize::from(span.count) * PIECE_BYTES);
            let block = ObjectBlock {
                object: wanted.object.short(),
                first: span.first,
                count: span.count,
                form: BlockForm::Raw,
                bytes: &bytes[from..end],
            };
            self.updater.handle_block(&block, self.now);
        }
    }

    fn obey(&mut self, event: UpdaterEvent) {
        let now = self.now;
        match event {
            UpdaterEvent::Save(state, health) if !self.hold_saves => {
                (self.disk, self.health) = (state, health);
                self.updater.handle_saved(now);
            }
            UpdaterEvent::Judge { release, .. } | UpdaterEvent::ReadGeneration(release) => {
                self.updater.handle_release(Ok(self.facts[&release].clone()), now);
            }
            UpdaterEvent::Prepare(objects) => {
                let state = |object: &ObjectFacts| self.kept.get(&object.id).copied().unwrap_or_default();
                self.updater.handle_prepared(Ok(objects.iter().map(state).collect()), now);
            }
            UpdaterEvent::Open(object) => {
                let table = self.objects[&object.table].clone();
                self.updater.handle_opened(Ok(table), |_| false, now);
            }
            UpdaterEvent::Seal(object) => {
                self.kept.insert(object.id, ObjectState { whole: true, table: true });
                self.updater.handle_sealed(Ok(()));
            }
            UpdaterEvent::Stage(_) => self.updater.handle_staged(Ok(()), now),
            UpdaterEvent::Switch { release, slot: None } | UpdaterEvent::Revert { release, slot: None } => {
                let tries = if release == self.disk.trial { TRIES_MAX - 1 } else { TRIES_MAX };
                self.updater.handle_agent(AgentNews::Started { release, tries }, now);
            }
            UpdaterEvent::CommitSlot(_) => self.updater.handle_slot(true),
            UpdaterEvent::Check(step) => {
                if let Some(answer) = self.answers.get(&step) {
                    self.updater.handle_check(step, *answer, now);
                }
            }
            _ => {}
        }
    }

    fn started(&mut self, release: u32, tries: u8) {
        self.updater.handle_agent(AgentNews::Started { release, tries }, self.now);
        self.run();
    }

    fn report(&mut self) -> FleetReport {
        self.updater.handle_link(true);
        self.updater.poll_report(self.now).unwrap()
    }

    /// Phase, reason, and the release that is kept.
    fn end(&mut self) -> (FleetPhase, FleetReason, u32) {
        let report = self.report();
        (report.phase, report.reason, self.disk.good)
    }

    fn count(&self, wanted: impl Fn(&UpdaterEvent) -> bool) -> usize {
        self.orders.iter().filter(|event| wanted(event)).count()
    }

    /// Up to the gate's last step.
    fn reach_gate(&mut self, release: u32) {
        let order = self.order(self.disk.rollout + 1, release);
        self.roll(order);
        self.until_gate();
    }

    fn until_gate(&mut self) {
        for _ in 0..u64::from(DEADLINE_MIN) * 15 {
            if let Stage::Gate(_) = self.updater.stage {
                return;
            }
            self.wait(1);
        }
        panic!("no gate: {:?}", self.report());
    }
}

#[test]
fn a_release_is_fetched_tried_and_kept() {
    let mut bench = Bench::new();
    let mut phases = vec![bench.report().phase];
    bench.roll(bench.order(1, 2));
    for _ in 0..2000 {
        bench.wait(1);
        phases.extend(bench.updater.poll_report(bench.now).map(|report| report.phase));
    }
    phases.dedup();
    assert_eq!(phases, [FleetPhase::Idle, FleetPhase::Queued, FleetPhase::Gate, FleetPhase::Committed]);
    assert_eq!(bench.end(), (FleetPhase::Committed, FleetReason::None, 2));
    assert_eq!((bench.disk.trial, bench.disk.min_number, bench.disk.rollout), (0, 1, 1));
    assert_eq!(bench.disk.previous, 1);
    // What was kept is on the board: going back needs no byte of an object.
    let fetched = bench.updater.transfer_counters().bytes_good;
    bench.kept.insert(bench.facts[&1].objects[0].id, ObjectState { whole: true, table: true });
    bench.roll(bench.order(2, 1));
    bench.wait(2000);
    assert_eq!(bench.end(), (FleetPhase::Committed, FleetReason::None, 1));
    assert_eq!(bench.updater.transfer_counters().bytes_good - fetched, 9, "only the document");
    assert_eq!(bench.disk.min_number, 1, "the floor stays where the newer release set it");
}

#[test]
fn phases_are_reported_while_blocks_are_missing() {
    let mut bench = Bench::new();
    let objects = core::mem::take(&mut bench.objects);
    bench.roll(bench.order(1, 2));
    bench.wait(900);
    assert_eq!(bench.report().phase, FleetPhase::Manifest);
    let order = bench.order(1, 2);
    let (document, object) = (order.object, bench.facts[&2].objects[0]);
    for (id, phase) in [(document, FleetPhase::Tables), (object.table, FleetPhase::Blocks)] {
        bench.objects.insert(id, objects[&id].clone());
        bench.wait(65);
        assert_eq!(bench.report().phase, phase);
    }
    bench.updater.handle_busy(true, bench.now);
    bench.objects.insert(object.id, objects[&object.id].clone());
    bench.wait(65);
    assert_eq!(bench.report().phase, FleetPhase::Blocks, "nothing is fetched while a reply is written");
    bench.updater.handle_busy(false, bench.now);
    bench.wait(65);
    assert_eq!(bench.report().phase, FleetPhase::Gate);
}

#[test]
fn a_switch_waits_for_the_end_of_a_reply() {
    let mut bench = Bench::new();
    let (document, object) = (bench.order(1, 2).object, bench.facts[&2].objects[0].id);
    let bytes = bench.objects.remove(&object).unwrap();
    bench.roll(bench.order(1, 2));
    bench.wait(905);
    assert!(bench.objects.contains_key(&document));
    bench.updater.handle_busy(true, bench.now);
    for (first, chunk) in bytes.chunks(PIECE_BYTES).enumerate() {
        let (object, form) = (object.short(), BlockForm::Raw);
        let block = ObjectBlock { object, first: first as u32, count: 1, form, bytes: chunk };
        bench.updater.handle_block(&block, bench.now);
    }
    bench.wait(60);
    assert_eq!((bench.report().phase, bench.disk.trial), (FleetPhase::Waiting, 0));
    bench.updater.handle_busy(false, bench.now);
    bench.run();
    assert_eq!(bench.disk.trial, 2);
}

#[test]
fn each_check_of_the_gate_sends_a_bad_release_back() {
    let fails = [
        (GateStep::Unit, None, FleetReason::Unit),
        (GateStep::Unit, Some(GateAnswer::Fails), FleetReason::Unit),
        (GateStep::Broker, None, FleetReason::Broker),
        (GateStep::Lease, None, FleetReason::Lease),
        (GateStep::Golden, None, FleetReason::Golden),
        (GateStep::Golden, Some(GateAnswer::Tokens([8; 32])), FleetReason::Golden),
        (GateStep::Golden, Some(GateAnswer::Holds), FleetReason::Golden),
        (GateStep::Memory, None, FleetReason::Memory),
        (GateStep::Memory, Some(GateAnswer::MemoryMib(201)), FleetReason::Memory),
        (GateStep::Sensor, Some(GateAnswer::Fails), FleetReason::Sensor),
    ];
    for (step, answer, reason) in fails {
        let mut bench = Bench::new();
        match answer {
            Some(answer) => drop(bench.answers.insert(step, answer)),
            None => drop(bench.answers.remove(&step)),
        }
        bench.roll(bench.order(1, 2));
        bench.wait(3000);
        assert_eq!(bench.end(), (FleetPhase::RolledBack, reason, 1), "{step:?} {answer:?}");
        assert_eq!((bench.disk.failed[0], bench.disk.trial, bench.disk.min_number), (2, 0, 0));
        assert_eq!(bench.updater.running, Some(1));
    }
}

#[test]
fn a_release_that_leaks_is_found_while_it_is_observed() {
    let mut bench = Bench::new();
    bench.reach_gate(2);
    bench.answers.insert(GateStep::Memory, GateAnswer::MemoryMib(300));
    bench.wait(11);
    assert_eq!(bench.end(), (FleetPhase::RolledBack, FleetReason::Memory, 1));
}

#[test]
fn what_did_not_hold_before_is_not_asked_for() {
    let mut bench = Bench::new();
    bench.updater.handle_health(AgentHealth::default());
    bench.answers.remove(&GateStep::Lease);
    bench.answers.remove(&GateStep::Sensor);
    bench.roll(bench.order(1, 2));
    bench.wait(3000);
    assert_eq!(bench.end(), (FleetPhase::Committed, FleetReason::None, 2));
}

#[test]
fn an_agent_that_ends_costs_a_try_and_three_send_the_release_back() {
    let mut bench = Bench::new();
    bench.reach_gate(2);
    for tries in [1, 0] {
        bench.wait(100);
        bench.updater.handle_agent(AgentNews::Ended, bench.now);
        bench.started(2, tries);
        assert_eq!(bench.report().tries, tries);
    }
    bench.wait(100);
    assert_eq!(bench.disk.good, 1, "each start is observed from its beginning");
    bench.updater.handle_agent(AgentNews::Ended, bench.now);
    bench.started(1, 0);
    assert_eq!(bench.end(), (FleetPhase::RolledBack, FleetReason::Tries, 1));
    // A launcher that counts wrong doesn't go on for ever.
    let mut bench = Bench::new();
    bench.reach_gate(2);
    for _ in 0..3 {
        bench.updater.handle_agent(AgentNews::Ended, bench.now);
        bench.started(2, 2);
    }
    assert_eq!(bench.end(), (FleetPhase::RolledBack, FleetReason::Restart, 1));
}

#[test]
fn a_replayed_rollout_changes_nothing() {
    let mut bench = Bench::new();
    let old = bench.order(4, 3);
    bench.roll(old);
    bench.roll(bench.order(5, 2));
    bench.wait(3000);
    assert_eq!(bench.end().2, 2);
    bench.roll(old);
    bench.wait(3000);
    assert_eq!((bench.end().2, bench.updater.counters().replayed_rollouts), (2, 1));
    // Nor after a restart, when the broker delivers nothing else.
    let mut bench = bench.restarted(SystemSlot::None, TRIES_MAX);
    bench.roll(old);
    bench.wait(3000);
    assert_eq!((bench.end().2, bench.updater.counters().replayed_rollouts), (2, 1));
}

#[test]
fn a_frozen_rollout_is_refused_before_its_fetch_and_before_its_trial() {
    let mut bench = Bench::new();
    let order = RolloutFields { until: bench.now.unix - 1, ..bench.order(1, 2) };
    bench.roll(order);
    assert_eq!(bench.end(), (FleetPhase::Refused, FleetReason::Expired, 1));
    // A clock that was never set is no excuse: the signed time counts.
    let mut bench = Bench::new();
    let order = bench.order(1, 2);
    bench.updater.handle_time(&TimeFields { at: order.until + 1, number: 1 });
    bench.roll(order);
    assert_eq!(bench.end(), (FleetPhase::Refused, FleetReason::Expired, 1));
    assert_eq!(bench.disk.clock_floor, order.until + 1);
    // Held back at the last moment.
    let mut bench = Bench::new();
    let order = RolloutFields { until: bench.now.unix + 1000, ..bench.order(1, 2) };
    bench.roll(order);
    bench.updater.handle_busy(true, bench.now);
    bench.wait(1001);
    bench.updater.handle_busy(false, bench.now);
    bench.wait(3000);
    assert_eq!((bench.end(), bench.disk.trial), ((FleetPhase::Refused, FleetReason::Expired, 1), 0));
}

#[test]
fn a_release_that_failed_is_refused_under_any_rollout() {
    let mut bench = Bench::new();
    bench.answers.insert(GateStep::Golden, GateAnswer::Fails);
    bench.roll(bench.order(1, 2));
    bench.wait(3000);
    assert_eq!(bench.end(), (FleetPhase::RolledBack, FleetReason::Golden, 1));
    let switches = |bench: &Bench| bench.count(|event| matches!(event, UpdaterEvent::Switch { .. }));
    assert_eq!(switches(&bench), 1);
    // The same again: it is still the release that went back.
    bench.roll(bench.order(2, 2));
    bench.wait(3000);
    assert_eq!(bench.end(), (FleetPhase::RolledBack, FleetReason::Golden, 1));
    let mut bench = bench.restarted(SystemSlot::None, TRIES_MAX);
    for scope in [ring(), pin()] {
        bench.updater.handle_rollout(&scope, &bench.order(9, 2), bench.now);
        bench.wait(3000);
        assert_eq!(bench.end(), (FleetPhase::Refused, FleetReason::Failed, 1));
    }
    assert_eq!(switches(&bench), 0);
    // An operator may let it be tried again.
    let fields = CommandFields { number: 1, until: bench.now.unix, verb: CommandVerb::Forget };
    bench.updater.handle_command(&fields, bench.now);
    bench.wait(3000);
    assert_eq!(bench.end(), (FleetPhase::Committed, FleetReason::None, 2));
}

#[test]
fn a_release_below_the_floor_is_refused() {
    let mut bench = Bench::new();
    bench.roll(bench.order(1, 4));
    bench.wait(3000);
    assert_eq!((bench.end().2, bench.disk.min_number), (4, 3));
    bench.roll(bench.order(2, 2));
    assert_eq!(bench.end(), (FleetPhase::Refused, FleetReason::Floor, 4));
    bench.roll(bench.order(3, 3));
    bench.wait(3000);
    assert_eq!(bench.end(), (FleetPhase::Committed, FleetReason::None, 3));
}

#[test]
fn a_command_is_carried_out_once() {
    let mut bench = Bench::new();
    let restart = CommandFields { number: 7, until: bench.now.unix + 60, verb: CommandVerb::Restart };
    let carried = |bench: &Bench| bench.count(|event| matches!(event, UpdaterEvent::Command(_)));
    for _ in 0..2 {
        bench.updater.handle_command(&restart, bench.now);
        bench.run();
    }
    assert_eq!((carried(&bench), bench.updater.counters().replayed_commands), (1, 1));
    let mut bench = bench.restarted(SystemSlot::None, TRIES_MAX);
    for fields in [restart, CommandFields { number: 6, ..restart }] {
        bench.updater.handle_command(&fields, bench.now);
    }
    let late = CommandFields { number: 8, until: bench.now.unix - 1, ..restart };
    bench.updater.handle_command(&late, bench.now);
    bench.run();
    assert_eq!((carried(&bench), bench.disk.command), (0, 7));
    assert_eq!(bench.updater.counters().expired_commands, 1);
}

#[test]
fn a_command_is_on_disk_before_it_is_carried_out() {
    let mut bench = Bench::new();
    bench.hold_saves = true;
    let fields = CommandFields { number: 1, until: bench.now.unix, verb: CommandVerb::Reboot };
    bench.updater.handle_command(&fields, bench.now);
    bench.run();
    assert_eq!(bench.count(|event| matches!(event, UpdaterEvent::Command(_))), 0);
    bench.updater.handle_saved(bench.now);
    bench.run();
    assert_eq!(bench.count(|event| matches!(event, UpdaterEvent::Command(_))), 1);
}

#[test]
fn an_agent_that_ends_while_the_updater_commits_is_of_the_kept_release_in_the_end() {
    // The commit reaches the disk: the launcher had started the former release meanwhile.
    let mut bench = Bench::new();
    bench.reach_gate(2);
    bench.hold_saves = true;
    bench.wait(200);
    assert!(matches!(bench.orders.last(), Some(UpdaterEvent::Save(state, _)) if state.good == 2));
    bench.updater.handle_agent(AgentNews::Ended, bench.now);
    bench.started(1, 0);
    assert_eq!(bench.disk.trial, 2, "the commit is still on its way");
    bench.hold_saves = false;
    let Some(UpdaterEvent::Save(state, _)) =
        bench.orders.iter().rev().find(|event| matches!(event, UpdaterEvent::Save(..))).cloned()
    else {
        panic!("no save")
    };
    bench.disk = state;
    bench.updater.handle_saved(bench.now);
    bench.run();
    assert_eq!(bench.orders.last(), Some(&UpdaterEvent::Revert { release: 2, slot: None }));
    assert_eq!(
        (bench.end(), bench.updater.running),
        ((FleetPhase::Committed, FleetReason::None, 2), Some(2))
    );
    // The commit doesn't reach the disk: the trial goes on, or goes back, but is never half kept.
    for (running, tries, good) in [(2, 1, 2), (1, 0, 1)] {
        let mut bench = Bench::new();
        bench.reach_gate(2);
        bench.hold_saves = true;
        bench.wait(200);
        let mut bench = bench.restarted(SystemSlot::None, tries);
        bench.run();
        bench.started(running, tries);
        bench.wait(3000);
        assert_eq!((bench.disk.good, bench.disk.trial, bench.updater.running), (good, 0, Some(good)));
    }
}

#[test]
fn a_restart_at_any_save_goes_on_from_the_disk() {
    let saves = |bench: &Bench| bench.count(|event| matches!(event, UpdaterEvent::Save(..)));
    for bad in [false, true] {
        for cut in 1..5 {
            for reached in [false, true] {
                let mut bench = Bench::new();
                if bad {
                    bench.answers.insert(GateStep::Golden, GateAnswer::Fails);
                }
                let order = bench.order(1, 2);
                bench.updater.handle_rollout(&ring(), &order, bench.now);
                for _ in 0..3000 {
                    bench.hold_saves = saves(&bench) + 1 >= cut;
                    bench.wait(1);
                    if saves(&bench) >= cut {
                        break;
                    }
                }
                if let (true, Some(UpdaterEvent::Save(state, _))) = (reached, bench.orders.last()) {
                    bench.disk = state.clone();
                }
                let answers = bench.answers.clone();
                let mut bench = bench.restarted(SystemSlot::None, TRIES_MAX);
                bench.answers = answers;
                bench.run();
                let running = if bench.disk.trial == 0 { bench.disk.good } else { 1 };
                bench.started(running, TRIES_MAX);
                bench.roll(order);
                bench.wait(4000);
                let (good, failed) = if bad { (1, 2) } else { (2, 0) };
                let end = (bench.disk.good, bench.disk.trial, bench.disk.failed[0], bench.updater.running);
                assert_eq!(
                    end,
                    (good, 0, failed, Some(good)),
                    "bad {bad}, cut at save {cut}, reached {reached}"
                );
            }
        }
    }
}

#[test]
fn a_way_back_that_was_saved_is_gone_to_the_end() {
    let mut bench = Bench::with(state(0, 0, 0), SystemSlot::None, TRIES_MAX);
    bench.started(2, 0);
    assert_eq!(bench.orders, [UpdaterEvent::Revert { release: 1, slot: None }]);
    assert_eq!(bench.updater.running, Some(1));
}

#[test]
fn a_pin_goes_before_the_ring_until_it_is_taken_off() {
    let mut bench = Bench::new();
    bench.roll(bench.order(1, 2));
    bench.updater.handle_rollout(&pin(), &bench.order(2, 3), bench.now);
    bench.wait(3000);
    assert_eq!(bench.end(), (FleetPhase::Committed, FleetReason::None, 3));
    bench.roll(bench.order(3, 4));
    bench.wait(3000);
    assert_eq!(bench.end().2, 3);
    let off = RolloutFields { permille: 0, ..bench.order(4, 3) };
    bench.updater.handle_rollout(&pin(), &off, bench.now);
    bench.wait(3000);
    assert_eq!(bench.end().2, 4);
    let other = RolloutScope::Device("plover-2".parse().unwrap());
    bench.updater.handle_rollout(&other, &bench.order(9, 5), bench.now);
    let other = RolloutScope::Ring("early".parse().unwrap());
    bench.updater.handle_rollout(&other, &bench.order(9, 5), bench.now);
    bench.wait(3000);
    assert_eq!((bench.end().2, bench.updater.counters().misaddressed), (4, 2));
}

#[test]
fn only_drawn_devices_begin_and_each_after_its_delay() {
    let mut bench = Bench::new();
    let order = bench.order(1, 2);
    let first = (0..=1000)
        .find(|permille| crate::lot::Lot::of(order.salt, &config().device).is_member(*permille))
        .unwrap();
    bench.roll(RolloutFields { permille: first - 1, ..order });
    bench.wait(3000);
    assert_eq!((bench.report().phase, bench.report().rollout), (FleetPhase::Queued, 1));
    bench.roll(RolloutFields { number: 2, permille: first, until: bench.now.unix + 9000, ..order });
    let due = bench.updater.poll_timeout(bench.now).unwrap();
    assert!(due > bench.now.mono && due.since(bench.now.mono) < Duration::from_millis(900_000));
    bench.wait(3000);
    assert_eq!(bench.end().2, 2);
}

#[test]
fn a_paused_rollout_stops_all_but_a_trial() {
    let mut bench = Bench::new();
    bench.roll(bench.order(1, 2));
    bench.roll(RolloutFields { paused: true, ..bench.order(2, 2) });
    bench.wait(5000);
    assert_eq!((bench.report().phase, bench.disk.trial), (FleetPhase::Paused, 0));
    bench.roll(bench.order(3, 2));
    bench.until_gate();
    bench.roll(RolloutFields { paused: true, ..bench.order(4, 2) });
    bench.wait(3000);
    assert_eq!(bench.end(), (FleetPhase::Committed, FleetReason::None, 2));
}

#[test]
fn what_is_not_here_by_the_deadline_is_given_up_until_a_new_number() {
    let mut bench = Bench::new();
    let objects = core::mem::take(&mut bench.objects);
    bench.roll(bench.order(1, 2));
    bench.wait(3600);
    assert_eq!(bench.end(), (FleetPhase::TimedOut, FleetReason::Deadline, 1));
    bench.objects = objects;
    bench.roll(bench.order(1, 2));
    bench.wait(3600);
    assert_eq!(bench.end().0, FleetPhase::TimedOut, "told once more what it was told");
    bench.roll(bench.order(2, 2));
    bench.wait(3600);
    assert_eq!(bench.end(), (FleetPhase::Committed, FleetReason::None, 2));
}

#[test]
fn a_newer_release_replaces_one_on_its_way_and_waits_for_one_on_trial() {
    let mut bench = Bench::new();
    bench.roll(bench.order(1, 2));
    bench.roll(bench.order(2, 3));
    bench.reach_gate(4);
    bench.roll(bench.order(9, 5));
    assert_eq!(bench.disk.trial, 4);
    bench.wait(125);
    assert_eq!((bench.disk.good, bench.report().phase), (4, FleetPhase::Queued));
    bench.wait(3000);
    assert_eq!(bench.end().2, 5);
    let tried: Vec<u32> = bench
        .orders
        .iter()
        .filter_map(
            |event| if let UpdaterEvent::Switch { release, .. } = event { Some(*release) } else { None },
        )
        .collect();
    assert_eq!(tried, [4, 5]);
}

#[test]
fn refusals_name_their_reason() {
    type Answer = fn(&mut Updater, Moment);
    let cases: [(&str, Answer, FleetReason); 6] = [
        ("Judge", |updater, now| updater.handle_release(Err(FleetReason::Board), now), FleetReason::Board),
        (
            "Prepare",
            |updater, now| updater.handle_prepared(Err(FleetReason::NoSpace), now),
            FleetReason::NoSpace,
        ),
        ("Prepare", |updater, now| updater.handle_prepared(Ok(Vec::new()), now), FleetReason::Disk),
        ("Open", |updater, now| updater.handle_opened(Ok(vec![0; 32]), |_| false, now), FleetReason::Content),
        ("Seal", |updater, _| updater.handle_sealed(Err(FleetReason::Content)), FleetReason::Content),
        ("Stage", |updater, now| updater.handle_staged(Err(FleetReason::Disk), now), FleetReason::Disk),
    ];
    for (order, answer, reason) in cases {
        let mut bench = Bench::new();
        bench.updater.handle_rollout(&ring(), &bench.order(1, 2), bench.now);
        loop {
            match bench.updater.poll_event() {
                Some(event) if format!("{event:?}").starts_with(order) => break,
                Some(event) => bench.obey(event),
                None => match bench.updater.poll_transmit(bench.now) {
                    Some((_, wanted)) => bench.serve(&wanted),
                    None => {
                        let at = bench.updater.poll_timeout(bench.now).unwrap();
                        bench.pass(at.since(bench.now.mono).0);
                        bench.updater.handle_timeout(bench.now);
                    }
                },
            }
        }
        answer(&mut bench.updater, bench.now);
        bench.wait(5000);
        assert_eq!(bench.end(), (FleetPhase::Refused, reason, 1), "{order}");
    }
}

#[test]
fn a_release_of_another_number_is_refused() {
    let mut bench = Bench::new();
    let other = bench.facts[&3].clone();
    bench.facts.insert(2, other);
    bench.roll(bench.order(1, 2));
    bench.wait(3000);
    assert_eq!(bench.end(), (FleetPhase::Refused, FleetReason::Content, 1));
}

#[test]
fn a_system_is_tried_in_the_other_slot_and_kept_by_both_records() {
    let installed = state(0, 0, 0);
    let mut bench = Bench::with(installed, SystemSlot::A, TRIES_MAX);
    bench.add(2, true);
    bench.roll(bench.order(1, 2));
    bench.wait(901);
    let switch = UpdaterEvent::Switch { release: 2, slot: Some(SystemSlot::B) };
    assert_eq!((bench.orders.last(), bench.disk.slot_good), (Some(&switch), 1));
    // Booted from the other slot.
    let mut kept = bench.restarted(SystemSlot::B, 2);
    kept.add(2, true);
    kept.run();
    kept.started(2, 2);
    kept.wait(200);
    assert_eq!(kept.count(|event| *event == UpdaterEvent::CommitSlot(SystemSlot::B)), 1);
    assert_eq!((kept.disk.good, kept.disk.slot_good, kept.disk.slot_trial, kept.disk.system), (2, 2, 0, 2));
}

#[test]
fn a_system_that_does_not_start_or_pass_goes_back() {
    let trial = state(2, 1, 2);
    // The boot loader gave it up.
    let mut back = Bench::with(trial.clone(), SystemSlot::A, 0);
    back.run();
    assert_eq!((back.disk.trial, back.disk.failed[0], back.disk.slot_trial), (0, 2, 0));
    // The power was cut before the boot loader knew of it.
    let mut again = Bench::with(trial.clone(), SystemSlot::A, TRIES_MAX);
    again.add(2, true);
    again.run();
    assert_eq!(again.orders.last(), Some(&UpdaterEvent::Switch { release: 2, slot: Some(SystemSlot::B) }));
    // It starts, and its agent drafts other tokens.
    let mut bad = Bench::with(trial, SystemSlot::B, 2);
    bad.add(2, true);
    bad.answers.insert(GateStep::Golden, GateAnswer::Fails);
    bad.run();
    bad.started(2, 2);
    assert_eq!(bad.orders.last(), Some(&UpdaterEvent::Revert { release: 1, slot: Some(SystemSlot::A) }));
    assert_eq!((bad.disk.trial, bad.disk.slot_good), (0, 1));
    // A board without slots takes none.
    let mut none = Bench::new();
    none.add(2, true);
    none.roll(none.order(1, 2));
    none.wait(3000);
    assert_eq!(none.end(), (FleetPhase::Refused, FleetReason::Unsupported, 1));
}

#[test]
fn a_wrong_signature_is_reported_by_an_idle_device_alone() {
    let mut bench = Bench::new();
    bench.updater.handle_refused(FleetReason::Signature);
    assert_eq!(bench.end(), (FleetPhase::Refused, FleetReason::Signature, 1));
    bench.roll(bench.order(1, 2));
    bench.updater.handle_refused(FleetReason::Signature);
    bench.wait(3000);
    assert_eq!(bench.end(), (FleetPhase::Committed, FleetReason::None, 2));
}

#[test]
fn texts_for_the_report_are_cut_and_cleaned() {
    let mut bench = Bench::new();
    bench.updater.handle_detail(&format!("a\u{1b}[2J\n{}", "é".repeat(200)));
    let report = bench.report();
    assert!(report.detail.starts_with("a [2J é") && report.detail.len() <= 160);
    assert!(report.encode().is_ok());
}

#[test]
fn a_report_is_not_repeated_until_something_changes() {
    let mut bench = Bench::new();
    assert_eq!(bench.report().report, 1);
    bench.updater.handle_free_mib(77);
    assert_eq!(bench.updater.poll_report(bench.now), None, "free space alone is no news");
    bench.updater.handle_link(false);
    assert_eq!(bench.updater.poll_report(bench.now), None);
    let again = bench.report();
    assert_eq!((again.report, again.free_mib), (2, 77));
    let fields = CommandFields { number: 1, until: bench.now.unix, verb: CommandVerb::Report };
    bench.updater.handle_command(&fields, bench.now);
    bench.run();
    assert_eq!(bench.updater.poll_report(bench.now).map(|report| report.command), Some(1));
}

#[test]
fn an_announced_root_comes_before_the_next_update_and_holds_none_up_for_long() {
    let mut bench = Bench::new();
    let root = b"root 2".to_vec();
    let notice = RootNotice { version: 2, object: id_of(&root), size: 6 };
    bench.objects.insert(notice.object, root.clone());
    bench.updater.handle_root(&notice, bench.now);
    bench.run();
    assert_eq!(bench.orders, [UpdaterEvent::AdoptRoot(root.clone())]);
    // One that comes during an update waits for its end.
    bench.reach_gate(2);
    bench.updater.handle_root(&notice, bench.now);
    bench.wait(3000);
    assert_eq!((bench.end().2, bench.orders.last()), (2, Some(&UpdaterEvent::AdoptRoot(root))));
    // One that nobody has.
    let lie = RootNotice { object: ObjectId([9; 32]), ..notice };
    bench.updater.handle_root(&lie, bench.now);
    bench.reach_gate(3);
    bench.wait(200);
    assert_eq!((bench.end().2, bench.updater.root), (3, None));
    bench.updater.handle_root(&lie, bench.now);
    bench.wait(301);
    assert!(!bench.updater.transfer.is_busy());
}

#[test]
fn phases_have_the_names_of_jobs() {
    let names =
        [FleetPhase::Idle, FleetPhase::Queued, FleetPhase::Gate, FleetPhase::RolledBack].map(job_status);
    assert_eq!(names, ["SUCCEEDED", "QUEUED", "IN_PROGRESS", "FAILED"]);
}

#[test]
fn a_trial_is_on_disk_before_it_starts() {
    let mut bench = Bench::new();
    bench.roll(bench.order(1, 2));
    bench.hold_saves = true;
    bench.wait(901);
    let switches = |bench: &Bench| bench.count(|event| matches!(event, UpdaterEvent::Switch { .. }));
    assert_eq!((bench.updater.state().trial, switches(&bench)), (2, 0));
    bench.updater.handle_saved(bench.now);
    bench.run();
    assert_eq!(switches(&bench), 1);
}

#[test]
fn an_agent_that_ends_and_is_not_started_again_is_not_kept() {
    let mut bench = Bench::new();
    bench.reach_gate(2);
    bench.updater.handle_agent(AgentNews::Ended, bench.now);
    bench.wait(290);
    assert_eq!((bench.report().phase, bench.disk.good), (FleetPhase::Trial, 1));
    bench.wait(20);
    assert_eq!(bench.end(), (FleetPhase::RolledBack, FleetReason::Unit, 1));
}
