//! Objects by pieces: what a device wants of one, and what a store sends.

use crate::codec::{self, Kind};
use crate::limits::{
    BLOCK_BYTES_MAX, BLOCK_MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX, PIECE_BYTES, WANTED_BYTES_MAX,
    WANTED_PIECES_MAX, WANTED_SPANS_MAX,
};
use crate::presence::Liveness;
use crate::rollout::ObjectId;
use crate::{DecodeError, EncodeError};
use heapless::Vec;
use serde::{Deserialize, Serialize};

/// Pieces of a block at most: a block begins at a multiple of so many, or ends there.
const BLOCK_PIECES_MAX: u8 = (BLOCK_BYTES_MAX / PIECE_BYTES) as u8;

/// Neighbouring pieces of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PieceSpan {
    /// The first one.
    pub first: u32,
    /// Their number, never 0.
    pub count: u8,
}

/// The pieces that a device wants of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedPieces {
    /// The object.
    pub object: ObjectId,
    /// At least one span; they ascend, with a gap between two.
    pub spans: Vec<PieceSpan, WANTED_SPANS_MAX>,
}

/// The form of the bytes in an [`ObjectBlock`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlockForm {
    /// As in the object.
    Raw,
    /// One frame of Zstandard.
    Zstd,
    /// No bytes: the store doesn't have the object, or the object ends before `first`.
    Absent,
}

/// Pieces of an object, from a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectBlock<'a> {
    /// The first bytes of the object's id.
    pub object: [u8; 8],
    /// The first piece.
    pub first: u32,
    /// The number of pieces; they don't cross a multiple of 8. The object may end in the last one.
    pub count: u8,
    /// The form of the bytes.
    pub form: BlockForm,
    /// The bytes.
    pub bytes: &'a [u8],
}

#[derive(Serialize, Deserialize)]
struct WantedHeader {
    object: ObjectId,
    spans: u8,
}

#[derive(Serialize, Deserialize)]
struct BlockHeader {
    object: [u8; 8],
    first: u32,
    count: u8,
    form: BlockForm,
    length: u16,
}

/// A store's presence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorePresence {
    /// Count of the connections; a `Lost` of an older one is ignored.
    pub generation: u32,
    /// Its connection state.
    pub liveness: Liveness,
    /// The bytes that it sends relative to those that it may send, scaled to 0..=255.
    pub load: u8,
}

impl ObjectId {
    /// The first bytes, which name it in an [`ObjectBlock`].
    pub fn short(&self) -> [u8; 8] {
        let mut short = [0; 8];
        short.copy_from_slice(&self.0[..8]);
        short
    }
}

impl WantedPieces {
    /// Encodes the message.
    ///
    /// # Errors
    /// Names the field that is outside its limits.
    pub fn encode(&self) -> Result<Vec<u8, WANTED_BYTES_MAX>, EncodeError> {
        self.check().map_err(EncodeError::OutOfRange)?;
        let header = WantedHeader { object: self.object, spans: self.spans.len() as u8 };
        let mut bytes = codec::put(Kind::Wanted, &header)?;
        self.spans.iter().try_for_each(|span| codec::append(&mut bytes, span))?;
        Ok(bytes)
    }

    /// Decodes a message from a store's topic.
    ///
    /// # Errors
    /// The bytes are malformed; see [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (header, mut tail) = match codec::open(bytes)? {
            (Kind::Wanted, rest) => codec::take::<WantedHeader>(rest)?,
            (kind, _) => return Err(DecodeError::UnknownKind(kind as u8)),
        };
        if usize::from(header.spans) > WANTED_SPANS_MAX {
            return Err(DecodeError::Impossible("spans"));
        }
        let mut spans = Vec::new();
        for _ in 0..header.spans {
            let (span, behind) = codec::take(tail)?;
            spans.push(span).map_err(|_| DecodeError::Impossible("spans"))?;
            tail = behind;
        }
        if !tail.is_empty() {
            return Err(DecodeError::Trailing);
        }
        let wanted = Self { object: header.object, spans };
        wanted.check().map_err(DecodeError::Impossible)?;
        Ok(wanted)
    }

    fn check(&self) -> Result<(), &'static str> {
        let end = |span: &PieceSpan| u64::from(span.first) + u64::from(span.count);
        let apart = |one: &PieceSpan, next: &PieceSpan| end(one) < u64::from(next.first);
        let pieces: u32 = self.spans.iter().map(|span| u32::from(span.count)).sum();
        match self.spans.last() {
            None => Err("spans"),
            Some(last) if end(last) > u64::from(u32::MAX) + 1 => Err("first"),
            _ if self.spans.iter().any(|span| span.count == 0) || pieces > WANTED_PIECES_MAX => Err("count"),
            _ if !self.spans.is_sorted_by(apart) => Err("first"),
            _ => Ok(()),
        }
    }
}

impl<'a> ObjectBlock<'a> {
    /// Encodes the message.
    ///
    /// # Errors
    /// Names the field that is outside its limits.
    pub fn encode(&self) -> Result<Vec<u8, BLOCK_MESSAGE_BYTES_MAX>, EncodeError> {
        self.check().map_err(EncodeError::OutOfRange)?;
        let Self { object, first, count, form, bytes } = *self;
        let length = u16::try_from(bytes.len()).map_err(|_| EncodeError::OutOfRange("length"))?;
        let header = BlockHeader { object, first, count, form, length };
        let mut message = codec::put(Kind::Block, &header)?;
        message.extend_from_slice(bytes).map_err(|_| EncodeError::NoRoom)?;
        Ok(message)
    }

    /// Decodes a message from a device's topic of blocks.
    ///
    /// # Errors
    /// The bytes are malformed; see [`DecodeError`].
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let (header, tail) = match codec::open(bytes)? {
            (Kind::Block, rest) => codec::take::<BlockHeader>(rest)?,
            (kind, _) => return Err(DecodeError::UnknownKind(kind as u8)),
        };
        let BlockHeader { object, first, count, form, length } = header;
        if usize::from(length) > BLOCK_BYTES_MAX {
            return Err(DecodeError::Impossible("length"));
        }
        let block = Self { object, first, count, form, bytes: codec::rest(tail, length.into())? };
        block.check().map_err(DecodeError::Impossible)?;
        Ok(block)
    }

    fn check(&self) -> Result<(), &'static str> {
        let Self { first, count, form, bytes, .. } = *self;
        let room = u32::from(BLOCK_PIECES_MAX) - first % u32::from(BLOCK_PIECES_MAX);
        let (most, least) =
            (usize::from(count) * PIECE_BYTES, usize::from(count).saturating_sub(1) * PIECE_BYTES);
        match form {
            _ if count == 0 || u32::from(count) > room => Err("count"),
            BlockForm::Raw if bytes.len() <= least || bytes.len() > most => Err("length"),
            BlockForm::Zstd if bytes.is_empty() || bytes.len() >= most => Err("length"),
            BlockForm::Absent if !bytes.is_empty() => Err("length"),
            _ => Ok(()),
        }
    }
}

impl StorePresence {
    /// Encodes the message.
    ///
    /// # Errors
    /// None in practice: the message's size is below the limit.
    pub fn encode(&self) -> Result<Vec<u8, MESSAGE_BYTES_MAX>, EncodeError> {
        codec::put(Kind::StorePresence, self)
    }

    /// Decodes a message from a store's presence topic.
    ///
    /// # Errors
    /// The bytes are malformed; see [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        match codec::open(bytes)? {
            (Kind::StorePresence, rest) => codec::take_all(rest),
            (kind, _) => Err(DecodeError::UnknownKind(kind as u8)),
        }
    }
}
