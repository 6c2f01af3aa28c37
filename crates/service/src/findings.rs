//! The lines that a check writes: a mark, the finding, and for a failure the remedy.

use std::io::{self, Write};

const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RED: &str = "\x1b[31m";
const RESET: &str = "\x1b[0m";

/// Writes findings, and remembers whether one was bad.
pub struct Findings<W> {
    out: W,
    colour: bool,
    bad: bool,
}

impl<W: Write> Findings<W> {
    /// No findings yet.
    pub fn new(out: W, colour: bool) -> Self {
        Self { out, colour, bad: false }
    }

    /// Reports a passed check.
    ///
    /// # Errors
    /// It can't be written.
    pub fn good(&mut self, text: &str) -> io::Result<()> {
        self.line("✓", GREEN, text)
    }

    /// Reports a possible problem.
    ///
    /// # Errors
    /// It can't be written.
    pub fn doubtful(&mut self, text: &str) -> io::Result<()> {
        self.line("!", YELLOW, text)
    }

    /// Reports a failed check and its remedy.
    ///
    /// # Errors
    /// It can't be written.
    pub fn bad(&mut self, text: &str, advice: &str) -> io::Result<()> {
        self.bad = true;
        self.line("✗", RED, text)?;
        writeln!(self.out, "  → {advice}").map_err(named)
    }

    /// True if a check failed.
    pub fn is_bad(&self) -> bool {
        self.bad
    }

    fn line(&mut self, mark: &str, colour: &str, text: &str) -> io::Result<()> {
        let (begin, end) = if self.colour { (colour, RESET) } else { ("", "") };
        writeln!(self.out, "{begin}{mark}{end} {text}").map_err(named)
    }
}

fn named(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("standard output: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(colour: bool) -> (String, bool) {
        let mut out = Vec::new();
        let mut findings = Findings::new(&mut out, colour);
        findings.good("clock: set").unwrap();
        findings.doubtful("power: odd").unwrap();
        assert!(!findings.is_bad());
        findings.bad("broker: gone", "start it").unwrap();
        let bad = findings.is_bad();
        (String::from_utf8(out).unwrap(), bad)
    }

    #[test]
    fn each_finding_is_a_line_and_a_bad_one_has_advice() {
        let lines = "✓ clock: set\n! power: odd\n✗ broker: gone\n  → start it\n";
        assert_eq!(written(false), (lines.into(), true));
    }

    #[test]
    fn a_mark_has_a_colour_where_colours_may_be_used() {
        assert!(written(true).0.starts_with("\x1b[32m✓\x1b[0m clock: set\n\x1b[33m!"));
    }
}
