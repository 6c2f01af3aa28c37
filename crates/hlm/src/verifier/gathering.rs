//! The pause before a pass of a slow target that was idle, in which the frames that are expected at once may arrive.
//!
//! Devices that come from a lost verifier, or whose verdicts went out together, send within a few milliseconds of each
//! other. If the first of them began a pass alone, the others would wait for all of it.
//!
//! Invariant: nothing waits while a pass is under way, while nobody else is expected, or at a quick target.

use super::{Session, Verifier, VerifierEvent};
use crate::time::{Duration, Instant};
use dunlin_wire::{LogTime, Price};

/// Time of a pass from which on a target counts as slow.
const SLOW_PASS: Duration = Duration::from_millis(500);
/// Part of a pass that the pause takes, one in so many.
const PAUSE_SHARE: u64 = 16;
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_millis(150);
/// Time after a lease or a verdict for which the device's next frame is expected.
const EXPECTED: Duration = Duration::from_millis(1_000);

/// The jobs on their way to the target.
#[derive(Debug, Default)]
pub(super) struct Passes {
    /// Jobs that the shell has taken and not answered.
    under_way: usize,
    /// Beginning of the pass under way.
    began: Option<Instant>,
    /// End of the pause.
    pause: Option<Instant>,
}

impl Passes {
    /// End of the pause, if there is one.
    pub(super) fn pause(&self) -> Option<Instant> {
        self.pause
    }

    /// Notes an event that the shell takes.
    pub(super) fn take(&mut self, event: &VerifierEvent) {
        self.under_way += usize::from(matches!(event, VerifierEvent::Verify(_)));
    }

    /// Notes an answer, with which the pass of its job ended.
    pub(super) fn end(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
        self.began = None;
    }
}

impl Session {
    /// True if a frame of it is likely to come at once.
    fn is_expected(&self, now: Instant) -> bool {
        !self.round.is_verifying() && self.expected.is_some_and(|since| now.since(since) < EXPECTED)
    }
}

impl Verifier {
    /// The price for a frame that comes now: it waits until the pass under way ends. An engine of choices has no passes.
    pub(super) fn present_price(&self, now: Instant) -> Price {
        match (self.price.pass.us(), self.passes.began) {
            (Some(pass), Some(began)) if !self.choices => {
                let left = (began + Duration(pass)).since(now);
                Price { queue: LogTime::of_us(left.0), ..self.price }
            }
            _ => self.price,
        }
    }

    /// Begins a pass or the pause before it, if there is work and none is under way.
    pub(super) fn note_pass(&mut self, now: Instant) {
        if self.jobs.is_empty() {
            (self.passes.began, self.passes.pause) = (None, None);
            return;
        }
        if self.passes.under_way == 0 && self.passes.began.is_none() {
            let pass = self.price.pass.us().filter(|pass| *pass >= SLOW_PASS.0);
            let expects = pass.is_some() && self.sessions.values().any(|session| session.is_expected(now));
            if let (Some(pass), true) = (pass, expects) {
                let pause = Duration((pass / PAUSE_SHARE).min(PAUSE_MAX.0));
                let until = *self.passes.pause.get_or_insert(now + pause);
                if now < until {
                    return;
                }
            }
        }
        self.passes.pause = None;
        self.passes.began.get_or_insert(now);
    }
}
