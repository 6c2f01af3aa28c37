//! Many devices at several verifiers, of which some are killed or hang, in virtual time.
//!
//! Invariant: a run depends only on its plan and the models. Both machines are the real ones; the broker keeps presence,
//! sends the Will of a verifier that is killed, and delivers to a device what its scope asks for.

use super::queue::TargetQueue;
use super::{CrowdMember, CrowdPlan, CrowdTurn, new_device};
use crate::pump::{Agenda, LinkEnds};
use crate::quiet::Models;
use crate::settings::verifier_config;
use crate::toy::{ToyModels, ToyPair};
use anyhow::{Context, Error, Result, bail};
use dunlin_hlm::TokenId;
use dunlin_hlm::device::{
    Channel, Device, DeviceCounters, DeviceEvent, DraftJob, DraftRow, Learned, PresenceScope, Transmit,
};
use dunlin_hlm::passes::PassPrices;
use dunlin_hlm::time::{Duration, Instant};
use dunlin_hlm::verifier::{self, Answer, OutgoingAnswer, Verifier, VerifierCounters, VerifierEvent};
use dunlin_wire::{DeviceId, Liveness, VerifierId, VerifierPresence};

/// A way to lose a verifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strike {
    /// It is gone, and its connection with it.
    Kill,
    /// It does nothing more, and its connection stays.
    Hang,
}

/// The run's settings; `base` has the place and the models' times.
#[derive(Clone, Debug)]
pub struct FailoverPlan {
    /// Vocabulary, times of link, drafter and target, and the end.
    pub base: CrowdPlan,
    /// The models.
    pub pair: ToyPair,
    /// Number of verifiers.
    pub verifiers: usize,
    /// Time of the first pass of each verifier beyond the others, µs: weights are read and packed.
    pub first_pass_us: u64,
    /// Times at which a verifier is struck, µs. The one with the most devices that write is chosen.
    pub strikes: Vec<(u64, Strike)>,
    /// Time after which a struck verifier is back, µs.
    pub back_after_us: u64,
}

/// The effect of a strike on one device that was writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextGap {
    /// The kind of strike.
    pub strike: Strike,
    /// Time between the last token before the strike and the first one after it, µs.
    pub gap_us: u64,
    /// Time of a frame as the struck verifier announced it: queue and pass, µs.
    pub announced_us: u64,
}

/// The outcome of a run.
#[derive(Debug, Default)]
pub struct FailoverOutcome {
    /// Each device's replies, in order, each with the number of its turn.
    pub replies: Vec<Vec<(usize, Vec<TokenId>)>>,
    /// The devices' counters, added up.
    pub device: DeviceCounters,
    /// The counters of all verifiers, added up.
    pub verifier: VerifierCounters,
    /// One for each strike and device whose reply it hit.
    pub gaps: Vec<TextGap>,
    /// Strikes that hit no reply.
    pub missed: usize,
}

enum Due {
    Start(usize),
    Up { from: usize, channel: Channel, bytes: Vec<u8> },
    Down { to: usize, channel: Answer, bytes: Vec<u8> },
    Presence { to: usize, verifier: usize, bytes: Vec<u8> },
    Drafted { device: usize, session: usize, job: DraftJob },
    PassEnds { verifier: usize, life: u32 },
    Strike(Strike),
    Back { verifier: usize, life: u32 },
}

struct Node {
    id: DeviceId,
    device: Device,
    scope: PresenceScope,
    drafter: ToyModels,
    sessions: usize,
    reply: Vec<TokenId>,
    writes: bool,
    ended: bool,
    lessor: Option<VerifierId>,
    committed_us: u64,
    /// A strike that hit the reply under way, and the announced time.
    struck: Option<(Strike, u64)>,
}

