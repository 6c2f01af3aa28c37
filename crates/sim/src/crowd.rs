//! Many devices against one verifier in virtual time, without faults. The models' rows are real; times are modelled.
//!
//! Invariant: a run depends only on its plan, its members and the models. Both machines are the real ones, and the
//! target batches as the verifier's worker does.

mod capacity;
mod failover;
mod plan;
mod queue;

pub use capacity::{Capacity, saturated};
pub use failover::{FailoverOutcome, FailoverPlan, Strike, TextGap, play_failover};
pub use plan::{AnsweredRound, CrowdMember, CrowdOutcome, CrowdPlan, CrowdReply, CrowdTurn, MemberOutcome};
pub use queue::{PassModel, TargetPass};

use crate::mqtt::VERIFIER;
use crate::pump::{Agenda, LinkEnds};
use crate::quiet::Models;
use crate::settings::{PATIENCE, verifier_config};
use anyhow::{Context, Error, Result, bail};
use dunlin_hlm::TokenId;
use dunlin_hlm::device::{
    Channel, Device, DeviceConfig, DeviceEvent, DraftJob, DraftRow, Finish, Learned, Offline,
    SessionIdentity, Transmit,
};
use dunlin_hlm::passes::PassPrices;
use dunlin_hlm::time::{Duration, Instant};
use dunlin_hlm::verifier::{self, Answer, OutgoingAnswer, Verifier, VerifyJob};
use dunlin_wire::{DeviceId, Down, Up};
use queue::{PassJob, TargetQueue};
use std::collections::BTreeMap;

/// The models of all devices.
pub trait CrowdModels {
    /// The drafter of a device, and the target of its sessions.
    fn of(&mut self, device: usize) -> &mut dyn Models;
}

impl<M: Models> CrowdModels for Vec<M> {
    fn of(&mut self, device: usize) -> &mut dyn Models {
        &mut self[device]
    }
}

/// Members that may share a device.
const DEVICE_SESSIONS_MAX: usize = 16;

enum Due {
    Start(usize),
    Up { from: usize, channel: Channel, bytes: Vec<u8> },
    Down { to: usize, channel: Answer, bytes: Vec<u8> },
    Drafted { device: usize, session: usize, job: DraftJob },
    PassEnds,
}

/// A device with the turn under way.
struct Node {
    id: DeviceId,
    number: usize,
    device: Device,
    /// Sessions so far; the last one is under way.
    sessions: usize,
    /// Tokens of the reply under way.
    reply: Vec<TokenId>,
    finish: Option<Finish>,
    /// Arrival of each frame that awaits its verdict, by session, epoch and round.
    asked: BTreeMap<(u8, u8, u32), u64>,
    done: MemberOutcome,
}

struct Crowd<'a> {
    plan: &'a CrowdPlan,
    members: &'a [CrowdMember],
    models: &'a mut dyn CrowdModels,
    nodes: Vec<Node>,
    verifier: Verifier,
    target: TargetQueue,
    prices: PassPrices,
    /// The device whose message or rows the verifier handles.
    cause: usize,
    passes: Vec<TargetPass>,
    agenda: Agenda<Due>,
}

/// Plays a crowd until every device that can be heard has written its turns and the target has nothing left to do, or
/// until the plan's end.
///
/// # Errors
/// A setting is outside the protocol's limits, a prompt is refused, a model fails, or a device waits for nothing.
pub fn play(plan: &CrowdPlan, members: &[CrowdMember], models: &mut dyn CrowdModels) -> Result<CrowdOutcome> {
    // A session that ends is closed before the next one opens, but an unheard device's stays.
    let config = verifier_config(plan.vocabulary, plan.context_tokens_max, 2 * members.len().max(1));
    let nodes = members.iter().enumerate().map(|(i, member)| Node::new(plan, member, i));
    let mut crowd = Crowd {
        plan,
        members,
        models,
        nodes: nodes.collect::<Result<_>>()?,
        verifier: Verifier::new(config).context("the verifier's settings")?,
        target: TargetQueue::new(plan.pass, plan.prefill),
        prices: PassPrices::default(),
        cause: 0,
        passes: Vec::new(),
        agenda: Agenda::new(),
    };
    for (i, member) in members.iter().enumerate() {
        crowd.agenda.at(member.starts_us, Due::Start(i));
    }
    while crowd.step()? {}
    crowd.outcome()
}

