//! Key/value caches of many sessions under one budget of bytes, in 32 or 16 bits.
//!
//! Invariant: a number is rounded once, when it is written, and every row reads what was stored. So the same tokens
//! give the same bits in any batch with either type, but the two types give different ones.

use dunlin_lm::{Error, Result, SessionId};
use half::f16;
use half::slice::HalfFloatSliceExt;
use std::collections::BTreeMap;

/// Number of positions by which a session's cache grows.
pub(crate) const GROW_POSITIONS: usize = 64;

/// The type of the numbers in the caches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvType {
    /// 32-bit floats, as computed.
    #[default]
    F32,
    /// 16-bit floats: half the memory, and numbers beyond ±65504 are cut.
    F16,
}

impl KvType {
    /// Its name in an identity.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::F32 => size_of::<f32>(),
            Self::F16 => size_of::<f16>(),
        }
    }
}

/// Numbers of one layer's keys or values.
#[derive(Clone, Debug)]
enum Numbers {
    F32(Vec<f32>),
    F16(Vec<f16>),
}

impl Numbers {
    fn new(kind: KvType) -> Self {
        match kind {
            KvType::F32 => Self::F32(Vec::new()),
            KvType::F16 => Self::F16(Vec::new()),
        }
    }

    fn reserve(&mut self, length: usize) {
        match self {
            Self::F32(held) => held.reserve_exact(length.saturating_sub(held.len())),
            Self::F16(held) => held.reserve_exact(length.saturating_sub(held.len())),
        }
    }

    /// Keeps the first `length` numbers and appends others.
    fn write(&mut self, length: usize, new: &[f32]) {
        match self {
            Self::F32(held) => {
                held.truncate(length);
                held.extend_from_slice(new);
            }
            Self::F16(held) => {
                held.truncate(length);
                let (least, most) = (f16::MIN.to_f32(), f16::MAX.to_f32());
                held.extend(new.iter().map(|number| f16::from_f32(number.clamp(least, most))));
            }
        }
    }

    /// Appends the first `length` numbers of another.
    fn copy(&mut self, other: &Self, length: usize) {
        match (self, other) {
            (Self::F32(held), Self::F32(other)) => held.extend_from_slice(&other[..length]),
            (Self::F16(held), Self::F16(other)) => held.extend_from_slice(&other[..length]),
            // All caches of a target have one type.
            _ => {}
        }
    }

    fn read(&self, length: usize) -> KvRows<'_> {
        match self {
            Self::F32(held) => KvRows::F32(&held[..length]),
            Self::F16(held) => KvRows::F16(&held[..length]),
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        match self {
            Self::F32(held) => held.len(),
            Self::F16(held) => held.len(),
        }
    }
}

/// Keys or values of a layer's first positions, `[length × width]`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum KvRows<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
}

impl KvRows<'_> {
    /// The number of numbers.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::F32(numbers) => numbers.len(),
            Self::F16(numbers) => numbers.len(),
        }
    }

    /// Those behind the first `count` numbers.
    pub(crate) fn skip(self, count: usize) -> Self {
        match self {
            Self::F32(numbers) => KvRows::F32(&numbers[count..]),
            Self::F16(numbers) => KvRows::F16(&numbers[count..]),
        }
    }
}

/// Memory for numbers that were read in 32 bits. Rows of one session follow each other in a pass, so it keeps what it
/// has and adds the positions that are new.
#[derive(Debug, Default)]
pub(crate) struct Widened<'a> {
    from: Option<&'a [f16]>,
    numbers: Vec<f32>,
}

impl<'a> Widened<'a> {
    /// The numbers of `rows`.
    pub(crate) fn read<'r>(&'r mut self, rows: KvRows<'a>) -> &'r [f32]
    where
        'a: 'r,
    {
        let rows = match rows {
            KvRows::F32(numbers) => return numbers,
            KvRows::F16(rows) => rows,
        };
        let same = self.from.is_some_and(|from| std::ptr::eq(from.as_ptr(), rows.as_ptr()));
        let known = if same { self.numbers.len().min(rows.len()) } else { 0 };
        self.numbers.resize(rows.len(), 0.0);
        rows[known..].convert_to_f32_slice(&mut self.numbers[known..]);
        self.from = Some(rows);
        &self.numbers
    }
}

/// Shape of one session's cache.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CacheSize {
    pub(crate) kind: KvType,
    pub(crate) layers: usize,
    /// Numbers in one position's keys in one layer; its values have as many.
    pub(crate) width: usize,
    /// The most positions a session can hold.
    pub(crate) positions_max: usize,
}

impl CacheSize {
    /// Bytes of `positions` positions.
    pub(crate) fn bytes(&self, positions: usize) -> usize {
        let position = self.layers.saturating_mul(self.width).saturating_mul(2 * self.kind.bytes());
        position.saturating_mul(positions)
    }

