//! A verifier between a real broker and a device made of raw frames.

#![allow(clippy::unwrap_used)] // applies to the tests' helpers, too

mod common;

use common::{Broker, Client, Device, Running, SEED, TEMPERATURE, VERIFIER, config, hang_up, soon, toy};
use dunlin_hlm::probabilities::Sampling;
use dunlin_link::probe;
use dunlin_link::raw::RawMessage;
use dunlin_lm::{Extend, Target, ToyTarget, WithExtend};
use dunlin_mosquitto::{DEFAULTS, Mosquitto, MosquittoOptions, SITE, free_port};
use dunlin_verifier::reference::{Request, write};
use dunlin_verifier::{Config, End};
use dunlin_wire::limits::FRAME_BYTES_MAX;
use dunlin_wire::{CloseReason, Closed, Down, Lease, Liveness, Refusal, RefusalReason, Reply, frame_digest};
use std::collections::BTreeSet;
use std::sync::mpsc;

const PROMPT: [u32; 4] = [3, 1, 4, 1];
const PRESENCE: &str = "dl1/v/verifier-1/st";

/// The tokens that the target alone writes after the prompt.
fn reference(tokens_max: usize) -> Vec<u32> {
    let sampling = Sampling::new(TEMPERATURE, 1.0, 0).unwrap();
    let request = Request { prompt: PROMPT.to_vec(), tokens_max, stop: Vec::new(), sampling, seed: SEED };
    write(&mut toy().target(), &request).unwrap().0
}

async fn leased(broker: &Broker, name: &str) -> Device {
    let mut device = Device::connect(broker.port(), name).await;
    let Reply::Lease(Lease { length: 0, .. }) = device.open().await else { panic!("no lease") };
    device.say(&PROMPT);
    device
}

async fn a_session_gives_the_targets_own_text(broker: Broker) {
    let running = Running::start(config(broker.port()), toy().target()).await;
    let mut device = leased(&broker, "d1").await;
    let text = reference(8);
    assert_eq!(device.verify(&text[..3]).await, 3);
    let wrong = (text[4] + 1) % 300;
    assert_eq!(device.verify(&[wrong, 0]).await, 0);
    assert_eq!(device.verify(&[]).await, 0);
    assert_eq!(device.verify(&text[6..7]).await, 1);
    assert_eq!(device.tokens[PROMPT.len()..], text);
    let report = running.drained().await;
    assert_eq!(report.end, End::Drained);
    assert_eq!((report.protocol.frames, report.protocol.verdicts), (4, 4));
    assert_eq!((report.target.batches, report.target.jobs), (4, 4));
    assert_eq!(report.link.aliased, 4, "the first verdict binds the alias, the lease's end uses it too");
}

#[tokio::test]
async fn a_session_over_mosquitto() {
    a_session_gives_the_targets_own_text(Broker::mosquitto()).await;
}

#[tokio::test]
async fn a_session_over_the_embedded_broker() {
    a_session_gives_the_targets_own_text(Broker::embedded()).await;
}

async fn a_frame_sent_again_gets_the_same_answer(broker: Broker) {
    let running = Running::start(config(broker.port()), toy().target()).await;
    let mut device = leased(&broker, "d1").await;
    let frame = device.frame(&[7, 8]);
    let mut answers = Vec::new();
    for _ in 0..3 {
        device.send_frame(&frame);
        answers.push(device.down().await);
    }
    assert!(matches!(answers[0], Down::Verdict(_)));
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    let report = running.drained().await;
    assert_eq!((report.protocol.verdicts, report.protocol.repeated, report.target.jobs), (1, 2, 1));
}

#[tokio::test]
async fn sent_again_over_mosquitto() {
    a_frame_sent_again_gets_the_same_answer(Broker::mosquitto()).await;
}

#[tokio::test]
async fn sent_again_over_the_embedded_broker() {
    a_frame_sent_again_gets_the_same_answer(Broker::embedded()).await;
}

async fn what_is_no_message_changes_nothing(broker: Broker) {
    let running = Running::start(config(broker.port()), toy().target()).await;
    let mut device = leased(&broker, "d1").await;
    let good = device.frame(&[7]);
    let newer = [&[good[0] + 0x10], &good[1..]].concat();
    let trailing = [&good[..], &[0, 0, 0, 0]].concat();
    let malformed: [&[u8]; 6] =
        [b"garbage", b"", &newer, &good[..3], &trailing, &[good[0]; FRAME_BYTES_MAX + 500]];
    malformed.iter().for_each(|bytes| device.send_frame(bytes));
    device.client.post("dl1/d/Not-An-Id/u/op/verifier-1", &device.open_message().encode().unwrap()).await;
    // Larger than any message: it is dropped before the machine sees it, and the connection stays.
    device.send_frame(&[good[0]; 4000]);
    device.send_frame(&good);
    assert!(matches!(device.down().await, Down::Verdict(_)));
    let report = running.drained().await;
    assert_eq!(report.protocol.malformed, malformed.len() as u64);
    assert_eq!((report.protocol.frames, report.link.connections, report.link.foreign), (1, 1, 1));
    assert_eq!(report.link.too_large, 1);
}

