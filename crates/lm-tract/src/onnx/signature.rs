//! The inputs and outputs of a decoder's ONNX file, and their shapes.

use dunlin_lm::bundle::CacheShape;
use dunlin_lm::{Error, Result};
use std::path::Path;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::dimension::Value;
use tract_onnx::pb::type_proto;
use tract_onnx::pb::{GraphProto, ModelProto, ValueInfoProto};
use tract_onnx::prelude::{Datum, DatumType, f16};

pub(super) const ADVICE: &str =
    "export a decoder with its cache as inputs and outputs of 16- or 32-bit floats, without control flow";

/// The meaning of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    Ids,
    Mask,
    Positions,
    /// The positions without a batch: [S].
    FlatPositions,
    /// Keys (even) or values (odd) of layer `index / 2`.
    Past(usize),
}

/// A decoder's inputs in the file's order, and the outputs that are used.
#[derive(Debug)]
pub(super) struct Signature {
    pub(super) inputs: Vec<(Input, DatumType)>,
    /// `logits`, `present.0.key`, `present.0.value`, …, and `attention` if there is one.
    pub(super) outputs: Vec<String>,
    /// The position of each of `outputs` in the file.
    pub(super) output_indices: Vec<usize>,
    pub(super) shape: CacheShape,
}

impl Signature {
    /// Reads the signature of `proto`; `given` is the cache's shape in the directory's metadata, if there is one.
    pub(super) fn read(path: &Path, proto: &ModelProto, given: Option<CacheShape>) -> Result<Self> {
        let graph = proto.graph.as_ref().ok_or_else(|| Error::format(path, "ONNX", "it holds no graph"))?;
        let declared = || graph.input.iter().filter(|input| !is_weight(graph, &input.name));
        let inputs = declared().map(|input| known_input(path, input)).collect::<Result<Vec<_>>>()?;
        let layers = inputs.iter().filter(|(input, _)| matches!(input, Input::Past(_))).count().div_ceil(2);
        let wanted = [Input::Ids].into_iter().chain((0..2 * layers).map(Input::Past));
        for input in wanted {
            if !inputs.iter().any(|(found, _)| *found == input) {
                return Err(Error::value(
                    path,
                    format!("input {}", input_name(input)),
                    "a tensor",
                    "nothing",
                ));
            }
        }
        let pasts = || declared().filter(|input| past_index(&input.name).is_some());
        let (kv_heads, head_dim) = match pasts().next() {
            Some(first) => heads(path, first, given)?,
            None => return Err(Error::value(path, "input past_key_values.0.key", "a tensor", "nothing")),
        };
        let shape = CacheShape { layers, kv_heads, head_dim };
        for past in pasts() {
            check_heads(path, past, given.unwrap_or(shape), shape)?;
        }
        check_layers(path, layers, given)?;
        let (outputs, output_indices) = used_outputs(path, graph, layers)?;
        Ok(Self { inputs, outputs, output_indices, shape })
    }
}

pub(super) fn is_weight(graph: &GraphProto, name: &str) -> bool {
    graph.initializer.iter().any(|tensor| tensor.name == name)
}

fn known_input(path: &Path, input: &ValueInfoProto) -> Result<(Input, DatumType)> {
    let (meaning, rank) = match input.name.as_str() {
        "input_ids" => (Input::Ids, 2),
        "attention_mask" => (Input::Mask, 2),
        "position_ids" => (Input::Positions, 2),
        "cache_position" => (Input::FlatPositions, 1),
        name => match past_index(name) {
            Some(index) => (Input::Past(index), 4),
            None => return Err(Error::unsupported(path, format!("input {name}"), ADVICE)),
        },
    };
    let dims = dimensions(input).len();
    // A cache's shape is checked with its heads.
    if dims != rank && dims > 0 && !matches!(meaning, Input::Past(_)) {
        let what = format!("input {} of {dims} dimensions instead of {rank}", input.name);
        return Err(Error::unsupported(path, what, ADVICE));
    }
    let element = tensor_type(input).and_then(|tensor| DataType::try_from(tensor.elem_type).ok());
    match (meaning, element) {
        (Input::Past(_), Some(DataType::Float)) => Ok((meaning, f32::datum_type())),
        (Input::Past(_), Some(DataType::Float16)) => Ok((meaning, f16::datum_type())),
        (Input::Past(_), _) => Err(unsupported_type(path, input)),
        (_, Some(DataType::Int64)) => Ok((meaning, i64::datum_type())),
        (_, Some(DataType::Int32)) => Ok((meaning, i32::datum_type())),
        (Input::Mask, Some(DataType::Bool)) => Ok((meaning, bool::datum_type())),
        _ => Err(unsupported_type(path, input)),
    }
}

