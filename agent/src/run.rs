//! The loop: the one place where the whole path of a token can be followed.
//!
//! In: link messages, the drafter's rows, timers, prompts. Out: jobs for the drafter's thread, messages for the link,
//! tokens for the output. The machine between the two makes every decision.

use crate::drafter::{Done, Worker};
use crate::link::{Link, LinkEvent};
use crate::memory::Memory;
use crate::notice::Notice;
use crate::output::Output;
use crate::provenance::{Provenance, Writer, other_target};
use crate::random;
use crate::stall::Stall;
use crate::status::{LinkState, StatusLog};
use crate::supervised::Supervised;
use crate::turn::{Ending, Phases, Turn};
use anyhow::Result;
use dunlin_hlm::TokenId;
use dunlin_hlm::device::{
    Commit, Device, DeviceConfig, DeviceCounters, DeviceEvent, Finish, Learned, LearnedRecord, Offline,
    Phase, PinnedTarget, ReplyLimits, SayError, SessionIdentity,
};
use dunlin_hlm::probabilities::Sampling;
use dunlin_hlm::time::Instant;
use dunlin_link::Traffic;
use dunlin_power::EnergyAccount;
use dunlin_power::clock::Clock;
use dunlin_power::phase::{ByPhase, EnergyPhase as Charged};
use dunlin_power::report::TurnEnergy;
use dunlin_wire::topic::Topic;
use dunlin_wire::{TargetId, VerifierId};
use std::ops::ControlFlow;
use tokio::sync::mpsc;
use tracing::{debug, error, warn};

/// A prompt, already in tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Say {
    /// The prompt's tokens, control tokens of its form included.
    pub tokens: Vec<TokenId>,
    /// The prompt as the first one of a session, for a session that has no room left; `None` to reject it then.
    pub first: Option<Vec<TokenId>>,
    /// Length limit of the reply, and the tokens that end it.
    pub reply: ReplyLimits,
    /// True to begin a new session with this prompt.
    pub new_session: bool,
}

/// A user's command other than a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// End the reply where it is.
    Cancel,
    /// The reply's time is up.
    TimedOut,
    /// End the agent.
    Quit,
    /// Log the status.
    LogStatus,
    /// Whose prompt it was may be gone: see whether the reply is still wanted.
    ClientGone,
}

/// The user's channels. A prompt waits until the previous reply is complete; a control doesn't.
pub struct User {
    /// Prompts.
    pub prompts: mpsc::Receiver<Say>,
    /// Controls.
    pub controls: mpsc::Receiver<Control>,
}

/// Settings shared by all sessions of the agent.
#[derive(Clone, Debug)]
pub struct SessionSettings {
    /// Settings of the machine.
    pub device: DeviceConfig,
    /// Settings of sampling.
    pub sampling: Sampling,
    /// The seed of every session; `None` for a random seed each.
    pub seed: Option<u64>,
    /// True to end the reply if the broker refuses the device, even if the machine would wait.
    pub ends_on_refusal: bool,
    /// The measured time of a drafted token, if the policy chooses by it.
    pub draft_time: Option<dunlin_hlm::time::Duration>,
    /// Ids from here on have no text at this device. A reply ends at the first of them, since it can't be shown.
    pub printable: u32,
}

/// The results of an agent that has ended.
#[derive(Debug)]
pub struct AgentOutcome {
    /// The counters of the last session's machine, its closing messages included.
    pub counters: DeviceCounters,
    /// The link's total traffic.
    pub traffic: Traffic,
    /// The energy meter, still running.
    pub energy: Box<EnergyAccount>,
}

/// The device: machine, drafter and link.
pub struct Agent {
    clock: Clock,
    seat: SessionSettings,
    device: Device,
    seed: u64,
    /// True to use a given seed only for the first session and the next number for each later one.
    reseeds: bool,
    /// Number of the current session. Rows that the drafter produced for an earlier session are ignored.
    session: u64,
    worker: Worker,
    link: Link,
    /// Boxed because its tables are large, and the builder methods move the agent.
    energy: Box<EnergyAccount>,
    stall: Stall,
    supervised: Supervised,
    status: StatusLog,
    turn: Option<Running>,
    /// A reply that has ended but still waits for its energy.
    ended: Option<Turn>,
    /// True if the drafted tokens behind the committed text may have changed since they were last shown.
    moved: bool,
    /// The last lease: its verifier and target.
    lessor: Option<(VerifierId, PinnedTarget)>,
    /// The newest energy report, while it waits for a verifier or for room.
    unsent_report: Option<Vec<u8>>,
    /// True once a target other than the session's first one has written in it.
    target_changed: bool,
    memory: Memory,
    /// The target with which the machine learned what it knows; `None` before the first lease.
    learned_with: Option<String>,
}

