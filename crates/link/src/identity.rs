//! Certificates and keys: reading them, and checking that they belong together.

use crate::clock::CertificateClock;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, Error, InconsistentKeys, RootCertStore};
use std::sync::Arc;
use std::time::Duration;
use x509_cert::Certificate;
use x509_cert::der::{DateTime, Decode};

/// Maximum size of a file of certificates or of a key in bytes.
pub(crate) const PEM_BYTES_MAX: u64 = 64 * 1024;
/// Days before its end from which a certificate is warned of.
const WARNING_DAYS: u64 = 30;
/// Seconds of a day.
const DAY_SECONDS: u64 = 24 * 3600;
/// Certificates of one file.
const CERTIFICATES_MAX: usize = 16;

/// An invalid certificate or key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// A text without a certificate or key in PEM, or a broken one.
    #[error("{0}")]
    Pem(String),
    /// Bytes that are not a certificate.
    #[error("not a valid X.509 certificate")]
    Certificate,
    /// A key that TLS can't use.
    #[error("not a key that TLS can use: expected ECDSA P-256 or P-384, Ed25519 or RSA")]
    Key,
    /// A key of another certificate.
    #[error("the key doesn't belong to the certificate: take both from the same card")]
    Mismatch,
    /// A certificate that another authority signed.
    #[error("the certificate of {0} is not signed by this CA: take both from the same card")]
    ForeignAuthority(String),
    /// A certificate that ended.
    #[error(
        "the certificate of {name} ended on {ended}, and the clock says {now}: make a new one, or set the clock"
    )]
    Expired {
        /// The common name.
        name: String,
        /// Its last day.
        ended: String,
        /// The day of the check.
        now: String,
    },
}

/// The facts of a certificate that people ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// The common name, which is the user name at the broker; foreign text.
    pub common_name: String,
    /// The serial number, in lower-case hexadecimal.
    pub serial: String,
    /// Its first second, since 1970.
    pub begins: u64,
    /// Its last second, since 1970.
    pub ends: u64,
}

impl CertificateFacts {
    /// The facts of a certificate in DER.
    ///
    /// # Errors
    /// The bytes are not a certificate.
    pub fn of(der: &[u8]) -> Result<Self, IdentityError> {
        let certificate = Certificate::from_der(der).map_err(|_| IdentityError::Certificate)?;
        let facts = certificate.tbs_certificate();
        let name = facts.subject().common_name().map_err(|_| IdentityError::Certificate)?;
        let serial = facts.serial_number().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self {
            common_name: name.map(|name| name.value().into_owned()).unwrap_or_default(),
            serial,
            begins: facts.validity().not_before.to_unix_duration().as_secs(),
            ends: facts.validity().not_after.to_unix_duration().as_secs(),
        })
    }

    /// A warning where it ends within 30 days of `now`, in seconds since 1970, or has ended.
    pub fn caution(&self, now: u64) -> Option<String> {
        let name = shown_name(&self.common_name);
        let days = self.ends.saturating_sub(now) / DAY_SECONDS;
        match self.ends {
            ends if ends <= now => Some(format!(
                "the certificate of {name} ended on {}: renew it with `dunlin-fleet renew`",
                day(ends)
            )),
            ends if days < WARNING_DAYS => Some(format!(
                "the certificate of {name} ends on {}, in {days} days: renew it with `dunlin-fleet renew`",
                day(ends)
            )),
            _ => None,
        }
    }
}

/// A day in UTC as `YYYY-MM-DD`; a time beyond the year 9999 is that year's last.
pub fn day(seconds: u64) -> String {
    let time = DateTime::from_unix_duration(Duration::from_secs(seconds));
    time.map_or("9999-12-31".into(), |time| {
        format!("{:04}-{:02}-{:02}", time.year(), time.month(), time.day())
    })
}

