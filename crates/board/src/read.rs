//! The one place that reads TOML and locates mistakes.

use crate::problem::Problem;
use anyhow::{Context, Result, anyhow};
use serde::de::DeserializeOwned;
use std::fmt::Display;
use std::fs;
use std::ops::Range;
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// The beginning of messages that quote a value.
const QUOTING: [&str; 3] = ["invalid type: ", "invalid value: ", "unknown variant "];
/// The text behind the value in them.
const EXPECTED: &str = ", expected ";

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

/// An error at a place in a file's `text`: it has the file, the line number, and the line, which shows the key.
///
/// Neither the line nor what a parser says of it shows a value that may have a password in it.
pub fn wrong(path: &Path, text: &str, place: Option<Range<usize>>, what: impl Display) -> anyhow::Error {
    let start = place.map_or(0, |place| place.start.min(text.len()));
    let number = text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1;
    let whole = text.lines().nth(number - 1).unwrap_or("").trim();
    let (line, what) = (shown(whole), what.to_string());
    let what = if line == whole && !may_be_secret(&what) { what } else { masked(&what) };
    anyhow!("{}:{number}: {what} ({line})", path.display())
}

/// A parser's message without the value that it quotes.
fn masked(what: &str) -> String {
    let Some(begin) = QUOTING.into_iter().find(|begin| what.starts_with(begin)) else { return what.into() };
    let quoted = &what[begin.len()..];
    let Some(start) = quoted.find(['"', '`']) else { return what.into() };
    // The last one is the parser's own: a value may have the same words in it.
    let rest = quoted.rfind(EXPECTED).filter(|rest| *rest > start).map_or("", |rest| &quoted[rest..]);
    format!("{begin}{}***{rest}", &quoted[..start])
}

fn may_be_secret(text: &str) -> bool {
    text.to_ascii_lowercase().contains("pas") || text.contains('@')
}

/// A line for an error message, without its value if that may contain a password.
fn shown(line: &str) -> &str {
    if may_be_secret(line) {
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

    #[derive(Debug, serde::Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        One,
        Two,
    }

    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Probe {
        mqtt: std::collections::BTreeMap<String, String>,
        password_file: String,
        number: u16,
        kind: Option<Kind>,
        list: Vec<u8>,
    }

    fn refusal(text: &str) -> String {
        let error = toml::from_str::<Probe>(text).unwrap_err();
        wrong(Path::new("f"), text, error.span(), error.message()).to_string()
    }

    #[test]
    fn a_value_that_may_be_a_password_is_not_quoted() {
        for (text, said) in [
            ("mqtt = 'mqtt://me:hush@h'", "f:1: invalid type: string ***, expected a map (mqtt)"),
            ("password_file = 12345678", "f:1: invalid type: integer ***, expected a string (password_file)"),
            ("kind = 'me:hush@h'", "f:1: unknown variant ***, expected `one` or `two` (kind)"),
            ("number = '''\nme:hush@h'''", "f:1: invalid type: string ***, expected u16 (number = ''')"),
            ("list = ['a@b, expected x']", "f:1: invalid type: string ***, expected u8 (list)"),
            ("number = 'x'", "f:1: invalid type: string \"x\", expected u16 (number = 'x')"),
        ] {
            assert_eq!(refusal(text), said);
        }
        assert!(refusal("pasword = 'x'").starts_with("f:1: unknown field `pasword`, expected"));
    }

    proptest! {
        #[test]
        fn no_refusal_quotes_a_password(
            key in "(mqtt|number|kind|list|pasword|x)",
            opening in "('|'''|'''\n|\\[')",
            before in "(me:|@|, expected |`|\"|pas){0,3}",
            after in "(:|@|, expected |`|\"){0,3}@",
        ) {
            let closing: String = opening.replace('[', "]").trim_end().chars().rev().collect();
            let text = format!("{key} = {opening}{before}hush{after}{closing}\n");
            let said = refusal(&text);
            prop_assert!(!said.contains("hush"), "{}", said);
        }

        #[test]
        fn no_refusal_quotes_a_password_of_another_type(number in 1_000_000u32..) {
            let said = refusal(&format!("password_file = {number}"));
            prop_assert!(!said.contains(&number.to_string()), "{}", said);
        }

        #[test]
        fn no_place_in_no_text_is_too_much(text in "\\PC{0,40}(\n\\PC{0,9}){0,3}", start in 0usize..99, key in "[a-z.]{0,9}") {
            prop_assert!(wrong(Path::new("f"), &text, Some(start..start), "x").to_string().starts_with("f:"));
            place(&text, &key);
        }
    }
}