/// The error about an input's element type.
pub(super) fn unsupported_type(path: &Path, input: &ValueInfoProto) -> Error {
    let number = tensor_type(input).map_or(0, |tensor| tensor.elem_type);
    let named = DataType::try_from(number).map(|kind| kind.as_str_name().to_string());
    let kind = named.unwrap_or_else(|_| number.to_string());
    Error::unsupported(path, format!("input {} of ONNX element type {kind}", input.name), ADVICE)
}

pub(super) fn tensor_type(value: &ValueInfoProto) -> Option<&type_proto::Tensor> {
    let type_proto::Value::TensorType(tensor) = value.r#type.as_ref()?.value.as_ref()?;
    Some(tensor)
}

/// 2·N of `past_key_values.N.key`, 2·N + 1 of `past_key_values.N.value`.
fn past_index(name: &str) -> Option<usize> {
    let (layer, part) = name.strip_prefix("past_key_values.")?.split_once('.')?;
    let layer: usize = layer.parse().ok().filter(|layer| *layer < 4096)?;
    match part {
        "key" => Some(2 * layer),
        "value" => Some(2 * layer + 1),
        _ => None,
    }
}

fn cache_name(index: usize) -> String {
    format!("{}.{}", index / 2, if index.is_multiple_of(2) { "key" } else { "value" })
}

fn input_name(input: Input) -> String {
    match input {
        Input::Ids => "input_ids".into(),
        Input::Mask => "attention_mask".into(),
        Input::Positions => "position_ids".into(),
        Input::FlatPositions => "cache_position".into(),
        Input::Past(index) => format!("past_key_values.{}", cache_name(index)),
    }
}

/// The dimensions of an input: `None` for a symbolic one.
pub(super) fn dimensions(input: &ValueInfoProto) -> Vec<Option<usize>> {
    let shape = tensor_type(input).and_then(|tensor| tensor.shape.as_ref());
    let number = |value: &Option<Value>| match value {
        Some(Value::DimValue(number)) => usize::try_from(*number).ok(),
        _ => None,
    };
    shape.map(|shape| shape.dim.iter().map(|dim| number(&dim.value)).collect()).unwrap_or_default()
}

/// The number of heads and their size, from the input's own shape, else from `given`.
fn heads(path: &Path, input: &ValueInfoProto, given: Option<CacheShape>) -> Result<(usize, usize)> {
    let found = dimensions(input);
    let heads = found.get(1).copied().flatten().or(given.map(|shape| shape.kv_heads));
    let size = found.get(3).copied().flatten().or(given.map(|shape| shape.head_dim));
    match (heads, size) {
        (Some(heads), Some(size)) if found.len() == 4 && heads > 0 && size > 0 => Ok((heads, size)),
        _ => Err(Error::value(
            path,
            format!("input {}", input.name),
            "[1, heads, past, head size] with heads and head size as numbers",
            format!("{found:?}"),
        )),
    }
}

/// Refuses a cache input that differs from the first one or from the directory's metadata.
fn check_heads(path: &Path, input: &ValueInfoProto, given: CacheShape, own: CacheShape) -> Result<()> {
    let (heads, size) = heads(path, input, Some(own))?;
    if (heads, size) == (given.kv_heads, given.head_dim) {
        return Ok(());
    }
    let expected = format!("{} heads of {}", given.kv_heads, given.head_dim);
    Err(Error::value(path, format!("input {}", input.name), expected, format!("{heads} heads of {size}")))
}

fn check_layers(path: &Path, layers: usize, given: Option<CacheShape>) -> Result<()> {
    match given {
        Some(given) if given.layers != layers => {
            Err(Error::value(path, "past_key_values", format!("{} layers", given.layers), layers))
        }
        _ => Ok(()),
    }
}

fn used_outputs(path: &Path, graph: &GraphProto, layers: usize) -> Result<(Vec<String>, Vec<usize>)> {
    let place = |name: &str| graph.output.iter().position(|output| output.name == name);
    let mut names = vec!["logits".to_string()];
    names.extend((0..2 * layers).map(|index| format!("present.{}", cache_name(index))));
    let mut indices = Vec::with_capacity(names.len() + 1);
    for name in &names {
        let missing = || Error::value(path, format!("output {name}"), "a tensor", "nothing");
        indices.push(place(name).ok_or_else(missing)?);
    }
    if let Some(index) = place("attention") {
        names.push("attention".into());
        indices.push(index);
    }
    Ok((names, indices))
}
