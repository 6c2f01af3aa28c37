//! A tiny BERT from PyTorch: its embeddings and BERTScores compared with Python's, and directories that aren't
//! encoders.

use crate::files::{Random, demo};
use crate::onnx::{FLOAT, FLOAT16, INT64, encode, floats, node, value};
use dunlin_lm::{BertScore, Embeddings, Error, bert_score};
use dunlin_lm_tract::Encoder;
use prost::Message;
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto};

/// The output of `make_encoder.py`.
#[derive(Deserialize)]
struct Expected {
    embeddings: Vec<Embedded>,
    scores: Vec<Scored>,
}

#[derive(Deserialize)]
struct Embedded {
    text: String,
    ids: Vec<u32>,
    rows: Vec<Vec<f32>>,
}

#[derive(Deserialize)]
struct Scored {
    candidate: String,
    reference: String,
    precision: f64,
    recall: f64,
    f1: f64,
}

const WIDTH: usize = 32;
const CLS: u32 = 2;
const SEP: u32 = 3;

/// An ONNX element type.
const INT32: i32 = 6;

/// The path of a fixture of this crate.
fn own_fixture(part: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(part)
}

fn expected() -> Expected {
    serde_json::from_slice(&fs::read(own_fixture("encoder/expected.json")).unwrap()).unwrap()
}

fn encoder() -> Encoder {
    Encoder::load(own_fixture("encoder")).unwrap()
}

fn rows(embeddings: &Embeddings) -> Vec<&[f32]> {
    (0..embeddings.len()).map(|index| embeddings.row(index)).collect()
}

/// A copy of the fixture's directory, to be damaged.
fn copy() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in ["encoder.onnx", "tokenizer.json"] {
        fs::copy(own_fixture("encoder").join(file), folder.path().join(file)).unwrap();
    }
    folder
}

fn refused(folder: &Path, parts: &[&str]) {
    let message = Encoder::load(folder).map(|_| "loaded").unwrap_err().to_string();
    assert!(parts.iter().all(|part| message.contains(part)), "{message}");
}

/// Asserts that loading the fixture's model after `change` fails with a message that contains `parts`.
fn refused_model(change: impl FnOnce(&mut ModelProto), parts: &[&str]) {
    let folder = copy();
    let path = folder.path().join("encoder.onnx");
    let mut model = ModelProto::decode(fs::read(&path).unwrap().as_slice()).unwrap();
    change(&mut model);
    fs::write(&path, model.encode_to_vec()).unwrap();
    refused(folder.path(), parts);
}

/// The fixture with a tokenizer after `change`.
fn with_tokenizer(change: impl FnOnce(&mut serde_json::Value)) -> tempfile::TempDir {
    let folder = copy();
    let path = folder.path().join("tokenizer.json");
    let mut json = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut json);
    fs::write(&path, json.to_string()).unwrap();
    folder
}

#[test]
fn embeddings_are_pytorchs() {
    let mut encoder = encoder();
    assert_eq!(encoder.width(), WIDTH);
    for Embedded { text, ids, rows } in expected().embeddings {
        let found = encoder.encode(&text).unwrap();
        assert_eq!(found.len(), ids.len(), "{text:?}");
        for (index, expected) in rows.iter().enumerate() {
            let close = found.row(index).iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4);
            assert!(close && expected.len() == WIDTH, "row {index} of {text:?}");
            assert_eq!(found.is_special(index), [CLS, SEP].contains(&ids[index]), "row {index} of {text:?}");
        }
    }
}

#[test]
fn scores_are_pythons() {
    let mut encoder = encoder();
    for case in expected().scores {
        let candidate = encoder.encode(&case.candidate).unwrap();
        let reference = encoder.encode(&case.reference).unwrap();
        let BertScore { precision, recall, f1 } = bert_score(&candidate, &reference);
        let pairs = [(precision, case.precision), (recall, case.recall), (f1, case.f1)];
        let close = pairs.iter().all(|(found, expected)| (found - expected).abs() < 1e-4);
        assert!(close, "{:?} against {:?}: {pairs:?}", case.candidate, case.reference);
    }
}

