//! Messages to the verifier, in the order in which they must be sent.

use super::lease::{Flight, Leased, Lessor};
use super::stream::Stream;
use super::{Channel, Device, Transmit};
use crate::TokenId;
use crate::payload::Sent;
use crate::promise::{frame_time, word_time};
use crate::text::Text;
use crate::time::{Duration, Instant};
use alloc::vec::Vec;
use core::ops::Range;
use dunlin_wire::limits::{CODES_MAX, CONTEXT_CHUNK_TOKENS_MAX, DRAFT_TOKENS_MAX};
use dunlin_wire::{
    Close, Codes, Context, Credit, DraftFrame, Open, SamplingParams, VerifierId, count_send, token_bits,
};

impl Device {
    /// The next message to publish; `None` while the link is down.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        if !self.link_up {
            return None;
        }
        let transmit = self.next_transmit(now)?;
        self.counters.payload_bytes_up += transmit.bytes.len() as u64;
        Some(transmit)
    }

    fn next_transmit(&mut self, now: Instant) -> Option<Transmit> {
        if let Some((verifier, close)) = self.partings.pop() {
            return Some(to_verifier(verifier, &close.encode().expect("two bytes fit a message")));
        }
        if self.closing {
            return self.transmit_close();
        }
        if self.saying.is_none() {
            return self.transmit_farewell();
        }
        match &self.lessor {
            Lessor::None => None,
            Lessor::Opening(opening) if opening.due <= now => self.transmit_open(now),
            Lessor::Opening(_) => None,
            // Context goes first, even before a frame is ready: the verifier needs the text that the frame continues.
            Lessor::Leased(leased) if leased.synced < self.context_end(leased) => self.transmit_context(),
            Lessor::Leased(_) => self.transmit_frame(now),
        }
    }

    fn transmit_close(&mut self) -> Option<Transmit> {
        let Lessor::Leased(leased) = core::mem::replace(&mut self.lessor, Lessor::None) else { return None };
        let close = Close { session: self.session.number, epoch: self.session.epoch };
        let bytes = close.encode().expect("two bytes fit a message");
        Some(to_verifier(leased.verifier, &bytes))
    }

    /// The frame that ends the credit of a reply that has ended. It has no answer, and one that is lost costs the verifier
    /// no more than the credit.
    fn transmit_farewell(&mut self) -> Option<Transmit> {
        let Lessor::Leased(leased) = &mut self.lessor else { return None };
        let bytes = leased.farewell.take()?;
        self.counters.frames_up += 1;
        Some(to_verifier(leased.verifier.clone(), &bytes))
    }

    fn transmit_open(&mut self, now: Instant) -> Option<Transmit> {
        let verifier = self.choose()?;
        let theirs = self.learned.candidates.get(&verifier).map(|presence| presence.vocabulary);
        let shorter = theirs.filter(|theirs| theirs.size < self.config.vocabulary.size);
        let s = self.session.sampling;
        let open = Open {
            session: self.session.number,
            epoch: self.session.epoch,
            nonce: self.session.nonce,
            seed: self.session.seed,
            sampling: SamplingParams { temperature: s.temperature(), top_p: s.top_p(), top_k: s.top_k() },
            vocabulary: shorter.unwrap_or(self.config.vocabulary),
            length: if self.disowned { 0 } else { self.text.len() as u32 },
        };
        self.silence.count_try();
        self.counters.opens += 1;
        // Asking again before an answer could arrive would only waste the next try.
        let (backoff, usual) = (self.backoff().max(self.round_trip()), self.usual_round_trip());
        if let Lessor::Opening(opening) = &mut self.lessor {
            let wait = if opening.offer.is_some() { usual } else { backoff };
            opening.due = now + wait;
            opening.asked_at = Some(now);
        }
        let bytes = open.encode().expect("the text is within the session's limits");
        Some(transmit(Channel::Open(verifier), &bytes))
    }

    /// Length of the text that must be sent as context. Tokens committed without the verifier are not part of it: they
    /// ride along with a frame.
    fn context_end(&self, leased: &Leased) -> usize {
        match &leased.flight {
            Some(flight) => flight.base,
            None if self.trusts() => self.prompt_end,
            None => self.text.len(),
        }
    }

    fn transmit_context(&mut self) -> Option<Transmit> {
        let Lessor::Leased(leased) = &self.lessor else { return None };
        let end = self.context_end(leased);
        // Counts as sent at once: if the chunk is lost, the verifier answers the frame with a resync.
        let Lessor::Leased(leased) = &mut self.lessor else { return None };
        let bits = token_bits(leased.vocabulary_size);
        let context = chunk(&self.text, leased.synced..end, bits, (self.session.number, self.session.epoch));
        leased.synced += context.tokens.len();
        self.counters.context_up += 1;
        let bytes = context.encode().expect("the text's tokens are within the vocabulary");
        Some(to_verifier(leased.verifier.clone(), &bytes))
    }

    fn transmit_frame(&mut self, now: Instant) -> Option<Transmit> {
        let round_trip = self.round_trip();
        let Lessor::Leased(Leased { verifier, flight: Some(flight), .. }) = &mut self.lessor else {
            return None;
        };
        let next = flight.next?;
        let is_frame = next + 1 == flight.messages.len();
        // The frame carries its send count, so that the verdict shows which send it answers.
        if is_frame && flight.sent > 0 {
            count_send(&mut flight.messages[next]);
        }
        let message = to_verifier(verifier.clone(), &flight.messages[next]);
        if flight.sent == 0 && next == 0 {
            flight.first_sent = now;
        }
        flight.next = (!is_frame).then_some(next + 1);
        if !is_frame {
            return Some(message);
        }
        flight.sent += 1;
        // A frame that is sent again, and a request for the text again, are answered at once.
        let at_once = flight.sent > 1 || flight.asks_again;
        let promised = if at_once { Duration::default() } else { flight.word };
        flight.due = Some(now + promised + round_trip);
        self.counters.frames_up += 1;
        self.counters.resent += u64::from(flight.sent > 1);
        self.note_silence(now);
        Some(message)
    }

    /// Makes a frame of the first `count` drafts; `poll_transmit` then sends it.
    pub(super) fn launch(&mut self, count: usize, credit: Option<Credit>, now: Instant) {
        let Lessor::Leased(leased) = &self.lessor else { return };
        let base = self.base(leased);
        let frame = DraftFrame { credit, ..self.frame(leased.round + 1, base, count) };
        let bytes = frame.encode().expect("drafts are within the vocabulary and the limits");
        let mut messages = self.codes(leased.round + 1, count);
        messages.push(bytes.to_vec());
        self.counters.sent_drafts += count as u64;
        let riding = self.text.len() - base;
        let Lessor::Leased(leased) = &mut self.lessor else { return };
        leased.round += 1;
        leased.farewell = None;
        leased.stream = Stream::after(leased.stream.take(), &frame);
        self.counters.credits += u64::from(frame.credit.is_some());
        leased.flight = Some(Flight {
            round: leased.round,
            base,
            digest: dunlin_wire::frame_digest(&bytes),
            messages,
            riding,
            drafts: count,
            bonus: frame.bonus,
            streams: frame.credit.is_some() && count == 0,
            asks_again: frame.credit.as_ref().is_some_and(|credit| credit.again),
            next: Some(0),
            sent: 0,
            silent: 0,
            first_sent: now,
            promised: frame_time(leased.price, count + riding),
            word: word_time(leased.price, count + riding),
            worked: None,
            due: None,
        });
        self.note_silence(now);
    }
}