struct Desk {
    id: VerifierId,
    verifier: Verifier,
    target: TargetQueue,
    prices: PassPrices,
    models: Vec<ToyModels>,
    life: u32,
    alive: bool,
    hangs: bool,
    warm: bool,
    /// Messages that arrive while it hangs.
    waiting: Vec<Due>,
    /// The retained presence.
    retained: Vec<u8>,
}

struct Failover<'a> {
    plan: &'a FailoverPlan,
    members: &'a [CrowdMember],
    nodes: Vec<Node>,
    desks: Vec<Desk>,
    agenda: Agenda<Due>,
    done: FailoverOutcome,
}

/// Plays until every device has written its turns and every strike has happened.
///
/// # Errors
/// A setting is invalid, a model fails, or devices still write at the plan's end.
pub fn play_failover(plan: &FailoverPlan, members: &[CrowdMember]) -> Result<FailoverOutcome> {
    let nodes = members.iter().enumerate().map(|(i, member)| Node::new(plan, member, i));
    let mut world = Failover {
        plan,
        members,
        nodes: nodes.collect::<Result<_>>()?,
        desks: (0..plan.verifiers).map(|i| Desk::new(plan, i, 1, members.len())).collect::<Result<_>>()?,
        agenda: Agenda::new(),
        done: FailoverOutcome { replies: vec![Vec::new(); members.len()], ..FailoverOutcome::default() },
    };
    for (i, member) in members.iter().enumerate() {
        world.agenda.at(member.starts_us, Due::Start(i));
    }
    for (at, strike) in &plan.strikes {
        world.agenda.at(*at, Due::Strike(*strike));
    }
    while world.nodes.iter().any(|node| !node.ended) {
        world.step()?;
    }
    for node in &world.nodes {
        world.done.device.add(node.device.counters());
    }
    for desk in &world.desks {
        world.done.verifier.add(desk.verifier.counters());
    }
    Ok(world.done)
}

