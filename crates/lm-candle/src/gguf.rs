//! GGUF files and products with quantized matrices, on candle; nothing else names it.
//!
//! Invariant: row `i` of a product depends on row `i` of its input alone. candle's kernels promise nothing of
//! the sort, so each shape is tried at load, and where a product of several rows differs from single rows by
//! a bit, the rows are multiplied one by one.
//!
//! candle reads its number of threads once per process from `CANDLE_NUM_THREADS` (then `RAYON_NUM_THREADS`,
//! then the physical cores), and its threads wait by spinning. With more threads than free cores that
//! collapses: set it to the cores that are free, or set `CANDLE_BARRIER_POOL_SPIN_LIMIT=0` as well, before
//! the process starts.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::quantized::gguf_file::{Content, Value};
use candle_core::quantized::{GgmlDType, QMatMul, QStorage, QTensor};
use candle_core::{Device, Module, Tensor};
use dunlin_lm::guard::no_panic;
use dunlin_lm::{Error, Result};

const ENGINE: &str = "candle";

/// A size in a file above which it can't be a language model's, so that products of sizes can't overflow.
pub(crate) const DIMENSION_MAX: usize = 1 << 20;

/// The row counts whose products are compared with single rows at load: candle's kernels split at 4, 8, 16, 32.
const TRIED_ROWS: [usize; 9] = [2, 3, 4, 5, 8, 9, 16, 17, 33];

/// Rows of input in those trials that differ, repeated: a number that divides none of the splits.
const TRIED_DISTINCT: usize = 5;

/// On x86-64, candle's kernels are about 8 times as fast where a row is a multiple of this.
const FAST_COLUMNS: usize = 256;

/// The environment variable that sets how many threads products with a target's weights use. It is read once,
/// and there is no other way to set it: a program that wants another number starts itself again with it.
pub const THREADS_VARIABLE: &str = "CANDLE_NUM_THREADS";

/// The number of threads that products with a target's weights use.
pub fn threads() -> usize {
    candle_core::utils::barrier_pool().n_workers() + 1
}

/// An open GGUF file.
pub(crate) struct Gguf {
    path: PathBuf,
    reader: BufReader<File>,
    content: Content,
    /// Whether products of each tried type and shape keep their rows apart.
    tried: BTreeMap<(u32, usize, usize), bool>,
}

impl Gguf {
    /// Reads the header of a file.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let mut reader = BufReader::new(File::open(path).map_err(|e| Error::io(path, e))?);
        check_order(path, &mut reader)?;
        let content = no_panic(|| Content::read(&mut reader).map_err(|e| e.to_string()))
            .map_err(|e| Error::format(path, "GGUF", e))?;
        Ok(Self { path: path.into(), reader, content, tried: BTreeMap::new() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The string at `key`.
    pub(crate) fn string(&self, key: &str) -> Result<&str> {
        match self.content.metadata.get(key) {
            Some(Value::String(text)) => Ok(text),
            found => Err(self.wrong(key, "a string", found)),
        }
    }

    /// The unsigned integer at `key`, if there is one.
    pub(crate) fn optional_u32(&self, key: &str) -> Result<Option<u32>> {
        let Some(value) = self.content.metadata.get(key) else {
            return Ok(None);
        };
        let wide = match value {
            Value::I32(v) => u64::try_from(*v).ok(),
            Value::I64(v) => u64::try_from(*v).ok(),
            Value::Bool(_) => None,
            other => other.to_u64().ok(),
        };
        let narrow = wide.and_then(|v| u32::try_from(v).ok());
        narrow.map(Some).ok_or_else(|| self.wrong(key, "an unsigned integer", Some(value)))
    }

    /// The unsigned integer at `key`.
    pub(crate) fn u32(&self, key: &str) -> Result<u32> {
        self.optional_u32(key)?.ok_or_else(|| self.wrong(key, "an unsigned integer", None))
    }

    /// The number at `key`, if there is one.
    pub(crate) fn optional_f32(&self, key: &str) -> Result<Option<f32>> {
        match self.content.metadata.get(key) {
            None => Ok(None),
            Some(Value::F32(v)) => Ok(Some(*v)),
            Some(Value::F64(v)) => Ok(Some(*v as f32)),
            found => Err(self.wrong(key, "a number", found)),
        }
    }

    /// Whether `key` has a value.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.content.metadata.contains_key(key)
    }

    fn wrong(&self, key: &str, expected: &str, found: Option<&Value>) -> Error {
        let found = match found {
            None => "nothing".into(),
            Some(Value::Array(values)) => format!("an array of {}", values.len()),
            Some(value) => format!("{value:?}"),
        };
        Error::value(&self.path, key, expected, found)
    }

    /// The number of rows of the embedding, which is the number of tokens.
    pub(crate) fn vocabulary_size(&self) -> Result<u32> {
        let name = "token_embd.weight";
        let shape = self.shape(name).ok_or_else(|| Error::value(&self.path, name, "a matrix", "nothing"))?;
        let rows = shape.first().and_then(|rows| u32::try_from(*rows).ok());
        rows.ok_or_else(|| Error::value(&self.path, name, "a matrix", format!("{shape:?}")))
    }

    /// The most tokens the model was made for.
    pub(crate) fn context_length(&self) -> Result<usize> {
        let key = format!("{}.context_length", self.string("general.architecture")?);
        Ok(self.u32(&key)? as usize)
    }

    /// The shape of a tensor, slowest dimension first.
    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.content.tensor_infos.get(name).map(|info| info.shape.dims())
    }

