//! An image file, plain or compressed, and the checksum beside it.

use super::tell::Tell;
use anyhow::{Context, Result, anyhow, bail, ensure};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

/// Bytes of one read.
pub(super) const PIECE: usize = 4 << 20;

/// A SHA-256 in hex.
pub(super) type Sum = String;

/// An image that was read once from beginning to end.
#[derive(Debug)]
pub(super) struct Image {
    path: PathBuf,
    /// Its size, decompressed.
    pub(super) bytes: u64,
    /// The checksum of the decompressed content.
    pub(super) sum: Sum,
}

impl Image {
    /// Compares the file with the checksum beside it, and reads its content once.
    pub(super) fn checked(path: &Path, tell: &Tell) -> Result<Self> {
        let length = path.metadata().with_context(|| path.display().to_string())?.len();
        let expected = expected(path)?;
        let bar = tell.step(&format!("Checking {}", path.display()), Some(length));
        let file = File::open(path).with_context(|| path.display().to_string())?;
        let (bytes, sum) = summed(file, |read| bar.inc(read)).with_context(|| path.display().to_string())?;
        bar.finish_and_clear();
        ensure!(
            sum == expected,
            "{} is damaged: its SHA-256 is {sum}, the file beside it says {expected}; fetch or make it again",
            path.display()
        );
        if decompressor(path).is_none() {
            ensure!(bytes > 0, "{} is empty", path.display());
            return Ok(Self { path: path.into(), bytes, sum });
        }
        let bar = tell.step("Decompressing it once to see what it holds", None);
        let mut content = Content::open(path)?;
        let (bytes, sum) =
            summed(&mut content, |read| bar.inc(read)).with_context(|| path.display().to_string())?;
        bar.finish_and_clear();
        content.end()?;
        ensure!(bytes > 0, "{} holds nothing", path.display());
        Ok(Self { path: path.into(), bytes, sum })
    }

    /// Opens the content at its beginning.
    pub(super) fn open(&self) -> Result<Content> {
        Content::open(&self.path)
    }
}

/// The content of an image while it is read.
#[derive(Debug)]
pub(super) enum Content {
    /// The file itself.
    Plain(File),
    /// The output of a decompressor.
    Piped { program: &'static str, child: Child, output: ChildStdout },
}

impl Content {
    fn open(path: &Path) -> Result<Self> {
        let Some(program) = decompressor(path) else {
            return File::open(path).map(Self::Plain).with_context(|| path.display().to_string());
        };
        let mut command = Command::new(program);
        let spawned =
            command.args(["-dcq", "--"]).arg(path).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = spawned.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                anyhow!(
                    "{} needs {program}, which is missing: apt-get install {}",
                    path.display(),
                    package(program)
                )
            }
            _ => anyhow!("{program}: {error}"),
        })?;
        let output = child.stdout.take().context("a pipe was asked for")?;
        Ok(Self::Piped { program, child, output })
    }

    /// Waits for the decompressor after the last byte.
    ///
    /// # Errors
    /// The decompressor failed.
    pub(super) fn end(self) -> Result<()> {
        let Self::Piped { program, mut child, output } = self else { return Ok(()) };
        drop(output);
        let status = child.wait().context(program)?;
        ensure!(status.success(), "{program} could not decompress the image ({status})");
        Ok(())
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.read(buffer),
            Self::Piped { output, .. } => output.read(buffer),
        }
    }
}

fn decompressor(path: &Path) -> Option<&'static str> {
    match path.extension()?.to_str()? {
        "zst" => Some("zstd"),
        "xz" => Some("xz"),
        _ => None,
    }
}

fn package(program: &str) -> &str {
    if program == "xz" { "xz-utils" } else { program }
}

/// The checksum in `IMAGE.sha256`, in the format of `sha256sum`.
fn expected(image: &Path) -> Result<Sum> {
    let mut name = image.file_name().context("the image has no name")?.to_owned();
    name.push(".sha256");
    let path = image.with_file_name(name);
    let text = fs::read_to_string(&path).map_err(|error| {
        anyhow!(
            "{}: {error}; `sha256sum IMAGE >IMAGE.sha256` makes one of an image you trust",
            path.display()
        )
    })?;
    let sum = text.split_whitespace().next().unwrap_or("");
    if sum.len() != 64 || !sum.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        bail!("{}:1: expected 64 hexadecimal digits and the image's name", path.display());
    }
    Ok(sum.to_ascii_lowercase())
}

/// The size and the checksum of a source; `passed` receives the size of each piece, in bytes.
pub(super) fn summed(mut from: impl Read, passed: impl Fn(u64)) -> io::Result<(u64, Sum)> {
    let (mut digest, mut bytes, mut piece) = (Sha256::new(), 0, vec![0; PIECE]);
    loop {
        let read = fill(&mut from, &mut piece)?;
        if read == 0 {
            return Ok((bytes, hex(&digest.finalize())));
        }
        digest.update(&piece[..read]);
        bytes += read as u64;
        passed(read as u64);
    }
}

/// Reads until the piece is full or the source has ended.
pub(super) fn fill(from: &mut impl Read, piece: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < piece.len() {
        match from.read(&mut piece[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn hex(bytes: &[u8]) -> Sum {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Ignore the result: writing to a `String` can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
