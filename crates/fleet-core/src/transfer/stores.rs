//! The stores that a device may ask, and which one it asks.

use dunlin_hlm::time::{Duration, Instant};
use dunlin_wire::{DeviceId, StoreId};
use ring::digest::{Context, SHA256};
use std::collections::BTreeMap;

/// Stores that a device remembers.
pub const STORES_MAX: usize = 32;
/// Wrong blocks in a row after which a store is left alone.
pub const POISONED_AFTER: u8 = 3;
/// Time for which it is left alone.
pub const POISONED_FOR: Duration = Duration::from_millis(600_000);
/// Time for which a store is left alone that doesn't answer, or lacks the object.
pub const SET_ASIDE_FOR: Duration = Duration::from_millis(60_000);

#[derive(Clone, Copy, Debug, Default)]
struct StoreView {
    here: bool,
    bad_in_a_row: u8,
    poisoned_until: Option<Instant>,
    aside_until: Option<Instant>,
}

impl StoreView {
    fn is_poisoned(&self, now: Instant) -> bool {
        self.poisoned_until.is_some_and(|until| until > now)
    }

    fn is_aside(&self, now: Instant) -> bool {
        self.aside_until.is_some_and(|until| until > now)
    }
}

/// The stores by their presence and their behaviour.
#[derive(Debug, Default)]
pub(super) struct Stores {
    views: BTreeMap<StoreId, StoreView>,
}

impl Stores {
    /// Takes a store's presence; true if something changed. Beyond [`STORES_MAX`], stores are not remembered.
    pub(super) fn handle_presence(&mut self, store: &StoreId, here: bool) -> bool {
        if let Some(view) = self.views.get_mut(store) {
            let changed = view.here != here;
            view.here = here;
            return changed;
        }
        // A store that is gone and did no harm can be forgotten for a new one.
        if self.views.len() >= STORES_MAX {
            let idle = |view: &StoreView| !view.here && view.poisoned_until.is_none();
            let idle = self.views.iter().find(|(_, view)| idle(view)).map(|(id, _)| id.clone());
            match idle {
                Some(id) => drop(self.views.remove(&id)),
                None => return false,
            }
        }
        self.views.insert(store.clone(), StoreView { here, ..StoreView::default() });
        here
    }

    /// The store to ask: the highest draw by device and store among those that are here and not left alone, so that
    /// devices spread over the stores and only those of a lost store move. One that doesn't answer is asked only where
    /// no other is.
    pub(super) fn choose(&self, device: &DeviceId, now: Instant) -> Option<&StoreId> {
        let sound = self.views.iter().filter(|(_, view)| view.here && !view.is_poisoned(now));
        sound.max_by_key(|(store, view)| (!view.is_aside(now), draw(device, store))).map(|(store, _)| store)
    }

    /// True if stores are here, and each is left alone for its wrong blocks.
    pub(super) fn are_poisoned(&self, now: Instant) -> bool {
        let mut here = self.views.values().filter(|view| view.here).peekable();
        here.peek().is_some() && here.all(|view| view.is_poisoned(now))
    }

    /// The time at which the next store may be asked again; `None` if none is left alone.
    pub(super) fn next_return(&self, now: Instant) -> Option<Instant> {
        let here = self.views.values().filter(|view| view.here);
        here.filter_map(|view| view.poisoned_until).filter(|until| *until > now).min()
    }

    /// Takes a good block of a store.
    pub(super) fn good(&mut self, store: &StoreId) {
        if let Some(view) = self.views.get_mut(store) {
            view.bad_in_a_row = 0;
            view.aside_until = None;
        }
    }

    /// Takes a wrong block of a store; true if it is left alone from now on.
    pub(super) fn bad(&mut self, store: &StoreId, now: Instant) -> bool {
        let Some(view) = self.views.get_mut(store) else { return false };
        view.bad_in_a_row = view.bad_in_a_row.saturating_add(1);
        let poisoned = view.bad_in_a_row >= POISONED_AFTER;
        if poisoned {
            view.bad_in_a_row = 0;
            view.poisoned_until = Some(now + POISONED_FOR);
        }
        poisoned
    }

