//! One scenario from beginning to end, in virtual time.

use crate::agenda::Timeline;
use crate::board::{BoardAnswer, SimBoard};
use crate::broker::{Broker, Client, OnTheWay};
use crate::outcome::{RunOutcome, ShownState, StateSample};
use crate::release::{Behaviour, Catalogue};
use crate::scenario::Scenario;
use dunlin_fleet_core::lot::Lot;
use dunlin_fleet_core::moment::Moment;
use dunlin_fleet_core::rollout::{Controller, ControllerEvent, RolloutBook, RolloutPlan};
use dunlin_fleet_core::store_server::{StoreRates, StoreServer};
use dunlin_fleet_core::updater::UpdaterConfig;
use dunlin_hlm::time::Instant;
use dunlin_wire::topic::Topic;
use dunlin_wire::{
    BlockForm, BoardCommand, CommandFields, CommandVerb, DeviceId, FleetPhase, FleetReport, KeyId, Liveness,
    ObjectBlock, RingId, Rollout, RolloutScope, Signature, Signatures, StoreId, StorePresence, WantedPieces,
};
use fastrand::Rng;
use std::collections::{BTreeMap, BTreeSet};

const SECOND: u64 = 1_000_000;
const MINUTE: u64 = 60 * SECOND;
/// Unix seconds at the beginning.
const UNIX: u64 = 1_800_000_000;
/// The time at which the operator starts the rollout.
const START: u64 = 2 * MINUTE;
/// The last time at which something is killed.
const KILLS_UNTIL: u64 = 100 * MINUTE;
/// The time at which boards without power get it.
const RETURN: u64 = 220 * MINUTE;
/// The end.
const END: u64 = 300 * MINUTE;
const SAMPLE: u64 = 30 * SECOND;
const STORES: usize = 3;
const OLD: u32 = 1;
const NEW: u32 = 2;

enum Happening {
    Arrive(OnTheWay),
    BoardTimer(usize),
    ControllerTimer,
    StoreTimer(usize),
    Answer(usize, u64, BoardAnswer),
    Link(Client),
    /// The broker gives a board up that is cut off.
    Missed(usize, u64),
    ControllerSaved(u64, RolloutBook),
    Start,
    KillController,
    ControllerBack,
    KillStore(usize),
    StoreBack(usize),
    KillBroker,
    BrokerBack,
    CutPower(usize),
    PowerBack(usize),
    Sample,
}

struct StoreNode {
    server: StoreServer,
    here: bool,
    armed: Option<u64>,
    poisoned: bool,
}

struct FleetWorld<'a> {
    scenario: &'a Scenario,
    catalogue: Catalogue,
    rng: Rng,
    agenda: Timeline<Happening>,
    broker: Broker,
    boards: Vec<SimBoard>,
    stores: Vec<StoreNode>,
    controller: Option<Controller>,
    controller_life: u64,
    controller_armed: Option<u64>,
    book: RolloutBook,
    commands: BTreeMap<usize, u32>,
    ring: RingId,
    outcome: RunOutcome,
}

/// Runs a scenario.
pub fn run(scenario: &Scenario) -> RunOutcome {
    let mut world = FleetWorld::new(scenario);
    world.begin();
    while let Some(what) = world.agenda.next() {
        if world.agenda.now > END {
            break;
        }
        world.happen(what);
    }
    world.end()
}

fn board_id(number: usize) -> DeviceId {
    format!("plover-{number}").parse().expect("a valid id")
}

fn store_id(number: usize) -> StoreId {
    format!("store-{number}").parse().expect("a valid id")
}

fn number_of(id: &str) -> usize {
    id.rsplit('-').next().and_then(|number| number.parse().ok()).expect("ids of this world end with a number")
}

/// Signatures that nobody checks here.
fn signatures() -> Signatures {
    let mut signatures = Signatures::new();
    signatures.push(Signature { key: KeyId([1; 8]), bytes: [1; 64] }).expect("one signature fits");
    signatures
}

