//! An emulation of the USB I2C adapter `i2c-tiny-usb`: control transfers in, I2C transactions out.
//!
//! Invariant: it knows neither the cable's protocol nor any clock but the bus's own.

use embedded_hal::i2c::{Error as _, ErrorKind, I2c, Operation};

/// USB vendor id by which Linux's driver `i2c-tiny-usb` finds it.
pub const VENDOR: u16 = 0x0403;
/// USB product id by which Linux's driver `i2c-tiny-usb` finds it.
pub const PRODUCT: u16 = 0xc631;
/// Version of the device, in binary-coded decimal.
pub const VERSION: u16 = 0x0205;
/// Largest packet of the control endpoint, bytes.
pub const PACKET_BYTES: u8 = 8;
/// The class of a vendor's own devices.
pub const CLASS_VENDOR: u8 = 0xff;

/// The bus's functions as Linux's flags: plain I2C, and the parts of SMBus that are built on it.
const FUNCTIONS: u32 = 0x0eff_0001;
/// Bits of a request type: direction to the host, and the owner of the request.
const TO_HOST: u8 = 0x80;
const OWNER: u8 = 0x60;
const STANDARD: u8 = 0x00;
const VENDORS: u8 = 0x40;
/// Standard requests.
const GET_STATUS: u8 = 0;
const GET_DESCRIPTOR: u8 = 6;
/// The vendor's requests. Requests for the bus have a bit of their own, with further bits for the first and the last
/// message of a transaction.
const ECHO: u8 = 0;
const GET_FUNCTIONS: u8 = 1;
const SET_DELAY: u8 = 2;
const GET_BUS_STATUS: u8 = 3;
const BUS: u8 = 4;
const BUS_LAST: u8 = 7;

/// The status of the last transaction, which the driver requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum BusStatus {
    /// There was no transaction yet.
    Idle = 0,
    /// A chip acknowledged.
    Acknowledged = 1,
    /// No chip acknowledged.
    NotAcknowledged = 2,
}

/// The first eight bytes of a control transfer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsbSetup {
    /// Direction, owner and recipient.
    pub request_type: u8,
    /// The request.
    pub request: u8,
    /// A value whose meaning depends on the request.
    pub value: u16,
    /// An index whose meaning depends on the request; for I2C transactions it is the address.
    pub index: u16,
    /// Bytes of data, in either direction.
    pub length: u16,
}

/// The device does not support the request, or it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointStall;

/// The adapter with its bus.
#[derive(Debug)]
pub struct Adapter<I> {
    i2c: I,
    status: BusStatus,
}

impl UsbSetup {
    /// True when data goes to the host.
    pub fn is_to_host(&self) -> bool {
        self.request_type & TO_HOST != 0
    }
}

impl<I: I2c> Adapter<I> {
    /// An adapter after power-up.
    pub fn new(i2c: I) -> Self {
        Self { i2c, status: BusStatus::Idle }
    }

    /// Carries out a control transfer; returns at most as many bytes as it requests.
    ///
    /// # Errors
    /// The request is unknown, or the bus failed for another reason than a missing acknowledgement.
    pub fn control(&mut self, setup: &UsbSetup, data: &[u8]) -> Result<Vec<u8>, EndpointStall> {
        let mut answer = match setup.request_type & OWNER {
            STANDARD => standard(setup)?,
            VENDORS => self.vendor(setup, data)?,
            _ => return Err(EndpointStall),
        };
        answer.truncate(setup.length.into());
        Ok(answer)
    }

    fn vendor(&mut self, setup: &UsbSetup, data: &[u8]) -> Result<Vec<u8>, EndpointStall> {
        match setup.request {
            ECHO => Ok(setup.value.to_le_bytes().into()),
            GET_FUNCTIONS => Ok(FUNCTIONS.to_le_bytes().into()),
            // The bus is simulated, so the delay of its clock has no effect.
            SET_DELAY => Ok(Vec::new()),
            GET_BUS_STATUS => Ok(vec![self.status as u8]),
            BUS..=BUS_LAST => self.transfer(setup, data),
            _ => Err(EndpointStall),
        }
    }

