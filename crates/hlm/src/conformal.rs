//! The adaptive threshold of the `risk` policy: tokens less uncertain than it stay whatever the verdict. It is steered
//! so that the share of them that the target would not have chosen approaches ε (*ours*, after adaptive conformal
//! inference, 2106.00170).
//!
//! With threshold τ and step γ, each audited token moves τ by `γ(ε − missed)`. While τ is above zero, the misses
//! exceed ε of the audited tokens by at most `(τ_first + γ)/γ`, whatever the pair or the domain. Below zero no token
//! stays, so none can be audited. There τ moves in the same way by the judged tokens that are less uncertain than
//! [`SURE`], so that it rises again only where those are right.

use crate::uncertainty::Unit;

/// γ: the most that one audited token moves the threshold.
pub const STEP: f64 = 0.005;

/// Tokens less uncertain than this re-open a threshold that fell below zero.
pub const SURE: f64 = 1.0 / 16.0;

/// Lowest value of the threshold, so that it can rise again in bounded time.
pub const FLOOR: f64 = -10.0 * STEP;

/// The threshold on uncertainty below which a token stays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conformal {
    threshold: f64,
}

impl Conformal {
    /// Starts at the uncertainty whose tokens are rejected with probability ε by CU-HLM's line (2505.11788); 0 for
    /// ε = 0.
    pub fn new(epsilon: Unit) -> Self {
        let epsilon = f64::from(epsilon.get());
        let start = if epsilon > 0.0 { (epsilon + 0.066) / 0.815 } else { 0.0 };
        Self { threshold: start.min(1.0) }
    }

    /// Starts at a threshold that was reached before; `None` if none could be this one.
    pub fn at(threshold: f64) -> Option<Self> {
        (FLOOR - STEP..=1.0).contains(&threshold).then_some(Self { threshold })
    }

    /// The threshold; at 0 and below no token stays.
    pub fn threshold(&self) -> f64 {
        self.threshold
    }

    /// True when a token of this uncertainty stays.
    pub fn stays(&self, uncertainty: Unit) -> bool {
        f64::from(uncertainty.get()) < self.threshold
    }

    /// Takes the result for a token that stayed: `missed` if the target chose another.
    pub fn observe_audited(&mut self, missed: bool, epsilon: Unit) {
        self.threshold += STEP * (f64::from(epsilon.get()) - f64::from(u8::from(missed)));
        self.threshold = self.threshold.min(1.0);
    }

    /// Takes the result for a token that did not stay; it counts only while no token stays.
    pub fn observe_judged(&mut self, uncertainty: Unit, rejected: bool, epsilon: Unit) {
        if self.threshold <= 0.0 && f64::from(uncertainty.get()) < SURE {
            self.observe_audited(rejected, epsilon);
            self.threshold = self.threshold.max(FLOOR);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coupling::Noise;

    fn unit(x: f64) -> Unit {
        Unit::clamped(x)
    }

    /// A stream of tokens. Their uncertainty is u² for uniform u; `line` gives the probability of rejection at an
    /// uncertainty.
    struct Stream {
        at: u64,
        conformal: Conformal,
        epsilon: Unit,
        audited: u64,
        missed: u64,
    }

    impl Stream {
        fn new(epsilon: f64) -> Self {
            let epsilon = unit(epsilon);
            Self { at: 0, conformal: Conformal::new(epsilon), epsilon, audited: 0, missed: 0 }
        }

        fn run(&mut self, audits: u64, line: impl Fn(f64) -> f64) {
            let (goal, patience) = (self.audited + audits, self.at + 400 * audits);
            while self.audited < goal && self.at < patience {
                self.at += 1;
                let noise = Noise::new(77, 7, self.at);
                let uncertainty = noise.unit(0) * noise.unit(0);
                let missed = noise.unit(1) < line(uncertainty);
                if self.conformal.stays(unit(uncertainty)) {
                    self.conformal.observe_audited(missed, self.epsilon);
                    self.audited += 1;
                    self.missed += u64::from(missed);
                } else {
                    self.conformal.observe_judged(unit(uncertainty), missed, self.epsilon);
                }
            }
        }

        /// The share of misses among the tokens that stayed, divided by ε.
        fn ratio_since(&self, (audited, missed): (u64, u64)) -> f64 {
            (self.missed - missed) as f64 / (self.audited - audited) as f64 / f64::from(self.epsilon.get())
        }
    }

    fn published(u: f64) -> f64 {
        (0.815 * u - 0.066).clamp(0.0, 1.0)
    }

    #[test]
    fn the_share_of_misses_comes_to_epsilon_though_the_domain_changes() {
        for epsilon in [0.01, 0.05] {
            let mut stream = Stream::new(epsilon);
            stream.run(2_000, published);
            let warm = (stream.audited, stream.missed);
            stream.run(30_000, published);
            stream.run(30_000, |u| (1.6 * u).clamp(0.0, 1.0));
            assert!(stream.audited - warm.0 >= 50_000, "{epsilon}: {} audited", stream.audited);
            let ratio = stream.ratio_since(warm);
            assert!((ratio - 1.0).abs() < 0.3, "{epsilon}: {ratio}");
        }
    }

    #[test]
    fn a_hostile_domain_costs_a_bounded_number_of_misses() {
        let mut stream = Stream::new(0.05);
        stream.run(200, |_| 1.0);
        let first = Conformal::new(stream.epsilon).threshold();
        let allowed = 0.05 * stream.audited as f64 + (first + STEP) / STEP;
        assert!(
            stream.audited > 0 && stream.missed as f64 <= allowed,
            "{} of {}",
            stream.missed,
            stream.audited
        );
    }

    #[test]
    fn what_was_lost_in_a_hostile_domain_comes_back_in_a_good_one() {
        let mut stream = Stream::new(0.05);
        stream.run(200, |_| 1.0);
        assert!(stream.conformal.threshold() <= 0.0 && stream.conformal.threshold() >= FLOOR);
        stream.run(2_000, published);
        assert!(stream.conformal.threshold() > 0.05, "{}", stream.conformal.threshold());
    }

    #[test]
    fn an_easy_domain_lets_everything_stay() {
        let mut stream = Stream::new(0.05);
        stream.run(20_000, |_| 0.0);
        assert_eq!((stream.conformal.threshold(), stream.missed), (1.0, 0));
    }

    #[test]
    fn without_allowance_nothing_stays() {
        let mut stream = Stream::new(0.0);
        stream.run(100, published);
        assert!(stream.audited == 0 && stream.conformal.threshold() <= 0.0);
        assert!(!stream.conformal.stays(Unit::ZERO));
    }
}
