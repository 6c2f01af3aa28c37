//! Messages of a reply topic.
#![no_main]

use dunlin_wire::Reply;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(message) = Reply::decode(bytes) {
        assert_eq!(message.encode().as_deref(), Ok(bytes));
    }
});
