//! Text that the verifier writes on credit: asking for it, taking it, and asking again where it stops.
//!
//! Invariant: a continuation counts only while no frame is out whose verdict says what comes next, and only behind a
//! text that its prefix and its known tokens agree with. The device asks from its own length, so nothing is doubled.

use super::lease::{Flight, Leased, Lessor, SILENT_SENDS_MAX};
use super::{Device, DeviceEvent, Finish, Origin};
use crate::TokenId;
use crate::economy::Way;
use crate::promise::{WORKED_MAX, frame_time, is_slow, word_time};
use crate::time::Instant;
use alloc::vec::Vec;
use dunlin_wire::limits::STOP_IDS_MAX;
use dunlin_wire::{Continuation, Credit, DraftFrame, Promise, Rows, token_bits};

/// The credit in use.
#[derive(Debug)]
pub(super) struct Stream {
    /// First round whose continuations still count.
    since: u32,
    /// Newest round that asked for the text again, 0 for none; an older continuation shows no gap.
    again: u32,
    /// Length that the text may reach.
    until: usize,
    stop: heapless::Vec<TokenId, STOP_IDS_MAX>,
    /// Time of the last continuation.
    heard: Option<Instant>,
    /// Time at which the text counts as stalled; `None` while a frame is out, which has a timer of its own.
    due: Option<Instant>,
    /// Stalls in a row.
    silent: u32,
    /// Time of the first message since the last text that the verifier works on it.
    worked: Option<Instant>,
}

impl Stream {
    /// The credit of a frame, given the one in use before. A frame without drafts goes on with what flows already;
    /// drafts or a request for the text again make older continuations void or redundant.
    pub(super) fn after(before: Option<Self>, frame: &DraftFrame) -> Option<Self> {
        let credit = frame.credit.as_ref()?;
        let before = before.filter(|_| frame.drafts.is_empty());
        Some(Self {
            since: before.as_ref().map_or(frame.round, |stream| stream.since),
            again: match &before {
                _ if credit.again => frame.round,
                Some(stream) => stream.again,
                None => 0,
            },
            until: credit.until as usize,
            stop: credit.stop.clone(),
            heard: before.as_ref().and_then(|stream| stream.heard),
            due: None,
            silent: before.as_ref().map_or(0, |stream| stream.silent),
            worked: before.and_then(|stream| stream.worked),
        })
    }

    /// Without a link nothing is missed; once it is back, the text is asked for at once, since it may be lost.
    pub(super) fn link(&mut self, up: bool, now: Instant) {
        self.due = up.then_some(now);
        self.silent = 0;
    }
}

impl Device {
    /// Credit for the reply's next tokens, if the policy wants it and the verifier accepts it.
    pub(super) fn credit(&self, again: bool) -> Option<Credit> {
        let Lessor::Leased(leased) = &self.lessor else { return None };
        if self.config.policy.auto() && !self.leaves_it() {
            return None;
        }
        let trial = self.learned.economy.trial().filter(|_| self.config.policy.auto());
        let wanted = usize::from(self.config.policy.credit_tokens_max()).min(trial.unwrap_or(usize::MAX));
        let most = wanted.min(leased.credit_tokens_max).min(self.room());
        let saying = self.saying.as_ref().filter(|_| most > 0)?;
        let mut stop: Vec<TokenId> = saying.stop.clone();
        stop.retain(|token| *token < self.vocabulary_size());
        stop.sort_unstable();
        stop.dedup();
        let stop = stop.into_iter().take(STOP_IDS_MAX).collect();
        Some(Credit { until: (self.text.len() + most) as u32, again, stop })
    }

    /// True while the verifier has credit for tokens that have not come, apart from those of a frame's verdict.
    pub(super) fn is_streaming(&self) -> bool {
        let Lessor::Leased(Leased { stream: Some(stream), flight, .. }) = &self.lessor else { return false };
        let awaits_verdict = flight.as_ref().is_some_and(|flight| !flight.streams);
        self.saying.is_some() && !awaits_verdict && self.text.len() < stream.until
    }

