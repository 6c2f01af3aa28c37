//! Products with quantized matrices.
//!
//! Invariant: row `i` of a product depends only on row `i` of its input. candle's kernels don't guarantee that, so each
//! shape is tried at load. If a product of several rows differs from single rows by a bit, rows are multiplied one by
//! one.
//!
//! candle reads its number of threads once per process from `CANDLE_NUM_THREADS` (then `RAYON_NUM_THREADS`,
//! then the physical cores), and its threads wait by spinning. With more threads than free cores that
//! collapses: set it to the cores that are free, or set `CANDLE_BARRIER_POOL_SPIN_LIMIT=0` as well, before
//! the process starts.

use candle_core::quantized::{GgmlDType, QMatMul, QStorage, QTensor};
use candle_core::{Device, Module, Tensor};
use dunlin_gguf::BlockType;
use dunlin_lm::guard::no_panic;
use dunlin_lm::{Error, Result};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

const ENGINE: &str = "candle";

/// Row counts whose products are compared with single rows at load; candle's kernels split at 4, 8, 16 and 32.
const TRIED_ROWS: [usize; 9] = [2, 3, 4, 5, 8, 9, 16, 17, 33];

/// Distinct input rows of those trials, repeated; the number divides none of the splits.
const TRIED_DISTINCT: usize = 5;

/// On x86-64, candle's kernels are about 8 times as fast if the length of a row is a multiple of this.
const FAST_COLUMNS: usize = 256;

/// The environment variable with the number of threads for products with a target's weights. It is read once and there
/// is no other way to set the number: a program that needs another one restarts itself with this variable set.
pub const THREADS_VARIABLE: &str = "CANDLE_NUM_THREADS";

/// The number of threads that products with a target's weights use.
pub fn threads() -> usize {
    candle_core::utils::barrier_pool().n_workers() + 1
}

/// candle's name for a type of block; `None` if candle can't multiply with it.
fn dtype(kind: BlockType) -> Option<GgmlDType> {
    Some(match kind {
        BlockType::F32 => GgmlDType::F32,
        BlockType::F16 => GgmlDType::F16,
        BlockType::BF16 => GgmlDType::BF16,
        BlockType::Q4_0 => GgmlDType::Q4_0,
        BlockType::Q4_1 => GgmlDType::Q4_1,
        BlockType::Q5_0 => GgmlDType::Q5_0,
        BlockType::Q5_1 => GgmlDType::Q5_1,
        BlockType::Q8_0 => GgmlDType::Q8_0,
        BlockType::Q2_K => GgmlDType::Q2K,
        BlockType::Q3_K => GgmlDType::Q3K,
        BlockType::Q4_K => GgmlDType::Q4K,
        BlockType::Q5_K => GgmlDType::Q5K,
        BlockType::Q6_K => GgmlDType::Q6K,
        _ => return None,
    })
}

/// True when candle can multiply with blocks of this type.
pub(crate) fn is_supported(kind: BlockType) -> bool {
    dtype(kind).is_some()
}

/// Converts 16-bit weights to 32 bits, since candle's product with 16-bit weights would round its input to 16 bits.
fn widen(tensor: QTensor) -> candle_core::Result<QTensor> {
    match tensor.dtype() {
        GgmlDType::F16 | GgmlDType::BF16 => {
            QTensor::quantize(&tensor.dequantize(&Device::Cpu)?, GgmlDType::F32)
        }
        _ => Ok(tensor),
    }
}

/// Pads the rows of a matrix with zeros to a length at which candle is fast, if that pays; returns their length.
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

/// The tried types and shapes of a file's matrices; true if products keep the rows of the input apart.
pub(crate) type Trials = BTreeMap<(BlockType, usize, usize), bool>;

/// A matrix of weights, `[rows × columns]`, quantized or not.
#[derive(Debug)]
pub(crate) struct Matrix {
    weights: QMatMul,
    rows: usize,
    columns: usize,
    /// Columns including the padding.
    stored: usize,
    separate: bool,
}

impl Matrix {
    /// The matrix of `rows` outputs and `columns` inputs whose blocks of a supported type are `data`.
    pub(crate) fn new(
        kind: BlockType,
        data: Vec<u8>,
        (rows, columns): (usize, usize),
        trials: &mut Trials,
    ) -> Result<Self> {
        let prepare = || {
            let dtype = dtype(kind).ok_or(format!("no products with blocks of type {kind}"))?;
            let whole = || {
                let storage = QStorage::from_data(Cow::Owned(data), &Device::Cpu, dtype)?;
                pad(widen(QTensor::new(storage, (rows, columns))?)?, rows, columns)
            };
            whole().map_err(|e: candle_core::Error| e.to_string())
        };
        let (tensor, stored) = no_panic(prepare).map_err(|e| Error::engine(ENGINE, e))?;
        let weights = QMatMul::QTensor(Arc::new(tensor));
        let mut matrix = Self { weights, rows, columns, stored, separate: true };
        let shape = (kind, rows, columns);
        matrix.separate = match trials.get(&shape) {
            Some(separate) => *separate,
            None => matrix.keeps_rows_apart()?,
        };
        if trials.insert(shape, matrix.separate).is_none() && !matrix.separate {
            tracing::warn!(%kind, rows, columns, "this machine's kernel mixes rows: they are multiplied one by one");
        }
        Ok(matrix)
    }

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

    /// True when products of several rows have the same bits as those of single rows, as tried on some inputs.
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

/// A pseudo-random number in -1..1.
fn trial_number(index: usize) -> f32 {
    let mixed = (index as u32).wrapping_add(1).wrapping_mul(0x9e37_79b9);
    let mixed = (mixed ^ (mixed >> 15)).wrapping_mul(0x85eb_ca6b);
    (mixed >> 8) as f32 / (1 << 23) as f32 - 1.0
}
