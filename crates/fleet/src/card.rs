//! A board's card: all of its secrets as lines of `dunlin.txt`.

use crate::files::{Readers, read, read_private, replace};
use crate::fleet::Fleet;
use crate::issue::{SEAL, SEAL_CERTIFICATE};
use crate::keys::bytes_of_line;
use crate::x509::der;
use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use dunlin_wire::{BrokerRole, DeviceId, Identity};
use std::path::Path;

/// Bytes of a set-up file that a board reads.
const SETUP_BYTES_MAX: usize = 16 * 1024;
const HEAD: &str =
    "# The identity of this board, from dunlin-fleet. Whoever reads these lines can pass for the board.\n";

impl Fleet {
    /// The lines of a board that has its certificate.
    ///
    /// # Errors
    /// A file is missing, broken, or open to others.
    pub fn card(&self, name: &DeviceId) -> Result<String> {
        let folder = self.folder(&Identity { role: BrokerRole::Device, id: name.clone() });
        let certificate = |file: &str| {
            let path = folder.join(file);
            Ok::<_, anyhow::Error>(BASE64_STANDARD.encode(der(&path, &read(&path)?)?))
        };
        let key = crate::authority::key_pair(&folder.join("key.pem"))?;
        let line = |file: &str| {
            let path = folder.join(file);
            let text = if file.ends_with(".key") { read_private(&path)? } else { read(&path)? };
            bytes_of_line(&path, &text)?;
            Ok::<_, anyhow::Error>(text.trim().to_owned())
        };
        let lines = [
            ("name", name.to_string()),
            ("broker", self.register.broker.to_string()),
            ("tls_ca", certificate("ca.pem")?),
            ("tls_certificate", certificate("cert.pem")?),
            ("tls_key", BASE64_STANDARD.encode(key.serialized_der())),
            ("site_key", line("site.pub")?),
            ("seal_key", line(&format!("{SEAL}.key"))?),
            ("seal_certificate", line(SEAL_CERTIFICATE)?),
            ("collector_key", line("collector.pub")?),
        ];
        Ok(lines.iter().map(|(key, value)| format!("{key} = {value}\n")).collect())
    }
}

/// Writes a card's lines into a set-up file, which may exist: lines that leave one of these keys empty are replaced.
///
/// # Errors
/// The file sets one of the keys to another value, is too large, or can't be written.
pub(crate) fn write_into(file: &Path, card: &str) -> Result<()> {
    let old = if file.exists() { read(file)? } else { String::new() };
    let text = merged(&old, card).with_context(|| file.display().to_string())?;
    if text.len() > SETUP_BYTES_MAX {
        bail!("{} would be larger than the {SETUP_BYTES_MAX} bytes that a board reads", file.display());
    }
    replace(file, text, Readers::Owner)
}

fn merged(old: &str, card: &str) -> Result<String> {
    let entries: Vec<_> = card.lines().filter_map(|line| line.split_once(" = ")).collect();
    let mut text = String::new();
    for (number, line) in (1..).zip(old.lines()) {
        let entry = line.split_once('=').filter(|_| !line.trim_start().starts_with('#'));
        let known = entry.and_then(|(key, value)| {
            let (_, own) = entries.iter().find(|(name, _)| key.trim().eq_ignore_ascii_case(name))?;
            Some((key.trim(), value.trim(), *own))
        });
        match known {
            None if line == HEAD.trim_end() => {}
            None => text.extend([line, "\n"]),
            Some((_, value, own)) if value.is_empty() || value == own => {}
            Some((key, ..)) => {
                bail!("line {number} sets {key} to something else: remove it, or use another file")
            }
        }
    }
    Ok(text + HEAD + card)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CARD: &str = "name = plover-1\nbroker = mqtts://b:8883\ntls_key = AAAA\n";

    #[test]
    fn a_card_replaces_what_is_empty_and_keeps_the_rest() {
        let old = "# name = x\nname =\nBroker = mqtts://b:8883\nwifi_ssid = home\n";
        let text = merged(old, CARD).unwrap();
        assert_eq!(text, format!("# name = x\nwifi_ssid = home\n{HEAD}{CARD}"));
        assert_eq!(merged(&text, CARD).unwrap(), text, "twice is once");
        assert_eq!(merged("", CARD).unwrap(), format!("{HEAD}{CARD}"));
    }

    #[test]
    fn a_file_of_another_board_is_refused_without_its_values() {
        let error = merged("name = plover-2\n", CARD).unwrap_err().to_string();
        assert_eq!(error, "line 1 sets name to something else: remove it, or use another file");
        assert!(!merged("\ntls_key = SECRET\n", CARD).unwrap_err().to_string().contains("SECRET"));
    }
}
