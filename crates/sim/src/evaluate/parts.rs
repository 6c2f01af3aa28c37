//! Stands between [`setting`](super::setting) and the policies that exist so far: one preset, four settings.

use super::setting::{Value, whole};
use anyhow::{Result, anyhow, bail};
use dunlin_hlm::policy::{Policy, PolicyConfig, Trigger};
use std::str::FromStr;

/// A checked configuration.
pub type Rules = Trigger;

/// The configuration a name stands for.
pub(super) fn preset(name: &str) -> Result<PolicyConfig> {
    Policy::from_str(name).map_err(|_| anyhow!("unknown policy {name:?}"))?;
    Ok(PolicyConfig::default())
}

/// Changes one setting.
pub(super) fn set(config: &mut PolicyConfig, key: &str, value: Value<'_>) -> Result<()> {
    match (key, value) {
        ("draft_tokens_max", Value::Number(x)) => config.draft_tokens_max = whole(x)?,
        ("stop_rule", Value::Flag(flag)) => config.stop_rule = flag,
        ("uncertainty_max", Value::Number(x)) => config.uncertainty_max = Some(x as f32),
        ("uncertainty_max", Value::Nothing) => config.uncertainty_max = None,
        ("importance_lambda", Value::Number(x)) => config.importance_lambda = Some(x as f32),
        ("importance_lambda", Value::Nothing) => config.importance_lambda = None,
        ("uncertainty_form", Value::Name(name)) => config.uncertainty_form = name.parse()?,
        _ => bail!("not known yet"),
    }
    Ok(())
}

/// The thresholds a record names: uncertainty, λ, the coin's rate and ε.
pub(super) fn thresholds(config: &PolicyConfig) -> [Option<f32>; 4] {
    [config.uncertainty_max, config.importance_lambda, None, None]
}
