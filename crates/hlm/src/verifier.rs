//! The verifier's protocol machine: sessions, verification, verdicts.
//!
//! Invariant: the device is the authority on committed text. Before tokens are appended, the text is cut to the
//! frame's base. A frame whose prefix differs is answered with a request for context (a resync), never by a guess.
//! A frame that was answered gets the same answer again, however often it arrives.

mod gathering;
mod stream;
mod working;

use crate::TokenId;
use crate::acceptance::{self, ChosenToken, Outcome, TargetAnswer, first_row, is_plain};
use crate::counters::counters;
use crate::limits::LimitError;
use crate::prefixes::Prefixes;
use crate::probabilities::{Distribution, Sampling};
use crate::text::{Text, shared_prefix};
use crate::time::{Duration, Instant};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Reverse;
use dunlin_wire::limits::{
    CODES_MAX, CONTINUATION_TOKENS_MAX, DRAFT_TOKENS_MAX, MESSAGE_BYTES_MAX, SESSION_TOKENS_MAX,
};
use dunlin_wire::{
    CloseReason, Closed, Codes, Context, CouplingProfile, DeviceId, Digest, Down, DraftFrame, EngineName,
    Lease, Liveness, ModelName, Open, Price, Promise, Refusal, RefusalReason, Reply, Resync, Rows, TargetId,
    Up, Verdict, VerifierId, VerifierPresence, Vocabulary, check_of, frame_digest, token_bits,
};
use gathering::Passes;
use stream::Stream;
use working::ArrivedFrame;

/// Correlation data of a request (MQTT 5): bytes chosen by the requester and returned in the reply.
pub type Correlation = heapless::Vec<u8, CORRELATION_BYTES_MAX>;
/// Most bytes of correlation data.
pub const CORRELATION_BYTES_MAX: usize = 64;
/// Most answers that wait for the link. Beyond it the oldest is dropped; its device asks again after a timeout.
pub const OUTBOX_MAX: usize = 1024;
/// Tokens of a context that are read before a frame asks for them; fewer aren't worth a job.
const READ_AHEAD_TOKENS_MIN: usize = 32;
/// A context that takes up to this part of a pass, one in so many, is read in the pass of its frame.
const READ_AHEAD_SHARE: u64 = 4;
/// Sessions dropped for memory that are remembered; beyond it, the oldest is forgotten.
const DISPLACED_MAX: usize = 256;
/// Steps of the announced load. Coarse, since each step is a message to every device that seeks a lease.
pub const LOAD_STEPS: usize = 8;
/// Passes under way for sessions that their device has ended, at most for each device.
const ORPHANED_JOBS_MAX: usize = 4;

/// Settings of a verifier.
#[derive(Clone, Debug)]
pub struct VerifierConfig {
    /// The verifier's name.
    pub id: VerifierId,
    /// The target's vocabulary.
    pub vocabulary: Vocabulary,
    /// Fingerprints of its beginnings, for drafters with fewer tokens.
    pub prefixes: Prefixes,
    /// The target's identity and promise.
    pub target: TargetDescription,
    /// Most tokens in a session's text: the target's context.
    pub context_tokens_max: u32,
    /// Most sessions kept; the least recently used makes room for a new one.
    pub sessions_max: usize,
    /// Most drafted tokens in one frame.
    pub draft_tokens_max: u8,
    /// Tokens beyond a frame's base that one credit permits to write; 0 accepts no credit.
    pub credit_tokens_max: u16,
    /// Tokens of a continuation, at least 1.
    pub continuation_tokens: u8,
    /// Time after which written tokens are sent with the next one, even if they are fewer.
    pub continuation_interval: Duration,
    /// True to accept lossy frames, whose tokens may stay although the target would not have chosen them.
    pub lossy: bool,
    /// A session without a message for this long is dropped.
    pub idle_max: Duration,
}

/// A target's identity, promise and names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetDescription {
    /// Its weights and numerics.
    pub id: TargetId,
    /// Its promise about the text.
    pub promise: Promise,
    /// The rule by which its choices are drawn from a session's seed.
    pub coupling: CouplingProfile,
    /// The model's name.
    pub model: ModelName,
    /// The engine that runs it.
    pub engine: EngineName,
    /// The kernels and the cache type that determine its exact bits.
    pub numerics: EngineName,
}

/// Number of a session of the target (one cache).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot(pub u64);

/// Number of a job for the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VerifyJobId(pub u64);

/// Work for the target: cut the slot's cache to `keep` tokens, append `tokens`, return the logits of the last `rows`, or
/// the tokens that an engine of choices draws from them.
#[derive(Clone, Debug, PartialEq)]
pub struct VerifyJob {
    /// The device whose session it is.
    pub device: DeviceId,
    /// Returned with the rows.
    pub id: VerifyJobId,
    /// The slot whose cache is used.
    pub slot: Slot,
    /// Tokens kept in the cache.
    pub keep: usize,
    /// Tokens to append.
    pub tokens: Vec<TokenId>,
    /// Number of logit rows to return, those of the last tokens.
    pub rows: usize,
    /// The session's sampling, for an engine of choices.
    pub sampling: Sampling,
    /// The session's seed, for an engine of choices.
    pub seed: u64,
}

/// An action for the shell.
#[derive(Clone, Debug, PartialEq)]
pub enum VerifierEvent {
    /// Run the target and return the rows.
    Verify(VerifyJob),
    /// Free the slot's cache, if there is one.
    Release(Slot),
}

/// The reason why a job has no rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowsError {
    /// No memory for the session's cache; dropping another session may help.
    Budget,
    /// The session's cache holds fewer tokens than the job keeps: an earlier job failed.
    Lost,
    /// The target failed.
    Failed,
}

