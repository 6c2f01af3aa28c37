//! The stop rule (*ours*): draft on while one more token yields at least the average yield per price.
//!
//! The rule maximises committed tokens per joule over rounds (renewal reward). One more token adds its survival
//! `S_{i+1}` to the tokens and `P_draft · c` to the joules. So it pays while `S_{i+1} ≥ λ · P_draft · c`, with λ the
//! best reachable rate, which the running rate approaches. A dearer frame lowers λ and lengthens drafts. A board that
//! draws little while it waits raises λ and shortens them. With both prices at 1 the same rule maximises tokens per
//! second.
//!
//! Invariant: the sums are of time and tokens, never of cost. The current prices weigh them only when a decision is
//! made, so a price or its unit may change at any time.

mod prices;

pub use prices::{Prices, PricesError};

use crate::time::Duration;
use core::num::NonZeroU16;

/// Least cost of the rounds, s: one tick of the clock, so that no rate is infinite.
const ROUND_COST_MIN: f64 = 1e-6;

/// Largest sum of tokens or seconds that is taken over from an earlier time.
const SUM_MAX: f64 = 1e9;
/// Fewest drafted tokens of sums that are taken over. Every sum contains a newest token, which weighs 1.
const DRAFTED_MIN: f64 = 0.5;

/// Start values and memory of the rule. The start values weigh as much as one round and one drafted token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopConfig {
    /// Assumed time of one drafted token before one is measured.
    pub draft_cost_start: Duration,
    /// Assumed time of one round before one is measured.
    pub round_cost_start: Duration,
    /// Assumed tokens that one round commits before one is measured; as many are assumed to be drafted in it.
    pub round_tokens_start: u8,
    /// Number of rounds (and of drafted tokens) after which an observation has faded to 1/e.
    pub memory: NonZeroU16,
}

/// The running averages behind the stop rule, and the prices that weigh them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StopRule {
    keep: f64,
    prices: Prices,
    sums: StopSums,
}

/// Sums over rounds and drafted tokens that fade.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct StopSums {
    rounds: Fading,
    /// Seconds of these rounds with the drafter running.
    drafting: f64,
    drafts: Fading,
}

impl Default for StopConfig {
    /// 50 ms per drafted token and 2 tokens per 500 ms round. With prices in seconds this drafts while `S ≥ 0.2`, so
    /// the first drafts are short.
    fn default() -> Self {
        Self {
            draft_cost_start: Duration::from_millis(50),
            round_cost_start: Duration::from_millis(500),
            round_tokens_start: 2,
            memory: const { NonZeroU16::new(32).expect("32 is not zero") },
        }
    }
}

impl StopRule {
    /// The rule before any observation, with prices in seconds.
    pub fn new(config: &StopConfig) -> Self {
        let tokens = f64::from(config.round_tokens_start);
        let (round, draft) = (seconds(config.round_cost_start), seconds(config.draft_cost_start));
        Self {
            keep: 1.0 - 1.0 / f64::from(config.memory.get()),
            prices: Prices::SECONDS,
            sums: StopSums {
                rounds: Fading { tokens, seconds: round },
                drafting: (tokens * draft).min(round),
                drafts: Fading { tokens: 1.0, seconds: draft },
            },
        }
    }

    /// The sums so far.
    pub fn sums(&self) -> StopSums {
        self.sums
    }

    /// Goes on from sums of an earlier time; false if none could be these, and nothing changed.
    pub fn recall(&mut self, sums: StopSums) -> bool {
        let possible =
            |sum: Fading| (0.0..=SUM_MAX).contains(&sum.tokens) && (0.0..=SUM_MAX).contains(&sum.seconds);
        let StopSums { rounds, drafting, drafts } = sums;
        // A time per token needs tokens.
        let is_possible = possible(rounds)
            && possible(drafts)
            && drafts.tokens >= DRAFTED_MIN
            && (0.0..=SUM_MAX).contains(&drafting);
        if is_possible {
            self.sums = sums;
        }
        is_possible
    }

    /// Sets the prices for decisions from now on; observations stay.
    pub fn set_prices(&mut self, prices: Prices) {
        self.prices = prices;
    }

    /// The current prices.
    pub fn prices(&self) -> Prices {
        self.prices
    }

    /// Starts from a measured time of one drafted token instead of an assumed one.
    pub fn start_at(&mut self, took: Duration) {
        self.sums.drafts = Fading { tokens: 1.0, seconds: seconds(took) };
    }

