//! One session over a link without faults, with models whose rows are real and whose time is modelled.

use crate::mqtt::{self, MessageKind, Packets};
use crate::pump::{Agenda, LinkEnds};
use anyhow::{Error, Result, bail};
use dunlin_hlm::TokenId;
use dunlin_hlm::device::{
    Channel, Commit, Counters, Device, DraftJob, DraftRow, Event, Finish, Judged, Reply, Transmit,
};
use dunlin_hlm::time::{Duration, Instant};
use dunlin_hlm::verifier::{self, Answer, Job, Outgoing, Verifier};
use dunlin_wire::{DeviceId, Up};
use std::sync::Arc;

/// How long things take and what else they cost; all times in modelled microseconds.
pub trait Timing {
    /// The drafter's run.
    fn draft_us(&self, job: &DraftJob) -> u64;

    /// Scoring one drafted token.
    fn score_us(&self) -> u64;

    /// The target's pass.
    fn target_us(&self, job: &Job) -> u64;

    /// A message of `bytes` MQTT bytes that is handed to the link at `now_us`; asked in the order of sending.
    fn carry(&mut self, up: bool, bytes: usize, now_us: u64) -> Passage;

    /// How long the radio stays up after an answer.
    fn tail_us(&self) -> u64;
}

/// What became of a message on the link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passage {
    /// When the other end has it, µs.
    pub arrives_us: u64,
    /// What went up for it.
    pub up: Air,
    /// What came down for it.
    pub down: Air,
}

/// What one direction carried, acknowledgements and repetitions included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Air {
    /// Bytes with the headers below MQTT, encryption left out.
    pub ip: usize,
    /// Bytes with encryption.
    pub tls: usize,
    /// Time in which the radio sent or received, µs.
    pub busy_us: u64,
}

/// A [`Timing`] of three constants.
#[derive(Clone, Copy, Debug)]
pub struct Costs {
    /// The drafter, per token.
    pub draft_us: u64,
    /// The target, per pass.
    pub target_us: u64,
    /// The link, one way.
    pub link_us: u64,
}

impl Timing for Costs {
    fn draft_us(&self, job: &DraftJob) -> u64 {
        self.draft_us * job.tokens.len() as u64
    }

    fn score_us(&self) -> u64 {
        0
    }

    fn target_us(&self, _: &Job) -> u64 {
        self.target_us
    }

    fn carry(&mut self, _: bool, _: usize, now_us: u64) -> Passage {
        Passage { arrives_us: now_us + self.link_us, ..Passage::default() }
    }

    fn tail_us(&self) -> u64 {
        0
    }
}

/// A drafter's last row.
#[derive(Clone, Debug, PartialEq)]
pub struct DrafterRow {
    /// One per vocabulary entry.
    pub logits: Arc<[f32]>,
    /// Over all positions.
    pub attention: Option<Arc<[f32]>>,
}

/// The two models.
pub trait Models {
    /// Runs the drafter; an error ends the session.
    fn draft(&mut self, job: &DraftJob) -> Result<DrafterRow>;
    /// Runs the target: `rows × vocabulary` logits.
    fn verify(&mut self, job: &Job) -> Result<Vec<f32>>;
}

/// A message as the link carried it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    /// What it is.
    pub kind: MessageKind,
    /// Its bytes.
    pub payload: usize,
    /// Bytes of its MQTT packet.
    pub mqtt: usize,
    /// What the link made of it.
    pub passage: Passage,
}

/// A drafted token whose fate a verdict told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fate {
    /// Position in the session's text.
    pub position: usize,
    /// The drafter's uncertainty, 0..=1.
    pub uncertainty: f32,
    /// The token's importance, 0..=1.
    pub importance: f32,
    /// Mean of the recent importances, its own among them.
    pub importance_mean: f64,
    /// Whether it stays all the same.
    pub held: bool,
    /// Whether the target would not have chosen it.
    pub rejected: bool,
}

impl Fate {
    fn of(judged: &Judged) -> Self {
        Self {
            position: judged.position,
            uncertainty: judged.uncertainty.get(),
            importance: judged.importance.get(),
            importance_mean: judged.recent.mean(),
            held: judged.held,
            rejected: judged.rejected,
        }
    }
}

/// Where the modelled time of a session went, µs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeAccount {
    /// The drafter ran.
    pub draft_us: u64,
    /// Drafted tokens were scored.
    pub score_us: u64,
    /// The radio was up without sending or receiving: for an answer, or before it fell asleep.
    pub wait_us: u64,
    /// Passes of the target.
    pub target_passes: u64,
    /// Tokens it was fed behind the prompt.
    pub target_tokens: u64,
}

/// What a session came to.
#[derive(Debug)]
pub struct SessionOutcome {
    /// The reply.
    pub commits: Vec<Commit>,
    /// How it ended.
    pub finish: Finish,
    /// What the device counted.
    pub counters: Counters,
    /// Every message.
    pub carried: Vec<Carried>,
    /// Every drafted token whose fate was told.
    pub fates: Vec<Fate>,
    /// Where the time went.
    pub account: TimeAccount,
    /// Virtual time from prompt to end.
    pub took: Duration,
}

