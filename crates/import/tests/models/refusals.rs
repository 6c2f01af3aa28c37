//! Sources that can't be imported: each is named with its mistake, and nothing is left.

use crate::build::File;
use crate::small::{Small, imported, safetensors};
use dunlin_import::LayerChoice;
use std::fs;
use std::path::Path;

/// The message of a source that is refused; no folder may be left.
fn refused(source: &Path) -> String {
    let folder = tempfile::tempdir().unwrap();
    let message = imported(source, &folder.path().join("out"), LayerChoice::All).unwrap_err().to_string();
    assert!(folder.path().read_dir().unwrap().next().is_none(), "{message}");
    message
}

fn refused_gguf(bytes: &[u8], parts: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    fs::write(&path, bytes).unwrap();
    let message = refused(&path);
    assert!(message.contains("m.gguf") && parts.iter().all(|part| message.contains(part)), "{message}");
}

/// Writes a small folder, lets `change` spoil it, and expects these parts in the message.
fn refused_folder(change: impl Fn(&Path), parts: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    Small::new("llama").safetensors(folder.path(), "F32", 1);
    change(folder.path());
    let message = refused(folder.path());
    assert!(parts.iter().all(|part| message.contains(part)), "{message}");
}

fn refused_weights(bytes: &[u8], parts: &[&str]) {
    refused_folder(|folder| fs::write(folder.join("model.safetensors"), bytes).unwrap(), parts);
}

fn refused_config(change: impl Fn(&mut serde_json::Value), parts: &[&str]) {
    refused_folder(
        |folder| {
            let mut config = Small::new("llama").config();
            change(&mut config);
            fs::write(folder.join("config.json"), config.to_string()).unwrap();
        },
        parts,
    );
}

const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 269060552\n";
const PAGE: &str = "<!DOCTYPE html><html><head><title>Sign in</title></head><body></body></html>";

#[test]
fn other_files_than_gguf_are_refused() {
    for bytes in [POINTER.as_bytes(), PAGE.as_bytes(), b"PK\x03\x04\x14\0\0\0", b""] {
        refused_gguf(bytes, &["not a usable GGUF file: it doesn't begin with GGUF"]);
    }
    let mut other_end = Small::new("llama").gguf("F16");
    other_end[4..8].copy_from_slice(&3u32.to_be_bytes());
    refused_gguf(&other_end, &["big-endian"]);
}

#[test]
fn a_cut_gguf_file_is_refused_wherever_it_ends() {
    let whole = Small { layers: 1, ..Small::new("llama") }.gguf("Q4_0");
    for part in [8, 100, 5_000, whole.len() / 2, whole.len() - 33] {
        refused_gguf(&whole[..part], &[]);
    }
    refused_gguf(&whole[..whole.len() / 2], &["cut off or damaged"]);
}

#[test]
fn other_files_than_safetensors_are_refused() {
    refused_weights(POINTER.as_bytes(), &["model.safetensors", "a pointer of Git LFS", "git lfs pull"]);
    refused_weights(PAGE.as_bytes(), &["model.safetensors", "a web page"]);
    refused_weights(b"PK\x03\x04\x14\0\0\0\x08\0", &["model.safetensors", "a zip archive"]);
    refused_weights(b"GGUF\x03\0\0\0\0", &["model.safetensors", "it is a GGUF file"]);
    refused_weights(b"", &["model.safetensors", "it has 0 bytes"]);
}

#[test]
fn a_cut_safetensors_file_is_refused() {
    let whole = safetensors(&Small::new("llama").tensors(), "F16");
    refused_weights(&whole[..4], &["it has 4 bytes: it is cut off"]);
    refused_weights(&whole[..100], &["its header claims", "at most 92 are possible"]);
    refused_weights(&whole[..whole.len() - 1], &["its header lists", "it is cut off or damaged"]);
    let longer = [&whole[..], b"x"].concat();
    refused_weights(&longer, &["its header lists"]);
    let mut damaged = whole.clone();
    damaged[20] = 0xff;
    refused_weights(&damaged, &["its list of tensors"]);
}