    /// Takes the time of one drafted token.
    pub fn observe_draft(&mut self, took: Duration) {
        self.sums.drafts.observe(self.keep, 1.0, seconds(took));
    }

    /// Takes the tokens that one round committed (accepted ones and the target's own) and its time with the drafter
    /// running and without.
    pub fn observe_round(&mut self, committed: usize, drafting: Duration, waiting: Duration) {
        self.sums.rounds.observe(self.keep, committed as f64, seconds(drafting + waiting));
        self.sums.drafting = self.keep * self.sums.drafting + drafting.as_secs_f64();
    }

    /// True when one more token pays, given the probability that it and all before it in the draft are accepted.
    pub fn draft_on(&self, survival: f64) -> bool {
        survival >= self.rate() * self.draft_cost()
    }

    /// True when one more token pays while a verdict on those before it is under way, given the probability that it and
    /// all before it are accepted (*ours*).
    ///
    /// The verdict arrives on average in the middle of a drafting step and waits for the step to end. The first half of
    /// the step replaces waiting and costs `(P_draft − P_wait) · c/2`. The second half delays the next frame and costs
    /// `P_draft · c/2`. With probability S the token need not be drafted later, which saves `P_draft · c`. So drafting
    /// ahead pays while `S ≥ 1 − P_wait / (2 · P_draft)`. That is ½ with prices in seconds, and 1 where waiting is
    /// free. A step that ends before the verdict costs less, so the rule is cautious.
    pub fn draft_ahead(&self, survival: f64) -> bool {
        survival >= 1.0 - self.prices.ratio() / 2.0
    }

    /// λ: committed tokens per cost of the last rounds; the unit of cost is one second of drafting.
    pub fn rate(&self) -> f64 {
        self.sums.rounds.tokens / self.round_cost().max(ROUND_COST_MIN)
    }

    /// `c`: seconds per drafted token, averaged over the last ones.
    pub fn draft_cost(&self) -> f64 {
        self.sums.drafts.seconds / self.sums.drafts.tokens
    }

    /// Cost of the rounds in seconds of drafting: a second of drafting costs 1, any other second the price ratio of
    /// waiting.
    fn round_cost(&self) -> f64 {
        let wait = self.prices.ratio();
        wait * self.sums.rounds.seconds + (1.0 - wait) * self.sums.drafting
    }
}

/// Fading sums, whose quotient is an average weighted by size and age.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
struct Fading {
    tokens: f64,
    seconds: f64,
}

impl Fading {
    fn observe(&mut self, keep: f64, tokens: f64, seconds: f64) {
        self.tokens = keep * self.tokens + tokens;
        self.seconds = keep * self.seconds + seconds;
    }
}

