//! Little-endian numbers and strings from a stream, counted and bounded.

use crate::error::{Error, Result};
use crate::limits::{HEADER_BYTES_MAX, STRING_BYTES_MAX};
use std::io::{ErrorKind, Read};

/// A stream with the number of bytes taken from it.
pub(crate) struct Reader<'r> {
    stream: &'r mut dyn Read,
    taken: u64,
    /// True when counts have 32 bits, as in version 1.
    pub(crate) narrow: bool,
    /// Set when a string's bytes weren't UTF-8; whoever wants to know resets it before.
    pub(crate) replaced: bool,
}

macro_rules! numbers {
    ($($type:ident)*) => {
        $(pub(crate) fn $type(&mut self, within: &str) -> Result<$type> {
            Ok($type::from_le_bytes(self.bytes(within)?))
        })*
    };
}

impl<'r> Reader<'r> {
    pub(crate) fn new(stream: &'r mut dyn Read) -> Self {
        Self { stream, taken: 0, narrow: false, replaced: false }
    }

    /// The number of bytes taken so far.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    numbers! { u8 i8 u16 i16 u32 i32 u64 i64 f32 f64 }

    pub(crate) fn bool(&mut self, within: &str) -> Result<bool> {
        match self.u8(within)? {
            0 => Ok(false),
            1 => Ok(true),
            found => Err(Error::value(within, "0 or 1 as a truth value", found)),
        }
    }

    /// A count of at most `max`.
    pub(crate) fn count(&mut self, within: &str, what: &'static str, max: u64) -> Result<u64> {
        let found = if self.narrow { self.u32(within)?.into() } else { self.u64(within)? };
        if found > max {
            return Err(Error::TooMany { within: within.into(), what, found, max });
        }
        Ok(found)
    }

    pub(crate) fn string(&mut self, within: &str) -> Result<String> {
        let length = self.count(within, "bytes of a string", STRING_BYTES_MAX)?;
        self.take(within, length)?;
        let mut bytes = Vec::new();
        (&mut self.stream).take(length).read_to_end(&mut bytes).map_err(Error::Io)?;
        if bytes.len() as u64 != length {
            return Err(Error::CutOff { within: within.into() });
        }
        // Some writers end strings with zeros, as C does.
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        bytes.truncate(end);
        Ok(String::from_utf8(bytes).unwrap_or_else(|error| {
            self.replaced = true;
            String::from_utf8_lossy(error.as_bytes()).into_owned()
        }))
    }

    pub(crate) fn bytes<const N: usize>(&mut self, within: &str) -> Result<[u8; N]> {
        self.take(within, N as u64)?;
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => Error::CutOff { within: within.into() },
            _ => Error::Io(error),
        })?;
        Ok(bytes)
    }

    fn take(&mut self, within: &str, bytes: u64) -> Result<()> {
        self.taken = self.taken.saturating_add(bytes);
        if self.taken > HEADER_BYTES_MAX {
            let (found, max) = (self.taken, HEADER_BYTES_MAX);
            return Err(Error::TooMany { within: within.into(), what: "bytes of header", found, max });
        }
        Ok(())
    }
}
