//! A minimal MQTT 5 client for measurements: QoS 0 over a plain blocking socket.

use anyhow::{Context, Result, ensure};
use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 0x90;
/// Longer than any answer takes, so that a lost message is an error and not a hang.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection with one subscription.
pub(crate) struct Client {
    socket: BufReader<TcpStream>,
    packet: Vec<u8>,
}

impl Client {
    /// Connects and subscribes.
    ///
    /// # Errors
    /// The broker can't be reached or refuses.
    pub(crate) fn connect(port: u16, id: &str, filter: &str) -> Result<Self> {
        let socket = TcpStream::connect(("127.0.0.1", port)).context("the broker")?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut client = Self { socket: BufReader::new(socket), packet: Vec::new() };
        // Protocol name and version, clean start, 60 s of keep-alive, no properties.
        let header = [b"\x00\x04MQTT\x05\x02\x00\x3c\x00".as_slice(), &text(id)].concat();
        client.write(CONNECT, &[&header])?;
        ensure!(client.read()? == CONNACK && client.packet.get(1) == Some(&0), "the broker refuses {id}");
        // Packet id 1, no properties, QoS 0.
        client.write(SUBSCRIBE, &[b"\x00\x01\x00", &text(filter), b"\x00"])?;
        let subscribed = client.read()? == SUBACK && client.packet.last() == Some(&0);
        ensure!(subscribed, "the broker refuses {filter}");
        Ok(client)
    }

    /// Publishes a message.
    ///
    /// # Errors
    /// The connection is gone.
    pub(crate) fn send(&mut self, topic: &str, payload: &[u8]) -> Result<()> {
        self.write(PUBLISH, &[&text(topic), b"\x00", payload])
    }

    /// The payload of the next message.
    ///
    /// # Errors
    /// The connection is gone, or no message arrives in time.
    pub(crate) fn receive(&mut self) -> Result<&[u8]> {
        while self.read()? & 0xf0 != PUBLISH {}
        let topic = self.packet.get(..2).context("a publish without a topic")?;
        let properties = 2 + usize::from(u16::from_be_bytes([topic[0], topic[1]]));
        // The properties of a verdict are so short that their length is a single byte.
        let length = *self.packet.get(properties).context("a publish without properties")?;
        self.packet.get(properties + 1 + usize::from(length)..).context("a publish without a payload")
    }

    fn write(&mut self, kind: u8, parts: &[&[u8]]) -> Result<()> {
        let body = parts.concat();
        let length = u16::try_from(body.len()).ok().filter(|length| *length < 1 << 14);
        let length = length.context("a message of this bench is short")?;
        let mut packet = vec![kind, length as u8 & 0x7f];
        if length > 0x7f {
            packet[1] |= 0x80;
            packet.push((length >> 7) as u8);
        }
        packet.extend(body);
        self.socket.get_mut().write_all(&packet).context("the broker")
    }

    /// Reads a packet and returns its first byte.
    fn read(&mut self) -> Result<u8> {
        let kind = self.byte()?;
        let (mut length, mut shift) = (0, 0);
        loop {
            let byte = self.byte()?;
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
            ensure!(shift < 28, "a packet's length has more than four bytes");
        }
        self.packet.resize(length, 0);
        self.socket.read_exact(&mut self.packet).context("the broker")?;
        Ok(kind)
    }

    fn byte(&mut self) -> Result<u8> {
        let mut byte = [0];
        self.socket.read_exact(&mut byte).context("the broker")?;
        Ok(byte[0])
    }
}

/// A string in MQTT's encoding.
fn text(text: &str) -> Vec<u8> {
    let length = text.len() as u16;
    [&length.to_be_bytes(), text.as_bytes()].concat()
}
