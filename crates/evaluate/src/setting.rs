//! The policies of a plan: tables of settings in which any key may be a list.

use anyhow::{Result, anyhow, bail, ensure};
use dunlin_hlm::policy::{HeldTokens, Policy, PolicyTable, Rules};
use serde::Deserialize;
use toml::{Table, Value};

/// The key of a policy's name in reports; all other keys are those of a [`PolicyTable`].
const LABEL: &str = "label";
/// The key of the preset.
const NAME: &str = "name";
/// The only key of a policy's table whose value is a list itself.
const WITHOUT: &str = "without";

/// A policy in a plan: the keys of a [`PolicyTable`], and a label. A list is a sweep; several lists make a grid.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct PolicySweep(Table);

/// A policy with all its settings.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The preset's name.
    pub policy: String,
    /// The name or label, with the settings that differ from the preset.
    pub label: String,
    /// The resolved rules.
    pub rules: Rules,
}

impl PolicySweep {
    /// Every point of the grid; keys are in alphabetical order and the last list varies fastest.
    ///
    /// # Errors
    /// Names the setting that is invalid, or the two that contradict each other.
    pub fn expand(&self) -> Result<Vec<Setting>> {
        let mut keys = self.0.clone();
        let label = match keys.remove(LABEL) {
            None => None,
            Some(Value::String(label)) => Some(label),
            Some(other) => bail!("label: expected a string, found {}", other.type_str()),
        };
        ensure!(keys.contains_key(NAME), "a policy needs a name");
        let mut grid = vec![Table::new()];
        for (key, value) in &keys {
            let values = values(key, value);
            ensure!(!values.is_empty(), "{key}: an empty list");
            grid = grid
                .iter()
                .flat_map(|point| {
                    values.iter().map(|value| {
                        let mut point = point.clone();
                        point.insert(key.clone(), value.clone());
                        point
                    })
                })
                .collect();
        }
        grid.into_iter().map(|point| setting(point, label.as_deref(), &keys)).collect()
    }
}

/// The values of a key in turn.
fn values(key: &str, value: &Value) -> Vec<Value> {
    match value {
        Value::Array(values) if key != WITHOUT => values.clone(),
        value => vec![value.clone()],
    }
}

/// The policy at a point of the grid of `keys`.
fn setting(point: Table, label: Option<&str>, keys: &Table) -> Result<Setting> {
    let varies = |key: &str| keys.get(key).is_some_and(|value| values(key, value).len() > 1);
    // A label covers the fixed settings; swept ones are shown with their values. Names and flags come before numbers.
    let shown = |key: &str| key != NAME && (label.is_none() || varies(key));
    let (numbers, names): (Vec<_>, Vec<_>) = point
        .iter()
        .filter(|(key, _)| shown(key))
        .partition(|(_, value)| value.is_integer() || value.is_float());
    let differs: Vec<String> =
        names.into_iter().chain(numbers).flat_map(|(key, value)| described(key, value)).collect();
    let table = table(point)?;
    let rules = Rules::new(&table)?;
    let policy = table.policy().name().to_owned();
    let label = label.unwrap_or(&policy);
    let label =
        if differs.is_empty() { label.to_owned() } else { format!("{label}, {}", differs.join(", ")) };
    Ok(Setting { policy, label, rules })
}

/// The table at a point; each key is first read by itself, so that an error names it.
fn table(point: Table) -> Result<PolicyTable> {
    for (key, value) in &point {
        let alone = Table::from_iter([(key.clone(), value.clone())]);
        let tried: Result<PolicyTable, _> = alone.try_into();
        tried.map_err(|error| anyhow!("{key}: {}", error.message()))?;
    }
    Ok(point.try_into()?)
}

/// A setting in words; one item for each threshold that is left out.
fn described(key: &str, value: &Value) -> Vec<String> {
    match value {
        Value::Array(left_out) => {
            left_out.iter().filter_map(Value::as_str).map(|threshold| format!("{threshold} none")).collect()
        }
        Value::String(name) => vec![format!("{key} {name}")],
        Value::Float(x) => vec![format!("{key} {x}")],
        value => vec![format!("{key} {value}")],
    }
}

impl Setting {
    /// True when these are the rules of a device without a configuration.
    pub fn is_default(&self) -> bool {
        self.rules == Policy::default().rules()
    }

