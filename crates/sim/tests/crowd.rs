//! Many devices at one verifier: nobody waits too long, nobody costs more than its credit, and every text is the
//! target's.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use dunlin_hlm::device::{Finish, ReplyLimits};
use dunlin_hlm::passes::BATCH_JOBS_MAX;
use dunlin_hlm::policy::Policy;
use dunlin_hlm::probabilities::Sampling;
use dunlin_sim::crowd::{
    Capacity, CrowdMember, CrowdOutcome, CrowdPlan, CrowdTurn, MemberOutcome, PassModel, TargetPass, play,
};
use dunlin_sim::settings::CREDIT_TOKENS_MAX;
use dunlin_sim::toy::{ToyModels, ToyPair};
use dunlin_wire::Vocabulary;

/// About 9 of 10 drafts stand.
const PAIR: ToyPair = ToyPair { vocabulary: 20, seed: 7, agreement: 0.9 };
/// Prompts are read and first guesses are over by then, µs.
const WARM_US: u64 = 4_000_000;

const PLAN: CrowdPlan = CrowdPlan {
    vocabulary: Vocabulary { size: PAIR.vocabulary, fingerprint: *b"toy pair" },
    context_tokens_max: 1 << 16,
    draft_us: 500,
    link_us: 1_000,
    pass: PassModel { pass_us: 25_000.0, token_us: 300.0 },
    prefill: None,
    until_us: 20_000_000,
};

/// A device that writes for ever. The starts are spread over a second without an order.
fn member(policy: Policy, number: usize, tokens_max: usize) -> CrowdMember {
    CrowdMember {
        device: None,
        policy: policy.rules(),
        turns: vec![turn(number, 0, tokens_max)],
        repeats: true,
        starts_us: number as u64 * 617_003 % 1_000_000,
        silent_after: None,
    }
}

fn turn(number: usize, turn: usize, tokens_max: usize) -> CrowdTurn {
    let number = number as u32;
    CrowdTurn {
        prompt: vec![number % PAIR.vocabulary, number / PAIR.vocabulary, turn as u32],
        reply: ReplyLimits { tokens_max, stop: vec![] },
        seed: u64::from(number) << 8 | turn as u64,
        sampling: Sampling::new(0.8, 1.0, 0).unwrap(),
    }
}

fn members(policy: Policy, numbers: std::ops::Range<usize>) -> Vec<CrowdMember> {
    numbers.map(|number| member(policy, number, 100)).collect()
}

fn run(plan: &CrowdPlan, members: &[CrowdMember]) -> CrowdOutcome {
    let mut models = vec![ToyModels::new(PAIR); members.len()];
    let outcome = play(plan, members, &mut models).unwrap();
    assert_texts(members, &outcome);
    outcome
}

/// Compares every reply with what the target alone writes.
fn assert_texts(members: &[CrowdMember], outcome: &CrowdOutcome) {
    for (i, (member, done)) in members.iter().zip(&outcome.members).enumerate() {
        for reply in &done.replies {
            let CrowdTurn { prompt, reply: limits, seed, sampling } = &member.turns[reply.turn];
            let mut text = prompt.clone();
            while text.len() < prompt.len() + limits.tokens_max {
                text.push(PAIR.next(&text, sampling, *seed).unwrap());
                if limits.stop.contains(text.last().unwrap()) {
                    break;
                }
            }
            assert_eq!(reply.tokens, text[prompt.len()..], "device {i}, {reply:?}");
            let stopped = limits.stop.contains(text.last().unwrap());
            assert_eq!(reply.finish, if stopped { Finish::Stop } else { Finish::TokensMax });
        }
    }
}

/// Time from the arrival of a frame to its verdict, after the start, µs.
fn waits(members: &[MemberOutcome]) -> Vec<u64> {
    let rounds = members.iter().flat_map(|member| &member.rounds).filter(|round| round.arrived_us > WARM_US);
    rounds.map(|round| round.answered_us - round.arrived_us).collect()
}

