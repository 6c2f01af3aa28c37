//! One session over a link without faults. The models' rows are real; times are modelled.

use crate::mqtt::{self, MessageKind, Packets};
use crate::pump::{Agenda, LinkEnds};
use anyhow::{Error, Result, bail};
use dunlin_hlm::TokenId;
use dunlin_hlm::device::{
    Channel, Commit, Device, DeviceCounters, DeviceEvent, DraftJob, DraftRow, Finish, Judged, ReplyLimits,
    Transmit,
};
use dunlin_hlm::time::{Duration, Instant};
use dunlin_hlm::verifier::{self, Answer, OutgoingAnswer, Slot, Verifier, VerifyJob};
use dunlin_wire::{DeviceId, Price, Up};
use std::sync::Arc;

/// A model of durations and traffic; all times in modelled microseconds.
pub trait Timing {
    /// Duration of a run of the drafter.
    fn draft_us(&self, job: &DraftJob) -> u64;

    /// Duration of scoring one drafted token.
    fn score_us(&self) -> u64;

    /// Duration of a pass of the target.
    fn target_us(&mut self, job: &VerifyJob, now_us: u64) -> u64;

    /// The times that the verifier announces.
    fn price(&self) -> Price {
        Price::default()
    }

    /// The passage of a message of `bytes` MQTT bytes that is sent at `now_us`; called in the order of sending.
    fn carry(&mut self, up: bool, bytes: usize, now_us: u64) -> Passage;

    /// Time for which the radio stays up after an answer.
    fn tail_us(&self) -> u64;
}

/// The passage of a message over the link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passage {
    /// Time at which the other end receives it, µs.
    pub arrives_us: u64,
    /// Uplink traffic for it.
    pub up: Air,
    /// Downlink traffic for it.
    pub down: Air,
}

/// Traffic of one direction, acknowledgements and repetitions included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Air {
    /// Bytes with the headers below MQTT, without encryption.
    pub ip: usize,
    /// Bytes with encryption.
    pub tls: usize,
    /// Time in which the radio sent or received, µs.
    pub busy_us: u64,
}

/// A [`Timing`] of three constants.
#[derive(Clone, Copy, Debug)]
pub struct Costs {
    /// Time of the drafter per token, µs.
    pub draft_us: u64,
    /// Time of the target per pass, µs.
    pub target_us: u64,
    /// Delay of the link one way, µs.
    pub link_us: u64,
}

impl Timing for Costs {
    fn draft_us(&self, job: &DraftJob) -> u64 {
        self.draft_us * job.tokens.len() as u64
    }

    fn score_us(&self) -> u64 {
        0
    }

    fn target_us(&mut self, _: &VerifyJob, _: u64) -> u64 {
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
    /// Logits, one per vocabulary entry.
    pub logits: Arc<[f32]>,
    /// Attention, one weight per position.
    pub attention: Option<Arc<[f32]>>,
}

/// The two models.
pub trait Models {
    /// A session begins, whose prompt has so many tokens.
    fn begin(&mut self, _prompt: usize) {}
    /// The verifier needs nothing of this slot any more.
    fn release(&mut self, _slot: Slot) {}
    /// Runs the drafter; an error ends the session.
    fn draft(&mut self, job: &DraftJob) -> Result<DrafterRow>;
    /// Runs the target: `rows × vocabulary` logits.
    fn verify(&mut self, job: &VerifyJob) -> Result<Vec<f32>>;
}

/// A message as the link carried it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    /// Its kind.
    pub kind: MessageKind,
    /// Bytes of the message.
    pub payload: usize,
    /// Bytes of its MQTT packet.
    pub mqtt: usize,
    /// Its passage.
    pub passage: Passage,
}

/// A drafted token that a verdict confirmed or rejected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fate {
    /// Position in the session's text.
    pub position: usize,
    /// The drafter's uncertainty, 0..=1.
    pub uncertainty: f32,
    /// The token's importance, 0..=1.
    pub importance: f32,
    /// Mean of the recent importances, its own included.
    pub importance_mean: f64,
    /// True when the policy keeps it whatever the verdict.
    pub held: bool,
    /// True when the target would not have chosen it.
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

/// The modelled time of a session by activity, µs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeAccount {
    /// Time of the drafter.
    pub draft_us: u64,
    /// Time of scoring drafted tokens.
    pub score_us: u64,
    /// Time in which the radio was up without sending or receiving, while an answer was awaited or before it slept.
    pub wait_us: u64,
    /// Passes of the target.
    pub target_passes: u64,
    /// Tokens that the target was fed behind the prompt.
    pub target_tokens: u64,
}

/// The outcome of a session.
#[derive(Debug)]
pub struct SessionOutcome {
    /// The reply.
    pub commits: Vec<Commit>,
    /// The reason of its end.
    pub finish: Finish,
    /// The device's counters.
    pub counters: DeviceCounters,
    /// Every message.
    pub carried: Vec<Carried>,
    /// Every drafted token that a verdict confirmed or rejected.
    pub fates: Vec<Fate>,
    /// The time by activity.
    pub account: TimeAccount,
    /// Virtual time from the prompt to the end.
    pub took: Duration,
}

enum Due {
    Up(Channel, Vec<u8>),
    Down(Answer, Vec<u8>),
    Drafted(DraftJob),
    Verified(VerifyJob),
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
    /// Context that the target was asked to read, and that no frame needed yet.
    reading: Option<VerifyJob>,
    account: TimeAccount,
    finish: Option<Finish>,
}

