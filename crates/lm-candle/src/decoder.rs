//! A decoder from a GGUF file as a [`Target`]: grouped-query attention, rotary positions, a gated MLP, and the rows of
//! all sessions in one pass. The architectures and how they differ are in `architecture`.
//!
//! Invariant: a pass is a flat list of rows, each a token at a position of a session. Matrices are multiplied for all
//! rows at once, the rest is computed per row, and neither mixes rows. So a token gives the same bits in a batch, in a
//! chunk and alone.

mod architecture;
mod config;
mod rotary;
mod weights;
mod windows;

use crate::gguf::Gguf;
use crate::kv::{CacheSize, Caches, KvRows, KvType, Widened};
use crate::math::{Activation, Heads, Rotation, Scoring, add, rms_norm, scale, soft_cap};
use crate::matrix::threads;
use crate::numerics;
use config::{Config, LayerKind};
use dunlin_lm::identity::cache::{Stamp, kept_digest};
use dunlin_lm::identity::model_digest;
use dunlin_lm::target::check_part;
use dunlin_lm::{
    Error, Extend, LoadProgress, LoadStep, ModelDir, Promise, Result, Role, SessionId, Target,
    TargetIdentity, Vocabulary,
};
use std::path::Path;
use std::thread;
use weights::{Layer, Weights};

/// Rows in one pass; longer batches and prompts are cut.
const PASS_ROWS_MAX: usize = 256;

/// Rows from which candle multiplies tiles, on processors with AMX.
const TILE_ROWS: usize = 32;

/// Multiplications in one layer's attention per thread; below it another thread costs more than it saves.
const THREAD_WORK_MIN: usize = 1 << 22;

/// A decoder held in memory, with the caches of its sessions.
#[derive(Debug)]
pub struct CandleTarget {
    config: Config,
    weights: Weights,
    /// The tokens whose logits are given out; the embedding may have more rows.
    vocabulary: Vocabulary,
    context_max: usize,
    caches: Caches,
    identity: TargetIdentity,
}

/// One row of a pass.
#[derive(Clone, Copy, Debug)]
struct Row {
    session: SessionId,
    token: u32,
    position: usize,
    /// Index of the batch's part that requested this row's logits; `None` if no part did.
    wanted_by: Option<usize>,
}

impl CandleTarget {
    /// Loads the GGUF file of `dir`; the caches of all sessions together may hold `kv_bytes_max` bytes.
    pub fn load(dir: &ModelDir, kv_bytes_max: usize) -> Result<Self> {
        Self::load_with(dir, kv_bytes_max, Box::new(|_, _, _| {}))
    }

    /// Like [`Self::load`], with a receiver of the progress.
    pub fn load_with(dir: &ModelDir, kv_bytes_max: usize, progress: LoadProgress) -> Result<Self> {
        if dir.role == Some(Role::Drafter) {
            return Err(Error::value(&dir.path, "role", "target", "drafter"));
        }
        let mut gguf = Gguf::open(&dir.weights, progress)?;
        let mut config = Config::read(&gguf)?;
        check_embedding(&dir.weights, &config, dir.rows)?;
        let weights = Weights::read(&mut gguf, &mut config)?;
        let context_max = dir.context_max.min(config.context_length);
        let (layers, width) = (config.layers.len(), config.heads.kv_width());
        let size = CacheSize { kind: KvType::default(), layers, width, positions_max: context_max };
        let caches = Caches::new(size, kv_bytes_max);
        let (stamp, progress) = (gguf.stamp(), gguf.into_progress());
        let identity = identity(dir, stamp, &config, progress)?;
        Ok(Self { config, weights, vocabulary: dir.vocabulary, context_max, caches, identity })
    }

    /// The target with caches of this type. Another type gives other bits, so it is another target.
    pub fn with_kv_type(mut self, kind: KvType) -> Self {
        self.caches = self.caches.with(kind);
        self.identity.numerics = numerics::numerics(kind);
        self
    }