impl Failover<'_> {
    fn step(&mut self) -> Result<()> {
        let devices =
            self.nodes.iter().enumerate().filter_map(|(i, node)| Some((node.device.poll_timeout()?.0, 0, i)));
        let works = |desk: &Desk| desk.alive && !desk.hangs;
        let desks = self.desks.iter().enumerate().filter(|(_, desk)| works(desk));
        let desks = desks.filter_map(|(i, desk)| Some((desk.verifier.poll_timeout()?.0, 1, i)));
        let timer = devices.chain(desks).min();
        match (timer, self.agenda.next_at()) {
            (Some((at, kind, i)), next) if next.is_none_or(|next| at < next) => {
                self.agenda.now = self.agenda.now.max(at);
                if kind == 0 {
                    self.nodes[i].device.handle_timeout(Instant(self.agenda.now));
                    self.attend(i)?;
                } else {
                    self.desks[i].verifier.handle_timeout(Instant(self.agenda.now));
                    self.drain_verifier(i)?;
                }
            }
            _ => match self.agenda.pop() {
                Some(due) => self.happen(due)?,
                None => bail!("nothing left to happen"),
            },
        }
        if self.agenda.now > self.plan.base.until_us {
            bail!("devices still write at the end: {:?}", self.done.device);
        }
        (0..self.desks.len()).try_for_each(|verifier| self.begin_pass(verifier))
    }

    fn happen(&mut self, due: Due) -> Result<()> {
        match due {
            Due::Start(device) => {
                self.speak(device)?;
                self.attend(device)
            }
            Due::Up { from, channel, bytes } => {
                let (Channel::Open(id) | Channel::Frames(id)) = &channel;
                let verifier = self.desk_of(id);
                let desk = &mut self.desks[verifier];
                if desk.hangs {
                    desk.waiting.push(Due::Up { from, channel, bytes });
                    return Ok(());
                }
                if !desk.alive {
                    return Ok(());
                }
                let id = self.nodes[from].id.clone();
                self.deliver_up(verifier, &id, &channel, &bytes);
                self.drain_verifier(verifier)
            }
            Due::Down { to, channel, bytes } => {
                self.deliver_down(to, channel, &bytes);
                self.attend(to)
            }
            Due::Presence { to, verifier, bytes } => {
                let (id, now) = (self.desks[verifier].id.clone(), self.now());
                self.nodes[to].device.handle_presence(&id, &bytes, now);
                self.attend(to)
            }
            Due::Drafted { device, session, job } => self.drafted(device, session, &job),
            Due::PassEnds { verifier, life } => self.pass_ends(verifier, life),
            Due::Strike(strike) => self.strike(strike),
            Due::Back { verifier, life } => self.back(verifier, life),
        }
    }

    fn desk_of(&self, id: &VerifierId) -> usize {
        self.desks.iter().position(|desk| desk.id == *id).expect("only these are announced")
    }

    fn begin_pass(&mut self, verifier: usize) -> Result<()> {
        let now = self.agenda.now;
        let desk = &mut self.desks[verifier];
        if !desk.alive || desk.hangs {
            return Ok(());
        }
        if let Some(at) = desk.target.begin(&mut desk.models, now)? {
            let more = if desk.warm { 0 } else { self.plan.first_pass_us };
            desk.warm = true;
            self.agenda.at(at + more, Due::PassEnds { verifier, life: desk.life });
        }
        Ok(())
    }

    fn pass_ends(&mut self, verifier: usize, life: u32) -> Result<()> {
        let now = self.agenda.now;
        let desk = &mut self.desks[verifier];
        if desk.life != life || !desk.alive {
            return Ok(());
        }
        if desk.hangs {
            desk.waiting.push(Due::PassEnds { verifier, life });
            return Ok(());
        }
        let (pass, jobs) = desk.target.end();
        desk.prices.observe(pass.size, Duration(now - pass.began_us), Duration(pass.waited_us));
        desk.verifier.set_price(desk.prices.price());
        for job in jobs {
            self.desks[verifier].verifier.handle_rows(job.id, Ok(&job.rows), Instant(now));
            self.drain_verifier(verifier)?;
        }
        Ok(())
    }

    /// Strikes the working verifier that most devices are writing with, of those with the same number the first.
    fn strike(&mut self, strike: Strike) -> Result<()> {
        let works = |v: &usize| self.desks[*v].alive && !self.desks[*v].hangs;
        let writing = |v: usize| {
            let id = &self.desks[v].id;
            let hit =
                |node: &&Node| node.writes && !node.reply.is_empty() && node.lessor.as_ref() == Some(id);
            self.nodes.iter().filter(hit).count()
        };
        let chosen = (0..self.desks.len()).filter(works).max_by_key(|v| (writing(*v), usize::MAX - v));
        let verifier = chosen.context("no verifier is left to strike")?;
        self.done.missed += usize::from(writing(verifier) == 0);
        let VerifierPresence { price, .. } = self.desks[verifier].verifier.presence();
        let announced = price.pass.us().unwrap_or(0) + price.queue.us().unwrap_or(0);
        let id = self.desks[verifier].id.clone();
        for node in self.nodes.iter_mut().filter(|node| node.writes && !node.reply.is_empty()) {
            if node.lessor.as_ref() == Some(&id) {
                node.struck = Some((strike, announced));
            }
        }
        let at = self.agenda.now + self.plan.back_after_us;
        let desk = &mut self.desks[verifier];
        self.agenda.at(at, Due::Back { verifier, life: desk.life });
        match strike {
            Strike::Hang => desk.hangs = true,
            Strike::Kill => {
                desk.alive = false;
                self.retain(verifier, Liveness::Lost);
            }
        }
        Ok(())
    }

    /// A hung verifier goes on where it was, a killed one starts again.
    fn back(&mut self, verifier: usize, life: u32) -> Result<()> {
        let desk = &mut self.desks[verifier];
        if desk.hangs {
            desk.hangs = false;
            let waiting = std::mem::take(&mut desk.waiting);
            return waiting.into_iter().try_for_each(|due| self.happen(due));
        }
        let fresh = Desk::new(self.plan, verifier, life + 1, self.members.len())?;
        let old = std::mem::replace(&mut self.desks[verifier], fresh);
        self.done.verifier.add(old.verifier.counters());
        self.retain(verifier, Liveness::Here);
        Ok(())
    }

    /// The broker retains a verifier's presence, and sends it to the devices that ask for it.
    fn retain(&mut self, verifier: usize, liveness: Liveness) {
        self.desks[verifier].retain(liveness);
        for device in 0..self.nodes.len() {
            self.announce(device, verifier);
        }
    }

    fn announce(&mut self, to: usize, verifier: usize) {
        let desk = &self.desks[verifier];
        let wanted = match &self.nodes[to].scope {
            PresenceScope::Nobody => false,
            PresenceScope::Lessor(id) => *id == desk.id,
            PresenceScope::All => true,
        };
        if wanted {
            let (at, bytes) = (self.agenda.now + self.plan.base.link_us, desk.retained.clone());
            self.agenda.at(at, Due::Presence { to, verifier, bytes });
        }
    }

    fn attend(&mut self, device: usize) -> Result<()> {
        loop {
            let scope = self.nodes[device].device.presence_scope();
            if self.nodes[device].scope != scope {
                self.nodes[device].scope = scope;
                (0..self.desks.len()).for_each(|verifier| self.announce(device, verifier));
            }
            self.drain_device(device)?;
            let node = &mut self.nodes[device];
            if node.writes || node.ended || node.sessions == 0 {
                return Ok(());
            }
            let turns = &self.members[device].turns;
            let turn = (node.sessions - 1) % turns.len();
            self.done.replies[device].push((turn, std::mem::take(&mut node.reply)));
            node.device.close();
            self.drain_device(device)?;
            let node = &mut self.nodes[device];
            if node.sessions >= turns.len() {
                node.ended = true;
                return Ok(());
            }
            self.speak(device)?;
        }
    }

    /// Opens a session for the next turn. What the device learned goes on.
    fn speak(&mut self, device: usize) -> Result<()> {
        let (member, now) = (&self.members[device], Instant(self.agenda.now));
        let node = &mut self.nodes[device];
        let turn: &CrowdTurn = &member.turns[node.sessions % member.turns.len()];
        let next = new_device(&self.plan.base, member, (device, node.sessions), node.device.learned())?;
        let old = std::mem::replace(&mut node.device, next);
        self.done.device.add(old.counters());
        (node.sessions, node.writes, node.scope) = (node.sessions + 1, true, PresenceScope::Nobody);
        node.drafter.begin(turn.prompt.len());
        node.device.handle_link(true, now);
        node.device.say(&turn.prompt, turn.reply.clone(), now)?;
        Ok(())
    }

    fn drafted(&mut self, device: usize, session: usize, job: &DraftJob) -> Result<()> {
        let node = &mut self.nodes[device];
        if node.sessions != session {
            return Ok(());
        }
        let row = node.drafter.draft(job)?;
        let took = Duration(self.plan.base.draft_us * job.tokens.len() as u64);
        let draft = DraftRow { logits: &row.logits, attention: None, took, refilled: false };
        node.device.handle_draft(job.id, draft, Instant(self.agenda.now));
        self.attend(device)
    }
}