#[tokio::test]
async fn no_messages_over_mosquitto() {
    what_is_no_message_changes_nothing(Broker::mosquitto()).await;
}

#[tokio::test]
async fn no_messages_over_the_embedded_broker() {
    what_is_no_message_changes_nothing(Broker::embedded()).await;
}

/// Sends more QoS 1 messages than mosquitto keeps in flight per client, on each topic that a verifier reads at QoS 1.
async fn large_messages_dont_silence_a_verifier(mosquitto: Mosquitto) {
    const TIMES: usize = 21;
    let topics = ["dl1/d/d1/u/op/verifier-1", "dl1/d/d1/u/en/verifier-1", "dl1/d/d1/u/su"];
    let running = Running::start(config(mosquitto.port), toy().target()).await;
    let mut device = Device::connect(mosquitto.port, "d1").await;
    for topic in topics.iter().flat_map(|topic| [topic; TIMES]) {
        device.client.post(topic, &[0; 3000]).await;
    }
    assert!(matches!(device.open().await, Reply::Lease(_)));
    let report = running.drained().await;
    assert_eq!(report.link.too_large, (topics.len() * TIMES) as u64);
    assert_eq!((report.link.connections, report.protocol.malformed), (1, 0));
}

#[tokio::test]
async fn large_messages_over_mosquitto_with_the_sites_file() {
    large_messages_dont_silence_a_verifier(Mosquitto::with(SITE)).await;
}

#[tokio::test]
async fn large_messages_over_mosquitto_with_its_defaults() {
    large_messages_dont_silence_a_verifier(Mosquitto::with(DEFAULTS)).await;
}

#[tokio::test]
async fn a_frame_without_a_lease_is_answered_with_its_end() {
    let broker = Broker::mosquitto();
    let running = Running::start(config(broker.port()), toy().target()).await;
    let mut device = Device::connect(broker.port(), "d1").await;
    let frame = device.frame(&[7]);
    device.send_frame(&frame);
    let nonce = frame_digest(&frame);
    let unknown = Closed { session: 1, epoch: 1, nonce, reason: CloseReason::Unknown };
    assert_eq!(device.down().await, Down::Closed(unknown));
    running.drained().await;
}

#[tokio::test]
async fn the_session_not_used_longest_makes_room() {
    let broker = Broker::mosquitto();
    let running = Running::start(Config { sessions: 2, ..config(broker.port()) }, toy().target()).await;
    let mut devices = [leased(&broker, "d1").await, leased(&broker, "d2").await];
    devices[1].verify(&[]).await;
    devices[0].verify(&[]).await;
    let mut third = leased(&broker, "d3").await;
    third.verify(&[]).await;
    devices[0].verify(&[]).await;
    let frame = devices[1].frame(&[]);
    devices[1].send_frame(&frame);
    assert!(matches!(devices[1].down().await, Down::Closed(Closed { reason: CloseReason::Unknown, .. })));
    assert_eq!(running.drained().await.protocol.evicted, 1);
}

#[tokio::test]
async fn another_vocabulary_is_refused() {
    let broker = Broker::mosquitto();
    let running = Running::start(config(broker.port()), toy().target()).await;
    let mut device = Device::connect(broker.port(), "d1").await;
    device.vocabulary.fingerprint[0] ^= 1;
    let reply = device.open().await;
    let reason = RefusalReason::Vocabulary(common::toy_vocabulary());
    assert_eq!(reply, Reply::Refusal(Refusal { session: 1, epoch: 1, nonce: device.nonce, reason }));
    assert_eq!(running.drained().await.protocol.refusals, 1);
}

