//! The time of a draft and of a pass on this machine.
//!
//! Measured by the clock on the wall: a figure of the machine at that moment, no property of the models.

use anyhow::{Context, Result, ensure};
use dunlin_board::Modelled;
use dunlin_hlm::TokenId;
use dunlin_hlm::coupling::couple;
use dunlin_hlm::probabilities::{Distribution, Sampling};
use dunlin_hlm::uncertainty::Quadrature;
use dunlin_lm::{Draft, Extend, Target};
use serde::Serialize;
use std::time::Instant;

/// Passes of one token, and runs of the drafter over one, whose median counts.
const SINGLE_RUNS: usize = 24;
/// Passes of several tokens whose median counts.
const WIDE_RUNS: usize = 5;
/// Tokens of a wide pass: about those of a frame.
const WIDE_TOKENS: usize = 8;
/// A median that is so many times the fastest is reported.
const VARIES_FROM: f64 = 2.0;
/// Linux's description of its processors.
const CPUINFO: &str = "/proc/cpuinfo";
/// Linux's name of a board.
const BOARD_MODEL: &str = "/proc/device-tree/model";

/// Median times on one machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairSpeed {
    /// The processor's name.
    pub processor: String,
    /// Threads of the target; the drafter has one.
    pub target_threads: usize,
    /// The drafter's run over one token, µs.
    pub draft_us: f64,
    /// The drafter's time for each token of a prompt that it reads at once, µs.
    pub prompt_us: f64,
    /// Time to draw and score a drafted token, µs.
    pub score_us: f64,
    /// The fastest of these runs, µs.
    pub draft_fastest_us: f64,
    /// The target's pass over one token, µs.
    pub pass_us: f64,
    /// The fastest of these passes, µs.
    pub pass_fastest_us: f64,
    /// The target's pass over `wide_tokens` tokens, µs.
    pub wide_pass_us: f64,
    /// Tokens of a wide pass.
    pub wide_tokens: usize,
}

/// Times that are given in place of this machine's.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GivenTimes {
    /// The drafter's run over one token, ms. A prompt's token changes by the same factor.
    pub draft_ms: Option<f64>,
    /// The target's pass, ms, whatever its size, as where reading the weights takes all the time.
    pub pass_ms: Option<f64>,
}

/// The times behind tokens per second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct AssumedTimes {
    /// True if the drafter's times were given.
    pub draft_given: bool,
    /// True if the target's times were given.
    pub pass_given: bool,
    /// The drafter's run over one token, µs.
    pub draft_us: f64,
    /// The drafter's time for each token of a prompt, µs.
    pub prompt_us: f64,
    /// Time to draw and score a drafted token, µs.
    pub score_us: f64,
    /// Time of a pass, whatever its size, µs.
    pub pass_us: f64,
    /// Time of each token of a pass, µs.
    pub token_us: f64,
}

impl PairSpeed {
    /// A warning about times that vary, as on a machine with other work.
    pub fn warning(&self) -> Option<String> {
        let varies = |median: f64, fastest: f64| median > VARIES_FROM * fastest.max(1e-3);
        let fast = |us: f64| format!("{:.2} ms", us / 1e3);
        let (draft, pass) = (self.draft_fastest_us, self.pass_fastest_us);
        (varies(self.draft_us, draft) || varies(self.pass_us, pass)).then(|| {
            format!(
                "the times vary, so this machine was probably busy (fastest draft {}, fastest pass {}): run it again, \
                 with fewer threads by {}, or give the times",
                fast(draft),
                fast(pass),
                dunlin_lm_candle::THREADS_VARIABLE
            )
        })
    }

    /// The times to assume. With a given time of a draft, a token is scored as on `board`, among `size` tokens.
    pub fn times(&self, given: &GivenTimes, board: &Modelled, size: u32) -> AssumedTimes {
        let factor = given.draft_ms.map_or(1.0, |ms| ms * 1e3 / self.draft_us.max(1e-3));
        let draft_us = self.draft_us * factor;
        let further = self.wide_tokens.saturating_sub(1).max(1) as f64;
        let measured = ((self.wide_pass_us - self.pass_us) / further).clamp(0.0, self.pass_us);
        let (pass_us, token_us) =
            given.pass_ms.map_or((self.pass_us - measured, measured), |ms| (ms * 1e3, 0.0));
        AssumedTimes {
            draft_given: given.draft_ms.is_some(),
            pass_given: given.pass_ms.is_some(),
            draft_us,
            prompt_us: (self.prompt_us * factor).min(draft_us),
            score_us: given.draft_ms.map_or(self.score_us, |_| board.score_us(size)),
            pass_us,
            token_us,
        }
    }
}

