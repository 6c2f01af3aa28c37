//! The choice of who writes (*ours*): the device drafts and the verifier judges, or the verifier's text streams down.
//!
//! Both ways have a cost per committed token, in the unit of the [prices](crate::stop::Prices). It is predicted from
//! what is known of either way at any time: the round trip and the drafter's time are measured, the share of accepted
//! drafts is calibrated, and the verifier announces its pass, its rows and its queue. So the way that is not taken
//! follows a change of link or load, too. What the formulas leave out is corrected by the ratio of measured to
//! predicted cost, way by way.
//!
//! Invariant: no clock and no link; it decides from sums that fade with the rounds.

use crate::stop::Prices;
use crate::time::Duration;
use dunlin_wire::{LogTime, Price};

/// Observations after which one has faded to 1/e.
const MEMORY: f64 = 32.0;
/// Observations of a way's cost after which one has faded to 1/e. Single rounds scatter, and a change of link or load is
/// followed by the formulas.
const ACCOUNT_MEMORY: f64 = 128.0;
/// Share of the predicted cost that the other way must save, so that noise does not swing the choice.
const MARGIN: f64 = 0.02;
/// Share of all cost that may be spent on trying the way that looks dearer.
const EXPLORED_MAX: f64 = 0.02;
/// A way is tried again if it would have to be cheaper than predicted by no more than this factor.
const PROMISING: f64 = 1.5;
/// Weight of the formula against measurements, in observations.
const PRIOR_COUNT: f64 = 16.0;
/// Largest factor between the formula and measurements. The announced times are a peer's and may be anything.
const RATIO_MAX: f64 = 1e6;
/// Observations from which on a way counts as known.
const KNOWN_COUNT: f64 = 12.0;
/// Tokens after which a measured way counts as unknown again.
const STALE_TOKENS: f64 = 2_000.0;
/// Drafts of the longest round that is considered.
const DRAFTS_MAX: u32 = 16;
/// Largest sum that is taken over from an earlier time, in any unit.
const SUM_MAX: f64 = 1e12;
/// Time of a pass before one is announced, s.
const PASS_START: f64 = 0.05;
/// Time of feeding the drafter a token in a longer run, relative to that of drafting one, before it is measured.
const FEED_START: f64 = 0.5;

/// A way to get the next tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// The device drafts, the verifier judges.
    #[default]
    Draft,
    /// The verifier writes.
    Stream,
}

impl Way {
    fn other(self) -> Self {
        match self {
            Self::Draft => Self::Stream,
            Self::Stream => Self::Draft,
        }
    }
}

/// Everything that both costs depend on. Times are in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conditions {
    /// Prices of drafting and of waiting.
    pub prices: Prices,
    /// Time of one drafted token.
    pub draft: f64,
    /// Share of drafts that the target accepts, given that it accepted those before, 0..=1.
    pub acceptance: f64,
    /// Most drafts of a frame.
    pub drafts_max: u32,
    /// True when the device drafts ahead while it waits.
    pub ahead: bool,
    /// Tokens that the drafter has not read.
    pub debt: usize,
    /// Tokens that this reply may still commit.
    pub left: usize,
    /// Tokens of a whole credit.
    pub credit: usize,
}

/// Measured and predicted cost of a way, as sums that fade.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
struct Account {
    measured: f64,
    predicted: f64,
    /// Observations.
    count: f64,
    /// Tokens committed by the other way since this one was measured last.
    idle_tokens: f64,
}

impl Account {
    fn observe(&mut self, measured: f64, predicted: f64) {
        let keep = 1.0 - 1.0 / ACCOUNT_MEMORY;
        (self.measured, self.predicted) =
            (self.measured * keep + measured, self.predicted * keep + predicted);
        self.count = self.count * keep + 1.0;
        self.idle_tokens = 0.0;
    }

    fn is_possible(&self) -> bool {
        let Self { measured, predicted, count, idle_tokens } = self;
        [measured, predicted, count, idle_tokens].into_iter().all(|sum| (0.0..=SUM_MAX).contains(sum))
    }

