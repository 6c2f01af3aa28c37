//! The simulated world: devices, verifiers and the messages between them, in virtual time.

use crate::oracle::{self, Told, Wrong};
use crate::plan::{FAULTS_END_US, Fault, Plan, Script, Serves};
use crate::pump::{Agenda, LinkEnds};
use dunlin_hlm::TokenId;
use dunlin_hlm::device::{
    Channel, Device, DeviceConfig, DeviceCounters, DeviceEvent, DraftJob, DraftJobId, DraftRow, Finish,
    Learned, Offline, PresenceScope, SessionIdentity, Transmit,
};
use dunlin_hlm::policy::{ImportanceForm, PolicyTable, Rules};
use dunlin_hlm::prefixes::Prefixes;
use dunlin_hlm::time::{Duration, Instant};
use dunlin_hlm::verifier::{
    self, Answer, OutgoingAnswer, RowsError, Slot, TargetDescription, Verifier, VerifierConfig, VerifyJob,
};
use dunlin_wire::{
    DeviceId, Liveness, LogTime, Price, Promise, TargetId, VerifierId, VerifierPresence, Vocabulary,
};
use fastrand::Rng;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The virtual time, µs, by which every reply must have ended.
pub const END_US: u64 = FAULTS_END_US + 1_200_000_000;

/// An event of the simulation.
#[derive(Debug)]
enum What {
    ToVerifier { verifier: usize, device: usize, channel: Channel, bytes: Vec<u8> },
    ToDevice { device: usize, channel: Answer, bytes: Vec<u8> },
    Presence { device: usize, verifier: usize },
    Drafted { device: usize, life: u64, id: DraftJobId, took: u64, logits: Vec<f32>, attention: Vec<f32> },
    Verified { verifier: usize, life: u64, id: verifier::VerifyJobId, rows: Result<Vec<f32>, RowsError> },
    DeviceTimer(usize),
    VerifierTimer(usize),
    Speak { device: usize, life: u64 },
    Strike(Fault),
    LinkUp(usize),
    Reborn(usize),
}

/// A device with its drafter and its link. `life` counts restarts, so that events of an earlier life are ignored.
struct DeviceNode {
    device: Device,
    life: u64,
    cache: Vec<TokenId>,
    busy: bool,
    told: Vec<Told>,
    turn: usize,
    /// The link is down before this time.
    down_until: u64,
    /// The presence that it receives, and since when, µs.
    scope: PresenceScope,
    scope_since: u64,
    armed: Option<Instant>,
}

/// A verifier with its target. `life` counts restarts, so that rows of an earlier life are ignored.
struct VerifierNode {
    verifier: Verifier,
    life: u64,
    caches: BTreeMap<Slot, Vec<TokenId>>,
    armed: Option<Instant>,
    free_at: u64,
    /// The time of its start, µs.
    here_since: u64,
    /// True once it was killed.
    dead: bool,
    /// It does nothing before this time.
    hung_until: u64,
}

/// Counts over all runs of a batch. They show that the runs reach the branches under test.
#[derive(Clone, Copy, Debug, Default)]
pub struct Coverage {
    /// The devices' counters, added up.
    pub device: DeviceCounters,
    /// The verifiers' counters, added up.
    pub verifier: verifier::VerifierCounters,
    /// Sessions compared with the oracle.
    pub sessions: u64,
    /// Times that a device gave up waiting and continued alone.
    pub gave_up: u64,
    /// Times that a verifier answered again after a reported silence.
    pub returned: u64,
    /// Texts that a target with other weights continued.
    pub changed_models: u64,
    /// Texts that a target with other numerics continued.
    pub changed_numerics: u64,
    /// Replies that ended because only another target was available.
    pub other_targets: u64,
}

/// A run of the simulation.
struct World<'a> {
    plan: &'a Plan,
    rng: Rng,
    agenda: Agenda<What>,
    nodes: Vec<DeviceNode>,
    desks: Vec<VerifierNode>,
    silent_until: u64,
    broker_down_until: u64,
    coverage: Coverage,
}