impl LinkEnds for Failover<'_> {
    type Error = Error;

    fn now(&self) -> Instant {
        Instant(self.agenda.now)
    }

    fn device(&mut self, number: usize) -> &mut Device {
        &mut self.nodes[number].device
    }

    fn verifier(&mut self, number: usize) -> &mut Verifier {
        &mut self.desks[number].verifier
    }

    fn on_device_event(&mut self, device: usize, event: DeviceEvent) -> Result<()> {
        let now = self.agenda.now;
        let node = &mut self.nodes[device];
        match event {
            DeviceEvent::Draft(job) => {
                let at = now + self.plan.base.draft_us * job.tokens.len() as u64;
                self.agenda.at(at, Due::Drafted { device, session: node.sessions, job });
            }
            DeviceEvent::Committed(commit) => {
                if let Some((strike, announced_us)) = node.struck.take() {
                    let gap_us = now - node.committed_us;
                    self.done.gaps.push(TextGap { strike, gap_us, announced_us });
                }
                node.reply.push(commit.token);
                node.committed_us = now;
            }
            DeviceEvent::Leased { verifier, .. } => node.lessor = Some(verifier),
            DeviceEvent::Finished(_) => node.writes = false,
            _ => {}
        }
        Ok(())
    }

    fn on_verifier_event(&mut self, verifier: usize, event: VerifierEvent) -> Result<()> {
        let now = self.agenda.now;
        // The verifier may have held the job back while messages of other devices came.
        let member = match &event {
            VerifierEvent::Verify(job) => self.nodes.iter().position(|node| node.id == job.device),
            VerifierEvent::Release(_) => None,
        };
        let desk = &mut self.desks[verifier];
        for id in desk.target.push(member.unwrap_or_default(), event, &mut desk.models, now) {
            desk.verifier.handle_rows(id, Ok(&[]), Instant(now));
        }
        Ok(())
    }

    fn send_up(&mut self, from: usize, message: Transmit) {
        let (channel, bytes) = (message.channel, message.bytes.to_vec());
        self.agenda.at(self.agenda.now + self.plan.base.link_us, Due::Up { from, channel, bytes });
    }

    fn send_down(&mut self, answer: OutgoingAnswer) {
        let Some(to) = self.nodes.iter().position(|node| node.id == answer.device) else { return };
        let (channel, bytes) = (answer.channel, answer.bytes.to_vec());
        self.agenda.at(self.agenda.now + self.plan.base.link_us, Due::Down { to, channel, bytes });
    }
}

