//! What is sent and when: a policy is a trigger, a rule for held tokens, a payload and a coupling.
//!
//! Invariant: a policy decides from scores and running averages alone; it never sees a frame, a link or a model.
//! A [`Policy`] is a name for a combination of parts, and no part asks for the name.

mod names;

pub(crate) use names::named;
pub use names::{Combine, Coupling, HeldTokens, PayloadForm, Policy, UnknownName};

use crate::TokenId;
use crate::calibration::Calibration;
use crate::importance::{AdaptiveThreshold, LambdaError, Weights};
use crate::stop::StopRule;
use crate::uncertainty::{Form, Unit, to_score4};
use dunlin_wire::limits::ROW_ENTRIES_MAX;

/// The most tokens one draft can hold: as many as one frame.
pub const DRAFT_TOKENS_MAX: u8 = dunlin_wire::limits::DRAFT_TOKENS_MAX as u8;

/// What is sent of a judged token's distribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The form.
    pub form: PayloadForm,
    /// Tokens of a row at most, in the forms that cut it: 1..=[`ROW_ENTRIES_MAX`].
    pub entries: u8,
    /// The sum of a lattice's weights, at least 1.
    pub resolution: u8,
}

/// All parts of a policy; each works by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PolicyConfig {
    /// The most tokens held before a frame is sent, up to [`DRAFT_TOKENS_MAX`]; 0 drafts nothing.
    pub draft_tokens_max: u8,
    /// Send once one more token would not pay.
    pub stop_rule: bool,
    /// Send at a token more uncertain than this, in 0..=1.
    pub uncertainty_max: Option<f32>,
    /// Send at a token whose importance exceeds μ + λσ of the last ones; this is λ.
    pub importance_lambda: Option<f32>,
    /// How the two thresholds work together.
    pub combine: Combine,
    /// Send at a token with this probability, in 0..=1.
    pub random_rate: Option<f32>,
    /// How uncertainty is computed.
    pub uncertainty_form: Form,
    /// What happens to tokens that are not flushed.
    pub held: HeldTokens,
    /// The share of audited tokens that may differ from the target's choice, in 0..=1.
    pub epsilon: f32,
    /// What is sent of a judged token's distribution.
    pub payload: Payload,
    /// How it is judged.
    pub coupling: Coupling,
}

/// A [`PolicyConfig`] whose settings are out of range or contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum PolicyError {
    /// More tokens than a frame takes.
    #[error("draft_tokens_max {0} is not within 0 and {DRAFT_TOKENS_MAX}")]
    DraftTokensMax(u8),
    /// The uncertainty threshold lies outside 0..=1.
    #[error("uncertainty_max {0} is not within 0 and 1")]
    UncertaintyMax(f32),
    /// The importance threshold has no sensible λ.
    #[error(transparent)]
    ImportanceLambda(#[from] LambdaError),
    /// Both thresholds are to be passed, but only one is set.
    #[error("combine = \"both\" needs uncertainty_max and importance_lambda")]
    Combine,
    /// The rate of the coin lies outside 0..=1.
    #[error("random_rate {0} is not within 0 and 1")]
    RandomRate(f32),
    /// The wanted share of misses lies outside 0..=1.
    #[error("epsilon {0} is not within 0 and 1")]
    Epsilon(f32),
    /// The payload has no room in a frame, or no content.
    #[error("payload {0} with {1} entries: a frame takes 1 to {ROW_ENTRIES_MAX}")]
    Entries(PayloadForm, u8),
    /// Weights can't sum to nothing.
    #[error("resolution 0: the weights of a lattice sum to 1 to 255")]
    Resolution,
    /// Audited tokens are compared with what the target draws with the same noise.
    #[error("held = \"audited\" needs coupling = \"shared-seed\"")]
    Audited,
    /// Rejection sampling has nothing to judge by, or the shared seed has no use for a distribution.
    #[error("payload {0} does not go with the coupling {1}: {2}")]
    Incompatible(PayloadForm, Coupling, &'static str),
}

/// A [`PolicyConfig`] that was found valid.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    draft_tokens_max: u8,
    stop_rule: bool,
    uncertainty_max: Option<Unit>,
    importance: Option<AdaptiveThreshold>,
    combine: Combine,
    random_rate: Option<Unit>,
    uncertainty_form: Form,
    held: HeldTokens,
    epsilon: Unit,
    payload: Payload,
    coupling: Coupling,
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
    /// The importances up to this token, its own among them.
    pub recent: Weights,
    /// A coin for the random trigger.
    pub coin: Unit,
    /// Whether it ends the text, so that nothing can be drafted behind it.
    pub ends: bool,
    /// Whether it stays whatever the verdict.
    pub stays: bool,
}

