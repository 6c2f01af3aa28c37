//! A writer of ONNX graphs whose tensors lie in a file beside the graph. It knows no architecture.
//!
//! Each node has one output, whose name is the node's. The graph is encoded by the messages that the reader uses, so no
//! second definition of the format is built.

use prost::Message;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};

/// The version of ONNX's own operators.
const OPSET: i64 = 17;
/// The domain of the operators on 4-bit weights, and its version.
const CONTRIB: (&str, i64) = ("com.microsoft", 1);
/// The version of the file's form that goes with [`OPSET`].
const IR_VERSION: i64 = 8;
/// ONNX's number for data in a file beside the graph.
const EXTERNAL: i32 = 1;
/// ONNX's number for an attribute that is an integer.
const ATTRIBUTE_INT: i32 = 2;
/// ONNX's number for an attribute that is a list of integers.
const ATTRIBUTE_INTS: i32 = 7;

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// 32-bit floats.
    Float,
    /// 16-bit floats.
    Half,
    /// Bytes, which may hold two 4-bit numbers each.
    Byte,
    /// 64-bit integers.
    Integer,
}

impl Element {
    /// ONNX's number.
    pub fn number(self) -> i32 {
        match self {
            Self::Float => 1,
            Self::Half => 10,
            Self::Byte => 2,
            Self::Integer => 7,
        }
    }
}

/// A dimension of an input or output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dim {
    /// A size.
    Size(usize),
    /// A name for a size that differs from run to run.
    Symbol(&'static str),
}

/// A place in the file beside the graph, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The first byte.
    pub offset: u64,
    /// The number of bytes.
    pub length: u64,
}

/// A value of a node's attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// An integer.
    Int(i64),
    /// Integers.
    Ints(Vec<i64>),
}

/// A graph that grows node by node.
#[derive(Clone, Debug)]
pub struct GraphWriter {
    location: String,
    graph: GraphProto,
}

impl GraphWriter {
    /// An empty graph with this name, whose large tensors lie in the file `location` beside it.
    pub fn new(name: &str, location: &str) -> Self {
        Self { location: location.into(), graph: GraphProto { name: name.into(), ..Default::default() } }
    }

    /// Adds an input.
    pub fn input(&mut self, name: &str, element: Element, dims: &[Dim]) {
        self.graph.input.push(value(name, element, dims));
    }

    /// Adds an output, which a node or tensor of this name gives.
    pub fn output(&mut self, name: &str, element: Element, dims: &[Dim]) {
        self.graph.output.push(value(name, element, dims));
    }

    /// Adds a node with the output `name`, which is returned.
    pub fn node(
        &mut self,
        op: &str,
        inputs: &[&str],
        name: &str,
        attributes: &[(&str, Attribute)],
    ) -> String {
        self.push(op, "", inputs, name, attributes)
    }

    /// Adds a node of an operator on 4-bit weights with the output `name`, which is returned.
    pub fn contrib_node(
        &mut self,
        op: &str,
        inputs: &[&str],
        name: &str,
        attributes: &[(&str, Attribute)],
    ) -> String {
        self.push(op, CONTRIB.0, inputs, name, attributes)
    }

    /// Adds floats that lie in the graph itself, once for each name.
    pub fn floats(&mut self, name: &str, dims: &[usize], numbers: &[f32]) -> String {
        let bytes = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.tensor(name, Element::Float, dims, |tensor| tensor.raw_data = bytes)
    }

    /// Adds integers that lie in the graph itself, once for each name.
    pub fn integers(&mut self, name: &str, dims: &[usize], numbers: &[i64]) -> String {
        let bytes = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.tensor(name, Element::Integer, dims, |tensor| tensor.raw_data = bytes)
    }

    /// Adds a tensor that lies in the file beside the graph. Two tensors may lie at one place.
    pub fn stored(&mut self, name: &str, element: Element, dims: &[usize], place: Place) -> String {
        let Place { offset, length } = place;
        let entries = [
            ("location", self.location.clone()),
            ("offset", offset.to_string()),
            ("length", length.to_string()),
        ];
        self.tensor(name, element, dims, |tensor| {
            tensor.data_location = Some(EXTERNAL);
            let entry = |(key, value): (&str, String)| StringStringEntryProto { key: key.into(), value };
            tensor.external_data = entries.into_iter().map(entry).collect();
        })
    }

    /// The bytes of the ONNX file.
    pub fn encode(self) -> Vec<u8> {
        let opset = |domain: &str, version| OperatorSetIdProto { domain: domain.into(), version };
        let model = ModelProto {
            ir_version: IR_VERSION,
            opset_import: vec![opset("", OPSET), opset(CONTRIB.0, CONTRIB.1)],
            producer_name: "dunlin".into(),
            graph: Some(self.graph),
            ..Default::default()
        };
        model.encode_to_vec()
    }

    fn push(
        &mut self,
        op: &str,
        domain: &str,
        inputs: &[&str],
        name: &str,
        attributes: &[(&str, Attribute)],
    ) -> String {
        debug_assert!(self.graph.node.iter().all(|node| node.name != name), "{name} is there twice");
        let attribute = |(name, value): &(&str, Attribute)| {
            let named = AttributeProto { name: (*name).into(), ..Default::default() };
            match value {
                Attribute::Int(i) => AttributeProto { i: *i, r#type: ATTRIBUTE_INT, ..named },
                Attribute::Ints(ints) => {
                    AttributeProto { ints: ints.clone(), r#type: ATTRIBUTE_INTS, ..named }
                }
            }
        };
        self.graph.node.push(NodeProto {
            op_type: op.into(),
            domain: domain.into(),
            name: name.into(),
            input: inputs.iter().map(|input| (*input).into()).collect(),
            output: vec![name.into()],
            attribute: attributes.iter().map(attribute).collect(),
            ..Default::default()
        });
        name.into()
    }

    fn tensor(
        &mut self,
        name: &str,
        element: Element,
        dims: &[usize],
        fill: impl FnOnce(&mut TensorProto),
    ) -> String {
        if self.graph.initializer.iter().all(|tensor| tensor.name != name) {
            let mut tensor = TensorProto {
                name: name.into(),
                data_type: element.number(),
                dims: dims.iter().map(|dim| *dim as i64).collect(),
                ..Default::default()
            };
            fill(&mut tensor);
            self.graph.initializer.push(tensor);
        }
        name.into()
    }
}

fn value(name: &str, element: Element, dims: &[Dim]) -> ValueInfoProto {
    let dim = |dim: &Dim| Dimension {
        value: Some(match dim {
            Dim::Size(size) => dimension::Value::DimValue(*size as i64),
            Dim::Symbol(symbol) => dimension::Value::DimParam((*symbol).into()),
        }),
        ..Default::default()
    };
    let shape = TensorShapeProto { dim: dims.iter().map(dim).collect() };
    let tensor = type_proto::Tensor { elem_type: element.number(), shape: Some(shape) };
    let r#type = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() };
    ValueInfoProto { name: name.into(), r#type: Some(r#type), ..Default::default() }
}
