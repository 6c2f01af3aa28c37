//! The ledger alone: checks the charged energy, and the behaviour at each limit.

use dunlin_hlm::time::{Duration, Instant};
use dunlin_power::ledger::{Ledger, Sample, Span};
use dunlin_power::phase::{EnergyPhase, PHASES};
use proptest::prelude::*;

const PERIOD: Duration = Duration(10_000);

fn sample(from: u64, until: u64, watts: f64) -> Sample {
    Sample { from: Instant(from), until: Instant(until), watts, clipped: false }
}

/// Readings of whole periods between two moments.
fn read(ledger: &mut Ledger, from: u64, until: u64, watts: impl Fn(u64) -> f64) {
    for at in (from..until).step_by(PERIOD.0 as usize) {
        ledger.handle_sample(&sample(at, at + PERIOD.0, watts(at)));
    }
}

fn spans(ledger: &mut Ledger) -> Vec<Span> {
    std::iter::from_fn(|| ledger.poll_span()).collect()
}

fn ledger(phase: EnergyPhase) -> Ledger {
    Ledger::new(phase, Instant(0), PERIOD)
}

#[test]
fn a_cut_lies_where_it_was_made() {
    let mut ledger = ledger(EnergyPhase::Idle);
    ledger.handle_cut(Instant(33_333));
    read(&mut ledger, 0, 30_000, |_| 3.0);
    assert_eq!(spans(&mut ledger), [], "no reading's middle lies behind the cut");
    read(&mut ledger, 30_000, 50_000, |_| 3.0);
    let [span] = spans(&mut ledger)[..] else { panic!("one span") };
    assert_eq!((span.from, span.until), (Instant(0), Instant(33_333)));
    assert!((span.total_j() - 0.099_999).abs() < 1e-9, "{span:?}");
    // The half period before the middle of the first reading is charged with its power.
    assert_eq!(span.extrapolated, Duration(5_000));
}

#[test]
fn a_slope_is_a_slope() {
    let mut ledger = ledger(EnergyPhase::Draft);
    ledger.handle_sample(&sample(0, 0, 2.0));
    ledger.handle_sample(&sample(10_000, 10_000, 4.0));
    ledger.handle_cut(Instant(2_500));
    ledger.handle_cut(Instant(10_000));
    ledger.settle(Instant(10_000));
    let spans = spans(&mut ledger);
    let ends: Vec<Instant> = spans.iter().map(|span| span.until).collect();
    assert_eq!(ends, [Instant(10_000); 2], "what is charged can't be parted any more");
    let mut ledger = Ledger::new(EnergyPhase::Draft, Instant(0), PERIOD);
    ledger.handle_cut(Instant(2_500));
    ledger.handle_cut(Instant(10_000));
    ledger.handle_sample(&sample(0, 0, 2.0));
    ledger.handle_sample(&sample(10_000, 10_000, 4.0));
    let joules: Vec<f64> = std::iter::from_fn(|| ledger.poll_span()).map(|span| span.total_j()).collect();
    // Mean power of 2.25 W in the first quarter and 3.25 W in the rest.
    assert!((joules[0] - 0.005_625).abs() < 1e-9 && (joules[1] - 0.024_375).abs() < 1e-9, "{joules:?}");
}

#[test]
fn phases_get_what_is_theirs_though_no_reading_is_wholly_theirs() {
    let mut ledger = ledger(EnergyPhase::Wait);
    let draft = |at: u64| at % 7_000 < 3_000;
    for at in (0..2_000_000).step_by(1_000) {
        ledger.handle_phase(if draft(at) { EnergyPhase::Draft } else { EnergyPhase::Wait }, Instant(at));
    }
    let mean = |from: u64| {
        let drafting = (from..from + PERIOD.0).step_by(1_000).filter(|at| draft(*at)).count();
        2.0 + 5.0 * drafting as f64 / 10.0
    };
    ledger.handle_cut(Instant(1_990_000));
    read(&mut ledger, 0, 2_000_000, mean);
    let [span] = spans(&mut ledger)[..] else { panic!("one span") };
    let seconds = span.micros[EnergyPhase::Draft] as f64 / 1e6;
    assert!((span.joules[EnergyPhase::Draft] / (7.0 * seconds) - 1.0).abs() < 0.002, "{span:?}");
    assert!((span.joules[EnergyPhase::Wait] / (2.0 * (1.99 - seconds)) - 1.0).abs() < 0.005, "{span:?}");
    assert!((ledger.power_w(EnergyPhase::Draft, 16.0).unwrap() - 7.0).abs() < 0.01);
    assert_eq!(ledger.power_w(EnergyPhase::Send, 16.0), None, "never seen");
}

#[test]
fn without_a_reading_there_is_time_and_no_joule() {
    let mut ledger = ledger(EnergyPhase::Load);
    ledger.handle_cut(Instant(50_000));
    ledger.settle(Instant(60_000));
    let [span] = spans(&mut ledger)[..] else { panic!("one span") };
    assert_eq!((span.total_j(), span.micros[EnergyPhase::Load], span.samples), (0.0, 50_000, 0));
    assert_eq!(span.extrapolated, Duration(60_000));
}

