//! Messages of a verdict topic.
#![no_main]

use dunlin_wire::Down;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(message) = Down::decode(bytes) {
        assert_eq!(message.encode().as_deref(), Ok(bytes));
    }
});