enum Due {
    Up(Channel, Vec<u8>),
    Down(Answer, Vec<u8>),
    Drafted(DraftJob),
    Verified(Job),
}

struct Quiet<'a> {
    device: &'a mut Device,
    verifier: &'a mut Verifier,
    models: &'a mut dyn Models,
    timing: &'a mut dyn Timing,
    packets: Packets,
    radio: RadioUse,
    id: DeviceId,
    prompt: usize,
    agenda: Agenda<Due>,
    commits: Vec<Commit>,
    carried: Vec<Carried>,
    fates: Vec<Fate>,
    account: TimeAccount,
    finish: Option<Finish>,
}

/// Plays one turn of a device against a verifier until the reply ends.
///
/// # Errors
/// The device does not take the prompt, a model fails, or the two machines wait for each other.
pub fn play(
    device: &mut Device,
    verifier: &mut Verifier,
    models: &mut dyn Models,
    timing: &mut dyn Timing,
    prompt: &[TokenId],
    reply: Reply,
) -> Result<SessionOutcome> {
    let id: DeviceId = mqtt::DEVICE.parse().expect("a valid id");
    let packets = Packets::new(&id, &mqtt::VERIFIER.parse().expect("a valid id"));
    let mut world = Quiet {
        device,
        verifier,
        models,
        radio: RadioUse { tail_us: timing.tail_us(), ..RadioUse::default() },
        timing,
        packets,
        id,
        prompt: prompt.len(),
        agenda: Agenda::new(),
        commits: Vec::new(),
        carried: Vec::new(),
        fates: Vec::new(),
        account: TimeAccount::default(),
        finish: None,
    };
    let presence = world.verifier.presence().encode().expect("a presence of checked values");
    let verifier = mqtt::VERIFIER.parse().expect("a valid id");
    world.device.handle_presence(&verifier, &presence, Instant(0));
    world.device.handle_link(true, Instant(0));
    world.device.say(prompt, reply, Instant(0))?;
    world.settle()?;
    let finish = loop {
        match world.finish {
            Some(finish) => break finish,
            None => world.step()?,
        }
    };
    world.account.wait_us = world.radio.off(world.agenda.now);
    Ok(SessionOutcome {
        commits: world.commits,
        finish,
        counters: *world.device.counters(),
        carried: world.carried,
        fates: world.fates,
        account: world.account,
        took: Duration(world.agenda.now),
    })
}

impl Quiet<'_> {
    fn after(&mut self, span: u64, due: Due) {
        self.agenda.at(self.agenda.now + span, due);
    }

    /// The next thing that is due, or the device's timer where that comes first.
    fn step(&mut self) -> Result<()> {
        let timer = self.device.poll_timeout().map(|at| at.0);
        match (self.agenda.next_at(), timer) {
            (next, Some(timer)) if next.is_none_or(|next| timer < next) => {
                self.agenda.now = timer;
                self.device.handle_timeout(self.now());
            }
            _ => match self.agenda.pop() {
                Some(due) => self.happen(due)?,
                None => bail!("the session stands still after {} tokens", self.commits.len()),
            },
        }
        self.settle()
    }

    fn happen(&mut self, due: Due) -> Result<()> {
        match due {
            Due::Up(channel, bytes) => {
                let id = self.id.clone();
                self.deliver_up(0, &id, &channel, &bytes);
            }
            Due::Down(channel, bytes) => {
                self.radio.heard(self.agenda.now);
                self.deliver_down(0, channel, &bytes);
            }
            Due::Verified(job) => {
                let rows = self.models.verify(&job)?;
                self.verifier.handle_rows(job.id, Ok(&rows), self.now());
            }
            Due::Drafted(job) => self.drafted(&job)?,
        }
        Ok(())
    }

    /// The stop rule learns the drafter's time alone, as an agent measures it.
    fn drafted(&mut self, job: &DraftJob) -> Result<()> {
        let row = self.models.draft(job)?;
        let took = Duration(self.timing.draft_us(job));
        let draft = DraftRow { logits: &row.logits, attention: row.attention.as_deref(), took };
        let before = self.device.counters().drafted;
        self.device.handle_draft(job.id, draft, Instant(self.agenda.now));
        let scored = self.device.counters().drafted - before;
        self.account.score_us += self.timing.score_us() * scored;
        Ok(())
    }

    /// Takes what both machines want to have done.
    fn settle(&mut self) -> Result<()> {
        self.drain_device(0)?;
        self.drain_verifier(0)
    }

    fn carry(&mut self, kind: MessageKind, payload: usize) -> u64 {
        let mqtt = self.packets.bytes(kind, payload);
        let passage = self.timing.carry(kind.is_up(), mqtt, self.agenda.now);
        if kind.is_up() {
            self.radio.asked(self.agenda.now);
        }
        self.radio.busy_us += passage.up.busy_us + passage.down.busy_us;
        self.carried.push(Carried { kind, payload, mqtt, passage });
        passage.arrives_us
    }
}

