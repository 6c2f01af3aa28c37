//! CPU time of a target on candle: one token, chunks, and ragged batches of many sessions.
//!
//! Arguments, both optional: a model instead of the demo target, and shapes as `SESSIONSxTOKENS,…`.

mod support;

use anyhow::{Context, Result, ensure};
use dunlin_lm::{Extend, ModelDir, Target};
use dunlin_lm_candle::CandleTarget;
use serde_json::{Value, json};
use support::{PAST, argmax, argument, case, cpu, model, repeat, report, shapes, tokens};

/// Number of sessions and tokens of each; every token's logits are requested.
const SHAPES: [(usize, usize); 5] = [(1, 1), (1, 4), (1, 64), (8, 4), (32, 4)];
/// Most bytes of the caches of all sessions.
const KV_BYTES_MAX: usize = 1 << 30;

fn main() -> Result<()> {
    ensure!(dunlin_lm_candle::threads() == 1, "set CANDLE_NUM_THREADS=1: the peers have one thread too");
    let dir = ModelDir::open(model("target")).context("the target")?;
    let mut target = CandleTarget::load(&dir, KV_BYTES_MAX)?;
    let shapes = argument(1).map_or(Ok(SHAPES.to_vec()), |text| shapes(&text))?;
    let measured = shapes.into_iter().map(|(sessions, chunk)| measure(&mut target, sessions, chunk));
    let cases = measured.collect::<Result<Vec<_>>>()?;
    report(&json!({"engine": "candle", "cases": cases}))
}

/// Session `i` holds `i % 4` tokens less than the others, so that the batch is ragged in its contexts.
fn past(session: usize) -> usize {
    PAST - session % 4
}

fn measure(target: &mut CandleTarget, sessions: usize, chunk: usize) -> Result<Value> {
    let mut open = Vec::new();
    for session in 0..sessions {
        let (id, prompt) = (target.open()?, tokens(session, 0, past(session)));
        extend(target, &[Extend { session: id, keep: 0, tokens: &prompt, rows: 0 }])?;
        open.push((id, past(session), tokens(session, past(session), past(session) + chunk)));
    }
    let batch: Vec<Extend<'_>> = open
        .iter()
        .map(|(session, keep, tokens)| Extend { session: *session, keep: *keep, tokens, rows: chunk })
        .collect();
    let mut best = Vec::new();
    let ms = repeat(|| {
        let started = cpu();
        let rows = extend(target, &batch)?;
        let took = cpu() - started;
        best = argmax(rows.iter().flat_map(|rows| rows.chunks_exact(rows.len() / chunk)));
        Ok(took)
    })?;
    open.iter().for_each(|(id, ..)| target.close(*id));
    Ok(case(sessions, chunk, &ms, &best))
}

fn extend(target: &mut CandleTarget, batch: &[Extend<'_>]) -> Result<Vec<Vec<f32>>> {
    Ok(target.extend(batch).into_iter().collect::<dunlin_lm::Result<_>>()?)
}
