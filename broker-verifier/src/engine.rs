//! Selects the target's engine: a GGUF file run by candle or llama.cpp, or a server under `[remote]`. No other module
//! calls an engine.

pub(crate) mod llamacpp;

use crate::config::{CacheType, Config, EngineName};
use anyhow::{Context, Result};
use dunlin_hlm::passes::MeasuredPasses;
use dunlin_hlm::time::Duration;
use dunlin_import::{Loadable, Watch};
use dunlin_lm::{
    Chooser, CouplingProfile, Extend, LoadStep, ModelDir, Promise, Role, Target, TargetIdentity, Vocabulary,
};
pub use dunlin_lm_candle::threads;
use dunlin_lm_candle::{CandleTarget, KvType, THREADS_VARIABLE};
pub use dunlin_lm_remote::Comparison;
use dunlin_lm_remote::RemoteTarget;
use dunlin_service::LoadingView;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use std::{env, process, thread};

/// A target of either kind.
pub enum TargetEngine {
    /// It returns rows of logits, from which the protocol machine draws.
    Rows(Box<dyn Target>),
    /// It returns the tokens that it chose.
    Choices(Arc<dyn Chooser>),
}

impl TargetEngine {
    /// The tokens the target knows.
    pub fn vocabulary(&self) -> Vocabulary {
        match self {
            Self::Rows(target) => target.vocabulary(),
            Self::Choices(chooser) => chooser.vocabulary(),
        }
    }

    /// The most tokens one session can hold.
    pub fn context_max(&self) -> usize {
        match self {
            Self::Rows(target) => target.context_max(),
            Self::Choices(chooser) => chooser.context_max(),
        }
    }

    /// The target's identity.
    pub fn identity(&self) -> &TargetIdentity {
        match self {
            Self::Rows(target) => target.identity(),
            Self::Choices(chooser) => chooser.identity(),
        }
    }

    /// Runs the first passes of a target that is loaded here, so that no device has to wait for them; returns the
    /// durations that were measured.
    ///
    /// # Errors
    /// A pass fails, or `kv_mib` is too small for it.
    pub fn warm_up(&mut self) -> Result<MeasuredPasses> {
        match self {
            Self::Rows(target) => warm_up(target.as_mut()),
            Self::Choices(_) => Ok(MeasuredPasses::default()),
        }
    }

    /// The rule by which its choices are drawn from a session's seed.
    pub fn coupling(&self) -> CouplingProfile {
        match self {
            Self::Rows(_) => CouplingProfile::SplitMix,
            Self::Choices(chooser) => chooser.coupling(),
        }
    }

    /// The target's promise about its choices.
    pub fn promise(&self) -> Promise {
        match self {
            Self::Rows(target) => target.promise(),
            Self::Choices(chooser) => chooser.promise(),
        }
    }
}

/// A target that was opened.
pub struct OpenedTarget {
    /// The model's folder: of a target on a server, its tokenizer alone.
    pub dir: ModelDir,
    /// The target.
    pub engine: TargetEngine,
    /// The engine in this process in words, if there is more to say than its identity does.
    pub described: Option<String>,
    /// The comparison of a server with the folder.
    pub comparison: Option<Comparison>,
}

/// Opens the configured target: loads it, or connects to its server.
///
/// # Errors
/// Names the file or the server, and the problem.
pub async fn open(config: &Config) -> Result<OpenedTarget> {
    let Some(remote) = &config.remote else {
        let (dir, target, described) = load(config)?;
        tracing::info!(model = %dir.name, vocabulary = %dir.vocabulary, threads = threads(), identity = %target.identity(), promise = target.promise().name(), "target loaded");
        described.iter().for_each(|described| tracing::info!("{described}"));
        return Ok(OpenedTarget { dir, engine: TargetEngine::Rows(target), described, comparison: None });
    };
    let path = config.model()?;
    let dir = ModelDir::open_tokenizer(path).with_context(|| format!("target {}", path.display()))?;
    let target = RemoteTarget::connect(remote, &dir).await.context("the target's server")?;
    let comparison = target.comparison().clone();
    let Comparison { agree, unknown } = &comparison;
    tracing::info!(model = %dir.name, vocabulary = %dir.vocabulary, identity = %target.identity(), "target connected");
    tracing::info!("compared with {}: {}", path.display(), agree.join(", "));
    tracing::warn!("not compared: {}", unknown.join(", "));
    tracing::info!("{PLAIN_ONLY}");
    let engine = TargetEngine::Choices(Arc::new(target));
    Ok(OpenedTarget { dir, engine, described: None, comparison: Some(comparison) })
}

/// The policies that a target on a server serves.
pub const PLAIN_ONLY: &str = "policies served: those that send drafts under the shared seed and hold none \
    (lossless, remote, stream, auto); a device with another one is refused";

/// The path of the target that the model at `path` can be loaded as. A folder of safetensors is imported on first use.
///
/// # Errors
/// The model can't be imported, or its folder can't be written.
fn loadable(path: &Path) -> Result<PathBuf> {
    let pending = match Loadable::of(path, Role::Target)? {
        Loadable::At(path) => return Ok(path),
        Loadable::Pending(pending) => pending,
    };
    let out = pending.out.display();
    tracing::info!("{pending}");
    let mut view = LoadingView::new("target");
    // Safetensors hold numbers of 2 bytes, most often.
    let report = pending.run(&mut Watch::new(&mut |done, total| {
        view.show("importing weights", 2 * done, 2 * total);
        true
    }));
    drop(view);
    if let Some(report) = report? {
        report.notices.iter().for_each(|notice| tracing::warn!("{notice}"));
        tracing::info!("{out}: {} MiB of weights", report.bytes.div_ceil(1 << 20));
    }
    Ok(pending.out)
}

