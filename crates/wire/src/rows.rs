//! Rows: the sent part of the distributions that judged drafts were drawn from.

use crate::bits::{BitReader, BitWriter};
use crate::enumerative;
use crate::limits::{
    ANNOTATED_BYTES_MAX, ANNOTATED_HEADER_BYTES_MAX, DRAFT_TOKENS_MAX, ROW_ENTRIES_MAX, TOKEN_BITS_MAX,
    TOKEN_BITS_MIN,
};
use crate::{DecodeError, EncodeError, TokenId};
use heapless::Vec;

/// Bits of a row's count of entries, less one.
const COUNT_BITS: u8 = 6;
const _: () = assert!(ROW_ENTRIES_MAX == 1 << COUNT_BITS, "the bits hold every count less one");
/// Bits of one weight, and of a lattice's resolution.
pub(crate) const WEIGHT_BITS: u8 = 8;
/// Bits of a judged draft's two scores.
const SCORES_BITS: u32 = 8;

/// One token of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The token.
    pub token: TokenId,
    /// Its weight, at least 1; the form of the rows defines the unit.
    pub weight: u8,
}

/// The quantised distribution that one draft was drawn from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// The listed tokens, at least one, in ascending order.
    pub entries: Vec<Entry, ROW_ENTRIES_MAX>,
}

/// The distributions of a frame's judged drafts: one row for each, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)] // no allocator to box the rows with
pub enum Rows {
    /// Nothing: both ends draw with the shared seed.
    #[default]
    None,
    /// Every token's 8-bit weight, in [`Codes`](crate::Codes) of the same round; the frame has one judged draft.
    Full,
    /// The most probable tokens, each with its probability in 255ths; the rest is spread evenly over all others.
    TopK(Vec<Row, DRAFT_TOKENS_MAX>),
    /// The most probable tokens with weights in 255ths of the largest; the token was drawn from these.
    TopKSampled(Vec<Row, DRAFT_TOKENS_MAX>),
    /// Integer weights that sum to the resolution; the token was drawn from these.
    Lattice {
        /// The sum of every row's weights, at least 1.
        resolution: u8,
        /// The rows.
        rows: Vec<Row, DRAFT_TOKENS_MAX>,
    },
}

/// The encoding of a frame's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    TopK,
    TopKSampled,
    Lattice(u8),
}

/// Most bits of one row with at most `entries` entries in a frame with ids of `token_bits` bits. The row is a lattice
/// if there is a `resolution`, else of a top-k form. Arguments outside their limits are clamped.
///
/// It counts subsets, which is slow, so call it once per policy.
pub fn row_bits_max(token_bits: u8, entries: usize, resolution: Option<u8>) -> u32 {
    let token_bits = token_bits.clamp(TOKEN_BITS_MIN, TOKEN_BITS_MAX);
    let most = entries.clamp(1, ROW_ENTRIES_MAX) as u32;
    let Some(resolution) = resolution.map(|resolution| u32::from(resolution.max(1))) else {
        return u32::from(COUNT_BITS) + most * u32::from(token_bits + WEIGHT_BITS);
    };
    let universe = 1 << token_bits;
    // A row with fewer tokens may take more bits: the number of ways to split the resolution is largest when there are
    // half as many tokens.
    let numbers = (1..=most.min(resolution))
        .map(|size| enumerative::width(universe, size) + enumerative::width(resolution - 1, size - 1));
    u32::from(COUNT_BITS) + numbers.max().unwrap_or(0)
}

/// Most judged drafts with such rows that fit a frame in the worst case, with any number of held ones beside them.
pub fn judged_drafts_max(token_bits: u8, entries: usize, resolution: Option<u8>) -> usize {
    let tail = (ANNOTATED_BYTES_MAX - ANNOTATED_HEADER_BYTES_MAX) as u32 * u8::BITS;
    let ids = DRAFT_TOKENS_MAX as u32 * (1 + u32::from(token_bits));
    let rows = tail - ids - u32::from(WEIGHT_BITS);
    let judged = SCORES_BITS + row_bits_max(token_bits, entries, resolution);
    DRAFT_TOKENS_MAX.min((rows / judged) as usize)
}

impl Rows {
    /// The rows in the frame itself.
    pub fn list(&self) -> &[Row] {
        match self {
            Self::None | Self::Full => &[],
            Self::TopK(rows) | Self::TopKSampled(rows) | Self::Lattice { rows, .. } => rows,
        }
    }

    /// The encoding of the rows; `None` if the frame has none.
    pub(crate) fn form(&self) -> Option<Form> {
        match self {
            Self::None | Self::Full => None,
            Self::TopK(_) => Some(Form::TopK),
            Self::TopKSampled(_) => Some(Form::TopKSampled),
            Self::Lattice { resolution, .. } => Some(Form::Lattice(*resolution)),
        }
    }

