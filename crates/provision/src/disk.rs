//! Writes files whole or not at all, and erases a file for good.
//!
//! Invariant: every change of a folder or file is a step of its own, ordered so that power may fail before any step:
//! a file has its old content or its new one, and never a part.

use super::text::HEAD_BYTES;
use anyhow::{Context, Result};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A file to write.
pub struct Change {
    /// Its path.
    pub place: PathBuf,
    /// Its content.
    pub bytes: Vec<u8>,
    /// Its mode; `None` on a file system without modes.
    pub mode: Option<u32>,
}

/// A kind of change to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskStep {
    MakeFolder,
    Create,
    Write,
    Sync,
    Rename,
    SyncFolder,
    OverwriteHead,
    Overwrite,
    Remove,
}

/// A hook that runs before each step.
type Before<'a> = dyn FnMut(DiskStep, &Path) -> io::Result<()> + 'a;

/// The disk. `before` is called before each step; if it fails, the step fails with its error.
pub struct DataDisk<'a> {
    before: Box<Before<'a>>,
}

impl Default for DataDisk<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> DataDisk<'a> {
    /// The real disk.
    pub fn new() -> Self {
        Self::with(|_, _| Ok(()))
    }

    /// A disk whose steps are observed or made to fail.
    pub(crate) fn with(before: impl FnMut(DiskStep, &Path) -> io::Result<()> + 'a) -> Self {
        Self { before: Box::new(before) }
    }

    /// Makes all changes: first writes all files beside their destinations, then renames them.
    ///
    /// # Errors
    /// Names the file. If it could not be written, nothing has changed; if it could not be renamed, earlier changes
    /// stay.
    pub fn put(&mut self, changes: &[Change]) -> Result<()> {
        let written = changes.iter().try_for_each(|change| self.stage(change));
        if written.is_err() {
            // Remove the new files, because the space may be needed. Ignore errors: some of them don't exist.
            for path in changes.iter().map(|change| beside(&change.place)) {
                let _ = self.step(DiskStep::Remove, &path).and_then(|()| fs::remove_file(&path));
            }
        }
        // Rename only now: if the disk was full, all old files are still in place.
        written?;
        changes.iter().try_for_each(|change| self.publish(change))
    }

    fn stage(&mut self, change: &Change) -> Result<()> {
        let path = beside(&change.place);
        let named = || path.display().to_string();
        if let Some(folder) = change.place.parent().filter(|folder| !folder.is_dir()) {
            self.step(DiskStep::MakeFolder, folder)
                .and_then(|()| fs::create_dir_all(folder))
                .with_context(named)?;
        }
        self.written(&path, change).with_context(named)
    }

    fn written(&mut self, path: &Path, change: &Change) -> io::Result<()> {
        self.step(DiskStep::Create, path)?;
        let mut file = File::create(path)?;
        if let Some(mode) = change.mode {
            file.set_permissions(Permissions::from_mode(mode))?;
        }
        self.step(DiskStep::Write, path)?;
        file.write_all(&change.bytes)?;
        self.step(DiskStep::Sync, path)?;
        file.sync_all()
    }

    fn publish(&mut self, change: &Change) -> Result<()> {
        let place = &change.place;
        let moved = self.step(DiskStep::Rename, place).and_then(|()| fs::rename(beside(place), place));
        moved.and_then(|()| self.sync_folder(place)).with_context(|| place.display().to_string())
    }

    fn sync_folder(&mut self, place: &Path) -> io::Result<()> {
        self.step(DiskStep::SyncFolder, place)?;
        let folder = place.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }

    /// Overwrites a file and removes it.
    ///
    /// # Errors
    /// Names the file.
    pub(crate) fn erase(&mut self, place: &Path) -> Result<()> {
        self.erased(place).with_context(|| place.display().to_string())
    }

    /// Overwrites the head first: a file that begins with zeros is recognised as one whose removal was interrupted.
    fn erased(&mut self, place: &Path) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).open(place)?;
        let length = file.metadata()?.len();
        let head = length.min(HEAD_BYTES as u64);
        for (step, from, until) in [(DiskStep::OverwriteHead, 0, head), (DiskStep::Overwrite, head, length)] {
            self.step(step, place)?;
            file.seek(SeekFrom::Start(from))?;
            io::copy(&mut io::Read::take(io::repeat(0), until - from), &mut file)?;
            file.sync_all()?;
        }
        self.remove(place)
    }

    /// Removes a file.
    ///
    /// # Errors
    /// The file doesn't exist or can't be removed.
    pub fn remove(&mut self, place: &Path) -> io::Result<()> {
        self.step(DiskStep::Remove, place)?;
        fs::remove_file(place)?;
        self.sync_folder(place)
    }

    fn step(&mut self, step: DiskStep, path: &Path) -> io::Result<()> {
        (self.before)(step, path)
    }
}

/// The temporary file that is renamed to `place`. Its name is fixed, so that a power failure leaves at most one.
fn beside(place: &Path) -> PathBuf {
    let mut name = place.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    place.with_file_name(name)
}
