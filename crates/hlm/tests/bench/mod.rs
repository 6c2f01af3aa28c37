//! A test bench for the device's machine: the test plays drafter, verifier, link and clock.
#![allow(dead_code)] // each test uses a part

use crate::machines::{TARGET, VOCABULARY, digest, presence, sure};
use dunlin_hlm::TokenId;
use dunlin_hlm::device::{
    Channel, Commit, Device, DeviceConfig, DeviceEvent, DraftJob, DraftRow, Judged, Learned, Offline, Origin,
    PinnedTarget, ReplyLimits, SessionIdentity,
};
use dunlin_hlm::policy::{PolicyTable, Rules};
use dunlin_hlm::probabilities::Sampling;
use dunlin_hlm::time::{Duration, Instant};
use dunlin_wire::{
    Close, CloseReason, Closed, Codes, Context, CouplingProfile, Down, DraftFrame, Lease, LogTime, Open,
    Price, Promise, Refusal, RefusalReason, Up, Verdict, VerifierId, VerifierPresence, frame_check,
    frame_digest,
};

pub(crate) const PROMPT: [TokenId; 3] = [1, 2, 3];
pub(crate) const STOP: TokenId = 31;
pub(crate) const EPOCH: u8 = 255;
/// A target that takes no time, so that every wait is one for the link.
pub(crate) const QUICK: Price = Price { pass: LogTime(1), row: LogTime(0), queue: LogTime(0) };
pub(crate) const GIVE_UP_MS: u64 = 120_000;

/// A sent message.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Sent {
    Open(Open),
    Context(Box<Context>),
    Frame(Box<DraftFrame>),
    Codes(Box<Codes>),
    Close(Close),
}

/// A device, the time, and the device's output.
pub(crate) struct Bench {
    pub(crate) device: Device,
    pub(crate) now: Instant,
    pub(crate) job: Option<DraftJob>,
    pub(crate) seen: Vec<DeviceEvent>,
    /// The drafts that a verdict confirmed or rejected.
    pub(crate) judged: Vec<Judged>,
    /// The bytes of the last frame sent.
    pub(crate) frame: Vec<u8>,
    /// The verifier asked last.
    pub(crate) asked: Option<VerifierId>,
}

pub(crate) fn verifier(name: &str) -> VerifierId {
    name.parse().expect("a valid id")
}

/// Sends frames of `drafts`.
pub(crate) fn config(drafts: u8) -> DeviceConfig {
    let policy =
        PolicyTable { draft_tokens_max: Some(drafts), stop_rule: Some(false), ..PolicyTable::default() };
    DeviceConfig {
        vocabulary: VOCABULARY,
        prefixes: Default::default(),
        policy: Rules::new(&policy).expect("valid settings"),
        offline: Offline::Wait,
        give_up_after: Duration::from_millis(GIVE_UP_MS),
        context_tokens_max: 64,
        accept_model_change: false,
    }
}

pub(crate) fn session() -> SessionIdentity {
    SessionIdentity { number: 7, epoch: EPOCH, nonce: 10, seed: 11, sampling: Sampling::greedy() }
}

pub(crate) fn reply(tokens_max: usize) -> ReplyLimits {
    ReplyLimits { tokens_max, stop: vec![STOP] }
}

pub(crate) fn lease(epoch: u8, text: &[TokenId]) -> Lease {
    Lease {
        session: 7,
        epoch,
        nonce: 10,
        verifier: verifier("desk"),
        target: TARGET,
        promise: Promise::Exact,
        coupling: CouplingProfile::SplitMix,
        price: QUICK,
        draft_tokens_max: 16,
        credit_tokens_max: 0,
        context_tokens_max: 64,
        vocabulary_size: VOCABULARY.size,
        length: text.len() as u32,
        digest: digest(text).full(),
    }
}

/// The event of a granted lease.
pub(crate) fn leased() -> DeviceEvent {
    let target = PinnedTarget { id: TARGET, promise: Promise::Exact };
    DeviceEvent::Leased { verifier: verifier("desk"), target }
}

pub(crate) fn committed(position: usize, token: TokenId, origin: Origin) -> DeviceEvent {
    DeviceEvent::Committed(Commit { position, token, origin })
}

