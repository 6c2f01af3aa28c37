//! The program with the engine llama.cpp: its text, and files that llama.cpp doesn't survive.

#![allow(clippy::unwrap_used)] // applies to the tests' helpers, too

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo")
}

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dunlin-verifier"))
        .args(args)
        .env_remove("RUST_LOG")
        .env("CANDLE_NUM_THREADS", "1")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The demo's target as a file alone, changed, and what `check` says of it.
fn checked(change: impl FnOnce(&mut Vec<u8>)) -> (TempDir, Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.gguf");
    let mut file = fs::read(demo().join("target/target.gguf")).unwrap();
    change(&mut file);
    fs::write(&path, file).unwrap();
    fs::copy(demo().join("tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    let output =
        run(&["check", "--engine", "llamacpp", "--embedded-broker", "--model", path.to_str().unwrap()]);
    (folder, output.status.code(), text(&output.stdout))
}

/// Puts numbers among a file's settings. Together they take a multiple of 32 bytes, so that the data stay in their places.
fn add(file: &mut Vec<u8>, settings: &[(&str, u32)]) {
    let count = u64::from_le_bytes(file[16..24].try_into().unwrap()) + settings.len() as u64;
    file[16..24].copy_from_slice(&count.to_le_bytes());
    let mut added = Vec::new();
    for (key, number) in settings {
        added.extend((key.len() as u64).to_le_bytes());
        added.extend(key.as_bytes());
        // 4 is the type of 32-bit numbers.
        added.extend([4, *number].map(u32::to_le_bytes).concat());
    }
    assert_eq!(added.len() % 32, 0);
    file.splice(24..24, added);
}

#[test]
fn a_sound_file_is_served() {
    let (_folder, code, said) = checked(|_| {});
    assert!(code == Some(0) && said.contains("llama.cpp of llama-cpp-sys-2"), "{said}");
}

#[test]
fn a_file_that_ends_llama_cpp_is_an_error_of_check() {
    let (_folder, code, said) =
        checked(|file| add(file, &[("llama.expert_used_count", 5), ("fills.up.", 0)]));
    assert_eq!(code, Some(1), "{said}");
    for words in ["bad.gguf: not a usable GGUF file: llama.cpp gave up", "GGML_ASSERT", "convert it again"] {
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn a_hole_is_an_error_of_check() {
    let (_folder, code, said) = checked(|file| {
        let place = file.len() / 2;
        // No multiple of a row's 408 or 1088 bytes, which would be a warning of zero rows.
        file[place..place + 20_200].fill(0);
    });
    assert!(code == Some(1) && said.contains("has zeros alone from its byte"), "{said}");
}

#[test]
fn the_command_of_a_child_takes_nothing_else() {
    let output = run(&["rehearse", "model.gguf"]);
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("for dunlin-verifier itself"), "{said}");
    assert!(!text(&run(&["--help"]).stdout).contains("rehearse"));
}
