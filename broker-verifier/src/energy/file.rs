//! The energy log: one JSON object per line, appended.
//!
//! Invariant: a line is written whole or not at all, as far as the system allows, and a failed write stops nothing.

use anyhow::{Context, Result};
use dunlin_wire::DeviceId;
use serde::Serialize;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

/// A line of the log.
#[derive(Serialize)]
struct Line<'a, M> {
    unix_s: f64,
    device: &'a DeviceId,
    message: &'a str,
    #[serde(flatten)]
    fields: &'a M,
}

/// The open file.
pub(super) struct LogFile {
    out: Box<dyn Write + Send>,
    /// True once a failed write was logged.
    warned: bool,
    /// True if the last line may be incomplete; the next write then begins with a line end.
    torn: bool,
}

impl LogFile {
    /// Opens a file for appending, and creates it if it doesn't exist.
    ///
    /// # Errors
    /// Names the file and why it can't be opened.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(path);
        Ok(Self::new(file.with_context(|| format!("energy log {}", path.display()))?))
    }

    fn new(out: impl Write + Send + 'static) -> Self {
        Self { out: Box::new(out), warned: false, torn: false }
    }

    /// Appends a message that arrived at `arrived`, in Unix time; returns false if the write failed.
    pub(super) fn append(
        &mut self,
        arrived: Duration,
        device: &DeviceId,
        message: &str,
        fields: &impl Serialize,
    ) -> bool {
        let line = Line { unix_s: arrived.as_millis() as f64 / 1e3, device, message, fields };
        let line = serde_json::to_string(&line).expect("numbers and texts under names are JSON");
        let start = if self.torn { "\n" } else { "" };
        let written = self.out.write_all(format!("{start}{line}\n").as_bytes());
        self.torn = written.is_err();
        if let Err(error) = &written
            && !self.warned
        {
            self.warned = true;
            tracing::warn!(%error, "the energy log can't be written; it is tried again without a word");
        }
        written.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logged::logged;
    use std::io;
    use std::sync::{Arc, Mutex};

    /// Accepts a number of bytes, and fails from then on until it is given more.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(usize, Vec<u8>)>>);

    impl Disk {
        fn give(&self, room: usize) {
            self.0.lock().unwrap().0 = room;
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().1.clone()).unwrap()
        }
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut disk = self.0.lock().unwrap();
            let taken = bytes.len().min(disk.0);
            if taken == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            disk.0 -= taken;
            disk.1.extend(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[derive(Serialize)]
    struct Fields {
        n: u8,
    }

    #[test]
    fn a_full_disk_is_warned_of_once_and_cuts_no_later_line() {
        let disk = Disk::default();
        let mut file = LogFile::new(disk.clone());
        let device = "d1".parse().unwrap();
        let (_, said) = logged(|| {
            for (n, room) in [(1, 1000), (2, 10), (3, 0), (4, 1000), (5, 0), (6, 1000)] {
                disk.give(room);
                let whole = file.append(Duration::from_millis(1500), &device, "test", &Fields { n });
                assert_eq!(whole, room == 1000, "{n}");
            }
        });
        let line = |n| format!(r#"{{"unix_s":1.5,"device":"d1","message":"test","n":{n}}}"#);
        let cut = &line(2)[..10];
        assert_eq!(disk.text(), format!("{}\n{cut}\n{}\n\n{}\n", line(1), line(4), line(6)));
        assert_eq!(said.matches("can't be written").count(), 1, "{said}");
    }
}
