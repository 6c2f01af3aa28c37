//! Policies: a trigger, a rule for held tokens, a payload and a coupling decide what is sent and when.
//!
//! Invariant: a policy decides only from scores and running averages; it never sees a frame, a link or a model.
//! A [`Policy`] is a name for a combination of parts, and no code branches on the name.

mod names;
mod presets;
mod table;

pub use crate::named::UnknownName;
pub use names::{Combine, Coupling, HeldTokens, ImportanceForm, PayloadForm, Policy, Threshold};
pub use table::PolicyTable;

use crate::TokenId;
use crate::calibration::Calibration;
use crate::importance::{AdaptiveThreshold, LambdaError, RecentImportances};
use crate::stop::StopRule;
use crate::uncertainty::{Form, Unit, to_score4};
use dunlin_wire::limits::ROW_ENTRIES_MAX;

/// Most tokens of one draft: those of one frame.
pub const DRAFT_TOKENS_MAX: u8 = dunlin_wire::limits::DRAFT_TOKENS_MAX as u8;

/// The part of a judged token's distribution that is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The form.
    pub form: PayloadForm,
    /// Most tokens of a row, in the forms that truncate it: 1..=[`ROW_ENTRIES_MAX`].
    pub entries: u8,
    /// The sum of a lattice's weights, at least 1.
    pub resolution: u8,
}

/// A [`PolicyTable`] whose settings are out of range or contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum PolicyError {
    /// More tokens than a frame takes.
    #[error("draft_tokens_max {0} is not within 0 and {DRAFT_TOKENS_MAX}")]
    DraftTokensMax(u8),
    /// The uncertainty threshold lies outside 0..=1.
    #[error("uncertainty_max {0} is not within 0 and 1")]
    UncertaintyMax(f32),
    /// The λ of the importance threshold is out of range or NaN.
    #[error(transparent)]
    ImportanceLambda(#[from] LambdaError),
    /// `combine = "both"` needs both thresholds, but not both are set.
    #[error("combine = \"both\" needs uncertainty_max and importance_lambda")]
    Combine,
    /// The probability of the random trigger lies outside 0..=1.
    #[error("random_rate {0} is not within 0 and 1")]
    RandomRate(f32),
    /// The target share of misses lies outside 0..=1.
    #[error("epsilon {0} is not within 0 and 1")]
    Epsilon(f32),
    /// The value of a second can't be weighed against joules.
    #[error("second_joules {0} is not within 0 and {SECOND_JOULES_MAX}")]
    SecondJoules(f32),
    /// The payload has more entries than a frame takes, or none.
    #[error("payload {0} with {1} entries: a frame takes 1 to {ROW_ENTRIES_MAX}")]
    Entries(PayloadForm, u8),
    /// The weights of a lattice can't sum to 0.
    #[error("resolution 0: the weights of a lattice sum to 1 to 255")]
    Resolution,
    /// Auditing compares a token with the target's draw from the same noise, so it needs the shared seed.
    #[error("held = \"audited\" needs coupling = \"shared-seed\"")]
    Audited,
    /// The verifier can't continue such a text.
    #[error("credit_tokens_max needs {0}: the verifier continues only a text that is the target's own")]
    Credit(&'static str),
    /// There is nothing to choose between.
    #[error(
        "auto needs draft_tokens_max and credit_tokens_max above 0: it chooses between drafting and streaming"
    )]
    Auto,
    /// Rejection sampling needs a distribution to judge by, and the shared seed has no use for one.
    #[error("payload {0} does not go with the coupling {1}: {2}")]
    Incompatible(PayloadForm, Coupling, &'static str),
}

/// Largest worth of a second, J. With it, joules count for nothing.
pub const SECOND_JOULES_MAX: f32 = 1e6;

/// All parts of a policy, checked to be in range and consistent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    draft_tokens_max: u8,
    stop_rule: bool,
    uncertainty_max: Option<Unit>,
    importance: Option<AdaptiveThreshold>,
    combine: Combine,
    random_rate: Option<Unit>,
    uncertainty_form: Form,
    importance_form: ImportanceForm,
    held: HeldTokens,
    epsilon: Unit,
    payload: Payload,
    coupling: Coupling,
    credit_tokens_max: u16,
    auto: bool,
    second_joules: f32,
}

