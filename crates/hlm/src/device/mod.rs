//! The device's protocol machine: drafting, frames, verdicts, and the reaction to silence.
//!
//! Invariant: the committed text only grows. Each committed token is the target's own, or marked trusted where the
//! policy keeps it without or against the target, or marked unverified. One frame is under way at a time; a verdict
//! is its acknowledgement. Lost messages are sent again, stale ones are counted and dropped. When a verifier stays
//! silent, the device asks for a new lease under the next epoch.

mod candidates;
mod choice;
mod drafting;
mod inbound;
mod learned;
mod lease;
mod offer;
mod outbound;
mod pinned;
mod presence;
mod round;
mod silence;
mod stream;
mod types;

pub use candidates::CANDIDATES_MAX;
pub use learned::{Learned, LearnedError, LearnedRecord};
pub use pinned::PinnedTarget;
pub use presence::PresenceScope;
pub use types::{
    Channel, Commit, DeviceConfig, DeviceCounters, DeviceEvent, DraftJob, DraftJobId, DraftRow, Finish,
    Judged, Offline, Origin, Phase, ReplyLimits, SayError, SessionIdentity, Transmit,
};

use crate::TokenId;
use crate::conformal::Conformal;
use crate::economy::Way;
use crate::importance::RecentImportances;
use crate::limits::LimitError;
use crate::policy::HeldTokens;
use crate::probabilities::Distribution;
use crate::stop::Prices;
use crate::text::Text;
use crate::time::Instant;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use drafting::{Drafted, judged_max};
use dunlin_wire::limits::SESSION_TOKENS_MAX;
use dunlin_wire::{Close, TargetId, VerifierId, VerifierPresence};
use lease::{Flight, Leased, Lessor, Opening};
use round::RoundClock;
use silence::Silence;

/// A reply under way.
#[derive(Debug)]
struct Saying {
    left: usize,
    stop: Vec<TokenId>,
}

/// The reasons to call [`Device::handle_timeout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timer {
    /// The frame under way was not answered in time: send it again, or give up the lease.
    Resend,
    /// The text stopped flowing: ask for it from here, or give up the lease.
    Stalled,
    /// The next request for a lease is due.
    Open,
    /// The silence reached [`DeviceConfig::give_up_after`].
    GiveUp,
    /// No known verifier fits the session, and there was enough time for one to appear.
    Unsuited,
}

/// The device's side of one session.
#[derive(Debug)]
pub struct Device {
    config: DeviceConfig,
    session: SessionIdentity,
    learned: Learned,
    text: Text,
    /// Drafted tokens behind the text: first those of the frame under way, then those drafted ahead.
    drafted: Vec<Drafted>,
    /// Running statistics of the importance of the last drafts.
    recent: RecentImportances,
    /// Length of the text up to the end of the last prompt.
    prompt_end: usize,
    /// Most drafts whose rows are sure to fit one frame.
    judged_max: usize,
    /// Tokens in the drafter's cache.
    fed: Vec<TokenId>,
    job: Option<(DraftJobId, usize)>,
    jobs: u64,
    saying: Option<Saying>,
    lessor: Lessor,
    /// Leases to return that aren't used.
    partings: Vec<(VerifierId, Close)>,
    link_up: bool,
    /// The target that wrote the text; `None` before its first verdict.
    target: Option<PinnedTarget>,
    silence: Silence,
    /// True if a verifier has another text under this session's number. The next request then declares an empty text,
    /// so that the verifier drops its own.
    disowned: bool,
    /// The way to the reply's next tokens, once chosen; `None` under a policy that doesn't choose.
    way: Option<Way>,
    round: RoundClock,
    closing: bool,
    events: VecDeque<DeviceEvent>,
    counters: DeviceCounters,
    scratch: Distribution,
}

impl Device {
    /// A session without text or lease.
    ///
    /// # Errors
    /// The vocabulary is outside the protocol's limits.
    pub fn new(
        config: DeviceConfig,
        session: SessionIdentity,
        mut learned: Learned,
    ) -> Result<Self, LimitError> {
        LimitError::check_vocabulary(&config.vocabulary)?;
        let policy = &config.policy;
        if policy.held() == HeldTokens::Audited {
            learned.conformal.get_or_insert_with(|| Conformal::new(policy.epsilon()));
        }
        Ok(Self {
            judged_max: judged_max(policy.payload(), config.vocabulary.size),
            config,
            session,
            learned,
            text: Text::default(),
            drafted: Vec::new(),
            recent: RecentImportances::default(),
            prompt_end: 0,
            fed: Vec::new(),
            job: None,
            jobs: 0,
            saying: None,
            lessor: Lessor::None,
            partings: Vec::new(),
            link_up: false,
            target: None,
            silence: Silence::default(),
            way: None,
            disowned: false,
            round: RoundClock::default(),
            closing: false,
            events: VecDeque::new(),
            counters: DeviceCounters::default(),
            scratch: Distribution::certain(0),
        })
    }

