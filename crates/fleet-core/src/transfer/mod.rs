//! The download of one object at a time, by blocks that are checked on arrival.
//!
//! Invariants:
//! - At most [`WINDOW_BYTES_MAX`] are asked for and not here: a broker queues as much for a client, and no more.
//! - No byte is passed on unchecked, and nothing depends on a message that arrives, arrives once, or in order.
//! - What a store sends can cost its bytes and no more: no memory beyond the object's size, which is signed.

mod bucket;
mod dice;
mod download;
mod reuse;
mod stores;
mod units;

pub(crate) use bucket::TokenBucket;
pub(crate) use dice::Dice;
pub use download::{ObjectCheck, TransferObject};
pub use reuse::{BlockSource, ReusableBlocks};
pub use stores::{POISONED_AFTER, POISONED_FOR, SET_ASIDE_FOR, STORES_MAX};

use download::{Download, UnitArrival};
use dunlin_hlm::time::{Duration, Instant};
use dunlin_wire::limits::{BLOCK_BYTES_MAX, PIECE_BYTES, WANTED_PIECES_MAX};
use dunlin_wire::{BlockForm, DeviceId, ObjectBlock, ObjectId, StoreId, WantedPieces};
use std::collections::VecDeque;
use stores::Stores;

/// Bytes that are asked for and not here.
pub const WINDOW_BYTES_MAX: u32 = WANTED_PIECES_MAX * PIECE_BYTES as u32;
/// Bytes of an object that is checked as a whole: the table of 512 MiB by 4 KiB.
pub const WHOLE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Time after which what was asked for is late.
pub const RETRY_FIRST: Duration = Duration::from_millis(2000);
/// Most time until it is asked for again; jitter adds up to a quarter.
pub const RETRY_MAX: Duration = Duration::from_millis(60_000);
/// Doublings of [`RETRY_FIRST`] that reach [`RETRY_MAX`].
const SILENCE_MAX: u8 = 5;
/// Waits in a row without a block after which another store is preferred.
const SILENCE_ASIDE: u8 = 3;

/// A step of the download.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransferEvent {
    /// A checked block to keep.
    Block {
        /// The object.
        object: ObjectId,
        /// The number of the block.
        block: u32,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// All blocks of an object are here.
    Complete(ObjectId),
    /// An object that is checked as a whole is here and right.
    Whole(ObjectId, Vec<u8>),
    /// A store sent so many wrong blocks that it is left alone for [`POISONED_FOR`].
    Poisoned(StoreId),
}

/// Counters of a device's downloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransferCounters {
    /// Bytes that were asked for, those asked for again included.
    pub bytes_asked: u64,
    /// Checked bytes that arrived.
    pub bytes_good: u64,
    /// Bytes that arrived and were here already.
    pub bytes_repeated: u64,
    /// Blocks that were wrong, of a wrong length or out of range, and objects that were wrong as a whole.
    pub bad: u32,
    /// Messages with blocks of other objects, or of none.
    pub unasked: u32,
    /// Waits that ended without the block.
    pub late: u32,
    /// Answers that a store lacks the object.
    pub absent: u32,
}

/// The download machine.
#[derive(Debug)]
pub struct Transfer {
    device: DeviceId,
    dice: Dice,
    stores: Stores,
    download: Option<Download>,
    rate: TokenBucket,
    /// The time at which the rate allows the next request.
    rate_until: Option<Instant>,
    linked: bool,
    paused: bool,
    events: VecDeque<TransferEvent>,
    counters: TransferCounters,
}

impl Transfer {
    /// A machine without a connection and an object; `seed` varies the jitter.
    pub fn new(device: DeviceId, seed: u64, now: Instant) -> Self {
        Self {
            device,
            dice: Dice(seed),
            stores: Stores::default(),
            download: None,
            rate: TokenBucket::new(0, WINDOW_BYTES_MAX, now),
            rate_until: None,
            linked: false,
            paused: false,
            events: VecDeque::new(),
            counters: TransferCounters::default(),
        }
    }