/// A reply in progress, with the counts at its start.
struct Running {
    started: Instant,
    tokens: Vec<TokenId>,
    micros: ByPhase<u64>,
    counters: DeviceCounters,
    traffic: Traffic,
    ending: Option<Ending>,
    /// Position of the reply's first token in the session's text.
    begin: usize,
    provenance: Provenance,
}

impl Agent {
    /// An agent with its first session.
    ///
    /// # Errors
    /// The system provides no random numbers, or a limit of the drafter exceeds the protocol's.
    pub fn new(seat: SessionSettings, worker: Worker, link: Link) -> Result<Self> {
        let energy = Box::new(EnergyAccount::unmetered(Charged::Idle));
        let session = new_session(&seat, 0)?;
        let seed = session.seed;
        let mut learned = Learned::default();
        if let Some(took) = seat.draft_time {
            learned.stop.start_at(took);
        }
        let device = Device::new(seat.device.clone(), session, learned)?;
        Ok(Self {
            clock: energy.clock(),
            seat,
            device,
            seed,
            reseeds: false,
            session: 0,
            worker,
            link,
            energy,
            stall: Stall::default(),
            supervised: Supervised::by_nobody(),
            status: StatusLog::default(),
            turn: None,
            ended: None,
            moved: false,
            lessor: None,
            unsent_report: None,
            target_changed: false,
            memory: Memory::default(),
            learned_with: None,
        })
    }

    /// Counts time and energy with `energy`.
    #[must_use]
    pub fn metered(self, energy: EnergyAccount) -> Self {
        Self { clock: energy.clock(), energy: Box::new(energy), ..self }
    }

    /// Gives each session its own seed: a given seed is counted up by one per session.
    #[must_use]
    pub fn reseeding(self) -> Self {
        Self { reseeds: true, ..self }
    }

    /// Goes on from what an earlier agent learned, and keeps what this one learns.
    #[must_use]
    pub fn remembering(mut self, memory: Memory) -> Self {
        // The target of the last time is probably the next one, too. Another one's lease corrects that.
        if let Some((target, learned)) = memory.latest() {
            self.learned_with = recall(&mut self.device, learned).then(|| target.to_owned());
        }
        Self { memory, ..self }
    }

    /// Reports the agent's health to a service manager.
    #[must_use]
    pub fn supervised(self, supervised: Supervised) -> Self {
        Self { supervised, ..self }
    }

    /// Logs the status at the end and every ten minutes.
    #[must_use]
    pub fn logging_status(self) -> Self {
        Self { status: StatusLog::logged(self.clock.now()), ..self }
    }

    /// Runs until the output or the user ends it, or no prompt can come any more; then disconnects.
    ///
    /// # Errors
    /// The drafter's thread ended.
    pub async fn run(mut self, user: &mut User, out: &mut dyn Output) -> Result<AgentOutcome> {
        while self.settle(out).is_continue() {
            self.supervised.pass(&self.worker, self.clock.now());
            if self.status.is_due(self.clock.now()) {
                self.log_status();
            }
            let machine = self.clock.deadline(self.device.poll_timeout());
            let stall = self.clock.deadline(self.stall.deadline());
            let meter = self.clock.deadline(self.energy.deadline(self.clock.now()));
            let manager = self.clock.deadline(self.supervised.deadline());
            let status = self.clock.deadline(self.status.deadline());
            tokio::select! {
                event = self.link.next() => self.on_link(event),
                done = self.worker.next() => self.on_draft(&done?),
                () = tokio::time::sleep_until(machine) => self.on_timeout(),
                () = tokio::time::sleep_until(stall) => self.on_stall(out),
                // The next three only start another pass: the work is done above and in `settle`.
                () = tokio::time::sleep_until(meter) => drop(self.wake()),
                () = tokio::time::sleep_until(manager) => drop(self.wake()),
                () = tokio::time::sleep_until(status) => drop(self.wake()),
                control = user.controls.recv() => {
                    // If the sender is gone, nobody could stop the agent later, so quit now.
                    if self.on_control(control.unwrap_or(Control::Quit), out).is_break() { break }
                }
                // A prompt stays in its channel while a reply runs or still waits for its energy.
                say = user.prompts.recv(), if self.turn.is_none() && self.ended.is_none() => {
                    let Some(say) = say else { break };
                    if self.on_say(&say, out)?.is_break() { break }
                }
            }
        }
        self.close_books(out);
        Ok(self.leave().await)
    }

