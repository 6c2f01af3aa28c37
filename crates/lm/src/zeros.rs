//! Runs of zeros in weights: what an unfinished download leaves in a file whose bytes were reserved before.
//!
//! Trained weights have no long runs of zeros, but for whole rows that were pruned or never used. A hole begins and ends
//! anywhere.

use crate::error::{Error, Result};
use std::ops::Range;
use std::path::Path;

/// Shortest run of zeros that counts, in bytes: a page of a disk.
const RUN_BYTES_MIN: u64 = 4096;

/// Bytes that are looked at together.
const STEP: usize = 64;

/// So near to the border of a row, a run counts as beginning or ending there, in bytes: the numbers beside it may have zeros
/// in their bytes.
const NEAR_BYTES: u64 = 16;

/// A run of zeros in a matrix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ZeroRun {
    /// These bytes of the matrix, which are not whole rows: damage.
    Hole(Range<u64>),
    /// These rows, with others behind them: pruned, never used, or damaged.
    Rows(Range<u64>),
}

impl ZeroRun {
    /// A warning of zero rows of the matrix `tensor` in the file `path`.
    ///
    /// # Errors
    /// The zeros are a hole.
    pub fn warning(&self, path: &Path, format: &'static str, tensor: &str) -> Result<String> {
        match self {
            Self::Hole(Range { start, end }) => {
                let message = format!(
                    "tensor {tensor:?} has zeros alone from its byte {start} to {end}, as an unfinished download leaves \
                     them: fetch the file again"
                );
                Err(Error::format(path, format, message))
            }
            Self::Rows(Range { start, end }) => Ok(format!(
                "rows {start} to {} of the tensor {tensor:?} are zeros: fetch the file again unless they are meant to be",
                end - 1
            )),
        }
    }
}

/// A search for zeros in the bytes of a matrix, which are given in pieces.
#[derive(Debug)]
pub struct ZeroSearch {
    /// Bytes of a row; `None` if no row can be zero.
    row: Option<u64>,
    position: u64,
    /// Zeros before `position`, as far as the last [`STEP`] tells.
    trailing: u64,
    /// The beginning of the run that `position` is in.
    run: Option<u64>,
    found: Option<ZeroRun>,
}

impl ZeroSearch {
    /// A search in rows of this many bytes.
    pub fn in_rows(row_bytes: u64) -> Self {
        Self { row: Some(row_bytes.max(1)), position: 0, trailing: 0, run: None, found: None }
    }

    /// A search in codes of which zero isn't the middle: no row of them is all zeros.
    pub fn in_codes() -> Self {
        Self { row: None, ..Self::in_rows(1) }
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        for step in bytes.chunks(STEP) {
            // Nearly always the first byte ends the search in a step.
            match step.iter().position(|byte| *byte != 0) {
                None => {
                    self.run.get_or_insert(self.position - self.trailing);
                }
                Some(leading) => {
                    let start = self.run.take().unwrap_or(self.position - self.trailing);
                    self.close(start, self.position + leading as u64, false);
                    let trailing = step.iter().rev().take_while(|byte| **byte == 0).count();
                    self.trailing = trailing as u64;
                }
            }
            self.position += step.len() as u64;
        }
    }

    /// The first hole, or else the first zero rows that are not the last ones. Rows beyond a vocabulary end a matrix, and
    /// one may be all zeros.
    pub fn finish(mut self) -> Option<ZeroRun> {
        if let Some(start) = self.run.take() {
            self.close(start, self.position, true);
        }
        self.found
    }

    /// Ends the search in the matrix `tensor` of the file `path`, and warns of zero rows.
    ///
    /// # Errors
    /// The matrix has a hole.
    pub fn conclude(self, path: &Path, format: &'static str, tensor: &str) -> Result<()> {
        if let Some(zeros) = self.finish() {
            let warning = zeros.warning(path, format, tensor)?;
            tracing::warn!("{}: {warning}", path.display());
        }
        Ok(())
    }

