//! Files of prompts: one a line, or JSON.

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::path::Path;

/// A prompt, and where it stands in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Prompt {
    pub(super) text: String,
    /// Its line number, or its place in the list.
    pub(super) place: String,
}

/// A JSON file; other keys are ignored.
#[derive(Deserialize)]
struct List {
    prompts: Vec<String>,
}

/// Reads a file: JSON where it begins with a brace. Blank prompts are left out.
///
/// # Errors
/// Names the file, and the line where one is wrong.
pub(super) fn read(path: &Path) -> Result<Vec<Prompt>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let prompts = parse(&text).with_context(|| path.display().to_string())?;
    if prompts.is_empty() {
        bail!("{}: no prompts in it", path.display());
    }
    Ok(prompts)
}

fn parse(text: &str) -> Result<Vec<Prompt>> {
    if text.trim_start().starts_with('{') {
        let list: List = serde_json::from_str(text)?;
        return Ok(prompts(list.prompts.iter().map(String::as_str), "prompt"));
    }
    Ok(prompts(text.lines(), "line"))
}

fn prompts<'a>(texts: impl Iterator<Item = &'a str>, unit: &str) -> Vec<Prompt> {
    let numbered = (1..).zip(texts.map(str::trim)).filter(|(_, text)| !text.is_empty());
    numbered.map(|(i, text)| Prompt { text: text.into(), place: format!("{unit} {i}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: impl AsRef<[u8]>) -> Result<Vec<(String, String)>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("held-out");
        std::fs::write(&path, text).unwrap();
        let prompts = read(&path).map_err(|error| format!("{error:#}"))?;
        Ok(prompts.into_iter().map(|prompt| (prompt.text, prompt.place)).collect())
    }

    fn owned(prompts: &[(&str, &str)]) -> Vec<(String, String)> {
        prompts.iter().map(|(text, place)| ((*text).into(), (*place).into())).collect()
    }

    #[test]
    fn one_a_line_or_a_list() {
        let lines = read_text("Hello.\r\n\n  What {now}?  \n").unwrap();
        assert_eq!(lines, owned(&[("Hello.", "line 1"), ("What {now}?", "line 3")]));
        let list = read_text(r#" { "about": 1, "prompts": ["a", " ", "b\nc"] }"#).unwrap();
        assert_eq!(list, owned(&[("a", "prompt 1"), ("b\nc", "prompt 3")]));
    }

    #[test]
    fn mistakes_name_the_file_and_the_line() {
        for (text, what) in [
            ("", "no prompts in it"),
            (" \n\n", "no prompts in it"),
            (r#"{"prompts": []}"#, "no prompts in it"),
            (r#"{"prompts": [""]}"#, "no prompts in it"),
            ("{\n\"prompt\": [\"a\"]\n}", "missing field `prompts` at line 3"),
            ("{\n\"prompts\": [\"a\",\n 7]}", "expected a string at line 3"),
            ("{\n\"prompts\": [\"a\"", "EOF while parsing a list at line 2"),
        ] {
            let said = read_text(text).unwrap_err();
            assert!(said.contains("held-out: ") && said.contains(what), "{said}");
        }
        assert!(read_text([0x41, 0xff]).unwrap_err().contains("UTF-8"));
        let missing = format!("{:#}", read(Path::new("no/such/file")).unwrap_err());
        assert!(missing.starts_with("no/such/file: "), "{missing}");
    }

    #[test]
    fn the_demo_pairs_prompts_can_be_read() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo/prompts.json");
        assert!(read(&path).unwrap().len() > 100);
    }
}