/// Loads the configured target, and shows the progress; also the engine in words.
///
/// # Errors
/// Names the file and the problem.
fn load(config: &Config) -> Result<(ModelDir, Box<dyn Target>, Option<String>)> {
    let path = &loadable(config.model()?)?;
    let dir = ModelDir::open(path).with_context(|| format!("target {}", path.display()))?;
    let mut view = LoadingView::new("target");
    let progress = Box::new(move |step, done, total| {
        let step = match step {
            LoadStep::Searching => "checking weights",
            LoadStep::Trying => "trying weights",
            LoadStep::Reading => "reading weights",
            LoadStep::Hashing => "hashing weights",
        };
        view.show(step, done, total);
    });
    if config.engine == EngineName::Llamacpp {
        let (target, described) = llamacpp::load(config, &dir, threads(), progress)?;
        return Ok((dir, target, described));
    }
    let target = CandleTarget::load_with(&dir, config.kv_mib << 20, progress);
    let target = target.with_context(|| format!("target {}", path.display()))?;
    let kind = match config.cache_type() {
        CacheType::F32 => KvType::F32,
        CacheType::F16 => KvType::F16,
    };
    Ok((dir, Box::new(target.with_kv_type(kind)), None))
}

/// Runs the target's first passes, so that no device has to wait for them, and logs their duration.
///
/// # Errors
/// A pass fails, or `kv_mib` is too small for it.
fn warm_up(target: &mut dyn Target) -> Result<MeasuredPasses> {
    let failed = "the target's first pass failed; if its cache is full, raise kv_mib";
    let started = Instant::now();
    target.warm_up().context(failed)?;
    let measured = measured(target).context(failed)?;
    tracing::info!(seconds = started.elapsed().as_secs_f32(), memory_mib = memory_mib(), "target warmed up");
    Ok(measured)
}

/// The durations of passes of some sizes.
fn measured(target: &mut dyn Target) -> dunlin_lm::Result<MeasuredPasses> {
    let (mut passes, context_max) = (MeasuredPasses::default(), target.context_max());
    while let Some(count) = passes.next_tokens().filter(|count| *count <= context_max) {
        let (session, tokens) = (target.open()?, vec![0; count]);
        let started = Instant::now();
        let part = Extend { session, keep: 0, tokens: &tokens, rows: count };
        let answer = target.extend(&[part]).pop();
        let took = started.elapsed();
        target.close(session);
        answer.transpose()?;
        passes.push(count, Duration(u64::try_from(took.as_micros()).unwrap_or(u64::MAX)));
    }
    Ok(passes)
}

/// Memory of this process in MiB; `None` if the system doesn't report it.
pub fn memory_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib >> 10)
}

/// Restarts this program if the engine's variables aren't the wanted ones: the number of its threads, and what decides the
/// kernels of llama.cpp. Engines read them from the environment, which a running program must not change.
///
/// # Errors
/// The program can't be restarted.
pub fn set_variables(config: &Config) -> Result<()> {
    let wanted = wanted_variables(config, |name| env::var(name).ok());
    if wanted.is_empty() {
        return Ok(());
    }
    let program = env::current_exe().context("this program's path")?;
    let mut again = process::Command::new(program);
    Err(again.args(env::args_os().skip(1)).envs(wanted).exec()).context("setting the engine's variables")
}

/// The variables that aren't set as the engine needs them, with their values.
fn wanted_variables(config: &Config, set: impl Fn(&str) -> Option<String>) -> Vec<(&'static str, String)> {
    let mut wanted = Vec::new();
    if config.threads.is_some() || set(THREADS_VARIABLE).is_none() {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let threads = config.threads.unwrap_or(cores.saturating_sub(1).max(1));
        wanted.push((THREADS_VARIABLE, threads.to_string()));
    }
    if config.engine == EngineName::Llamacpp {
        wanted.extend(llamacpp::VARIABLES.iter().map(|(name, value)| (*name, (*value).to_owned())));
    }
    wanted.retain(|(name, value)| set(name).as_ref() != Some(value));
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_restarts_only_for_a_variable_that_differs() {
        let config = Config { threads: Some(3), ..Config::default() };
        assert_eq!(wanted_variables(&config, |_| None), [(THREADS_VARIABLE, "3".to_owned())]);
        assert_eq!(wanted_variables(&config, |_| Some("3".into())), []);
        let unset = Config::default();
        assert_eq!(wanted_variables(&unset, |_| Some("7".into())), [], "the environment's number applies");
        assert_eq!(wanted_variables(&unset, |_| None).len(), 1);
        let other = Config { engine: EngineName::Llamacpp, ..config };
        let wanted = wanted_variables(&other, |name| (name == THREADS_VARIABLE).then(|| "3".into()));
        assert_eq!(wanted.len(), llamacpp::VARIABLES.len());
    }
}
