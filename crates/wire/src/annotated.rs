//! The draft frame that says more than its drafts: which are held, whether a bonus token is wanted, and rows.

use crate::bits::{BitReader, BitWriter};
use crate::codec::{self, Kind};
use crate::frame::{Draft, DraftFrame, DraftHeader, SCORE_BITS, Score};
use crate::limits::{ANNOTATED_BYTES_MAX, DRAFT_TOKENS_MAX};
use crate::rows::{Form, Row, Rows, WEIGHT_BITS};
use crate::{DecodeError, EncodeError};
use heapless::Vec;
use serde::{Deserialize, Serialize};

/// The largest mode: a lattice with a bonus token.
const MODE_MAX: u8 = 4 << 1 | 1;

#[derive(Serialize, Deserialize)]
struct AnnotatedHeader {
    draft: DraftHeader,
    /// Whether a bonus token is wanted, and above it the number of the rows' form.
    mode: u8,
}

/// What a tail holds, piece by piece as it is read.
#[derive(Default)]
struct Tail {
    drafts: Vec<Draft, DRAFT_TOKENS_MAX>,
    held: u16,
    rows: Vec<Row, DRAFT_TOKENS_MAX>,
}

pub(crate) fn encode(frame: &DraftFrame) -> Result<Vec<u8, ANNOTATED_BYTES_MAX>, EncodeError> {
    check(frame).map_err(EncodeError::OutOfRange)?;
    let mode = frame.rows.number() << 1 | u8::from(frame.bonus);
    let mut bytes = codec::put(Kind::Annotated, &AnnotatedHeader { draft: DraftHeader::of(frame)?, mode })?;
    let mut bits = BitWriter::new(&mut bytes);
    let room = |pushed| if pushed { Ok(()) } else { Err(EncodeError::NoRoom) };
    if let Rows::Lattice { resolution, .. } = frame.rows {
        room(bits.push(resolution.into(), WEIGHT_BITS))?;
    }
    let mut rows = frame.rows.list().iter();
    for (index, draft) in frame.drafts.iter().enumerate() {
        let held = frame.is_held(index);
        room(bits.push(held.into(), 1))?;
        draft.put_token(&mut bits, frame.token_bits)?;
        if held {
            continue;
        }
        draft.put_scores(&mut bits)?;
        if let (Some(form), Some(row)) = (frame.rows.form(), rows.next()) {
            row.put(&mut bits, form, frame.token_bits)?;
        }
    }
    Ok(bytes)
}

pub(crate) fn decode(bytes: &[u8]) -> Result<DraftFrame, DecodeError> {
    let (AnnotatedHeader { draft: header, mode }, tail) = codec::take(bytes)?;
    let (token_bits, count) = header.shape()?;
    if mode > MODE_MAX {
        return Err(DecodeError::Impossible("mode"));
    }
    let mut bits = BitReader::new(tail);
    let form = match mode >> 1 {
        0 | 1 => None,
        2 => Some(Form::TopK),
        3 => Some(Form::TopKSampled),
        _ => Some(Form::Lattice(take_resolution(&mut bits)?)),
    };
    let Tail { drafts, held, rows } = take_tail(&mut bits, count, token_bits, form)?;
    bits.end()?;
    let rows = match form {
        None if mode >> 1 == 0 => Rows::None,
        None => Rows::Full,
        Some(Form::TopK) => Rows::TopK(rows),
        Some(Form::TopKSampled) => Rows::TopKSampled(rows),
        Some(Form::Lattice(resolution)) => Rows::Lattice { resolution, rows },
    };
    let DraftHeader { session, epoch, round, base, prefix, .. } = header;
    let bonus = mode & 1 == 1;
    let frame = DraftFrame { session, epoch, round, base, prefix, token_bits, drafts, held, bonus, rows };
    check(&frame).map_err(DecodeError::Impossible)?;
    if frame.is_plain() { Err(DecodeError::NotCanonical) } else { Ok(frame) }
}

fn take_resolution(bits: &mut BitReader<'_>) -> Result<u8, DecodeError> {
    match bits.take(WEIGHT_BITS) {
        None => Err(DecodeError::Truncated),
        Some(0) => Err(DecodeError::Impossible("resolution")),
        Some(resolution) => Ok(resolution as u8),
    }
}

fn take_tail(
    bits: &mut BitReader<'_>,
    count: usize,
    token_bits: u8,
    form: Option<Form>,
) -> Result<Tail, DecodeError> {
    let mut tail = Tail::default();
    for index in 0..count {
        let mut field = |width| bits.take(width).ok_or(DecodeError::Truncated);
        let (held, token) = (field(1)? == 1, field(token_bits)?);
        let mut draft = Draft { token, uncertainty: Score::default(), importance: Score::default() };
        if held {
            tail.held |= 1 << index;
        } else {
            draft.uncertainty = Score::of(field(SCORE_BITS)?);
            draft.importance = Score::of(field(SCORE_BITS)?);
            if let Some(form) = form {
                let row = Row::take(bits, form, token_bits)?;
                tail.rows.push(row).map_err(|_| DecodeError::Impossible("rows"))?;
            }
        }
        tail.drafts.push(draft).map_err(|_| DecodeError::Impossible("shape"))?;
    }
    Ok(tail)
}

/// The name of the first field that no sender produces, the rows' own ones apart.
fn check(frame: &DraftFrame) -> Result<(), &'static str> {
    if u32::from(frame.held) >> frame.drafts.len() != 0 {
        return Err("held");
    }
    if frame.drafts.is_empty() && !frame.bonus {
        return Err("bonus");
    }
    let scored = |draft: &Draft| draft.uncertainty.get() != 0 || draft.importance.get() != 0;
    if frame.drafts.iter().enumerate().any(|(index, draft)| frame.is_held(index) && scored(draft)) {
        return Err("scores");
    }
    frame.rows.check(frame.judged())
}
