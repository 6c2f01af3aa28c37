//! SHA-256, which names objects.

use dunlin_wire::ObjectId;
use ring::digest::{SHA256, digest};

/// The SHA-256 of bytes, which is the name of the object that has them.
pub fn object_id(bytes: &[u8]) -> ObjectId {
    ObjectId(sha256(bytes))
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("a SHA-256 has 32 bytes")
}
