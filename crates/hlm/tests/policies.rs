//! Both machines joined without loss, for each policy: the messages and the committed tokens.

mod machines;
mod models;

use dunlin_hlm::TokenId;
use dunlin_hlm::coupling::couple;
use dunlin_hlm::device::{
    Channel, Commit, Device, DeviceConfig, DeviceCounters, DeviceEvent, DraftRow, Finish, Judged, Learned,
    Offline, Origin, ReplyLimits, SessionIdentity,
};
use dunlin_hlm::importance::AdaptiveThreshold;
use dunlin_hlm::payload::quantise;
use dunlin_hlm::policy::{DRAFT_TOKENS_MAX, HeldTokens, Payload, Policy, PolicyTable, Rules};
use dunlin_hlm::time::{Duration, Instant};
use dunlin_hlm::verifier::{self, TargetDescription, Verifier, VerifierConfig};
use dunlin_wire::limits::CODES_MAX;
use dunlin_wire::{Codes, Context, DeviceId, Down, DraftFrame, Rows, Up, Verdict, Vocabulary};
use machines::VOCABULARY;
use models::{Models, drawn_from, sampling, uniform};

const PROMPT: [TokenId; 3] = [1, 2, 3];
const TOKENS: usize = 300;
const SEED: u64 = 11;
/// A vocabulary whose weights take more than one message, the last of them shorter.
const WIDE: u32 = CODES_MAX as u32 + 300;

/// A device, its verifier, and the messages between them.
struct Pair<'a> {
    models: &'a Models,
    device: Device,
    verifier: Verifier,
    name: DeviceId,
    now: Instant,
    /// Tokens in the drafter's and the target's caches.
    caches: [Vec<TokenId>; 2],
    frames: Vec<Asked>,
    contexts: Vec<Context>,
    /// Parts of weights received since the last frame.
    codes: Vec<Codes>,
    commits: Vec<Commit>,
    judged: Vec<Judged>,
    runs: usize,
    messages: usize,
    rows: usize,
    finish: Option<Finish>,
}

/// A frame with the parts of weights sent before it, and its answer.
struct Asked {
    frame: DraftFrame,
    kind: u8,
    codes: Vec<Codes>,
    /// The committed text when it was sent.
    text: Vec<TokenId>,
    verdict: Option<(u8, Verdict)>,
}

fn vocabulary(models: &Models) -> Vocabulary {
    Vocabulary { size: models.size, ..VOCABULARY }
}

impl<'a> Pair<'a> {
    fn new(config: &PolicyTable, models: &'a Models, lossy: bool) -> Self {
        let device = DeviceConfig {
            vocabulary: vocabulary(models),
            prefixes: Default::default(),
            policy: Rules::new(config).expect("valid settings"),
            offline: Offline::Wait,
            give_up_after: Duration::from_millis(120_000),
            context_tokens_max: 4_096,
            accept_model_change: false,
        };
        let session =
            SessionIdentity { number: 7, epoch: 255, nonce: 10, seed: SEED, sampling: models.sampling };
        let verifier = VerifierConfig {
            id: "desk".parse().expect("a valid id"),
            vocabulary: vocabulary(models),
            prefixes: Default::default(),
            target: TargetDescription::default(),
            context_tokens_max: 4_096,
            sessions_max: 1,
            draft_tokens_max: 16,
            credit_tokens_max: 64,
            continuation_tokens: 8,
            continuation_interval: Duration::from_millis(100),
            lossy,
            idle_max: Duration::from_millis(60_000),
        };
        Self {
            models,
            device: Device::new(device, session, Learned::default()).expect("valid settings"),
            verifier: Verifier::new(verifier).expect("valid settings"),
            name: "device-1".parse().expect("a valid id"),
            now: Instant(1_000_000),
            caches: [Vec::new(), Vec::new()],
            frames: Vec::new(),
            contexts: Vec::new(),
            codes: Vec::new(),
            commits: Vec::new(),
            judged: Vec::new(),
            runs: 0,
            messages: 0,
            rows: 0,
            finish: None,
        }
    }