/// Runs the plan of `seed` and compares every session with the oracle.
///
/// # Errors
/// The first difference or failure.
pub fn run(seed: u64) -> Result<Coverage, Wrong> {
    let plan = Plan::of(seed);
    let mut world = World::new(&plan, seed);
    world.play()?;
    for (node, script) in world.nodes.iter().zip(&plan.devices) {
        oracle::check(script, &plan.pair, &node.told)?;
        world.coverage.sessions += 1;
    }
    world.retire();
    Ok(world.coverage)
}

fn device_id(device: usize) -> DeviceId {
    format!("device-{device}").parse().expect("a valid id")
}

fn verifier_id(verifier: usize) -> VerifierId {
    format!("verifier-{verifier}").parse().expect("a valid id")
}

/// The number in an id made by [`device_id`] or [`verifier_id`].
fn number_of(id: &str, kind: &str) -> usize {
    id.trim_start_matches(kind).parse().expect("ids are made of numbers")
}

impl<'a> World<'a> {
    fn new(plan: &'a Plan, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed ^ 0x5eed);
        let nodes = plan.devices.iter().map(|script| DeviceNode::new(script, &mut rng)).collect();
        let desks = (0..plan.verifiers.len()).map(|v| VerifierNode::new(plan, v, 0)).collect();
        let mut world = Self {
            plan,
            rng,
            agenda: Agenda::new(),
            nodes,
            desks,
            silent_until: 0,
            broker_down_until: 0,
            coverage: Coverage::default(),
        };
        for (at, fault) in &plan.faults {
            world.agenda.at(*at, What::Strike(*fault));
        }
        for device in 0..plan.devices.len() {
            world.agenda.at(0, What::LinkUp(device));
            world.agenda.at(plan.devices[device].turns[0].think_us, What::Speak { device, life: 0 });
        }
        world
    }

    fn play(&mut self) -> Result<(), Wrong> {
        while let Some(what) = self.agenda.pop() {
            if self.agenda.now > END_US {
                return Err(Wrong(format!("replies under way at the end of time: {}", self.unfinished())));
            }
            self.happen(what)?;
            if self.unfinished() == 0 {
                return Ok(());
            }
        }
        Err(Wrong(format!("nothing left to happen, {} sessions unfinished", self.unfinished())))
    }

    fn unfinished(&self) -> usize {
        self.nodes
            .iter()
            .zip(&self.plan.devices)
            .filter(|(node, script)| node.turn < script.turns.len())
            .count()
    }

