//! 4-bit matrices that stay where they are stored until they are packed, one after the other.
//!
//! tract reads every tensor of a file before it builds the graph, and keeps it until the graph is built, beside the packed
//! form: three to four times the file. So the operators that multiply with such a matrix lose their weights here and get
//! a number instead, under which `stored_matmul` reads the matrix when it packs it.
//!
//! Invariant: what is taken is checked: a matrix has the codes and scales that its shape needs, in a file that has them.

use super::weights::{data_file, integer, location, number};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};

/// The operator that takes the place of a `MatMulNBits` whose weights are taken. Files can't use it.
pub(super) const MATMUL: &str = "DunlinStoredMatMul";
/// The operator that takes the place of such a `GatherBlockQuantized`.
pub(super) const GATHER: &str = "DunlinStoredGather";
/// Their attributes: the number of the matrix, and its shape.
pub(super) const NUMBER: &str = "matrix";
pub(super) const ROWS: &str = "rows";
pub(super) const COLUMNS: &str = "columns";
/// ONNX's number for an attribute that is an integer.
const ATTRIBUTE_INT: i32 = 2;
/// Columns of a block.
const BLOCK: usize = 32;
/// Bytes of codes that are read at a time.
const PIECE_BYTES: usize = 1 << 20;

/// The matrices that were taken from a graph.
#[derive(Debug, Default)]
pub(super) struct StoredMatrices {
    matrices: Vec<StoredMatrix>,
    /// Tensors by name. Those that lay in the graph are dropped when the last matrix that needs them is read.
    tensors: RefCell<BTreeMap<String, StoredTensor>>,
}

/// A matrix of `[rows × columns]`, and the names of its tensors.
#[derive(Clone, Debug)]
struct StoredMatrix {
    rows: usize,
    columns: usize,
    codes: String,
    scales: String,
}

/// A tensor's bytes, and the number of matrices that have yet to be read from them.
#[derive(Debug)]
struct StoredTensor {
    place: StoredBytes,
    is_half: bool,
    uses: usize,
}

/// The place of a tensor's bytes.
#[derive(Debug)]
enum StoredBytes {
    /// In a file beside the graph.
    File { path: PathBuf, offset: u64 },
    /// In the graph.
    Graph(Vec<u8>),
}

/// Some rows of a matrix.
#[derive(Debug)]
pub(super) struct MatrixRows {
    pub(super) rows: usize,
    /// `[rows × columns / 2]`: two 4-bit codes in a byte, the first in its low half.
    pub(super) codes: Vec<u8>,
    /// `[rows × columns / 32]`.
    pub(super) scales: Vec<f32>,
}

impl StoredMatrices {
    /// Takes the weights of each `MatMulNBits` and `GatherBlockQuantized` with 4 bits in whole blocks of 32 around 8, and
    /// leaves the others. Weights that aren't stored as expected are left, too: tract names what is wrong with them.
    pub(super) fn take(path: &Path, proto: &mut ModelProto) -> Self {
        let Some(graph) = &mut proto.graph else { return Self::default() };
        let mut taken = Self::default();
        let mut sources = BTreeMap::new();
        let found: Vec<(usize, StoredMatrix)> = {
            let reader = GraphReader::new(path, graph);
            let matrix = |(index, node)| Some((index, reader.matrix(node, &mut sources)?));
            graph.node.iter().enumerate().filter_map(matrix).collect()
        };
        for (index, matrix) in found {
            let numbers = [(NUMBER, taken.matrices.len()), (ROWS, matrix.rows), (COLUMNS, matrix.columns)];
            replace(&mut graph.node[index], &numbers);
            for name in [&matrix.codes, &matrix.scales] {
                if let Some(source) = sources.get_mut(name) {
                    source.uses += 1;
                }
            }
            taken.matrices.push(matrix);
        }
        drop_unused(graph, &mut sources);
        taken.tensors = RefCell::new(sources);
        taken
    }

