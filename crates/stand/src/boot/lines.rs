//! The output of a process, line by line, kept in a file and in memory.

use anyhow::{Context, Result};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Most bytes of a line; a longer one is split.
const LINE_BYTES_MAX: usize = 1 << 16;

/// Lines read by a thread.
#[derive(Clone, Debug)]
pub struct Lines(Arc<Mutex<LineBuffer>>);

#[derive(Debug, Default)]
struct LineBuffer {
    lines: Vec<String>,
    /// The last line, which is incomplete.
    begun: Vec<u8>,
    is_over: bool,
}

impl Lines {
    /// Reads `stream` to its end and copies it to the file `log`.
    ///
    /// # Errors
    /// The file can't be written, or the thread can't be started.
    pub fn read(mut stream: impl Read + Send + 'static, log: &Path) -> Result<Self> {
        let mut file = File::create(log).with_context(|| log.display().to_string())?;
        let lines = Self(Arc::default());
        let kept = lines.clone();
        let read = move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut bytes) {
                // Ignore the error: only the log suffers.
                let _ = file.write_all(&bytes[..count]);
                kept.heard().push(&bytes[..count]);
            }
            kept.heard().is_over = true;
        };
        thread::Builder::new().name("lines".into()).spawn(read).context("no thread to read lines")?;
        Ok(lines)
    }

    /// The number of lines.
    pub fn count(&self) -> usize {
        self.heard().lines.len()
    }

    /// The first line from number `from` on for which `is` holds; an incomplete last line counts too.
    pub fn find(&self, from: usize, is: impl Fn(&str) -> bool) -> Option<String> {
        let heard = self.heard();
        let begun = String::from_utf8_lossy(&heard.begun).into_owned();
        heard.lines.iter().skip(from).chain([&begun]).find(|line| is(line)).cloned()
    }

    /// The complete lines from number `from` on.
    pub fn since(&self, from: usize) -> Vec<String> {
        self.heard().lines.iter().skip(from).cloned().collect()
    }

    /// True when the stream has ended.
    pub fn is_over(&self) -> bool {
        self.heard().is_over
    }

    fn heard(&self) -> MutexGuard<'_, LineBuffer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LineBuffer {
    fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' => self.end(),
                b'\r' => {}
                byte => self.begun.push(*byte),
            }
            if self.begun.len() >= LINE_BYTES_MAX {
                self.end();
            }
        }
    }

    fn end(&mut self) {
        let line = String::from_utf8_lossy(&self.begun).into_owned();
        self.begun.clear();
        self.lines.push(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::Stop;
    use std::time::Duration;

    #[test]
    fn lines_are_kept_and_found() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let text = b"one\r\ntwo \xff\n\nlogin: ";
        let lines = Lines::read(&text[..], &log).unwrap();
        Stop::default()
            .until("the end", Duration::from_secs(60), || Ok(lines.is_over().then_some(())))
            .unwrap();
        assert_eq!(lines.since(0), ["one", "two \u{fffd}", ""]);
        assert_eq!(lines.find(0, |line| line.starts_with("t")).unwrap(), "two \u{fffd}");
        assert_eq!(lines.find(2, |line| line.starts_with("t")), None);
        assert_eq!(lines.find(0, |line| line.contains("login")).unwrap(), "login: ");
        assert_eq!(std::fs::read(&log).unwrap(), text);
    }

    #[test]
    fn a_line_without_end_takes_no_more_room_than_a_long_one() {
        let mut heard = LineBuffer::default();
        heard.push(&vec![b'x'; 3 * LINE_BYTES_MAX + 5]);
        assert_eq!((heard.lines.len(), heard.begun.len()), (3, 5));
    }
}
