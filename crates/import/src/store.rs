//! A source's tensors: where each lies, under the names of this crate, and their rows.

use dunlin_gguf::{BlockType, TensorInfo};
use dunlin_lm::{Error, Result, ZeroSearch};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A tensor of a decoder, under a name of this crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// `[V, hidden]`.
    Embedding,
    /// `[V, hidden]`; absent if the embedding serves as the head.
    Head,
    /// `[hidden]`.
    Norm,
    /// Divisors of the angles, `[head_dim / 2]`.
    RotaryFactors,
    /// One of a layer's.
    Layer(usize, LayerPart),
    /// The bias of one of a layer's matrices, `[rows]`.
    Bias(usize, LayerPart),
}

/// A tensor of a layer: a matrix `[outputs, inputs]` or a norm's weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LayerPart {
    InputNorm,
    Query,
    Key,
    Value,
    QueryNorm,
    KeyNorm,
    Output,
    MlpNorm,
    Gate,
    Up,
    Down,
}

impl LayerPart {
    /// All parts, with their names in GGUF files and in Hugging Face's.
    pub(crate) const NAMES: [(Self, &'static str, &'static str); 11] = [
        (Self::InputNorm, "attn_norm", "input_layernorm"),
        (Self::Query, "attn_q", "self_attn.q_proj"),
        (Self::Key, "attn_k", "self_attn.k_proj"),
        (Self::Value, "attn_v", "self_attn.v_proj"),
        (Self::QueryNorm, "attn_q_norm", "self_attn.q_norm"),
        (Self::KeyNorm, "attn_k_norm", "self_attn.k_norm"),
        (Self::Output, "attn_output", "self_attn.o_proj"),
        (Self::MlpNorm, "ffn_norm", "post_attention_layernorm"),
        (Self::Gate, "ffn_gate", "mlp.gate_proj"),
        (Self::Up, "ffn_up", "mlp.up_proj"),
        (Self::Down, "ffn_down", "mlp.down_proj"),
    ];

    fn is_norm(self) -> bool {
        matches!(self, Self::InputNorm | Self::QueryNorm | Self::KeyNorm | Self::MlpNorm)
    }
}

impl fmt::Display for Part {
    /// The name by which a missing tensor is reported; files have prefixes of their own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of_layer =
            |part: &LayerPart| LayerPart::NAMES.iter().find(|row| row.0 == *part).map_or("", |row| row.2);
        match self {
            Self::Embedding => f.write_str("embed_tokens.weight"),
            Self::Head => f.write_str("lm_head.weight"),
            Self::Norm => f.write_str("norm.weight"),
            Self::RotaryFactors => f.write_str("rope_freqs.weight"),
            Self::Layer(layer, part) => write!(f, "layers.{layer}.{}.weight", of_layer(part)),
            Self::Bias(layer, part) => write!(f, "layers.{layer}.{}.bias", of_layer(part)),
        }
    }
}

/// The part of a layer that `rest` names, such as `attn_q.bias`; `name` says which name of a row counts.
pub(crate) fn layer_part(
    layer: usize,
    rest: &str,
    name: impl Fn(&(LayerPart, &'static str, &'static str)) -> &'static str,
) -> Option<Part> {
    let (stem, suffix) = rest.rsplit_once('.')?;
    let (part, ..) = *LayerPart::NAMES.iter().find(|row| name(row) == stem)?;
    match suffix {
        "weight" => Some(Part::Layer(layer, part)),
        "bias" if !part.is_norm() => Some(Part::Bias(layer, part)),
        _ => None,
    }
}

/// A tensor's place.
#[derive(Clone, Debug)]
struct Stored {
    /// Index of its file.
    file: usize,
    /// Its name there.
    name: String,
    info: TensorInfo,
}

/// The tensors of a source.
#[derive(Debug, Default)]
pub(crate) struct Store {
    files: Vec<(PathBuf, File)>,
    tensors: BTreeMap<Part, Stored>,
}

/// Numbers of a matrix in a piece, about.
const PIECE: usize = 1 << 21;

/// Ranges of rows, of whole `units` of them, that each hold about [`PIECE`] numbers.
pub(crate) fn pieces(rows: usize, columns: usize, unit: usize) -> impl Iterator<Item = Range<usize>> {
    let count = (PIECE / columns / unit).max(1) * unit;
    (0..rows).step_by(count).map(move |first| first..rows.min(first + count))
}

/// Rows of a matrix as they lie in their file.
pub(crate) struct Rows {
    pub(crate) kind: BlockType,
    pub(crate) row_bytes: usize,
    pub(crate) bytes: Vec<u8>,
}

impl Store {
    /// Adds a file.
    pub(crate) fn add_file(&mut self, path: &Path, file: File) -> usize {
        self.files.push((path.into(), file));
        self.files.len() - 1
    }

