//! Finished cells on disk, each named by a hash of everything it depends on.

use super::cell::PlayedCell;
use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// Version of the cells' meaning; raise it whenever the same plan gives other numbers.
pub const FORMAT: u32 = 3;

/// A folder of finished cells.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// Opens the folder `cells` in `out`, and creates it if it is missing.
    ///
    /// # Errors
    /// It can't be created.
    pub fn open(out: &Path) -> Result<Self> {
        let dir = out.join("cells");
        fs::create_dir_all(&dir).with_context(|| format!("can't make {}", dir.display()))?;
        Ok(Self { dir })
    }

    /// A finished cell; `None` if it is missing or unreadable.
    pub fn get(&self, hash: &str) -> Option<PlayedCell> {
        serde_json::from_str(&fs::read_to_string(self.path(hash)).ok()?).ok()
    }

    /// Stores a cell and returns it as it will be read, so that every number has the same bits now and later.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn put(&self, hash: &str, done: &PlayedCell) -> Result<PlayedCell> {
        let text = serde_json::to_string(done)?;
        let (path, new) = (self.path(hash), self.dir.join(format!("{hash}.new")));
        fs::write(&new, &text).with_context(|| format!("can't write {}", new.display()))?;
        fs::rename(&new, &path).with_context(|| format!("can't write {}", path.display()))?;
        serde_json::from_str(&text).context("a cell does not read as it was written")
    }

    fn path(&self, hash: &str) -> PathBuf {
        self.dir.join(format!("{hash}.json"))
    }
}

/// SHA-256 in hex.
pub fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