    /// Carries out one message on the bus. A missing acknowledgement is not an error of the transfer, since the driver
    /// requests the status next.
    fn transfer(&mut self, setup: &UsbSetup, data: &[u8]) -> Result<Vec<u8>, EndpointStall> {
        let mut read = vec![0; if setup.is_to_host() { setup.length.into() } else { 0 }];
        let operation = if setup.is_to_host() { Operation::Read(&mut read) } else { Operation::Write(data) };
        let Ok(address) = u8::try_from(setup.index) else {
            self.status = BusStatus::NotAcknowledged;
            return Ok(read);
        };
        self.status = match self.i2c.transaction(address, &mut [operation]) {
            Ok(()) => BusStatus::Acknowledged,
            Err(error) if matches!(error.kind(), ErrorKind::NoAcknowledge(_)) => BusStatus::NotAcknowledged,
            Err(_) => {
                self.status = BusStatus::Idle;
                return Err(EndpointStall);
            }
        };
        Ok(read)
    }
}

fn standard(setup: &UsbSetup) -> Result<Vec<u8>, EndpointStall> {
    match setup.request {
        GET_STATUS if setup.is_to_host() => Ok(vec![0, 0]),
        GET_DESCRIPTOR if setup.is_to_host() => {
            let [kind, index] = setup.value.to_be_bytes();
            descriptor(kind, index).ok_or(EndpointStall)
        }
        _ => Err(EndpointStall),
    }
}

/// A descriptor (USB 2.0, 9.6): of the device, its one configuration without endpoints, or a string.
fn descriptor(kind: u8, index: u8) -> Option<Vec<u8>> {
    let [vendor, product, version] = [VENDOR, PRODUCT, VERSION].map(u16::to_le_bytes);
    match (kind, index) {
        (1, 0) => Some(
            [
                &[18, 1, 0x10, 0x01, CLASS_VENDOR, 0, 0, PACKET_BYTES][..],
                &vendor,
                &product,
                &version,
                &[1, 2, 0, 1],
            ]
            .concat(),
        ),
        // 50 means 100 mA from the bus, in steps of 2 mA.
        (2, 0) => Some([[9, 2, 18, 0, 1, 1, 0, 0x80, 50], [9, 4, 0, 0, 0, CLASS_VENDOR, 0, 0, 0]].concat()),
        // The only language: English (United States).
        (3, 0) => Some(vec![4, 3, 0x09, 0x04]),
        (3, 1) => Some(string("Dunlin")),
        (3, 2) => Some(string("simulated INA219")),
        _ => None,
    }
}