    /// Every tensor's name, in order.
    pub(crate) fn tensor_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.content.tensor_infos.keys().cloned().collect();
        names.sort_unstable();
        names
    }

    /// The vector `name` of `length` numbers.
    pub(crate) fn vector(&mut self, name: &str, length: usize) -> Result<Vec<f32>> {
        let tensor = self.read(name, &[length])?;
        let numbers = tensor.dequantize(&Device::Cpu).and_then(|t| t.to_vec1());
        numbers.map_err(|e| Error::engine(ENGINE, e))
    }

    /// The matrix `name` of `rows` outputs and `columns` inputs.
    pub(crate) fn matrix(&mut self, name: &str, rows: usize, columns: usize) -> Result<Matrix> {
        let tensor = self.read(name, &[rows, columns])?;
        let prepare = || pad(widen(tensor)?, rows, columns);
        let (tensor, stored) = prepare().map_err(|e| Error::engine(ENGINE, e))?;
        let shape = (tensor.dtype() as u32, rows, columns);
        let weights = QMatMul::QTensor(Arc::new(tensor));
        let mut matrix = Matrix { weights, rows, columns, stored, separate: true };
        let separate = match self.tried.get(&shape) {
            Some(separate) => *separate,
            None => matrix.keeps_rows_apart()?,
        };
        self.tried.insert(shape, separate);
        if !separate {
            tracing::warn!(name, "this machine's kernel mixes rows: they are multiplied one by one");
        }
        matrix.separate = separate;
        Ok(matrix)
    }

    fn read(&mut self, name: &str, shape: &[usize]) -> Result<QTensor> {
        let wrong =
            |found: String| Error::value(&self.path, format!("tensor {name}"), format!("{shape:?}"), found);
        let info = self.content.tensor_infos.get(name).ok_or_else(|| wrong("nothing".into()))?;
        if info.shape.dims() != shape {
            return Err(wrong(format!("{:?}", info.shape.dims())));
        }
        let (content, reader) = (&self.content, &mut self.reader);
        no_panic(|| content.tensor(reader, name, &Device::Cpu).map_err(|e| e.to_string()))
            .map_err(|e| Error::format(&self.path, "GGUF", format!("tensor {name}: {e}")))
    }
}

/// Refuses a file whose numbers stand with their largest byte first, as machines of that kind write them.
fn check_order(path: &Path, reader: &mut BufReader<File>) -> Result<()> {
    let begin = reader.fill_buf().map_err(|e| Error::io(path, e))?;
    let version = begin.strip_prefix(b"GGUF").and_then(|rest| rest.first_chunk::<4>());
    if version.is_some_and(|version| u32::from_le_bytes(*version) > u32::from(u16::MAX)) {
        return Err(Error::format(
            path,
            "GGUF",
            "it is of a big-endian machine: convert it to little-endian",
        ));
    }
    Ok(())
}

