//! Files of this crate that the Debian package contains besides the program: its manual pages and its configuration.

use clap::CommandFactory;
use dunlin_agent::cli::Cli;
use dunlin_agent::config::{File, Overrides, Settings};
use dunlin_board::read;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn package() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../boards/package/agent")
}

/// The files of a folder, by name.
fn files(dir: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| {
            (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read_to_string(&path).unwrap())
        })
        .collect()
}

/// The pages are committed so that packaging doesn't need to run the tests of this crate.
#[test]
fn the_manual_pages_say_what_the_flags_are() {
    let (fresh, kept) = (TempDir::new().unwrap(), package().join("man"));
    clap_mangen::generate_to(Cli::command(), fresh.path()).unwrap();
    if std::env::var("INSTA_UPDATE").is_ok_and(|wish| wish == "always") {
        let _ = fs::remove_dir_all(&kept);
        fs::create_dir(&kept).unwrap();
        for (name, page) in files(fresh.path()) {
            fs::write(kept.join(name), page).unwrap();
        }
    }
    assert!(
        files(fresh.path()) == files(&kept),
        "boards/package/agent/man is behind the flags: run this test with INSTA_UPDATE=always"
    );
}

/// The keys of a configuration, as `table.key`.
fn keys(text: &str) -> BTreeSet<String> {
    let table: toml::Table = text.parse().unwrap();
    let mut keys = BTreeSet::new();
    for (name, value) in &table {
        match value {
            toml::Value::Table(inner) => keys.extend(inner.keys().map(|key| format!("{name}.{key}"))),
            _ => drop(keys.insert(name.clone())),
        }
    }
    keys
}

/// The configuration with its commented-out keys active.
fn uncommented(text: &str) -> String {
    let lines = text.lines().map(|line| match line.strip_prefix('#') {
        Some(key) if key.starts_with(|first: char| first.is_ascii_lowercase()) => key,
        _ => line,
    });
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_packages_configuration_is_the_one_of_the_manual() {
    let path = package().join("agent.toml");
    let text = fs::read_to_string(&path).unwrap();
    let settings = Settings::load(Some(&path), &Overrides::default()).unwrap();
    assert!(settings.board.is_none() && settings.login.is_none());
    let whole = uncommented(&text);
    let dir = TempDir::new().unwrap();
    let changed = dir.path().join("agent.toml");
    fs::write(&changed, &whole).unwrap();
    read::<File>(&changed).unwrap();
    let manual = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/agent.md")).unwrap();
    let (_, block) = manual.split_once("```toml\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    assert_eq!(keys(&whole), keys(block));
}
