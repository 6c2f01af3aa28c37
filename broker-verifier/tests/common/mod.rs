//! A real broker, a verifier in this process, and a device made of raw frames.
#![allow(dead_code, unreachable_pub)] // each test program uses a part

use anyhow::Result;
use dunlin_link::raw::{RawClient, RawMessage};
use dunlin_lm::{Target, Toy};
use dunlin_mosquitto::{Mosquitto, SITE};
use dunlin_service::Service;
use dunlin_verifier::embedded::Embedded;
use dunlin_verifier::engine::TargetEngine;
use dunlin_verifier::{Config, Hooks, Report, Served, serve};
use dunlin_wire::topic::{Qos, Topic};
use dunlin_wire::{
    Close, Context, DeviceId, Down, Draft, DraftFrame, Open, PREFIX_EMPTY, Prefix, Reply, Rows,
    SamplingParams, Score, VerifierId, VerifierPresence, Vocabulary, token_bits,
};
use rustix::fs::inotify;
use std::fs::File;
use std::future::Future;
use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// Time limit of everything that a test waits for.
pub const DEADLINE: Duration = Duration::from_secs(20);
pub const VERIFIER: &str = "verifier-1";
pub const SEED: u64 = 11;
/// A first turn for the demo pair.
pub const PROMPT_TEXT: &str = "What is a plover?";
/// The toy's logits lie within 0 to 8, so at this temperature every token is likely enough to matter.
pub const TEMPERATURE: f32 = 1.0;

/// Waits for something that must happen.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .unwrap_or_else(|_| panic!("{what} took more than {DEADLINE:?}"))
}

/// Waits until `condition` gives a value, and looks again after each change of a file in `folder`.
pub fn until<T>(what: &str, folder: &Path, mut condition: impl FnMut() -> Option<T>) -> T {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
    let changes = inotify::WatchFlags::MODIFY | inotify::WatchFlags::MOVED_TO;
    inotify::add_watch(&watch, folder, changes).unwrap();
    let (changed, look) = channel();
    // It ends with the folder at the latest, whose end is a change too.
    thread::spawn(move || {
        let (mut watch, mut event) = (File::from(watch), [0; 4096]);
        while watch.read(&mut event).is_ok() && changed.send(()).is_ok() {}
    });
    let started = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        let left = DEADLINE.checked_sub(started.elapsed());
        let left = left.unwrap_or_else(|| panic!("{what} took more than {DEADLINE:?}"));
        // Where nothing changes any more, the last look is at the deadline.
        let _ = look.recv_timeout(left);
    }
}

/// Acts as a broker on `port` that disconnects `clients` clients, each after its CONNECT.
pub fn hang_up(port: u16, clients: usize) {
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    for _ in 0..clients {
        let (mut client, _) = listener.accept().unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        assert_ne!(client.read(&mut [0; 4096]).unwrap(), 0);
    }
}

/// Either broker.
pub enum Broker {
    Mosquitto(Mosquitto),
    Embedded(Embedded),
}

impl Broker {
    pub fn mosquitto() -> Self {
        Self::Mosquitto(Mosquitto::with(SITE))
    }

    pub fn embedded() -> Self {
        Self::Embedded(Embedded::start("127.0.0.1:0".parse().unwrap()).unwrap())
    }

    pub fn port(&self) -> u16 {
        match self {
            Self::Mosquitto(mosquitto) => mosquitto.port,
            Self::Embedded(embedded) => embedded.address().port(),
        }
    }
}

pub fn toy() -> Toy {
    Toy::new(5, 300, 0.5)
}

pub fn toy_vocabulary() -> Vocabulary {
    let lm = toy().target().vocabulary();
    Vocabulary { size: lm.size, fingerprint: lm.fingerprint }
}

pub fn config(port: u16) -> Config {
    Config { broker: format!("127.0.0.1:{port}").parse().unwrap(), ..Config::default() }
}

