//! Matrices from a source to the data file, in pieces of rows, on all processors.

use crate::data::{SummedFile, little_endian};
use crate::quantize::{BLOCK, ZEROS, pack, quantize_block, stored};
use crate::report::{Kept, TensorReport};
use crate::store::{Part, Rows, Store, pieces};
use crate::watch::Watch;
use dunlin_gguf::BlockType;
use dunlin_lm::Result;
use dunlin_lm_tract::graph::Place;
use half::f16;
use std::num::NonZero;
use std::ops::Range;
use std::thread;

/// Bytes of a block's codes.
const CODES_BYTES: usize = BLOCK / 2;

/// A matrix in 4 bits: `[rows, columns]`, the last block of a row filled with zeros.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quantized {
    pub(crate) codes: Place,
    pub(crate) scales: Place,
    pub(crate) rows: usize,
    /// The inner size.
    pub(crate) columns: usize,
}

impl Quantized {
    pub(crate) fn blocks(&self) -> usize {
        self.columns.div_ceil(BLOCK)
    }
}

/// A matrix of the source and its shape in the drafter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) part: Part,
    /// Rows of the source.
    pub(crate) rows: usize,
    /// Columns of the source.
    pub(crate) columns: usize,
    /// Rows of the drafter: those beyond the source's are zero.
    pub(crate) padded_rows: usize,
    /// Columns of the drafter, up to the next multiple of [`BLOCK`].
    pub(crate) padded_columns: usize,
    /// True to store what 4 bits leave of the numbers, in 4 bits more.
    pub(crate) is_remainder: bool,
    /// The size of the heads whose rows are put from neighbours back to halves, if they are.
    pub(crate) unpermute: Option<usize>,
}

impl Wanted {
    pub(crate) fn new(part: Part, rows: usize, columns: usize) -> Self {
        let (padded_rows, padded_columns) = (rows, columns);
        Self { part, rows, columns, padded_rows, padded_columns, is_remainder: false, unpermute: None }
    }

    /// Pieces of rows: whole heads, if they are put into another order.
    fn pieces(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        pieces(self.rows, self.columns, self.unpermute.unwrap_or(1))
    }
}

/// The codes, scales and errors of some rows.
struct Piece {
    codes: Vec<u8>,
    scales: Vec<f32>,
    error: f64,
    square: f64,
}

/// Stores a matrix in 4 bits.
///
/// # Errors
/// A file fails, a number is infinite, none or too large, or the work was interrupted.
pub(crate) fn quantized(
    store: &mut Store,
    data: &mut SummedFile,
    wanted: &Wanted,
    watch: &mut Watch<'_>,
) -> Result<(Quantized, TensorReport)> {
    let blocks = wanted.padded_columns.div_ceil(BLOCK);
    let offset = data.align()?;
    let mut scales = Vec::new();
    let (mut error, mut square) = (0.0, 0.0);
    for range in wanted.pieces() {
        let count = range.len();
        let rows = ordered(store.rows(wanted.part, range.start, count)?, wanted.unpermute);
        let piece = quantized_rows(&rows, wanted, blocks).map_err(|wrong| wrong.named(store, wanted.part))?;
        data.write(&piece.codes)?;
        scales.extend(piece.scales);
        (error, square) = (error + piece.error, square + piece.square);
        watch.advance(count * wanted.columns)?;
    }
    let more = wanted.padded_rows - wanted.rows;
    for _ in 0..more {
        data.write(&vec![ZEROS; blocks * CODES_BYTES])?;
    }
    scales.resize(wanted.padded_rows * blocks, 0.0);
    let codes = data.place(offset);
    // Nothing is lost: each scale was rounded to 16 bits before.
    let scales = data.halves(&scales)?;
    let (name, source) = store.described(wanted.part)?;
    let kept = match (source, wanted.is_remainder) {
        (BlockType::Q4_0, _) => Kept::Codes,
        (_, false) => Kept::Rounded,
        (_, true) => Kept::RoundedTo8,
    };
    let error = if square > 0.0 { (error / square).sqrt() } else { 0.0 };
    let report = TensorReport { name: name.into(), source, kept, error };
    let (rows, columns) = (wanted.padded_rows, wanted.padded_columns);
    Ok((Quantized { codes, scales, rows, columns }, report))
}

