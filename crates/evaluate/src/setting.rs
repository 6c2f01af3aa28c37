//! What a plan says of a policy, turned into the machines' configuration: the one place that knows how.
//!
//! Invariant: behind it a policy has no name, only a label.

use super::parts;
use anyhow::{Context, Result, bail, ensure};
use dunlin_hlm::policy::{PolicyConfig, Rules};
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;

/// A policy in a plan: a preset by name and what differs from it. A list is a sweep; several make a grid.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyRow {
    /// The preset.
    pub name: String,
    /// What reports call it; the name where it is left out.
    pub label: Option<String>,
    /// Thresholds of the preset to leave out: `uncertainty_max`, `importance_lambda`, `random_rate`.
    #[serde(default)]
    pub without: Vec<String>,
    /// See [`PolicyConfig`] for this and all below.
    pub uncertainty_max: Option<Sweep>,
    /// λ of the importance threshold.
    pub importance_lambda: Option<Sweep>,
    /// Rate of the coin.
    pub random_rate: Option<Sweep>,
    /// Wanted share of misses.
    pub epsilon: Option<Sweep>,
    /// Tokens of a frame.
    pub draft_tokens_max: Option<Sweep>,
    /// Tokens of a row.
    pub payload_entries: Option<Sweep>,
    /// Sum of a lattice's weights.
    pub resolution: Option<Sweep>,
    /// Whether the stop rule sends.
    pub stop_rule: Option<bool>,
    /// `any` or `both`.
    pub combine: Option<String>,
    /// `verified`, `trusted` or `audited`.
    pub held: Option<String>,
    /// `ids`, `full`, `top-k`, `top-k-sampled` or `lattice`.
    pub payload: Option<String>,
    /// `shared-seed` or `rejection`.
    pub coupling: Option<String>,
    /// `quadrature`, `sampled` or `one-minus-q`.
    pub uncertainty_form: Option<String>,
}

/// One number or several.
#[derive(Clone, Debug, PartialEq)]
pub struct Sweep(pub Vec<f64>);

/// A policy with all its settings.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The preset's name.
    pub policy: String,
    /// The name or label with what differs from the preset.
    pub label: String,
    /// All parts.
    pub config: PolicyConfig,
    /// The same, checked.
    pub rules: Rules,
}

/// The value of a setting.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// A threshold, rate or count.
    Number(f64),
    /// A choice by name.
    Name(&'a str),
    /// Yes or no.
    Flag(bool),
    /// Nothing: a threshold of the preset that is left out.
    Nothing,
}

