//! The demo drafter's graph, changed to look like other people's exports, and what its logits must stay.

use crate::files::demo;
use crate::onnx::{INT64, encode, node, tensor};
use dunlin_lm::{Draft, ModelDir};
use dunlin_lm_tract::Drafter;
use prost::Message;
use std::fs;
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, type_proto};

/// Tokens of the comparison, and the ways to feed them: at once, one by one, and several after others.
const TOKENS: usize = 20;
const CHUNKINGS: [&[usize]; 4] = [&[20], &[1; 20], &[8, 1, 1, 4, 6], &[3, 7, 10]];

/// The demo drafter's graph.
pub(crate) fn demo_graph() -> GraphProto {
    let bytes = fs::read(demo("drafter").join("drafter.onnx")).unwrap();
    ModelProto::decode(&bytes[..]).unwrap().graph.unwrap()
}

/// Loads a graph with the demo pair's tokenizer and a `config.json` without the cache's shape.
pub(crate) fn load_variant(graph: GraphProto) -> Result<Drafter, String> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("model.onnx"), encode(graph)).unwrap();
    fs::copy(demo("tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    let config = r#"{"vocab_size": 2048, "num_hidden_layers": 4, "num_attention_heads": 6, "hidden_size": 192,
                     "max_position_embeddings": 1024}"#;
    fs::write(folder.path().join("config.json"), config).unwrap();
    let dir = ModelDir::open(folder.path()).unwrap();
    Drafter::load(&dir).map(|(drafter, _)| drafter).map_err(|error| error.to_string())
}

/// The largest difference between the logits of two drafters, over all chunkings and after rollbacks.
pub(crate) fn difference(drafter: &mut Drafter, plain: &mut Drafter) -> f32 {
    let tokens: Vec<u32> = [1, 3].into_iter().chain(100..).take(TOKENS).collect();
    plain.truncate(0);
    let expected = plain.extend(&tokens).unwrap();
    let mut largest = 0f32;
    for chunks in CHUNKINGS {
        // Tokens that are rolled back again, up to the last text's middle or wholly.
        drafter.truncate(drafter.len().min(8));
        drafter.extend(&[7, 700, 70]).unwrap();
        drafter.truncate(0);
        let mut row = 0;
        for chunk in chunks {
            drafter.extend(&[5, 6]).unwrap();
            drafter.truncate(row);
            let rows = drafter.extend(&tokens[row..row + chunk]).unwrap();
            for new in 0..*chunk {
                let pairs = rows.logits(new).iter().zip(expected.logits(row + new));
                largest = pairs.map(|(a, b)| (a - b).abs()).fold(largest, |a, b| if b > a { b } else { a });
                assert!(rows.logits(new).iter().all(|logit| logit.is_finite()));
            }
            row += chunk;
        }
    }
    largest
}

/// Loads a variant and compares it with the demo drafter.
pub(crate) fn is_equal(name: &str, graph: GraphProto, bound: f32) {
    let mut drafter = load_variant(graph).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut plain = load_variant(demo_graph()).unwrap();
    let found = difference(&mut drafter, &mut plain);
    assert!(found <= bound, "{name}: {found}");
}

/// Renames a tensor wherever nodes use it.
pub(crate) fn rename(graph: &mut GraphProto, from: &str, to: &str) {
    for node in &mut graph.node {
        for name in node.input.iter_mut().chain(&mut node.output).filter(|name| *name == from) {
            *name = to.into();
        }
    }
}

/// Puts nodes before all others.
pub(crate) fn prepend(graph: &mut GraphProto, nodes: Vec<NodeProto>) {
    graph.node.splice(0..0, nodes);
}

/// Gives an input another element type; a node casts it to the type that the others expect.
pub(crate) fn cast_input(graph: &mut GraphProto, name: &str, kind: i64, inside: i64) {
    let input = graph.input.iter_mut().find(|input| input.name == name).unwrap();
    set_kind(input.r#type.as_mut().unwrap(), kind);
    rename(graph, name, &format!("{name}.inside"));
    prepend(graph, vec![cast(name, &format!("{name}.inside"), inside)]);
}

/// Gives an output another element type.
pub(crate) fn cast_output(graph: &mut GraphProto, name: &str, kind: i64) {
    rename(graph, name, &format!("{name}.inside"));
    graph.node.push(cast(&format!("{name}.inside"), name, kind));
}

pub(crate) fn cast(from: &str, to: &str, kind: i64) -> NodeProto {
    node("Cast", &[from], &[to], &[("to", kind)])
}

fn set_kind(of: &mut tract_onnx::pb::TypeProto, kind: i64) {
    let type_proto::Value::TensorType(tensor) = of.value.as_mut().unwrap();
    tensor.elem_type = kind as i32;
}

/// A list of integers as a weight.
pub(crate) fn integers(name: &str, numbers: &[i64]) -> TensorProto {
    let bytes = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    tensor(name, INT64, &[numbers.len()], bytes)
}

pub(crate) fn float(name: &str, number: f32) -> AttributeProto {
    AttributeProto { name: name.into(), f: number, r#type: 1, ..AttributeProto::default() }
}

/// Keeps the nodes that the outputs need, in an order in which each follows what it reads.
pub(crate) fn sort_nodes(graph: &mut GraphProto) {
    let nodes = std::mem::take(&mut graph.node);
    let mut state = vec![false; nodes.len()];
    let mut order = Vec::new();
    for output in &graph.output {
        visit(&nodes, &output.name, &mut state, &mut order);
    }
    graph.node = order.into_iter().map(|index: usize| nodes[index].clone()).collect();
}

fn visit(nodes: &[NodeProto], name: &str, state: &mut [bool], order: &mut Vec<usize>) {
    let Some(index) = nodes.iter().position(|node| node.output.iter().any(|output| output == name)) else {
        return;
    };
    if !std::mem::replace(&mut state[index], true) {
        for input in nodes[index].input.iter().filter(|input| !input.is_empty()) {
            visit(nodes, input, state, order);
        }
        order.push(index);
    }
}