    /// Renews the credit once half of it is used, so that the text flows on during the round trip.
    pub(super) fn renew(&mut self, now: Instant) {
        let Lessor::Leased(Leased { stream: Some(stream), flight: None, .. }) = &self.lessor else { return };
        let (left, until) = (stream.until - self.text.len(), stream.until);
        if left > self.credit_max() / 2 {
            return;
        }
        // Where drafting pays better from here on, or its turn comes after each credit, the credit runs out.
        self.choose_next();
        if self.config.policy.drafts() && !self.leaves_it() {
            return;
        }
        let Some(credit) = self.credit(false) else { return };
        if credit.until as usize > until {
            self.launch(0, Some(credit), now);
        }
    }

    /// Tokens of a whole credit.
    pub(super) fn credit_max(&self) -> usize {
        let Lessor::Leased(leased) = &self.lessor else { return 0 };
        usize::from(self.config.policy.credit_tokens_max()).min(leased.credit_tokens_max)
    }

    /// Starts the timer of a stream when nothing else has one.
    pub(super) fn expect_text(&mut self, now: Instant) {
        let (gap, round_trip) = (self.learned.gap.timeout(), self.round_trip());
        let length = self.text.len();
        let Lessor::Leased(Leased { stream, flight: None, price, .. }) = &mut self.lessor else { return };
        let slack = if is_slow(*price) { round_trip } else { gap.max(round_trip) };
        let due = now + word_time(*price, 0) + slack;
        match stream {
            Some(open) if length < open.until => open.due = Some(due),
            _ => *stream = None,
        }
    }

    /// The verifier works on the credit in use: the text is waited for until `due`. False if no credit of this round is in
    /// use, or if the verifier has said nothing else for too long.
    pub(super) fn works_on_text(&mut self, round: u32, now: Instant, due: Instant) -> bool {
        let Lessor::Leased(Leased { stream: Some(stream), flight: None, round: newest, .. }) =
            &mut self.lessor
        else {
            return false;
        };
        let since = *stream.worked.get_or_insert(now);
        if !(stream.since..=*newest).contains(&round) || now.since(since) >= WORKED_MAX {
            return false;
        }
        (stream.silent, stream.due) = (0, Some(due));
        true
    }

    pub(super) fn stalled_at(&self) -> Option<Instant> {
        match &self.lessor {
            Lessor::Leased(Leased { stream: Some(stream), flight: None, .. }) => stream.due,
            _ => None,
        }
    }

    /// The text stopped flowing: asks for it from the device's own length, or gives up the lease.
    pub(super) fn stalled(&mut self, now: Instant) {
        self.learned.gap.back_off();
        let Lessor::Leased(Leased { stream: Some(stream), .. }) = &mut self.lessor else { return };
        stream.silent += 1;
        if stream.silent > SILENT_SENDS_MAX {
            self.leave_silent(now);
        } else {
            self.launch(0, self.credit(true), now);
            // The text that didn't come was the first silence in the row.
            if let Lessor::Leased(Leased { flight: Some(flight), .. }) = &mut self.lessor {
                flight.silent = 1;
            }
        }
    }

    pub(super) fn on_continuation(&mut self, text: &Continuation, now: Instant) {
        let (base, length) = (text.base as usize, self.text.len());
        let Lessor::Leased(Leased { stream: Some(stream), flight, round, target, .. }) = &self.lessor else {
            self.counters.stale += 1;
            return;
        };
        let awaits_verdict = flight.as_ref().is_some_and(|flight| !flight.streams);
        let known = text.tokens.iter().all(|token| *token < self.vocabulary_size());
        let is_current = (stream.since..=*round).contains(&text.round);
        let (target, is_gap) = (*target, base > length);
        let is_old_gap = is_gap && text.round < stream.again;
        if self.saying.is_none() || awaits_verdict || !known || !is_current || is_old_gap {
            self.counters.stale += 1;
            return;
        }
        if is_gap {
            return self.ask_again(now);
        }
        let have = &self.text.tokens()[base..];
        let shared = have.len().min(text.tokens.len());
        if self.text.short(base) != Some(text.prefix) || have[..shared] != text.tokens[..shared] {
            return self.contradicted(base, target.promise, now);
        }
        self.learned.economy.announce_pass(text.pass, text.queue);
        self.note_price(text.pass, text.queue);
        self.acknowledge(text.round, text.tokens.len() - shared, now);
        self.answered();
        self.prove_lessor();
        self.target.get_or_insert(target);
        for token in &text.tokens[shared..] {
            self.take_streamed(*token);
        }
        if let Lessor::Leased(leased) = &mut self.lessor {
            leased.synced = self.text.len();
        }
        // The next round's time begins here: what flowed before it is no part of it.
        self.round.verdict(now);
        self.expect_text(now);
        if !self.is_streaming() {
            // The first message of a credit is not measured, so what is left of a trial may be too short to be.
            self.learned.economy.end_trial(Way::Stream);
            self.choose_next();
        }
    }

