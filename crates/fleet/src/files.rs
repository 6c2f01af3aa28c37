//! Files of a fleet: written whole or not at all, private ones for their owner alone.

use anyhow::{Context, Result, bail};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;
use tempfile::{NamedTempFile, TempDir};

/// Bytes of any file that is read here.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Permissions of group and others.
const OTHERS: u32 = 0o077;

/// The readers of a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readers {
    /// The owner alone.
    Owner,
    /// Everybody.
    All,
}

impl Readers {
    fn mode(self) -> u32 {
        match self {
            Self::Owner => 0o600,
            Self::All => 0o644,
        }
    }
}

/// Makes a folder for the owner alone; one that exists is an error.
pub(crate) fn make_folder(path: &Path) -> Result<()> {
    DirBuilder::new().mode(0o700).create(path).with_context(|| format!("{} can't be made", path.display()))
}

/// A folder for the owner alone that vanishes unless it is [published](publish_folder).
pub(crate) fn staging_folder(parent: &Path) -> Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix(".new-").permissions(Permissions::from_mode(0o700));
    builder.tempdir_in(parent).with_context(|| format!("{} can't be written", parent.display()))
}

/// Gives a folder that is complete its name.
pub(crate) fn publish_folder(made: TempDir, path: &Path) -> Result<()> {
    fs::rename(made.path(), path).with_context(|| format!("{} can't be made", path.display()))?;
    // It has another name now, so there is nothing left to remove.
    let _ = made.keep();
    sync_folder(path)
}

/// Writes a file that must not exist.
pub(crate) fn create(path: &Path, bytes: impl AsRef<[u8]>, readers: Readers) -> Result<()> {
    let file = staged(path, bytes.as_ref(), readers)?;
    file.persist_noclobber(path).map_err(|error| match error.error.kind() {
        ErrorKind::AlreadyExists => {
            anyhow::anyhow!("{} exists already; it was left as it is", path.display())
        }
        _ => anyhow::anyhow!("{} can't be written: {}", path.display(), error.error),
    })?;
    sync_folder(path)
}

/// Writes a file in the place of the present one.
pub(crate) fn replace(path: &Path, bytes: impl AsRef<[u8]>, readers: Readers) -> Result<()> {
    let file = staged(path, bytes.as_ref(), readers)?;
    file.persist(path)
        .map_err(|error| anyhow::anyhow!("{} can't be written: {}", path.display(), error.error))?;
    sync_folder(path)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn staged(path: &Path, bytes: &[u8], readers: Readers) -> Result<NamedTempFile> {
    let unwritten = || format!("{} can't be written", path.display());
    let mut file = NamedTempFile::new_in(folder_of(path)).with_context(unwritten)?;
    file.write_all(bytes).with_context(unwritten)?;
    let permissions = Permissions::from_mode(readers.mode());
    // A FAT file system has no modes, and may refuse to set them.
    match file.as_file().set_permissions(permissions) {
        Err(error) if error.kind() != ErrorKind::PermissionDenied => {
            return Err(error).with_context(unwritten);
        }
        _ => {}
    }
    file.as_file().sync_all().with_context(unwritten)?;
    Ok(file)
}

fn sync_folder(path: &Path) -> Result<()> {
    let folder = folder_of(path);
    File::open(folder).and_then(|folder| folder.sync_all()).with_context(|| folder.display().to_string())
}

/// Reads a text of at most 4 MiB.
pub(crate) fn read(path: &Path) -> Result<String> {
    let mut text = String::new();
    let file = File::open(path).with_context(|| path.display().to_string())?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).with_context(|| path.display().to_string())?;
    if text.len() as u64 > FILE_BYTES_MAX {
        bail!("{} is larger than {FILE_BYTES_MAX} bytes", path.display());
    }
    Ok(text)
}

/// Reads a private file; refuses one that others may read.
pub(crate) fn read_private(path: &Path) -> Result<String> {
    check_private(path)?;
    read(path)
}

/// Refuses a file or folder that others have access to.
pub(crate) fn check_private(path: &Path) -> Result<()> {
    let mode = fs::metadata(path).with_context(|| path.display().to_string())?.mode() & 0o7777;
    if mode & OTHERS != 0 {
        let own = mode & !OTHERS;
        bail!("{0} is open to others (mode {mode:04o}): run `chmod {own:o} {0}`", path.display());
    }
    Ok(())
}
