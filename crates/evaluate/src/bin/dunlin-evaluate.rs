//! `make evaluate`: runs a plan and writes its results and report. `dunlin-evaluate pair` assesses a pair of models.

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, value_parser};
use dunlin_evaluate::capacity;
use dunlin_evaluate::channel::ModelledChannel;
use dunlin_evaluate::constants::constants;
use dunlin_evaluate::engine::{self, Options};
use dunlin_evaluate::plan::EvaluationPlan;
use dunlin_evaluate::progress::PlanProgress;
use dunlin_evaluate::report::{self, ReportHeader};
use dunlin_evaluate::worth::conditions::{PairConditions, board};
use dunlin_evaluate::worth::speed::GivenTimes;
use dunlin_evaluate::worth::{PairRequest, assess, prompts};
use std::io::{IsTerminal, stderr};
use std::path::PathBuf;
use std::process::ExitCode;
use tracing_subscriber::filter::LevelFilter;

/// The exit status of a plan or a request that can't be carried out as it stands.
const BAD_REQUEST: u8 = 2;
/// The end of `pair --help`.
const PAIR_HELP: &str = "\
Exit status:
  0  the models fit, and drafting writes more tokens per second than streaming at one round trip at least
  1  failure: a model can't be opened or run, or a file can't be written
  2  bad arguments, prompts, board or channel
  3  the models don't fit
  4  the models fit, but streaming is as fast at every round trip

Paths of --board and --channel are relative to the working directory: run it in the repository, or name them.";

/// Compare policies side by side on a model pair, with modelled boards and channels.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    command: Option<EvaluateCommand>,
    #[command(flatten)]
    plan: PlanFlags,
}

#[derive(Subcommand)]
enum EvaluateCommand {
    /// Assess a pair of models: whether they fit, how often drafts are accepted, and whether drafting pays.
    #[command(after_help = PAIR_HELP)]
    Pair(PairFlags),
}

#[derive(clap::Args)]
struct PlanFlags {
    /// The plan; paths in it are relative to the working directory.
    #[arg(long, value_name = "FILE", default_value = "crates/evaluate/plans/quick.toml")]
    plan: PathBuf,
    /// Directory of the results, the report and finished cells.
    #[arg(long, value_name = "DIR", default_value = "target/evaluation")]
    out: PathBuf,
    /// Compute finished cells again.
    #[arg(long)]
    fresh: bool,
    /// Directory of an encoder (encoder.onnx, tokenizer.json) to compute BERTScore with.
    #[arg(long, value_name = "DIR")]
    bertscore: Option<PathBuf>,
}

#[derive(clap::Args)]
struct PairFlags {
    /// The drafter, as for the agent's --model: a folder, an .onnx file, a folder with model.toml.
    drafter: PathBuf,
    /// The target, as for the verifier's --model: a .gguf file, a folder with one or with model.toml.
    target: PathBuf,
    /// Prompts, one a line, or a JSON list of strings [default: held-out prompts of the demo pair].
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,
    /// Most prompts used, from the first one on.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = value_parser!(u32).range(1..))]
    count: u32,
    /// Most tokens of a reply.
    #[arg(long, value_name = "N", default_value_t = 48, value_parser = value_parser!(u32).range(1..))]
    tokens: u32,
    /// Temperature of both models; top-p and top-k are off.
    #[arg(long, value_name = "T", default_value_t = 0.8)]
    temperature: f32,
    /// The seed of all replies.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Round trips to the verifier, ms.
    #[arg(long, value_name = "MS", value_delimiter = ',', default_values_t = [10.0, 100.0, 600.0])]
    rtt_ms: Vec<f64>,
    /// Time of a drafted token on your board, ms, in place of this machine's (`dunlin-agent check` shows it there).
    #[arg(long, value_name = "MS")]
    draft_ms: Option<f64>,
    /// Time of the target's pass on your server, ms, whatever its size, in place of this machine's.
    #[arg(long, value_name = "MS")]
    pass_ms: Option<f64>,
    /// The board whose powers give the modelled joules.
    #[arg(long, value_name = "FILE", default_value = "boards/rpi4.toml")]
    board: PathBuf,
    /// The channel whose rates, losses and headers count.
    #[arg(long, value_name = "FILE", default_value = "crates/evaluate/channels/wifi.toml")]
    channel: PathBuf,
    /// Directory of pair.json and pair.svg.
    #[arg(long, value_name = "DIR", default_value = "target/pair")]
    out: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Args::parse();
    // What a model's directory warns of must reach the user.
    let log = tracing_subscriber::fmt().with_max_level(LevelFilter::WARN).with_writer(stderr).without_time();
    log.with_target(false).with_ansi(stderr().is_terminal()).init();
    match arguments.command {
        Some(EvaluateCommand::Pair(flags)) => pair(flags),
        None => plan(&arguments.plan),
    }
}

