//! One context of llama.cpp: its sequences, and passes over rows of them.
//!
//! A row has the same bits in any pass only while llama.cpp takes one path for all of them. Three of its paths sum in
//! another order: attention in tiles of 64 rows and more, a division of a lone row's keys over threads, and products with
//! blocks of 256 weights in tiles of 8 rows and more. With [`Layout::Apart`] a pass has fewer rows than make a tile and a
//! lone row gets company, so none is taken. There, a sequence also has its cells to itself and in order; in a shared
//! cache the order of summation would follow from what other sequences did before.

use crate::journal::Journal;
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::{KvCacheType, LlamaContextParams};
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token::LlamaToken;
use llama_cpp_sys_2::LLAMA_FLASH_ATTN_TYPE_ENABLED;
use std::num::NonZeroU32;

/// An environment variable and its value that turn the tiles of products off, so that passes may have more rows. llama.cpp
/// reads it once.
pub const TILES_OFF: (&str, &str) = ("GGML_CPU_TILED_MM", "0");
/// Rows in one pass over sequences that lie apart: fewer than attention takes for a tile.
const PASS_ROWS_MAX: usize = 32;
/// The same where products may be computed in tiles.
const UNTILED_ROWS_MAX: usize = 7;
/// Rows in one pass over sequences that share their cells.
const SHARED_ROWS_MAX: usize = 512;
/// Cells from which llama.cpp divides a lone row's keys over its threads.
const DIVIDED_CELLS: usize = 256;
/// llama.cpp's own limit.
pub(crate) const SEQUENCES_MAX: usize = 256;
/// llama.cpp rounds the cells of a sequence up to a multiple of this.
pub(crate) const CELLS_STEP: usize = 256;

/// The place of the sequences' keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Each sequence has cells of its own.
    Apart,
    /// All share theirs: a pass holds rows of any sequences.
    Shared,
}

/// The size of a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) layout: Layout,
    pub(crate) sequences: usize,
    /// Cells of each sequence, or of all that share them.
    pub(crate) cells: usize,
    pub(crate) threads: usize,
    /// True for caches of 32-bit floats, false for 16 bits.
    pub(crate) is_wide: bool,
}

impl Shape {
    /// The cells of all sequences.
    pub(crate) fn cells_of_all(&self) -> usize {
        match self.layout {
            Layout::Apart => self.cells.saturating_mul(self.sequences),
            Layout::Shared => self.cells,
        }
    }
}

/// Tokens that follow what a sequence holds; the last `rows` of them give logits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part<'a> {
    pub(crate) sequence: usize,
    /// Position of the first token.
    pub(crate) position: usize,
    pub(crate) tokens: &'a [u32],
    pub(crate) rows: usize,
}

/// A token of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    part: usize,
    index: usize,
}

/// A context of a model.
pub(crate) struct Decoder<'m> {
    context: LlamaContext<'m>,
    shape: Shape,
    /// Rows of a pass.
    rows_max: usize,
    journal: Journal,
}

