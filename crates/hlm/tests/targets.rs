//! The device's choice of verifier, and its reaction when another target would continue its text.

mod bench;
mod machines;

use bench::{Bench, EPOCH, GIVE_UP_MS, PROMPT, Sent, config, lease, leased, reply, verifier};
use dunlin_hlm::device::{
    CANDIDATES_MAX, Device, DeviceConfig, DeviceEvent, Finish, Learned, Offline, Origin, PinnedTarget,
};
use dunlin_wire::{
    CloseReason, Closed, Down, Lease, Liveness, Promise, RefusalReason, Resync, TargetId, Verdict,
    VerifierPresence, Vocabulary,
};
use machines::{TARGET, VOCABULARY, digest, presence};

/// Targets with other numerics and with other weights than the desk's.
const NUMERICS: TargetId = TargetId::from_bytes([1, 1, 1, 1, 1, 1, 9, 9]);
const WEIGHTS: TargetId = TargetId::from_bytes([8, 1, 1, 1, 1, 1, 2, 2]);

fn with(target: TargetId) -> VerifierPresence {
    VerifierPresence { target, ..presence() }
}

fn gone() -> VerifierPresence {
    VerifierPresence { liveness: Liveness::Lost, ..presence() }
}

fn by(name: &str, target: TargetId, epoch: u8, text: &[u32]) -> Lease {
    Lease { verifier: verifier(name), target, ..lease(epoch, text) }
}

/// A device that got a verdict of the desk's target in its first reply and then lost that verifier.
fn bereaved(config: DeviceConfig) -> Bench {
    let mut bench = Bench::under_way(config, &[4, 5], &[]);
    bench.verdict(2, 6);
    bench.happened();
    bench.presence("desk", &gone());
    bench
}

impl Bench {
    /// Drafts until a frame is sent.
    fn drafts_until_frame(&mut self) {
        while self.sent().is_empty() {
            self.draft(7);
        }
    }
}

#[test]
fn nobody_is_asked_before_a_verifier_announced_itself() {
    let mut bench = Bench::new(config(2));
    bench.presence("desk", &gone());
    bench.say(&PROMPT, reply(9));
    assert_eq!((bench.sent(), bench.until_timer()), (vec![], GIVE_UP_MS));
    bench.presence("other", &with(WEIGHTS));
    assert!(matches!(bench.sent().as_slice(), [Sent::Open(_)]), "a session without text takes any target");
    assert_eq!(bench.asked, Some(verifier("other")));
}

#[test]
fn a_presence_that_was_taken_back_is_no_verifier() {
    let mut bench = Bench::new(config(2));
    bench.device.handle_presence(&verifier("desk"), &[], bench.now);
    bench.say(&PROMPT, reply(9));
    assert_eq!((bench.sent(), bench.device.verifier(&verifier("desk"))), (vec![], None));
    bench.device.handle_presence(&verifier("desk"), &[0x1b], bench.now);
    assert_eq!(bench.device.counters().malformed, 1);
}

#[test]
fn verifiers_of_other_weights_are_not_asked_for_a_text_that_has_begun() {
    let mut bench = bereaved(config(2));
    bench.presence("other", &with(WEIGHTS));
    assert_eq!(bench.sent(), []);
    bench.presence("desk", &VerifierPresence { generation: 2, ..presence() });
    assert!(matches!(bench.sent().as_slice(), [Sent::Open(_)]));
    assert_eq!(bench.asked, Some(verifier("desk")), "the one that wrote the text came back");
}