    /// Appends prompt tokens to the text and starts a reply.
    ///
    /// # Errors
    /// The session is closed or busy, or the prompt is empty, has an unknown token or leaves no room for a reply.
    pub fn say(&mut self, tokens: &[TokenId], reply: ReplyLimits, now: Instant) -> Result<(), SayError> {
        if self.closing {
            return Err(SayError::Closed);
        }
        if self.saying.is_some() {
            return Err(SayError::Busy);
        }
        if tokens.is_empty() || reply.tokens_max == 0 {
            return Err(SayError::Empty);
        }
        let size = self.vocabulary_size();
        if let Some(token) = tokens.iter().find(|token| **token >= size) {
            return Err(SayError::UnknownToken(*token));
        }
        let (length, limit) = (self.text.len() + tokens.len(), self.context_limit());
        if length >= limit {
            return Err(SayError::TooLong { length, limit });
        }
        self.text.extend(tokens);
        self.prompt_end = self.text.len();
        self.saying = Some(Saying { left: reply.tokens_max, stop: reply.stop });
        // The first round of a reply includes the prompt's prefill, so it must not count as a typical round.
        self.round.forget();
        self.way = None;
        match &mut self.lessor {
            // An earlier reply left the search unfinished: its backoff is over, and verifiers have time anew to appear.
            Lessor::Opening(opening) => (opening.due, opening.since) = (now, now),
            Lessor::None if !self.config.policy.is_local() => {
                self.lessor = Lessor::Opening(Opening::at(now));
            }
            _ => {}
        }
        self.note_silence(now);
        self.go_on(now);
        Ok(())
    }

    /// Ends the reply at its last committed token.
    pub fn cancel(&mut self) {
        self.finish(Finish::Cancelled);
    }

    /// Ends the session and sends the verifier a close message where there is a lease.
    pub fn close(&mut self) {
        self.cancel();
        self.closing = true;
    }

    /// Sets the prices, in watts, that decisions use from now on, with what the policy says a second is worth beside
    /// them. They are part of [`Self::learned`].
    pub fn set_prices(&mut self, prices: Prices) {
        self.learned.stop.set_prices(prices.plus(self.config.policy.second_joules().into()));
    }

    /// The target that wrote the text; `None` before its first verdict.
    pub fn target(&self) -> Option<PinnedTarget> {
        self.target
    }

    /// The last presence received from a verifier.
    pub fn verifier(&self, id: &VerifierId) -> Option<&VerifierPresence> {
        self.learned.candidates.get(id)
    }

    /// A verifier whose presence names this target, online or not.
    pub fn verifier_with(&self, target: TargetId) -> Option<(&VerifierId, &VerifierPresence)> {
        self.learned.candidates.with_target(target)
    }

    /// The prices of drafting and waiting.
    pub fn prices(&self) -> Prices {
        self.learned.stop.prices()
    }

    /// The committed text: prompts and replies.
    pub fn text(&self) -> &[TokenId] {
        self.text.tokens()
    }

