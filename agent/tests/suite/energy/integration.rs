//! How far the ledger's joules are from the truth.

use super::stand::{Outcome, Script, Setup, measure};
use dunlin_agent::energy::phase::Phase;
use std::fmt::Write;

fn drafting() -> Script {
    let mut script = Script::new(7);
    while script.length() < 60_000_000 {
        let tokens = 2 + (script.draw() * 6.0) as u32;
        for _ in 0..tokens {
            let micros = 30_000 + (script.draw() * 30_000.0) as u64;
            let watts = 6.5 + 0.6 * script.draw();
            script.step(Phase::Draft, micros, watts);
            script.step(Phase::Score, 900, 4.6);
        }
        script.step(Phase::Send, 300, 4.0);
        script.step(Phase::Wait, 4_000, 4.1);
        let micros = 40_000 + (script.draw() * 120_000.0) as u64;
        script.step(Phase::Wait, micros, 2.9);
        script.end_round();
    }
    script
}

fn square() -> Script {
    let mut script = Script::new(7);
    while script.length() < 60_000_000 {
        script.step(Phase::Draft, 40_000, 6.8);
        script.step(Phase::Wait, 61_000, 2.7);
        script.end_round();
    }
    script
}

fn fast() -> Script {
    let mut script = Script::new(9);
    while script.length() < 6_000_000 {
        for _ in 0..4 {
            let micros = 1_000 + (script.draw() * 1_000.0) as u64;
            script.step(Phase::Draft, micros, 6.8);
            script.step(Phase::Score, 150, 4.6);
        }
        script.step(Phase::Send, 50, 4.0);
        script.step(Phase::Wait, 4_000, 2.9);
        let micros = (script.draw() * 4_000.0) as u64;
        script.step(Phase::Wait, micros, 2.9);
        script.end_round();
    }
    script
}

fn row(table: &mut String, name: &str, outcome: &Outcome) {
    writeln!(
        table,
        "{name:<24} {:>6.1} {:>8.3} {:>8.3} {:>8.3} {:>8.3}",
        outcome.samples_per_second,
        100.0 * outcome.total(),
        100.0 * outcome.median(),
        100.0 * outcome.p95(),
        100.0 * outcome.split()
    )
    .unwrap();
}

pub fn table() {
    let mut table = String::new();
    for (shape, script) in [("drafting", drafting()), ("square", square()), ("fast", fast())] {
        for (shunt, bus, slowed) in
            [(1, 1, 0), (8, 8, 0), (16, 1, 0), (32, 32, 0), (128, 128, 0), (128, 128, 1_000_000)]
        {
            let setup = Setup { slowed_to: slowed, ..Setup::averaged(shunt, bus) };
            row(&mut table, &format!("{shape} {shunt}/{bus} {slowed}"), &measure(&script, &setup));
        }
    }
    println!("{table}");
}
