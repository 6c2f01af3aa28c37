//! A device's messages on its frame topic: drafts, context, weights, and the end of a session.

use crate::annotated;
use crate::bits::{BitReader, BitWriter};
use crate::codec::{self, Kind};
use crate::codes::Codes;
use crate::digest::{PREFIX_EMPTY, Prefix};
use crate::limits::{
    ANNOTATED_BYTES_MAX, CONTEXT_BYTES_MAX, CONTEXT_CHUNK_TOKENS_MAX, DRAFT_TOKENS_MAX, MESSAGE_BYTES_MAX,
    SENDS_MAX, SESSION_TOKENS_MAX, STOP_IDS_MAX, TOKEN_BITS_MAX, TOKEN_BITS_MIN,
};
use crate::rows::Rows;
use crate::{DecodeError, EncodeError, TokenId};
use heapless::Vec;
use serde::{Deserialize, Serialize};

/// Bits of one score on the wire.
pub(crate) const SCORE_BITS: u8 = 4;
/// Number of possible counts of drafts, 0 included. The width of a token id and the count share one byte.
const COUNTS: u8 = DRAFT_TOKENS_MAX as u8 + 1;
/// The largest such byte.
const SHAPE_MAX: u8 = (TOKEN_BITS_MAX - TOKEN_BITS_MIN) * COUNTS + DRAFT_TOKENS_MAX as u8;
const _: () = assert!(CONTEXT_CHUNK_TOKENS_MAX == 1 << u8::BITS, "a byte holds every count less one");

/// A score between 0 and 1 in 4 bits: `k` stands for the interval `[k/16, (k+1)/16)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Score(u8);

impl Score {
    /// The largest score.
    pub const MAX: Self = Self(15);

    /// The score `k`; `None` above 15.
    pub const fn new(k: u8) -> Option<Self> {
        if k <= Self::MAX.0 { Some(Self(k)) } else { None }
    }

    /// The score as a number from 0 to 15.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The score in the low bits of `bits`.
    pub(crate) const fn of(bits: u32) -> Self {
        Self(bits as u8 & Self::MAX.0)
    }
}

/// One drafted token with its scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draft {
    /// The token.
    pub token: TokenId,
    /// The drafter's uncertainty of it.
    pub uncertainty: Score,
    /// Its importance by the drafter's attention.
    pub importance: Score,
}

/// Drafted tokens that continue the committed text at `base`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DraftFrame {
    /// The device's number for the session.
    pub session: u8,
    /// Count of the session's leases; a verdict of another epoch is stale.
    pub epoch: u8,
    /// Count of the epoch's frames, from 1; a frame sent again keeps its round.
    pub round: u32,
    /// Count of this frame's sends, from 1; it stays at [`SENDS_MAX`](crate::limits::SENDS_MAX).
    pub send: u8,
    /// Length in tokens of the committed text that the drafts continue.
    pub base: u32,
    /// Short digest of that text.
    pub prefix: Prefix,
    /// Bits of one token id: enough for the vocabulary.
    pub token_bits: u8,
    /// The drafts, oldest first; a frame without drafts requests one token.
    pub drafts: Vec<Draft, DRAFT_TOKENS_MAX>,
    /// Bit i: draft i is held, that is, it stays whatever the target's choice; its scores are 0.
    pub held: u16,
    /// True to request one more token after the last draft if all are accepted.
    pub bonus: bool,
    /// The sent distributions of the judged drafts, that is, of those that are not held.
    pub rows: Rows,
    /// Permission for the verifier to continue the text by itself; `None` if not requested.
    pub credit: Option<Credit>,
}

/// Permission for the verifier to write tokens beyond the verdict's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credit {
    /// Length in tokens that the text may reach; equal to the frame's base if no more tokens are wanted.
    pub until: u32,
    /// True to request the tokens written behind the base again.
    pub again: bool,
    /// Tokens that end the text, in ascending order.
    pub stop: Vec<TokenId, STOP_IDS_MAX>,
}

/// A chunk of committed text: the prompt, a later turn, or text that a verifier lacks.
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

/// The device ends a session.
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
    /// Weights of a vocabulary, for a frame.
    Codes(Codes),
    /// The end of a session.
    Close(Close),
}

#[derive(Serialize, Deserialize)]
pub(crate) struct DraftHeader {
    pub(crate) send: u8,
    pub(crate) session: u8,
    pub(crate) epoch: u8,
    pub(crate) round: u32,
    pub(crate) base: u32,
    pub(crate) prefix: Prefix,
    /// The width of a token id above the least, and the count of drafts.
    shape: u8,
}

#[derive(Serialize, Deserialize)]
struct ContextHeader {
    session: u8,
    epoch: u8,
    offset: u32,
    prefix: Prefix,
    token_bits: u8,
    count_less_one: u8,
}