    /// The number of positions to reserve for `length` of them.
    fn reserved(&self, length: usize) -> usize {
        length.next_multiple_of(GROW_POSITIONS).min(self.positions_max)
    }
}

/// The caches of all open sessions.
#[derive(Debug)]
pub(crate) struct Caches {
    size: CacheSize,
    bytes_max: usize,
    bytes_used: usize,
    next: u64,
    open: BTreeMap<SessionId, Cache>,
}

/// One session's keys and values.
#[derive(Debug)]
pub(crate) struct Cache {
    layers: Vec<LayerCache>,
    length: usize,
    reserved: usize,
    width: usize,
}

#[derive(Clone, Debug)]
struct LayerCache {
    keys: Numbers,
    values: Numbers,
}

impl Caches {
    pub(crate) fn new(size: CacheSize, bytes_max: usize) -> Self {
        Self { size, bytes_max, bytes_used: 0, next: 0, open: BTreeMap::new() }
    }

    /// Shape of each session's cache.
    pub(crate) fn size(&self) -> CacheSize {
        self.size
    }

    /// The same budget for caches of another type; closes every session.
    pub(crate) fn with(&self, kind: KvType) -> Self {
        Self::new(CacheSize { kind, ..self.size }, self.bytes_max)
    }

    pub(crate) fn open(&mut self) -> SessionId {
        let session = SessionId::new(self.next);
        self.next += 1;
        let empty = Numbers::new(self.size.kind);
        let layers = vec![LayerCache { keys: empty.clone(), values: empty }; self.size.layers];
        self.open.insert(session, Cache { layers, length: 0, reserved: 0, width: self.size.width });
        session
    }

    /// Opens a session with a copy of the first `length` positions of another.
    ///
    /// # Errors
    /// The other session holds fewer positions, or the budget doesn't allow a copy.
    pub(crate) fn fork(&mut self, session: SessionId, length: usize) -> Result<SessionId> {
        let held = self.get(session)?.len();
        if length > held {
            return Err(Error::Keep { keep: length, length: held });
        }
        let fork = self.open();
        if let Err(error) = self.reserve(fork, length) {
            self.close(fork);
            return Err(error);
        }
        let mut copy = self.open.remove(&fork).ok_or(Error::UnknownSession(fork))?;
        let source = self.get(session)?;
        for (to, from) in copy.layers.iter_mut().zip(&source.layers) {
            to.keys.copy(&from.keys, length * self.size.width);
            to.values.copy(&from.values, length * self.size.width);
        }
        copy.length = length;
        self.open.insert(fork, copy);
        Ok(fork)
    }

    pub(crate) fn close(&mut self, session: SessionId) {
        if let Some(cache) = self.open.remove(&session) {
            self.bytes_used -= self.size.bytes(cache.reserved);
        }
    }

    pub(crate) fn get(&self, session: SessionId) -> Result<&Cache> {
        self.open.get(&session).ok_or(Error::UnknownSession(session))
    }

    pub(crate) fn get_mut(&mut self, session: SessionId) -> Result<&mut Cache> {
        self.open.get_mut(&session).ok_or(Error::UnknownSession(session))
    }

    /// Reserves room for `length` positions in a session.
    ///
    /// # Errors
    /// [`Error::CacheFull`] if the budget doesn't allow it.
    pub(crate) fn reserve(&mut self, session: SessionId, length: usize) -> Result<()> {
        let size = self.size;
        let (used, max) = (self.bytes_used, self.bytes_max);
        let cache = self.get_mut(session)?;
        let wanted = size.reserved(length);
        if wanted <= cache.reserved {
            return Ok(());
        }
        let needed = size.bytes(wanted - cache.reserved);
        if needed > max.saturating_sub(used) {
            return Err(Error::CacheFull { needed, used, max });
        }
        cache.reserved = wanted;
        for layer in &mut cache.layers {
            for numbers in [&mut layer.keys, &mut layer.values] {
                numbers.reserve(wanted * size.width);
            }
        }
        self.bytes_used += needed;
        Ok(())
    }
}

impl Cache {
    /// The number of positions held.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Keeps the first `length` positions. The numbers behind them stay until a write replaces them, so a rollback
    /// costs nothing.
    pub(crate) fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    /// Counts `added` positions that were written to every layer.
    pub(crate) fn advance(&mut self, added: usize) {
        self.length += added;
    }

    /// Writes one position of one layer and drops the positions behind it.
    pub(crate) fn write(&mut self, layer: usize, position: usize, keys: &[f32], values: &[f32]) {
        let layer = &mut self.layers[layer];
        for (held, new) in [(&mut layer.keys, keys), (&mut layer.values, values)] {
            held.write(position * self.width, new);
        }
    }

