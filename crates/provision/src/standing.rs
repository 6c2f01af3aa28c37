//! What a board was set up with before, and its configuration with what a new file names.

use super::setup::{Login, Setup};
use anyhow::{Context, Result, anyhow};
use dunlin_wire::DeviceId;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use toml_edit::{DocumentMut, Item, Table, Value, value};

const HEADER: &str = "\
# From dunlin.txt. Edit it as you like: what a later dunlin.txt does not name stays as it is here.
# Every key is in agent.md.
";

/// The folders and files of the data partition.
pub struct Places {
    data: PathBuf,
}

impl Places {
    /// Those of a data partition that is mounted at `data`.
    pub fn of(data: &Path) -> Self {
        Self { data: data.into() }
    }

    /// The agent's configuration.
    pub fn agent_toml(&self) -> PathBuf {
        self.data.join("dunlin/etc/agent.toml")
    }

    /// Where a configuration that is no TOML is kept.
    pub(crate) fn unreadable(&self) -> PathBuf {
        self.data.join("dunlin/etc/agent.toml.unreadable")
    }

    pub(crate) fn password(&self) -> PathBuf {
        self.data.join("dunlin/credstore/dunlin.mqtt-password")
    }

    pub(crate) fn hostname(&self) -> PathBuf {
        self.data.join("dunlin/hostname")
    }

    /// Remembers that a report lies with a broker.
    pub fn reported(&self) -> PathBuf {
        self.data.join("dunlin/setup-reported")
    }

    pub(crate) fn wifi(&self) -> PathBuf {
        self.data.join("network/wpa_supplicant-wlan0.conf")
    }

    pub(crate) fn authorized_keys(&self) -> PathBuf {
        self.data.join("ssh/authorized_keys")
    }
}

/// What stands already.
#[derive(Default)]
pub struct Standing {
    document: Option<DocumentMut>,
    /// A configuration that is no TOML, and why.
    pub(crate) unreadable: Option<(String, String)>,
    password: Option<String>,
    authorized_keys: String,
}

/// What a new configuration names that a set-up file doesn't.
pub struct Defaults {
    /// The board's name, where it is known.
    pub board: Option<String>,
    /// The drafter's directory.
    pub model: PathBuf,
}

impl Standing {
    /// Reads what is there.
    ///
    /// # Errors
    /// Names the file that can't be read.
    pub fn read(places: &Places) -> Result<Self> {
        let mut standing = Self {
            password: text_of(&places.password())?,
            authorized_keys: text_of(&places.authorized_keys())?.unwrap_or_default(),
            ..Self::default()
        };
        let path = places.agent_toml();
        if let Some(text) = text_of(&path)? {
            match text.parse::<DocumentMut>() {
                Ok(document) => standing.document = Some(document),
                Err(error) => {
                    let why = dunlin_board::wrong(&path, &text, error.span(), error.message());
                    standing.unreadable = Some((text, format!("{why:#}")));
                }
            }
        }
        Ok(standing)
    }

    /// This device's name.
    pub fn device(&self) -> Option<DeviceId> {
        self.text("device")?.parse().ok()
    }

    /// The broker's address.
    pub fn broker(&self) -> Option<String> {
        self.text("broker").map(Into::into)
    }

    /// Whether an agent has what it needs.
    pub(crate) fn is_set_up(&self) -> bool {
        self.device().is_some() && self.broker().is_some()
    }

    /// User and password at the broker.
    pub fn login(&self) -> Option<Login> {
        let user = self.document.as_ref()?.get("mqtt")?.get("user")?.as_str()?.into();
        Some(Login { user, password: self.password.clone().unwrap_or_default() })
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.document.as_ref()?.get(key)?.as_str()
    }

    /// The configuration with what `setup` names; what it doesn't name stays.
    ///
    /// # Errors
    /// Names a key that is in the way.
    pub(crate) fn configured(&self, setup: &Setup, defaults: &Defaults) -> Result<String> {
        let mut document = self.document.clone().unwrap_or_else(fresh);
        let root = document.as_table_mut();
        set(root, "device", setup.name.as_ref().map(DeviceId::as_str));
        set(root, "broker", setup.broker.as_deref());
        let model = defaults.model.to_str().context("the model's path is no text")?;
        set(root, "board", defaults.board.as_deref().filter(|_| !root.contains_key("board")));
        set(root, "model", Some(model).filter(|_| !root.contains_key("model")));
        if let Some(login) = &setup.login {
            let mqtt = root.entry("mqtt").or_insert_with(toml_edit::table);
            let mqtt = mqtt.as_table_like_mut().context("agent.toml: mqtt is no table")?;
            match mqtt.get_mut("user") {
                Some(item) => replace(item, &login.user),
                None => drop(mqtt.insert("user", value(&login.user))),
            }
            // A file named here would be read in place of the credential.
            mqtt.remove("password_file");
        }
        Ok(document.to_string())
    }

    /// The keys that may log in, with `key` among them.
    pub(crate) fn with_key(&self, key: &str) -> String {
        let mut keys = self.authorized_keys.clone();
        if !keys.lines().any(|line| line.trim() == key) {
            if !keys.is_empty() && !keys.ends_with('\n') {
                keys.push('\n');
            }
            keys = keys + key + "\n";
        }
        keys
    }
}

/// A configuration of nothing but its header.
fn fresh() -> DocumentMut {
    let mut document = DocumentMut::new();
    document.decor_mut().set_prefix(HEADER);
    document
}

/// Sets a key, where there is something to set it to; the comments around it stay.
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

/// A file's text; `None` where there is no file.
///
/// # Errors
/// Names the file that can't be read, or is no text.
pub fn text_of(path: &Path) -> Result<Option<String>> {
    match fs::read(path) {
        Ok(bytes) => {
            let text = String::from_utf8(bytes).map_err(|_| anyhow!("{}: not UTF-8", path.display()))?;
            Ok(Some(text))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}