/// A drafted token with its scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// The token.
    pub token: TokenId,
    /// The drafter's uncertainty of it.
    pub uncertainty: Unit,
    /// Its importance.
    pub importance: Unit,
    /// Running statistics of importance up to this token, its own included.
    pub recent: RecentImportances,
    /// A uniform random number for the random trigger.
    pub coin: Unit,
    /// True when it ends the text, so that nothing can be drafted behind it.
    pub ends: bool,
    /// True when it stays whatever the verdict.
    pub stays: bool,
}

/// A summary of the held tokens, as far as policies need it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeldDrafts {
    count: usize,
    survival: f64,
    survival_next: f64,
    last: Option<Scored>,
}

/// The decision after a token was drafted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Keep the tokens and draft one more.
    Hold,
    /// Send the held tokens now.
    Flush(Reason),
}

/// The reason why the held tokens are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The last token ends the text.
    End,
    /// The draft has as many tokens as it may.
    FrameFull,
    /// The last token is too uncertain.
    Uncertainty,
    /// The last token is too important.
    Importance,
    /// The random trigger fired.
    Coin,
    /// One more token would not pay.
    StopRule,
}

impl Rules {
    /// The rules of a table: its preset, overridden by its own settings.
    ///
    /// # Errors
    /// Names the setting that is out of range, or the two that contradict each other.
    pub fn new(table: &PolicyTable) -> Result<Self, PolicyError> {
        let preset = table.policy().rules();
        let unit = |x, wrong: fn(f32) -> PolicyError| Unit::new(x).ok_or(wrong(x));
        let kept = |threshold| !table.without.contains(&threshold);
        let uncertainty_max = table.uncertainty_max.map(|x| unit(x, PolicyError::UncertaintyMax));
        let importance = table.importance_lambda.map(AdaptiveThreshold::new);
        let random_rate = table.random_rate.map(|x| unit(x, PolicyError::RandomRate));
        let epsilon = table.epsilon.map(|x| unit(x, PolicyError::Epsilon));
        let rules = Self {
            draft_tokens_max: table.draft_tokens_max.unwrap_or(preset.draft_tokens_max),
            stop_rule: table.stop_rule.unwrap_or(preset.stop_rule),
            uncertainty_max: uncertainty_max
                .transpose()?
                .or(preset.uncertainty_max.filter(|_| kept(Threshold::UncertaintyMax))),
            importance: importance
                .transpose()?
                .or(preset.importance.filter(|_| kept(Threshold::ImportanceLambda))),
            combine: table.combine.unwrap_or(preset.combine),
            random_rate: random_rate
                .transpose()?
                .or(preset.random_rate.filter(|_| kept(Threshold::RandomRate))),
            uncertainty_form: table.uncertainty_form.unwrap_or(preset.uncertainty_form),
            importance_form: table.importance_form.unwrap_or(preset.importance_form),
            held: table.held.unwrap_or(preset.held),
            epsilon: epsilon.unwrap_or(Ok(preset.epsilon))?,
            payload: Payload {
                form: table.payload.unwrap_or(preset.payload.form),
                entries: table.payload_entries.unwrap_or(preset.payload.entries),
                resolution: table.resolution.unwrap_or(preset.payload.resolution),
            },
            coupling: table.coupling.unwrap_or(preset.coupling),
            credit_tokens_max: table.credit_tokens_max.unwrap_or(preset.credit_tokens_max),
            auto: table.auto.unwrap_or(preset.auto),
            second_joules: table.second_joules.unwrap_or(preset.second_joules),
        };
        rules.check().map(|()| rules)
    }

