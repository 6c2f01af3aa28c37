//! Text that the verifier writes beyond a verdict, on a device's credit.
//!
//! Invariant: with the shared seed, a token behind a text is a function of the text, so tokens that were written once
//! are sent again and never chosen again. What a device costs that went away is bounded by its credit.

use super::{CloseReason, Key, Session, Verifier, Work};
use crate::TokenId;
use crate::acceptance::TargetAnswer;
use crate::coupling::couple;
use crate::text::Text;
use crate::time::Instant;
use dunlin_wire::limits::{CONTINUATION_TOKENS_MAX, STOP_IDS_MAX};
use dunlin_wire::{Continuation, Credit, Digest, Down, DraftFrame, token_bits};

/// A credit in use.
#[derive(Debug)]
pub(super) struct Stream {
    /// The newest round that gave it.
    round: u32,
    /// Length of the text behind which it was given: nothing before that is sent on it.
    from: usize,
    /// Length that the text may reach.
    until: usize,
    stop: heapless::Vec<TokenId, STOP_IDS_MAX>,
    /// True once a token that ends the text was written.
    stopped: bool,
    /// Length of the text up to which it was sent.
    sent: usize,
    /// Time of the last message; `None` before the first, which is sent at once.
    flushed: Option<Instant>,
}

impl Stream {
    /// The credit of a frame, of which nothing behind the first `from` tokens of the text was sent.
    pub(super) fn new(text: &Text, from: usize, frame: &DraftFrame, credit: &Credit) -> Self {
        let mut stream = Self {
            round: frame.round,
            from,
            until: credit.until as usize,
            stop: credit.stop.clone(),
            stopped: false,
            sent: from,
            flushed: None,
        };
        stream.stopped = stream.has_stop(&text.tokens()[frame.base as usize..]);
        stream
    }

    /// The newest round that gave it.
    pub(super) fn round(&self) -> u32 {
        self.round
    }

    fn has_stop(&self, tokens: &[TokenId]) -> bool {
        tokens.iter().any(|token| self.stop.contains(token))
    }
}

impl Session {
    /// True when credit is left for the next token.
    fn may_write(&self, context_max: usize) -> bool {
        self.stream.as_ref().is_some_and(|s| !s.stopped && self.text.len() < s.until.min(context_max))
    }
}

impl Verifier {
    /// True when a credit is within this verifier's limits.
    pub(super) fn credit_fits(&self, base: u32, credit: &Credit) -> bool {
        credit.until - base <= u32::from(self.config.credit_tokens_max)
            && self.config.credit_tokens_max > 0
            && credit.until <= self.config.context_tokens_max
            && credit.stop.iter().all(|token| *token < self.config.vocabulary.size)
    }

    /// Takes the credit of a frame without drafts: the text behind its base stays where it is the target's own.
    pub(super) fn grant(&mut self, key: &Key, frame: &DraftFrame, now: Instant) {
        let Some(credit) = &frame.credit else { return };
        if !self.fits(frame) {
            return self.end(key, CloseReason::Rejected);
        }
        let (base, until) = (frame.base as usize, credit.until as usize);
        let session = self.sessions.get_mut(key).expect("callers hold a live key");
        if until == base {
            (session.credited, session.stream) = (frame.round, None);
            return;
        }
        if !self.agrees(key, frame) {
            return;
        }
        let session = self.sessions.get_mut(key).expect("callers hold a live key");
        if base < session.own_from {
            session.cut(base);
        }
        // A renewal must not send again what is under way to the device.
        let before = session.stream.take().filter(|_| !credit.again && frame.send == 1);
        let mut stream = Stream::new(&session.text, base, frame, credit);
        if let Some(before) = before {
            stream.sent = before.sent.max(base).min(session.text.len());
            stream.flushed = before.flushed;
        }
        (session.credited, session.stream) = (frame.round, Some(stream));
        self.flush(key, now);
        self.go_on_writing(key, now);
    }