    /// The thresholds of a record: uncertainty, λ, the random trigger's rate, and ε if tokens are audited.
    pub fn thresholds(&self) -> [Option<f32>; 4] {
        let rules = &self.rules;
        let epsilon = (rules.held() == HeldTokens::Audited).then_some(rules.epsilon());
        [
            rules.uncertainty_max().map(|max| max.get()),
            rules.importance().map(|threshold| threshold.lambda()),
            rules.random_rate().map(|rate| rate.get()),
            epsilon.map(|epsilon| epsilon.get()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_hlm::policy::{Combine, PayloadForm, Threshold};
    use dunlin_hlm::uncertainty::Form;

    fn expand(text: &str) -> Result<Vec<Setting>> {
        toml::from_str::<PolicySweep>(text)?.expand()
    }

    fn labels(text: &str) -> Vec<String> {
        expand(text).unwrap().into_iter().map(|setting| setting.label).collect()
    }

    #[test]
    fn lists_make_a_grid() {
        assert_eq!(labels("name = 'lossless'"), ["lossless"]);
        let grid = labels("name = 'lossless'\ndraft_tokens_max = [4, 8]\nuncertainty_max = [0.1, 0.5]");
        let expected = [
            "4, uncertainty_max 0.1",
            "4, uncertainty_max 0.5",
            "8, uncertainty_max 0.1",
            "8, uncertainty_max 0.5",
        ];
        assert_eq!(grid, expected.map(|rest| format!("lossless, draft_tokens_max {rest}")));
        let settings = expand("name = 'lossless'\nuncertainty_max = [0.25, 0.5]").unwrap();
        let half = PolicyTable { uncertainty_max: Some(0.5), ..PolicyTable::default() };
        assert_eq!(settings[1].rules, Rules::new(&half).unwrap());
        assert!(!settings[1].is_default() && expand("name = 'lossless'").unwrap()[0].is_default());
    }

    #[test]
    fn each_setting_reaches_its_part() {
        let rules = |text: &str| expand(text).unwrap().remove(0).rules;
        let text = "name = 'importance-or'\nwithout = ['importance_lambda']\nuncertainty_max = 0.25\n\
                    random_rate = 0.75\npayload = 'lattice'\npayload_entries = 9\nresolution = 50\n\
                    draft_tokens_max = 7\nuncertainty_form = 'one-minus-q'";
        let expected = PolicyTable {
            without: vec![Threshold::ImportanceLambda],
            uncertainty_max: Some(0.25),
            random_rate: Some(0.75),
            payload: Some(PayloadForm::Lattice),
            payload_entries: Some(9),
            resolution: Some(50),
            draft_tokens_max: Some(7),
            uncertainty_form: Some(Form::OneMinusQ),
            ..Policy::ImportanceOr.table()
        };
        assert_eq!(rules(text), Rules::new(&expected).unwrap());
        let text = "name = 'lossless'\nheld = 'audited'\nepsilon = 0.5\nstop_rule = false\n\
                    uncertainty_max = 0.5\nimportance_lambda = 1.5\ncombine = 'both'";
        let expected = PolicyTable {
            held: Some(HeldTokens::Audited),
            epsilon: Some(0.5),
            stop_rule: Some(false),
            uncertainty_max: Some(0.5),
            importance_lambda: Some(1.5),
            combine: Some(Combine::Both),
            ..Policy::Lossless.table()
        };
        assert_eq!(rules(text), Rules::new(&expected).unwrap());
        let sparse = "name = 'lossless'\npayload = 'lattice'\ncoupling = 'rejection'";
        assert_eq!(rules(sparse), Policy::LosslessSparse.rules());
    }

    #[test]
    fn any_key_can_be_swept() {
        let held = labels("name = 'lossless'\nheld = ['verified', 'audited']\nepsilon = 0.5");
        assert_eq!(held, ["lossless, held verified, epsilon 0.5", "lossless, held audited, epsilon 0.5"]);
        assert_eq!(labels("name = ['hlm', 'local']"), ["hlm", "local"]);
    }

    #[test]
    fn a_label_replaces_what_does_not_vary() {
        let text = "name = 'lossless'\nlabel = 'fixed'\nstop_rule = false\ndraft_tokens_max = 4";
        assert_eq!(labels(text), ["fixed"]);
        assert_eq!(labels("name = 'lossless'\nstop_rule = false"), ["lossless, stop_rule false"]);
        let swept = "name = 'lossless'\nlabel = 'u'\nuncertainty_max = [0.1, 0.2]\ndraft_tokens_max = 4";
        assert_eq!(labels(swept), ["u, uncertainty_max 0.1", "u, uncertainty_max 0.2"]);
        assert_eq!(
            labels("name = 'lossless'\nwithout = ['uncertainty_max']"),
            ["lossless, uncertainty_max none"]
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            ("name = 'losless'", "unknown policy; known are hlm"),
            ("stop_rule = true", "a policy needs a name"),
            ("name = 'lossless'\nlabel = 3", "label: expected a string, found integer"),
            ("name = 'lossless'\nuncertainty_max = 1.5", "uncertainty_max 1.5 is not within"),
            ("name = 'lossless'\nuncertainty_max = []", "uncertainty_max: an empty list"),
            ("name = 'lossless'\nuncertainty_max = [nan]", "uncertainty_max NaN is not within"),
            (
                "name = 'lossless'\ndraft_tokens_max = 2.5",
                "draft_tokens_max: invalid type: floating point `2.5`",
            ),
            ("name = 'lossless'\ndraft_tokens_max = 17", "draft_tokens_max 17 is not within"),
            ("name = 'lossless'\nwithout = ['payload']", "without: unknown threshold; known are"),
            (
                "name = 'lossless'\nuncertainty_form = 'guessed'",
                "uncertainty_form: unknown form of uncertainty",
            ),
            ("name = 'lossless'\nuncertanty_max = 0.5", "unknown field `uncertanty_max`"),
        ];
        for (text, expected) in cases {
            let error = format!("{:#}", expand(text).unwrap_err());
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
