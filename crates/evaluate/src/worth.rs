//! `dunlin-evaluate pair`: whether a drafter and a target fit, and whether drafting pays against streaming.
//!
//! Invariant: texts, distributions, frames and bytes are real. Times are this machine's or given, and every energy is
//! modelled. Whatever a figure assumes is in the report.

pub mod agreement;
pub mod conditions;
pub mod figures;
pub mod fit;
pub mod prompts;
pub mod report;
mod show;
pub mod speed;
pub mod traffic;

use super::cell::{EvaluationContext, KnownTokens, References};
use super::dice::mix;
use super::engine::load_pair;
use super::pair::{Memory, Pair};
use super::plan::EvaluationPlan;
use super::progress::PlanProgress;
use agreement::AgreementSums;
use anyhow::{Context, Result, ensure};
use conditions::PairConditions;
use dunlin_hlm::TokenId;
use dunlin_import::{Loadable, Watch};
use dunlin_lm::{Draft, ModelDir, Role, Target, Tokenizer};
use figures::PairFigures;
use fit::PairFit;
use report::PairReport;
use speed::PairSpeed;
use std::path::{Path, PathBuf};
use traffic::{MACHINE_SIZE, TrafficPlan};

/// Bytes of remembered rows: those of a few replies, so that a policy which writes the target's text costs no pass.
const REMEMBERED_BYTES_MAX: usize = 512 << 20;
/// Tokens of context that every prompt must leave for its reply.
const REPLY_TOKENS_MIN: usize = 16;

/// A pair to assess, and how.
#[derive(Clone, Debug)]
pub struct PairRequest {
    /// The drafter: any form that [`ModelDir::open`] takes, or that can be imported.
    pub drafter: PathBuf,
    /// The target, likewise.
    pub target: PathBuf,
    /// The users' words.
    pub prompts: Vec<String>,
    /// Conditions of the replies.
    pub conditions: PairConditions,
}

/// Two loaded models and what is known of them.
pub struct LoadedPair<'m> {
    /// The drafter.
    pub drafter: Box<dyn Draft + 'm>,
    /// The target.
    pub target: Box<dyn Target + 'm>,
    /// The drafter's tokens.
    pub drafter_tokens: KnownTokens,
    /// The target's tokens.
    pub target_tokens: KnownTokens,
    /// The drafter's tokenizer.
    pub tokenizer: Option<&'m Tokenizer>,
    /// The prompts in the drafter's form.
    pub prompts: Vec<Vec<TokenId>>,
    /// Tokens at which the device ends a reply.
    pub stop: Vec<TokenId>,
    /// Speeds that are known already; `None` to measure them.
    pub speed: Option<PairSpeed>,
}

/// Assesses a pair. One that doesn't fit is not loaded, and its report has no figures.
///
/// # Errors
/// A model can't be opened, loaded or run, or a prompt doesn't fit a context.
pub fn assess(request: &PairRequest, progress: &PlanProgress<'_>) -> Result<PairReport> {
    let drafter = ModelDir::open(loadable(&request.drafter, Role::Drafter, progress)?)?;
    let target = ModelDir::open(loadable(&request.target, Role::Target, progress)?)?;
    let fit = PairFit::of(&drafter, &target)?;
    let mut report = PairReport::new(&drafter, &target, fit);
    if report.fit.problem().is_some() {
        return Ok(report);
    }
    let first_turn =
        |prompt: &String| drafter.first_turn(prompt).with_context(|| format!("prompt {prompt:?}"));
    let prompts = request.prompts.iter().map(first_turn).collect::<Result<_>>()?;
    progress.note(&format!("Loading {} and {}", drafter.name, target.name));
    let (own, other, warnings) = load_pair(&drafter, &target)?;
    report.remarks.extend(warnings);
    let loaded = LoadedPair {
        drafter: own,
        target: other,
        drafter_tokens: KnownTokens::of(&drafter),
        target_tokens: KnownTokens::of(&target),
        tokenizer: Some(&drafter.tokenizer),
        prompts,
        stop: drafter.prompt.stop.clone(),
        speed: None,
    };
    let figures = figures(loaded, &request.conditions, progress)?;
    report.remarks.extend(figures.speed.warning());
    let shorter = figures.tokens_max < request.conditions.tokens_max;
    report.remarks.extend(shorter.then(|| {
        format!("replies have at most {} tokens, since a context is full then", figures.tokens_max)
    }));
    report.figures = Some(figures);
    Ok(report)
}