    fn happen(&mut self, what: What) -> Result<(), Wrong> {
        let now = Instant(self.agenda.now);
        match what {
            What::ToVerifier { verifier, .. }
            | What::Verified { verifier, .. }
            | What::VerifierTimer(verifier)
                if self.agenda.now < self.desks[verifier].hung_until =>
            {
                self.agenda.at(self.desks[verifier].hung_until, what);
                Ok(())
            }
            What::ToVerifier { verifier, .. }
            | What::Verified { verifier, .. }
            | What::VerifierTimer(verifier)
                if self.desks[verifier].dead =>
            {
                Ok(())
            }
            What::ToVerifier { verifier, device, channel, bytes } => {
                self.deliver_up(verifier, &device_id(device), &channel, &bytes);
                self.serve(verifier)
            }
            What::ToDevice { device, channel, bytes } => {
                if self.link_down(device) {
                    return Ok(());
                }
                self.deliver_down(device, channel, &bytes);
                self.attend(device)
            }
            What::Presence { device, verifier } => {
                // The broker delivers retained presence again on the next connection and to the next subscription.
                if self.link_down(device) || !self.nodes[device].hears_of(verifier) {
                    return Ok(());
                }
                let desk = &self.desks[verifier];
                let (generation, liveness) = (desk.life as u32, desk.liveness());
                let presence = VerifierPresence { generation, liveness, ..desk.verifier.presence() };
                let bytes = presence.encode().expect("a presence of checked values");
                self.nodes[device].device.handle_presence(&verifier_id(verifier), &bytes, now);
                self.attend(device)
            }
            What::Drafted { device, life, id, took, logits, attention } => {
                self.drafted(device, life, id, took, &logits, &attention)
            }
            What::Verified { verifier, life, id, rows } => {
                if self.desks[verifier].life == life {
                    let rows = rows.as_deref().map_err(|error| *error);
                    self.desks[verifier].verifier.handle_rows(id, rows, now);
                }
                self.serve(verifier)
            }
            What::DeviceTimer(device) => {
                self.nodes[device].armed = None;
                self.nodes[device].device.handle_timeout(now);
                self.attend(device)
            }
            What::VerifierTimer(verifier) => {
                self.desks[verifier].armed = None;
                self.desks[verifier].verifier.handle_timeout(now);
                self.serve(verifier)
            }
            What::Speak { device, life } => self.speak(device, life),
            What::Strike(fault) => self.strike(fault),
            What::LinkUp(device) => {
                if !self.link_down(device) {
                    self.nodes[device].device.handle_link(true, now);
                    (0..self.desks.len()).for_each(|verifier| self.announce(device, verifier));
                }
                self.attend(device)
            }
            What::Reborn(verifier) => self.rebirth(verifier),
        }
    }

    fn link_down(&self, device: usize) -> bool {
        self.agenda.now < self.nodes[device].down_until.max(self.broker_down_until)
    }

    fn drafted(
        &mut self,
        device: usize,
        life: u64,
        id: DraftJobId,
        took: u64,
        logits: &[f32],
        attention: &[f32],
    ) -> Result<(), Wrong> {
        let now = Instant(self.agenda.now);
        let node = &mut self.nodes[device];
        if node.life != life {
            return Ok(());
        }
        node.busy = false;
        let row = DraftRow { logits, attention: Some(attention), took: Duration(took), refilled: false };
        node.device.handle_draft(id, row, now);
        self.attend(device)
    }

    fn speak(&mut self, device: usize, life: u64) -> Result<(), Wrong> {
        let node = &mut self.nodes[device];
        if node.life != life {
            return Ok(());
        }
        let turn = &self.plan.devices[device].turns[node.turn];
        node.told.push(Told::default());
        let said = node.device.say(&turn.prompt, turn.reply.clone(), Instant(self.agenda.now));
        said.map_err(|error| Wrong(format!("device {device} cannot say its turn: {error}")))?;
        self.attend(device)
    }

    /// Carries out a device's actions until it has none.
    fn attend(&mut self, device: usize) -> Result<(), Wrong> {
        self.drain_device(device)?;
        let scope = self.nodes[device].device.presence_scope();
        if self.nodes[device].scope != scope {
            (self.nodes[device].scope, self.nodes[device].scope_since) = (scope, self.agenda.now);
            (0..self.desks.len()).for_each(|verifier| self.announce(device, verifier));
        }
        let node = &mut self.nodes[device];
        // A timer that moved is armed again; the old event then finds nothing due.
        if let Some(at) = node.device.poll_timeout().filter(|at| node.armed != Some(*at)) {
            node.armed = Some(at);
            self.agenda.at(at.0, What::DeviceTimer(device));
        }
        Ok(())
    }

    fn draft(&mut self, device: usize, job: DraftJob) -> Result<(), Wrong> {
        let node = &mut self.nodes[device];
        if core::mem::replace(&mut node.busy, true) {
            return Err(Wrong("two jobs at one drafter".into()));
        }
        if job.tokens.is_empty() || job.keep > node.cache.len() {
            return Err(Wrong(format!("{job:?} on a cache of {}", node.cache.len())));
        }
        node.cache.truncate(job.keep);
        node.cache.extend(&job.tokens);
        let logits = self.plan.pair.drafter(&node.cache, self.plan.devices[device].vocabulary);
        let length = node.cache.len();
        let attention = (0..length).map(|i| (1 + (i * 7) % 5) as f32 / length as f32).collect();
        let took = self.plan.devices[device].draft_us * job.tokens.len() as u64;
        let life = node.life;
        let (id, at) = (job.id, self.agenda.now + took);
        self.agenda.at(at, What::Drafted { device, life, id, took, logits, attention });
        Ok(())
    }