    /// Checks limits of a frame and settings that contradict each other.
    fn check(&self) -> Result<(), PolicyError> {
        if self.draft_tokens_max > DRAFT_TOKENS_MAX {
            return Err(PolicyError::DraftTokensMax(self.draft_tokens_max));
        }
        if self.combine == Combine::Both && (self.uncertainty_max.is_none() || self.importance.is_none()) {
            return Err(PolicyError::Combine);
        }
        if self.held == HeldTokens::Audited && self.coupling != Coupling::SharedSeed {
            return Err(PolicyError::Audited);
        }
        // Who writes a token may change only where it is the same token: drawn with the shared seed, and verified.
        if self.credit_tokens_max > 0 && self.coupling != Coupling::SharedSeed {
            return Err(PolicyError::Credit("coupling = \"shared-seed\""));
        }
        if self.credit_tokens_max > 0 && self.held != HeldTokens::Verified {
            return Err(PolicyError::Credit("held = \"verified\""));
        }
        if self.auto && (self.credit_tokens_max == 0 || self.draft_tokens_max == 0) {
            return Err(PolicyError::Auto);
        }
        if !(0.0..=SECOND_JOULES_MAX).contains(&self.second_joules) {
            return Err(PolicyError::SecondJoules(self.second_joules));
        }
        self.payload.check(self.coupling)
    }

    /// Decides after each drafted token whether the held tokens are sent. Without held tokens nothing is sent.
    pub fn decide(&self, held: &HeldDrafts, stop: &StopRule) -> Decision {
        let Some(last) = held.last else { return Decision::Hold };
        // A trusting policy needs no verdict on the end of the text either.
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

    /// The uncertainty above which a token is sent.
    pub fn uncertainty_max(&self) -> Option<Unit> {
        self.uncertainty_max
    }

    /// The threshold on importance.
    pub fn importance(&self) -> Option<AdaptiveThreshold> {
        self.importance
    }

    /// The form of uncertainty.
    pub fn uncertainty_form(&self) -> Form {
        self.uncertainty_form
    }

    /// The form of importance that is sent.
    pub fn importance_form(&self) -> ImportanceForm {
        self.importance_form
    }

    /// The probability of the random trigger.
    pub fn random_rate(&self) -> Option<Unit> {
        self.random_rate
    }

    /// Treatment of tokens that are not flushed.
    pub fn held(&self) -> HeldTokens {
        self.held
    }

    /// The share of audited tokens that may differ from the target's choice.
    pub fn epsilon(&self) -> Unit {
        self.epsilon
    }

    /// The part of a judged token's distribution that is sent.
    pub fn payload(&self) -> Payload {
        self.payload
    }

    /// The rule for judging a token.
    pub fn coupling(&self) -> Coupling {
        self.coupling
    }

    /// True when the drafter is needed while a verifier answers.
    pub fn drafts(&self) -> bool {
        self.draft_tokens_max > 0
    }

    /// True when the device chooses by cost whether it drafts or lets the text flow.
    pub fn auto(&self) -> bool {
        self.auto
    }

    /// The worth of a second in joules, beside what the board draws in it.
    pub fn second_joules(&self) -> f32 {
        self.second_joules
    }

    /// Most tokens that the verifier may write beyond its verdict for one frame; 0 for none.
    pub fn credit_tokens_max(&self) -> u16 {
        self.credit_tokens_max
    }

    /// True when the device never sends a frame, so that no verifier is needed.
    pub fn is_local(&self) -> bool {
        let asks = self.stop_rule
            || self.uncertainty_max.is_some()
            || self.importance.is_some()
            || self.random_rate.is_some()
            || self.draft_tokens_max <= 1;
        self.held == HeldTokens::Trusted && !asks
    }

    /// True when the text is the target's own or has its distribution: the target judges every token, against the
    /// distribution that the token was drawn from.
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
    /// True when the token is drawn from the distribution that is sent.
    pub fn is_drawn_from(self) -> bool {
        matches!(self, Self::Full | Self::TopKSampled | Self::Lattice)
    }
}

impl Payload {
    /// Only the id and two scores.
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

impl HeldDrafts {
    /// No held tokens.
    pub fn new() -> Self {
        Self { count: 0, survival: 1.0, survival_next: 1.0, last: None }
    }

    /// Adds a token. Its chance of acceptance comes from its score; that of the next token, not drafted yet, from the
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

    /// The last held token.
    pub fn last(&self) -> Option<&Scored> {
        self.last.as_ref()
    }
}

impl Default for HeldDrafts {
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
            recent: RecentImportances::default(),
            coin: Unit::ONE,
            ends: false,
            stays: false,
        }
    }