    /// Runs a whole reply.
    fn reply(config: &PolicyTable, models: &'a Models) -> Self {
        let mut pair = Self::new(config, models, true);
        pair.connect();
        pair.say(&PROMPT, TOKENS);
        pair
    }

    fn connect(&mut self) {
        let presence = self.verifier.presence().encode().expect("a valid presence");
        let desk = "desk".parse().expect("a valid id");
        self.device.handle_presence(&desk, &presence, self.now);
        self.device.handle_link(true, self.now);
    }

    fn say(&mut self, prompt: &[TokenId], tokens_max: usize) {
        self.finish = None;
        let reply = ReplyLimits { tokens_max, stop: Vec::new() };
        self.device.say(prompt, reply, self.now).expect("a prompt that is taken");
        for _ in 0..100_000 {
            self.step();
            if self.finish.is_some() {
                return;
            }
        }
        panic!("no end to the reply");
    }

    /// Delivers all messages; one run of the drafter takes as long as a round trip to the verifier.
    fn step(&mut self) {
        let mut sent = Vec::new();
        while let Some(message) = self.device.poll_transmit(self.now) {
            self.messages += 1;
            self.note(&message.channel, &message.bytes);
            sent.push(message);
        }
        while let Some(event) = self.device.poll_event() {
            self.happened(event);
        }
        for message in sent {
            match message.channel {
                Channel::Open(_) => self.verifier.handle_open(&self.name, &message.bytes, None, self.now),
                Channel::Frames(_) => self.verifier.handle_frame(&self.name, &message.bytes, self.now),
            }
        }
        self.run_target();
        while let Some(out) = self.verifier.poll_transmit() {
            match out.channel {
                verifier::Answer::Reply => self.device.handle_reply(&out.bytes, self.now),
                verifier::Answer::Verdict => {
                    if let Down::Verdict(verdict) = Down::decode(&out.bytes).expect("a valid answer") {
                        let asked = self.frames.last_mut().expect("an answer to a frame");
                        asked.verdict = Some((out.bytes[0], verdict));
                    }
                    self.device.handle_down(&out.bytes, self.now);
                }
            }
        }
    }

    fn note(&mut self, channel: &Channel, bytes: &[u8]) {
        if matches!(channel, Channel::Open(_)) {
            return;
        }
        match Up::decode(bytes).expect("a valid message") {
            Up::Draft(frame) => self.frames.push(Asked {
                frame,
                kind: bytes[0],
                codes: core::mem::take(&mut self.codes),
                text: self.device.text().to_vec(),
                verdict: None,
            }),
            Up::Codes(codes) => self.codes.push(codes),
            Up::Context(context) => self.contexts.push(context),
            Up::Close(_) => panic!("nobody closed"),
        }
    }

    fn happened(&mut self, event: DeviceEvent) {
        match event {
            DeviceEvent::Draft(job) => {
                let cache = &mut self.caches[0];
                cache.truncate(job.keep);
                cache.extend(&job.tokens);
                self.runs += 1;
                self.now = self.now + Duration::from_millis(20);
                let logits = &self.models.drafter[Models::context(*cache.last().expect("fed"))];
                let weight = |at| libm::pow(uniform(7, cache.len() as u64, at), 4.0) as f32;
                let attention: Vec<f32> = (0..cache.len() as u32).map(weight).collect();
                let took = Duration::from_millis(20);
                let row = DraftRow { logits, attention: Some(&attention), took, refilled: false };
                self.device.handle_draft(job.id, row, self.now);
            }
            DeviceEvent::Committed(commit) => self.commits.push(commit),
            DeviceEvent::Judged(judged) => self.judged.push(judged),
            DeviceEvent::Finished(finish) => self.finish = Some(finish),
            DeviceEvent::Leased { .. } => {}
            other => panic!("{other:?} without any loss"),
        }
    }

    fn run_target(&mut self) {
        while let Some(event) = self.verifier.poll_event() {
            let verifier::VerifierEvent::Verify(job) = event else { continue };
            let cache = &mut self.caches[1];
            cache.truncate(job.keep);
            cache.extend(&job.tokens);
            self.rows += job.rows;
            self.now = self.now + Duration::from_millis(60);
            let wanted = &cache[cache.len() - job.rows..];
            let rows: Vec<f32> =
                wanted.iter().flat_map(|t| self.models.target[Models::context(*t)].iter().copied()).collect();
            self.verifier.handle_rows(job.id, Ok(&rows), self.now);
        }
    }