fn mean(values: &[u64]) -> u64 {
    values.iter().sum::<u64>() / values.len() as u64
}

/// The longest pass after the start.
fn longest(outcome: &CrowdOutcome) -> TargetPass {
    let passes = outcome.passes.iter().filter(|pass| pass.began_us > WARM_US);
    *passes.max_by_key(|pass| pass.took_us()).unwrap()
}

/// Least and most of a count, relative to the mean of all members.
fn spread(outcome: &CrowdOutcome, count: fn(&MemberOutcome) -> usize) -> (f64, f64) {
    let counts: Vec<usize> = outcome.members.iter().map(count).collect();
    let mean = counts.iter().sum::<usize>() as f64 / counts.len() as f64;
    let of = |count: Option<&usize>| *count.unwrap() as f64 / mean;
    (of(counts.iter().min()), of(counts.iter().max()))
}

#[test]
fn sixteen_streams_make_sixteen_drafters_wait_for_at_most_one_pass_more() {
    let drafters = members(Policy::Lossless, 0..16);
    let alone = run(&PLAN, &drafters);
    let crowd = run(&PLAN, &[drafters, members(Policy::Stream, 16..32)].concat());
    let (before, after) = (waits(&alone.members), waits(&crowd.members[..16]));
    assert!(before.len() > 50 && after.len() > 50, "{} {}", before.len(), after.len());
    let pass = longest(&crowd);
    assert!(pass.size.jobs > 16, "{pass:?} is no pass of the whole crowd");
    assert_eq!(pass.took_us(), PLAN.pass.us(pass.size.tokens));
    let longer = |before: u64, after: u64| after <= before + pass.took_us();
    assert!(longer(mean(&before), mean(&after)), "mean {} → {} µs, {pass:?}", mean(&before), mean(&after));
    let most = |waits: &[u64]| *waits.iter().max().unwrap();
    assert!(longer(most(&before), most(&after)), "most {} → {} µs, {pass:?}", most(&before), most(&after));
}

#[test]
fn a_device_that_is_gone_costs_its_credit_and_no_more() {
    let mut all: Vec<CrowdMember> = (0..8).map(|i| member(Policy::Stream, i, 400)).collect();
    all.iter_mut().for_each(|member| member.repeats = false);
    all[3].silent_after = Some(100);
    let outcome = run(&CrowdPlan { until_us: u64::MAX, ..PLAN }, &all);
    let gone = &outcome.members[3];
    let prompt = all[3].turns[0].prompt.len();
    let (silent_at, until) = (gone.silent_at.unwrap(), gone.credited_until.unwrap() - prompt);
    assert!((100..400).contains(&silent_at) && silent_at < until, "{silent_at} of {until} tokens");
    assert!(until <= silent_at + usize::from(CREDIT_TOKENS_MAX));
    assert_eq!(gone.jobs, until, "a pass for each token of the credit");
    assert_eq!(gone.fed, prompt + until - 1, "one row for each token behind the first");
    for (i, member) in outcome.members.iter().enumerate().filter(|(i, _)| *i != 3) {
        assert_eq!(member.replies.len(), 1, "device {i}");
        assert_eq!(member.committed_us.len(), 400, "device {i}");
    }
}

#[test]
fn a_lone_drafter_among_streams_waits_for_two_passes() {
    let all = [members(Policy::Lossless, 0..1), members(Policy::Stream, 1..32)].concat();
    let outcome = run(&PLAN, &all);
    let (waits, pass) = (waits(&outcome.members[..1]), longest(&outcome));
    assert!(waits.len() > 50 && outcome.members[0].unanswered <= 1, "{} rounds", waits.len());
    let most = *waits.iter().max().unwrap();
    assert!(most <= 2 * pass.took_us(), "{most} µs, {pass:?}");
    // The same at the device: from one commit to the next it drafts, sends, waits and hears.
    let round_us = 16 * PLAN.draft_us + 2 * PLAN.link_us + 2 * pass.took_us();
    let times = &outcome.members[0].committed_us;
    let late = times.windows(2).map(|two| two[1] - two[0]).max().unwrap();
    // A reply that begins asks for a lease first.
    assert!(late <= round_us + 4 * PLAN.link_us + 2 * pass.took_us(), "{late} µs between two commits");
}

