//! The prompts of an assessment: a list of this repository, or a file of the user's.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Held-out first turns of dialogues, those of the demo pair.
const BUILT_IN: &str = include_str!("../../../../models/demo/prompts.json");
/// The key of the list in an object.
const KEY: &str = "prompts";
/// The largest accepted file, bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The first `count` prompts of the list in this program, or all.
///
/// # Errors
/// The list in this program is invalid.
pub fn built_in(count: usize) -> Result<Vec<String>> {
    first(list(BUILT_IN)?, count)
}

/// The first `count` prompts of a file, or all: one a line, a JSON list, or a JSON object with a list named `prompts`.
///
/// # Errors
/// The file can't be read, is too large or no text, or holds anything else, or no prompt.
pub fn read(path: &Path, count: usize) -> Result<Vec<String>> {
    let at = || path.display().to_string();
    let mut text = String::new();
    let file = File::open(path).with_context(at)?;
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).with_context(at)?;
    ensure!(read as u64 <= FILE_BYTES_MAX, "{}: a file of prompts has at most {FILE_BYTES_MAX} bytes", at());
    let is_json = path.extension().is_some_and(|extension| extension == "json");
    let prompts = if is_json || text.trim_start().starts_with(['[', '{']) {
        list(&text).with_context(at)?
    } else {
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
    };
    first(prompts, count).with_context(at)
}

fn first(mut prompts: Vec<String>, count: usize) -> Result<Vec<String>> {
    ensure!(!prompts.is_empty(), "no prompts; expected one a line, or a JSON list of strings");
    prompts.truncate(count);
    Ok(prompts)
}

/// The strings of a JSON list, or of one in an object.
fn list(text: &str) -> Result<Vec<String>> {
    let json: Value = serde_json::from_str(text).context("it begins as JSON, but is not valid")?;
    let list = match json {
        Value::Object(mut object) => {
            object.remove(KEY).with_context(|| format!("a JSON object without a list named {KEY:?}"))?
        }
        other => other,
    };
    let Value::Array(items) = list else { bail!("expected a JSON list of strings") };
    let prompt = |(i, item): (usize, Value)| match item {
        Value::String(text) if !text.trim().is_empty() => Ok(text),
        Value::String(_) => bail!("prompt {} of the list is empty", i + 1),
        other => bail!("prompt {} of the list is no string: {other}", i + 1),
    };
    items.into_iter().enumerate().map(prompt).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_as(name: &str, bytes: &[u8]) -> Result<Vec<String>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        read(&path, 2).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn prompts_are_lines_or_a_list() {
        assert_eq!(built_in(20).unwrap().len(), 20);
        assert_eq!(built_in(1).unwrap(), ["What alarms do I have please?"]);
        let expected: Vec<String> = vec!["one".into(), "two words".into()];
        let files = [
            "one\n\n  two words \nthree\n",
            r#"["one", "two words"]"#,
            r#"{"prompts": ["one", "two words"]}"#,
        ];
        for file in files {
            assert_eq!(read_as("p.txt", file.as_bytes()), Ok(expected.clone()), "{file}");
        }
    }

    #[test]
    fn a_file_that_is_no_list_is_refused_in_words() {
        let cases: [(&str, &[u8], &str); 8] = [
            ("p.txt", b"", "p.txt: no prompts; expected one a line, or a JSON list of strings"),
            ("p.txt", b" \n\n", "p.txt: no prompts"),
            ("p.txt", b"\xff\xfe", "p.txt: stream did not contain valid UTF-8"),
            ("p.txt", b"[\"one\"", "p.txt: it begins as JSON, but is not valid"),
            ("p.json", b"one", "p.json: it begins as JSON, but is not valid"),
            ("p.json", b"[\"one\", 2]", "p.json: prompt 2 of the list is no string: 2"),
            ("p.json", b"[\" \"]", "p.json: prompt 1 of the list is empty"),
            ("p.json", b"{\"words\": []}", "p.json: a JSON object without a list named \"prompts\""),
        ];
        for (name, bytes, expected) in cases {
            let error = read_as(name, bytes).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let long = vec![b'a'; FILE_BYTES_MAX as usize + 1];
        assert!(read_as("p.txt", &long).unwrap_err().contains("has at most 16777216 bytes"));
    }
}
