//! Blocks that the board has already, by their hashes.

/// Blocks that are indexed: those of a 512 MiB slot by 4 KiB.
const INDEXED_MAX: usize = 128 * 1024;

/// The place of a block on the board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSource {
    /// The number of the source, as the caller counts them.
    pub source: u16,
    /// The block in it.
    pub block: u32,
}

/// An index of blocks by the first 8 bytes of their hashes. Whoever copies one checks it in full.
#[derive(Debug, Default)]
pub struct ReusableBlocks {
    /// By hash; of equal ones the first that was added.
    places: Vec<(u64, BlockSource)>,
}

impl ReusableBlocks {
    /// Adds the blocks of a source, by its table: 32 bytes a block. Beyond the limit they are left out, and fetched.
    pub fn add(&mut self, source: u16, hashes: &[u8]) {
        let room = INDEXED_MAX - self.places.len();
        let hashes = (0..).zip(hashes.chunks_exact(32)).take(room);
        self.places.extend(hashes.map(|(block, hash)| (key(hash), BlockSource { source, block })));
        self.places.sort_by_key(|(key, _)| *key);
    }

    /// The place of a block with this hash of 32 bytes, if there may be one.
    pub fn find(&self, hash: &[u8]) -> Option<BlockSource> {
        let wanted = key(hash);
        let at = self.places.partition_point(|(key, _)| *key < wanted);
        self.places.get(at).filter(|(key, _)| *key == wanted).map(|(_, place)| *place)
    }
}

fn key(hash: &[u8]) -> u64 {
    hash.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(words: impl Iterator<Item = u64>) -> Vec<u8> {
        words.flat_map(|word| word.to_le_bytes().repeat(4)).collect()
    }

    #[test]
    fn blocks_are_found_in_the_source_that_has_them() {
        let mut reusable = ReusableBlocks::default();
        reusable.add(1, &table(1..4));
        reusable.add(2, &table(3..5));
        let find = |word: u64| reusable.find(&word.to_le_bytes().repeat(4));
        assert_eq!(find(2), Some(BlockSource { source: 1, block: 1 }));
        assert_eq!(find(3), Some(BlockSource { source: 1, block: 2 }));
        assert_eq!(find(4), Some(BlockSource { source: 2, block: 1 }));
        assert_eq!(find(5), None);
    }

    #[test]
    fn more_blocks_than_the_limit_are_left_out() {
        let mut reusable = ReusableBlocks::default();
        let most = INDEXED_MAX as u64;
        reusable.add(0, &table(0..most - 1));
        reusable.add(1, &table(most..most + 9));
        assert!(reusable.find(&table(most..=most)).is_some());
        assert!(reusable.find(&table(most + 1..most + 2)).is_none());
        assert_eq!(reusable.places.len(), INDEXED_MAX);
    }
}
