//! The device's rules under policies that keep tokens: commits without the verifier, committed tokens that ride along
//! with a frame, verdicts on them, and retransmission.

mod bench;
mod machines;

use Origin::{Accepted, Target, Trusted, Unverified};
use bench::{Bench, EPOCH, GIVE_UP_MS, PROMPT, Sent, committed, config, lease, reply};
use dunlin_hlm::TokenId;
use dunlin_hlm::conformal::STEP;
use dunlin_hlm::device::{DeviceConfig, DeviceEvent, Finish, Offline, Origin, Phase};
use dunlin_hlm::policy::{Policy, PolicyTable, Rules};
use dunlin_wire::limits::CODES_MAX;
use dunlin_wire::{
    CloseReason, Codes, Context, Down, DraftFrame, Lease, Resync, Rows, Verdict, Vocabulary,
    judged_drafts_max, token_bits,
};
use machines::{SIZE, VOCABULARY, digest};

fn with(policy: PolicyTable) -> DeviceConfig {
    DeviceConfig { policy: Rules::new(&policy).expect("valid settings"), ..config(1) }
}

fn of(policy: Policy) -> DeviceConfig {
    with(policy.table())
}

/// Logits of a drafter that slightly prefers `token`.
fn unsure(size: u32, token: TokenId) -> Vec<f32> {
    (0..size).map(|id| if id == token { 1.0 } else { 0.9 }).collect()
}

/// A device that committed 4 and 5 by itself and asks about 6.
fn asking(config: DeviceConfig) -> Bench {
    let mut bench = Bench::leased(config);
    [4, 5].into_iter().for_each(|token| bench.draft(token));
    bench.give(&unsure(SIZE, 6), None);
    bench
}

fn tokens(frame: &DraftFrame) -> Vec<TokenId> {
    frame.drafts.iter().map(|draft| draft.token).collect()
}

/// Splits messages into the parts of weights and the frame behind them.
fn with_codes(sent: &[Sent]) -> (Vec<Codes>, DraftFrame) {
    let Some((Sent::Frame(frame), before)) = sent.split_last() else { panic!("{sent:?} ends with no frame") };
    let codes = before.iter().map(|message| match message {
        Sent::Codes(codes) => codes.as_ref().clone(),
        other => panic!("{other:?} before a frame"),
    });
    (codes.collect(), frame.as_ref().clone())
}

fn context_of(message: &Sent) -> &Context {
    let Sent::Context(context) = message else { panic!("{message:?} is no context") };
    context
}

#[test]
fn what_stays_is_committed_unasked_and_rides_along_with_the_next_frame() {
    let mut bench = asking(of(Policy::UHlm));
    assert_eq!(bench.happened(), [committed(3, 4, Trusted), committed(4, 5, Trusted)]);
    let (codes, frame) = with_codes(&bench.sent());
    assert_eq!((codes.len(), codes[0].codes[6], codes[0].codes.len()), (1, 255, SIZE as usize));
    assert_eq!((frame.base, frame.held, frame.bonus, frame.rows == Rows::Full), (3, 0b011, false, true));
    assert_eq!((tokens(&frame), frame.prefix), (vec![4, 5, 6], digest(&PROMPT).short()));
    assert_eq!((bench.drafter(), bench.provisional()), (None, vec![6]), "nothing is drafted ahead");
    bench.verdict(2, 6);
    assert_eq!(bench.happened(), [committed(5, 6, Accepted)]);
    // The verifier knows its verdict's token, so that token does not ride along.
    bench.draft(7);
    bench.give(&unsure(SIZE, 8), None);
    let (_, frame) = with_codes(&bench.sent());
    assert_eq!((frame.base, frame.round, tokens(&frame)), (6, 2, vec![7, 8]));
    bench.verdict(1, 9);
    assert_eq!(bench.happened(), [committed(6, 7, Trusted), committed(7, 9, Target)]);
    let counters = bench.device.counters();
    assert_eq!((counters.trusted, counters.accepted, counters.sent_drafts, counters.rounds), (3, 1, 2, 2));
}

#[test]
fn what_is_kept_is_not_sent_by_itself() {
    let mut bench = Bench::leased(of(Policy::UHlm));
    for token in [4, 5] {
        bench.draft(token);
        assert_eq!(bench.sent(), [], "it rides along with the next frame");
    }
    bench.give(&unsure(SIZE, 6), None);
    assert_eq!(tokens(&with_codes(&bench.sent()).1), [4, 5, 6]);
}

