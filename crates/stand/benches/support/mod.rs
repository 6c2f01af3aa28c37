//! Shared by the bench programs: the clock, the repetition of runs, the tokens, and the line of JSON at the end.
//!
//! The programs in `bench/peers` do the same with their engines; keep both in step.
#![allow(dead_code)] // each program uses its part

pub(crate) mod mqtt;

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use std::io::{Write, stdout};
use std::path::PathBuf;
use std::time::Duration;

/// Tokens in a context before the measured ones.
pub(crate) const PAST: usize = 64;
/// Runs that are discarded.
const WARM_UP: usize = 3;
/// Least and most runs that are kept.
const REPEATS: (usize, usize) = (7, 200);
/// CPU time after which the least number of runs suffices.
const ENOUGH: Duration = Duration::from_millis(400);

/// CPU time of this process, all threads together.
pub(crate) fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Milliseconds of each kept run. `run` measures itself, so that its preparation doesn't count.
///
/// # Errors
/// Those of `run`.
pub(crate) fn repeat(mut run: impl FnMut() -> Result<Duration>) -> Result<Vec<f64>> {
    for _ in 0..WARM_UP {
        run()?;
    }
    let (mut kept, mut spent) = (Vec::new(), Duration::ZERO);
    while kept.len() < REPEATS.0 || (spent < ENOUGH && kept.len() < REPEATS.1) {
        let took = run()?;
        spent += took;
        kept.push(took.as_secs_f64() * 1e3);
    }
    Ok(kept)
}

/// The token at `position` of `session`. Any token will do, but every engine must get the same.
pub(crate) fn token(session: usize, position: usize) -> u32 {
    (5 + (position * 37 + session * 101) % 2000) as u32
}

/// Tokens `from` to `to` of `session`.
pub(crate) fn tokens(session: usize, from: usize, to: usize) -> Vec<u32> {
    (from..to).map(|position| token(session, position)).collect()
}

/// The index of the largest logit of each row, on which the engines should agree.
pub(crate) fn argmax<'a>(rows: impl Iterator<Item = &'a [f32]>) -> Vec<usize> {
    let best = |row: &[f32]| (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b]));
    rows.filter_map(best).collect()
}

/// One case of a model: `sessions` contexts, each extended by `chunk` tokens in one pass.
pub(crate) fn case(sessions: usize, chunk: usize, ms: &[f64], argmax: &[usize]) -> Value {
    json!({"sessions": sessions, "chunk": chunk, "ms": ms, "argmax": argmax})
}

/// The argument at `index`; cargo's own flag doesn't count.
pub(crate) fn argument(index: usize) -> Option<String> {
    std::env::args().skip(1).filter(|argument| argument != "--bench").nth(index)
}

/// The model that the first argument names, or else that of the checkout's demo pair.
pub(crate) fn model(role: &str) -> PathBuf {
    let demo = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/demo").join(role);
    argument(0).map_or_else(demo, PathBuf::from)
}

/// Sessions and tokens of each, from a text such as `1x1,8x4`.
///
/// # Errors
/// The text has another form.
pub(crate) fn shapes(text: &str) -> Result<Vec<(usize, usize)>> {
    let shape = |part: &str| {
        let (sessions, tokens) = part.split_once('x')?;
        Some((sessions.parse().ok()?, tokens.parse().ok()?))
    };
    let shapes: Option<Vec<_>> = text.split(',').map(shape).collect();
    shapes.with_context(|| format!("{text:?} is no list of shapes such as 1x1,8x4"))
}

/// Writes the program's one line.
///
/// # Errors
/// Standard output is closed.
pub(crate) fn report(value: &Value) -> Result<()> {
    writeln!(stdout(), "{value}").context("standard output")
}
