//! The loop: shows the whole path of a frame, once and in order.
//!
//! Invariant: one thing at a time. The loop takes an event (a message, a finished batch, a timer, a signal), passes
//! it to the machine, and does what the machine requests. It waits nowhere else and decides nothing.

use crate::budget::{CacheBudget, MemoryWatch};
use crate::choices::ChosenBatch;
use crate::config::Config;
use crate::energy::EnergyCollector;
use crate::engine::TargetEngine;
use crate::link::{Link, LinkEvent, LinkOptions, Message};
use crate::load::AnnouncedLoad;
use crate::report::{End, Gauges, Report, TargetCounters};
use crate::setup::Setups;
use crate::worker::{Batch, WorkBounds};
use crate::workers::{EngineBatch, EngineWorker};
use anyhow::{Context, Result};
use dunlin_hlm::passes::{BATCH_JOBS_MAX, MeasuredPasses, PassPrices};
use dunlin_hlm::prefixes::Prefixes;
use dunlin_hlm::time::{Duration as Span, Instant as Now};
use dunlin_hlm::verifier::{
    Answer, OutgoingAnswer, RowsError, TargetDescription, Verifier, VerifierConfig, VerifierEvent,
};
use dunlin_link::GOODBYE_MAX;
use dunlin_service::Service;
use dunlin_status::Schedule;
use dunlin_wire::{TargetId, VerifierPresence, Vocabulary, fitting_name};
use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Work in the channel to the target's thread; beyond it, no messages are read from the link.
const WORK_MAX: usize = 256;
/// Maximum duration of one pass of the target: many sessions with long contexts, on a CPU.
const PASS_MAX: Span = Span::from_millis(600_000);
/// Sleep if no timer is set.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// The target, and the name it is announced under.
pub struct Served {
    /// The target.
    pub target: TargetEngine,
    /// Its name; a name that is too long for an announcement is cut off.
    pub name: String,
    /// Fingerprints of its vocabulary's beginnings.
    pub prefixes: Prefixes,
    /// Passes that were measured when it was loaded.
    pub measured: MeasuredPasses,
}

/// Channels and callbacks between the loop and its owner.
pub struct Hooks {
    /// The first message starts draining, the second ends at once.
    pub stop: mpsc::Receiver<()>,
    /// Each message requests a log of the status.
    pub status: mpsc::Receiver<()>,
    /// Called once, when devices can be served.
    pub ready: Box<dyn FnOnce() -> Result<()> + Send>,
    /// The service manager.
    pub service: Service,
}

/// Serves until it is stopped by `hooks.stop`.
///
/// # Errors
/// The configuration doesn't suit the target, the energy log can't be opened, the target's thread dies, or
/// `hooks.ready` fails.
pub async fn serve(config: &Config, served: Served, hooks: Hooks) -> Result<Report> {
    let mut serve = Serve::start(config, served, hooks)?;
    let end = loop {
        match serve.turn().await? {
            Turn::Next => {}
            Turn::Ended(end) => break end,
            Turn::TargetDied => return Err(serve.worker.died()),
        }
    };
    Ok(serve.finish(end).await)
}

/// The continuation after a turn.
enum Turn {
    Next,
    Ended(End),
    TargetDied,
}

struct Serve {
    machine: Verifier,
    link: Link,
    worker: EngineWorker,
    /// Work for which the target's thread had no room. While there is any, the link is not read.
    backlog: VecDeque<VerifierEvent>,
    stop: mpsc::Receiver<()>,
    status: mpsc::Receiver<()>,
    schedule: Schedule,
    connected: bool,
    ready: Option<Box<dyn FnOnce() -> Result<()> + Send>>,
    started: Instant,
    drain_max: Duration,
    drain_until: Option<Instant>,
    sessions_max: usize,
    /// Logits of a row.
    row_length: usize,
    load: AnnouncedLoad,
    target: TargetCounters,
    energy: EnergyCollector,
    service: Service,
    /// The broker and the model's name, for the service manager.
    place: String,
    setups: Setups,
    prices: PassPrices,
    /// The memory for caches, if they are here.
    budget: Option<CacheBudget>,
    memory: MemoryWatch,
}

