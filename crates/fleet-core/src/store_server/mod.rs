//! The machine of a store: which blocks it reads and sends next, to whom.
//!
//! Invariants:
//! - It knows objects by their sizes alone. It keeps nothing of a device but what that one waits for.
//! - Devices take turns, each within its own rate, and all within the store's. One that asks for much delays the others
//!   by one block a turn at most.
//! - A block that waits is not queued again: a device that asks twice gets it once.

use crate::transfer::{RETRY_FIRST, TokenBucket};
use dunlin_hlm::time::{Duration, Instant};
use dunlin_wire::limits::{BLOCK_BYTES_MAX, PIECE_BYTES, WANTED_PIECES_MAX};
use dunlin_wire::{DeviceId, ObjectId, PieceSpan, WantedPieces};
use std::collections::{BTreeMap, VecDeque};

/// Devices with blocks that wait, or with a rate that they used up.
pub const SERVED_MAX: usize = 4096;
/// Pieces that wait for one device: its window.
pub const WAITING_PIECES_MAX: u32 = WANTED_PIECES_MAX;
/// Time after which a device has asked again for what it still wants.
pub const WAITING_FOR: Duration = Duration::from_millis(90_000);

/// Time in which a block that was sent is not sent again: half of what a device waits before it asks again, so that
/// only a request which the network repeated comes sooner.
pub const SENT_FOR: Duration = Duration(RETRY_FIRST.0 / 2);

/// Time between two looks for stale blocks.
const SWEEP_EVERY: Duration = Duration::from_millis(1000);
const BLOCK_PIECES: u32 = (BLOCK_BYTES_MAX / PIECE_BYTES) as u32;

/// The objects of a store.
pub trait ObjectShelf {
    /// Bytes of an object; `None` if it isn't here.
    fn size(&self, object: &ObjectId) -> Option<u64>;
}

/// The rates of a store, in bytes per second; 0 for no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreRates {
    /// For each device.
    pub device: u32,
    /// For all together.
    pub total: u32,
}

/// A block to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockOrder {
    /// The receiver.
    pub device: DeviceId,
    /// The object.
    pub object: ObjectId,
    /// The pieces; they don't cross a multiple of 8.
    pub span: PieceSpan,
    /// The place of their bytes in the object; `None` if the store doesn't have them.
    pub bytes: Option<(u64, usize)>,
}

/// Counters of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreCounters {
    /// Requests.
    pub requests: u64,
    /// Bytes sent.
    pub bytes: u64,
    /// Blocks sent.
    pub blocks: u64,
    /// Answers that an object, or a piece of it, isn't here.
    pub absent: u64,
    /// Blocks asked for again while they waited.
    pub waiting_already: u64,
    /// Blocks asked for again within [`SENT_FOR`].
    pub sent_already: u64,
    /// Blocks beyond a device's [`WAITING_PIECES_MAX`].
    pub beyond_window: u64,
    /// Requests beyond [`SERVED_MAX`] devices.
    pub beyond_devices: u64,
    /// Blocks that nobody asked for again in [`WAITING_FOR`].
    pub stale: u64,
}

#[derive(Debug)]
struct WaitingBlock {
    object: ObjectId,
    span: PieceSpan,
    bytes: Option<(u64, usize)>,
    asked: Instant,
}

#[derive(Debug)]
struct ServedDevice {
    blocks: VecDeque<WaitingBlock>,
    pieces: u32,
    rate: TokenBucket,
    /// Blocks that were sent of late, at most as many as wait.
    sent: VecDeque<(ObjectId, PieceSpan, Instant)>,
}

/// A store's machine.
#[derive(Debug)]
pub struct StoreServer {
    rates: StoreRates,
    total: TokenBucket,
    devices: BTreeMap<DeviceId, ServedDevice>,
    /// The device that was served last.
    served: Option<DeviceId>,
    linked: bool,
    /// The time at which stale blocks were last dropped.
    swept: Option<Instant>,
    counters: StoreCounters,
}