#[test]
fn a_verdict_that_the_frame_cannot_have_is_stale() {
    let mut bench = asking(of(Policy::UHlm));
    bench.sent();
    bench.happened();
    let good = bench.verdict_of(2, 6);
    for accepted in [0, 1, 3] {
        bench.down(&Down::Verdict(Verdict { accepted, ..good }));
        assert_eq!((bench.happened(), bench.sent()), (vec![], vec![]), "{accepted}");
    }
    assert_eq!((bench.device.counters().stale, bench.provisional()), (3, vec![6]));
    bench.down(&Down::Verdict(good));
    assert_eq!(bench.device.text(), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn what_the_target_would_not_have_chosen_stays_and_is_marked() {
    let epsilon = 0.1;
    let risk = PolicyTable {
        epsilon: Some(epsilon),
        draft_tokens_max: Some(3),
        stop_rule: Some(false),
        ..Policy::Risk.table()
    };
    let mut bench = asking(with(risk));
    let frame = bench.frame_sent();
    assert_eq!((frame.held, frame.bonus, frame.base, bench.frame[0]), (0b011, true, 3, 0x1c));
    let start = bench.device.learned().conformal.expect("it audits").threshold();
    bench.happened();
    let verdict = bench.verdict_of(3, 9);
    bench.down(&Down::Verdict(Verdict { missed: 0b10, ..verdict }));
    let commits = [
        committed(3, 4, Accepted),
        committed(4, 5, Trusted),
        committed(5, 6, Accepted),
        committed(6, 9, Target),
    ];
    assert_eq!(bench.happened(), commits);
    let counters = bench.device.counters();
    assert_eq!((counters.audited, counters.missed, counters.trusted, counters.accepted), (2, 1, 1, 2));
    let fates: Vec<_> = bench.judged.iter().map(|judged| (judged.held, judged.rejected)).collect();
    assert_eq!(fates, [(true, false), (true, true), (false, false)]);
    let moved = bench.device.learned().conformal.expect("it audits").threshold() - start;
    assert!((moved - STEP * (2.0 * f64::from(epsilon) - 1.0)).abs() < 1e-9, "{moved}");
}

#[test]
fn audited_tokens_behind_the_first_miss_are_dropped_with_the_rest() {
    let risk = PolicyTable {
        epsilon: Some(0.1),
        draft_tokens_max: Some(3),
        stop_rule: Some(false),
        ..Policy::Risk.table()
    };
    let mut bench = Bench::leased(with(risk));
    bench.give(&unsure(SIZE, 4), None);
    [5, 6].into_iter().for_each(|token| bench.draft(token));
    assert_eq!(bench.frame_sent().held, 0b110);
    bench.happened();
    bench.verdict(0, 9);
    assert_eq!(bench.happened(), [committed(3, 9, Target)]);
    let counters = bench.device.counters();
    assert_eq!((counters.audited, counters.missed, counters.trusted, bench.judged.len()), (0, 0, 0, 1));
}

#[test]
fn weights_and_frame_are_sent_again_together() {
    let mut bench = Bench::leased(of(Policy::Hlm));
    bench.draft(4);
    let mut first = bench.sent();
    assert_eq!(with_codes(&first).0.len(), 1);
    let bytes = bench.frame.clone();
    bench.ring();
    let again = Bench::sent_again(&bytes, 2);
    let Some(Sent::Frame(frame)) = first.last_mut() else { panic!("no frame") };
    frame.send = 2;
    assert_eq!((bench.sent(), &bench.frame), (first, &again));
    let counters = bench.device.counters();
    assert_eq!((counters.frames_up, counters.resent, counters.sent_drafts), (2, 1, 1));
}

/// A device whose vocabulary has more tokens than one message has weights.
fn wide(size: u32) -> Bench {
    let vocabulary = Vocabulary { size, ..VOCABULARY };
    let mut bench = Bench::leased(DeviceConfig { vocabulary, ..of(Policy::Hlm) });
    bench.give(&unsure(size, 2_000), None);
    bench
}

#[test]
fn all_weights_come_before_their_frame() {
    for (size, last) in [(2 * CODES_MAX + 452, 452), (2 * CODES_MAX, CODES_MAX)] {
        let mut bench = wide(size as u32);
        let (codes, frame) = with_codes(&bench.sent());
        assert_eq!(codes.len(), size.div_ceil(CODES_MAX));
        for (part, codes) in (0..).zip(&codes) {
            assert_eq!((codes.part, codes.round, codes.epoch), (part, frame.round, EPOCH));
        }
        assert_eq!(codes.last().map(|codes| codes.codes.len()), Some(last));
        assert_eq!((codes[1].codes[2_000 - CODES_MAX], tokens(&frame)), (255, vec![2_000]));
    }
}

#[test]
fn a_link_that_drops_between_two_parts_has_all_of_them_sent_again() {
    let mut bench = wide(2_500);
    for _ in 0..2 {
        bench.device.poll_transmit(bench.now).expect("parts");
    }
    bench.device.handle_link(false, bench.now);
    assert_eq!(bench.sent(), []);
    bench.wait(5_000);
    bench.device.handle_link(true, bench.now);
    let (codes, _) = with_codes(&bench.sent());
    assert_eq!(codes.iter().map(|codes| codes.part).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!((bench.device.counters().frames_up, bench.device.counters().resent), (1, 0));
    bench.wait(100);
    bench.verdict(0, 7);
    bench.give(&unsure(2_500, 9), None);
    bench.sent();
    assert_eq!(bench.until_timer(), 400, "the round started when all was sent at last");
}

#[test]
fn a_resync_brings_the_text_up_to_the_frame_and_the_frame_again() {
    let mut bench = asking(of(Policy::UHlm));
    bench.sent();
    let bytes = bench.frame.clone();
    for (shared, offset, send) in [(&[1, 2][..], 2, 2), (&[9][..], 0, 3)] {
        let (length, digest) = (shared.len() as u32, digest(shared).full());
        bench.down(&Down::Resync(Resync { session: 7, epoch: EPOCH, round: 1, length, digest }));
        let sent = bench.sent();
        let context = context_of(&sent[0]);
        assert_eq!((context.offset as usize, &context.tokens[..]), (offset, &PROMPT[offset..]));
        assert_eq!(
            (with_codes(&sent[1..]).0.len(), &bench.frame),
            (1, &Bench::sent_again(&bytes, send)),
            "what rides is in the frame"
        );
    }
}

#[test]
fn a_verifier_that_takes_no_lossy_policy_ends_the_reply() {
    let mut bench = asking(of(Policy::UHlm));
    bench.sent();
    bench.happened();
    bench.closed(EPOCH - 1, CloseReason::Policy);
    assert_eq!(bench.happened(), [], "another lease's");
    bench.closed(EPOCH, CloseReason::Policy);
    assert_eq!(bench.happened(), [DeviceEvent::Finished(Finish::LossyRefused)]);
    assert_eq!((bench.sent(), bench.device.poll_timeout(), bench.provisional()), (vec![], None, vec![]));
    bench.say(&[7], reply(9));
    assert_eq!(bench.open_sent().epoch, EPOCH.wrapping_add(1));
}

#[test]
fn where_the_lease_takes_one_draft_nothing_rides() {
    for (most, rides) in [(1, false), (2, false), (3, true)] {
        let mut bench = Bench::new(of(Policy::UHlm));
        bench.say(&PROMPT, reply(40));
        bench.sent();
        bench.lease(&Lease { draft_tokens_max: most, ..lease(EPOCH, &PROMPT) });
        [4, 5].into_iter().for_each(|token| bench.draft(token));
        bench.give(&unsure(SIZE, 6), None);
        let sent = bench.sent();
        let frame = with_codes(&sent[usize::from(!rides)..]).1;
        if rides {
            assert_eq!((frame.base, tokens(&frame)), (3, vec![4, 5, 6]));
            continue;
        }
        assert_eq!((context_of(&sent[0]).offset, &context_of(&sent[0]).tokens[..]), (3, &[4, 5][..]));
        assert_eq!((frame.base, frame.held, tokens(&frame)), (5, 0, vec![6]));
        bench.happened();
        bench.verdict(0, 6);
        assert_eq!(bench.happened(), [committed(5, 6, Accepted)]);
    }
}

#[test]
fn fifteen_ride_and_sixteen_go_as_context() {
    for (count, rides) in [(15, true), (16, false)] {
        let mut bench = Bench::leased(of(Policy::UHlm));
        (0..count).for_each(|i| bench.draft(4 + i));
        bench.give(&unsure(SIZE, 30), None);
        let sent = bench.sent();
        let frame = with_codes(&sent[usize::from(!rides)..]).1;
        assert_eq!(frame.drafts.len(), if rides { 16 } else { 1 });
        assert!(rides || context_of(&sent[0]).tokens.len() == 16);
    }
}

#[test]
fn what_the_first_reply_kept_is_context_of_the_second() {
    let mut bench = Bench::new(of(Policy::UHlm));
    bench.say(&PROMPT, reply(3));
    bench.sent();
    bench.lease(&lease(EPOCH, &PROMPT));
    [4, 5, 6].into_iter().for_each(|token| bench.draft(token));
    assert_eq!(bench.happened().last(), Some(&DeviceEvent::Finished(Finish::TokensMax)));
    assert_eq!((bench.sent(), bench.drafter()), (vec![], None), "no frame to ride along with");
    bench.say(&[8], reply(9));
    bench.draft(9);
    bench.give(&unsure(SIZE, 10), None);
    let sent = bench.sent();
    assert_eq!((context_of(&sent[0]).offset, &context_of(&sent[0]).tokens[..]), (3, &[4, 5, 6, 8][..]));
    let (_, frame) = with_codes(&sent[1..]);
    assert_eq!((frame.base, tokens(&frame)), (7, vec![9, 10]));
}

#[test]
fn without_a_lease_a_trusting_device_goes_on_until_it_must_ask() {
    let mut bench = Bench::new(of(Policy::UHlm));
    bench.say(&PROMPT, reply(40));
    bench.open_sent();
    [4, 5].into_iter().for_each(|token| bench.draft(token));
    assert_eq!(bench.happened(), [committed(3, 4, Trusted), committed(4, 5, Trusted)]);
    bench.give(&unsure(SIZE, 6), None);
    assert_eq!((bench.happened(), bench.drafter(), bench.sent()), (vec![], None, vec![]));
    assert_eq!((bench.device.phase(), bench.provisional()), (Phase::Waiting, vec![6]));
    bench.lease(&lease(EPOCH, &[]));
    let sent = bench.sent();
    assert_eq!(context_of(&sent[0]).tokens, PROMPT);
    assert_eq!(tokens(&with_codes(&sent[1..]).1), [4, 5, 6]);
}

#[test]
fn a_local_device_needs_no_link() {
    let mut bench = Bench::new(of(Policy::Local));
    bench.device.handle_link(false, bench.now);
    bench.say(&PROMPT, reply(3));
    for token in [4, 5, 6] {
        assert_eq!(bench.device.poll_timeout(), None, "nobody is waited for");
        bench.give(&unsure(SIZE, token), None);
    }
    let done = [committed(4, 5, Trusted), committed(5, 6, Trusted), DeviceEvent::Finished(Finish::TokensMax)];
    assert_eq!(bench.happened()[1..], done);
    bench.device.handle_link(true, bench.now);
    bench.say(&[7], reply(1));
    assert_eq!((bench.sent(), bench.device.poll_timeout()), (vec![], None));
}

#[test]
fn a_device_that_asks_nothing_is_not_kept_waiting() {
    for offline in [Offline::Wait, Offline::Trust] {
        let mut bench = Bench::leased(DeviceConfig { offline, ..of(Policy::UHlm) });
        bench.draft(4);
        assert_eq!(bench.device.poll_timeout(), None, "nothing is unanswered");
        bench.wait(2 * GIVE_UP_MS);
        bench.device.handle_timeout(bench.now);
        bench.draft(5);
        assert_eq!(bench.happened(), [committed(3, 4, Trusted), committed(4, 5, Trusted)]);
        // From here on a frame is under way.
        bench.device.handle_link(false, bench.now);
        bench.give(&unsure(SIZE, 6), None);
        assert_eq!(bench.until_timer(), GIVE_UP_MS);
    }
}

#[test]
fn a_trusting_device_that_gave_up_marks_what_it_would_have_asked_for() {
    let mut bench = asking(DeviceConfig { offline: Offline::Trust, ..of(Policy::UHlm) });
    bench.sent();
    bench.device.handle_link(false, bench.now);
    bench.happened();
    bench.ring();
    assert_eq!(bench.happened(), [DeviceEvent::GaveUp, committed(5, 6, Unverified)]);
    bench.draft(7);
    assert_eq!(bench.happened(), [committed(6, 7, Unverified)]);
    bench.device.handle_link(true, bench.now);
    assert_eq!(bench.open_sent().length, 7);
    bench.lease(&lease(0, &PROMPT));
    bench.give(&unsure(SIZE, 8), None);
    let (_, frame) = with_codes(&bench.sent());
    assert_eq!((frame.base, tokens(&frame)), (3, vec![4, 5, 6, 7, 8]), "they ride as any token kept");
}

#[test]
fn a_frame_has_no_more_rows_than_it_has_room_for() {
    let (size, entries, resolution) = (32_000, 64, 255);
    let sparse = PolicyTable {
        payload_entries: Some(entries),
        resolution: Some(resolution),
        stop_rule: Some(false),
        ..Policy::LosslessSparse.table()
    };
    let vocabulary = Vocabulary { size, ..VOCABULARY };
    let mut bench = Bench::leased(DeviceConfig { vocabulary, ..with(sparse) });
    let room = judged_drafts_max(token_bits(size), entries.into(), Some(resolution));
    assert!(room < 16, "{room}");
    let row: Vec<f32> = (0..size).map(|id| if id == 5 { 40.0 } else { 0.0 }).collect();
    (0..room).for_each(|_| bench.give(&row, None));
    let frame = bench.frame_sent();
    assert_eq!((frame.drafts.len(), frame.rows.list().len()), (room, room));
}
