//! A small decoder as a [`Draft`]: an ONNX model with its cache, from a [`ModelDir`].

use crate::onnx::{Decoder, Past, Step, Warning};
use dunlin_lm::target::check_tokens;
use dunlin_lm::{Draft, Error, ModelDir, Result, Role, Rows, Vocabulary};
use std::fmt;

/// Most tokens in one run of the model; a longer prompt is split, which bounds the memory of its attention.
const RUN_TOKENS_MAX: usize = 128;

/// A drafter held in memory with its one context; it runs on the caller's thread.
pub struct Drafter {
    decoder: Decoder,
    past: Past,
    vocabulary: Vocabulary,
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
    pub fn load(dir: &ModelDir) -> Result<(Self, Vec<Warning>)> {
        if dir.role == Some(Role::Target) {
            return Err(Error::value(&dir.path, "role", "drafter", "target"));
        }
        let (decoder, warnings) = Decoder::load(&dir.weights, dir.vocabulary.size, dir.cache_shape)?;
        let past = decoder.nothing()?;
        let (vocabulary, context_max) = (dir.vocabulary, dir.context_max);
        Ok((Self { decoder, past, vocabulary, context_max }, warnings))
    }
}

impl Draft for Drafter {
    fn vocabulary(&self) -> Vocabulary {
        self.vocabulary
    }

    fn context_max(&self) -> usize {
        self.context_max
    }

    fn len(&self) -> usize {
        self.past.len()
    }

    fn truncate(&mut self, len: usize) {
        self.past.truncate(len);
    }

    fn extend(&mut self, tokens: &[u32]) -> Result<Rows> {
        check_tokens(tokens, self.len(), self.context_max, self.vocabulary.size)?;
        let mut rows = Rows::new(self.vocabulary.size as usize, self.len());
        let mut past = self.past.clone();
        for tokens in tokens.chunks(RUN_TOKENS_MAX) {
            let step = self.decoder.run(tokens, &past)?;
            push(&mut rows, &step, past.len(), tokens.len());
            past = step.past;
        }
        self.past = past;
        Ok(rows)
    }
}

/// Appends a step's rows, each with its attention to itself and to the tokens before it.
fn push(rows: &mut Rows, step: &Step, past: usize, new: usize) {
    rows.push_logits(&step.logits);
    if let Some(attention) = &step.attention {
        for (row, weights) in attention.chunks_exact(past + new).enumerate() {
            rows.push_attention(&weights[..past + row + 1]);
        }
    }
}