/// A verifier in this process.
pub struct Running {
    stop: mpsc::Sender<()>,
    pub task: JoinHandle<Result<Report>>,
}

impl Running {
    /// Starts a verifier and waits until it can answer.
    pub async fn start(config: Config, target: impl Target + 'static) -> Self {
        let (running, ready) = Self::begin(config, target);
        soon("the verifier", ready).await.unwrap();
        running
    }

    pub fn begin(config: Config, target: impl Target + 'static) -> (Self, oneshot::Receiver<()>) {
        Self::begin_with(config, TargetEngine::Rows(Box::new(target)))
    }

    pub fn begin_with(config: Config, target: TargetEngine) -> (Self, oneshot::Receiver<()>) {
        let (stop, stopped) = mpsc::channel(2);
        let (sender, ready) = oneshot::channel();
        let served =
            Served { target, name: "toy".into(), prefixes: Default::default(), measured: Default::default() };
        let announce = Box::new(move || {
            let _ = sender.send(());
            Ok(())
        });
        let (_, status) = mpsc::channel(1);
        let hooks = Hooks { stop: stopped, status, ready: announce, service: Service::unmanaged() };
        let task = tokio::spawn(async move { serve(&config, served, hooks).await });
        (Self { stop, task }, ready)
    }

    pub async fn stop(&self) {
        self.stop.send(()).await.unwrap();
    }

    /// Drains the verifier and returns its report.
    pub async fn drained(self) -> Report {
        self.stop().await;
        self.ended().await.unwrap()
    }

    pub async fn ended(self) -> Result<Report> {
        soon("the end", self.task).await.unwrap()
    }
}

/// An MQTT client that a test drives by hand.
pub struct Client(RawClient);

impl Client {
    /// Connects and subscribes to `filter`.
    pub async fn connect(port: u16, name: &str, filter: &str) -> Self {
        Self(RawClient::connect(port, name, &[filter]))
    }

    /// Publishes bytes on a topic, with the topic's QoS and retention and the properties of `like`.
    pub fn send(&self, topic: &Topic, bytes: &[u8], like: RawMessage) {
        let delivery = topic.delivery();
        let acknowledged = delivery.qos == Qos::AtLeastOnce;
        let (topic, payload) = (topic.name().as_str().to_owned(), bytes.to_vec());
        self.0.publish(RawMessage { topic, payload, acknowledged, retain: delivery.retain, ..like });
    }

    /// Publishes on any topic; waits while the client is busy.
    pub async fn post(&self, topic: &str, bytes: &[u8]) {
        soon("a publish", self.0.publish_in_turn(RawMessage::new(topic, bytes))).await;
    }

    /// Publishes a retained message; without bytes, removes it.
    pub async fn retain(&self, topic: &Topic, bytes: &[u8]) {
        self.0.publish(RawMessage { retain: true, ..RawMessage::new(topic.name(), bytes) });
    }

    pub async fn next(&mut self) -> RawMessage {
        soon("a message", self.0.next()).await.expect("the client is connected")
    }

    pub fn none_waits(&mut self) -> bool {
        self.0.try_next().is_none()
    }

    /// The next presence of the verifier that satisfies `wanted`.
    pub async fn presence(&mut self, wanted: impl Fn(&VerifierPresence) -> bool) -> VerifierPresence {
        loop {
            let presence = VerifierPresence::decode(&self.next().await.payload).unwrap();
            if wanted(&presence) {
                return presence;
            }
        }
    }
}

/// A device made by hand, with one session.
pub struct Device {
    pub id: DeviceId,
    pub client: Client,
    pub tokens: Vec<u32>,
    pub nonce: u64,
    pub vocabulary: Vocabulary,
    /// The verifier that it uses.
    pub verifier: VerifierId,
    round: u32,
}

