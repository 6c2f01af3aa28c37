//! The capacity of one verifier for many devices: each policy of the run `main` with a crowd of its own.
//!
//! Invariant: the rows are those of the plan's pair, and the passes take the times of the plan's server; everything
//! else about time is modelled here and named in [`VerifierCapacity`].

use super::dice::mix;
use super::engine::{Dirs, MakePair};
use super::pair::{Memory, Pair, Seat};
use super::plan::{EvaluationPlan, MAIN, ModelledBoard, Size, Writer};
use super::setting::Setting;
use anyhow::{Context, Result};
use dunlin_hlm::TokenId;
use dunlin_hlm::device::ReplyLimits;
use dunlin_hlm::policy::{Policy, Rules};
use dunlin_hlm::probabilities::Sampling;
use dunlin_lm::Vocabulary;
use dunlin_sim::crowd::{
    Capacity, CrowdMember, CrowdModels, CrowdPlan, CrowdTurn, PassModel, play, saturated,
};
use dunlin_sim::quiet::Models;

/// Most prompts: every device answers all of them, so more say little more.
const PROMPTS_MAX: usize = 40;
/// Policies that are compared, in the order of the report.
const POLICIES: [Policy; 3] = [Policy::Stream, Policy::Lossless, Policy::Auto];
/// Numbers of devices that are tried in turn until the target is busy.
const DEVICES: [usize; 3] = [32, 48, 64];
/// Delay of the link one way, µs: a wire, so that the target is what limits.
const LINK_US: u64 = 1_000;
/// Time after which the first devices' starts are forgotten, and the time after which nothing is looked at, µs.
const FROM_US: u64 = 3_000_000;
const UNTIL_US: u64 = 9_000_000;
/// The starts of the devices are spread over this time, µs, by steps that have no order.
const STARTS_US: u64 = 1_000_000;
const START_STEP_US: u64 = 617_003;
/// A pass of the warm-up relative to the plan's: about the wait of a device in a full crowd.
const WARM_UP_FACTOR: f64 = 4.0;
/// Bytes of remembered rows.
const MEMORY_BYTES_MAX: usize = 512 << 20;

/// The capacity of one verifier under each policy.
#[derive(Clone, Debug, PartialEq)]
pub struct VerifierCapacity {
    /// The modelled board.
    pub board: String,
    /// Time of the drafter per token, scoring included, µs.
    pub draft_us: u64,
    /// Delay of the link one way, µs.
    pub link_us: u64,
    /// The target's times.
    pub pass: PassModel,
    /// Softmax temperature of both models.
    pub temperature: f64,
    /// Prompts that every device answers over and over.
    pub prompts: usize,
    /// One for each policy.
    pub rows: Vec<CapacityRow>,
}

/// A policy's capacity.
#[derive(Clone, Debug, PartialEq)]
pub struct CapacityRow {
    /// The policy.
    pub policy: String,
    /// Its figures.
    pub capacity: Capacity,
}

/// The inputs of a crowd that the plan does not have.
#[derive(Clone, Copy, Debug)]
pub struct CrowdInputs<'a> {
    /// The vocabulary of both models.
    pub vocabulary: Vocabulary,
    /// The prompts as tokens.
    pub prompts: &'a [Vec<TokenId>],
    /// Tokens that end a reply.
    pub stop: &'a [TokenId],
    /// The modelled drafter.
    pub size: Size,
}

/// The capacity on the pair that a plan names; `None` for a plan without the policies in its run `main`.
///
/// # Errors
/// A model can't be loaded or fails.
pub fn measure(plan: &EvaluationPlan) -> Result<Option<VerifierCapacity>> {
    if conditions(plan).is_none() {
        return Ok(None);
    }
    let dirs = Dirs::open(&plan.pair)?;
    let drafter = &dirs.drafter;
    let prompts = dirs.prompts(plan)?;
    let inputs = CrowdInputs {
        vocabulary: drafter.vocabulary,
        prompts: &prompts,
        stop: &drafter.prompt.stop,
        size: dirs.size(plan)?,
    };
    let memory = Memory::new(MEMORY_BYTES_MAX);
    of_pair(plan, inputs, &mut dirs.make(&memory)?)
}