    /// Carries out a verifier's actions until it has none.
    fn serve(&mut self, verifier: usize) -> Result<(), Wrong> {
        let desk = &self.desks[verifier];
        if desk.dead || self.agenda.now < desk.hung_until {
            return Ok(());
        }
        self.drain_verifier(verifier)?;
        let desk = &mut self.desks[verifier];
        if desk.verifier.sessions() > self.plan.sessions_max {
            return Err(Wrong("more sessions than the limit".into()));
        }
        if let Some(at) = desk.verifier.poll_timeout().filter(|at| desk.armed != Some(*at)) {
            desk.armed = Some(at);
            self.agenda.at(at.0, What::VerifierTimer(verifier));
        }
        Ok(())
    }

    fn verify(&mut self, verifier: usize, job: &VerifyJob) -> Result<(), Wrong> {
        let (now, cost) = (self.agenda.now, self.plan.target_us);
        let desk = &mut self.desks[verifier];
        let cache = desk.caches.entry(job.slot).or_default();
        if job.tokens.len() < job.rows || job.keep > cache.len() {
            return Err(Wrong(format!("{job:?} on a cache of {}", cache.len())));
        }
        cache.truncate(job.keep);
        cache.extend(&job.tokens);
        let first = cache.len() + 1 - job.rows;
        let pair = self.plan.verifiers[verifier].pair(&self.plan.pair);
        let rows = (first..=cache.len()).flat_map(|length| pair.target(&cache[..length])).collect();
        desk.free_at = desk.free_at.max(now) + cost;
        let (life, at) = (desk.life, desk.free_at);
        let failure = self.agenda.now < FAULTS_END_US && self.rng.f64() < self.plan.target_failure;
        let error = if self.rng.bool() { RowsError::Budget } else { RowsError::Failed };
        let rows = if failure { Err(error) } else { Ok(rows) };
        self.agenda.at(at, What::Verified { verifier, life, id: job.id, rows });
        Ok(())
    }

    /// Sends a verifier's retained presence to a device. It is never lost, only delayed, since it is sent with QoS 1.
    fn announce(&mut self, device: usize, verifier: usize) {
        let at = self.agenda.now.max(self.silent_until) + self.plan.delay_us;
        self.agenda.at(at, What::Presence { device, verifier });
    }

    /// The times at which a message arrives: none if it is lost, two if it is duplicated.
    fn arrivals(&mut self, device: usize) -> Vec<u64> {
        let healed = self.agenda.now >= FAULTS_END_US;
        if self.link_down(device) || self.agenda.now < self.silent_until {
            return Vec::new();
        }
        let lost = !healed && self.rng.f64() < self.plan.loss;
        let twice = !healed && self.rng.f64() < self.plan.duplicate;
        let copies = usize::from(!lost) + usize::from(!lost && twice);
        let delay = |rng: &mut Rng| self.plan.delay_us + rng.u64(..self.plan.jitter_us);
        (0..copies).map(|_| self.agenda.now + delay(&mut self.rng)).collect()
    }

