//! Issuing, renewing and revoking certificates.

use crate::authority::{Authority, Purpose, key_pair, new_key};
use crate::files::{
    Readers, create, make_folder, publish_folder, read, read_private, replace, staging_folder,
};
use crate::fleet::{COLLECTOR, DEVICE_LIFE, Fleet, SERVER_NAME, SERVICE_LIFE, SITE, whole_second};
use crate::keys::{create_sealing, create_signing, line, read_public, read_sealing, read_signing};
use crate::register::Issued;
use crate::seal::SealedKeys;
use anyhow::{Context, Result, bail};
use dunlin_wire::{BrokerRole, Identity};
use ring::signature::KeyPair;
use std::fs;
use std::path::Path;
use time::{Duration, OffsetDateTime};

/// Time before the end of a certificate from which on it should be renewed.
pub(crate) const RENEWAL_TIME: Duration = Duration::days(30);
/// The base name of a verifier's key pair for its presence.
pub(crate) const PRESENCE: &str = "presence";
/// The base name of a key pair for sealed sessions.
pub(crate) const SEAL: &str = "seal";
/// The file with the site's signature of these keys.
pub(crate) const SEAL_CERTIFICATE: &str = "seal.cert";

impl Fleet {
    /// Makes the keys and certificates of a name; false if it has them already.
    ///
    /// # Errors
    /// A file can't be read or written; then there is no folder of that name.
    pub fn issue(&mut self, name: &Identity, now: OffsetDateTime) -> Result<bool> {
        let folder = self.folder(name);
        if self.register.present(&name.to_string()).is_some() && folder.is_dir() {
            return Ok(false);
        }
        if folder.exists() {
            bail!("{} exists, but its certificate is not in fleet.toml: move it away", folder.display());
        }
        let now = whole_second(now)?;
        let authority = Authority::open(&self.dir)?;
        let until = now + if name.role == BrokerRole::Device { DEVICE_LIFE } else { SERVICE_LIFE };
        if until > authority.until {
            bail!("the fleet's authority ends on {}: make a new fleet", authority.until.date());
        }
        let serial = self.note(&name.to_string(), until)?;
        let parent = folder.parent().expect("a folder of a name stands in another");
        let made = staging_folder(parent)?;
        let key = new_key()?;
        let certificate = authority.certify(Purpose::Client(&name.to_string()), &key, &serial, until)?;
        create(&made.path().join("key.pem"), key.serialize_pem(), Readers::Owner)?;
        create(&made.path().join("cert.pem"), certificate, Readers::All)?;
        create(&made.path().join("ca.pem"), &authority.certificate, Readers::All)?;
        if let Some((file, text)) = self.configuration(name) {
            create(&made.path().join(file), text, Readers::All)?;
        }
        self.seal(name, made.path(), until)?;
        publish_folder(made, &folder)?;
        if name.role != BrokerRole::Device {
            self.write_broker(&authority)?;
        }
        Ok(true)
    }

    /// The name and text of a configuration of a device's or a verifier's program, for the files beside it.
    fn configuration(&self, name: &Identity) -> Option<(&'static str, String)> {
        let (file, key) = match name.role {
            BrokerRole::Device => ("agent.toml", "device"),
            BrokerRole::Verifier => ("verifier.toml", "id"),
            _ => return None,
        };
        let (id, broker) = (&name.id, &self.register.broker);
        let text = format!(
            "# From dunlin-fleet: the name, the broker, and the files beside this one. Add what else is needed.\n\
             {key} = \"{id}\"\nbroker = \"{broker}\"\n\n\
             [tls]\nca_file = \"ca.pem\"\ncert_file = \"cert.pem\"\nkey_file = \"key.pem\"\n"
        );
        Some((file, text))
    }

    /// Makes the keys of a device or a verifier for sealed sessions.
    fn seal(&self, name: &Identity, dir: &Path, until: OffsetDateTime) -> Result<()> {
        if !matches!(name.role, BrokerRole::Device | BrokerRole::Verifier) {
            return Ok(());
        }
        create_sealing(dir, SEAL)?;
        if name.role == BrokerRole::Verifier {
            create_signing(dir, PRESENCE)?;
        } else {
            create(&dir.join("collector.pub"), line(read_public(&self.dir, COLLECTOR)?), Readers::All)?;
        }
        create(&dir.join("site.pub"), line(read_public(&self.dir, SITE)?), Readers::All)?;
        create(&dir.join(SEAL_CERTIFICATE), self.sealed(name, dir, until)?, Readers::All)
    }

