//! A small decoder as a [`Draft`]: an ONNX model with its cache, from a [`ModelDir`].

use crate::onnx::{Decoder, LoadProgress, Past, Step, Warning};
use dunlin_lm::target::check_tokens;
use dunlin_lm::{Draft, Error, ModelDir, Result, Role, Rows, Vocabulary};
use std::fmt;

/// Most tokens in one run of the model; a longer prompt is split, which bounds the memory of its attention.
const RUN_TOKENS_MAX: usize = 128;

/// A drafter held in memory with its one context; it runs on the caller's thread.
pub struct Drafter {
    decoder: Decoder,
    past: Past,
    /// The tokens whose logits are given out; the embedding may have more rows.
    vocabulary: Vocabulary,
    rows: u32,
    /// Fed in place of a token of the target's that has no row here.
    unknown: u32,
    context_max: usize,
}

impl fmt::Debug for Drafter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("Drafter");
        text.field("vocabulary", &self.vocabulary).field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Drafter {
    /// Loads the ONNX file of `dir`, with warnings about weights that run badly.
    ///
    /// # Errors
    /// Names the file that is invalid or can't run.
    pub fn load(dir: &ModelDir) -> Result<(Self, Vec<Warning>)> {
        Self::load_with(dir, &mut |_, _| {})
    }

    /// Loads the ONNX file of `dir`; `progress` receives the bytes of packed weights that are done, and all of them.
    ///
    /// # Errors
    /// Names the file that is invalid or can't run.
    pub fn load_with(dir: &ModelDir, progress: &mut LoadProgress<'_>) -> Result<(Self, Vec<Warning>)> {
        if dir.role == Some(Role::Target) {
            return Err(Error::value(&dir.path, "role", "drafter", "target"));
        }
        // Only a folder with checksums has files that it forgot.
        let summed = dir.weights_sha256.is_some().then_some(dir.weights_data.as_slice());
        let (decoder, warnings) = Decoder::load(&dir.weights, dir.rows, dir.cache_shape, summed, progress)?;
        let past = decoder.nothing()?;
        let ModelDir { vocabulary, rows, context_max, .. } = *dir;
        let unknown = dir.unknown();
        Ok((Self { decoder, past, vocabulary, rows, unknown, context_max }, warnings))
    }
}

impl Draft for Drafter {
    fn vocabulary(&self) -> Vocabulary {
        self.vocabulary
    }

    fn context_max(&self) -> usize {
        self.context_max
    }

    fn cache_bytes_per_token(&self) -> u64 {
        self.decoder.cache_bytes_per_token()
    }

    fn len(&self) -> usize {
        self.past.len()
    }

    fn truncate(&mut self, len: usize) {
        self.past.truncate(len);
    }

    fn extend(&mut self, tokens: &[u32]) -> Result<Rows> {
        let fed = |token: &u32| if *token < self.rows { *token } else { self.unknown };
        let tokens: Vec<u32> = tokens.iter().map(fed).collect();
        check_tokens(&tokens, self.len(), self.context_max, self.rows)?;
        let width = self.vocabulary.size as usize;
        let mut rows = Rows::new(width, self.len());
        let mut past = self.past.clone();
        for tokens in tokens.chunks(RUN_TOKENS_MAX) {
            let step = self.decoder.run(tokens, &past)?;
            for logits in step.logits.chunks_exact(self.rows as usize) {
                rows.push_logits(&logits[..width]);
            }
            push_attention(&mut rows, &step, past.len(), tokens.len());
            past = step.past;
        }
        self.past = past;
        Ok(rows)
    }
}

/// Appends the attention of a step's rows, each to itself and to the tokens before it.
fn push_attention(rows: &mut Rows, step: &Step, past: usize, new: usize) {
    if let Some(attention) = &step.attention {
        for (row, weights) in attention.chunks_exact(past + new).enumerate() {
            rows.push_attention(&weights[..past + row + 1]);
        }
    }
}
