//! Folders with ONNX files as others publish them: which file is taken, and what a `config.json` must name.

use crate::bundle::copy_fixture;
use crate::files::{demo, fixture};
use dunlin_lm::bundle::CacheShape;
use dunlin_lm::{ModelDir, Role};
use std::fmt::{self, Write};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// The text of all warnings.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<String>>);

impl Visit for Warnings {
    fn record_debug(&mut self, _: &Field, value: &dyn fmt::Debug) {
        writeln!(self.0.lock().unwrap(), "{value:?}").unwrap();
    }
}

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut self.clone());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Opens a model, with the warnings.
fn open(path: &Path) -> (ModelDir, String) {
    let warnings = Warnings::default();
    let dir = tracing::subscriber::with_default(warnings.clone(), || ModelDir::open(path).unwrap());
    let text = warnings.0.lock().unwrap().clone();
    (dir, text)
}

/// A folder with the files of a published model and these ONNX files.
fn folder(files: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy_fixture(folder.path());
    fs::remove_file(folder.path().join("model.onnx")).unwrap();
    fs::create_dir(folder.path().join("onnx")).unwrap();
    for file in files {
        fs::copy(fixture("hf-llama/model.onnx"), folder.path().join(file)).unwrap();
    }
    folder
}

#[test]
fn a_folder_of_onnx_files_is_searched() {
    for file in [
        "onnx/model.onnx",
        "onnx/model_q4.onnx",
        "onnx/model_q4f16.onnx",
        "decoder_model_merged.onnx",
        "x.onnx",
    ] {
        let folder = folder(&[file]);
        let (dir, warnings) = open(folder.path());
        assert!(dir.weights.ends_with(file), "{file}: {}", dir.weights.display());
        assert!(!warnings.contains("several"), "{warnings}");
    }
}

#[test]
fn one_of_several_is_taken_and_named() {
    let order =
        ["model_q4.onnx", "model_q4f16.onnx", "model.onnx", "model_fp16.onnx", "a.onnx", "model_int8.onnx"];
    for first in 0..order.len() - 1 {
        let files: Vec<String> = order[first..].iter().rev().map(|name| format!("onnx/{name}")).collect();
        let folder = folder(&files.iter().map(String::as_str).collect::<Vec<_>>());
        let (dir, warnings) = open(folder.path());
        assert!(dir.weights.ends_with(order[first]), "{}", dir.weights.display());
        let taken = format!("taken of several models: {}", dir.weights.display());
        assert!(warnings.contains(&taken) && warnings.contains("give its path"), "{warnings}");
        assert!(order[first + 1..].iter().all(|name| warnings.contains(name)), "{warnings}");
    }
    let above = folder(&["model.onnx", "onnx/model_q4.onnx"]);
    assert!(open(above.path()).0.weights.ends_with("model.onnx"));
}

#[test]
fn a_file_is_opened_with_what_is_beside_it() {
    let folder = folder(&["onnx/model.onnx", "onnx/model_int8.onnx", "other.onnx"]);
    let whole = open(folder.path()).0;
    for file in ["onnx/model_int8.onnx", "onnx/model.onnx", "other.onnx"] {
        let (dir, warnings) = open(&folder.path().join(file));
        assert!(dir.weights.ends_with(file) && !warnings.contains("several"), "{warnings}");
        assert_eq!(
            (dir.vocabulary, dir.cache_shape, dir.path),
            (whole.vocabulary, whole.cache_shape, whole.path.clone())
        );
    }
    let missing = ModelDir::open(folder.path().join("no.onnx")).unwrap_err().to_string();
    assert!(missing.contains("no.onnx"), "{missing}");
}

