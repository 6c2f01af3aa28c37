//! CPU time of encoding and decoding a frame and its verdict, and the proof that the same loop allocates nothing.

mod support;

use allocation_counter::measure;
use anyhow::{Context, Result, ensure};
use dunlin_wire::{Down, Draft, DraftFrame, LogTime, Rows, Score, Up, Verdict, frame_check, token_bits};
use serde_json::json;
use std::hint::black_box;
use std::time::Duration;
use support::{cpu, repeat, report, token};

/// Vocabulary of the demo pair.
const VOCABULARY: u32 = 2048;
/// Drafts in the frame.
const DRAFTS: usize = 8;
/// Repetitions of each step between two readings of the clock.
const LOOPS: u32 = 2000;

fn main() -> Result<()> {
    let frame = frame()?;
    let up = frame.encode()?;
    let verdict = Down::Verdict(Verdict {
        session: 1,
        epoch: 2,
        round: 3,
        check: frame_check(&up),
        send: 1,
        pass: LogTime(0),
        queue: LogTime(0),
        accepted: DRAFTS as u8,
        token: token(0, DRAFTS),
        missed: 0,
    });
    let down = verdict.encode()?;
    let steps = json!({
        "frame_encode": step(|| black_box(&frame).encode().is_ok())?,
        "frame_decode": step(|| Up::decode(black_box(&up)).is_ok())?,
        "verdict_encode": step(|| black_box(&verdict).encode().is_ok())?,
        "verdict_decode": step(|| Down::decode(black_box(&down)).is_ok())?,
    });
    report(&json!({"steps": steps, "frame_bytes": up.len(), "verdict_bytes": down.len()}))
}

fn frame() -> Result<DraftFrame> {
    let (uncertainty, importance) = (Score::new(3).context("a score")?, Score::new(9).context("a score")?);
    let draft = |position| Draft { token: token(0, position), uncertainty, importance };
    Ok(DraftFrame {
        session: 1,
        epoch: 2,
        round: 3,
        send: 1,
        base: 64,
        prefix: [0x5a, 0xa5],
        token_bits: token_bits(VOCABULARY),
        drafts: (0..DRAFTS).map(draft).collect(),
        held: 0,
        bonus: true,
        rows: Rows::None,
        credit: None,
    })
}

/// Nanoseconds of one step in each run; fails if any run allocates.
fn step(mut step: impl FnMut() -> bool) -> Result<serde_json::Value> {
    let (mut good, mut allocations) = (true, 0);
    let ms = repeat(|| {
        let mut took = Duration::ZERO;
        let counted = measure(|| {
            let started = cpu();
            for _ in 0..LOOPS {
                good &= black_box(step());
            }
            took = cpu() - started;
        });
        allocations += counted.count_total;
        Ok(took / LOOPS)
    })?;
    ensure!(good, "a message of this bench is refused");
    ensure!(allocations == 0, "{allocations} allocations where there must be none");
    let ns: Vec<f64> = ms.iter().map(|ms| ms * 1e6).collect();
    Ok(json!({"ns": ns, "allocations": allocations}))
}
