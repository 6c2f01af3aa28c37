//! The agent's configuration: the existing one, updated from a set-up file.

use super::setup::BoardSetup;
use super::standing::{Standing, TLS_FOLDER};
use anyhow::{Context, Result};
use dunlin_link::BrokerAddress;
use dunlin_wire::DeviceId;
use std::path::PathBuf;
use toml_edit::{DocumentMut, Item, Table, Value, value};

const HEADER: &str = "\
# From dunlin.txt. Edit it as you like: what a later dunlin.txt does not name stays as it is here.
# Every key is in agent.md.
";

/// Values of a new configuration that a set-up file doesn't provide.
pub struct Defaults {
    /// The board's name, if known.
    pub board: Option<String>,
    /// The drafter's directory.
    pub model: PathBuf,
}

/// The existing configuration with the values that `setup` provides; other values stay.
///
/// # Errors
/// Names a key that prevents the change.
pub(crate) fn configured(standing: &Standing, setup: &BoardSetup, defaults: &Defaults) -> Result<String> {
    let mut document = standing.document.clone().unwrap_or_else(fresh);
    let root = document.as_table_mut();
    set(root, "device", setup.name.as_ref().map(DeviceId::as_str));
    set(root, "broker", setup.broker.as_deref());
    let model = defaults.model.to_str().context("the model's path is not UTF-8")?;
    set(root, "board", defaults.board.as_deref().filter(|_| !root.contains_key("board")));
    set(root, "model", Some(model).filter(|_| !root.contains_key("model")));
    if let Some(login) = &setup.login {
        let mqtt = root.entry("mqtt").or_insert_with(toml_edit::table);
        let mqtt = mqtt.as_table_like_mut().context("agent.toml: mqtt is not a table")?;
        match mqtt.get_mut("user") {
            Some(item) => replace(item, &login.user),
            None => drop(mqtt.insert("user", value(&login.user))),
        }
        // A `password_file` would be used instead of the credential.
        mqtt.remove("password_file");
    }
    if setup.tls.is_some() {
        let tls = root.entry("tls").or_insert_with(toml_edit::table);
        let tls = tls.as_table_like_mut().context("agent.toml: tls is not a table")?;
        for (key, file) in [("ca_file", "ca.pem"), ("cert_file", "cert.pem")] {
            let path = format!("{TLS_FOLDER}/{file}");
            match tls.get_mut(key) {
                Some(item) => replace(item, &path),
                None => drop(tls.insert(key, value(path))),
            }
        }
        // A `key_file` would be used instead of the credential.
        tls.remove("key_file");
    }
    if let Some(broker) = setup.broker.as_deref().and_then(|broker| broker.parse::<BrokerAddress>().ok()) {
        protect(root, &broker)?;
    }
    Ok(document.to_string())
}

/// Makes the keys of TLS suit a new broker: the agent refuses what contradicts its address.
fn protect(root: &mut Table, broker: &BrokerAddress) -> Result<()> {
    if !broker.tls {
        root.remove("tls");
    }
    let insecure = !broker.tls && !broker.is_loopback();
    if insecure || root.contains_key("mqtt") {
        let mqtt = root.entry("mqtt").or_insert_with(toml_edit::table);
        let mqtt = mqtt.as_table_like_mut().context("agent.toml: mqtt is not a table")?;
        if insecure {
            mqtt.insert("insecure", value(true));
        } else {
            mqtt.remove("insecure");
        }
    }
    Ok(())
}

/// A configuration that consists only of its header.
fn fresh() -> DocumentMut {
    let mut document = DocumentMut::new();
    document.decor_mut().set_prefix(HEADER);
    document
}

/// Sets a key if there is a value for it; comments around it stay.
fn set(table: &mut Table, key: &str, text: Option<&str>) {
    match (text, table.get_mut(key)) {
        (None, _) => {}
        (Some(text), Some(item)) => replace(item, text),
        (Some(text), None) => drop(table.insert(key, value(text))),
    }
}

fn replace(item: &mut Item, text: &str) {
    let mut new = Value::from(text);
    if let Some(old) = item.as_value() {
        *new.decor_mut() = old.decor().clone();
    }
    *item = Item::Value(new);
}