#[test]
fn a_file_is_opened_by_its_model_toml() {
    let dir = ModelDir::open(demo("drafter").join("drafter.onnx")).unwrap();
    assert_eq!(dir.role, Some(Role::Drafter));
    let folder = tempfile::tempdir().unwrap();
    for name in ["model.toml", "drafter.onnx"] {
        fs::copy(demo("drafter").join(name), folder.path().join(name)).unwrap();
    }
    fs::copy(demo("tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    let manifest = fs::read_to_string(folder.path().join("model.toml")).unwrap();
    fs::write(folder.path().join("model.toml"), manifest.replace("../tokenizer", "tokenizer")).unwrap();
    fs::copy(demo("drafter").join("drafter.onnx"), folder.path().join("other.onnx")).unwrap();
    let (other, warnings) = open(&folder.path().join("other.onnx"));
    assert_eq!((other.role, other.weights_sha256), (None, None));
    assert!(
        warnings.contains("model.toml is left out") && warnings.contains("drafter.onnx, not"),
        "{warnings}"
    );
    assert!(open(&folder.path().join("drafter.onnx")).0.weights_sha256.is_some());
}

#[test]
fn a_gguf_file_beside_a_config_is_a_model() {
    let gguf = demo("target").join("target.gguf");
    let folder = folder(&[]);
    fs::copy(demo("tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    fs::copy(&gguf, folder.path().join("target.gguf")).unwrap();
    assert!(open(folder.path()).0.weights.ends_with("target.gguf"));
    fs::copy(&gguf, folder.path().join("second.gguf")).unwrap();
    let several = ModelDir::open(folder.path()).unwrap_err().to_string();
    assert!(several.contains("2: \"second.gguf\", \"target.gguf\""), "{several}");
}

#[test]
fn a_config_decides_between_onnx_and_gguf() {
    let folder = folder(&["x.onnx"]);
    fs::copy(demo("tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    fs::copy(demo("target").join("target.gguf"), folder.path().join("target.gguf")).unwrap();
    fs::write(folder.path().join("config.json"), r#"{"vocab_size": 2048, "n_positions": 64}"#).unwrap();
    assert!(open(folder.path()).0.weights.ends_with("x.onnx"));
    fs::remove_file(folder.path().join("config.json")).unwrap();
    let (dir, warnings) = open(folder.path());
    assert!(dir.weights.ends_with("target.gguf"));
    assert!(warnings.contains("taken of several models") && warnings.contains("x.onnx"), "{warnings}");
    fs::remove_file(folder.path().join("target.gguf")).unwrap();
    let (dir, warnings) = open(folder.path());
    assert!(dir.weights.ends_with("x.onnx") && dir.cache_shape.is_none());
    assert_eq!((dir.vocabulary.size, dir.context_max), (2048, 1 << 17));
    assert!(warnings.contains("vocab_size") && warnings.contains("max_position_embeddings"), "{warnings}");
}

#[test]
fn a_tokenizer_is_enough_without_onnx_files() {
    let folder = folder(&[]);
    assert!(ModelDir::open_tokenizer(folder.path()).unwrap().weights.ends_with("tokenizer.json"));
    fs::copy(fixture("hf-llama/model.onnx"), folder.path().join("onnx/model_q4.onnx")).unwrap();
    assert!(ModelDir::open_tokenizer(folder.path()).unwrap().weights.ends_with("onnx/model_q4.onnx"));
}

/// The shape and the longest context that a `config.json` names.
fn config(text: &str) -> (Option<(usize, usize, usize)>, usize) {
    let folder = folder(&["model.onnx"]);
    fs::write(folder.path().join("config.json"), format!("{{\"vocab_size\": 64, {text}}}")).unwrap();
    let dir = open(folder.path()).0;
    let shape = dir.cache_shape.map(|CacheShape { layers, kv_heads, head_dim }| (layers, kv_heads, head_dim));
    (shape, dir.context_max)
}

#[test]
fn families_name_their_numbers_differently() {
    let gpt2 = r#""n_layer": 12, "n_head": 12, "n_embd": 768, "n_positions": 1024, "n_ctx": 1024"#;
    assert_eq!(config(gpt2), (Some((12, 12, 64)), 1024));
    let neox = r#""num_hidden_layers": 6, "num_attention_heads": 8, "hidden_size": 512, "max_position_embeddings": 2048"#;
    assert_eq!(config(neox), (Some((6, 8, 64)), 2048));
    let mpt = r#""n_layers": 24, "n_heads": 16, "d_model": 2048, "max_seq_len": 512"#;
    assert_eq!(config(mpt), (Some((24, 16, 128)), 512));
    let falcon = r#""num_hidden_layers": 2, "num_attention_heads": 8, "hidden_size": 64, "multi_query": true, "n_ctx": 9"#;
    assert_eq!(config(falcon), (Some((2, 1, 8)), 9));
    let new_falcon = falcon.replace("true", r#"true, "new_decoder_architecture": true, "num_kv_heads": 4"#);
    assert_eq!(config(&new_falcon).0, Some((2, 4, 8)));
    let qwen3 = r#""num_hidden_layers": 2, "num_attention_heads": 16, "num_key_value_heads": 8, "hidden_size": 1024,
        "head_dim": 128, "max_position_embeddings": 7"#;
    assert_eq!(config(qwen3).0, Some((2, 8, 128)));
    assert_eq!(config(r#""n_layer": 2, "n_positions": 7"#), (None, 7));
    let folder = folder(&["model.onnx"]);
    let none = r#"{"vocab_size": 64, "n_layer": 1, "n_head": 0, "n_embd": 8, "n_ctx": 4}"#;
    fs::write(folder.path().join("config.json"), none).unwrap();
    let error = ModelDir::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("num_attention_heads: expected at least 1"), "{error}");
}

#[test]
fn a_negative_id_is_none() {
    let special = |ids: &str| {
        let folder = folder(&["model.onnx"]);
        fs::write(folder.path().join("config.json"), format!(r#"{{"vocab_size": 64, "n_ctx": 9, {ids}}}"#))
            .unwrap();
        fs::remove_file(folder.path().join("generation_config.json")).unwrap_or_default();
        ModelDir::open(folder.path()).map(|dir| (dir.special.pad, dir.special.eos, dir.prompt.stop))
    };
    let ids = r#""pad_token_id": -1, "eos_token_id": [2, -1]"#;
    assert_eq!(special(ids).unwrap(), (None, Some(2), vec![2]));
    assert_eq!(special(r#""pad_token_id": 3, "eos_token_id": -1"#).unwrap(), (Some(3), None, vec![]));
    let large = special(r#""eos_token_id": 99999999999"#).unwrap_err().to_string();
    assert!(large.contains("an id below 64"), "{large}");
}
