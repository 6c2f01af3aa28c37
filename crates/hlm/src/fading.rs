//! Sums over passes of the target that fade, and the line through their durations.

/// Number of passes after which an observation has faded to 1/e.
const MEMORY_PASSES: f64 = 16.0;
/// A pass that takes so many times what the line tells is an outlier.
const OUTLIER: f64 = 2.0;

/// Adds the number of a pass to a sum over passes, whose earlier parts fade.
pub(crate) fn fade(sum: &mut f64, x: f64) {
    *sum = *sum * (1.0 - 1.0 / MEMORY_PASSES) + x;
}

/// A line through the durations of passes by their number of tokens, by least squares.
///
/// Invariant: no outlier that stands alone moves a line which [`Self::observe_usual`] fills. A process that was stopped, or
/// a machine that slept, makes a pass of any length, which says nothing of the next one. A second outlier in a row is a
/// target that has become slower, and counts.
#[derive(Debug, Default)]
pub(crate) struct FadingLine {
    last_was_outlier: bool,
    passes: f64,
    tokens: f64,
    seconds: f64,
    tokens_squared: f64,
    tokens_seconds: f64,
}

impl FadingLine {
    /// Takes a pass of so many tokens and seconds, unless it is an outlier that stands alone; false if so.
    pub(crate) fn observe_usual(&mut self, tokens: f64, seconds: f64) -> bool {
        let is_outlier = !self.is_empty() && seconds > OUTLIER * self.longest_expected(tokens);
        let counts = !is_outlier || self.last_was_outlier;
        self.last_was_outlier = is_outlier;
        if counts {
            self.observe(tokens, seconds);
        }
        counts
    }

    /// Takes a pass of so many tokens and seconds.
    pub(crate) fn observe(&mut self, tokens: f64, seconds: f64) {
        fade(&mut self.passes, 1.0);
        fade(&mut self.tokens, tokens);
        fade(&mut self.seconds, seconds);
        fade(&mut self.tokens_squared, tokens * tokens);
        fade(&mut self.tokens_seconds, tokens * seconds);
    }

    /// The most seconds that a pass of so many tokens should take: at the least the mean, since the slope may be noise, and
    /// in proportion to the tokens while there is no slope.
    fn longest_expected(&self, tokens: f64) -> f64 {
        let (mean_tokens, mean_seconds) = (self.mean_tokens(), self.mean_seconds());
        let slope = self.slope().unwrap_or(mean_seconds / mean_tokens).max(0.0);
        mean_seconds + slope * (tokens - mean_tokens).max(0.0)
    }

    /// True before the first pass.
    pub(crate) fn is_empty(&self) -> bool {
        self.passes == 0.0
    }

    /// The mean over the passes of a sum that fades with them.
    pub(crate) fn mean(&self, sum: f64) -> f64 {
        sum / self.passes
    }

    /// Tokens of all passes, faded.
    pub(crate) fn tokens(&self) -> f64 {
        self.tokens
    }

    /// Mean tokens of a pass.
    pub(crate) fn mean_tokens(&self) -> f64 {
        self.mean(self.tokens)
    }

    /// Mean seconds of a pass.
    pub(crate) fn mean_seconds(&self) -> f64 {
        self.mean(self.seconds)
    }

    /// Seconds of each token; `None` while passes of one size show no slope.
    pub(crate) fn slope(&self) -> Option<f64> {
        let (tokens, seconds) = (self.mean_tokens(), self.mean_seconds());
        let spread = self.mean(self.tokens_squared) - tokens * tokens;
        let both = self.mean(self.tokens_seconds) - tokens * seconds;
        (spread > 1e-6).then_some(both / spread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Passes of 2 s and a hundredth of a second a token.
    fn line() -> FadingLine {
        let mut line = FadingLine::default();
        for pass in 0..40 {
            let tokens = f64::from(1 + pass % 8 * 5);
            assert!(line.observe_usual(tokens, 2.0 + 0.01 * tokens), "pass {pass}");
        }
        line
    }

    #[test]
    fn a_pass_in_which_the_process_was_stopped_does_not_count() {
        let mut line = line();
        let before = (line.mean_seconds(), line.slope());
        assert!(!line.observe_usual(30.0, 14.0));
        assert_eq!((line.mean_seconds(), line.slope()), before);
        assert!(line.observe_usual(30.0, 2.3));
        assert!(!line.observe_usual(30.0, 14.0), "the one before was no outlier");
    }

    #[test]
    fn a_target_that_becomes_slower_counts_from_the_second_pass_on() {
        let mut line = line();
        assert!(!line.observe_usual(8.0, 9.0));
        (0..50).for_each(|pass| assert!(line.observe_usual(8.0, 9.0), "pass {pass}"));
        assert!(line.mean_seconds() > 8.0);
    }

    #[test]
    fn a_pass_with_far_more_tokens_is_not_an_outlier() {
        let mut line = line();
        assert!(line.observe_usual(600.0, 8.0));
        let mut of_one_size = FadingLine::default();
        (0..9).for_each(|_| assert!(of_one_size.observe_usual(4.0, 0.1)));
        assert!(of_one_size.observe_usual(64.0, 1.7), "in proportion");
    }
}
