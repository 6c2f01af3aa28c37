//! Annotated draft frames: those with held drafts, without a bonus token, with rows, or with credit.

use crate::bits::{BitReader, BitWriter};
use crate::codec::{self, Kind};
use crate::frame::{Credit, Draft, DraftFrame, DraftHeader, SCORE_BITS, Score, put_token};
use crate::limits::{ANNOTATED_BYTES_MAX, DRAFT_TOKENS_MAX, SESSION_TOKENS_MAX, STOP_IDS_MAX};
use crate::rows::{Form, Row, Rows, WEIGHT_BITS};
use crate::{DecodeError, EncodeError};
use heapless::Vec;
use serde::{Deserialize, Serialize};

/// The largest mode without credit: a lattice with a bonus token.
const MODE_MAX: u8 = 4 << 1 | 1;
/// The mode with credit: no rows, and a bonus token.
const MODE_CREDIT: u8 = 1 << 4 | 1;
/// Flag above the count of stop ids: the text is requested again.
const AGAIN: u8 = 1 << 4;

#[derive(Serialize, Deserialize)]
struct AnnotatedHeader {
    draft: DraftHeader,
    /// Bit 0: a bonus token is wanted. Bits 1 to 3: the form of the rows. Bit 4: credit follows.
    mode: u8,
}

#[derive(Serialize, Deserialize)]
struct CreditHeader {
    until: u32,
    /// The count of stop ids, and above it [`AGAIN`].
    stop: u8,
}

/// The parts of a tail, filled as they are read.
#[derive(Default)]
struct Tail {
    drafts: Vec<Draft, DRAFT_TOKENS_MAX>,
    held: u16,
    rows: Vec<Row, DRAFT_TOKENS_MAX>,
}

pub(crate) fn encode(frame: &DraftFrame) -> Result<Vec<u8, ANNOTATED_BYTES_MAX>, EncodeError> {
    check(frame).map_err(EncodeError::OutOfRange)?;
    let mode = match frame.credit {
        None => frame.rows.number() << 1 | u8::from(frame.bonus),
        Some(_) => MODE_CREDIT,
    };
    let mut bytes = codec::put(Kind::Annotated, &AnnotatedHeader { draft: DraftHeader::of(frame)?, mode })?;
    if let Some(Credit { until, again, stop }) = &frame.credit {
        let stop = stop.len() as u8 | if *again { AGAIN } else { 0 };
        codec::append(&mut bytes, &CreditHeader { until: *until, stop })?;
    }
    let mut bits = BitWriter::new(&mut bytes);
    let stop_ids = frame.credit.iter().flat_map(|credit| &credit.stop);
    stop_ids.copied().try_for_each(|id| put_token(&mut bits, id, frame.token_bits))?;
    let room = |pushed| if pushed { Ok(()) } else { Err(EncodeError::NoRoom) };
    if let Rows::Lattice { resolution, .. } = frame.rows {
        room(bits.push(resolution.into(), WEIGHT_BITS))?;
    }
    let mut rows = frame.rows.list().iter();
    for (index, draft) in frame.drafts.iter().enumerate() {
        let held = frame.is_held(index);
        room(bits.push(held.into(), 1))?;
        put_token(&mut bits, draft.token, frame.token_bits)?;
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
    if mode > MODE_MAX && mode != MODE_CREDIT {
        return Err(DecodeError::Impossible("mode"));
    }
    let (credit, mut bits) = match mode {
        MODE_CREDIT => take_credit(tail, token_bits)?,
        _ => (None, BitReader::new(tail)),
    };
    let number = if credit.is_some() { 0 } else { mode >> 1 };
    let form = match number {
        0 | 1 => None,
        2 => Some(Form::TopK),
        3 => Some(Form::TopKSampled),
        _ => Some(Form::Lattice(take_resolution(&mut bits)?)),
    };
    let Tail { drafts, held, rows } = take_tail(&mut bits, count, token_bits, form)?;
    bits.end()?;
    let rows = match form {
        None if number == 0 => Rows::None,
        None => Rows::Full,
        Some(Form::TopK) => Rows::TopK(rows),
        Some(Form::TopKSampled) => Rows::TopKSampled(rows),
        Some(Form::Lattice(resolution)) => Rows::Lattice { resolution, rows },
    };
    let DraftHeader { send, session, epoch, round, base, prefix, .. } = header;
    let bonus = mode & 1 == 1;
    let frame = DraftFrame {
        session,
        epoch,
        round,
        send,
        base,
        prefix,
        token_bits,
        drafts,
        held,
        bonus,
        rows,
        credit,
    };
    check(&frame).map_err(DecodeError::Impossible)?;
    if frame.is_plain() { Err(DecodeError::NotCanonical) } else { Ok(frame) }
}

/// The credit behind the mode, and the bits behind its stop ids.
fn take_credit(bytes: &[u8], token_bits: u8) -> Result<(Option<Credit>, BitReader<'_>), DecodeError> {
    let (CreditHeader { until, stop: packed }, tail) = codec::take(bytes)?;
    let (again, count) = (packed & AGAIN != 0, packed & !AGAIN);
    if usize::from(count) > STOP_IDS_MAX {
        return Err(DecodeError::Impossible("stop"));
    }
    let mut bits = BitReader::new(tail);
    let stop =
        (0..count).map(|_| bits.take(token_bits).ok_or(DecodeError::Truncated)).collect::<Result<_, _>>()?;
    Ok((Some(Credit { until, again, stop }), bits))
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

/// Checks the limits of all fields except the rows' own; the error names the first field outside them.
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
    check_credit(frame)?;
    frame.rows.check(frame.judged())
}

/// Checks a credit; the error names the first field outside its limits. A frame with rows can't have credit: without
/// the shared seed the verifier can't draw the device's next tokens.
fn check_credit(frame: &DraftFrame) -> Result<(), &'static str> {
    let Some(credit) = &frame.credit else { return Ok(()) };
    if frame.rows != Rows::None || !frame.bonus {
        return Err("credit");
    }
    if credit.until < frame.base || credit.until > SESSION_TOKENS_MAX {
        return Err("until");
    }
    if credit.stop.is_sorted_by(|a, b| a < b) { Ok(()) } else { Err("stop") }
}
