//! Power profiles of boards, with exactly known energy.

use super::stand::Script;
use dunlin_power::phase::EnergyPhase;

/// Phases of the demo drafter's replies, as `serve` marked them on a desktop machine.
const RECORDED: &str = include_str!("drafting.csv");

pub(super) fn constant() -> Script {
    let mut script = Script::new(1);
    for _ in 0..60 {
        script.step(EnergyPhase::Draft, 1_000_000, 4.0);
        script.end_round();
    }
    script
}

pub(super) fn square() -> Script {
    let mut script = Script::new(2);
    while script.length() < 60_000_000 {
        script.step(EnergyPhase::Draft, 40_000, 6.8);
        script.step(EnergyPhase::Wait, 61_000, 2.7);
        script.end_round();
    }
    script
}

/// Tokens of 30 to 60 ms, and a radio that is active for 4 ms after each frame.
pub(super) fn bursts() -> Script {
    let mut script = Script::new(3);
    while script.length() < 60_000_000 {
        let tokens = 2 + (script.draw() * 6.0) as u32;
        for _ in 0..tokens {
            let (micros, watts) = (30_000.0 + 30_000.0 * script.draw(), 6.5 + 0.6 * script.draw());
            script.step(EnergyPhase::Draft, micros as u64, watts);
            script.step(EnergyPhase::Score, 900, 4.6);
        }
        script.step(EnergyPhase::Send, 300, 4.0);
        script.step(EnergyPhase::Wait, 4_000, 4.1);
        let micros = 40_000.0 + 120_000.0 * script.draw();
        script.step(EnergyPhase::Wait, micros as u64, 2.9);
        script.end_round();
    }
    script
}

/// The recorded phases, stretched by `times`, repeated for about 20 s. A round ends when a message is sent.
pub(super) fn recorded(times: u64) -> Script {
    let steps: Vec<(EnergyPhase, u64)> = RECORDED.lines().skip(1).map(recorded_step).collect();
    let mut script = Script::new(4);
    while script.length() < 20_000_000 {
        for (phase, micros) in &steps {
            if *phase == EnergyPhase::Send {
                script.end_round();
            }
            // The drafter's power varies from step to step.
            let more = if *phase == EnergyPhase::Draft { 0.4 * script.draw() } else { 0.0 };
            script.step(*phase, micros * times, watts(*phase) + more);
        }
    }
    script
}

fn recorded_step(line: &str) -> (EnergyPhase, u64) {
    let (name, micros) = line.split_once(',').expect("two columns");
    let phase = EnergyPhase::ALL.into_iter().find(|phase| phase.name() == name).expect("a phase");
    (phase, micros.parse().expect("microseconds"))
}

fn watts(phase: EnergyPhase) -> f64 {
    match phase {
        EnergyPhase::Load | EnergyPhase::Draft => 6.6,
        EnergyPhase::Score => 4.6,
        EnergyPhase::Send => 5.0,
        EnergyPhase::Wait => 2.9,
        EnergyPhase::Idle => 2.7,
    }
}
