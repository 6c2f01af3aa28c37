//! The commands, and the function that runs each.

use crate::exit::{DONE, FAILED, USAGE};
use crate::flags::{Common, PolicyFlags};
use crate::{ask, calibrate, check, first_boot, generate, import, power, serve, signals};
use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use dunlin_link::migrate;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Draft text with a small model on this device, and let a large model beside the broker verify it.
#[derive(Debug, Parser)]
#[command(name = "dunlin-agent", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write one reply.
    Generate(generate::GenerateFlags),
    /// Answer prompts, one per line, and keep the session between them.
    Serve(serve::ServeFlags),
    /// Send a prompt to the agent that serves on this device, and write its reply.
    Ask(ask::AskFlags),
    /// Test configuration, clock, power source, model, broker and verifier.
    Check(CheckArgs),
    /// Measure rejection against uncertainty on held-out prompts, and propose thresholds.
    Calibrate(calibrate::CalibrateFlags),
    /// Make a drafter's folder of a published model: a GGUF file, or a Hugging Face folder.
    Import(import::ImportFlags),
    /// Show, record and calibrate the board's power.
    Power(power::PowerFlags),
    /// Set up a board from a text file on its card, and remove the file.
    FirstBoot(first_boot::FirstBootFlags),
    /// Rewrite a configuration file that has keys of an earlier version.
    ///
    /// No key of this program has changed yet. The command is there for keys that change later, and for a file made from
    /// the verifier's, whose keys have changed.
    MigrateConfig(MigrateArgs),
}

#[derive(Debug, Args)]
struct MigrateArgs {
    /// The configuration file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Debug, Args)]
struct CheckArgs {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    policy: PolicyFlags,
}

/// Runs a command; its errors go to standard error.
pub fn run(cli: Cli) -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,status=info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).without_time();
    log.with_ansi(io::stderr().is_terminal()).init();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(FAILED, &error.into()),
    };
    let done = runtime.block_on(command(cli.command));
    // Don't wait for a thread that still reads standard input.
    runtime.shutdown_background();
    match done {
        Ok(code) => ExitCode::from(code),
        Err((code, error)) => failed(code, &error),
    }
}

async fn command(command: Command) -> Result<u8, (u8, anyhow::Error)> {
    let usage = |error| (USAGE, error);
    let failed = |error| (FAILED, error);
    signals::expect_status().map_err(failed)?;
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
            settings.model().map_err(usage)?;
            calibrate::calibrate(&args, &settings, sampling).await.map_err(failed)
        }
        Command::Import(args) => import::run_import(&args).await.map_err(failed),
        Command::Power(args) => {
            let settings = args.checked().map_err(usage)?;
            power::power(&args, &settings).await.map_err(failed)
        }
        Command::FirstBoot(args) => first_boot::first_boot(&args).await.map_err(failed),
        Command::MigrateConfig(args) => migrate_config(&args.file).map_err(failed),
    }
}

fn migrate_config(file: &Path) -> Result<u8> {
    let report = migrate(file)?.report(file);
    writeln!(io::stdout(), "{report}").context("standard output")?;
    Ok(DONE)
}

fn failed(code: u8, error: &anyhow::Error) -> ExitCode {
    // Ignore the error: standard error may be closed.
    let _ = writeln!(io::stderr(), "dunlin-agent: {error:#}");
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_flags_are_sound() {
        Cli::command().debug_assert();
    }
}