impl Crowd<'_> {
    /// Handles the next event, or the timer that is due first; false at the end.
    fn step(&mut self) -> Result<bool> {
        let heard = (0..self.nodes.len()).filter(|i| self.is_heard(*i));
        let timers = heard.filter_map(|i| Some((self.nodes[i].device.poll_timeout()?.0, Some(i))));
        let (timer, next) = (timers.min(), self.agenda.next_at());
        // Sessions that nobody uses any more need not be waited for.
        let desk = self.verifier.poll_timeout().filter(|_| timer.is_some() || next.is_some());
        let timer = timer.into_iter().chain(desk.map(|at| (at.0, None))).min();
        let Some(at) = [timer.map(|(at, _)| at), next].into_iter().flatten().min() else { return Ok(false) };
        if at > self.plan.until_us {
            self.agenda.now = self.plan.until_us;
            return Ok(false);
        }
        match timer {
            Some((at, i)) if next.is_none_or(|next| at < next) => {
                self.agenda.now = self.agenda.now.max(at);
                match i {
                    Some(i) => {
                        self.nodes[i].device.handle_timeout(Instant(at));
                        self.attend(i)?;
                    }
                    None => {
                        self.verifier.handle_timeout(Instant(at));
                        self.drain_verifier(0)?;
                    }
                }
            }
            _ => match self.agenda.pop() {
                Some(due) => self.happen(due)?,
                None => return Ok(false),
            },
        }
        self.begin_pass()?;
        Ok(true)
    }

    fn happen(&mut self, due: Due) -> Result<()> {
        match due {
            Due::Start(device) => {
                self.speak(device)?;
                self.attend(device)
            }
            Due::Up { from, channel, bytes } => {
                self.note_arrival(from, &bytes);
                let id = self.nodes[from].id.clone();
                self.deliver_up(0, &id, &channel, &bytes);
                self.cause = from;
                self.drain_verifier(0)
            }
            Due::Down { to, channel, bytes } => {
                if self.is_heard(to) {
                    self.deliver_down(to, channel, &bytes);
                }
                self.attend(to)
            }
            Due::Drafted { device, session, job } => self.drafted(device, session, &job),
            Due::PassEnds => self.pass_ends(),
        }
    }

    /// Reads the rows of a pass in the order of the verifier's loop: the price first, then texts that go on, whose next
    /// jobs are part of the next pass, then frames.
    fn pass_ends(&mut self) -> Result<()> {
        let (pass, jobs) = self.target.end();
        self.passes.push(pass);
        self.prices.observe(pass.size, Duration(pass.took_us()), Duration(pass.waited_us));
        self.verifier.set_price(self.prices.price());
        let row_length = self.plan.vocabulary.size as usize;
        let (texts, frames): (Vec<_>, Vec<_>) =
            jobs.into_iter().partition(|job| job.rows.len() <= row_length);
        self.read(texts)?;
        self.begin_pass()?;
        self.read(frames)
    }

    fn read(&mut self, jobs: Vec<PassJob>) -> Result<()> {
        for job in jobs {
            self.cause = job.member;
            self.verifier.handle_rows(job.id, Ok(&job.rows), Instant(self.agenda.now));
            self.drain_verifier(0)?;
        }
        Ok(())
    }

    /// The member that a job works for. The verifier may have held it back while messages of others came; members that
    /// share a device are told apart by the cause.
    fn member_of(&self, job: &VerifyJob) -> usize {
        let mut same = (0..self.nodes.len()).filter(|member| self.nodes[*member].id == job.device);
        match (same.next(), same.next()) {
            (Some(member), None) => member,
            _ => self.cause,
        }
    }

    fn begin_pass(&mut self) -> Result<()> {
        if let Some(at) = self.target.begin(self.models, self.agenda.now)? {
            self.agenda.at(at, Due::PassEnds);
        }
        Ok(())
    }

    /// True while a device's link carries its messages.
    fn is_heard(&self, device: usize) -> bool {
        self.nodes[device].done.silent_at.is_none()
    }

    /// Carries out a device's actions, and begins its next turn when a reply has ended.
    fn attend(&mut self, device: usize) -> Result<()> {
        self.drain_device(device)?;
        while let Some(finish) = self.nodes[device].finish.take() {
            let member = &self.members[device];
            let node = &mut self.nodes[device];
            let turn = (node.sessions - 1) % member.turns.len();
            let tokens = std::mem::take(&mut node.reply);
            node.done.replies.push(CrowdReply { turn, tokens, finish });
            node.device.close();
            self.drain_device(device)?;
            if member.repeats || self.nodes[device].sessions < member.turns.len() {
                self.speak(device)?;
                self.drain_device(device)?;
            }
        }
        Ok(())
    }

    /// Opens a session for the next turn. What the device learned goes on.
    fn speak(&mut self, device: usize) -> Result<()> {
        let (member, now) = (&self.members[device], Instant(self.agenda.now));
        let node = &mut self.nodes[device];
        let turn = &member.turns[node.sessions % member.turns.len()];
        let learned = node.device.learned();
        node.device = new_device(self.plan, member, (node.number, node.sessions), learned)?;
        node.sessions += 1;
        self.models.of(device).begin(turn.prompt.len());
        let presence = self.verifier.presence().encode().expect("a presence of checked values");
        node.device.handle_presence(&VERIFIER.parse().expect("a valid id"), &presence, now);
        node.device.handle_link(true, now);
        node.device.say(&turn.prompt, turn.reply.clone(), now)?;
        Ok(())
    }

    fn drafted(&mut self, device: usize, session: usize, job: &DraftJob) -> Result<()> {
        // A run that outlasts its session is of no use to the next one.
        if self.nodes[device].sessions != session {
            return Ok(());
        }
        let row = self.models.of(device).draft(job)?;
        let took = Duration(self.plan.draft_us * job.tokens.len() as u64);
        let draft =
            DraftRow { logits: &row.logits, attention: row.attention.as_deref(), took, refilled: false };
        let now = self.now();
        self.nodes[device].device.handle_draft(job.id, draft, now);
        self.attend(device)
    }

    /// Notes the arrival of a frame: its credit, and its time if a verdict will answer it.
    fn note_arrival(&mut self, from: usize, bytes: &[u8]) {
        let Ok(Up::Draft(frame)) = Up::decode(bytes) else { return };
        let node = &mut self.nodes[from];
        if let Some(credit) = &frame.credit {
            node.done.credited_until = Some(credit.until as usize);
        }
        if !frame.drafts.is_empty() || frame.credit.is_none() {
            let key = (frame.session, frame.epoch, frame.round);
            node.asked.entry(key).or_insert(self.agenda.now);
        }
    }

    fn outcome(mut self) -> Result<CrowdOutcome> {
        let cut_off = self.agenda.now >= self.plan.until_us;
        for (i, (node, member)) in self.nodes.iter_mut().zip(self.members).enumerate() {
            let written = node.done.replies.len() >= member.turns.len();
            if !cut_off && !written && node.done.silent_at.is_none() {
                bail!("device {i} stands still after {} replies", node.done.replies.len());
            }
            node.done.unanswered = node.asked.len();
        }
        let members = self.nodes.into_iter().map(|node| node.done).collect();
        Ok(CrowdOutcome { members, passes: self.passes, ended_us: self.agenda.now })
    }
}

