//! The packets of the usbredir protocol that concern a device without endpoints of its own.
//!
//! All numbers are little-endian. A packet is a header of kind, length and id, followed by a payload. The id has 64
//! bits once both sides announced that in their hello, and 32 bits in the hello itself.
//!
//! Invariant: an impossible packet is an error, and no length in it causes an allocation above [`PAYLOAD_BYTES_MAX`].

use super::adapter::UsbSetup;
use std::fmt;
use std::io::{self, Read};

/// Most bytes of a payload: a control transfer with as much data as its length field allows.
pub const PAYLOAD_BYTES_MAX: usize = CONTROL_BYTES + u16::MAX as usize;
/// Bytes of a hello's text.
const TEXT_BYTES: usize = 64;
/// Bytes before a control transfer's data.
const CONTROL_BYTES: usize = 10;
/// Entries in the tables of interfaces and endpoints.
const PLACES: usize = 32;
/// Index of the control endpoint's IN direction in the table of endpoints.
const ENDPOINT_0_IN: usize = 16;
/// The type of a missing endpoint.
const NO_ENDPOINT: u8 = 255;
/// Our capabilities: versions of devices, sizes of packets, long ids, long bulk transfers.
const OURS: Capabilities = Capabilities(1 << 1 | 1 << 4 | 1 << 5 | 1 << 6);

/// Kinds of packets.
mod kind {
    pub(super) const HELLO: u32 = 0;
    pub(super) const DEVICE_CONNECT: u32 = 1;
    pub(super) const DEVICE_DISCONNECT: u32 = 2;
    pub(super) const RESET: u32 = 3;
    pub(super) const INTERFACE_INFO: u32 = 4;
    pub(super) const ENDPOINT_INFO: u32 = 5;
    pub(super) const SET_CONFIGURATION: u32 = 6;
    pub(super) const GET_CONFIGURATION: u32 = 7;
    pub(super) const CONFIGURATION_STATUS: u32 = 8;
    pub(super) const SET_ALTERNATE: u32 = 9;
    pub(super) const GET_ALTERNATE: u32 = 10;
    pub(super) const ALTERNATE_STATUS: u32 = 11;
    pub(super) const CONTROL: u32 = 100;
}

/// The capabilities of a side, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(pub u32);

/// A packet from the virtual machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedirRequest {
    /// Hello, with its capabilities.
    Hello(Capabilities),
    /// The bus was reset.
    Reset,
    /// Set the configuration.
    SetConfiguration(u8),
    /// Get the configuration.
    GetConfiguration,
    /// Set an interface's alternate setting.
    SetAlternate {
        /// The interface.
        interface: u8,
        /// The setting.
        alternate: u8,
    },
    /// Get an interface's alternate setting.
    GetAlternate {
        /// The interface.
        interface: u8,
    },
    /// A control transfer.
    Control {
        /// The endpoint, with its direction.
        endpoint: u8,
        /// The set-up packet.
        setup: UsbSetup,
        /// Data to the device.
        data: Vec<u8>,
    },
    /// A kind that a device without endpoints does not answer.
    Other(u32),
}

/// A packet to the virtual machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedirAnswer {
    /// Hello, with our capabilities.
    Hello,
    /// The endpoints: only the control endpoint.
    EndpointInfo {
        /// Its largest packet, bytes.
        packet_bytes: u8,
    },
    /// The interfaces: one.
    InterfaceInfo {
        /// Its class.
        class: u8,
    },
    /// A device was plugged in.
    Connect {
        /// Its class.
        class: u8,
        /// Its vendor.
        vendor: u16,
        /// Its product.
        product: u16,
        /// Its version, in decimal places.
        version: u16,
    },
    /// The device was unplugged.
    Disconnect,
    /// The configuration in use.
    Configuration {
        /// The result.
        status: Status,
        /// The configuration.
        configuration: u8,
    },
    /// The alternate setting in use.
    Alternate {
        /// The result.
        status: Status,
        /// The interface.
        interface: u8,
        /// The setting.
        alternate: u8,
    },
    /// The end of a control transfer.
    Control {
        /// The endpoint, as in the request.
        endpoint: u8,
        /// The set-up packet, as in the request.
        setup: UsbSetup,
        /// The result.
        status: Status,
        /// Data to the host.
        data: Vec<u8>,
    },
}