    fn counters(&self) -> &DeviceCounters {
        self.device.counters()
    }

    fn count(&self, origin: Origin) -> usize {
        self.commits.iter().filter(|commit| commit.origin == origin).count()
    }

    /// The text that the target writes alone, from its rows and the seed.
    fn target_alone(&self) -> Vec<TokenId> {
        let mut last = PROMPT[2];
        let next = |position| {
            last = couple(self.models.p(last), SEED, position);
            last
        };
        (3..3 + TOKENS as u64).map(next).collect()
    }
}

/// Models with some rows that are nearly certain and some that are flat.
fn rows(size: u32) -> Models {
    Models::with_powers(size, sampling(1.0, 1.0), |context| 1.2 + 2.0 * context)
}

fn is_trusting(policy: Policy) -> bool {
    policy.rules().held() == HeldTokens::Trusted
}

#[test]
fn every_policy_ends_its_reply_and_its_counters_add_up() {
    let models = rows(WIDE);
    for &policy in Policy::ALL {
        let pair = Pair::reply(&policy.table(), &models);
        let (counters, verified) = (pair.counters(), *pair.verifier.counters());
        assert_eq!(pair.finish, Some(Finish::TokensMax), "{policy}");
        assert_eq!((pair.commits.len(), counters.committed), (TOKENS, TOKENS as u64), "{policy}");
        assert_eq!(
            pair.commits.iter().map(|c| c.token).collect::<Vec<_>>(),
            pair.device.text()[3..],
            "{policy}"
        );
        let by_origin = [Origin::Accepted, Origin::Target, Origin::Trusted].map(|origin| pair.count(origin));
        assert_eq!(by_origin.iter().sum::<usize>(), TOKENS, "{policy}");
        assert_eq!(by_origin[2] as u64, counters.trusted, "{policy}");
        assert_eq!(
            (counters.stale, counters.resyncs, counters.malformed, counters.resent),
            (0, 0, 0, 0),
            "{policy}"
        );
        assert_eq!(counters.frames_up, pair.frames.len() as u64, "{policy}");
        // Frames of a stream are answered by continuations.
        let streams = [Policy::Stream, Policy::Auto].contains(&policy);
        assert_eq!(counters.rounds, verified.verdicts, "{policy}");
        assert!(streams || counters.rounds == counters.frames_up, "{policy}");
        assert_eq!(counters.streamed, verified.written, "{policy}");
        assert!(policy != Policy::Stream || counters.streamed == TOKENS as u64, "{counters:?}");
        assert_eq!((verified.stale, verified.resyncs, verified.missed), (0, 0, counters.missed), "{policy}");
        let drafts: usize = pair.frames.iter().map(|asked| asked.frame.drafts.len()).sum();
        let judged: usize = pair.frames.iter().map(|asked| asked.frame.judged()).sum();
        assert_eq!((verified.drafts, verified.frames), (judged as u64, counters.frames_up), "{policy}");
        if !is_trusting(policy) {
            assert_eq!(counters.sent_drafts, drafts as u64, "{policy}");
        }
        assert!(counters.drafted >= counters.sent_drafts && counters.audited >= counters.missed, "{policy}");
        assert_eq!(counters.trusted + counters.audited > 0, is_lossy(policy), "{policy}: {counters:?}");
    }
}

fn is_lossy(policy: Policy) -> bool {
    use Policy::{CuHlm, Importance, ImportanceOr, Local, Random, Risk, UHlm};
    matches!(policy, UHlm | CuHlm | Importance | ImportanceOr | Random | Risk | Local)
}

