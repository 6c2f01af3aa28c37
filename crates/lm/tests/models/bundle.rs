//! Model directories, intact and damaged.

use crate::files::{demo, fixture};
use dunlin_lm::{Error, ModelDir, Role};
use std::fs;
use std::path::Path;

#[test]
fn the_demo_pair_shares_a_vocabulary() {
    let drafter = ModelDir::open(demo("drafter")).unwrap();
    let target = ModelDir::open(demo("target")).unwrap();
    assert_eq!(drafter.vocabulary, target.vocabulary);
    assert_eq!((drafter.role, target.role), (Some(Role::Drafter), Some(Role::Target)));
    assert_eq!(drafter.vocabulary.size, 2048);
    assert!(drafter.prompt.stop.contains(&drafter.special.eos.unwrap()));
    assert!(drafter.weights_sha256.is_some() && drafter.licence.is_some());
    let other = ModelDir::open(fixture("hf-llama")).unwrap();
    assert_ne!(other.vocabulary.fingerprint, drafter.vocabulary.fingerprint);
}

#[test]
fn a_hugging_face_directory_opens() {
    let dir = ModelDir::open(fixture("hf-llama")).unwrap();
    assert_eq!((dir.name.as_str(), dir.role), ("model", None));
    assert_eq!((dir.rows, dir.vocabulary.size, dir.context_max), (64, 53, 128));
    assert_eq!((dir.special.bos, dir.special.eos), (Some(1), Some(2)));
    assert_eq!(dir.prompt.stop, [2, 0]);
    assert_eq!(dir.prompt.form, "<s>{prompt}");
    assert_eq!(dir.first_turn("the").unwrap()[0], 1);
}