/// Stores a matrix as floats.
///
/// # Errors
/// As [`quantized`].
pub(crate) fn floats(
    store: &mut Store,
    data: &mut SummedFile,
    wanted: &Wanted,
    watch: &mut Watch<'_>,
) -> Result<(Place, TensorReport)> {
    let offset = data.align()?;
    for range in wanted.pieces() {
        let count = range.len();
        let rows = store.rows(wanted.part, range.start, count)?;
        let numbers = rows.kind.dequantize(&rows.bytes).map_err(|error| store.error(wanted.part, error))?;
        if let Some(number) = numbers.iter().find(|number| !number.is_finite()) {
            return Err(store.not_finite(wanted.part, number));
        }
        data.write(&little_endian(&numbers))?;
        watch.advance(count * wanted.columns)?;
    }
    let (name, source) = store.described(wanted.part)?;
    let report = TensorReport { name: name.into(), source, kept: Kept::Floats, error: 0.0 };
    Ok((data.place(offset), report))
}

/// Rows of heads in which row `2j + t` of the source becomes row `t · D/2 + j`.
pub(crate) fn ordered(rows: Rows, head: Option<usize>) -> Rows {
    let Some(head) = head else { return rows };
    let Rows { kind, row_bytes, bytes } = rows;
    let mut out = Vec::with_capacity(bytes.len());
    for head_bytes in bytes.chunks_exact(head * row_bytes) {
        for row in 0..head {
            let from = neighbour(row, head);
            out.extend_from_slice(&head_bytes[from * row_bytes..(from + 1) * row_bytes]);
        }
    }
    Rows { kind, row_bytes, bytes: out }
}

/// Rows of heads in which row `t · D/2 + j` of the source becomes row `2j + t`: the way back of [`ordered`].
pub(crate) fn permuted(rows: Rows, head: Option<usize>) -> Rows {
    let Some(head) = head else { return rows };
    let Rows { kind, row_bytes, bytes } = rows;
    let mut out = vec![0; bytes.len()];
    let heads = bytes.chunks_exact(head * row_bytes).zip(out.chunks_exact_mut(head * row_bytes));
    for (from, to) in heads {
        for (row, bytes) in from.chunks_exact(row_bytes).enumerate() {
            let place = neighbour(row, head) * row_bytes;
            to[place..place + row_bytes].copy_from_slice(bytes);
        }
    }
    Rows { kind, row_bytes, bytes: out }
}

/// The numbers of a vector in the order of [`ordered`].
pub(crate) fn ordered_numbers(numbers: &[f32], head: usize) -> Vec<f32> {
    numbers
        .chunks_exact(head)
        .flat_map(|head_numbers| (0..head).map(move |row| head_numbers[neighbour(row, head)]))
        .collect()
}

/// The source's row of a head of `head` rows that becomes `row` of the drafter.
fn neighbour(row: usize, head: usize) -> usize {
    2 * (row % (head / 2)) + row / (head / 2)
}

/// A result whose error doesn't name the tensor yet.
type RowResult<T> = std::result::Result<T, WrongRow>;

/// The reason why a row can't be stored.
enum WrongRow {
    Number(f32),
    Gguf(dunlin_gguf::Error),
}

impl WrongRow {
    fn named(self, store: &Store, part: Part) -> dunlin_lm::Error {
        match self {
            Self::Number(number) => store.not_finite(part, number),
            Self::Gguf(error) => store.error(part, error),
        }
    }
}

/// Quantizes rows on all processors.
fn quantized_rows(rows: &Rows, wanted: &Wanted, blocks: usize) -> RowResult<Piece> {
    let count = rows.bytes.len() / rows.row_bytes;
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(count);
    let share = count.div_ceil(threads) * rows.row_bytes;
    let parts: Vec<RowResult<Piece>> = thread::scope(|scope| {
        let work = |bytes| move || quantized_part(rows.kind, bytes, rows.row_bytes, wanted, blocks);
        let started: Vec<_> = rows.bytes.chunks(share).map(|bytes| scope.spawn(work(bytes))).collect();
        started.into_iter().map(|thread| thread.join().expect("a part of rows can't panic")).collect()
    });
    let mut whole = Piece { codes: Vec::new(), scales: Vec::new(), error: 0.0, square: 0.0 };
    for part in parts {
        let part = part?;
        whole.codes.extend(part.codes);
        whole.scales.extend(part.scales);
        whole.error += part.error;
        whole.square += part.square;
    }
    Ok(whole)
}

