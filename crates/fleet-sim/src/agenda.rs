//! The order of all that happens: by time, and at the same time in the order in which it was entered.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

struct Dated<W> {
    at: u64,
    order: u64,
    what: W,
}

impl<W> PartialEq for Dated<W> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl<W> Eq for Dated<W> {}

impl<W> PartialOrd for Dated<W> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<W> Ord for Dated<W> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// An agenda in microseconds.
pub(crate) struct Timeline<W> {
    entries: BinaryHeap<Reverse<Dated<W>>>,
    entered: u64,
    pub(crate) now: u64,
}

impl<W> Timeline<W> {
    pub(crate) fn new() -> Self {
        Self { entries: BinaryHeap::new(), entered: 0, now: 0 }
    }

    /// Enters what happens at `at`, or now if that is over.
    pub(crate) fn at(&mut self, at: u64, what: W) {
        self.entered += 1;
        self.entries.push(Reverse(Dated { at: at.max(self.now), order: self.entered, what }));
    }

    /// Enters what happens after `span`.
    pub(crate) fn after(&mut self, span: u64, what: W) {
        self.at(self.now + span, what);
    }

    /// The next entry, whose time is now from here on.
    pub(crate) fn next(&mut self) -> Option<W> {
        let Reverse(entry) = self.entries.pop()?;
        self.now = entry.at;
        Some(entry.what)
    }
}
