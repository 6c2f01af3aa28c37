//! A test bench for the verifier's machine: the test plays the devices, the target and the clock.
#![allow(dead_code)] // each test uses a part

use crate::machines::{SIZE, TARGET, VOCABULARY, digest, sure};
use dunlin_hlm::TokenId;
use dunlin_hlm::time::{Duration, Instant};
use dunlin_hlm::verifier::{
    Answer, RowsError, TargetDescription, Verifier, VerifierConfig, VerifierEvent, VerifyJob,
};
use dunlin_wire::{
    CloseReason, Closed, Context, DeviceId, Down, Draft, DraftFrame, Lease, LogTime, Open, Promise,
    RefusalReason, Reply, Resync, Rows, SamplingParams, Score, Verdict, frame_check, frame_digest,
    token_bits,
};

pub(crate) const SESSION: u8 = 7;
pub(crate) const EPOCH: u8 = 3;
pub(crate) const NONCE: u64 = 10;
pub(crate) const IDLE_MS: u64 = 60_000;
pub(crate) const PROMPT: [TokenId; 3] = [1, 2, 3];

pub(crate) fn config() -> VerifierConfig {
    VerifierConfig {
        id: "desk".parse().expect("a valid id"),
        vocabulary: VOCABULARY,
        prefixes: Default::default(),
        target: TargetDescription { id: TARGET, promise: Promise::Exact, ..TargetDescription::default() },
        context_tokens_max: 16,
        sessions_max: 2,
        draft_tokens_max: 4,
        credit_tokens_max: 0,
        continuation_tokens: 3,
        continuation_interval: Duration::from_millis(100),
        lossy: true,
        idle_max: Duration::from_millis(IDLE_MS),
    }
}

pub(crate) fn device(number: u8) -> DeviceId {
    format!("device-{number}").parse().expect("a valid id")
}

pub(crate) fn open(epoch: u8, length: usize) -> Open {
    Open {
        session: SESSION,
        epoch,
        nonce: NONCE,
        seed: 11,
        sampling: SamplingParams { temperature: 0.0, top_p: 1.0, top_k: 0 },
        vocabulary: VOCABULARY,
        length: length as u32,
    }
}

pub(crate) fn frame(round: u32, text: &[TokenId], drafts: &[TokenId]) -> DraftFrame {
    let scored = |token: &TokenId| Draft {
        token: *token,
        uncertainty: Score::default(),
        importance: Score::default(),
    };
    DraftFrame {
        session: SESSION,
        epoch: EPOCH,
        round,
        send: 1,
        base: text.len() as u32,
        prefix: digest(text).short(),
        token_bits: token_bits(SIZE),
        drafts: drafts.iter().map(scored).collect(),
        held: 0,
        bonus: true,
        rows: Rows::None,
        credit: None,
    }
}

pub(crate) fn context(before: &[TokenId], tokens: &[TokenId]) -> Context {
    Context {
        session: SESSION,
        epoch: EPOCH,
        offset: before.len() as u32,
        prefix: digest(before).short(),
        token_bits: token_bits(SIZE),
        tokens: tokens.iter().copied().collect(),
    }
}

pub(crate) fn verdict(frame: &DraftFrame, accepted: u8, token: TokenId) -> Down {
    let check = frame_check(&frame.encode().expect("a valid frame"));
    let (session, epoch, round) = (frame.session, frame.epoch, frame.round);
    let unknown = LogTime::default();
    Down::Verdict(Verdict {
        session,
        epoch,
        round,
        check,
        send: frame.send,
        pass: unknown,
        queue: unknown,
        accepted,
        token,
        missed: 0,
    })
}

/// The close message for a lease that the verifier knows.
pub(crate) fn closed(epoch: u8, reason: CloseReason) -> Down {
    Down::Closed(Closed { session: SESSION, epoch, nonce: NONCE, reason })
}

/// The answer to a frame without a lease.
pub(crate) fn unknown(frame: &DraftFrame) -> Down {
    let nonce = frame_digest(&frame.encode().expect("a valid frame"));
    Down::Closed(Closed { session: SESSION, epoch: frame.epoch, nonce, reason: CloseReason::Unknown })
}

/// A resync for the frame of `round` by a verifier that has `text`.
pub(crate) fn resync(round: u32, text: &[TokenId]) -> Down {
    let (length, digest) = (text.len() as u32, digest(text).full());
    Down::Resync(Resync { session: SESSION, epoch: EPOCH, round, length, digest })
}

/// Logits of a target that chooses `tokens` in turn.
pub(crate) fn rows(tokens: &[TokenId]) -> Vec<f32> {
    tokens.iter().flat_map(|token| sure(*token)).collect()
}