    /// Reads a matrix, and gives some rows at a time to `take`.
    ///
    /// # Errors
    /// No matrix has this number, a file can't be read, or `take` fails.
    pub(super) fn read<E: From<io::Error>>(
        &self,
        number: usize,
        mut take: impl FnMut(&MatrixRows) -> Result<(), E>,
    ) -> Result<(), E> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("no matrix {number}"));
        let StoredMatrix { rows, columns, codes, scales } = self.matrices.get(number).ok_or_else(missing)?;
        let (mut codes, mut scales) = (self.tensor(codes)?, self.tensor(scales)?);
        let most = (PIECE_BYTES * 2 / columns).max(1);
        for start in (0..*rows).step_by(most) {
            let rows = most.min(rows - start);
            let blocks = rows * columns / BLOCK;
            let codes = codes.bytes(blocks * BLOCK / 2)?;
            let scales = scales.numbers(blocks)?;
            take(&MatrixRows { rows, codes, scales })?;
        }
        Ok(())
    }

    /// A tensor to read from its beginning.
    fn tensor(&self, name: &str) -> io::Result<TensorReader> {
        let mut tensors = self.tensors.borrow_mut();
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("no tensor {name}"));
        let source = tensors.get_mut(name).ok_or_else(missing)?;
        source.uses = source.uses.saturating_sub(1);
        let bytes: Box<dyn Read> = match &mut source.place {
            StoredBytes::File { path, offset } => {
                let mut file = File::open(path)?;
                file.seek(SeekFrom::Start(*offset))?;
                Box::new(file)
            }
            StoredBytes::Graph(bytes) if source.uses == 0 => Box::new(Cursor::new(std::mem::take(bytes))),
            StoredBytes::Graph(bytes) => Box::new(Cursor::new(bytes.clone())),
        };
        Ok(TensorReader { bytes, is_half: source.is_half })
    }

    /// The number of blocks of a matrix; 0 if no matrix has this number.
    pub(super) fn blocks(&self, number: usize) -> usize {
        self.matrices.get(number).map_or(0, |matrix| matrix.rows * (matrix.columns / BLOCK))
    }
}

/// A tensor that is read from its beginning.
struct TensorReader {
    bytes: Box<dyn Read>,
    is_half: bool,
}

impl TensorReader {
    fn bytes(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.bytes.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn numbers(&mut self, count: usize) -> io::Result<Vec<f32>> {
        Ok(match self.is_half {
            true => {
                let bytes = self.bytes(2 * count)?;
                bytes.as_chunks().0.iter().map(|bytes| half(u16::from_le_bytes(*bytes))).collect()
            }
            false => {
                let bytes = self.bytes(4 * count)?;
                bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
            }
        })
    }
}

/// Makes a node one that reads a matrix by its number.
fn replace(node: &mut NodeProto, numbers: &[(&str, usize)]) {
    let is_product = node.op_type == "MatMulNBits";
    node.op_type = if is_product { MATMUL } else { GATHER }.into();
    let input = node.input.swap_remove(if is_product { 0 } else { 1 });
    node.input = vec![input];
    let attribute = |(name, number): &(&str, usize)| AttributeProto {
        name: (*name).into(),
        i: *number as i64,
        r#type: ATTRIBUTE_INT,
        ..Default::default()
    };
    node.attribute = numbers.iter().map(attribute).collect();
}

/// The number that 16 bits of a float stand for.
fn half(bits: u16) -> f32 {
    tract_onnx::prelude::f16::from_bits(bits).to_f32()
}

/// A graph's tensors by name, and its casts by their output.
struct GraphReader<'a> {
    path: &'a Path,
    stored: BTreeMap<&'a str, &'a TensorProto>,
    casts: BTreeMap<&'a str, &'a NodeProto>,
    /// Names that an input of the graph has: its value may come from outside.
    inputs: BTreeSet<&'a str>,
}

impl<'a> GraphReader<'a> {
    fn new(path: &'a Path, graph: &'a GraphProto) -> Self {
        let casts = graph.node.iter().filter(|node| node.op_type == "Cast");
        Self {
            path,
            stored: graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect(),
            casts: casts.filter_map(|node| Some((node.output.first()?.as_str(), node))).collect(),
            inputs: graph.input.iter().map(|input| input.name.as_str()).collect(),
        }
    }

