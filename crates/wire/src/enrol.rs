//! A board's first certificate: the request, authenticated by a token, and the answer.

use crate::codec::{self, Kind};
use crate::limits::{
    CERTIFICATE_BYTES_MAX, CHAIN_BYTES_MAX, CSR_BYTES_MAX, ENROL_BYTES_MAX, SEAL_CERTIFICATE_BYTES_MAX,
};
use crate::{DecodeError, EncodeError};
use heapless::Vec;
use serde::{Deserialize, Serialize};

/// A board's request for a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrolRequest {
    /// The X25519 key of its sealed sessions.
    pub exchange: [u8; 32],
    /// HMAC-SHA-256 with the token's secret.
    pub mac: [u8; 32],
    /// The request for a certificate (PKCS#10, DER), with the board's name; never empty.
    pub csr: Vec<u8, CSR_BYTES_MAX>,
}

/// The decision about an [`EnrolRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EnrolVerdict {
    /// The certificates follow.
    Granted,
    /// The request was not made with the token.
    Token,
    /// The token's time is over.
    Expired,
    /// The token was used as often as it may be.
    Used,
    /// The name has a certificate already, or is no name of a board.
    Name,
    /// The request for a certificate is not one that this fleet signs.
    Request,
}

/// The answer to an [`EnrolRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrolAnswer {
    /// The first bytes of the SHA-256 of the answered request's `csr`.
    pub request: [u8; 8],
    /// The decision.
    pub verdict: EnrolVerdict,
    /// The certificate of the X25519 key; empty unless granted.
    pub seal: Vec<u8, SEAL_CERTIFICATE_BYTES_MAX>,
    /// The board's certificate and those up to the fleet's authority (DER); empty unless granted.
    pub chain: Vec<u8, CHAIN_BYTES_MAX>,
}

#[derive(Serialize, Deserialize)]
struct EnrolHeader {
    exchange: [u8; 32],
    mac: [u8; 32],
    length: u16,
}

#[derive(Serialize, Deserialize)]
struct CertificateHeader {
    request: [u8; 8],
    verdict: EnrolVerdict,
    seal: u16,
    chain: u16,
}

impl EnrolRequest {
    /// Encodes the message.
    ///
    /// # Errors
    /// Names the field that is outside its limits.
    pub fn encode(&self) -> Result<Vec<u8, ENROL_BYTES_MAX>, EncodeError> {
        if self.csr.is_empty() {
            return Err(EncodeError::OutOfRange("length"));
        }
        let Self { exchange, mac, .. } = *self;
        let header = EnrolHeader { exchange, mac, length: self.csr.len() as u16 };
        let mut bytes = codec::put(Kind::Enrol, &header)?;
        bytes.extend_from_slice(&self.csr).map_err(|_| EncodeError::NoRoom)?;
        Ok(bytes)
    }

    /// Decodes a message from a token's topic of requests.
    ///
    /// # Errors
    /// The bytes are malformed; see [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (header, tail) = match codec::open(bytes)? {
            (Kind::Enrol, rest) => codec::take::<EnrolHeader>(rest)?,
            (kind, _) => return Err(DecodeError::UnknownKind(kind as u8)),
        };
        let EnrolHeader { exchange, mac, length } = header;
        if !(1..=CSR_BYTES_MAX).contains(&usize::from(length)) {
            return Err(DecodeError::Impossible("length"));
        }
        let csr = Vec::from_slice(codec::rest(tail, length.into())?);
        Ok(Self { exchange, mac, csr: csr.map_err(|_| DecodeError::Impossible("length"))? })
    }
}

impl EnrolAnswer {
    /// Encodes the message.
    ///
    /// # Errors
    /// Names the field that is outside its limits.
    pub fn encode(&self) -> Result<Vec<u8, CERTIFICATE_BYTES_MAX>, EncodeError> {
        self.check().map_err(EncodeError::OutOfRange)?;
        let Self { request, verdict, .. } = *self;
        let (seal, chain) = (self.seal.len() as u16, self.chain.len() as u16);
        let mut bytes = codec::put(Kind::Certificate, &CertificateHeader { request, verdict, seal, chain })?;
        for part in [&self.seal[..], &self.chain] {
            bytes.extend_from_slice(part).map_err(|_| EncodeError::NoRoom)?;
        }
        Ok(bytes)
    }

    /// Decodes a message from a token's topic of answers.
    ///
    /// # Errors
    /// The bytes are malformed; see [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (header, tail) = match codec::open(bytes)? {
            (Kind::Certificate, rest) => codec::take::<CertificateHeader>(rest)?,
            (kind, _) => return Err(DecodeError::UnknownKind(kind as u8)),
        };
        let CertificateHeader { request, verdict, seal, chain } = header;
        if usize::from(seal) > SEAL_CERTIFICATE_BYTES_MAX {
            return Err(DecodeError::Impossible("seal"));
        }
        if usize::from(chain) > CHAIN_BYTES_MAX {
            return Err(DecodeError::Impossible("chain"));
        }
        let (seal, tail) = codec::split(tail, seal.into())?;
        let seal = Vec::from_slice(seal).map_err(|_| DecodeError::Impossible("seal"))?;
        let chain = Vec::from_slice(codec::rest(tail, chain.into())?);
        let chain = chain.map_err(|_| DecodeError::Impossible("chain"))?;
        let answer = Self { request, verdict, seal, chain };
        answer.check().map_err(DecodeError::Impossible)?;
        Ok(answer)
    }

    fn check(&self) -> Result<(), &'static str> {
        let granted = self.verdict == EnrolVerdict::Granted;
        match (granted, self.seal.is_empty(), self.chain.is_empty()) {
            (true, _, true) | (false, _, false) => Err("chain"),
            (false, false, _) => Err("seal"),
            _ => Ok(()),
        }
    }
}
