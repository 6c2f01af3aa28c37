//! The table of a policy's settings, as used in configurations, plans and reports.

use super::{Combine, Coupling, HeldTokens, ImportanceForm, PayloadForm, Policy, Threshold};
use crate::uncertainty::Form;
use alloc::vec::Vec;

/// A policy's name and the settings that differ from its preset; it resolves to [`Rules`](super::Rules).
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(deny_unknown_fields, default))]
pub struct PolicyTable {
    /// The preset; `None` is the default one.
    pub name: Option<Policy>,
    /// Thresholds of the preset to leave out.
    pub without: Vec<Threshold>,
    /// True to send as soon as one more token would not pay.
    pub stop_rule: Option<bool>,
    /// The combination of the thresholds on uncertainty and importance.
    pub combine: Option<Combine>,
    /// Treatment of tokens that are not flushed.
    pub held: Option<HeldTokens>,
    /// The part of a judged token's distribution that is sent.
    pub payload: Option<PayloadForm>,
    /// The rule for judging a token.
    pub coupling: Option<Coupling>,
    /// The form of uncertainty.
    pub uncertainty_form: Option<Form>,
    /// The form of importance that is sent.
    pub importance_form: Option<ImportanceForm>,
    /// The most tokens held before a frame is sent, up to [`DRAFT_TOKENS_MAX`](super::DRAFT_TOKENS_MAX); 0 drafts
    /// nothing.
    pub draft_tokens_max: Option<u8>,
    /// λ: send at a token whose importance exceeds μ + λσ of the last ones.
    pub importance_lambda: Option<f32>,
    /// Send at a token more uncertain than this, in 0..=1.
    pub uncertainty_max: Option<f32>,
    /// Send at a token with this probability, in 0..=1.
    pub random_rate: Option<f32>,
    /// Tokens that the verifier may write beyond its verdict, for each frame; 0 for none.
    pub credit_tokens_max: Option<u16>,
    /// True to draft or to stream by cost; needs both.
    pub auto: Option<bool>,
    /// The worth of a second in joules, beside what the board draws in it: 0..=1e6.
    pub second_joules: Option<f32>,
    /// The share of audited tokens that may differ from the target's choice, in 0..=1.
    pub epsilon: Option<f32>,
    /// Most tokens of a row, in the payloads that truncate it: 1..=[`ROW_ENTRIES_MAX`].
    ///
    /// [`ROW_ENTRIES_MAX`]: dunlin_wire::limits::ROW_ENTRIES_MAX
    pub payload_entries: Option<u8>,
    /// The sum of a lattice's weights, at least 1.
    pub resolution: Option<u8>,
}

impl PolicyTable {
    /// The preset of this table.
    pub fn policy(&self) -> Policy {
        self.name.unwrap_or_default()
    }
}

impl Policy {
    /// The table that names this preset without changes.
    pub fn table(self) -> PolicyTable {
        PolicyTable { name: Some(self), ..PolicyTable::default() }
    }
}
