//! When the device sends what it holds.
//!
//! Invariant: a policy decides from scores and running averages alone; it never sees a frame, a link or a model.

use core::fmt;
use core::str::FromStr;

use crate::TokenId;
use crate::calibration::Calibration;
use crate::importance::{AdaptiveThreshold, LambdaError, Weights};
use crate::stop::StopRule;
use crate::uncertainty::{Form, Unit, to_score4};

/// The most tokens one draft can hold: as many as one frame.
pub const DRAFT_TOKENS_MAX: u8 = dunlin_wire::limits::DRAFT_TOKENS_MAX as u8;

/// What is sent, what happens to held tokens, and how both ends draw; by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Every token is verified, ids and 4-bit scores are sent, both ends draw with the shared seed: the text is
    /// the target's own.
    #[default]
    Lossless,
}

/// A name that is no [`Policy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownPolicy;

/// What makes the device send; each part works by itself, and the first that applies decides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PolicyConfig {
    /// The most tokens held before a frame is sent, 1..=[`DRAFT_TOKENS_MAX`].
    pub draft_tokens_max: u8,
    /// Send once one more token would not pay.
    pub stop_rule: bool,
    /// Send at a token more uncertain than this, in 0..=1.
    pub uncertainty_max: Option<f32>,
    /// Send at a token whose importance exceeds μ + λσ of those held; this is λ.
    pub importance_lambda: Option<f32>,
    /// How uncertainty is computed.
    pub uncertainty_form: Form,
}

/// A [`PolicyConfig`] setting out of its range.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum PolicyError {
    /// No token could be held, or more than [`DRAFT_TOKENS_MAX`].
    #[error("draft_tokens_max {0} is not within 1 and {DRAFT_TOKENS_MAX}")]
    DraftTokensMax(u8),
    /// The uncertainty threshold lies outside 0..=1.
    #[error("uncertainty_max {0} is not within 0 and 1")]
    UncertaintyMax(f32),
    /// The importance threshold has no sensible λ.
    #[error(transparent)]
    ImportanceLambda(#[from] LambdaError),
}

/// A [`PolicyConfig`] that was found valid.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trigger {
    draft_tokens_max: u8,
    stop_rule: bool,
    uncertainty_max: Option<Unit>,
    importance: Option<AdaptiveThreshold>,
    uncertainty_form: Form,
}

/// A drafted token with its scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// The token.
    pub token: TokenId,
    /// How unsure the drafter is of it.
    pub uncertainty: Unit,
    /// How much it matters.
    pub importance: Unit,
    /// Whether it ends the text, so that nothing can be drafted behind it.
    pub ends: bool,
}

/// What a policy needs to know of the tokens that are held.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Held {
    count: usize,
    survival: f64,
    survival_next: f64,
    importances: Weights,
    last: Option<Scored>,
}

/// What to do after a token was drafted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Keep the tokens and draft one more.
    Hold,
    /// Send the held tokens now.
    Flush(Reason),
}

/// Why the held tokens are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The last token ends the text.
    End,
    /// As many tokens are held as a draft may have.
    FrameFull,
    /// The last token is too uncertain.
    Uncertainty,
    /// The last token is too important.
    Importance,
    /// One more token would not pay.
    StopRule,
}

impl Trigger {
    /// The trigger of a configuration.
    pub fn new(config: &PolicyConfig) -> Result<Self, PolicyError> {
        if !(1..=DRAFT_TOKENS_MAX).contains(&config.draft_tokens_max) {
            return Err(PolicyError::DraftTokensMax(config.draft_tokens_max));
        }
        let unit = |x| Unit::new(x).ok_or(PolicyError::UncertaintyMax(x));
        Ok(Self {
            draft_tokens_max: config.draft_tokens_max,
            stop_rule: config.stop_rule,
            uncertainty_max: config.uncertainty_max.map(unit).transpose()?,
            importance: config.importance_lambda.map(AdaptiveThreshold::new).transpose()?,
            uncertainty_form: config.uncertainty_form,
        })
    }

