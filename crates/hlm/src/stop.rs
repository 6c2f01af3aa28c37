//! When to stop drafting, in seconds (*ours*): a drafted token must buy what its time buys elsewhere.
//!
//! Maximising committed tokens per second over rounds gives the rule (renewal reward): one more token adds its
//! survival `S_{i+1}` to the tokens and `c_draft` to the seconds, so it pays while `S_{i+1} ≥ λ · c_draft` with λ
//! the best reachable rate, which the running rate approaches. A dearer frame lowers λ and lengthens drafts.

use core::num::NonZeroU16;

use crate::time::Duration;

/// The least survival at which drafting on during a verdict pays; see [`StopRule::draft_ahead`].
pub const DRAFT_AHEAD_SURVIVAL: f64 = 0.5;

/// Where the rule starts and how fast it follows; the start weighs as much as one round and one drafted token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopConfig {
    /// The time of one drafted token before one is measured.
    pub draft_cost_start: Duration,
    /// The time of one round before one is measured.
    pub round_cost_start: Duration,
    /// The tokens one round commits before one is measured.
    pub round_tokens_start: u8,
    /// After this many rounds (and as many drafted tokens) an observation has faded to 1/e.
    pub memory: NonZeroU16,
}

/// The running averages behind the stop rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StopRule {
    keep: f64,
    rounds: Fading,
    drafts: Fading,
}

impl Default for StopConfig {
    /// 50 ms a drafted token and 2 tokens per 500 ms round: starts with short drafts, as `S ≥ 0.2`.
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
    /// The rule before any observation.
    pub fn new(config: &StopConfig) -> Self {
        Self {
            keep: 1.0 - 1.0 / f64::from(config.memory.get()),
            rounds: Fading {
                tokens: f64::from(config.round_tokens_start),
                seconds: seconds(config.round_cost_start),
            },
            drafts: Fading { tokens: 1.0, seconds: seconds(config.draft_cost_start) },
        }
    }

    /// Learns the time one drafted token took.
    pub fn observe_draft(&mut self, cost: Duration) {
        self.drafts.observe(self.keep, 1.0, seconds(cost));
    }

    /// Learns what one round committed (accepted tokens and the target's own) and the time it took, drafting
    /// included.
    pub fn observe_round(&mut self, committed: usize, cost: Duration) {
        self.rounds.observe(self.keep, committed as f64, seconds(cost));
    }

    /// Whether one more token pays, given the probability that it and all before it in the draft are accepted.
    pub fn draft_on(&self, survival: f64) -> bool {
        survival >= self.rate() * self.draft_cost()
    }

    /// Whether one more token pays while a verdict on those before it is under way, given the probability that it
    /// and all before it are accepted (*ours*).
    ///
    /// A token drafted ahead saves `c_draft` with probability S. It costs half of `c_draft`: the verdict comes at
    /// any moment of a step and waits for the drafter to end it. So drafting ahead pays while `S ≥ ½`.
    pub fn draft_ahead(&self, survival: f64) -> bool {
        survival >= DRAFT_AHEAD_SURVIVAL
    }

    /// λ: committed tokens per second over the last rounds.
    pub fn rate(&self) -> f64 {
        self.rounds.tokens / self.rounds.seconds
    }

    /// `c_draft`: seconds per drafted token over the last ones.
    pub fn draft_cost(&self) -> f64 {
        self.drafts.seconds / self.drafts.tokens
    }
}

/// Sums that fade, so that their quotient is an average weighted by size and age.
#[derive(Clone, Copy, Debug, PartialEq)]
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

