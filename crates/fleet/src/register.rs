//! `fleet.toml`: the broker, and every certificate that was ever issued.

use crate::address::BrokerUrl;
use crate::files::{Readers, read, replace};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use time::OffsetDateTime;
use time::serde::rfc3339;

const FILE: &str = "fleet.toml";
/// The form of the folder.
const VERSION: u8 = 1;
const HEADER: &str =
    "# Kept by dunlin-fleet: which certificates were issued, and which are revoked. It contains no keys.\n";
/// Bytes of a certificate's serial number.
pub(crate) const SERIAL_BYTES: usize = 16;

/// A fleet's broker and certificates.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FleetRegister {
    version: u8,
    /// The broker, as boards reach it.
    pub(crate) broker: BrokerUrl,
    /// The folder of the broker's files on its machine.
    pub(crate) broker_dir: PathBuf,
    /// The certificates, oldest first.
    #[serde(default, rename = "certificate")]
    pub(crate) certificates: Vec<Issued>,
}

/// A certificate that was issued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Issued {
    /// Its common name.
    pub(crate) name: String,
    /// Its serial number.
    pub(crate) serial: Serial,
    /// Its end.
    #[serde(with = "rfc3339")]
    pub(crate) until: OffsetDateTime,
    /// The time of its revocation.
    #[serde(default, with = "rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub(crate) revoked: Option<OffsetDateTime>,
}

/// A serial number: positive, and always of the same length.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Serial(pub(crate) [u8; SERIAL_BYTES]);

impl Serial {
    /// The serial number of random bytes.
    pub(crate) fn of(mut bytes: [u8; SERIAL_BYTES]) -> Self {
        // A first bit of 1 would make it negative, and a first byte of 0 shorter.
        bytes[0] = bytes[0] & 0x3f | 0x40;
        Self(bytes)
    }
}

impl From<Serial> for String {
    fn from(serial: Serial) -> Self {
        serial.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl TryFrom<String> for Serial {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let byte =
            |at: usize| text.get(2 * at..2 * at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
        let mut bytes = [0; SERIAL_BYTES];
        for (at, slot) in bytes.iter_mut().enumerate() {
            *slot = byte(at).ok_or("a serial number has 32 hexadecimal digits")?;
        }
        if text.len() != 2 * SERIAL_BYTES || Self::of(bytes).0 != bytes {
            return Err("not a serial number of dunlin-fleet".into());
        }
        Ok(Self(bytes))
    }
}

impl FleetRegister {
    /// A register without certificates.
    pub(crate) fn new(broker: BrokerUrl, broker_dir: PathBuf) -> Self {
        Self { version: VERSION, broker, broker_dir, certificates: Vec::new() }
    }

    /// Reads the register of a fleet.
    pub(crate) fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let text = read(&path).with_context(|| {
            format!("{} is not the folder of a fleet: make one with `dunlin-fleet init DIR`", dir.display())
        })?;
        let register: Self = toml::from_str(&text).with_context(|| path.display().to_string())?;
        if register.version != VERSION {
            bail!("{}: version {} is not known to this program", path.display(), register.version);
        }
        Ok(register)
    }

    /// Writes it into the folder.
    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        let text = toml::to_string(self).context("the register")?;
        replace(&dir.join(FILE), HEADER.to_owned() + &text, Readers::Owner)
    }

    /// The newest certificate of a name, if it is not revoked.
    pub(crate) fn present(&self, name: &str) -> Option<&Issued> {
        self.certificates.iter().rfind(|issued| issued.name == name).filter(|issued| issued.revoked.is_none())
    }

    /// The names that have a certificate which is not revoked, sorted.
    pub(crate) fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self
            .certificates
            .iter()
            .filter(|issued| issued.revoked.is_none())
            .map(|issued| issued.name.as_str())
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The revoked certificates.
    pub(crate) fn revoked(&self) -> impl Iterator<Item = (&Serial, OffsetDateTime)> {
        self.certificates.iter().filter_map(|issued| Some((&issued.serial, issued.revoked?)))
    }
}
