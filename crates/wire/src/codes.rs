//! The weights of a whole vocabulary, in parts: the distribution of a draft with [`Rows::Full`](crate::Rows).

use crate::codec::{self, Kind};
use crate::limits::{CODES_BYTES_MAX, CODES_MAX, VOCABULARY_SIZE_MAX};
use crate::{DecodeError, EncodeError};
use heapless::Vec;
use serde::{Deserialize, Serialize};

const _: () =
    assert!(CODES_MAX << u8::BITS == VOCABULARY_SIZE_MAX as usize, "no part lies beyond a vocabulary");

/// The weights of successive tokens, for the frame of the same round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Codes {
    /// The device's number for the session.
    pub session: u8,
    /// The lease the frame belongs to.
    pub epoch: u8,
    /// The round of the frame, never 0.
    pub round: u32,
    /// Number of the part: its first weight is that of token `part` · [`CODES_MAX`].
    pub part: u8,
    /// The weights, at least one.
    pub codes: Vec<u8, CODES_MAX>,
}

#[derive(Serialize, Deserialize)]
struct CodesHeader {
    session: u8,
    epoch: u8,
    round: u32,
    part: u8,
    count: u16,
}

impl Codes {
    /// Encodes the part.
    ///
    /// # Errors
    /// Names the field that is outside its limits.
    pub fn encode(&self) -> Result<Vec<u8, CODES_BYTES_MAX>, EncodeError> {
        let Self { session, epoch, round, part, .. } = *self;
        check(round, self.codes.len()).map_err(EncodeError::OutOfRange)?;
        let header = CodesHeader { session, epoch, round, part, count: self.codes.len() as u16 };
        let mut bytes = codec::put(Kind::Codes, &header)?;
        bytes.extend_from_slice(&self.codes).map_err(|_| EncodeError::NoRoom)?;
        Ok(bytes)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (header, tail) = codec::take::<CodesHeader>(bytes)?;
        let CodesHeader { session, epoch, round, part, count } = header;
        let count = usize::from(count);
        check(round, count).map_err(DecodeError::Impossible)?;
        if tail.len() > count {
            return Err(DecodeError::Trailing);
        }
        let codes = tail.get(..count).ok_or(DecodeError::Truncated)?;
        let codes = Vec::from_slice(codes).map_err(|_| DecodeError::Impossible("codes"))?;
        Ok(Self { session, epoch, round, part, codes })
    }
}

/// Checks the limits; the error names the first field outside them.
fn check(round: u32, count: usize) -> Result<(), &'static str> {
    if round == 0 {
        return Err("round");
    }
    if (1..=CODES_MAX).contains(&count) { Ok(()) } else { Err("codes") }
}