    fn is_known(&self) -> bool {
        self.count >= KNOWN_COUNT && self.idle_tokens < STALE_TOKENS
    }

    /// Measured over predicted cost. The formula counts as [`PRIOR_COUNT`] observations that it was right, since single
    /// rounds scatter: one miss more or less doubles their cost.
    fn ratio(&self) -> f64 {
        if self.count == 0.0 {
            return 1.0;
        }
        let prior = PRIOR_COUNT * self.predicted / self.count;
        ((self.measured + prior) / (self.predicted + prior)).clamp(1.0 / RATIO_MAX, RATIO_MAX)
    }
}

/// The costs of both ways as far as they are known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Economy {
    drafted: Account,
    streamed: Account,
    /// Round trip without the target's work, s, as a fading mean.
    rtt: Option<f64>,
    /// The verifier's announced times.
    #[cfg_attr(feature = "serde", serde(skip))]
    price: Price,
    /// Fading sums of longer runs of the drafter.
    feed_tokens: f64,
    feed_seconds: f64,
    /// Fading sums of replies and of their tokens.
    replies: f64,
    reply_tokens: f64,
    /// Cost of all tokens so far, and of those that a trial cost more than the other way.
    spent: f64,
    explored: f64,
    /// The way that is being tried, and the tokens left to it.
    #[cfg_attr(feature = "serde", serde(skip))]
    trial: Option<(Way, usize)>,
}

fn seconds(time: LogTime) -> Option<f64> {
    time.us().map(|us| us as f64 / 1e6)
}

impl Economy {
    /// Goes on from what was known at an earlier time; false if nobody could have known this, and nothing changed. What
    /// the verifier announces now stays, and a trial is over.
    pub fn recall(&mut self, earlier: &Self) -> bool {
        let Self {
            drafted,
            streamed,
            rtt,
            feed_tokens,
            feed_seconds,
            replies,
            reply_tokens,
            spent,
            explored,
            // These are of the present.
            price: _,
            trial: _,
        } = *earlier;
        let possible = |sum: &f64| (0.0..=SUM_MAX).contains(sum);
        let rtt = rtt.unwrap_or(0.0);
        let sums = [rtt, feed_tokens, feed_seconds, replies, reply_tokens, spent, explored];
        let is_possible = drafted.is_possible() && streamed.is_possible() && sums.iter().all(possible);
        if is_possible {
            *self = Self { price: self.price, trial: None, ..*earlier };
        }
        is_possible
    }

    /// Tokens left of a trial, while there is one.
    pub fn trial(&self) -> Option<usize> {
        self.trial.map(|(_, tokens)| tokens)
    }

    /// Ends a trial of this way early.
    pub fn end_trial(&mut self, way: Way) {
        self.trial.take_if(|(tried, _)| *tried == way);
    }

    /// Takes the length of a reply that has ended.
    pub fn observe_reply(&mut self, tokens: usize) {
        let keep = 1.0 - 1.0 / MEMORY;
        self.replies = self.replies * keep + 1.0;
        self.reply_tokens = self.reply_tokens * keep + tokens as f64;
    }

    /// Tokens that a reply is expected to go on for, given the most that it may. Like a text that ends at any token with
    /// the same probability, it goes on for the mean length however long it is.
    fn expected_left(&self, most: usize) -> f64 {
        let most = most as f64;
        ((self.reply_tokens + most) / (self.replies + 1.0)).min(most)
    }

    /// Takes the times of a lease.
    pub fn announce(&mut self, price: Price) {
        self.price = price;
    }

    /// Takes the times of an answer; unknown ones change nothing.
    pub fn announce_pass(&mut self, pass: LogTime, queue: LogTime) {
        if pass != LogTime::default() {
            (self.price.pass, self.price.queue) = (pass, queue);
        }
    }