impl<'a> FleetWorld<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        let mut catalogue = Catalogue::default();
        catalogue.add(OLD, Behaviour::Sound, false);
        catalogue.add(NEW, scenario.behaviour, true);
        let ring: RingId = "stable".parse().expect("a valid id");
        let now = Moment { mono: Instant(0), unix: UNIX };
        let boards = (0..scenario.devices).map(|number| {
            let config = UpdaterConfig {
                device: board_id(number),
                ring: ring.clone(),
                board: "rpi4".parse().expect("a valid id"),
                version: 1,
                seed: scenario.seed ^ (number as u64) << 16,
            };
            SimBoard::new(config, number, &catalogue, OLD, now)
        });
        let boards = boards.collect();
        let stores = (0..STORES).map(|number| StoreNode {
            server: StoreServer::new(RATES, now.mono),
            here: true,
            armed: None,
            poisoned: scenario.poisoned && number == 0,
        });
        Self {
            scenario,
            catalogue,
            rng: Rng::with_seed(scenario.seed),
            agenda: Timeline::new(),
            broker: Broker::new(scenario.weather, scenario.seed ^ 1),
            boards,
            stores: stores.collect(),
            controller: Some(Controller::new(RolloutBook::default())),
            controller_life: 0,
            controller_armed: None,
            book: RolloutBook::default(),
            commands: BTreeMap::new(),
            ring,
            outcome: RunOutcome::new(scenario),
        }
    }

    fn moment(&self) -> Moment {
        Moment { mono: Instant(self.agenda.now), unix: UNIX + self.agenda.now / SECOND }
    }

    fn begin(&mut self) {
        let offline = self.scenario.devices * self.scenario.offline_permille / 1000;
        let mut away = BTreeSet::new();
        while away.len() < offline {
            away.insert(self.rng.usize(..self.scenario.devices));
        }
        self.outcome.offline = offline;
        self.agenda.at(0, Happening::Link(Client::Controller));
        (0..STORES).for_each(|store| self.agenda.at(0, Happening::Link(Client::Store(store))));
        for board in 0..self.scenario.devices {
            if away.contains(&board) {
                self.boards[board].on = false;
                self.agenda.at(RETURN + self.rng.u64(..MINUTE), Happening::PowerBack(board));
            } else {
                self.agenda.at(self.rng.u64(..MINUTE), Happening::Link(Client::Board(board)));
            }
        }
        self.agenda.at(START, Happening::Start);
        (0..=END / SAMPLE).for_each(|sample| self.agenda.at(sample * SAMPLE, Happening::Sample));
        let kills = self.scenario.kills;
        for _ in 0..kills.controller {
            self.strike(|_| Happening::KillController);
        }
        for _ in 0..kills.store {
            self.strike(|rng| Happening::KillStore(rng.usize(..STORES)));
        }
        for _ in 0..kills.broker {
            self.strike(|_| Happening::KillBroker);
        }
        let devices = self.scenario.devices;
        for _ in 0..kills.boards {
            self.strike(|rng| Happening::CutPower(rng.usize(..devices)));
        }
    }

    fn strike(&mut self, what: impl Fn(&mut Rng) -> Happening) {
        let (at, what) = (self.rng.u64(START + MINUTE / 2..KILLS_UNTIL), what(&mut self.rng));
        self.agenda.at(at, what);
    }

    fn happen(&mut self, what: Happening) {
        let now = self.moment();
        match what {
            Happening::Arrive(message) => self.arrive(&message),
            Happening::BoardTimer(board) => {
                if self.boards[board].armed == Some(now.mono.0) && self.boards[board].on {
                    self.boards[board].armed = None;
                    self.boards[board].updater.handle_timeout(now);
                    self.attend_board(board);
                }
            }
            Happening::ControllerTimer => {
                if self.controller_armed == Some(now.mono.0) {
                    self.controller_armed = None;
                    self.with_controller(|controller| controller.handle_timeout(now));
                }
            }
            Happening::StoreTimer(store) => {
                if self.stores[store].armed == Some(now.mono.0) {
                    self.stores[store].armed = None;
                    self.attend_store(store);
                }
            }
            Happening::Answer(board, life, answer) => {
                if self.boards[board].life == life && self.boards[board].on {
                    let next = self.boards[board].answer(answer, &self.catalogue, now);
                    self.promise(board, next);
                    self.note_failure(board);
                    self.attend_board(board);
                }
            }
            Happening::Link(client) => self.connect(client),
            Happening::Missed(board, life) => {
                let lost = !self.broker.is_up(Client::Board(board)) && self.boards[board].life == life;
                self.with_controller(|controller| controller.handle_lost(&board_id(board), lost));
            }
            Happening::ControllerSaved(life, book) => {
                if life == self.controller_life && self.controller.is_some() {
                    self.book = book;
                    self.with_controller(Controller::handle_saved);
                }
            }
            Happening::Start => self.start(),
            Happening::Sample => self.sample(),
            other => self.disturb(other),
        }
    }

    fn start(&mut self) {
        let plan = RolloutPlan {
            release: self.catalogue.releases[&NEW].name,
            former: Some(self.catalogue.releases[&OLD].name),
            steps: vec![10, 100, 500, 1000],
            soak_seconds: self.scenario.soak_min * 60,
            finished_min: 5,
            success_percent: 95,
            abort_percent: 5,
            deadline_min: 40,
            bytes_per_s: RATES.device,
            valid_seconds: 7 * 24 * 3600,
        };
        let (ring, salt, now) = (self.ring.clone(), self.rng.u32(..), self.moment());
        self.with_controller(|controller| {
            controller.start(ring, plan, salt, now).expect("the plan is right");
        });
    }

    /// Carries out a kill or a return.
    fn disturb(&mut self, what: Happening) {
        match what {
            Happening::KillController if self.controller.is_some() => {
                self.outcome.killed.controller += 1;
                self.controller = None;
                self.controller_life += 1;
                self.controller_armed = None;
                self.broker.set_link(Client::Controller, false);
                self.agenda.after(self.rng.u64(5 * SECOND..2 * MINUTE), Happening::ControllerBack);
            }
            Happening::ControllerBack => {
                self.controller = Some(Controller::new(self.book.clone()));
                self.agenda.after(0, Happening::Link(Client::Controller));
            }
            Happening::KillStore(store) if self.stores[store].here => {
                self.outcome.killed.store += 1;
                self.stores[store].here = false;
                self.broker.set_link(Client::Store(store), false);
                self.announce_store(store);
                self.agenda.after(self.rng.u64(5 * SECOND..2 * MINUTE), Happening::StoreBack(store));
            }
            Happening::StoreBack(store) => {
                let now = self.moment();
                let node = &mut self.stores[store];
                self.outcome.bytes_sent += node.server.counters().bytes;
                node.server = StoreServer::new(RATES, now.mono);
                (node.here, node.armed) = (true, None);
                self.agenda.after(0, Happening::Link(Client::Store(store)));
            }
            Happening::KillBroker if self.broker.up => self.kill_broker(),
            Happening::BrokerBack => self.broker.up = true,
            Happening::CutPower(board) if self.boards[board].on => {
                self.outcome.killed.boards += 1;
                self.boards[board].on = false;
                self.cut(Client::Board(board));
                self.agenda.after(self.rng.u64(5 * SECOND..MINUTE), Happening::PowerBack(board));
            }
            Happening::PowerBack(board) => {
                let now = self.moment();
                self.boards[board].on = true;
                let next = self.boards[board].restart(now);
                self.promise(board, next);
                self.agenda.after(self.rng.u64(SECOND..10 * SECOND), Happening::Link(Client::Board(board)));
                self.attend_board(board);
            }
            // What is down can't be killed: that strike comes again a little later.
            Happening::KillController | Happening::KillStore(_) | Happening::KillBroker => {
                self.agenda.after(MINUTE, what);
            }
            _ => {}
        }
    }

    fn kill_broker(&mut self) {
        self.outcome.killed.broker += 1;
        for client in self.broker.kill() {
            self.cut(client);
            self.agenda.after(self.rng.u64(20 * SECOND..40 * SECOND), Happening::Link(client));
        }
        self.agenda.after(15 * SECOND, Happening::BrokerBack);
    }

    /// Tells a client that its connection is gone.
    fn cut(&mut self, client: Client) {
        self.broker.set_link(client, false);
        let now = self.moment();
        match client {
            Client::Controller => self.with_controller(|controller| controller.handle_link(false, now)),
            Client::Board(board) => {
                self.boards[board].updater.handle_link(false);
                self.agenda.after(30 * SECOND, Happening::Missed(board, self.boards[board].life));
                self.attend_board(board);
            }
            Client::Store(store) => self.stores[store].server.handle_link(false),
        }
    }

    fn connect(&mut self, client: Client) {
        let here = match client {
            Client::Board(board) => self.boards[board].on,
            Client::Store(store) => self.stores[store].here,
            Client::Controller => self.controller.is_some(),
        };
        if !here || self.broker.is_up(client) {
            return;
        }
        if !self.broker.up {
            return self.agenda.after(5 * SECOND, Happening::Link(client));
        }
        self.broker.set_link(client, true);
        let now = self.moment();
        let messages = match client {
            Client::Controller => {
                self.with_controller(|controller| controller.handle_link(true, now));
                let wants = |topic: &Topic| matches!(topic, Topic::Fleet(_) | Topic::Ring(_));
                self.broker.retained(client, wants, now.mono.0)
            }
            Client::Store(store) => {
                self.stores[store].server.handle_link(true);
                self.announce_store(store);
                Vec::new()
            }
            Client::Board(board) => {
                self.boards[board].updater.handle_link(true);
                let id = self.boards[board].id.clone();
                let wants = move |topic: &Topic| match topic {
                    Topic::Ring(_) | Topic::StorePresence(_) => true,
                    Topic::Pin(device) => *device == id,
                    _ => false,
                };
                self.with_controller(|controller| controller.handle_lost(&board_id(board), false));
                let messages = self.broker.retained(client, wants, now.mono.0);
                self.attend_board(board);
                messages
            }
        };
        self.send(messages);
    }

    fn announce_store(&mut self, store: usize) {
        let liveness = if self.stores[store].here { Liveness::Here } else { Liveness::Lost };
        let presence = StorePresence { generation: 1, liveness, load: 0 };
        let bytes = presence.encode().expect("a presence has room");
        let from = self.stores[store].here.then_some(Client::Store(store));
        self.publish(from, &Topic::StorePresence(store_id(store)), &bytes);
    }

    /// Publishes a message to all who subscribed to its topic.
    fn publish(&mut self, from: Option<Client>, topic: &Topic, bytes: &[u8]) {
        let to: Vec<Client> = match topic {
            Topic::Fleet(_) => vec![Client::Controller],
            Topic::Wanted(_, store) => vec![Client::Store(number_of(store.as_str()))],
            Topic::Block(device) | Topic::Pin(device) | Topic::Command(device) => {
                vec![Client::Board(number_of(device.as_str()))]
            }
            Topic::Ring(_) => {
                let boards = (0..self.boards.len()).map(Client::Board);
                boards.chain([Client::Controller]).collect()
            }
            Topic::StorePresence(_) => (0..self.boards.len()).map(Client::Board).collect(),
            _ => Vec::new(),
        };
        let messages = self.broker.publish(from, topic, bytes, &to, self.agenda.now);
        self.send(messages);
    }

    fn send(&mut self, messages: Vec<OnTheWay>) {
        for message in messages {
            self.agenda.at(message.at, Happening::Arrive(message));
        }
    }

    fn arrive(&mut self, message: &OnTheWay) {
        if !self.broker.arrives(message) {
            return;
        }
        match message.to {
            Client::Controller => self.tell_controller(message),
            Client::Store(store) => {
                let Topic::Wanted(device, _) = &message.topic else { return };
                let wanted = WantedPieces::decode(&message.bytes).expect("boards send what can be read");
                let now = self.moment().mono;
                self.stores[store].server.handle_wanted(device, &wanted, &self.catalogue, now);
                self.attend_store(store);
            }
            Client::Board(board) => {
                self.tell_board(board, message);
                self.attend_board(board);
            }
        }
    }

    fn tell_controller(&mut self, message: &OnTheWay) {
        let now = self.moment();
        match &message.topic {
            Topic::Fleet(device) => {
                let report = FleetReport::decode(&message.bytes).expect("boards send what can be read");
                self.with_controller(|controller| controller.handle_report(device, &report, now));
            }
            Topic::Ring(ring) => {
                let rollout = Rollout::decode(&message.bytes).expect("the controller wrote it");
                self.with_controller(|controller| controller.handle_retained(ring, rollout.fields, now));
            }
            _ => {}
        }
    }

    fn tell_board(&mut self, board: usize, message: &OnTheWay) {
        let now = self.moment();
        let updater = &mut self.boards[board].updater;
        let bytes = message.bytes.as_slice();
        match &message.topic {
            Topic::Block(_) => {
                let block = ObjectBlock::decode(bytes).expect("stores send what can be read");
                updater.handle_block(&block, now);
            }
            Topic::StorePresence(store) => {
                let presence = StorePresence::decode(bytes).expect("stores send what can be read");
                updater.handle_store(store, presence.liveness == Liveness::Here);
            }
            Topic::Ring(ring) => {
                let rollout = Rollout::decode(bytes).expect("the controller sends what can be read");
                updater.handle_rollout(&RolloutScope::Ring(ring.clone()), &rollout.fields, now);
            }
            Topic::Pin(device) => {
                let rollout = Rollout::decode(bytes).expect("the controller sends what can be read");
                updater.handle_rollout(&RolloutScope::Device(device.clone()), &rollout.fields, now);
            }
            Topic::Command(_) => {
                let command = BoardCommand::decode(bytes).expect("the controller sends what can be read");
                updater.handle_command(&command.fields, now);
            }
            _ => {}
        }
    }

    fn attend_board(&mut self, board: usize) {
        if !self.boards[board].on {
            return;
        }
        let now = self.moment();
        while let Some(event) = self.boards[board].updater.poll_event() {
            let next = self.boards[board].obey(event, &self.catalogue);
            self.promise(board, next);
        }
        let client = Client::Board(board);
        while let Some((store, wanted)) = self.boards[board].updater.poll_transmit(now) {
            let bytes = wanted.encode().expect("a request is within its limits");
            self.publish(Some(client), &Topic::Wanted(board_id(board), store), &bytes);
        }
        if let Some(report) = self.boards[board].updater.poll_report(now) {
            let bytes = report.encode().expect("a report is within its limits");
            self.publish(Some(client), &Topic::Fleet(board_id(board)), &bytes);
        }
        let due = self.boards[board].updater.poll_timeout(now).map(|at| at.0.max(now.mono.0));
        if let Some(at) = due.filter(|at| self.boards[board].armed.is_none_or(|armed| *at < armed)) {
            self.boards[board].armed = Some(at);
            self.agenda.at(at, Happening::BoardTimer(board));
        }
    }

    /// Notes the step in which the first board failed: later steps must not come.
    fn note_failure(&mut self, board: usize) {
        if self.outcome.failed_in_step.is_none() && self.boards[board].has_failed(NEW) {
            let rollout = self.book.rings.get(&self.ring);
            self.outcome.failed_in_step = rollout.map(|rollout| rollout.order.permille);
        }
    }

    fn promise(&mut self, board: usize, answers: Vec<(u64, BoardAnswer)>) {
        let life = self.boards[board].life;
        for (after, answer) in answers {
            self.agenda.after(after, Happening::Answer(board, life, answer));
        }
    }

    fn attend_store(&mut self, store: usize) {
        let now = self.moment().mono;
        while let Some(order) = self.stores[store].server.poll_block(now) {
            let mut bytes = match order.bytes {
                Some((from, length)) => {
                    let whole = &self.catalogue.objects[&order.object];
                    whole[from as usize..from as usize + length].to_vec()
                }
                None => Vec::new(),
            };
            if self.stores[store].poisoned && !bytes.is_empty() {
                bytes[0] ^= 1;
                self.outcome.poisoned_sent += 1;
            }
            let form = if order.bytes.is_some() { BlockForm::Raw } else { BlockForm::Absent };
            let object = order.object.short();
            let block =
                ObjectBlock { object, first: order.span.first, count: order.span.count, form, bytes: &bytes };
            let message = block.encode().expect("a block is within its limits");
            self.publish(Some(Client::Store(store)), &Topic::Block(order.device), &message);
        }
        let node = &mut self.stores[store];
        let due = node.server.poll_timeout().map(|at| at.0.max(now.0 + 1));
        if let Some(at) = due.filter(|at| node.armed.is_none_or(|armed| *at < armed)) {
            node.armed = Some(at);
            self.agenda.at(at, Happening::StoreTimer(store));
        }
    }

    /// Lets the controller do something, and carries out what it orders.
    fn with_controller(&mut self, act: impl FnOnce(&mut Controller)) {
        let Some(mut controller) = self.controller.take() else { return };
        act(&mut controller);
        let now = self.moment();
        while let Some(event) = controller.poll_event() {
            self.order(event);
        }
        let due = controller.poll_timeout().map(|at| at.0.max(now.mono.0));
        if let Some(at) = due.filter(|at| self.controller_armed.is_none_or(|armed| *at < armed)) {
            self.controller_armed = Some(at);
            self.agenda.at(at, Happening::ControllerTimer);
        }
        self.controller = Some(controller);
    }

    fn order(&mut self, event: ControllerEvent) {
        match event {
            ControllerEvent::Save(book) => {
                self.agenda.after(SECOND / 20, Happening::ControllerSaved(self.controller_life, book));
            }
            ControllerEvent::Publish(scope, fields) => {
                let message = Rollout { fields, signatures: signatures() };
                let bytes = message.encode().expect("a rollout is within its limits");
                self.publish(Some(Client::Controller), &scope.topic(), &bytes);
            }
            ControllerEvent::Ask(device) => {
                let number = self.commands.entry(number_of(device.as_str())).or_default();
                *number += 1;
                let until = UNIX + self.agenda.now / SECOND + 60;
                let fields = CommandFields { number: *number, until, verb: CommandVerb::Report };
                let message = BoardCommand { fields, signatures: signatures() };
                let bytes = message.encode().expect("a command is within its limits");
                self.publish(Some(Client::Controller), &Topic::Command(device), &bytes);
            }
            ControllerEvent::Note(_, note) => {
                self.outcome.notes.push((self.agenda.now / SECOND, note));
            }
        }
    }

    fn sample(&mut self) {
        let now = self.moment();
        let mut counts = [0; ShownState::ALL.len()];
        for board in &mut self.boards {
            counts[state_of(board, now) as usize] += 1;
        }
        self.outcome.samples.push(StateSample { seconds: self.agenda.now / SECOND, counts });
    }

    fn end(mut self) -> RunOutcome {
        let wanted = if self.scenario.is_sound() { NEW } else { OLD };
        let rollout = self.book.rings.get(&self.ring);
        let last = rollout.map_or(0, |rollout| rollout.order.permille);
        let permille = self.outcome.failed_in_step.unwrap_or(last);
        let salt = rollout.map_or(0, |rollout| rollout.order.salt);
        for board in &self.boards {
            let member = Lot::of(salt, &board.id).is_member(permille);
            let bad = !self.scenario.is_sound() && board.ran.contains(&NEW);
            self.outcome.members += usize::from(member);
            // On some boards a release that crashes on others is a sound one, and stays there.
            let sound = match self.scenario.behaviour {
                Behaviour::CrashesOnSome(part) => !board.number.is_multiple_of(part),
                _ => false,
            };
            self.outcome.damaged += usize::from(bad && !sound);
            self.outcome.damaged_beyond_step += usize::from(bad && !member);
            let right = board.good() == wanted || sound;
            self.outcome.not_back += usize::from(!board.on || !board.is_settled() || !right);
            self.outcome.failed += usize::from(board.has_failed(NEW));
            let transfer = board.updater.transfer_counters();
            self.outcome.bytes_good += board.bytes_good();
            self.outcome.bad_blocks += transfer.bad;
        }
        self.outcome.bytes_sent += self.stores.iter().map(|store| store.server.counters().bytes).sum::<u64>();
        self.outcome.bytes_lost = self.broker.bytes_lost;
        self.outcome.state = rollout.map(|rollout| rollout.state);
        self.outcome
    }
}

/// The rates of a store.
const RATES: StoreRates = StoreRates { device: 8 * 1024, total: 4 * 1024 * 1024 };

fn state_of(board: &mut SimBoard, now: Moment) -> ShownState {
    if !board.on {
        return ShownState::Off;
    }
    match board.updater.phase(now) {
        FleetPhase::Trial | FleetPhase::Gate => ShownState::Trial,
        FleetPhase::Manifest | FleetPhase::Tables | FleetPhase::Blocks | FleetPhase::Staged => {
            ShownState::Fetching
        }
        FleetPhase::Waiting => ShownState::Fetching,
        FleetPhase::RolledBack => ShownState::RolledBack,
        FleetPhase::Refused if board.has_failed(NEW) => ShownState::RolledBack,
        FleetPhase::Refused | FleetPhase::TimedOut => ShownState::Refused,
        _ if board.good() == NEW => ShownState::New,
        _ => ShownState::Old,
    }
}