impl StoreServer {
    /// A store without a connection.
    pub fn new(rates: StoreRates, now: Instant) -> Self {
        let total = TokenBucket::new(rates.total, rates.total.max(BLOCK_BYTES_MAX as u32), now);
        Self {
            rates,
            total,
            devices: BTreeMap::new(),
            served: None,
            linked: false,
            swept: None,
            counters: StoreCounters::default(),
        }
    }

    /// The counters.
    pub fn counters(&self) -> StoreCounters {
        self.counters
    }

    /// Takes other rates, for example those of a rollout.
    pub fn set_rates(&mut self, rates: StoreRates, now: Instant) {
        self.rates = rates;
        self.total = TokenBucket::new(rates.total, rates.total.max(BLOCK_BYTES_MAX as u32), now);
        self.devices.values_mut().for_each(|device| device.rate.set_rate(rates.device, now));
    }

    /// Takes the state of the connection. Over a lost one nothing is sent, and devices ask again.
    pub fn handle_link(&mut self, up: bool) {
        self.linked = up;
        self.devices.clear();
    }

    /// The part of the store's devices and pieces that wait, scaled to 0..=255, for its presence.
    pub fn load(&self) -> u8 {
        let waiting: u64 = self.devices.values().map(|device| u64::from(device.pieces)).sum();
        // A quarter of all windows is as much as anybody should wait for.
        (waiting * 255 / (SERVED_MAX as u64 * u64::from(WAITING_PIECES_MAX) / 4)).min(255) as u8
    }

    /// Takes a device's request.
    pub fn handle_wanted(
        &mut self,
        device: &DeviceId,
        wanted: &WantedPieces,
        shelf: &impl ObjectShelf,
        now: Instant,
    ) {
        if !self.linked {
            return;
        }
        self.counters.requests += 1;
        if !self.devices.contains_key(device) && self.devices.len() >= SERVED_MAX {
            // Those that wait for nothing are known only for their rates.
            self.devices.retain(|_, device| !device.blocks.is_empty());
            if self.devices.len() >= SERVED_MAX {
                self.counters.beyond_devices += 1;
                return;
            }
        }
        let rate = self.rates.device;
        let served = self.devices.entry(device.clone()).or_insert_with(|| ServedDevice {
            blocks: VecDeque::new(),
            pieces: 0,
            rate: TokenBucket::new(rate, rate.max(BLOCK_BYTES_MAX as u32), now),
            sent: VecDeque::new(),
        });
        let size = shelf.size(&wanted.object);
        for span in wanted.spans.iter().flat_map(|span| blocks_of(*span)) {
            let bytes = size.and_then(|size| place(span, size));
            served.push(wanted.object, span, bytes, now, &mut self.counters);
        }
    }

    /// The next block to send, if one may be sent now.
    pub fn poll_block(&mut self, now: Instant) -> Option<BlockOrder> {
        self.drop_stale(now);
        let mut last = self.served.clone();
        for _ in 0..self.devices.len() {
            let device = self.behind(last.as_ref())?;
            if let Some(order) = self.next_of(&device, now) {
                self.served = Some(device);
                return Some(order);
            }
            last = Some(device);
        }
        None
    }

