//! What the file of a model tells: its checked header, and the digest of its weights and settings.

use crate::refusals;
use dunlin_gguf::{Header, TensorInfo};
use dunlin_lm::identity::cache::{Stamp, kept_digest, unchanged};
use dunlin_lm::identity::model_digest;
use dunlin_lm::{Error, Result, ZeroSearch};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// Bytes that are searched at once.
const PIECE_BYTES: u64 = 1 << 20;

/// A file whose header was read.
#[derive(Debug)]
pub(crate) struct Facts {
    stamp: Stamp,
    /// The tensors with rows: name, and place.
    matrices: Vec<(String, TensorInfo)>,
    settings: Vec<u64>,
    /// The longest context of the model, in tokens.
    pub(crate) context_length: usize,
    /// Bytes of all tensors.
    pub(crate) tensor_bytes: u64,
}

impl Facts {
    /// Reads and checks the header of the file at `path`.
    ///
    /// # Errors
    /// It is no usable GGUF file, is cut off, or holds what can't be a target.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        let metadata = file.metadata().map_err(|e| Error::io(path, e))?;
        let header =
            Header::read(&mut BufReader::new(&file), metadata.len()).map_err(|e| Error::gguf(path, e))?;
        refusals::check(path, &header)?;
        let matrices = header.tensors().iter().filter(|(_, info)| info.shape.len() > 1);
        Ok(Self {
            stamp: Stamp::of(&metadata),
            matrices: matrices.map(|(name, info)| (name.clone(), info.clone())).collect(),
            settings: settings(&header),
            context_length: header.context_length().map_err(|e| Error::gguf(path, e))? as usize,
            tensor_bytes: header.tensors().values().map(|info| info.bytes).sum(),
        })
    }

    /// Searches the matrices for holes, which an unfinished download leaves, and warns of zero rows.
    ///
    /// # Errors
    /// A matrix has a hole, or the file can't be read.
    pub(crate) fn search(&self, path: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
        let io = |error| Error::io(path, error);
        let mut file = File::open(path).map_err(io)?;
        let total = self.matrices.iter().map(|(_, info)| info.bytes).sum();
        let (mut done, mut piece) = (0, Vec::new());
        for (name, info) in &self.matrices {
            let columns = info.shape.last().copied().unwrap_or(1);
            let rows: u64 = info.shape.iter().product::<u64>().checked_div(columns).unwrap_or(0);
            let mut zeros = ZeroSearch::in_rows(info.bytes / rows.max(1));
            file.seek(SeekFrom::Start(info.offset)).map_err(io)?;
            let mut left = info.bytes;
            while left > 0 {
                piece.resize(left.min(PIECE_BYTES) as usize, 0);
                file.read_exact(&mut piece).map_err(io)?;
                zeros.feed(&piece);
                left -= piece.len() as u64;
                done += piece.len() as u64;
                progress(done, total);
            }
            zeros.conclude(path, "GGUF", name)?;
        }
        self.unchanged(path)
    }

    /// Checks that the file is still the one whose header was read.
    ///
    /// # Errors
    /// It was changed or replaced.
    pub(crate) fn unchanged(&self, path: &Path) -> Result<()> {
        unchanged(path, self.stamp)
    }

    /// SHA-256 over the tensors and the settings of the architecture.
    ///
    /// # Errors
    /// The file can't be read, or was changed since.
    pub(crate) fn weights(&self, path: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<[u8; 32]> {
        Ok(model_digest(&kept_digest(path, self.stamp, progress)?, &self.settings))
    }
}

/// SHA-256 over every value of the architecture: llama.cpp decides which of them it uses.
fn settings(header: &Header) -> Vec<u64> {
    let architecture = header.string("general.architecture").unwrap_or_default();
    let mut text = format!("{architecture}\0");
    for (key, value) in header.metadata() {
        let own = key.strip_prefix(architecture).is_some_and(|rest| rest.starts_with('.'));
        if own {
            // A string takes any text, so there is no error.
            let _ = write!(text, "{key}\0{value:?}\0");
        }
    }
    let digest = Sha256::digest(text.as_bytes());
    digest.chunks(8).map(|part| part.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))).collect()
}