/// An encoder that sums one row per input and has another output before that one.
fn adder(output: &str) -> GraphProto {
    let sequence = ["1", "S"];
    GraphProto {
        name: "adder".into(),
        input: vec![
            value("position_ids", INT64, &sequence),
            value("token_type_ids", INT32, &sequence),
            value("input_ids", INT32, &sequence),
        ],
        output: ["position", output].map(|name| value(name, FLOAT, &[])).into(),
        initializer: vec![floats("words", &[2048, 4]), floats("places", &[64, 4]), floats("types", &[2, 4])],
        node: vec![
            node("Gather", &["words", "input_ids"], &["word"], &[]),
            node("Gather", &["places", "position_ids"], &["position"], &[]),
            node("Gather", &["types", "token_type_ids"], &["type"], &[]),
            node("Add", &["word", "position"], &["both"], &[]),
            node("Add", &["both", "type"], &[output], &[]),
        ],
        ..Default::default()
    }
}

#[test]
fn inputs_may_come_in_any_order_and_number() {
    let row = |table: usize, index: usize| {
        let bytes = &adder("x").initializer[table].raw_data[16 * index..16 * (index + 1)];
        bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect::<Vec<_>>()
    };
    let folder = copy();
    let path = folder.path().join("encoder.onnx");
    fs::write(&path, encode(adder("last_hidden_state"))).unwrap();
    let found = Encoder::load(folder.path()).unwrap().encode("").unwrap();
    for (index, id) in [CLS, SEP].into_iter().enumerate() {
        let parts = [row(0, id as usize), row(1, index), row(2, 0)];
        let sum: Vec<f32> = (0..4).map(|i| parts[0][i] + parts[1][i] + parts[2][i]).collect();
        assert_eq!(found.row(index), sum);
    }
    // Without an output of that name, the first output is used.
    fs::write(&path, encode(adder("sum"))).unwrap();
    let first = Encoder::load(folder.path()).unwrap().encode("").unwrap();
    assert_eq!(rows(&first), [row(1, 0), row(1, 1)]);
}

