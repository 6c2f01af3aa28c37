//! Drafter and target with vocabularies of different sizes: the smaller must be the beginning of the larger.

mod bench;
mod desk;
mod machines;

use bench::{Bench, EPOCH, PROMPT, Sent, config, lease, reply};
use desk::{Desk, open};
use dunlin_hlm::device::{DeviceConfig, DeviceEvent, Finish, Offline};
use dunlin_hlm::policy::{Policy, PolicyTable, Rules};
use dunlin_hlm::prefixes::Prefixes;
use dunlin_hlm::verifier::VerifierConfig;
use dunlin_wire::{
    Lease, Open, RefusalReason, Reply, VerifierPresence, Vocabulary, judged_drafts_max, token_bits,
};
use machines::{SIZE, VOCABULARY, presence, sure};
use std::sync::Arc;

/// The fingerprint of the first `size` tokens.
fn first(size: u32) -> Vocabulary {
    if size == SIZE { VOCABULARY } else { Vocabulary { size, fingerprint: [size as u8; 8] } }
}

fn prefixes(size: u32) -> Prefixes {
    let fingerprints: Vec<[u8; 8]> = (1..=size).map(|size| first(size).fingerprint).collect();
    Prefixes::from(Arc::from(fingerprints))
}

fn device(size: u32) -> DeviceConfig {
    DeviceConfig { vocabulary: first(size), prefixes: prefixes(size), ..config(2) }
}

fn target(vocabulary: Vocabulary) -> VerifierPresence {
    VerifierPresence { vocabulary, ..presence() }
}

/// A device with `own` tokens that has asked a verifier with `theirs`, and what it named.
fn asked(own: u32, theirs: u32) -> (Bench, Vocabulary) {
    let mut bench = Bench::new(device(own));
    bench.presence("desk", &target(first(theirs)));
    bench.say(&PROMPT, reply(40));
    let named = bench.open_sent().vocabulary;
    (bench, named)
}

#[test]
fn the_smaller_vocabulary_is_compared_and_the_targets_size_sets_the_width_of_ids() {
    for (own, theirs, width) in [(SIZE, 300, 9), (300, SIZE, 8)] {
        let (mut bench, named) = asked(own, theirs);
        assert_eq!(named, first(SIZE));
        bench.lease(&Lease { vocabulary_size: theirs, ..lease(EPOCH, &[]) });
        let sent = bench.sent();
        assert!(matches!(&sent[..], [Sent::Context(context)] if context.token_bits == width), "{sent:?}");
        let row = |token: u32| [sure(token), vec![99.0; own as usize - SIZE as usize]].concat();
        bench.give(&row(4), None);
        bench.give(&row(5), None);
        let frame = bench.frame_sent();
        assert_eq!(frame.token_bits, width);
        // A drafter with more tokens than the target drafts none that the target can't write.
        assert_eq!(frame.drafts.iter().map(|draft| draft.token).collect::<Vec<_>>(), [4, 5]);
    }
}

#[test]
fn a_token_that_the_drafter_lacks_is_committed_and_counted_and_one_beyond_the_targets_is_not() {
    let (mut bench, _) = asked(SIZE, 300);
    bench.lease(&Lease { vocabulary_size: 300, ..lease(EPOCH, &[]) });
    bench.sent();
    bench.draft(4);
    bench.draft(5);
    bench.frame_sent();
    bench.verdict(1, 300);
    assert_eq!((bench.device.text(), bench.device.counters().stale), (&PROMPT[..], 1));
    bench.verdict(1, 299);
    assert_eq!(bench.device.text(), [PROMPT.as_slice(), &[4, 299]].concat());
    assert_eq!(bench.device.counters().foreign, 1);
}

#[test]
fn what_was_drafted_before_the_lease_from_other_tokens_is_drafted_anew() {
    let (mut bench, _) = asked(300, SIZE);
    let mut row = vec![0.0; 300];
    row[200] = 99.0;
    bench.give(&row, None);
    assert_eq!(bench.provisional(), [200], "drafted from all of the device's own tokens");
    bench.lease(&Lease { vocabulary_size: SIZE, ..lease(EPOCH, &[]) });
    assert_eq!(bench.provisional(), []);
}

#[test]
fn a_shorter_vocabulary_that_is_not_the_beginning_fits_nobody() {
    let other = Vocabulary { fingerprint: [9; 8], ..first(20) };
    let mut bench = Bench::new(device(SIZE));
    bench.presence("desk", &target(other));
    bench.say(&PROMPT, reply(9));
    assert_eq!(bench.sent(), []);
    bench.ring();
    let refused = Finish::Refused(RefusalReason::Vocabulary(other));
    assert_eq!(bench.happened(), [DeviceEvent::Finished(refused)]);
}

