//! The memory of loading a drafter, by its allocations.

use crate::onnx::{FLOAT, FLOAT16, INT64, encode, node, tensor, value};
use allocation_counter::measure;
use dunlin_lm::{Draft, ModelDir};
use dunlin_lm_tract::Drafter;
use std::fs;
use std::path::Path;
use tract_onnx::pb::{GraphProto, NodeProto, StringStringEntryProto, TensorProto};

const UINT8: i32 = 2;
const VOCABULARY: usize = 2048;
const WIDTH: usize = 512;
/// Products one after the other, each with a matrix of its own.
const LAYERS: usize = 40;
/// Bytes of a matrix: 4 bits a number, and a scale of 16 bits for 32.
const MATRIX_BYTES: usize = WIDTH * WIDTH / 2 + WIDTH * WIDTH / 32 * 2;

/// The place of the weights.
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
    decoder_of(WIDTH, LAYERS, weights, data)
}

/// A decoder of another size.
fn decoder_of(width: usize, layers: usize, weights: Weights, data: &mut Vec<u8>) -> GraphProto {
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
            [0x1f, 0x21].iter().cycle().take(rows * width / 32).flat_map(|byte| [0, *byte]).collect();
        stored(graph, &format!("{name}.codes"), UINT8, &[rows, width / 2], bytes(seed, rows * width / 2));
        stored(graph, &format!("{name}.half"), FLOAT16, &[rows, width / 32], scales);
        let (half, scales) = (format!("{name}.half"), format!("{name}.scales"));
        graph.node.push(node("Cast", &[&half], &[&scales], &[("to", i64::from(FLOAT))]));
    };
    matrix(&mut graph, "table", 1, VOCABULARY);
    let four_bits = [("bits", 4), ("block_size", 32), ("gather_axis", 0), ("quantize_axis", 1)];
    let inputs = ["table.codes", "input_ids", "table.scales"];
    // tract's own operator would make a node of the name that the scales' cast has.
    let table = node("GatherBlockQuantized", &inputs, &["x"], &four_bits);
    graph.node.push(NodeProto { name: "the_table".into(), ..table });
    let mut last = "x".to_owned();
    for layer in 0..=layers {
        let (name, rows) =
            if layer < layers { (format!("m{layer}"), width) } else { ("head".into(), VOCABULARY) };
        matrix(&mut graph, &name, layer + 2, rows);
        let output = if layer < layers { format!("y{layer}") } else { "logits".into() };
        let shape = [("K", width as i64), ("N", rows as i64), ("bits", 4), ("block_size", 32)];
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

/// The bits of a drafter's logits.
fn bits(dir: &ModelDir) -> Vec<u32> {
    let tokens: Vec<u32> = (0..20).map(|token| token * 97 % 2048).collect();
    let (mut drafter, _) = Drafter::load(dir).unwrap();
    let rows = drafter.extend(&tokens).unwrap();
    (0..rows.len()).flat_map(|row| rows.logits(row).to_vec()).map(f32::to_bits).collect()
}

/// Makes the head the table's matrix.
fn tie(graph: &mut GraphProto) {
    let head = graph.node.iter_mut().find(|node| node.output == ["logits"]).unwrap();
    (head.input[1], head.input[2]) = ("table.codes".into(), "table.scales".into());
}

/// Adds zero points to every product, two in each byte. tract reads such weights itself, and 8 changes nothing.
fn add_zero_points(graph: &mut GraphProto, both: u8) {
    for node in graph.node.iter_mut().filter(|node| node.op_type == "MatMulNBits") {
        node.input.push("zeros".into());
    }
    let count = VOCABULARY * WIDTH / 64;
    graph.initializer.push(tensor("zeros", UINT8, &[count], vec![both; count]));
}

#[test]
fn weights_that_are_read_late_give_the_same_bits() {
    for is_tied in [false, true] {
        let cases = [(Weights::Graph, true), (Weights::Graph, false), (Weights::Beside, false)];
        let found = cases.map(|(weights, is_read_by_tract)| {
            let (at, mut data) = (tempfile::tempdir().unwrap(), Vec::new());
            let mut graph = decoder(weights, &mut data);
            if is_tied {
                tie(&mut graph);
            }
            if is_read_by_tract {
                add_zero_points(&mut graph, 0x88);
            }
            bits(&folder(at.path(), graph, &data))
        });
        assert!(found[0].iter().any(|bits| *bits != found[0][0]), "the logits differ");
        assert!(found[1] == found[0] && found[2] == found[0], "tied: {is_tied}");
    }
}

/// tract computes a constant only if it takes less than 4 MiB, or no more than what it is computed of.
#[test]
fn scales_of_many_megabytes_may_be_cast() {
    let (at, mut data) = (tempfile::tempdir().unwrap(), Vec::new());
    let width = (5 << 20) / 4 / VOCABULARY * 32;
    let graph = decoder_of(width, 0, Weights::Beside, &mut data);
    let found = bits(&folder(at.path(), graph, &data));
    assert!(found.iter().all(|bits| f32::from_bits(*bits).is_finite()));
}

#[test]
fn zero_points_are_applied() {
    let found = [None, Some(0x77)].map(|both| {
        let (at, mut data) = (tempfile::tempdir().unwrap(), Vec::new());
        let mut graph = decoder(Weights::Beside, &mut data);
        if let Some(both) = both {
            add_zero_points(&mut graph, both);
        }
        bits(&folder(at.path(), graph, &data))
    });
    assert!(found[0] != found[1]);
}

#[test]
fn weights_outside_the_models_folder_are_refused() {
    let (at, mut data) = (tempfile::tempdir().unwrap(), Vec::new());
    let mut graph = decoder(Weights::Beside, &mut data);
    fs::write(at.path().join("outside"), &data).unwrap();
    for tensor in &mut graph.initializer {
        for entry in tensor.external_data.iter_mut().filter(|entry| entry.key == "location") {
            entry.value = "../outside".into();
        }
    }
    fs::create_dir(at.path().join("model")).unwrap();
    let error = Drafter::load(&folder(&at.path().join("model"), graph, &data)).unwrap_err().to_string();
    assert!(error.contains("inside the model directory"), "{error}");
}

#[test]
fn a_load_reports_all_of_its_bytes() {
    let (at, mut data) = (tempfile::tempdir().unwrap(), Vec::new());
    let graph = decoder(Weights::Beside, &mut data);
    let dir = folder(at.path(), graph, &data);
    let mut seen = Vec::new();
    Drafter::load_with(&dir, &mut |done, total| seen.push((done, total))).unwrap();
    assert_eq!(seen.len(), LAYERS + 2, "a report for each matrix");
    assert!(seen.is_sorted() && seen.iter().all(|(_, total)| *total == data.len() as u64));
    assert_eq!(seen.last(), Some(&(data.len() as u64, data.len() as u64)));
}

#[test]
fn a_cache_counts_the_copy_that_a_run_makes() {
    let (at, mut data) = (tempfile::tempdir().unwrap(), Vec::new());
    let graph = decoder(Weights::Beside, &mut data);
    let (drafter, _) = Drafter::load(&folder(at.path(), graph, &data)).unwrap();
    // Keys and values of one head of 4 numbers, twice.
    assert_eq!(drafter.cache_bytes_per_token(), 2 * 2 * 4 * 4);
}