impl Serve {
    fn start(config: &Config, served: Served, hooks: Hooks) -> Result<Self> {
        let lm = served.target.vocabulary();
        let vocabulary = Vocabulary { size: lm.size, fingerprint: lm.fingerprint };
        let budget = CacheBudget::of(config, &served.target);
        let machine = VerifierConfig {
            id: config.id.clone(),
            vocabulary,
            prefixes: served.prefixes.clone(),
            target: described(&served),
            context_tokens_max: config.served_context(served.target.context_max()) as u32,
            sessions_max: config.sessions,
            draft_tokens_max: config.draft_tokens_max,
            credit_tokens_max: config.credit_tokens_max,
            continuation_tokens: config.continuation_tokens,
            continuation_interval: Span::from_millis(config.continuation_ms),
            lossy: config.lossy,
            idle_max: Span::from_millis(config.idle_s * 1000),
        };
        let machine = Verifier::new(machine).context("the target doesn't suit the protocol")?;
        let mut machine = match &served.target {
            TargetEngine::Rows(_) => machine,
            TargetEngine::Choices(_) => machine.of_choices(),
        };
        let prices = PassPrices::of_measured(&served.measured);
        machine.set_price(prices.price());
        let energy = EnergyCollector::start(config.energy_log.as_deref())?;
        let link = Link::start(LinkOptions {
            connect: config.connect_options("dunlin-verifier")?,
            id: config.id.clone(),
            presence: machine.presence(),
        });
        let place = format!("the broker at {}, serving {}", config.broker, served.name);
        let mut service = hooks.service.patience(PASS_MAX);
        service.status(&format!("looking for {place}"));
        let now = Instant::now();
        // A session has one job at a time, so this many jobs wait only while sessions end.
        let jobs = config.sessions + BATCH_JOBS_MAX;
        let measured = served.measured;
        let bounds = WorkBounds { work: WORK_MAX, jobs, prefill: config.prefill_tokens, measured };
        Ok(Self {
            machine,
            link,
            worker: EngineWorker::start(served.target, bounds)?,
            backlog: VecDeque::new(),
            stop: hooks.stop,
            status: hooks.status,
            schedule: Schedule::start(Now(0)),
            connected: false,
            ready: Some(hooks.ready),
            started: now,
            drain_max: Duration::from_secs(config.drain_s),
            drain_until: None,
            sessions_max: config.sessions,
            row_length: vocabulary.size as usize,
            load: AnnouncedLoad::default(),
            target: TargetCounters::default(),
            energy,
            service,
            place,
            setups: Setups::default(),
            prices,
            budget,
            memory: MemoryWatch::default(),
        })
    }

    /// Handles one event, then does what the machine requests.
    async fn turn(&mut self) -> Result<Turn> {
        self.service.pass(self.worker.owed(), self.now());
        let wake = self.wake();
        tokio::select! {
            // Not reading the link while work waits bounds the backlog; further messages wait at the broker.
            event = self.link.next(), if self.backlog.is_empty() => {
                self.on_link(event.context("the MQTT client gave up")?)?;
            }
            batch = self.worker.next() => match batch {
                Some(EngineBatch::Rows(batch)) => self.on_batch(&batch),
                Some(EngineBatch::Choices(batch)) => self.on_choices(&batch),
                None => return Ok(Turn::TargetDied),
            },
            Some(()) = self.stop.recv() => {
                // The second request: end now and cut the remaining leases short.
                if self.drain_until.is_some() {
                    return Ok(Turn::Ended(End::CutShort));
                }
                self.drain();
            }
            Some(()) = self.status.recv() => self.log_status(),
            () = sleep_until(wake) => self.machine.handle_timeout(self.now()),
        }
        self.hand_work_over();
        self.publish_answers();
        self.announce_load();
        if let Some(budget) = self.budget {
            self.memory.look(self.machine.counters(), budget, self.started.elapsed());
        }
        if self.schedule.is_due(self.now()) {
            self.log_status();
        }
        Ok(self.ended())
    }

    /// Incoming: passes a message to the machine or to the logs.
    fn on_link(&mut self, event: LinkEvent) -> Result<()> {
        let now = self.now();
        match event {
            LinkEvent::Open { device, bytes, correlation } => {
                self.machine.handle_open(&device, &bytes, correlation, now);
            }
            LinkEvent::Frame { device, bytes } => self.machine.handle_frame(&device, &bytes, now),
            LinkEvent::Energy { device, bytes } => self.energy.handle_report(&device, &bytes, unix_time()),
            LinkEvent::Telemetry { device, bytes } => {
                self.energy.handle_telemetry(&device, &bytes, unix_time());
            }
            LinkEvent::Setup { device, bytes } => {
                self.setups.handle(&device, &bytes, self.started.elapsed());
            }
            LinkEvent::Up => {
                tracing::info!("connected and subscribed");
                self.connected = true;
                self.service.status(&format!("connected to {}", self.place));
                if let Some(ready) = self.ready.take() {
                    ready()?;
                }
            }
            LinkEvent::Down(reason) => {
                self.connected = false;
                tracing::warn!(%reason, "no broker; trying again until there is one");
                self.service.status(&format!("looking for {}: {reason}", self.place));
            }
        }
        Ok(())
    }

    /// Passes the machine's jobs to the target, as many as it accepts.
    fn hand_work_over(&mut self) {
        while let Some(work) = self.machine.poll_event() {
            self.backlog.push_back(work);
        }
        while let Some(work) = self.backlog.pop_front() {
            if let Err(work) = self.worker.push(work) {
                self.backlog.push_front(work);
                return;
            }
        }
    }

