//! Mistakes in a set-up file.
//!
//! Invariant: a mistake never quotes a password or a key, because it is shown on a screen and sent to a broker.

use dunlin_wire::SetupReport;
use std::fmt;

/// Mistakes that are kept; further ones are only counted.
const KEPT_MAX: usize = 24;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// Its line, starting at 1; `None` if something is missing.
    pub(crate) line: Option<usize>,
    /// The mistake, and its remedy.
    pub(crate) text: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// All mistakes of a file, by line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mistakes {
    kept: Vec<Mistake>,
    count: usize,
}

impl Mistakes {
    /// A single mistake.
    pub(crate) fn of(text: impl Into<String>) -> Self {
        let mut only = Self::default();
        only.push(None, text);
        only
    }

    /// Adds a mistake.
    pub(crate) fn push(&mut self, line: Option<usize>, text: impl Into<String>) {
        self.count += 1;
        if self.kept.len() < KEPT_MAX {
            let at = self.kept.partition_point(|mistake| sorted(mistake.line) <= sorted(line));
            self.kept.insert(at, Mistake { line, text: text.into() });
        }
    }

    /// True if there are no mistakes.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Their number, in words.
    pub(crate) fn counted(&self) -> String {
        if self.count == 1 { "1 mistake".into() } else { format!("{} mistakes", self.count) }
    }

    /// One line per mistake, and one for the number of those left out.
    pub(crate) fn lines(&self) -> Vec<String> {
        let more = self.count - self.kept.len();
        let shown = self.kept.iter().map(Mistake::to_string);
        shown.chain((more > 0).then(|| format!("and {more} more"))).collect()
    }

    /// The message for the broker.
    pub fn report(&self) -> SetupReport {
        let lines = self.lines();
        SetupReport::new(self.count, lines.iter().map(String::as_str))
    }
}

/// The sort key of mistakes: by line; missing keys come last.
fn sorted(line: Option<usize>) -> usize {
    line.unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_stand_by_line_and_what_is_missing_last() {
        let mut mistakes = Mistakes::of("broker is missing");
        mistakes.push(Some(7), "b");
        mistakes.push(Some(3), "a");
        mistakes.push(Some(7), "c");
        assert_eq!(mistakes.lines(), ["line 3: a", "line 7: b", "line 7: c", "broker is missing"]);
        assert_eq!(mistakes.counted(), "4 mistakes");
        assert_eq!(Mistakes::of("x").counted(), "1 mistake");
    }

    #[test]
    fn of_too_many_only_the_number_is_kept() {
        let mut mistakes = Mistakes::default();
        (1..=10_000).for_each(|line| mistakes.push(Some(line), "no"));
        let lines = mistakes.lines();
        assert_eq!(lines.len(), KEPT_MAX + 1);
        assert_eq!(lines.last().unwrap(), "and 9976 more");
        assert_eq!(mistakes.report().mistakes, 10_000);
    }
}
