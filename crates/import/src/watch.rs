//! Progress of an import, and its end before its time.

use dunlin_lm::{Error, Result};
use std::io::{Error as IoError, ErrorKind};
use std::path::Path;

/// A view on an import while it runs.
pub struct Watch<'w> {
    done: u64,
    total: u64,
    /// Gets the numbers converted so far and those of all; false ends the import.
    go_on: &'w mut dyn FnMut(u64, u64) -> bool,
}

impl<'w> Watch<'w> {
    /// A view that is given to `go_on`: the numbers converted so far and those of all; false ends the import.
    pub fn new(go_on: &'w mut dyn FnMut(u64, u64) -> bool) -> Self {
        Self { done: 0, total: 0, go_on }
    }

    /// Notes the numbers of the whole import.
    pub(crate) fn expect(&mut self, total: u64) {
        self.total = total;
    }

    /// Notes more numbers that were converted.
    pub(crate) fn advance(&mut self, numbers: usize) -> Result<()> {
        self.done += numbers as u64;
        if (self.go_on)(self.done, self.total) {
            return Ok(());
        }
        let interrupted =
            IoError::new(ErrorKind::Interrupted, "the import was interrupted; nothing is left of it");
        Err(Error::io(Path::new("import"), interrupted))
    }
}