#[test]
fn more_devices_than_a_pass_takes_share_fairly() {
    let jobs = |member: &MemberOutcome| member.jobs;
    let committed = |member: &MemberOutcome| member.committed_us.len();
    // With twice as many, one half waits while the other runs; with three times as many, some are left over each time.
    let crowds = [2, 3].map(|times| [Policy::Stream, Policy::Lossless].map(|policy| (times, policy)));
    for (times, policy) in crowds.into_iter().flatten() {
        let outcome = run(&PLAN, &members(policy, 0..times * BATCH_JOBS_MAX));
        assert_eq!(outcome.passes.iter().map(|pass| pass.size.jobs).max(), Some(BATCH_JOBS_MAX));
        let (least, most) = spread(&outcome, jobs);
        assert!(least > 0.85 && most < 1.15, "{policy:?}: {least} to {most} of the mean in passes");
        // A drafting device's tokens also depend on how well its own text can be drafted.
        let (low, high) = if policy == Policy::Stream { (0.9, 1.1) } else { (0.6, 1.7) };
        let (least, most) = spread(&outcome, committed);
        assert!(least > low && most < high, "{policy:?}: {least} to {most} of the mean in tokens");
    }
    let mixed = [members(Policy::Stream, 0..32), members(Policy::Lossless, 32..64)].concat();
    let (least, most) = spread(&run(&PLAN, &mixed), jobs);
    assert!(least > 0.8 && most < 1.2, "mixed: {least} to {most} of the mean in passes");
}

#[test]
fn every_text_of_a_mixed_crowd_is_the_targets() {
    let policies = [Policy::Stream, Policy::Lossless, Policy::Auto];
    let mut all: Vec<CrowdMember> = (0..36).map(|number| member(policies[number % 3], number, 1)).collect();
    for (number, member) in all.iter_mut().enumerate() {
        member.repeats = false;
        member.turns = (0..4).map(|i| turn(number, i, 20 + 30 * i)).collect();
        member.turns.iter_mut().skip(1).for_each(|turn| turn.reply.stop = vec![number as u32 % 20]);
    }
    let outcome = run(&CrowdPlan { until_us: u64::MAX, ..PLAN }, &all);
    for (number, member) in outcome.members.iter().enumerate() {
        assert_eq!(member.replies.len(), 4, "device {number}");
    }
    let finishes = || outcome.members.iter().flat_map(|member| &member.replies).map(|reply| reply.finish);
    assert!(finishes().any(|f| f == Finish::Stop) && finishes().any(|f| f == Finish::TokensMax));
}

#[test]
fn a_run_depends_on_its_plan_only() {
    let all = [members(Policy::Lossless, 0..5), members(Policy::Auto, 5..10)].concat();
    let (once, again) = (run(&PLAN, &all), run(&PLAN, &all));
    assert_eq!(once.passes, again.passes);
    let committed = |outcome: &CrowdOutcome| -> Vec<Vec<u64>> {
        outcome.members.iter().map(|member| member.committed_us.clone()).collect()
    };
    assert_eq!(committed(&once), committed(&again));
}

/// The jobs that follow at once from a pass are part of the next one. Otherwise streams would split into two halves that take
/// turns, and each would pay its own pass.
#[test]
fn streams_share_every_pass() {
    for count in [2, 8, 32] {
        let outcome = run(&PLAN, &members(Policy::Stream, 0..count));
        let capacity = Capacity::of(&outcome, WARM_US);
        assert!(capacity.is_saturated(), "{capacity:?}");
        assert!(capacity.jobs_per_pass() > 0.93 * count as f64, "{capacity:?}");
    }
}