/// The result of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// The request was carried out.
    Success = 0,
    /// The request is invalid.
    Invalid = 2,
    /// The device refuses.
    Stall = 4,
}

/// The length of ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RedirIds {
    /// 32 bits.
    #[default]
    Short,
    /// 64 bits.
    Long,
}

/// A malformed packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The payload is longer than allowed.
    Large {
        /// Its kind.
        kind: u32,
        /// Declared bytes of the payload.
        bytes: u32,
    },
    /// The payload's length is wrong for its kind.
    Length {
        /// Its kind.
        kind: u32,
        /// Bytes of the payload.
        bytes: usize,
    },
}

impl std::error::Error for Malformed {}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Large { kind, bytes } => {
                write!(f, "packet of kind {kind} says to have {bytes} bytes, above {PAYLOAD_BYTES_MAX}")
            }
            Self::Length { kind, bytes } => {
                write!(f, "packet of kind {kind} with {bytes} bytes is not as long as it must be")
            }
        }
    }
}

impl Capabilities {
    /// The capabilities that both sides have.
    pub fn shared(self) -> Self {
        Self(self.0 & OURS.0)
    }

    /// The length of ids when these capabilities are shared.
    pub fn ids(self) -> RedirIds {
        if self.0 & 1 << 5 != 0 { RedirIds::Long } else { RedirIds::Short }
    }

    fn has_versions(self) -> bool {
        self.0 & 1 << 1 != 0
    }

    fn has_packet_sizes(self) -> bool {
        self.0 & 1 << 4 != 0
    }
}

/// Reads the next packet and its id; `None` at the end of the stream between two packets.
///
/// # Errors
/// The stream failed or ended in a packet, or the packet is [`Malformed`] (as `InvalidData`).
pub fn read(stream: &mut impl Read, ids: RedirIds) -> io::Result<Option<(u64, RedirRequest)>> {
    let mut header = [0; 16];
    let header = &mut header[..if ids == RedirIds::Long { 16 } else { 12 }];
    if stream.read(&mut header[..1])? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut header[1..])?;
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let (kind, bytes) = (word(0), word(4));
    let id = u64::from(word(8)) | if ids == RedirIds::Long { u64::from(word(12)) << 32 } else { 0 };
    let length = usize::try_from(bytes).unwrap_or(usize::MAX);
    if length > PAYLOAD_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, Malformed::Large { kind, bytes }));
    }
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload)?;
    let request = RedirRequest::parse(kind, &payload)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(Some((id, request)))
}

impl RedirRequest {
    /// Parses a packet's payload.
    ///
    /// # Errors
    /// Its length is wrong for its kind.
    pub fn parse(kind: u32, payload: &[u8]) -> Result<Self, Malformed> {
        let wrong = Malformed::Length { kind, bytes: payload.len() };
        match (kind, payload) {
            (kind::HELLO, _) => hello(payload).ok_or(wrong),
            (kind::RESET, []) => Ok(Self::Reset),
            (kind::SET_CONFIGURATION, [configuration]) => Ok(Self::SetConfiguration(*configuration)),
            (kind::GET_CONFIGURATION, []) => Ok(Self::GetConfiguration),
            (kind::SET_ALTERNATE, [interface, alternate]) => {
                Ok(Self::SetAlternate { interface: *interface, alternate: *alternate })
            }
            (kind::GET_ALTERNATE, [interface]) => Ok(Self::GetAlternate { interface: *interface }),
            (kind::CONTROL, _) => control(payload).ok_or(wrong),
            (
                kind::RESET
                | kind::SET_CONFIGURATION
                | kind::GET_CONFIGURATION
                | kind::SET_ALTERNATE
                | kind::GET_ALTERNATE,
                _,
            ) => Err(wrong),
            _ => Ok(Self::Other(kind)),
        }
    }
}

/// Parses a hello: a text, and any number of words of capabilities, of which we know only the first.
fn hello(payload: &[u8]) -> Option<RedirRequest> {
    let words = payload.get(TEXT_BYTES..).filter(|words| words.len() % 4 == 0)?;
    let first = words.first_chunk().map_or(0, |word| u32::from_le_bytes(*word));
    Some(RedirRequest::Hello(Capabilities(first)))
}