impl Node {
    fn new(plan: &FailoverPlan, member: &CrowdMember, number: usize) -> Result<Self> {
        let mut learned = Learned::default();
        learned.stop.start_at(Duration(plan.base.draft_us));
        Ok(Self {
            id: format!("device-{number}").parse().context("an id")?,
            device: new_device(&plan.base, member, (number, 0), learned)?,
            scope: PresenceScope::Nobody,
            drafter: ToyModels::new(plan.pair),
            sessions: 0,
            reply: Vec::new(),
            writes: false,
            ended: false,
            lessor: None,
            committed_us: 0,
            struck: None,
        })
    }
}

impl Desk {
    fn new(plan: &FailoverPlan, number: usize, life: u32, devices: usize) -> Result<Self> {
        let base = &plan.base;
        let id: VerifierId = format!("verifier-{number}").parse().context("an id")?;
        let config = verifier_config(base.vocabulary, base.context_tokens_max, 2 * devices.max(1));
        let mut verifier = Verifier::new(verifier::VerifierConfig { id: id.clone(), ..config })?;
        let prices = PassPrices::of_measured(&base.pass.measured());
        verifier.set_price(prices.price());
        let mut desk = Self {
            id,
            verifier,
            target: TargetQueue::new(base.pass, base.prefill),
            prices,
            models: vec![ToyModels::new(plan.pair); devices],
            life,
            alive: true,
            hangs: false,
            warm: false,
            waiting: Vec::new(),
            retained: Vec::new(),
        };
        desk.retain(Liveness::Here);
        Ok(desk)
    }

    fn retain(&mut self, liveness: Liveness) {
        let presence = VerifierPresence { generation: self.life, liveness, ..self.verifier.presence() };
        self.retained = presence.encode().expect("a presence of checked values").to_vec();
    }
}
