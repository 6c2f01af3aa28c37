//! Progress of an evaluation: a bar on a terminal, lines elsewhere.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Shows the progress of a plan.
pub struct PlanProgress<'a> {
    shown: ProgressOutput<'a>,
    /// Name of the things counted, as a plural.
    unit: &'static str,
    state: Mutex<ProgressState>,
}

enum ProgressOutput<'a> {
    Bar(ProgressBar),
    Lines(Mutex<&'a mut (dyn Write + Send)>),
}

struct ProgressState {
    started: Instant,
    total: usize,
    done: usize,
    tokens: u64,
}

impl<'a> PlanProgress<'a> {
    /// A bar on standard error that counts `unit`, a plural.
    pub fn bar(unit: &'static str) -> Self {
        let bar = ProgressBar::no_length();
        let template = format!("{{bar:32}} {{pos}}/{{len}} {unit}  {{msg}}  {{eta}} left");
        bar.set_style(
            ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        Self::new(ProgressOutput::Bar(bar), unit)
    }

    /// Writes a line whenever another tenth is done.
    pub fn lines(unit: &'static str, out: &'a mut (dyn Write + Send)) -> Self {
        Self::new(ProgressOutput::Lines(Mutex::new(out)), unit)
    }

    fn new(shown: ProgressOutput<'a>, unit: &'static str) -> Self {
        let state = ProgressState { started: Instant::now(), total: 0, done: 0, tokens: 0 };
        Self { shown, unit, state: Mutex::new(state) }
    }

    /// Reports a step that isn't counted.
    pub(super) fn note(&self, text: &str) {
        match &self.shown {
            ProgressOutput::Bar(bar) => bar.println(text),
            ProgressOutput::Lines(out) => write_line(out, text),
        }
    }

    /// Starts the display for `total` units to do, besides `known` finished ones.
    pub(super) fn start(&self, total: usize, known: usize) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = ProgressState { started: Instant::now(), total, done: 0, tokens: 0 };
        match &self.shown {
            ProgressOutput::Bar(bar) => bar.set_length(total as u64),
            ProgressOutput::Lines(out) => {
                let known = if known > 0 { format!(", {known} known") } else { String::new() };
                write_line(out, &format!("{total} {} to play{known}", self.unit));
            }
        }
    }

    /// Counts a finished unit of `tokens` tokens.
    pub(super) fn tick(&self, tokens: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.done += 1;
        state.tokens += tokens;
        let ProgressState { started, total, done, tokens } = *state;
        let seconds = started.elapsed().as_secs_f64();
        let speed = format!("{:.0} tokens/s", tokens as f64 / seconds.max(1e-3));
        match &self.shown {
            ProgressOutput::Bar(bar) => {
                bar.set_message(speed);
                bar.set_position(done as u64);
            }
            ProgressOutput::Lines(out) if done * 10 / total != (done - 1) * 10 / total => {
                let left = seconds / done as f64 * (total - done) as f64;
                write_line(out, &format!("{done}/{total} {}, {speed}, {left:.0} s left", self.unit));
            }
            ProgressOutput::Lines(_) => {}
        }
    }

    /// Ends the display.
    pub(super) fn finish(&self) {
        if let ProgressOutput::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

/// Writes a line; ignores errors, since the display must not stop the evaluation.
fn write_line(out: &Mutex<&mut (dyn Write + Send)>, line: &str) {
    let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = writeln!(out, "{line}");
}