/// The device's topic for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The reply topic; at least once (QoS 1).
    Reply,
    /// The verdict topic; at most once (QoS 0).
    Verdict,
}

/// An answer to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutgoingAnswer {
    /// The recipient.
    pub device: DeviceId,
    /// Its topic.
    pub channel: Answer,
    /// Correlation data of the request that this reply answers, unchanged.
    pub correlation: Option<Correlation>,
    /// The message.
    pub bytes: heapless::Vec<u8, MESSAGE_BYTES_MAX>,
}

counters! {
    /// Counts since the start.
    pub struct VerifierCounters {
        /// Draft frames decoded.
        pub frames: u64,
        /// Verdicts given, without repeated ones.
        pub verdicts: u64,
        /// Answers repeated for a frame that arrived again.
        pub repeated: u64,
        /// Drafts judged.
        pub drafts: u64,
        /// Drafts the target agreed with.
        pub accepted: u64,
        /// Held drafts that differ from the target's choice.
        pub missed: u64,
        /// Leases granted.
        pub leases: u64,
        /// Requests refused.
        pub refusals: u64,
        /// Resyncs (requests for context) sent.
        pub resyncs: u64,
        /// Sessions dropped to make room, or after too long a silence.
        pub evicted: u64,
        /// Those of them that were dropped because the target's caches were full.
        pub displaced: u64,
        /// Those of these that came back, to be read again.
        pub returned: u64,
        /// Malformed messages.
        pub malformed: u64,
        /// Messages of an older round or without a lease.
        pub stale: u64,
        /// Answers dropped because the outbox was full.
        pub dropped: u64,
        /// Tokens written on credit.
        pub written: u64,
        /// Continuations sent.
        pub continuations: u64,
        /// Messages sent because an answer took longer than announced, or to a frame that arrived again before it.
        pub working: u64,
    }
}

/// A session's key: the device, and its own number for the session.
type Key = (DeviceId, u8);

#[derive(Debug)]
struct PendingFrame {
    frame: DraftFrame,
    /// Digest of its bytes without the send count.
    digest: u64,
}

/// The weights of a round's full rows, as far as they have arrived.
#[derive(Debug, Default)]
struct ReceivedWeights {
    round: u32,
    weights: Vec<u8>,
    /// True for each part that has arrived.
    parts: Vec<bool>,
}

/// The state of a session's newest frame.
#[derive(Debug)]
enum Round {
    /// No frame arrived, or the last one was answered.
    Idle,
    /// The frame waits for weights of its rows that have not arrived.
    AwaitingCodes(Box<PendingFrame>),
    /// A job of the target is under way.
    Verifying {
        id: VerifyJobId,
        work: Work,
        /// A newer frame, handled once the target is done. The older frame then gets no answer: by sending a newer one
        /// the device has given it up.
        pending: Option<Box<PendingFrame>>,
    },
}

/// The purpose of a job.
#[derive(Debug)]
enum Work {
    /// Judge this frame.
    Judge(Box<PendingFrame>),
    /// Write the token behind a text of this length and digest.
    Write { at: usize, digest: Digest },
    /// None any more: a new epoch began meanwhile.
    Abandoned,
}

impl Round {
    fn is_verifying(&self) -> bool {
        matches!(self, Self::Verifying { .. })
    }

    /// True while the target writes on credit and no frame waits for it.
    fn is_writing(&self) -> bool {
        matches!(self, Self::Verifying { work: Work::Write { .. }, pending: None, .. })
    }

    /// The number of the newest frame.
    fn newest(&self) -> Option<u32> {
        let asked = match self {
            Self::Idle => None,
            Self::AwaitingCodes(asked) => Some(&**asked),
            Self::Verifying { pending: Some(pending), .. } => Some(&**pending),
            Self::Verifying { work: Work::Judge(asked), .. } => Some(&**asked),
            Self::Verifying { .. } => None,
        };
        asked.map(|asked| asked.frame.round)
    }
}

#[derive(Debug)]
struct Session {
    slot: Slot,
    nonce: u64,
    epoch: u8,
    seed: u64,
    sampling: Sampling,
    text: Text,
    /// Tokens in the target's cache.
    fed: Vec<TokenId>,
    /// The job that reads context which no frame has asked for yet.
    reading: Option<VerifyJobId>,
    answered: Option<Verdict>,
    /// The newest round with credit, 0 before the first.
    credited: u32,
    /// Start of the tokens at the text's end that are known to be the target's own under the present seed.
    own_from: usize,
    /// The credit in use.
    stream: Option<Stream>,
    round: Round,
    weights: ReceivedWeights,
    /// The price of the work, as the device was told last.
    told: Price,
    /// Time at which the device is told that its answer is late.
    working: Option<Instant>,
    /// Time of a lease or a verdict whose device has not sent a frame since.
    expected: Option<Instant>,
    used: Instant,
}

/// The verifier's side of all sessions.
#[derive(Debug)]
pub struct Verifier {
    config: VerifierConfig,
    sessions: BTreeMap<Key, Session>,
    jobs: BTreeMap<VerifyJobId, Key>,
    /// The sessions that were dropped for memory last.
    displaced: VecDeque<Key>,
    next: u64,
    draining: bool,
    /// True if the target shows its choices and not its rows.
    choices: bool,
    outbox: VecDeque<OutgoingAnswer>,
    /// Answers so far, whatever became of them.
    answers: u64,
    events: VecDeque<VerifierEvent>,
    counters: VerifierCounters,
    price: Price,
    passes: Passes,
    scratch: Distribution,
}