/// Measures both models on a prompt and a text that the target writes behind it.
///
/// # Errors
/// A model fails, or the prompt leaves no room.
pub fn measure(
    drafter: &mut dyn Draft,
    target: &mut dyn Target,
    prompt: &[TokenId],
    sampling: &Sampling,
    seed: u64,
) -> Result<PairSpeed> {
    let room = drafter.context_max().min(target.context_max()).saturating_sub(prompt.len());
    ensure!(room > 0 && !prompt.is_empty(), "a prompt of {} tokens leaves no room", prompt.len());
    let TimedPasses { text, single, wide_tokens, wide } =
        passes(target, prompt, room.min(SINGLE_RUNS), sampling, seed)?;
    let TimedDrafts { single: drafted, prompt_us, scores } =
        drafts(drafter, &text, prompt.len(), sampling, seed)?;
    Ok(PairSpeed {
        processor: processor(),
        target_threads: dunlin_lm_candle::threads(),
        draft_fastest_us: fastest(&drafted),
        draft_us: median(drafted),
        prompt_us,
        score_us: median(scores),
        pass_fastest_us: fastest(&single),
        pass_us: median(single),
        wide_pass_us: median(wide),
        wide_tokens,
    })
}

/// A written text, and the times of passes, µs.
struct TimedPasses {
    text: Vec<TokenId>,
    single: Vec<f64>,
    wide_tokens: usize,
    wide: Vec<f64>,
}

/// Writes `runs` tokens behind a prompt by passes of one token, and passes over the text's end at once.
fn passes(
    target: &mut dyn Target,
    prompt: &[TokenId],
    runs: usize,
    sampling: &Sampling,
    seed: u64,
) -> Result<TimedPasses> {
    target.warm_up()?;
    let session = target.open().context("the target opened no session")?;
    let mut extend = |keep: usize, tokens: &[TokenId], rows: usize| {
        let part = Extend { session, keep, tokens, rows };
        let started = Instant::now();
        let row = target.extend(&[part]).pop().context("the target gave no answer")??;
        Ok::<_, anyhow::Error>((row, micros(started)))
    };
    let mut text = prompt.to_vec();
    let (mut row, _) = extend(0, prompt, 1)?;
    let mut single = Vec::with_capacity(runs);
    for _ in 0..runs {
        let distribution = Distribution::from_logits(&row, sampling).context("the target's logits")?;
        text.push(couple(&distribution, seed, text.len() as u64));
        let (next, took) = extend(text.len() - 1, &text[text.len() - 1..], 1)?;
        single.push(took);
        row = next;
    }
    let wide_tokens = WIDE_TOKENS.min(text.len());
    let mut wide = Vec::with_capacity(WIDE_RUNS);
    for _ in 0..WIDE_RUNS {
        let keep = text.len() - wide_tokens;
        wide.push(extend(keep, &text[keep..], wide_tokens)?.1);
    }
    target.close(session);
    Ok(TimedPasses { text, single, wide_tokens, wide })
}

/// Times of the drafter, µs.
struct TimedDrafts {
    single: Vec<f64>,
    prompt_us: f64,
    scores: Vec<f64>,
}

/// Reads a text as an agent does: the first `prompt` tokens at once, the others one by one.
fn drafts(
    drafter: &mut dyn Draft,
    text: &[TokenId],
    prompt: usize,
    sampling: &Sampling,
    seed: u64,
) -> Result<TimedDrafts> {
    // The first run may set something up.
    drafter.truncate(0);
    drafter.extend(&text[..prompt])?;
    drafter.truncate(0);
    let started = Instant::now();
    drafter.extend(&text[..prompt])?;
    let prompt_us = micros(started) / prompt as f64;
    let (mut single, mut scores) = (Vec::new(), Vec::new());
    for at in prompt..text.len() {
        let started = Instant::now();
        let rows = drafter.extend(&text[at..=at])?;
        single.push(micros(started));
        let started = Instant::now();
        let logits = rows.logits(rows.len() - 1);
        let distribution = Distribution::from_logits(logits, sampling).context("the drafter's logits")?;
        let token = couple(&distribution, seed, at as u64);
        std::hint::black_box(Quadrature::new(logits).uncertainty(token));
        scores.push(micros(started));
    }
    drafter.truncate(0);
    Ok(TimedDrafts { single, prompt_us, scores })
}

