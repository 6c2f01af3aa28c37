//! The passes of a verifier's target: the most jobs in one, and the times that devices are told: of a pass, of a further
//! row in it, and of the wait before it.
//!
//! Invariant: averages fade with the number of passes, so that a changed load is announced within some tens of them.

use crate::fading::{FadingLine, fade};
use crate::time::Duration;
use crate::verifier::VerifyJob;
use alloc::vec::Vec;
use dunlin_wire::{LogTime, Price};

/// Most jobs in one pass; limits the rows held at once.
pub const BATCH_JOBS_MAX: usize = 32;

/// Durations of passes of rising sizes, measured before there is work: far enough apart to tell the time of a token, and
/// as few as a start can wait for.
#[derive(Clone, Debug, Default)]
pub struct MeasuredPasses(Vec<(usize, Duration)>);

impl MeasuredPasses {
    /// None yet.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Tokens of the next pass to measure; `None` after the last. A size is left out if those before it show that it
    /// would take seconds.
    pub fn next_tokens(&self) -> Option<usize> {
        let (Some((_, first)), Some((tokens, last))) = (self.0.first(), self.0.last()) else {
            return Some(1);
        };
        let is_cheap =
            last.0.saturating_mul(MEASURED_STEP as u64) <= MEASURED_MAX.0 || last.0 <= first.0 / 2 * 3;
        Some(tokens * MEASURED_STEP).filter(|tokens| *tokens <= MEASURED_TOKENS_MAX && is_cheap)
    }

    /// Takes the duration of that pass.
    pub fn push(&mut self, tokens: usize, took: Duration) {
        self.0.push((tokens, took));
    }

    /// Tokens and duration of each, the smallest first.
    pub fn all(&self) -> &[(usize, Duration)] {
        &self.0
    }
}

/// Each measured pass has so many times the tokens of the one before it.
const MEASURED_STEP: usize = 4;
/// Tokens of the largest measured pass.
const MEASURED_TOKENS_MAX: usize = 64;
/// Longest time that a measured pass may take, unless it takes little longer than the first.
const MEASURED_MAX: Duration = Duration::from_millis(4_000);

/// Most tokens of one job in a pass that counts: a longer one reads a prompt, and the pass says nothing of the next
/// token. The pass itself may be longer, since it serves many devices.
const JOB_TOKENS_MAX: usize = 64;

/// The size of a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PassSize {
    /// Jobs in it.
    pub jobs: usize,
    /// Tokens fed.
    pub tokens: usize,
    /// Tokens of its longest job.
    pub longest: usize,
}

impl PassSize {
    /// The size of a pass with these jobs.
    pub fn of<'a>(jobs: impl Iterator<Item = &'a VerifyJob>) -> Self {
        jobs.fold(Self::default(), |size, job| Self {
            jobs: size.jobs + 1,
            tokens: size.tokens + job.tokens.len(),
            longest: size.longest.max(job.tokens.len()),
        })
    }
}

/// Times of the passes of late.
#[derive(Debug, Default)]
pub struct PassPrices {
    line: FadingLine,
    jobs: f64,
    waited: f64,
}

impl PassPrices {
    /// The times of passes that were measured before there was work.
    pub fn of_measured(passes: &MeasuredPasses) -> Self {
        let mut prices = Self::default();
        for (tokens, took) in passes.all() {
            let alone = PassSize { jobs: 1, tokens: *tokens, longest: *tokens };
            prices.observe(alone, *took, Duration::default());
        }
        prices
    }

    /// Takes a pass, its duration, and the mean wait before it.
    pub fn observe(&mut self, size: PassSize, took: Duration, waited: Duration) {
        if size.tokens == 0 || size.longest > JOB_TOKENS_MAX {
            return;
        }
        self.line.observe(size.tokens as f64, took.as_secs_f64());
        fade(&mut self.jobs, size.jobs as f64);
        fade(&mut self.waited, waited.as_secs_f64());
    }