    /// Whether the tokens held are sent; asked after each drafted token. Nothing held is never sent.
    pub fn decide(&self, held: &Held, stop: &StopRule) -> Decision {
        let Some(last) = held.last else { return Decision::Hold };
        if last.ends {
            Decision::Flush(Reason::End)
        } else if held.count >= usize::from(self.draft_tokens_max) {
            Decision::Flush(Reason::FrameFull)
        } else if self.uncertainty_max.is_some_and(|max| last.uncertainty > max) {
            Decision::Flush(Reason::Uncertainty)
        } else if self
            .importance
            .is_some_and(|threshold| threshold.exceeded(&held.importances, last.importance))
        {
            Decision::Flush(Reason::Importance)
        } else if self.stop_rule && !stop.draft_on(held.survival_next) {
            Decision::Flush(Reason::StopRule)
        } else {
            Decision::Hold
        }
    }

    /// The most tokens held before a frame is sent.
    pub fn draft_tokens_max(&self) -> u8 {
        self.draft_tokens_max
    }

    /// How uncertainty is computed.
    pub fn uncertainty_form(&self) -> Form {
        self.uncertainty_form
    }
}

impl Default for PolicyConfig {
    /// The stop rule alone, up to a full frame, on the quadrature's uncertainty.
    fn default() -> Self {
        Self {
            draft_tokens_max: DRAFT_TOKENS_MAX,
            stop_rule: true,
            uncertainty_max: None,
            importance_lambda: None,
            uncertainty_form: Form::Quadrature,
        }
    }
}

impl Held {
    /// Nothing held.
    pub fn new() -> Self {
        Self { count: 0, survival: 1.0, survival_next: 1.0, importances: Weights::default(), last: None }
    }

    /// Holds one more token, whose chance is read from its score and the chance of the one behind it from the
    /// mean.
    pub fn push(&mut self, scored: Scored, calibration: &Calibration) {
        self.count = self.count.saturating_add(1);
        self.survival *= 1.0 - calibration.expected_rejection(to_score4(scored.uncertainty));
        self.survival_next = self.survival * (1.0 - calibration.mean_rejection());
        self.importances.push(scored.importance);
        self.last = Some(scored);
    }

    /// The number of tokens held.
    pub fn count(&self) -> usize {
        self.count
    }

    /// `S_i`: the expected probability that all held tokens are accepted; 1 for none.
    pub fn survival(&self) -> f64 {
        self.survival
    }

    /// `S_{i+1}`: the expected probability that all held tokens and one more are accepted.
    pub fn survival_next(&self) -> f64 {
        self.survival_next
    }

    /// The token held last.
    pub fn last(&self) -> Option<&Scored> {
        self.last.as_ref()
    }
}

impl Default for Held {
    fn default() -> Self {
        Self::new()
    }
}

impl Policy {
    /// Every policy.
    pub const ALL: [Self; 1] = [Self::Lossless];

    /// The name of the policy in configurations and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lossless => "lossless",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Policy {
    type Err = UnknownPolicy;

    fn from_str(name: &str) -> Result<Self, UnknownPolicy> {
        Self::ALL.into_iter().find(|policy| policy.name() == name).ok_or(UnknownPolicy)
    }
}

impl fmt::Display for UnknownPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown policy; known are")?;
        Policy::ALL.iter().enumerate().try_for_each(|(i, policy)| {
            let separator = if i == 0 { " " } else { ", " };
            write!(f, "{separator}{policy}")
        })
    }
}

