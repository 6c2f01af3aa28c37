//! What a device sends on its frame topic: drafts, context, and the end of a session.

use crate::bits::{BitReader, BitWriter};
use crate::codec::{self, Kind};
use crate::digest::Prefix;
use crate::limits::{
    CONTEXT_BYTES_MAX, CONTEXT_CHUNK_TOKENS_MAX, DRAFT_BYTES_MAX, DRAFT_TOKENS_MAX, MESSAGE_BYTES_MAX,
    SESSION_TOKENS_MAX, TOKEN_BITS_MAX, TOKEN_BITS_MIN,
};
use crate::{DecodeError, EncodeError, TokenId};
use heapless::Vec;
use serde::{Deserialize, Serialize};

/// Bits of one score on the wire.
const SCORE_BITS: u8 = 4;

/// A score between 0 and 1 in 4 bits: `k` stands for the interval `[k/16, (k+1)/16)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Score(u8);

impl Score {
    /// The largest score.
    pub const MAX: Self = Self(15);

    /// The score `k`, or `None` above 15.
    pub const fn new(k: u8) -> Option<Self> {
        if k <= Self::MAX.0 { Some(Self(k)) } else { None }
    }

    /// The score as a number from 0 to 15.
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// One drafted token with the scores that the device gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draft {
    /// The token.
    pub token: TokenId,
    /// How unsure the drafter was.
    pub uncertainty: Score,
    /// How much the drafter's attention cares about it.
    pub importance: Score,
}

/// Drafted tokens that continue the committed text at `base`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DraftFrame {
    /// The device's number for the session.
    pub session: u8,
    /// Counts the leases of the session: a verdict of another epoch is stale.
    pub epoch: u8,
    /// Counts the frames of the epoch from 1; a frame sent again keeps its round.
    pub round: u32,
    /// Length in tokens of the committed text the drafts continue.
    pub base: u32,
    /// Short digest of that text.
    pub prefix: Prefix,
    /// Bits of one token id: enough for the vocabulary.
    pub token_bits: u8,
    /// The drafts, oldest first; none asks the verifier for one token.
    pub drafts: Vec<Draft, DRAFT_TOKENS_MAX>,
}

/// A piece of committed text: the prompt, a later turn, or what a verifier must be told again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// The device's number for the session.
    pub session: u8,
    /// The lease the chunk belongs to.
    pub epoch: u8,
    /// Position of the first token.
    pub offset: u32,
    /// Short digest of the text before `offset`.
    pub prefix: Prefix,
    /// Bits of one token id.
    pub token_bits: u8,
    /// The tokens, at least one.
    pub tokens: Vec<TokenId, CONTEXT_CHUNK_TOKENS_MAX>,
}

/// The device is done with a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Close {
    /// The device's number for the session.
    pub session: u8,
    /// The lease that ends.
    pub epoch: u8,
}

/// Any message on a device's frame topic.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)] // no allocator to box the large one with
pub enum Up {
    /// Drafts to check.
    Draft(DraftFrame),
    /// Committed text.
    Context(Context),
    /// The end of a session.
    Close(Close),
}

#[derive(Serialize, Deserialize)]
struct DraftHeader {
    session: u8,
    epoch: u8,
    round: u32,
    base: u32,
    prefix: Prefix,
    token_bits: u8,
}

#[derive(Serialize, Deserialize)]
struct ContextHeader {
    session: u8,
    epoch: u8,
    offset: u32,
    prefix: Prefix,
    token_bits: u8,
}

/// Bits of one token id on the wire for a vocabulary of `size` entries: at least [`TOKEN_BITS_MIN`].
pub const fn token_bits(size: u32) -> u8 {
    let bits = 32 - size.saturating_sub(1).leading_zeros() as u8;
    if bits < TOKEN_BITS_MIN { TOKEN_BITS_MIN } else { bits }
}

