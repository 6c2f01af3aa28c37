//! What a loaded model can do, found by running it: a few rows in a small context, before any session is opened.

use crate::build::LlamaBuild;
use crate::decoder::{CELLS_STEP, Decoder, Layout, Part, Shape};
use crate::journal::Journal;
use crate::refusals::{TAKE_A_DECODER, recurrent};
use dunlin_lm::{Error, Result};
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::model::LlamaModel;
use std::path::Path;

/// Tokens before the rows that are compared.
const BEFORE: usize = 12;
/// Rows that are compared.
const ROWS: usize = 8;
/// Tokens of the context that is read beside some of them.
const BESIDE: usize = 40;
/// Share of the largest logit by which rows may differ that no kernel must compute alike.
const NEAR: f32 = 0.05;

/// The findings of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Findings {
    /// Bytes of cache for each token.
    pub(crate) token_bytes: u64,
    /// True if rows have the same bits alone, in chunks, in ragged batches and after rollbacks.
    pub(crate) is_exact: bool,
}

/// Runs a model that was loaded from the file at `path`, with this number of threads and caches of 32 bits or of 16.
///
/// # Errors
/// It can't be a target, or llama.cpp fails.
pub(crate) fn try_out(
    path: &Path,
    model: &LlamaModel,
    backend: &LlamaBackend,
    (threads, is_wide): (usize, bool),
    journal: &Journal,
) -> Result<Findings> {
    let architecture = model.meta_val_str("general.architecture").unwrap_or_default();
    if model.is_recurrent() || model.is_hybrid() {
        return Err(recurrent(path, &architecture));
    }
    let shape = Shape { layout: Layout::Apart, sequences: 3, cells: CELLS_STEP, threads, is_wide };
    let failed = |message: String| Error::format(path, "GGUF", format!("llama.cpp can't run it: {message}"));
    let mut trial = Trial {
        decoder: Decoder::new(model, backend, shape, journal).map_err(failed)?,
        vocabulary: u32::try_from(model.n_vocab()).unwrap_or(0).max(1),
    };
    let token_bytes = trial.token_bytes().map_err(failed)?;
    if !trial.is_causal().map_err(failed)? {
        let what = format!("architecture {architecture:?}: a token's row depends on later tokens, so it");
        return Err(Error::unsupported(path, what, TAKE_A_DECODER));
    }
    if !trial.can_roll_back() {
        return Err(recurrent(path, &architecture));
    }
    let is_exact = LlamaBuild::LINKED.may_be_exact() && trial.is_exact().map_err(failed)?;
    Ok(Findings { token_bytes, is_exact })
}

/// A result whose error is llama.cpp's reason.
type Run<T> = std::result::Result<T, String>;

/// A small context of three sequences.
struct Trial<'m> {
    decoder: Decoder<'m>,
    vocabulary: u32,
}

