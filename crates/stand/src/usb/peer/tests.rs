use super::*;
use crate::usb::dial::Dial;
use dunlin_power::clock::Clock;
use dunlin_power::simulated::chip::{Chip, Troubles, Wiring};
use dunlin_power::simulated::waveform::StepWaveform;
use proptest::prelude::*;
use std::io::Read;
use std::net::Shutdown;

/// A time limit that only a hang reaches.
const HANG: std::time::Duration = std::time::Duration::from_secs(60);
/// Bytes of a hello.
const HELLO_BYTES: usize = 12 + 68;
/// Bytes of the packets that announce a device to a side with all capabilities.
const PRESENTED_BYTES: usize = (16 + 160) + (16 + 132) + (16 + 10);

/// A virtual machine's end of the cable.
struct Guest {
    stream: UnixStream,
    id: u64,
}

impl Guest {
    fn connect(peer: &Peer) -> Self {
        let mut guest = Self { stream: UnixStream::connect(peer.path()).unwrap(), id: 0 };
        guest.stream.set_read_timeout(Some(HANG)).unwrap();
        guest.read(HELLO_BYTES);
        let mut hello = [[0; 4], [68, 0, 0, 0], [0; 4]].concat();
        hello.extend([0; 64]);
        hello.extend([0x72, 0, 0, 0]);
        guest.stream.write_all(&hello).unwrap();
        guest
    }

    fn read(&mut self, bytes: usize) -> Vec<u8> {
        let mut packet = vec![0; bytes];
        self.stream.read_exact(&mut packet).unwrap();
        packet
    }

    fn send(&mut self, kind: u32, payload: &[u8]) {
        self.id += 1;
        let length = u32::try_from(payload.len()).unwrap();
        let packet =
            [&kind.to_le_bytes()[..], &length.to_le_bytes(), &self.id.to_le_bytes(), payload].concat();
        self.stream.write_all(&packet).unwrap();
    }

    /// Status and data of the next answer to this guest's last request.
    fn answer(&mut self) -> Vec<u8> {
        let header = self.read(16);
        assert_eq!(header[8..], self.id.to_le_bytes());
        self.read(header[4].into())
    }

    fn control(&mut self, to_host: bool, request: u8, address: u8, data: &[u8]) -> (u8, Vec<u8>) {
        let (endpoint, kind) = if to_host { (0x80, 0xc1) } else { (0, 0x41) };
        let length = u8::try_from(data.len()).unwrap();
        let mut payload = vec![endpoint, request, kind, 0, 0, 0, address, 0, length, 0];
        if !to_host {
            payload.extend(data);
        }
        self.send(100, &payload);
        let answer = self.answer();
        (answer[3], answer[10..].into())
    }

    /// Reads a register of the chip as the guest's driver does; `None` if no chip acknowledges.
    fn register(&mut self, register: u8) -> Option<u16> {
        assert_eq!(self.control(false, 5, 0x40, &[register]).0, 0);
        if self.control(true, 3, 0, &[0]).1 != [1] {
            return None;
        }
        let (status, read) = self.control(true, 6, 0x40, &[0, 0]);
        assert_eq!(status, 0);
        Some(u16::from_be_bytes([read[0], read[1]]))
    }

    /// True when the other side closed the connection.
    fn is_over(&mut self) -> bool {
        let read = self.stream.read(&mut [0; 64]);
        read.map_or_else(|error| error.kind() == io::ErrorKind::ConnectionReset, |bytes| bytes == 0)
    }
}

fn peer(dir: &tempfile::TempDir, address: u8) -> Peer {
    let wiring = Wiring { address, bus_hz: 400_000, ..Wiring::default() };
    let dial = Dial::new(StepWaveform::constant(4.0));
    let chip = Chip::new(dial, Clock::start(), wiring, Troubles::default());
    Peer::listen(&dir.path().join("usb"), chip).unwrap()
}

