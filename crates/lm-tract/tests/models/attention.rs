//! `GroupQueryAttention` and `RotaryEmbedding`: forms of them on the demo drafter's weights, whose logits stay the demo
//! drafter's, and a small decoder's logits against onnxruntime's.

use crate::files::fixture;
use crate::onnx::{FLOAT, FLOAT16, encode, node, tensor};
use crate::variants::{
    cast, cast_input, demo_graph, difference, float, integers, is_equal, load_variant, rename, sort_nodes,
};
use dunlin_lm::{Draft, ModelDir};
use dunlin_lm_tract::Drafter;
use prost::Message;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::fs;
use std::path::Path;
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto};

const LAYERS: usize = 4;
const HEADS: usize = 6;
const SIZE: usize = 32;
const POSITIONS: usize = 1024;
const BOUND: f32 = 1e-4;
/// Of logits between -25 and 25 with 16-bit queries, keys and values in every layer.
const HALF_BOUND: f32 = 0.05;

fn integer(name: &str, number: i64) -> AttributeProto {
    AttributeProto { name: name.into(), i: number, r#type: 2, ..AttributeProto::default() }
}

/// The cosines and sines of the demo drafter's rotation, as weights.
fn add_angles(graph: &mut GraphProto) {
    let frequency = graph.initializer.iter().find(|tensor| tensor.name == "rope_frequency").unwrap();
    let frequency =
        frequency.raw_data.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
    let frequency: Vec<f32> = frequency.collect();
    let angles: Vec<f32> =
        (0..POSITIONS).flat_map(|place| frequency.iter().map(move |one| place as f32 * one)).collect();
    for (name, part) in [("cos", f32::cos as fn(f32) -> f32), ("sin", f32::sin)] {
        let bytes = angles.iter().flat_map(|angle| part(*angle).to_le_bytes()).collect();
        graph.initializer.push(tensor(name, FLOAT, &[POSITIONS, SIZE / 2], bytes));
    }
}

/// A layer's query, key and value become one GroupQueryAttention with these inputs and attributes.
fn attention(layer: usize, rows: [&str; 3], attributes: &[(&str, i64)]) -> NodeProto {
    let [query, key, value] = rows.map(|name| match name {
        "" => String::new(),
        name => format!("layers.{layer}.{name}"),
    });
    let past = ["key", "value"].map(|part| format!("past_key_values.{layer}.{part}"));
    let present = ["key", "value"].map(|part| format!("present.{layer}.{part}"));
    let inputs =
        [&query, &key, &value, &past[0], &past[1], "seqlens", "total", "cos", "sin"].map(str::to_string);
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    let outputs = [format!("layers.{layer}.mixed_flat"), present[0].clone(), present[1].clone()];
    let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
    let mut made = node("GroupQueryAttention", &inputs, &outputs, &[("num_heads", HEADS as i64)]);
    made.attribute.extend(attributes.iter().map(|(name, number)| integer(name, *number)));
    made
}

/// The demo drafter with the attention of each layer made by `make`, without the outputs that this leaves unknown.
fn with_attention(make: impl Fn(&mut GraphProto, usize) -> NodeProto) -> GraphProto {
    let mut graph = demo_graph();
    add_angles(&mut graph);
    graph.output.retain(|output| output.name != "attention");
    for layer in 0..LAYERS {
        let made = make(&mut graph, layer);
        graph.node.retain(|node| !node.output.iter().any(|output| made.output.contains(output)));
        graph.node.push(made);
    }
    graph.initializer.extend([integers("axis_1", &[1]), integers("place_1", &[1])]);
    graph.node.extend([
        node("ReduceSum", &["attention_mask", "axis_1"], &["sum"], &[("keepdims", 0)]),
        node("Sub", &["sum", "place_1"], &["last"], &[]),
        cast("last", "seqlens", 6),
        node("Shape", &["attention_mask"], &["mask_shape"], &[]),
        node("Gather", &["mask_shape", "place_1"], &["total_64"], &[]),
        cast("total_64", "total", 6),
    ]);
    graph.input.retain(|input| input.name != "position_ids");
    sort_nodes(&mut graph);
    graph
}

const PLAIN: [(&str, i64); 2] = [("kv_num_heads", HEADS as i64), ("do_rotary", 1)];

#[test]
fn attention_is_one_operator() {
    is_equal("plain", with_attention(|_, layer| attention(layer, ["q", "k", "v"], &PLAIN)), BOUND);
}

#[test]
fn query_key_and_value_may_be_packed() {
    let packed = with_attention(|graph, layer| {
        let parts = ["q", "k", "v"].map(|part| format!("layers.{layer}.{part}"));
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        graph.node.push(node("Concat", &parts, &[&format!("layers.{layer}.qkv")], &[("axis", 2)]));
        attention(layer, ["qkv", "", ""], &PLAIN)
    });
    is_equal("packed", packed, BOUND);
}

/// Takes channels of a layer's part, by index.
fn gather(graph: &mut GraphProto, layer: usize, part: &str, to: &str, channels: &[i64]) {
    let [from, to] = [part, to].map(|part| format!("layers.{layer}.{part}"));
    graph.initializer.push(integers(&format!("{to}.channels"), channels));
    graph.node.push(node("Gather", &[&from, &format!("{to}.channels")], &[&to], &[("axis", 2)]));
}

#[test]
fn neighbours_may_be_rotated() {
    let half = SIZE / 2;
    let channel = |index: usize| {
        let (head, place) = (index / SIZE, index % SIZE);
        (head * SIZE + place / 2 + if place.is_multiple_of(2) { 0 } else { half }) as i64
    };
    let channels: Vec<i64> = (0..HEADS * SIZE).map(channel).collect();
    let neighbours = with_attention(|graph, layer| {
        gather(graph, layer, "q", "q2", &channels);
        gather(graph, layer, "k", "k2", &channels);
        attention(layer, ["q2", "k2", "v"], &[PLAIN[0], PLAIN[1], ("rotary_interleaved", 1)])
    });
    is_equal("interleaved", neighbours, BOUND);
}

/// Half the heads of keys and values, against a plain attention in which each stands twice.
#[test]
fn heads_share_keys_and_values() {
    let head = |head: usize| (head * SIZE..(head + 1) * SIZE).map(|channel| channel as i64);
    let first: Vec<i64> = [0, 2, 4].into_iter().flat_map(head).collect();
    let twice: Vec<i64> = [0, 0, 2, 2, 4, 4].into_iter().flat_map(head).collect();
    let mut grouped = with_attention(|graph, layer| {
        gather(graph, layer, "k", "k2", &first);
        gather(graph, layer, "v", "v2", &first);
        attention(layer, ["q", "k2", "v2"], &[("kv_num_heads", 3), ("do_rotary", 1)])
    });
    for input in grouped.input.iter_mut().filter(|input| input.name.starts_with("past")) {
        *input = crate::onnx::value(&input.name, FLOAT, &["1", "3", "P", "32"]);
    }
    let mut plain = demo_graph();
    for (layer, part) in (0..LAYERS).flat_map(|layer| [(layer, "k"), (layer, "v")]) {
        let name = format!("layers.{layer}.{part}");
        rename(&mut plain, &name, &format!("{name}2"));
        let made = plain.node.iter_mut().find(|node| node.output[0] == format!("{name}2")).unwrap();
        made.output[0] = name;
        gather(&mut plain, layer, part, &format!("{part}2"), &twice);
    }
    sort_nodes(&mut plain);
    let found = difference(&mut load_shared(grouped), &mut load_variant(plain).unwrap());
    assert!(found <= BOUND, "{found}");
}

/// Loads a graph with 3 heads of keys beside 6 of queries.
fn load_shared(graph: GraphProto) -> Drafter {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("model.onnx"), encode(graph)).unwrap();
    fs::copy(crate::files::demo("tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    let config = r#"{"vocab_size": 2048, "num_hidden_layers": 4, "num_attention_heads": 6, "hidden_size": 192,
                     "num_key_value_heads": 3, "max_position_embeddings": 1024}"#;
    fs::write(folder.path().join("config.json"), config).unwrap();
    Drafter::load(&ModelDir::open(folder.path()).unwrap()).unwrap().0
}

#[test]
fn attention_of_16_bits_runs_as_floats() {
    let half = i64::from(FLOAT16);
    let mut graph = with_attention(|graph, layer| {
        for part in ["q", "k", "v"] {
            let name = format!("layers.{layer}.{part}");
            graph.node.push(cast(&name, &format!("{name}16"), half));
        }
        let mut made = attention(layer, ["q16", "k16", "v16"], &PLAIN);
        made.input[7] = "cos16".into();
        made.input[8] = "sin16".into();
        let output = std::mem::replace(&mut made.output[0], format!("layers.{layer}.mixed16"));
        graph.node.retain(|node| node.output[0] != output);
        graph.node.push(cast(&made.output[0], &output, i64::from(FLOAT)));
        if layer == 0 {
            graph.node.extend([cast("cos", "cos16", half), cast("sin", "sin16", half)]);
        }
        made
    });
    for input in graph.input.iter_mut().filter(|input| input.name.starts_with("past")) {
        *input = crate::onnx::value(&input.name, FLOAT16, &["1", "6", "P", "32"]);
    }
    is_equal("all of 16 bits", graph, HALF_BOUND);
}

#[test]
fn a_rotation_may_be_one_operator() {
    let mut graph = demo_graph();
    add_angles(&mut graph);
    for (layer, part) in (0..LAYERS).flat_map(|layer| [(layer, "q"), (layer, "k")]) {
        let name = format!("layers.{layer}.{part}.heads_t");
        let rotated = format!("{name}.rotated");
        graph.node.retain(|node| node.output[0] != rotated);
        let inputs = [&name, "position_ids", "cos", "sin"];
        graph.node.push(node("RotaryEmbedding", &inputs, &[&rotated], &[("interleaved", 0)]));
        graph.node.last_mut().unwrap().domain = "com.microsoft".into();
    }
    sort_nodes(&mut graph);
    is_equal("RotaryEmbedding", graph.clone(), BOUND);
    cast_input(&mut graph, "position_ids", 6, 7);
    is_equal("RotaryEmbedding and 32-bit positions", graph, BOUND);
}

#[derive(Deserialize)]
struct Expected {
    tokens: Vec<u32>,
    forms: Vec<Form>,
}

#[derive(Deserialize)]
struct Form {
    name: String,
    attributes: Map<String, Value>,
    logits: Vec<Vec<f32>>,
}

fn small_graph() -> GraphProto {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/attention/model.onnx");
    ModelProto::decode(&fs::read(file).unwrap()[..]).unwrap().graph.unwrap()
}

fn attention_of(graph: &mut GraphProto) -> &mut NodeProto {
    graph.node.iter_mut().find(|node| node.name == "attention").unwrap()
}

fn load_small(graph: GraphProto) -> Result<Drafter, String> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("model.onnx"), encode(graph)).unwrap();
    fs::copy(fixture("hf-llama/tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    let config = r#"{"vocab_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "hidden_size": 128,
                     "num_key_value_heads": 2, "max_position_embeddings": 64}"#;
    fs::write(folder.path().join("config.json"), config).unwrap();
    Drafter::load(&ModelDir::open(folder.path()).unwrap())
        .map(|(drafter, _)| drafter)
        .map_err(|e| e.to_string())
}

/// `expected.json` is onnxruntime's, by `make_attention.py`.
#[test]
fn logits_are_those_of_onnxruntime() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/attention/expected.json");
    let expected: Expected = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    for form in expected.forms {
        let mut graph = small_graph();
        let attributes = form.attributes.iter().map(|(name, value)| match value.as_i64() {
            Some(number) => integer(name, number),
            None => float(name, value.as_f64().unwrap() as f32),
        });
        attention_of(&mut graph).attribute.extend(attributes);
        let mut drafter = load_small(graph).unwrap();
        for chunks in [vec![4, 1, 3, 2], vec![10], vec![1; 10]] {
            drafter.truncate(0);
            let mut rows = form.logits.iter();
            for chunk in chunks {
                let begin = drafter.len();
                let found = drafter.extend(&expected.tokens[begin..begin + chunk]).unwrap();
                for (row, expected) in (0..chunk).zip(&mut rows) {
                    let pairs = found.logits(row).iter().zip(expected);
                    let largest = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    assert!(largest < 1e-3, "{}, token {}: {largest}", form.name, begin + row);
                }
            }
        }
    }
}

#[test]
fn unimplemented_forms_are_named() {
    let refused = |change: &dyn Fn(&mut NodeProto), part: &str| {
        let mut graph = small_graph();
        change(attention_of(&mut graph));
        let message = load_small(graph).err().unwrap_or_else(|| panic!("{part} loaded"));
        assert!(message.contains(&format!("GroupQueryAttention with {part}")), "{message}");
        assert!(message.contains("(node attention)"), "{message}");
    };
    let with = |name: &'static str, number: i64| {
        move |node: &mut NodeProto| {
            node.attribute.retain(|attribute| attribute.name != name);
            node.attribute.push(integer(name, number));
        }
    };
    refused(&with("smooth_softmax", 1), "attribute smooth_softmax");
    refused(&with("qk_output", 1), "attribute qk_output");
    refused(&with("causal", 0), "attribute causal");
    refused(&with("local_window_size", 0), "local_window_size of 0");
    refused(&with("kv_num_heads", 0), "kv_num_heads of 0");
    refused(&with("kv_num_heads", 3), "4 heads for 3 of keys");
    let bias = |node: &mut NodeProto| node.input.extend(["".into(), "bias".into()]);
    refused(&bias, "input attention_bias");
    refused(&|node: &mut NodeProto| node.input[3].clear(), "no input past_key");
    refused(&|node: &mut NodeProto| node.input[1].clear(), "only one of key and value");
    let quantized = |node: &mut NodeProto| {
        node.attribute.push(AttributeProto { s: b"PER_TENSOR".into(), ..integer("k_quant_type", 0) });
    };
    refused(&quantized, "attribute k_quant_type");
    let turned = |node: &mut NodeProto| {
        node.attribute.push(integer("do_rotary", 1));
        node.input.truncate(7);
    };
    refused(&turned, "do_rotary, but no cos_cache and sin_cache");
    let mut harmless = small_graph();
    for name in ["smooth_softmax", "qk_output"] {
        attention_of(&mut harmless).attribute.push(integer(name, 0));
    }
    attention_of(&mut harmless).attribute.push(integer("local_window_size", -1));
    assert!(load_small(harmless).is_ok());
}

