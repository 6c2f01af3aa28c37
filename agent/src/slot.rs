//! A slot for one job between two threads. A newer job replaces a waiting one, so handing over never blocks or fails.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The state that both ends share.
#[derive(Debug)]
struct SlotShared<T> {
    place: Mutex<SlotPlace<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct SlotPlace<T> {
    job: Option<T>,
    is_open: bool,
}

impl<T> SlotShared<T> {
    fn lock(&self) -> MutexGuard<'_, SlotPlace<T>> {
        // Ignore poisoning: each change is a single assignment, so a thread that panicked left the state consistent.
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end that puts jobs in; dropping it ends the other.
#[derive(Debug)]
pub(crate) struct Giver<T>(Arc<SlotShared<T>>);

/// The end that takes jobs out.
#[derive(Debug)]
pub(crate) struct Taker<T>(Arc<SlotShared<T>>);

/// Both ends of an empty slot.
pub(crate) fn slot<T>() -> (Giver<T>, Taker<T>) {
    let place = Mutex::new(SlotPlace { job: None, is_open: true });
    let shared = Arc::new(SlotShared { place, changed: Condvar::new() });
    (Giver(shared.clone()), Taker(shared))
}

impl<T> Giver<T> {
    /// Puts a job into the slot; returns the replaced one, if one waited.
    pub(crate) fn replace(&self, job: T) -> Option<T> {
        let replaced = self.0.lock().job.replace(job);
        self.0.changed.notify_one();
        replaced
    }
}

impl<T> Drop for Giver<T> {
    fn drop(&mut self) {
        self.0.lock().is_open = false;
        self.0.changed.notify_one();
    }
}

impl<T> Taker<T> {
    /// Waits for the next job; `None` once the other end is gone and no job waits.
    pub(crate) fn take(&self) -> Option<T> {
        let nothing_waits = |place: &mut SlotPlace<T>| place.job.is_none() && place.is_open;
        let waited = self.0.changed.wait_while(self.0.lock(), nothing_waits);
        waited.unwrap_or_else(PoisonError::into_inner).job.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_job_replaces_one_that_waits() {
        let (giver, taker) = slot();
        assert_eq!((giver.replace(1), giver.replace(2), giver.replace(3)), (None, Some(1), Some(2)));
        assert_eq!(taker.take(), Some(3));
        assert_eq!(giver.replace(4), None);
    }

    #[test]
    fn a_job_that_waits_is_taken_before_the_end() {
        let (giver, taker) = slot();
        giver.replace(1);
        drop(giver);
        assert_eq!((taker.take(), taker.take()), (Some(1), None));
    }

    #[test]
    fn a_taker_that_waits_wakes_for_a_job_and_for_the_end() {
        let (giver, taker) = slot();
        let taking = std::thread::spawn(move || [taker.take(), taker.take()]);
        giver.replace(1);
        // Replaces either nothing or the first job. In both cases, the last job must arrive.
        let replaced = giver.replace(2);
        drop(giver);
        let taken = taking.join().unwrap();
        assert_eq!(taken, if replaced.is_some() { [Some(2), None] } else { [Some(1), Some(2)] });
    }
}