/// What a policy needs to know of the tokens that are held.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Held {
    count: usize,
    survival: f64,
    survival_next: f64,
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
    /// The coin said so.
    Coin,
    /// One more token would not pay.
    StopRule,
}

impl Rules {
    /// The rules of a configuration.
    ///
    /// # Errors
    /// Names the setting that is out of range, or the two that contradict each other.
    pub fn new(config: &PolicyConfig) -> Result<Self, PolicyError> {
        if config.draft_tokens_max > DRAFT_TOKENS_MAX {
            return Err(PolicyError::DraftTokensMax(config.draft_tokens_max));
        }
        let unit = |x, wrong: fn(f32) -> PolicyError| Unit::new(x).ok_or(wrong(x));
        let uncertainty_max =
            config.uncertainty_max.map(|x| unit(x, PolicyError::UncertaintyMax)).transpose()?;
        let importance = config.importance_lambda.map(AdaptiveThreshold::new).transpose()?;
        if config.combine == Combine::Both && (uncertainty_max.is_none() || importance.is_none()) {
            return Err(PolicyError::Combine);
        }
        config.payload.check(config.coupling)?;
        if config.held == HeldTokens::Audited && config.coupling != Coupling::SharedSeed {
            return Err(PolicyError::Audited);
        }
        Ok(Self {
            draft_tokens_max: config.draft_tokens_max,
            stop_rule: config.stop_rule,
            uncertainty_max,
            importance,
            combine: config.combine,
            random_rate: config.random_rate.map(|x| unit(x, PolicyError::RandomRate)).transpose()?,
            uncertainty_form: config.uncertainty_form,
            held: config.held,
            epsilon: unit(config.epsilon, PolicyError::Epsilon)?,
            payload: config.payload,
            coupling: config.coupling,
        })
    }

    /// Whether the tokens held are sent; asked after each drafted token. Nothing held is never sent.
    pub fn decide(&self, held: &Held, stop: &StopRule) -> Decision {
        let Some(last) = held.last else { return Decision::Hold };
        // A trusted end of the text is as good as any trusted token.
        if last.ends && self.held != HeldTokens::Trusted {
            Decision::Flush(Reason::End)
        } else if held.count >= usize::from(self.draft_tokens_max) {
            Decision::Flush(Reason::FrameFull)
        } else if let Some(reason) = self.threshold_passed(&last) {
            Decision::Flush(reason)
        } else if self.random_rate.is_some_and(|rate| last.coin < rate) {
            Decision::Flush(Reason::Coin)
        } else if self.stop_rule && !stop.draft_on(held.survival_next) {
            Decision::Flush(Reason::StopRule)
        } else {
            Decision::Hold
        }
    }

    fn threshold_passed(&self, last: &Scored) -> Option<Reason> {
        let uncertain = self.uncertainty_max.is_some_and(|max| last.uncertainty > max);
        let important =
            self.importance.is_some_and(|threshold| threshold.exceeded(&last.recent, last.importance));
        match (uncertain, important, self.combine) {
            (true, true, Combine::Both) => Some(Reason::Importance),
            (_, _, Combine::Both) | (false, false, _) => None,
            (true, _, Combine::Any) => Some(Reason::Uncertainty),
            (false, true, Combine::Any) => Some(Reason::Importance),
        }
    }

    /// The most tokens held before a frame is sent; 0 drafts nothing.
    pub fn draft_tokens_max(&self) -> u8 {
        self.draft_tokens_max
    }

    /// How uncertainty is computed.
    pub fn uncertainty_form(&self) -> Form {
        self.uncertainty_form
    }

    /// The probability with which any token is sent.
    pub fn random_rate(&self) -> Option<Unit> {
        self.random_rate
    }

    /// What happens to tokens that are not flushed.
    pub fn held(&self) -> HeldTokens {
        self.held
    }

    /// The share of audited tokens that may differ from the target's choice.
    pub fn epsilon(&self) -> Unit {
        self.epsilon
    }

    /// What is sent of a judged token's distribution.
    pub fn payload(&self) -> Payload {
        self.payload
    }

    /// How it is judged.
    pub fn coupling(&self) -> Coupling {
        self.coupling
    }

