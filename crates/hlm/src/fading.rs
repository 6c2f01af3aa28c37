//! Sums over passes of the target that fade, and the line through their durations.

/// Number of passes after which an observation has faded to 1/e.
const MEMORY_PASSES: f64 = 16.0;

/// Adds the number of a pass to a sum over passes, whose earlier parts fade.
pub(crate) fn fade(sum: &mut f64, x: f64) {
    *sum = *sum * (1.0 - 1.0 / MEMORY_PASSES) + x;
}

/// A line through the durations of passes by their number of tokens, by least squares.
#[derive(Debug, Default)]
pub(crate) struct FadingLine {
    passes: f64,
    tokens: f64,
    seconds: f64,
    tokens_squared: f64,
    tokens_seconds: f64,
}

impl FadingLine {
    /// Takes a pass of so many tokens and seconds.
    pub(crate) fn observe(&mut self, tokens: f64, seconds: f64) {
        fade(&mut self.passes, 1.0);
        fade(&mut self.tokens, tokens);
        fade(&mut self.seconds, seconds);
        fade(&mut self.tokens_squared, tokens * tokens);
        fade(&mut self.tokens_seconds, tokens * seconds);
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