    /// Takes a round trip of a frame that was sent once, the target's work included.
    pub fn observe_round_trip(&mut self, sample: Duration) {
        let net = self.without_target(sample);
        self.rtt = Some(self.rtt.map_or(net, |rtt| rtt + (net - rtt) / 8.0));
    }

    /// Takes a round trip that may contain more of the target's work than a pass: it counts if the mean exceeds it.
    pub fn observe_round_trip_max(&mut self, sample: Duration) {
        if self.rtt.is_some_and(|rtt| self.without_target(sample) < rtt) {
            self.observe_round_trip(sample);
        }
    }

    fn without_target(&self, sample: Duration) -> f64 {
        (sample.as_secs_f64() - self.pass() - self.queue()).max(0.0)
    }

    /// Takes the time of asking for a lease, which stands in for a round trip until there is one.
    pub fn observe_handshake(&mut self, sample: Duration) {
        self.rtt.get_or_insert(sample.as_secs_f64());
    }

    /// Takes a run of the drafter that read several tokens.
    pub fn observe_feed(&mut self, tokens: usize, took: Duration) {
        let keep = 1.0 - 1.0 / MEMORY;
        self.feed_tokens = self.feed_tokens * keep + tokens as f64;
        self.feed_seconds = self.feed_seconds * keep + took.as_secs_f64();
    }

    /// Takes what a round with so many drafts cost, and the tokens that it committed. How many drafts stand is chance and
    /// is estimated apart, so the cost of the round is compared, not that of its tokens.
    pub fn observe_round(&mut self, conditions: &Conditions, drafts: usize, tokens: usize, cost: f64) {
        let drafts = u32::try_from(drafts).unwrap_or(DRAFTS_MAX);
        let predicted = self.round(drafts.clamp(1, DRAFTS_MAX), conditions);
        self.observe(Way::Draft, conditions, tokens, (cost, predicted));
    }

    /// Takes what tokens cost that came on credit.
    pub fn observe_text(&mut self, conditions: &Conditions, tokens: usize, cost: f64) {
        let predicted = self.predicted(Way::Stream, conditions) * tokens as f64;
        self.observe(Way::Stream, conditions, tokens, (cost, predicted));
    }

    fn observe(&mut self, way: Way, conditions: &Conditions, tokens: usize, (cost, predicted): (f64, f64)) {
        if tokens == 0 || !cost.is_finite() {
            return;
        }
        let tokens = tokens as f64;
        self.account(way).observe(cost, predicted);
        self.account(way.other()).idle_tokens += tokens;
        self.spent += cost;
        // Tokens of the other way may still come: what is left of a credit, or a frame that was sent before.
        if let Some((tried, left)) = self.trial
            && tried == way
        {
            let other = self.cost(way.other(), conditions) * tokens;
            self.explored += (cost - other).max(0.0);
            self.trial = left.checked_sub(tokens as usize).filter(|left| *left > 0).map(|left| (way, left));
        }
    }

    fn account(&mut self, way: Way) -> &mut Account {
        match way {
            Way::Draft => &mut self.drafted,
            Way::Stream => &mut self.streamed,
        }
    }

    fn pass(&self) -> f64 {
        seconds(self.price.pass).unwrap_or(PASS_START)
    }

    fn queue(&self) -> f64 {
        seconds(self.price.queue).unwrap_or(0.0)
    }

    /// Cost per token by the formulas alone.
    fn predicted(&self, way: Way, c: &Conditions) -> f64 {
        if way == Way::Stream {
            // The text flows: neither the round trip nor the wait for a place in a batch is paid for each token. But
            // half a credit comes in no less time than the round trip that renews it.
            let renewal = self.rtt.unwrap_or(0.0) / (c.credit as f64 / 2.0).max(1.0);
            return (c.prices.wait() * self.pass().max(renewal)).max(f64::MIN_POSITIVE);
        }
        let mut best = f64::INFINITY;
        let (mut tokens, mut survival) = (1.0, 1.0);
        // A device that drafts sends at least one.
        for drafts in 1..=c.drafts_max.clamp(1, DRAFTS_MAX) {
            survival *= c.acceptance;
            tokens += survival;
            best = best.min(self.round(drafts, c) / tokens);
        }
        best
    }

