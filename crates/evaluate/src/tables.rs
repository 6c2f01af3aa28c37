//! Markdown tables and the figures in them.

use std::fmt;

/// The mark for a missing figure.
const NONE: &str = "–";

/// A table: words are aligned left, figures right.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub(super) fn new<S: Into<String>>(heads: impl IntoIterator<Item = S>) -> Self {
        Self { rows: vec![heads.into_iter().map(Into::into).collect()] }
    }

    /// Adds a row, which must be as long as the head.
    pub(super) fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.rows[0].len(), "{cells:?}");
        self.rows.push(cells.iter().map(|cell| cell.replace('|', "\\|")).collect());
    }

    /// True when there are no rows.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }
}

impl Table {
    /// True when a column has words; the first always does.
    fn is_words(&self, column: usize) -> bool {
        column == 0 || self.rows[1..].iter().any(|row| row[column].starts_with(char::is_alphabetic))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |i: usize| self.rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0).max(4);
        let columns: Vec<(bool, usize)> =
            (0..self.rows[0].len()).map(|column| (self.is_words(column), width(column))).collect();
        for (line, row) in self.rows.iter().enumerate() {
            for (cell, (words, width)) in row.iter().zip(&columns) {
                if *words { write!(f, "| {cell:<width$} ")? } else { write!(f, "| {cell:>width$} ")? }
            }
            writeln!(f, "|")?;
            if line == 0 {
                for (words, width) in &columns {
                    write!(f, "| {}{} ", "-".repeat(width - 1), if *words { "-" } else { ":" })?;
                }
                writeln!(f, "|")?;
            }
        }
        Ok(())
    }
}

/// A figure with so many decimals; a dash if it is not finite.
pub(super) fn fixed(x: f64, decimals: usize) -> String {
    if !x.is_finite() {
        return NONE.to_string();
    }
    let text = format!("{x:.decimals$}");
    // Show a negative number that rounds to zero without its sign.
    match text.strip_prefix('-') {
        Some(zero) if !zero.contains(|c: char| ('1'..='9').contains(&c)) => zero.to_string(),
        _ => text,
    }
}

/// A figure with three significant digits.
pub(super) fn significant(x: f64) -> String {
    let scientific = format!("{x:.2e}");
    let exponent = scientific.rsplit('e').next().and_then(|e| e.parse::<i32>().ok()).unwrap_or(0);
    fixed(x, usize::try_from(2 - exponent).unwrap_or(0).min(12))
}

/// A share in per cent with so many decimals.
pub(super) fn percent(x: f64, decimals: usize) -> String {
    let text = fixed(100.0 * x, decimals);
    if text == NONE { text } else { text + " %" }
}

/// A figure that may be missing.
pub(super) fn optional(x: Option<f64>, decimals: usize) -> String {
    fixed(x.unwrap_or(f64::NAN), decimals)
}

/// A setting as it was written in the plan; some were stored in 32 bits.
pub(super) fn setting(x: f64) -> String {
    (x as f32).to_string()
}

/// A text as inline code.
pub(super) fn code(text: &str) -> String {
    format!("`{text}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_bars_escaped() {
        let mut table = Table::new(["policy", "ε", "dominated"]);
        assert!(table.is_empty());
        table.row(["a|b", "0.123", "no"].map(str::to_string).to_vec());
        assert!(!table.is_empty());
        let lines = [
            "| policy |     ε | dominated |",
            "| ------ | ----: | --------- |",
            "| a\\|b   | 0.123 | no        |",
        ];
        assert_eq!(table.to_string().lines().collect::<Vec<_>>(), lines);
    }

    #[test]
    fn figures_are_rounded_once() {
        assert_eq!([fixed(-0.001, 2), fixed(-0.006, 2), fixed(f64::NAN, 2)], ["0.00", "-0.01", "–"]);
        assert_eq!([percent(0.12345, 1), percent(f64::INFINITY, 1)], ["12.3 %", "–"]);
        assert_eq!([optional(None, 1), optional(Some(2.0), 1)], ["–", "2.0"]);
        assert_eq!([setting(f64::from(0.3f32)), setting(0.1), setting(-2.0)], ["0.3", "0.1", "-2"]);
        let all = [0.0, 0.000_123_4, 0.9996, 12.34, 123.4, 12345.6, -0.0123].map(significant);
        assert_eq!(all, ["0.00", "0.000123", "1.00", "12.3", "123", "12346", "-0.0123"]);
    }
}
