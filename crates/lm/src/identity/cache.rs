//! The digest of a file's weights, kept beside the file: `model.gguf.weights` for `model.gguf`.
//!
//! Invariant: a kept digest is used only where the file has the [`Stamp`] that it had when the digest was computed.

use super::weights_digest;
use crate::bundle::hex;
use crate::error::{Error, Result};
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Size of the largest file whose digest isn't kept, since hashing takes only a fraction of a second.
const UNKEPT_BYTES_MAX: u64 = 64 << 20;

/// The first word of a kept digest.
const FORMAT: &str = "dunlin-weights-2";

/// A file and its last change: another file, or one that was written to, has another stamp.
///
/// Whoever copies a file with its times, or writes and sets them back, changes its inode's number or the time of the
/// inode's own change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    /// Seconds and nanoseconds from 1970 to the last change of the content.
    modified: (i64, i64),
    /// The same of the inode.
    changed: (i64, i64),
}

impl Stamp {
    /// The stamp of the file with these metadata.
    pub fn of(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            bytes: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

/// The digest of the weights of the GGUF file at `path`, as [`weights_digest`] computes it, or as it was kept. The file is
/// one that was opened before, and had the stamp `opened` then.
///
/// # Errors
/// Those of [`weights_digest`], and a file that was changed or replaced since it was opened. A digest that can't be kept
/// isn't one.
pub fn kept_digest(path: &Path, opened: Stamp, progress: &mut dyn FnMut(u64, u64)) -> Result<[u8; 32]> {
    kept_above(UNKEPT_BYTES_MAX, path, opened, progress)
}

fn kept_above(
    bytes_max: u64,
    path: &Path,
    opened: Stamp,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<[u8; 32]> {
    unchanged(path, opened)?;
    let place = (opened.bytes > bytes_max).then(|| beside(path, ".weights"));
    let kept = place.as_ref().and_then(|place| parse(&fs::read_to_string(place).ok()?, opened));
    if let Some(digest) = kept {
        return Ok(digest);
    }
    let digest = weights_digest(&[path], progress);
    // Also before the error of a file that was cut meanwhile.
    unchanged(path, opened)?;
    let digest = digest?;
    if let Some(place) = place {
        keep(&place, opened, &digest);
    }
    Ok(digest)
}

/// Checks that the file at `path` is still the one that was opened.
///
/// # Errors
/// It has another stamp.
pub fn unchanged(path: &Path, opened: Stamp) -> Result<()> {
    let now = path.metadata().map_err(|e| Error::io(path, e))?;
    if Stamp::of(&now) == opened {
        return Ok(());
    }
    Err(Error::Changed { path: path.into() })
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// The kept text: stamp, digest, and a checksum over both.
fn text(stamp: Stamp, digest: &[u8; 32]) -> String {
    let Stamp { device, inode, bytes, modified, changed } = stamp;
    let times = format!("{}.{:09} {}.{:09}", modified.0, modified.1, changed.0, changed.1);
    let kept = format!("{FORMAT} {device} {inode} {bytes} {times} {}", hex(digest));
    let sum = Sha256::digest(kept.as_bytes());
    format!("{kept} {}\n", hex(&sum[..4]))
}

/// The digest in a kept text; `None` unless the text has this stamp and is intact.
fn parse(kept: &str, stamp: Stamp) -> Option<[u8; 32]> {
    let digits = kept.split(' ').nth(6)?;
    let mut digest = [0; 32];
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    if pairs.len() != digest.len() || !rest.is_empty() {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(pairs) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    (text(stamp, &digest) == kept).then_some(digest)
}

/// Writes the text to a temporary file and renames it, so that the kept file is complete or absent.
fn keep(place: &Path, stamp: Stamp, digest: &[u8; 32]) {
    let unfinished = beside(place, &format!(".{}", std::process::id()));
    let written = fs::write(&unfinished, text(stamp, digest)).and_then(|()| fs::rename(&unfinished, place));
    if let Err(error) = written {
        // A read-only folder is not an error: the digest is then computed at each start.
        tracing::debug!(path = %place.display(), %error, "the digest of the weights is not kept");
        let _ = fs::remove_file(&unfinished);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, FileTimes, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Duration, UNIX_EPOCH};

    /// The least file: no keys, one tensor of one number.
    fn gguf(number: f32) -> Vec<u8> {
        let mut bytes = [&b"GGUF\x03\0\0\0"[..], &1u64.to_le_bytes(), &0u64.to_le_bytes()].concat();
        bytes.extend([&1u64.to_le_bytes()[..], b"t", &1u32.to_le_bytes(), &1u64.to_le_bytes()].concat());
        bytes.extend([&0u32.to_le_bytes()[..], &0u64.to_le_bytes()].concat());
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend(number.to_le_bytes());
        bytes
    }

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            let folder = Self(tempfile::tempdir().unwrap());
            folder.write(1.0, 1000);
            folder
        }

        fn path(&self) -> PathBuf {
            self.0.path().join("m.gguf")
        }

        fn kept(&self) -> PathBuf {
            self.0.path().join("m.gguf.weights")
        }

        /// Writes the file with this second as its time of modification.
        fn write(&self, number: f32, second: u64) {
            fs::write(self.path(), gguf(number)).unwrap();
            let time = UNIX_EPOCH + Duration::from_secs(second);
            let file = File::options().write(true).open(self.path()).unwrap();
            file.set_times(FileTimes::new().set_modified(time)).unwrap();
        }

        /// The digest, and true if it was computed.
        fn digest(&self) -> ([u8; 32], bool) {
            let mut computed = false;
            let digest = kept_above(0, &self.path(), self.stamp(), &mut |_, _| computed = true).unwrap();
            (digest, computed)
        }

        fn stamp(&self) -> Stamp {
            Stamp::of(&self.path().metadata().unwrap())
        }
    }

    #[test]
    fn a_digest_is_computed_once() {
        let folder = Folder::new();
        let (digest, computed) = folder.digest();
        assert!(computed && folder.kept().exists());
        assert_eq!(folder.digest(), (digest, false));
        assert_eq!(weights_digest(&[&folder.path()], &mut |_, _| {}).unwrap(), digest);
        assert_eq!(fs::read_dir(folder.0.path()).unwrap().count(), 2, "nothing else is left");
    }

    #[test]
    fn a_changed_file_has_a_digest_of_its_own() {
        let folder = Folder::new();
        let (digest, _) = folder.digest();
        folder.write(2.0, 1001);
        let (changed, computed) = folder.digest();
        assert!(computed && changed != digest);
        assert_eq!(folder.digest(), (changed, false));
    }

    #[test]
    fn a_file_of_the_same_size_and_time_has_a_digest_of_its_own() {
        let folder = Folder::new();
        let (digest, _) = folder.digest();
        // Written in place, and the time of its last change set back; until the system's clock has moved on.
        let changed = || {
            let file = folder.path().metadata().unwrap();
            (file.ctime(), file.ctime_nsec())
        };
        let before = changed();
        while changed() == before {
            folder.write(2.0, 1000);
        }
        let (written, computed) = folder.digest();
        assert!(computed && written != digest);
        // Another file put in its place, with its times, as `cp -p` and `mv` do.
        let other = Folder::new();
        other.write(3.0, 1000);
        fs::rename(other.path(), folder.path()).unwrap();
        let (replaced, computed) = folder.digest();
        assert!(computed && replaced != written && replaced != digest);
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_is_an_error() {
        let folder = Folder::new();
        let opened = folder.stamp();
        let refusal = |progress: &mut dyn FnMut(u64, u64)| {
            let refused = kept_above(0, &folder.path(), opened, progress).unwrap_err().to_string();
            assert!(refused.contains("m.gguf: it was changed or replaced while it was read"), "{refused}");
            assert!(!folder.kept().exists());
        };
        refusal(&mut |_, _| folder.write(2.0, 1001));
        refusal(&mut |_, _| panic!("a file that was changed before is not hashed"));
    }

    #[test]
    fn a_damaged_digest_is_computed_anew() {
        let folder = Folder::new();
        let (digest, _) = folder.digest();
        let text = fs::read_to_string(folder.kept()).unwrap();
        let other = if &text[40..41] == "0" { "1" } else { "0" };
        let flipped = [&text[..40], other, &text[41..]].concat();
        for damaged in ["", "garbage", &text[..text.len() - 2], &text.to_uppercase(), &flipped] {
            fs::write(folder.kept(), damaged).unwrap();
            assert_eq!(folder.digest(), (digest, true), "{damaged:?}");
        }
        fs::write(folder.kept(), [0xff, 0xfe]).unwrap();
        assert_eq!(folder.digest(), (digest, true));
    }

    #[test]
    fn a_small_file_needs_no_second_one() {
        let folder = Folder::new();
        kept_digest(&folder.path(), folder.stamp(), &mut |_, _| {}).unwrap();
        assert!(!folder.kept().exists());
    }

    #[test]
    fn a_digest_that_cannot_be_kept_is_still_one() {
        let folder = Folder::new();
        // The directory in the file's place blocks writing for root too, who may write into any folder.
        fs::create_dir(folder.kept()).unwrap();
        fs::set_permissions(folder.0.path(), Permissions::from_mode(0o555)).unwrap();
        let (digest, computed) = folder.digest();
        assert!(computed);
        assert_eq!(folder.digest(), (digest, true));
        fs::set_permissions(folder.0.path(), Permissions::from_mode(0o755)).unwrap();
        assert_eq!(fs::read_dir(folder.0.path()).unwrap().count(), 2, "nothing else is left");
    }
}