    /// Cost of a round with so many drafts by the formula alone.
    fn round(&self, drafts: u32, c: &Conditions) -> f64 {
        let (draft_w, wait_w) = (c.prices.draft(), c.prices.wait());
        let row = seconds(self.price.row).unwrap_or(0.0);
        let drafting = f64::from(drafts) * c.draft;
        let waiting = self.rtt.unwrap_or(0.0) + self.pass() + self.queue() + f64::from(drafts) * row;
        // With this probability what is drafted while waiting is the next frame's beginning.
        let foreseen = if c.ahead { libm::pow(c.acceptance, f64::from(drafts) + 1.0) } else { 0.0 };
        let overlap = drafting.min(waiting);
        (draft_w * drafting + wait_w * waiting - foreseen * wait_w * overlap).max(f64::MIN_POSITIVE)
    }

    /// Cost per token by the formulas, corrected by what was measured.
    pub fn cost(&self, way: Way, conditions: &Conditions) -> f64 {
        let account = match way {
            Way::Draft => &self.drafted,
            Way::Stream => &self.streamed,
        };
        self.predicted(way, conditions) * account.ratio()
    }

    /// Cost of a change to a way, once.
    fn change(&self, to: Way, c: &Conditions) -> f64 {
        let feed =
            if self.feed_tokens > 0.0 { self.feed_seconds / self.feed_tokens } else { FEED_START * c.draft };
        match to {
            // The drafter has to read what it missed.
            Way::Draft => c.prices.draft() * feed * c.debt as f64,
            // The request takes a round trip before the text flows.
            Way::Stream => c.prices.wait() * self.rtt.unwrap_or(0.0),
        }
    }

    /// The way for the next tokens, given that of the last ones; `first` if none were committed in this reply.
    pub fn choose(&mut self, now: Way, first: bool, conditions: &Conditions) -> Way {
        if let Some((tried, _)) = self.trial {
            return tried;
        }
        let left = self.expected_left(conditions.left);
        let of = |way: Way| self.cost(way, conditions) * left;
        let (stay, go) = if first {
            // Nothing runs yet: both ways pay their beginning.
            (of(now) + self.change(now, conditions), of(now.other()) + self.change(now.other(), conditions))
        } else {
            (of(now), of(now.other()) + self.change(now.other(), conditions))
        };
        let best = if go < stay * (1.0 - MARGIN) { now.other() } else { now };
        self.try_other(best, conditions).unwrap_or(best)
    }

    /// Tries the other way for a few tokens if that may pay and is within its share.
    fn try_other(&mut self, best: Way, c: &Conditions) -> Option<Way> {
        let other = best.other();
        let known = match other {
            Way::Draft => self.drafted.is_known(),
            Way::Stream => self.streamed.is_known(),
        };
        let (dear, cheap) = (self.cost(other, c), self.cost(best, c));
        if known || dear > cheap * PROMISING {
            return None;
        }
        let tokens = TRIAL_TOKENS.min(c.left);
        let extra = (dear - cheap).max(0.0) * tokens as f64 + self.change(other, c);
        if self.explored + extra > EXPLORED_MAX * self.spent {
            return None;
        }
        // What a change costs is not seen in the cost of its tokens.
        self.explored += self.change(other, c);
        self.trial = Some((other, tokens));
        Some(other)
    }
}

