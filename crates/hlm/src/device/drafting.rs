//! Drafting: runs of the drafter, scores of its tokens, and the decision to send a frame.

use super::lease::Lessor;
use super::{Device, DeviceEvent, DraftJob, DraftJobId, DraftRow, Finish, Origin};
use crate::TokenId;
use crate::coupling::{Noise, couple_under};
use crate::importance::{received, row};
use crate::payload::{Sent, quantise, read};
use crate::policy::{Decision, HeldDrafts, HeldTokens, ImportanceForm, Payload, PayloadForm, Scored};
use crate::probabilities::LogitsError;
use crate::text::shared_prefix;
use crate::time::Instant;
use crate::uncertainty::{Unit, to_score4, uncertainty};
use alloc::vec::Vec;
use dunlin_wire::limits::DRAFT_TOKENS_MAX;
use dunlin_wire::{CouplingProfile, Draft, DraftFrame, Row, Rows, Score, judged_drafts_max, token_bits};

/// "rndpolcy": a domain of its own, so that the coin is independent of the noise that draws tokens.
const DOMAIN_COIN: u64 = 0x726e_6470_6f6c_6379;

/// Most tokens that the drafter reads in one run after a rollback.
const REPAIR_TOKENS_MAX: usize = 8;

/// A drafted token with its scores.
#[derive(Clone, Debug)]
pub(super) struct Drafted {
    pub(super) scored: Scored,
    /// The uncertainty on 4 bits, as it is sent and calibrated.
    pub(super) score: Score,
    /// The part of its distribution that is sent.
    pub(super) sent: Sent,
    /// The attention row that produced the token; empty unless the policy sends received importance.
    attention: Vec<f32>,
}

impl Device {
    /// Takes the result of a run of the drafter.
    pub fn handle_draft(&mut self, id: DraftJobId, row: DraftRow<'_>, now: Instant) {
        let Some((_, fed)) = self.job.take_if(|(job, _)| *job == id) else { return };
        self.round.run_ends(now);
        self.counters.refills += u64::from(row.refilled);
        // Longer runs are prefill or repair after a rollback: their time is not that of one drafted token.
        if row.refilled {
            self.round.forget();
        } else if fed == 1 {
            self.learned.stop.observe_draft(row.took);
        } else {
            self.learned.economy.observe_feed(fed, row.took);
            // It reads what was streamed, which is the price of the change and none of this round's.
            if fed > REPAIR_TOKENS_MAX {
                self.round.forget();
            }
        }
        // A verdict may have changed the text while the drafter ran; then the row belongs to a text that is gone.
        let current = self.saying.is_some() && self.fed.iter().eq(self.sequence());
        if current && self.score(&row).is_err() {
            self.finish(Finish::DrafterFailed);
        }
        self.go_on(now);
    }

    /// Handles a failed run of the drafter. Its cache is in an unknown state, so it is rebuilt from the start.
    pub fn handle_draft_failed(&mut self, id: DraftJobId, now: Instant) {
        if self.job.take_if(|(job, _)| *job == id).is_some() {
            self.round.run_ends(now);
            self.fed.clear();
            self.finish(Finish::DrafterFailed);
            self.go_on(now);
        }
    }

    /// Takes the next step after any event: send a frame, commit without the verifier, draft, or wait.
    pub(super) fn go_on(&mut self, now: Instant) {
        self.choose_first();
        if self.silence.is_offline() {
            // Offline there is no lease, so nothing could be sent. Everything drafted is committed at once.
            self.commit_alone(Origin::Unverified);
        } else if self.trusts() && self.flight().is_none() && self.decide() == Decision::Hold {
            // Under this policy a held token is committed without the verifier, with or without a lease.
            self.commit_alone(Origin::Trusted);
        } else if self.is_streaming() {
            self.renew(now);
        } else if self.is_ready() && self.decide() != Decision::Hold {
            // A trusting device asks about a single token and gets no bonus token, so no room is reserved for one.
            let most = if self.trusts() { 1 } else { self.drafts_max() };
            let count = self.drafted.len().min(most);
            self.launch(count, self.credit(false), now);
        }
        // Not an `else`: after a launch the device drafts ahead, and after a commit it drafts the next token.
        if self.saying.is_some() && self.job.is_none() && self.wants_draft() {
            self.run_drafter(now);
        }
    }

    /// Commits every drafted token without asking the verifier.
    fn commit_alone(&mut self, origin: Origin) {
        for drafted in core::mem::take(&mut self.drafted) {
            self.commit(drafted.scored.token, origin);
        }
    }