#[test]
fn each_frame_has_the_rows_of_its_policy() {
    let models = rows(WIDE);
    for &policy in Policy::ALL {
        let pair = Pair::reply(&policy.table(), &models);
        for Asked { frame, codes, kind, .. } in &pair.frames {
            let judged = frame.judged();
            let right = match (policy, &frame.rows) {
                (Policy::Hlm | Policy::UHlm, Rows::Full) => judged == 1,
                (Policy::CuHlm, Rows::TopK(rows)) => rows.len() == judged,
                (Policy::Importance | Policy::ImportanceOr | Policy::Random, Rows::TopKSampled(rows)) => {
                    rows.len() == judged
                }
                (Policy::LosslessSparse, Rows::Lattice { rows, resolution: 100 }) => rows.len() == judged,
                (Policy::LosslessSparse, Rows::None) => frame.drafts.is_empty(),
                (
                    Policy::Lossless | Policy::Risk | Policy::Remote | Policy::Auto | Policy::Stream,
                    Rows::None,
                ) => true,
                _ => false,
            };
            assert!(right, "{policy}: {:?}", frame.rows);
            let parts = if frame.rows == Rows::Full { 2 } else { 0 };
            assert_eq!(codes.len(), parts, "{policy}");
            let numbered =
                (0..).zip(codes).all(|(part, codes)| (codes.round, codes.part) == (frame.round, part));
            assert!(numbered, "{policy}");
            assert_eq!(*kind == 0x11, frame.is_plain(), "{policy}");
        }
        let most =
            pair.frames.iter().flat_map(|asked| asked.frame.rows.list()).map(|row| row.entries.len()).max();
        assert!(most.is_none_or(|most| (2..=30).contains(&most)), "{policy}: {most:?}");
    }
}

/// A token is drawn from the payload's distribution if the payload is drawn from, else from the whole row.
#[test]
fn each_draft_is_drawn_from_what_its_policy_says() {
    let models = rows(64);
    for &policy in Policy::ALL {
        let three = PolicyTable { payload_entries: Some(3), ..policy.table() };
        let payload = Payload { entries: 3, ..policy.rules().payload() };
        let pair = Pair::reply(&three, &models);
        for Asked { frame, text, .. } in &pair.frames {
            let mut last = text[frame.base as usize - 1];
            for (position, draft) in (u64::from(frame.base)..).zip(&frame.drafts) {
                let q = models.q(last);
                let from = drawn_from(q, &quantise(q, payload, models.size), payload.form, models.size);
                assert_eq!(draft.token, couple(&from, SEED, position), "{policy} at {position}");
                last = draft.token;
            }
        }
    }
}

#[test]
fn a_trusting_policy_asks_for_one_token_behind_those_it_kept() {
    let models = rows(64);
    for &policy in Policy::ALL.iter().filter(|policy| is_trusting(**policy)) {
        let pair = Pair::reply(&policy.table(), &models);
        let mut told = PROMPT.len();
        let mut rode = 0;
        for Asked { frame, text, verdict, .. } in &pair.frames {
            let riding = frame.drafts.len() - 1;
            assert!(!frame.bonus && riding < usize::from(DRAFT_TOKENS_MAX), "{policy}");
            assert_eq!(frame.held, (1u16 << riding) - 1, "{policy}: all but the last are held");
            let held: Vec<TokenId> = frame.drafts[..riding].iter().map(|draft| draft.token).collect();
            assert_eq!((frame.base as usize + riding, &text[frame.base as usize..]), (text.len(), &held[..]));
            assert!(frame.base as usize == told || riding == 0, "{policy}: more than ride along are context");
            let (kind, verdict) = verdict.expect("an answer");
            assert_eq!((kind, usize::from(verdict.accepted), verdict.missed), (0x14, riding, 0), "{policy}");
            told = text.len() + 1;
            rode += riding;
        }
        let counters = pair.counters();
        assert_eq!(counters.sent_drafts, pair.frames.len() as u64, "{policy}");
        assert_eq!(
            (pair.rows, counters.audited),
            (pair.frames.len(), 0),
            "{policy}: a row for what is judged"
        );
        assert_eq!(pair.count(Origin::Accepted) as u64, counters.accepted, "{policy}");
        assert_eq!(pair.count(Origin::Target) as u64, counters.frames_up - counters.accepted, "{policy}");
        assert_eq!(counters.trusted, TOKENS as u64 - counters.frames_up, "{policy}");
        assert_eq!(pair.contexts.is_empty(), policy == Policy::Local);
        assert_eq!(rode > 0, !matches!(policy, Policy::Hlm | Policy::Local), "{policy}");
    }
}

