//! Captures the log of a test.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

/// The captured log.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The result of `work`, and its log.
pub(crate) fn logged<T>(work: impl FnOnce() -> T) -> (T, String) {
    let said = Said::default();
    let writer = said.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .finish();
    let given = tracing::subscriber::with_default(subscriber, work);
    let said = said.0.lock().unwrap().clone();
    (given, String::from_utf8(said).unwrap())
}
