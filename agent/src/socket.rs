//! The Unix socket of `serve`: clients connect, send prompts as lines and read JSON lines; prompts of all clients
//! are answered in turn, in one session.

use crate::client::Client;
use crate::serve::Request;
use anyhow::{Context, Result, bail};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tracing::warn;

/// Bytes of a line.
pub(crate) const LINE_BYTES_MAX: u64 = 1 << 16;
/// Lines that wait for a client that reads slowly; one that has more is taken for gone.
const LINES_MAX: usize = 4096;
/// Clients connected at the same time.
const CLIENTS_MAX: usize = 32;

/// The mode of a socket at which its user alone may ask.
pub(crate) const FOR_USER: u32 = 0o600;
/// The mode of a socket at which its group may ask, too.
pub(crate) const FOR_GROUP: u32 = 0o660;

/// A socket's file; removed when dropped.
pub(crate) struct Listening {
    listener: StdListener,
    path: PathBuf,
}

impl Listening {
    /// The file's path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // A file that somebody else removed is as good.
        let _ = fs::remove_file(&self.path);
    }
}

/// Listens at `path`, for those whom `mode` allows; a file that a dead agent left there is replaced.
///
/// # Errors
/// Another agent listens there, or the file can't be made.
pub(crate) fn listen(path: &Path, mode: u32) -> Result<Listening> {
    let named = || path.display().to_string();
    if StdStream::connect(path).is_ok() {
        bail!("{}: another agent serves there", named());
    }
    if path.exists() {
        fs::remove_file(path).with_context(named)?;
    }
    let listener = StdListener::bind(path).with_context(named)?;
    let listening = Listening { listener, path: path.into() };
    fs::set_permissions(path, Permissions::from_mode(mode)).with_context(named)?;
    listening.listener.set_nonblocking(true).with_context(named)?;
    Ok(listening)
}

/// Accepts clients in a task of its own.
///
/// # Errors
/// The runtime takes no listener.
pub(crate) fn accept(listening: &Listening, requests: mpsc::Sender<(Request, Client)>) -> Result<()> {
    let listener = UnixListener::from_std(listening.listener.try_clone()?)?;
    let places = std::sync::Arc::new(tokio::sync::Semaphore::new(CLIENTS_MAX));
    tokio::spawn(async move {
        while let Ok(place) = places.clone().acquire_owned().await {
            match listener.accept().await {
                Err(error) => warn!("a client could not connect: {error}"),
                Ok((stream, _)) => {
                    let requests = requests.clone();
                    tokio::spawn(async move {
                        attend(stream, &requests).await;
                        drop(place);
                    });
                }
            }
        }
    });
    Ok(())
}

/// Reads a client's lines until it says no more.
async fn attend(stream: UnixStream, requests: &mpsc::Sender<(Request, Client)>) {
    let (reader, writer) = stream.into_split();
    let (lines, outgoing) = mpsc::channel(LINES_MAX);
    let writing = tokio::spawn(write(writer, outgoing));
    let client = Client::Socket(lines);
    let mut reader = BufReader::new(reader);
    loop {
        match line(&mut reader).await {
            Ok(None) => break,
            Err(error) => {
                client.error(&error.to_string());
                break;
            }
            Ok(Some(line)) if line.trim().is_empty() => {}
            Ok(Some(line)) => match Request::parse(line.trim()) {
                Err(error) => client.error(&format!("{error:#}")),
                Ok(request) => {
                    if requests.send((request, client.clone())).await.is_err() {
                        break;
                    }
                }
            },
        }
    }
    drop(client);
    // The place is kept until all answers are written or nobody reads them.
    let _ = writing.await;
}

/// The next line, or `None` at the end.
async fn line(reader: &mut (impl AsyncRead + AsyncBufReadExt + Unpin)) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    let read = reader.take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut bytes).await?;
    if read as u64 > LINE_BYTES_MAX {
        return Err(io::Error::other(format!("a line of more than {LINE_BYTES_MAX} bytes")));
    }
    if read == 0 {
        return Ok(None);
    }
    String::from_utf8(bytes).map(Some).map_err(|_| io::Error::other("a line that is not UTF-8"))
}

async fn write(mut to: OwnedWriteHalf, mut lines: mpsc::Receiver<String>) {
    while let Some(line) = lines.recv().await {
        if to.write_all(format!("{line}\n").as_bytes()).await.is_err() {
            return;
        }
    }
}
