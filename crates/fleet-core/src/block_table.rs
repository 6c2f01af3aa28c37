//! Tables of blocks: the SHA-256 of each block of an object, by which each block is checked when it arrives.

use crate::hash::sha256;
use std::collections::BTreeMap;
use std::io::{self, Read};

/// The sizes of blocks: one for files that change in places, one for weights.
pub const BLOCK_SIZES: [u32; 2] = [4096, 32768];
/// Bytes of a table.
pub const TABLE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Bytes of a hash.
const HASH_BYTES: usize = 32;

/// Blocks of an object of `size` bytes.
pub(crate) fn blocks_of(size: u64, block: u32) -> u64 {
    size.div_ceil(u64::from(block.max(1)))
}

/// The hashes of an object's blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockTable {
    size: u64,
    block: u32,
    hashes: Vec<u8>,
}

impl BlockTable {
    /// The table of an object, read to its end.
    ///
    /// # Errors
    /// The object can't be read.
    pub fn read(mut from: impl Read, block: u32) -> io::Result<Self> {
        let (mut size, mut hashes) = (0, Vec::new());
        loop {
            let mut bytes = Vec::new();
            let read = from.by_ref().take(block.into()).read_to_end(&mut bytes)?;
            if read == 0 {
                return Ok(Self { size, block, hashes });
            }
            size += read as u64;
            hashes.extend_from_slice(&sha256(&bytes));
        }
    }

    /// The table of an object of `size` bytes from its hashes, one for each block.
    pub(crate) fn of(size: u64, block: u32, hashes: Vec<u8>) -> Self {
        Self { size, block, hashes }
    }

    /// Bytes of the object.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of a block.
    pub fn block(&self) -> u32 {
        self.block
    }

    /// The table as an object.
    pub fn bytes(&self) -> &[u8] {
        &self.hashes
    }

    /// The number of blocks.
    pub fn blocks(&self) -> u32 {
        (self.hashes.len() / HASH_BYTES) as u32
    }

    /// The hash of a block.
    pub fn hash(&self, index: u32) -> Option<&[u8]> {
        self.hashes.chunks_exact(HASH_BYTES).nth(usize::try_from(index).ok()?)
    }

    /// True if these are the bytes of a block.
    pub(crate) fn is(&self, index: u32, bytes: &[u8]) -> bool {
        self.hash(index).is_some_and(|hash| hash == sha256(bytes))
    }

    /// The first block with each hash.
    pub fn by_hash(&self) -> BTreeMap<&[u8], u32> {
        let mut first = BTreeMap::new();
        for (hash, index) in self.hashes.chunks_exact(HASH_BYTES).zip(0..) {
            first.entry(hash).or_insert(index);
        }
        first
    }
}