/// Bits of one token id on the wire for a vocabulary of `size` entries: at least [`TOKEN_BITS_MIN`].
pub const fn token_bits(size: u32) -> u8 {
    let bits = 32 - size.saturating_sub(1).leading_zeros() as u8;
    if bits < TOKEN_BITS_MIN { TOKEN_BITS_MIN } else { bits }
}

/// Appends a token id in `token_bits` bits.
pub(crate) fn put_token<const N: usize>(
    bits: &mut BitWriter<'_, N>,
    token: TokenId,
    token_bits: u8,
) -> Result<(), EncodeError> {
    if token >> token_bits != 0 {
        return Err(EncodeError::OutOfRange("token"));
    }
    if bits.push(token, token_bits) { Ok(()) } else { Err(EncodeError::NoRoom) }
}

impl Draft {
    pub(crate) fn put_scores<const N: usize>(&self, bits: &mut BitWriter<'_, N>) -> Result<(), EncodeError> {
        let scores = u32::from(self.uncertainty.0) << SCORE_BITS | u32::from(self.importance.0);
        if bits.push(scores, 2 * SCORE_BITS) { Ok(()) } else { Err(EncodeError::NoRoom) }
    }
}

impl DraftHeader {
    /// The header of a frame whose position and widths are within their limits.
    pub(crate) fn of(frame: &DraftFrame) -> Result<Self, EncodeError> {
        let DraftFrame { send, session, epoch, round, base, prefix, token_bits, .. } = *frame;
        check_draft(send, round, base, token_bits, frame.drafts.len()).map_err(EncodeError::OutOfRange)?;
        let shape = (token_bits - TOKEN_BITS_MIN) * COUNTS + frame.drafts.len() as u8;
        Ok(Self { send, session, epoch, round, base, prefix, shape })
    }

    /// The width of a token id and the count of drafts.
    pub(crate) fn shape(&self) -> Result<(u8, usize), DecodeError> {
        if self.shape > SHAPE_MAX {
            return Err(DecodeError::Impossible("shape"));
        }
        let (token_bits, count) = (TOKEN_BITS_MIN + self.shape / COUNTS, usize::from(self.shape % COUNTS));
        check_draft(self.send, self.round, self.base, token_bits, count).map_err(DecodeError::Impossible)?;
        Ok((token_bits, count))
    }
}

impl DraftFrame {
    /// True where the frame is its drafts alone: none is held, a bonus token is wanted, no rows and no credit.
    pub fn is_plain(&self) -> bool {
        self.held == 0 && self.bonus && self.rows == Rows::None && self.credit.is_none()
    }

    /// True when draft `index` is held.
    pub fn is_held(&self, index: usize) -> bool {
        u32::from(self.held).checked_shr(index as u32).is_some_and(|held| held & 1 == 1)
    }

    /// The number of judged drafts, which are those that are not held.
    pub fn judged(&self) -> usize {
        (0..self.drafts.len()).filter(|index| !self.is_held(*index)).count()
    }

    /// Encodes the frame.
    ///
    /// # Errors
    /// Names the field that is outside its limits, or reports rows that exceed [`ANNOTATED_BYTES_MAX`]: see
    /// [`judged_drafts_max`](crate::judged_drafts_max).
    pub fn encode(&self) -> Result<Vec<u8, ANNOTATED_BYTES_MAX>, EncodeError> {
        if !self.is_plain() {
            return annotated::encode(self);
        }
        let mut bytes = codec::put(Kind::Draft, &DraftHeader::of(self)?)?;
        let mut bits = BitWriter::new(&mut bytes);
        for draft in &self.drafts {
            put_token(&mut bits, draft.token, self.token_bits)?;
            draft.put_scores(&mut bits)?;
        }
        Ok(bytes)
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (header, tail) = codec::take::<DraftHeader>(bytes)?;
        let (token_bits, count) = header.shape()?;
        let DraftHeader { send, session, epoch, round, base, prefix, .. } = header;
        let drafts = unpack(tail, count, |bits| {
            let token = bits.take(token_bits)?;
            let uncertainty = Score::of(bits.take(SCORE_BITS)?);
            let importance = Score::of(bits.take(SCORE_BITS)?);
            Some(Draft { token, uncertainty, importance })
        })?;
        let (held, bonus, rows, credit) = (0, true, Rows::None, None);
        Ok(Self { session, epoch, round, send, base, prefix, token_bits, drafts, held, bonus, rows, credit })
    }
}

const _: () = assert!(SENDS_MAX == u8::MAX, "a byte counts no further");
/// Index of the byte with a frame's send count.
const SEND_AT: usize = 1;

/// Increments the send count in the bytes of an encoded frame.
pub fn count_send(frame: &mut [u8]) {
    if let Some(send) = frame.get_mut(SEND_AT) {
        *send = send.saturating_add(1);
    }
}