impl Verifier {
    /// A verifier without sessions.
    ///
    /// # Errors
    /// Names the setting that is outside the protocol's limits.
    pub fn new(config: VerifierConfig) -> Result<Self, LimitError> {
        LimitError::check_vocabulary(&config.vocabulary)?;
        LimitError::check("context_tokens_max", config.context_tokens_max, 2..=SESSION_TOKENS_MAX)?;
        LimitError::check("draft_tokens_max", config.draft_tokens_max.into(), 1..=DRAFT_TOKENS_MAX as u32)?;
        let (tokens, most) = (config.continuation_tokens, CONTINUATION_TOKENS_MAX as u32);
        LimitError::check("continuation_tokens", tokens.into(), 1..=most)?;
        LimitError::check("sessions_max", config.sessions_max.try_into().unwrap_or(u32::MAX), 1..=u32::MAX)?;
        Ok(Self {
            config,
            sessions: BTreeMap::new(),
            jobs: BTreeMap::new(),
            displaced: VecDeque::new(),
            next: 0,
            draining: false,
            choices: false,
            outbox: VecDeque::new(),
            answers: 0,
            events: VecDeque::new(),
            counters: VerifierCounters::default(),
            price: Price::default(),
            passes: Passes::default(),
            scratch: Distribution::certain(0),
        })
    }

    /// The same verifier with a target that shows its choices and not its rows ([`Self::handle_choices`]). It serves
    /// plain frames: drafts under the shared seed, of which none is held. A frame of another policy ends its lease with
    /// [`CloseReason::Policy`].
    #[must_use]
    pub fn of_choices(mut self) -> Self {
        self.choices = true;
        self
    }

    /// The number of sessions.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// The number of sessions relative to `sessions_max`, rounded down to steps of 1/[`LOAD_STEPS`] and scaled to
    /// 0..=255.
    pub fn load(&self) -> u8 {
        let step = self.sessions.len().saturating_mul(LOAD_STEPS) / self.config.sessions_max;
        (step * 255 / LOAD_STEPS) as u8
    }

    /// The presence to announce, with generation 0.
    pub fn presence(&self) -> VerifierPresence {
        let target = self.config.target.clone();
        VerifierPresence {
            generation: 0,
            liveness: Liveness::Here,
            vocabulary: self.config.vocabulary,
            target: target.id,
            promise: target.promise,
            coupling: target.coupling,
            model: target.model,
            engine: target.engine,
            numerics: target.numerics,
            price: self.price,
            load: self.load(),
            draining: self.draining,
        }
    }

    /// Sets the times to announce: of a pass, of a further row, and of the wait before a pass.
    pub fn set_price(&mut self, price: Price) {
        self.price = price;
    }

    /// Counts since the start.
    pub fn counters(&self) -> &VerifierCounters {
        &self.counters
    }

    /// Takes a message from a device's open topic; the reply carries its `correlation` data.
    pub fn handle_open(
        &mut self,
        device: &DeviceId,
        bytes: &[u8],
        correlation: Option<Correlation>,
        now: Instant,
    ) {
        let Ok(open) = Open::decode(bytes) else {
            self.counters.malformed += 1;
            return;
        };
        let key = (device.clone(), open.session);
        let reply = match self.admit(&open) {
            Ok(sampling) => self.lease(&key, &open, sampling, now),
            Err(reason) => Some(refusal(&open, reason)),
        };
        let Some(reply) = reply else {
            self.counters.stale += 1;
            return;
        };
        match &reply {
            Reply::Lease(_) => self.counters.leases += 1,
            Reply::Refusal(_) => self.counters.refusals += 1,
        }
        let bytes = reply.encode().expect("a reply is made of checked values");
        self.send(OutgoingAnswer { device: key.0, channel: Answer::Reply, correlation, bytes });
    }

    /// Takes a message from a device's frame topic.
    pub fn handle_frame(&mut self, device: &DeviceId, bytes: &[u8], now: Instant) {
        self.handle_up(device, bytes, now);
        self.note_pass(now);
    }

    fn handle_up(&mut self, device: &DeviceId, bytes: &[u8], now: Instant) {
        match Up::decode(bytes) {
            Err(_) => self.counters.malformed += 1,
            Ok(Up::Close(close)) => self.close(&(device.clone(), close.session), close.epoch),
            Ok(Up::Context(context)) => self.on_context(device, &context, now),
            Ok(Up::Codes(codes)) => self.on_codes(device, &codes, now),
            Ok(Up::Draft(frame)) => {
                self.counters.frames += 1;
                let (answers, arrived) = (self.answers, ArrivedFrame::of(&frame));
                let key = (device.clone(), frame.session);
                let asked = PendingFrame { frame, digest: frame_digest(bytes) };
                self.on_draft(device, asked, now);
                self.expect_answer(&key, &arrived, answers, now);
            }
        }
    }

    /// Takes the result of a job: `rows × vocabulary` logits, row-major.
    pub fn handle_rows(&mut self, id: VerifyJobId, rows: Result<&[f32], RowsError>, now: Instant) {
        self.handle_answer(id, rows.map(TargetAnswer::Rows), now);
    }

    /// Takes the result of a job from an engine of choices: one token for each of the job's rows.
    pub fn handle_choices(
        &mut self,
        id: VerifyJobId,
        choices: Result<&[ChosenToken], RowsError>,
        now: Instant,
    ) {
        self.handle_answer(id, choices.map(TargetAnswer::Choices), now);
    }

    fn handle_answer(&mut self, id: VerifyJobId, answer: Result<TargetAnswer<'_>, RowsError>, now: Instant) {
        if self.jobs.contains_key(&id) {
            self.passes.end();
        }
        self.take_answer(id, answer, now);
        self.note_pass(now);
    }

