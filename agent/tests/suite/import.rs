//! The command `import`: its report and its exit codes.

use crate::process::demo;
use dunlin_lm::ModelDir;
use std::path::Path;
use std::process::{Command, Output};

fn import(source: &Path, out: &Path, more: &[&str]) -> Output {
    let mut agent = Command::new(env!("CARGO_BIN_EXE_dunlin-agent"));
    agent.arg("import").arg(source).arg("--out").arg(out).args(more).env_remove("RUST_LOG").output().unwrap()
}

#[test]
fn a_model_is_imported_with_a_report() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("drafter");
    let done = import(&demo("target"), &out, &["--drop-layers", "2,3"]);
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    let report = String::from_utf8(done.stdout).unwrap();
    assert!(report.contains("blk.0.attn_q.weight: Q8_0 to 4 bits, rounded twice, error 0.0"), "{report}");
    assert!(!report.contains("blk.2.") && report.contains("largest error: 0.0"), "{report}");
    assert!(report.contains("\nacceptance by the source: 0."), "{report}");
    assert!(report.lines().last().unwrap().contains("drafter: llama, 6 of 8 layers, "), "{report}");
    ModelDir::open(&out).unwrap();
}

#[test]
fn a_mistake_is_named_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("drafter");
    let both = import(&demo("target"), &out, &["--layers", "0", "--drop-layers", "1"]);
    assert_eq!(both.status.code(), Some(2), "{both:?}");
    let beyond = import(&demo("target"), &out, &["--layers", "0,8"]);
    assert_eq!(beyond.status.code(), Some(1), "{beyond:?}");
    let message = String::from_utf8(beyond.stderr).unwrap();
    assert!(message.contains("--layers: expected rising numbers below 8, found 8"), "{message}");
    assert!(folder.path().read_dir().unwrap().next().is_none());
}