/// The digest of a frame's bytes without its send count; each byte is digested like a token.
pub fn frame_digest(bytes: &[u8]) -> u64 {
    let covered = bytes.iter().enumerate().filter(|(at, _)| *at != SEND_AT);
    let digest = covered.fold(PREFIX_EMPTY, |digest, (_, byte)| digest.push(u32::from(*byte)));
    u64::from_be_bytes(digest.full())
}

/// The check of a frame's bytes, which its verdict repeats.
pub fn frame_check(bytes: &[u8]) -> u8 {
    check_of(frame_digest(bytes))
}

/// The check of a frame with this digest: its top 8 bits.
pub const fn check_of(digest: u64) -> u8 {
    digest.to_be_bytes()[0]
}

impl Context {
    /// Encodes the chunk.
    ///
    /// # Errors
    /// Names the field that is outside its limits.
    pub fn encode(&self) -> Result<Vec<u8, CONTEXT_BYTES_MAX>, EncodeError> {
        let (session, epoch, offset, token_bits) = (self.session, self.epoch, self.offset, self.token_bits);
        check_packed(token_bits, offset, self.tokens.len(), "offset").map_err(EncodeError::OutOfRange)?;
        let count_less_one = self.tokens.len().checked_sub(1).ok_or(EncodeError::OutOfRange("tokens"))? as u8;
        let header =
            ContextHeader { session, epoch, offset, prefix: self.prefix, token_bits, count_less_one };
        let mut bytes = codec::put(Kind::Context, &header)?;
        let mut bits = BitWriter::new(&mut bytes);
        for &token in &self.tokens {
            put_token(&mut bits, token, self.token_bits)?;
        }
        Ok(bytes)
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (header, tail) = codec::take::<ContextHeader>(bytes)?;
        let ContextHeader { session, epoch, offset, prefix, token_bits, count_less_one } = header;
        let count = usize::from(count_less_one) + 1;
        check_packed(token_bits, offset, count, "offset").map_err(DecodeError::Impossible)?;
        let tokens = unpack(tail, count, |bits| bits.take(token_bits))?;
        Ok(Self { session, epoch, offset, prefix, token_bits, tokens })
    }
}

impl Close {
    /// Encodes the message.
    ///
    /// # Errors
    /// None in practice: the message's fixed size is below the limit.
    pub fn encode(&self) -> Result<Vec<u8, MESSAGE_BYTES_MAX>, EncodeError> {
        codec::put(Kind::Close, self)
    }
}

impl Up {
    /// Decodes a message from a frame topic.
    ///
    /// # Errors
    /// The bytes are malformed; see [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        match codec::open(bytes)? {
            (Kind::Draft, rest) => DraftFrame::decode(rest).map(Self::Draft),
            (Kind::Annotated, rest) => annotated::decode(rest).map(Self::Draft),
            (Kind::Context, rest) => Context::decode(rest).map(Self::Context),
            (Kind::Codes, rest) => Codes::decode(rest).map(Self::Codes),
            (Kind::Close, rest) => codec::take_all(rest).map(Self::Close),
            (kind, _) => Err(DecodeError::UnknownKind(kind as u8)),
        }
    }
}

/// Checks a draft frame's header; the error names the first field outside its limits.
fn check_draft(send: u8, round: u32, base: u32, token_bits: u8, count: usize) -> Result<(), &'static str> {
    match (send, round) {
        (0, _) => Err("send"),
        (_, 0) => Err("round"),
        _ => check_packed(token_bits, base, count, "base"),
    }
}

/// Checks the width of ids, and that `count` items behind `position` fit a session; `name` is the position's field.
pub(crate) fn check_packed(
    token_bits: u8,
    position: u32,
    count: usize,
    name: &'static str,
) -> Result<(), &'static str> {
    if !(TOKEN_BITS_MIN..=TOKEN_BITS_MAX).contains(&token_bits) {
        return Err("token_bits");
    }
    if position.saturating_add(count as u32) > SESSION_TOKENS_MAX { Err(name) } else { Ok(()) }
}

/// Reads the `count` items of a tail, whose length must be exact and whose padding must be zero.
pub(crate) fn unpack<T, const N: usize>(
    tail: &[u8],
    count: usize,
    mut item: impl FnMut(&mut BitReader<'_>) -> Option<T>,
) -> Result<Vec<T, N>, DecodeError> {
    let mut bits = BitReader::new(tail);
    let mut items = Vec::new();
    for _ in 0..count {
        let item = item(&mut bits).ok_or(DecodeError::Truncated)?;
        items.push(item).map_err(|_| DecodeError::Impossible("count"))?;
    }
    bits.end()?;
    Ok(items)
}
