//! Flags that several commands share.

use crate::config::{Overrides, Settings};
use crate::setup::Conduct;
use crate::terminal::ColourChoice;
use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use dunlin_hlm::device::Offline;
use dunlin_hlm::probabilities::Sampling;
use std::path::PathBuf;
use std::time::Duration;

/// Flags of every command.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The broker: mqtts://host[:port] with TLS, or mqtt://[user:password@]host[:port] without.
    #[arg(long, value_name = "URL")]
    broker: Option<String>,
    /// Speak to a broker on another machine without TLS.
    #[arg(long)]
    insecure: bool,
    /// This device's name: a-z, 0-9 and '-'.
    #[arg(long, value_name = "ID")]
    device: Option<String>,
    /// The drafter's directory.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// The board: a name, for example rpi4, or the path of its file.
    #[arg(long, value_name = "BOARD")]
    board: Option<PathBuf>,
    /// The folder in which to keep what is learned of the models and the link.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// The system prompt before every conversation; the model's chat template must take one.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// The power source: auto, none, ina219, hwmon, pmic, powercap, replay or simulated.
    #[arg(long, value_name = "SOURCE")]
    power: Option<String>,
    /// When to use colours.
    #[arg(long, value_enum, default_value_t)]
    pub color: ColourChoice,
}

/// Flags that decide when to send.
#[derive(Clone, Debug, Default, Args)]
pub struct PolicyFlags {
    /// The policy: lossless, lossless-sparse, risk, hlm, u-hlm, cu-hlm, importance, importance-or, random, local,
    /// remote, stream or auto.
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    /// Maximum number of drafts in a frame.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    draft_tokens_max: Option<u8>,
}

/// Flags that decide the text of a reply.
#[derive(Clone, Debug, Args)]
pub struct TextFlags {
    /// Maximum length of a reply in tokens.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = positive)]
    pub max_tokens: usize,
    /// Softmax temperature; 0 is greedy.
    #[arg(long, value_name = "F", default_value_t = 0.7)]
    temperature: f32,
    /// Probability mass kept by top-p sampling, above 0 and at most 1.
    #[arg(long, value_name = "F", default_value_t = 0.95)]
    top_p: f32,
    /// Number of most likely tokens kept by top-k sampling; 0 keeps all.
    #[arg(long, value_name = "N", default_value_t = 0)]
    top_k: u32,
    /// Seed of the session; random by default.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

/// Flags of a reply.
#[derive(Clone, Debug, Args)]
pub struct ReplyFlags {
    #[command(flatten)]
    pub(crate) text: TextFlags,
    #[command(flatten)]
    policy: PolicyFlags,
    /// When no verifier answers: wait, or continue alone and mark the tokens as unverified.
    #[arg(long, value_enum, default_value_t)]
    offline: OfflineChoice,
    /// Silence after which --offline applies.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub give_up_after: Duration,
    /// Go on with a text though only a verifier with another model is there; the report names the token.
    #[arg(long)]
    accept_model_change: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum OfflineChoice {
    #[default]
    Wait,
    Trust,
}

impl Common {
    /// The settings of the file, overridden by these flags.
    ///
    /// # Errors
    /// Names the setting that is wrong.
    pub(crate) fn settings(&self, policy: &PolicyFlags) -> Result<Settings> {
        let flags = Overrides {
            broker: self.broker.clone(),
            insecure: self.insecure,
            device: self.device.clone(),
            model: self.model.clone(),
            board: self.board.clone(),
            state: self.state.clone(),
            system: self.system.clone(),
            power: self.power.clone(),
            policy: policy.policy.clone(),
            draft_tokens_max: policy.draft_tokens_max,
        };
        Settings::load(self.config.as_deref(), &flags)
    }
}

impl TextFlags {
    /// The sampling of the target.
    ///
    /// # Errors
    /// Names what is out of range.
    pub(crate) fn sampling(&self) -> Result<Sampling> {
        Sampling::new(self.temperature, self.top_p, self.top_k).context("sampling")
    }
}

impl ReplyFlags {
    /// The settings and the sampling.
    ///
    /// # Errors
    /// Names the setting that is wrong.
    pub fn checked(&self) -> Result<(Settings, Sampling)> {
        let sampling = self.text.sampling()?;
        let settings = self.common.settings(&self.policy)?;
        let trusts = matches!(self.offline, OfflineChoice::Trust);
        ensure!(
            settings.rules.drafts() || !trusts,
            "--offline trust needs a drafter, and the policy {} drafts nothing: leave it out, or choose another policy",
            settings.policy.name()
        );
        Ok((settings, sampling))
    }

    /// The rules under which sessions are run.
    pub(crate) fn conduct(&self, ends_on_refusal: bool) -> Conduct {
        let offline = match self.offline {
            OfflineChoice::Wait => Offline::Wait,
            OfflineChoice::Trust => Offline::Trust,
        };
        Conduct {
            seed: self.text.seed,
            offline,
            give_up_after: self.give_up_after,
            ends_on_refusal,
            accept_model_change: self.accept_model_change,
        }
    }

    /// The choice of colours.
    pub fn color(&self) -> ColourChoice {
        self.common.color
    }
}

/// Parses a number above 0.
///
/// # Errors
/// The text is not such a number.
pub(crate) fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "expected a number above 0".into())
}

/// A span of time given in seconds.
///
/// # Errors
/// The text is not a number of seconds above 0.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| *seconds > 0.0 && *seconds < 1e9);
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "expected seconds above 0".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_may_be_fractions() {
        assert_eq!(seconds("0.25").unwrap(), Duration::from_millis(250));
        assert!(seconds("0").is_err() && seconds("-1").is_err() && seconds("x").is_err());
    }
}
