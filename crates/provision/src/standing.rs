//! The state of a board before a set-up file is applied.

use anyhow::{Context, Result, anyhow};
use dunlin_link::TLS_KEY;
use dunlin_wire::DeviceId;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use toml_edit::DocumentMut;

/// The folder of the certificates, beside the agent's configuration.
pub(crate) const TLS_FOLDER: &str = "tls";

/// The folders and files of the data partition.
pub struct DataPlaces {
    data: PathBuf,
}

impl DataPlaces {
    /// The places on a data partition mounted at `data`.
    pub fn of(data: &Path) -> Self {
        Self { data: data.into() }
    }

    /// The agent's configuration.
    pub fn agent_toml(&self) -> PathBuf {
        self.data.join("dunlin/etc/agent.toml")
    }

    /// The place for a configuration that is not TOML.
    pub(crate) fn unreadable(&self) -> PathBuf {
        self.data.join("dunlin/etc/agent.toml.unreadable")
    }

    pub(crate) fn password(&self) -> PathBuf {
        self.data.join("dunlin/credstore/dunlin.mqtt-password")
    }

    /// The folder of the certificates.
    pub(crate) fn tls(&self) -> PathBuf {
        self.data.join("dunlin/etc").join(TLS_FOLDER)
    }

    /// The key of the board's certificate, a credential of the service.
    pub(crate) fn tls_key(&self) -> PathBuf {
        self.data.join("dunlin/credstore").join(TLS_KEY)
    }

    /// The folder of the public keys for sealed sessions.
    pub(crate) fn seal(&self) -> PathBuf {
        self.data.join("dunlin/etc/seal")
    }

    /// The private key for sealed sessions, a credential of the service.
    pub(crate) fn seal_key(&self) -> PathBuf {
        self.data.join("dunlin/credstore/dunlin.seal-key")
    }

    pub(crate) fn hostname(&self) -> PathBuf {
        self.data.join("dunlin/hostname")
    }

    /// The marks of reports that brokers may keep.
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

/// The present state.
#[derive(Default)]
pub struct Standing {
    pub(crate) document: Option<DocumentMut>,
    /// A configuration that is not TOML, and the parser's error.
    pub(crate) unreadable: Option<(String, String)>,
    password: Option<String>,
    authorized_keys: String,
}

/// User and password for a broker.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerLogin {
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
}

impl Standing {
    /// Reads the present state.
    ///
    /// # Errors
    /// Names the file that can't be read.
    pub fn read(places: &DataPlaces) -> Result<Self> {
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

    /// True if the agent has all required settings.
    pub(crate) fn is_set_up(&self) -> bool {
        self.device().is_some() && self.broker().is_some()
    }

    /// User and password at the broker.
    pub fn login(&self) -> Option<BrokerLogin> {
        let user = self.document.as_ref()?.get("mqtt")?.get("user")?.as_str()?.into();
        Some(BrokerLogin { user, password: self.password.clone().unwrap_or_default() })
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.document.as_ref()?.get(key)?.as_str()
    }

    /// The authorised ssh keys, with `key` added.
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

/// A file's text; `None` if it doesn't exist.
///
/// # Errors
/// Names the file that can't be read or is not text.
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
