//! Thousands of sessions on a hostile link, each compared with an oracle that has no protocol.
//!
//! `DUNLIN_SIM_SEED=N` replays one run, `DUNLIN_SIM_RUNS=N` plays more of them.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and speak")]

use dunlin_sim::world::{Coverage, run};
use std::sync::atomic::{AtomicU64, Ordering};

/// Runs of one test run: one and a half sessions each.
const RUNS: u64 = 16_000;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

fn play(seed: u64) -> Coverage {
    let run = std::panic::catch_unwind(|| run(seed));
    match run {
        Ok(Ok(coverage)) => coverage,
        Ok(Err(wrong)) => panic!("{}\nreplay with DUNLIN_SIM_SEED={seed}", wrong.0),
        Err(_) => panic!("a panic inside the run\nreplay with DUNLIN_SIM_SEED={seed}"),
    }
}

fn play_all(runs: u64) -> Coverage {
    let next = AtomicU64::new(0);
    let worker = || {
        let mut sum = Coverage::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= runs {
                return sum;
            }
            sum.add(&play(seed));
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        let mut sum = Coverage::default();
        for worker in workers {
            sum.add(&worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        sum
    })
}

#[test]
fn every_session_is_what_the_oracle_says() {
    if let Some(seed) = number("DUNLIN_SIM_SEED") {
        println!("{:#?}", play(seed));
        return;
    }
    let sum = play_all(number("DUNLIN_SIM_RUNS").unwrap_or(RUNS));
    println!("{sum:#?}");
    assert!(sum.sessions >= 20_000, "{} sessions", sum.sessions);
    let reached = [
        ("resent", sum.device.resent),
        ("context chunks", sum.device.context_up),
        ("bytes sent", sum.device.payload_bytes_up),
        ("bytes received", sum.device.payload_bytes_down),
        ("resyncs", sum.device.resyncs),
        ("malformed at devices", sum.device.malformed),
        ("stale at devices", sum.device.stale),
        ("unverified", sum.device.unverified),
        ("trusted", sum.device.trusted),
        ("audited", sum.device.audited),
        ("missed", sum.device.missed),
        ("missed at verifiers", sum.verifier.missed),
        ("gave up", sum.gave_up),
        ("returned", sum.returned),
        ("changed models", sum.changed_models),
        ("changed numerics", sum.changed_numerics),
        ("replies ended by another target", sum.other_targets),
        ("tokens streamed", sum.device.streamed),
        ("tokens written on credit", sum.verifier.written),
        ("repeated answers", sum.verifier.repeated),
        ("messages that a verifier works", sum.verifier.working),
        ("lessors that were lost", sum.device.lessors_lost),
        ("refusals", sum.verifier.refusals),
        ("evictions", sum.verifier.evicted),
        ("malformed at verifiers", sum.verifier.malformed),
        ("stale at verifiers", sum.verifier.stale),
    ];
    for (what, count) in reached {
        assert!(count >= 50, "{what} happened {count} times: the plans no longer reach it");
    }
}