    /// Whether nothing ever makes the device ask: no verifier is needed.
    pub fn is_local(&self) -> bool {
        let asks = self.stop_rule
            || self.uncertainty_max.is_some()
            || self.importance.is_some()
            || self.random_rate.is_some()
            || self.draft_tokens_max <= 1;
        self.held == HeldTokens::Trusted && !asks
    }

    /// Whether the text is the target's own, or distributed as it: no token stays that the target did not judge,
    /// and it is judged against what it was drawn from.
    pub fn is_exact(&self) -> bool {
        let judged = match self.held {
            HeldTokens::Verified => true,
            HeldTokens::Audited => self.epsilon == Unit::ZERO,
            HeldTokens::Trusted => self.draft_tokens_max == 1,
        };
        judged && (self.payload.form == PayloadForm::Ids || self.payload.form.is_drawn_from())
    }
}

impl PayloadForm {
    /// Whether what is sent is what the token is drawn from.
    pub fn is_drawn_from(self) -> bool {
        matches!(self, Self::Full | Self::TopKSampled | Self::Lattice)
    }
}

impl Payload {
    /// The id and two scores alone.
    pub const IDS: Self = Self::of(PayloadForm::Ids);

    /// A form with 30 entries and weights that sum to 100, as in 2505.11788 and 2507.00605.
    pub const fn of(form: PayloadForm) -> Self {
        Self { form, entries: 30, resolution: 100 }
    }

    fn check(self, coupling: Coupling) -> Result<(), PolicyError> {
        let wrong = |why| Err(PolicyError::Incompatible(self.form, coupling, why));
        let (row, form) = (
            matches!(self.form, PayloadForm::TopK | PayloadForm::TopKSampled | PayloadForm::Lattice),
            self.form,
        );
        match coupling {
            Coupling::Rejection if form == PayloadForm::Ids => return wrong("it judges by the distribution"),
            Coupling::SharedSeed if form != PayloadForm::Ids => {
                return wrong("it has no use for a distribution");
            }
            _ => {}
        }
        if row && !(1..=ROW_ENTRIES_MAX).contains(&usize::from(self.entries)) {
            return Err(PolicyError::Entries(form, self.entries));
        }
        if form == PayloadForm::Lattice && self.resolution == 0 {
            Err(PolicyError::Resolution)
        } else {
            Ok(())
        }
    }
}

impl Default for PolicyConfig {
    /// The lossless policy.
    fn default() -> Self {
        LOSSLESS
    }
}

/// The stop rule alone, up to a full frame, on the quadrature's uncertainty.
const LOSSLESS: PolicyConfig = PolicyConfig {
    draft_tokens_max: DRAFT_TOKENS_MAX,
    stop_rule: true,
    uncertainty_max: None,
    importance_lambda: None,
    combine: Combine::Any,
    random_rate: None,
    uncertainty_form: Form::Quadrature,
    held: HeldTokens::Verified,
    epsilon: 0.0,
    payload: Payload::IDS,
    coupling: Coupling::SharedSeed,
};

/// No trigger, trusted tokens: what the policies of the literature have in common.
const TRUSTING: PolicyConfig = PolicyConfig {
    stop_rule: false,
    held: HeldTokens::Trusted,
    payload: Payload::of(PayloadForm::TopKSampled),
    coupling: Coupling::Rejection,
    ..LOSSLESS
};

/// Uncertainty above which a token is sent; thresholds don't transfer between pairs, so this is a start (*ours*).
const UNCERTAINTY_MAX: f32 = 0.3;

impl Policy {
    /// The parts behind the name, with the settings it starts from.
    pub fn config(self) -> PolicyConfig {
        let payload = Payload::of;
        let uncertain = PolicyConfig { uncertainty_max: Some(UNCERTAINTY_MAX), ..TRUSTING };
        let important = PolicyConfig { importance_lambda: Some(0.0), ..uncertain };
        match self {
            Self::Hlm => {
                PolicyConfig { draft_tokens_max: 1, payload: payload(PayloadForm::Full), ..TRUSTING }
            }
            Self::UHlm => PolicyConfig { payload: payload(PayloadForm::Full), ..uncertain },
            Self::CuHlm => PolicyConfig { payload: payload(PayloadForm::TopK), ..uncertain },
            Self::Importance => PolicyConfig { combine: Combine::Both, ..important },
            Self::ImportanceOr => important,
            Self::Random => PolicyConfig { random_rate: Some(0.5), ..TRUSTING },
            Self::Lossless => LOSSLESS,
            Self::LosslessSparse => PolicyConfig {
                payload: payload(PayloadForm::Lattice),
                coupling: Coupling::Rejection,
                ..LOSSLESS
            },
            Self::Risk => PolicyConfig { held: HeldTokens::Audited, epsilon: 0.01, ..LOSSLESS },
            Self::Local => PolicyConfig { payload: Payload::IDS, coupling: Coupling::SharedSeed, ..TRUSTING },
            Self::Remote => PolicyConfig { draft_tokens_max: 0, stop_rule: false, ..LOSSLESS },
        }
    }
}

