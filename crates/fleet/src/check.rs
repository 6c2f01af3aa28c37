//! The check of a fleet's folder: files, modes, keys and their certificates, ends, and what is made from the register.

use crate::authority::{Authority, key_pair};
use crate::broker::{ACL, AclFormat, CONF, CRL, acl, conf, services};
use crate::files::{check_private, read};
use crate::fleet::{COLLECTOR, Fleet, SERVER_NAME, SIGNERS, SITE};
use crate::issue::{PRESENCE, RENEWAL_TIME, SEAL, SEAL_CERTIFICATE, is_private};
use crate::keys::{bytes_of_line, read_public, read_sealing, read_signing};
use crate::register::Issued;
use crate::seal::SealedKeys;
use crate::x509::{facts, revoked};
use anyhow::{Context, Result, bail};
use dunlin_wire::{BrokerRole, Identity};
use ring::signature::KeyPair;
use std::fs;
use std::path::Path;
use time::OffsetDateTime;

/// The weight of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Something works now and will not for long.
    Warning,
    /// Something doesn't work, or isn't safe.
    Problem,
}

/// A finding, with its remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its weight.
    pub weight: Weight,
    /// The finding in words.
    pub text: String,
}

/// All findings of a fleet; none if all is well.
pub fn check(fleet: &Fleet, now: OffsetDateTime) -> Vec<Finding> {
    let mut findings = FleetFindings(Vec::new());
    let authority = findings.of(Authority::open(&fleet.dir));
    for name in SIGNERS {
        findings.of(signing_pair(&fleet.dir, name));
    }
    findings.of(sealing_pair(&fleet.dir, COLLECTOR));
    findings.modes(&fleet.dir);
    if let Some(authority) = &authority {
        if authority.until - now <= RENEWAL_TIME {
            findings.problem(format!(
                "the fleet's authority ends on {}: make a new fleet",
                authority.until.date()
            ));
        }
        for name in fleet.register.names() {
            let issued = fleet.register.present(name);
            let issued = issued.expect("a name has a certificate that is not revoked");
            findings.of(identity(fleet, issued, authority));
            findings.end(issued, now);
        }
        findings.of(made(fleet, authority));
    }
    findings.0
}

struct FleetFindings(Vec<Finding>);

impl FleetFindings {
    fn problem(&mut self, text: String) {
        self.0.push(Finding { weight: Weight::Problem, text });
    }

    fn of<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.problem(format!("{error:#}"))).ok()
    }

    fn end(&mut self, issued: &Issued, now: OffsetDateTime) {
        let (name, left) = (&issued.name, issued.until - now);
        let remedy = format!("run `dunlin-fleet renew {name}`");
        if left.is_negative() {
            self.problem(format!("the certificate of {name} ended on {}: {remedy}", issued.until.date()));
        } else if left <= RENEWAL_TIME {
            let text = format!("the certificate of {name} ends in {} days: {remedy}", left.whole_days());
            self.0.push(Finding { weight: Weight::Warning, text });
        }
    }

    /// Looks for private files that others may read.
    fn modes(&mut self, dir: &Path) {
        let Some(entries) = self.of(fs::read_dir(dir).with_context(|| dir.display().to_string())) else {
            return;
        };
        let mut paths: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
        paths.sort_unstable();
        for path in paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() {
                self.of(check_private(&path));
                self.modes(&path);
            } else if is_private(&name) {
                self.of(check_private(&path));
            }
        }
    }
}

fn signing_pair(dir: &Path, name: &str) -> Result<()> {
    let pair = read_signing(dir, name)?;
    if pair.public_key().as_ref() != read_public(dir, name)? {
        bail!("{0}.key does not belong to {0}.pub in {1}: take both from one backup", name, dir.display());
    }
    Ok(())
}

fn sealing_pair(dir: &Path, name: &str) -> Result<()> {
    if read_sealing(dir, name)? != read_public(dir, name)? {
        bail!("{0}.key does not belong to {0}.pub in {1}: take both from one backup", name, dir.display());
    }
    Ok(())
}