#[test]
fn other_weights_alone_end_the_reply_once_the_silence_is_too_long() {
    let mut bench = bereaved(config(2));
    bench.presence("other", &with(WEIGHTS));
    bench.happened();
    let left = bench.until_timer();
    assert!(left <= GIVE_UP_MS && left > GIVE_UP_MS / 2, "{left}");
    bench.wait(GIVE_UP_MS + 1);
    bench.device.handle_timeout(bench.now);
    let end = DeviceEvent::Finished(Finish::OtherTarget { ours: TARGET, theirs: WEIGHTS });
    assert_eq!(bench.happened().last(), Some(&end));
    let named = |target| bench.device.verifier_with(target).map(|(id, _)| id.as_str().to_owned());
    assert_eq!([named(TARGET), named(WEIGHTS)], [Some("desk".into()), Some("other".into())]);
}

#[test]
fn a_lease_of_other_weights_is_refused_whatever_presence_promised() {
    let mut bench = bereaved(config(2));
    bench.presence("other", &presence());
    bench.sent();
    bench.lease(&by("other", WEIGHTS, 0, &[]));
    assert_eq!((bench.happened(), bench.sent()), (vec![], vec![]));
    // One that fits has as long to appear as for any answer; its request is of another epoch.
    bench.wait(GIVE_UP_MS / 2);
    bench.presence("third", &presence());
    assert_eq!((bench.open_sent().epoch, bench.asked.clone()), (1, Some(verifier("third"))));
    bench.presence("third", &gone());
    bench.wait(GIVE_UP_MS);
    bench.device.handle_timeout(bench.now);
    let end = DeviceEvent::Finished(Finish::OtherTarget { ours: TARGET, theirs: WEIGHTS });
    assert_eq!(bench.happened().last(), Some(&end));
    assert_eq!(bench.device.text(), &[1, 2, 3, 4, 5, 6]);
}

/// A verifier that lost the session has its target still: another target would change the text for nothing.
#[test]
fn the_verifier_that_wrote_the_text_is_asked_before_one_with_other_numerics() {
    for reason in [CloseReason::Unknown, CloseReason::Failed, CloseReason::Draining] {
        let mut bench = Bench::under_way(config(2), &[4, 5], &[]);
        bench.verdict(2, 6);
        bench.presence("other", &with(NUMERICS));
        bench.drafts_until_frame();
        bench.closed(EPOCH, reason);
        assert_eq!((bench.open_sent().epoch, bench.asked.clone()), (0, Some(verifier("desk"))), "{reason:?}");
        bench.refuse_at(0, RefusalReason::Full);
        assert_eq!(
            (bench.open_sent().epoch, bench.asked.clone()),
            (1, Some(verifier("other"))),
            "{reason:?}"
        );
    }
}

#[test]
fn after_a_fault_one_that_fits_as_well_comes_first() {
    // Names rank differently, so some would come first anyway.
    for other in ["other", "a", "b", "c", "d", "e", "f", "g"] {
        let mut bench = Bench::under_way(config(2), &[4, 5], &[]);
        bench.verdict(2, 6);
        bench.presence(other, &presence());
        bench.drafts_until_frame();
        bench.closed(EPOCH, CloseReason::Failed);
        bench.open_sent();
        assert_eq!(bench.asked, Some(verifier(other)));
    }
}

/// A verifier that lost the session at no fault of the device keeps its rank.
#[test]
fn a_session_that_was_evicted_returns_to_its_verifier() {
    for other in ["other", "a", "b", "c", "d", "e", "f", "g"] {
        let mut fresh = Bench::new(config(2));
        fresh.presence(other, &presence());
        fresh.say(&PROMPT, reply(9));
        fresh.open_sent();
        let mut bench = Bench::under_way(config(2), &[4, 5], &[]);
        bench.verdict(2, 6);
        bench.presence(other, &presence());
        bench.drafts_until_frame();
        bench.closed(EPOCH, CloseReason::Unknown);
        bench.open_sent();
        assert_eq!(bench.asked, fresh.asked, "{other}");
    }
}