impl Held {
    /// Nothing held.
    pub fn new() -> Self {
        Self { count: 0, survival: 1.0, survival_next: 1.0, last: None }
    }

    /// Holds one more token, whose chance is read from its score and the chance of the one behind it from the
    /// mean.
    pub fn push(&mut self, scored: Scored, calibration: &Calibration) {
        self.count = self.count.saturating_add(1);
        if !scored.stays {
            self.survival *= 1.0 - calibration.expected_rejection(to_score4(scored.uncertainty));
        }
        self.survival_next = self.survival * (1.0 - calibration.mean_rejection());
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

#[cfg(test)]
mod tests {
    use std::string::ToString;
    use std::vec::Vec;

    use super::*;
    use crate::stop::StopConfig;
    use crate::time::Duration;

    fn scored(uncertainty: f32, importance: f32) -> Scored {
        let unit = |x| Unit::new(x).unwrap();
        Scored {
            token: 1,
            uncertainty: unit(uncertainty),
            importance: unit(importance),
            recent: Weights::default(),
            coin: Unit::ONE,
            ends: false,
            stays: false,
        }
    }

    fn held(tokens: &[Scored]) -> Held {
        let (mut held, mut recent) = (Held::new(), Weights::default());
        for token in tokens {
            recent.push(token.importance);
            held.push(Scored { recent, ..*token }, &Calibration::new());
        }
        held
    }

    fn decide(config: PolicyConfig, tokens: &[Scored]) -> Decision {
        Rules::new(&config).unwrap().decide(&held(tokens), &StopRule::new(&StopConfig::default()))
    }

    const NEVER: PolicyConfig = PolicyConfig { stop_rule: false, ..LOSSLESS };

    #[test]
    fn names_parse_back_and_an_unknown_one_lists_them() {
        for policy in Policy::ALL {
            assert_eq!(policy.to_string().parse(), Ok(*policy));
            assert!(Rules::new(&policy.config()).is_ok(), "{policy}");
        }
        let unknown = "loss-less".parse::<Policy>().unwrap_err().to_string();
        assert!(
            unknown.starts_with("unknown policy; known are hlm, u-hlm, cu-hlm, importance,"),
            "{unknown}"
        );
    }

    #[test]
    fn exactness_follows_from_the_parts() {
        let exact = |policy: &&Policy| Rules::new(&policy.config()).unwrap().is_exact();
        let exact: Vec<&str> = Policy::ALL.iter().filter(exact).map(|policy| policy.name()).collect();
        assert_eq!(exact, ["hlm", "lossless", "lossless-sparse", "remote"]);
        let risk = PolicyConfig { epsilon: 0.0, ..Policy::Risk.config() };
        assert!(Rules::new(&risk).unwrap().is_exact());
        let every_top_k = PolicyConfig { draft_tokens_max: 1, ..Policy::CuHlm.config() };
        assert!(!Rules::new(&every_top_k).unwrap().is_exact(), "judged against what it was not drawn from");
        let local = |policy: &&Policy| Rules::new(&policy.config()).unwrap().is_local();
        assert_eq!(Policy::ALL.iter().filter(local).collect::<Vec<_>>(), [&Policy::Local]);
    }

    #[test]
    fn parts_that_contradict_each_other_are_named() {
        let wrong = |config: PolicyConfig| Rules::new(&config).unwrap_err().to_string();
        let ids = PolicyConfig { payload: Payload::IDS, ..TRUSTING };
        assert!(wrong(ids).contains("payload ids does not go with the coupling rejection"));
        let seed = PolicyConfig { coupling: Coupling::SharedSeed, ..TRUSTING };
        assert!(wrong(seed).contains("payload top-k-sampled does not go with the coupling shared-seed"));
        for entries in [0, 65] {
            let payload = Payload { entries, ..TRUSTING.payload };
            assert_eq!(
                Rules::new(&PolicyConfig { payload, ..TRUSTING }),
                Err(PolicyError::Entries(PayloadForm::TopKSampled, entries))
            );
        }
        let payload = Payload { resolution: 0, ..Payload::of(PayloadForm::Lattice) };
        assert_eq!(Rules::new(&PolicyConfig { payload, ..TRUSTING }), Err(PolicyError::Resolution));
        let both = PolicyConfig { combine: Combine::Both, ..Policy::UHlm.config() };
        assert_eq!(Rules::new(&both), Err(PolicyError::Combine));
        let audited = PolicyConfig { held: HeldTokens::Audited, ..TRUSTING };
        assert_eq!(Rules::new(&audited), Err(PolicyError::Audited));
        let rate = PolicyConfig { random_rate: Some(1.1), ..TRUSTING };
        assert_eq!(Rules::new(&rate), Err(PolicyError::RandomRate(1.1)));
        let epsilon = PolicyConfig { epsilon: -0.1, ..LOSSLESS };
        assert_eq!(Rules::new(&epsilon), Err(PolicyError::Epsilon(-0.1)));
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let config = PolicyConfig { draft_tokens_max: DRAFT_TOKENS_MAX + 1, ..NEVER };
        assert_eq!(Rules::new(&config), Err(PolicyError::DraftTokensMax(DRAFT_TOKENS_MAX + 1)));
        for bad in [-0.1, 1.1] {
            let config = PolicyConfig { uncertainty_max: Some(bad), ..NEVER };
            assert_eq!(Rules::new(&config), Err(PolicyError::UncertaintyMax(bad)));
        }
        let config = PolicyConfig { uncertainty_max: Some(f32::NAN), ..NEVER };
        assert!(Rules::new(&config).is_err());
        let config = PolicyConfig { importance_lambda: Some(9.0), ..NEVER };
        assert_eq!(Rules::new(&config), Err(PolicyError::ImportanceLambda(LambdaError(9.0))));
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
        let config = PolicyConfig {
            uncertainty_max: Some(0.4),
            importance_lambda: Some(1.0),
            combine: Combine::Both,
            ..NEVER
        };
        assert_eq!(decide(config, &[sure, sure, scored(0.0, 0.3)]), Decision::Hold);
        assert_eq!(decide(config, &[sure, sure, scored(0.9, 0.2)]), Decision::Hold);
        assert_eq!(decide(config, &[sure, sure, scored(0.9, 0.3)]), Decision::Flush(Reason::Importance));
        let config = PolicyConfig { random_rate: Some(0.25), ..NEVER };
        let coin = |x| Scored { coin: Unit::new(x).unwrap(), ..sure };
        assert_eq!(decide(config, &[coin(0.25)]), Decision::Hold);
        assert_eq!(decide(config, &[coin(0.24)]), Decision::Flush(Reason::Coin));
        let config = PolicyConfig { stop_rule: true, ..NEVER };
        assert_eq!(decide(config, &[scored(0.3, 0.2)]), Decision::Hold);
        assert_eq!(decide(config, &[scored(0.99, 0.2)]), Decision::Flush(Reason::StopRule));
    }

    #[test]
    fn a_trusted_end_is_not_sent() {
        let end = Scored { ends: true, ..scored(0.0, 0.0) };
        assert_eq!(decide(Policy::UHlm.config(), &[end]), Decision::Hold);
        assert_eq!(decide(Policy::Hlm.config(), &[end]), Decision::Flush(Reason::FrameFull));
        assert_eq!(decide(Policy::Local.config(), &[end]), Decision::Hold);
    }

    #[test]
    fn nothing_held_is_never_sent() {
        let mut stop = StopRule::new(&StopConfig::default());
        stop.observe_round(1000, Duration(0), Duration(1));
        let rules = Rules::new(&PolicyConfig::default()).unwrap();
        assert_eq!(rules.decide(&Held::new(), &stop), Decision::Hold);
        assert_eq!(rules.decide(&held(&[scored(0.0, 0.0)]), &stop), Decision::Flush(Reason::StopRule));
    }

    #[test]
    fn survival_is_the_product_of_what_is_expected() {
        let held = held(&[scored(0.53, 0.0), scored(0.53, 0.0)]);
        let miss = 0.815 * (8.5 / 16.0) - 0.066;
        assert!((held.survival() - (1.0 - miss) * (1.0 - miss)).abs() < 1e-12);
        assert!((held.survival_next() - held.survival() * (1.0 - 0.3415)).abs() < 1e-12);
        let mut certain = held;
        certain.push(Scored { stays: true, ..scored(0.9, 0.0) }, &Calibration::new());
        assert_eq!(certain.survival(), held.survival(), "what stays can't end the draft");
        assert_eq!((held.count(), held.last().map(|s| s.token)), (2, Some(1)));
    }
}
