//! The `[mqtt]` table of a configuration, shared by all programs.

use crate::address::BrokerAddress;
use crate::login::{Login, Secret};
use crate::tls::{Security, TlsTable};
use anyhow::{Context, Result, bail, ensure};
use dunlin_board::{KEEP_ALIVE_SECONDS_MAX, KEEP_ALIVE_SECONDS_MIN};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Default keep-alive.
const KEEP_ALIVE_SECONDS: u64 = 30;

/// User, password, keep-alive and permission to do without TLS; every key is optional.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MqttTable {
    /// The user name, if the broker's address has none.
    pub user: Option<String>,
    /// The password's file; by default, the service's credential.
    pub password_file: Option<PathBuf>,
    /// Silence after which the connection is tested.
    pub keep_alive_seconds: Option<u64>,
    /// True to speak to another machine without TLS.
    pub insecure: bool,
}

impl MqttTable {
    /// The login in the address, or else that of the keys. A `password_file` is relative to `dir`. Without one, the
    /// password is the service's `credential`, or empty if that doesn't exist.
    ///
    /// # Errors
    /// A password without a user, or a file that can't be read.
    pub fn login(
        &self,
        address: &BrokerAddress,
        dir: &Path,
        credential: Option<&Path>,
    ) -> Result<Option<Login>> {
        if address.login.is_some() {
            return Ok(address.login.clone());
        }
        let Some(user) = self.user.clone() else {
            match self.password_file {
                Some(_) => bail!("mqtt.password_file without mqtt.user"),
                None => return Ok(None),
            }
        };
        let file = self.password_file.as_ref().map(|file| dir.join(file));
        let path = file.as_deref().or(credential.filter(|path| path.exists()));
        let read = |path: &Path| Secret::read(path).with_context(|| path.display().to_string());
        let password = path.map(read).transpose()?.unwrap_or_default();
        Ok(Some(Login { user, password }))
    }

    /// The protection of a connection to `broker`: TLS with the files of `tls`, or else those in `installed`, whose key
    /// may be the service's `credential`; or none, for a broker on this machine or where that is allowed.
    ///
    /// # Errors
    /// Names the file of TLS that is missing or invalid, or the contradiction between address and keys.
    pub fn security(
        &self,
        broker: &BrokerAddress,
        tls: &TlsTable,
        installed: &Path,
        credential: Option<&Path>,
    ) -> Result<Security> {
        if broker.tls {
            return Ok(Security::Tls(tls.files(installed, credential).context("tls")?));
        }
        ensure!(
            tls.is_empty(),
            "broker: {} doesn't use the files under [tls]: write mqtts://, or remove them",
            broker.url()
        );
        ensure!(
            self.insecure || broker.is_loopback(),
            "broker: {} has no TLS, so everybody on the way could read and write the text: use mqtts:// (docs/access.md), or allow it with insecure = true under [mqtt] or --insecure",
            broker.url()
        );
        Ok(Security::Plain)
    }

    /// The keep-alive, or by default the board's.
    ///
    /// # Errors
    /// It is out of range.
    pub fn keep_alive(&self, of_board: Option<u64>) -> Result<Duration> {
        let seconds = self.keep_alive_seconds.or(of_board).unwrap_or(KEEP_ALIVE_SECONDS);
        if !(KEEP_ALIVE_SECONDS_MIN..=KEEP_ALIVE_SECONDS_MAX).contains(&seconds) {
            bail!(
                "mqtt.keep_alive_seconds: {seconds} is not within {KEEP_ALIVE_SECONDS_MIN} and {KEEP_ALIVE_SECONDS_MAX}"
            );
        }
        Ok(Duration::from_secs(seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_password_is_the_addresses_the_files_or_the_services() {
        let dir = tempfile::tempdir().unwrap();
        let credential = dir.path().join("given");
        let password = |address: &str, text: &str, credential: Option<&Path>| {
            let table: MqttTable = toml::from_str(text).unwrap();
            let login = table.login(&address.parse().unwrap(), dir.path(), credential)?;
            anyhow::Ok(login.map(|login| login.password.expose().to_owned()))
        };
        let given = Some(credential.as_path());
        let user = "user = 'u'";
        assert_eq!(password("h", user, given).unwrap().as_deref(), Some(""), "it isn't there");
        fs::write(&credential, "given\n").unwrap();
        fs::write(dir.path().join("own"), "own\r\n").unwrap();
        assert_eq!(password("h", user, given).unwrap().as_deref(), Some("given"));
        assert_eq!(password("h", user, None).unwrap().as_deref(), Some(""));
        let named = "user = 'u'\npassword_file = 'own'";
        assert_eq!(password("h", named, given).unwrap().as_deref(), Some("own"));
        assert_eq!(password("a:in@h", named, given).unwrap().as_deref(), Some("in"));
        assert_eq!(password("h", "", given).unwrap(), None, "nobody to log in as");
        assert!(password("h", "password_file = 'own'", None).unwrap_err().to_string().contains("mqtt.user"));
        fs::remove_file(&credential).unwrap();
        fs::create_dir(&credential).unwrap();
        assert!(password("h", user, given).is_err(), "one that is there must be readable");
    }

    #[test]
    fn plain_mqtt_is_for_this_machine_or_by_permission() {
        let dir = tempfile::tempdir().unwrap();
        let security = |address: &str, insecure: bool, tls: &str| {
            let table = MqttTable { insecure, ..MqttTable::default() };
            let tls: TlsTable = toml::from_str(tls).unwrap();
            let broker: BrokerAddress = address.parse().unwrap();
            table.security(&broker, &tls, dir.path(), None).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(security("localhost", false, ""), Ok(Security::Plain));
        assert_eq!(security("192.168.1.10", true, ""), Ok(Security::Plain));
        let refused = security("a:hush@192.168.1.10", false, "").unwrap_err();
        assert!(
            refused.contains("mqtt://192.168.1.10:1883 has no TLS") && refused.contains("--insecure"),
            "{refused}"
        );
        assert!(!refused.contains("hush"), "{refused}");
        let unused = security("localhost", false, "ca_file = 'ca.pem'").unwrap_err();
        assert!(unused.contains("doesn't use the files under [tls]"), "{unused}");
        let missing = security("mqtts://h", true, "ca_file = 'nowhere.pem'").unwrap_err();
        assert!(missing.contains("nowhere.pem: No such file"), "{missing}");
    }

    #[test]
    fn a_keep_alive_is_ones_own_or_the_boards_within_its_range() {
        let table = |seconds| MqttTable { keep_alive_seconds: seconds, ..MqttTable::default() };
        assert_eq!(table(None).keep_alive(None).unwrap(), Duration::from_secs(30));
        assert_eq!(table(None).keep_alive(Some(20)).unwrap(), Duration::from_secs(20));
        assert_eq!(table(Some(5)).keep_alive(Some(20)).unwrap(), Duration::from_secs(5));
        for wrong in [4, 65536] {
            let error = table(Some(wrong)).keep_alive(None).unwrap_err().to_string();
            assert!(error.contains(&format!("mqtt.keep_alive_seconds: {wrong} is not within 5")), "{error}");
        }
    }
}