    fn on_link(&mut self, event: LinkEvent) {
        let now = self.wake();
        match event {
            LinkEvent::Up => {
                self.stall.connected(now);
                self.supervised.connected();
                self.device.handle_link(true, now);
            }
            LinkEvent::Down(loss) => {
                // The machine would wait, but a refusal lasts until somebody changes the configuration.
                if loss.refused && self.ends_on_refusal() {
                    self.end(Ending::BrokerRefused(loss.reason.clone()));
                }
                self.supervised.lost(&loss);
                self.stall.disconnected(loss, now);
                self.device.handle_link(false, now);
            }
            LinkEvent::Reply(bytes) => self.device.handle_reply(&bytes, now),
            LinkEvent::Verdict(bytes) => self.device.handle_down(&bytes, now),
            LinkEvent::Presence(presences) => {
                for (verifier, bytes) in presences {
                    self.device.handle_presence(&verifier, &bytes, now);
                }
            }
            // The next `settle` sends what the machine kept back.
            LinkEvent::Room => {}
        }
    }

    fn on_draft(&mut self, done: &Done) {
        let now = self.wake();
        // The session was replaced while the drafter ran; the new machine doesn't know this job.
        if done.session != self.session {
            return;
        }
        self.moved = true;
        match done.last_row() {
            Ok(row) => self.device.handle_draft(done.id, row, now),
            Err(problem) => {
                error!("{problem}");
                if let Some(turn) = &mut self.turn {
                    // The machine learns only that the job failed, so keep the reason for the report.
                    turn.ending = Some(Ending::DrafterFailed(problem.to_string()));
                }
                self.device.handle_draft_failed(done.id, now);
            }
        }
    }

    fn on_timeout(&mut self) {
        let now = self.wake();
        self.device.handle_timeout(now);
    }

    fn on_stall(&mut self, out: &mut dyn Output) {
        let now = self.wake();
        // Offline, tokens are committed without a verifier, so nothing is missing.
        if self.device.phase() == Phase::Offline {
            return self.stall.moved_on(now);
        }
        if let Some(notice) = self.stall.notice(self.link.is_up(), self.is_waiting(), now) {
            out.notice(&notice);
        }
    }

    fn on_control(&mut self, control: Control, out: &mut dyn Output) -> ControlFlow<()> {
        self.wake();
        match control {
            Control::LogStatus => self.log_status(),
            Control::TimedOut => {
                let missing = self.stall.missing(self.link.is_up(), self.is_waiting());
                self.end(Ending::TimedOut(missing));
            }
            Control::Cancel | Control::Quit => self.device.cancel(),
            // The output is asked on each pass.
            Control::ClientGone => {}
        }
        if control != Control::Quit {
            return ControlFlow::Continue(());
        }
        // Show the end of the reply. The result is ignored because the agent ends in any case.
        let _ = self.settle(out);
        ControlFlow::Break(())
    }

    fn on_say(&mut self, say: &Say, out: &mut dyn Output) -> Result<ControlFlow<()>> {
        let now = self.wake();
        out.begin();
        if say.new_session && !self.device.text().is_empty() {
            self.renew()?;
        }
        let (micros, mut counters) = (self.energy.micros(), *self.device.counters());
        let traffic = self.link.traffic();
        let mut said = self.device.say(self.unsaid(say), say.reply.clone(), now);
        // A long chat must not end in a service that rejects every prompt.
        if let (Err(SayError::TooLong { limit, .. }), Some(first)) = (&said, &say.first)
            && first.len() < *limit
            && !self.device.text().is_empty()
        {
            self.renew()?;
            counters = *self.device.counters();
            said = self.device.say(first, say.reply.clone(), now);
            out.notice(&Notice::NewSession);
        }
        if let Err(error) = said {
            return Ok(out.rejected(&error));
        }
        self.energy.begin_reply(now);
        self.stall.begin(now);
        let mut provenance = Provenance::default();
        if self.target_changed {
            // Two targets wrote the text before this reply, so the same prompt and seed need not produce this reply
            // again.
            provenance.not_reproducible_from = Some(0);
        }
        self.turn = Some(Running {
            started: now,
            tokens: Vec::new(),
            micros,
            counters,
            traffic,
            ending: None,
            begin: self.device.text().len(),
            provenance,
        });
        Ok(ControlFlow::Continue(()))
    }