    /// The time at which a rate allows the next block; `None` while nothing waits.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let next = |device: &ServedDevice| {
            let bytes = device.blocks.front()?.bytes.map_or(0, |(_, length)| length as u32);
            Some(device.rate.ready_at(bytes).max(self.total.ready_at(bytes)))
        };
        self.devices.values().filter_map(next).min()
    }

    /// The device after `last`, around the circle.
    fn behind(&self, last: Option<&DeviceId>) -> Option<DeviceId> {
        use std::ops::Bound::{Excluded, Unbounded};
        let after =
            last.and_then(|last| self.devices.range::<DeviceId, _>((Excluded(last), Unbounded)).next());
        after.or_else(|| self.devices.first_key_value()).map(|(device, _)| device.clone())
    }

    /// The next block of a device, if its rate and the store's allow it.
    fn next_of(&mut self, device: &DeviceId, now: Instant) -> Option<BlockOrder> {
        let served = self.devices.get_mut(device)?;
        let bytes = served.blocks.front()?.bytes.map_or(0, |(_, length)| length as u32);
        if served.rate.available(now) < bytes || self.total.available(now) < bytes {
            return None;
        }
        served.rate.take(bytes);
        self.total.take(bytes);
        let block = served.blocks.pop_front()?;
        served.pieces -= u32::from(block.span.count);
        match block.bytes {
            Some(_) => {
                self.counters.blocks += 1;
                self.counters.bytes += u64::from(bytes);
            }
            None => self.counters.absent += 1,
        }
        if served.sent.len() >= WAITING_PIECES_MAX as usize {
            served.sent.pop_front();
        }
        served.sent.push_back((block.object, block.span, now));
        Some(BlockOrder {
            device: device.clone(),
            object: block.object,
            span: block.span,
            bytes: block.bytes,
        })
    }

    fn drop_stale(&mut self, now: Instant) {
        if self.swept.is_some_and(|swept| now.since(swept) < SWEEP_EVERY) {
            return;
        }
        self.swept = Some(now);
        let counters = &mut self.counters;
        for device in self.devices.values_mut() {
            // The oldest request is in front, as one that is asked for again keeps its place and is younger.
            while device.blocks.front().is_some_and(|block| now.since(block.asked) > WAITING_FOR) {
                let Some(block) = device.blocks.pop_front() else { break };
                device.pieces -= u32::from(block.span.count);
                counters.stale += 1;
            }
            device.forget_sent(now);
        }
        // A device whose rate is unused is as good as new.
        let is_new = |device: &mut ServedDevice| device.sent.is_empty() && device.rate.is_full(now);
        self.devices.retain(|_, device| !device.blocks.is_empty() || !is_new(device));
    }
}

impl ServedDevice {
    fn forget_sent(&mut self, now: Instant) {
        while self.sent.front().is_some_and(|(.., at)| now.since(*at) >= SENT_FOR) {
            self.sent.pop_front();
        }
    }

    fn push(
        &mut self,
        object: ObjectId,
        span: PieceSpan,
        bytes: Option<(u64, usize)>,
        now: Instant,
        counters: &mut StoreCounters,
    ) {
        let same =
            self.blocks.iter_mut().find(|block| block.object == object && block.span.first == span.first);
        if let Some(block) = same {
            // Part of a block may be asked for after all of it, or all after a part.
            if block.span.count < span.count && self.pieces + u32::from(span.count) <= 2 * WAITING_PIECES_MAX
            {
                self.pieces += u32::from(span.count - block.span.count);
                (block.span, block.bytes) = (span, bytes);
            }
            block.asked = now;
            counters.waiting_already += 1;
            return;
        }
        self.forget_sent(now);
        if self.sent.iter().any(|(sent, part, _)| *sent == object && *part == span) {
            counters.sent_already += 1;
            return;
        }
        if self.pieces + u32::from(span.count) > WAITING_PIECES_MAX {
            counters.beyond_window += 1;
            return;
        }
        self.pieces += u32::from(span.count);
        self.blocks.push_back(WaitingBlock { object, span, bytes, asked: now });
    }
}

/// A span cut where blocks begin.
fn blocks_of(span: PieceSpan) -> impl Iterator<Item = PieceSpan> {
    let (first, end) = (u64::from(span.first), u64::from(span.first) + u64::from(span.count));
    let size = u64::from(BLOCK_PIECES);
    (first / size..end.div_ceil(size)).map(move |block| {
        let (from, to) = ((block * size).max(first), ((block + 1) * size).min(end));
        PieceSpan { first: from as u32, count: (to - from) as u8 }
    })
}

/// The place of a span's bytes in an object of this size; `None` if it isn't all in there.
fn place(span: PieceSpan, size: u64) -> Option<(u64, usize)> {
    let piece = PIECE_BYTES as u64;
    let (from, end) =
        (u64::from(span.first) * piece, (u64::from(span.first) + u64::from(span.count)) * piece);
    // The last piece may be short, but has a byte.
    (end - piece < size).then(|| (from, (end.min(size) - from) as usize))
}

#[cfg(test)]
mod tests;
