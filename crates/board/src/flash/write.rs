//! Writes an image, and reads it back.

use super::image::{Image, PIECE, fill, summed};
use super::tell::Tell;
use anyhow::{Context, Result, anyhow, ensure};
use rustix::fs::{Advice, OFlags, fadvise};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Opens a block device for this process alone: the kernel refuses one that is mounted or held by another driver.
///
/// # Errors
/// Names the reason and the remedy.
pub(super) fn open_exclusive(device: &Path) -> Result<File> {
    let flags = OFlags::EXCL.bits().cast_signed();
    File::options().read(true).write(true).custom_flags(flags).open(device).map_err(|error| {
        let advice = match Errno::from_io_error(&error) {
            Some(Errno::ACCESS | Errno::PERM) => "run it with sudo",
            Some(Errno::BUSY) => "something uses it: unmount it",
            Some(Errno::ROFS) => "it is write-protected: look for a switch on the card or its adapter",
            Some(Errno::NOMEDIUM | Errno::NXIO | Errno::NODEV) => "there is no card in it",
            _ => "nothing was written",
        };
        anyhow!("{}: {error}; {advice}", device.display())
    })
}

/// Writes the image to `file`, starting at its beginning, and waits until it is on the device. With `sparse`, pieces
/// of zeros are skipped; `file` must then be empty.
///
/// # Errors
/// Names the byte at which writing failed.
pub(super) fn write_image(image: &Image, file: &File, sparse: bool, tell: &Tell) -> Result<()> {
    let bar = tell.step("Writing", Some(image.bytes));
    let mut content = image.open()?;
    let written = copy(&mut content, &mut &*file, sparse, |bytes| bar.inc(bytes))?;
    content.end()?;
    ensure!(written == image.bytes, "the image changed while it was written");
    if sparse {
        file.set_len(written).map_err(|error| failed("writing", written, &error))?;
    }
    bar.set_message("waiting for the device");
    file.sync_all().map_err(|error| failed("writing", written, &error))?;
    bar.finish_and_clear();
    Ok(())
}

/// Copies everything; returns the number of bytes.
fn copy(
    from: &mut impl Read,
    to: &mut (impl Write + Seek),
    sparse: bool,
    passed: impl Fn(u64),
) -> Result<u64> {
    let (mut at, mut piece) = (0, vec![0; PIECE]);
    loop {
        let read = fill(from, &mut piece).context("the image")?;
        if read == 0 {
            return Ok(at);
        }
        let piece = &piece[..read];
        let done = match sparse && piece.iter().all(|byte| *byte == 0) {
            true => to.seek(SeekFrom::Current(read as i64)).map(drop),
            false => to.write_all(piece),
        };
        done.map_err(|error| failed("writing", at, &error))?;
        at += read as u64;
        passed(read as u64);
    }
}

/// Reads the written image back, from the device instead of the cache, and compares it.
///
/// # Errors
/// It can't be read, or differs.
pub(super) fn read_back(image: &Image, file: &File, tell: &Tell) -> Result<()> {
    let bar = tell.step("Reading it back", Some(image.bytes));
    // Ignore the error: if the cache can't be dropped, reading from it still checks part of the work.
    let _ = fadvise(file, 0, None, Advice::DontNeed);
    let mut file = file;
    file.seek(SeekFrom::Start(0)).context("reading back")?;
    let (bytes, sum) = summed(file.take(image.bytes), |read| bar.inc(read))
        .map_err(|error| failed("reading back", bar.position(), &error))?;
    bar.finish_and_clear();
    ensure!(bytes == image.bytes, "reading back ended at byte {bytes} of {}", image.bytes);
    ensure!(
        sum == image.sum,
        "what was read back is not what was written: SHA-256 {sum}, not {}; the card may be worn out or not hold \
         what it claims to",
        image.sum
    );
    Ok(())
}

fn failed(doing: &str, at: u64, error: &io::Error) -> anyhow::Error {
    let advice = match Errno::from_io_error(error) {
        Some(Errno::NOSPC) => "there is no space left",
        Some(Errno::IO) => "the card is broken or was pulled out",
        Some(Errno::NXIO | Errno::NODEV | Errno::NOMEDIUM) => "the card is gone: put it in again",
        _ => "it was not finished",
    };
    anyhow!("{doing} failed at byte {at}: {error}; {advice}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    /// Accepts a number of bytes, then fails like a device that is full or was removed.
    struct Ends(usize, Errno);

    impl Write for Ends {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(self.1.into());
            }
            let taken = bytes.len().min(self.0);
            self.0 -= taken;
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Seek for Ends {
        fn seek(&mut self, _: SeekFrom) -> io::Result<u64> {
            Ok(0)
        }
    }

    #[test]
    fn a_failure_says_where_it_was() {
        let image = vec![7; PIECE + 10];
        let said =
            |errno| copy(&mut &image[..], &mut Ends(PIECE, errno), false, |_| {}).unwrap_err().to_string();
        let place = format!("writing failed at byte {PIECE}: ");
        for (errno, advice) in
            [(Errno::NOSPC, "no space left"), (Errno::IO, "pulled out"), (Errno::NODEV, "put it in again")]
        {
            let said = said(errno);
            assert!(said.starts_with(&place) && said.contains(advice), "{said}");
        }
    }

    #[test]
    fn holes_are_left_only_where_nothing_was() {
        let mut image = vec![0; 3 * PIECE];
        image[PIECE + 5] = 1;
        for sparse in [false, true] {
            let mut to = Cursor::new(vec![9; 3 * PIECE]);
            assert_eq!(copy(&mut &image[..], &mut to, sparse, |_| {}).unwrap(), 3 * PIECE as u64);
            assert_eq!(to.get_ref()[0], if sparse { 9 } else { 0 });
            assert_eq!(to.get_ref()[PIECE..2 * PIECE], image[PIECE..2 * PIECE]);
        }
    }
}