    fn take_answer(&mut self, id: VerifyJobId, answer: Result<TargetAnswer<'_>, RowsError>, now: Instant) {
        let Some(key) = self.jobs.remove(&id) else { return };
        let Some(session) = self.sessions.get_mut(&key) else { return };
        if session.reading == Some(id) {
            session.reading = None;
            return self.on_read(&key, answer.err());
        }
        let (work, pending) = match core::mem::replace(&mut session.round, Round::Idle) {
            Round::Verifying { id: own, work, pending } if own == id => (work, pending.map(|newer| *newer)),
            // The session of this job was dropped and opened again under the same key: the rows are not its own.
            other => {
                session.round = other;
                return;
            }
        };
        session.used = now;
        match answer {
            Err(RowsError::Budget) => self.make_room(&key, pending, work, now),
            Err(RowsError::Lost) => self.begin_again(&key, pending, work, now),
            Err(RowsError::Failed) => return self.end(&key, CloseReason::Failed),
            // The session's text may have changed since the newer frame arrived, so it is checked like a new one.
            Ok(answer) => match (pending, work) {
                (Some(newer), _) => self.await_codes_or_start(&key, newer, now),
                (None, Work::Judge(asked)) => self.judge(&key, &asked, answer, now),
                (None, Work::Write { at, digest }) => self.write(&key, (at, digest), answer, now),
                (None, Work::Abandoned) => {}
            },
        }
        // `drain` spares sessions that the target works for; they end here, once answered.
        if self.draining {
            self.flush(&key, now);
            self.end_if_idle(&key);
        } else {
            self.go_on_writing(&key, now);
        }
    }