    /// Checks part `index` of a batch, reserves the room it needs and rolls its session back.
    fn admit(&mut self, batch: &[Extend<'_>], index: usize) -> Result<()> {
        let part = &batch[index];
        let length = self.caches.get(part.session)?.len();
        check_part(batch, index, length, self.context_max, self.config.vocabulary as u32)?;
        // Reserved before the rollback, so that a part that is refused leaves its session as it was.
        self.caches.reserve(part.session, part.keep + part.tokens.len())?;
        self.truncate(part.session, part.keep)
    }

    /// Rolls back a failed batch: every admitted part fails, and its session keeps its first `keep` tokens.
    fn fail(&mut self, batch: &[Extend<'_>], answers: &mut [Result<Vec<f32>>], error: &Error) {
        for (part, answer) in batch.iter().zip(answers).filter(|(_, answer)| answer.is_ok()) {
            let undone = self.truncate(part.session, part.keep);
            *answer = undone.and(Err(Error::engine("target", error)));
        }
    }

    /// Runs one pass over `rows` and returns the logits of the wanted ones, in order.
    fn pass(&mut self, rows: &[Row]) -> Result<Vec<f32>> {
        let Config { epsilon, .. } = self.config;
        let activation = self.config.architecture.activation;
        let tokens: Vec<u32> = rows.iter().map(|row| row.token).collect();
        let rotations: Vec<Vec<Rotation>> = self
            .config
            .rotary
            .iter()
            .map(|rotary| rows.iter().map(|row| rotary.at(row.position)).collect())
            .collect();
        let mut hidden = self.weights.embedding.gather(&tokens)?;
        if self.config.architecture.scales_embedding {
            scale(&mut hidden, (self.config.hidden as f32).sqrt());
        }
        for index in 0..self.config.layers.len() {
            let mixed = self.attention(index, rows, &rotations, &hidden)?;
            add(&mut hidden, &mixed);
            let layer = &self.weights.layers[index];
            let fed = feed_forward(layer, activation, epsilon, &hidden)?;
            add(&mut hidden, &fed);
        }
        // Lengths advance only after the last layer, so that a pass that fails leaves no half-written position behind.
        for row in rows {
            self.caches.get_mut(row.session)?.advance(1);
        }
        let wanted = hidden.chunks_exact(self.config.hidden).zip(rows);
        let wanted: Vec<f32> = wanted
            .filter(|(_, row)| row.wanted_by.is_some())
            .flat_map(|(hidden, _)| hidden.iter().copied())
            .collect();
        if wanted.is_empty() {
            return Ok(wanted);
        }
        let mut logits = self.weights.logits(&rms_norm(&wanted, &self.weights.norm, epsilon))?;
        if let Some(cap) = self.config.logit_cap {
            soft_cap(&mut logits, cap);
        }
        Ok(logits)
    }

    /// The attention block of one layer: writes the rows' keys and values, and returns the summand for `hidden`.
    fn attention(
        &mut self,
        index: usize,
        rows: &[Row],
        rotations: &[Vec<Rotation>],
        hidden: &[f32],
    ) -> Result<Vec<f32>> {
        let Config { heads, epsilon, temperature, .. } = self.config;
        let layer = &self.weights.layers[index];
        let input = rms_norm(hidden, &layer.attention_norm, epsilon);
        let (mut queries, mut keys) = (layer.query.of(&input)?, layer.key.of(&input)?);
        let values = layer.value.of(&input)?;
        if let Some([query_norm, key_norm]) = &layer.head_norms {
            queries = rms_norm(&queries, query_norm, epsilon);
            keys = rms_norm(&keys, key_norm, epsilon);
        }
        let rotations = self.config.layers[index].rotary.map(|rotary| &rotations[rotary]);
        let width = heads.kv_width();
        for (i, row) in rows.iter().enumerate() {
            let query = &mut queries[i * heads.query_width()..(i + 1) * heads.query_width()];
            let (key, value) = (&mut keys[i * width..(i + 1) * width], &values[i * width..(i + 1) * width]);
            if let Some(rotations) = rotations {
                rotations[i].apply(query, heads.dim);
                rotations[i].apply(key, heads.dim);
            }
            if let Some(temperature) = temperature {
                scale(query, temperature.at(row.position));
            }
            self.caches.get_mut(row.session)?.write(index, row.position, key, value);
        }
        // All keys and values of the pass are written first: rows of one session see those of the rows before them.
        let mixed = self.attend(index, rows, &queries)?;
        let layer = &self.weights.layers[index];
        let mixed = layer.output.of(&mixed)?;
        Ok(match &layer.post_norms {
            Some([norm, _]) => rms_norm(&mixed, norm, epsilon),
            None => mixed,
        })
    }

    /// Attention of every row, `[rows × query_width]`, on as many threads as pay off.
    fn attend(&self, index: usize, rows: &[Row], queries: &[f32]) -> Result<Vec<f32>> {
        let Config { heads, scoring, .. } = self.config;
        let LayerKind { window, .. } = self.config.layers[index];
        let mut work = Vec::with_capacity(rows.len());
        for (row, query) in rows.iter().zip(queries.chunks_exact(heads.query_width())) {
            // A row reads only up to its own position, which is the causal mask, and back to the window's beginning.
            let end = row.position + 1;
            let hidden = window.map_or(0, |window| end.saturating_sub(window)) * heads.kv_width();
            let (keys, values) = self.caches.get(row.session)?.read(index, end);
            work.push((query, keys.skip(hidden), values.skip(hidden)));
        }
        let mut mixed = vec![0.0; queries.len()];
        let multiplications: usize =
            work.iter().map(|(_, keys, _)| keys.len() / heads.kv * heads.query * 2).sum();
        let parts = (multiplications / THREAD_WORK_MIN).clamp(1, threads());
        let share = rows.len().div_ceil(parts);
        if parts == 1 {
            attend_rows(heads, scoring, &work, &mut mixed);
            return Ok(mixed);
        }
        thread::scope(|scope| {
            for (work, mixed) in work.chunks(share).zip(mixed.chunks_mut(share * heads.query_width())) {
                scope.spawn(move || attend_rows(heads, scoring, work, mixed));
            }
        });
        Ok(mixed)
    }
}

impl Target for CandleTarget {
    fn vocabulary(&self) -> Vocabulary {
        self.vocabulary
    }

    fn context_max(&self) -> usize {
        self.context_max
    }

    fn identity(&self) -> &TargetIdentity {
        &self.identity
    }

    fn promise(&self) -> Promise {
        Promise::Exact
    }

    fn cache_bytes_per_token(&self) -> u64 {
        self.caches.size().bytes(1) as u64
    }

    /// Runs small batches, because candle packs a matrix at the first product with it. A single row would not use every
    /// kind of packed matrix.
    fn warm_up(&mut self) -> Result<()> {
        let passes: &[usize] = if numerics::has_amx() { &[2, TILE_ROWS] } else { &[2] };
        for rows in passes {
            let tokens = vec![0; self.context_max.min(*rows)];
            let session = self.open()?;
            let part = Extend { session, keep: 0, tokens: &tokens, rows: tokens.len() };
            let answer = self.extend(&[part]).pop();
            self.close(session);
            answer.transpose()?;
        }
        Ok(())
    }

    fn open(&mut self) -> Result<SessionId> {
        Ok(self.caches.open())
    }

    fn fork(&mut self, session: SessionId, len: usize) -> Result<Option<SessionId>> {
        self.caches.fork(session, len).map(Some)
    }

    fn extend(&mut self, batch: &[Extend<'_>]) -> Vec<Result<Vec<f32>>> {
        let width = self.vocabulary.size as usize;
        let rows_width = self.config.vocabulary;
        let mut answers: Vec<Result<Vec<f32>>> = Vec::with_capacity(batch.len());
        let mut rows = Vec::new();
        for (index, part) in batch.iter().enumerate() {
            // A part that is refused fails alone; the others still run.
            let admitted = self.admit(batch, index);
            if admitted.is_ok() {
                rows.extend(rows_of(part, index));
            }
            answers.push(admitted.map(|()| Vec::with_capacity(part.rows * width)));
        }
        // A pass may end in the middle of a part: rows don't depend on each other's pass, so the bits stay the same.
        for pass in rows.chunks(PASS_ROWS_MAX) {
            match self.pass(pass) {
                Ok(logits) => hand_out(pass, &logits, (rows_width, width), &mut answers),
                Err(error) => {
                    self.fail(batch, &mut answers, &error);
                    break;
                }
            }
        }
        answers
    }

    fn truncate(&mut self, session: SessionId, len: usize) -> Result<()> {
        self.caches.get_mut(session)?.truncate(len);
        Ok(())
    }

    fn len(&self, session: SessionId) -> Result<usize> {
        Ok(self.caches.get(session)?.len())
    }

    fn close(&mut self, session: SessionId) {
        self.caches.close(session);
    }
}

/// A row's queries, and the keys and values of the positions that it sees.
type Attended<'a> = (&'a [f32], KvRows<'a>, KvRows<'a>);

fn attend_rows(heads: Heads, scoring: Scoring, work: &[Attended<'_>], mixed: &mut [f32]) {
    let mut scores = Vec::new();
    let (mut wide_keys, mut wide_values) = (Widened::default(), Widened::default());
    for ((query, keys, values), output) in work.iter().zip(mixed.chunks_exact_mut(heads.query_width())) {
        let (keys, values) = (wide_keys.read(*keys), wide_values.read(*values));
        heads.attend(scoring, query, keys, values, &mut scores, output);
    }
}

/// The MLP block of one layer: the summand for `hidden`.
fn feed_forward(layer: &Layer, activation: Activation, epsilon: f32, hidden: &[f32]) -> Result<Vec<f32>> {
    let input = rms_norm(hidden, &layer.ffn_norm, epsilon);
    let mut gate = layer.gate.of(&input)?;
    activation.gate(&mut gate, &layer.up.of(&input)?);
    let fed = layer.down.of(&gate)?;
    Ok(match &layer.post_norms {
        Some([_, norm]) => rms_norm(&fed, norm, epsilon),
        None => fed,
    })
}

/// The rows of part `index` of a batch; the logits of the last `part.rows` are wanted.
fn rows_of<'a>(part: &'a Extend<'a>, index: usize) -> impl Iterator<Item = Row> + 'a {
    let first_wanted = part.tokens.len() - part.rows;
    part.tokens.iter().enumerate().map(move |(i, &token)| Row {
        session: part.session,
        token,
        position: part.keep + i,
        wanted_by: (i >= first_wanted).then_some(index),
    })
}

/// Appends the logits of a pass to the answers of the parts that requested them: the first `width` of each row of
/// `rows_width`. What is behind them is padding, which no token stands for and no text may contain.
fn hand_out(
    pass: &[Row],
    logits: &[f32],
    (rows_width, width): (usize, usize),
    answers: &mut [Result<Vec<f32>>],
) {
    let wanted = pass.iter().filter_map(|row| row.wanted_by);
    for (part, logits) in wanted.zip(logits.chunks_exact(rows_width)) {
        if let Ok(answer) = &mut answers[part] {
            answer.extend_from_slice(&logits[..width]);
        }
    }
}

/// The identity of the target in `dir`, whose file had the stamp `opened` before it was loaded.
fn identity(
    dir: &ModelDir,
    opened: Stamp,
    config: &Config,
    mut progress: LoadProgress,
) -> Result<TargetIdentity> {
    let hashed = &mut |done, total| progress(LoadStep::Hashing, done, total);
    let tensors = kept_digest(&dir.weights, opened, hashed)?;
    let weights = model_digest(&tensors, &config.settings());
    let (engine, numerics) = (numerics::ENGINE.into(), numerics::numerics(KvType::default()));
    Ok(TargetIdentity { model: dir.name.clone(), weights, engine, numerics })
}

fn check_embedding(path: &Path, config: &Config, rows: u32) -> Result<()> {
    if config.vocabulary == rows as usize {
        return Ok(());
    }
    let expected = format!("{rows} tokens");
    Err(Error::value(path, "tensor token_embd.weight", expected, config.vocabulary))
}