/// The path at which a model can be loaded; it is imported first if it must be.
///
/// # Errors
/// The model can't be imported, or its folder can't be written.
fn loadable(path: &Path, role: Role, progress: &PlanProgress<'_>) -> Result<PathBuf> {
    let pending = match Loadable::of(path, role)? {
        Loadable::At(path) => return Ok(path),
        Loadable::Pending(pending) => pending,
    };
    progress.note(&pending.to_string());
    let report = pending.run(&mut Watch::new(&mut |_, _| true))?;
    report.iter().flat_map(|report| &report.notices).for_each(|notice| progress.note(notice));
    Ok(pending.out)
}

/// The figures of two loaded models.
///
/// # Errors
/// A model fails, or a prompt doesn't fit a context.
pub fn figures(
    mut loaded: LoadedPair<'_>,
    conditions: &PairConditions,
    progress: &PlanProgress<'_>,
) -> Result<PairFigures> {
    let sampling = conditions.sampling()?;
    let tokens_max = tokens_max(&loaded, conditions.tokens_max)?;
    let speed = match loaded.speed.take() {
        Some(speed) => speed,
        None => {
            progress.note("Measuring the time of a draft and of a pass");
            let prompt = loaded.prompts.first().context("no prompts")?;
            let (drafter, target) = (loaded.drafter.as_mut(), loaded.target.as_mut());
            speed::measure(drafter, target, prompt, &sampling, conditions.seed)?
        }
    };
    let shared_size = loaded.drafter_tokens.vocabulary.size.min(loaded.target_tokens.vocabulary.size);
    let times = speed.times(&conditions.given, &conditions.board.modelled, shared_size);
    let traffic = TrafficPlan::new(conditions, &times, shared_size);
    traffic.check(longest(&loaded.prompts)?)?;
    let plan = EvaluationPlan { tokens_max, ..traffic.plan(conditions) };
    let context = EvaluationContext {
        plan: &plan,
        tokenizer: loaded.tokenizer,
        drafter: loaded.drafter_tokens,
        target: loaded.target_tokens,
        prompts: loaded.prompts,
        stop: loaded.stop,
        size: MACHINE_SIZE,
        references: References::default(),
        encoder: None,
    };
    let memory = Memory::new(REMEMBERED_BYTES_MAX);
    let mut pair = Pair::new(loaded.drafter, loaded.target, &memory)?;
    let mut sums = AgreementSums::new(shared_size);
    let mut runs =
        plan.cells.iter().map(|cell| context.begin(&mut pair, cell)).collect::<Result<Vec<_>>>()?;
    progress.start(context.prompts.len(), 0);
    // Prompt by prompt, so that the rows of a reply are remembered until every cell has written it.
    for (i, prompt) in context.prompts.iter().enumerate() {
        let seed = mix(&[plan.seed, i as u64, 0]);
        let reply = pair.reference(prompt, tokens_max, &context.stop, &sampling, seed)?;
        sums.add(&mut pair, prompt, &reply, &sampling)?;
        for run in &mut runs {
            context.answer(&mut pair, run, i)?;
        }
        progress.tick(reply.len() as u64);
    }
    progress.finish();
    let records: Vec<_> = runs.into_iter().map(|run| run.end().record).collect();
    Ok(PairFigures {
        prompts: context.prompts.len(),
        tokens_max,
        temperature: conditions.temperature,
        seed: conditions.seed,
        agreement: sums.settle(),
        speed,
        times,
        board: conditions.board.name.clone(),
        channel: conditions.channel.name.clone(),
        round_trips: traffic::compare(&records),
    })
}

/// The number of tokens of the longest prompt.
fn longest(prompts: &[Vec<TokenId>]) -> Result<usize> {
    prompts.iter().map(Vec::len).max().context("no prompts")
}

/// The tokens of a reply, fewer than asked for where a context would be full before.
fn tokens_max(loaded: &LoadedPair<'_>, asked: usize) -> Result<usize> {
    let context = loaded.drafter.context_max().min(loaded.target.context_max());
    let longest = longest(&loaded.prompts)?;
    ensure!(
        longest + REPLY_TOKENS_MIN <= context,
        "a prompt has {longest} tokens in its form, and a context holds {context}: shorten it, so that \
         {REPLY_TOKENS_MIN} are left for the reply"
    );
    Ok(asked.min(context - longest))
}