    /// Drops sessions that were silent for too long. One that the target works for is kept: its cache is in use. Its
    /// device is told if that takes longer than announced.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.note_pass(now);
        self.say_what_is_late(now);
        let idle_max = self.config.idle_max;
        let silent = |s: &Session| !s.round.is_verifying() && now.since(s.used) >= idle_max;
        let keys: Vec<Key> =
            self.sessions.iter().filter(|(_, s)| silent(s)).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.counters.evicted += 1;
            self.forget(&key);
        }
    }

    /// Refuses new sessions from now on. Frames being verified are still answered; all other leases end at once.
    pub fn drain(&mut self) {
        self.draining = true;
        let keys: Vec<Key> = self.sessions.keys().cloned().collect();
        for key in keys {
            self.end_if_idle(&key);
        }
    }

    /// True once a draining verifier has no session left.
    pub fn is_drained(&self) -> bool {
        self.draining && self.sessions.is_empty()
    }

    /// The next answer to publish.
    pub fn poll_transmit(&mut self) -> Option<OutgoingAnswer> {
        self.outbox.pop_front()
    }

    /// The time of the next call of [`Self::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = |session: &Session| match session.round.is_verifying() {
            true => session.working,
            false => Some(session.used + self.config.idle_max),
        };
        self.sessions.values().filter_map(due).chain(self.passes.pause()).min()
    }

    /// The next action for the shell.
    pub fn poll_event(&mut self) -> Option<VerifierEvent> {
        if self.passes.pause().is_some() {
            return None;
        }
        self.events.pop_front().inspect(|event| self.passes.take(event))
    }

    /// Checks a request against this verifier's settings.
    fn admit(&self, open: &Open) -> Result<Sampling, RefusalReason> {
        if self.draining {
            return Err(RefusalReason::Draining);
        }
        if !self.config.prefixes.contain(self.config.vocabulary, open.vocabulary) {
            return Err(RefusalReason::Vocabulary(self.config.vocabulary));
        }
        if open.length >= self.config.context_tokens_max {
            return Err(RefusalReason::TooLong(self.config.context_tokens_max));
        }
        let s = open.sampling;
        Sampling::new(s.temperature, s.top_p, s.top_k).map_err(|_| RefusalReason::Sampling)
    }

    /// Grants, renews or repeats a lease; `None` when the request is older than the lease.
    fn lease(&mut self, key: &Key, open: &Open, sampling: Sampling, now: Instant) -> Option<Reply> {
        // A device that lost its state may reuse a session number; then the nonce differs and the old session is void.
        if self.sessions.get(key).is_some_and(|session| session.nonce != open.nonce) {
            self.forget(key);
        }
        let is_new = !self.sessions.contains_key(key);
        if is_new && (self.is_overdrawn(&key.0) || !self.make_session(key, open, sampling, now)) {
            return Some(refusal(open, RefusalReason::Full));
        }
        let price = self.present_price(now);
        let session = self.sessions.get_mut(key).expect("just made or found");
        // Epochs are compared modulo 256: 0 repeats the request, up to 127 is newer, the rest is a late older one.
        match open.epoch.wrapping_sub(session.epoch) {
            0 => {}
            newer if newer < 128 => session.renew(open, sampling),
            _ => return None,
        }
        session.used = now;
        session.told = price;
        session.expected = Some(now);
        // The device compares the digest with its own text. If they differ it opens again with length 0.
        let length = session.text.len().min(open.length as usize);
        Some(Reply::Lease(Lease {
            session: open.session,
            epoch: open.epoch,
            nonce: open.nonce,
            verifier: self.config.id.clone(),
            target: self.config.target.id,
            promise: self.config.target.promise,
            coupling: self.config.target.coupling,
            price,
            draft_tokens_max: self.config.draft_tokens_max,
            credit_tokens_max: self.config.credit_tokens_max,
            context_tokens_max: self.config.context_tokens_max,
            vocabulary_size: self.config.vocabulary.size,
            length: length as u32,
            digest: session.text.full(length).expect("length is at most the text's"),
        }))
    }

    /// True if too many passes are under way for sessions that the device has ended: ending them must not make room
    /// for more than its sessions are allowed.
    fn is_overdrawn(&self, device: &DeviceId) -> bool {
        let sessions = self.sessions.keys().filter(|(owner, _)| owner == device).count();
        let jobs = self.jobs.values().filter(|(owner, _)| owner == device).count();
        // A session may have a job for a frame and one that reads context.
        jobs >= 2 * sessions + ORPHANED_JOBS_MAX
    }

    fn make_session(&mut self, key: &Key, open: &Open, sampling: Sampling, now: Instant) -> bool {
        if self.sessions.len() >= self.config.sessions_max && self.evict(key).is_none() {
            return false;
        }
        if let Some(index) = self.displaced.iter().position(|displaced| displaced == key) {
            self.displaced.remove(index);
            self.counters.returned += 1;
        }
        let slot = Slot(self.number());
        let session = Session {
            slot,
            nonce: open.nonce,
            epoch: open.epoch,
            seed: open.seed,
            sampling,
            text: Text::default(),
            fed: Vec::new(),
            reading: None,
            answered: None,
            credited: 0,
            own_from: 0,
            stream: None,
            round: Round::Idle,
            weights: ReceivedWeights::default(),
            told: Price::default(),
            working: None,
            expected: None,
            used: now,
        };
        self.sessions.insert(key.clone(), session);
        true
    }

    fn on_context(&mut self, device: &DeviceId, context: &Context, now: Instant) {
        let Some(key) = self.find(device, context.session, context.epoch, None) else { return };
        let config = &self.config;
        let end = context.offset as usize + context.tokens.len();
        let size = config.vocabulary.size;
        let known = context.tokens.iter().all(|token| *token < size);
        if !known || context.token_bits != token_bits(size) || end >= config.context_tokens_max as usize {
            return self.end(&key, CloseReason::Rejected);
        }
        let session = self.sessions.get_mut(&key).expect("found above");
        session.used = now;
        let offset = context.offset as usize;
        // A missing chunk is reported by the resync to the next frame, once, instead of once for each chunk behind it.
        if session.text.short(offset) != Some(context.prefix) {
            self.counters.stale += 1;
            return;
        }
        let have = &session.text.tokens()[offset..];
        let same = shared_prefix(have, &context.tokens);
        // A chunk that repeats known text must not cut the text behind it.
        if same < context.tokens.len() {
            session.text.truncate(offset + same);
            session.text.extend(&context.tokens[same..]);
            // A new prompt follows: the tokens are the device's, and the credit was for the text before it.
            session.own_from = session.text.len();
            session.stream = None;
            self.read_ahead(&key);
        }
    }

    fn on_codes(&mut self, device: &DeviceId, codes: &Codes, now: Instant) {
        let Some(key) = self.find(device, codes.session, codes.epoch, None) else { return };
        let size = self.config.vocabulary.size as usize;
        let session = self.sessions.get_mut(&key).expect("found above");
        session.used = now;
        if !session.weights.take(codes, size) {
            self.counters.stale += 1;
            return;
        }
        // The waiting frame may be complete now. If these weights are of a newer round, its own were dropped for them
        // and it waits on in vain.
        if matches!(&session.round, Round::AwaitingCodes(asked) if asked.frame.round <= codes.round)
            && let Round::AwaitingCodes(asked) = core::mem::replace(&mut session.round, Round::Idle)
        {
            let arrived = ArrivedFrame::of(&asked.frame).complete();
            self.await_codes_or_start(&key, *asked, now);
            self.expect_answer(&key, &arrived, self.answers, now);
        }
    }

    fn on_draft(&mut self, device: &DeviceId, asked: PendingFrame, now: Instant) {
        let frame = &asked.frame;
        let Some(key) = self.find(device, frame.session, frame.epoch, Some(asked.digest)) else { return };
        if !self.config.lossy && is_lossy(frame) || self.choices && !is_plain(frame) {
            return self.end(&key, CloseReason::Policy);
        }
        let session = self.sessions.get_mut(&key).expect("found above");
        session.used = now;
        session.expected = None;
        let (round, send) = (asked.frame.round, asked.frame.send);
        // Rounds only grow within an epoch, so an equal or smaller number is a duplicate or came late.
        let answered = session.answered.map_or(0, |verdict| verdict.round).max(session.credited);
        let newest = Some(answered).max(session.round.newest());
        let streams = asked.frame.drafts.is_empty() && asked.frame.credit.is_some();
        match (session.answered, &mut session.round) {
            // The verdict may be lost. The same answer goes out again, but it names the send that it answers.
            (Some(verdict), _) if verdict.round == round && answered == round => {
                self.counters.repeated += 1;
                self.answer(&key, &Down::Verdict(Verdict { send, ..verdict }));
                self.repeat(&key, now);
            }
            // All that was written on this credit may be lost, too.
            _ if streams && session.credited == round && newest == Some(round) => {
                self.counters.repeated += 1;
                self.repeat(&key, now);
            }
            // The newest frame arrived again before its answer, which will follow, or an older frame came late.
            _ if newest.is_some_and(|newest| newest >= round) => self.counters.stale += 1,
            // Credit changes neither the text nor the job under way.
            (_, Round::Verifying { work: Work::Write { .. }, pending: None, .. }) if streams => {
                self.grant(&key, &asked.frame, now);
            }
            // The session's cache is in use until the target returns.
            (_, Round::Verifying { pending, .. }) => *pending = Some(Box::new(asked)),
            _ => {
                self.await_codes_or_start(&key, asked, now);
                self.go_on_writing(&key, now);
            }
        }
    }

    /// Starts verifying a frame, or keeps it until the rest of its weights arrives.
    fn await_codes_or_start(&mut self, key: &Key, asked: PendingFrame, now: Instant) {
        let session = self.sessions.get_mut(key).expect("callers hold a live key");
        if asked.frame.rows == Rows::Full && !session.weights.are_complete(asked.frame.round) {
            session.round = Round::AwaitingCodes(Box::new(asked));
        } else {
            session.round = Round::Idle;
            self.start(key, asked, now);
        }
    }

    /// Checks a frame against the limits and the session's text, then requests the target's rows.
    fn start(&mut self, key: &Key, asked: PendingFrame, now: Instant) {
        let frame = &asked.frame;
        if frame.drafts.is_empty() && frame.credit.is_some() {
            return self.grant(key, frame, now);
        }
        if !self.fits(frame) {
            return self.end(key, CloseReason::Rejected);
        }
        if !self.agrees(key, frame) {
            return;
        }
        let session = self.sessions.get_mut(key).expect("callers hold a live key");
        // The verdict brings credit of its own, if the frame has any.
        session.stream = None;
        session.cut(frame.base as usize);
        // The row behind the last draft gives the bonus token; without a bonus the last draft need not be fed.
        let fed = frame.drafts.len() - usize::from(!frame.bonus);
        let drafts: Vec<TokenId> = frame.drafts[..fed].iter().map(|draft| draft.token).collect();
        let rows = fed + 1 - first_row(frame);
        self.ask_target(key, &drafts, rows, Work::Judge(Box::new(asked)));
    }

    /// True when every field of a frame is within this verifier's limits.
    fn fits(&self, frame: &DraftFrame) -> bool {
        let (vocabulary, context_max) = (self.config.vocabulary.size, self.config.context_tokens_max);
        frame.base >= 1
            && frame.base as usize + frame.drafts.len() + usize::from(frame.bonus) <= context_max as usize
            && frame.drafts.len() <= usize::from(self.config.draft_tokens_max)
            && (frame.bonus || !frame.drafts.is_empty())
            && frame.credit.as_ref().is_none_or(|credit| self.credit_fits(frame.base, credit))
            && frame.rows.list().iter().flat_map(|row| &row.entries).all(|entry| entry.token < vocabulary)
            && frame.token_bits == token_bits(vocabulary)
            && frame.drafts.iter().all(|draft| draft.token < vocabulary)
    }

    /// True when the session's text begins with that of the frame; otherwise requests context.
    fn agrees(&mut self, key: &Key, frame: &DraftFrame) -> bool {
        let session = self.sessions.get_mut(key).expect("callers hold a live key");
        let base = frame.base as usize;
        if session.text.short(base) == Some(frame.prefix) {
            return true;
        }
        let length = session.text.len().min(base);
        let digest = session.text.full(length).expect("length is at most the text's");
        let (session, epoch, round) = (frame.session, frame.epoch, frame.round);
        self.counters.resyncs += 1;
        self.answer(key, &Down::Resync(Resync { session, epoch, round, length: length as u32, digest }));
        false
    }

    /// Requests the target's last `rows` rows for the session's text and these drafts behind it.
    fn ask_target(&mut self, key: &Key, drafts: &[TokenId], rows: usize, work: Work) {
        let id = VerifyJobId(self.number());
        let session = self.sessions.get_mut(key).expect("callers hold a live key");
        // The row after the last committed token is needed, so that token is fed even if the cache has it already.
        let keep = shared_prefix(&session.fed, session.text.tokens()).min(session.text.len() - 1);
        let mut tokens = session.text.tokens()[keep..].to_vec();
        tokens.extend(drafts);
        session.fed.truncate(keep);
        session.fed.extend(&tokens);
        let (device, sampling, seed) = (key.0.clone(), session.sampling, session.seed);
        let job = VerifyJob { device, id, slot: session.slot, keep, tokens, rows, sampling, seed };
        session.round = Round::Verifying { id, work, pending: None };
        self.jobs.insert(id, key.clone());
        self.events.push_back(VerifierEvent::Verify(job));
    }

    /// Judges a frame by the target's answer and sends the verdict.
    fn judge(&mut self, key: &Key, asked: &PendingFrame, answer: TargetAnswer<'_>, now: Instant) {
        let PendingFrame { frame, digest } = asked;
        let session = self.sessions.get_mut(key).expect("callers hold a live key");
        let base = frame.base as usize;
        // Context or weights that arrived meanwhile replaced those of this frame: the device has moved on and will send
        // another.
        let same_text = session.text.len() == base && session.text.short(base) == Some(frame.prefix);
        let weights_left = frame.rows == Rows::Full && !session.weights.are_complete(frame.round);
        if !same_text || weights_left {
            self.counters.stale += 1;
            return;
        }
        let question = acceptance::JudgedFrame {
            frame,
            weights: &session.weights.weights,
            vocabulary: self.config.vocabulary.size,
            seed: session.seed,
            sampling: session.sampling,
        };
        let outcome = match answer {
            TargetAnswer::Rows(rows) => question.judge(rows, &mut self.scratch),
            TargetAnswer::Choices(choices) => question.judge_choices(choices),
        };
        let Some(Outcome { accepted, token, missed }) = outcome else {
            return self.end(key, CloseReason::Failed);
        };
        for draft in &frame.drafts[..accepted] {
            session.text.push(draft.token);
        }
        session.text.push(token);
        // Only the shared seed makes what stands the target's own; elsewhere the next reply may not build on it.
        let own = is_plain(frame);
        session.own_from = if own { session.own_from.min(base) } else { session.text.len() };
        let (session_number, epoch, round) = (frame.session, frame.epoch, frame.round);
        let accepted_u8 = accepted as u8;
        let verdict = Verdict {
            session: session_number,
            epoch,
            round,
            check: check_of(*digest),
            send: frame.send,
            pass: self.price.pass,
            queue: self.price.queue,
            accepted: accepted_u8,
            token,
            missed,
        };
        session.answered = Some(verdict);
        session.working = None;
        session.expected = Some(now);
        session.tell(self.price);
        session.stream =
            frame.credit.as_ref().map(|credit| Stream::new(&session.text, session.text.len(), frame, credit));
        self.count(frame, &verdict);
        self.answer(key, &Down::Verdict(verdict));
        self.flush(key, now);
    }

    fn count(&mut self, frame: &DraftFrame, verdict: &Verdict) {
        let accepted = usize::from(verdict.accepted);
        // Without a bonus the verdict's token takes the place of the last draft; if equal, that draft was accepted.
        let own =
            !frame.bonus && frame.drafts.get(accepted).is_some_and(|draft| draft.token == verdict.token);
        let judged = |drafts: usize| (0..drafts).filter(|&index| !frame.is_held(index)).count() as u64;
        self.counters.verdicts += 1;
        self.counters.drafts += judged(frame.drafts.len());
        self.counters.accepted += judged(accepted) + u64::from(own);
        self.counters.missed += u64::from(verdict.missed.count_ones());
    }

    /// Drops another session to free memory and verifies again with an empty cache; ends this session if there is no
    /// other to drop.
    fn make_room(&mut self, key: &Key, pending: Option<PendingFrame>, work: Work, now: Instant) {
        let (asked, writes) = match work {
            Work::Judge(asked) => (pending.or(Some(*asked)), false),
            Work::Write { .. } => (pending, true),
            Work::Abandoned => (pending, false),
        };
        if asked.is_some() || writes {
            let Some(victim) = self.evict(key) else { return self.end(key, CloseReason::Failed) };
            self.counters.displaced += 1;
            if self.displaced.len() == DISPLACED_MAX {
                self.displaced.pop_front();
            }
            self.displaced.push_back(victim);
        }
        self.empty_cache(key);
        if let Some(asked) = asked {
            self.await_codes_or_start(key, asked, now);
        }
    }

    /// Verifies again with an empty cache.
    fn begin_again(&mut self, key: &Key, pending: Option<PendingFrame>, work: Work, now: Instant) {
        self.empty_cache(key);
        let judged = match work {
            Work::Judge(asked) => Some(*asked),
            Work::Write { .. } | Work::Abandoned => None,
        };
        if let Some(asked) = pending.or(judged) {
            self.await_codes_or_start(key, asked, now);
        }
    }

    /// Gives a session a new, empty cache.
    fn empty_cache(&mut self, key: &Key) {
        let slot = Slot(self.number());
        let session = self.sessions.get_mut(key).expect("callers hold a live key");
        self.events.push_back(VerifierEvent::Release(session.slot));
        session.slot = slot;
        session.fed.clear();
        session.reading = None;
    }

    /// Asks the target to read context that a frame will need, unless it works for the session already.
    fn read_ahead(&mut self, key: &Key) {
        let Some(session) = self.sessions.get(key) else { return };
        let text = session.text.tokens();
        // The frame feeds the last token, whose row it needs.
        let end = text.len().saturating_sub(1);
        let keep = shared_prefix(&session.fed, &text[..end]);
        let is_busy = session.reading.is_some() || session.round.is_verifying();
        if is_busy || self.draining || !self.is_worth_reading_ahead(end - keep) {
            return;
        }
        let id = VerifyJobId(self.number());
        let session = self.sessions.get_mut(key).expect("found above");
        let tokens = session.text.tokens()[keep..end].to_vec();
        session.fed.truncate(keep);
        session.fed.extend(&tokens);
        session.reading = Some(id);
        let (device, slot, sampling, seed) = (key.0.clone(), session.slot, session.sampling, session.seed);
        let job = VerifyJob { device, id, slot, keep, tokens, rows: 0, sampling, seed };
        self.jobs.insert(id, key.clone());
        self.events.push_back(VerifierEvent::Verify(job));
    }

    /// True if so many tokens of a context are worth a job of their own. Those that lengthen the pass of their frame by
    /// little are read in it: a pass for them alone would be one more before the first verdict.
    fn is_worth_reading_ahead(&self, tokens: usize) -> bool {
        let is_cheap = match (self.price.pass.us(), self.price.row.us()) {
            (Some(pass), Some(row)) => READ_AHEAD_SHARE * row * tokens as u64 <= pass,
            _ => false,
        };
        tokens >= READ_AHEAD_TOKENS_MIN && !is_cheap
    }

    /// Takes the end of a job that read context, and goes on with what came meanwhile.
    fn on_read(&mut self, key: &Key, error: Option<RowsError>) {
        let Some(session) = self.sessions.get(key) else { return };
        match error {
            None => self.read_ahead(key),
            // A job behind it gets the error itself, and the frame that comes makes room.
            Some(RowsError::Budget | RowsError::Lost) if session.round.is_verifying() => {}
            Some(RowsError::Budget | RowsError::Lost) => self.empty_cache(key),
            Some(RowsError::Failed) => self.end(key, CloseReason::Failed),
        }
    }

    /// Drops a session other than `but`: of the device with the most, the least recently used. `None` if no session may go.
    /// A session whose frame is being verified stays. One that writes on credit is at work all the time, so it goes,
    /// too, where its device holds more than this one or is this one: streams must not displace everyone else.
    fn evict(&mut self, but: &Key) -> Option<Key> {
        let mut held: BTreeMap<&DeviceId, usize> = BTreeMap::from([(&but.0, 0)]);
        let own = usize::from(!self.sessions.contains_key(but));
        self.sessions.keys().for_each(|(device, _)| *held.entry(device).or_default() += 1);
        let mine = held[&but.0] + own;
        let may_go = |key: &Key, session: &Session| {
            let more = key.0 == but.0 || held[&key.0] > mine;
            key != but && (!session.round.is_verifying() || more && session.round.is_writing())
        };
        let candidates = self.sessions.iter().filter(|(key, session)| may_go(key, session));
        let victim = candidates.min_by_key(|(key, s)| (Reverse(held[&key.0]), s.used));
        let key = victim.map(|(key, _)| key.clone())?;
        self.counters.evicted += 1;
        self.forget(&key);
        Some(key)
    }

    /// The key of a live lease; `None` if there is none. `frame` is the digest of a draft frame: it is answered with a
    /// close message that carries the digest, by which the device knows its frame. Context and weights get no answer,
    /// since the frame behind them will.
    fn find(&mut self, device: &DeviceId, session: u8, epoch: u8, frame: Option<u64>) -> Option<Key> {
        let key = (device.clone(), session);
        if self.sessions.get(&key).is_some_and(|s| s.epoch == epoch) {
            return Some(key);
        }
        self.counters.stale += 1;
        if let Some(nonce) = frame {
            let closed = Closed { session, epoch, nonce, reason: CloseReason::Unknown };
            self.answer(&key, &Down::Closed(closed));
        }
        None
    }

    fn close(&mut self, key: &Key, epoch: u8) {
        if self.sessions.get(key).is_some_and(|session| session.epoch == epoch) {
            self.forget(key);
        }
    }

    fn end_if_idle(&mut self, key: &Key) {
        if self.sessions.get(key).is_some_and(|session| !session.round.is_verifying()) {
            self.end(key, CloseReason::Draining);
        }
    }

    /// Ends a lease and sends the reason.
    fn end(&mut self, key: &Key, reason: CloseReason) {
        if let Some(session) = self.sessions.get(key) {
            let closed = Closed { session: key.1, epoch: session.epoch, nonce: session.nonce, reason };
            self.answer(key, &Down::Closed(closed));
        }
        self.forget(key);
    }

    fn forget(&mut self, key: &Key) {
        if let Some(session) = self.sessions.remove(key) {
            self.events.push_back(VerifierEvent::Release(session.slot));
        }
    }

    fn answer(&mut self, key: &Key, down: &Down) {
        let bytes = down.encode().expect("an answer is made of checked values");
        self.send(OutgoingAnswer {
            device: key.0.clone(),
            channel: Answer::Verdict,
            correlation: None,
            bytes,
        });
    }

    fn send(&mut self, outgoing: OutgoingAnswer) {
        self.answers += 1;
        if self.outbox.len() == OUTBOX_MAX {
            self.outbox.pop_front();
            self.counters.dropped += 1;
        }
        self.outbox.push_back(outgoing);
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl Session {
    /// Starts a new epoch of a known session: older frames and answers are void, the text stays.
    fn renew(&mut self, open: &Open, sampling: Sampling) {
        self.epoch = open.epoch;
        // Tokens drawn with other noise, or from another distribution, are not the target's own any more.
        if (self.seed, self.sampling) != (open.seed, sampling) {
            self.own_from = self.text.len();
        }
        self.seed = open.seed;
        self.sampling = sampling;
        self.answered = None;
        self.credited = 0;
        self.stream = None;
        self.working = None;
        self.weights = ReceivedWeights::default();
        match &mut self.round {
            // The job still uses the cache, so the state stays; its rows will find no frame to judge.
            Round::Verifying { work, pending, .. } => (*work, *pending) = (Work::Abandoned, None),
            round => *round = Round::Idle,
        }
        self.cut(open.length as usize);
    }

    /// Cuts the text to a length.
    fn cut(&mut self, length: usize) {
        self.text.truncate(length);
        self.own_from = self.own_from.min(self.text.len());
    }
}

impl ReceivedWeights {
    /// Takes one part; false if it does not fit a vocabulary of `size` tokens or is of an older round. A part of a
    /// newer round discards the older round's parts.
    fn take(&mut self, codes: &Codes, size: usize) -> bool {
        let start = usize::from(codes.part) * CODES_MAX;
        if codes.round < self.round || start >= size || codes.codes.len() != (size - start).min(CODES_MAX) {
            return false;
        }
        if self.round != codes.round {
            *self = Self {
                round: codes.round,
                weights: vec![0; size],
                parts: vec![false; size.div_ceil(CODES_MAX)],
            };
        }
        // Only the first copy counts: the target may be working on the frame already, and its weights must not change.
        if !core::mem::replace(&mut self.parts[usize::from(codes.part)], true) {
            self.weights[start..][..codes.codes.len()].copy_from_slice(&codes.codes);
        }
        true
    }

    fn are_complete(&self, round: u32) -> bool {
        self.round == round && self.parts.iter().all(|came| *came)
    }
}

/// True when the frame may commit tokens that the target would not have written, or not with that probability.
fn is_lossy(frame: &DraftFrame) -> bool {
    frame.held != 0 || matches!(frame.rows, Rows::TopK(_))
}

fn refusal(open: &Open, reason: RefusalReason) -> Reply {
    let Open { session, epoch, nonce, .. } = *open;
    Reply::Refusal(Refusal { session, epoch, nonce, reason })
}
