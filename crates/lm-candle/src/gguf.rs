//! A GGUF file's metadata and tensors, with errors that name the file.

use crate::matrix::{Matrix, Trials, is_supported};
use dunlin_gguf::{Array, BlockType, Header, Value};
use dunlin_lm::identity::cache::Stamp;
use dunlin_lm::{Error, LoadProgress, LoadStep, Result, ZeroSearch, check_plain};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Largest accepted size of a dimension. No language model exceeds it, and products of sizes can't overflow below it.
pub(crate) const DIMENSION_MAX: usize = 1 << 20;

const ADVICE: &str = "requantize the model to Q4_K_M or Q8_0, best from its original, or else with `llama-quantize --allow-requantize`; F32, F16, BF16, Q8_0, Q4_0 to Q5_1 and Q2_K to Q6_K are read";

/// An open GGUF file.
pub(crate) struct Gguf {
    path: PathBuf,
    file: File,
    stamp: Stamp,
    header: Header,
    trials: Trials,
    progress: LoadProgress,
    /// Bytes of tensors read, and those of all.
    done: u64,
    total: u64,
}

impl Gguf {
    /// Reads the header of a file.
    pub(crate) fn open(path: &Path, progress: LoadProgress) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        let metadata = file.metadata().map_err(|e| Error::io(path, e))?;
        let (bytes, stamp) = (metadata.len(), Stamp::of(&metadata));
        let header = Header::read(&mut BufReader::new(&file), bytes).map_err(|e| Error::gguf(path, e))?;
        let total = header.tensors().values().map(|info| info.bytes).sum();
        Ok(Self { path: path.into(), file, stamp, header, trials: Trials::new(), progress, done: 0, total })
    }

    /// The receiver of the progress of what follows.
    pub(crate) fn into_progress(self) -> LoadProgress {
        self.progress
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The stamp that the file had when it was opened.
    pub(crate) fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// The string at `key`.
    pub(crate) fn string(&self, key: &str) -> Result<&str> {
        self.header.string(key).map_err(|e| self.error(e))
    }

    /// The unsigned integer at `key`.
    pub(crate) fn u32(&self, key: &str) -> Result<u32> {
        self.header.u32(key).map_err(|e| self.error(e))
    }

    /// The number at `key`, if there is one.
    pub(crate) fn optional_f32(&self, key: &str) -> Result<Option<f32>> {
        self.header.optional_f32(key).map_err(|e| self.error(e))
    }

    /// The unsigned integer at `key`, if there is one.
    pub(crate) fn optional_u32(&self, key: &str) -> Result<Option<u32>> {
        self.header.optional_u32(key).map_err(|e| self.error(e))
    }

    /// The unsigned integer at `key`, from 1 to `max`.
    pub(crate) fn size(&self, key: &str, max: usize) -> Result<usize> {
        let found = self.u32(key)? as usize;
        if found == 0 || found > max {
            return Err(Error::value(&self.path, key, format!("1 to {max}"), found));
        }
        Ok(found)
    }

    /// The size of a dimension at `key`, if there is one.
    pub(crate) fn optional_size(&self, key: &str) -> Result<Option<usize>> {
        self.has(key).then(|| self.size(key, DIMENSION_MAX)).transpose()
    }

    /// The array of truth values at `key`, if there is one; numbers other than 0 are true.
    pub(crate) fn flags(&self, key: &str) -> Result<Option<Vec<bool>>> {
        match self.header.metadata().get(key) {
            Some(Value::Array(Array::Bool(flags))) => Ok(Some(flags.clone())),
            Some(Value::Array(_)) => {
                let numbers = self.header.integers(key).map_err(|e| self.error(e))?;
                Ok(numbers.map(|numbers| numbers.into_iter().map(|number| number != 0).collect()))
            }
            _ => Ok(None),
        }
    }

    /// Checks that no setting makes a decoder of this architecture compute more than the engine does: see
    /// [`check_plain`].
    pub(crate) fn check_plain(&self, architecture: &str, scale: f32, applied: &[&str]) -> Result<()> {
        check_plain(&self.path, &self.header, architecture, scale.into(), applied)
    }

    /// True when `key` has a value.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.header.metadata().contains_key(key)
    }

    /// The number of rows of the embedding, which is the number of tokens.
    pub(crate) fn vocabulary_size(&self) -> Result<u32> {
        self.header.vocabulary_size().map_err(|e| self.error(e))
    }

    /// The longest context of the model, in tokens.
    pub(crate) fn context_length(&self) -> Result<usize> {
        Ok(self.header.context_length().map_err(|e| self.error(e))? as usize)
    }

    /// True when there is a tensor of this name.
    pub(crate) fn has_tensor(&self, name: &str) -> bool {
        self.header.tensors().contains_key(name)
    }

    /// Every tensor's name, in order.
    pub(crate) fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.header.tensors().keys().map(String::as_str)
    }

    /// Checks the types of all tensors, before any is read.
    ///
    /// # Errors
    /// Names the first tensor of a type that can't be computed with.
    pub(crate) fn check_types(&self) -> Result<()> {
        match self.header.tensors().iter().find(|(_, info)| !is_supported(info.kind)) {
            Some((name, info)) => {
                let what = format!("tensor {name} of type {}", info.kind);
                Err(Error::unsupported(&self.path, what, ADVICE))
            }
            None => Ok(()),
        }
    }

    /// The vector `name` of `length` numbers.
    pub(crate) fn vector(&mut self, name: &str, length: usize) -> Result<Vec<f32>> {
        let (kind, data) = self.read(name, &[length], None)?;
        kind.dequantize(&data).map_err(|e| self.error(e))
    }

    /// The matrix `name` of `rows` outputs and `columns` inputs.
    pub(crate) fn matrix(&mut self, name: &str, rows: usize, columns: usize) -> Result<Matrix> {
        self.matrix_part(name, (rows, columns), 0..rows)
    }

    /// Some outputs of the matrix `name` of this shape.
    pub(crate) fn matrix_part(
        &mut self,
        name: &str,
        (rows, columns): (usize, usize),
        part: Range<usize>,
    ) -> Result<Matrix> {
        let count = part.len();
        let (kind, data) = self.read(name, &[rows, columns], Some(part))?;
        let mut zeros = ZeroSearch::in_rows((data.len() / count.max(1)) as u64);
        zeros.feed(&data);
        zeros.conclude(&self.path, "GGUF", name)?;
        Matrix::new(kind, data, (count, columns), &mut self.trials)
    }

    /// Type and bytes of the tensor `name`, which must have this shape, or of some rows of it.
    fn read(
        &mut self,
        name: &str,
        shape: &[usize],
        rows: Option<Range<usize>>,
    ) -> Result<(BlockType, Vec<u8>)> {
        let wrong =
            |found: String| Error::value(&self.path, format!("tensor {name}"), format!("{shape:?}"), found);
        let info = self.header.tensors().get(name).ok_or_else(|| wrong("nothing".into()))?;
        if !info.shape.iter().map(|size| *size as usize).eq(shape.iter().copied()) {
            return Err(wrong(format!("{:?}", info.shape)));
        }
        let (offset, bytes) = rows.map_or((0, info.bytes), |rows| {
            // The rows of a matrix are whole blocks each.
            let row_bytes = info.bytes / shape[0] as u64;
            (row_bytes * rows.start as u64, row_bytes * rows.len() as u64)
        });
        let mut data = vec![0; bytes as usize];
        let begin = SeekFrom::Start(info.offset + offset);
        let read = self.file.seek(begin).and_then(|_| self.file.read_exact(&mut data));
        read.map_err(|e| Error::io(&self.path, e))?;
        self.done += bytes;
        (self.progress)(LoadStep::Reading, self.done, self.total);
        Ok((info.kind, data))
    }

    fn error(&self, error: dunlin_gguf::Error) -> Error {
        Error::gguf(&self.path, error)
    }
}