impl Device {
    pub async fn connect(port: u16, name: &str) -> Self {
        let client = Client::connect(port, name, &format!("dl1/d/{name}/n/#")).await;
        let (id, vocabulary) = (name.parse().unwrap(), toy_vocabulary());
        let verifier = VERIFIER.parse().unwrap();
        Self { id, client, tokens: Vec::new(), nonce: 77, vocabulary, verifier, round: 0 }
    }

    pub fn open_message(&self) -> Open {
        Open {
            session: 1,
            epoch: 1,
            nonce: self.nonce,
            seed: SEED,
            sampling: SamplingParams { temperature: TEMPERATURE, top_p: 1.0, top_k: 0 },
            vocabulary: self.vocabulary,
            length: self.tokens.len() as u32,
        }
    }

    pub fn send_open(&self, like: RawMessage) {
        let bytes = self.open_message().encode().unwrap();
        self.client.send(&Topic::Open(self.id.clone(), self.verifier.clone()), &bytes, like);
    }

    pub async fn open(&mut self) -> Reply {
        self.send_open(RawMessage::default());
        self.reply().await
    }

    pub async fn reply(&mut self) -> Reply {
        let publish = self.client.next().await;
        assert_eq!(publish.topic, Topic::Reply(self.id.clone()).name().as_str());
        Reply::decode(&publish.payload).unwrap()
    }

    pub fn send_frame(&self, bytes: &[u8]) {
        let topic = Topic::Frames(self.id.clone(), self.verifier.clone());
        self.client.send(&topic, bytes, RawMessage::default());
    }

    /// Appends tokens to the text and sends them.
    pub fn say(&mut self, tokens: &[u32]) {
        let context = self.context(tokens);
        self.send_frame(&context);
    }

    /// Appends tokens to the text; returns the message that carries them.
    pub fn context(&mut self, tokens: &[u32]) -> Vec<u8> {
        let (session, epoch, token_bits) = (1, 1, token_bits(self.vocabulary.size));
        let (offset, prefix) = (self.tokens.len() as u32, prefix(&self.tokens));
        let chunk = tokens.iter().copied().collect();
        let context = Context { session, epoch, offset, prefix, token_bits, tokens: chunk };
        self.tokens.extend(tokens);
        context.encode().unwrap().to_vec()
    }

    /// The bytes of the next frame, with these drafts.
    pub fn frame(&mut self, drafts: &[u32]) -> Vec<u8> {
        self.round += 1;
        let score = Score::default();
        let drafts =
            drafts.iter().map(|token| Draft { token: *token, uncertainty: score, importance: score });
        let frame = DraftFrame {
            session: 1,
            epoch: 1,
            round: self.round,
            send: 1,
            base: self.tokens.len() as u32,
            prefix: prefix(&self.tokens),
            token_bits: token_bits(self.vocabulary.size),
            drafts: drafts.collect(),
            held: 0,
            bonus: true,
            rows: Rows::None,
            credit: None,
        };
        frame.encode().unwrap().to_vec()
    }

    pub fn close(&self) {
        self.send_frame(&Close { session: 1, epoch: 1 }.encode().unwrap());
    }

    /// The next message on the verdict topic.
    pub async fn down(&mut self) -> Down {
        let publish = self.client.next().await;
        assert_eq!(publish.topic, Topic::Verdicts(self.id.clone()).name().as_str());
        Down::decode(&publish.payload).unwrap()
    }

    /// Sends drafts and commits the verdict's tokens; returns the number of accepted drafts.
    pub async fn verify(&mut self, drafts: &[u32]) -> usize {
        let frame = self.frame(drafts);
        self.send_frame(&frame);
        let Down::Verdict(verdict) = self.down().await else { panic!("no verdict") };
        assert_eq!(verdict.round, self.round);
        self.tokens.extend(&drafts[..verdict.accepted.into()]);
        self.tokens.push(verdict.token);
        verdict.accepted.into()
    }
}

pub fn prefix(tokens: &[u32]) -> Prefix {
    tokens.iter().fold(PREFIX_EMPTY, |digest, token| digest.push(*token)).short()
}