/// The span in seconds, at least one tick of the clock, so that no quotient is infinite.
fn seconds(span: Duration) -> f64 {
    Duration(span.0.max(1)).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coupling::Noise;

    /// A model in which each token is accepted with the same probability and each activity has one price. Times in
    /// microseconds.
    #[derive(Clone, Copy)]
    struct World {
        acceptance: f64,
        draft_us: u64,
        frame_us: u64,
        prices: Prices,
    }

    const WORLD: World =
        World { acceptance: 0.8, draft_us: 20_000, frame_us: 100_000, prices: Prices::SECONDS };

    fn prices(draft: f64, wait: f64) -> Prices {
        Prices::new(draft, wait).unwrap()
    }

    impl World {
        /// Expected committed tokens of a round with `length` drafts, divided by its cost.
        fn rate_of(&self, length: i32) -> f64 {
            let tokens: f64 = (0..=length).map(|i| libm::pow(self.acceptance, f64::from(i))).sum();
            let (drafting, waiting) = (f64::from(length) * self.draft_us as f64, self.frame_us as f64);
            tokens / (self.prices.draft() * drafting + self.prices.wait() * waiting)
        }

        fn best_length(&self) -> i32 {
            (1..=64).max_by(|&a, &b| self.rate_of(a).total_cmp(&self.rate_of(b))).unwrap()
        }

        /// Mean draft length over the second half of the rounds.
        fn length_reached(&self, rounds: u64) -> f64 {
            let mut rule = StopRule::new(&StopConfig::default());
            rule.set_prices(self.prices);
            let mut total = 0.0;
            for round in 0..rounds {
                let length = self.round(&mut rule, round);
                total += if round >= rounds / 2 { f64::from(length) } else { 0.0 };
            }
            total / (rounds - rounds / 2) as f64
        }

        /// Plays one round and lets the rule observe it. Returns the length that the rule drafted, at least 1.
        fn round(&self, rule: &mut StopRule, round: u64) -> i32 {
            let mut length = 0;
            let pays =
                |rule: &StopRule, length| rule.draft_on(libm::pow(self.acceptance, f64::from(length + 1)));
            while length == 0 || length < 64 && pays(rule, length) {
                rule.observe_draft(Duration(self.draft_us));
                length += 1;
            }
            let noise = Noise::new(3, 3, round);
            let accepted = (0..length).take_while(|&i| noise.unit(i as u64) < self.acceptance).count();
            let drafting = Duration(length as u64 * self.draft_us);
            rule.observe_round(accepted + 1, drafting, Duration(self.frame_us));
            length
        }

        fn assert_reaches_the_best(&self) {
            let (best, reached) = (self.best_length(), self.length_reached(4000));
            let Self { acceptance, frame_us, prices, .. } = self;
            let name = std::format!("{acceptance} {frame_us} {prices:?}: {reached} against {best}");
            assert!((reached - f64::from(best)).abs() <= 1.0, "{name}");
            let rounded = libm::round(reached) as i32;
            assert!(self.rate_of(rounded) > 0.99 * self.rate_of(best), "{name}");
        }
    }

    #[test]
    fn converges_to_the_best_length() {
        let boards =
            [Prices::SECONDS, prices(5.4, 2.3), prices(11.5, 4.5), prices(6.0, 1.2), prices(2.0, 1.9)];
        for acceptance in [0.5, 0.7, 0.8, 0.9] {
            for frame_us in [20_000, 100_000, 400_000, 2_000_000] {
                for prices in boards {
                    World { acceptance, frame_us, prices, ..WORLD }.assert_reaches_the_best();
                }
            }
        }
    }

    #[test]
    fn the_best_length_per_joule_is_not_the_best_per_second() {
        let seconds = World { acceptance: 0.9, frame_us: 400_000, ..WORLD };
        let joules = World { prices: prices(6.0, 1.2), ..seconds };
        assert_eq!((seconds.best_length(), joules.best_length()), (13, 6));
        assert!((seconds.length_reached(4000) - 13.0).abs() <= 1.0);
        assert!((joules.length_reached(4000) - 6.0).abs() <= 1.0);
        assert!(joules.rate_of(13) < 0.94 * joules.rate_of(6), "what the length per second costs in joules");
    }

    #[test]
    fn dearer_frames_lengthen_drafts() {
        for prices in [Prices::SECONDS, prices(5.4, 2.3)] {
            let length = |frame_us| World { frame_us, prices, ..WORLD }.length_reached(2000);
            assert!(length(10_000) < length(100_000) && length(100_000) < length(1_000_000));
        }
    }

    #[test]
    fn starts_where_the_documentation_says() {
        let mut rule = StopRule::new(&StopConfig::default());
        assert!((rule.rate() - 4.0).abs() < 1e-12 && (rule.draft_cost() - 0.05).abs() < 1e-12);
        assert!(rule.draft_on(0.21) && !rule.draft_on(0.19));
        // 100 ms of drafting and 400 ms of waiting at half the price cost 300 ms of drafting, for 2 tokens.
        rule.set_prices(prices(2.0, 1.0));
        assert!((rule.rate() - 2.0 / 0.3).abs() < 1e-12 && (rule.draft_cost() - 0.05).abs() < 1e-12);
    }

    #[test]
    fn a_changed_link_is_followed() {
        let mut rule = StopRule::new(&StopConfig::default());
        let mut rounds = |ms| {
            (0..200).for_each(|_| rule.observe_round(4, Duration(0), Duration::from_millis(ms)));
            rule.rate()
        };
        assert!((rounds(100) - 40.0).abs() < 0.5);
        assert!((rounds(2000) - 2.0).abs() < 0.2);
    }

    #[test]
    fn a_changed_price_counts_at_once_and_its_unit_not_at_all() {
        let mut rule = StopRule::new(&StopConfig::default());
        let round = |rule: &mut StopRule| {
            rule.observe_round(3, Duration::from_millis(100), Duration::from_millis(300));
        };
        (0..400).for_each(|_| round(&mut rule));
        let mut rate = |prices| {
            rule.set_prices(prices);
            rule.rate()
        };
        // 100 ms of drafting, and 300 ms of waiting at the price of drafting, at a quarter of it, and free.
        assert!((rate(Prices::SECONDS) - 7.5).abs() < 0.01);
        assert!((rate(prices(8.0, 2.0)) - 3.0 / 0.175).abs() < 0.01);
        assert_eq!(rate(prices(8.0, 2.0)), rate(prices(8e-3, 2e-3)));
        assert!((rate(prices(8.0, 0.0)) - 30.0).abs() < 0.01);
        assert!((rate(Prices::SECONDS) - 7.5).abs() < 0.01);
    }

    #[test]
    fn extremes_stay_finite() {
        let config = StopConfig {
            draft_cost_start: Duration(0),
            round_cost_start: Duration(0),
            round_tokens_start: 0,
            memory: NonZeroU16::MIN,
        };
        let tiny = f64::from_bits(1);
        let hostile = [(1.0, 1.0), (1.0, 0.0), (f64::MAX, tiny), (tiny, f64::MAX), (f64::MAX, f64::MAX)];
        let mut rule = StopRule::new(&config);
        for (committed, time) in [(0, 0), (usize::MAX, 0), (0, u64::MAX), (usize::MAX, u64::MAX), (1, 0)] {
            for (drafting, waiting) in [(0, time), (time, 0), (time, time)] {
                rule.observe_round(committed, Duration(drafting), Duration(waiting));
                rule.observe_draft(Duration(time));
                for (draft, wait) in hostile {
                    rule.set_prices(prices(draft, wait));
                    assert!(rule.rate().is_finite() && rule.draft_cost().is_finite());
                    assert!(!rule.draft_on(f64::NAN) && !rule.draft_ahead(f64::NAN));
                    assert!(rule.draft_ahead(1.0) && !rule.draft_ahead(0.49));
                }
            }
        }
    }

    #[test]
    fn sums_that_no_rule_has_are_not_taken_over() {
        let mut rule = StopRule::new(&StopConfig::default());
        let own = rule.sums();
        let spoil: [fn(&mut StopSums, f64); 5] = [
            |sums, x| sums.rounds.tokens = x,
            |sums, x| sums.rounds.seconds = x,
            |sums, x| sums.drafting = x,
            |sums, x| sums.drafts.tokens = x,
            |sums, x| sums.drafts.seconds = x,
        ];
        for spoil in spoil {
            for bad in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
                let mut sums = own;
                spoil(&mut sums, bad);
                assert!(!rule.recall(sums), "{sums:?}");
                assert_eq!(rule.sums(), own);
            }
        }
        let none_drafted = StopSums { drafts: Fading { tokens: 0.0, seconds: 1.0 }, ..own };
        assert!(!rule.recall(none_drafted), "it has no time per token");
        assert!(rule.recall(own));
    }

    /// Joules that drafting one token ahead adds, averaged over the moments of its step at which the verdict may
    /// arrive. The cost of the step is compared with that of waiting for the verdict and then, if it confirms the
    /// token, drafting it.
    fn joules_added(survival: f64, draft_w: f64, wait_w: f64) -> f64 {
        const MOMENTS: u32 = 1000;
        let added = |moment: u32| {
            let arrives = (f64::from(moment) + 0.5) / f64::from(MOMENTS);
            let waited = arrives * wait_w;
            let (confirmed, fell) = (waited + draft_w, waited);
            draft_w - (survival * confirmed + (1.0 - survival) * fell)
        };
        (0..MOMENTS).map(added).sum::<f64>() / f64::from(MOMENTS)
    }

    #[test]
    fn drafts_ahead_while_it_saves_more_than_it_costs() {
        let mut rule = StopRule::new(&StopConfig::default());
        for (draft, wait) in [(1.0, 1.0), (5.4, 2.3), (6.0, 1.2), (3.0, 0.0)] {
            rule.set_prices(prices(draft, wait));
            for percent in 0..=100 {
                let survival = f64::from(percent) / 100.0;
                let added = joules_added(survival, draft, wait);
                if added.abs() > 1e-6 {
                    assert_eq!(
                        rule.draft_ahead(survival),
                        added < 0.0,
                        "{survival} at {draft} W and {wait} W"
                    );
                }
            }
        }
    }

    #[test]
    fn drafts_ahead_from_one_half_in_seconds_and_never_where_waiting_is_free() {
        let mut rule = StopRule::new(&StopConfig::default());
        assert!(rule.draft_ahead(0.5) && !rule.draft_ahead(0.5 - f64::EPSILON));
        rule.set_prices(prices(3.0, 0.0));
        assert!(!rule.draft_ahead(1.0 - f64::EPSILON));
    }
}