/// Both would hold a lease of one epoch, and a close by the first would end the lease of the second.
#[test]
fn what_a_verifier_that_was_asked_before_sends_is_stale() {
    let mut bench = Bench::new(config(2));
    bench.presence("other", &presence());
    bench.say(&PROMPT, reply(9));
    assert_eq!(bench.open_sent().epoch, EPOCH);
    bench.ring();
    assert_eq!(bench.open_sent().epoch, 0, "another verifier is asked under another epoch");
    let late = bench.device.counters().stale;
    bench.lease(&lease(EPOCH, &[]));
    bench.refuse_at(EPOCH, RefusalReason::Sampling);
    assert_eq!((bench.happened(), bench.device.counters().stale), (vec![], late + 2));
    bench.lease(&lease(0, &[]));
    assert_eq!(bench.happened(), [leased()]);
    bench.down(&Down::Closed(Closed { session: 7, epoch: EPOCH, nonce: 10, reason: CloseReason::Draining }));
    assert_eq!(bench.device.counters().stale, late + 3);
}

#[test]
fn one_verifiers_refusal_for_good_does_not_speak_for_the_others() {
    let mut bench = Bench::new(config(2));
    bench.presence("other", &presence());
    bench.say(&PROMPT, reply(9));
    assert_eq!(bench.open_sent().epoch, EPOCH);
    let first = bench.asked.clone();
    bench.refuse(RefusalReason::TooLong(4));
    assert_eq!(bench.open_sent().epoch, 0);
    assert_ne!(bench.asked, first);
    bench.refuse_at(0, RefusalReason::TooLong(5));
    assert_eq!(bench.happened(), [DeviceEvent::Finished(Finish::Refused(RefusalReason::TooLong(5)))]);
}

/// The time of a search that an earlier reply began is not that of the next.
#[test]
fn a_new_prompt_gives_verifiers_time_anew() {
    let mut bench = bereaved(config(2));
    bench.device.cancel();
    bench.happened();
    bench.wait(GIVE_UP_MS * 2);
    bench.presence("other", &with(WEIGHTS));
    bench.say(&[8], reply(9));
    bench.device.handle_timeout(bench.now);
    assert_eq!(bench.happened(), []);
    bench.presence("desk", &VerifierPresence { generation: 2, ..presence() });
    bench.open_sent();
    assert_eq!(bench.asked, Some(verifier("desk")));
}

#[test]
fn when_the_last_verifier_leaves_another_has_its_time_to_appear() {
    let other = Vocabulary { fingerprint: [8; 8], ..VOCABULARY };
    let mut bench = Bench::new(config(2));
    bench.presence("stranger", &VerifierPresence { vocabulary: other, ..presence() });
    bench.say(&PROMPT, reply(9));
    bench.open_sent();
    bench.wait(5_000);
    bench.presence("desk", &gone());
    bench.device.handle_timeout(bench.now);
    assert_eq!(bench.happened(), []);
    assert_eq!(bench.until_timer(), 1_000);
}

#[test]
fn other_weights_go_on_where_the_user_accepts_it_and_the_position_is_reported() {
    let mut bench = bereaved(DeviceConfig { accept_model_change: true, ..config(2) });
    bench.presence("other", &with(WEIGHTS));
    assert!(matches!(bench.sent().as_slice(), [Sent::Open(_)]));
    bench.lease(&by("other", WEIGHTS, 0, &[]));
    let changed = PinnedTarget { id: WEIGHTS, promise: Promise::Exact };
    let events = [
        DeviceEvent::TargetChanged { position: 6, model: true },
        DeviceEvent::Leased { verifier: verifier("other"), target: changed },
    ];
    assert_eq!(bench.happened(), events);
    assert_eq!(bench.device.target(), Some(changed));
}