fn quantized_part(
    kind: BlockType,
    bytes: &[u8],
    row_bytes: usize,
    wanted: &Wanted,
    blocks: usize,
) -> RowResult<Piece> {
    let rows = bytes.len() / row_bytes;
    let mut piece = Piece {
        codes: vec![ZEROS; rows * blocks * CODES_BYTES],
        scales: Vec::with_capacity(rows * blocks),
        error: 0.0,
        square: 0.0,
    };
    let out = piece.codes.chunks_exact_mut(blocks * CODES_BYTES);
    for (row, codes) in bytes.chunks_exact(row_bytes).zip(out) {
        if kind == BlockType::Q4_0 {
            copy_row(row, codes, &mut piece.scales)?;
        } else {
            let numbers = kind.dequantize(row).map_err(WrongRow::Gguf)?;
            let (error, square) = quantize_row(&numbers, wanted.is_remainder, codes, &mut piece.scales)?;
            (piece.error, piece.square) = (piece.error + error, piece.square + square);
        }
        // Columns beyond the source's are zeros.
        piece.scales.resize(piece.scales.len().next_multiple_of(blocks), 0.0);
    }
    Ok(piece)
}

/// Takes the codes and scales of a row of Q4_0 over. There, number `i` of a block is in the low bits of byte `i`, and
/// number `i + 16` in the high ones.
fn copy_row(row: &[u8], codes: &mut [u8], scales: &mut Vec<f32>) -> RowResult<()> {
    for (block, codes) in row.chunks_exact(2 + CODES_BYTES).zip(codes.chunks_exact_mut(CODES_BYTES)) {
        let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
        if !scale.is_finite() {
            return Err(WrongRow::Number(scale));
        }
        let quants = &block[2..];
        let code = |i: usize| if i < CODES_BYTES { quants[i] & 15 } else { quants[i - CODES_BYTES] >> 4 };
        pack(&std::array::from_fn(code), codes);
        scales.push(scale);
    }
    Ok(())
}

/// Quantizes a row, or what 4 bits leave of it; returns the sums of the squared errors and of the squares.
fn quantize_row(
    numbers: &[f32],
    is_remainder: bool,
    codes: &mut [u8],
    scales: &mut Vec<f32>,
) -> RowResult<(f64, f64)> {
    let (mut error, mut square) = (0.0, 0.0);
    for (numbers, codes) in numbers.chunks(BLOCK).zip(codes.chunks_exact_mut(CODES_BYTES)) {
        if let Some(number) = numbers.iter().find(|number| !number.is_finite()) {
            return Err(WrongRow::Number(*number));
        }
        let mut block = [0.0; BLOCK];
        block[..numbers.len()].copy_from_slice(numbers);
        square += block.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
        if is_remainder {
            let (scale, found) = quantize_block(&block);
            block.iter_mut().zip(found).for_each(|(x, code)| *x -= stored(code, scale));
        }
        let (scale, found) = quantize_block(&block);
        if !scale.is_finite() {
            let largest = block.iter().fold(0.0, |largest: f32, x| largest.max(x.abs()));
            return Err(WrongRow::Number(largest));
        }
        for (x, code) in block.iter().zip(found) {
            error += f64::from(x - stored(code, scale)).powi(2);
        }
        pack(&found, codes);
        scales.push(scale);
    }
    Ok((error, square))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_become_halves() {
        // Two heads of 4 rows of one byte.
        let rows = Rows { kind: BlockType::F32, row_bytes: 1, bytes: (0..8).collect() };
        assert_eq!(ordered(rows, Some(4)).bytes, [0, 2, 1, 3, 4, 6, 5, 7]);
        let back = Rows { kind: BlockType::F32, row_bytes: 1, bytes: vec![0, 2, 1, 3, 4, 6, 5, 7] };
        assert_eq!(permuted(back, Some(4)).bytes, [0, 1, 2, 3, 4, 5, 6, 7]);
        // Three pairs: the two orders are not each other's way back by chance.
        let six = || Rows { kind: BlockType::F32, row_bytes: 1, bytes: (0..6).collect() };
        assert_eq!(ordered(six(), Some(6)).bytes, [0, 2, 4, 1, 3, 5]);
        assert_eq!(permuted(ordered(six(), Some(6)), Some(6)).bytes, six().bytes);
        let numbers: Vec<f32> = (0..8u8).map(f32::from).collect();
        assert_eq!(ordered_numbers(&numbers, 4), [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
    }

    #[test]
    fn a_block_of_q4_0_keeps_its_codes() {
        let mut row = vec![0, 0x38]; // 0.5
        row.extend((0..16u8).map(|i| i | (15 - i) << 4));
        let (mut codes, mut scales) = ([0; 16], Vec::new());
        assert!(copy_row(&row, &mut codes, &mut scales).is_ok());
        assert_eq!(scales, [0.5]);
        let found: Vec<u8> = codes.iter().flat_map(|byte| [byte & 15, byte >> 4]).collect();
        let expected: Vec<u8> = (0..16).chain((0..16).rev()).collect();
        assert_eq!(found, expected);
        row[1] = 0x7c; // infinite
        assert!(copy_row(&row, &mut codes, &mut scales).is_err());
    }
}