impl Trial<'_> {
    /// Tokens of the text `seed` from `from` on.
    fn tokens(&self, seed: u32, from: usize, count: usize) -> Vec<u32> {
        let token = |i: usize| (seed.wrapping_mul(7919) + (i as u32).wrapping_mul(104_729)) % self.vocabulary;
        (from..from + count).map(token).collect()
    }

    /// Rows of one part alone.
    fn rows(&mut self, sequence: usize, position: usize, tokens: &[u32], rows: usize) -> Run<Vec<f32>> {
        let part = Part { sequence, position, tokens, rows };
        Ok(self.decoder.run(&[part])?.pop().unwrap_or_default())
    }

    fn clear(&mut self) -> Run<()> {
        (0..self.decoder.shape().sequences).try_for_each(|sequence| self.decoder.keep(sequence, 0))
    }

    /// Bytes of cache for each token: the growth of a sequence's state.
    fn token_bytes(&mut self) -> Run<u64> {
        let tokens = self.tokens(1, 0, 2);
        let first = self.rows(0, 0, &tokens[..1], 1)?;
        if first.iter().any(|logit| !logit.is_finite()) {
            return Err("its logits aren't numbers".into());
        }
        let one = self.decoder.state_bytes(0);
        self.rows(0, 1, &tokens[1..], 1)?;
        let growth = self.decoder.state_bytes(0).saturating_sub(one);
        self.clear()?;
        Ok(growth.max(1) as u64)
    }

    /// True if a row doesn't depend on the tokens behind it.
    fn is_causal(&mut self) -> Run<bool> {
        let (a, b) = (self.tokens(1, 0, 2), self.tokens(2, 1, 1)[0]);
        let one = self.rows(0, 0, &a, 2)?;
        let other = self.rows(1, 0, &[a[0], b], 2)?;
        self.clear()?;
        Ok(are_near(&one[..one.len() / 2], &other[..other.len() / 2]))
    }

    /// True if a sequence can be rolled back and continued otherwise.
    fn can_roll_back(&mut self) -> bool {
        let (text, other) = (self.tokens(1, 0, 4), self.tokens(2, 0, 3));
        let mut rolled = || {
            let once = self.rows(0, 0, &text, 3)?;
            self.decoder.keep(0, 1)?;
            self.rows(0, 1, &other, 3)?;
            self.decoder.keep(0, 1)?;
            let again = self.rows(0, 1, &text[1..], 3)?;
            self.clear()?;
            Run::Ok(are_near(&once, &again))
        };
        rolled().unwrap_or(false)
    }

    /// True if the rows of a text have the same bits whatever else is computed with them or was before.
    fn is_exact(&mut self) -> Run<bool> {
        let text = self.tokens(1, 0, BEFORE + ROWS);
        let mut alone = Vec::new();
        for position in 0..text.len() {
            let row = self.rows(0, position, &text[position..=position], 1)?;
            alone.extend(if position < BEFORE { Vec::new() } else { row });
        }
        let width = alone.len() / ROWS;
        self.rows(1, 0, &text[..BEFORE], 0)?;
        let chunk = self.rows(1, BEFORE, &text[BEFORE..], ROWS)?;
        // Drafts that were wrong, then the text in two pieces.
        self.decoder.keep(1, BEFORE)?;
        let wrong = self.tokens(2, 0, 6);
        self.rows(1, BEFORE, &wrong, 6)?;
        self.decoder.keep(1, BEFORE)?;
        let (half, middle) = (ROWS / 2, BEFORE + ROWS / 2);
        let mut pieces = self.rows(1, BEFORE, &text[BEFORE..middle], half)?;
        pieces.extend(self.rows(1, middle, &text[middle..], half)?);
        // Two sequences that draft, beside one that reads a context.
        self.decoder.keep(0, BEFORE)?;
        self.decoder.keep(1, BEFORE)?;
        let beside = self.tokens(3, 0, BESIDE);
        let parts = [
            Part { sequence: 0, position: BEFORE, tokens: &text[BEFORE..BEFORE + 5], rows: 5 },
            Part { sequence: 1, position: BEFORE, tokens: &text[BEFORE..=BEFORE], rows: 1 },
            Part { sequence: 2, position: 0, tokens: &beside, rows: 1 },
        ];
        let ragged = self.decoder.run(&parts)?;
        self.clear()?;
        Ok(are_same(&alone, &chunk)
            && are_same(&alone, &pieces)
            && are_same(&alone[..5 * width], &ragged[0])
            && are_same(&alone[..width], &ragged[1]))
    }
}

fn are_same(one: &[f32], other: &[f32]) -> bool {
    one.iter().map(|logit| logit.to_bits()).eq(other.iter().map(|logit| logit.to_bits()))
}

fn are_near(one: &[f32], other: &[f32]) -> bool {
    let largest = one.iter().fold(0.0_f32, |most, logit| most.max(logit.abs()));
    one.len() == other.len() && one.iter().zip(other).all(|(a, b)| (a - b).abs() <= NEAR * largest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_compared_and_not_values() {
        assert!(are_same(&[1.0, -0.0], &[1.0, -0.0]));
        assert!(!are_same(&[1.0, -0.0], &[1.0, 0.0]));
        assert!(!are_same(&[1.0, 2.0], &[1.0]));
        assert!(are_near(&[1.0, 10.0], &[1.4, 10.0]));
        assert!(!are_near(&[1.0, 10.0], &[1.6, 10.0]));
        assert!(!are_near(&[1.0], &[f32::NAN]));
    }
}
