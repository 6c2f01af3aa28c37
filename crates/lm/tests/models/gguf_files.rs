//! GGUF files among others: with a `tokenizer.json` beside them, in parts, in folders.

use crate::files::demo;
use crate::gguf::{Made, written};
use dunlin_lm::{Error, ModelDir, Tokenizer};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::Path;

/// The demo's tokenizer.json with two tokens exchanged.
fn exchanged() -> String {
    let text = fs::read_to_string(demo("tokenizer.json")).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let vocabulary = json["model"]["vocab"].as_object_mut().unwrap();
    let name = |id: u64| vocabulary.iter().find(|(_, found)| **found == id).unwrap().0.clone();
    let (one, other) = (name(700), name(900));
    vocabulary.insert(one, 900.into());
    vocabulary.insert(other, 700.into());
    json.to_string()
}

fn open_beside(gguf: impl AsRef<[u8]>, tokenizer: &str) -> Result<ModelDir, Error> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tokenizer.json"), tokenizer).unwrap();
    ModelDir::open(written(folder.path(), gguf.as_ref()))
}

#[test]
fn the_tokenizer_json_of_another_model_is_refused_with_the_first_id() {
    let target = fs::read(demo("target/target.gguf")).unwrap();
    let message = open_beside(target, &exchanged()).unwrap_err().to_string();
    let tokenizer = Tokenizer::open(&demo("tokenizer.json")).unwrap();
    let (own, other) = (tokenizer.token(700).unwrap(), tokenizer.token(900).unwrap());
    assert!(message.contains(&format!("tokenizer.json: token 700: expected {own:?} as in ")), "{message}");
    assert!(message.contains(&format!("found {other:?}: ")) && message.contains("remove it"), "{message}");
}

/// Opens the demo's target with another `tokenizer.json` and its checksum.
fn open_manifest(json: &str, change: impl Fn(String) -> String) -> Result<ModelDir, Error> {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target");
    fs::create_dir(&target).unwrap();
    fs::copy(demo("target/target.gguf"), target.join("target.gguf")).unwrap();
    fs::write(folder.path().join("tokenizer.json"), json).unwrap();
    let sum =
        |bytes: &[u8]| Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let manifest = fs::read_to_string(demo("target/model.toml")).unwrap();
    let old = sum(&fs::read(demo("tokenizer.json")).unwrap());
    fs::write(target.join("model.toml"), change(manifest.replace(&old, &sum(json.as_bytes())))).unwrap();
    ModelDir::open(&target)
}

#[test]
fn a_manifest_with_the_tokenizer_of_another_model_is_refused() {
    let message = open_manifest(&exchanged(), |manifest| manifest).unwrap_err().to_string();
    assert!(message.contains("token 700: expected"), "{message}");
}

#[test]
fn a_manifest_may_call_its_control_tokens_otherwise() {
    let renamed = |text: String| text.replace("<|user|>", "<u>");
    let json = renamed(fs::read_to_string(demo("tokenizer.json")).unwrap());
    let message = open_manifest(&json, renamed).unwrap_err().to_string();
    // Only the fingerprint, which counts the names, is another one then.
    assert!(message.contains("vocabulary.fingerprint"), "{message}");
}

/// A `tokenizer.json` with the tokens of `made`, whose pieces are those of GPT-2.
fn json_of(made: &Made, tokens: u32) -> String {
    let own = made.open().unwrap().tokenizer;
    let vocabulary: serde_json::Map<String, serde_json::Value> =
        (0..tokens).filter_map(|id| Some((own.token(id)?, id.into()))).collect();
    serde_json::json!({
        "version": "1.0", "added_tokens": [], "normalizer": null, "post_processor": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": [["1", "2"], ["3", "4"]]},
    })
    .to_string()
}

fn digits() -> Made {
    Made::byte_level(&["1 2", "3 4"], &[("12", 1), ("34", 1)])
}

#[test]
fn a_text_that_is_split_otherwise_is_named() {
    let json = json_of(&digits().pre("gpt-2"), 258);
    open_beside(digits().pre("gpt-2").bytes(), &json).unwrap();
    let message = open_beside(digits().pre("qwen2").bytes(), &json).unwrap_err().to_string();
    assert!(message.contains("tokenizer.json: tokens of \"Hello, world! It's 12345"), "{message}");
    assert!(message.contains("model.gguf, found ["), "{message}");
}

#[test]
fn the_tokenizer_json_helps_where_the_file_does_not_tell() {
    let json = json_of(&digits().pre("gpt-2"), 258);
    let dir = open_beside(digits().bytes(), &json).unwrap();
    // The default would split "1234" after the third digit.
    let pieces = ["12", "34"].map(|token| dir.tokenizer.id(token).unwrap());
    assert_eq!(dir.tokenizer.encode_text("1234").unwrap(), pieces);
    assert_eq!(digits().open().unwrap().tokenizer.encode_text("1234").unwrap().len(), 3);
    open_beside(digits().pre("not-known").bytes(), &json).unwrap();
    let text = fs::read_to_string(demo("tokenizer.json")).unwrap();
    let message = open_beside(digits().pre("not-known").bytes(), &text).unwrap_err().to_string();
    assert!(message.contains("tokenizer.json: token 0: expected"), "{message}");
}

#[test]
fn parts_of_a_model_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("big-00002-of-00003.gguf");
    fs::write(&path, "GGUF").unwrap();
    let message = ModelDir::open(&path).unwrap_err().to_string();
    let names = "\"big-00001-of-00003.gguf\" to \"big-00003-of-00003.gguf\"";
    assert!(message.contains(names) && message.contains("llama-gguf-split --merge"), "{message}");
    let made = digits().pre("gpt-2");
    fs::write(folder.path().join("big-00001-of-00001.gguf"), made.bytes()).unwrap();
    ModelDir::open(folder.path().join("big-00001-of-00001.gguf")).unwrap();
    let counted = made.key("split.count", 2, &2u16.to_le_bytes()).open().unwrap_err().to_string();
    assert!(counted.contains("one of a model's 2 parts"), "{counted}");
}

#[test]
fn the_only_file_of_a_folder_is_the_model() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("readme.md"), "").unwrap();
    written(folder.path(), &digits().pre("gpt-2").bytes());
    let dir = ModelDir::open(folder.path()).unwrap();
    assert_eq!((dir.weights, dir.vocabulary.size), (folder.path().join("model.gguf"), 258));
    fs::write(folder.path().join("other.gguf"), "").unwrap();
    let message = ModelDir::open(folder.path()).unwrap_err().to_string();
    assert!(message.contains("give the path of the one to use"), "{message}");
    assert!(message.contains("2: \"model.gguf\", \"other.gguf\""), "{message}");
}

#[test]
fn a_name_on_a_hub_says_what_to_download() {
    let message = ModelDir::open("no-such-organisation/model").unwrap_err().to_string();
    assert!(message.contains("download the model first: its .gguf file"), "{message}");
    let plain = ModelDir::open(Path::new("/no-such-organisation/model")).unwrap_err();
    assert!(matches!(plain, Error::Io { .. }), "{plain}");
}

#[test]
fn a_folder_of_safetensors_says_what_to_make_of_it() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), "{}").unwrap();
    let message = ModelDir::open(folder.path()).unwrap_err().to_string();
    assert!(message.ends_with("found neither"), "{message}");
    fs::write(folder.path().join("model.safetensors"), "").unwrap();
    let message = ModelDir::open(folder.path()).unwrap_err().to_string();
    assert!(message.contains("`dunlin-agent import DIR --out DRAFTER`"), "{message}");
    assert!(message.contains("import DIR --role target"), "{message}");
}
