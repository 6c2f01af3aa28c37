//! Keys that are not of X.509: Ed25519 for signatures, X25519 for sealing.

use crate::files::{Readers, create, read, read_private};
use anyhow::{Context, Result, anyhow};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};
use std::path::Path;
use x25519_dalek::{PublicKey, StaticSecret};

/// Bytes of a public key, and of an X25519 private key.
pub(crate) const KEY_BYTES: usize = 32;

/// Random bytes.
pub(crate) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| anyhow!("the system gives no random numbers"))?;
    Ok(bytes)
}

/// Base64 on a line.
pub(crate) fn line(bytes: impl AsRef<[u8]>) -> String {
    BASE64_STANDARD.encode(bytes) + "\n"
}

/// The bytes of base64 on a line.
pub(crate) fn bytes_of_line(path: &Path, text: &str) -> Result<Vec<u8>> {
    BASE64_STANDARD.decode(text.trim()).with_context(|| format!("{} is not base64", path.display()))
}

/// Writes a new Ed25519 key pair as `name.key` and `name.pub`.
pub(crate) fn create_signing(dir: &Path, name: &str) -> Result<Ed25519KeyPair> {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
    let document = document.map_err(|_| anyhow!("the system gives no random numbers"))?;
    let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).expect("ring reads what it wrote");
    create(&dir.join(format!("{name}.key")), line(document.as_ref()), Readers::Owner)?;
    create(&dir.join(format!("{name}.pub")), line(pair.public_key()), Readers::All)?;
    Ok(pair)
}

/// Reads `name.key`.
pub(crate) fn read_signing(dir: &Path, name: &str) -> Result<Ed25519KeyPair> {
    let path = dir.join(format!("{name}.key"));
    let bytes = bytes_of_line(&path, &read_private(&path)?)?;
    Ed25519KeyPair::from_pkcs8(&bytes).map_err(|_| anyhow!("{} is not an Ed25519 key", path.display()))
}

/// Writes a new X25519 key pair as `name.key` and `name.pub`; returns the public key.
pub(crate) fn create_sealing(dir: &Path, name: &str) -> Result<[u8; KEY_BYTES]> {
    let secret = StaticSecret::from(random::<KEY_BYTES>()?);
    let public = PublicKey::from(&secret).to_bytes();
    create(&dir.join(format!("{name}.key")), line(secret.as_bytes()), Readers::Owner)?;
    create(&dir.join(format!("{name}.pub")), line(public), Readers::All)?;
    Ok(public)
}

/// The public key of the X25519 key in `name.key`.
pub(crate) fn read_sealing(dir: &Path, name: &str) -> Result<[u8; KEY_BYTES]> {
    let path = dir.join(format!("{name}.key"));
    let bytes: Result<[u8; KEY_BYTES], _> = bytes_of_line(&path, &read_private(&path)?)?.try_into();
    let bytes = bytes.map_err(|_| anyhow!("{} is not an X25519 key of {KEY_BYTES} bytes", path.display()))?;
    Ok(PublicKey::from(&StaticSecret::from(bytes)).to_bytes())
}

/// Reads `name.pub`.
pub(crate) fn read_public(dir: &Path, name: &str) -> Result<[u8; KEY_BYTES]> {
    let path = dir.join(format!("{name}.pub"));
    let bytes = bytes_of_line(&path, &read(&path)?)?;
    bytes.try_into().map_err(|_| anyhow!("{} is not a public key of {KEY_BYTES} bytes", path.display()))
}
