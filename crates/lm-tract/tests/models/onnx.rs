//! The drafter's errors and warnings for unsuitable ONNX files; each is built here with one mistake.

use crate::files::{Random, fixture};
use dunlin_lm::{Draft, ModelDir};
use dunlin_lm_tract::{Drafter, Warning};
use prost::Message;
use std::fs;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto, type_proto,
};

pub(crate) const FLOAT: i32 = 1;
const UINT8: i32 = 2;
const INT8: i32 = 3;
pub(crate) const INT64: i32 = 7;
pub(crate) const FLOAT16: i32 = 10;
const BFLOAT16: i32 = 16;
const INT4: i32 = 22;

const VOCABULARY: usize = 64;

pub(crate) fn value(name: &str, kind: i32, dims: &[&str]) -> ValueInfoProto {
    let dim = dims
        .iter()
        .map(|dim| Dimension {
            value: Some(match dim.parse() {
                Ok(number) => dimension::Value::DimValue(number),
                Err(_) => dimension::Value::DimParam(dim.to_string()),
            }),
            ..Default::default()
        })
        .collect();
    let tensor = type_proto::Tensor { elem_type: kind, shape: Some(TensorShapeProto { dim }) };
    let r#type = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() };
    ValueInfoProto { name: name.into(), r#type: Some(r#type), ..Default::default() }
}

pub(crate) fn tensor(name: &str, kind: i32, dims: &[usize], bytes: Vec<u8>) -> TensorProto {
    TensorProto {
        name: name.into(),
        data_type: kind,
        dims: dims.iter().map(|dim| *dim as i64).collect(),
        raw_data: bytes,
        ..Default::default()
    }
}

pub(crate) fn floats(name: &str, dims: &[usize]) -> TensorProto {
    let mut random = Random(1);
    let bytes = (0..dims.iter().product()).flat_map(|_| random.number().to_le_bytes()).collect();
    tensor(name, FLOAT, dims, bytes)
}

pub(crate) fn node(op: &str, inputs: &[&str], outputs: &[&str], attributes: &[(&str, i64)]) -> NodeProto {
    NodeProto {
        op_type: op.into(),
        name: format!("the_{}", outputs[0]),
        input: inputs.iter().map(ToString::to_string).collect(),
        output: outputs.iter().map(ToString::to_string).collect(),
        attribute: attributes
            .iter()
            .map(|(name, i)| AttributeProto {
                name: name.to_string(),
                i: *i,
                r#type: 2,
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    }
}

/// A decoder without its head: an embedding of 128, one layer of cache with one head of 4.
fn body() -> GraphProto {
    let cache = ["1", "1", "P", "4"];
    GraphProto {
        name: "tiny".into(),
        input: vec![
            value("input_ids", INT64, &["1", "S"]),
            value("past_key_values.0.key", FLOAT, &cache),
            value("past_key_values.0.value", FLOAT, &cache),
        ],
        output: ["logits", "present.0.key", "present.0.value"].map(|name| value(name, FLOAT, &[])).into(),
        initializer: vec![
            floats("embedding", &[VOCABULARY, 128]),
            floats("cached", &[VOCABULARY, 4]),
            tensor("one", INT64, &[1], 1i64.to_le_bytes().into()),
        ],
        node: vec![
            node("Gather", &["embedding", "input_ids"], &["x"], &[]),
            node("Gather", &["cached", "input_ids"], &["c"], &[]),
            node("Unsqueeze", &["c", "one"], &["new"], &[]),
            node("Concat", &["past_key_values.0.key", "new"], &["present.0.key"], &[("axis", 2)]),
            node("Concat", &["past_key_values.0.value", "new"], &["present.0.value"], &[("axis", 2)]),
        ],
        ..Default::default()
    }
}

fn float_head() -> GraphProto {
    let mut graph = body();
    graph.initializer.push(floats("head", &[128, VOCABULARY]));
    graph.node.push(node("MatMul", &["x", "head"], &["logits"], &[]));
    graph
}

fn n_bits(bits: usize, block: usize) -> GraphProto {
    let mut graph = body();
    let blocks = 128 / block;
    let packed = vec![0x7a; VOCABULARY * 128 * bits / 8];
    graph.initializer.push(tensor("head", UINT8, &[VOCABULARY, blocks, block * bits / 8], packed));
    graph.initializer.push(floats("scales", &[VOCABULARY * blocks]));
    let shape = [("K", 128), ("N", VOCABULARY as i64), ("bits", bits as i64), ("block_size", block as i64)];
    graph.node.push(node("MatMulNBits", &["x", "head", "scales"], &["logits"], &shape));
    graph
}

fn int8_head() -> GraphProto {
    let mut graph = body();
    graph.initializer.push(tensor("stored", INT8, &[128, VOCABULARY], vec![3; 128 * VOCABULARY]));
    graph.initializer.push(tensor("scale", FLOAT, &[], 0.1f32.to_le_bytes().into()));
    graph.initializer.push(tensor("zero", INT8, &[], vec![0]));
    graph.node.push(node("DequantizeLinear", &["stored", "scale", "zero"], &["head"], &[]));
    graph.node.push(node("MatMul", &["x", "head"], &["logits"], &[]));
    graph
}

fn half_head() -> GraphProto {
    let mut graph = body();
    graph.initializer.push(tensor("stored", FLOAT16, &[128, VOCABULARY], vec![3; 2 * 128 * VOCABULARY]));
    graph.node.push(node("Cast", &["stored"], &["head"], &[("to", 1)]));
    graph.node.push(node("MatMul", &["x", "head"], &["logits"], &[]));
    graph
}

/// A head as onnxruntime's `quantize_dynamic` writes it.
fn dynamic_head() -> GraphProto {
    let mut graph = body();
    graph.initializer.push(tensor("stored", INT8, &[128, VOCABULARY], vec![3; 128 * VOCABULARY]));
    graph.initializer.push(tensor("scale", FLOAT, &[], 0.1f32.to_le_bytes().into()));
    graph.initializer.push(tensor("zero", INT8, &[], vec![0]));
    graph.node.extend([
        node("DynamicQuantizeLinear", &["x"], &["xq", "xs", "xz"], &[]),
        node("MatMulInteger", &["xq", "stored", "xz", "zero"], &["product"], &[]),
        node("Cast", &["product"], &["wide"], &[("to", 1)]),
        node("Mul", &["xs", "scale"], &["both"], &[]),
        node("Mul", &["wide", "both"], &["logits"], &[]),
    ]);
    graph
}

pub(crate) fn encode(graph: GraphProto) -> Vec<u8> {
    let opset = |domain: &str, version| OperatorSetIdProto { domain: domain.into(), version };
    let opset_import = vec![opset("", 17), opset("com.microsoft", 1)];
    ModelProto { ir_version: 8, opset_import, graph: Some(graph), ..Default::default() }.encode_to_vec()
}

fn load_bytes(bytes: &[u8]) -> Result<(Drafter, Vec<Warning>), String> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("model.onnx"), bytes).unwrap();
    fs::copy(fixture("hf-llama/tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    let config = r#"{"vocab_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "hidden_size": 4,
                     "max_position_embeddings": 32}"#;
    fs::write(folder.path().join("config.json"), config).unwrap();
    Drafter::load(&ModelDir::open(folder.path()).unwrap()).map_err(|error| error.to_string())
}

fn load(graph: GraphProto) -> Result<(Drafter, Vec<Warning>), String> {
    load_bytes(&encode(graph))
}

fn refused(graph: GraphProto, parts: &[&str]) {
    let message = load(graph).map(|_| "loaded").expect_err("a refusal");
    assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    assert!(message.contains("model.onnx"), "{message}");
}

#[test]
fn good_weights_load_without_a_word() {
    let mut half_scales = n_bits(4, 32);
    for scales in half_scales.initializer.iter_mut().filter(|tensor| tensor.name == "scales") {
        *scales = tensor("scales", FLOAT16, &[VOCABULARY, 4], vec![3; VOCABULARY * 8]);
    }
    assert_eq!(load(half_scales).unwrap().1, []);
    for graph in [float_head(), n_bits(4, 32)] {
        let (mut drafter, warnings) = load(graph).unwrap();
        assert_eq!(warnings, []);
        assert_eq!(drafter.extend(&[1, 2, 3]).unwrap().logits(2).len(), 53);
    }
}

#[test]
fn slow_weights_are_warned_about() {
    let warned = |graph: GraphProto, part: &str| {
        let (_, warnings) = load(graph).unwrap();
        let text: Vec<String> = warnings.iter().map(Warning::to_string).collect();
        assert!(text.len() == 1 && text[0].contains(part) && text[0].contains("4 bits"), "{text:?}");
    };
    warned(int8_head(), "DequantizeLinear of 8-bit weights (1 places)");
    warned(half_head(), "weights of 16-bit floats (1 places)");
    warned(dynamic_head(), "DynamicQuantizeLinear (1 places)");
    let (_, warnings) = load(n_bits(4, 128)).unwrap();
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0].to_string().contains("blocks of 128 (1 places): these weights are expanded to floats")
    );
}

#[test]
fn weights_that_cannot_run_are_refused() {
    refused(n_bits(8, 32), &["MatMulNBits with 8 bits (node the_logits) is not supported", "4 bits"]);
    let mut reordered = n_bits(4, 32);
    reordered.initializer.push(tensor("order", INT64, &[128], vec![0; 1024]));
    reordered.node.last_mut().unwrap().input.extend(["".into(), "order".into()]);
    refused(reordered, &["g_idx"]);
    let mut narrow = float_head();
    narrow.initializer.push(tensor("narrow", INT4, &[4], vec![0; 2]));
    refused(narrow, &["tensor narrow of a 4-bit element type", "GatherBlockQuantized packed in uint8"]);
    let mut gathered = float_head();
    gathered.node.push(node("GatherBlockQuantized", &["a", "b", "c"], &["y"], &[("bits", 8)]));
    refused(gathered, &["GatherBlockQuantized with 8 bits"]);
}

#[test]
fn inputs_and_outputs_are_checked() {
    let changed = |change: &dyn Fn(&mut GraphProto)| {
        let mut graph = float_head();
        change(&mut graph);
        graph
    };
    let without = |name: &'static str| {
        changed(&move |graph| {
            graph.input.retain(|input| input.name != name);
            graph.output.retain(|output| output.name != name);
        })
    };
    refused(without("input_ids"), &["input input_ids: expected a tensor, found nothing"]);
    refused(without("past_key_values.0.value"), &["input past_key_values.0.value", "found nothing"]);
    refused(without("logits"), &["output logits: expected a tensor, found nothing"]);
    refused(without("present.0.value"), &["output present.0.value", "found nothing"]);
    refused(
        changed(&|graph| graph.input.push(value("encoder_hidden_states", FLOAT, &["1", "S", "4"]))),
        &["input encoder_hidden_states is not supported", "without control flow"],
    );
    refused(
        changed(&|graph| graph.input[1] = value("past_key_values.0.key", BFLOAT16, &["1", "1", "P", "4"])),
        &["input past_key_values.0.key of ONNX element type BFLOAT16 is not supported", "16- or 32-bit"],
    );
    refused(
        changed(&|graph| graph.input.push(value("position_ids", INT64, &["3", "1", "S"]))),
        &["input position_ids of 3 dimensions instead of 2 is not supported"],
    );
    refused(
        changed(&|graph| graph.input.push(value("logits_to_keep", INT64, &["rows"]))),
        &["input logits_to_keep of shape [None] instead of one number is not supported"],
    );
    refused(
        changed(&|graph| graph.input.push(value("use_cache_branch", FLOAT, &["1"]))),
        &["input use_cache_branch of ONNX element type FLOAT is not supported"],
    );
    refused(
        changed(&|graph| graph.input[2] = value("past_key_values.0.value", FLOAT, &["1", "2", "P", "4"])),
        &["input past_key_values.0.value: expected 1 heads of 4, found 2 heads of 4"],
    );
    refused(
        changed(&|graph| graph.input[1] = value("past_key_values.0.key", FLOAT, &["1", "P", "4"])),
        &["input past_key_values.0.key: expected [1, heads, past, head size]"],
    );
    refused(
        changed(&|graph| {
            graph.input.push(value("past_key_values.1.key", FLOAT, &["1", "1", "P", "4"]));
            graph.input.push(value("past_key_values.1.value", FLOAT, &["1", "1", "P", "4"]));
        }),
        &["past_key_values: expected 1 layers, found 2"],
    );
    // The number of heads is symbolic here, so config.json gives it.
    load(changed(&|graph| graph.input[1] = value("past_key_values.0.key", FLOAT, &["1", "H", "P", "D"])))
        .unwrap();
}

