//! Frames, verdicts and reports are encoded and decoded without the allocator. The only test of its binary, since it
//! counts every allocation.

mod common;

use allocation_counter::measure;
use common::{
    eight_drafts, held_drafts, largest_annotated, largest_audited, largest_block, largest_certificate,
    largest_codes, largest_context, largest_continuation, largest_draft, largest_energy, largest_enrol,
    largest_fleet, largest_rollout, largest_setup, largest_telemetry, largest_wanted, lattice, top_k,
    top_k_sampled, typical_energy, typical_telemetry,
};
use dunlin_wire::{
    Down, EnergyReport, EnrolAnswer, EnrolRequest, FleetReport, ObjectBlock, Rollout, SetupReport, Telemetry,
    Up, Verdict, WantedPieces, frame_check,
};
use std::hint::black_box;

#[test]
fn the_counter_counts() {
    assert_eq!(measure(|| drop(black_box(vec![0u8; 32]))).count_total, 1);
}

#[test]
fn a_frame_and_its_verdict_do_not_allocate() {
    let plain = [eight_drafts(), largest_draft()];
    let annotated = [held_drafts(), top_k(), top_k_sampled(), lattice(), largest_annotated()];
    for frame in plain.into_iter().chain(annotated) {
        let counted = measure(|| {
            let bytes = frame.encode().expect("a valid frame");
            let decoded = Up::decode(black_box(&bytes)).expect("its own bytes");
            assert!(decoded == Up::Draft(frame.clone()));
            let check = frame_check(&bytes);
            for missed in [0, u16::MAX] {
                let verdict = Down::Verdict(Verdict { check, missed, ..largest_audited() });
                let answer = verdict.encode().expect("a valid verdict");
                assert!(Down::decode(black_box(&answer)) == Ok(verdict));
            }
        });
        assert_eq!(counted.count_total, 0, "{counted:?}");
    }
}

#[test]
fn a_continuation_does_not_allocate() {
    let continuation = Down::Continuation(largest_continuation());
    let counted = measure(|| {
        let bytes = continuation.encode().expect("a valid message");
        assert!(Down::decode(black_box(&bytes)).as_ref() == Ok(&continuation));
    });
    assert_eq!(counted.count_total, 0, "{counted:?}");
}

#[test]
fn context_codes_and_refused_bytes_do_not_allocate() {
    let (context, codes) = (largest_context(), largest_codes());
    let counted = measure(|| {
        let bytes = context.encode().expect("a valid chunk");
        assert!(Up::decode(black_box(&bytes)) == Ok(Up::Context(context.clone())));
        assert!(Up::decode(black_box(&bytes[..bytes.len() - 1])).is_err());
        assert!(Down::decode(black_box(&bytes)).is_err());
        let bytes = codes.encode().expect("a valid part");
        assert!(Up::decode(black_box(&bytes)) == Ok(Up::Codes(codes.clone())));
    });
    assert_eq!(counted.count_total, 0, "{counted:?}");
}

#[test]
fn energy_and_telemetry_do_not_allocate() {
    for (report, telemetry) in
        [(typical_energy(), typical_telemetry()), (largest_energy(), largest_telemetry())]
    {
        let counted = measure(|| {
            let bytes = report.encode().expect("a valid report");
            assert!(EnergyReport::decode(black_box(&bytes)) == Ok(report));
            assert!(Telemetry::decode(black_box(&bytes)).is_err());
            let bytes = telemetry.encode().expect("a valid telemetry");
            assert!(Telemetry::decode(black_box(&bytes)) == Ok(telemetry));
            assert!(EnergyReport::decode(black_box(&bytes[..9])).is_err());
        });
        assert_eq!(counted.count_total, 0, "{counted:?}");
    }
}

#[test]
fn a_set_up_does_not_allocate() {
    let report = largest_setup();
    let line = "é".repeat(600);
    let counted = measure(|| {
        assert!(SetupReport::new(1, [black_box(line.as_str())]).text.ends_with('…'));
        let bytes = report.encode().expect("a valid report");
        assert!(SetupReport::decode(black_box(&bytes)).as_ref() == Ok(&report));
        assert!(SetupReport::decode(black_box(&bytes[..9])).is_err());
    });
    assert_eq!(counted.count_total, 0, "{counted:?}");
}

#[test]
fn messages_of_updates_do_not_allocate() {
    let (report, rollout, wanted, block) =
        (largest_fleet(), largest_rollout(), largest_wanted(), largest_block());
    let (request, answer) = (largest_enrol(), largest_certificate());
    let counted = measure(|| {
        assert!(
            FleetReport::decode(black_box(&report.encode().expect("a valid report"))).as_ref() == Ok(&report)
        );
        assert!(
            Rollout::decode(black_box(&rollout.encode().expect("a valid rollout"))).as_ref() == Ok(&rollout)
        );
        assert!(
            WantedPieces::decode(black_box(&wanted.encode().expect("valid spans"))).as_ref() == Ok(&wanted)
        );
        let bytes = block.borrowed().encode().expect("a valid block");
        assert!(ObjectBlock::decode(black_box(&bytes)) == Ok(block.borrowed()));
        assert!(
            EnrolRequest::decode(black_box(&request.encode().expect("a valid request"))).as_ref()
                == Ok(&request)
        );
        assert!(
            EnrolAnswer::decode(black_box(&answer.encode().expect("a valid answer"))).as_ref() == Ok(&answer)
        );
    });
    assert_eq!(counted.count_total, 0, "{counted:?}");
}