#[test]
fn tokens_are_flushed_for_the_reason_of_the_policy() {
    let models = rows(64);
    let threshold = AdaptiveThreshold::new(0.0).expect("in range");
    for policy in [Policy::UHlm, Policy::CuHlm, Policy::Importance, Policy::ImportanceOr] {
        let pair = Pair::reply(&policy.table(), &models);
        let mut seen = [0; 4];
        for judged in &pair.judged {
            let uncertain = judged.uncertainty.get() > 0.3;
            let important = threshold.exceeded(&judged.recent, judged.importance);
            seen[usize::from(uncertain) + 2 * usize::from(important)] += 1;
        }
        let [neither, uncertain, important, both] = seen.map(|count| count > 0);
        let expected = match policy {
            Policy::Importance => [false, false, false, true],
            Policy::ImportanceOr => [false, true, true, true],
            _ => [false, true, false, true],
        };
        assert_eq!([neither, uncertain, important, both], expected, "{policy}: {seen:?}");
    }
    let half = Pair::reply(&Policy::Random.table(), &models);
    let flushed = half.frames.len() as f64 / TOKENS as f64;
    // Six standard deviations of a fair coin.
    assert!((flushed - 0.5).abs() < 6.0 * 0.5 / (TOKENS as f64).sqrt(), "{flushed}");
}

#[test]
fn more_than_ride_along_go_as_context() {
    let models = rows(64);
    let seldom = PolicyTable { random_rate: Some(0.03), ..Policy::Random.table() };
    let pair = Pair::reply(&seldom, &models);
    let riding = |asked: &Asked| asked.frame.drafts.len() - 1;
    assert!(pair.contexts.len() > 2, "the prompt, and runs that are too long");
    assert!(pair.frames.iter().any(|asked| riding(asked) > 0) && pair.frames.iter().any(|a| riding(a) == 0));
    for context in &pair.contexts[1..] {
        assert!(context.tokens.len() > 15, "{} would ride along", context.tokens.len());
        let at = context.offset as usize;
        assert_eq!(context.tokens, pair.device.text()[at..at + context.tokens.len()]);
    }
}

#[test]
fn hlm_asks_for_every_token() {
    let models = rows(64);
    let pair = Pair::reply(&Policy::Hlm.table(), &models);
    assert_eq!(pair.frames.len(), TOKENS);
    assert!(pair.frames.iter().all(|asked| asked.frame.drafts.len() == 1 && !asked.frame.bonus));
    assert_eq!(pair.counters().trusted, 0);
}

#[test]
fn local_says_nothing_and_remote_drafts_nothing() {
    let models = rows(64);
    let local = Pair::reply(&Policy::Local.table(), &models);
    assert_eq!((local.messages, local.count(Origin::Trusted)), (0, TOKENS));
    let remote = Pair::reply(&Policy::Remote.table(), &models);
    assert!(remote.frames.iter().all(|asked| asked.frame.drafts.is_empty() && asked.frame.is_plain()));
    assert_eq!((remote.runs, remote.count(Origin::Target)), (0, TOKENS));
    assert_eq!(remote.device.text()[3..], remote.target_alone());
}

#[test]
fn lossless_writes_what_the_target_alone_writes() {
    let models = rows(64);
    let lossless = Pair::reply(&Policy::Lossless.table(), &models);
    assert_eq!(lossless.device.text()[3..], lossless.target_alone());
    assert!(lossless.frames.iter().all(|asked| asked.kind == 0x11), "plain frames");
    assert!(lossless.frames.iter().any(|asked| asked.frame.drafts.len() > 1));
    let sparse = Pair::reply(&Policy::LosslessSparse.table(), &models);
    assert!(sparse.frames.iter().any(|asked| asked.frame.drafts.len() > 1 && asked.kind == 0x1c));
    assert_eq!((sparse.counters().trusted, sparse.counters().audited), (0, 0));
}

