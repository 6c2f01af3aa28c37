//! Runs all cells of a plan: skips the known ones, plays the others on several threads, and writes the files.

use super::cell::{EvaluationContext, KnownTokens, PlayedCell, References};
use super::pair::{Memory, Pair};
use super::plan::{Cell, EvaluationPlan, Size, Writer, prompts};
use super::progress::PlanProgress;
use super::record::{CellRecord, TokenRecord};
use super::store::{FORMAT, Store, hash};
use anyhow::{Context, Result, anyhow, ensure};
use dunlin_hlm::TokenId;
use dunlin_lm::{Draft, ModelDir, Target};
use dunlin_lm_candle::{CandleTarget, threads};
use dunlin_lm_tract::{Drafter, Encoder};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{ScopedJoinHandle, available_parallelism, scope};

/// Bytes of remembered rows, all threads together.
const MEMORY_BYTES_MAX: usize = 1_536 << 20;
/// Bytes of one target's key/value cache.
const TARGET_CACHE_BYTES: usize = 64 << 20;
/// Bytes of the key/value cache of a target of any size that writes one text at a time: the text's length is the limit.
const LONE_CACHE_BYTES_MAX: usize = usize::MAX;

/// A drafter in its engine.
pub(crate) type BoxedDraft = Box<dyn Draft>;
/// A target in its engine.
pub(crate) type BoxedTarget = Box<dyn Target>;

/// The results of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Results {
    /// One for each cell, in the plan's order.
    pub records: Vec<CellRecord>,
    /// The results of the default policy's tokens.
    pub tokens: Vec<TokenRecord>,
    /// Cells that were played now; the others were known.
    pub played: usize,
    /// The pair's name.
    pub pair: String,
}

/// Makes a pair for each thread.
pub trait MakePair: Sync {
    /// A pair that shares `memory`.
    ///
    /// # Errors
    /// A model can't be loaded.
    fn make<'m>(&self, memory: &'m Memory) -> Result<Pair<'m>>;
}

/// The models' directories.
pub(crate) struct Dirs {
    pub(crate) drafter: ModelDir,
    target: ModelDir,
}

/// Options of a run.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Directory of the results and finished cells.
    pub out: &'a Path,
    /// True to play finished cells again.
    pub fresh: bool,
    /// Number of threads; `None` for as many as the machine has room for.
    pub workers: Option<usize>,
    /// The directory of an encoder for BERTScore.
    pub bertscore: Option<&'a Path>,
}

/// Runs a plan on the pair it names and writes `results.csv` and `tokens.csv`.
///
/// # Errors
/// A model can't be loaded or fails, or a file can't be written.
pub fn run(plan: &EvaluationPlan, options: Options<'_>, progress: &PlanProgress<'_>) -> Result<Results> {
    let dirs = Dirs::open(&plan.pair)?;
    let drafter = &dirs.drafter;
    let shared = EvaluationContext {
        plan,
        tokenizer: Some(&drafter.tokenizer),
        drafter: KnownTokens::of(drafter),
        target: KnownTokens::of(&dirs.target),
        prompts: dirs.prompts(plan)?,
        stop: drafter.prompt.stop.clone(),
        size: dirs.size(plan)?,
        references: References::default(),
        encoder: options.bertscore.map(|dir| Encoder::load(dir).map(Mutex::new)).transpose()?,
    };
    // A target has threads of its own that spin: with more threads than cores they would wait for each other.
    let room = available_parallelism().map_or(1, usize::from) / threads().max(1);
    let options = Options { workers: options.workers.or(Some(room.max(1))), ..options };
    let fingerprint = match options.bertscore {
        Some(dir) => format!("{} {}", dirs.fingerprint()?, contents(dir)?),
        None => dirs.fingerprint()?,
    };
    let mut results = play_all(&shared, &dirs, &fingerprint, options, progress)?;
    results.pair = format!("{} and {}", drafter.name, dirs.target.name);
    Ok(results)
}

