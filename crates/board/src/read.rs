//! The one place that reads TOML and locates mistakes.

use crate::problem::Problem;
use anyhow::{Context, Result, anyhow};
use serde::de::DeserializeOwned;
use std::fmt::Display;
use std::fs;
use std::ops::Range;
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// Reads a TOML file. An error names file, line and key.
///
/// # Errors
/// The file can't be read, or contains a mistake.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    read_checked(path, |_| Ok(()))
}

/// Reads a TOML file and checks its values. An error names file, line and key.
///
/// # Errors
/// The file can't be read, or contains a mistake.
pub fn read_checked<T: DeserializeOwned>(
    path: &Path,
    check: impl FnOnce(&T) -> Result<(), Problem>,
) -> Result<T> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let value: T =
        toml::from_str(&text).map_err(|error| wrong(path, &text, error.span(), error.message()))?;
    check(&value).map_err(|problem| wrong(path, &text, place(&text, &problem.key), &problem))?;
    Ok(value)
}

/// An error at a place in a file's `text`, with the file, the line number, and the line, which shows the key.
pub fn wrong(path: &Path, text: &str, place: Option<Range<usize>>, what: impl Display) -> anyhow::Error {
    let start = place.map_or(0, |place| place.start.min(text.len()));
    let number = text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1;
    let line = shown(text.lines().nth(number - 1).unwrap_or("").trim());
    anyhow!("{}:{number}: {what} ({line})", path.display())
}

/// A line for an error message, without its value if that may contain a password.
fn shown(line: &str) -> &str {
    let lower = line.to_ascii_lowercase();
    if lower.contains("pas") || line.contains('@') {
        return line.split('=').next().unwrap_or_default().trim_end();
    }
    line
}

/// The place of a key, or of its innermost table that exists.
fn place(text: &str, key: &str) -> Option<Range<usize>> {
    let document = DeTable::parse(text).ok()?;
    let (mut table, mut place) = (document.get_ref(), None);
    for part in key.split('.') {
        let Some((name, value)) = table.iter().find(|(name, _)| name.get_ref() == part) else { break };
        place = Some(name.span());
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => break,
        }
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_key_is_found_where_it_stands() {
        let text =
            "name = 'b'\n[power]\nsource = 'auto'\n# a comment\nrails = [\n 'x' ]\n[image]\nboot = 'virt'\n";
        let line = |key| place(text, key).map_or(0, |place| text[..place.start].matches('\n').count() + 1);
        assert_eq!([line("name"), line("power.rails"), line("image.boot")], [1, 5, 8]);
        assert_eq!([line("image.config"), line("image"), line("build.target")], [7, 7, 0]);
        assert_eq!(line("name.first"), 1);
    }

    #[test]
    fn a_line_that_may_have_a_password_is_shown_without_its_value() {
        let said = |line: &str| wrong(Path::new("f"), line, None, "x").to_string();
        assert_eq!(said("sesions = 3"), "f:1: x (sesions = 3)");
        assert_eq!(said("PassWord = 'hush'"), "f:1: x (PassWord)");
        assert_eq!(said("broker = 'mqtt://me:hush@h'"), "f:1: x (broker)");
        assert_eq!(said("pasword='hush=hush'"), "f:1: x (pasword)");
    }

    proptest! {
        #[test]
        fn no_place_in_no_text_is_too_much(text in "\\PC{0,40}(\n\\PC{0,9}){0,3}", start in 0usize..99, key in "[a-z.]{0,9}") {
            prop_assert!(wrong(Path::new("f"), &text, Some(start..start), "x").to_string().starts_with("f:"));
            place(&text, &key);
        }
    }
}
