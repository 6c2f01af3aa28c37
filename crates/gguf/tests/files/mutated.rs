//! Reading any bytes gives either a header whose tensors are inside the file, or an error.

use crate::build::{read, whole};
use proptest::prelude::*;

fn check(bytes: &[u8]) {
    if let Ok(header) = read(bytes) {
        for info in header.tensors().values() {
            assert!(info.offset + info.bytes <= bytes.len() as u64, "{info:?}");
        }
        let _ =
            (header.vocabulary_size(), header.context_length(), header.u32("u64"), header.string("texts"));
    }
}

proptest! {
    #[test]
    fn changed_bytes_never_panic(changes in prop::collection::vec((0usize..2000, any::<u8>()), 1..6)) {
        for version in 1..=3 {
            let (mut bytes, _) = whole(version).bytes();
            for (place, byte) in &changes {
                let place = place % bytes.len();
                bytes[place] = *byte;
            }
            check(&bytes);
        }
    }

    #[test]
    fn removed_and_inserted_bytes_never_panic(place in 0usize..2000, count in 1usize..40, insert: bool) {
        let (mut bytes, _) = whole(3).bytes();
        let place = place % bytes.len();
        if insert {
            bytes.splice(place..place, std::iter::repeat_n(0xff, count));
        } else {
            bytes.drain(place..(place + count).min(bytes.len()));
        }
        check(&bytes);
    }

    #[test]
    fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..400)) {
        check(&noise);
        check(&[&b"GGUF\x03\0\0\0"[..], &noise].concat());
    }
}
