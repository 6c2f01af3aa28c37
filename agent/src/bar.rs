//! A progress bar on standard error, drawn only on a terminal. Elsewhere callers write lines instead.

use crate::report;
use crate::screen::{Abilities, Colour};
use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};

/// A bar, if there is a terminal, and lines that stay above it.
pub(crate) struct Bar {
    bar: Option<ProgressBar>,
    abilities: Abilities,
}

impl Bar {
    /// A bar of `length`, with `text` behind it in indicatif's template language.
    ///
    /// # Errors
    /// The template is invalid.
    pub(crate) fn new(length: u64, text: &str, abilities: Abilities) -> Result<Self> {
        let form = if abilities.colour { "{bar:24.green}" } else { "{bar:24}" };
        let style = ProgressStyle::with_template(&format!("{form} {text}"));
        let style = style.context("the progress bar")?.progress_chars("██·");
        let bar = abilities.cursor.then(|| ProgressBar::new(length).with_style(style));
        Ok(Self { bar, abilities })
    }

    /// True if there is a bar.
    pub(crate) fn is_shown(&self) -> bool {
        self.bar.is_some()
    }

    /// Moves the bar and sets the text beside it.
    pub(crate) fn set(&self, position: u64, message: String) {
        if let Some(bar) = &self.bar {
            bar.set_message(message);
            bar.set_position(position);
        }
    }

    /// Writes a line that stays.
    pub(crate) fn line(&self, colour: Colour, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| report::line(self.abilities, colour, text)),
            None => report::line(self.abilities, colour, text),
        }
    }

    /// Removes it.
    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