    fn strike(&mut self, fault: Fault) -> Result<(), Wrong> {
        match fault {
            Fault::LinkDown(device, span) => self.cut(device, span),
            Fault::BrokerDown(span) => {
                self.broker_down_until = self.broker_down_until.max(self.agenda.now + span);
                (0..self.nodes.len()).try_for_each(|device| self.cut(device, span))
            }
            Fault::Silence(span) => {
                self.silent_until = self.silent_until.max(self.agenda.now + span);
                Ok(())
            }
            Fault::VerifierRestart(verifier) => self.rebirth(verifier),
            Fault::VerifierDrain(verifier, span) => {
                self.desks[verifier].verifier.drain();
                (0..self.nodes.len()).for_each(|device| self.announce(device, verifier));
                self.agenda.at(self.agenda.now + span, What::Reborn(verifier));
                self.serve(verifier)
            }
            Fault::VerifierKill(verifier, span) => {
                self.desks[verifier].dead = true;
                (0..self.nodes.len()).for_each(|device| self.announce(device, verifier));
                self.agenda.at(self.agenda.now + span, What::Reborn(verifier));
                Ok(())
            }
            Fault::VerifierHang(verifier, span) => {
                self.desks[verifier].hung_until = self.agenda.now + span;
                Ok(())
            }
            Fault::DeviceRestart(device) => self.restart(device),
            Fault::Garbage => self.garbage(),
        }
    }

    /// Checks that no verifier with these weights serves whose presence the device has.
    fn check_lack(&self, device: usize, weights: TargetId) -> Result<(), Wrong> {
        let down_until = self.nodes[device].down_until.max(self.broker_down_until).max(self.silent_until);
        let suits = |(kind, desk): (&Serves, &VerifierNode)| {
            // Presence leaves at the verifier's start, or once a connection is there, and takes the shortest delay.
            let asked = self.nodes[device].scope_since;
            let announced = desk.here_since.max(down_until).max(asked) + self.plan.delay_us;
            let serves = !desk.dead && !desk.verifier.presence().draining && announced < self.agenda.now;
            serves && kind.target().has_weights_of(weights)
        };
        match self.plan.verifiers.iter().zip(&self.desks).any(suits) {
            true => Err(Wrong(format!("device {device} ended a reply though its target was there"))),
            false => Ok(()),
        }
    }

    fn cut(&mut self, device: usize, span: u64) -> Result<(), Wrong> {
        let until = self.agenda.now + span;
        let node = &mut self.nodes[device];
        node.down_until = node.down_until.max(until);
        node.device.handle_link(false, Instant(self.agenda.now));
        self.agenda.at(until, What::LinkUp(device));
        self.attend(device)
    }

    fn rebirth(&mut self, verifier: usize) -> Result<(), Wrong> {
        let life = self.desks[verifier].life + 1;
        let mut fresh = VerifierNode::new(self.plan, verifier, life);
        fresh.here_since = self.agenda.now;
        let old = core::mem::replace(&mut self.desks[verifier], fresh);
        self.coverage.verifier.add(old.verifier.counters());
        (0..self.nodes.len()).for_each(|device| self.announce(device, verifier));
        Ok(())
    }

    fn restart(&mut self, device: usize) -> Result<(), Wrong> {
        let script = &self.plan.devices[device];
        if self.nodes[device].turn >= script.turns.len() {
            return Ok(());
        }
        // The new life has neither text nor what was learned; it starts again with the first turn.
        let fresh = DeviceNode::new(script, &mut self.rng);
        let old = core::mem::replace(&mut self.nodes[device], fresh);
        self.coverage.device.add(old.device.counters());
        let life = old.life + 1;
        let node = &mut self.nodes[device];
        (node.life, node.down_until) = (life, old.down_until);
        self.agenda.at(self.agenda.now + 1_000, What::Speak { device, life });
        self.agenda.at(self.agenda.now.max(old.down_until).max(self.broker_down_until), What::LinkUp(device));
        Ok(())
    }