    /// Fetches an object in place of the present one; blocks that `has` names are here. False if its numbers are
    /// impossible: it has no bytes or too many, or its table doesn't fit its size.
    #[must_use]
    pub fn fetch(&mut self, object: TransferObject, has: impl Fn(u32) -> bool) -> bool {
        self.events.clear();
        self.rate_until = None;
        let Some(download) = Download::new(object, has) else {
            self.download = None;
            return false;
        };
        if download.is_complete() {
            self.events.push_back(TransferEvent::Complete(download.object.id));
            self.download = None;
        } else {
            self.download = Some(download);
        }
        true
    }

    /// Drops the present object.
    pub fn cancel(&mut self) {
        self.events.clear();
        self.download = None;
    }

    /// True while an object is on its way.
    pub fn is_busy(&self) -> bool {
        self.download.is_some()
    }

    /// The part of the present object that is here.
    pub fn permille(&self) -> u16 {
        self.download.as_ref().map_or(0, Download::permille)
    }

    /// The counters.
    pub fn counters(&self) -> TransferCounters {
        self.counters
    }

    /// True if every store that is here sent wrong blocks.
    pub fn is_poisoned(&self, now: Instant) -> bool {
        self.stores.are_poisoned(now)
    }

    /// True if there is a store to ask.
    pub fn has_store(&self, now: Instant) -> bool {
        self.stores.choose(&self.device, now).is_some()
    }

    /// Sets the rate at which bytes are asked for; 0 for no limit.
    pub fn set_rate(&mut self, bytes_per_s: u32, now: Instant) {
        self.rate.set_rate(bytes_per_s, now);
        self.rate_until = None;
    }

    /// Asks for nothing while true; what is on its way is taken.
    pub fn set_paused(&mut self, paused: bool, now: Instant) {
        if self.paused && !paused {
            let until = now + self.wait();
            if let Some(download) = &mut self.download {
                download.wait_until(until);
            }
        }
        self.paused = paused;
    }

    /// Takes the state of the connection. What was asked for over a lost one doesn't arrive.
    pub fn handle_link(&mut self, up: bool) {
        self.linked = up;
        if let Some(download) = &mut self.download {
            download.forget_asked(None);
        }
    }

    /// Takes a store's presence.
    pub fn handle_store(&mut self, store: &StoreId, here: bool) {
        self.stores.handle_presence(store, here);
        if let (false, Some(download)) = (here, &mut self.download) {
            download.forget_asked(Some(store));
        }
    }

    /// Takes a message with blocks.
    pub fn handle_block(&mut self, block: &ObjectBlock<'_>, now: Instant) {
        let Some(download) = &self.download else {
            self.counters.unasked = self.counters.unasked.saturating_add(1);
            return;
        };
        if block.object != download.object.id.short() {
            self.counters.unasked = self.counters.unasked.saturating_add(1);
            return;
        }
        let unit_bytes = match &download.object.check {
            ObjectCheck::Whole => BLOCK_BYTES_MAX,
            ObjectCheck::Blocks { block_bytes, .. } => *block_bytes as usize,
        };
        let pieces = (unit_bytes / PIECE_BYTES) as u32;
        let (first, aligned) = (block.first / pieces, block.first.is_multiple_of(pieces));
        match block.form {
            BlockForm::Absent => self.handle_absent(first, now),
            BlockForm::Raw if aligned => {
                for (unit, bytes) in (first..).zip(block.bytes.chunks(unit_bytes)) {
                    self.handle_unit(unit, bytes, now);
                }
            }
            // The shell unpacks what it can before.
            BlockForm::Raw | BlockForm::Zstd => self.handle_unit(first, &[], now),
        }
        self.finish(now);
    }

    fn handle_absent(&mut self, unit: u32, now: Instant) {
        let Some(download) = &mut self.download else { return };
        // Only the store that was asked can say so.
        let Some(store) = download.asked_of(unit) else { return };
        self.counters.absent = self.counters.absent.saturating_add(1);
        self.stores.set_aside(&store, now);
        // Without another store it is asked again only when that is late.
        if self.stores.choose(&self.device, now) != Some(&store) {
            download.forget_asked(Some(&store));
        }
    }