/// Plays the unknown cells of a plan and writes `results.csv` and `tokens.csv`; `fingerprint` identifies the model
/// pair.
///
/// # Errors
/// A model can't be loaded or fails, or a file can't be written.
pub fn play_all(
    shared: &EvaluationContext<'_>,
    make: &dyn MakePair,
    fingerprint: &str,
    options: Options<'_>,
    progress: &PlanProgress<'_>,
) -> Result<Results> {
    let store = Store::open(options.out)?;
    let cells = &shared.plan.cells;
    let hashes: Vec<String> = cells.iter().map(|cell| identity(shared, fingerprint, cell)).collect();
    let known = |hash: &String| if options.fresh { None } else { store.get(hash) };
    let found: Vec<Option<PlayedCell>> = hashes.iter().map(known).collect();
    let todo: Vec<usize> = (0..cells.len()).filter(|i| found[*i].is_none()).collect();
    progress.start(todo.len(), cells.len() - todo.len());
    let groups = groups(cells, &todo);
    let work = CellQueue {
        shared,
        groups: &groups,
        hashes: &hashes,
        store: &store,
        progress,
        next: AtomicUsize::new(0),
    };
    let played = work.play(make, options.workers.unwrap_or(1));
    progress.finish();
    let mut played = played?;
    let done = found.into_iter().enumerate().map(|(i, known)| known.or_else(|| played.remove(&i)));
    let done: Vec<PlayedCell> = done.collect::<Option<_>>().context("a cell was not played")?;
    let tokens = done.iter().flat_map(|done| done.tokens.iter().cloned()).collect();
    let records = done.into_iter().map(|done| done.record).collect();
    let results = Results { records, tokens, played: todo.len(), pair: String::new() };
    write_csv(&options.out.join("results.csv"), &results.records)?;
    write_csv(&options.out.join("tokens.csv"), &results.tokens)?;
    Ok(results)
}

/// Groups of cells that mostly share their text. One thread plays a whole group, so that rows are reused.
fn groups(cells: &[Cell], todo: &[usize]) -> Vec<Vec<usize>> {
    let mut groups: Vec<(String, Vec<usize>)> = Vec::new();
    for i in todo {
        let cell = &cells[*i];
        let writer = match &cell.writer {
            Writer::Policy(setting, ..) => format!("{:?}", setting.rules),
            Writer::TargetAgain => String::new(),
        };
        let key = format!("{} {writer}", cell.temperature);
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, group)) => group.push(*i),
            None => groups.push((key, vec![*i])),
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}

/// A hash of everything that a cell depends on.
fn identity(shared: &EvaluationContext<'_>, fingerprint: &str, cell: &Cell) -> String {
    let EvaluationPlan { seed, tokens_max, server, .. } = shared.plan;
    let (prompts, stop, size) = (&shared.prompts, &shared.stop, shared.size);
    let version = env!("CARGO_PKG_VERSION");
    let all = format!(
        "{FORMAT} {version} {fingerprint} {seed} {tokens_max} {server:?} {size:?} {stop:?} {prompts:?} {cell:?}"
    );
    hash(all.as_bytes())
}

/// State shared by the threads.
struct CellQueue<'a, 'p> {
    shared: &'a EvaluationContext<'a>,
    groups: &'a [Vec<usize>],
    hashes: &'a [String],
    store: &'a Store,
    progress: &'a PlanProgress<'p>,
    next: AtomicUsize,
}

impl CellQueue<'_, '_> {
    fn play(&self, make: &dyn MakePair, workers: usize) -> Result<BTreeMap<usize, PlayedCell>> {
        let memory = Memory::new(MEMORY_BYTES_MAX);
        let workers = workers.clamp(1, self.groups.len().max(1));
        let parts: Vec<Result<Vec<(usize, PlayedCell)>>> = scope(|scope| {
            let threads: Vec<_> = (0..workers).map(|_| scope.spawn(|| self.work(make, &memory))).collect();
            let ended = |thread: ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|_| Err(anyhow!("a thread of the evaluation panicked")))
            };
            threads.into_iter().map(ended).collect()
        });
        let parts: Vec<Vec<(usize, PlayedCell)>> = parts.into_iter().collect::<Result<_>>()?;
        Ok(parts.into_iter().flatten().collect())
    }

    /// The work of one thread: plays groups until none is left. After a failure the other threads find none.
    fn work(&self, make: &dyn MakePair, memory: &Memory) -> Result<Vec<(usize, PlayedCell)>> {
        let mut done = Vec::new();
        let mut pair = None;
        while let Some(group) = self.groups.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            for i in group {
                let played = self.cell(&mut pair, make, memory, *i);
                let played = played.inspect_err(|_| self.next.store(self.groups.len(), Ordering::Relaxed))?;
                done.push((*i, played));
            }
        }
        Ok(done)
    }

    fn cell<'m>(
        &self,
        pair: &mut Option<Pair<'m>>,
        make: &dyn MakePair,
        memory: &'m Memory,
        i: usize,
    ) -> Result<PlayedCell> {
        let pair = match pair {
            Some(pair) => pair,
            None => pair.insert(make.make(memory)?),
        };
        let done = self.shared.play(pair, &self.shared.plan.cells[i])?;
        let done = self.store.put(&self.hashes[i], &done)?;
        self.progress.tick(done.record.committed);
        Ok(done)
    }
}

