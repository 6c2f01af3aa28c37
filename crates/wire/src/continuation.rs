//! Tokens that a verifier wrote beyond its verdict, on a device's credit.

use crate::bits::BitWriter;
use crate::codec::{self, Kind};
use crate::digest::Prefix;
use crate::frame::{check_packed, put_token, unpack};
use crate::limits::{CONTINUATION_TOKENS_MAX, MESSAGE_BYTES_MAX};
use crate::{DecodeError, EncodeError, LogTime, TokenId};
use heapless::Vec;
use serde::{Deserialize, Serialize};

/// Tokens of the target that continue the text at `base`.
///
/// Its position and prefix say where they belong, so that one that is lost, repeated or late does no harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Continuation {
    /// The device's number for the session.
    pub session: u8,
    /// The lease.
    pub epoch: u8,
    /// The newest round with credit that the verifier received, never 0; acknowledges a frame without drafts.
    pub round: u32,
    /// Position of the first token, at least 1.
    pub base: u32,
    /// Short digest of the text before `base`.
    pub prefix: Prefix,
    /// Duration of the target's last pass.
    pub pass: LogTime,
    /// Wait before that pass.
    pub queue: LogTime,
    /// Bits of one token id.
    pub token_bits: u8,
    /// The tokens, at least one.
    pub tokens: Vec<TokenId, CONTINUATION_TOKENS_MAX>,
}

#[derive(Serialize, Deserialize)]
struct ContinuationHeader {
    session: u8,
    epoch: u8,
    round: u32,
    base: u32,
    prefix: Prefix,
    pass: LogTime,
    queue: LogTime,
    token_bits: u8,
    count_less_one: u8,
}

impl Continuation {
    pub(crate) fn encode(&self) -> Result<Vec<u8, MESSAGE_BYTES_MAX>, EncodeError> {
        let Self { session, epoch, round, base, prefix, pass, queue, token_bits, .. } = *self;
        let count = self.tokens.len();
        check(round, base, token_bits, count).map_err(EncodeError::OutOfRange)?;
        let count_less_one = count as u8 - 1;
        let header = ContinuationHeader {
            session,
            epoch,
            round,
            base,
            prefix,
            pass,
            queue,
            token_bits,
            count_less_one,
        };
        let mut bytes = codec::put(Kind::Continuation, &header)?;
        let mut bits = BitWriter::new(&mut bytes);
        self.tokens.iter().try_for_each(|token| put_token(&mut bits, *token, token_bits))?;
        Ok(bytes)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (header, tail) = codec::take::<ContinuationHeader>(bytes)?;
        let ContinuationHeader {
            session,
            epoch,
            round,
            base,
            prefix,
            pass,
            queue,
            token_bits,
            count_less_one,
        } = header;
        let count = usize::from(count_less_one) + 1;
        check(round, base, token_bits, count).map_err(DecodeError::Impossible)?;
        let tokens = unpack(tail, count, |bits| bits.take(token_bits))?;
        Ok(Self { session, epoch, round, base, prefix, pass, queue, token_bits, tokens })
    }
}

/// Checks everything but the tokens; the error names the first field outside its limits.
fn check(round: u32, base: u32, token_bits: u8, count: usize) -> Result<(), &'static str> {
    match (round, base, count) {
        (0, ..) => Err("round"),
        (_, 0, _) => Err("base"),
        (.., 1..=CONTINUATION_TOKENS_MAX) => check_packed(token_bits, base, count, "base"),
        _ => Err("tokens"),
    }
}