/// The capacity on a given pair; `None` as for [`measure`].
///
/// # Errors
/// A model fails.
pub fn of_pair(
    plan: &EvaluationPlan,
    inputs: CrowdInputs<'_>,
    pair: &mut Pair<'_>,
) -> Result<Option<VerifierCapacity>> {
    let Some((settings, board, temperature)) = conditions(plan) else { return Ok(None) };
    let Size { drafter_parameters, drafter_bits } = inputs.size;
    let modelled = &board.modelled;
    let draft = modelled.draft_us(drafter_parameters, drafter_bits, 1);
    let draft_us = (draft + modelled.score_us(inputs.vocabulary.size)).round() as u64;
    let (drafter_max, target_max) = pair.context_max();
    let context_tokens_max = board.context_tokens_max.unwrap_or(drafter_max).min(drafter_max).min(target_max);
    let place = CrowdPlan {
        vocabulary: inputs.vocabulary,
        context_tokens_max,
        draft_us,
        link_us: LINK_US,
        pass: PassModel { pass_us: plan.server.pass_us, token_us: plan.server.token_us },
        prefill: None,
        until_us: UNTIL_US,
    };
    let sampling = Sampling::new(temperature as f32, 1.0, 0)?;
    let turns = turns(plan, inputs, sampling);
    warm_up(&place, &turns, pair)?;
    let mut rows = Vec::new();
    for setting in settings {
        let play = |count| crowd(&place, setting.rules, &turns, count, pair);
        let capacity = saturated(DEVICES, play)?.context("no number of devices")?;
        rows.push(CapacityRow { policy: setting.policy.clone(), capacity });
    }
    Ok(Some(VerifierCapacity {
        board: board.name.clone(),
        draft_us,
        link_us: LINK_US,
        pass: place.pass,
        temperature,
        prompts: turns.len(),
        rows,
    }))
}

/// The settings of the policies, the first board and the highest temperature of the run `main`.
fn conditions(plan: &EvaluationPlan) -> Option<(Vec<&Setting>, &ModelledBoard, f64)> {
    let cells = || plan.cells.iter().filter(|cell| cell.run == MAIN);
    let written = || {
        cells().filter_map(|cell| match &cell.writer {
            Writer::Policy(setting, board, _) => Some((setting.as_ref(), board.as_ref())),
            Writer::TargetAgain => None,
        })
    };
    let preset = |policy: &Policy| written().find(|(setting, _)| setting.label == policy.name());
    let settings: Vec<&Setting> = POLICIES.iter().filter_map(preset).map(|(setting, _)| setting).collect();
    let temperature = cells().map(|cell| cell.temperature).reduce(f64::max)?;
    let (_, board) = written().next().filter(|_| settings.len() == POLICIES.len())?;
    Some((settings, board, temperature))
}

/// One turn for each prompt, with the seeds of the plan's cells.
fn turns(plan: &EvaluationPlan, inputs: CrowdInputs<'_>, sampling: Sampling) -> Vec<CrowdTurn> {
    let turn = |(i, prompt): (u64, &Vec<TokenId>)| CrowdTurn {
        prompt: prompt.clone(),
        reply: ReplyLimits { tokens_max: plan.tokens_max, stop: inputs.stop.to_vec() },
        seed: mix(&[plan.seed, i, 0]),
        sampling,
    };
    (0..).zip(inputs.prompts).take(PROMPTS_MAX).map(turn).collect()
}

/// Fills the pair's memory with most rows that the crowds ask for: one device answers the prompts in order, so that the
/// models seldom read a text again. A slow target makes it draft as far as a crowd's devices do.
fn warm_up(place: &CrowdPlan, turns: &[CrowdTurn], pair: &mut Pair<'_>) -> Result<()> {
    let pass = PassModel { pass_us: WARM_UP_FACTOR * place.pass.pass_us, ..place.pass };
    let place = CrowdPlan { pass, until_us: u64::MAX, ..*place };
    let policy = Policy::Lossless.rules();
    let member = CrowdMember {
        device: None,
        policy,
        turns: turns.to_vec(),
        repeats: false,
        starts_us: 0,
        silent_after: None,
    };
    let mut models = SeatedPair { pair, seats: vec![Seat::default()], seated: None };
    play(&place, &[member], &mut models).map(|_| ())
}