    /// Prefers other stores for a while.
    pub(super) fn set_aside(&mut self, store: &StoreId, now: Instant) {
        if let Some(view) = self.views.get_mut(store) {
            view.aside_until = Some(now + SET_ASIDE_FOR);
        }
    }
}

/// A store's draw for a device (rendezvous hashing; Thaler and Ravishankar, 1998).
fn draw(device: &DeviceId, store: &StoreId) -> u64 {
    let mut context = Context::new(&SHA256);
    for part in [b"dunlin store 1", device.as_str().as_bytes(), store.as_str().as_bytes()] {
        context.update(part);
        context.update(b"\0");
    }
    let digest = context.finish();
    u64::from_le_bytes(digest.as_ref()[..8].try_into().expect("a digest has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn store(number: usize) -> StoreId {
        format!("store-{number}").parse().unwrap()
    }

    fn device(number: usize) -> DeviceId {
        format!("plover-{number}").parse().unwrap()
    }

    fn three() -> Stores {
        let mut stores = Stores::default();
        (0..3).for_each(|number| assert!(stores.handle_presence(&store(number), true)));
        stores
    }

    #[test]
    fn devices_spread_over_stores_and_only_those_of_a_lost_store_move() {
        let mut stores = three();
        let chosen = |stores: &Stores| -> Vec<StoreId> {
            (0..300).map(|number| stores.choose(&device(number), Instant(0)).unwrap().clone()).collect()
        };
        let before = chosen(&stores);
        for number in 0..3 {
            let share = before.iter().filter(|chosen| **chosen == store(number)).count();
            assert!((60..140).contains(&share), "store {number} has {share} of 300");
        }
        assert!(stores.handle_presence(&store(1), false) && !stores.handle_presence(&store(1), false));
        for (before, after) in before.iter().zip(chosen(&stores)) {
            assert!(after != store(1) && (*before == store(1) || *before == after), "{before} to {after}");
        }
    }

    #[test]
    fn three_wrong_blocks_in_a_row_poison_a_store_for_ten_minutes() {
        let mut stores = three();
        let first = stores.choose(&device(1), Instant(0)).unwrap().clone();
        assert!(!stores.bad(&first, Instant(0)) && !stores.bad(&first, Instant(0)));
        stores.good(&first);
        assert!(!stores.bad(&first, Instant(0)) && !stores.bad(&first, Instant(0)), "not in a row");
        assert!(stores.bad(&first, Instant(0)));
        assert_ne!(stores.choose(&device(1), Instant(0)), Some(&first));
        assert!(!stores.are_poisoned(Instant(0)));
        assert_eq!(stores.next_return(Instant(0)), Some(Instant(0) + POISONED_FOR));
        assert_eq!(stores.choose(&device(1), Instant(0) + POISONED_FOR), Some(&first));
        for number in 0..3 {
            (0..3).for_each(|_| {
                stores.bad(&store(number), Instant(5));
            });
        }
        assert!(stores.are_poisoned(Instant(5)) && stores.choose(&device(1), Instant(5)).is_none());
    }

    #[test]
    fn a_silent_store_is_asked_only_where_no_other_is() {
        let mut stores = three();
        let first = stores.choose(&device(1), Instant(0)).unwrap().clone();
        stores.set_aside(&first, Instant(0));
        assert_ne!(stores.choose(&device(1), Instant(0)), Some(&first));
        (0..3).map(store).filter(|other| *other != first).for_each(|other| {
            stores.handle_presence(&other, false);
        });
        assert_eq!(stores.choose(&device(1), Instant(0)), Some(&first));
    }

    #[test]
    fn more_stores_than_the_limit_are_not_remembered_until_one_is_gone() {
        let mut stores = Stores::default();
        let known = (0..STORES_MAX + 5).filter(|number| stores.handle_presence(&store(*number), true));
        assert_eq!(known.count(), STORES_MAX);
        stores.handle_presence(&store(7), false);
        assert!(stores.handle_presence(&store(STORES_MAX), true));
        let names: BTreeSet<&StoreId> = stores.views.keys().collect();
        assert!(names.len() == STORES_MAX && !names.contains(&store(7)));
    }
}