impl LinkEnds for Crowd<'_> {
    type Error = Error;

    fn now(&self) -> Instant {
        Instant(self.agenda.now)
    }

    fn device(&mut self, number: usize) -> &mut Device {
        &mut self.nodes[number].device
    }

    fn verifier(&mut self, _: usize) -> &mut Verifier {
        &mut self.verifier
    }

    fn on_device_event(&mut self, device: usize, event: DeviceEvent) -> Result<()> {
        let node = &mut self.nodes[device];
        match event {
            DeviceEvent::Draft(job) => {
                let at = self.agenda.now + self.plan.draft_us * job.tokens.len() as u64;
                self.agenda.at(at, Due::Drafted { device, session: node.sessions, job });
            }
            DeviceEvent::Committed(commit) => {
                node.reply.push(commit.token);
                node.done.committed_us.push(self.agenda.now);
                let count = node.done.committed_us.len();
                if self.members[device].silent_after.is_some_and(|after| count >= after) {
                    node.done.silent_at.get_or_insert(count);
                }
            }
            DeviceEvent::Finished(finish) => node.finish = Some(finish),
            _ => {}
        }
        Ok(())
    }

    fn on_verifier_event(&mut self, _: usize, event: verifier::VerifierEvent) -> Result<()> {
        let mut member = self.cause;
        if let verifier::VerifierEvent::Verify(job) = &event {
            member = self.member_of(job);
            let done = &mut self.nodes[member].done;
            done.jobs += 1;
            done.fed += job.tokens.len();
        }
        for id in self.target.push(member, event, self.models, self.agenda.now) {
            self.verifier.handle_rows(id, Ok(&[]), Instant(self.agenda.now));
        }
        Ok(())
    }

    fn send_up(&mut self, from: usize, message: Transmit) {
        if self.is_heard(from) {
            let (channel, bytes) = (message.channel, message.bytes.to_vec());
            self.agenda.at(self.agenda.now + self.plan.link_us, Due::Up { from, channel, bytes });
        }
    }

    fn send_down(&mut self, answer: OutgoingAnswer) {
        let of = |node: &Node| node.id == answer.device;
        let all: Vec<usize> = (0..self.nodes.len()).filter(|i| of(&self.nodes[*i])).collect();
        all.into_iter().for_each(|to| self.send_to(to, &answer));
    }
}

