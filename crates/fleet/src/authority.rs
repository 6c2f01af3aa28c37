//! The certificate authority: P-256 with ring, in the folder of the fleet and nowhere else.

use crate::files::{Readers, create, read, read_private};
use crate::register::Serial;
use crate::x509::facts;
use anyhow::{Context, Result, anyhow, bail};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SerialNumber, date_time_ymd,
};
use std::path::Path;
use time::OffsetDateTime;

/// Names of the machine itself, which the broker's certificate also holds.
const THIS_MACHINE: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
const NAME: &str = "Dunlin fleet";
const CERTIFICATE: &str = "ca.pem";
const KEY: &str = "ca.key";

/// Every certificate begins in 2020, because a board without a clock chip may start there.
fn beginning() -> OffsetDateTime {
    date_time_ymd(2020, 1, 1)
}

/// The purpose of a certificate.
#[derive(Clone, Copy)]
pub(crate) enum Purpose<'a> {
    /// Connecting to the broker under this name.
    Client(&'a str),
    /// Being the broker at this host.
    Server(&'a str, &'a str),
}

/// An authority that can sign.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate in PEM.
    pub(crate) certificate: String,
    /// Its end.
    pub(crate) until: OffsetDateTime,
}

impl Authority {
    /// Makes an authority and writes its files.
    pub(crate) fn create(dir: &Path, serial: &Serial, until: OffsetDateTime) -> Result<Self> {
        let key = KeyPair::generate().context("a key for the authority")?;
        let mut params = params(NAME, serial, until);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).context("the authority's certificate")?.pem();
        create(&dir.join(KEY), key.serialize_pem(), Readers::Owner)?;
        create(&dir.join(CERTIFICATE), &certificate, Readers::All)?;
        Ok(Self { issuer: Issuer::new(params, key), certificate, until })
    }

    /// Reads an authority.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let (path, key) = (dir.join(CERTIFICATE), dir.join(KEY));
        let certificate = read(&path).context("the authority's certificate")?;
        let facts = facts(&path, &certificate, Some(&certificate))?;
        let pair = key_pair(&key)?;
        if pair.public_key_raw() != facts.key {
            bail!("{} is not the key of {}: take both from one backup", key.display(), path.display());
        }
        let issuer =
            Issuer::from_ca_cert_pem(&certificate, pair).with_context(|| path.display().to_string())?;
        Ok(Self { issuer, certificate, until: facts.until })
    }

    /// A certificate in PEM for the owner of `key`.
    pub(crate) fn certify(
        &self,
        purpose: Purpose<'_>,
        key: &KeyPair,
        serial: &Serial,
        until: OffsetDateTime,
    ) -> Result<String> {
        let (name, usage) = match purpose {
            Purpose::Client(name) => (name, ExtendedKeyUsagePurpose::ClientAuth),
            Purpose::Server(name, _) => (name, ExtendedKeyUsagePurpose::ServerAuth),
        };
        let mut params = params(name, serial, until);
        if let Purpose::Server(_, host) = purpose {
            // A verifier beside the broker reaches it as this machine.
            let hosts = THIS_MACHINE.into_iter().filter(|local| *local != host).chain([host]);
            let hosts: Vec<_> = hosts.map(str::to_owned).collect();
            let named = CertificateParams::new(hosts).with_context(|| format!("host {host:?}"))?;
            params.subject_alt_names = named.subject_alt_names;
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(key, &self.issuer);
        Ok(certificate.with_context(|| format!("a certificate for {name:?}"))?.pem())
    }

    /// The list of revoked certificates in PEM. It is valid as long as the authority: brokers refuse everybody once
    /// their list has ended.
    pub(crate) fn revocations<'a>(
        &self,
        revoked: impl Iterator<Item = (&'a Serial, OffsetDateTime)>,
    ) -> Result<String> {
        let revoked_certs: Vec<_> = revoked
            .map(|(serial, at)| RevokedCertParams {
                serial_number: SerialNumber::from_slice(&serial.0),
                revocation_time: at,
                reason_code: None,
                invalidity_date: None,
            })
            .collect();
        let params = CertificateRevocationListParams {
            this_update: beginning(),
            next_update: self.until,
            // Revocations are never taken back, so their number grows.
            crl_number: SerialNumber::from(revoked_certs.len() as u64 + 1),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer).context("the list of revoked certificates")?;
        list.pem().context("the list of revoked certificates")
    }
}

fn params(name: &str, serial: &Serial, until: OffsetDateTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from_slice(&serial.0));
    (params.not_before, params.not_after) = (beginning(), until);
    params
}

/// A new key for a certificate.
pub(crate) fn new_key() -> Result<KeyPair> {
    KeyPair::generate().context("a key")
}

/// Reads a private key in PEM.
pub(crate) fn key_pair(path: &Path) -> Result<KeyPair> {
    // The library's error is not shown: it may quote the file.
    KeyPair::from_pem(&read_private(path)?)
        .map_err(|_| anyhow!("{} is not a private key in PEM: take it from a backup", path.display()))
}
