//! A safetensors file of a folder to import: it becomes a drafter, or an error that names it.
#![no_main]

use dunlin_import::{HeadBits, Import, LayerChoice, Watch, import};
use libfuzzer_sys::fuzz_target;
use std::fs;
use std::sync::OnceLock;
use tempfile::TempDir;

const CONFIG: &str = r#"{"model_type": "llama", "vocab_size": 2048, "hidden_size": 8, "intermediate_size": 8,
    "num_hidden_layers": 1, "num_attention_heads": 1, "max_position_embeddings": 16, "tie_word_embeddings": true}"#;

/// The folder that all runs share, with everything but the weights.
static FOLDER: OnceLock<TempDir> = OnceLock::new();

fuzz_target!(|bytes: &[u8]| {
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let tokenizer = include_bytes!("../../models/demo/tokenizer.json");
        fs::write(folder.path().join("config.json"), CONFIG).expect("room for a file");
        fs::write(folder.path().join("tokenizer.json"), tokenizer).expect("room for a file");
        folder
    });
    fs::write(folder.path().join("model.safetensors"), bytes).expect("room for a file");
    let out = folder.path().join("out");
    let (source, layers) = (folder.path().into(), LayerChoice::All);
    let job = Import { source, out: out.clone(), name: None, layers, head: HeadBits::Eight };
    match import(&job, &mut Watch::new(&mut |_, _| true)) {
        Ok(_) => fs::remove_dir_all(out).expect("the drafter's folder"),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