fn string(text: &str) -> Vec<u8> {
    let units: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let length = u8::try_from(units.len() + 2).expect("our strings are short");
    [&[length, 3], units.as_slice()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use embedded_hal::i2c::{ErrorType, NoAcknowledgeSource};

    /// A bus on which 0x40 answers with the last byte written to it, and 0x41 fails with another error.
    #[derive(Default)]
    struct Bus(Vec<u8>);

    impl ErrorType for Bus {
        type Error = ErrorKind;
    }

    impl I2c for Bus {
        fn transaction(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), Self::Error> {
            match address {
                0x40 => {}
                0x41 => return Err(ErrorKind::ArbitrationLoss),
                _ => return Err(ErrorKind::NoAcknowledge(NoAcknowledgeSource::Address)),
            }
            for operation in operations {
                match operation {
                    Operation::Write(bytes) => self.0 = bytes.to_vec(),
                    Operation::Read(bytes) => bytes.fill(self.0.last().copied().unwrap_or(0)),
                }
            }
            Ok(())
        }
    }

    fn to_host(request: u8, index: u16, length: u16) -> UsbSetup {
        UsbSetup { request_type: 0xc1, request, index, length, ..UsbSetup::default() }
    }

    fn to_device(request: u8, index: u16, length: u16) -> UsbSetup {
        UsbSetup { request_type: 0x41, request, index, length, ..UsbSetup::default() }
    }

    #[test]
    fn a_register_is_read_as_the_driver_does() {
        let mut adapter = Adapter::new(Bus::default());
        assert_eq!(adapter.control(&to_host(3, 0, 1), &[]), Ok(vec![0]));
        assert_eq!(adapter.control(&to_device(5, 0x40, 1), &[7]), Ok(vec![]));
        assert_eq!(adapter.control(&to_host(3, 0, 1), &[]), Ok(vec![1]));
        assert_eq!(adapter.control(&to_host(6, 0x40, 2), &[]), Ok(vec![7, 7]));
        assert_eq!(adapter.control(&to_host(3, 0, 1), &[]), Ok(vec![1]));
    }

    #[test]
    fn silence_is_a_status_and_a_held_bus_a_stall() {
        let mut adapter = Adapter::new(Bus::default());
        for address in [0x42, 0x140, 0xffff] {
            assert_eq!(adapter.control(&to_device(7, address, 1), &[0]), Ok(vec![]));
            assert_eq!(adapter.control(&to_host(3, 0, 1), &[]), Ok(vec![2]), "{address:#x}");
            assert_eq!(adapter.control(&to_host(7, address, 2), &[]), Ok(vec![0, 0]));
            assert_eq!(adapter.control(&to_host(3, 0, 1), &[]), Ok(vec![2]), "{address:#x}");
        }
        assert_eq!(adapter.control(&to_device(7, 0x41, 1), &[0]), Err(EndpointStall));
        assert_eq!(adapter.control(&to_host(3, 0, 1), &[]), Ok(vec![0]));
    }

    #[test]
    fn functions_and_echo() {
        let mut adapter = Adapter::new(Bus::default());
        assert_eq!(adapter.control(&to_host(1, 0, 4), &[]), Ok(vec![0x01, 0x00, 0xff, 0x0e]));
        let echo = UsbSetup { value: 0xbeef, ..to_host(0, 0, 2) };
        assert_eq!(adapter.control(&echo, &[]), Ok(vec![0xef, 0xbe]));
        assert_eq!(adapter.control(&to_device(2, 0, 0), &[]), Ok(vec![]));
        assert_eq!(adapter.control(&to_host(8, 0, 4), &[]), Err(EndpointStall));
    }

    #[test]
    fn descriptors_are_as_long_as_they_say_and_no_longer_than_asked() {
        let mut adapter = Adapter::new(Bus::default());
        let mut get = |value, length| {
            let setup = UsbSetup { request_type: 0x80, request: 6, value, index: 0, length };
            adapter.control(&setup, &[])
        };
        let device = get(0x0100, 64).unwrap();
        assert_eq!((device.len(), device[0]), (18, 18));
        assert_eq!(&device[8..12], [0x03, 0x04, 0x31, 0xc6]);
        assert_eq!(get(0x0100, 8).unwrap(), device[..8]);
        let configuration = get(0x0200, 255).unwrap();
        assert_eq!((configuration.len(), configuration[2], configuration[4]), (18, 18, 1));
        for index in 0..3 {
            let text = get(0x0300 + index, 255).unwrap();
            assert_eq!((text.len(), text[1]), (usize::from(text[0]), 3));
        }
        assert_eq!(get(0x0303, 255), Err(EndpointStall));
        assert_eq!(get(0x0600, 10), Err(EndpointStall));
        // A request to the device with an unknown owner.
        let setup = UsbSetup { request_type: 0x00, request: 6, value: 0x0100, index: 0, length: 18 };
        assert_eq!(adapter.control(&setup, &[]), Err(EndpointStall));
        assert_eq!(adapter.control(&UsbSetup { request_type: 0xa1, ..setup }, &[]), Err(EndpointStall));
    }
}
