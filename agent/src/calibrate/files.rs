//! The output: whole files, and a few lines on standard output.

use crate::draft_file::DraftFile;
use anyhow::{Context, Result};
use std::io::Write;
use std::path::Path;

/// Writes a file at `path`, whole or not at all; an existing one is replaced.
///
/// # Errors
/// Names the file.
pub(super) fn replace(path: &Path, text: &str) -> Result<()> {
    let draft = DraftFile::new(path)?;
    draft.file()?.write_all(text.as_bytes()).with_context(|| path.display().to_string())?;
    draft.publish()
}

/// Writes lines.
///
/// # Errors
/// Standard output can't be written to.
pub(super) fn say(out: &mut impl Write, lines: &[String]) -> Result<()> {
    for line in lines {
        writeln!(out, "{line}").context("standard output")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_is_replaced_whole_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        for text in ["long, long ago", "now"] {
            replace(&path, text).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        let taken = dir.path().join("taken");
        fs::create_dir(&taken).unwrap();
        let said = format!("{:#}", replace(&taken, "x").unwrap_err());
        assert!(said.contains("taken: "), "{said}");
        assert!(replace(&dir.path().join("none/a"), "x").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