impl<'m> Decoder<'m> {
    /// A context of this shape.
    ///
    /// # Errors
    /// llama.cpp's reason, usually memory.
    pub(crate) fn new(
        model: &'m LlamaModel,
        backend: &LlamaBackend,
        shape: Shape,
        journal: &Journal,
    ) -> Result<Self, String> {
        let rows = match shape.layout {
            Layout::Apart if std::env::var(TILES_OFF.0).as_deref() == Ok(TILES_OFF.1) => PASS_ROWS_MAX,
            Layout::Apart => UNTILED_ROWS_MAX,
            Layout::Shared => SHARED_ROWS_MAX,
        };
        let number = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
        // llama.cpp stops the program if a batch can't hold a row of each sequence.
        let batch = number(rows.max(shape.sequences));
        let kind = if shape.is_wide { KvCacheType::F32 } else { KvCacheType::F16 };
        let threads = i32::try_from(shape.threads).unwrap_or(i32::MAX);
        let params = LlamaContextParams::default()
            .with_n_ctx(NonZeroU32::new(number(shape.cells_of_all())))
            .with_n_seq_max(number(shape.sequences))
            .with_kv_unified(shape.layout == Layout::Shared)
            .with_n_batch(batch)
            .with_n_ubatch(batch)
            .with_n_threads(threads)
            .with_n_threads_batch(threads)
            .with_type_k(kind)
            .with_type_v(kind)
            .with_flash_attention_policy(LLAMA_FLASH_ATTN_TYPE_ENABLED)
            // A cache as short as the model's window couldn't be rolled back.
            .with_swa_full(true)
            .with_no_perf(true);
        let context = model.new_context(backend, params).map_err(|_| {
            format!("no context of {} tokens could be made{}", shape.cells_of_all(), journal.explain())
        })?;
        Ok(Self { context, shape, rows_max: rows, journal: journal.clone() })
    }

    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    /// Keeps the first `length` positions of a sequence.
    ///
    /// # Errors
    /// The model can't be rolled back.
    pub(crate) fn keep(&mut self, sequence: usize, length: usize) -> Result<(), String> {
        let removed = self.context.clear_kv_cache_seq(Some(sequence as u32), Some(length as u32), None);
        match removed {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("sequence {sequence} can't be rolled back to {length} tokens")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Copies the first `length` positions of a sequence to an empty one.
    ///
    /// # Errors
    /// Those of [`Self::keep`].
    pub(crate) fn copy(&mut self, from: usize, to: usize, length: usize) -> Result<(), String> {
        // Between sequences that lie apart, llama.cpp copies all cells or stops the program.
        let end = (self.shape.layout == Layout::Shared).then_some(length as u32);
        let copied = self.context.copy_kv_cache_seq(from as i32, to as i32, None, end);
        copied.map_err(|error| error.to_string())?;
        self.keep(to, length)
    }

    /// Bytes of a sequence's saved state.
    pub(crate) fn state_bytes(&self, sequence: usize) -> usize {
        self.context.state_seq_get_size_ext(sequence as i32, llama_cpp_2::LlamaStateSeqFlags::empty())
    }

    /// Runs all parts and returns the rows of each, row-major. No two parts may be of one sequence.
    ///
    /// # Errors
    /// llama.cpp's reason. The sequences may then hold any part of the new tokens.
    pub(crate) fn run(&mut self, parts: &[Part<'_>]) -> Result<Vec<Vec<f32>>, String> {
        let mut answers = vec![Vec::new(); parts.len()];
        let passes = match self.shape.layout {
            Layout::Apart => passes_apart(parts, self.rows_max),
            Layout::Shared => passes_shared(parts, self.rows_max),
        };
        for pass in passes {
            self.pass(parts, &pass, &mut answers)?;
        }
        Ok(answers)
    }

    fn pass(&mut self, parts: &[Part<'_>], pass: &[Row], answers: &mut [Vec<f32>]) -> Result<(), String> {
        let mut batch = LlamaBatch::new(pass.len() + 1, 1);
        for row in pass {
            let part = &parts[row.part];
            add(&mut batch, part, row.index, part.tokens[row.index], is_wanted(part, row.index))?;
        }
        let company = self.company(parts, pass);
        if let Some((part, index)) = company {
            add(&mut batch, part, index, part.tokens[index - 1], false)?;
        }
        self.context.decode(&mut batch).map_err(|error| format!("{error}{}", self.journal.explain()))?;
        if let Some((part, index)) = company {
            self.keep(part.sequence, part.position + index)?;
        }
        for (place, row) in pass.iter().enumerate() {
            if is_wanted(&parts[row.part], row.index) {
                answers[row.part].extend_from_slice(self.context.get_logits_ith(place as i32));
            }
        }
        Ok(())
    }

    /// The place behind a lone row, for a second row that is dropped after the pass; `None` where none is needed.
    fn company<'p>(&self, parts: &'p [Part<'p>], pass: &[Row]) -> Option<(&'p Part<'p>, usize)> {
        let [row] = pass else { return None };
        let part = &parts[row.part];
        let is_divided = self.shape.threads > 1 && part.position + row.index >= DIVIDED_CELLS;
        (self.shape.layout == Layout::Apart && is_divided).then_some((part, row.index + 1))
    }
}

fn add(
    batch: &mut LlamaBatch<'_>,
    part: &Part<'_>,
    index: usize,
    token: u32,
    wanted: bool,
) -> Result<(), String> {
    let position = i32::try_from(part.position + index).map_err(|error| error.to_string())?;
    let token = LlamaToken::new(i32::try_from(token).map_err(|error| error.to_string())?);
    batch.add(token, position, &[part.sequence as i32], wanted).map_err(|error| error.to_string())
}

fn is_wanted(part: &Part<'_>, index: usize) -> bool {
    index + part.rows >= part.tokens.len()
}

/// The passes over sequences that lie apart: llama.cpp takes neighbours with equally many tokens each in one.
fn passes_apart(parts: &[Part<'_>], rows_max: usize) -> Vec<Vec<Row>> {
    let mut order: Vec<usize> = (0..parts.len()).filter(|part| !parts[*part].tokens.is_empty()).collect();
    order.sort_by_key(|part| parts[*part].sequence);
    let mut left: Vec<Row> = order.into_iter().map(|part| Row { part, index: 0 }).collect();
    let mut passes = Vec::new();
    while let Some(first) = left.first() {
        let first = parts[first.part].sequence;
        let run = left.iter().zip(first..).take_while(|(row, next)| parts[row.part].sequence == *next);
        let run = run.count().min(rows_max);
        let shortest = left[..run].iter().map(|row| parts[row.part].tokens.len() - row.index).min();
        let count = shortest.unwrap_or(0).min(rows_max / run);
        let rows = |row: &Row| (row.index..row.index + count).map(|index| Row { index, ..*row }).collect();
        passes.push(left[..run].iter().flat_map(|row| -> Vec<Row> { rows(row) }).collect());
        left[..run].iter_mut().for_each(|row| row.index += count);
        left.retain(|row| row.index < parts[row.part].tokens.len());
    }
    passes
}

/// The passes over sequences that share their cells.
fn passes_shared(parts: &[Part<'_>], rows_max: usize) -> Vec<Vec<Row>> {
    let rows = parts
        .iter()
        .enumerate()
        .flat_map(|(part, of)| (0..of.tokens.len()).map(move |index| Row { part, index }));
    rows.collect::<Vec<Row>>().chunks(rows_max).map(<[Row]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(parts: &[(usize, usize)]) -> Vec<Vec<(usize, usize)>> {
        let tokens = [0; 100];
        let parts: Vec<Part<'_>> = parts
            .iter()
            .map(|(sequence, count)| Part {
                sequence: *sequence,
                position: 0,
                tokens: &tokens[..*count],
                rows: 0,
            })
            .collect();
        let passes = passes_apart(&parts, 32);
        let mut rows: Vec<(usize, usize)> =
            passes.iter().flatten().map(|row| (row.part, row.index)).collect();
        rows.sort_unstable();
        let all =
            parts.iter().enumerate().flat_map(|(part, of)| (0..of.tokens.len()).map(move |i| (part, i)));
        assert!(rows.into_iter().eq(all), "each row once");
        passes
            .iter()
            .map(|pass| {
                let mut counts: Vec<(usize, usize)> = Vec::new();
                for row in pass {
                    match counts.last_mut() {
                        Some((part, count)) if *part == row.part => *count += 1,
                        _ => counts.push((row.part, 1)),
                    }
                }
                counts
            })
            .collect()
    }

    #[test]
    fn neighbours_with_as_many_tokens_are_one_pass() {
        assert_eq!(lengths(&[(0, 5), (1, 5), (2, 5)]), [[(0, 5), (1, 5), (2, 5)]]);
        assert_eq!(lengths(&[(4, 1), (2, 1)]), [[(1, 1)], [(0, 1)]], "no neighbours");
        assert_eq!(lengths(&[(1, 2), (0, 3)]), [vec![(1, 2), (0, 2)], vec![(1, 1)]]);
        assert_eq!(lengths(&[(0, 0), (1, 2)]), [[(1, 2)]]);
    }

    #[test]
    fn a_pass_is_bounded() {
        assert_eq!(lengths(&[(0, 70)]), [[(0, 32)], [(0, 32)], [(0, 6)]]);
        assert_eq!(lengths(&[(0, 40), (1, 40)])[0], [(0, 16), (1, 16)]);
        let many: Vec<(usize, usize)> = (0..40).map(|sequence| (sequence, 1)).collect();
        assert_eq!(lengths(&many).iter().map(Vec::len).collect::<Vec<_>>(), [32, 8]);
    }
}