/// One device and one verifier: neither needs a number.
impl LinkEnds for Quiet<'_> {
    type Error = Error;

    fn now(&self) -> Instant {
        Instant(self.agenda.now)
    }

    fn device(&mut self, _: usize) -> &mut Device {
        self.device
    }

    fn verifier(&mut self, _: usize) -> &mut Verifier {
        self.verifier
    }

    fn on_device_event(&mut self, _: usize, event: Event) -> Result<()> {
        match event {
            Event::Draft(job) => {
                let span = self.timing.draft_us(&job);
                self.account.draft_us += span;
                self.after(span + self.timing.score_us(), Due::Drafted(job));
            }
            Event::Committed(commit) => self.commits.push(commit),
            Event::Judged(judged) => self.fates.push(Fate::of(&judged)),
            Event::Finished(finish) => self.finish = Some(finish),
            _ => {}
        }
        Ok(())
    }

    fn on_verifier_event(&mut self, _: usize, event: verifier::Event) -> Result<()> {
        if let verifier::Event::Verify(job) = event {
            self.account.target_passes += 1;
            let fed = job.keep + job.tokens.len();
            self.account.target_tokens += fed.saturating_sub(self.prompt.max(job.keep)) as u64;
            self.after(self.timing.target_us(&job), Due::Verified(job));
        }
        Ok(())
    }

    fn send_up(&mut self, _: usize, message: Transmit) {
        let kind = match message.channel {
            Channel::Open(_) => MessageKind::Open,
            Channel::Frames(_) => kind_of(&message.bytes),
        };
        let arrives = self.carry(kind, message.bytes.len());
        self.agenda.at(arrives, Due::Up(message.channel, message.bytes.to_vec()));
    }

    fn send_down(&mut self, answer: Outgoing) {
        let kind = if answer.channel == Answer::Reply { MessageKind::Reply } else { MessageKind::Verdict };
        let arrives = self.carry(kind, answer.bytes.len());
        self.agenda.at(arrives, Due::Down(answer.channel, answer.bytes.to_vec()));
    }
}

fn kind_of(bytes: &[u8]) -> MessageKind {
    match Up::decode(bytes) {
        Ok(Up::Draft(_)) => MessageKind::Draft,
        Ok(Up::Context(_)) => MessageKind::Context,
        _ => MessageKind::Other,
    }
}

/// When the device's radio is up: from a message until its answer, and a while after.
#[derive(Debug, Default)]
struct RadioUse {
    tail_us: u64,
    /// The last message or answer.
    seen: u64,
    /// Whether an answer is missing.
    asked: bool,
    /// What is left of the while after an answer.
    tail_left: u64,
    up_us: u64,
    busy_us: u64,
}

impl RadioUse {
    fn asked(&mut self, now: u64) {
        self.pass(now);
        self.asked = true;
        self.tail_left = 0;
    }

    fn heard(&mut self, now: u64) {
        self.pass(now);
        self.asked = false;
        self.tail_left = self.tail_us;
    }

    fn pass(&mut self, now: u64) {
        let span = now - self.seen;
        let up = if self.asked { span } else { span.min(self.tail_left) };
        self.tail_left = self.tail_left.saturating_sub(up);
        self.up_us += up;
        self.seen = now;
    }

    /// The time it was up for nothing. What is left of the last tail passes behind the end of the reply, and
    /// its messages cost it all the same.
    fn off(&mut self, now: u64) -> u64 {
        self.pass(now);
        self.up_us += std::mem::take(&mut self.tail_left);
        self.up_us.saturating_sub(self.busy_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_radio_is_up_until_the_answer_and_a_while_after() {
        let mut radio = RadioUse { tail_us: 50, ..RadioUse::default() };
        radio.asked(100);
        radio.asked(110);
        radio.heard(200);
        // Asleep from 250 on, up again from 300 to 320, then the last tail.
        radio.asked(300);
        radio.heard(320);
        radio.busy_us = 15;
        assert_eq!(radio.off(320), 100 + 50 + 20 + 50 - 15);
    }

    #[test]
    fn a_tail_ends_with_the_next_message() {
        let mut radio = RadioUse { tail_us: 50, ..RadioUse::default() };
        radio.asked(0);
        radio.heard(10);
        radio.asked(30);
        radio.heard(40);
        assert_eq!(radio.off(45), 10 + 20 + 10 + 50);
        // Nothing was heard of the last one: no tail.
        let mut radio = RadioUse { tail_us: 50, ..RadioUse::default() };
        radio.asked(0);
        radio.heard(10);
        radio.asked(30);
        assert_eq!(radio.off(45), 10 + 20 + 15);
    }
}