#[test]
fn blanks_around_a_text_are_left_out() {
    let folder = copy();
    fs::write(folder.path().join("encoder.onnx"), encode(adder("last_hidden_state"))).unwrap();
    // This tokenizer has tokens for spaces.
    fs::copy(demo("tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    let mut encoder = Encoder::load(folder.path()).unwrap();
    let plain = encoder.encode("a bird").unwrap();
    assert_eq!(encoder.encode("\t a bird\n\n").unwrap(), plain);
    assert_ne!(encoder.encode("a  bird").unwrap(), plain);
}

#[test]
fn a_text_means_the_same_at_any_time() {
    let mut encoder = encoder();
    let first = encoder.encode("the tide is large").unwrap();
    encoder.encode("a bird sleeps over the river").unwrap();
    assert_eq!(encoder.encode("the tide is large").unwrap(), first);
}

#[test]
fn long_texts_are_cut_as_the_tokenizer_says() {
    let text = "bird ".repeat(600);
    assert_eq!(encoder().encode(&text).unwrap().len(), 64);
    let shorter = with_tokenizer(|json| json["truncation"]["max_length"] = 9.into());
    let cut = Encoder::load(shorter.path()).unwrap().encode(&text).unwrap();
    assert_eq!(cut.len(), 9);
    assert!(cut.is_special(0) && cut.is_special(8) && !cut.is_special(7));

    // Without a limit, 512 tokens are used, more than this model has positions.
    let unlimited = with_tokenizer(|json| json["truncation"] = serde_json::Value::Null);
    let mut encoder = Encoder::load(unlimited.path()).unwrap();
    assert!(matches!(encoder.encode(&text), Err(Error::Engine { engine: "tract", .. })));
    assert_eq!(encoder.encode("bird").unwrap().len(), 3);

    let none = with_tokenizer(|json| json["truncation"]["max_length"] = 2.into());
    refused(none.path(), &["tokenizer.json: truncation.max_length: expected more than the 2 tokens"]);
}

#[test]
fn padding_is_left_out() {
    let padded = with_tokenizer(|json| {
        json["padding"] = serde_json::json!({"strategy": {"Fixed": 20}, "direction": "Right",
            "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"});
    });
    assert_eq!(Encoder::load(padded.path()).unwrap().encode("a bird").unwrap().len(), 4);
}

#[test]
fn a_tokenizer_may_put_nothing_around_texts() {
    let bare = with_tokenizer(|json| json["post_processor"] = serde_json::Value::Null);
    let mut encoder = Encoder::load(bare.path()).unwrap();
    assert!(encoder.encode("").unwrap().is_empty());
    let bird = encoder.encode("bird").unwrap();
    assert!(bird.len() == 1 && !bird.is_special(0));
}

#[test]
fn missing_files_are_named() {
    let folder = copy();
    fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    refused(folder.path(), &["tokenizer.json: "]);
    fs::remove_file(folder.path().join("encoder.onnx")).unwrap();
    refused(folder.path(), &["encoder: expected encoder.onnx or a single .onnx file, found 0 of them"]);
    let gone = folder.path().join("gone");
    assert!(matches!(Encoder::load(&gone), Err(Error::Io { path, .. }) if path == gone));
}

#[test]
fn a_single_model_may_have_any_name() {
    let folder = copy();
    let path = folder.path();
    fs::rename(path.join("encoder.onnx"), path.join("bert.onnx")).unwrap();
    let text = "a bird";
    let named = Encoder::load(path).unwrap().encode(text).unwrap();
    assert_eq!(rows(&named), rows(&encoder().encode(text).unwrap()));
    fs::write(path.join("other.onnx"), "").unwrap();
    refused(path, &["single .onnx file, found 2 of them"]);
    fs::copy(path.join("bert.onnx"), path.join("encoder.onnx")).unwrap();
    Encoder::load(path).unwrap();
}

#[test]
fn a_decoder_is_refused() {
    let folder = copy();
    let path = folder.path().join("encoder.onnx");
    fs::copy(demo("drafter/drafter.onnx"), &path).unwrap();
    refused(
        folder.path(),
        &["encoder.onnx: input past_key_values.0.key is not supported: export an encoder"],
    );
    refused_model(
        |model| {
            let graph = model.graph.as_mut().unwrap();
            graph.output[0].name = "logits".into();
            let node = graph.node.last_mut().unwrap();
            assert_eq!(node.output, ["last_hidden_state"]);
            node.output[0] = "logits".into();
        },
        &["output logits is not supported: export an encoder"],
    );
}

#[test]
fn inputs_and_outputs_are_checked() {
    let graph = |change: &dyn Fn(&mut GraphProto), parts: &[&str]| {
        refused_model(|model| change(model.graph.as_mut().unwrap()), parts);
    };
    graph(
        &|graph| graph.input.retain(|input| input.name != "input_ids"),
        &["encoder.onnx: input input_ids: expected a tensor, found nothing"],
    );
    graph(&|graph| graph.input[1].name = "pixel_values".into(), &["input pixel_values is not supported"]);
    graph(&|graph| graph.output.clear(), &["output last_hidden_state: expected a tensor, found nothing"]);
    let replaced = |op: &'static str| {
        move |graph: &mut GraphProto| {
            graph.node.last_mut().unwrap().output[0] = "hidden".into();
            let (input, output) = (vec!["hidden".into()], vec!["last_hidden_state".into()]);
            let to = AttributeProto { name: "to".into(), i: FLOAT16.into(), r#type: 2, ..Default::default() };
            let attribute = if op == "Cast" { vec![to] } else { Vec::new() };
            graph.node.push(NodeProto { op_type: op.into(), input, output, attribute, ..Default::default() });
        }
    };
    let shape = "output last_hidden_state: expected F32";
    graph(&replaced("Flatten"), &[shape, "[1, tokens, width], found F32 of [1, 64] for 2 tokens"]);
    graph(&replaced("Cast"), &[shape, "found F16 of [1, 2, 32]"]);
    graph(&replaced("Log"), &["output last_hidden_state: expected finite numbers, found NaN"]);
    graph(&|graph| graph.node.truncate(3), &["not a usable ONNX file"]);
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let folder = copy();
    fs::copy(demo("tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    refused(
        folder.path(),
        &["encoder.onnx: vocabulary: expected an embedding of the tokenizer's token 2047"],
    );
}

#[test]
fn spoilt_files_are_errors() {
    let folder = copy();
    let path = folder.path().join("encoder.onnx");
    let whole = fs::read(&path).unwrap();
    for bytes in [b"garbage".as_slice(), b"", &whole[..whole.len() / 2]] {
        fs::write(&path, bytes).unwrap();
        refused(folder.path(), &["encoder.onnx: not a usable ONNX file"]);
    }
    let random = &mut Random(5);
    for _ in 0..40 {
        let mut spoilt = whole.clone();
        for _ in 0..30 {
            let place = random.below(spoilt.len());
            spoilt[place] = random.below(256) as u8;
        }
        fs::write(&path, spoilt).unwrap();
        // The damaged file is either still a model or an error, never a panic.
        let _ = Encoder::load(folder.path()).map(|mut encoder| encoder.encode("a bird"));
    }
    let folder = copy();
    fs::write(folder.path().join("tokenizer.json"), "garbage").unwrap();
    refused(folder.path(), &["tokenizer.json: not a usable tokenizer.json file"]);
}