/// A sparse file is as large as it claims without taking the space.
#[test]
fn ten_gigabytes_that_are_only_claimed_are_not_allocated() {
    const CLAIMED: u64 = 10 << 30;
    refused_folder(
        |folder| {
            let path = folder.join("model.safetensors");
            fs::write(&path, [&(CLAIMED - 8).to_le_bytes()[..], b"{"].concat()).unwrap();
            fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(CLAIMED).unwrap();
        },
        &["its header claims 10737418232 bytes, at most 100000000 are possible"],
    );
    // A tensor of another shape than the settings say, as large as the file.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let file = |file: File| file.tensor_at("blk.0.ffn_up.weight", &[1 << 20, 2500], 0, 1 << 20);
    let small = Small { layers: 1, inner: 1, ..Small::new("llama") };
    let bytes = small.gguf_file("F32", file);
    fs::write(&path, bytes).unwrap();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(11 << 30).unwrap();
    assert!(refused(&path).contains("blk.0.ffn_up.weight"));
}

#[test]
fn settings_that_do_not_fit_are_refused() {
    let number =
        |key: &'static str, number: u64| move |config: &mut serde_json::Value| config[key] = number.into();
    refused_config(
        number("num_hidden_layers", 0),
        &["config.json: num_hidden_layers: expected 1 to", "found 0"],
    );
    refused_config(number("num_attention_heads", 0), &["num_attention_heads", "found 0"]);
    refused_config(
        number("num_hidden_layers", 1),
        &["layers: expected at least the 2 of its tensors, found 1"],
    );
    refused_config(
        number("num_hidden_layers", 3),
        &["tensor layers.2.input_layernorm.weight", "found nothing"],
    );
    refused_config(
        number("hidden_size", 1 << 40),
        &["hidden_size: expected 1 to 1048576, found 1099511627776"],
    );
    refused_config(number("num_key_value_heads", 3), &["key heads: expected a divisor of 4, found 3"]);
    refused_config(
        number("intermediate_size", 500),
        &["tensor model.layers.0.mlp.gate_proj.weight: expected [500, 256], found [512, 256]"],
    );
    refused_config(number("vocab_size", 289), &["tensor model.embed_tokens.weight: expected [289, 256]"]);
    refused_config(
        |config| config["rms_norm_eps"] = (-1).into(),
        &["rms_norm_eps: expected a number above 0"],
    );
    let zero = |file: File| file.key("llama.block_count", 4, &[0; 4]);
    refused_gguf(
        &Small { layers: 0, ..Small::new("llama") }.gguf("F16"),
        &["llama.block_count: expected 1 to", "found 0"],
    );
    refused_gguf(&Small::new("llama").gguf_file("F16", zero), &["llama.block_count", "twice"]);
}

#[test]
fn other_architectures_are_refused_by_name() {
    refused_config(
        |config| *config = serde_json::json!({"model_type": "gpt2", "n_embd": 768}),
        &["model_type \"gpt2\" is not supported", "Qwen3"],
    );
    refused_config(|config| config["hidden_act"] = "gelu".into(), &["hidden_act \"gelu\""]);
    refused_config(
        |config| config["rope_scaling"] = serde_json::json!({"type": "yarn", "factor": 4.0}),
        &["rotary scaling \"yarn\""],
    );
    refused_config(|config| config["partial_rotary_factor"] = 0.5.into(), &["partial_rotary_factor 0.5"]);
    refused_config(
        |config| config["quantization_config"] = serde_json::json!({"quant_method": "gptq"}),
        &["quantization \"gptq\" in safetensors"],
    );
    refused_gguf(&Small::new("gemma2").gguf("F16"), &["architecture \"gemma2\" is not supported", "Qwen3"]);
    let experts = |file: File| file.key("llama.expert_count", 4, &8u32.to_le_bytes());
    refused_gguf(&Small::new("llama").gguf_file("F16", experts), &["llama.expert_count of 8"]);
    let yarn = |file: File| file.text("llama.rope.scaling.type", "yarn");
    refused_gguf(&Small::new("llama").gguf_file("F16", yarn), &["rotary scaling \"yarn\""]);
    let extra = |file: File| file.tensor("blk.0.ffn_gate_exps.weight", &[32], 0, &[0; 128]);
    refused_gguf(&Small::new("llama").gguf_file("F16", extra), &["tensor blk.0.ffn_gate_exps.weight"]);
    let partial = |file: File| file.key("llama.rope.dimension_count", 4, &64u32.to_le_bytes());
    refused_gguf(
        &Small::new("llama").gguf_file("F16", partial),
        &["llama.rope.dimension_count: expected the head size 128"],
    );
}

