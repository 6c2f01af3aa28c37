//! One object on its way: what is missing, what was asked for, and the check of what arrives.

use super::units::MissingUnits;
use dunlin_hlm::time::Instant;
use dunlin_wire::limits::{BLOCK_BYTES_MAX, PIECE_BYTES, WANTED_PIECES_MAX, WANTED_SPANS_MAX};
use dunlin_wire::{ObjectId, PieceSpan, StoreId, WantedPieces};
use heapless::Vec as FixedVec;
use ring::digest::{SHA256, digest};
use std::collections::{BTreeMap, BTreeSet};

/// The check of an object's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectCheck {
    /// By the hash of all of it. It is kept in memory until then, so this is for releases and tables.
    Whole,
    /// Block by block, by the SHA-256 of each.
    Blocks {
        /// Bytes of a block, 4 KiB or 32 KiB.
        block_bytes: u32,
        /// The hashes one after the other, 32 bytes each.
        hashes: Vec<u8>,
    },
}

/// An object to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferObject {
    /// Its name.
    pub id: ObjectId,
    /// Its bytes, at least 1.
    pub size: u64,
    /// Its check.
    pub check: ObjectCheck,
}

impl TransferObject {
    /// Bytes of a unit: what is checked at once, or a block's worth of what is checked as a whole.
    fn unit_bytes(&self) -> u32 {
        match &self.check {
            ObjectCheck::Whole => BLOCK_BYTES_MAX as u32,
            ObjectCheck::Blocks { block_bytes, .. } => *block_bytes,
        }
    }

    /// The number of units; `None` if the object has none, too many, or a table of another length.
    pub(super) fn units(&self) -> Option<u32> {
        let units = u32::try_from(self.size.div_ceil(u64::from(self.unit_bytes()))).ok()?;
        let fits = match &self.check {
            ObjectCheck::Whole => self.size <= super::WHOLE_BYTES_MAX,
            ObjectCheck::Blocks { block_bytes, hashes } => {
                let known = [PIECE_BYTES, BLOCK_BYTES_MAX].contains(&(*block_bytes as usize));
                known && hashes.len() as u64 == u64::from(units) * 32
            }
        };
        // Pieces are counted with 32 bits.
        let pieces = self.size.div_ceil(PIECE_BYTES as u64);
        (fits && units > 0 && pieces <= u64::from(u32::MAX)).then_some(units)
    }

    /// Bytes of one unit.
    fn length(&self, unit: u32) -> usize {
        let begin = u64::from(unit) * u64::from(self.unit_bytes());
        (self.size - begin).min(u64::from(self.unit_bytes())) as usize
    }
}

/// A unit that was asked for.
#[derive(Debug)]
struct Asked {
    store: StoreId,
    /// The time at which it is asked for again.
    until: Instant,
}

/// The judgement of a unit that arrived.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum UnitArrival {
    /// It is right, or will be judged with the whole.
    Good(Option<StoreId>),
    /// It is here already.
    Repeated,
    /// It is wrong; by the store that was asked for it, if any was.
    Bad(Option<StoreId>),
}

/// An object on its way.
#[derive(Debug)]
pub(super) struct Download {
    pub(super) object: TransferObject,
    missing: MissingUnits,
    asked: BTreeMap<u32, Asked>,
    /// The bytes of an object that is checked as a whole.
    whole: Vec<u8>,
    /// The stores that those bytes are of, with the number of units of each.
    givers: BTreeMap<StoreId, u8>,
    /// Times that a wait ended without a block.
    pub(super) silence: u8,
    /// True if a block arrived since a wait last ended.
    heard: bool,
}

impl Download {
    /// An object of which the units are here that `has` names. `None` if its numbers are impossible.
    pub(super) fn new(object: TransferObject, has: impl Fn(u32) -> bool) -> Option<Self> {
        let units = object.units()?;
        let is_whole = object.check == ObjectCheck::Whole;
        let missing = MissingUnits::new(units, |unit| !is_whole && has(unit));
        let whole = if is_whole { vec![0; object.size as usize] } else { Vec::new() };
        let (asked, givers) = (BTreeMap::new(), BTreeMap::new());
        Some(Self { object, missing, asked, whole, givers, silence: 0, heard: false })
    }

    pub(super) fn is_complete(&self) -> bool {
        self.missing.count() == 0
    }

    /// The part that is here.
    pub(super) fn permille(&self) -> u16 {
        let (units, missing) = (u64::from(self.missing.units()), u64::from(self.missing.count()));
        ((units - missing) * 1000 / units) as u16
    }

    /// Pieces of a unit.
    fn unit_pieces(&self) -> u32 {
        self.object.unit_bytes() / PIECE_BYTES as u32
    }

    /// Bytes of the next unit that would be asked for; `None` if all that is missing was asked for.
    pub(super) fn next_bytes(&self) -> Option<u32> {
        let mut unasked = self.missing.iter().filter(|unit| !self.asked.contains_key(unit));
        unasked.next().map(|unit| self.object.length(unit) as u32)
    }

