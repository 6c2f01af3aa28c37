//! A verifier in a thread: the real machine over a given target, on a real connection.

use dunlin_hlm::coupling::couple;
use dunlin_hlm::probabilities::{Distribution, Sampling};
use dunlin_hlm::time::{Duration, Instant};
use dunlin_hlm::verifier::{Answer, Event, Job, RowsError, Slot, Verifier, VerifierConfig};
use dunlin_lm::{Extend, SessionId, Target};
use dunlin_wire::topic::{OPEN_FILTER, Topic, frames_filter};
use dunlin_wire::{DeviceId, Liveness, VerifierId, VerifierPresence, Vocabulary};
use rumqttc::NetworkOptions;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, Packet, Publish};
use rumqttc::v5::{AsyncClient, EventLoop, MqttOptions};
use std::collections::BTreeMap;
use std::sync::mpsc::{Sender, channel};
use tokio::sync::oneshot;

/// A running verifier; gone when dropped.
pub(crate) struct Scripted {
    _stop: oneshot::Sender<()>,
}

/// What is unusual about a verifier.
#[derive(Clone, Copy, Default)]
pub(crate) struct Plan {
    /// Every answer is preceded by bytes that are no message, on its topic.
    pub(crate) garbage: bool,
    /// It falls silent after so many messages on its frame topic.
    pub(crate) frames_max: Option<usize>,
}

struct Shell {
    machine: Verifier,
    target: Box<dyn Target>,
    sessions: BTreeMap<Slot, SessionId>,
    client: AsyncClient,
    presence: VerifierPresence,
    plan: Plan,
    frames: usize,
}

/// Starts a verifier and returns when it is subscribed.
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

fn id() -> VerifierId {
    "v1".parse().unwrap()
}

async fn serve(port: u16, target: Box<dyn Target>, plan: Plan, ready: Sender<()>) {
    let described = target.vocabulary();
    let vocabulary = Vocabulary { size: described.size, fingerprint: described.fingerprint };
    let config = VerifierConfig {
        id: id(),
        vocabulary,
        context_tokens_max: target.context_max() as u32,
        sessions_max: 4,
        draft_tokens_max: 16,
        lossy: true,
        idle_max: Duration::from_millis(600_000),
    };
    let mut options = MqttOptions::new("v1", "127.0.0.1", port);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    let (client, events) = AsyncClient::new(options, 256);
    let presence = VerifierPresence {
        generation: 1,
        liveness: Liveness::Here,
        vocabulary,
        model: "scripted".try_into().unwrap(),
        slots_free: 4,
        draining: false,
    };
    let machine = Verifier::new(config).unwrap();
    let mut shell = Shell { machine, target, sessions: BTreeMap::new(), client, presence, plan, frames: 0 };
    shell.run(events, &ready).await;
}

impl Shell {
    async fn run(&mut self, mut events: EventLoop, ready: &Sender<()>) {
        loop {
            match events.poll().await {
                Ok(rumqttc::v5::Event::Incoming(packet)) => self.hear(packet, ready),
                Ok(_) => {}
                // The library tries again at once and for ever.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            }
        }
    }

    fn hear(&mut self, packet: Packet, ready: &Sender<()>) {
        match packet {
            Packet::ConnAck(_) => {
                let filters =
                    [OPEN_FILTER, frames_filter(&id()).as_str()].map(|f| Filter::new(f, QoS::AtLeastOnce));
                self.client.try_subscribe_many(filters).unwrap();
                let bytes = self.presence.encode().unwrap().to_vec();
                let name = Topic::VerifierPresence(id()).name();
                self.client.try_publish(name.as_str(), QoS::AtLeastOnce, true, bytes).unwrap();
            }
            Packet::SubAck(_) => drop(ready.send(())),
            Packet::Publish(publish) => self.take(&publish),
            _ => {}
        }
    }

    fn take(&mut self, publish: &Publish) {
        let now = Instant(0);
        match Topic::parse(std::str::from_utf8(&publish.topic).unwrap()) {
            Some(Topic::Open(device)) => {
                let properties = publish.properties.as_ref().unwrap();
                let reply = Topic::Reply(device.clone()).name();
                assert_eq!(properties.response_topic.as_deref(), Some(reply.as_str()));
                assert!(properties.correlation_data.is_some());
                assert!(properties.message_expiry_interval.is_some_and(|seconds| seconds <= 5));
                self.machine.handle_open(&device, &publish.payload, now);
            }
            Some(Topic::Frames(device, _)) => {
                self.frames += 1;
                if self.plan.frames_max.is_none_or(|max| self.frames <= max) {
                    self.machine.handle_frame(&device, &publish.payload, now);
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

    fn obey(&mut self, event: Event) {
        match event {
            Event::Release(slot) => {
                if let Some(session) = self.sessions.remove(&slot) {
                    self.target.close(session);
                }
            }
            Event::Verify(job) => {
                let rows = self.rows(&job);
                let rows = rows.as_ref().map(Vec::as_slice).map_err(|_| RowsError::Failed);
                self.machine.handle_rows(job.id, rows, Instant(0));
            }
        }
    }

    fn rows(&mut self, job: &Job) -> Result<Vec<f32>, dunlin_lm::Error> {
        let target = &mut self.target;
        let session = *self.sessions.entry(job.slot).or_insert_with(|| target.open().unwrap());
        let part = Extend { session, keep: job.keep, tokens: &job.tokens, rows: job.rows };
        target.extend(&[part]).remove(0)
    }

    fn send(&self, device: &DeviceId, answer: Answer, bytes: &[u8]) {
        let (topic, qos) = match answer {
            Answer::Reply => (Topic::Reply(device.clone()), QoS::AtLeastOnce),
            Answer::Verdict => (Topic::Verdicts(device.clone()), QoS::AtMostOnce),
        };
        if self.plan.garbage {
            let cut = [&[], &bytes[..bytes.len() - 1], &[0xff; 200][..]];
            for wrong in cut {
                self.client.try_publish(topic.name().as_str(), qos, false, wrong.to_vec()).unwrap();
            }
        }
        self.client.try_publish(topic.name().as_str(), qos, false, bytes.to_vec()).unwrap();
    }
}

/// The target alone, with no protocol: what it writes behind a text.
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

    /// What it writes behind the text so far and `prompt`: up to `max` tokens or the first of `stop`.
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

    /// Its choice behind the text so far.
    pub(crate) fn next(&mut self) -> u32 {
        let keep = self.target.len(self.session).unwrap().min(self.text.len() - 1);
        let part = Extend { session: self.session, keep, tokens: &self.text[keep..], rows: 1 };
        let row = self.target.extend(&[part]).remove(0).unwrap();
        let distribution = Distribution::from_logits(&row, &self.sampling).unwrap();
        couple(&distribution, self.seed, self.text.len() as u64)
    }
}
