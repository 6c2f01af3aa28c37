//! The socket for the virtual machine, and the thread that serves it.
//!
//! Invariant: it serves one virtual machine at a time. However its connection ends, the next machine finds the device
//! unchanged.

use super::adapter::Adapter;
use super::redir;
use super::session::UsbSession;
use anyhow::{Context, Result};
use embedded_hal::i2c::I2c;
use std::fs;
use std::io::{self, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// A USB device behind a Unix socket. Its thread ends with the process; the file is removed when this is dropped.
#[derive(Debug)]
pub struct Peer {
    path: PathBuf,
    cable: Arc<Mutex<Cable>>,
}

/// State shared by the socket's thread and the owner.
#[derive(Debug, Default)]
struct Cable {
    is_plugged: bool,
    /// The connected virtual machine.
    connected: Option<(UnixStream, UsbSession)>,
    counted: CableCounters,
}

/// Counts of the events on the cable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CableCounters {
    /// Virtual machines that connected.
    pub connections: u64,
    /// Requests received, including transfers.
    pub requests: u64,
    /// Connections that ended with a malformed packet.
    pub malformed: u64,
}

impl Peer {
    /// Listens at `path`, replacing a socket left there, with an unplugged device on bus `i2c`.
    ///
    /// # Errors
    /// The socket can't be created.
    pub fn listen(path: &Path, i2c: impl I2c + Send + 'static) -> Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| path.display().to_string());
            }
            _ => {}
        }
        let listener = UnixListener::bind(path).with_context(|| path.display().to_string())?;
        let cable = Arc::new(Mutex::new(Cable::default()));
        let shared = Arc::clone(&cable);
        let mut adapter = Adapter::new(i2c);
        let serve = move || {
            for stream in listener.incoming().flatten() {
                // The next connection is served whatever ended this one.
                let ended = serve(&stream, &shared, &mut adapter);
                lock(&shared).hang_up(&ended);
            }
        };
        thread::Builder::new().name("usb".into()).spawn(serve).context("no thread for the USB device")?;
        Ok(Self { path: path.into(), cable })
    }

    /// Plugs the device in or unplugs it, for the present and later virtual machines.
    pub fn plug(&self, plugged: bool) {
        lock(&self.cable).plug(plugged);
    }

    /// The counts so far.
    pub fn counted(&self) -> CableCounters {
        lock(&self.cable).counted
    }

    /// The socket's path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Ignore the error: the file may be removed already.
        let _ = fs::remove_file(&self.path);
    }
}

impl Cable {
    fn plug(&mut self, plugged: bool) {
        self.is_plugged = plugged;
        if let Some((stream, session)) = &mut self.connected {
            let packets = session.plug(plugged);
            // Ignore the error: the reading thread notices that the virtual machine is gone.
            let _ = stream.write_all(&packets);
        }
    }

    fn hang_up(&mut self, ended: &io::Result<()>) {
        self.connected = None;
        let malformed = |error: &io::Error| error.kind() == io::ErrorKind::InvalidData;
        self.counted.malformed += u64::from(ended.as_ref().is_err_and(malformed));
    }
}

fn lock(cable: &Mutex<Cable>) -> MutexGuard<'_, Cable> {
    cable.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves one virtual machine until it is gone.
fn serve<I: I2c>(stream: &UnixStream, cable: &Mutex<Cable>, adapter: &mut Adapter<I>) -> io::Result<()> {
    let mut session = UsbSession::default();
    {
        let mut cable = lock(cable);
        session.plug(cable.is_plugged);
        let mut writing = stream.try_clone()?;
        writing.write_all(&UsbSession::hello())?;
        cable.counted.connections += 1;
        cable.connected = Some((writing, session));
    }
    let mut reading = BufReader::new(stream);
    let mut ids = redir::RedirIds::default();
    while let Some((id, request)) = redir::read(&mut reading, ids)? {
        let mut cable = lock(cable);
        cable.counted.requests += 1;
        let Some((stream, session)) = &mut cable.connected else { break };
        let packets = session.handle(id, &request, adapter);
        ids = session.ids();
        stream.write_all(&packets)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