    /// Asks a store for as much as the window and `bytes` allow; waits for more room while much is on its way.
    pub(super) fn ask(&mut self, store: &StoreId, bytes: u32, until: Instant) -> Option<(WantedPieces, u32)> {
        let pieces = self.unit_pieces();
        let window = WANTED_PIECES_MAX / pieces;
        let room = window.saturating_sub(self.asked.len() as u32);
        if room < window.div_ceil(2) && self.missing.count() - self.asked.len() as u32 > room {
            return None;
        }
        let mut spans: FixedVec<PieceSpan, WANTED_SPANS_MAX> = FixedVec::new();
        let (mut units, mut sum) = (Vec::new(), 0);
        for unit in self.missing.iter().filter(|unit| !self.asked.contains_key(unit)).take(room as usize) {
            let length = self.object.length(unit) as u32;
            if sum + length > bytes {
                break;
            }
            let (first, count) = (unit * pieces, length.div_ceil(PIECE_BYTES as u32) as u8);
            let joins = |last: &&mut PieceSpan| last.first + u32::from(last.count) == first;
            if let Some(last) = spans.last_mut().filter(joins) {
                last.count += count;
            } else if spans.push(PieceSpan { first, count }).is_err() {
                break;
            }
            units.push(unit);
            sum += length;
        }
        if units.is_empty() {
            return None;
        }
        for unit in units {
            self.asked.insert(unit, Asked { store: store.clone(), until });
        }
        Some((WantedPieces { object: self.object.id, spans }, sum))
    }

    /// Takes a unit's bytes, `None` where they have a length that the unit can't have.
    pub(super) fn take(&mut self, unit: u32, bytes: &[u8]) -> UnitArrival {
        if unit >= self.missing.units() {
            return UnitArrival::Bad(None);
        }
        if !self.missing.contains(unit) {
            return UnitArrival::Repeated;
        }
        let asked = self.asked.remove(&unit).map(|asked| asked.store);
        let right = bytes.len() == self.object.length(unit)
            && match &self.object.check {
                // It can't be checked by itself, so only what was asked for counts.
                ObjectCheck::Whole => asked.is_some(),
                ObjectCheck::Blocks { hashes, .. } => {
                    let at = unit as usize * 32;
                    digest(&SHA256, bytes).as_ref() == &hashes[at..at + 32]
                }
            };
        if !right {
            return UnitArrival::Bad(asked);
        }
        if self.object.check == ObjectCheck::Whole {
            let at = unit as usize * BLOCK_BYTES_MAX;
            self.whole[at..at + bytes.len()].copy_from_slice(bytes);
            if let Some(store) = &asked {
                let units = self.givers.entry(store.clone()).or_default();
                *units = units.saturating_add(1);
            }
        }
        self.missing.remove(unit);
        self.heard = true;
        self.silence = 0;
        UnitArrival::Good(asked)
    }

    /// The bytes of a complete object that is checked as a whole. If they are wrong, everything is missing again, and
    /// the stores that gave them are named with the number of units of each.
    pub(super) fn judge_whole(&mut self) -> Result<Vec<u8>, BTreeMap<StoreId, u8>> {
        if digest(&SHA256, &self.whole).as_ref() == self.object.id.0 {
            return Ok(core::mem::take(&mut self.whole));
        }
        self.missing = MissingUnits::new(self.missing.units(), |_| false);
        self.asked.clear();
        Err(core::mem::take(&mut self.givers))
    }

    /// The stores whose answers are late now; what was asked of them may be asked again.
    pub(super) fn expire(&mut self, now: Instant, level_max: u8) -> BTreeSet<StoreId> {
        let late: Vec<u32> =
            self.asked.iter().filter(|(_, asked)| asked.until <= now).map(|(unit, _)| *unit).collect();
        let stores: BTreeSet<StoreId> =
            late.iter().filter_map(|unit| self.asked.remove(unit)).map(|asked| asked.store).collect();
        if !stores.is_empty() {
            self.silence = if self.heard { 0 } else { (self.silence + 1).min(level_max) };
            self.heard = false;
        }
        stores
    }

    /// The time of the next late answer.
    pub(super) fn next_late(&self) -> Option<Instant> {
        self.asked.values().map(|asked| asked.until).min()
    }

    /// Expects nothing any more of what was asked, of one store or of all.
    pub(super) fn forget_asked(&mut self, of: Option<&StoreId>) {
        self.asked.retain(|_, asked| of.is_some_and(|store| asked.store != *store));
    }

    /// The store that was asked for a unit.
    pub(super) fn asked_of(&self, unit: u32) -> Option<StoreId> {
        self.asked.get(&unit).map(|asked| asked.store.clone())
    }

    /// Waits anew for all that was asked for.
    pub(super) fn wait_until(&mut self, until: Instant) {
        self.asked.values_mut().for_each(|asked| asked.until = until);
    }
}
