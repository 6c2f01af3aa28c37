//! The memory of loading a drafter, by its allocations.

use crate::onnx::{FLOAT, FLOAT16, INT64, encode, node, tensor, value};
use allocation_counter::measure;
use dunlin_lm::{Draft, ModelDir};
use dunlin_lm_tract::Drafter;
use std::fs;
use std::path::Path;
use tract_onnx::pb::{GraphProto, StringStringEntryProto, TensorProto};

const UINT8: i32 = 2;
const VOCABULARY: usize = 2048;
const WIDTH: usize = 512;
/// Products one after the other, each with a matrix of its own.
const LAYERS: usize = 40;
/// Bytes of a matrix: 4 bits a number, and a scale of 16 bits for 32.
const MATRIX_BYTES: usize = WIDTH * WIDTH / 2 + WIDTH * WIDTH / 32 * 2;

/// Where the weights lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weights {
    /// In the graph.
    Graph,
    /// In a file beside it.
    Beside,
}

/// Numbers that look random.
fn bytes(seed: usize, count: usize) -> Vec<u8> {
    (0..count).map(|index| ((index + seed * 7919).wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// A decoder of as many products as there are layers, with a table of 4 bits and a head.
fn decoder(weights: Weights, data: &mut Vec<u8>) -> GraphProto {
    let cache = ["1", "1", "P", "4"];
    let mut graph = GraphProto {
        name: "wide".into(),
        input: vec![
            value("input_ids", INT64, &["1", "S"]),
            value("past_key_values.0.key", FLOAT, &cache),
            value("past_key_values.0.value", FLOAT, &cache),
        ],
        output: ["logits", "present.0.key", "present.0.value"].map(|name| value(name, FLOAT, &[])).into(),
        initializer: vec![
            tensor("cached", FLOAT, &[VOCABULARY, 4], vec![0; VOCABULARY * 16]),
            tensor("one", INT64, &[1], 1i64.to_le_bytes().into()),
        ],
        ..Default::default()
    };
    let mut stored = |graph: &mut GraphProto, name: &str, kind: i32, dims: &[usize], bytes: Vec<u8>| {
        graph.initializer.push(match weights {
            Weights::Graph => tensor(name, kind, dims, bytes),
            Weights::Beside => beside(name, kind, dims, &bytes, data),
        });
    };
    let mut matrix = |graph: &mut GraphProto, name: &str, seed: usize, rows: usize| {
        // Scales of about 0.01.
        let scales =
            [0x1f, 0x21].iter().cycle().take(rows * WIDTH / 32).flat_map(|byte| [0, *byte]).collect();
        stored(graph, &format!("{name}.codes"), UINT8, &[rows, WIDTH / 2], bytes(seed, rows * WIDTH / 2));
        stored(graph, &format!("{name}.half"), FLOAT16, &[rows, WIDTH / 32], scales);
        let (half, scales) = (format!("{name}.half"), format!("{name}.scales"));
        graph.node.push(node("Cast", &[&half], &[&scales], &[("to", i64::from(FLOAT))]));
    };
    matrix(&mut graph, "table", 1, VOCABULARY);
    let four_bits = [("bits", 4), ("block_size", 32), ("gather_axis", 0), ("quantize_axis", 1)];
    let inputs = ["table.codes", "input_ids", "table.scales"];
    // tract names a node as these scales are named.
    graph.node.push(node("GatherBlockQuantized", &inputs, &["x"], &four_bits));
    let mut last = "x".to_owned();
    for layer in 0..=LAYERS {
        let (name, rows) =
            if layer < LAYERS { (format!("m{layer}"), WIDTH) } else { ("head".into(), VOCABULARY) };
        matrix(&mut graph, &name, layer + 2, rows);
        let output = if layer < LAYERS { format!("y{layer}") } else { "logits".into() };
        let shape = [("K", WIDTH as i64), ("N", rows as i64), ("bits", 4), ("block_size", 32)];
        let inputs = [last.as_str(), &format!("{name}.codes"), &format!("{name}.scales")].map(str::to_owned);
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        graph.node.push(node("MatMulNBits", &inputs, &[&output], &shape));
        last = output;
    }
    graph.node.extend([
        node("Gather", &["cached", "input_ids"], &["c"], &[]),
        node("Unsqueeze", &["c", "one"], &["new"], &[]),
        node("Concat", &["past_key_values.0.key", "new"], &["present.0.key"], &[("axis", 2)]),
        node("Concat", &["past_key_values.0.value", "new"], &["present.0.value"], &[("axis", 2)]),
    ]);
    graph
}

/// A tensor in the file beside the graph.
fn beside(name: &str, kind: i32, dims: &[usize], bytes: &[u8], data: &mut Vec<u8>) -> TensorProto {
    let entry = |key: &str, value: String| StringStringEntryProto { key: key.into(), value };
    let offset = data.len();
    data.extend_from_slice(bytes);
    TensorProto {
        data_location: Some(1),
        external_data: vec![
            entry("location", "model.onnx_data".into()),
            entry("offset", offset.to_string()),
            entry("length", bytes.len().to_string()),
        ],
        ..tensor(name, kind, dims, vec![])
    }
}

fn folder(at: &Path, graph: GraphProto, data: &[u8]) -> ModelDir {
    fs::write(at.join("model.onnx"), encode(graph)).unwrap();
    fs::write(at.join("model.onnx_data"), data).unwrap();
    let tokenizer = crate::files::demo("tokenizer.json");
    fs::copy(tokenizer, at.join("tokenizer.json")).unwrap();
    let config = format!(
        r#"{{"vocab_size": {VOCABULARY}, "num_hidden_layers": 1, "num_attention_heads": 1, "hidden_size": 4,
             "max_position_embeddings": 1024}}"#
    );
    fs::write(at.join("config.json"), config).unwrap();
    ModelDir::open(at).unwrap()
}

#[test]
fn loading_takes_little_more_than_the_weights() {
    let whole = LAYERS * MATRIX_BYTES + 2 * VOCABULARY / WIDTH * MATRIX_BYTES;
    // What lies in the graph is there from the beginning, so the largest matrix comes on top of it.
    for (weights, most) in [(Weights::Beside, 1.2), (Weights::Graph, 1.4)] {
        let (at, mut data) = (tempfile::tempdir().unwrap(), Vec::new());
        let graph = decoder(weights, &mut data);
        let dir = folder(at.path(), graph, &data);
        let measured = measure(|| drop(Drafter::load(&dir).unwrap()));
        let share = measured.bytes_max as f64 / whole as f64;
        assert!(share < most, "{weights:?}: {share} times the weights");
    }
}

#[test]
fn weights_that_are_read_late_give_the_same_bits() {
    let tokens: Vec<u32> = (0..20).map(|token| token * 97 % 2048).collect();
    let logits = [Weights::Beside, Weights::Graph].map(|weights| {
        let (at, mut data) = (tempfile::tempdir().unwrap(), Vec::new());
        let mut graph = decoder(weights, &mut data);
        if weights == Weights::Graph {
            // A zero point of 8 changes nothing, and tract reads such weights itself.
            for node in graph.node.iter_mut().filter(|node| node.op_type == "MatMulNBits") {
                node.input.push("eights".into());
            }
            graph.initializer.push(tensor(
                "eights",
                UINT8,
                &[VOCABULARY * WIDTH / 64],
                vec![0x88; VOCABULARY * WIDTH / 64],
            ));
        }
        let dir = folder(at.path(), graph, &data);
        let (mut drafter, _) = Drafter::load(&dir).unwrap();
        let rows = drafter.extend(&tokens).unwrap();
        (0..rows.len()).flat_map(|row| rows.logits(row).to_vec()).map(f32::to_bits).collect::<Vec<u32>>()
    });
    assert!(logits[0] == logits[1]);
    assert!(logits[0].iter().any(|bits| *bits != logits[0][0]));
}