#[test]
fn norms_of_heads_belong_to_one_architecture() {
    let norms = |file: File| file.tensor("blk.0.attn_q_norm.weight", &[128], 0, &[0; 512]);
    refused_gguf(
        &Small::new("llama").gguf_file("F16", norms),
        &["tensor blk.0.attn_q_norm.weight in a model of"],
    );
}

#[test]
fn a_tensor_that_is_missing_or_strange_is_named() {
    let with = |change: &dyn Fn(&mut crate::small::Tensors)| {
        let mut tensors = Small::new("llama").tensors();
        change(&mut tensors);
        safetensors(&tensors, "F32")
    };
    let missing = with(&|tensors| drop(tensors.remove("lm_head.weight")));
    refused_weights(&missing, &["tensor lm_head.weight", "tie_word_embeddings"]);
    let strange =
        with(&|tensors| drop(tensors.insert("model.layers.0.adapter.weight".into(), (vec![1], vec![0.0]))));
    refused_weights(&strange, &["tensor model.layers.0.adapter.weight"]);
    let shape = with(&|tensors| tensors.get_mut("model.norm.weight").unwrap().0 = vec![128, 2]);
    refused_weights(&shape, &["tensor model.norm.weight: expected [256], found [128, 2]"]);
    for (number, shown) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (1e30, "1000000")] {
        let odd =
            with(&|tensors| tensors.get_mut("model.layers.1.mlp.up_proj.weight").unwrap().1[700] = number);
        refused_weights(&odd, &["tensor model.layers.1.mlp.up_proj.weight: expected numbers", shown]);
    }
    let odd = with(&|tensors| tensors.get_mut("model.norm.weight").unwrap().1[3] = f32::NAN);
    refused_weights(&odd, &["tensor model.norm.weight: expected numbers", "NaN"]);
    let odd = with(&|tensors| tensors.get_mut("model.embed_tokens.weight").unwrap().1[3] = f32::NAN);
    refused_weights(&odd, &["tensor model.embed_tokens.weight: expected numbers", "NaN"]);
}

#[test]
fn files_of_several_parts_are_all_there() {
    refused_folder(
        |folder| {
            fs::remove_file(folder.join("model.safetensors")).unwrap();
            Small::new("llama").safetensors(folder, "F32", 3);
            fs::remove_file(folder.join("part-1.safetensors")).unwrap();
        },
        &["part-1.safetensors", "No such file"],
    );
    refused_folder(
        |folder| {
            let index = r#"{"weight_map": {"model.norm.weight": "../model.safetensors"}}"#;
            fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
        },
        &["index.json: weight_map: expected names of files in its folder"],
    );
    refused_folder(
        |folder| {
            fs::rename(folder.join("model.safetensors"), folder.join("a.safetensors"))
                .and_then(|()| fs::write(folder.join("b.safetensors"), "x"))
                .unwrap()
        },
        &["2 .safetensors files and no model.safetensors.index.json"],
    );
    refused_folder(
        |folder| fs::remove_file(folder.join("tokenizer.json")).unwrap(),
        &["tokenizer.json", "save_pretrained"],
    );
}
