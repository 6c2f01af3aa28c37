//! The Unix socket of `serve`: clients send prompts as lines and read JSON lines. The prompts of all clients are
//! answered in order, in one session.

use crate::client::{ServeClient, SocketClient};
use crate::request::PromptRequest;
use crate::run::Control;
use anyhow::{Context, Result, bail};
use std::fs::{self, Metadata, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tracing::warn;

/// Maximum length of a line in bytes.
pub(crate) const LINE_BYTES_MAX: u64 = 1 << 16;
/// Lines that wait for a slow client; a client with more counts as gone.
const LINES_MAX: usize = 4096;
/// Clients connected at the same time.
const CLIENTS_MAX: usize = 32;

/// Mode of a socket that only its user can use.
pub(crate) const FOR_USER: u32 = 0o600;
/// Mode of a socket that its group can use, too.
pub(crate) const FOR_GROUP: u32 = 0o660;

/// A socket's file; removed when dropped.
#[derive(Debug)]
pub(crate) struct Listening {
    listener: StdListener,
    path: PathBuf,
    /// Device and inode of the file, to recognise it when it is removed.
    file: (u64, u64),
}

impl Listening {
    /// The file's path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // Another process may have put a file of its own there: remove only ours.
        if fs::symlink_metadata(&self.path).is_ok_and(|now| identity(&now) == self.file) {
            // Ignore the error: somebody else may have removed it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Listens at `path` with this `mode`; replaces a socket left by an agent that has died.
///
/// # Errors
/// Another agent listens there, something other than a socket is there, or the socket can't be created.
pub(crate) fn listen(path: &Path, mode: u32) -> Result<Listening> {
    let named = || path.display().to_string();
    match fs::symlink_metadata(path) {
        Ok(there) => remove_stale(path, &there)?,
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(named),
    }
    let listener = StdListener::bind(path).with_context(named)?;
    let file = identity(&fs::symlink_metadata(path).with_context(named)?);
    let listening = Listening { listener, path: path.into(), file };
    fs::set_permissions(path, Permissions::from_mode(mode)).with_context(named)?;
    listening.listener.set_nonblocking(true).with_context(named)?;
    Ok(listening)
}

/// Removes a socket at `path` if nobody listens at it any more.
fn remove_stale(path: &Path, there: &Metadata) -> Result<()> {
    let name = path.display();
    let kind = there.file_type();
    if !kind.is_socket() {
        let kind = match kind {
            kind if kind.is_dir() => "a directory",
            kind if kind.is_symlink() => "a symbolic link",
            kind if kind.is_file() => "a regular file",
            _ => "a device or pipe",
        };
        bail!(
            "{name}: {kind} is there, and only a socket is replaced; move it away, or give another --socket PATH"
        );
    }
    match StdStream::connect(path) {
        Ok(_) => bail!("{name}: another agent serves there"),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).with_context(|| name.to_string())
        }
        // For example a listener with a full queue, or a socket of another user.
        Err(error) => bail!("{name}: can't tell whether an agent serves there: {error}"),
    }
}

/// Accepts clients in a task of its own; a client that is gone wakes the loop through `controls`.
///
/// # Errors
/// The runtime can't use the listener.
pub(crate) fn accept(
    listening: &Listening,
    requests: mpsc::Sender<(PromptRequest, ServeClient)>,
    controls: mpsc::Sender<Control>,
) -> Result<()> {
    let listener = UnixListener::from_std(listening.listener.try_clone()?)?;
    let places = std::sync::Arc::new(tokio::sync::Semaphore::new(CLIENTS_MAX));
    tokio::spawn(async move {
        while let Ok(place) = places.clone().acquire_owned().await {
            match listener.accept().await {
                Err(error) => warn!("a client could not connect: {error}"),
                Ok((stream, _)) => {
                    let (requests, controls) = (requests.clone(), controls.clone());
                    tokio::spawn(async move {
                        attend(stream, &requests, &controls, LINES_MAX).await;
                        drop(place);
                    });
                }
            }
        }
    });
    Ok(())
}

/// Takes a client's prompts and writes its lines, of which `lines_max` may be unread, until all is answered or it is
/// gone.
async fn attend(
    stream: UnixStream,
    requests: &mpsc::Sender<(PromptRequest, ServeClient)>,
    controls: &mpsc::Sender<Control>,
    lines_max: usize,
) {
    let watched = stream.as_fd().try_clone_to_owned().map(StdStream::from).and_then(UnixStream::from_std);
    let (reader, writer) = stream.into_split();
    let (client, outgoing) = SocketClient::new(lines_max);
    let gone = client.gone();
    let mut given_up = gone.subscribe();
    let exchange = async { tokio::join!(read(reader, requests, client), write(writer, outgoing)) };
    tokio::select! {
        // First of all: after a line that was left out, none may be written.
        biased;
        _ = given_up.wait_for(|gone| *gone) => {}
        () = hung_up(watched) => {}
        _ = exchange => return,
    }
    gone.send_replace(true);
    // Where another control waits, the loop wakes up for that one, and an interrupt must always find a place.
    if controls.capacity() == controls.max_capacity() {
        // A loop that has ended needs no waking.
        let _ = controls.try_send(Control::ClientGone);
    }
}

/// Ends once the peer has closed its connection, also while nothing is written to it. One that only says no more still
/// reads.
async fn hung_up(watched: io::Result<UnixStream>) {
    let error = match watched {
        Err(error) => error,
        Ok(watched) => loop {
            match watched.ready(Interest::WRITABLE).await {
                Ok(ready) if ready.is_write_closed() => return,
                // Waits for the next event instead of for room, which there is most of the time.
                Ok(_) => {
                    drop(watched.try_io(Interest::WRITABLE, || Err::<(), _>(ErrorKind::WouldBlock.into())))
                }
                Err(error) => break error,
            }
        },
    };
    warn!("a client that hangs up is noticed only when it is written to: {error}");
    std::future::pending().await
}

/// Reads a client's lines until it says no more.
async fn read(
    reader: OwnedReadHalf,
    requests: &mpsc::Sender<(PromptRequest, ServeClient)>,
    client: SocketClient,
) {
    let client = ServeClient::Socket(client);
    let mut reader = BufReader::new(reader);
    loop {
        match line(&mut reader).await {
            Ok(None) => break,
            Err(error) => {
                client.error(&error.to_string());
                break;
            }
            Ok(Some(line)) if line.trim().is_empty() => {}
            Ok(Some(line)) => match PromptRequest::parse(line.trim()) {
                Err(error) => client.error(&format!("{error:#}")),
                Ok(request) => {
                    if requests.send((request, client.clone())).await.is_err() {
                        break;
                    }
                }
            },
        }
    }
}

/// The next line; `None` at the end.
async fn line(reader: &mut (impl AsyncRead + AsyncBufReadExt + Unpin)) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    // Read one byte beyond the limit, to tell a line that is too long from one that just fits.
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tempfile::TempDir;
    use tokio::time::timeout;

    /// Well beyond what any machine needs.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// A client that is attended, and its prompt.
    struct Attended {
        peer: UnixStream,
        client: ServeClient,
        controls: mpsc::Receiver<Control>,
    }

    impl Attended {
        async fn start(lines_max: usize) -> Self {
            let (mut peer, stream) = UnixStream::pair().unwrap();
            let (requests, mut asked) = mpsc::channel(1);
            let (sender, controls) = mpsc::channel(3);
            tokio::spawn(async move { attend(stream, &requests, &sender, lines_max).await });
            peer.write_all(b"Hello\n").await.unwrap();
            let (request, client) = asked.recv().await.unwrap();
            assert_eq!(request.prompt, "Hello");
            Self { peer, client, controls }
        }

        /// The channel that wakes the loop.
        async fn control(&mut self) -> Option<Control> {
            timeout(PATIENCE, self.controls.recv()).await.expect("the loop is woken")
        }

        /// All that is written until the connection ends.
        async fn rest(&mut self) -> String {
            let mut rest = String::new();
            timeout(PATIENCE, self.peer.read_to_string(&mut rest))
                .await
                .expect("the connection ends")
                .unwrap();
            rest
        }
    }

    #[tokio::test]
    async fn a_client_with_too_many_unread_lines_is_gone_and_hears_no_later_one() {
        let mut attended = Attended::start(4).await;
        for line in 0..4 {
            assert!(attended.client.is_there());
            attended.client.error(&format!("line {line}"));
        }
        assert!(attended.client.is_there(), "the bound is not passed yet");
        attended.client.error("line 4");
        assert!(!attended.client.is_there());
        assert_eq!(attended.control().await, Some(Control::ClientGone));
        attended.client.error("line 5");
        assert!(!attended.rest().await.contains("line 5"), "a text with a hole");
    }

    #[tokio::test]
    async fn a_client_that_hangs_up_is_noticed_while_nothing_is_written() {
        let mut attended = Attended::start(4).await;
        let (closed, _) = UnixStream::pair().unwrap();
        drop(std::mem::replace(&mut attended.peer, closed));
        assert_eq!(attended.control().await, Some(Control::ClientGone));
        assert!(!attended.client.is_there());
    }

    #[tokio::test]
    async fn a_client_that_says_no_more_is_answered() {
        let mut attended = Attended::start(4).await;
        attended.peer.shutdown().await.unwrap();
        attended.client.error("an answer");
        assert!(attended.client.is_there());
        let client = std::mem::replace(&mut attended.client, ServeClient::Terminal);
        drop(client);
        assert!(attended.rest().await.contains("an answer"));
        assert_eq!(attended.controls.recv().await, None, "nobody is gone");
    }

    fn refusal(path: &Path) -> String {
        format!("{:#}", listen(path, FOR_USER).unwrap_err())
    }

    #[test]
    fn only_a_socket_that_nobody_listens_at_is_replaced() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("agent.sock");
        drop(StdListener::bind(&path).unwrap());
        let listening = listen(&path, FOR_USER).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, FOR_USER);
        assert!(refusal(&path).ends_with("another agent serves there"));
        drop(listening);
        assert!(!path.exists(), "the agent's own socket goes with it");
    }

    #[test]
    fn whatever_is_no_socket_is_named_and_stays() {
        let dir = TempDir::new().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "precious").unwrap();
        fs::create_dir(at("directory")).unwrap();
        drop(StdListener::bind(at("stale")).unwrap());
        std::os::unix::fs::symlink(at("stale"), at("link")).unwrap();
        for (name, kind) in
            [("file", "a regular file"), ("directory", "a directory"), ("link", "a symbolic link")]
        {
            let said = refusal(&at(name));
            assert!(said.contains(&format!("{name}: {kind} is there")), "{said}");
        }
        assert_eq!(fs::read_to_string(at("file")).unwrap(), "precious");
        assert!(at("directory").is_dir() && at("link").is_symlink() && at("stale").exists());
        assert!(refusal(&at("file/x")).contains("Not a directory"));
    }

    #[test]
    fn another_agents_socket_in_the_same_place_stays() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("agent.sock");
        let listening = listen(&path, FOR_USER).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "another's").unwrap();
        drop(listening);
        assert_eq!(fs::read_to_string(&path).unwrap(), "another's");
    }
}