impl Dirs {
    pub(crate) fn open(pair: &Path) -> Result<Self> {
        let (drafter, target) = (ModelDir::open(pair.join("drafter"))?, ModelDir::open(pair.join("target"))?);
        ensure!(
            drafter.vocabulary == target.vocabulary,
            "{}: the drafter knows {}, the target {}",
            pair.display(),
            drafter.vocabulary,
            target.vocabulary
        );
        Ok(Self { drafter, target })
    }

    /// A plan's prompts as tokens.
    pub(crate) fn prompts(&self, plan: &EvaluationPlan) -> Result<Vec<Vec<TokenId>>> {
        let asked = prompts(&plan.pair, plan.prompts)?;
        Ok(asked.iter().map(|prompt| self.drafter.first_turn(prompt)).collect::<Result<_, _>>()?)
    }

    /// The size of a plan's drafter.
    pub(crate) fn size(&self, plan: &EvaluationPlan) -> Result<Size> {
        let weights = &self.drafter.weights;
        let bytes = fs::metadata(weights).with_context(|| weights.display().to_string())?.len();
        Ok(plan.modelled.unwrap_or(Size::of_bytes(bytes)))
    }

    /// The hashes of the weights. The tokenizer affects results only through the prompts and the vocabulary, which are
    /// hashed with each cell.
    fn fingerprint(&self) -> Result<String> {
        let of = |path: &Path| Ok(hash(&fs::read(path).with_context(|| path.display().to_string())?));
        let hashes: Result<Vec<String>> =
            [&self.drafter.weights, &self.target.weights].map(|path| of(path)).into_iter().collect();
        Ok(format!("{} {}", hashes?.join(" "), self.drafter.vocabulary))
    }
}

impl MakePair for Dirs {
    fn make<'m>(&self, memory: &'m Memory) -> Result<Pair<'m>> {
        let (drafter, _) = Drafter::load(&self.drafter)?;
        let target = CandleTarget::load(&self.target, TARGET_CACHE_BYTES)?;
        Pair::new(Box::new(drafter), Box::new(target), memory)
    }
}

/// The two models of a pair, each in its engine, and warnings about weights that run badly.
///
/// # Errors
/// A model is of the other engine's kind, or can't be loaded.
pub(crate) fn load_pair(
    drafter: &ModelDir,
    target: &ModelDir,
) -> Result<(BoxedDraft, BoxedTarget, Vec<String>)> {
    let is = |dir: &ModelDir, kind: &str| dir.weights.extension().is_some_and(|extension| extension == kind);
    ensure!(
        !is(drafter, "gguf"),
        "{}: a GGUF file can't be a drafter: it runs from an ONNX file (docs/models.md)",
        drafter.weights.display()
    );
    ensure!(
        !is(target, "onnx"),
        "{}: an ONNX file can't be a target: it runs from a GGUF file (docs/models.md)",
        target.weights.display()
    );
    let (own, warnings) = Drafter::load(drafter)?;
    let other = CandleTarget::load(target, LONE_CACHE_BYTES_MAX)?;
    let warnings = warnings.iter().map(ToString::to_string).collect();
    Ok((Box::new(own), Box::new(other), warnings))
}

/// A hash of the files in a directory.
fn contents(dir: &Path) -> Result<String> {
    let mut hashes = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.is_file() {
            hashes.push(hash(&fs::read(&path).with_context(|| path.display().to_string())?));
        }
    }
    hashes.sort();
    Ok(hash(hashes.join(" ").as_bytes()))
}

fn write_csv<T: Serialize>(path: &Path, lines: &[T]) -> Result<()> {
    let mut writer =
        csv::Writer::from_path(path).with_context(|| format!("can't write {}", path.display()))?;
    for line in lines {
        writer.serialize(line).with_context(|| format!("can't write {}", path.display()))?;
    }
    writer.flush().with_context(|| format!("can't write {}", path.display()))
}
