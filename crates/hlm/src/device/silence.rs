//! The silence timer: the time in which no verifier answers.
//!
//! Invariant: a silence is reported once. Its end is reported only if the silence was.

use crate::time::{Duration, Instant};

/// A silence, counted from the first request that wasn't answered.
#[derive(Debug, Default)]
pub(super) struct Silence {
    since: Option<Instant>,
    reported: bool,
    /// Leases requested since the last verdict.
    tries: u32,
    /// True while the device continues without a verifier.
    offline: bool,
}

impl Silence {
    /// Starts the silence unless it runs already: later requests don't restart it.
    pub(super) fn begin(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// Begins anew: the verifier lives, though it has not answered.
    pub(super) fn restart(&mut self, now: Instant) {
        if self.since.is_some() {
            self.since = Some(now);
        }
    }

    /// Stops the timer while no request is open. A reported silence stays reported.
    pub(super) fn pause(&mut self) {
        self.since = None;
    }

    /// Drops the silence at the end of a reply; its end won't be reported.
    pub(super) fn forget(&mut self) {
        self.since = None;
        self.reported = false;
    }

    /// Ends the silence at a verdict; true if it had been reported.
    pub(super) fn end(&mut self) -> bool {
        self.since = None;
        self.tries = 0;
        core::mem::take(&mut self.reported)
    }

    /// Counts a request for a lease.
    pub(super) fn count_try(&mut self) {
        self.tries = self.tries.saturating_add(1);
    }

    /// Leases requested since the last verdict.
    pub(super) fn tries(&self) -> u32 {
        self.tries
    }

    /// The time at which the silence must be reported; `None` if none runs, or once it was reported.
    pub(super) fn deadline(&self, give_up_after: Duration) -> Option<Instant> {
        self.since.filter(|_| !self.reported && !self.offline).map(|since| since + give_up_after)
    }

    /// True between the report and the end.
    pub(super) fn is_reported(&self) -> bool {
        self.reported
    }

    /// Marks the silence as reported.
    pub(super) fn report(&mut self) {
        self.reported = true;
    }

    /// The device continues without a verifier from now on.
    pub(super) fn go_offline(&mut self) {
        self.offline = true;
    }

    /// True while the device continues without a verifier.
    pub(super) fn is_offline(&self) -> bool {
        self.offline
    }

    /// A lease was granted; true if the device was offline. `tries` stays, since only a verdict shows that the lease
    /// works.
    pub(super) fn go_online(&mut self) -> bool {
        let was_offline = core::mem::take(&mut self.offline);
        if was_offline {
            self.forget();
        }
        was_offline
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration(10);

    #[test]
    fn a_silence_lasts_from_the_first_question_and_is_reported_once() {
        let mut silence = Silence::default();
        assert_eq!(silence.deadline(LIMIT), None);
        silence.begin(Instant(5));
        silence.begin(Instant(9));
        assert_eq!(silence.deadline(LIMIT), Some(Instant(15)));
        silence.report();
        assert_eq!(silence.deadline(LIMIT), None, "reported already");
        silence.pause();
        assert!(silence.is_reported(), "a pause is no answer");
        assert!(silence.end());
        assert!(!silence.end(), "its end is told once");
    }

    #[test]
    fn a_sign_of_life_moves_the_deadline_of_a_silence_that_runs() {
        let mut silence = Silence::default();
        silence.restart(Instant(5));
        assert_eq!(silence.deadline(LIMIT), None);
        silence.begin(Instant(5));
        silence.restart(Instant(9));
        assert_eq!(silence.deadline(LIMIT), Some(Instant(19)));
    }

    #[test]
    fn only_a_lease_brings_a_device_back_online() {
        let mut silence = Silence::default();
        silence.begin(Instant(5));
        silence.report();
        silence.go_offline();
        silence.begin(Instant(6));
        assert!(silence.is_offline());
        assert_eq!(silence.deadline(LIMIT), None, "it does not give up twice");
        assert!(silence.go_online());
        assert!(!silence.is_offline() && !silence.is_reported() && !silence.go_online());
    }
}