    fn garbage(&mut self) -> Result<(), Wrong> {
        let now = Instant(self.agenda.now);
        for device in 0..self.nodes.len() {
            let bytes: Vec<u8> = (0..self.rng.usize(..64)).map(|_| self.rng.u8(..)).collect();
            self.nodes[device].device.handle_down(&bytes, now);
            self.nodes[device].device.handle_reply(&bytes, now);
            self.nodes[device].device.handle_presence(&"stranger".parse().expect("a valid id"), &bytes, now);
            self.attend(device)?;
            for verifier in 0..self.desks.len() {
                self.desks[verifier].verifier.handle_frame(&device_id(device), &bytes, now);
                self.desks[verifier].verifier.handle_open(&device_id(device), &bytes, None, now);
                self.serve(verifier)?;
            }
        }
        Ok(())
    }

    fn retire(&mut self) {
        for node in &self.nodes {
            self.coverage.device.add(node.device.counters());
        }
        for desk in &self.desks {
            self.coverage.verifier.add(desk.verifier.counters());
        }
    }
}

impl LinkEnds for World<'_> {
    type Error = Wrong;

    fn now(&self) -> Instant {
        Instant(self.agenda.now)
    }

    fn device(&mut self, number: usize) -> &mut Device {
        &mut self.nodes[number].device
    }

    fn verifier(&mut self, number: usize) -> &mut Verifier {
        &mut self.desks[number].verifier
    }

    fn on_device_event(&mut self, device: usize, event: DeviceEvent) -> Result<(), Wrong> {
        let think = |turn: usize| self.plan.devices[device].turns.get(turn).map(|turn| turn.think_us);
        let node = &mut self.nodes[device];
        match event {
            DeviceEvent::Draft(job) => return self.draft(device, job),
            DeviceEvent::Committed(commit) => {
                let serves = node.device.target().and_then(|target| Serves::of(target.id));
                let told = node.told.last_mut().expect("a reply");
                told.commits.push(commit);
                told.targets.push(serves);
            }
            DeviceEvent::Finished(finish) => {
                if let Finish::OtherTarget { ours, .. } = finish {
                    self.coverage.other_targets += 1;
                    self.check_lack(device, ours)?;
                }
                let node = &mut self.nodes[device];
                node.told.last_mut().expect("a reply").finish = Some(finish);
                node.turn += 1;
                let life = node.life;
                match think(node.turn) {
                    Some(think) => self.agenda.at(self.agenda.now + think, What::Speak { device, life }),
                    None => node.device.close(),
                }
            }
            // Nobody here writes a text that is not the target's.
            DeviceEvent::Contradicted { position } => {
                return Err(Wrong(format!("device {device} was contradicted at {position}")));
            }
            DeviceEvent::GaveUp => self.coverage.gave_up += 1,
            DeviceEvent::Returned => self.coverage.returned += 1,
            DeviceEvent::TargetChanged { position, model } => {
                node.told.last_mut().expect("a reply").changes.push(position);
                self.coverage.changed_models += u64::from(model);
                self.coverage.changed_numerics += u64::from(!model);
            }
            DeviceEvent::Leased { .. }
            | DeviceEvent::Judged(_)
            | DeviceEvent::Resynced
            | DeviceEvent::Waiting
            | DeviceEvent::NoCredit
            | DeviceEvent::Working
            | DeviceEvent::Malformed(_) => {}
        }
        Ok(())
    }

    fn on_verifier_event(&mut self, verifier: usize, event: verifier::VerifierEvent) -> Result<(), Wrong> {
        match event {
            verifier::VerifierEvent::Release(slot) => {
                self.desks[verifier].caches.remove(&slot);
                Ok(())
            }
            verifier::VerifierEvent::Verify(job) => self.verify(verifier, &job),
        }
    }

    fn send_up(&mut self, device: usize, message: Transmit) {
        let (Channel::Open(id) | Channel::Frames(id)) = &message.channel;
        let verifier = number_of(id.as_str(), "verifier-");
        for at in self.arrivals(device) {
            let (channel, bytes) = (message.channel.clone(), message.bytes.to_vec());
            self.agenda.at(at, What::ToVerifier { verifier, device, channel, bytes });
        }
    }

    fn send_down(&mut self, answer: OutgoingAnswer) {
        let device = number_of(answer.device.as_str(), "device-");
        for at in self.arrivals(device) {
            let (channel, bytes) = (answer.channel, answer.bytes.to_vec());
            self.agenda.at(at, What::ToDevice { device, channel, bytes });
        }
    }
}

