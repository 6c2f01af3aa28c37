//! How far a measurement is: a bar on a terminal, a line at every tenth elsewhere. Standard error.

use crate::report;
use crate::screen::{Abilities, Colour};
use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;

/// Lines in all where there is no bar.
const LINES: f64 = 10.0;

/// A measurement of known length.
pub(super) struct Progress {
    what: String,
    span: Duration,
    bar: Option<ProgressBar>,
    abilities: Abilities,
    /// Tenths that were said.
    said: u32,
}

impl Progress {
    /// The beginning of `what`, which takes `span`.
    ///
    /// # Errors
    /// Never: the bar's form is fixed.
    pub(super) fn new(what: &str, span: Duration, abilities: Abilities) -> Result<Self> {
        let bar = abilities.cursor.then(|| bar(span, abilities.colour)).transpose()?;
        Ok(Self { what: what.into(), span, bar, abilities, said: 0 })
    }

    /// So much time has passed, with so many readings.
    pub(super) fn at(&mut self, time: Duration, readings: u64) {
        let text = format!(
            "{}: {:.1} of {:.1} s, {readings} readings",
            self.what,
            time.as_secs_f64(),
            self.span.as_secs_f64()
        );
        if let Some(bar) = &self.bar {
            bar.set_message(text);
            return bar.set_position(millis(time));
        }
        let tenths = (time.as_secs_f64() / self.span.as_secs_f64() * LINES) as u32;
        if tenths > self.said {
            self.said = tenths;
            self.line(Colour::Plain, &text);
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

fn bar(span: Duration, colour: bool) -> Result<ProgressBar> {
    let form = if colour { "{bar:24.green}" } else { "{bar:24}" };
    let style = ProgressStyle::with_template(&format!("{form} {{msg}}"));
    let style = style.context("the progress bar")?.progress_chars("██·");
    Ok(ProgressBar::new(millis(span)).with_style(style))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
