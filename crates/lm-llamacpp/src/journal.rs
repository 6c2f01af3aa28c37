//! What llama.cpp logs, kept for errors and warnings of ours.
//!
//! Invariant: the lines that are kept are bounded in number and length, and are escaped before they are shown: parts of them
//! come from the model's file.

use dunlin_gguf::printable;
use std::collections::VecDeque;
use std::fmt;
use std::io::{Write, stderr};
use std::sync::{Arc, Mutex, PoisonError};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Lines that are kept; older ones are dropped.
const LINES_MAX: usize = 8;
/// Characters of a line.
const LINE_CHARACTERS_MAX: usize = 240;
/// The name under which the wrapper logs llama.cpp's lines.
const SOURCE: &str = "llama-cpp-2";

/// Warnings and errors that llama.cpp logs on the thread that has this as its subscriber.
#[derive(Clone, Debug, Default)]
pub(crate) struct Journal {
    lines: Arc<Mutex<VecDeque<String>>>,
    /// True if each line is also written to standard error at once: a process that is ended tells nothing later.
    echoes: bool,
}

/// A line as it is shown.
pub(crate) fn shown(line: &str) -> String {
    printable(line.trim(), LINE_CHARACTERS_MAX)
}

impl Journal {
    /// A journal of a process that may be ended by what it does.
    pub(crate) fn echoing() -> Self {
        Self { echoes: true, ..Self::default() }
    }

    /// The lines so far, which are forgotten here.
    pub(crate) fn take(&self) -> Vec<String> {
        self.lines().drain(..).collect()
    }

    /// The lines so far as the end of a message; nothing if there are none.
    pub(crate) fn explain(&self) -> String {
        let lines = self.take();
        if lines.is_empty() { String::new() } else { format!(" ({})", lines.join("; ")) }
    }

    fn lines(&self) -> std::sync::MutexGuard<'_, VecDeque<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, line: &str) {
        let shown = shown(line);
        let mut lines = self.lines();
        if shown.is_empty() || lines.back() == Some(&shown) {
            return;
        }
        if self.echoes {
            // Ignore the error: nobody reads it any more.
            let _ = writeln!(stderr(), "{shown}");
        }
        if lines.len() == LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(shown);
    }
}

impl Subscriber for Journal {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == SOURCE && *metadata.level() <= Level::WARN
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Line(self));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Notes the message of an event.
struct Line<'a>(&'a Journal);

impl Visit for Line<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.0.note(value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0.note(&format!("{value:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_escaped_and_forgotten() {
        let journal = Journal::default();
        assert_eq!(journal.explain(), "");
        journal.note("a\u{1b}[2J'b'\n");
        journal.note(&"x".repeat(1000));
        assert_eq!(journal.explain(), format!(" (a\\u{{1b}}[2J'b'; {})", "x".repeat(240) + "…"));
        (0..100).for_each(|i| journal.note(&i.to_string()));
        journal.note("99");
        assert_eq!(journal.take(), ["92", "93", "94", "95", "96", "97", "98", "99"]);
        assert_eq!(journal.explain(), "");
    }

    #[test]
    fn only_warnings_of_llama_cpp_are_kept() {
        let journal = Journal::default();
        let dispatch = tracing::Dispatch::new(journal.clone());
        tracing::dispatcher::with_default(&dispatch, || {
            tracing::warn!("another's");
            tracing::info!(target: "llama-cpp-2", "too minor");
            tracing::warn!(target: "llama-cpp-2", "kept");
            tracing::error!(target: "llama-cpp-2", "kept too");
        });
        assert_eq!(journal.take(), ["kept", "kept too"]);
    }
}