#[test]
fn shapes_are_checked_when_it_runs() {
    let mut narrow = float_head();
    narrow.initializer.retain(|tensor| tensor.name != "head");
    narrow.initializer.push(floats("head", &[128, 60]));
    refused(
        narrow,
        &["output logits: expected rows of 64 numbers", "found 60; the vocab_size of config.json"],
    );
    let mut forgets = float_head();
    forgets.node.retain(|node| node.output != ["present.0.key"]);
    forgets.node.push(node("Identity", &["new"], &["present.0.key"], &[]));
    refused(forgets, &["output present.0.key: expected F32 of [1, 1, 3, 4], found F32 of [1, 1, 2, 4]"]);
    let mut last_row = float_head();
    last_row.node.last_mut().unwrap().output = vec!["all".into()];
    last_row.initializer.push(tensor("minus_one", INT64, &[1], (-1i64).to_le_bytes().into()));
    last_row.initializer.push(tensor("end", INT64, &[1], i64::MAX.to_le_bytes().into()));
    last_row.node.push(node("Slice", &["all", "minus_one", "end", "one"], &["logits"], &[]));
    refused(last_row, &["output logits: expected F32 of [1, 2, 64], found F32 of [1, 1, 64]"]);
    let mut undefined = float_head();
    let head = undefined.initializer.iter_mut().find(|tensor| tensor.name == "head").unwrap();
    head.raw_data[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    refused(undefined, &["output logits: expected numbers, found NaN"]);
}

#[test]
fn a_graph_that_fails_when_it_runs_is_named() {
    let mut far = float_head();
    far.node.last_mut().unwrap().output = vec!["all".into()];
    far.initializer.push(tensor("place", INT64, &[1], 100i64.to_le_bytes().into()));
    far.node.push(node("Gather", &["all", "place"], &["logits"], &[("axis", 1)]));
    refused(far, &["a graph that tract builds and can't run", "`dunlin-agent import`"]);
}

#[test]
fn spoilt_files_are_errors() {
    let whole = encode(n_bits(4, 32));
    let refused = load_bytes(b"garbage").err().unwrap();
    assert!(refused.contains("not a usable ONNX file: it is cut off, damaged or of another"), "{refused}");
    assert!(load_bytes(b"").err().unwrap().ends_with("not a usable ONNX file: it is empty"));
    let refused = load_bytes(b"GGUF\x03\0\0\0").err().unwrap();
    assert!(refused.ends_with("make a drafter of it with `dunlin-agent import`"), "{refused}");
    let random = &mut Random(8);
    for _ in 0..40 {
        let cut = random.below(whole.len());
        assert!(load_bytes(&whole[..cut]).is_err(), "cut at {cut}");
    }
    for _ in 0..100 {
        let mut spoilt = whole.clone();
        for _ in 0..6 {
            let place = random.below(spoilt.len());
            spoilt[place] = random.below(256) as u8;
        }
        // The damaged file is either still a model or an error, never a panic.
        let _ = load_bytes(&spoilt);
    }
    let mut unresolved = float_head();
    unresolved.node.remove(0);
    assert!(load(unresolved).err().unwrap().contains("nothing computes"), "x");
    let mut short = n_bits(4, 32);
    short.initializer.iter_mut().find(|tensor| tensor.name == "head").unwrap().raw_data.truncate(100);
    assert!(load(short).is_err());
}