/// A verifier and the time.
pub(crate) struct Desk {
    pub(crate) verifier: Verifier,
    pub(crate) now: Instant,
    /// The target's cache of the only session, for tests that play whole texts.
    pub(crate) cache: Vec<TokenId>,
}

impl Desk {
    pub(crate) fn new(config: VerifierConfig) -> Self {
        Self {
            verifier: Verifier::new(config).expect("valid settings"),
            now: Instant(1_000_000),
            cache: Vec::new(),
        }
    }

    /// A verifier with one lease, whose text is the prompt.
    pub(crate) fn leased() -> Self {
        let mut desk = Self::new(config());
        desk.welcome(0);
        desk
    }

    /// Grants a device a lease and takes its prompt.
    pub(crate) fn welcome(&mut self, number: u8) {
        assert!(matches!(self.open(number, &open(EPOCH, PROMPT.len())), Some(Reply::Lease(_))));
        self.context(number, &context(&[], &PROMPT));
    }

    pub(crate) fn wait(&mut self, ms: u64) {
        self.now = self.now + Duration::from_millis(ms);
    }

    pub(crate) fn open(&mut self, number: u8, open: &Open) -> Option<Reply> {
        self.verifier.handle_open(&device(number), &open.encode().expect("a valid request"), None, self.now);
        let out = self.verifier.poll_transmit()?;
        assert_eq!((out.device, out.channel), (device(number), Answer::Reply));
        assert_eq!(self.verifier.poll_transmit(), None, "one answer to one request");
        Some(Reply::decode(&out.bytes).expect("a valid answer"))
    }

    pub(crate) fn lease(&mut self, number: u8, open: &Open) -> Lease {
        match self.open(number, open) {
            Some(Reply::Lease(lease)) => lease,
            other => panic!("{other:?} is no lease"),
        }
    }

    pub(crate) fn refusal(&mut self, number: u8, open: &Open) -> RefusalReason {
        match self.open(number, open) {
            Some(Reply::Refusal(refusal)) => {
                let about = (refusal.session, refusal.epoch, refusal.nonce);
                assert_eq!(about, (open.session, open.epoch, open.nonce));
                refusal.reason
            }
            other => panic!("{other:?} is no refusal"),
        }
    }

    pub(crate) fn send(&mut self, number: u8, bytes: &[u8]) {
        self.verifier.handle_frame(&device(number), bytes, self.now);
    }

    pub(crate) fn frame(&mut self, number: u8, frame: &DraftFrame) {
        self.send(number, &frame.encode().expect("a valid frame"));
    }

    pub(crate) fn context(&mut self, number: u8, context: &Context) {
        self.send(number, &context.encode().expect("a valid chunk"));
    }

    pub(crate) fn events(&mut self) -> Vec<VerifierEvent> {
        std::iter::from_fn(|| self.verifier.poll_event()).collect()
    }

    /// The only event of the verifier, which must be a job for the target.
    pub(crate) fn job(&mut self) -> VerifyJob {
        match self.events().as_slice() {
            [VerifierEvent::Verify(job)] => job.clone(),
            other => panic!("{other:?} is not one run"),
        }
    }

    pub(crate) fn give(&mut self, job: &VerifyJob, rows: Result<&[f32], RowsError>) {
        self.verifier.handle_rows(job.id, rows, self.now);
    }

    /// The messages sent on verdict topics.
    pub(crate) fn said(&mut self) -> Vec<Down> {
        let out = std::iter::from_fn(|| self.verifier.poll_transmit());
        out.map(|out| {
            assert_eq!(out.channel, Answer::Verdict);
            Down::decode(&out.bytes).expect("a valid answer")
        })
        .collect()
    }

    /// Sends a frame and lets the target choose `choices`.
    pub(crate) fn round(&mut self, number: u8, asked: &DraftFrame, choices: &[TokenId]) -> Vec<Down> {
        self.frame(number, asked);
        let job = self.job();
        self.give(&job, Ok(&rows(choices)));
        self.said()
    }

    /// Like [`Self::round`], where sessions were dropped before.
    pub(crate) fn round_after_releases(
        &mut self,
        number: u8,
        asked: &DraftFrame,
        choices: &[TokenId],
    ) -> Vec<Down> {
        self.events();
        self.round(number, asked, choices)
    }

    /// Asserts that there is neither a job nor a message.
    pub(crate) fn assert_quiet(&mut self) {
        assert_eq!((self.events(), self.said()), (vec![], vec![]));
    }
}
