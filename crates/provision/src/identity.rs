//! A board's identity: the lines that `dunlin-fleet card` writes, checked as a whole.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dunlin_link::{IdentityError, authorities, certificates, check_card, key_pair, private_key};

/// Bytes of an X25519 or Ed25519 key.
const KEY_BYTES: usize = 32;
/// Bytes of any value of a card.
const VALUE_BYTES_MAX: usize = 4096;
/// Characters of a line of PEM.
const PEM_LINE: usize = 64;

/// The files of TLS, in PEM.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct TlsIdentity {
    /// The certificate of the fleet's authority.
    pub(crate) authority: String,
    /// The board's certificate.
    pub(crate) certificate: String,
    /// The board's private key.
    pub(crate) key: String,
}

/// The keys for sealed sessions, each in base64 on a line.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SealIdentity {
    /// The site's public key.
    pub(crate) site: String,
    /// The board's private key.
    pub(crate) key: String,
    /// The site's signature of the board's public key.
    pub(crate) certificate: String,
    /// The public key of whoever reads energy reports.
    pub(crate) collector: String,
}

/// The PEM of a value with this label.
///
/// # Errors
/// It is not base64, or too long; the text doesn't quote it.
pub(crate) fn pem(label: &str, value: &str) -> Result<String, String> {
    let encoded = STANDARD.encode(decoded(value)?);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, later) = rest.split_at(rest.len().min(PEM_LINE));
        text += line;
        text.push('\n');
        rest = later;
    }
    Ok(text + &format!("-----END {label}-----\n"))
}

fn decoded(value: &str) -> Result<Vec<u8>, String> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(format!(
            "longer than {VALUE_BYTES_MAX} characters: it is not from a card of dunlin-fleet"
        ));
    }
    match STANDARD.decode(value) {
        Ok(bytes) if !bytes.is_empty() => Ok(bytes),
        _ => Err("not whole base64: copy the whole line again".into()),
    }
}

/// A key of 32 bytes, as a line.
pub(crate) fn key_line(value: &str) -> Result<String, String> {
    match decoded(value)?.len() {
        KEY_BYTES => Ok(format!("{value}\n")),
        length => Err(format!("{length} bytes, not the {KEY_BYTES} of a key: copy the whole line again")),
    }
}

/// Any value, as a line.
pub(crate) fn value_line(value: &str) -> Result<String, String> {
    decoded(value).map(|_| format!("{value}\n"))
}

impl TlsIdentity {
    /// The common name of the certificate, once authority, certificate and key belong together and the certificate has
    /// not ended.
    ///
    /// # Errors
    /// The fault, without the key.
    pub(crate) fn name(&self) -> Result<String, IdentityError> {
        let roots = authorities(&certificates(self.authority.as_bytes())?)?;
        let chain = certificates(self.certificate.as_bytes())?;
        key_pair(chain.clone(), private_key(self.key.as_bytes())?)?;
        Ok(check_card(roots, &chain, None)?.common_name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_whole_base64_and_is_not_quoted() {
        assert_eq!(pem("X", "AAECAw==").unwrap(), "-----BEGIN X-----\nAAECAw==\n-----END X-----\n");
        let long = STANDARD.encode([7; 100]);
        assert!(pem("X", &long).unwrap().lines().all(|line| line.len() <= PEM_LINE));
        for wrong in ["", "AAECAw=", "secret!!", "AAE CAw==", &"A".repeat(VALUE_BYTES_MAX + 4)] {
            let said = pem("X", wrong).unwrap_err();
            assert!(!said.contains("secret") && said.len() < 100, "{said}");
        }
        assert!(key_line(&STANDARD.encode([7; 32])).is_ok());
        assert!(key_line(&STANDARD.encode([7; 31])).unwrap_err().starts_with("31 bytes"));
    }
}
