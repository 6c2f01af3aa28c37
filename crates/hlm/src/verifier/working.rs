//! Messages that the verifier works for a session longer than it announced.
//!
//! Invariant: at most one in each quarter of a pass for each session, and one for each frame that arrives again. They give way to answers:
//! none is sent while the outbox is half full.

use super::{Key, OUTBOX_MAX, Round, Session, Verifier, Work};
use crate::promise::{believed, is_slow, word_time, working_interval};
use crate::time::{Duration, Instant};
use alloc::vec::Vec;
use dunlin_wire::{Down, DraftFrame, LogTime, Price, Working};

/// A frame that has arrived, as far as its answer's time depends on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ArrivedFrame {
    round: u32,
    drafts: usize,
    /// True if it was sent before, or asks for text again.
    is_repeated: bool,
}

impl ArrivedFrame {
    pub(super) fn of(frame: &DraftFrame) -> Self {
        let again = frame.credit.as_ref().is_some_and(|credit| credit.again);
        Self { round: frame.round, drafts: frame.drafts.len(), is_repeated: frame.send > 1 || again }
    }

    /// The same frame at the arrival of its last weights, from which its time counts.
    pub(super) fn complete(self) -> Self {
        Self { is_repeated: false, ..self }
    }
}

impl Session {
    /// The newest round that the device waits for while the target works for it.
    fn awaited(&self) -> Option<u32> {
        match &self.round {
            Round::Verifying { pending: Some(pending), .. } => Some(pending.frame.round),
            Round::Verifying { work: Work::Judge(asked), .. } => Some(asked.frame.round),
            Round::Verifying { work: Work::Write { .. }, .. } => {
                self.stream.as_ref().map(|stream| stream.round())
            }
            Round::Verifying { work: Work::Abandoned, .. } | Round::Idle | Round::AwaitingCodes(_) => None,
        }
    }

    /// Notes the times that the device was told with an answer; an unknown pass says nothing.
    pub(super) fn tell(&mut self, price: Price) {
        if price.pass != LogTime::default() {
            (self.told.pass, self.told.queue) = (price.pass, price.queue);
        }
    }
}

impl Verifier {
    /// Sets the time at which a frame that has arrived counts as late; one that arrived again is answered at once.
    /// `answers` is the number of answers before it was handled.
    pub(super) fn expect_answer(&mut self, key: &Key, frame: &ArrivedFrame, answers: u64, now: Instant) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.awaited() != Some(frame.round) {
            return;
        }
        if !frame.is_repeated {
            session.working = Some(now + word_time(session.told, frame.drafts));
        } else if self.answers == answers {
            self.say_working(key, now);
        }
    }

    /// Sets the time at which the next part of a text counts as late.
    pub(super) fn expect_text(&mut self, key: &Key, now: Instant) {
        let gathering = self.config.continuation_interval;
        let Some(session) = self.sessions.get_mut(key) else { return };
        let gathering = if is_slow(session.told) { Duration::default() } else { gathering };
        let due = now + word_time(session.told, 0) + gathering;
        session.working = session.awaited().map(|_| due);
    }

    /// Sends a message for every session whose answer is late.
    pub(super) fn say_what_is_late(&mut self, now: Instant) {
        let is_late = |session: &Session| session.working.is_some_and(|due| due <= now);
        let late: Vec<Key> = self
            .sessions
            .iter()
            .filter(|(_, session)| is_late(session))
            .map(|(key, _)| key.clone())
            .collect();
        late.iter().for_each(|key| self.say_working(key, now));
    }

    fn say_working(&mut self, key: &Key, now: Instant) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(round) = session.awaited() else {
            session.working = None;
            return;
        };
        let wait = working_interval(session.told);
        session.working = Some(now + believed(wait));
        let working = Working { session: key.1, epoch: session.epoch, round, wait };
        if self.outbox.len() < OUTBOX_MAX / 2 {
            self.counters.working += 1;
            self.answer(key, &Down::Working(working));
        }
    }
}
