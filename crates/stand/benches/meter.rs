//! The cost of the meter: processor time of its thread at its default rate, and the drafter's speed with and without
//! it.
//!
//! The sensor, chip and bus included, is simulated in the meter's own thread. With a real one the thread would sleep in
//! the kernel instead, so both figures are upper bounds.

mod support;

use anyhow::{Context, Result};
use dunlin_board::PowerTable;
use dunlin_hlm::device::DeviceCounters;
use dunlin_lm::{Draft, ModelDir};
use dunlin_lm_tract::Drafter;
use dunlin_power::EnergyAccount;
use dunlin_power::phase::EnergyPhase;
use dunlin_power::settings::PowerSettings;
use serde_json::json;
use std::time::{Duration, Instant};
use support::{model, report, token, tokens};

/// Blocks with and without a meter; they alternate, so that a disturbance affects both.
const BLOCKS: usize = 12;
/// Tokens of a block, each behind a context of `support::PAST`.
const TOKENS: usize = 400;
/// Longest wait for a reply's energy.
const KNOWN_WITHIN: Duration = Duration::from_secs(5);

/// One block with a meter.
struct Metered {
    seconds: f64,
    cpu_share: f64,
    samples_per_second: f64,
    realtime: bool,
}

fn main() -> Result<()> {
    let (mut drafter, _) = Drafter::load(&ModelDir::open(model("drafter"))?)?;
    draft(&mut drafter, None)?;
    let (mut alone, mut metered) = (Vec::new(), Vec::new());
    for _ in 0..BLOCKS {
        alone.push(draft(&mut drafter, None)?);
        metered.push(beside_a_meter(&mut drafter)?);
    }
    let beside: Vec<f64> = metered.iter().map(|block| block.seconds).collect();
    let shares: Vec<f64> = metered.iter().map(|block| block.cpu_share).collect();
    let rates: Vec<f64> = metered.iter().map(|block| block.samples_per_second).collect();
    let per_second = |seconds: f64| TOKENS as f64 / seconds;
    report(&json!({
        "what": "meter",
        "tokens_per_second_alone": per_second(median(&alone)),
        "tokens_per_second_beside": per_second(median(&beside)),
        "ratio": median(&alone) / median(&beside),
        "meter_cpu_share": median(&shares),
        "samples_per_second": median(&rates),
        "realtime": metered.iter().all(|block| block.realtime),
    }))
}

fn beside_a_meter(drafter: &mut Drafter) -> Result<Metered> {
    let settings = PowerSettings::of(PowerTable::default(), Some("simulated"))?;
    let mut energy = EnergyAccount::start(&settings, 1, EnergyPhase::Idle)?;
    let started = energy.clock().now();
    energy.begin_reply(started);
    // The thread reports its processor time once a second.
    let mut seconds = 0.0;
    let mut blocks = 0;
    while energy.clock().now().since(started).as_secs_f64() < 1.2 {
        seconds += draft(drafter, Some(&mut energy))?;
        blocks += 1;
    }
    energy.end_reply(&DeviceCounters::default(), energy.clock().now());
    let waiting = Instant::now();
    let turn = loop {
        let known = energy.poll_reply(energy.clock().now());
        if known.is_some() || waiting.elapsed() > KNOWN_WITHIN {
            break known.context("the meter gives no reading")?;
        }
        std::thread::yield_now();
    };
    Ok(Metered {
        seconds: seconds / f64::from(blocks),
        cpu_share: turn.meter.cpu_share,
        samples_per_second: turn.span.samples as f64 / turn.span.time().as_secs_f64(),
        realtime: turn.meter.realtime,
    })
}

/// Seconds for a block of tokens. With a meter, phases are marked as in the agent's loop.
fn draft(drafter: &mut Drafter, mut energy: Option<&mut EnergyAccount>) -> Result<f64> {
    drafter.truncate(0);
    drafter.extend(&tokens(0, 0, support::PAST))?;
    let started = Instant::now();
    for position in 0..TOKENS {
        if let Some(energy) = energy.as_deref_mut() {
            energy.mark(EnergyPhase::Draft, energy.clock().now());
        }
        drafter.truncate(support::PAST);
        drafter.extend(&[token(0, position)])?;
        if let Some(energy) = energy.as_deref_mut() {
            energy.mark(EnergyPhase::Score, energy.clock().now());
            energy.take_in(energy.clock().now());
        }
    }
    Ok(started.elapsed().as_secs_f64())
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
