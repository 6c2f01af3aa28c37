//! A board's values by their keys, for scripts.

use crate::board::Board;
use crate::read::read;
use anyhow::Result;
use std::path::Path;
use thiserror::Error;
use toml::{Table, Value};

/// Every key of a board's file.
pub const KEYS: [&str; 35] = [
    "name",
    "build.target",
    "build.cpu_features",
    "build.glibc",
    "build.emulated_cpu",
    "drafter.context_tokens_max",
    "drafter.threads",
    "drafter.memory_mib",
    "link.keep_alive_seconds",
    "link.radio",
    "power.source",
    "power.i2c",
    "power.address",
    "power.shunt_milliohms",
    "power.averaging",
    "power.supply_volts",
    "power.rails",
    "power.trace",
    "power.calibration",
    "power.telemetry_seconds",
    "power.sysfs",
    "power.vcgencmd",
    "modelled.idle_w",
    "modelled.draft_w",
    "modelled.score_w",
    "modelled.run_us",
    "modelled.weight_bytes_per_s",
    "modelled.flops",
    "modelled.score_ns_per_entry",
    "image.boot",
    "image.packages",
    "image.device_trees",
    "image.config",
    "image.kernel_arguments",
    "image.emulated_machine",
];

/// The key is unknown.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("unknown key {0:?}; known keys are {keys}", keys = KEYS.join(", "))]
pub struct UnknownKey(pub String);

/// The value of a key in a board's file: the entries of a list, or nothing if the key is missing. A mistake anywhere
/// in the file is an error.
///
/// # Errors
/// The key is unknown, or the file has a mistake.
pub fn get(path: &Path, key: &str) -> Result<Vec<String>> {
    if !KEYS.contains(&key) {
        return Err(UnknownKey(key.into()).into());
    }
    Board::load(path)?;
    let file: Table = read(path)?;
    let mut parts = key.split('.');
    let first = parts.next().and_then(|part| file.get(part));
    let value = parts.fold(first, |value, part| value.and_then(|value| value.get(part)));
    Ok(match value {
        None => Vec::new(),
        Some(Value::Array(entries)) => entries.iter().map(text).collect(),
        Some(value) => vec![text(value)],
    })
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::write;

    const BOARD: &str = "name = 'b'\n[build]\ntarget = 'aarch64-unknown-linux-gnu'\nglibc = '2.31'\n\
        [drafter]\nthreads = 1\n[power]\naddress = 0x41\nshunt_milliohms = 12.5\n[image]\nboot = 'virt'\n\
        packages = ['one', 'two']\nkernel_arguments = []\n";

    #[test]
    fn values_are_plain_text() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.toml");
        write(&path, BOARD).unwrap();
        let of = |key: &str| get(&path, key).unwrap();
        assert_eq!(of("name"), ["b"]);
        assert_eq!(of("build.target"), ["aarch64-unknown-linux-gnu"]);
        assert_eq!([of("drafter.threads"), of("power.address")], [["1"], ["65"]]);
        assert_eq!(of("power.shunt_milliohms"), ["12.5"]);
        assert_eq!(of("image.packages"), ["one", "two"]);
        for absent in ["image.kernel_arguments", "image.config", "modelled.flops", "power.rails"] {
            assert!(of(absent).is_empty(), "{absent}");
        }
        for unknown in ["image", "build.targets", "", "name.x", "power.address.x"] {
            let said = get(&path, unknown).unwrap_err().to_string();
            assert!(said.starts_with("unknown key ") && said.contains("build.target"), "{said}");
        }
        write(&path, BOARD.replace("threads = 1", "threads = 0")).unwrap();
        let said = get(&path, "name").unwrap_err().to_string();
        assert!(said.contains("b.toml:6: drafter.threads: 0 is invalid; use 1: "), "{said}");
    }

    /// For an unknown key, serde's error lists every known key.
    #[test]
    fn the_list_holds_every_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.toml");
        let expected = |text: String| -> Vec<String> {
            write(&path, text).unwrap();
            let said = Board::load(&path).unwrap_err().to_string();
            let (_, names) = said.split_once("expected ").unwrap_or_else(|| panic!("{said}"));
            names.split('`').skip(1).step_by(2).map(Into::into).collect()
        };
        let mut keys = vec!["name".to_owned()];
        for table in expected("name = 'b'\nunknown = 1\n".into()).into_iter().filter(|key| key != "name") {
            let names = expected(format!("name = 'b'\n[{table}]\nunknown = 1\n"));
            keys.extend(names.iter().map(|key| format!("{table}.{key}")));
        }
        keys.sort();
        let mut listed = KEYS.map(String::from).to_vec();
        listed.sort();
        assert_eq!(listed, keys);
    }
}
