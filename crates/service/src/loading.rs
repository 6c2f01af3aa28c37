//! The progress of loading a target: a bar on a terminal, elsewhere lines in the log.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, stderr};

/// Share of a step between two lines of the log.
const LINE_PERCENT: u64 = 25;
/// Bytes of a step below which it has no lines: it takes a moment.
const LINE_BYTES_MIN: u64 = 256 << 20;

/// The progress of one load.
pub(crate) struct LoadingView {
    /// A bar, on a terminal.
    bar: Option<ProgressBar>,
    step: &'static str,
    /// Percent at the last line of the log.
    logged: u64,
}

impl LoadingView {
    /// A view on standard error.
    pub(crate) fn new() -> Self {
        let bar = stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{msg} {bar:24} {binary_bytes} of {binary_total_bytes}");
            let bar = ProgressBar::new(0);
            match style {
                Ok(style) => bar.with_style(style.progress_chars("██·")),
                // The template is fixed; a bar of another look does no harm.
                Err(_) => bar,
            }
        });
        Self { bar, step: "", logged: 0 }
    }

    /// Shows that `done` of `total` bytes of a step are behind it.
    pub(crate) fn show(&mut self, step: &'static str, done: u64, total: u64) {
        if self.step != step {
            (self.step, self.logged) = (step, 0);
        }
        let percent = (done.min(total) * 100).checked_div(total).unwrap_or(100);
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(step);
        } else if total >= LINE_BYTES_MIN && percent >= self.logged + LINE_PERCENT {
            self.logged = percent / LINE_PERCENT * LINE_PERCENT;
            tracing::info!(step, percent = self.logged, of_mib = total >> 20, "loading the target");
        }
    }
}

impl Default for LoadingView {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for LoadingView {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logged::logged;

    #[test]
    fn a_log_has_four_lines_of_a_long_step_and_none_of_a_short_one() {
        let mut view = LoadingView { bar: None, step: "", logged: 0 };
        let ((), said) = logged(|| {
            (0..=1000).for_each(|i| view.show("reading weights", i << 20, 1000 << 20));
            (0..=100).for_each(|i| view.show("hashing weights", i << 20, 100 << 20));
        });
        let percents: Vec<&str> = said.lines().filter_map(|line| line.split("percent=").nth(1)).collect();
        let of = |percent: u32| format!("{percent} of_mib=1000");
        assert_eq!(percents, [of(25), of(50), of(75), of(100)], "{said}");
        assert!(said.starts_with(" INFO loading the target step=\"reading weights\" percent=25"), "{said}");
    }
}