/// Parses a control transfer, whose data may go in one direction only.
fn control(payload: &[u8]) -> Option<RedirRequest> {
    let (head, data) = payload.split_at_checked(CONTROL_BYTES)?;
    let half = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
    let setup =
        UsbSetup { request: head[1], request_type: head[2], value: half(4), index: half(6), length: half(8) };
    let expected = if setup.is_to_host() { 0 } else { usize::from(setup.length) };
    (data.len() == expected).then(|| RedirRequest::Control { endpoint: head[0], setup, data: data.into() })
}

impl RedirAnswer {
    /// Encodes the packet for two sides that share `capabilities`.
    pub fn packet(&self, id: u64, capabilities: Capabilities) -> Vec<u8> {
        let (kind, payload) = self.payload(capabilities);
        let length = u32::try_from(payload.len()).expect("our payloads are short");
        // A hello is sent before capabilities are agreed on.
        let ids = if *self == Self::Hello { RedirIds::Short } else { capabilities.ids() };
        let id = id.to_le_bytes();
        let id = if ids == RedirIds::Long { &id[..] } else { &id[..4] };
        [&kind.to_le_bytes()[..], &length.to_le_bytes(), id, &payload].concat()
    }

    fn payload(&self, capabilities: Capabilities) -> (u32, Vec<u8>) {
        match self {
            Self::Hello => (kind::HELLO, hello_payload()),
            Self::EndpointInfo { packet_bytes } => {
                (kind::ENDPOINT_INFO, endpoints(*packet_bytes, capabilities))
            }
            Self::InterfaceInfo { class } => {
                let mut tables = [0; 4 * PLACES];
                tables[PLACES] = *class;
                (kind::INTERFACE_INFO, [&1_u32.to_le_bytes()[..], &tables].concat())
            }
            Self::Connect { class, vendor, product, version } => {
                // Full speed; subclass and protocol are 0.
                let (vendor, product) = (vendor.to_le_bytes(), product.to_le_bytes());
                let mut payload = [&[1, *class, 0, 0][..], &vendor, &product].concat();
                if capabilities.has_versions() {
                    payload.extend(version.to_le_bytes());
                }
                (kind::DEVICE_CONNECT, payload)
            }
            Self::Disconnect => (kind::DEVICE_DISCONNECT, Vec::new()),
            Self::Configuration { status, configuration } => {
                (kind::CONFIGURATION_STATUS, vec![*status as u8, *configuration])
            }
            Self::Alternate { status, interface, alternate } => {
                (kind::ALTERNATE_STATUS, vec![*status as u8, *interface, *alternate])
            }
            Self::Control { endpoint, setup, status, data } => {
                (kind::CONTROL, control_payload(*endpoint, setup, *status, data))
            }
        }
    }
}

fn hello_payload() -> Vec<u8> {
    let mut payload = vec![0; TEXT_BYTES];
    let text = concat!("dunlin ", env!("CARGO_PKG_VERSION"));
    payload[..text.len()].copy_from_slice(text.as_bytes());
    payload.extend(OURS.0.to_le_bytes());
    payload
}

/// Types, intervals and interfaces of all endpoints, and their packet sizes if both sides have that capability.
fn endpoints(packet_bytes: u8, capabilities: Capabilities) -> Vec<u8> {
    let both = [0, ENDPOINT_0_IN];
    let mut payload = vec![0; 3 * PLACES];
    payload[..PLACES].fill(NO_ENDPOINT);
    both.into_iter().for_each(|place| payload[place] = 0);
    if capabilities.has_packet_sizes() {
        let mut sizes = [0; 2 * PLACES];
        both.into_iter().for_each(|place| sizes[2 * place] = packet_bytes);
        payload.extend(sizes);
    }
    payload
}

/// The payload of a control packet. Its length field is that of the data for a transfer to the host, and that of the
/// request for one to the device.
fn control_payload(endpoint: u8, setup: &UsbSetup, status: Status, data: &[u8]) -> Vec<u8> {
    let UsbSetup { request_type, request, value, index, length } = *setup;
    let came = u16::try_from(data.len()).expect("an answer is cut to what was asked");
    let length = if setup.is_to_host() { came } else { length };
    let halves: Vec<u8> = [value, index, length].into_iter().flat_map(u16::to_le_bytes).collect();
    [&[endpoint, request, request_type, status as u8][..], &halves, data].concat()
}

#[cfg(test)]
mod tests;