impl PolicyRow {
    /// Every point of the grid, the last list varying fastest.
    ///
    /// # Errors
    /// Names the setting that is wrong, or the two that contradict each other.
    pub fn expand(&self) -> Result<Vec<Setting>> {
        let mut fixed = Vec::new();
        for key in &self.without {
            let known = ["uncertainty_max", "importance_lambda", "random_rate"].contains(&key.as_str());
            ensure!(known, "without: unknown threshold {key:?}");
            fixed.push((key.as_str(), Value::Nothing));
        }
        fixed.extend(self.stop_rule.map(|flag| ("stop_rule", Value::Flag(flag))));
        let names = [
            ("combine", &self.combine),
            ("held", &self.held),
            ("payload", &self.payload),
            ("coupling", &self.coupling),
            ("uncertainty_form", &self.uncertainty_form),
        ];
        let named = |(key, name): (_, &'_ Option<String>)| Some((key, name.clone()?));
        let names: Vec<(&str, String)> = names.into_iter().filter_map(named).collect();
        fixed.extend(names.iter().map(|(key, name)| (*key, Value::Name(name))));
        let grid = self.sweeps().into_iter().fold(vec![Vec::new()], |grid, (key, sweep)| {
            let with = |point: &Vec<(&'static str, f64)>, x: f64| [point.as_slice(), &[(key, x)]].concat();
            grid.iter()
                .flat_map(|point| sweep.0.iter().map(|x| with(point, *x)).collect::<Vec<_>>())
                .collect()
        });
        grid.iter().map(|point| self.setting(&fixed, point)).collect()
    }

    fn sweeps(&self) -> Vec<(&'static str, &Sweep)> {
        let sweeps = [
            ("draft_tokens_max", &self.draft_tokens_max),
            ("importance_lambda", &self.importance_lambda),
            ("uncertainty_max", &self.uncertainty_max),
            ("random_rate", &self.random_rate),
            ("epsilon", &self.epsilon),
            ("payload_entries", &self.payload_entries),
            ("resolution", &self.resolution),
        ];
        sweeps.into_iter().filter_map(|(key, sweep)| Some((key, sweep.as_ref()?))).collect()
    }

    fn setting(&self, fixed: &[(&str, Value<'_>)], point: &[(&str, f64)]) -> Result<Setting> {
        let mut config = parts::preset(&self.name)?;
        let numbers = point.iter().map(|(key, x)| (*key, Value::Number(*x)));
        for (key, value) in fixed.iter().copied().chain(numbers) {
            parts::set(&mut config, key, value).with_context(|| key.to_owned())?;
        }
        let rules = Rules::new(&config)?;
        // A label stands for what is fixed; a sweep is told apart by its numbers.
        let fixed = if self.label.is_some() { &[][..] } else { fixed };
        let shown = fixed.iter().map(|(key, value)| format!("{key} {value}"));
        let swept = point.iter().filter(|(key, _)| self.label.is_none() || self.varies(key));
        let shown: Vec<String> = shown.chain(swept.map(|(key, x)| format!("{key} {x}"))).collect();
        let label = self.label.as_ref().unwrap_or(&self.name);
        let label = if shown.is_empty() { label.clone() } else { format!("{label}, {}", shown.join(", ")) };
        Ok(Setting { policy: self.name.clone(), label, config, rules })
    }

    fn varies(&self, key: &str) -> bool {
        self.sweeps().iter().any(|(swept, sweep)| *swept == key && sweep.0.len() > 1)
    }
}

impl Setting {
    /// Whether it is what a device does that is told nothing.
    pub fn is_default(&self) -> bool {
        self.config == PolicyConfig::default()
    }
}

/// A whole number in the range of its kind.
pub(super) fn whole(x: f64) -> Result<u8> {
    if x.fract() == 0.0 && (0.0..=255.0).contains(&x) {
        Ok(x as u8)
    } else {
        bail!("{x} is no whole number up to 255")
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(x) => write!(f, "{x}"),
            Self::Name(name) => f.write_str(name),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Nothing => f.write_str("none"),
        }
    }
}

impl<'de> Deserialize<'de> for Sweep {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Numbers;

        impl<'de> Visitor<'de> for Numbers {
            type Value = Sweep;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a list of numbers")
            }

            fn visit_f64<E: Error>(self, x: f64) -> Result<Sweep, E> {
                if x.is_finite() {
                    Ok(Sweep(vec![x]))
                } else {
                    Err(E::custom(format!("{x} is no finite number")))
                }
            }

            fn visit_i64<E: Error>(self, x: i64) -> Result<Sweep, E> {
                Ok(Sweep(vec![x as f64]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Sweep, A::Error> {
                let mut numbers = Vec::new();
                while let Some(x) = list.next_element::<f64>()? {
                    numbers.push(x);
                }
                let finite = numbers.iter().all(|x| x.is_finite());
                let known = !numbers.is_empty() && finite;
                if known {
                    Ok(Sweep(numbers))
                } else {
                    Err(A::Error::custom("a list of at least one finite number"))
                }
            }
        }

        from.deserialize_any(Numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_hlm::policy::{Combine, HeldTokens, Payload, PayloadForm, Policy};
    use dunlin_hlm::uncertainty::Form;

    fn expand(text: &str) -> Result<Vec<Setting>> {
        toml::from_str::<PolicyRow>(text)?.expand()
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
        assert_eq!(
            settings[1].config,
            PolicyConfig { uncertainty_max: Some(0.5), ..PolicyConfig::default() }
        );
        assert!(!settings[1].is_default() && expand("name = 'lossless'").unwrap()[0].is_default());
    }

    #[test]
    fn each_setting_reaches_its_part() {
        let config = |text: &str| expand(text).unwrap().remove(0).config;
        let text = "name = 'importance-or'\nwithout = ['importance_lambda']\nuncertainty_max = 0.25\n\
                    random_rate = 0.75\npayload = 'lattice'\npayload_entries = 9\nresolution = 50\n\
                    draft_tokens_max = 7\nuncertainty_form = 'one-minus-q'";
        let expected = PolicyConfig {
            uncertainty_max: Some(0.25),
            importance_lambda: None,
            random_rate: Some(0.75),
            payload: Payload { form: PayloadForm::Lattice, entries: 9, resolution: 50 },
            draft_tokens_max: 7,
            uncertainty_form: Form::OneMinusQ,
            ..Policy::ImportanceOr.config()
        };
        assert_eq!(config(text), expected);
        let text = "name = 'lossless'\nheld = 'audited'\nepsilon = 0.5\nstop_rule = false\n\
                    uncertainty_max = 0.5\nimportance_lambda = 1.5\ncombine = 'both'";
        let expected = PolicyConfig {
            held: HeldTokens::Audited,
            epsilon: 0.5,
            stop_rule: false,
            uncertainty_max: Some(0.5),
            importance_lambda: Some(1.5),
            combine: Combine::Both,
            ..Policy::Lossless.config()
        };
        assert_eq!(config(text), expected);
        let sparse = "name = 'lossless'\npayload = 'lattice'\ncoupling = 'rejection'";
        assert_eq!(config(sparse), Policy::LosslessSparse.config());
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
            ("name = 'losless'", "unknown policy"),
            ("name = 'lossless'\nuncertainty_max = 1.5", "uncertainty_max 1.5 is not within"),
            ("name = 'lossless'\nuncertainty_max = []", "at least one finite number"),
            ("name = 'lossless'\nuncertainty_max = [nan]", "at least one finite number"),
            ("name = 'lossless'\nuncertainty_max = nan", "NaN is no finite number"),
            ("name = 'lossless'\ndraft_tokens_max = 2.5", "2.5 is no whole number"),
            ("name = 'lossless'\ndraft_tokens_max = 17", "draft_tokens_max 17 is not within"),
            ("name = 'lossless'\nwithout = ['payload']", "unknown threshold \"payload\""),
            ("name = 'lossless'\nuncertainty_form = 'guessed'", "unknown form of uncertainty"),
            ("name = 'lossless'\nuncertanty_max = 0.5", "unknown field `uncertanty_max`"),
        ];
        for (text, expected) in cases {
            let error = format!("{:#}", expand(text).unwrap_err());
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