#[test]
fn a_text_longer_than_the_cosines_is_an_error() {
    let mut graph = small_graph();
    attention_of(&mut graph).attribute.push(integer("do_rotary", 1));
    let mut drafter = load_small(graph).unwrap();
    drafter.extend(&[1; 32]).unwrap();
    let error = drafter.extend(&[1]).unwrap_err().to_string();
    assert!(error.contains("cosines of 32 positions, and the text 33 tokens"), "{error}");
    assert_eq!(drafter.len(), 32);
}

/// Shapes that contradict the attributes are errors, not panics.
#[test]
fn wrong_shapes_are_errors() {
    for (name, number) in [("num_heads", 8), ("num_heads", 2), ("kv_num_heads", 4), ("kv_num_heads", 1)] {
        let mut graph = small_graph();
        let node = attention_of(&mut graph);
        node.attribute.retain(|attribute| attribute.name != name);
        node.attribute.push(integer(name, number));
        assert!(load_small(graph).is_err(), "{name} {number}");
    }
    let mut wide = small_graph();
    attention_of(&mut wide).attribute.push(integer("do_rotary", 1));
    for table in wide.initializer.iter_mut().filter(|tensor| matches!(tensor.name.as_str(), "cos" | "sin")) {
        table.dims = vec![8, 32];
    }
    assert!(load_small(wide).err().unwrap().contains("cos_cache of 32 numbers for heads of 32"));
}
