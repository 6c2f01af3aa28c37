//! CPU time of the demo drafter on tract: one token, and chunks, after a fixed context.

mod support;

use anyhow::{Context, Result};
use dunlin_lm::{Draft, ModelDir};
use dunlin_lm_tract::Drafter;
use serde_json::json;
use support::{PAST, argmax, case, cpu, model, repeat, report, tokens};

const CHUNKS: [usize; 3] = [1, 4, 64];

fn main() -> Result<()> {
    let dir = ModelDir::open(model("drafter")).context("the demo drafter")?;
    let (mut drafter, _) = Drafter::load(&dir)?;
    drafter.extend(&tokens(0, 0, PAST))?;
    let mut cases = Vec::new();
    for chunk in CHUNKS {
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