    fn held(tokens: &[Scored]) -> HeldDrafts {
        let (mut held, mut recent) = (HeldDrafts::new(), RecentImportances::default());
        for token in tokens {
            recent.push(token.importance);
            held.push(Scored { recent, ..*token }, &Calibration::new());
        }
        held
    }

    fn decide(table: &PolicyTable, tokens: &[Scored]) -> Decision {
        Rules::new(table).unwrap().decide(&held(tokens), &StopRule::new(&StopConfig::default()))
    }

    fn never() -> PolicyTable {
        PolicyTable { stop_rule: Some(false), ..PolicyTable::default() }
    }

    /// A preset that trusts and sends rows.
    fn trusting() -> PolicyTable {
        PolicyTable { without: Threshold::ALL.to_vec(), ..Policy::ImportanceOr.table() }
    }

    #[test]
    fn names_parse_back_and_an_unknown_one_lists_them() {
        for policy in Policy::ALL {
            assert_eq!(policy.to_string().parse(), Ok(*policy));
            assert!(Rules::new(&policy.table()).is_ok(), "{policy}");
        }
        let unknown = "loss-less".parse::<Policy>().unwrap_err().to_string();
        assert!(
            unknown.starts_with("unknown policy; known are hlm, u-hlm, cu-hlm, importance,"),
            "{unknown}"
        );
    }

    #[test]
    fn exactness_follows_from_the_parts() {
        let exact = |policy: &&Policy| policy.rules().is_exact();
        let exact: Vec<&str> = Policy::ALL.iter().filter(exact).map(|policy| policy.name()).collect();
        assert_eq!(exact, ["hlm", "lossless", "lossless-sparse", "remote", "auto", "stream"]);
        let risk = PolicyTable { epsilon: Some(0.0), ..Policy::Risk.table() };
        assert!(Rules::new(&risk).unwrap().is_exact());
        let every_top_k = PolicyTable { draft_tokens_max: Some(1), ..Policy::CuHlm.table() };
        assert!(!Rules::new(&every_top_k).unwrap().is_exact(), "judged against what it was not drawn from");
        let local = |policy: &&Policy| policy.rules().is_local();
        assert_eq!(Policy::ALL.iter().filter(local).collect::<Vec<_>>(), [&Policy::Local]);
    }

    #[test]
    fn parts_that_contradict_each_other_are_named() {
        let wrong = |table: PolicyTable| Rules::new(&table).unwrap_err().to_string();
        let ids = PolicyTable { payload: Some(PayloadForm::Ids), ..trusting() };
        assert!(wrong(ids).contains("payload ids does not go with the coupling rejection"));
        let seed = PolicyTable { coupling: Some(Coupling::SharedSeed), ..trusting() };
        assert!(wrong(seed).contains("payload top-k-sampled does not go with the coupling shared-seed"));
        for entries in [0, 65] {
            assert_eq!(
                Rules::new(&PolicyTable { payload_entries: Some(entries), ..trusting() }),
                Err(PolicyError::Entries(PayloadForm::TopKSampled, entries))
            );
        }
        let nothing = PolicyTable { resolution: Some(0), ..Policy::LosslessSparse.table() };
        assert_eq!(Rules::new(&nothing), Err(PolicyError::Resolution));
        let both = PolicyTable { combine: Some(Combine::Both), ..Policy::UHlm.table() };
        assert_eq!(Rules::new(&both), Err(PolicyError::Combine));
        let audited = PolicyTable { held: Some(HeldTokens::Audited), ..trusting() };
        assert_eq!(Rules::new(&audited), Err(PolicyError::Audited));
        let rate = PolicyTable { random_rate: Some(1.1), ..trusting() };
        assert_eq!(Rules::new(&rate), Err(PolicyError::RandomRate(1.1)));
        let epsilon = PolicyTable { epsilon: Some(-0.1), ..PolicyTable::default() };
        assert_eq!(Rules::new(&epsilon), Err(PolicyError::Epsilon(-0.1)));
        for second in [-0.1, f32::INFINITY, 2.0 * SECOND_JOULES_MAX] {
            let table = PolicyTable { second_joules: Some(second), ..PolicyTable::default() };
            assert_eq!(Rules::new(&table), Err(PolicyError::SecondJoules(second)));
        }
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let table = PolicyTable { draft_tokens_max: Some(DRAFT_TOKENS_MAX + 1), ..never() };
        assert_eq!(Rules::new(&table), Err(PolicyError::DraftTokensMax(DRAFT_TOKENS_MAX + 1)));
        for bad in [-0.1, 1.1] {
            let table = PolicyTable { uncertainty_max: Some(bad), ..never() };
            assert_eq!(Rules::new(&table), Err(PolicyError::UncertaintyMax(bad)));
        }
        let table = PolicyTable { uncertainty_max: Some(f32::NAN), ..never() };
        assert!(Rules::new(&table).is_err());
        let table = PolicyTable { importance_lambda: Some(9.0), ..never() };
        assert_eq!(Rules::new(&table), Err(PolicyError::ImportanceLambda(LambdaError(9.0))));
    }

