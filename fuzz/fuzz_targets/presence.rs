//! Messages of the presence topics.
#![no_main]

use dunlin_wire::{DevicePresence, VerifierPresence};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(presence) = DevicePresence::decode(bytes) {
        assert_eq!(presence.encode().as_deref(), Ok(bytes));
    }
    if let Ok(presence) = VerifierPresence::decode(bytes) {
        assert_eq!(presence.encode().as_deref(), Ok(bytes));
    }
});
