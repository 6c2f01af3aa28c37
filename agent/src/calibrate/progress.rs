//! Progress of a calibration: a bar on a terminal, a line at every tenth elsewhere. Standard error.

use crate::bar::Bar;
use crate::screen::{Abilities, Colour};
use anyhow::Result;

/// Number of lines if there is no bar.
const LINES: usize = 10;

/// Shows how many tokens have been judged.
pub(super) struct CalibrationProgress {
    bar: Bar,
    tokens_max: usize,
    prompts_max: usize,
    /// Lines written.
    said: usize,
}

impl CalibrationProgress {
    /// The progress at its start: no token of `tokens_max` yet, from at most `prompts_max` prompts.
    ///
    /// # Errors
    /// Never: the bar's form is fixed.
    pub(super) fn new(tokens_max: usize, prompts_max: usize, abilities: Abilities) -> Result<Self> {
        let bar = Bar::new(tokens_max as u64, "{pos} of {len} tokens, {msg}, {eta} left", abilities)?;
        Ok(Self { bar, tokens_max, prompts_max, said: 0 })
    }

    /// Shows that `tokens` are judged, the last of them from prompt number `prompt`.
    pub(super) fn at(&mut self, tokens: usize, prompt: usize) {
        let of_prompts = format!("prompt {prompt} of {}", self.prompts_max);
        if self.bar.is_shown() {
            return self.bar.set(tokens as u64, of_prompts);
        }
        let tenths = tokens * LINES / self.tokens_max;
        if tenths > self.said {
            self.said = tenths;
            self.line(Colour::Plain, &format!("{tokens} of {} tokens, {of_prompts}", self.tokens_max));
        }
    }

    /// Writes a line that stays.
    pub(super) fn line(&self, colour: Colour, text: &str) {
        self.bar.line(colour, text);
    }

    /// Removes the bar.
    pub(super) fn end(&self) {
        self.bar.end();
    }
}