#[test]
fn a_target_with_more_tokens_that_refuses_is_named_unless_another_appears_in_time() {
    let theirs = Vocabulary { fingerprint: [9; 8], ..first(300) };
    // Its announcement may be old.
    let announced = first(400);
    let refused = || {
        let mut bench = Bench::new(device(SIZE));
        bench.presence("desk", &target(announced));
        bench.say(&PROMPT, reply(9));
        assert_eq!(bench.open_sent().vocabulary, VOCABULARY);
        bench.refuse(RefusalReason::Vocabulary(theirs));
        bench
    };
    let mut bench = refused();
    assert_eq!(bench.happened(), [], "a fitting one may announce itself yet");
    bench.ring();
    let named = Finish::Refused(RefusalReason::Vocabulary(theirs));
    assert_eq!(bench.happened(), [DeviceEvent::Finished(named)]);
    let mut bench = refused();
    bench.presence("late", &presence());
    assert!(matches!(bench.sent().as_slice(), [Sent::Open(_)]));
    // A new announcement of the same vocabulary changes nothing, another vocabulary does.
    let mut bench = refused();
    bench.presence("desk", &target(theirs));
    assert_eq!(bench.sent(), []);
    bench.presence("desk", &presence());
    assert!(matches!(bench.sent().as_slice(), [Sent::Open(_)]));
}

#[test]
fn one_that_is_known_to_share_is_asked_before_those_that_may() {
    let mut bench = Bench::new(device(SIZE));
    for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        bench.presence(name, &target(first(300)));
    }
    bench.say(&PROMPT, reply(9));
    bench.open_sent();
    assert_eq!(bench.asked.as_ref().map(|id| id.as_str()), Some("desk"));
}

#[test]
fn a_device_that_trusts_itself_goes_on_without_a_target_that_refuses_it() {
    let mut bench = Bench::new(DeviceConfig { offline: Offline::Trust, ..device(SIZE) });
    let theirs = Vocabulary { fingerprint: [9; 8], ..first(300) };
    bench.presence("desk", &target(theirs));
    bench.say(&PROMPT, reply(9));
    bench.open_sent();
    bench.refuse(RefusalReason::Vocabulary(theirs));
    assert_eq!(bench.happened(), []);
}

#[test]
fn a_text_with_tokens_that_the_target_lacks_is_refused_by_name() {
    let mut bench = Bench::new(device(300));
    bench.presence("desk", &target(first(SIZE)));
    bench.say(&[1, 200], reply(9));
    bench.open_sent();
    bench.lease(&Lease { vocabulary_size: SIZE, ..lease(EPOCH, &[]) });
    let refused = Finish::Refused(RefusalReason::Vocabulary(first(SIZE)));
    assert_eq!(bench.happened(), [DeviceEvent::Finished(refused)]);
}

#[test]
fn a_verifier_admits_the_beginnings_of_its_vocabulary() {
    let mut desk = Desk::new(VerifierConfig { prefixes: prefixes(SIZE), ..desk::config() });
    for vocabulary in [VOCABULARY, first(20), first(1)] {
        let granted = desk.open(0, &Open { vocabulary, ..open(EPOCH, 3) });
        assert!(
            matches!(&granted, Some(Reply::Lease(lease)) if lease.vocabulary_size == SIZE),
            "{granted:?}"
        );
    }
    for vocabulary in [first(SIZE + 1), Vocabulary { fingerprint: [9; 8], ..first(20) }] {
        let reason = desk.refusal(0, &Open { vocabulary, ..open(EPOCH, 3) });
        assert_eq!(reason, RefusalReason::Vocabulary(VOCABULARY));
    }
}

#[test]
fn rows_fit_the_frame_whatever_the_width_of_the_targets_ids() {
    let (own, theirs, entries, resolution) = (300, 1 << 18, 64, 255);
    let sparse = PolicyTable {
        payload_entries: Some(entries),
        resolution: Some(resolution),
        stop_rule: Some(false),
        ..Policy::LosslessSparse.table()
    };
    let mut bench = Bench::new(DeviceConfig { policy: Rules::new(&sparse).expect("valid"), ..device(own) });
    bench.presence("desk", &target(first(theirs)));
    bench.say(&PROMPT, reply(40));
    bench.open_sent();
    bench.lease(&Lease { vocabulary_size: theirs, ..lease(EPOCH, &[]) });
    bench.sent();
    let room = |size| judged_drafts_max(token_bits(size), entries.into(), Some(resolution));
    assert!(room(theirs) < room(own));
    let row: Vec<f32> = (0..own).map(|id| if id == 5 { 1.0 } else { 0.0 }).collect();
    (0..room(theirs)).for_each(|_| bench.give(&row, None));
    assert_eq!(bench.frame_sent().drafts.len(), room(theirs));
}
