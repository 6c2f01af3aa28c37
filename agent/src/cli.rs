//! Commands, flags and exit codes.

use crate::config::{Overrides, Settings};
use crate::setup::Conduct;
use crate::terminal::ColourChoice;
use crate::{ask, calibrate, check, first_boot, generate, power, serve};
use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use dunlin_hlm::device::Offline;
use dunlin_hlm::probabilities::Sampling;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tracing_subscriber::EnvFilter;

/// Done.
pub const DONE: u8 = 0;
/// Something failed.
pub const FAILED: u8 = 1;
/// A flag or the configuration is wrong.
pub const USAGE: u8 = 2;
/// The broker could not be reached in time, or refuses this device.
pub const NO_BROKER: u8 = 3;
/// The verifier refuses: vocabulary, sampling or limits.
pub const REFUSED: u8 = 4;
/// The broker was there, but the reply was not complete in time.
pub const TIMED_OUT: u8 = 5;
/// Interrupted.
pub const INTERRUPTED: u8 = 130;

/// Drafts text with a small model on this device; a large one beside the broker makes it the large one's text.
#[derive(Debug, Parser)]
#[command(name = "dunlin-agent", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write one reply.
    Generate(generate::Args),
    /// Take prompts, one a line, and keep the session between them.
    Serve(serve::Args),
    /// Ask the agent that serves on this device, and write its reply.
    Ask(ask::Args),
    /// See whether configuration, model, broker, verifier and clock are all right.
    Check(CheckArgs),
    /// Measure rejection against uncertainty on held-out prompts, and propose thresholds.
    Calibrate(calibrate::Args),
    /// See, record and calibrate what the board draws.
    Power(power::Args),
    /// Set a board up from a text file on its card, and remove the file.
    FirstBoot(first_boot::Args),
}

#[derive(Debug, Args)]
struct CheckArgs {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    policy: PolicyFlags,
}

/// Flags of every command.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The broker, as mqtt://host:port.
    #[arg(long, value_name = "URL")]
    broker: Option<String>,
    /// This device's name: a-z, 0-9 and '-'.
    #[arg(long, value_name = "ID")]
    device: Option<String>,
    /// The drafter's directory.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// The board: a name, as rpi4, or the path of its file.
    #[arg(long, value_name = "BOARD")]
    board: Option<PathBuf>,
    /// Where figures of power come from: auto, none, ina219, hwmon, pmic, powercap, replay or simulated.
    #[arg(long, value_name = "SOURCE")]
    power: Option<String>,
    /// When to use colours.
    #[arg(long, value_enum, default_value_t)]
    pub color: ColourChoice,
}

/// Flags that decide when to send.
#[derive(Clone, Debug, Default, Args)]
pub struct PolicyFlags {
    /// The policy.
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    /// Drafts in one frame at most.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    draft_tokens_max: Option<u8>,
}

/// Flags that decide the text of a reply.
#[derive(Clone, Debug, Args)]
pub struct TextFlags {
    /// Tokens of a reply at most.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = positive)]
    pub max_tokens: usize,
    /// Softmax temperature; 0 is greedy.
    #[arg(long, value_name = "F", default_value_t = 0.7)]
    temperature: f32,
    /// Nucleus mass, above 0 and at most 1.
    #[arg(long, value_name = "F", default_value_t = 0.95)]
    top_p: f32,
    /// Largest tokens kept; 0 keeps all.
    #[arg(long, value_name = "N", default_value_t = 0)]
    top_k: u32,
    /// Seed of a session; random where it is left out.
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
    /// What to do when nobody answers: wait, or go on alone and mark the tokens unverified.
    #[arg(long, value_enum, default_value_t)]
    offline: OfflineChoice,
    /// Silence after which nobody answers.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub give_up_after: Duration,
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
    /// The settings of the file with these flags over it.
    ///
    /// # Errors
    /// Names what is wrong.
    pub(crate) fn settings(&self, policy: &PolicyFlags) -> Result<Settings> {
        let flags = Overrides {
            broker: self.broker.clone(),
            device: self.device.clone(),
            model: self.model.clone(),
            board: self.board.clone(),
            power: self.power.clone(),
            policy: policy.policy.clone(),
            draft_tokens_max: policy.draft_tokens_max,
        };
        Settings::load(self.config.as_deref(), &flags)
    }
}

