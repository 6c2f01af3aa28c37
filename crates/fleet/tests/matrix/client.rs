//! An MQTT 5 client over TLS that shows what the broker answers: reasons, and every message that arrives.

use mqtt5_protocol::packet::connect::ConnectPacket;
use mqtt5_protocol::packet::puback::PubAckPacket;
use mqtt5_protocol::packet::publish::PublishPacket;
use mqtt5_protocol::packet::subscribe::SubscribePacket;
use mqtt5_protocol::packet::{FixedHeader, MqttPacket, Packet};
use mqtt5_protocol::{ConnectOptions, WillMessage};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, IpAddr, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A broker that answers nothing for so long is stuck: the test fails.
const STUCK: Duration = Duration::from_secs(60);
/// The quality of service of all messages and filters: 1, so that order is kept and every publish is answered.
const SERVICE: u8 = 1;

/// The TLS of a client with the files in a folder, for a fleet's authority.
pub(crate) fn tls(authority: &Path, identity: Option<(&Path, &Path)>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
    let builder = builder.with_root_certificates(roots);
    Arc::new(match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap()).unwrap()
        }
    })
}

/// A message that arrived: its topic and its payload.
pub(crate) type Arrival = (String, String);

/// A connection. Dropped, it ends without a goodbye, so that its Will counts.
pub(crate) struct Client {
    stream: StreamOwned<ClientConnection, TcpStream>,
    packet_id: u16,
    /// Everything that arrived.
    pub(crate) arrived: Vec<Arrival>,
}

impl Client {
    /// Connects; the error says what the broker did instead.
    pub(crate) fn connect(
        tls: &Arc<ClientConfig>,
        port: u16,
        id: &str,
        will: Option<Arrival>,
    ) -> io::Result<Self> {
        let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(STUCK))?;
        let name = ServerName::IpAddress(IpAddr::from(std::net::IpAddr::from(Ipv4Addr::LOCALHOST)));
        let connection = ClientConnection::new(Arc::clone(tls), name).map_err(io::Error::other)?;
        let mut client =
            Self { stream: StreamOwned::new(connection, socket), packet_id: 0, arrived: Vec::new() };
        let mut options = ConnectOptions::new(id);
        options.keep_alive = Duration::ZERO;
        options.will = will.map(|(topic, payload)| WillMessage::new(topic, payload).with_qos(SERVICE.into()));
        client.send(&ConnectPacket::new(options))?;
        match client.packet()? {
            Packet::ConnAck(answer) if u8::from(answer.reason_code) == 0 => Ok(client),
            other => Err(io::Error::other(format!("{other:?}"))),
        }
    }

    /// Subscribes; the broker grants whatever is asked.
    pub(crate) fn subscribe(&mut self, filters: &[String]) {
        let id = self.next_id();
        let packet = SubscribePacket::new(id);
        let packet = filters.iter().fold(packet, |packet, filter| packet.add_filter(filter, SERVICE.into()));
        self.send(&packet).unwrap();
        loop {
            match self.packet().unwrap() {
                Packet::SubAck(answer) if answer.packet_id == id => return,
                other => self.take(other),
            }
        }
    }

    /// Publishes; returns the reason in the broker's answer.
    pub(crate) fn publish(&mut self, topic: &str, payload: &str) -> u8 {
        let id = self.next_id();
        let packet = PublishPacket::new(topic, payload.to_owned(), SERVICE.into()).with_packet_id(id);
        self.send(&packet).unwrap();
        loop {
            match self.packet().unwrap() {
                Packet::PubAck(answer) if answer.packet_id == id => return answer.reason_code.into(),
                other => self.take(other),
            }
        }
    }

    /// Receives until a message with this payload has come.
    pub(crate) fn receive_until(&mut self, payload: &str) {
        while !self.arrived.iter().any(|(_, arrived)| arrived == payload) {
            let packet = self.packet().unwrap();
            self.take(packet);
        }
    }

    fn take(&mut self, packet: Packet) {
        let Packet::Publish(publish) = packet else { panic!("an unexpected {packet:?}") };
        if let Some(id) = publish.packet_id {
            self.send(&PubAckPacket::new(id)).unwrap();
        }
        let payload = String::from_utf8(publish.payload.to_vec()).unwrap();
        self.arrived.push((publish.topic_name, payload));
    }

    fn next_id(&mut self) -> u16 {
        self.packet_id = self.packet_id % u16::MAX + 1;
        self.packet_id
    }

    fn send(&mut self, packet: &impl MqttPacket) -> io::Result<()> {
        let mut bytes = Vec::new();
        packet.encode(&mut bytes).map_err(io::Error::other)?;
        self.stream.write_all(&bytes)?;
        self.stream.flush()
    }

    fn packet(&mut self) -> io::Result<Packet> {
        // The first byte, then the length, of which every byte but the last has its high bit set.
        let mut head = vec![self.byte()?];
        loop {
            head.push(self.byte()?);
            if head.last().is_some_and(|byte| byte & 0x80 == 0) {
                break;
            }
        }
        let header = FixedHeader::decode(&mut head.as_slice()).map_err(io::Error::other)?;
        let mut body = vec![0; header.remaining_length as usize];
        self.stream.read_exact(&mut body)?;
        Packet::decode_from_body(header.packet_type, &header, &mut body.as_slice()).map_err(io::Error::other)
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.stream.read_exact(&mut byte)?;
        Ok(byte[0])
    }
}