#[tokio::test]
async fn a_reply_goes_to_its_device_whatever_the_request_says() {
    let broker = Broker::mosquitto();
    let running = Running::start(config(broker.port()), toy().target()).await;
    let mut victim = Client::connect(broker.port(), "victim", "dl1/d/victim/n/#").await;
    let mut device = Device::connect(broker.port(), "d1").await;
    for topic in ["dl1/d/d1/n/op", "dl1/d/victim/n/c"] {
        device.send_open(RawMessage {
            response_topic: Some(topic.into()),
            correlation: Some(b"mine".to_vec()),
            ..RawMessage::default()
        });
        let publish = device.client.next().await;
        assert_eq!(publish.topic, "dl1/d/d1/n/op");
        assert_eq!(publish.correlation.unwrap(), b"mine");
    }
    device.send_open(RawMessage { correlation: Some(vec![7; 65]), ..RawMessage::default() });
    let long = device.client.next().await;
    assert_eq!(long.correlation, None, "a device doesn't choose how long an answer is");
    assert_eq!(running.drained().await.link.redirected, 1);
    assert!(victim.none_waits());
}

#[tokio::test]
async fn more_devices_than_aliases_get_their_own_verdicts() {
    let few = SITE.replace("max_topic_alias 1024", "max_topic_alias 2");
    let broker = Broker::Mosquitto(Mosquitto::with(&few));
    let running = Running::start(config(broker.port()), toy().target()).await;
    let mut devices = Vec::new();
    for name in ["d1", "d2", "d3"] {
        devices.push(leased(&broker, name).await);
    }
    for turn in 0..12 {
        // Each device twice in a row, so that aliases are bound, used and replaced.
        devices[turn / 2 % 3].verify(&[]).await;
    }
    let report = running.drained().await;
    assert_eq!((report.protocol.verdicts, report.link.connections), (12, 1));
    // Of each pair of verdicts, the first binds an alias and the second uses it. At the end, each device gets a
    // message that its lease is over.
    assert!((6..=8).contains(&report.link.aliased), "{}", report.link.aliased);
}

enum Then {
    Fail,
    Panic,
    /// Reports that it began, and waits for permission to go on.
    Wait(mpsc::Sender<()>, mpsc::Receiver<()>),
}

const RIGGED: u32 = 299;

/// A toy target that behaves as scripted when a job contains the token [`RIGGED`].
fn rigged(then: Then) -> impl Target + 'static {
    let extend = move |target: &mut ToyTarget, batch: &[Extend<'_>]| {
        let rigged = |part: &Extend<'_>| part.tokens.contains(&RIGGED);
        let hit = batch.iter().any(rigged);
        match &then {
            Then::Panic => assert!(!hit, "rigged"),
            Then::Wait(began, go) if hit => {
                // Ignore the error: the test waits for the first message only.
                let _ = began.send(());
                go.recv().unwrap();
            }
            Then::Fail | Then::Wait(..) => {}
        }
        let fails = matches!(then, Then::Fail);
        let hits: Vec<bool> = batch.iter().map(rigged).collect();
        let failure = || dunlin_lm::Error::Engine { engine: "rigged", message: "as told".into() };
        let answers = target.extend(batch).into_iter().zip(hits);
        answers.map(|(rows, hit)| if hit && fails { Err(failure()) } else { rows }).collect()
    };
    WithExtend { target: toy().target(), extend }
}

#[tokio::test]
async fn a_failure_of_the_target_ends_its_session_alone() {
    let broker = Broker::mosquitto();
    let running = Running::start(config(broker.port()), rigged(Then::Fail)).await;
    let (mut unlucky, mut other) = (leased(&broker, "d1").await, leased(&broker, "d2").await);
    other.verify(&[]).await;
    let frame = unlucky.frame(&[RIGGED]);
    unlucky.send_frame(&frame);
    assert!(matches!(unlucky.down().await, Down::Closed(Closed { reason: CloseReason::Failed, .. })));
    other.verify(&[]).await;
    assert_eq!(running.drained().await.end, End::Drained);
}

#[tokio::test]
async fn a_panic_of_the_target_ends_the_process_with_its_message() {
    let broker = Broker::mosquitto();
    let running = Running::start(config(broker.port()), rigged(Then::Panic)).await;
    let mut device = leased(&broker, "d1").await;
    let frame = device.frame(&[RIGGED]);
    device.send_frame(&frame);
    let error = running.ended().await.unwrap_err().to_string();
    assert_eq!(error, "the target's thread panicked: rigged");
}