impl TextFlags {
    /// How to sample.
    ///
    /// # Errors
    /// Names what is out of range.
    pub(crate) fn sampling(&self) -> Result<Sampling> {
        Sampling::new(self.temperature, self.top_p, self.top_k).context("sampling")
    }
}

impl ReplyFlags {
    /// The settings, and how to sample.
    ///
    /// # Errors
    /// Names what is wrong.
    pub fn checked(&self) -> Result<(Settings, Sampling)> {
        let sampling = self.text.sampling()?;
        Ok((self.common.settings(&self.policy)?, sampling))
    }

    /// How sessions are held.
    pub(crate) fn conduct(&self, ends_on_refusal: bool) -> Conduct {
        let offline = match self.offline {
            OfflineChoice::Wait => Offline::Wait,
            OfflineChoice::Trust => Offline::Trust,
        };
        Conduct { seed: self.text.seed, offline, give_up_after: self.give_up_after, ends_on_refusal }
    }

    /// When to use colours.
    pub fn color(&self) -> ColourChoice {
        self.common.color
    }
}

/// Runs a command; its errors go to standard error.
pub fn run(cli: Cli) -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).without_time().init();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(FAILED, &error.into()),
    };
    let done = runtime.block_on(command(cli.command));
    // A thread that still reads standard input must not keep the process.
    runtime.shutdown_background();
    match done {
        Ok(code) => ExitCode::from(code),
        Err((code, error)) => failed(code, &error),
    }
}

async fn command(command: Command) -> Result<u8, (u8, anyhow::Error)> {
    let usage = |error| (USAGE, error);
    let failed = |error| (FAILED, error);
    match command {
        Command::Generate(args) => {
            let (settings, sampling) = args.reply.checked().map_err(usage)?;
            settings.model().map_err(usage)?;
            generate::generate(&args, &settings, sampling).await.map_err(failed)
        }
        Command::Serve(args) => {
            let (settings, sampling) = args.reply.checked().map_err(usage)?;
            settings.model().map_err(usage)?;
            serve::serve(&args, &settings, sampling).await.map_err(failed)
        }
        Command::Ask(args) => ask::ask(&args).map_err(failed),
        Command::Check(args) => {
            let settings = args.common.settings(&args.policy);
            check::check(settings, args.common.color).await.map_err(failed)
        }
        Command::Calibrate(args) => {
            let (settings, sampling) = args.checked().map_err(usage)?;
            calibrate::calibrate(&args, &settings, sampling).await.map_err(failed)
        }
        Command::Power(args) => {
            let settings = args.checked().map_err(usage)?;
            power::power(&args, &settings).await.map_err(failed)
        }
        Command::FirstBoot(args) => first_boot::first_boot(&args).await.map_err(failed),
    }
}

fn failed(code: u8, error: &anyhow::Error) -> ExitCode {
    // Standard error that is gone has no reader.
    let _ = writeln!(io::stderr(), "dunlin-agent: {error:#}");
    ExitCode::from(code)
}

/// A number above 0.
///
/// # Errors
/// It is none.
pub(crate) fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "expected a number above 0".into())
}

/// A span of time given in seconds.
///
/// # Errors
/// It is no number of seconds above 0.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| *seconds > 0.0 && *seconds < 1e9);
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "expected seconds above 0".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_flags_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn seconds_may_be_fractions() {
        assert_eq!(seconds("0.25").unwrap(), Duration::from_millis(250));
        assert!(seconds("0").is_err() && seconds("-1").is_err() && seconds("x").is_err());
    }
}
