//! Errors of decoding and encoding.

use thiserror::Error;

/// Malformed bytes. On the receiving side only a counter changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// No bytes at all.
    #[error("empty message")]
    Empty,
    /// The version nibble is above ours.
    #[error("message of protocol version {found}, newer than {ours}: update this side")]
    NewerVersion {
        /// The version of the message.
        found: u8,
        /// The version of this build.
        ours: u8,
    },
    /// The version nibble is below ours.
    #[error("message of protocol version {found}, older than {ours}: update the other side")]
    OlderVersion {
        /// The version of the message.
        found: u8,
        /// The version of this build.
        ours: u8,
    },
    /// The kind is unknown or does not belong on this topic.
    #[error("message kind {0} is unknown on this topic: if the other side is newer, update this one")]
    UnknownKind(u8),
    /// More bytes than the largest message of the kind.
    #[error("message of {found} bytes, the limit is {limit}")]
    Oversize {
        /// Bytes received.
        found: usize,
        /// The limit's value.
        limit: usize,
    },
    /// The bytes end before the message does.
    #[error("message truncated")]
    Truncated,
    /// Bytes follow the message.
    #[error("trailing bytes after the message")]
    Trailing,
    /// A number or a kind in more bytes than it needs, or padding bits that are not zero.
    #[error("message is not in its one canonical form")]
    NotCanonical,
    /// A value outside its limits. The field is named, or the sort of field where postcard does not report which one.
    #[error("impossible value in field {0}")]
    Impossible(&'static str),
}

/// A value that can't be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// A field holds a value outside its limits; the field is named.
    #[error("field {0} is outside its limits")]
    OutOfRange(&'static str),
    /// The buffer is shorter than the message.
    #[error("no room for the message")]
    NoRoom,
}