/// 16-bit weights as 32-bit ones: candle's product with 16-bit weights would round its input to 16 bits too.
fn widen(tensor: QTensor) -> candle_core::Result<QTensor> {
    match tensor.dtype() {
        GgmlDType::F16 | GgmlDType::BF16 => {
            QTensor::quantize(&tensor.dequantize(&Device::Cpu)?, GgmlDType::F32)
        }
        _ => Ok(tensor),
    }
}

/// Fills the rows of a matrix with zeros up to what candle is fast at, where that pays; returns their length.
fn pad(tensor: QTensor, rows: usize, columns: usize) -> candle_core::Result<(QTensor, usize)> {
    let stored = columns.next_multiple_of(FAST_COLUMNS);
    let kind = tensor.dtype();
    let pays = cfg!(target_arch = "x86_64") && rows.is_multiple_of(16) && stored <= 2 * columns;
    if !pays || stored == columns || !matches!(kind, GgmlDType::Q8_0 | GgmlDType::Q4_0) {
        return Ok((tensor, columns));
    }
    let bytes = |columns: usize| columns / kind.block_size() * kind.type_size();
    let mut padded = vec![0; rows * bytes(stored)];
    let data = tensor.data()?;
    for (to, from) in padded.chunks_exact_mut(bytes(stored)).zip(data.chunks_exact(bytes(columns))) {
        to[..from.len()].copy_from_slice(from);
    }
    let storage = QStorage::from_data(Cow::Owned(padded), &Device::Cpu, kind)?;
    Ok((QTensor::new(storage, (rows, stored))?, stored))
}

/// A matrix of weights, `[rows × columns]`, quantized or not.
#[derive(Debug)]
pub(crate) struct Matrix {
    weights: QMatMul,
    rows: usize,
    columns: usize,
    /// Columns with the zeros at the end.
    stored: usize,
    separate: bool,
}

impl Matrix {
    /// The product of each row of `input`, `[n × columns]`, with the weights: `[n × rows]`.
    pub(crate) fn multiply(&self, input: &[f32]) -> Result<Vec<f32>> {
        if self.separate {
            return self.product(input);
        }
        let mut output = Vec::with_capacity(input.len() / self.columns * self.rows);
        for row in input.chunks_exact(self.columns) {
            output.extend(self.product(row)?);
        }
        Ok(output)
    }

    /// The rows of the weights at `ids`, `[n × columns]`.
    pub(crate) fn gather(&self, ids: &[u32]) -> Result<Vec<f32>> {
        let gather = || {
            let ids = Tensor::from_slice(ids, ids.len(), &Device::Cpu)?;
            self.weights.embedding(&ids)?.narrow(1, 0, self.columns)?.flatten_all()?.to_vec1()
        };
        gather().map_err(|e: candle_core::Error| Error::engine(ENGINE, e))
    }

    fn product(&self, input: &[f32]) -> Result<Vec<f32>> {
        let multiply = || {
            let rows = input.len() / self.columns;
            let mut input = Tensor::from_slice(input, (rows, self.columns), &Device::Cpu)?;
            if self.stored > self.columns {
                input = input.pad_with_zeros(1, 0, self.stored - self.columns)?;
            }
            self.weights.forward(&input)?.flatten_all()?.to_vec1()
        };
        multiply().map_err(|e: candle_core::Error| Error::engine(ENGINE, e))
    }

    /// Tries whether products of several rows have the bits of single rows.
    fn keeps_rows_apart(&self) -> Result<bool> {
        let distinct: Vec<f32> = (0..TRIED_DISTINCT * self.columns).map(trial_number).collect();
        let mut single = Vec::with_capacity(TRIED_DISTINCT * self.rows);
        for row in distinct.chunks_exact(self.columns) {
            single.extend(self.product(row)?);
        }
        for rows in TRIED_ROWS {
            let input: Vec<f32> = distinct.iter().copied().cycle().take(rows * self.columns).collect();
            let expected = single.iter().cycle().take(rows * self.rows);
            let several = self.product(&input)?;
            if !several.iter().zip(expected).all(|(a, b)| a.to_bits() == b.to_bits()) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A number in -1..1 without a pattern along a row.
fn trial_number(index: usize) -> f32 {
    let mixed = (index as u32).wrapping_add(1).wrapping_mul(0x9e37_79b9);
    let mixed = (mixed ^ (mixed >> 15)).wrapping_mul(0x85eb_ca6b);
    (mixed >> 8) as f32 / (1 << 23) as f32 - 1.0
}
