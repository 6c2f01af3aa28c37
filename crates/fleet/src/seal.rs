//! Documents signed by the site key: which keys a device and a verifier have for sealed sessions.
//!
//! A document begins with its purpose and its addressee, so that no signature can be used for anything else. It is
//!
//! ```text
//! purpose, ends with a zero byte │ length of the name u8 │ name │ X25519 key [32]
//!                                │ of a verifier also: Ed25519 key of its presence [32] │ until u64, big-endian, Unix seconds
//! ```
//!
//! and a certificate is a document and its Ed25519 signature [64].

use crate::keys::KEY_BYTES;
use anyhow::{Result, bail};
use dunlin_wire::{BrokerRole, Identity};
use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};

const DEVICE: &[u8] = b"dunlin seal device 1\0";
const VERIFIER: &[u8] = b"dunlin seal verifier 1\0";
const SIGNATURE_BYTES: usize = 64;

/// The keys that a site vouches for.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SealedKeys {
    /// A device or a verifier.
    pub(crate) name: Identity,
    /// Its X25519 key.
    pub(crate) exchange: [u8; KEY_BYTES],
    /// A verifier's Ed25519 key of its presence, and the end of the certificate in Unix seconds.
    pub(crate) presence: Option<([u8; KEY_BYTES], u64)>,
}

impl SealedKeys {
    fn document(&self) -> Vec<u8> {
        let name = self.name.id.as_str();
        let purpose = if self.presence.is_some() { VERIFIER } else { DEVICE };
        let length = u8::try_from(name.len()).expect("an id has at most 32 bytes");
        let mut bytes = [purpose, &[length], name.as_bytes(), &self.exchange].concat();
        if let Some((key, until)) = &self.presence {
            bytes.extend_from_slice(key);
            bytes.extend_from_slice(&until.to_be_bytes());
        }
        bytes
    }

    /// The certificate.
    pub(crate) fn signed(&self, site: &Ed25519KeyPair) -> Vec<u8> {
        let mut bytes = self.document();
        let signature = site.sign(&bytes);
        bytes.extend_from_slice(signature.as_ref());
        bytes
    }

    /// Reads a certificate whose signature is the site's.
    ///
    /// # Errors
    /// It is not whole, or another key signed it.
    pub(crate) fn verified(bytes: &[u8], site: &[u8; KEY_BYTES]) -> Result<Self> {
        let Some((document, signature)) = bytes.split_last_chunk::<SIGNATURE_BYTES>() else {
            bail!("it is too short for a certificate of keys");
        };
        if UnparsedPublicKey::new(&ED25519, site).verify(document, signature).is_err() {
            bail!("it is not signed by this fleet's site key");
        }
        match Self::parsed(document) {
            Some(keys) if keys.document() == document => Ok(keys),
            _ => bail!("it is not a certificate of keys"),
        }
    }

    fn parsed(document: &[u8]) -> Option<Self> {
        let (role, rest) = match document.strip_prefix(DEVICE) {
            Some(rest) => (BrokerRole::Device, rest),
            None => (BrokerRole::Verifier, document.strip_prefix(VERIFIER)?),
        };
        let (length, rest) = rest.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(*length))?;
        let id = std::str::from_utf8(name).ok()?.parse().ok()?;
        let (exchange, rest) = rest.split_first_chunk()?;
        let presence = match role {
            BrokerRole::Verifier => {
                let (key, rest) = rest.split_first_chunk()?;
                Some((*key, u64::from_be_bytes(rest.try_into().ok()?)))
            }
            _ => None,
        };
        Some(Self { name: Identity { role, id }, exchange: *exchange, presence })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::KeyPair;

    fn site(seed: u8) -> (Ed25519KeyPair, [u8; KEY_BYTES]) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let public = pair.public_key().as_ref().try_into().unwrap();
        (pair, public)
    }

    fn keys(name: &str, presence: Option<([u8; KEY_BYTES], u64)>) -> SealedKeys {
        SealedKeys { name: name.parse().unwrap(), exchange: [7; KEY_BYTES], presence }
    }

    #[test]
    fn a_certificate_is_read_with_its_own_sites_key_only() {
        let (pair, public) = site(1);
        for keys in [keys("plover-1", None), keys("v.verifier-1", Some(([8; KEY_BYTES], 99)))] {
            let bytes = keys.signed(&pair);
            assert!(SealedKeys::verified(&bytes, &public).unwrap() == keys);
            assert!(SealedKeys::verified(&bytes, &site(2).1).is_err());
            for at in 0..bytes.len() {
                let mut other = bytes.clone();
                other[at] ^= 1;
                assert!(SealedKeys::verified(&other, &public).is_err(), "byte {at}");
                assert!(SealedKeys::verified(&bytes[..at], &public).is_err(), "{at} bytes");
            }
        }
    }

    #[test]
    fn a_document_begins_with_purpose_and_addressee() {
        assert!(keys("plover-1", None).document().starts_with(b"dunlin seal device 1\0\x08plover-1"));
        let verifier = keys("v.verifier-1", Some(([0; KEY_BYTES], 1))).document();
        assert!(verifier.starts_with(b"dunlin seal verifier 1\0\x0averifier-1"));
    }

    #[test]
    fn a_signed_document_with_another_content_is_refused() {
        let (pair, public) = site(1);
        for document in
            [&b""[..], b"dunlin seal device 1\0", b"dunlin release 1\0x", b"dunlin seal device 1\0\x01A"]
        {
            let bytes = [document, pair.sign(document).as_ref()].concat();
            assert!(SealedKeys::verified(&bytes, &public).is_err());
        }
        let longer = [&keys("a", None).document()[..], b"x"].concat();
        assert!(SealedKeys::verified(&[&longer, pair.sign(&longer).as_ref()].concat(), &public).is_err());
    }
}
