//! Messages of a frame topic.
#![no_main]

use dunlin_wire::Up;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match Up::decode(bytes) {
        Ok(Up::Draft(frame)) => assert_eq!(frame.encode().as_deref(), Ok(bytes)),
        Ok(Up::Context(context)) => assert_eq!(context.encode().as_deref(), Ok(bytes)),
        Ok(Up::Codes(codes)) => assert_eq!(codes.encode().as_deref(), Ok(bytes)),
        Ok(Up::Close(close)) => assert_eq!(close.encode().as_deref(), Ok(bytes)),
        Err(_) => return,
    }
    // No message is a prefix of another.
    assert!((0..bytes.len()).all(|length| Up::decode(&bytes[..length]).is_err()));
});