#[test]
fn the_last_readings_power_goes_on_where_nobody_waits() {
    let mut ledger = ledger(EnergyPhase::Wait);
    read(&mut ledger, 0, 100_000, |_| 2.5);
    ledger.handle_cut(Instant(150_000));
    ledger.settle(Instant(150_000));
    let [span] = spans(&mut ledger)[..] else { panic!("one span") };
    assert!((span.total_j() - 0.375).abs() < 1e-9, "{span:?}");
    assert_eq!(span.extrapolated, Duration(5_000 + 55_000));
    // A reading of a time that is already charged adds no energy.
    ledger.handle_sample(&sample(100_000, 110_000, 900.0));
    ledger.handle_cut(Instant(170_000));
    read(&mut ledger, 160_000, 180_000, |_| 2.5);
    let [span] = spans(&mut ledger)[..] else { panic!("one span") };
    assert!((span.total_j() - 0.05).abs() < 1e-6, "{span:?}");
}

#[test]
fn what_is_no_number_is_a_failed_reading() {
    let mut ledger = ledger(EnergyPhase::Idle);
    read(&mut ledger, 0, 50_000, |at| if at == 20_000 { f64::NAN } else { 1.0 });
    ledger.handle_cut(Instant(40_000));
    ledger.settle(Instant(50_000));
    let [span] = spans(&mut ledger)[..] else { panic!("one span") };
    assert_eq!((span.faults.failed, span.samples), (1, 4));
    assert!((span.total_j() - 0.045).abs() < 1e-9, "{span:?}");
}

#[test]
fn more_phases_than_it_holds_are_charged_without_waiting() {
    let mut ledger = ledger(EnergyPhase::Idle);
    read(&mut ledger, 0, 20_000, |_| 2.0);
    let phases = [EnergyPhase::Draft, EnergyPhase::Wait];
    for at in 0..10_000_u64 {
        ledger.handle_phase(phases[at as usize % 2], Instant(20_000 + 10 * at));
    }
    ledger.handle_cut(Instant(120_000));
    read(&mut ledger, 120_000, 140_000, |_| 2.0);
    let [span] = spans(&mut ledger)[..] else { panic!("one span") };
    assert!((span.total_j() - 0.24).abs() < 1e-6, "{span:?}");
    assert!(span.extrapolated > Duration(5_000), "what was charged early is said");
    assert_eq!(span.micros.0.iter().sum::<u64>(), 120_000);
}

#[test]
fn more_cuts_than_it_holds_and_spans_that_nobody_takes_lose_nothing() {
    let mut ledger = ledger(EnergyPhase::Idle);
    read(&mut ledger, 0, 20_000, |_| 2.0);
    (1..=200_u64).for_each(|n| ledger.handle_cut(Instant(20_000 + 100 * n)));
    read(&mut ledger, 40_000, 60_000, |_| 2.0);
    let spans = spans(&mut ledger);
    let (joules, last) = (spans.iter().map(Span::total_j).sum::<f64>(), spans.last().unwrap());
    assert_eq!(last.until, Instant(40_000));
    assert!((joules - 0.08).abs() < 1e-6, "{joules}");
}

fn phase() -> impl Strategy<Value = EnergyPhase> {
    (0..PHASES).prop_map(|at| EnergyPhase::ALL[at])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// For any input in any order: times add up, energies are finite, and constant power gives its exact energy.
    #[test]
    fn time_and_energy_add_up(
        steps in prop::collection::vec((phase(), 1..60_000_u64, 0..4_u8), 1..200),
        watts in 0.5..20.0_f64,
    ) {
        let mut ledger = ledger(EnergyPhase::Idle);
        let (mut now, mut read) = (0, 0);
        for (phase, micros, what) in steps {
            now += micros;
            match what {
                0 => ledger.handle_cut(Instant(now)),
                1 => ledger.settle(Instant(now)),
                _ => ledger.handle_phase(phase, Instant(now)),
            }
            while read + PERIOD.0 <= now {
                ledger.handle_sample(&sample(read, read + PERIOD.0, watts));
                read += PERIOD.0;
            }
        }
        ledger.handle_cut(Instant(now));
        ledger.settle(Instant(now));
        let spans: Vec<Span> = std::iter::from_fn(|| ledger.poll_span()).collect();
        prop_assert_eq!(spans.last().unwrap().until, Instant(now));
        let mut until = Instant(0);
        for span in &spans {
            prop_assert_eq!(span.from, until);
            until = span.until;
            prop_assert_eq!(span.micros.0.iter().sum::<u64>(), span.time().0);
            prop_assert!(span.joules.0.iter().all(|joules| joules.is_finite() && *joules >= -1e-9));
            let expected = watts * span.time().as_secs_f64();
            // A start that was settled before the first reading has no energy, so the sum may be too small.
            prop_assert!(span.total_j() <= expected * (1.0 + 1e-9) + 1e-9, "{:?}", span);
        }
    }
}