/// Plays one turn of a device against a verifier until the reply ends.
///
/// # Errors
/// The device refuses the prompt, a model fails, or the two machines wait for each other.
pub fn play(
    device: &mut Device,
    verifier: &mut Verifier,
    models: &mut dyn Models,
    timing: &mut dyn Timing,
    prompt: &[TokenId],
    reply: ReplyLimits,
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
        reading: None,
        account: TimeAccount::default(),
        finish: None,
    };
    world.models.begin(prompt.len());
    let price = world.timing.price();
    world.verifier.set_price(price);
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

    /// Handles the next event, or the timer of one side if that is due first.
    fn step(&mut self) -> Result<()> {
        let timers = [self.device.poll_timeout(), self.verifier.poll_timeout()];
        let timer = timers.into_iter().flatten().map(|at| at.0).min();
        match (self.agenda.next_at(), timer) {
            (next, Some(timer)) if next.is_none_or(|next| timer < next) => {
                self.agenda.now = self.agenda.now.max(timer);
                self.device.handle_timeout(self.now());
                self.verifier.handle_timeout(self.now());
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
                self.deliver_down(0, channel, &bytes);
                self.radio.heard(self.agenda.now, self.device.awaits());
            }
            Due::Verified(job) => {
                let rows = self.models.verify(&job)?;
                self.verifier.handle_rows(job.id, Ok(&rows), self.now());
            }
            Due::Drafted(job) => self.drafted(&job)?,
        }
        Ok(())
    }

    /// Runs the drafter. The stop rule learns only the drafter's time, without scoring, as an agent measures it.
    fn drafted(&mut self, job: &DraftJob) -> Result<()> {
        let row = self.models.draft(job)?;
        let took = Duration(self.timing.draft_us(job));
        let draft =
            DraftRow { logits: &row.logits, attention: row.attention.as_deref(), took, refilled: false };
        let before = self.device.counters().drafted;
        self.device.handle_draft(job.id, draft, Instant(self.agenda.now));
        let scored = self.device.counters().drafted - before;
        self.account.score_us += self.timing.score_us() * scored;
        Ok(())
    }

    /// Carries out the actions of both machines.
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

/// There is one device and one verifier, so their numbers are ignored.
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

    fn on_device_event(&mut self, _: usize, event: DeviceEvent) -> Result<()> {
        match event {
            DeviceEvent::Draft(job) => {
                let span = self.timing.draft_us(&job);
                self.account.draft_us += span;
                self.after(span + self.timing.score_us(), Due::Drafted(job));
            }
            DeviceEvent::Committed(commit) => self.commits.push(commit),
            DeviceEvent::Judged(judged) => self.fates.push(Fate::of(&judged)),
            DeviceEvent::Finished(finish) => self.finish = Some(finish),
            _ => {}
        }
        Ok(())
    }

    fn on_verifier_event(&mut self, _: usize, event: verifier::VerifierEvent) -> Result<()> {
        match event {
            verifier::VerifierEvent::Verify(mut job) => {
                if let Some(read) = self.reading.take_if(|read| job.continues(read)) {
                    job = job.behind(&read);
                }
                // Context is read in the pass of the frame behind it.
                if job.rows == 0 {
                    let id = job.id;
                    self.reading = Some(job);
                    self.verifier.handle_rows(id, Ok(&[]), Instant(self.agenda.now));
                    return Ok(());
                }
                self.account.target_passes += 1;
                let fed = job.keep + job.tokens.len();
                self.account.target_tokens += fed.saturating_sub(self.prompt.max(job.keep)) as u64;
                let took = self.timing.target_us(&job, self.agenda.now);
                self.after(took, Due::Verified(job));
            }
            verifier::VerifierEvent::Release(slot) => {
                self.reading = self.reading.take().filter(|read| read.slot != slot);
                self.models.release(slot);
            }
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

    fn send_down(&mut self, answer: OutgoingAnswer) {
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

/// The time in which the device's radio is up: from a message until its answer, and for `tail_us` after it.
#[derive(Debug, Default)]
struct RadioUse {
    tail_us: u64,
    /// The last message or answer.
    seen: u64,
    /// True while an answer is awaited.
    asked: bool,
    /// Remaining time of the tail after an answer.
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

    fn heard(&mut self, now: u64, awaits: bool) {
        self.pass(now);
        self.asked = awaits;
        self.tail_left = self.tail_us;
    }

    fn pass(&mut self, now: u64) {
        let span = now - self.seen;
        let up = if self.asked { span } else { span.min(self.tail_left) };
        self.tail_left = self.tail_left.saturating_sub(up);
        self.up_us += up;
        self.seen = now;
    }

    /// The time in which it was up without sending or receiving. The rest of the last tail passes after the end of the
    /// reply, but it is caused by the reply's messages, so it counts.
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
        radio.heard(200, false);
        // The radio sleeps from 250 on, is up again from 300 to 320, and then for the last tail.
        radio.asked(300);
        radio.heard(320, false);
        radio.busy_us = 15;
        assert_eq!(radio.off(320), 100 + 50 + 20 + 50 - 15);
    }

    #[test]
    fn the_radio_stays_up_while_text_flows() {
        let mut radio = RadioUse { tail_us: 50, ..RadioUse::default() };
        radio.asked(0);
        radio.heard(100, true);
        radio.heard(400, false);
        assert_eq!(radio.off(400), 400 + 50);
    }

    #[test]
    fn a_tail_ends_with_the_next_message() {
        let mut radio = RadioUse { tail_us: 50, ..RadioUse::default() };
        radio.asked(0);
        radio.heard(10, false);
        radio.asked(30);
        radio.heard(40, false);
        assert_eq!(radio.off(45), 10 + 20 + 10 + 50);
        // The last message got no answer, so there is no tail.
        let mut radio = RadioUse { tail_us: 50, ..RadioUse::default() };
        radio.asked(0);
        radio.heard(10, false);
        radio.asked(30);
        assert_eq!(radio.off(45), 10 + 20 + 15);
    }
}