    /// Tokens drafted behind the text.
    pub fn provisional(&self) -> impl Iterator<Item = TokenId> + '_ {
        self.drafted.iter().map(|drafted| drafted.scored.token)
    }

    /// Counts since the start of the session.
    pub fn counters(&self) -> &DeviceCounters {
        &self.counters
    }

    /// True while an answer or more text is expected, so that a radio should stay awake.
    pub fn awaits(&self) -> bool {
        self.flight().is_some() || self.is_streaming()
    }

    /// The machine's activity.
    pub fn phase(&self) -> Phase {
        match (&self.saying, self.flight(), &self.job) {
            (None, ..) => Phase::Idle,
            _ if self.silence.is_offline() => Phase::Offline,
            (_, Some(_), Some(_)) => Phase::DraftingAhead,
            (_, None, Some(_)) => Phase::Drafting,
            _ => Phase::Waiting,
        }
    }

    /// Takes a change of the connection to the broker: `up` once it is connected and subscribed.
    pub fn handle_link(&mut self, up: bool, now: Instant) {
        self.link_up = up;
        match &mut self.lessor {
            // Time without a link counts neither as backoff nor against the verifiers that are looked for.
            Lessor::Opening(opening) => {
                (opening.due, opening.since, opening.asked_at) = (now, now, None);
            }
            Lessor::Leased(Leased { flight: Some(flight), .. }) => flight.link(up),
            Lessor::Leased(Leased { stream: Some(stream), .. }) => stream.link(up, now),
            _ => {}
        }
        self.note_silence(now);
        self.go_on(now);
    }

    /// Handles every timer that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        // All timers are read before any is handled: handling one may move another.
        let due = |(timer, at): (Timer, Instant)| (at <= now).then_some(timer);
        for timer in self.timers().into_iter().flatten().filter_map(due) {
            match timer {
                Timer::Resend => self.resend(now),
                Timer::Stalled => self.stalled(now),
                Timer::GiveUp => self.give_up(now),
                Timer::Unsuited => self.refuse_unsuited(),
                Timer::Open => {} // poll_transmit sends the request
            }
        }
        self.go_on(now);
    }

    /// The time of the next call of [`Self::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers().into_iter().flatten().map(|(_, at)| at).min()
    }

    /// The next action or notification for the shell.
    pub fn poll_event(&mut self) -> Option<DeviceEvent> {
        self.events.pop_front()
    }

    fn timers(&self) -> [Option<(Timer, Instant)>; 5] {
        let saying = self.saying.is_some();
        // Without a link or a verifier to ask, nothing could be sent, so those timers would only wake the shell.
        let resend = self.flight().and_then(|flight| flight.due).filter(|_| self.link_up);
        let stalled = self.stalled_at().filter(|_| saying && self.link_up);
        let open = match &self.lessor {
            Lessor::Opening(opening) if self.link_up && saying && self.has_candidate() => Some(opening.due),
            _ => None,
        };
        let give_up = self.silence.deadline(self.config.give_up_after).filter(|_| saying);
        [
            resend.map(|at| (Timer::Resend, at)),
            stalled.map(|at| (Timer::Stalled, at)),
            open.map(|at| (Timer::Open, at)),
            give_up.map(|at| (Timer::GiveUp, at)),
            self.unsuited_at().filter(|_| saying).map(|at| (Timer::Unsuited, at)),
        ]
    }

    /// Reports a silence that lasted too long; under [`Offline::Trust`] the device then continues alone.
    fn give_up(&mut self, now: Instant) {
        self.silence.report();
        match self.config.offline {
            Offline::Wait => self.events.push_back(DeviceEvent::Waiting),
            Offline::Trust => {
                self.silence.go_offline();
                self.events.push_back(DeviceEvent::GaveUp);
                // Only a new lease brings the device back online (see `on_lease`), so an old one is given up.
                if matches!(self.lessor, Lessor::Leased(_)) {
                    self.reopen(now);
                }
            }
        }
    }

    /// Ends the silence; reports that where the silence itself was reported.
    fn answered(&mut self) {
        if self.silence.end() {
            self.events.push_back(DeviceEvent::Returned);
        }
    }

    fn note_silence(&mut self, now: Instant) {
        if self.saying.is_none() || self.config.policy.is_local() {
            return;
        }
        // A trusting device with a lease commits by itself, so it awaits no answer until it sends a frame.
        let leased = matches!(self.lessor, Lessor::Leased(_));
        if self.trusts() && leased && self.flight().is_none() {
            self.silence.pause();
        } else {
            self.silence.begin(now);
        }
    }

    fn commit(&mut self, token: TokenId, origin: Origin) {
        // A verdict may commit more tokens than the reply takes: those after its end are dropped.
        let Some(saying) = &mut self.saying else { return };
        saying.left -= 1;
        let (left, stopped) = (saying.left, saying.stop.contains(&token));
        let position = self.text.len();
        self.text.push(token);
        self.counters.committed += 1;
        self.counters.unverified += u64::from(origin == Origin::Unverified);
        self.counters.trusted += u64::from(origin == Origin::Trusted);
        self.counters.foreign += u64::from(token >= self.config.vocabulary.size);
        self.events.push_back(DeviceEvent::Committed(Commit { position, token, origin }));
        if stopped {
            self.finish(Finish::Stop);
        } else if left == 0 {
            self.finish(Finish::TokensMax);
        } else if self.text.len() >= self.context_limit() {
            self.finish(Finish::ContextFull);
        }
    }

    fn finish(&mut self, finish: Finish) {
        if self.saying.take().is_none() {
            return;
        }
        self.drafted.clear();
        self.silence.forget();
        if matches!(finish, Finish::Stop | Finish::TokensMax | Finish::ContextFull) {
            self.learned.economy.observe_reply(self.text.len() - self.prompt_end);
        }
        // A verdict on the frame under way would commit to a reply that is over; without the flight it is stale.
        if let Lessor::Leased(leased) = &mut self.lessor {
            leased.flight = None;
        }
        self.end_stream(finish);
        self.events.push_back(DeviceEvent::Finished(finish));
    }

    fn flight(&self) -> Option<&Flight> {
        match &self.lessor {
            Lessor::Leased(leased) => leased.flight.as_ref(),
            _ => None,
        }
    }

    /// True when the policy commits tokens without asking the verifier.
    fn trusts(&self) -> bool {
        self.config.policy.held() == HeldTokens::Trusted
    }

    /// Size of the vocabulary that bounds the session's ids and sets their width: the target's, or the drafter's while
    /// there is no lease.
    fn vocabulary_size(&self) -> u32 {
        match &self.lessor {
            Lessor::Leased(leased) => leased.vocabulary_size,
            _ => self.config.vocabulary.size,
        }
    }

    /// Most tokens of the text: the least of the drafter's, the protocol's and the verifier's limits.
    fn context_limit(&self) -> usize {
        let own = self.config.context_tokens_max.min(SESSION_TOKENS_MAX as usize);
        match &self.lessor {
            Lessor::Leased(leased) => own.min(leased.context_tokens_max),
            _ => own,
        }
    }

    /// Tokens that this reply can still commit.
    fn room(&self) -> usize {
        let left = self.saying.as_ref().map_or(0, |saying| saying.left);
        left.min(self.context_limit().saturating_sub(self.text.len()))
    }
}