    fn handle_unit(&mut self, unit: u32, bytes: &[u8], now: Instant) {
        let Some(download) = &mut self.download else { return };
        match download.take(unit, bytes) {
            UnitArrival::Repeated => self.counters.bytes_repeated += bytes.len() as u64,
            UnitArrival::Good(store) => {
                self.counters.bytes_good += bytes.len() as u64;
                if let ObjectCheck::Blocks { .. } = download.object.check {
                    let object = download.object.id;
                    self.events.push_back(TransferEvent::Block {
                        object,
                        block: unit,
                        bytes: bytes.to_vec(),
                    });
                    store.iter().for_each(|store| self.stores.good(store));
                }
            }
            UnitArrival::Bad(store) => {
                self.counters.bad = self.counters.bad.saturating_add(1);
                store.iter().for_each(|store| self.blame(store, 1, now));
            }
        }
    }

    fn blame(&mut self, store: &StoreId, wrong: u8, now: Instant) {
        if (0..wrong).any(|_| self.stores.bad(store, now)) {
            self.events.push_back(TransferEvent::Poisoned(store.clone()));
            if let Some(download) = &mut self.download {
                download.forget_asked(Some(store));
            }
        }
    }

    /// Ends a complete download.
    fn finish(&mut self, now: Instant) {
        let Some(download) = self.download.as_mut().filter(|download| download.is_complete()) else { return };
        let id = download.object.id;
        if let ObjectCheck::Blocks { .. } = download.object.check {
            self.events.push_back(TransferEvent::Complete(id));
            self.download = None;
            return;
        }
        match download.judge_whole() {
            Ok(bytes) => {
                self.events.push_back(TransferEvent::Whole(id, bytes));
                self.download = None;
            }
            Err(givers) => {
                self.counters.bad = self.counters.bad.saturating_add(1);
                for (store, units) in givers {
                    // Another store has its turn first, where there is one.
                    self.stores.set_aside(&store, now);
                    self.blame(&store, units, now);
                }
            }
        }
    }

    /// The wait for what is asked for now.
    fn wait(&mut self) -> Duration {
        let silence = self.download.as_ref().map_or(0, |download| download.silence);
        self.dice.stretch(Duration((RETRY_FIRST.0 << silence).min(RETRY_MAX.0)))
    }

    /// The next request and the store that it goes to.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<(StoreId, WantedPieces)> {
        if self.paused || !self.linked || self.rate_until.is_some_and(|until| until > now) {
            return None;
        }
        let next = self.download.as_ref()?.next_bytes()?;
        let store = self.stores.choose(&self.device, now)?.clone();
        let bytes = self.rate.available(now);
        if bytes < next {
            self.rate_until = Some(self.rate.ready_at(next));
            return None;
        }
        // What waits for the rate is not late.
        let until = now + self.wait() + self.rate.span_of(WINDOW_BYTES_MAX);
        let (wanted, bytes) = self.download.as_mut()?.ask(&store, bytes, until)?;
        self.rate.take(bytes);
        self.counters.bytes_asked += u64::from(bytes);
        Some((store, wanted))
    }

    /// Gives up what is late, so that it is asked for again.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.rate_until.is_some_and(|until| until <= now) {
            self.rate_until = None;
        }
        if self.paused {
            return;
        }
        let Some(download) = &mut self.download else { return };
        let late = download.expire(now, SILENCE_MAX);
        if late.is_empty() {
            return;
        }
        self.counters.late = self.counters.late.saturating_add(1);
        if download.silence >= SILENCE_ASIDE {
            late.iter().for_each(|store| self.stores.set_aside(store, now));
        }
    }

    /// The time of the next [`handle_timeout`](Self::handle_timeout).
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let download = self.download.as_ref().filter(|_| self.linked && !self.paused)?;
        let back = if self.has_store(now) { None } else { self.stores.next_return(now) };
        [download.next_late(), self.rate_until, back].into_iter().flatten().min()
    }

    /// The next step.
    pub fn poll_event(&mut self) -> Option<TransferEvent> {
        self.events.pop_front()
    }
}

#[cfg(test)]
mod tests;
