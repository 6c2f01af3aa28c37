//! Requests for certificates and their answers.
#![no_main]

use dunlin_wire::{EnrolAnswer, EnrolRequest};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = EnrolRequest::decode(bytes) {
        assert_eq!(request.encode().as_deref(), Ok(bytes));
        assert!((0..bytes.len()).all(|length| EnrolRequest::decode(&bytes[..length]).is_err()));
    }
    if let Ok(answer) = EnrolAnswer::decode(bytes) {
        assert_eq!(answer.encode().as_deref(), Ok(bytes));
        assert!((0..bytes.len()).all(|length| EnrolAnswer::decode(&bytes[..length]).is_err()));
    }
});