/// The certificates in a PEM text, in order.
///
/// # Errors
/// There is no certificate, too many, or a broken one.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        if found.len() == CERTIFICATES_MAX {
            return Err(IdentityError::Pem(format!("more than {CERTIFICATES_MAX} certificates")));
        }
        let certificate = certificate.map_err(|error| broken(&error, "certificate"))?;
        CertificateFacts::of(&certificate)?;
        found.push(certificate);
    }
    match found.is_empty() {
        true => Err(IdentityError::Pem("no certificate: expected -----BEGIN CERTIFICATE-----".into())),
        false => Ok(found),
    }
}

/// The first private key in a PEM text.
///
/// # Errors
/// The key is missing or broken.
pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, IdentityError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| broken(&error, "private key"))
}

fn broken(error: &pem::Error, what: &str) -> IdentityError {
    IdentityError::Pem(match error {
        pem::Error::NoItemsFound => format!("no {what}: expected -----BEGIN {}-----", what.to_uppercase()),
        pem::Error::MissingSectionEnd { .. } => format!("the {what} is cut off: its END line is missing"),
        pem::Error::IllegalSectionStart { .. } => "a BEGIN line is broken".into(),
        _ => format!("the {what} is broken: not Base64"),
    })
}

/// A certificate with its chain and its key, which belong together.
///
/// # Errors
/// The key is of another certificate, or TLS can't use it.
pub fn key_pair(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, IdentityError> {
    let provider = ring::default_provider();
    CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => IdentityError::Mismatch,
        Error::InvalidCertificate(_) => IdentityError::Certificate,
        _ => IdentityError::Key,
    })
}

/// The authorities of `certificates`.
///
/// # Errors
/// One of them is not a certificate.
pub fn authorities(certificates: &[CertificateDer<'static>]) -> Result<RootCertStore, IdentityError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.clone()).map_err(|_| IdentityError::Certificate)?;
    }
    Ok(roots)
}

/// Checks that one of `authorities` signed the certificate at the head of `chain` for a client, and that it has not
/// ended. Returns its facts.
///
/// # Errors
/// It is from another authority, or expired.
pub fn check_card(
    authorities: RootCertStore,
    chain: &[CertificateDer<'static>],
    floor: Option<u64>,
) -> Result<CertificateFacts, IdentityError> {
    let (head, rest) = chain.split_first().ok_or(IdentityError::Certificate)?;
    let facts = CertificateFacts::of(head)?;
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider).build();
    let verifier = verifier.map_err(|_| IdentityError::Certificate)?;
    let now = CertificateClock::from(floor).now();
    let time = UnixTime::since_unix_epoch(Duration::from_secs(now));
    match verifier.verify_client_cert(head, rest, time) {
        Ok(_) => Ok(facts),
        Err(Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        )) => Err(IdentityError::Expired {
            name: shown_name(&facts.common_name),
            ended: day(facts.ends),
            now: day(now),
        }),
        Err(_) => Err(IdentityError::ForeignAuthority(shown_name(&facts.common_name))),
    }
}

/// A name from a certificate, escaped.
pub(crate) fn shown_name(name: &str) -> String {
    format!("\"{}\"", name.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_warned_of_from_thirty_days_before_its_end() {
        let facts = CertificateFacts {
            common_name: "v.a\u{1b}".into(),
            serial: "1".into(),
            begins: 0,
            ends: 100 * DAY_SECONDS,
        };
        assert_eq!(facts.caution(70 * DAY_SECONDS), None);
        let soon = facts.caution(70 * DAY_SECONDS + 1).unwrap();
        assert!(soon.contains("\"v.a\\u{1b}\" ends on 1970-04-11, in 29 days: renew"), "{soon}");
        let over = facts.caution(100 * DAY_SECONDS).unwrap();
        assert!(over.contains("ended on 1970-04-11"), "{over}");
    }

    #[test]
    fn a_day_is_in_utc_and_stops_at_the_year_9999() {
        assert_eq!(day(0), "1970-01-01");
        assert_eq!(day(1_796_064_309), "2026-11-30");
        assert_eq!(day(u64::MAX), "9999-12-31");
    }
}