fn plan(flags: &PlanFlags) -> ExitCode {
    let plan = match EvaluationPlan::load(&flags.plan) {
        Ok(plan) => plan,
        Err(error) => return failed(&error, BAD_REQUEST),
    };
    match evaluate(&plan, flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error, 1),
    }
}

fn pair(flags: PairFlags) -> ExitCode {
    let out = flags.out.clone();
    match flags.request() {
        Err(error) => failed(&error, BAD_REQUEST),
        Ok(request) => match judge(&request, out) {
            Ok(status) => ExitCode::from(status),
            Err(error) => failed(&error, 1),
        },
    }
}

fn failed(error: &anyhow::Error, status: u8) -> ExitCode {
    eprintln!("evaluate: {error:#}");
    ExitCode::from(status)
}

impl PairFlags {
    /// The request, checked as far as it can be without the models.
    fn request(self) -> Result<PairRequest> {
        let count = self.count as usize;
        let prompts = match &self.prompts {
            Some(path) => prompts::read(path, count)?,
            None => prompts::built_in(count)?,
        };
        let conditions = PairConditions {
            tokens_max: self.tokens as usize,
            temperature: self.temperature,
            seed: self.seed,
            rtt_ms: self.rtt_ms,
            given: GivenTimes { draft_ms: self.draft_ms, pass_ms: self.pass_ms },
            board: board(&self.board)?,
            channel: ModelledChannel::load(&self.channel)?,
        };
        conditions.check()?;
        Ok(PairRequest { drafter: self.drafter, target: self.target, prompts, conditions })
    }
}

/// Assesses a pair and prints its report; the exit status.
#[expect(clippy::print_stdout, reason = "the report is what the program says")]
fn judge(request: &PairRequest, out: PathBuf) -> Result<u8> {
    let mut lines = stderr();
    let progress = if lines.is_terminal() {
        PlanProgress::bar("prompts")
    } else {
        PlanProgress::lines("prompts", &mut lines)
    };
    let report = assess(request, &progress)?;
    report.write(&out)?;
    print!("{}", report.text());
    if let Some(problem) = report.fit.problem() {
        eprintln!("evaluate: {problem}");
    }
    eprintln!("Figures: {}", out.display());
    Ok(report.verdict().exit_status())
}

#[expect(clippy::print_stdout, reason = "where the report is is what the program says")]
fn evaluate(plan: &EvaluationPlan, flags: &PlanFlags) -> Result<()> {
    let (out, mut lines) = (&flags.out, stderr());
    let progress = if lines.is_terminal() {
        PlanProgress::bar("cells")
    } else {
        PlanProgress::lines("cells", &mut lines)
    };
    let options = Options { out, fresh: flags.fresh, workers: None, bertscore: flags.bertscore.as_deref() };
    let results = engine::run(plan, options, &progress)?;
    let header = ReportHeader {
        plan: plan.name.clone(),
        pair: results.pair,
        prompts: plan.prompts,
        tokens_max: plan.tokens_max,
        seed: plan.seed,
        replies: results.records.iter().map(|record| record.replies).sum(),
        capacity: capacity::measure(plan).context("the capacity of one verifier")?,
        constants: constants(plan)?,
    };
    report::write(&header, &results.records, &results.tokens, out).context("the report")?;
    println!("Report: {}", out.join("report.md").display());
    Ok(())
}
