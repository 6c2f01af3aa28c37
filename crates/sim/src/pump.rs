//! What every run in virtual time has: an agenda, and a pump that empties the machines and brings them their messages.

use dunlin_hlm::device::{self, Channel, Device, Transmit};
use dunlin_hlm::time::Instant;
use dunlin_hlm::verifier::{self, Answer, Outgoing, Verifier};
use dunlin_wire::DeviceId;
use std::collections::BTreeMap;

/// What will happen, by its time in virtual microseconds. Things of one time happen in the order of their entry.
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

    /// Enters a thing. What is late happens now.
    pub(crate) fn at(&mut self, at: u64, thing: T) {
        self.serial += 1;
        self.things.insert((at.max(self.now), self.serial), thing);
    }

    /// The time of the next thing.
    pub(crate) fn next_at(&self) -> Option<u64> {
        self.things.keys().next().map(|(at, _)| *at)
    }

    /// Takes the next thing. Its time is now.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let ((at, _), thing) = self.things.pop_first()?;
        self.now = at;
        Some(thing)
    }
}

/// The ends of a link, each with its number, and what is done with what they say.
pub(crate) trait LinkEnds {
    /// Why a run ends.
    type Error;

    fn now(&self) -> Instant;
    fn device(&mut self, number: usize) -> &mut Device;
    fn verifier(&mut self, number: usize) -> &mut Verifier;
    fn on_device_event(&mut self, device: usize, event: device::Event) -> Result<(), Self::Error>;
    fn on_verifier_event(&mut self, verifier: usize, event: verifier::Event) -> Result<(), Self::Error>;
    /// Puts a device's message on the link.
    fn send_up(&mut self, device: usize, message: Transmit);
    /// Puts a verifier's message on the link.
    fn send_down(&mut self, answer: Outgoing);

    /// Does what a device asks for until it asks for nothing.
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

    /// Does what a verifier asks for until it asks for nothing.
    fn drain_verifier(&mut self, verifier: usize) -> Result<(), Self::Error> {
        while let Some(event) = self.verifier(verifier).poll_event() {
            self.on_verifier_event(verifier, event)?;
        }
        while let Some(answer) = self.verifier(verifier).poll_transmit() {
            self.send_down(answer);
        }
        Ok(())
    }

    /// Brings a verifier a message of the device `from`.
    fn deliver_up(&mut self, verifier: usize, from: &DeviceId, channel: &Channel, bytes: &[u8]) {
        let now = self.now();
        match channel {
            Channel::Open(_) => self.verifier(verifier).handle_open(from, bytes, None, now),
            Channel::Frames(_) => self.verifier(verifier).handle_frame(from, bytes, now),
        }
    }

    /// Brings a device a message.
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
