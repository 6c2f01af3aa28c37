//! Certificates and revocation lists, read.

use anyhow::{Context, Result, anyhow, bail};
use std::net::IpAddr;
use std::path::Path;
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::{Pem, parse_x509_pem};
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

/// The facts of a certificate.
pub(crate) struct FleetCertificate {
    /// Its common name.
    pub(crate) name: String,
    /// Its serial number.
    pub(crate) serial: Vec<u8>,
    /// Its end.
    pub(crate) until: OffsetDateTime,
    /// Its public key.
    pub(crate) key: Vec<u8>,
    /// The names and addresses of a server.
    pub(crate) hosts: Vec<String>,
}

fn pem(path: &Path, text: &str, label: &str) -> Result<Pem> {
    let (rest, pem) = parse_x509_pem(text.as_bytes())
        .map_err(|_| anyhow!("{} is not PEM: take it from a backup, or issue it again", path.display()))?;
    if pem.label != label || !rest.trim_ascii().is_empty() {
        bail!("{} is not one {label} in PEM", path.display());
    }
    Ok(pem)
}

/// The bytes of a certificate in PEM.
pub(crate) fn der(path: &Path, text: &str) -> Result<Vec<u8>> {
    Ok(pem(path, text, "CERTIFICATE")?.contents)
}

/// Reads a certificate in PEM; with `issuer`, an authority's certificate in PEM, also checks its signature.
pub(crate) fn facts(path: &Path, text: &str, issuer: Option<&str>) -> Result<FleetCertificate> {
    let pem = pem(path, text, "CERTIFICATE")?;
    let certificate = pem.parse_x509().with_context(|| format!("{} is not a certificate", path.display()))?;
    if let Some(issuer) = issuer {
        let authority = self::pem(Path::new("ca.pem"), issuer, "CERTIFICATE")?;
        let authority = authority.parse_x509().context("ca.pem is not a certificate")?;
        if certificate.verify_signature(Some(authority.public_key())).is_err() {
            bail!("{} is not signed by this fleet's ca.pem", path.display());
        }
    }
    let mut names = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let hosts = alternatives.map(|found| found.value.general_names.iter().filter_map(host).collect());
    let until = OffsetDateTime::from_unix_timestamp(certificate.validity().not_after.timestamp());
    Ok(FleetCertificate {
        name: names.next().unwrap_or_default().to_owned(),
        serial: certificate.raw_serial().to_vec(),
        until: until.with_context(|| format!("{} has no valid end", path.display()))?,
        key: certificate.public_key().subject_public_key.data.to_vec(),
        hosts: hosts.unwrap_or_default(),
    })
}

fn host(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
        },
        _ => None,
    }
}

/// The serial numbers of a revocation list in PEM that `issuer` signed, in its order.
pub(crate) fn revoked(path: &Path, text: &str, issuer: &str) -> Result<Vec<Vec<u8>>> {
    let pem = pem(path, text, "X509 CRL")?;
    let (_, list) = CertificateRevocationList::from_der(&pem.contents)
        .map_err(|_| anyhow!("{} is not a revocation list", path.display()))?;
    let authority = self::pem(Path::new("ca.pem"), issuer, "CERTIFICATE")?;
    let authority = authority.parse_x509().context("ca.pem is not a certificate")?;
    if list.verify_signature(authority.public_key()).is_err() {
        bail!("{} is not signed by this fleet's ca.pem", path.display());
    }
    Ok(list.iter_revoked_certificates().map(|entry| entry.raw_serial().to_vec()).collect())
}