    /// Keys and values of the first `length` positions of one layer, `[length × width]` each.
    pub(crate) fn read(&self, layer: usize, length: usize) -> (KvRows<'_>, KvRows<'_>) {
        let layer = &self.layers[layer];
        (layer.keys.read(length * self.width), layer.values.read(length * self.width))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: CacheSize = CacheSize { kind: KvType::F32, layers: 2, width: 3, positions_max: 100 };
    const STEP_BYTES: usize = 64 * 2 * 3 * 2 * 4;

    #[test]
    fn the_budget_is_shared_and_returned() {
        let mut caches = Caches::new(SIZE, 2 * STEP_BYTES - 1);
        let (a, b) = (caches.open(), caches.open());
        caches.reserve(a, 1).unwrap();
        caches.reserve(a, 64).unwrap();
        let full = caches.reserve(b, 1).unwrap_err();
        assert!(matches!(full, Error::CacheFull { needed: STEP_BYTES, used: STEP_BYTES, .. }), "{full}");
        caches.close(a);
        caches.reserve(b, 64).unwrap();
        assert_eq!(caches.bytes_used, STEP_BYTES);
        caches.close(b);
        assert_eq!(caches.bytes_used, 0);
    }

    #[test]
    fn growth_stops_at_the_context() {
        let mut caches = Caches::new(SIZE, usize::MAX);
        let a = caches.open();
        caches.reserve(a, 65).unwrap();
        assert_eq!(caches.get(a).unwrap().reserved, 100);
    }

    #[test]
    fn a_write_replaces_what_followed() {
        let mut caches = Caches::new(SIZE, usize::MAX);
        let a = caches.open();
        let cache = caches.get_mut(a).unwrap();
        for position in 0..3 {
            cache.write(1, position, &[position as f32; 3], &[0.0; 3]);
        }
        cache.write(1, 1, &[9.0; 3], &[8.0; 3]);
        assert_eq!(Widened::default().read(cache.read(1, 2).0), [0.0, 0.0, 0.0, 9.0, 9.0, 9.0]);
        assert_eq!(cache.layers[1].keys.len(), 6);
    }

    #[test]
    fn sixteen_bits_take_half_and_round_once() {
        let size = CacheSize { kind: KvType::F16, ..SIZE };
        assert_eq!((size.bytes(64), SIZE.bytes(64)), (STEP_BYTES / 2, STEP_BYTES));
        let mut caches = Caches::new(size, STEP_BYTES / 2);
        let a = caches.open();
        caches.reserve(a, 1).unwrap();
        let cache = caches.get_mut(a).unwrap();
        cache.write(0, 0, &[1.0 + 1.0 / 4096.0, 1e9, -1e9], &[0.5; 3]);
        cache.write(0, 1, &[3.0; 3], &[0.25; 3]);
        let mut widened = Widened::default();
        assert_eq!(widened.read(cache.read(0, 1).0), [1.0, 65504.0, -65504.0]);
        assert_eq!(widened.read(cache.read(0, 2).0), [1.0, 65504.0, -65504.0, 3.0, 3.0, 3.0], "one more");
        assert_eq!(widened.read(cache.read(0, 2).1), [0.5, 0.5, 0.5, 0.25, 0.25, 0.25], "another layer's");
        assert_eq!(widened.read(cache.read(0, 1).1), [0.5; 3], "fewer");
    }

    #[test]
    fn a_fork_is_a_copy_within_the_budget() {
        for kind in [KvType::F32, KvType::F16] {
            let size = CacheSize { kind, ..SIZE };
            let mut caches = Caches::new(size, 2 * size.bytes(64));
            let a = caches.open();
            caches.reserve(a, 3).unwrap();
            let cache = caches.get_mut(a).unwrap();
            for (layer, position) in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)] {
                cache.write(layer, position, &[(layer * 10 + position) as f32; 3], &[0.0; 3]);
            }
            cache.advance(3);
            let b = caches.fork(a, 2).unwrap();
            caches.close(a);
            let copy = caches.get(b).unwrap();
            assert_eq!(copy.len(), 2);
            assert_eq!(Widened::default().read(copy.read(1, 2).0), [10.0, 10.0, 10.0, 11.0, 11.0, 11.0]);
            assert!(matches!(caches.fork(b, 3), Err(Error::Keep { keep: 3, length: 2 })));
            let c = caches.fork(b, 1).unwrap();
            assert!(matches!(caches.fork(b, 1), Err(Error::CacheFull { .. })));
            caches.close(b);
            caches.close(c);
            assert_eq!((caches.bytes_used, caches.open.len()), (0, 0));
        }
    }
}