#[test]
fn the_same_weights_with_other_numerics_go_on_and_are_reported() {
    let mut bench = bereaved(config(2));
    bench.presence("other", &with(NUMERICS));
    bench.sent();
    bench.lease(&by("other", NUMERICS, 0, &[]));
    assert_eq!(bench.happened()[0], DeviceEvent::TargetChanged { position: 6, model: false });
    // For a target without a promise of exact bits, only the weights count.
    let law = |target| VerifierPresence { promise: Promise::Distribution, ..with(target) };
    let mut bench = Bench::new(config(2));
    bench.presence("desk", &law(TARGET));
    bench.say(&PROMPT, reply(40));
    bench.sent();
    bench.lease(&Lease { promise: Promise::Distribution, ..lease(EPOCH, &[]) });
    bench.drafts_until_frame();
    bench.draft(4);
    bench.draft(5);
    bench.frame_sent();
    bench.verdict(2, 6);
    bench.happened();
    bench.drafts_until_frame();
    bench.closed(EPOCH, CloseReason::Unknown);
    bench.lease(&Lease { promise: Promise::Distribution, ..by("desk", NUMERICS, 0, &[]) });
    assert!(!bench.happened().iter().any(|event| matches!(event, DeviceEvent::TargetChanged { .. })));
}

#[test]
fn a_text_without_a_token_of_the_target_belongs_to_nobody() {
    let mut bench = Bench::under_way(config(2), &[4, 5], &[]);
    bench.presence("desk", &gone());
    bench.closed(EPOCH, CloseReason::Unknown);
    bench.happened();
    bench.presence("other", &with(WEIGHTS));
    assert!(matches!(bench.sent().as_slice(), [Sent::Open(_)]));
    bench.lease(&by("other", WEIGHTS, 0, &[]));
    let target = PinnedTarget { id: WEIGHTS, promise: Promise::Exact };
    assert_eq!(bench.happened(), [DeviceEvent::Leased { verifier: verifier("other"), target }]);
}

#[test]
fn only_strangers_end_a_new_session_in_a_second_and_name_their_vocabulary() {
    let other = Vocabulary { fingerprint: [8; 8], ..VOCABULARY };
    let mut bench = Bench::new(config(2));
    bench.presence("desk", &VerifierPresence { vocabulary: other, ..presence() });
    bench.say(&PROMPT, reply(9));
    assert_eq!((bench.sent(), bench.until_timer()), (vec![], 1_000));
    bench.ring();
    let end = DeviceEvent::Finished(Finish::Refused(RefusalReason::Vocabulary(other)));
    assert_eq!(bench.happened(), [end]);
    // A fitting verifier that appears in time is asked.
    let mut bench = Bench::new(config(2));
    bench.presence("desk", &VerifierPresence { vocabulary: other, ..presence() });
    bench.say(&PROMPT, reply(9));
    bench.wait(999);
    bench.presence("late", &presence());
    assert!(matches!(bench.sent().as_slice(), [Sent::Open(_)]));
}

#[test]
fn a_device_that_trusts_itself_is_ended_by_no_stranger() {
    let mut bench = Bench::new(DeviceConfig { offline: Offline::Trust, ..config(2) });
    bench.presence(
        "desk",
        &VerifierPresence { vocabulary: Vocabulary { fingerprint: [8; 8], ..VOCABULARY }, ..presence() },
    );
    bench.say(&PROMPT, reply(9));
    assert_eq!(bench.until_timer(), GIVE_UP_MS);
    bench.ring();
    assert_eq!(bench.happened(), [DeviceEvent::GaveUp]);
}

#[test]
fn a_verifier_that_fell_silent_is_left_for_another() {
    let mut bench = Bench::leased(config(2));
    bench.presence("other", &presence());
    bench.drafts_until_frame();
    for _ in 0..2 {
        bench.ring();
        bench.frame_sent();
    }
    bench.ring(); // the lease is given up
    bench.ring(); // no verdict since the last request, so the next one waits
    assert!(matches!(bench.sent().as_slice(), [Sent::Open(_)]));
    assert_eq!(bench.asked, Some(verifier("other")));
}

