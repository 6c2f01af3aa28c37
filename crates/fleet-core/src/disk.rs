//! The disk as the store needs it: few kinds of steps, between any two of which power may fail.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The disk below a folder. Paths are relative to it, with `/` between names; the folder itself is `""`.
///
/// A change of a file is lasting after [`sync`](Self::sync), a change of a folder's entries after
/// [`sync_dir`](Self::sync_dir). Before that it may be lost, whole or in part, and in any order.
pub trait Disk {
    /// Bytes of a file; `None` if it doesn't exist.
    ///
    /// # Errors
    /// Those of the disk.
    fn size(&self, path: &str) -> io::Result<Option<u64>>;
    /// Bytes of a file from `offset` on; fewer than `buffer` has only at its end.
    ///
    /// # Errors
    /// The file doesn't exist, or those of the disk.
    fn read_at(&self, path: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Names in a folder, in order.
    ///
    /// # Errors
    /// The folder doesn't exist, or those of the disk.
    fn list(&self, path: &str) -> io::Result<Vec<String>>;
    /// Makes a folder; one that exists is left as it is.
    ///
    /// # Errors
    /// Those of the disk.
    fn make_dir(&self, path: &str) -> io::Result<()>;
    /// Writes a file anew.
    ///
    /// # Errors
    /// Those of the disk.
    fn write(&self, path: &str, bytes: &[u8]) -> io::Result<()>;
    /// Writes into a file, which is made if it doesn't exist.
    ///
    /// # Errors
    /// Those of the disk.
    fn write_at(&self, path: &str, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes a file's bytes lasting.
    ///
    /// # Errors
    /// Those of the disk.
    fn sync(&self, path: &str) -> io::Result<()>;
    /// Makes a folder's entries lasting.
    ///
    /// # Errors
    /// Those of the disk.
    fn sync_dir(&self, path: &str) -> io::Result<()>;
    /// Gives a file another name in its folder, in the place of the one that has it.
    ///
    /// # Errors
    /// Those of the disk.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Gives a file a second name, which must be free.
    ///
    /// # Errors
    /// Those of the disk.
    fn link(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file, or a folder without entries.
    ///
    /// # Errors
    /// Those of the disk.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Free bytes.
    ///
    /// # Errors
    /// Those of the disk.
    fn free(&self) -> io::Result<u64>;
}

/// A real disk.
#[derive(Debug)]
pub struct StdDisk {
    root: PathBuf,
}

impl StdDisk {
    /// The disk below a folder, which must exist.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn at(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.root.clone() } else { self.root.join(path) }
    }
}

fn none_if_missing<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn open_dir(path: &Path) -> io::Result<File> {
    File::open(path)
}

impl Disk for StdDisk {
    fn size(&self, path: &str) -> io::Result<Option<u64>> {
        Ok(none_if_missing(fs::metadata(self.at(path)))?.map(|file| file.len()))
    }

    fn read_at(&self, path: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let (file, mut read) = (File::open(self.at(path))?, 0);
        while read < buffer.len() {
            match file.read_at(&mut buffer[read..], offset + read as u64)? {
                0 => break,
                more => read += more,
            }
        }
        Ok(read)
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.at(path))? {
            // The store writes no name that isn't text.
            names.extend(entry?.file_name().into_string());
        }
        names.sort();
        Ok(names)
    }

    fn make_dir(&self, path: &str) -> io::Result<()> {
        match fs::create_dir(self.at(path)) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            made => made,
        }
    }

    fn write(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        File::create(self.at(path))?.write_all(bytes)
    }

    fn write_at(&self, path: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(self.at(path))?;
        file.write_all_at(bytes, offset)
    }

    fn sync(&self, path: &str) -> io::Result<()> {
        OpenOptions::new().write(true).open(self.at(path))?.sync_all()
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        open_dir(&self.at(path))?.sync_all()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.at(from), self.at(to))
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        fs::hard_link(self.at(from), self.at(to))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let place = self.at(path);
        if fs::symlink_metadata(&place)?.is_dir() { fs::remove_dir(place) } else { fs::remove_file(place) }
    }

    fn free(&self) -> io::Result<u64> {
        let disk = rustix::fs::statvfs(&self.root)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}

/// Reads a file of at most `limit` bytes; `None` if it doesn't exist.
///
/// # Errors
/// It is larger, or those of the disk.
pub(crate) fn read_all(disk: &impl Disk, path: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let Some(size) = disk.size(path)? else { return Ok(None) };
    if size > limit {
        let text = format!("{path} has {size} bytes; {limit} is the limit");
        return Err(io::Error::new(ErrorKind::InvalidData, text));
    }
    let mut bytes = vec![0; size as usize];
    let read = disk.read_at(path, 0, &mut bytes)?;
    bytes.truncate(read);
    Ok(Some(bytes))
}

/// Puts a file in the place of the present one, so that power may fail before any step.
pub(crate) fn replace(disk: &impl Disk, dir: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let place = join(dir, name);
    let beside = format!("{place}.new");
    disk.write(&beside, bytes)?;
    disk.sync(&beside)?;
    disk.rename(&beside, &place)?;
    disk.sync_dir(dir)
}

pub(crate) fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

/// A file as a reader.
pub(crate) struct DiskReader<'a, D> {
    disk: &'a D,
    path: &'a str,
    offset: u64,
}

impl<'a, D: Disk> DiskReader<'a, D> {
    pub(crate) fn new(disk: &'a D, path: &'a str) -> Self {
        Self { disk, path, offset: 0 }
    }
}

impl<D: Disk> Read for DiskReader<'_, D> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.disk.read_at(self.path, self.offset, buffer)?;
        self.offset += read as u64;
        Ok(read)
    }
}