    #[test]
    fn each_part_flushes_by_itself() {
        let sure = scored(0.0, 0.2);
        assert_eq!(decide(&never(), &[sure; 15]), Decision::Hold);
        assert_eq!(decide(&never(), &[sure; 16]), Decision::Flush(Reason::FrameFull));
        assert_eq!(decide(&never(), &[Scored { ends: true, ..sure }]), Decision::Flush(Reason::End));
        let table = PolicyTable { uncertainty_max: Some(0.4), ..never() };
        assert_eq!(decide(&table, &[sure, scored(0.4, 0.2)]), Decision::Hold);
        assert_eq!(decide(&table, &[sure, scored(0.41, 0.2)]), Decision::Flush(Reason::Uncertainty));
        assert_eq!(decide(&table, &[scored(0.9, 0.2), sure]), Decision::Hold, "only the last token counts");
        let table = PolicyTable { importance_lambda: Some(1.0), ..never() };
        assert_eq!(decide(&table, &[sure, sure, sure]), Decision::Hold);
        assert_eq!(decide(&table, &[sure, sure, scored(0.0, 0.3)]), Decision::Flush(Reason::Importance));
        let table = PolicyTable {
            uncertainty_max: Some(0.4),
            importance_lambda: Some(1.0),
            combine: Some(Combine::Both),
            ..never()
        };
        assert_eq!(decide(&table, &[sure, sure, scored(0.0, 0.3)]), Decision::Hold);
        assert_eq!(decide(&table, &[sure, sure, scored(0.9, 0.2)]), Decision::Hold);
        assert_eq!(decide(&table, &[sure, sure, scored(0.9, 0.3)]), Decision::Flush(Reason::Importance));
        let table = PolicyTable { random_rate: Some(0.25), ..never() };
        let coin = |x| Scored { coin: Unit::new(x).unwrap(), ..sure };
        assert_eq!(decide(&table, &[coin(0.25)]), Decision::Hold);
        assert_eq!(decide(&table, &[coin(0.24)]), Decision::Flush(Reason::Coin));
        let table = PolicyTable { stop_rule: Some(true), ..never() };
        assert_eq!(decide(&table, &[scored(0.3, 0.2)]), Decision::Hold);
        assert_eq!(decide(&table, &[scored(0.99, 0.2)]), Decision::Flush(Reason::StopRule));
    }

    #[test]
    fn a_trusted_end_is_not_sent() {
        let end = Scored { ends: true, ..scored(0.0, 0.0) };
        assert_eq!(decide(&Policy::UHlm.table(), &[end]), Decision::Hold);
        assert_eq!(decide(&Policy::Hlm.table(), &[end]), Decision::Flush(Reason::FrameFull));
        assert_eq!(decide(&Policy::Local.table(), &[end]), Decision::Hold);
    }

    #[test]
    fn nothing_held_is_never_sent() {
        let mut stop = StopRule::new(&StopConfig::default());
        stop.observe_round(1000, Duration(0), Duration(1));
        let rules = Rules::new(&PolicyTable::default()).unwrap();
        assert_eq!(rules.decide(&HeldDrafts::new(), &stop), Decision::Hold);
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