#[test]
fn risk_marks_what_stays_and_is_told_what_the_target_would_have_chosen() {
    let models = Models::with_powers(64, sampling(1.0, 1.0), |context| 1.2 + 0.6 * context);
    let config = PolicyTable { epsilon: Some(0.5), ..Policy::Risk.table() };
    let pair = Pair::reply(&config, &models);
    let (mut held, mut missed, mut stood_in_text) = (0, 0, 0);
    for Asked { frame, kind, verdict, .. } in &pair.frames {
        assert!(frame.bonus && frame.rows == Rows::None);
        assert_eq!(*kind == 0x1c, frame.held != 0);
        let (answer, verdict) = verdict.expect("an answer");
        assert_eq!(answer == 0x1e, verdict.missed != 0);
        assert_eq!(verdict.missed & !frame.held, 0, "only held drafts are missed");
        let stand = (0..usize::from(verdict.accepted)).filter(|&index| frame.is_held(index)).count();
        (held, missed) = (held + stand as u64, missed + u64::from(verdict.missed.count_ones()));
        for index in 0..usize::from(verdict.accepted) {
            let at = frame.base as usize + index - PROMPT.len();
            let Some(commit) = pair.commits.get(at) else { continue };
            let against = verdict.missed >> index & 1 == 1;
            stood_in_text += usize::from(against);
            assert_eq!(commit.token, frame.drafts[index].token);
            assert_eq!(commit.origin, if against { Origin::Trusted } else { Origin::Accepted });
        }
    }
    let counters = pair.counters();
    assert_eq!((counters.audited, counters.missed), (held, missed));
    assert!(held > 20 && missed > 2, "{held} {missed}");
    assert_eq!(stood_in_text as u64, counters.trusted);
    for judged in pair.judged.iter().filter(|judged| !judged.held) {
        assert!(judged.position >= PROMPT.len());
    }
}

#[test]
fn risk_without_an_allowance_is_lossless_message_for_message() {
    let models = rows(64);
    let none = PolicyTable { epsilon: Some(0.0), ..Policy::Risk.table() };
    let (risk, lossless) = (Pair::reply(&none, &models), Pair::reply(&Policy::Lossless.table(), &models));
    let sent = |pair: &Pair<'_>| pair.frames.iter().map(|asked| asked.frame.clone()).collect::<Vec<_>>();
    assert_eq!(sent(&risk), sent(&lossless));
    assert_eq!(risk.counters(), lossless.counters());
    assert_eq!((risk.device.text(), risk.messages), (lossless.device.text(), lossless.messages));
}

#[test]
fn the_second_turn_takes_what_the_first_kept_along_as_context() {
    let models = rows(64);
    for policy in [Policy::UHlm, Policy::Random, Policy::Risk, Policy::LosslessSparse] {
        let mut pair = Pair::reply(&policy.table(), &models);
        let first = pair.device.text().to_vec();
        let told = pair.frames.last().map_or(0, |asked| {
            let accepted = asked.verdict.expect("an answer").1.accepted;
            asked.frame.base as usize + usize::from(accepted) + 1
        });
        let (contexts, frames) = (pair.contexts.len(), pair.frames.len());
        pair.say(&[5, 6, 7], 50);
        let context = &pair.contexts[contexts];
        // A verdict may have more tokens than the reply takes. Then the two texts agree only up to the reply's end.
        let start = told.min(first.len());
        assert_eq!(context.offset as usize, start, "{policy}");
        assert_eq!(context.tokens, pair.device.text()[start..first.len() + 3], "{policy}");
        assert!(pair.frames[frames].frame.base as usize >= first.len() + 3, "{policy}");
        assert_eq!((pair.counters().resyncs, pair.device.text().len()), (0, first.len() + 53), "{policy}");
    }
}

#[test]
fn a_verifier_without_lossy_policies_ends_the_reply_of_those_that_are() {
    let models = rows(64);
    for &policy in Policy::ALL {
        let config = PolicyTable { epsilon: Some(0.3), ..policy.table() };
        let mut pair = Pair::new(&config, &models, false);
        pair.connect();
        pair.say(&PROMPT, TOKENS);
        let refused = is_lossy(policy) && policy != Policy::Local;
        let expected = if refused { Finish::LossyRefused } else { Finish::TokensMax };
        assert_eq!(pair.finish, Some(expected), "{policy}");
    }
}
