//! The kernel's small files: one value per file, read again every time.
//!
//! Invariant: whatever a file contains, the result is a value within its bounds or an error that names the file.

use super::sensor::SensorError;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// Maximum size of a file in bytes; the kernel's files have at most a page.
const FILE_BYTES_MAX: usize = 4096;
/// Characters of a file's content shown in an error.
const SHOWN_CHARS_MAX: usize = 40;

/// A file's text without surrounding white space.
pub(super) fn text(path: &Path) -> Result<String, SensorError> {
    let bytes = bytes(path).map_err(|error| failed(path, error))?;
    let text = String::from_utf8(bytes).map_err(|_| failed(path, "not text"))?;
    let text = text.trim();
    match text {
        "" => Err(failed(path, "is empty")),
        text if text.contains('\0') => Err(failed(path, "not text")),
        text => Ok(text.into()),
    }
}

/// A file's integer, checked against its bounds.
pub(super) fn integer(path: &Path, bounds: RangeInclusive<i64>) -> Result<i64, SensorError> {
    let text = text(path)?;
    let value = text.parse().ok().filter(|value| bounds.contains(value));
    value.ok_or_else(|| {
        let reason =
            format!("{:?} is not a whole number from {} to {}", shown(&text), bounds.start(), bounds.end());
        failed(path, reason)
    })
}

/// A file's bytes; an error if there are more than any file of the kernel has.
pub(super) fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("holds more than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

/// An error that names the path.
pub(super) fn failed(path: &Path, reason: impl Display) -> SensorError {
    SensorError::Failed { place: path.display().to_string(), reason: reason.to_string() }
}

/// The beginning of a text, for an error.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS_MAX).collect()
}

/// Entries of a folder with wanted names, `hwmon2` before `hwmon10`; empty if the folder doesn't exist.
pub(super) fn children(folder: &Path, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| wanted(name)).collect();
    names.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    names.into_iter().map(|name| folder.join(name)).collect()
}

/// The last component of a link's target.
pub(super) fn link_name(link: &Path) -> Option<String> {
    Some(fs::read_link(link).ok()?.file_name()?.to_str()?.into())
}

/// Fake kernel trees for tests.
#[cfg(test)]
pub(super) mod fake {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::{Path, PathBuf};
    use tempfile::TempDir;

    /// Contents of broken files; none is a valid figure.
    pub(crate) const GARBAGE: [&[u8]; 9] = [
        b"",
        b"\n",
        b"N/A\n",
        b"1000000000000000000000000000000\n",
        b"-1\n",
        b"1 2\n",
        b"\0\0",
        b"\xff\xfe\n",
        &[b'7'; 5000],
    ];

    /// A tree of files, removed when dropped.
    pub(crate) struct Tree(TempDir);

    impl Tree {
        pub(crate) fn new(files: &[(&str, &str)]) -> Self {
            let tree = Self(TempDir::new().unwrap());
            for (path, text) in files {
                tree.write(path, text.as_bytes());
            }
            tree
        }

        pub(crate) fn root(&self) -> &Path {
            self.0.path()
        }

        pub(crate) fn at(&self, path: &str) -> PathBuf {
            self.root().join(path)
        }

        pub(crate) fn write(&self, path: &str, bytes: &[u8]) {
            fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
            fs::write(self.at(path), bytes).unwrap();
        }

        pub(crate) fn link(&self, path: &str, target: &str) {
            fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
            symlink(target, self.at(path)).unwrap();
        }

        pub(crate) fn remove(&self, path: &str) {
            fs::remove_file(self.at(path)).unwrap();
        }

        /// Replaces a file by a folder, so that the path exists but can't be read.
        pub(crate) fn make_unreadable(&self, path: &str) {
            self.remove(path);
            fs::create_dir(self.at(path)).unwrap();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fake::{GARBAGE, Tree};
    use super::*;

    #[test]
    fn a_file_gives_its_number_or_an_error_that_names_it() {
        let tree = Tree::new(&[("n", " 42\n")]);
        let path = tree.at("n");
        assert_eq!(integer(&path, 0..=42), Ok(42));
        let above = integer(&path, 0..=41).unwrap_err().to_string();
        assert_eq!(above, format!("{}: \"42\" is not a whole number from 0 to 41", path.display()));
        for garbage in GARBAGE {
            tree.write("n", garbage);
            let error = integer(&path, 0..=i64::MAX).unwrap_err().to_string();
            assert!(error.starts_with(path.to_str().unwrap()) && error.len() < 250, "{error}");
        }
        tree.make_unreadable("n");
        assert!(integer(&path, 0..=9).unwrap_err().to_string().contains("directory"));
        assert!(text(&tree.at("absent")).unwrap_err().to_string().contains("No such file"));
    }

    #[test]
    fn what_is_no_text_is_said_as_such() {
        let tree = Tree::new(&[("n", "\0")]);
        let reason = |bytes: &[u8]| {
            tree.write("n", bytes);
            let error = text(&tree.at("n")).unwrap_err();
            let SensorError::Failed { reason, .. } = error else { panic!("{error}") };
            reason
        };
        assert_eq!(reason(b"VDD\0IN"), "not text");
        assert_eq!(reason(b"\xff"), "not text");
        assert_eq!(reason(b" \n"), "is empty");
        assert_eq!(reason(&[b'7'; 4097]), "holds more than 4096 bytes");
    }

    #[test]
    fn children_are_in_the_order_of_their_numbers() {
        let tree = Tree::new(&[("d/hwmon10/name", ""), ("d/hwmon2/name", ""), ("d/other", "")]);
        let found = children(&tree.at("d"), |name| name.starts_with("hwmon"));
        assert_eq!(found, [tree.at("d/hwmon2"), tree.at("d/hwmon10")]);
        assert_eq!(children(&tree.at("absent"), |_| true), Vec::<PathBuf>::new());
    }
}
