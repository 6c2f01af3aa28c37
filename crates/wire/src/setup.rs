//! Reports of mistakes in a device's set-up file.
//!
//! Invariant: the text has no control characters except line ends, so that it can be shown as it is.

use crate::codec::{self, Kind};
use crate::limits::{SETUP_BYTES_MAX, SETUP_TEXT_BYTES_MAX};
use crate::{DecodeError, EncodeError};
use heapless::{String, Vec};
use serde::{Deserialize, Serialize};

/// The mark at the end of a truncated line.
const CUT: char = '…';

/// The mistakes in a device's set-up file; retained until the file is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetupReport {
    /// Number of mistakes in the file, never 0; the text may list fewer.
    pub mistakes: u16,
    /// One line for each mistake.
    pub text: String<SETUP_TEXT_BYTES_MAX>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    mistakes: u16,
    length: u16,
}

impl SetupReport {
    /// A report of `mistakes` with as many of the `lines` as fit. Control characters become spaces.
    pub fn new<'a>(mistakes: usize, lines: impl IntoIterator<Item = &'a str>) -> Self {
        let mistakes = u16::try_from(mistakes).unwrap_or(u16::MAX).max(1);
        let mut text = String::new();
        for line in lines {
            let end = if text.is_empty() { "" } else { "\n" };
            let letters = line.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
            if !end.chars().chain(letters).all(|letter| push(&mut text, letter)) {
                break;
            }
        }
        Self { mistakes, text }
    }

    /// Encodes the message.
    ///
    /// # Errors
    /// Names the field that is outside its limits.
    pub fn encode(&self) -> Result<Vec<u8, SETUP_BYTES_MAX>, EncodeError> {
        self.check().map_err(EncodeError::OutOfRange)?;
        let header = Header { mistakes: self.mistakes, length: self.text.len() as u16 };
        let mut bytes = codec::put::<_, SETUP_BYTES_MAX>(Kind::Setup, &header)?;
        bytes.extend_from_slice(self.text.as_bytes()).map_err(|_| EncodeError::NoRoom)?;
        Ok(bytes)
    }

    /// Decodes a message from a set-up topic.
    ///
    /// # Errors
    /// The bytes are malformed; see [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (Header { mistakes, length }, text) = match codec::open(bytes)? {
            (Kind::Setup, rest) => codec::take(rest)?,
            (kind, _) => return Err(DecodeError::UnknownKind(kind as u8)),
        };
        let length = usize::from(length);
        if length > SETUP_TEXT_BYTES_MAX {
            return Err(DecodeError::Impossible("length"));
        }
        match text.len() {
            found if found < length => return Err(DecodeError::Truncated),
            found if found > length => return Err(DecodeError::Trailing),
            _ => {}
        }
        let text = core::str::from_utf8(text).map_err(|_| DecodeError::Impossible("text"))?;
        let text = String::try_from(text).map_err(|_| DecodeError::Impossible("text"))?;
        let report = Self { mistakes, text };
        report.check().map_err(DecodeError::Impossible)?;
        Ok(report)
    }

    fn check(&self) -> Result<(), &'static str> {
        let shown = |letter: char| letter == '\n' || !letter.is_control();
        match self.mistakes {
            0 => Err("mistakes"),
            _ if !self.text.chars().all(shown) => Err("text"),
            _ => Ok(()),
        }
    }
}

/// Appends a letter if the mark of a truncation still fits behind it, else appends the mark.
fn push(text: &mut String<SETUP_TEXT_BYTES_MAX>, letter: char) -> bool {
    let room = text.len() + letter.len_utf8() + CUT.len_utf8() <= SETUP_TEXT_BYTES_MAX;
    text.push(if room { letter } else { CUT }).is_ok() && room
}