/// Nine devices that draft, beside one with twelve sessions of long prompts and short replies. Printed for each model of
/// a pass: the share of the undisturbed throughput that is left to the nine, and the time of the other's prompts.
#[test]
fn a_greedy_device_leaves_nine_honest_ones_their_throughput() {
    let mut table =
        String::from("pass µs  token µs | undisturbed  beside it  share | prompts read  longest pass ms\n");
    let mut shares = Vec::new();
    for (pass_us, token_us) in [(25_000.0, 300.0), (2_000.0, 400.0), (0.0, 500.0), (100_000.0, 100.0)] {
        let plan = CrowdPlan { pass: PassModel { pass_us, token_us }, ..PLAN };
        let honest = members(Policy::Lossless, 0..9);
        let greedy = (9..21).map(|number| CrowdMember {
            device: Some(9),
            turns: (0..8)
                .map(|i| CrowdTurn { prompt: long_prompt(number, i), ..turn(number, i, 4) })
                .collect(),
            ..member(Policy::Lossless, number, 4)
        });
        let (alone, both) =
            (run(&plan, &honest), run(&plan, &honest.iter().cloned().chain(greedy).collect::<Vec<_>>()));
        let committed = |outcome: &CrowdOutcome| -> usize {
            let of = |member: &MemberOutcome| member.committed_us.iter().filter(|at| **at > WARM_US).count();
            outcome.members[..9].iter().map(of).sum()
        };
        let seconds = (plan.until_us - WARM_US) as f64 / 1e6;
        let rates = [&alone, &both].map(|outcome| committed(outcome) as f64 / seconds);
        let share = rates[1] / rates[0];
        let prompts: usize = both.members[9..].iter().map(|member| member.replies.len()).sum();
        let longest = longest(&both).took_us() as f64 / 1e3;
        table += &format!(
            "{pass_us:>7} {token_us:>9} | {:>11.0} {:>10.0} {share:>6.2} | {prompts:>12} {longest:>16.1}\n",
            rates[0], rates[1],
        );
        shares.push(share);
    }
    println!("{table}");
    assert!(shares.iter().all(|share| *share >= 0.7), "{table}");
}

/// A prompt of 760 tokens.
fn long_prompt(number: usize, turn: usize) -> Vec<u32> {
    (0..760).map(|i| (i * 7 + number as u32 + 3 * turn as u32) % PAIR.vocabulary).collect()
}

/// A long prompt makes the verdicts of others later by one chunk at most, not by all of itself.
#[test]
fn a_long_prompt_adds_a_chunk_to_a_verdict() {
    let honest = members(Policy::Lossless, 0..4);
    let alone = run(&PLAN, &honest);
    let mut reader = member(Policy::Lossless, 4, 8);
    reader.turns = vec![CrowdTurn { prompt: long_prompt(4, 0), ..turn(4, 0, 8) }];
    (reader.repeats, reader.starts_us) = (false, WARM_US);
    for prefill in [Some(32), Some(128), None] {
        let both = run(&CrowdPlan { prefill, ..PLAN }, &[honest.clone(), vec![reader.clone()]].concat());
        assert_eq!(both.members[4].replies.len(), 1);
        let most = |outcome: &CrowdOutcome| *waits(&outcome.members[..4]).iter().max().unwrap();
        // A frame may come just behind the beginning of a pass, and both passes may have a chunk.
        let chunk = PLAN.pass.us(prefill.unwrap_or(64)) - PLAN.pass.us(0);
        assert!(
            most(&both) <= most(&alone) + 2 * chunk,
            "{prefill:?}: {} and {} µs",
            most(&alone),
            most(&both)
        );
        let longest = both.passes.iter().map(|pass| pass.size.longest).max().unwrap();
        assert!(prefill.is_none_or(|prefill| longest <= prefill.max(32)), "{longest} tokens in one pass");
    }
}
