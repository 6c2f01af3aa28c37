//! The one table of a policy's settings, as configurations, plans and reports write it.

use super::{Combine, Coupling, HeldTokens, ImportanceForm, PayloadForm, Policy, Threshold};
use crate::uncertainty::Form;
use alloc::vec::Vec;

/// A policy by name and what differs from its preset; [`Rules`](super::Rules) are what it comes to.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(deny_unknown_fields, default))]
pub struct PolicyTable {
    /// The preset; without one the default.
    pub name: Option<Policy>,
    /// Thresholds of the preset to leave out.
    pub without: Vec<Threshold>,
    /// Whether to send once one more token would not pay.
    pub stop_rule: Option<bool>,
    /// How the thresholds on uncertainty and importance work together.
    pub combine: Option<Combine>,
    /// What happens to tokens that are not flushed.
    pub held: Option<HeldTokens>,
    /// What is sent of a judged token's distribution.
    pub payload: Option<PayloadForm>,
    /// How a token is judged.
    pub coupling: Option<Coupling>,
    /// How uncertainty is computed.
    pub uncertainty_form: Option<Form>,
    /// Which importance is sent.
    pub importance_form: Option<ImportanceForm>,
    /// The most tokens held before a frame is sent, up to [`DRAFT_TOKENS_MAX`](super::DRAFT_TOKENS_MAX); 0 drafts
    /// nothing.
    pub draft_tokens_max: Option<u8>,
    /// Send at a token whose importance exceeds μ + λσ of the last ones; this is λ.
    pub importance_lambda: Option<f32>,
    /// Send at a token more uncertain than this, in 0..=1.
    pub uncertainty_max: Option<f32>,
    /// Send at a token with this probability, in 0..=1.
    pub random_rate: Option<f32>,
    /// The share of audited tokens that may differ from the target's choice, in 0..=1.
    pub epsilon: Option<f32>,
    /// Tokens of a row at most, in the payloads that cut it: 1..=[`ROW_ENTRIES_MAX`].
    ///
    /// [`ROW_ENTRIES_MAX`]: dunlin_wire::limits::ROW_ENTRIES_MAX
    pub payload_entries: Option<u8>,
    /// The sum of a lattice's weights, at least 1.
    pub resolution: Option<u8>,
}

impl PolicyTable {
    /// The preset it starts from.
    pub fn policy(&self) -> Policy {
        self.name.unwrap_or_default()
    }
}

impl Policy {
    /// The table that names this preset and changes nothing.
    pub fn table(self) -> PolicyTable {
        PolicyTable { name: Some(self), ..PolicyTable::default() }
    }
}
