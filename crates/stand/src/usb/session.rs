//! One connection of a virtual machine to a device: the answers to its requests.
//!
//! Invariant: it knows no stream and no thread. Its first answer after the hellos describes the whole device.

use super::adapter::{Adapter, CLASS_VENDOR, PACKET_BYTES, PRODUCT, VENDOR, VERSION};
use super::redir::{Capabilities, RedirAnswer, RedirIds, RedirRequest, Status};
use embedded_hal::i2c::I2c;

/// The device's only configuration.
const CONFIGURATION: u8 = 1;

/// A connection.
#[derive(Debug, Default)]
pub struct UsbSession {
    /// The shared capabilities; `None` before the other side's hello.
    shared: Option<Capabilities>,
    is_plugged: bool,
}

impl UsbSession {
    /// The packet that opens a connection.
    pub fn hello() -> Vec<u8> {
        RedirAnswer::Hello.packet(0, Capabilities::default())
    }

    /// The length of ids in the next packets.
    pub fn ids(&self) -> RedirIds {
        self.shared.unwrap_or_default().ids()
    }

    /// The packets that answer a request, possibly none.
    pub fn handle<I: I2c>(&mut self, id: u64, request: &RedirRequest, adapter: &mut Adapter<I>) -> Vec<u8> {
        if let RedirRequest::Hello(theirs) = request {
            return self.greet(*theirs);
        }
        let Some(shared) = self.shared.filter(|_| self.is_plugged) else { return Vec::new() };
        answer(request, adapter).map(|answer| answer.packet(id, shared)).unwrap_or_default()
    }

    /// The packets that announce that the device was plugged in or unplugged; none if nothing changes, or before the
    /// other side's hello.
    pub fn plug(&mut self, plugged: bool) -> Vec<u8> {
        let changed = std::mem::replace(&mut self.is_plugged, plugged) != plugged;
        let Some(shared) = self.shared.filter(|_| changed) else { return Vec::new() };
        if plugged { presented(shared) } else { RedirAnswer::Disconnect.packet(0, shared) }
    }

    /// Handles a hello. A second one is ignored: the agreed capabilities stay.
    fn greet(&mut self, theirs: Capabilities) -> Vec<u8> {
        if self.shared.is_some() {
            return Vec::new();
        }
        let shared = theirs.shared();
        self.shared = Some(shared);
        if self.is_plugged { presented(shared) } else { Vec::new() }
    }
}

fn presented(shared: Capabilities) -> Vec<u8> {
    let connect =
        RedirAnswer::Connect { class: CLASS_VENDOR, vendor: VENDOR, product: PRODUCT, version: VERSION };
    let all = [
        RedirAnswer::EndpointInfo { packet_bytes: PACKET_BYTES },
        RedirAnswer::InterfaceInfo { class: CLASS_VENDOR },
        connect,
    ];
    all.iter().flat_map(|answer| answer.packet(0, shared)).collect()
}

fn answer<I: I2c>(request: &RedirRequest, adapter: &mut Adapter<I>) -> Option<RedirAnswer> {
    match request {
        RedirRequest::Hello(_) | RedirRequest::Reset | RedirRequest::Other(_) => None,
        RedirRequest::SetConfiguration(asked) => {
            let status = if *asked == CONFIGURATION { Status::Success } else { Status::Invalid };
            Some(RedirAnswer::Configuration { status, configuration: CONFIGURATION })
        }
        RedirRequest::GetConfiguration => {
            Some(RedirAnswer::Configuration { status: Status::Success, configuration: CONFIGURATION })
        }
        RedirRequest::SetAlternate { interface, alternate } => {
            let status = if (*interface, *alternate) == (0, 0) { Status::Success } else { Status::Invalid };
            Some(RedirAnswer::Alternate { status, interface: *interface, alternate: 0 })
        }
        RedirRequest::GetAlternate { interface } => {
            let status = if *interface == 0 { Status::Success } else { Status::Invalid };
            Some(RedirAnswer::Alternate { status, interface: *interface, alternate: 0 })
        }
        RedirRequest::Control { endpoint, setup, data } => {
            let done = adapter.control(setup, data);
            let status = if done.is_ok() { Status::Success } else { Status::Stall };
            // Data sent to the device is not part of the answer.
            let data = done.unwrap_or_default();
            let data = if setup.is_to_host() { data } else { Vec::new() };
            Some(RedirAnswer::Control { endpoint: *endpoint, setup: *setup, status, data })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::adapter::{Adapter, UsbSetup};
    use super::*;
    use embedded_hal::i2c::{ErrorKind, ErrorType, Operation};

    struct NoBus;

    impl ErrorType for NoBus {
        type Error = ErrorKind;
    }

    impl I2c for NoBus {
        fn transaction(&mut self, _: u8, _: &mut [Operation<'_>]) -> Result<(), Self::Error> {
            Err(ErrorKind::Bus)
        }
    }

    #[test]
    fn what_was_agreed_on_stays() {
        let (mut session, mut adapter) = (UsbSession::default(), Adapter::new(NoBus));
        session.plug(true);
        let mut hello = |session: &mut UsbSession, theirs| {
            session.handle(0, &RedirRequest::Hello(Capabilities(theirs)), &mut adapter)
        };
        assert!(!hello(&mut session, 1 << 5).is_empty());
        assert_eq!(session.ids(), RedirIds::Long);
        assert!(hello(&mut session, 0).is_empty());
        assert_eq!(session.ids(), RedirIds::Long);
    }

    #[test]
    fn a_bus_that_fails_stalls_and_data_never_comes_back_from_a_write() {
        let (mut session, mut adapter) = (UsbSession::default(), Adapter::new(NoBus));
        session.plug(true);
        session.handle(0, &RedirRequest::Hello(Capabilities::default()), &mut adapter);
        let setup = UsbSetup { request_type: 0x41, request: 7, index: 0x40, length: 1, value: 0 };
        let control = RedirRequest::Control { endpoint: 0, setup, data: vec![9] };
        let packet = session.handle(3, &control, &mut adapter);
        assert_eq!((packet.len(), packet[12 + 3]), (12 + 10, Status::Stall as u8));
        // An echo request returns data, but this one declares the direction to the device.
        let setup = UsbSetup { request: 0, ..setup };
        let packet =
            session.handle(4, &RedirRequest::Control { endpoint: 0, setup, data: vec![9] }, &mut adapter);
        assert_eq!((packet.len(), packet[12 + 3]), (12 + 10, Status::Success as u8));
    }
}