impl VerifierNode {
    fn liveness(&self) -> Liveness {
        if self.dead { Liveness::Lost } else { Liveness::Here }
    }
}

impl DeviceNode {
    fn new(script: &Script, rng: &mut Rng) -> Self {
        let importance_form = Some(if rng.bool() { ImportanceForm::Row } else { ImportanceForm::Received });
        let policy = PolicyTable { importance_form, ..script.policy.clone() };
        let config = DeviceConfig {
            vocabulary: vocabulary(script.vocabulary),
            prefixes: prefixes(script.vocabulary),
            policy: Rules::new(&policy).expect("plans are valid"),
            offline: if script.trust { Offline::Trust } else { Offline::Wait },
            give_up_after: Duration(script.give_up_us),
            context_tokens_max: script.context_tokens_max,
            accept_model_change: script.accept_model_change,
        };
        let (number, epoch, nonce) = (rng.u8(..), rng.u8(..), rng.u64(..));
        let session = SessionIdentity { number, epoch, nonce, seed: script.seed, sampling: script.sampling };
        Self {
            device: Device::new(config, session, Learned::default()).expect("plans are within limits"),
            life: 0,
            cache: Vec::new(),
            busy: false,
            told: Vec::new(),
            turn: 0,
            down_until: 0,
            scope: PresenceScope::Nobody,
            scope_since: 0,
            armed: None,
        }
    }

    fn hears_of(&self, verifier: usize) -> bool {
        match &self.scope {
            PresenceScope::Nobody => false,
            PresenceScope::Lessor(id) => *id == verifier_id(verifier),
            PresenceScope::All => true,
        }
    }
}

impl VerifierNode {
    fn new(plan: &Plan, number: usize, life: u64) -> Self {
        let longest = plan.devices.iter().map(|script| script.context_tokens_max).max().unwrap_or(2);
        let config = VerifierConfig {
            id: verifier_id(number),
            vocabulary: vocabulary(plan.pair.vocabulary),
            prefixes: prefixes(plan.pair.vocabulary),
            target: TargetDescription {
                id: plan.verifiers[number].target(),
                promise: Promise::Exact,
                ..TargetDescription::default()
            },
            context_tokens_max: longest as u32,
            sessions_max: plan.sessions_max,
            draft_tokens_max: 16,
            credit_tokens_max: plan.credit_tokens_max,
            continuation_tokens: plan.continuation_tokens,
            continuation_interval: Duration(plan.continuation_us),
            lossy: true,
            idle_max: Duration::from_millis(20_000),
        };
        let mut verifier = Verifier::new(config).expect("plans are within limits");
        if plan.announced_us > 0 {
            verifier.set_price(Price { pass: LogTime::of_us(plan.announced_us), ..Price::default() });
        }
        Self {
            verifier,
            life,
            caches: BTreeMap::new(),
            armed: None,
            free_at: 0,
            here_since: 0,
            dead: false,
            hung_until: 0,
        }
    }
}

fn vocabulary(size: u32) -> Vocabulary {
    Vocabulary { size, fingerprint: u64::from(size).to_le_bytes() }
}

fn prefixes(size: u32) -> Prefixes {
    let fingerprints: Vec<[u8; 8]> = (1..=size).map(|size| vocabulary(size).fingerprint).collect();
    Prefixes::from(Arc::from(fingerprints))
}

impl Coverage {
    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        self.device.add(&other.device);
        self.verifier.add(&other.verifier);
        self.sessions += other.sessions;
        self.gave_up += other.gave_up;
        self.returned += other.returned;
        self.changed_models += other.changed_models;
        self.changed_numerics += other.changed_numerics;
        self.other_targets += other.other_targets;
    }
}