    /// Passes the target's rows to the machine, which makes verdicts of them.
    fn on_batch(&mut self, batch: &Batch) {
        self.target.count(batch);
        let span = |time: Duration| Span(time.as_micros() as u64);
        self.prices.observe(batch.size, span(batch.took), span(batch.waited));
        self.machine.set_price(self.prices.price());
        let now = self.now();
        for id in &batch.dropped {
            self.machine.handle_rows(*id, Ok(&[]), now);
        }
        // A text that goes on asks for its next row at once, so it is read before the next pass begins. Frames are read
        // during that pass: their devices answer only after a round trip.
        let (texts, frames): (Vec<_>, Vec<_>) =
            batch.rows.iter().partition(|(_, rows)| self.is_one_row(rows));
        for (id, rows) in texts {
            self.machine.handle_rows(*id, rows.as_deref().map_err(|error| *error), now);
        }
        self.hand_work_over();
        self.worker.hand_over();
        for (id, rows) in frames {
            self.machine.handle_rows(*id, rows.as_deref().map_err(|error| *error), now);
        }
    }

    /// Passes a server's choices to the machine, which makes a verdict of them.
    fn on_choices(&mut self, batch: &ChosenBatch) {
        self.target.batches += 1;
        self.target.jobs += 1;
        self.target.took += batch.took;
        let span = |time: Duration| Span(time.as_micros() as u64);
        self.prices.observe(batch.size, span(batch.took), span(batch.waited));
        self.machine.set_price(self.prices.price());
        let choices = batch.choices.as_deref().map_err(|error| *error);
        self.machine.handle_choices(batch.id, choices, self.now());
    }

    fn is_one_row(&self, rows: &Result<Vec<f32>, RowsError>) -> bool {
        rows.as_ref().is_ok_and(|rows| rows.len() <= self.row_length)
    }

    /// Outgoing: publishes the machine's answers, each on its device's own topic.
    fn publish_answers(&mut self) {
        while let Some(OutgoingAnswer { device, channel, correlation, bytes }) = self.machine.poll_transmit()
        {
            let bytes = bytes.to_vec();
            self.link.publish(match channel {
                Answer::Verdict => Message::Verdict { device, bytes },
                Answer::Reply => {
                    Message::Reply { device, bytes, correlation: correlation.map(|data| data.to_vec()) }
                }
            });
        }
    }

    /// Announces a changed load once that is due.
    fn announce_load(&mut self) {
        if self.load.due(self.machine.load()).is_some_and(|due| due <= self.now()) {
            self.announce();
        }
    }

    fn announce(&mut self) {
        let VerifierPresence { load, draining, price, .. } = self.machine.presence();
        self.load.announced(load, self.now());
        self.link.announce(|announced| {
            (announced.load, announced.draining, announced.price) = (load, draining, price);
        });
    }

    /// Announces that this verifier is draining, and ends every lease that isn't being verified.
    fn drain(&mut self) {
        tracing::info!(sessions = self.machine.sessions(), "draining; a second signal ends at once");
        self.service.stopping();
        self.drain_until = Some(Instant::now() + self.drain_max);
        self.machine.drain();
        self.announce();
    }

    fn ended(&self) -> Turn {
        match self.drain_until {
            Some(_) if self.machine.is_drained() => Turn::Ended(End::Drained),
            Some(until) if Instant::now() >= until => Turn::Ended(End::CutShort),
            _ => Turn::Next,
        }
    }

    /// The time of the next timer.
    fn wake(&self) -> Instant {
        let on_clock = |at: Now| self.started + Duration::from_micros(at.0);
        let idle = self.machine.poll_timeout().map(on_clock);
        let manager = self.service.deadline().map(on_clock);
        let announce = self.load.due(self.machine.load()).map(on_clock);
        let status = Some(on_clock(self.schedule.deadline()));
        let timers = [idle, manager, announce, status, self.drain_until];
        timers.into_iter().flatten().min().unwrap_or_else(|| Instant::now() + NEVER)
    }

    fn now(&self) -> Now {
        Now(self.started.elapsed().as_micros() as u64)
    }

    fn report(&self, end: End) -> Report {
        let (protocol, target) = (*self.machine.counters(), self.target);
        let (link, energy) = (self.link.counters(), self.energy.counters());
        Report { end, protocol, link, target, energy, setup: self.setups.counters() }
    }

    fn gauges(&self) -> Gauges {
        let sessions = self.machine.sessions();
        let slots_free = self.sessions_max.saturating_sub(sessions);
        Gauges { up: self.started.elapsed(), sessions, slots_free, connected: self.connected }
    }

    fn log_status(&self) {
        self.report(End::CutShort).snapshot(self.gauges()).log();
    }

    /// Disconnects, and returns the report.
    async fn finish(self, end: End) -> Report {
        let (report, gauges) = (self.report(end), Gauges { connected: false, ..self.gauges() });
        let sent = self.link.close(GOODBYE_MAX).await;
        let report = if sent { report } else { Report { end: End::CutShort, ..report } };
        report.snapshot(gauges).log();
        report
    }
}

/// The target's identity and promise, shortened to fit the protocol.
fn described(served: &Served) -> TargetDescription {
    let identity = served.target.identity();
    TargetDescription {
        id: TargetId::new(&identity.weights, &identity.numerics_digest()),
        promise: served.target.promise(),
        coupling: served.target.coupling(),
        model: fitting_name(&served.name),
        engine: fitting_name(&identity.engine),
        numerics: fitting_name(&identity.numerics),
    }
}

/// The time since 1970; 0 if the clock shows an earlier date.
fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