/// A model may have more rows than its tokenizer has tokens: neither side counts them.
#[test]
fn a_tokenizer_alone_has_the_vocabulary_of_the_model() {
    let whole = ModelDir::open(fixture("hf-llama")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    copy_fixture(folder.path());
    fs::remove_file(folder.path().join("model.onnx")).unwrap();
    let alone = ModelDir::open_tokenizer(folder.path()).unwrap();
    assert_eq!((alone.vocabulary, alone.prompt.stop), (whole.vocabulary, vec![2]));
    fs::remove_file(folder.path().join("config.json")).unwrap();
    let bare = ModelDir::open_tokenizer(folder.path().join("tokenizer.json")).unwrap();
    assert_eq!((bare.vocabulary.size, bare.prompt.stop.len()), (53, 0));
}

/// Copies a folder of the demo pair and its tokenizer to a temporary folder, to be damaged there.
fn copy_demo(part: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("model");
    fs::create_dir(&to).unwrap();
    for entry in fs::read_dir(demo(part)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    fs::copy(demo("tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    folder
}

/// The error of opening the demo's drafter with `model.toml` changed.
fn refusal(change: impl Fn(String) -> String) -> Error {
    let folder = copy_demo("drafter");
    let path = folder.path().join("model/model.toml");
    let text = fs::read_to_string(&path).unwrap();
    let changed = change(text.clone());
    assert_ne!(text, changed);
    fs::write(&path, changed).unwrap();
    ModelDir::open(folder.path().join("model")).unwrap_err()
}

fn replaced(from: &str, to: &str) -> String {
    refusal(|text| text.replacen(from, to, 1)).to_string()
}

#[test]
fn the_copy_itself_opens() {
    let folder = copy_demo("drafter");
    ModelDir::open(folder.path().join("model")).unwrap();
}

#[test]
fn an_unknown_key_is_an_error_with_its_line() {
    let error = refusal(|text| text.replacen("[limits]\n", "[limits]\ncolour = 3\n", 1));
    let text = fs::read_to_string(demo("drafter/model.toml")).unwrap();
    let expected = text.lines().position(|line| line == "[limits]").unwrap() + 2;
    match &error {
        Error::Syntax { line, message, .. } => {
            assert_eq!(*line, expected, "{error}");
            assert!(message.contains("colour"), "{error}");
        }
        other => panic!("{other}"),
    }
    assert!(error.to_string().contains(&format!("model.toml:{expected}: ")), "{error}");
}

#[test]
fn mistakes_in_the_manifest_are_named() {
    let has = |message: String, parts: &[&str]| {
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    };
    has(replaced("format = 1", "format = 2"), &["format: expected 1, found 2"]);
    has(replaced("role = \"drafter\"", "role = \"poet\""), &["model.toml:3:", "poet"]);
    has(replaced("size = ", "size = \"x\" # "), &["model.toml:", "invalid type"]);
    has(replaced("context = ", "context = 0 # "), &["context: expected at least 1"]);
    has(replaced("bos = 1\n", "bos = 4000\n"), &["special.bos", "an id below 2048", "found 4000"]);
    has(replaced("stop = [", "stop = [9999, "), &["prompt.stop", "found 9999"]);
    has(replaced("{prompt}", "{text}"), &["{prompt} exactly once"]);
    has(replaced("<|assistant|>", "<|asistant|>"), &["<|asistant|>", "no token", "mean \"<|assistant|>\""]);
    has(replaced("fingerprint = \"", "fingerprint = \"00"), &["vocabulary.fingerprint", "tokenizer.json"]);
    has(replaced("size = 2048", "size = 2047"), &["vocabulary.size", "at least the tokenizer's 2048"]);
    has(replaced("size = 2048", "size = 2049"), &["vocabulary.fingerprint"]);
    has(replaced("../tokenizer.json", "/etc/hostname"), &["tokenizer.file", "relative"]);
    has(replaced("../tokenizer.json", "missing.json"), &["missing.json"]);
    has(replaced("drafter.onnx", "other.onnx"), &["other.onnx"]);
}

fn spoilt(file: &str, spoil: impl Fn(&mut Vec<u8>)) -> Error {
    let folder = copy_demo("drafter");
    let path = folder.path().join("model").join(file);
    let mut bytes = fs::read(&path).unwrap();
    spoil(&mut bytes);
    fs::write(&path, bytes).unwrap();
    ModelDir::open(folder.path().join("model")).unwrap_err()
}

#[test]
fn checksums_are_checked() {
    let half = spoilt("drafter.onnx", |bytes| bytes.truncate(bytes.len() / 2)).to_string();
    assert!(half.contains("drafter.onnx: sha256: expected"), "{half}");
    let flipped = spoilt("drafter.onnx", |bytes| bytes[1000] ^= 1).to_string();
    assert!(flipped.contains("drafter.onnx: sha256: expected"), "{flipped}");
    let tokenizer = spoilt("../tokenizer.json", |bytes| bytes.push(b'\n')).to_string();
    assert!(tokenizer.contains("tokenizer.json: sha256: expected"), "{tokenizer}");
}

#[test]
fn missing_places_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let nothing = ModelDir::open(folder.path().join("nothing")).unwrap_err();
    assert!(matches!(&nothing, Error::Io { path, .. } if path.ends_with("nothing")), "{nothing}");
    let empty = ModelDir::open(folder.path()).unwrap_err().to_string();
    assert!(empty.contains("expected a directory with model.toml or config.json"), "{empty}");
}

pub(crate) fn copy_fixture(to: &Path) {
    for name in ["config.json", "tokenizer.json", "model.onnx"] {
        fs::copy(fixture("hf-llama").join(name), to.join(name)).unwrap();
    }
}

#[test]
fn a_hugging_face_directory_without_its_files_is_an_error() {
    let message = |change: &dyn Fn(&Path)| {
        let folder = tempfile::tempdir().unwrap();
        copy_fixture(folder.path());
        change(folder.path());
        ModelDir::open(folder.path()).unwrap_err().to_string()
    };
    let missing = message(&|path| fs::remove_file(path.join("model.onnx")).unwrap());
    assert!(missing.contains("an .onnx file in it or in its folder onnx, or a .gguf file"), "{missing}");
    let missing = message(&|path| fs::remove_file(path.join("tokenizer.json")).unwrap());
    assert!(missing.contains("tokenizer.json"), "{missing}");
    let wrong = message(&|path| fs::write(path.join("config.json"), "{\n\"vocab_size\": -1}").unwrap());
    assert!(wrong.contains("config.json:2:"), "{wrong}");
    let small = message(&|path| {
        let config = fs::read_to_string(path.join("config.json")).unwrap();
        fs::write(path.join("config.json"), config.replace("\"vocab_size\": 64", "\"vocab_size\": 10"))
            .unwrap();
    });
    assert!(small.contains("vocabulary size: expected at least the tokenizer's"), "{small}");
}