fn micros(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1e6
}

/// The shortest of some times; 0 of none.
fn fastest(times: &[f64]) -> f64 {
    times.iter().copied().reduce(f64::min).unwrap_or_default()
}

/// The middle of some times, the lower of two; 0 of none.
fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len().saturating_sub(1) / 2).copied().unwrap_or_default()
}

/// The name of this machine's processor, or of its board.
fn processor() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    named_processor(&read(CPUINFO), &read(BOARD_MODEL))
}

/// The processor's name in Linux's description, else the board's, else the architecture.
fn named_processor(cpuinfo: &str, board: &str) -> String {
    let value = |line: &str| {
        let (key, value) = line.split_once(':')?;
        let value = value.trim();
        (key.trim() == "model name" && !value.is_empty()).then(|| value.to_owned())
    };
    let board = board.trim_matches(['\0', '\n', ' ']);
    let other = if board.is_empty() {
        format!("a processor without a name ({})", std::env::consts::ARCH)
    } else {
        board.to_owned()
    };
    cpuinfo.lines().find_map(value).unwrap_or(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::tests::MODELLED;

    const SPEED: PairSpeed = PairSpeed {
        processor: String::new(),
        target_threads: 1,
        draft_us: 2_000.0,
        draft_fastest_us: 1_900.0,
        prompt_us: 500.0,
        score_us: 100.0,
        pass_us: 10_000.0,
        pass_fastest_us: 9_000.0,
        wide_pass_us: 24_000.0,
        wide_tokens: 8,
    };

    fn assumed(speed: &PairSpeed, given: &GivenTimes) -> AssumedTimes {
        speed.times(given, &MODELLED, 2000)
    }

    #[test]
    fn a_pass_is_split_into_its_fixed_part_and_its_tokens() {
        let times = assumed(&SPEED, &GivenTimes::default());
        assert_eq!((times.pass_us, times.token_us), (8_000.0, 2_000.0));
        assert_eq!((times.draft_us, times.prompt_us, times.score_us), (2_000.0, 500.0, 100.0));
        // A wide pass that took no longer is noise, and costs nothing more.
        let flat = assumed(&PairSpeed { wide_pass_us: 9_000.0, ..SPEED }, &GivenTimes::default());
        assert_eq!((flat.pass_us, flat.token_us), (10_000.0, 0.0));
    }

    #[test]
    fn given_times_take_the_place_of_measured_ones() {
        let given = GivenTimes { draft_ms: Some(8.0), pass_ms: Some(30.0) };
        let times = assumed(&SPEED, &given);
        assert_eq!((times.draft_us, times.prompt_us, times.score_us), (8_000.0, 2_000.0, 1_000.0));
        assert_eq!((times.pass_us, times.token_us), (30_000.0, 0.0));
        assert!(times.draft_given && times.pass_given);
    }

    #[test]
    fn times_that_vary_are_reported() {
        assert_eq!(SPEED.warning(), None);
        let slow_pass = PairSpeed { pass_us: 18_001.0, ..SPEED }.warning().unwrap();
        assert!(slow_pass.contains("fastest draft 1.90 ms, fastest pass 9.00 ms"), "{slow_pass}");
        assert!(PairSpeed { draft_us: 3_801.0, ..SPEED }.warning().is_some());
    }

    #[test]
    fn a_median_is_one_of_its_values() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.0);
        assert_eq!((median(Vec::new()), fastest(&[])), (0.0, 0.0));
        assert_eq!(fastest(&[3.0, 1.0, 2.0]), 1.0);
    }

    #[test]
    fn a_processor_is_named_or_its_board_is() {
        let x86 = "processor\t: 0\nvendor_id\t: A\nmodel name\t: Some CPU @ 2 GHz\n";
        assert_eq!(named_processor(x86, ""), "Some CPU @ 2 GHz");
        let arm = "processor\t: 0\nBogoMIPS\t: 108.00\n";
        assert_eq!(named_processor(arm, "Raspberry Pi 4 Model B\0"), "Raspberry Pi 4 Model B");
        assert!(named_processor("model name :\n", "").starts_with("a processor without a name ("));
    }
}
