//! A frame and its verdict are made and read without the allocator. Alone in its binary, which counts every allocation.

mod common;

use allocation_counter::measure;
use common::{eight_drafts, largest_context, largest_draft};
use dunlin_wire::{Down, Up, Verdict, frame_check};
use std::hint::black_box;

#[test]
fn the_counter_counts() {
    assert_eq!(measure(|| drop(black_box(vec![0u8; 32]))).count_total, 1);
}

#[test]
fn a_frame_and_its_verdict_do_not_allocate() {
    for frame in [eight_drafts(), largest_draft()] {
        let counted = measure(|| {
            let bytes = frame.encode().expect("a valid frame");
            let decoded = Up::decode(black_box(&bytes)).expect("its own bytes");
            assert!(decoded == Up::Draft(frame.clone()));
            let check = frame_check(&bytes);
            let verdict =
                Down::Verdict(Verdict { session: 1, epoch: 2, round: 3, check, accepted: 8, token: 812 });
            let answer = verdict.encode().expect("a valid verdict");
            assert!(Down::decode(black_box(&answer)) == Ok(verdict));
        });
        assert_eq!(counted.count_total, 0, "{counted:?}");
    }
}

#[test]
fn context_and_refused_bytes_do_not_allocate() {
    let context = largest_context();
    let counted = measure(|| {
        let bytes = context.encode().expect("a valid chunk");
        assert!(Up::decode(black_box(&bytes)) == Ok(Up::Context(context.clone())));
        assert!(Up::decode(black_box(&bytes[..bytes.len() - 1])).is_err());
        assert!(Down::decode(black_box(&bytes)).is_err());
    });
    assert_eq!(counted.count_total, 0, "{counted:?}");
}
