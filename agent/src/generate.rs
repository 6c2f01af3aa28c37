//! `generate`: one prompt, one reply, one report.

use crate::config::Settings;
use crate::exit::{DONE, FAILED, INTERRUPTED, NO_BROKER, REFUSED, TIMED_OUT};
use crate::flags::{ReplyFlags, seconds};
use crate::notice::Notice;
use crate::output::Output;
use crate::report::{self, Report};
use crate::run::{Control, Say, User};
use crate::screen::Colour;
use crate::setup::{self, Parts};
use crate::terminal::{Terminal, abilities};
use crate::turn::{Ending, Turn};
use anyhow::{Context, Result, bail};
use dunlin_hlm::device::{Finish, ReplyLimits};
use dunlin_hlm::probabilities::Sampling;
use dunlin_lm::ModelDir;
use dunlin_power::EnergyAccount;
use dunlin_power::report::TurnEnergy;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;

/// Flags of `generate`.
#[derive(Debug, clap::Args)]
pub struct GenerateFlags {
    /// The prompt; - reads standard input.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: String,
    #[command(flatten)]
    pub(crate) reply: ReplyFlags,
    /// Time limit for the reply.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<Duration>,
    /// Measure the idle board for this long, before the model is loaded and after the reply.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    idle_seconds: Option<Duration>,
    /// Write only a JSON report to standard output.
    #[arg(long, conflicts_with = "report")]
    json: bool,
    /// Write a JSON report to a file.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write the reply only when it is complete.
    #[arg(long)]
    no_stream: bool,
}

/// Writes one reply; returns the exit code.
///
/// # Errors
/// The model can't be loaded, the prompt is not taken, or the reply or its report can't be written.
pub async fn generate(args: &GenerateFlags, settings: &Settings, sampling: Sampling) -> Result<u8> {
    let prompt = prompt(&args.prompt)?;
    let mut parts = Parts::open(settings)?;
    let model = parts.model.clone();
    let tokens = model.first_turn(&prompt)?;
    if let Some(span) = args.idle_seconds {
        parts.energy.measure_idle(tokio::time::sleep(span)).await;
    }
    let loaded = parts.load().await?;
    let vocabulary = loaded.vocabulary;
    let agent = loaded.agent(&args.reply.conduct(true), sampling)?;
    let streams = !(args.json || args.no_stream);
    let mut out = Terminal::new(&model.tokenizer, vocabulary, args.reply.color(), streams, true);
    // Until the report is written: a first interrupt that nobody hears ends the process.
    let mut user = user(args, &model, tokens)?;
    let mut farewell = agent.run(&mut user, &mut out).await?;
    let failure = out.failure();
    let turn = match out.into_last() {
        (Some(turn), _) => turn,
        (None, Some(error)) => return Err(error).context("prompt"),
        (None, None) => bail!("the reply never began"),
    };
    // A process writes only one reply, so the cost of its disconnection belongs to the reply.
    let energy = idle_after(args, &mut user, &mut farewell.energy, turn.energy).await;
    let turn = Turn { counters: farewell.counters, traffic: farewell.traffic, energy, ..turn };
    let text = model.tokenizer.decode(&turn.tokens);
    let report = Report::new(&turn, &prompt, text, settings.policy.name(), &sampling);
    write(args, &report)?;
    let errors = abilities(args.reply.color(), &io::stderr());
    if !args.json {
        report::summary(&turn, errors);
    }
    if let Some(problem) = turn.ending.problem(&vocabulary) {
        report::line(errors, Colour::Red, &format!("dunlin-agent: {problem}"));
    }
    match failure {
        Some(error) => Err(error).context("standard output"),
        None => Ok(exit_code(&turn.ending)),
    }
}

/// The energy of a reply, with what the idle board drew before and after it; an interrupt ends the measurement.
async fn idle_after(
    args: &GenerateFlags,
    user: &mut User,
    meter: &mut EnergyAccount,
    energy: Option<TurnEnergy>,
) -> Option<TurnEnergy> {
    if let Some(span) = args.idle_seconds {
        let interrupted = async { while user.controls.recv().await.is_some_and(|c| c != Control::Cancel) {} };
        // Either way it has an end, and what was measured by then counts.
        let end = async { drop(tokio::time::timeout(span, interrupted).await) };
        meter.measure_idle(end).await;
    }
    let idle = meter.idle();
    energy.map(|energy| TurnEnergy { idle, ..energy })
}

/// The prompt that an argument names.
pub(crate) fn prompt(argument: &str) -> Result<String> {
    if argument != "-" {
        return Ok(argument.into());
    }
    let mut text = String::new();
    io::stdin().read_to_string(&mut text).context("standard input")?;
    Ok(text.trim_end_matches(['\r', '\n']).into())
}

/// A user with one prompt, who can interrupt it, and whose time limit can end it.
fn user(args: &GenerateFlags, model: &ModelDir, tokens: Vec<u32>) -> Result<User> {
    let (prompt, prompts) = mpsc::channel(1);
    let (user, control) = setup::user(prompts, Control::Cancel)?;
    let timeout = args.timeout;
    let reply = ReplyLimits { tokens_max: args.reply.text.max_tokens, stop: model.prompt.stop.clone() };
    prompt.try_send(Say { tokens, first: None, reply, new_session: false }).context("the first prompt")?;
    tokio::spawn(async move {
        match timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
        // Ignore the error: an agent that has ended needs no reminder.
        let _ = control.try_send(Control::TimedOut);
    });
    Ok(user)
}

fn write(args: &GenerateFlags, report: &Report) -> Result<()> {
    let mut out = io::stdout();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(report)?).context("standard output")?;
    } else if args.no_stream {
        writeln!(out, "{}", report.text).context("standard output")?;
    }
    if let Some(path) = &args.report {
        let json = serde_json::to_string_pretty(report)?;
        std::fs::write(path, json + "\n").with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// The exit code for how a reply ended.
pub(crate) fn exit_code(ending: &Ending) -> u8 {
    match ending {
        Ending::Machine(Finish::Stop | Finish::TokensMax | Finish::ContextFull) => DONE,
        Ending::Machine(Finish::Cancelled) => INTERRUPTED,
        Ending::Machine(
            Finish::Refused(_) | Finish::Rejected | Finish::LossyRefused | Finish::OtherTarget { .. },
        )
        | Ending::OtherModel(_)
        | Ending::UnknownToken(_) => REFUSED,
        Ending::Machine(Finish::DrafterFailed) | Ending::DrafterFailed(_) => FAILED,
        Ending::BrokerRefused(_) | Ending::TimedOut(Some(Notice::NoBroker(_))) => NO_BROKER,
        Ending::TimedOut(_) => TIMED_OUT,
    }
}