    /// Sends everything that was written on the credit in use again. A repeated round may differ from the first one in
    /// all but its number, so nothing is taken from it.
    pub(super) fn repeat(&mut self, key: &Key, now: Instant) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(stream) = &mut session.stream else { return };
        stream.sent = stream.from;
        self.flush(key, now);
    }

    /// Writes the token behind a text of this length and digest: drawn from the target's row, or its own choice.
    pub(super) fn write(
        &mut self,
        key: &Key,
        (at, digest): (usize, Digest),
        answer: TargetAnswer<'_>,
        now: Instant,
    ) {
        let context_max = self.config.context_tokens_max as usize;
        let interval = self.config.continuation_interval;
        let session = self.sessions.get_mut(key).expect("callers hold a live key");
        // A new prompt or the end of the credit came in between: the row belongs to a text that is gone.
        let same_text = session.text.len() == at && session.text.full(at) == Some(digest);
        if !same_text || !session.may_write(context_max) {
            return;
        }
        let size = self.config.vocabulary.size;
        let token = match answer {
            TargetAnswer::Rows(rows) => rows
                .get(..size as usize)
                .and_then(|row| self.scratch.refill(row, &session.sampling).ok())
                .map(|()| couple(&self.scratch, session.seed, at as u64)),
            TargetAnswer::Choices(choices) => {
                choices.first().map(|choice| choice.token).filter(|token| *token < size)
            }
        };
        let Some(token) = token else {
            return self.end(key, CloseReason::Failed);
        };
        session.text.push(token);
        self.counters.written += 1;
        let Some(stream) = &mut session.stream else { return };
        stream.stopped |= stream.has_stop(&[token]);
        let waiting = session.text.len() - stream.sent;
        let is_late = stream.flushed.is_none_or(|flushed| now.since(flushed) >= interval);
        let is_full = waiting >= usize::from(self.config.continuation_tokens);
        if is_late || is_full || !session.may_write(context_max) {
            self.flush(key, now);
        }
    }

    /// Sends what was written and not sent yet, up to the end of the credit: a device that asks for an old part of a
    /// long text again must not fill the outbox, which all devices share.
    pub(super) fn flush(&mut self, key: &Key, now: Instant) {
        let (price, bits) = (self.price, token_bits(self.config.vocabulary.size));
        while let Some(session) = self.sessions.get_mut(key)
            && let Some(stream) = &mut session.stream
            && let end = session.text.len().min(stream.until)
            && let [first, rest @ ..] = session.text.tokens().get(stream.sent..end).unwrap_or_default()
        {
            let rest = rest.iter().take(CONTINUATION_TOKENS_MAX - 1);
            let continuation = Continuation {
                session: key.1,
                epoch: session.epoch,
                round: stream.round,
                base: stream.sent as u32,
                prefix: session.text.short(stream.sent).expect("sent is at most the text's length"),
                pass: price.pass,
                queue: price.queue,
                token_bits: bits,
                tokens: core::iter::once(first).chain(rest).copied().collect(),
            };
            stream.sent += continuation.tokens.len();
            stream.flushed = Some(now);
            session.tell(price);
            self.counters.continuations += 1;
            self.answer(key, &Down::Continuation(continuation));
            self.expect_text(key, now);
        }
    }

    /// Asks the target for the next token, if credit is left and nothing else is asked of it.
    pub(super) fn go_on_writing(&mut self, key: &Key, now: Instant) {
        let context_max = self.config.context_tokens_max as usize;
        let Some(session) = self.sessions.get(key) else { return };
        if matches!(session.round, super::Round::Idle) && session.may_write(context_max) && !self.draining {
            let at = session.text.len();
            let digest = session.text.full(at).expect("a text has its own digest");
            self.ask_target(key, &[], 1, Work::Write { at, digest });
            if self.sessions.get(key).is_some_and(|session| session.working.is_none()) {
                self.expect_text(key, now);
            }
        }
    }
}