    /// The prompt's tokens. If the previous reply ended with the token that begins a turn, that token is left out.
    fn unsaid<'a>(&self, say: &'a Say) -> &'a [TokenId] {
        match (self.device.text().last(), say.tokens.as_slice()) {
            (Some(last), [first, rest @ ..]) if last == first && say.reply.stop.contains(last) => rest,
            (_, tokens) => tokens,
        }
    }

    /// Handles the machine's events until there are none, then updates the display, the link and the energy.
    fn settle(&mut self, out: &mut dyn Output) -> ControlFlow<()> {
        while let Some(event) = self.device.poll_event() {
            if self.on_event(event, out).is_break() {
                return ControlFlow::Break(());
            }
        }
        if self.turn.is_some() && !out.wanted() {
            self.device.cancel();
            // The end of the reply comes as an event, which empties `turn`.
            return self.settle(out);
        }
        if std::mem::take(&mut self.moved) {
            let provisional: Vec<TokenId> = self.device.provisional().collect();
            out.provisional(&provisional);
        }
        self.transmit();
        self.charge_ahead();
        self.tell_energy(out)
    }

    fn on_event(&mut self, event: DeviceEvent, out: &mut dyn Output) -> ControlFlow<()> {
        match event {
            DeviceEvent::Draft(job) => self.worker.run(self.session, job),
            DeviceEvent::Committed(commit) => self.on_commit(&commit, out),
            DeviceEvent::Finished(finish) => return self.on_finish(finish, out),
            DeviceEvent::Judged(judged) => out.judged(&judged),
            DeviceEvent::TargetChanged { position, model } => self.on_target_changed(position, model, out),
            DeviceEvent::Leased { verifier, target } => {
                self.turn_to(target.id);
                self.lessor = Some((verifier.clone(), target));
                out.leased(&verifier);
                self.supervised.leased(&verifier);
                self.stall.leased(verifier, self.clock.now());
            }
            DeviceEvent::Working => self.stall.works(self.clock.now()),
            DeviceEvent::Resynced => debug!("the verifier asked for context"),
            DeviceEvent::Waiting => debug!("nobody answers; waiting"),
            DeviceEvent::GaveUp => out.notice(&Notice::GaveUp),
            DeviceEvent::Returned => out.notice(&Notice::Returned),
            DeviceEvent::NoCredit => out.notice(&Notice::NoCredit),
            DeviceEvent::Contradicted { position } => out.notice(&Notice::Contradicted(position)),
            DeviceEvent::Malformed(error) => out.notice(&Notice::Malformed(error)),
        }
        ControlFlow::Continue(())
    }

    fn on_target_changed(&mut self, position: usize, model: bool, out: &mut dyn Output) {
        self.target_changed = true;
        let Some(running) = &mut self.turn else { return };
        let token = position.saturating_sub(running.begin);
        running.provenance.change(token, model);
        let writer = self.device.target().filter(|_| model).map(|target| target.id);
        let named = writer.and_then(|target| self.device.verifier_with(target));
        let named =
            named.map(|(verifier, presence)| format!("{} on {verifier}", presence.model.escape_debug()));
        out.notice(&Notice::TargetChanged(token, named.or_else(|| writer.map(|target| target.to_string()))));
    }

    fn on_commit(&mut self, commit: &Commit, out: &mut dyn Output) {
        self.moved = true;
        self.stall.moved_on(self.clock.now());
        let Some(turn) = &mut self.turn else { return };
        // What follows a token that can't be shown would read as if nothing were missing.
        if matches!(turn.ending, Some(Ending::UnknownToken(_))) {
            return;
        }
        if commit.token >= self.seat.printable {
            return self.end(Ending::UnknownToken(commit.token));
        }
        turn.tokens.push(commit.token);
        out.committed(commit);
    }

    fn on_finish(&mut self, finish: Finish, out: &mut dyn Output) -> ControlFlow<()> {
        let Some(running) = self.turn.take() else { return ControlFlow::Continue(()) };
        self.status.reply_ended();
        let now = self.clock.now();
        // Closes the current phase, so that the time until now belongs to this reply.
        self.energy.mark(Charged::Score, now);
        self.moved = false;
        self.stall.end();
        let counters = self.device.counters().since(&running.counters);
        self.energy.end_reply(&counters, now);
        if self.memory.is_due(now) {
            self.memory.keep(self.learned_with.as_deref(), &self.device, now);
        }
        let provenance = Provenance { writer: self.writer(&counters), ..running.provenance };
        let ending = running.ending.unwrap_or_else(|| self.ending(finish));
        let turn = Turn {
            provenance,
            seed: self.seed,
            tokens: running.tokens,
            ending,
            took: now.since(running.started),
            phases: Phases::between(&running.micros, &self.energy.micros()),
            counters,
            traffic: self.link.traffic().since(&running.traffic),
            prices: self.device.prices(),
            energy: None,
        };
        // The meter's readings come late, so the turn is finished once its energy is known.
        if self.energy.is_open() {
            self.ended = Some(turn);
            return ControlFlow::Continue(());
        }
        out.finished(&turn)
    }

    /// Converts the machine's reason for the end, and adds names that the machine doesn't have.
    fn ending(&self, finish: Finish) -> Ending {
        match finish {
            Finish::OtherTarget { ours, theirs } => {
                Ending::OtherModel(other_target(&self.device, ours, theirs))
            }
            finish => Ending::Machine(finish),
        }
    }

    /// The verifier of a reply with these counts; `None` if no verdict counted.
    fn writer(&self, counters: &DeviceCounters) -> Option<Writer> {
        let (verifier, target) = self.lessor.as_ref().filter(|_| counters.rounds > 0)?;
        Some(Writer::of(&self.device, verifier, *target))
    }

    /// Passes the machine's messages to the link while it has room.
    fn transmit(&mut self) {
        let now = self.clock.now();
        // In front of a request: what the broker retains then arrives before the answer.
        self.link.watch(self.device.presence_scope());
        // A message taken from the machine can't be given back, so take one only when there is room.
        while self.link.has_room() {
            let Some(message) = self.device.poll_transmit(now) else { break };
            self.energy.mark(Charged::Send, self.clock.now());
            self.link.send(message);
        }
    }

    /// Called before the loop waits: charges the coming time to the phase of the machine.
    fn charge_ahead(&mut self) {
        let charged = match self.device.phase() {
            Phase::Drafting | Phase::DraftingAhead | Phase::Offline => Charged::Draft,
            Phase::Waiting => Charged::Wait,
            Phase::Idle => Charged::Idle,
        };
        self.energy.mark(charged, self.clock.now());
    }

    /// Called when the loop wakes up: charges the time from now on to scoring.
    fn wake(&mut self) -> Instant {
        let now = self.clock.now();
        self.energy.mark(Charged::Score, now);
        now
    }

    /// Processes new measurements: prices for the machine, telemetry for the verifier, the energy of a reply that
    /// ended.
    fn tell_energy(&mut self, out: &mut dyn Output) -> ControlFlow<()> {
        let now = self.clock.now();
        self.energy.take_in(now);
        if let Some(prices) = self.energy.prices() {
            self.device.set_prices(prices);
        }
        if let Some(telemetry) = self.energy.poll_telemetry()
            && let Some((verifier, _)) = &self.lessor
            && let Ok(bytes) = telemetry.encode()
        {
            // Without room it is dropped: late telemetry is of no use.
            self.link.tell(Topic::Telemetry, verifier, &bytes);
        }
        self.report_energy();
        if self.ended.is_none() {
            return ControlFlow::Continue(());
        }
        match self.energy.poll_reply(now) {
            Some(energy) => self.finish_turn(Some(energy), out),
            None => ControlFlow::Continue(()),
        }
    }

    /// Sends the newest energy report to the verifier of the last lease, once there is one and the link has room.
    fn report_energy(&mut self) {
        if let (Some((verifier, _)), Some(bytes)) = (&self.lessor, &self.unsent_report)
            && self.link.tell(Topic::Energy, verifier, bytes)
        {
            self.unsent_report = None;
        }
    }

    fn finish_turn(&mut self, energy: Option<TurnEnergy>, out: &mut dyn Output) -> ControlFlow<()> {
        let Some(turn) = self.ended.take() else { return ControlFlow::Continue(()) };
        if let Some(report) = self.energy.poll_report()
            && let Ok(bytes) = report.encode()
        {
            // A newer report contains the sums of the one that still waits.
            self.unsent_report = Some(bytes.to_vec());
            self.report_energy();
        }
        out.finished(&Turn { energy, ..turn })
    }

    /// Finishes a reply that still waits for its energy when the agent ends, with the readings so far.
    fn close_books(&mut self, out: &mut dyn Output) {
        if self.ended.is_some() {
            let energy = self.energy.force_reply(self.clock.now());
            // The result is ignored because the agent ends in any case.
            let _ = self.finish_turn(energy, out);
        }
    }

    /// Knows from here on what was learned with this target. With a new one, the other's values are the best guess.
    fn turn_to(&mut self, target: TargetId) {
        let name = target.to_string();
        if self.learned_with.as_ref() == Some(&name) {
            return;
        }
        if let Some(other) = self.learned_with.replace(name) {
            self.memory.note(&other, self.device.record());
        }
        if let Some(learned) = self.memory.of(target) {
            recall(&mut self.device, learned);
        }
    }

    fn link_state(&self) -> LinkState {
        LinkState {
            up: self.link.is_up(),
            traffic: self.link.traffic(),
            oversize: self.link.oversize(),
            too_large: self.link.too_large(),
        }
    }

    fn log_status(&self) {
        let (counters, link) = (self.device.counters(), self.link_state());
        self.status.snapshot(counters, link, &self.energy, self.clock.now()).log();
    }

    fn is_waiting(&self) -> bool {
        self.device.phase() == Phase::Waiting
    }

    fn ends_on_refusal(&self) -> bool {
        self.seat.ends_on_refusal && self.seat.device.offline == Offline::Wait
    }

    /// Ends the reply for a reason outside the machine.
    fn end(&mut self, ending: Ending) {
        if let Some(turn) = &mut self.turn {
            turn.ending = Some(ending);
            self.device.cancel();
        }
    }

    /// Closes the session and begins another, which keeps the learned values.
    fn renew(&mut self) -> Result<()> {
        // The machine is replaced below, so send its closing message first.
        self.device.close();
        self.transmit();
        self.status.session_ended(self.device.counters());
        self.session += 1;
        let session = new_session(&self.seat, if self.reseeds { self.session } else { 0 })?;
        self.seed = session.seed;
        self.target_changed = false;
        self.device = Device::new(self.seat.device.clone(), session, self.device.learned())?;
        // A new machine assumes that the link is down.
        self.device.handle_link(self.link.is_up(), self.clock.now());
        Ok(())
    }

    async fn leave(mut self) -> AgentOutcome {
        // Release the lease before disconnecting, and measure until the connection is closed: the disconnect is part
        // of the cost.
        self.supervised.stopping();
        self.device.close();
        self.transmit();
        let counters = *self.device.counters();
        let link = self.link_state();
        let traffic = self.energy.during(self.link.close()).await;
        self.memory.keep(self.learned_with.as_deref(), &self.device, self.clock.now());
        if self.status.logs_end() {
            let link = LinkState { up: false, traffic, ..link };
            self.status.snapshot(&counters, link, &self.energy, self.clock.now()).log();
        }
        AgentOutcome { counters, traffic, energy: self.energy }
    }
}

/// True if the machine goes on from the record. A record that can't be right is reported.
fn recall(device: &mut Device, learned: &LearnedRecord) -> bool {
    let recalled = device.recall(learned);
    if let Err(error) = &recalled {
        warn!("what was learned before is not used: {error}");
    }
    recalled.is_ok()
}

/// A session with random number, epoch and nonce, so that others can't guess them; `step` is added to a given seed.
fn new_session(seat: &SessionSettings, step: u64) -> Result<SessionIdentity> {
    let identity = random::number()?.to_le_bytes();
    let nonce = random::number()?;
    let seed = seat.seed.map_or_else(random::number, |seed| Ok(seed.wrapping_add(step)))?;
    Ok(SessionIdentity { number: identity[0], epoch: identity[1], nonce, seed, sampling: seat.sampling })
}
