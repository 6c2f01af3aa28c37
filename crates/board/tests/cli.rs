//! The interface for scripts: values on standard output only, and the exit codes.

#![allow(clippy::unwrap_used, reason = "a test that can't go on stops")]

use std::fs::{create_dir, write};
use std::path::Path;
use std::process::{Command, Stdio};

const BOARD: &str = "name = 'one'\n[build]\nglibc = '2.31'\n[power]\nrails = ['A', 'B']\n";

/// Runs the program in a folder; returns exit code, standard output and standard error.
fn run(dir: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dunlin-board"));
    let output = command.current_dir(dir).args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn values_errors_and_exit_codes() {
    let dir = tempfile::tempdir().unwrap();
    create_dir(dir.path().join("boards")).unwrap();
    write(dir.path().join("boards/one.toml"), BOARD).unwrap();
    let get = |board: &str, key: &str| run(dir.path(), &["get", board, key]);
    let said = |text: &str| (Some(0), text.to_owned(), String::new());
    assert_eq!(get("one", "build.glibc"), said("2.31\n"));
    assert_eq!(get("boards/one.toml", "power.rails"), said("A\nB\n"));
    assert_eq!(get("one", "image.boot"), said(""));
    let (code, out, error) = get("two", "name");
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(error.starts_with("dunlin-board: unknown board \"two\"; known boards are one"), "{error}");
    let (code, out, error) = get("one", "build.glib");
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(error.contains("unknown key \"build.glib\"; known keys are name, build.target"), "{error}");
    assert_eq!(get("none.toml", "name").0, Some(1));

    write(dir.path().join("boards/bad.toml"), "name = 'bad'\n[drafter]\nthreads = 0\n").unwrap();
    let (code, out, error) = get("bad", "name");
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(
        error.starts_with("dunlin-board: boards/bad.toml:3: drafter.threads: 0 is invalid; use 1"),
        "{error}"
    );
    let (code, out, error) = run(dir.path(), &["check"]);
    assert_eq!(code, Some(1));
    assert!(
        out.contains("boards/one.toml: one is valid\n") && error.contains("boards/bad.toml:3: "),
        "{error}"
    );
    assert_eq!(run(dir.path(), &["check", "one"]).0, Some(0));
    let (code, out, _) = run(dir.path(), &["list", "--boards", "boards"]);
    assert!(code == Some(0) && out.starts_with("bad\none\n"), "{out}");
    assert_eq!(run(dir.path(), &["got"]).0, Some(2));
}

#[test]
fn nobody_who_answers_is_a_no() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path().join("a.img"), "image").unwrap();
    let sum = "6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d  a.img\n";
    write(dir.path().join("a.img.sha256"), sum).unwrap();
    write(dir.path().join("card"), "old").unwrap();
    let (code, _, error) = run(dir.path(), &["flash", "a.img", "card"]);
    assert!(code == Some(1) && error.ends_with("that is not card: nothing was written\n"), "{error}");
    let (code, out, error) = run(dir.path(), &["flash", "--yes", "a.img", "card"]);
    assert_eq!((code, out.as_str()), (Some(0), ""), "{error}");
    assert_eq!(std::fs::read(dir.path().join("card")).unwrap(), b"image");
}
