//! The interface for scripts, its help as a snapshot, and the manual pages.

#![allow(clippy::unwrap_used, reason = "a test that can't go on stops")]

use clap::CommandFactory;
use dunlin_fleet::cli::Cli;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs the program in a folder; returns exit code, standard output and standard error.
fn run(dir: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dunlin-fleet"));
    let output =
        command.current_dir(dir).args(arguments).env("USER", "anna").stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[track_caller]
fn good(dir: &Path, arguments: &[&str]) -> String {
    let (code, out, error) = run(dir, arguments);
    assert_eq!((code, error.as_str()), (Some(0), ""), "{arguments:?}");
    out
}

#[track_caller]
fn refused(dir: &Path, arguments: &[&str], code: i32, words: &str) {
    let (found, out, error) = run(dir, arguments);
    assert_eq!((found, out.as_str()), (Some(code), ""), "{arguments:?}: {error}");
    assert!(error.contains(words), "{arguments:?}: {error}");
}

#[test]
fn from_nothing_to_two_boards() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let next = good(dir, &["init", "fleet", "--broker", "mqtts://broker.lan"]);
    assert!(
        next.contains("sudo install -D -o mosquitto -m 0640 -t /etc/mosquitto/dunlin fleet/broker/*\n"),
        "{next}"
    );
    fs::write(dir.join("dunlin.txt"), "# mine\nname =\nbroker =\nwifi_ssid = home\n").unwrap();
    good(dir, &["card", "plover-1", "--into", "dunlin.txt"]);
    let text = fs::read_to_string(dir.join("dunlin.txt")).unwrap();
    assert!(text.starts_with("# mine\nwifi_ssid = home\n# The identity of this board"), "{text}");
    let card = good(dir, &["card", "plover-1"]);
    assert!(text.ends_with(&card));
    let keys: Vec<_> = card.lines().filter_map(|line| line.split(" = ").next()).collect();
    assert_eq!(
        keys,
        [
            "name",
            "broker",
            "tls_ca",
            "tls_certificate",
            "tls_key",
            "site_key",
            "seal_key",
            "seal_certificate",
            "collector_key"
        ]
    );
    assert!(card.starts_with("name = plover-1\nbroker = mqtts://broker.lan:8883\ntls_ca = "));
    refused(dir, &["card", "plover-2", "--into", "dunlin.txt"], 1, "line 4 sets name to something else");
    let said = good(dir, &["card", "plover-2", "--files", "tls"]);
    assert!(
        said.contains(
            "agent.toml, ca.pem, cert.pem, collector.pub, key.pem, seal.cert, seal.key, seal.pub, site.pub"
        ),
        "{said}"
    );
    refused(dir, &["card", "plover-2", "--files", "tls"], 1, "exists already");

    good(dir, &["verifier", "verifier-2"]);
    refused(dir, &["verifier", "verifier-2"], 1, "v.verifier-2 has an identity");
    good(dir, &["service", "w.grafana"]);
    let acl = good(dir, &["acl"]);
    assert_eq!(fs::read_to_string(dir.join("fleet/broker/acl")).unwrap(), acl);
    assert!(acl.contains("\nuser w.grafana\n") && !acl.contains("plover"), "{acl}");
    assert!(good(dir, &["acl", "--for", "emqx"]).ends_with("\n{deny, all}.\n"));

    assert_eq!(good(dir, &["check"]), "fleet is in order: 7 certificates, broker mqtts://broker.lan:8883\n");
    let listed = good(dir, &["list"]);
    assert!(listed.contains("\nv.verifier-2 "), "{listed}");
    good(dir, &["revoke", "w.grafana"]);
    assert!(!fs::read_to_string(dir.join("fleet/broker/acl")).unwrap().contains("w.grafana"));
    let rows: serde_json::Value = serde_json::from_str(&good(dir, &["list", "--json"])).unwrap();
    assert_eq!(rows[6]["name"], "w.grafana");
    assert_eq!(rows[6]["state"], "revoked");
    assert!(good(dir, &["renew"]).starts_with("no certificate"));
    good(dir, &["renew", "b.broker"]);
    fs::remove_file(dir.join("fleet/broker/acl")).unwrap();
    refused(dir, &["check"], 1, "dunlin-fleet: problem: run `dunlin-fleet broker`: ");
    good(dir, &["broker"]);
    good(dir, &["check"]);
}

#[test]
fn what_is_wrong_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    refused(dir, &["list"], 1, "make one with `dunlin-fleet init DIR`");
    refused(dir, &["init", "fleet", "--broker", "mqtt://broker"], 2, "\"mqtt\" is not mqtts");
    refused(dir, &["init", "fleet", "--broker", "mqtts://b", "--broker-dir", "a b"], 2, "an absolute path");
    refused(dir, &["init", "fleet", "--broker", "mqtts://b", "--operator", "o.x"], 2, "an id has only");
    good(dir, &["init", "fleet", "--broker", "mqtts://broker"]);
    refused(dir, &["init", "fleet", "--broker", "mqtts://broker"], 1, "fleet is not empty");
    refused(dir, &["card", "v.plover"], 2, "names with a dot are services'");
    refused(dir, &["card", "-plover", "--files", "x"], 2, "unexpected argument");
    refused(dir, &["card", "Plover"], 2, "a board's name has a-z");
    refused(dir, &["card", "plover-"], 2, "begins and ends with a letter or digit");
    refused(dir, &["card", "plover-1", "--files", "no/such/folder"], 1, "no/such/folder can't be made");
    refused(dir, &["card", "plover-1", "--into", "no/such/file"], 1, "no/such/file can't be written");
    refused(dir, &["service", "plover-1"], 2, "boards have cards");
    refused(dir, &["service", "x.y"], 2, "stands v, o, s, w or e");
    refused(dir, &["revoke", "plover-9"], 1, "known names are b.broker, o.anna, plover-1, v.verifier-1");
    refused(dir, &["renew", "plover-9"], 1, "no certificate was issued for \"plover-9\"");
    fs::write(dir.join("fleet/fleet.toml"), "version = 2\n").unwrap();
    refused(dir, &["list"], 1, "fleet/fleet.toml: ");
}

/// The files of a folder, by name.
fn files(dir: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let named = |path: std::path::PathBuf| {
        (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read_to_string(&path).unwrap())
    };
    entries.map(named).collect()
}

#[test]
fn the_manual_pages_say_what_the_flags_are() {
    let (fresh, kept) = (tempfile::tempdir().unwrap(), Path::new(env!("CARGO_MANIFEST_DIR")).join("man"));
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
        "crates/fleet/man is behind the flags: run this test with INSTA_UPDATE=always"
    );
}
