//! Progress of a measurement: a bar on a terminal, a line at every tenth elsewhere. Standard error.

use crate::bar::Bar;
use crate::screen::{Abilities, Colour};
use anyhow::Result;
use std::time::Duration;

/// Number of lines if there is no bar.
const LINES: f64 = 10.0;

/// A measurement of known length.
pub(super) struct PowerProgress {
    what: String,
    span: Duration,
    bar: Bar,
    /// Tenths that were reported.
    said: u32,
}

impl PowerProgress {
    /// Starts the progress of `what`, which takes `span`.
    ///
    /// # Errors
    /// Never: the bar's form is fixed.
    pub(super) fn new(what: &str, span: Duration, abilities: Abilities) -> Result<Self> {
        let bar = Bar::new(millis(span), "{msg}", abilities)?;
        Ok(Self { what: what.into(), span, bar, said: 0 })
    }

    /// Shows the elapsed time and the number of readings.
    pub(super) fn at(&mut self, time: Duration, readings: u64) {
        let text = format!(
            "{}: {:.1} of {:.1} s, {readings} readings",
            self.what,
            time.as_secs_f64(),
            self.span.as_secs_f64()
        );
        if self.bar.is_shown() {
            return self.bar.set(millis(time), text);
        }
        let tenths = (time.as_secs_f64() / self.span.as_secs_f64() * LINES) as u32;
        if tenths > self.said {
            self.said = tenths;
            self.line(Colour::Plain, &text);
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

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