    /// Times to announce; unknown before the first pass. `row` is the slope of the line, by least squares. `pass` is the
    /// time of the passes of late, so it grows with the load, but with a job of one token in the place of an average
    /// one: a device adds its own further rows, and they must not be in it already.
    pub fn price(&self) -> Price {
        if self.line.is_empty() {
            return Price::default();
        }
        let seconds = self.line.mean_seconds();
        let row = self.line.slope().map_or(0.0, |slope| slope.max(0.0));
        let job_tokens = self.line.tokens() / self.jobs.max(1.0);
        // At the least, time is in proportion to tokens.
        let least = seconds / job_tokens.max(1.0);
        let pass = (seconds - row * (job_tokens - 1.0)).clamp(least, seconds);
        let time = |seconds: f64| LogTime::of_us((seconds * 1e6) as u64);
        Price { pass: time(pass), row: time(row.min(seconds)), queue: time(self.line.mean(self.waited)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    /// A pass of one job.
    fn one(tokens: usize) -> PassSize {
        PassSize { jobs: 1, tokens, longest: tokens }
    }

    fn prices(passes: &[(usize, u64, u64)]) -> PassPrices {
        let mut prices = PassPrices::default();
        for (tokens, took, waited) in passes {
            prices.observe(one(*tokens), Duration(*took), Duration(*waited));
        }
        prices
    }

    /// A lone device that drafts learns what a stream would cost: not the passes of its own frames.
    #[test]
    fn a_pass_is_that_of_a_single_token_beside_the_others() {
        let passes: Vec<_> = (0..200).map(|i| (1 + i % 9, 1_000 + 500 * (i as u64 % 9), 0)).collect();
        let alone = prices(&passes).price();
        assert_eq!((alone.pass, alone.row), (LogTime::of_us(1_000), LogTime::of_us(500)));
        let mut crowd = PassPrices::default();
        for i in 0..200 {
            // 8 jobs of 12 tokens, or of 20: 1 ms, and 0.1 ms a token.
            let tokens = 8 * (12 + 8 * (i % 2));
            let took = Duration(1_000 + 100 * tokens as u64);
            crowd.observe(PassSize { jobs: 8, tokens, longest: 20 }, took, Duration(0));
        }
        // 13.8 ms on average, less 15 tokens of one job.
        let pass = crowd.price().pass;
        assert!(pass < LogTime::of_us(13_800) && pass >= LogTime::of_us(11_500), "{pass:?}");
    }

    #[test]
    fn few_passes_are_measured_of_a_slow_target() {
        let sizes = |pass_us: u64, token_us: u64| {
            let mut passes = MeasuredPasses::default();
            while let Some(tokens) = passes.next_tokens() {
                passes.push(tokens, Duration(pass_us + token_us * tokens as u64));
            }
            passes.all().iter().map(|(tokens, _)| *tokens).collect::<Vec<_>>()
        };
        assert_eq!(sizes(1_000, 1_000), [1, 4, 16, 64]);
        assert_eq!(sizes(0, 450_000), [1, 4], "7 billion weights on a processor");
        assert_eq!(sizes(5_000_000, 300), [1, 4, 16, 64], "a token costs nothing beside the pass");
        assert_eq!(sizes(0, 5_000_000), [1, 4], "one pass cannot tell a slow token from a slow pass");
    }

    #[test]
    fn nothing_is_announced_before_the_first_pass() {
        assert_eq!(prices(&[]).price(), Price::default());
        assert_eq!(
            prices(&[(300, 1, 1), (0, 1, 1)]).price(),
            Price::default(),
            "prompts and empty passes don't count"
        );
    }

    #[test]
    fn passes_that_were_measured_tell_the_price_before_the_first_one() {
        let mut measured = MeasuredPasses::new();
        while let Some(tokens) = measured.next_tokens() {
            measured.push(tokens, Duration(2_000_000 + 10_000 * tokens as u64));
        }
        let price = PassPrices::of_measured(&measured).price();
        assert_eq!((price.pass, price.row), (LogTime::of_us(2_010_000), LogTime::of_us(10_000)));
        assert_eq!(price.queue, LogTime::of_us(0), "nobody waited");
        assert_eq!(PassPrices::of_measured(&MeasuredPasses::new()).price(), Price::default());
    }

    #[test]
    fn a_line_through_the_passes_gives_the_price_of_a_row() {
        let passes: Vec<_> = (0..200).map(|i| (1 + i % 7, 20_000 + 300 * (i as u64 % 7), 5_000)).collect();
        let price = prices(&passes).price();
        assert_eq!((price.row, price.queue), (LogTime::of_us(300), LogTime::of_us(5_000)));
        let pass = price.pass.us().unwrap();
        assert!((19_000..=22_000).contains(&pass), "{pass}");
    }

    #[test]
    fn passes_of_one_size_show_no_slope() {
        let price = prices(&[(4, 10_000, 0); 50]).price();
        assert_eq!((price.pass, price.row), (LogTime::of_us(10_000), LogTime::of_us(0)));
    }

    /// Thirty drafting devices feed hundreds of tokens per pass, and it is then that the price matters.
    #[test]
    fn a_full_pass_of_short_jobs_counts() {
        let mut prices = prices(&[(4, 10_000, 0); 50]);
        let (took, waited) = (Duration::from_millis(200), Duration::from_millis(100));
        let full = PassSize { jobs: 32, tokens: 32 * 9, longest: 9 };
        (0..50).for_each(|_| prices.observe(full, took, waited));
        let price = prices.price();
        assert!(price.pass >= LogTime::of_us(180_000) && price.queue >= LogTime::of_us(90_000), "{price:?}");
        let before = price;
        let prompt = PassSize { jobs: 33, tokens: 32 + 500, longest: 500 };
        (0..50).for_each(|_| prices.observe(prompt, Duration(10 * took.0), Duration(10 * waited.0)));
        assert_eq!(prices.price(), before, "a prompt in the pass");
    }

    #[test]
    fn a_changed_load_is_announced_within_fifty_passes() {
        let mut prices = prices(&vec![(4, 10_000, 0); 500]);
        let busy = PassSize { jobs: 16, tokens: 64, longest: 4 };
        (0..50).for_each(|_| prices.observe(busy, Duration(80_000), Duration(40_000)));
        let price = prices.price();
        assert!(price.pass >= LogTime::of_us(68_000) && price.queue >= LogTime::of_us(35_000), "{price:?}");
    }
}