#[test]
fn registers_are_read_over_the_cable() {
    let dir = tempfile::tempdir().unwrap();
    let peer = peer(&dir, 0x40);
    peer.plug(true);
    let mut guest = Guest::connect(&peer);
    guest.read(PRESENTED_BYTES);
    assert_eq!(guest.register(0), Some(0x399f));
    assert_eq!(guest.control(false, 7, 0x40, &[5, 0x10, 0x01]), (0, vec![]));
    assert_eq!(guest.register(5), Some(0x1000));
    assert_eq!(guest.control(true, 9, 0, &[0]), (4, vec![]));
    guest.send(6, &[1]);
    assert_eq!(guest.answer(), [0, 1]);
    guest.send(6, &[2]);
    assert_eq!(guest.answer(), [2, 1]);
    guest.send(9, &[0, 0]);
    assert_eq!(guest.answer(), [0, 0, 0]);
    guest.send(10, &[1]);
    assert_eq!(guest.answer(), [2, 1, 0]);
    let counted = peer.counted();
    assert_eq!((counted.connections, counted.malformed), (1, 0));
    assert_eq!(counted.requests, 1 + 2 * 3 + 2 + 4);
}

#[test]
fn where_there_is_no_chip_nobody_acknowledges() {
    let dir = tempfile::tempdir().unwrap();
    let peer = peer(&dir, 0x41);
    peer.plug(true);
    let mut guest = Guest::connect(&peer);
    guest.read(PRESENTED_BYTES);
    assert_eq!(guest.register(0), None);
}

#[test]
fn a_device_is_plugged_unplugged_and_plugged_again() {
    let dir = tempfile::tempdir().unwrap();
    let peer = peer(&dir, 0x40);
    let mut guest = Guest::connect(&peer);
    // Requests to an unplugged device get no answer, so the next packet announces the device.
    guest.send(7, &[]);
    while peer.counted().requests < 2 {
        thread::yield_now();
    }
    peer.plug(true);
    guest.read(PRESENTED_BYTES);
    assert_eq!(guest.register(0), Some(0x399f));
    peer.plug(true);
    peer.plug(false);
    assert_eq!(guest.read(16)[..4], [2, 0, 0, 0]);
    peer.plug(true);
    guest.read(PRESENTED_BYTES);
    assert_eq!(guest.register(0), Some(0x399f));
}

#[test]
fn the_next_machine_finds_the_device_after_a_hostile_one() {
    let dir = tempfile::tempdir().unwrap();
    let peer = peer(&dir, 0x40);
    peer.plug(true);
    for bytes in [&[0xff; 64][..], &[0; 5], &[100, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]] {
        let mut hostile = UnixStream::connect(peer.path()).unwrap();
        hostile.write_all(bytes).unwrap();
        hostile.shutdown(Shutdown::Write).unwrap();
        let mut all = Vec::new();
        // Ignore the error: a connection closed with unread bytes may be reset.
        let _ = hostile.read_to_end(&mut all);
    }
    let mut guest = Guest::connect(&peer);
    guest.read(PRESENTED_BYTES);
    assert_eq!(guest.register(0), Some(0x399f));
    assert_eq!(peer.counted().malformed, 2);
    guest.send(6, &[]);
    assert!(guest.is_over());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_requests_make_a_session_panic(
        packets in prop::collection::vec(
            (prop_oneof![Just(0_u32), 3..12_u32, Just(100)], prop::collection::vec(any::<u8>(), 0..80)), 0..20,
        ),
    ) {
        let mut session = UsbSession::default();
        let mut adapter = Adapter::new(silent::Silent);
        session.plug(true);
        for (kind, payload) in packets {
            if let Ok(request) = redir::RedirRequest::parse(kind, &payload) {
                let bytes = session.handle(1, &request, &mut adapter);
                prop_assert!(bytes.len() <= redir::PAYLOAD_BYTES_MAX + 400);
            }
        }
    }
}

mod silent {
    use embedded_hal::i2c::{ErrorKind, ErrorType, I2c, Operation};

    /// A bus on which every address acknowledges and reads return nothing.
    pub(super) struct Silent;

    impl ErrorType for Silent {
        type Error = ErrorKind;
    }

    impl I2c for Silent {
        fn transaction(&mut self, _: u8, _: &mut [Operation<'_>]) -> Result<(), Self::Error> {
            Ok(())
        }
    }
}
