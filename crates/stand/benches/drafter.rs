//! CPU time of a drafter on tract: one token, and chunks, after a fixed context.
//!
//! Arguments, both optional: a model instead of the demo drafter, and chunks as `1xTOKENS,…`.

mod support;

use anyhow::{Context, Result};
use dunlin_lm::{Draft, ModelDir};
use dunlin_lm_tract::Drafter;
use serde_json::json;
use support::{PAST, argmax, argument, case, cpu, model, repeat, report, shapes, tokens};

const CHUNKS: [(usize, usize); 3] = [(1, 1), (1, 4), (1, 64)];

fn main() -> Result<()> {
    let dir = ModelDir::open(model("drafter")).context("the drafter")?;
    let (mut drafter, _) = Drafter::load(&dir)?;
    drafter.extend(&tokens(0, 0, PAST))?;
    let mut cases = Vec::new();
    let shapes = argument(1).map_or(Ok(CHUNKS.to_vec()), |text| shapes(&text))?;
    for (_, chunk) in shapes {
        let new = tokens(0, PAST, PAST + chunk);
        let mut best = Vec::new();
        let ms = repeat(|| {
            drafter.truncate(PAST);
            let started = cpu();
            let rows = drafter.extend(&new)?;
            let took = cpu() - started;
            best = argmax((0..rows.len()).map(|row| rows.logits(row)));
            Ok(took)
        })?;
        cases.push(case(1, chunk, &ms, &best));
    }
    report(&json!({"engine": "tract", "cases": cases}))
}