/// A crowd that is always busy: every device answers all prompts over and over, each from another one on.
fn crowd(
    place: &CrowdPlan,
    policy: Rules,
    turns: &[CrowdTurn],
    count: usize,
    pair: &mut Pair<'_>,
) -> Result<Capacity> {
    let member = |i: usize| {
        let mut turns = turns.to_vec();
        let length = turns.len();
        turns.rotate_left(i * length / count);
        let starts_us = i as u64 * START_STEP_US % STARTS_US;
        CrowdMember { device: None, policy, turns, repeats: true, starts_us, silent_after: None }
    };
    let members: Vec<CrowdMember> = (0..count).map(member).collect();
    let mut models = SeatedPair { pair, seats: vec![Seat::default(); count], seated: None };
    Ok(Capacity::of(&play(place, &members, &mut models)?, FROM_US))
}

/// A pair that many devices use in turn.
struct SeatedPair<'p, 'm> {
    pair: &'p mut Pair<'m>,
    /// Their places; that of the present device is at the pair.
    seats: Vec<Seat>,
    /// The present device.
    seated: Option<usize>,
}

impl CrowdModels for SeatedPair<'_, '_> {
    fn of(&mut self, device: usize) -> &mut dyn Models {
        if self.seated != Some(device) {
            if let Some(before) = self.seated {
                self.pair.swap_seat(&mut self.seats[before]);
            }
            self.pair.swap_seat(&mut self.seats[device]);
            self.seated = Some(device);
        }
        self.pair
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::load;
    use super::*;
    use dunlin_lm::{Target, Toy};

    const PLAN: &str = r#"name = "toy"
seed = 7
pair = "PAIR"
boards_dir = "ROOT/boards"
channels_dir = "ROOT/crates/evaluate/channels"
prompts = 3
tokens_max = 20
server = { pass_us = 20000, token_us = 400 }
[[run]]
name = "main"
boards = ["rpi4"]
channels = ["wifi"]
temperatures = [0.0, 0.8]
policy = [{ name = "auto" }, { name = "stream" }, { name = "lossless" }]
"#;

    fn capacity(plan: &EvaluationPlan) -> Option<VerifierCapacity> {
        let (toy, memory) = (Toy::new(1, 64, 0.7), Memory::new(MEMORY_BYTES_MAX));
        let prompts = [vec![1, 2, 3, 4], vec![5, 6], vec![7]];
        let vocabulary = toy.target().vocabulary();
        let inputs = CrowdInputs { vocabulary, prompts: &prompts, stop: &[], size: Size::of_bytes(1 << 20) };
        let mut pair = Pair::new(Box::new(toy.drafter()), Box::new(toy.target()), &memory).unwrap();
        of_pair(plan, inputs, &mut pair).unwrap()
    }

    #[test]
    fn the_figures_of_a_saturated_target_add_up() {
        let plan = load(PLAN).unwrap();
        let capacity = capacity(&plan).unwrap();
        assert_eq!((capacity.temperature, capacity.prompts, capacity.board.as_str()), (0.8, 3, "rpi4"));
        let policies: Vec<&str> = capacity.rows.iter().map(|row| row.policy.as_str()).collect();
        assert_eq!(policies, ["stream", "lossless", "auto"], "in the order of the report");
        for row in &capacity.rows {
            let own = row.capacity;
            assert!(own.is_saturated() && own.devices >= 32, "{}: {own:?}", row.policy);
            // Busy time is that of the passes, up to the one that is cut at the window's beginning.
            let passes = own.passes as f64 * 0.02 + own.fed as f64 * 0.0004;
            assert!((own.busy_seconds - passes).abs() < 0.06, "{}: {own:?}", row.policy);
            assert!(own.fed_per_token() > own.rows_per_token(), "prompts give no rows: {own:?}");
        }
        let [stream, lossless, _] = &capacity.rows[..] else { panic!("{policies:?}") };
        // A row for each token, within what is under way at the window's edges; frames have rows that are of no use.
        assert!((stream.capacity.rows_per_token() - 1.0).abs() < 0.03, "{stream:?}");
        assert!(lossless.capacity.rows_per_token() > 1.1, "{lossless:?}");
        assert_eq!(self::capacity(&plan), Some(capacity), "the same plan gives the same figures");
    }

    #[test]
    fn a_plan_without_the_policies_has_no_capacity() {
        assert_eq!(capacity(&load(&PLAN.replace("{ name = \"auto\" }, ", "")).unwrap()), None);
        assert_eq!(capacity(&load(&PLAN.replace("\"main\"", "\"map\"")).unwrap()), None);
    }
}