#[test]
fn a_verifier_that_refuses_is_left_for_another_at_once() {
    let mut bench = Bench::new(config(2));
    bench.presence("other", &presence());
    bench.say(&PROMPT, reply(9));
    assert!(matches!(bench.sent().as_slice(), [Sent::Open(_)]));
    let first = bench.asked.clone();
    bench.refuse(RefusalReason::Full);
    assert!(matches!(bench.sent().as_slice(), [Sent::Open(_)]));
    assert!(bench.asked.is_some() && bench.asked != first);
    bench.refuse(RefusalReason::Full);
    assert_eq!(bench.sent(), [], "all were asked, so the next request waits");
    bench.ring();
    assert!(matches!(bench.sent().as_slice(), [Sent::Open(_)]));
    assert_eq!(bench.asked, first, "and begins with the best");
}

#[test]
fn a_close_that_names_neither_nonce_nor_frame_is_stale() {
    let mut bench = Bench::under_way(config(2), &[4, 5], &[]);
    bench.happened();
    use CloseReason::{Draining, Failed, Policy, Rejected, Unknown};
    for (stale, reason) in (1..).zip([Unknown, Draining, Failed, Rejected, Policy]) {
        let foreign = if reason == Unknown { 10 } else { 11 };
        bench.down(&Down::Closed(Closed { session: 7, epoch: EPOCH, nonce: foreign, reason }));
        assert_eq!((bench.happened(), bench.sent()), (vec![], vec![]), "{reason:?}");
        assert_eq!(bench.device.counters().stale, stale);
    }
    bench.closed(EPOCH, Unknown);
    bench.ring();
    assert!(matches!(bench.sent().as_slice(), [Sent::Open(_)]));
}

#[test]
fn a_resync_or_verdict_of_another_round_or_send_is_stale() {
    let mut bench = Bench::under_way(config(2), &[4, 5], &[]);
    bench.happened();
    let resync = Resync { session: 7, epoch: EPOCH, round: 2, length: 0, digest: digest(&[]).full() };
    bench.down(&Down::Resync(resync));
    assert_eq!((bench.sent(), bench.device.counters().stale), (vec![], 1));
    let verdict = bench.verdict_of(2, 6);
    bench.down(&Down::Verdict(Verdict { send: 2, ..verdict }));
    assert_eq!((bench.happened(), bench.device.counters().stale), (vec![], 2), "it was sent once");
    bench.ring();
    bench.frame_sent();
    bench.down(&Down::Verdict(Verdict { send: 1, ..verdict }));
    assert_eq!(bench.happened().len(), 3, "an answer to any send counts");
}

#[test]
fn verifiers_without_end_take_a_bounded_room() {
    let mut device = Device::new(config(2), bench::session(), Learned::default()).expect("valid settings");
    let bytes = presence().encode().expect("a valid presence");
    let now = dunlin_hlm::time::Instant(0);
    (0..CANDIDATES_MAX + 9).for_each(|n| device.handle_presence(&verifier(&format!("v{n}")), &bytes, now));
    let kept = (0..CANDIDATES_MAX + 9).filter(|n| device.verifier(&verifier(&format!("v{n}"))).is_some());
    assert_eq!(kept.count(), CANDIDATES_MAX);
}

#[test]
fn a_first_lease_is_no_change() {
    let mut bench = Bench::new(config(2));
    bench.say(&PROMPT, reply(9));
    bench.sent();
    bench.lease(&lease(EPOCH, &[]));
    assert_eq!((bench.happened(), bench.device.target()), (vec![leased()], None));
    bench.sent();
    bench.drafts_until_frame();
    bench.verdict(0, 9);
    let origins: Vec<_> = bench
        .happened()
        .iter()
        .filter_map(|event| if let DeviceEvent::Committed(c) = event { Some(c.origin) } else { None })
        .collect();
    assert_eq!(origins, [Origin::Target]);
    assert_eq!(bench.device.target().map(|target| target.id), Some(TARGET));
}