impl Crowd<'_> {
    /// Puts an answer on the link to a member, which ignores it if it is for another session of its device.
    fn send_to(&mut self, to: usize, answer: &OutgoingAnswer) {
        if let Ok(Down::Verdict(verdict)) = Down::decode(&answer.bytes) {
            let (node, answered_us) = (&mut self.nodes[to], self.agenda.now);
            let asked = node.asked.remove(&(verdict.session, verdict.epoch, verdict.round));
            node.done.rounds.extend(asked.map(|arrived_us| AnsweredRound { arrived_us, answered_us }));
        }
        let (channel, bytes) = (answer.channel, answer.bytes.to_vec());
        self.agenda.at(self.agenda.now + self.plan.link_us, Due::Down { to, channel, bytes });
    }
}

impl Node {
    fn new(plan: &CrowdPlan, member: &CrowdMember, number: usize) -> Result<Self> {
        let mut learned = Learned::default();
        // An agent runs its drafter once when it has loaded it, so it knows the time of a token.
        learned.stop.start_at(Duration(plan.draft_us));
        Ok(Self {
            id: format!("device-{}", member.device.unwrap_or(number)).parse().expect("a valid id"),
            number,
            device: new_device(plan, member, (number, 0), learned)?,
            sessions: 0,
            reply: Vec::new(),
            finish: None,
            asked: BTreeMap::new(),
            done: MemberOutcome::default(),
        })
    }
}

/// The machine of session `session` of member `number`.
fn new_device(
    plan: &CrowdPlan,
    member: &CrowdMember,
    (number, session): (usize, usize),
    learned: Learned,
) -> Result<Device> {
    let config = DeviceConfig {
        vocabulary: plan.vocabulary,
        prefixes: Default::default(),
        policy: member.policy,
        offline: Offline::Wait,
        give_up_after: PATIENCE,
        context_tokens_max: plan.context_tokens_max,
        accept_model_change: false,
    };
    let turn = member.turns.get(session % member.turns.len().max(1)).context("a device without a turn")?;
    let identity = SessionIdentity {
        // The sessions of one device are numbered apart.
        number: member.device.map_or(session, |first| session * DEVICE_SESSIONS_MAX + number - first) as u8,
        epoch: 1,
        nonce: turn.seed ^ session as u64,
        seed: turn.seed,
        sampling: turn.sampling,
    };
    Ok(Device::new(config, identity, learned)?)
}