/// At least one tick of the clock, so that no quotient is infinite.
fn seconds(span: Duration) -> f64 {
    Duration(span.0.max(1)).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coupling::Noise;

    /// Tokens accepted one by one with the same probability; times in microseconds.
    struct World {
        acceptance: f64,
        draft_us: u64,
        frame_us: u64,
    }

    impl World {
        fn rate_of(&self, length: i32) -> f64 {
            let tokens: f64 = (0..=length).map(|i| libm::pow(self.acceptance, f64::from(i))).sum();
            tokens / (f64::from(length) * self.draft_us as f64 + self.frame_us as f64)
        }

        fn best_length(&self) -> i32 {
            (0..=64).max_by(|&a, &b| self.rate_of(a).total_cmp(&self.rate_of(b))).unwrap()
        }

        /// Mean draft length over the second half of the rounds.
        fn length_reached(&self, rounds: u64) -> f64 {
            let mut rule = StopRule::new(&StopConfig::default());
            let mut total = 0.0;
            for round in 0..rounds {
                let mut length = 0;
                while length < 64 && rule.draft_on(libm::pow(self.acceptance, f64::from(length + 1))) {
                    rule.observe_draft(Duration(self.draft_us));
                    length += 1;
                }
                let noise = Noise::new(3, 3, round);
                let accepted = (0..length).take_while(|&i| noise.unit(i as u64) < self.acceptance).count();
                let cost = Duration(length as u64 * self.draft_us + self.frame_us);
                rule.observe_round(accepted + 1, cost);
                total += if round >= rounds / 2 { f64::from(length) } else { 0.0 };
            }
            total / (rounds - rounds / 2) as f64
        }
    }

    #[test]
    fn converges_to_the_best_length() {
        for acceptance in [0.5, 0.7, 0.8, 0.9] {
            for frame_us in [20_000, 100_000, 400_000, 2_000_000] {
                let world = World { acceptance, draft_us: 20_000, frame_us };
                let (best, reached) = (world.best_length(), world.length_reached(4000));
                let name = std::format!("acceptance {acceptance} frame {frame_us}: {reached} against {best}");
                assert!((reached - f64::from(best)).abs() <= 1.0, "{name}");
                let rounded = libm::round(reached) as i32;
                assert!(world.rate_of(rounded) > 0.99 * world.rate_of(best), "{name}");
            }
        }
    }

    #[test]
    fn dearer_frames_lengthen_drafts() {
        let length = |frame_us| World { acceptance: 0.8, draft_us: 20_000, frame_us }.length_reached(2000);
        assert!(length(10_000) < length(100_000) && length(100_000) < length(1_000_000));
    }

    #[test]
    fn starts_where_the_documentation_says() {
        let rule = StopRule::new(&StopConfig::default());
        assert!((rule.rate() - 4.0).abs() < 1e-12 && (rule.draft_cost() - 0.05).abs() < 1e-12);
        assert!(rule.draft_on(0.21) && !rule.draft_on(0.19));
    }

    #[test]
    fn a_changed_link_is_followed() {
        let mut rule = StopRule::new(&StopConfig::default());
        (0..200).for_each(|_| rule.observe_round(4, Duration::from_millis(100)));
        assert!((rule.rate() - 40.0).abs() < 0.5);
        (0..200).for_each(|_| rule.observe_round(4, Duration::from_millis(2000)));
        assert!((rule.rate() - 2.0).abs() < 0.2);
    }

    #[test]
    fn extremes_stay_finite() {
        let config = StopConfig {
            draft_cost_start: Duration(0),
            round_cost_start: Duration(0),
            round_tokens_start: 0,
            memory: NonZeroU16::MIN,
        };
        let mut rule = StopRule::new(&config);
        for (committed, cost) in [(0, 0), (usize::MAX, 0), (0, u64::MAX), (usize::MAX, u64::MAX), (1, 0)] {
            rule.observe_round(committed, Duration(cost));
            rule.observe_draft(Duration(cost));
            assert!(rule.rate().is_finite() && rule.draft_cost().is_finite());
        }
        assert!(!rule.draft_on(f64::NAN) && !rule.draft_ahead(f64::NAN));
    }

    #[test]
    fn drafts_ahead_while_it_saves_more_than_it_delays() {
        let rule = StopRule::new(&StopConfig::default());
        assert!(rule.draft_ahead(0.5) && !rule.draft_ahead(0.49));
    }
}
