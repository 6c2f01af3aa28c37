//! Eight devices at three verifiers, of which some are killed or hang; and verifiers whose target takes seconds. Every text
//! is the target's own.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and speak")]

use dunlin_hlm::device::ReplyLimits;
use dunlin_hlm::policy::Policy;
use dunlin_hlm::probabilities::Sampling;
use dunlin_sim::crowd::{
    CrowdMember, CrowdPlan, CrowdTurn, FailoverOutcome, FailoverPlan, PassModel, Strike, TextGap,
    play_failover,
};
use dunlin_sim::toy::ToyPair;
use dunlin_wire::Vocabulary;

const PAIR: ToyPair = ToyPair { vocabulary: 20, seed: 7, agreement: 0.9 };
const DEVICES: usize = 8;
const STRIKES: u64 = 20;
/// Longest gap of a text whose verifier was killed, µs.
const KILLED_MAX_US: u64 = 1_000_000;
/// Longest gap of a text whose verifier hangs, in hundredths of the announced time of a frame.
const HUNG_MAX_PERCENT: u64 = 300;

fn plan(pass_ms: u64, strikes: Vec<(u64, Strike)>, back_after_us: u64) -> FailoverPlan {
    FailoverPlan {
        base: CrowdPlan {
            vocabulary: Vocabulary { size: PAIR.vocabulary, fingerprint: *b"toy pair" },
            context_tokens_max: 1 << 16,
            draft_us: 500,
            link_us: 5_000,
            pass: PassModel { pass_us: pass_ms as f64 * 1000.0, token_us: 300.0 },
            prefill: None,
            until_us: 40_000_000_000,
        },
        pair: PAIR,
        verifiers: 3,
        first_pass_us: 0,
        strikes,
        back_after_us,
    }
}

fn turn(device: usize, turn: usize, tokens_max: usize) -> CrowdTurn {
    CrowdTurn {
        prompt: vec![device as u32, turn as u32 % PAIR.vocabulary, turn as u32 / PAIR.vocabulary],
        reply: ReplyLimits { tokens_max, stop: vec![] },
        seed: (device << 16 | turn) as u64,
        sampling: Sampling::new(0.8, 1.0, 0).unwrap(),
    }
}

fn members(policy: Policy, devices: usize, turns: usize, tokens_max: usize) -> Vec<CrowdMember> {
    let member = |device| CrowdMember {
        device: None,
        policy: policy.rules(),
        turns: (0..turns).map(|number| turn(device, number, tokens_max)).collect(),
        repeats: false,
        starts_us: device as u64 * 137_003,
        silent_after: None,
    };
    (0..devices).map(member).collect()
}

fn run(plan: &FailoverPlan, members: &[CrowdMember]) -> FailoverOutcome {
    let outcome = play_failover(plan, members).unwrap();
    for (device, (member, replies)) in members.iter().zip(&outcome.replies).enumerate() {
        assert_eq!(replies.len(), member.turns.len(), "device {device}");
        for (number, tokens) in replies {
            let CrowdTurn { prompt, reply, seed, sampling } = &member.turns[*number];
            let mut text = prompt.clone();
            while text.len() < prompt.len() + reply.tokens_max {
                text.push(PAIR.next(&text, sampling, *seed).unwrap());
            }
            assert_eq!(*tokens, text[prompt.len()..], "device {device}, turn {number}");
        }
    }
    assert_eq!(outcome.device.unverified, 0);
    outcome
}

/// The 99th percentile: of fewer than a hundred the largest.
fn p99(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values[(values.len() * 99).div_ceil(100) - 1]
}

fn gaps(outcome: &FailoverOutcome, strike: Strike) -> impl Iterator<Item = &TextGap> {
    outcome.gaps.iter().filter(move |gap| gap.strike == strike)
}

/// Twenty strikes of a kind, `apart_us` from each other.
fn strikes(strike: Strike, apart_us: u64) -> Vec<(u64, Strike)> {
    (1..=STRIKES).map(|n| (n * apart_us + n * 7_919, strike)).collect()
}

#[test]
fn a_killed_verifier_is_left_within_a_second() {
    for policy in [Policy::Lossless, Policy::Stream] {
        let plan = plan(100, strikes(Strike::Kill, 3_000_000), 1_500_000);
        let outcome = run(&plan, &members(policy, DEVICES, 90, 40));
        let gaps: Vec<u64> = gaps(&outcome, Strike::Kill).map(|gap| gap.gap_us).collect();
        println!(
            "{policy:?}: {} texts hit by {STRIKES} kills, p99 of the gap {} µs",
            gaps.len(),
            p99(gaps.clone())
        );
        assert!(gaps.len() >= 2 * STRIKES as usize && outcome.missed == 0, "{} gaps", gaps.len());
        assert!(p99(gaps.clone()) < KILLED_MAX_US, "{gaps:?}");
        assert!(outcome.device.lessors_lost >= gaps.len() as u64);
    }
}

#[test]
fn a_hung_verifier_is_left_within_three_announced_frames() {
    for policy in [Policy::Lossless, Policy::Stream] {
        for pass_ms in [1_000, 2_000, 5_000] {
            let apart_us = 25 * pass_ms * 1000;
            let plan = plan(pass_ms, strikes(Strike::Hang, apart_us), 12 * pass_ms * 1000);
            let mut members = members(policy, DEVICES, 90, 40);
            // The passes of the three targets begin at different times, however long they take.
            members.iter_mut().for_each(|member| member.starts_us = member.starts_us * pass_ms / 1000);
            let outcome = run(&plan, &members);
            let all: Vec<&TextGap> = gaps(&outcome, Strike::Hang).collect();
            let shares: Vec<u64> = all.iter().map(|gap| gap.gap_us * 100 / gap.announced_us).collect();
            println!(
                "{policy:?}, {pass_ms} ms a pass: {} texts hit, p99 {} % of a frame",
                all.len(),
                p99(shares.clone())
            );
            assert!(all.len() >= STRIKES as usize && outcome.missed == 0, "{} gaps", all.len());
            assert!(p99(shares) < HUNG_MAX_PERCENT, "{all:?}");
        }
    }
}

#[test]
fn seconds_for_a_pass_cost_no_lease_and_no_frame() {
    for (pass_ms, first_ms) in [(5_000, 18_000), (20_000, 0), (20_000, 60_000)] {
        for policy in [Policy::Lossless, Policy::Stream] {
            let plan =
                FailoverPlan { verifiers: 1, first_pass_us: first_ms * 1000, ..plan(pass_ms, Vec::new(), 0) };
            for devices in [1, 5] {
                let outcome = run(&plan, &members(policy, devices, 1, 30));
                let (device, verifier) = (outcome.device, outcome.verifier);
                let what = format!("{policy:?}, {pass_ms} ms, {devices} devices");
                assert_eq!((device.resent, device.opens), (0, devices as u64), "{what}: {device:?}");
                assert!(device.working > 0 && device.working <= verifier.working, "{what}");
                // One in each quarter of a pass for each session, in times that the wire rounds down.
                let most = (first_ms + 40 * pass_ms) * 4 / pass_ms * 11 / 10;
                assert!(verifier.working <= devices as u64 * most, "{what}: {verifier:?}");
            }
        }
    }
}

#[test]
fn a_run_with_strikes_depends_on_its_plan_only() {
    let plan = plan(100, strikes(Strike::Kill, 3_000_000), 1_500_000);
    let members = members(Policy::Lossless, DEVICES, 30, 40);
    let (once, again) = (run(&plan, &members), run(&plan, &members));
    assert_eq!((once.gaps, once.device), (again.gaps, again.device));
}