impl Bench {
    /// A device with its link up and no prompt yet.
    pub(crate) fn new(config: DeviceConfig) -> Self {
        Self::after(config, Learned::default())
    }

    pub(crate) fn after(config: DeviceConfig, learned: Learned) -> Self {
        Self::of(config, session(), learned)
    }

    pub(crate) fn of(config: DeviceConfig, session: SessionIdentity, learned: Learned) -> Self {
        let vocabulary = config.vocabulary;
        let device = Device::new(config, session, learned).expect("valid settings");
        let mut bench = Self {
            device,
            now: Instant(1_000_000),
            job: None,
            seen: Vec::new(),
            judged: Vec::new(),
            frame: Vec::new(),
            asked: None,
        };
        bench.device.handle_link(true, bench.now);
        bench.presence("desk", &VerifierPresence { vocabulary, ..presence() });
        bench
    }

    /// A device that has a prompt and a lease and sent the context; its drafter runs over the prompt.
    pub(crate) fn leased(config: DeviceConfig) -> Self {
        let size = config.vocabulary.size;
        let mut bench = Self::new(config);
        bench.say(&PROMPT, reply(40));
        assert!(matches!(bench.sent().as_slice(), [Sent::Open(_)]));
        bench.lease(&Lease { vocabulary_size: size, ..lease(EPOCH, &[]) });
        assert!(matches!(bench.sent().as_slice(), [Sent::Context(_)]));
        bench.happened();
        bench
    }

    /// Like [`Self::leased`], with these drafts sent and `ahead` drafted ahead of the verdict.
    pub(crate) fn under_way(config: DeviceConfig, drafts: &[TokenId], ahead: &[TokenId]) -> Self {
        let mut bench = Self::leased(config);
        drafts.iter().for_each(|token| bench.draft(*token));
        assert_eq!(bench.drafts_sent(), drafts);
        ahead.iter().for_each(|token| bench.draft(*token));
        bench
    }

    pub(crate) fn wait(&mut self, ms: u64) {
        self.now = self.now + Duration::from_millis(ms);
    }

    /// Advances the time to the next timer.
    pub(crate) fn ring(&mut self) {
        self.now = self.device.poll_timeout().expect("a timer");
        self.device.handle_timeout(self.now);
    }

    /// Time to the next timer, in the nearest millisecond.
    pub(crate) fn until_timer(&self) -> u64 {
        (self.device.poll_timeout().expect("a timer").since(self.now).0 + 500) / 1000
    }

    pub(crate) fn say(&mut self, prompt: &[TokenId], reply: ReplyLimits) {
        self.device.say(prompt, reply, self.now).expect("a prompt that is taken");
    }

    pub(crate) fn lease(&mut self, lease: &Lease) {
        let bytes = dunlin_wire::Reply::Lease(lease.clone()).encode().expect("a valid lease");
        self.device.handle_reply(&bytes, self.now);
    }

    pub(crate) fn refuse(&mut self, reason: RefusalReason) {
        self.refuse_at(EPOCH, reason);
    }

    pub(crate) fn refuse_at(&mut self, epoch: u8, reason: RefusalReason) {
        let refusal = Refusal { session: 7, epoch, nonce: 10, reason };
        let bytes = dunlin_wire::Reply::Refusal(refusal).encode().expect("a valid refusal");
        self.device.handle_reply(&bytes, self.now);
    }

    pub(crate) fn down(&mut self, down: &Down) {
        self.device.handle_down(&down.encode().expect("a valid answer"), self.now);
    }

    /// Delivers a close message; with [`CloseReason::Unknown`] as the answer to the last frame sent.
    pub(crate) fn closed(&mut self, epoch: u8, reason: CloseReason) {
        let nonce = if reason == CloseReason::Unknown { frame_digest(&self.frame) } else { 10 };
        self.down(&Down::Closed(Closed { session: 7, epoch, nonce, reason }));
    }

    pub(crate) fn presence(&mut self, name: &str, presence: &VerifierPresence) {
        let bytes = presence.encode().expect("a valid presence");
        self.device.handle_presence(&verifier(name), &bytes, self.now);
    }

