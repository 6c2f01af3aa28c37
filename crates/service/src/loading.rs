//! The progress of loading a model: a bar on a terminal, elsewhere lines in the log.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, stderr};

/// Share of a step between two lines of the log.
const LINE_PERCENT: u64 = 25;
/// Bytes of a step below which it has no lines: it takes a moment.
const LINE_BYTES_MIN: u64 = 256 << 20;

/// The progress of one load.
pub struct LoadingView {
    model: &'static str,
    /// A bar, on a terminal.
    bar: Option<ProgressBar>,
    lines: ProgressLines,
}

impl LoadingView {
    /// A view on standard error of loading `model`: "target" or "drafter".
    pub fn new(model: &'static str) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{msg} {bar:24} {binary_bytes} of {binary_total_bytes}");
            let bar = ProgressBar::new(0);
            match style {
                Ok(style) => bar.with_style(style.progress_chars("██·")),
                // The template is fixed; a bar of another look does no harm.
                Err(_) => bar,
            }
        });
        Self { model, bar, lines: ProgressLines::default() }
    }

    /// Shows that `done` of `total` bytes of a step are behind it.
    pub fn show(&mut self, step: &'static str, done: u64, total: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(step);
        } else if let Some(percent) = self.lines.due(step, done, total) {
            let of_mib = total >> 20;
            tracing::info!(step, percent, of_mib, "loading the {}", self.model);
        }
    }
}

impl Drop for LoadingView {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The lines of a log about one load.
#[derive(Debug, Default)]
struct ProgressLines {
    step: &'static str,
    /// Percent at the last line.
    logged: u64,
}

impl ProgressLines {
    /// The percent of the line that is due, if one is.
    fn due(&mut self, step: &'static str, done: u64, total: u64) -> Option<u64> {
        if self.step != step {
            *self = Self { step, logged: 0 };
        }
        let percent = (done.min(total) * 100).checked_div(total).unwrap_or(100);
        let is_due = total >= LINE_BYTES_MIN && percent >= self.logged + LINE_PERCENT;
        is_due.then(|| {
            self.logged = percent / LINE_PERCENT * LINE_PERCENT;
            self.logged
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_has_four_lines_of_a_long_step_and_none_of_a_short_one() {
        let mut lines = ProgressLines::default();
        let mut due = |step, mib: u64| -> Vec<u64> {
            (0..=mib).filter_map(|done| lines.due(step, done << 20, mib << 20)).collect()
        };
        assert_eq!(due("reading weights", 1000), [25, 50, 75, 100]);
        assert_eq!(due("hashing weights", 1000), [25, 50, 75, 100], "each step has its own");
        assert_eq!(due("reading weights", 100), [] as [u64; 0]);
    }
}
