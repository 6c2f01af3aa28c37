//! Models that are imported when they are first used.

use crate::small::Small;
use dunlin_import::{Loadable, PendingImport, Watch};
use dunlin_lm::{ModelDir, Role};
use dunlin_lm_tract::Drafter;
use std::fs;
use std::path::{Path, PathBuf};

fn pending(path: &Path, role: Role) -> PendingImport {
    match Loadable::of(path, role).unwrap() {
        Loadable::Pending(pending) => pending,
        Loadable::At(path) => panic!("{} is loaded as it is", path.display()),
    }
}

fn at(path: &Path, role: Role) -> PathBuf {
    match Loadable::of(path, role).unwrap() {
        Loadable::At(path) => path,
        Loadable::Pending(pending) => panic!("{pending:?}"),
    }
}

fn run(pending: &PendingImport) -> bool {
    pending.run(&mut Watch::new(&mut |_, _| true)).unwrap().is_some()
}

#[test]
fn a_gguf_file_becomes_a_drafter_once() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("m.gguf");
    fs::write(&source, Small::new("llama").gguf("F16")).unwrap();
    assert_eq!(at(&source, Role::Target), source, "a target as it is");
    let first = pending(&source, Role::Drafter);
    assert_eq!(first.out, folder.path().join("m.dunlin-drafter"));
    // The rest of an import that was killed.
    let rest = folder.path().join(".dunlin-import-m.dunlin-drafter");
    fs::create_dir(&rest).unwrap();
    fs::write(rest.join("model.onnx_data"), "half").unwrap();
    assert!(run(&first));
    assert!(!rest.exists());
    assert_eq!(at(&source, Role::Drafter), first.out);
    assert_eq!(at(folder.path(), Role::Drafter), first.out, "the file's folder");
    Drafter::load(&ModelDir::open(&first.out).unwrap()).unwrap();
    assert!(!run(&first), "another program may have made it meanwhile");
}

#[test]
fn a_changed_source_is_imported_again() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("m.gguf");
    fs::write(&source, Small::new("llama").gguf("F16")).unwrap();
    let out = pending(&source, Role::Drafter).out;
    assert!(run(&pending(&source, Role::Drafter)));
    fs::write(out.join("older"), "").unwrap();
    fs::write(&source, Small::new("llama").gguf("Q4_0")).unwrap();
    assert!(run(&pending(&source, Role::Drafter)));
    assert!(!out.join("older").exists());
    assert_eq!(at(&source, Role::Drafter), out);
    // A tokenizer beside a GGUF file is used in place of its own.
    fs::copy(out.join("tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    pending(&source, Role::Drafter);
}

#[test]
fn a_folder_of_safetensors_serves_either_side() {
    let folder = tempfile::tempdir().unwrap();
    Small::new("qwen2").safetensors(folder.path(), "BF16", 2);
    for (role, name) in [(Role::Drafter, "dunlin-drafter"), (Role::Target, "dunlin-target")] {
        let first = pending(folder.path(), role);
        assert_eq!(first.out, folder.path().join(name));
        assert!(run(&first));
        let dir = ModelDir::open(at(folder.path(), role)).unwrap();
        assert_eq!(dir.role, Some(role));
    }
    // What was imported comes after what is there.
    fs::write(folder.path().join("m.gguf"), "").unwrap();
    assert_eq!(at(folder.path(), Role::Target), folder.path());
    fs::write(folder.path().join("model.onnx"), "").unwrap();
    assert_eq!(at(folder.path(), Role::Drafter), folder.path());
}

#[test]
fn folders_of_others_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("m.gguf");
    fs::write(&source, Small::new("llama").gguf("F16")).unwrap();
    let pending = pending(&source, Role::Drafter);
    fs::create_dir(&pending.out).unwrap();
    Loadable::of(&source, Role::Drafter).expect("an empty folder is filled");
    fs::write(pending.out.join("notes"), "mine").unwrap();
    let refused = [
        Loadable::of(&source, Role::Drafter).unwrap_err().to_string(),
        pending.run(&mut Watch::new(&mut |_, _| true)).unwrap_err().to_string(),
    ];
    assert!(refused.iter().all(|message| message.contains("give its path as the model")), "{refused:?}");
    assert_eq!(fs::read_to_string(pending.out.join("notes")).unwrap(), "mine");
}

#[test]
fn nothing_is_left_of_an_import_that_fails() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("m.gguf");
    fs::write(&source, Small::new("llama").gguf("F16")).unwrap();
    let pending = pending(&source, Role::Drafter);
    pending.run(&mut Watch::new(&mut |_, _| false)).unwrap_err();
    let names = || folder.path().read_dir().unwrap().count();
    assert_eq!(names(), 1);
    // Where the rest of another import can't be removed, nothing can be kept either.
    fs::write(folder.path().join(".dunlin-import-m.dunlin-drafter"), "").unwrap();
    let message = pending.run(&mut Watch::new(&mut |_, _| true)).unwrap_err().to_string();
    assert!(message.contains("make one elsewhere with `dunlin-agent import`"), "{message}");
}

/// A hole is the mark of an unfinished download.
#[test]
fn a_hole_in_the_weights_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("m.gguf");
    let mut bytes = Small::new("llama").gguf("F16");
    let middle = bytes.len() / 2;
    bytes[middle..middle + 40_000].fill(0);
    fs::write(&source, bytes).unwrap();
    let message = pending(&source, Role::Drafter).run(&mut Watch::new(&mut |_, _| true));
    let message = message.unwrap_err().to_string();
    assert!(message.contains("has zeros alone from its byte"), "{message}");
}
