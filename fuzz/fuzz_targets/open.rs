//! Messages of an open topic.
#![no_main]

use dunlin_wire::Open;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(message) = Open::decode(bytes) {
        assert_eq!(message.encode().as_deref(), Ok(bytes));
    }
});