    /// The matrix of a node, if it can be taken. Its tensors are added to `sources`.
    fn matrix(&self, node: &NodeProto, sources: &mut BTreeMap<String, StoredTensor>) -> Option<StoredMatrix> {
        let size = |name| usize::try_from(integer(node, name)?).ok();
        let is_plain = size("bits").unwrap_or(4) == 4
            && size("block_size") == Some(BLOCK)
            && node.input.iter().skip(3).all(String::is_empty);
        let (codes, rows, columns) = match node.op_type.as_str() {
            "MatMulNBits" => (node.input.get(1)?, size("N")?, size("K")?),
            "GatherBlockQuantized" => {
                let axes = (integer(node, "gather_axis"), integer(node, "quantize_axis"));
                matches!(axes, (None | Some(0), None | Some(1 | -1))).then_some(())?;
                let codes = node.input.first()?;
                let [rows, bytes] = self.stored.get(codes.as_str())?.dims.as_slice() else { return None };
                (codes, usize::try_from(*rows).ok()?, usize::try_from(*bytes).ok()?.checked_mul(2)?)
            }
            _ => return None,
        };
        if !is_plain || columns == 0 || !columns.is_multiple_of(BLOCK) {
            return None;
        }
        let scales = self.scales(node.input.get(2)?)?;
        let blocks = rows.checked_mul(columns / BLOCK)?;
        let codes_source = self.source(codes, &[(DataType::Uint8, BLOCK / 2)], blocks)?;
        let scales_source = self.source(scales, &[(DataType::Float, 4), (DataType::Float16, 2)], blocks)?;
        sources.entry(codes.clone()).or_insert(codes_source);
        sources.entry(scales.into()).or_insert(scales_source);
        Some(StoredMatrix { rows, columns, codes: codes.clone(), scales: scales.into() })
    }

    /// The name of stored scales that are 32-bit floats, or become such by a cast.
    fn scales(&self, name: &'a str) -> Option<&'a str> {
        let Some(cast) = self.casts.get(name) else {
            let is_float = self.stored.get(name)?.data_type == DataType::Float as i32;
            return is_float.then_some(name);
        };
        (integer(cast, "to") == Some(DataType::Float as i64)).then_some(())?;
        cast.input.first().map(String::as_str)
    }

    /// The source of a tensor with so many bytes for each of `blocks` blocks, by its element type.
    fn source(&self, name: &str, kinds: &[(DataType, usize)], blocks: usize) -> Option<StoredTensor> {
        let tensor = self.stored.get(name).filter(|_| !self.inputs.contains(name))?;
        let (kind, bytes) = kinds.iter().find(|(kind, _)| tensor.data_type == *kind as i32)?;
        let length = blocks.checked_mul(*bytes)?;
        let place = if let Some(location) = location(tensor) {
            // tract refuses a file outside the model's folder by name, so such a tensor stays.
            let path = data_file(self.path, location);
            let folder = self.path.parent()?.canonicalize().ok()?;
            path.canonicalize().ok().filter(|path| path.starts_with(folder))?;
            let (offset, stored) = (number(tensor, "offset"), number(tensor, "length"));
            let is_whole =
                stored == length as u64 && offset.checked_add(stored)? <= path.metadata().ok()?.len();
            is_whole.then_some(StoredBytes::File { path, offset })?
        } else {
            (tensor.raw_data.len() == length).then(|| StoredBytes::Graph(Vec::new()))?
        };
        Some(StoredTensor { place, is_half: *kind == DataType::Float16, uses: 0 })
    }
}

/// Drops casts and tensors that no node reads any more; the bytes of taken tensors go to their sources.
fn drop_unused(graph: &mut GraphProto, sources: &mut BTreeMap<String, StoredTensor>) {
    let used = names_read(graph);
    graph.node.retain(|node| {
        let is_cast =
            node.op_type == "Cast" && node.input.first().is_some_and(|name| sources.contains_key(name));
        !is_cast || node.output.iter().any(|name| used.contains(name))
    });
    let used = names_read(graph);
    for tensor in &mut graph.initializer {
        let Some(source) = sources.get_mut(&tensor.name) else { continue };
        if let StoredBytes::Graph(bytes) = &mut source.place {
            *bytes = match used.contains(&tensor.name) {
                true => tensor.raw_data.clone(),
                false => std::mem::take(&mut tensor.raw_data),
            };
        }
    }
    graph.initializer.retain(|tensor| used.contains(&tensor.name) || !sources.contains_key(&tensor.name));
}

/// Every name that a node reads, also within branches, and the graph's outputs.
fn names_read(graph: &GraphProto) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = graph.output.iter().map(|output| output.name.clone()).collect();
    for node in &graph.node {
        names.extend(node.input.iter().cloned());
        for branch in node.attribute.iter().filter_map(|attribute| attribute.g.as_ref()) {
            names.extend(names_read(branch));
        }
    }
    names
}