    /// Commits a token of a continuation, unless it ended the reply before. What was drafted behind another token is void.
    fn take_streamed(&mut self, token: TokenId) {
        if self.saying.is_none() {
            return;
        }
        if self.drafted.first().is_some_and(|drafted| drafted.scored.token == token) {
            self.drafted.remove(0);
        } else {
            self.drafted.clear();
        }
        self.counters.streamed += 1;
        self.commit(token, Origin::Target);
    }

    /// A continuation answers the frame that asked for it, if it is of its round.
    fn acknowledge(&mut self, round: u32, tokens: usize, now: Instant) {
        let Lessor::Leased(Leased { stream: Some(stream), flight, price, .. }) = &mut self.lessor else {
            return;
        };
        let flowed = stream.silent == 0 && stream.worked.is_none();
        (stream.silent, stream.worked) = (0, None);
        let before = stream.heard.replace(now);
        let answered = flight.take_if(|flight| flight.streams && flight.round == round);
        let announced = frame_time(*price, 0);
        if let Some(heard) = before {
            if flowed {
                self.learned.gap.observe(now.since(heard) - announced);
            }
            self.observe_streaming(tokens, heard, now);
        }
        if let Some(Flight { sent: 1, first_sent, promised, worked: None, .. }) = answered {
            let sample = now.since(first_sent);
            self.learned.rtt.observe(sample - promised);
            // The answer to a renewal comes with the next message, whenever that is due.
            if before.is_none() {
                self.observe_round_trip(sample);
            }
        }
    }

    /// Part of the text is missing: asks for it from the device's own length, unless that is done already.
    fn ask_again(&mut self, now: Instant) {
        let credit = self.credit(true);
        let Lessor::Leased(Leased { stream: Some(stream), flight, .. }) = &self.lessor else { return };
        let is_asked = flight.as_ref().is_some_and(|flight| flight.round == stream.again);
        if is_asked {
            self.counters.stale += 1;
        } else {
            self.launch(0, credit, now);
        }
    }

    /// The verifier holds another text than the committed one, which stays. A target that promises the same bits can't
    /// have written both, so the session is opened again and the verifier forgets its own.
    fn contradicted(&mut self, position: usize, promise: Promise, now: Instant) {
        self.counters.contradicted += 1;
        if promise == Promise::Exact {
            self.events.push_back(DeviceEvent::Contradicted { position });
            self.disowned = true;
            self.reopen(now);
        }
    }

    /// Ends the credit of a reply that has ended, unless the verifier knows the end.
    pub(super) fn end_stream(&mut self, finish: Finish) {
        let (length, last) = (self.text.len(), self.text.tokens().last().copied());
        let Some(prefix) = self.text.short(length) else { return };
        let (number, epoch) = (self.session.number, self.session.epoch);
        let Lessor::Leased(leased) = &mut self.lessor else { return };
        let Some(stream) = leased.stream.take() else { return };
        let listed = last.is_some_and(|token| stream.stop.contains(&token));
        if stream.until <= length || finish == Finish::Stop && listed {
            return;
        }
        leased.round += 1;
        let credit = Credit { until: length as u32, again: false, stop: Default::default() };
        let frame = DraftFrame {
            session: number,
            epoch,
            round: leased.round,
            send: 1,
            base: length as u32,
            prefix,
            token_bits: token_bits(leased.vocabulary_size),
            drafts: Default::default(),
            held: 0,
            bonus: true,
            rows: Rows::None,
            credit: Some(credit),
        };
        leased.farewell = frame.encode().ok().map(|bytes| bytes.to_vec());
    }
}