impl Device {
    /// Length of the text in front of a frame. It starts behind what the verifier has, so that tokens committed without
    /// the verifier ride along. If those are too many for one frame, they are sent as context and the frame starts at
    /// the end of the text.
    fn base(&self, leased: &Leased) -> usize {
        let start = if self.trusts() { leased.synced.max(self.prompt_end) } else { self.text.len() };
        let riding_max = leased.draft_tokens_max.clamp(1, DRAFT_TOKENS_MAX) - 1;
        if self.text.len() - start <= riding_max { start } else { self.text.len() }
    }

    /// Messages with the weights of full rows, which are too long for the frame itself.
    fn codes(&self, round: u32, count: usize) -> Vec<Vec<u8>> {
        let (session, epoch) = (self.session.number, self.session.epoch);
        let weights = self.drafted[..count].iter().filter_map(|drafted| match &drafted.sent {
            Sent::Weights(weights) => Some(weights.chunks(CODES_MAX)),
            _ => None,
        });
        let message = |(part, codes): (u16, &[u8])| {
            let part = part as u8;
            let codes = heapless::Vec::from_slice(codes).expect("chunks are no longer than a message takes");
            let bytes = Codes { session, epoch, round, part, codes }.encode();
            bytes.expect("a vocabulary has no more parts than a byte counts").to_vec()
        };
        weights.flat_map(|chunks| (0..).zip(chunks)).map(message).collect()
    }
}

/// The first chunk of a range of the text.
fn chunk(text: &Text, range: Range<usize>, token_bits: u8, (session, epoch): (u8, u8)) -> Context {
    let offset = range.start;
    let rest: &[TokenId] = &text.tokens()[range];
    let tokens = rest.iter().take(CONTEXT_CHUNK_TOKENS_MAX).copied().collect();
    let prefix = text.short(offset).expect("offset is at most the text's length");
    Context { session, epoch, offset: offset as u32, prefix, token_bits, tokens }
}

fn to_verifier(verifier: VerifierId, bytes: &[u8]) -> Transmit {
    transmit(Channel::Frames(verifier), bytes)
}

fn transmit(channel: Channel, bytes: &[u8]) -> Transmit {
    let bytes = heapless::Vec::from_slice(bytes).expect("every message is within FRAME_BYTES_MAX");
    Transmit { channel, bytes }
}