/// Checks the certificate of a name, its key, and the keys that the site signed.
fn identity(fleet: &Fleet, issued: &Issued, authority: &Authority) -> Result<()> {
    if issued.name == SERVER_NAME {
        let folder = fleet.broker_folder();
        let hosts = certificate(&folder.join("server.pem"), &folder.join("server.key"), issued, authority)?;
        let host = &fleet.register.broker.host;
        if !hosts.contains(host) {
            bail!("the broker's certificate is not for {host:?}: run `dunlin-fleet renew {SERVER_NAME}`");
        }
        return Ok(());
    }
    let name: Identity = issued.name.parse().with_context(|| format!("{:?} in fleet.toml", issued.name))?;
    let folder = fleet.folder(&name);
    if !folder.is_dir() {
        bail!("{} is missing: take it from a backup, or run `dunlin-fleet revoke {name}`", folder.display());
    }
    certificate(&folder.join("cert.pem"), &folder.join("key.pem"), issued, authority)?;
    if read(&folder.join("ca.pem"))? != authority.certificate {
        bail!("{} is not the fleet's ca.pem: copy it from there", folder.join("ca.pem").display());
    }
    if matches!(name.role, BrokerRole::Device | BrokerRole::Verifier) {
        sealed(fleet, &name, &folder)?;
    }
    Ok(())
}

fn certificate(path: &Path, key: &Path, issued: &Issued, authority: &Authority) -> Result<Vec<String>> {
    let facts = facts(path, &read(path)?, Some(&authority.certificate))?;
    if facts.name != issued.name || facts.serial != issued.serial.0 || facts.until != issued.until {
        bail!(
            "{} is not the newest certificate of {}: run `dunlin-fleet renew {1}`",
            path.display(),
            issued.name
        );
    }
    if key_pair(key)?.public_key_raw() != facts.key {
        bail!(
            "{} is the key of another certificate than {}: take both from one backup",
            key.display(),
            path.display()
        );
    }
    Ok(facts.hosts)
}

fn sealed(fleet: &Fleet, name: &Identity, folder: &Path) -> Result<()> {
    let path = folder.join(SEAL_CERTIFICATE);
    let keys = SealedKeys::verified(&bytes_of_line(&path, &read(&path)?)?, &read_public(&fleet.dir, SITE)?)
        .with_context(|| path.display().to_string())?;
    sealing_pair(folder, SEAL)?;
    if keys.name != *name || keys.exchange != read_sealing(folder, SEAL)? {
        bail!("{} is for another name or key: revoke {name}, and issue it again", path.display());
    }
    if let Some((key, _)) = keys.presence {
        signing_pair(folder, PRESENCE)?;
        if read_public(folder, PRESENCE)? != key {
            bail!("{} is for another key of presence: run `dunlin-fleet renew {name}`", path.display());
        }
    }
    Ok(())
}

/// Checks the broker's files that are made from the register.
fn made(fleet: &Fleet, authority: &Authority) -> Result<()> {
    let (folder, register) = (fleet.broker_folder(), &fleet.register);
    let remedy = "run `dunlin-fleet broker`";
    let texts = [
        (CONF, conf(register)),
        (ACL, acl(&services(register), AclFormat::Mosquitto)),
        ("ca.pem", authority.certificate.clone()),
    ];
    for (name, text) in texts {
        let path = folder.join(name);
        if read(&path).with_context(|| remedy)? != text {
            bail!("{} is not what this program makes: {remedy}", path.display());
        }
    }
    let path = folder.join(CRL);
    let listed = revoked(&path, &read(&path)?, &authority.certificate)?;
    if listed != register.revoked().map(|(serial, _)| serial.0.to_vec()).collect::<Vec<_>>() {
        bail!("{} does not list what is revoked: {remedy}", path.display());
    }
    Ok(())
}