impl core::error::Error for UnknownPolicy {}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;
    use crate::stop::StopConfig;
    use crate::time::Duration;

    fn scored(uncertainty: f32, importance: f32) -> Scored {
        let unit = |x| Unit::new(x).unwrap();
        Scored { token: 1, uncertainty: unit(uncertainty), importance: unit(importance), ends: false }
    }

    fn held(tokens: &[Scored]) -> Held {
        let mut held = Held::new();
        tokens.iter().for_each(|&token| held.push(token, &Calibration::new()));
        held
    }

    fn decide(config: PolicyConfig, tokens: &[Scored]) -> Decision {
        Trigger::new(&config).unwrap().decide(&held(tokens), &StopRule::new(&StopConfig::default()))
    }

    const NEVER: PolicyConfig = PolicyConfig {
        draft_tokens_max: DRAFT_TOKENS_MAX,
        stop_rule: false,
        uncertainty_max: None,
        importance_lambda: None,
        uncertainty_form: Form::Quadrature,
    };

    #[test]
    fn names_parse_back_and_an_unknown_one_lists_them() {
        for policy in Policy::ALL {
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
        assert_eq!("loss-less".parse::<Policy>(), Err(UnknownPolicy));
        assert_eq!(UnknownPolicy.to_string(), "unknown policy; known are lossless");
    }

    #[test]
    fn settings_out_of_range_are_named() {
        for draft_tokens_max in [0, DRAFT_TOKENS_MAX + 1] {
            let config = PolicyConfig { draft_tokens_max, ..NEVER };
            assert_eq!(Trigger::new(&config), Err(PolicyError::DraftTokensMax(draft_tokens_max)));
        }
        for bad in [-0.1, 1.1] {
            let config = PolicyConfig { uncertainty_max: Some(bad), ..NEVER };
            assert_eq!(Trigger::new(&config), Err(PolicyError::UncertaintyMax(bad)));
        }
        let config = PolicyConfig { uncertainty_max: Some(f32::NAN), ..NEVER };
        assert!(Trigger::new(&config).is_err());
        let config = PolicyConfig { importance_lambda: Some(9.0), ..NEVER };
        assert_eq!(Trigger::new(&config), Err(PolicyError::ImportanceLambda(LambdaError(9.0))));
    }

    #[test]
    fn each_part_flushes_by_itself() {
        let sure = scored(0.0, 0.2);
        assert_eq!(decide(NEVER, &[sure; 15]), Decision::Hold);
        assert_eq!(decide(NEVER, &[sure; 16]), Decision::Flush(Reason::FrameFull));
        assert_eq!(decide(NEVER, &[Scored { ends: true, ..sure }]), Decision::Flush(Reason::End));
        let config = PolicyConfig { uncertainty_max: Some(0.4), ..NEVER };
        assert_eq!(decide(config, &[sure, scored(0.4, 0.2)]), Decision::Hold);
        assert_eq!(decide(config, &[sure, scored(0.41, 0.2)]), Decision::Flush(Reason::Uncertainty));
        assert_eq!(decide(config, &[scored(0.9, 0.2), sure]), Decision::Hold, "only the last token counts");
        let config = PolicyConfig { importance_lambda: Some(1.0), ..NEVER };
        assert_eq!(decide(config, &[sure, sure, sure]), Decision::Hold);
        assert_eq!(decide(config, &[sure, sure, scored(0.0, 0.3)]), Decision::Flush(Reason::Importance));
        let config = PolicyConfig { stop_rule: true, ..NEVER };
        assert_eq!(decide(config, &[scored(0.3, 0.2)]), Decision::Hold);
        assert_eq!(decide(config, &[scored(0.99, 0.2)]), Decision::Flush(Reason::StopRule));
    }

    #[test]
    fn nothing_held_is_never_sent() {
        let mut stop = StopRule::new(&StopConfig::default());
        stop.observe_round(1000, Duration(1));
        let trigger = Trigger::new(&PolicyConfig::default()).unwrap();
        assert_eq!(trigger.decide(&Held::new(), &stop), Decision::Hold);
        assert_eq!(trigger.decide(&held(&[scored(0.0, 0.0)]), &stop), Decision::Flush(Reason::StopRule));
    }

    #[test]
    fn survival_is_the_product_of_what_is_expected() {
        let held = held(&[scored(0.53, 0.0), scored(0.53, 0.0)]);
        let miss = 0.815 * (8.5 / 16.0) - 0.066;
        assert!((held.survival() - (1.0 - miss) * (1.0 - miss)).abs() < 1e-12);
        assert!((held.survival_next() - held.survival() * (1.0 - 0.3415)).abs() < 1e-12);
        assert_eq!((held.count(), held.last().map(|s| s.token)), (2, Some(1)));
    }
}