#[tokio::test]
async fn a_drain_answers_what_is_in_work_and_ends_every_lease() {
    let broker = Broker::mosquitto();
    let ((began, begun), (go, going)) = (mpsc::channel(), mpsc::channel());
    let running = Running::start(config(broker.port()), rigged(Then::Wait(began, going))).await;
    let mut watcher = Client::connect(broker.port(), "watcher", PRESENCE).await;
    let here = watcher.presence(|presence| presence.liveness == Liveness::Here).await;
    assert_eq!((here.draining, here.model.as_str()), (false, "toy"));
    let (mut busy, mut idle) = (leased(&broker, "d1").await, leased(&broker, "d2").await);
    idle.verify(&[]).await;
    let frame = busy.frame(&[RIGGED]);
    busy.send_frame(&frame);
    tokio::task::spawn_blocking(move || begun.recv().unwrap()).await.unwrap();
    running.stop().await;
    watcher.presence(|presence| presence.draining).await;
    assert!(matches!(idle.down().await, Down::Closed(Closed { reason: CloseReason::Draining, .. })));
    let late = idle.open().await;
    assert!(matches!(late, Reply::Refusal(Refusal { reason: RefusalReason::Draining, .. })));
    go.send(()).unwrap();
    assert!(matches!(busy.down().await, Down::Verdict(_)));
    assert!(matches!(busy.down().await, Down::Closed(Closed { reason: CloseReason::Draining, .. })));
    let left = watcher.presence(|presence| presence.liveness == Liveness::Left).await;
    assert_eq!(left.generation, here.generation);
    assert_eq!(running.ended().await.unwrap().end, End::Drained);
    assert!(watcher.none_waits(), "a goodbye is no loss: the Will isn't sent");
}

#[tokio::test]
async fn more_work_than_the_queue_holds_waits_in_the_socket() {
    const DEVICES: usize = 300; // above WORK_MAX
    let broker = Broker::mosquitto();
    let ((began, begun), (go, going)) = (mpsc::channel(), mpsc::channel());
    let config = Config { sessions: DEVICES, ..config(broker.port()) };
    let running = Running::start(config, rigged(Then::Wait(began, going))).await;
    let mut device = Device::connect(broker.port(), "first").await;
    device.client = Client::connect(broker.port(), "fleet", "dl1/d/+/n/#").await;
    let open = device.open_message().encode().unwrap();
    for i in 0..DEVICES {
        device.client.post(&format!("dl1/d/d{i}/u/op/{VERIFIER}"), &open).await;
        assert!(matches!(Reply::decode(&device.client.next().await.payload), Ok(Reply::Lease(_))));
    }
    let (context, frame) = (device.context(&PROMPT), device.frame(&[RIGGED]));
    for i in 0..DEVICES {
        let topic = format!("dl1/d/d{i}/u/f/{VERIFIER}");
        device.client.post(&topic, &context).await;
        device.client.post(&topic, &frame).await;
    }
    let running = tokio::task::spawn_blocking(move || {
        begun.recv().unwrap();
        (0..DEVICES).for_each(|_| go.send(()).unwrap());
        running
    });
    let running = running.await.unwrap();
    let mut answered = BTreeSet::new();
    while answered.len() < DEVICES {
        let publish = device.client.next().await;
        assert!(matches!(Down::decode(&publish.payload), Ok(Down::Verdict(_))));
        answered.insert(publish.topic);
    }
    let report = running.drained().await;
    assert_eq!((report.protocol.verdicts, report.target.jobs), (DEVICES as u64, DEVICES as u64));
    assert!(report.target.batches < DEVICES as u64 / 4, "{} batches", report.target.batches);
}

#[tokio::test]
async fn a_second_stop_ends_at_once_and_a_limit_ends_a_long_drain() {
    for drain_s in [1, 3600] {
        let broker = Broker::mosquitto();
        let ((began, begun), (go, going)) = (mpsc::channel(), mpsc::channel());
        let config = Config { drain_s, ..config(broker.port()) };
        let running = Running::start(config, rigged(Then::Wait(began, going))).await;
        let mut device = leased(&broker, "d1").await;
        let frame = device.frame(&[RIGGED]);
        device.send_frame(&frame);
        tokio::task::spawn_blocking(move || begun.recv().unwrap()).await.unwrap();
        running.stop().await;
        if drain_s > 1 {
            running.stop().await;
        }
        assert_eq!(running.ended().await.unwrap().end, End::CutShort);
        go.send(()).unwrap();
    }
}

#[tokio::test]
async fn a_broker_that_comes_back_is_served_again() {
    let mut mosquitto = Mosquitto::with(SITE);
    let running = Running::start(config(mosquitto.port), toy().target()).await;
    let mut watcher = Client::connect(mosquitto.port, "watcher", PRESENCE).await;
    let before = watcher.presence(|presence| presence.liveness == Liveness::Here).await;
    for _ in 0..3 {
        mosquitto.kill();
        mosquitto.start().unwrap();
        let mut watcher = Client::connect(mosquitto.port, "watcher", PRESENCE).await;
        let after = watcher.presence(|presence| presence.liveness == Liveness::Here).await;
        assert!(after.generation > before.generation);
    }
    let broker = Broker::Mosquitto(mosquitto);
    let mut device = leased(&broker, "d1").await;
    let text = reference(3);
    assert_eq!(device.verify(&text[..2]).await, 2);
    let report = running.drained().await;
    assert_eq!((report.end, report.link.connections), (End::Drained, 4));
}