    /// The answer to the last frame sent.
    pub(crate) fn verdict_of(&self, accepted: u8, token: TokenId) -> Verdict {
        let Ok(Up::Draft(frame)) = Up::decode(&self.frame) else { panic!("no frame was sent") };
        let (session, epoch, round) = (frame.session, frame.epoch, frame.round);
        let (check, send, unknown) = (frame_check(&self.frame), frame.send, LogTime::default());
        let (pass, queue, missed) = (unknown, unknown, 0);
        Verdict { session, epoch, round, check, send, pass, queue, accepted, token, missed }
    }

    pub(crate) fn verdict(&mut self, accepted: u8, token: TokenId) {
        let verdict = self.verdict_of(accepted, token);
        self.down(&Down::Verdict(verdict));
    }

    pub(crate) fn pump(&mut self) {
        while let Some(event) = self.device.poll_event() {
            match event {
                DeviceEvent::Draft(job) => assert_eq!(self.job.replace(job), None, "two jobs at one drafter"),
                DeviceEvent::Judged(judged) => self.judged.push(judged),
                other => self.seen.push(other),
            }
        }
    }

    /// The events since the last call, without runs of the drafter.
    pub(crate) fn happened(&mut self) -> Vec<DeviceEvent> {
        self.pump();
        core::mem::take(&mut self.seen)
    }

    /// The drafter's run under way: tokens kept, tokens appended.
    pub(crate) fn drafter(&mut self) -> Option<(usize, Vec<TokenId>)> {
        self.pump();
        self.job.as_ref().map(|job| (job.keep, job.tokens.clone()))
    }

    /// Ends the run of the drafter.
    pub(crate) fn give(&mut self, logits: &[f32], attention: Option<&[f32]>) {
        self.pump();
        let job = self.job.take().expect("a run of the drafter");
        let row = DraftRow { logits, attention, took: Duration::from_millis(20), refilled: false };
        self.device.handle_draft(job.id, row, self.now);
        self.pump();
    }

    pub(crate) fn draft(&mut self, token: TokenId) {
        self.give(&sure(token), None);
    }

    pub(crate) fn sent(&mut self) -> Vec<Sent> {
        let mut sent = Vec::new();
        while let Some(message) = self.device.poll_transmit(self.now) {
            assert!(sent.len() < 8, "no end to what is sent: {sent:?}");
            if let Channel::Open(asked) = message.channel {
                self.asked = Some(asked);
                sent.push(Sent::Open(Open::decode(&message.bytes).expect("a valid request")));
                continue;
            }
            assert_eq!(message.channel, Channel::Frames(verifier("desk")));
            sent.push(match Up::decode(&message.bytes).expect("a valid message") {
                Up::Draft(frame) => Sent::Frame(Box::new(frame)),
                Up::Codes(codes) => Sent::Codes(Box::new(codes)),
                Up::Context(context) => Sent::Context(Box::new(context)),
                Up::Close(close) => Sent::Close(close),
            });
            if matches!(sent.last(), Some(Sent::Frame(_))) {
                self.frame = message.bytes.to_vec();
            }
        }
        sent
    }

    /// The only message sent, which must be a frame.
    pub(crate) fn frame_sent(&mut self) -> DraftFrame {
        match self.sent().as_slice() {
            [Sent::Frame(frame)] => frame.as_ref().clone(),
            other => panic!("{other:?} is not one frame"),
        }
    }

    pub(crate) fn drafts_sent(&mut self) -> Vec<TokenId> {
        self.frame_sent().drafts.iter().map(|draft| draft.token).collect()
    }

    pub(crate) fn open_sent(&mut self) -> Open {
        match self.sent().as_slice() {
            [Sent::Open(open)] => *open,
            other => panic!("{other:?} is not one request"),
        }
    }

    /// The bytes of a frame's later send, derived from its first one.
    pub(crate) fn sent_again(first: &[u8], send: u8) -> Vec<u8> {
        let mut bytes = first.to_vec();
        bytes[1] = send;
        bytes
    }

    pub(crate) fn provisional(&self) -> Vec<TokenId> {
        self.device.provisional().collect()
    }
}
