//! How far it is: a bar on a terminal, a line at every tenth elsewhere. Standard error.

use crate::report;
use crate::screen::{Abilities, Colour};
use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};

/// Lines in all where there is no bar.
const LINES: usize = 10;

/// Says how many tokens there are.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    abilities: Abilities,
    tokens_max: usize,
    prompts_max: usize,
    /// Lines written.
    said: usize,
}

impl Progress {
    /// Nothing yet of `tokens_max` tokens, from at most `prompts_max` prompts.
    ///
    /// # Errors
    /// Never: the bar's form is fixed.
    pub(super) fn new(tokens_max: usize, prompts_max: usize, abilities: Abilities) -> Result<Self> {
        let bar = abilities.cursor.then(|| bar(tokens_max, abilities.colour)).transpose()?;
        Ok(Self { bar, abilities, tokens_max, prompts_max, said: 0 })
    }

    /// There are `tokens` now, the last from the prompt of this number.
    pub(super) fn at(&mut self, tokens: usize, prompt: usize) {
        let of_prompts = format!("prompt {prompt} of {}", self.prompts_max);
        if let Some(bar) = &self.bar {
            bar.set_message(of_prompts);
            return bar.set_position(tokens as u64);
        }
        let tenths = tokens * LINES / self.tokens_max;
        if tenths > self.said {
            self.said = tenths;
            self.line(Colour::Plain, &format!("{tokens} of {} tokens, {of_prompts}", self.tokens_max));
        }
    }

    /// Writes a line that stays.
    pub(super) fn line(&self, colour: Colour, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| report::line(self.abilities, colour, text)),
            None => report::line(self.abilities, colour, text),
        }
    }

    /// Removes the bar.
    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(tokens_max: usize, colour: bool) -> Result<ProgressBar> {
    let form = if colour { "{bar:24.green}" } else { "{bar:24}" };
    let style =
        ProgressStyle::with_template(&format!("{form} {{pos}} of {{len}} tokens, {{msg}}, {{eta}} left"));
    let style = style.context("the progress bar")?.progress_chars("██·");
    Ok(ProgressBar::new(tokens_max as u64).with_style(style))
}