    /// The form's number on the wire.
    pub(crate) fn number(&self) -> u8 {
        match self {
            Self::None => 0,
            Self::Full => 1,
            Self::TopK(_) => 2,
            Self::TopKSampled(_) => 3,
            Self::Lattice { .. } => 4,
        }
    }

    /// Checks the rows of a frame with `judged` judged drafts; the error names the first field outside its limits.
    pub(crate) fn check(&self, judged: usize) -> Result<(), &'static str> {
        match self {
            Self::None => Ok(()),
            Self::Full if judged == 1 => Ok(()),
            Self::Lattice { resolution: 0, .. } => Err("resolution"),
            _ if judged > 0 && self.list().len() == judged => Ok(()),
            _ => Err("rows"),
        }
    }
}

impl Row {
    pub(crate) fn put<const N: usize>(
        &self,
        bits: &mut BitWriter<'_, N>,
        form: Form,
        token_bits: u8,
    ) -> Result<(), EncodeError> {
        self.check(form, token_bits).map_err(EncodeError::OutOfRange)?;
        let written = bits.push(self.entries.len() as u32 - 1, COUNT_BITS)
            && match form {
                Form::Lattice(resolution) => self.put_numbers(bits, resolution, token_bits),
                Form::TopK | Form::TopKSampled => self.entries.iter().all(|entry| {
                    bits.push(entry.token, token_bits) && bits.push(entry.weight.into(), WEIGHT_BITS)
                }),
            };
        if written { Ok(()) } else { Err(EncodeError::NoRoom) }
    }

    /// Writes a lattice as two numbers: the set of tokens, and the split of the resolution among them.
    fn put_numbers<const N: usize>(
        &self,
        bits: &mut BitWriter<'_, N>,
        resolution: u8,
        token_bits: u8,
    ) -> bool {
        let size = self.entries.len() as u32;
        let tokens = enumerative::index(self.entries.iter().map(|entry| entry.token));
        let sums = self.entries.iter().scan(0, |sum, entry| {
            *sum += u32::from(entry.weight);
            Some(*sum - 1)
        });
        // The last partial sum is always the resolution itself, so it is not sent.
        let shares = enumerative::index(sums.take(size as usize - 1));
        bits.push_wide(&tokens, enumerative::width(1 << token_bits, size))
            && bits.push_wide(&shares, enumerative::width(u32::from(resolution) - 1, size - 1))
    }

    pub(crate) fn take(bits: &mut BitReader<'_>, form: Form, token_bits: u8) -> Result<Self, DecodeError> {
        let count = bits.take(COUNT_BITS).ok_or(DecodeError::Truncated)? + 1;
        let row = match form {
            Form::Lattice(resolution) if count > resolution.into() => {
                return Err(DecodeError::Impossible("entries"));
            }
            Form::Lattice(resolution) => Self::take_numbers(bits, count, resolution, token_bits)?,
            Form::TopK | Form::TopKSampled => {
                let entry = |_| {
                    let token = bits.take(token_bits)?;
                    Some(Entry { token, weight: bits.take(WEIGHT_BITS)? as u8 })
                };
                let entries: Option<_> = (0..count).map(entry).collect();
                Self { entries: entries.ok_or(DecodeError::Truncated)? }
            }
        };
        row.check(form, token_bits).map_err(DecodeError::Impossible)?;
        Ok(row)
    }

    fn take_numbers(
        bits: &mut BitReader<'_>,
        count: u32,
        resolution: u8,
        token_bits: u8,
    ) -> Result<Self, DecodeError> {
        let mut subset = |universe, size| {
            let index = bits.take_wide(enumerative::width(universe, size)).ok_or(DecodeError::Truncated)?;
            enumerative::subset(&index, universe, size).ok_or(DecodeError::Impossible("index"))
        };
        let tokens = subset(1 << token_bits, count)?;
        let sums = subset(u32::from(resolution) - 1, count - 1)?;
        let ends = sums.iter().map(|sum| sum + 1).chain([u32::from(resolution)]);
        let weights = ends.scan(0, |start, end| Some((end - core::mem::replace(start, end)) as u8));
        let entries = tokens.iter().zip(weights).map(|(&token, weight)| Entry { token, weight }).collect();
        Ok(Self { entries })
    }

    /// Checks the limits; the error names the first field outside them.
    fn check(&self, form: Form, token_bits: u8) -> Result<(), &'static str> {
        let Some(last) = self.entries.last() else {
            return Err("entries");
        };
        let ascending = self.entries.windows(2).all(|pair| pair[0].token < pair[1].token);
        if !ascending || last.token >> token_bits != 0 {
            return Err("token");
        }
        let weights = || self.entries.iter().map(|entry| u32::from(entry.weight));
        let scaled = match form {
            Form::TopK => true,
            Form::TopKSampled => weights().max() == Some(u8::MAX.into()),
            Form::Lattice(resolution) => weights().sum::<u32>() == resolution.into(),
        };
        if scaled && weights().all(|weight| weight > 0) { Ok(()) } else { Err("weight") }
    }
}