    /// True when a frame could be sent now.
    fn is_ready(&self) -> bool {
        let free = matches!(&self.lessor, Lessor::Leased(leased) if leased.flight.is_none());
        let is_chosen = !self.config.policy.auto() || self.way.is_some();
        self.saying.is_some() && free && is_chosen && !self.is_streaming()
    }

    fn decide(&self) -> Decision {
        if self.leaves_it() {
            return Decision::Flush(crate::policy::Reason::FrameFull);
        }
        // The lease, the reply or the context may leave less room than the policy's own limit. With room for no draft,
        // an empty frame asks for the target's next token.
        if !self.trusts() && self.drafted.len() >= self.drafts_max() {
            return Decision::Flush(crate::policy::Reason::FrameFull);
        }
        self.config.policy.decide(&self.held(), &self.learned.stop)
    }

    fn held(&self) -> HeldDrafts {
        let mut held = HeldDrafts::new();
        self.drafted.iter().for_each(|drafted| held.push(drafted.scored, &self.learned.calibration));
        held
    }

    /// Most drafts of one frame. The verdict adds one token, and all of them must fit the frame, the reply and the
    /// context.
    fn drafts_max(&self) -> usize {
        let leased = match &self.lessor {
            Lessor::Leased(leased) => leased.draft_tokens_max,
            _ => DRAFT_TOKENS_MAX,
        };
        let policy = usize::from(self.config.policy.draft_tokens_max());
        leased.min(policy).min(self.judged_max).min(self.room().saturating_sub(1))
    }

    fn wants_draft(&self) -> bool {
        if self.drafted.last().is_some_and(|drafted| drafted.scored.ends) {
            return false;
        }
        let count = self.drafted.len();
        if self.silence.is_offline() {
            return true;
        }
        // Each token is committed or sent before the next is drafted.
        if !self.may_draft() {
            return false;
        }
        if self.trusts() {
            return count == 0;
        }
        if self.is_ready() {
            return count < self.drafts_max();
        }
        if self.config.policy.draft_tokens_max() == 0 {
            return false;
        }
        // Drafting ahead starts with a guess at the bonus token, hence one more than the frame's drafts.
        let under_way = self.flight().map_or(0, |flight| flight.drafts + 1);
        let room = (under_way + self.drafts_max()).min(self.room().saturating_sub(1));
        count < room && self.learned.stop.draft_ahead(self.held().survival_next())
    }

    fn sequence(&self) -> impl Iterator<Item = &TokenId> {
        self.text.tokens().iter().chain(self.drafted.iter().map(|drafted| &drafted.scored.token))
    }

    /// Starts a run that feeds the drafter everything its cache lacks, after cutting what a rollback made wrong.
    fn run_drafter(&mut self, now: Instant) {
        let length = self.text.len() + self.drafted.len();
        // The result is the row after the last token, so the last token is fed even if the cache has it already.
        let keep = shared_prefix(&self.fed, self.sequence()).min(length - 1);
        let tokens: Vec<TokenId> = self.sequence().skip(keep).copied().collect();
        self.fed.truncate(keep);
        self.fed.extend(&tokens);
        self.jobs += 1;
        let id = DraftJobId(self.jobs);
        self.job = Some((id, tokens.len()));
        self.round.run_begins(now);
        self.events.push_back(DeviceEvent::Draft(DraftJob { id, keep, tokens }));
    }

    /// Draws the next token from a row of logits and scores it.
    fn score(&mut self, draft: &DraftRow<'_>) -> Result<(), LogitsError> {
        let position = self.text.len() + self.drafted.len();
        // The drafter may have tokens that the target lacks, or lack some, and some models pad their rows.
        let shared = self.config.vocabulary.size.min(self.vocabulary_size());
        let logits = draft.logits.get(..shared as usize).ok_or(LogitsError::NoMass)?;
        self.scratch.refill(logits, &self.session.sampling)?;
        let (policy, payload) = (&self.config.policy, self.config.policy.payload());
        let sent = quantise(&self.scratch, payload, self.vocabulary_size());
        // Rejection sampling is exact only if the token is drawn from the distribution that the verifier will read.
        if payload.form.is_drawn_from() {
            let drawn_from = read(&sent, payload.form, self.vocabulary_size());
            self.scratch = drawn_from.expect("the most probable token has a weight");
        }
        let (seed, at) = (self.session.seed, position as u64);
        // Without a lease there is nobody yet whose choices it could share.
        let profile = match &self.lessor {
            Lessor::Leased(leased) => leased.coupling,
            _ => CouplingProfile::SplitMix,
        };
        let token = couple_under(profile, &self.scratch, &self.session.sampling, seed, at);
        let q = self.scratch.probability(token);
        let uncertainty = uncertainty(policy.uncertainty_form(), logits, token, q, seed, at);
        let importance = draft.attention.map_or(Unit::ZERO, row);
        self.recent.push(importance);
        let audit = self.learned.conformal.filter(|_| policy.held() == HeldTokens::Audited);
        let scored = Scored {
            token,
            uncertainty,
            importance,
            recent: self.recent,
            coin: Unit::clamped(Noise::new(DOMAIN_COIN, seed, at).unit(0)),
            ends: self.saying.as_ref().is_some_and(|saying| saying.stop.contains(&token)),
            stays: audit.is_some_and(|audit| audit.stays(uncertainty)),
        };
        let keep_row = policy.importance_form() == ImportanceForm::Received;
        self.counters.drafted += 1;
        self.drafted.push(Drafted {
            scored,
            score: to_score4(uncertainty),
            sent,
            attention: draft.attention.filter(|_| keep_row).map(<[f32]>::to_vec).unwrap_or_default(),
        });
        Ok(())
    }

