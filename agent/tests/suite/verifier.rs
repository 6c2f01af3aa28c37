//! A verifier in a thread: the real machine with a given target, on a real connection.

use dunlin_hlm::coupling::couple;
use dunlin_hlm::probabilities::{Distribution, Sampling};
use dunlin_hlm::time::{Duration, Instant};
use dunlin_hlm::verifier::{
    Answer, RowsError, Slot, TargetDescription, Verifier, VerifierConfig, VerifierEvent, VerifyJob,
};
use dunlin_link::raw::{RawClient, RawEvent, RawMessage};
use dunlin_lm::{Extend, SessionId, Target};
use dunlin_wire::topic::{Topic, frames_filter, open_filter};
use dunlin_wire::{CouplingProfile, DeviceId, Promise, TargetId, VerifierId, VerifierPresence, Vocabulary};
use std::collections::BTreeMap;
use std::sync::mpsc::{Sender, channel};
use tokio::sync::oneshot;

/// A running verifier; it stops when dropped.
pub(crate) struct Scripted {
    _stop: oneshot::Sender<()>,
}

/// The misbehaviour of a verifier.
#[derive(Clone, Copy, Default)]
pub(crate) struct Plan {
    /// Sends malformed bytes before every answer, on the answer's topic.
    pub(crate) garbage: bool,
    /// Stops answering after this many messages on its frame topic.
    pub(crate) frames_max: Option<usize>,
}

struct Shell {
    machine: Verifier,
    target: Box<dyn Target>,
    sessions: BTreeMap<Slot, SessionId>,
    client: RawClient,
    presence: VerifierPresence,
    plan: Plan,
    frames: usize,
}

/// Starts a verifier; returns once it is subscribed.
pub(crate) fn start(port: u16, target: Box<dyn Target>, plan: Plan) -> Scripted {
    let (stop, stopped) = oneshot::channel();
    let (ready, is_ready) = channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            tokio::select! {
                () = serve(port, target, plan, ready) => {}
                _ = stopped => {}
            }
        });
    });
    is_ready.recv().unwrap();
    Scripted { _stop: stop }
}

pub(crate) fn id() -> VerifierId {
    "v1".parse().unwrap()
}

async fn serve(port: u16, target: Box<dyn Target>, plan: Plan, ready: Sender<()>) {
    let described = target.vocabulary();
    let vocabulary = Vocabulary { size: described.size, fingerprint: described.fingerprint };
    let config = VerifierConfig {
        id: id(),
        vocabulary,
        prefixes: Default::default(),
        target: TargetDescription {
            id: TargetId::from_bytes([1; 8]),
            promise: Promise::Exact,
            coupling: CouplingProfile::SplitMix,
            model: "scripted".try_into().unwrap(),
            engine: "scripted".try_into().unwrap(),
            numerics: "bits".try_into().unwrap(),
        },
        context_tokens_max: target.context_max() as u32,
        sessions_max: 4,
        draft_tokens_max: 16,
        credit_tokens_max: 64,
        continuation_tokens: 8,
        continuation_interval: Duration::from_millis(100),
        lossy: true,
        idle_max: Duration::from_millis(600_000),
    };
    let client = RawClient::persistent(port, "v1", &[&open_filter(&id()), &frames_filter(&id())]);
    let machine = Verifier::new(config).unwrap();
    let presence = VerifierPresence { generation: 1, ..machine.presence() };
    let mut shell = Shell { machine, target, sessions: BTreeMap::new(), client, presence, plan, frames: 0 };
    shell.run(&ready).await;
}

impl Shell {
    /// Announces itself on every connection.
    async fn run(&mut self, ready: &Sender<()>) {
        self.announce();
        ready.send(()).unwrap();
        while let Some(event) = self.client.event().await {
            match event {
                RawEvent::Subscribed => self.announce(),
                RawEvent::Message(message) => self.take(&message),
            }
        }
    }

    fn announce(&mut self) {
        let (name, bytes) = (Topic::VerifierPresence(id()).name(), self.presence.encode().unwrap());
        self.client.publish(RawMessage { retain: true, ..RawMessage::new(name, bytes.to_vec()) });
    }

