//! The choice between drafting and streaming, for a policy that makes it.

use super::Device;
use super::lease::Lessor;
use super::round::RoundTime;
use crate::economy::{Conditions, Way};
use crate::text::shared_prefix;
use crate::time::{Duration, Instant};
use dunlin_wire::limits::DRAFT_TOKENS_MAX;

impl Device {
    /// Chooses who begins a reply. Without a lease nothing is known to choose by. A new lease may give no credit.
    pub(super) fn choose_first(&mut self) {
        let leased = matches!(self.lessor, Lessor::Leased(_));
        if !self.config.policy.auto() || self.saying.is_none() || !leased {
            return;
        }
        if !self.may_stream() {
            self.way = Some(Way::Draft);
        } else if self.way.is_none() {
            let conditions = self.conditions();
            self.way = Some(self.learned.economy.choose(Way::Draft, true, &conditions));
        }
    }

    /// Chooses who goes on.
    pub(super) fn choose_next(&mut self) {
        if let Some(way) = self.way.filter(|_| self.saying.is_some() && self.may_stream()) {
            let conditions = self.conditions();
            self.way = Some(self.learned.economy.choose(way, false, &conditions));
        }
    }

    /// True when a text can flow: on credit for one token, each token would take a round trip.
    fn may_stream(&self) -> bool {
        self.credit_max() > 1
    }

    /// True when the policy leaves the next tokens to the verifier.
    pub(super) fn leaves_it(&self) -> bool {
        self.config.policy.auto() && self.way == Some(Way::Stream)
    }

    /// True when the policy wants the device to draft now.
    pub(super) fn may_draft(&self) -> bool {
        !self.config.policy.auto() || self.way == Some(Way::Draft) && !self.is_streaming()
    }

    /// Takes what a round of drafting cost.
    pub(super) fn observe_drafting(&mut self, drafts: usize, committed: usize, took: RoundTime) {
        let conditions = self.conditions();
        let prices = conditions.prices;
        let (drafting, waiting) = (took.drafting.as_secs_f64(), took.waiting.as_secs_f64());
        let cost = prices.draft() * drafting + prices.wait() * waiting;
        self.learned.economy.observe_round(&conditions, drafts, committed, cost);
    }

    /// Takes what so many tokens of a flowing text cost, of which the ones before came at `heard`.
    pub(super) fn observe_streaming(&mut self, tokens: usize, heard: Instant, now: Instant) {
        let conditions = self.conditions();
        let cost = conditions.prices.wait() * now.since(heard).as_secs_f64();
        self.learned.economy.observe_text(&conditions, tokens, cost);
    }

    /// Takes a round trip. The first of a reply may contain the prompt's prefill, so it is only an upper bound.
    pub(super) fn observe_round_trip(&mut self, sample: Duration) {
        if self.round.has_begun() {
            self.learned.economy.observe_round_trip(sample);
        } else {
            self.learned.economy.observe_round_trip_max(sample);
        }
    }

    fn conditions(&self) -> Conditions {
        let stop = &self.learned.stop;
        let leased = match &self.lessor {
            Lessor::Leased(leased) => leased.draft_tokens_max,
            _ => DRAFT_TOKENS_MAX,
        };
        Conditions {
            prices: stop.prices(),
            draft: stop.draft_cost(),
            acceptance: self.learned.calibration.acceptance(),
            drafts_max: leased.min(usize::from(self.config.policy.draft_tokens_max())) as u32,
            ahead: stop.draft_ahead(1.0 - self.learned.calibration.mean_rejection()),
            debt: self.text.len() - shared_prefix(&self.fed, self.text.tokens()),
            left: self.room(),
            credit: self.credit_max(),
        }
    }
}