    /// Adds a tensor of the file with this index.
    ///
    /// # Errors
    /// The part is there already.
    pub(crate) fn add(&mut self, part: Part, file: usize, name: &str, info: TensorInfo) -> Result<()> {
        if let Some(other) = self.tensors.get(&part) {
            let path = &self.files[file].0;
            return Err(Error::value(path, format!("tensor {name}"), "one tensor of its kind", &other.name));
        }
        self.tensors.insert(part, Stored { file, name: name.into(), info });
        Ok(())
    }

    pub(crate) fn has(&self, part: Part) -> bool {
        self.tensors.contains_key(&part)
    }

    /// Removes a tensor that is not used, and returns its name.
    pub(crate) fn remove(&mut self, part: Part) -> Option<String> {
        self.tensors.remove(&part).map(|stored| stored.name)
    }

    /// The number of layers of which there is a tensor.
    pub(crate) fn layers(&self) -> usize {
        let layer = |part: &Part| match part {
            Part::Layer(layer, _) | Part::Bias(layer, _) => layer + 1,
            _ => 0,
        };
        self.tensors.keys().map(layer).max().unwrap_or(0)
    }

    /// The name and the type of a tensor that was checked before.
    pub(crate) fn described(&self, part: Part) -> Result<(&str, BlockType)> {
        self.stored(part).map(|stored| (stored.name.as_str(), stored.info.kind))
    }

    /// Checks that a tensor is there in this shape, and that its numbers can be read.
    ///
    /// # Errors
    /// Names the tensor, with what was expected and found.
    pub(crate) fn check(&self, part: Part, shape: &[usize]) -> Result<()> {
        let stored = self.stored(part)?;
        let path = &self.files[stored.file].0;
        if !stored.info.shape.iter().copied().eq(shape.iter().map(|size| *size as u64)) {
            let found = format!("{:?}", stored.info.shape);
            return Err(Error::value(path, format!("tensor {}", stored.name), format!("{shape:?}"), found));
        }
        let named = |error| Error::unsupported(path, format!("tensor {}: {error}", stored.name), TYPES);
        stored.info.kind.dequantize(&[]).map(drop).map_err(named)
    }

    /// The numbers of a vector.
    ///
    /// # Errors
    /// It can't be read, or holds something that isn't a finite number.
    pub(crate) fn vector(&mut self, part: Part) -> Result<Vec<f32>> {
        let rows = self.rows(part, 0, 1)?;
        let numbers = rows.kind.dequantize(&rows.bytes).map_err(|error| self.error(part, error))?;
        match numbers.iter().find(|number| !number.is_finite()) {
            Some(number) => Err(self.not_finite(part, number)),
            None => Ok(numbers),
        }
    }

    /// `count` rows of a tensor from `first` on; a vector is one row.
    pub(crate) fn rows(&mut self, part: Part, first: usize, count: usize) -> Result<Rows> {
        let Stored { file, name, info } = self.stored(part)?.clone();
        let total = if info.shape.len() == 1 { 1 } else { info.shape[0] };
        let row_bytes = info.bytes / total;
        let (path, file) = &mut self.files[file];
        let mut bytes = vec![0; row_bytes as usize * count];
        let start = SeekFrom::Start(info.offset + first as u64 * row_bytes);
        let read = file.seek(start).and_then(|_| file.read_exact(&mut bytes));
        read.map_err(|error| Error::io(path, error))?;
        let mut zeros = ZeroSearch::in_rows(row_bytes);
        zeros.feed(&bytes);
        if let Some(zeros) = zeros.finish().filter(|_| info.shape.len() > 1) {
            // Zero rows are passed on as they are.
            zeros.warning(path, "weights", &name)?;
        }
        Ok(Rows { kind: info.kind, row_bytes: row_bytes as usize, bytes })
    }

    /// The error of a number in a tensor that is infinite or none, or too large.
    pub(crate) fn not_finite(&self, part: Part, found: impl ToString) -> Error {
        self.wrong(part, "numbers that 16-bit scales can hold", found)
    }

    /// The error of a tensor that can't be read.
    pub(crate) fn error(&self, part: Part, error: dunlin_gguf::Error) -> Error {
        match self.stored(part) {
            Ok(stored) => Error::gguf(&self.files[stored.file].0, error),
            Err(missing) => missing,
        }
    }

    fn wrong(&self, part: Part, expected: &str, found: impl ToString) -> Error {
        match self.stored(part) {
            Ok(Stored { file, name, .. }) => {
                Error::value(&self.files[*file].0, format!("tensor {name}"), expected, found)
            }
            Err(missing) => missing,
        }
    }

    fn stored(&self, part: Part) -> Result<&Stored> {
        let path = self.files.first().map_or(Path::new(""), |(path, _)| path);
        self.tensors.get(&part).ok_or_else(|| Error::value(path, format!("tensor {part}"), "one", "nothing"))
    }
}

const TYPES: &str = "use a file of type F32, F16, BF16, Q8_0, Q5_1, Q5_0, Q4_1, Q4_0 or Q2_K to Q6_K";
