//! Messages between devices and stores, and their presence.
#![no_main]

use dunlin_wire::{ObjectBlock, StorePresence, WantedPieces};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(wanted) = WantedPieces::decode(bytes) {
        assert_eq!(wanted.encode().as_deref(), Ok(bytes));
        assert!((0..bytes.len()).all(|length| WantedPieces::decode(&bytes[..length]).is_err()));
    }
    if let Ok(block) = ObjectBlock::decode(bytes) {
        assert_eq!(block.encode().as_deref(), Ok(bytes));
        assert!((0..bytes.len()).all(|length| ObjectBlock::decode(&bytes[..length]).is_err()));
    }
    if let Ok(presence) = StorePresence::decode(bytes) {
        assert_eq!(presence.encode().as_deref(), Ok(bytes));
    }
});