    /// A frame with the committed tokens from `base` on, followed by the first `count` drafts.
    pub(super) fn frame(&self, round: u32, base: usize, count: usize) -> DraftFrame {
        let riding = &self.text.tokens()[base..];
        let unscored = |token: &TokenId| Draft {
            token: *token,
            uncertainty: Score::default(),
            importance: Score::default(),
        };
        let stays = self.drafted[..count].iter().map(|drafted| drafted.scored.stays);
        // Committed tokens ride along as held ones, so that no verdict can take them back.
        let held = core::iter::repeat_n(true, riding.len()).chain(stays);
        DraftFrame {
            session: self.session.number,
            epoch: self.session.epoch,
            round,
            send: 1,
            base: base as u32,
            prefix: self.text.short(base).expect("the frame starts within the text"),
            token_bits: token_bits(self.vocabulary_size()),
            drafts: riding.iter().map(unscored).chain((0..count).map(|i| self.draft(i, count))).collect(),
            held: (0..).zip(held).fold(0, |bits, (i, held)| bits | u16::from(held) << i),
            bonus: !self.trusts(),
            rows: self.rows(count),
            credit: None,
        }
    }

    /// The distributions sent with those of the first `count` drafts that the verifier judges.
    fn rows(&self, count: usize) -> Rows {
        let payload = self.config.policy.payload();
        let row = |drafted: &Drafted| match &drafted.sent {
            Sent::Entries(entries) => Row { entries: entries.iter().copied().collect() },
            _ => Row::default(),
        };
        let rows = || self.drafted[..count].iter().filter(|drafted| !drafted.scored.stays).map(row).collect();
        match payload.form {
            _ if count == 0 => Rows::None,
            PayloadForm::Ids => Rows::None,
            PayloadForm::Full => Rows::Full,
            PayloadForm::TopK => Rows::TopK(rows()),
            PayloadForm::TopKSampled => Rows::TopKSampled(rows()),
            PayloadForm::Lattice => Rows::Lattice { resolution: payload.resolution, rows: rows() },
        }
    }

    fn draft(&self, index: usize, count: usize) -> Draft {
        let drafted = &self.drafted[index];
        if drafted.scored.stays {
            let (uncertainty, importance) = (Score::default(), Score::default());
            return Draft { token: drafted.scored.token, uncertainty, importance };
        }
        // Draft j is produced by the query at position j − 1. So draft i + 2 has the first query behind draft i.
        let later: Vec<&[f32]> =
            self.drafted[..count].iter().skip(index + 2).map(|later| later.attention.as_slice()).collect();
        let paid = received(&later, self.text.len() + index);
        let importance = match self.config.policy.importance_form() {
            ImportanceForm::Row => drafted.scored.importance,
            ImportanceForm::Received => paid.unwrap_or(drafted.scored.importance),
        };
        Draft { token: drafted.scored.token, uncertainty: drafted.score, importance: to_score4(importance) }
    }
}

/// Most drafts whose rows fit one frame in the worst case.
pub(super) fn judged_max(payload: Payload, vocabulary: u32) -> usize {
    let fits = |resolution| judged_drafts_max(token_bits(vocabulary), payload.entries.into(), resolution);
    match payload.form {
        PayloadForm::Ids => DRAFT_TOKENS_MAX,
        PayloadForm::Full => 1,
        PayloadForm::TopK | PayloadForm::TopKSampled => fits(None),
        PayloadForm::Lattice => fits(Some(payload.resolution)),
    }
}
