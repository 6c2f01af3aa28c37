//! A file that is written beside its destination and then renamed, so that the destination is whole or unchanged.

use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// The unfinished file. It is removed if it is dropped before it is published.
#[derive(Debug)]
pub(crate) struct DraftFile {
    place: PathBuf,
    path: PathBuf,
    file: File,
}

impl DraftFile {
    /// Begins a file that will be published at `place`.
    ///
    /// # Errors
    /// Names the place: it is a folder, or its folder is missing or not writable.
    pub(crate) fn new(place: &Path) -> Result<Self> {
        let shown = || place.display().to_string();
        let Some(name) = place.file_name().filter(|_| !place.is_dir()) else {
            bail!("{}: not a file name", shown());
        };
        let mut own = OsString::from(".");
        own.push(name);
        own.push(format!(".{}", std::process::id()));
        let path = place.with_file_name(own);
        let file = File::create(&path).with_context(shown)?;
        Ok(Self { place: place.into(), path, file })
    }

    /// The path of the unfinished file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file to write to.
    ///
    /// # Errors
    /// The process has too many files open.
    pub(crate) fn file(&self) -> Result<File> {
        self.file.try_clone().with_context(|| self.place.display().to_string())
    }

    /// Renames the file to its destination.
    ///
    /// # Errors
    /// Names the place.
    pub(crate) fn publish(self) -> Result<()> {
        self.moved().with_context(|| self.place.display().to_string())
    }

    fn moved(&self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, &self.place)
    }
}

impl Drop for DraftFile {
    fn drop(&mut self) {
        // Ignore the error: after publishing, the file is no longer there.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_file_takes_its_place_whole_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("a.csv");
        for text in ["long, long ago", "now"] {
            let draft = DraftFile::new(&place).unwrap();
            draft.file().unwrap().write_all(text.as_bytes()).unwrap();
            draft.publish().unwrap();
            assert_eq!(fs::read_to_string(&place).unwrap(), text);
        }
        let dropped = DraftFile::new(&place).unwrap();
        dropped.file().unwrap().write_all(b"never").unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        drop(dropped);
        assert_eq!(fs::read_to_string(&place).unwrap(), "now");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_place_that_can_take_no_file_is_named_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let said = |place: &Path| format!("{:#}", DraftFile::new(place).unwrap_err());
        assert!(said(dir.path()).ends_with(": not a file name"));
        assert!(said(Path::new("..")).contains(".."));
        let missing = said(&dir.path().join("none/a.csv"));
        assert!(missing.contains("none/a.csv: ") && missing.contains("No such file"), "{missing}");
    }
}
