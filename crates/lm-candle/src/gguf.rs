//! A GGUF file's metadata and tensors, with errors that name the file.

use crate::matrix::{Matrix, Trials, is_supported};
use dunlin_gguf::{Header, TensorInfo};
use dunlin_lm::identity::cache::Stamp;
use dunlin_lm::{Error, Result, check_plain};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Largest accepted size of a dimension. No language model exceeds it, and products of sizes can't overflow below it.
pub(crate) const DIMENSION_MAX: usize = 1 << 20;

const ADVICE: &str = "use a file of type F32, F16, BF16, Q8_0, Q5_1, Q5_0, Q4_1, Q4_0 or Q2_K to Q6_K";

/// An open GGUF file.
pub(crate) struct Gguf {
    path: PathBuf,
    file: File,
    stamp: Stamp,
    header: Header,
    trials: Trials,
}

impl Gguf {
    /// Reads the header of a file.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        let metadata = file.metadata().map_err(|e| Error::io(path, e))?;
        let (bytes, stamp) = (metadata.len(), Stamp::of(&metadata));
        let header = Header::read(&mut BufReader::new(&file), bytes).map_err(|e| Error::gguf(path, e))?;
        Ok(Self { path: path.into(), file, stamp, header, trials: Trials::new() })
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

    /// Checks that no setting makes a Llama compute more than a plain one, and logs a window that isn't applied.
    pub(crate) fn check_plain(&self, head_dim: usize) -> Result<()> {
        check_plain(&self.path, &self.header, "llama", head_dim)?;
        let window = self.header.optional_u32("llama.attention.sliding_window").map_err(|e| self.error(e))?;
        if let Some(window) = window.filter(|window| *window > 0) {
            let path = self.path.display();
            tracing::warn!(%path, "the model was trained to look back {window} tokens; here it looks back further");
        }
        Ok(())
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

    /// The vector `name` of `length` numbers.
    pub(crate) fn vector(&mut self, name: &str, length: usize) -> Result<Vec<f32>> {
        let (info, data) = self.read(name, &[length])?;
        info.kind.dequantize(&data).map_err(|e| self.error(e))
    }

    /// The matrix `name` of `rows` outputs and `columns` inputs.
    pub(crate) fn matrix(&mut self, name: &str, rows: usize, columns: usize) -> Result<Matrix> {
        let (info, data) = self.read(name, &[rows, columns])?;
        Matrix::new(info.kind, data, (rows, columns), &mut self.trials)
    }

    /// Type and bytes of the tensor `name`, which must have this shape and a supported type.
    fn read(&mut self, name: &str, shape: &[usize]) -> Result<(TensorInfo, Vec<u8>)> {
        let wrong =
            |found: String| Error::value(&self.path, format!("tensor {name}"), format!("{shape:?}"), found);
        let info = self.header.tensors().get(name).ok_or_else(|| wrong("nothing".into()))?;
        if !info.shape.iter().map(|size| *size as usize).eq(shape.iter().copied()) {
            return Err(wrong(format!("{:?}", info.shape)));
        }
        if !is_supported(info.kind) {
            let what = format!("tensor {name} of type {}", info.kind);
            return Err(Error::unsupported(&self.path, what, ADVICE));
        }
        let mut data = vec![0; info.bytes as usize];
        let read = self.file.seek(SeekFrom::Start(info.offset)).and_then(|_| self.file.read_exact(&mut data));
        read.map_err(|e| Error::io(&self.path, e))?;
        Ok((info.clone(), data))
    }

    fn error(&self, error: dunlin_gguf::Error) -> Error {
        Error::gguf(&self.path, error)
    }
}
