//! Which setting of a plan is which part of a policy.

use super::setting::{Value, whole};
use anyhow::{Result, bail};
use dunlin_hlm::policy::{HeldTokens, Policy, PolicyConfig};

/// The configuration a name stands for.
pub(super) fn preset(name: &str) -> Result<PolicyConfig> {
    Ok(name.parse::<Policy>()?.config())
}

/// Changes one setting.
pub(super) fn set(config: &mut PolicyConfig, key: &str, value: Value<'_>) -> Result<()> {
    match (key, value) {
        ("draft_tokens_max", Value::Number(x)) => config.draft_tokens_max = whole(x)?,
        ("payload_entries", Value::Number(x)) => config.payload.entries = whole(x)?,
        ("resolution", Value::Number(x)) => config.payload.resolution = whole(x)?,
        ("epsilon", Value::Number(x)) => config.epsilon = x as f32,
        ("uncertainty_max", value) => config.uncertainty_max = threshold(value)?,
        ("importance_lambda", value) => config.importance_lambda = threshold(value)?,
        ("random_rate", value) => config.random_rate = threshold(value)?,
        ("stop_rule", Value::Flag(flag)) => config.stop_rule = flag,
        ("combine", Value::Name(name)) => config.combine = name.parse()?,
        ("held", Value::Name(name)) => config.held = name.parse()?,
        ("payload", Value::Name(name)) => config.payload.form = name.parse()?,
        ("coupling", Value::Name(name)) => config.coupling = name.parse()?,
        ("uncertainty_form", Value::Name(name)) => config.uncertainty_form = name.parse()?,
        (_, value) => bail!("{value} is no value for it"),
    }
    Ok(())
}

fn threshold(value: Value<'_>) -> Result<Option<f32>> {
    match value {
        Value::Number(x) => Ok(Some(x as f32)),
        Value::Nothing => Ok(None),
        value => bail!("{value} is no threshold"),
    }
}

/// The thresholds a record names: uncertainty, λ, the coin's rate and ε, the last where tokens are audited.
pub(super) fn thresholds(config: &PolicyConfig) -> [Option<f32>; 4] {
    let audited = config.held == HeldTokens::Audited;
    let epsilon = audited.then_some(config.epsilon);
    [config.uncertainty_max, config.importance_lambda, config.random_rate, epsilon]
}
