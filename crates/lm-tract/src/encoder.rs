//! An encoder: turns a text into one vector per token, for measures of the similarity of two texts.
//!
//! Invariant: the vectors of a text don't depend on the texts before it.

use crate::onnx::EncoderGraph;
use dunlin_lm::tokenizer::FramedTokenizer;
use dunlin_lm::{Embeddings, Error, Result};
use std::fmt;
use std::path::{Path, PathBuf};

/// An encoder held in memory; it runs on the caller's thread.
pub struct Encoder {
    tokenizer: FramedTokenizer,
    graph: EncoderGraph,
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").field("width", &self.width()).finish_non_exhaustive()
    }
}

impl Encoder {
    /// Loads a directory with `encoder.onnx`, or another single `.onnx` file, and `tokenizer.json`.
    ///
    /// The model's inputs are `input_ids` `[1,S]` and, if it declares them, `attention_mask`, `token_type_ids` (zeros)
    /// and `position_ids` (from 0). Its `last_hidden_state`, else its first output, is `[1,S,H]` in 32-bit floats. It
    /// is run once here, to find errors of its shapes, or a tokenizer with more tokens than it has.
    ///
    /// # Errors
    /// A file is missing or not in the format of its name, or the model has other inputs or outputs.
    pub fn load(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let weights = find_onnx(dir)?;
        let tokenizer = FramedTokenizer::open(&dir.join("tokenizer.json"))?;
        let graph = EncoderGraph::load(&weights, tokenizer.size)?;
        Ok(Self { tokenizer, graph })
    }

    /// Numbers in each row.
    pub fn width(&self) -> usize {
        self.graph.width()
    }

    /// The model's last hidden state for the trimmed `text`, with the tokens that the tokenizer adds around every
    /// text.
    ///
    /// A longer text is truncated to the limit of `tokenizer.json`, or to 512 tokens if it has none.
    ///
    /// # Errors
    /// The tokenizer or the model fails, for example on a text with more tokens than the model has positions.
    pub fn encode(&mut self, text: &str) -> Result<Embeddings> {
        let framed = self.tokenizer.encode(text.trim())?;
        let mut embeddings = Embeddings::new(self.width());
        if framed.tokens.is_empty() {
            return Ok(embeddings);
        }
        let rows = self.graph.run(&framed.tokens)?;
        for (row, special) in rows.chunks_exact(self.width()).zip(framed.special) {
            embeddings.push(row, special);
        }
        Ok(embeddings)
    }
}

fn find_onnx(dir: &Path) -> Result<PathBuf> {
    let own = dir.join("encoder.onnx");
    if own.exists() {
        return Ok(own);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|e| Error::io(dir, e))? {
        let path = entry.map_err(|e| Error::io(dir, e))?.path();
        if path.extension().is_some_and(|extension| extension == "onnx") {
            found.push(path);
        }
    }
    match found.len() {
        1 => Ok(found.remove(0)),
        count => Err(Error::value(
            dir,
            "encoder",
            "encoder.onnx or a single .onnx file",
            format!("{count} of them"),
        )),
    }
}
