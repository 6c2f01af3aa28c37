//! Key/value caches of many sessions under one budget of bytes.

use dunlin_lm::{Error, Result, SessionId};
use std::collections::BTreeMap;

/// Number of positions by which a session's cache grows.
pub(crate) const GROW_POSITIONS: usize = 64;

/// Shape of one session's cache.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CacheSize {
    pub(crate) layers: usize,
    /// Numbers in one position's keys in one layer; its values have as many.
    pub(crate) width: usize,
    /// The most positions a session can hold.
    pub(crate) positions_max: usize,
}

impl CacheSize {
    /// Bytes of `positions` positions.
    pub(crate) fn bytes(&self, positions: usize) -> usize {
        let position = self.layers.saturating_mul(self.width).saturating_mul(2 * size_of::<f32>());
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

#[derive(Clone, Debug, Default)]
struct LayerCache {
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl Caches {
    pub(crate) fn new(size: CacheSize, bytes_max: usize) -> Self {
        Self { size, bytes_max, bytes_used: 0, next: 0, open: BTreeMap::new() }
    }

    /// Shape of each session's cache.
    pub(crate) fn size(&self) -> CacheSize {
        self.size
    }

    pub(crate) fn open(&mut self) -> SessionId {
        let session = SessionId::new(self.next);
        self.next += 1;
        let layers = vec![LayerCache::default(); self.size.layers];
        self.open.insert(session, Cache { layers, length: 0, reserved: 0, width: self.size.width });
        session
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
                numbers.reserve_exact((wanted * size.width).saturating_sub(numbers.len()));
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
            held.truncate(position * self.width);
            held.extend_from_slice(new);
        }
    }

    /// Keys and values of the first `length` positions of one layer, `[length × width]` each.
    pub(crate) fn read(&self, layer: usize, length: usize) -> (&[f32], &[f32]) {
        let layer = &self.layers[layer];
        (&layer.keys[..length * self.width], &layer.values[..length * self.width])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: CacheSize = CacheSize { layers: 2, width: 3, positions_max: 100 };
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
        assert_eq!(cache.read(1, 2).0, [0.0, 0.0, 0.0, 9.0, 9.0, 9.0]);
        assert_eq!(cache.layers[1].keys.len(), 6);
    }
}
