//! Progress messages while an image is written.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::{self, Write};

/// Shows the current step, and on a terminal a progress bar.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tell {
    /// Show nothing.
    pub quiet: bool,
}

impl Tell {
    /// Writes a line.
    pub(super) fn say(&self, text: &str) {
        if !self.quiet {
            // Ignore the error: standard error may be closed.
            let _ = writeln!(io::stderr(), "{text}");
        }
    }

    /// Begins a step over this many bytes, or over an unknown number of bytes.
    pub(super) fn step(&self, what: &str, bytes: Option<u64>) -> ProgressBar {
        self.say(what);
        if self.quiet {
            return ProgressBar::hidden();
        }
        let (bar, shape) = match bytes {
            Some(bytes) => {
                (ProgressBar::new(bytes), "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
            }
            None => (ProgressBar::no_length(), "{spinner} {bytes} {bytes_per_sec}"),
        };
        bar.with_style(ProgressStyle::with_template(shape).unwrap_or_else(|_| ProgressStyle::default_bar()))
    }
}