    fn take(&mut self, message: &RawMessage) {
        let now = Instant(0);
        match Topic::parse(&message.topic) {
            Some(Topic::Open(device, _)) => {
                let reply = Topic::Reply(device.clone()).name();
                assert_eq!(message.response_topic.as_deref(), Some(reply.as_str()));
                assert!(message.correlation.is_some());
                assert!(message.expiry_seconds.is_some_and(|seconds| seconds <= 5));
                self.machine.handle_open(&device, &message.payload, None, now);
            }
            Some(Topic::Frames(device, _)) => {
                self.frames += 1;
                if self.plan.frames_max.is_none_or(|max| self.frames <= max) {
                    self.machine.handle_frame(&device, &message.payload, now);
                }
            }
            other => panic!("a message on {other:?}"),
        }
        self.settle();
    }

    fn settle(&mut self) {
        loop {
            if let Some(event) = self.machine.poll_event() {
                self.obey(event);
            } else if let Some(outgoing) = self.machine.poll_transmit() {
                self.send(&outgoing.device, outgoing.channel, &outgoing.bytes);
            } else {
                return;
            }
        }
    }

    fn obey(&mut self, event: VerifierEvent) {
        match event {
            VerifierEvent::Release(slot) => {
                if let Some(session) = self.sessions.remove(&slot) {
                    self.target.close(session);
                }
            }
            VerifierEvent::Verify(job) => {
                let rows = self.rows(&job);
                let rows = rows.as_ref().map(Vec::as_slice).map_err(|_| RowsError::Failed);
                self.machine.handle_rows(job.id, rows, Instant(0));
            }
        }
    }

    fn rows(&mut self, job: &VerifyJob) -> Result<Vec<f32>, dunlin_lm::Error> {
        let target = &mut self.target;
        let session = *self.sessions.entry(job.slot).or_insert_with(|| target.open().unwrap());
        let part = Extend { session, keep: job.keep, tokens: &job.tokens, rows: job.rows };
        target.extend(&[part]).remove(0)
    }

    fn send(&self, device: &DeviceId, answer: Answer, bytes: &[u8]) {
        let (topic, acknowledged) = match answer {
            Answer::Reply => (Topic::Reply(device.clone()), true),
            Answer::Verdict => (Topic::Verdicts(device.clone()), false),
        };
        let message = |bytes: &[u8]| RawMessage { acknowledged, ..RawMessage::new(topic.name(), bytes) };
        if self.plan.garbage {
            let cut = [&[], &bytes[..bytes.len() - 1], &[0xff; 200][..]];
            cut.into_iter().for_each(|wrong| self.client.publish(message(wrong)));
        }
        self.client.publish(message(bytes));
    }
}

/// The target alone, without the protocol.
pub(crate) struct Alone {
    pub(crate) target: Box<dyn Target>,
    pub(crate) sampling: Sampling,
    pub(crate) seed: u64,
    pub(crate) text: Vec<u32>,
    session: SessionId,
}

impl Alone {
    pub(crate) fn new(mut target: Box<dyn Target>, sampling: Sampling, seed: u64) -> Self {
        let session = target.open().unwrap();
        Self { target, sampling, seed, text: Vec::new(), session }
    }

    /// The tokens that it writes after the text so far and `prompt`: up to `max` tokens or the first of `stop`.
    pub(crate) fn reply(&mut self, prompt: &[u32], max: usize, stop: &[u32]) -> Vec<u32> {
        self.text.extend_from_slice(prompt);
        let from = self.text.len();
        while self.text.len() - from < max {
            let token = self.next();
            self.text.push(token);
            if stop.contains(&token) {
                break;
            }
        }
        self.text[from..].to_vec()
    }

    /// The token that it chooses after the text so far.
    pub(crate) fn next(&mut self) -> u32 {
        let keep = self.target.len(self.session).unwrap().min(self.text.len() - 1);
        let part = Extend { session: self.session, keep, tokens: &self.text[keep..], rows: 1 };
        let row = self.target.extend(&[part]).remove(0).unwrap();
        let distribution = Distribution::from_logits(&row, &self.sampling).unwrap();
        couple(&distribution, self.seed, self.text.len() as u64)
    }
}