/// Tokens of a trial.
const TRIAL_TOKENS: usize = 12;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// 20 ms a drafted token, seconds.
    pub(crate) const CONDITIONS: Conditions = Conditions {
        prices: Prices::SECONDS,
        draft: 0.02,
        acceptance: 0.7,
        drafts_max: 16,
        ahead: false,
        debt: 0,
        left: 64,
        credit: 64,
    };

    fn economy(rtt_ms: u64, pass_ms: u64) -> Economy {
        let time = |ms: u64| LogTime::of_us(ms * 1000);
        let mut economy = Economy::default();
        economy.announce(Price { pass: time(pass_ms), row: LogTime(1), queue: LogTime(0) });
        economy.observe_round_trip(Duration::from_millis(rtt_ms + pass_ms));
        economy
    }

    /// Takes what tokens cost, whatever the rounds.
    fn seen(economy: &mut Economy, way: Way, c: &Conditions, tokens: usize, cost: f64) {
        let predicted = economy.predicted(way, c) * tokens as f64;
        economy.observe(way, c, tokens, (cost, predicted));
    }

    #[test]
    fn a_slow_link_and_a_quick_target_stream() {
        let mut slow = economy(300, 10);
        assert_eq!(slow.choose(Way::Draft, true, &CONDITIONS), Way::Stream);
        let mut quick = economy(0, 400);
        let drafts = Conditions { draft: 0.001, ..CONDITIONS };
        assert_eq!(quick.choose(Way::Stream, true, &drafts), Way::Draft);
    }

    #[test]
    fn the_costs_by_hand() {
        let one = Conditions { drafts_max: 1, ..CONDITIONS };
        let economy = economy(100, 100);
        let pass = seconds(LogTime::of_us(100_000)).unwrap();
        let close = |a: f64, b: f64| assert!((a - b).abs() < 0.002, "{a} {b}");
        close(economy.cost(Way::Stream, &one), pass);
        // Credit for 4 tokens: 100 ms of round trip for every 2. For one, every token waits for it.
        let near = self::economy(100, 10);
        close(near.cost(Way::Stream, &Conditions { credit: 4, ..one }), 0.05);
        close(near.cost(Way::Stream, &Conditions { credit: 1, ..one }), 0.1);
        // One draft: 20 ms, 200 ms of waiting, 1.7 tokens. Without any: 200 ms a token.
        close(economy.cost(Way::Draft, &one), (0.02 + 0.2) / 1.7);
        // What is drafted ahead is needed with probability 0.49 and saves 20 ms.
        let ahead = Conditions { ahead: true, ..one };
        close(economy.cost(Way::Draft, &ahead), (0.02 + 0.2 - 0.49 * 0.02) / 1.7);
    }

    #[test]
    fn what_was_measured_corrects_the_formula() {
        let mut economy = economy(100, 100);
        let before = economy.cost(Way::Stream, &CONDITIONS);
        for _ in 0..100 {
            seen(&mut economy, Way::Stream, &CONDITIONS, 4, 4.0 * before * 3.0);
        }
        let factor = economy.cost(Way::Stream, &CONDITIONS) / before;
        assert!((2.5..3.0).contains(&factor), "{factor}: the formula counts as some observations of 1");
        assert_eq!(economy.choose(Way::Stream, false, &CONDITIONS), Way::Draft);
    }

    /// The number of drafts that stand is chance, which the drafts tell of. An unlucky round at its usual cost changes
    /// nothing.
    #[test]
    fn an_unlucky_round_is_not_a_dear_one() {
        let mut economy = economy(100, 100);
        let before = economy.cost(Way::Draft, &CONDITIONS);
        let round = economy.round(4, &CONDITIONS);
        (0..20).for_each(|_| economy.observe_round(&CONDITIONS, 4, 1, round));
        assert!((economy.cost(Way::Draft, &CONDITIONS) - before).abs() < 1e-12);
        (0..100).for_each(|_| economy.observe_round(&CONDITIONS, 4, 1, 2.0 * round));
        assert!(economy.cost(Way::Draft, &CONDITIONS) > 1.5 * before);
        let lucky = Conditions { acceptance: 0.9, ..CONDITIONS };
        assert!(economy.cost(Way::Draft, &lucky) < 0.8 * economy.cost(Way::Draft, &CONDITIONS));
    }

    #[test]
    fn drafting_is_at_least_one_draft() {
        let economy = economy(0, 100);
        let slow = Conditions { draft: 10.0, drafts_max: 0, ..CONDITIONS };
        assert!(economy.cost(Way::Draft, &slow) > 5.0, "{}", economy.cost(Way::Draft, &slow));
    }

    #[test]
    fn a_reply_goes_on_for_as_long_as_replies_last() {
        let mut economy = Economy::default();
        assert_eq!(economy.expected_left(64), 64.0);
        (0..200).for_each(|_| economy.observe_reply(12));
        let left = economy.expected_left(64);
        assert!((12.0..14.0).contains(&left), "{left}");
        assert_eq!(economy.expected_left(5), 5.0, "but never longer than it may");
    }

    /// A peer may announce any time. What was measured counts all the same.
    #[test]
    fn an_announced_time_that_is_wrong_by_far_is_corrected() {
        let mut economy = economy(100, 100);
        economy.announce_pass(LogTime(1), LogTime(0));
        assert_eq!(economy.choose(Way::Draft, true, &CONDITIONS), Way::Stream);
        for _ in 0..10 {
            seen(&mut economy, Way::Stream, &CONDITIONS, 1, 1.0);
        }
        assert_eq!(economy.choose(Way::Stream, false, &CONDITIONS), Way::Draft);
    }

    /// The rest of a credit, or a frame that was out, doesn't belong to the trial.
    #[test]
    fn a_trial_is_of_the_way_that_is_tried() {
        for (best, rtt, draft) in [(Way::Stream, 30, 0.06), (Way::Draft, 0, 0.03)] {
            let mut economy = economy(rtt, 100);
            let c = Conditions { draft, ..CONDITIONS };
            let own = economy.predicted(best, &c);
            while economy.choose(best, false, &c) == best {
                seen(&mut economy, best, &c, 1, own);
            }
            let explored = economy.explored;
            seen(&mut economy, best, &c, 4 * TRIAL_TOKENS, own);
            assert_eq!((economy.explored, economy.trial()), (explored, Some(TRIAL_TOKENS)));
            let tried = best.other();
            assert_eq!(economy.choose(best, false, &c), tried);
            seen(&mut economy, tried, &c, TRIAL_TOKENS, 10.0);
            assert!(economy.explored > explored && economy.trial().is_none());
        }
    }

    #[test]
    fn a_round_trip_that_may_contain_a_prefill_only_lowers_the_mean() {
        let mut economy = economy(100, 0);
        let before = economy.rtt;
        economy.observe_round_trip_max(Duration::from_millis(2_000));
        assert_eq!(economy.rtt, before);
        economy.observe_round_trip_max(Duration::from_millis(20));
        assert!(economy.rtt < before);
    }

    #[test]
    fn a_changed_load_moves_the_way_not_taken_at_once() {
        let mut economy = economy(20, 10);
        let drafts = Conditions { draft: 0.004, ..CONDITIONS };
        assert_eq!(economy.choose(Way::Draft, false, &drafts), Way::Stream);
        economy.announce_pass(LogTime::of_us(400_000), LogTime::of_us(200_000));
        assert_eq!(economy.choose(Way::Stream, false, &drafts), Way::Draft);
    }

    /// Rounds until the other way is taken, once the link has changed.
    fn followed(before_ms: u64, after_ms: u64, from: Way) -> usize {
        let mut economy = economy(before_ms, 30);
        let c = Conditions { draft: 0.002, left: 1000, ..CONDITIONS };
        // Both ways are known, so that nothing is tried.
        for way in [from.other(), from] {
            let own = economy.predicted(way, &c);
            (0..200).for_each(|_| seen(&mut economy, way, &c, 2, 2.0 * own));
        }
        assert_eq!(economy.choose(from, false, &c), from, "before the change");
        let mut rounds = 0;
        while economy.choose(from, false, &c) == from {
            economy.observe_round_trip(Duration::from_millis(after_ms + 30));
            let cost = economy.predicted(from, &c);
            seen(&mut economy, from, &c, 2, 2.0 * cost);
            rounds += 1;
            assert!(rounds <= 20, "{from:?} goes on");
        }
        rounds
    }

    #[test]
    fn a_changed_link_is_followed_within_twenty_rounds() {
        assert!(followed(5, 300, Way::Draft) > 0 && followed(300, 5, Way::Stream) > 0);
    }

    #[test]
    fn a_change_must_pay_within_the_reply() {
        let mut economy = economy(0, 30);
        economy.observe_feed(10, Duration::from_millis(200));
        let cheap = Conditions { draft: 0.005, left: 1000, debt: 40, ..CONDITIONS };
        assert_eq!(economy.choose(Way::Stream, false, &cheap), Way::Draft);
        let short = Conditions { left: 8, ..cheap };
        assert_eq!(economy.choose(Way::Stream, false, &short), Way::Stream, "reading 40 tokens takes 0.8 s");
    }

    /// The dearer way, whose formula is right, is tried for no more than its share.
    #[test]
    fn trials_cost_no_more_than_their_share() {
        let mut economy = economy(30, 100);
        let c = Conditions { draft: 0.06, ..CONDITIONS };
        let (mut way, mut cost, mut cheapest, mut tried) = (Way::Stream, 0.0, 0.0, 0);
        let formula = |economy: &Economy, way| economy.predicted(way, &c);
        for _ in 0..20_000 {
            way = economy.choose(way, false, &c);
            let (own, other) = (formula(&economy, way), formula(&economy, way.other()));
            tried += usize::from(own > other);
            cost += own;
            cheapest += own.min(other);
            seen(&mut economy, way, &c, 1, own);
        }
        assert!(tried > 0, "never tried");
        assert!(cost <= cheapest * 1.025, "{}", cost / cheapest);
    }

    #[test]
    fn what_nobody_could_have_known_is_not_taken_over() {
        let mut own = economy(100, 100);
        seen(&mut own, Way::Draft, &CONDITIONS, 4, 1.0);
        let before = own;
        let spoil: [fn(&mut Economy, f64); 11] = [
            |e, x| e.rtt = Some(x),
            |e, x| e.feed_tokens = x,
            |e, x| e.feed_seconds = x,
            |e, x| e.replies = x,
            |e, x| e.reply_tokens = x,
            |e, x| e.spent = x,
            |e, x| e.explored = x,
            |e, x| e.drafted.measured = x,
            |e, x| e.drafted.predicted = x,
            |e, x| e.streamed.count = x,
            |e, x| e.streamed.idle_tokens = x,
        ];
        for spoil in spoil {
            for bad in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
                let mut earlier = own;
                spoil(&mut earlier, bad);
                assert!(!own.recall(&earlier), "{earlier:?}");
                assert_eq!(own, before);
            }
        }
    }

    #[test]
    fn what_is_announced_now_outlives_what_was_known() {
        let mut earlier = economy(300, 10);
        earlier.trial = Some((Way::Draft, 3));
        let mut now = economy(0, 400);
        assert!(now.recall(&earlier));
        assert_eq!((now.price, now.rtt, now.trial), (economy(0, 400).price, earlier.rtt, None));
    }

    #[test]
    fn extremes_stay_finite() {
        let mut economy = Economy::default();
        let c = Conditions { draft: 0.0, left: 0, debt: usize::MAX, ..CONDITIONS };
        for price in [Price::default(), Price { pass: LogTime(255), row: LogTime(255), queue: LogTime(255) }]
        {
            economy.announce(price);
            economy.observe_round_trip(Duration(u64::MAX));
            economy.observe_feed(0, Duration(0));
            economy.observe_round(&c, usize::MAX, usize::MAX, f64::NAN);
            economy.observe_text(&c, usize::MAX, f64::MAX);
            economy.observe_round(&c, 0, 1, f64::MAX);
            economy.observe_reply(usize::MAX);
            for way in [Way::Draft, Way::Stream] {
                economy.choose(way, true, &c);
                assert!(!economy.cost(way, &c).is_nan());
            }
        }
    }
}