#[tokio::test]
async fn sessions_outlive_a_broker() {
    let broker = Broker::mosquitto();
    let running = Running::start(config(broker.port()), toy().target()).await;
    let mut device = leased(&broker, "d1").await;
    device.verify(&[]).await;
    let Broker::Mosquitto(mut mosquitto) = broker else { unreachable!() };
    mosquitto.kill();
    mosquitto.start().unwrap();
    let mut watcher = Client::connect(mosquitto.port, "watcher", PRESENCE).await;
    watcher.presence(|presence| presence.liveness == Liveness::Here).await;
    device.client = Client::connect(mosquitto.port, "d1", "dl1/d/d1/n/#").await;
    device.verify(&[]).await;
    assert_eq!(device.tokens[PROMPT.len()..], reference(2));
    running.drained().await;
}

#[tokio::test]
async fn a_broker_that_is_late_is_waited_for() {
    let mut mosquitto =
        Mosquitto::new(&MosquittoOptions { lines: SITE, ..MosquittoOptions::default() }).unwrap();
    let (running, mut ready) = Running::begin(config(mosquitto.port), toy().target());
    let port = mosquitto.port;
    tokio::task::spawn_blocking(move || hang_up(port, 2)).await.unwrap();
    assert!(ready.try_recv().is_err(), "not ready without a broker");
    mosquitto.start().unwrap();
    soon("the verifier", ready).await.unwrap();
    let mut watcher = Client::connect(mosquitto.port, "watcher", PRESENCE).await;
    watcher.presence(|presence| presence.liveness == Liveness::Here).await;
    running.drained().await;
}

#[tokio::test]
async fn a_stop_without_a_broker_ends_too() {
    let (running, _ready) = Running::begin(config(free_port()), toy().target());
    let report = running.drained().await;
    assert_eq!((report.end, report.link.connections), (End::Drained, 0));
}

#[tokio::test]
async fn the_load_is_announced() {
    let broker = Broker::embedded();
    let running = Running::start(Config { sessions: 5, ..config(broker.port()) }, toy().target()).await;
    let mut watcher = Client::connect(broker.port(), "watcher", PRESENCE).await;
    watcher.presence(|presence| presence.load == 0).await;
    let _device = leased(&broker, "d1").await;
    // One session of five, in eighths.
    watcher.presence(|presence| presence.load == 31).await;
    running.drained().await;
}

#[tokio::test]
async fn messages_for_another_verifier_are_not_received() {
    let broker = Broker::mosquitto();
    let other = Config { id: "verifier-2".parse().unwrap(), ..config(broker.port()) };
    let running = Running::start(config(broker.port()), toy().target()).await;
    let elsewhere = Running::start(other, toy().target()).await;
    let mut device = Device::connect(broker.port(), "d1").await;
    let Reply::Lease(lease) = device.open().await else { panic!("no lease") };
    let frame = device.frame(&[]);
    device.send_frame(&frame);
    let _ = soon("an answer", device.down()).await;
    let reports = [running.drained().await, elsewhere.drained().await];
    let frames = reports.map(|report| report.protocol.frames);
    assert_eq!(frames, [1, 0], "frames go to {VERIFIER}, whoever leased ({})", lease.verifier);
    assert_eq!(reports.map(|report| report.protocol.leases).iter().sum::<u64>(), 1);
}

#[tokio::test]
async fn a_name_and_a_password_are_used() {
    let options =
        MosquittoOptions { lines: SITE, accounts: &[("me", "secret")], ..MosquittoOptions::default() };
    let mosquitto = Mosquitto::started(&options).unwrap();
    let address = |login: &str| format!("mqtt://{login}127.0.0.1:{}", mosquitto.port).parse().unwrap();
    for (login, refused) in [("", "not authorised"), ("me:wrong@", "not authorised")] {
        let config = Config { broker: address(login), ..Config::default() };
        let loss = probe(&config.connect_options("check").unwrap()).await.unwrap_err();
        assert!(loss.refused && loss.reason.contains(refused), "{loss:?}");
    }
    let config = Config { broker: address("me:secret@"), ..Config::default() };
    Running::start(config, toy().target()).await.drained().await;
}