    fn close(&mut self, start: u64, end: u64, is_last: bool) {
        let Some(row) = self.row else {
            if end - start >= RUN_BYTES_MIN {
                self.found.get_or_insert(ZeroRun::Hole(start..end));
            }
            return;
        };
        // A part of one row may be pruned, such as the columns of some heads.
        if end - start < RUN_BYTES_MIN.max(row) || matches!(self.found, Some(ZeroRun::Hole(_))) {
            return;
        }
        let is_border = |place: u64| (place % row).min(row - place % row) <= NEAR_BYTES;
        if !(is_border(start) && is_border(end)) {
            self.found = Some(ZeroRun::Hole(start..end));
        } else if !is_last {
            let nearest = |place: u64| (place + row / 2) / row;
            self.found.get_or_insert(ZeroRun::Rows(nearest(start)..nearest(end)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: usize = 1000;

    /// A matrix of 100 rows with zeros in these bytes, searched in pieces of this size.
    fn found(mut search: ZeroSearch, zeros: Range<usize>, piece: usize) -> Option<ZeroRun> {
        let mut bytes: Vec<u8> = (0..100 * ROW).map(|i| (i % 255) as u8 + 1).collect();
        bytes[zeros].fill(0);
        bytes.chunks(piece).for_each(|piece| search.feed(piece));
        search.finish()
    }

    fn in_rows(zeros: Range<usize>) -> Option<ZeroRun> {
        let all = [100 * ROW, 4096, 100, 64, 7]
            .map(|piece| found(ZeroSearch::in_rows(ROW as u64), zeros.clone(), piece));
        assert!(all.iter().all(|one| *one == all[0]), "{all:?}");
        all[0].clone()
    }

    #[test]
    fn a_hole_is_told_from_whole_rows() {
        assert_eq!(in_rows(0..0), None);
        assert_eq!(in_rows(8192..20480), Some(ZeroRun::Hole(8192..20480)));
        assert_eq!(in_rows(8000..20480), Some(ZeroRun::Hole(8000..20480)), "one end in a row is enough");
        assert_eq!(in_rows(8192..100_000), Some(ZeroRun::Hole(8192..100_000)), "up to the end");
        assert_eq!(in_rows(0..20480), Some(ZeroRun::Hole(0..20480)));
        assert_eq!(in_rows(8000..20_000), Some(ZeroRun::Rows(8..20)));
        assert_eq!(in_rows(7998..20_002), Some(ZeroRun::Rows(8..20)), "zeros in the numbers beside them");
    }

    #[test]
    fn zeros_that_models_have_are_nothing() {
        assert_eq!(in_rows(90_000..100_000), None, "rows beyond the vocabulary");
        assert_eq!(in_rows(0..100_000), None, "a matrix of zeros");
        assert_eq!(in_rows(8192..8192 + 4095), None, "shorter than a page");
        let wide = |zeros| found(ZeroSearch::in_rows(20_000), zeros, 4096);
        assert_eq!(wide(30_000..39_000), None, "a part of one row");
        assert!(wide(30_000..51_000).is_some());
    }

    #[test]
    fn codes_have_no_rows_of_zeros() {
        let in_codes = |zeros| found(ZeroSearch::in_codes(), zeros, 4096);
        assert_eq!(in_codes(8000..13_000), Some(ZeroRun::Hole(8000..13_000)));
        assert_eq!(in_codes(95_000..100_000), Some(ZeroRun::Hole(95_000..100_000)));
        assert_eq!(in_codes(8000..12_000), None);
    }

    #[test]
    fn a_hole_behind_zero_rows_is_found() {
        let mut bytes = vec![1; 100 * ROW];
        bytes[8000..20_000].fill(0);
        bytes[30_500..40_500].fill(0);
        let mut search = ZeroSearch::in_rows(ROW as u64);
        search.feed(&bytes);
        assert_eq!(search.finish(), Some(ZeroRun::Hole(30_500..40_500)));
    }
}
