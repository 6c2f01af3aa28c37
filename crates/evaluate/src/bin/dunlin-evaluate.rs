//! `make evaluate`: runs a plan and writes its results and report.

use anyhow::{Context, Result};
use clap::Parser;
use dunlin_evaluate::capacity;
use dunlin_evaluate::constants::constants;
use dunlin_evaluate::engine::{self, Options};
use dunlin_evaluate::plan::EvaluationPlan;
use dunlin_evaluate::progress::PlanProgress;
use dunlin_evaluate::report::{self, ReportHeader};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

/// The exit status of a plan that can't be run.
const BAD_PLAN: u8 = 2;

/// Compare policies side by side on a model pair, with modelled boards and channels.
#[derive(Parser)]
struct Args {
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

fn main() -> ExitCode {
    let arguments = Args::parse();
    let plan = match EvaluationPlan::load(&arguments.plan) {
        Ok(plan) => plan,
        Err(error) => {
            eprintln!("evaluate: {error:#}");
            return ExitCode::from(BAD_PLAN);
        }
    };
    match evaluate(&plan, &arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("evaluate: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "where the report is is what the program says")]
fn evaluate(plan: &EvaluationPlan, arguments: &Args) -> Result<()> {
    let (out, mut stderr) = (&arguments.out, std::io::stderr());
    let progress = if stderr.is_terminal() { PlanProgress::bar() } else { PlanProgress::lines(&mut stderr) };
    let options =
        Options { out, fresh: arguments.fresh, workers: None, bertscore: arguments.bertscore.as_deref() };
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