    /// The site's signature of the keys in a folder.
    fn sealed(&self, name: &Identity, dir: &Path, until: OffsetDateTime) -> Result<String> {
        let presence = match name.role {
            BrokerRole::Verifier => {
                let key = read_signing(dir, PRESENCE)?.public_key().as_ref().try_into();
                let until = u64::try_from(until.unix_timestamp()).context("the end of a certificate")?;
                Some((key.expect("an Ed25519 key has 32 bytes"), until))
            }
            _ => None,
        };
        let keys = SealedKeys { name: name.clone(), exchange: read_sealing(dir, SEAL)?, presence };
        Ok(line(keys.signed(&read_signing(&self.dir, SITE)?)))
    }

    /// Gives a name a certificate with a new end for the key that it has; returns the end.
    ///
    /// # Errors
    /// The name is unknown, or a file can't be read or written; then the old certificate stays.
    pub fn renew(&mut self, name: &str, now: OffsetDateTime) -> Result<OffsetDateTime> {
        self.known(name)?;
        let now = whole_second(now)?;
        let authority = Authority::open(&self.dir)?;
        if name == SERVER_NAME {
            let (folder, until) = (self.broker_folder(), (now + SERVICE_LIFE).min(authority.until));
            let key = key_pair(&folder.join("server.key"))?;
            let serial = self.note(name, until)?;
            let purpose = Purpose::Server(name, &self.register.broker.host);
            let certificate = authority.certify(purpose, &key, &serial, until)?;
            replace(&folder.join("server.pem"), certificate, Readers::All)?;
            return Ok(until);
        }
        let identity: Identity = name.parse().with_context(|| format!("{name:?}"))?;
        let folder = self.folder(&identity);
        let life = if identity.role == BrokerRole::Device { DEVICE_LIFE } else { SERVICE_LIFE };
        let until = (now + life).min(authority.until);
        let key = key_pair(&folder.join("key.pem"))?;
        let serial = self.note(name, until)?;
        let certificate = authority.certify(Purpose::Client(name), &key, &serial, until)?;
        if identity.role == BrokerRole::Verifier {
            let sealed = self.sealed(&identity, &folder, until)?;
            replace(&folder.join(SEAL_CERTIFICATE), sealed, Readers::All)?;
        }
        replace(&folder.join("cert.pem"), certificate, Readers::All)?;
        Ok(until)
    }

    /// The names of services, and of the broker, whose certificates end soon.
    pub fn due(&self, now: OffsetDateTime) -> Vec<String> {
        let names = self.register.names().into_iter();
        let due = |name: &&str| {
            let ends = self.register.present(name).is_some_and(|issued| issued.until - now <= RENEWAL_TIME);
            ends && name.contains('.')
        };
        names.filter(due).map(str::to_owned).collect()
    }

    /// Revokes all certificates of a name and removes its keys; returns their number.
    ///
    /// # Errors
    /// The name is unknown, or a file can't be written.
    pub fn revoke(&mut self, name: &str, now: OffsetDateTime) -> Result<usize> {
        if name == SERVER_NAME {
            bail!(
                "boards don't ask whether the broker's certificate is revoked: if its key was stolen, make a new fleet"
            );
        }
        self.known(name)?;
        let identity: Identity = name.parse().with_context(|| format!("{name:?}"))?;
        let now = whole_second(now)?;
        let authority = Authority::open(&self.dir)?;
        let mut count = 0;
        let valid = |issued: &&mut Issued| issued.name == name && issued.revoked.is_none();
        for issued in self.register.certificates.iter_mut().filter(valid) {
            issued.revoked = Some(now);
            count += 1;
        }
        self.register.write(&self.dir)?;
        self.write_broker(&authority)?;
        let folder = self.folder(&identity);
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("{} can't be removed", folder.display()))?;
        }
        Ok(count)
    }

    /// Refuses a name that has no certificate.
    fn known(&self, name: &str) -> Result<()> {
        if self.register.names().contains(&name) {
            return Ok(());
        }
        bail!("no certificate was issued for {name:?}; known names are {}", self.register.names().join(", "))
    }

    /// Writes a name's files into another folder, for a package or a service.
    ///
    /// # Errors
    /// A file exists there already, or can't be written.
    pub fn copy_files(&self, name: &Identity, target: &Path) -> Result<Vec<String>> {
        let folder = self.folder(name);
        if !target.is_dir() {
            make_folder(target)?;
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry.with_context(|| folder.display().to_string())?.path();
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let readers = if is_private(&file) { Readers::Owner } else { Readers::All };
            let text = if is_private(&file) { read_private(&path)? } else { read(&path)? };
            create(&target.join(&file), text, readers)?;
            names.push(file);
        }
        names.sort_unstable();
        Ok(names)
    }
}

/// True for a file with a private key.
pub(crate) fn is_private(file: &str) -> bool {
    file == "key.pem" || file.ends_with(".key")
}
