//! The time in which no verifier answers, and the reaction to it.
//!
//! Invariant: a silence is reported once, and its end only where it was reported.

use crate::time::{Duration, Instant};

/// A silence, from the first question without an answer.
#[derive(Debug, Default)]
pub(super) struct Silence {
    since: Option<Instant>,
    reported: bool,
    /// Leases asked for since the last verdict.
    tries: u32,
    /// Whether the device goes on by itself.
    offline: bool,
}

impl Silence {
    /// A question is open; the first one begins the silence.
    pub(super) fn begin(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// No question is open. What was reported stays reported.
    pub(super) fn pause(&mut self) {
        self.since = None;
    }

    /// The reply ended; so did its silence, which nobody needs to hear of any more.
    pub(super) fn forget(&mut self) {
        self.since = None;
        self.reported = false;
    }

    /// A verifier answered a frame; true where the silence had been reported.
    pub(super) fn end(&mut self) -> bool {
        self.since = None;
        self.tries = 0;
        core::mem::take(&mut self.reported)
    }

    /// A lease was asked for.
    pub(super) fn count_try(&mut self) {
        self.tries = self.tries.saturating_add(1);
    }

    /// Leases asked for since the last verdict.
    pub(super) fn tries(&self) -> u32 {
        self.tries
    }

    /// When the silence is to be reported, where it lasts.
    pub(super) fn deadline(&self, give_up_after: Duration) -> Option<Instant> {
        self.since.filter(|_| !self.reported && !self.offline).map(|since| since + give_up_after)
    }

    /// True between the report and the end.
    pub(super) fn is_reported(&self) -> bool {
        self.reported
    }

    /// The silence lasted too long.
    pub(super) fn report(&mut self) {
        self.reported = true;
    }

    /// The device goes on by itself from now on.
    pub(super) fn go_offline(&mut self) {
        self.offline = true;
    }

    /// True while the device goes on by itself.
    pub(super) fn is_offline(&self) -> bool {
        self.offline
    }

    /// A verifier gave a lease to a device that went on by itself; true where it had.
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
