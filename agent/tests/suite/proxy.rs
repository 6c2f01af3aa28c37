//! A TCP proxy that counts the bytes of MQTT packets. It knows only their length field and nothing else of MQTT.

use dunlin_link::Traffic;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, spawn};

const PUBLISH: u8 = 3;

pub(crate) struct Proxy {
    pub(crate) port: u16,
    counted: Arc<Mutex<Traffic>>,
    thread: JoinHandle<()>,
}

impl Proxy {
    /// Accepts one connection and connects it to `broker`.
    pub(crate) fn start(broker: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let counted = Arc::new(Mutex::new(Traffic::default()));
        let counts = counted.clone();
        let thread = spawn(move || {
            let (device, _) = listener.accept().unwrap();
            let broker = TcpStream::connect(("127.0.0.1", broker)).unwrap();
            device.set_nodelay(true).unwrap();
            broker.set_nodelay(true).unwrap();
            let (from, to) = (device.try_clone().unwrap(), broker.try_clone().unwrap());
            let up = spawn({
                let counts = counts.clone();
                move || {
                    relay(from, to, |publish, bytes| {
                        let mut counts = counts.lock().unwrap();
                        if publish { counts.publish_up += bytes } else { counts.control_up += bytes }
                    })
                }
            });
            relay(broker, device, |publish, bytes| {
                let mut counts = counts.lock().unwrap();
                if publish { counts.publish_down += bytes } else { counts.control_down += bytes }
            });
            up.join().unwrap();
        });
        Self { port, counted, thread }
    }

    /// The counted bytes, once the connection has ended.
    pub(crate) fn counted(self) -> Traffic {
        self.thread.join().unwrap();
        *self.counted.lock().unwrap()
    }
}

/// Forwards packets until the connection ends.
fn relay(mut from: TcpStream, mut to: TcpStream, mut count: impl FnMut(bool, u64)) {
    while let Ok(packet) = packet(&mut from) {
        count(packet[0] >> 4 == PUBLISH, packet.len() as u64);
        if to.write_all(&packet).is_err() {
            break;
        }
    }
    // Ignore the error: the other end may have closed the connection already.
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

/// Reads the next whole packet.
pub(crate) fn packet(from: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut packet = vec![0; 1];
    from.read_exact(&mut packet)?;
    let (mut length, mut shift) = (0, 0);
    loop {
        let mut byte = [0];
        from.read_exact(&mut byte)?;
        packet.push(byte[0]);
        length |= usize::from(byte[0] & 0x7f) << shift;
        shift += 7;
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    let header = packet.len();
    packet.resize(header + length, 0);
    from.read_exact(&mut packet[header..])?;
    Ok(packet)
}