impl DraftFrame {
    /// The frame as bytes.
    ///
    /// # Errors
    /// Names the field that is outside its limits.
    pub fn encode(&self) -> Result<Vec<u8, DRAFT_BYTES_MAX>, EncodeError> {
        check_shape(self.token_bits, self.base, "base").map_err(EncodeError::OutOfRange)?;
        let (session, epoch, round, base) = (self.session, self.epoch, self.round, self.base);
        let header =
            DraftHeader { session, epoch, round, base, prefix: self.prefix, token_bits: self.token_bits };
        let mut bytes = codec::put(Kind::Draft, &header)?;
        let mut bits = BitWriter::new(&mut bytes);
        for draft in &self.drafts {
            if draft.token >> self.token_bits != 0 {
                return Err(EncodeError::OutOfRange("token"));
            }
            let scores = u32::from(draft.uncertainty.0) << SCORE_BITS | u32::from(draft.importance.0);
            let pushed = bits.push(draft.token, self.token_bits) && bits.push(scores, 2 * SCORE_BITS);
            if !pushed {
                return Err(EncodeError::NoRoom);
            }
        }
        Ok(bytes)
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (header, tail) = codec::take::<DraftHeader>(bytes)?;
        let DraftHeader { session, epoch, round, base, prefix, token_bits } = header;
        check_shape(token_bits, base, "base").map_err(DecodeError::Impossible)?;
        let mut drafts = Vec::new();
        unpack(tail, token_bits + 2 * SCORE_BITS, |bits| {
            let token = bits.take(token_bits)?;
            let uncertainty = Score(bits.take(SCORE_BITS)? as u8);
            let importance = Score(bits.take(SCORE_BITS)? as u8);
            drafts.push(Draft { token, uncertainty, importance }).ok()
        })?;
        Ok(Self { session, epoch, round, base, prefix, token_bits, drafts })
    }
}

impl Context {
    /// The chunk as bytes.
    ///
    /// # Errors
    /// Names the field that is outside its limits.
    pub fn encode(&self) -> Result<Vec<u8, CONTEXT_BYTES_MAX>, EncodeError> {
        check_shape(self.token_bits, self.offset, "offset").map_err(EncodeError::OutOfRange)?;
        if self.tokens.is_empty() {
            return Err(EncodeError::OutOfRange("tokens"));
        }
        let (session, epoch, offset, token_bits) = (self.session, self.epoch, self.offset, self.token_bits);
        let header = ContextHeader { session, epoch, offset, prefix: self.prefix, token_bits };
        let mut bytes = codec::put(Kind::Context, &header)?;
        let mut bits = BitWriter::new(&mut bytes);
        for &token in &self.tokens {
            if token >> self.token_bits != 0 {
                return Err(EncodeError::OutOfRange("token"));
            }
            if !bits.push(token, self.token_bits) {
                return Err(EncodeError::NoRoom);
            }
        }
        Ok(bytes)
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (header, tail) = codec::take::<ContextHeader>(bytes)?;
        let ContextHeader { session, epoch, offset, prefix, token_bits } = header;
        check_shape(token_bits, offset, "offset").map_err(DecodeError::Impossible)?;
        let mut tokens = Vec::new();
        unpack(tail, token_bits, |bits| tokens.push(bits.take(token_bits)?).ok())?;
        if tokens.is_empty() {
            return Err(DecodeError::Truncated);
        }
        Ok(Self { session, epoch, offset, prefix, token_bits, tokens })
    }
}

impl Close {
    /// The message as bytes.
    ///
    /// # Errors
    /// None in practice: the message has a fixed size below the limit.
    pub fn encode(&self) -> Result<Vec<u8, MESSAGE_BYTES_MAX>, EncodeError> {
        codec::put(Kind::Close, self)
    }
}

impl Up {
    /// Decodes a message that came on a frame topic.
    ///
    /// # Errors
    /// Says what is wrong with the bytes; see [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        match codec::open(bytes)? {
            (Kind::Draft, rest) => DraftFrame::decode(rest).map(Self::Draft),
            (Kind::Context, rest) => Context::decode(rest).map(Self::Context),
            (Kind::Close, rest) => codec::take_all(rest).map(Self::Close),
            (kind, _) => Err(DecodeError::UnknownKind(kind as u8)),
        }
    }
}

/// The name of the first field that no sender produces.
fn check_shape(token_bits: u8, position: u32, name: &'static str) -> Result<(), &'static str> {
    if !(TOKEN_BITS_MIN..=TOKEN_BITS_MAX).contains(&token_bits) {
        return Err("token_bits");
    }
    if position > SESSION_TOKENS_MAX { Err(name) } else { Ok(()) }
}

/// Calls `item` for each of the `width`-bit items of a tail, then checks that only zero padding is left.
fn unpack(
    tail: &[u8],
    width: u8,
    mut item: impl FnMut(&mut BitReader<'_>) -> Option<()>,
) -> Result<(), DecodeError> {
    let count = tail.len() * 8 / usize::from(width);
    if (count * usize::from(width)).div_ceil(8) != tail.len() {
        return Err(DecodeError::Truncated);
    }
    let mut bits = BitReader::new(tail);
    for _ in 0..count {
        item(&mut bits).ok_or(DecodeError::Impossible("count"))?;
    }
    if bits.rest_is_zero() { Ok(()) } else { Err(DecodeError::NotCanonical) }
}
