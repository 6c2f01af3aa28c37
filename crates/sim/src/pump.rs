//! Shared by all runs in virtual time: an agenda of events, and a pump that carries out the machines' actions and
//! delivers their messages.

use dunlin_hlm::device::{self, Channel, Device, Transmit};
use dunlin_hlm::time::Instant;
use dunlin_hlm::verifier::{self, Answer, OutgoingAnswer, Verifier};
use dunlin_wire::DeviceId;
use std::collections::BTreeMap;

/// Future events by their virtual time, µs. Events of the same time happen in the order in which they were added, so
/// that a run depends only on its seed.
#[derive(Debug)]
pub(crate) struct Agenda<T> {
    pub(crate) now: u64,
    serial: u64,
    things: BTreeMap<(u64, u64), T>,
}

impl<T> Agenda<T> {
    pub(crate) fn new() -> Self {
        Self { now: 0, serial: 0, things: BTreeMap::new() }
    }

    /// Adds an event; one in the past happens now.
    pub(crate) fn at(&mut self, at: u64, thing: T) {
        self.serial += 1;
        self.things.insert((at.max(self.now), self.serial), thing);
    }

    /// The time of the next event.
    pub(crate) fn next_at(&self) -> Option<u64> {
        self.things.keys().next().map(|(at, _)| *at)
    }

    /// Takes the next event and advances the time to it.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let ((at, _), thing) = self.things.pop_first()?;
        self.now = at;
        Some(thing)
    }
}

/// The devices and verifiers of a run, each with its number, and the handling of their events and messages.
pub(crate) trait LinkEnds {
    /// The reason for ending a run early.
    type Error;

    fn now(&self) -> Instant;
    fn device(&mut self, number: usize) -> &mut Device;
    fn verifier(&mut self, number: usize) -> &mut Verifier;
    fn on_device_event(&mut self, device: usize, event: device::DeviceEvent) -> Result<(), Self::Error>;
    fn on_verifier_event(
        &mut self,
        verifier: usize,
        event: verifier::VerifierEvent,
    ) -> Result<(), Self::Error>;
    /// Puts a device's message on the link.
    fn send_up(&mut self, device: usize, message: Transmit);
    /// Puts a verifier's message on the link.
    fn send_down(&mut self, answer: OutgoingAnswer);

    /// Carries out a device's actions until it has none.
    fn drain_device(&mut self, device: usize) -> Result<(), Self::Error> {
        while let Some(event) = self.device(device).poll_event() {
            self.on_device_event(device, event)?;
        }
        let now = self.now();
        while let Some(message) = self.device(device).poll_transmit(now) {
            self.send_up(device, message);
        }
        Ok(())
    }

    /// Carries out a verifier's actions until it has none.
    fn drain_verifier(&mut self, verifier: usize) -> Result<(), Self::Error> {
        while let Some(event) = self.verifier(verifier).poll_event() {
            self.on_verifier_event(verifier, event)?;
        }
        while let Some(answer) = self.verifier(verifier).poll_transmit() {
            self.send_down(answer);
        }
        Ok(())
    }

    /// Delivers a message of the device `from` to a verifier.
    fn deliver_up(&mut self, verifier: usize, from: &DeviceId, channel: &Channel, bytes: &[u8]) {
        let now = self.now();
        match channel {
            Channel::Open(_) => self.verifier(verifier).handle_open(from, bytes, None, now),
            Channel::Frames(_) => self.verifier(verifier).handle_frame(from, bytes, now),
        }
    }

    /// Delivers a message to a device.
    fn deliver_down(&mut self, device: usize, channel: Answer, bytes: &[u8]) {
        let now = self.now();
        match channel {
            Answer::Reply => self.device(device).handle_reply(bytes, now),
            Answer::Verdict => self.device(device).handle_down(bytes, now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_of_one_time_happen_in_the_order_of_their_entry() {
        let mut agenda = Agenda::new();
        for (at, thing) in [(5, 'c'), (2, 'a'), (5, 'd'), (2, 'b')] {
            agenda.at(at, thing);
        }
        assert_eq!(agenda.next_at(), Some(2));
        assert_eq!((agenda.pop(), agenda.pop(), agenda.now), (Some('a'), Some('b'), 2));
        assert_eq!((agenda.pop(), agenda.now), (Some('c'), 5));
        agenda.at(1, 'e');
        assert_eq!((agenda.pop(), agenda.pop(), agenda.now), (Some('d'), Some('e'), 5));
        assert_eq!((agenda.pop(), agenda.next_at()), (None, None));
    }
}
