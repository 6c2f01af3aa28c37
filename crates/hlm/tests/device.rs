//! The device's rules one by one: in a whole session the protocol's recovery would hide a broken rule.

mod bench;
mod machines;

use Origin::{Accepted, Target, Unverified};
use bench::{Bench, EPOCH, GIVE_UP_MS, PROMPT, STOP, Sent, committed, config, lease, leased, reply};
use dunlin_hlm::TokenId;
use dunlin_hlm::device::{
    DeviceConfig, DeviceEvent, DraftJobId, DraftRow, Finish, Learned, Offline, Origin, Phase, SayError,
};
use dunlin_hlm::importance::{received, row};
use dunlin_hlm::policy::{ImportanceForm, PolicyTable, Rules};
use dunlin_hlm::time::Duration;
use dunlin_hlm::uncertainty::{Unit, to_score4};
use dunlin_wire::{Close, CloseReason, DecodeError, Down, Lease, RefusalReason, Resync, Verdict};
use machines::{SIZE, digest, sure};

#[test]
fn a_prompt_that_is_not_taken_changes_nothing() {
    let mut bench = Bench::new(config(2));
    let long = [1; 64];
    let cases: [(&[TokenId], usize, SayError); 5] = [
        (&[], 5, SayError::Empty),
        (&PROMPT, 0, SayError::Empty),
        (&[1, SIZE], 5, SayError::UnknownToken(SIZE)),
        (&long, 5, SayError::TooLong { length: 64, limit: 64 }),
        (&[1; 65], 5, SayError::TooLong { length: 65, limit: 64 }),
    ];
    for (prompt, tokens_max, error) in cases {
        assert_eq!(bench.device.say(prompt, reply(tokens_max), bench.now), Err(error));
        assert_eq!((bench.happened(), bench.sent()), (vec![], vec![]));
        assert_eq!(bench.device.text(), []);
        assert_eq!((bench.drafter(), bench.device.phase()), (None, Phase::Idle));
    }
    bench.say(&long[..63], reply(5));
    assert_eq!(bench.device.say(&PROMPT, reply(5), bench.now), Err(SayError::Busy));
    assert_eq!((bench.happened(), bench.device.phase()), (vec![], Phase::Waiting), "the first goes on");
    assert_eq!(bench.device.text(), &long[..63]);
    bench.device.close();
    assert_eq!(bench.device.say(&PROMPT, reply(5), bench.now), Err(SayError::Closed));
    assert_eq!(bench.device.text(), &long[..63]);
}

#[test]
fn a_lease_with_a_shorter_context_bounds_the_next_prompt() {
    let mut bench = Bench::new(config(2));
    bench.say(&PROMPT, reply(1));
    bench.sent();
    bench.lease(&Lease { context_tokens_max: 6, ..lease(EPOCH, &[]) });
    bench.sent();
    bench.verdict(0, 4);
    let error = SayError::TooLong { length: 6, limit: 6 };
    assert_eq!(bench.device.say(&[5, 6], reply(1), bench.now), Err(error));
    bench.say(&[5], reply(1));
}

#[test]
fn a_verdict_with_one_wrong_field_is_stale() {
    let mut bench = Bench::under_way(config(2), &[4, 5], &[]);
    let good = bench.verdict_of(2, 6);
    let bad = [
        Verdict { session: 8, ..good },
        Verdict { epoch: EPOCH - 1, ..good },
        Verdict { round: 2, ..good },
        Verdict { check: good.check ^ 1, ..good },
        Verdict { accepted: 3, ..good },
        Verdict { token: SIZE, ..good },
    ];
    bench.happened();
    for (i, verdict) in bad.into_iter().enumerate() {
        bench.down(&Down::Verdict(verdict));
        assert_eq!((bench.happened(), bench.sent()), (vec![], vec![]), "{verdict:?}");
        assert_eq!((bench.device.text(), bench.provisional()), (&PROMPT[..], vec![4, 5]));
        assert_eq!(bench.device.counters().stale, i as u64 + 1);
    }
    assert_eq!(bench.device.counters().rounds, 0);
    bench.down(&Down::Verdict(good));
    assert_eq!(bench.device.text(), [1, 2, 3, 4, 5, 6]);
    bench.down(&Down::Verdict(good));
    assert_eq!((bench.device.text().len(), bench.device.counters().stale), (6, 7), "once is enough");
}

#[test]
fn an_answer_to_another_request_is_stale() {
    let mut bench = Bench::new(config(2));
    bench.say(&PROMPT, reply(9));
    bench.open_sent();
    let good = lease(EPOCH, &[]);
    let bad = [
        Lease { session: 8, ..good.clone() },
        Lease { epoch: EPOCH - 1, ..good.clone() },
        Lease { nonce: 11, ..good.clone() },
    ];
    for lease in bad {
        bench.lease(&lease);
        assert_eq!((bench.happened(), bench.sent()), (vec![], vec![]), "{lease:?}");
    }
    assert_eq!(bench.device.counters().stale, 3);
    bench.lease(&good);
    assert_eq!(bench.happened(), [leased()]);
    bench.sent();
    bench.lease(&good);
    assert_eq!((bench.happened(), bench.sent(), bench.device.counters().stale), (vec![], vec![], 4));
}

#[test]
fn a_token_that_was_not_foreseen_follows_the_accepted_drafts() {
    let mut bench = Bench::under_way(config(2), &[4, 5], &[]);
    assert_eq!(bench.drafter(), Some((4, vec![5])));
    bench.verdict(2, 9);
    let commits = [committed(3, 4, Accepted), committed(4, 5, Accepted), committed(5, 9, Target)];
    assert_eq!(bench.happened(), commits);
    // The run behind the rejected drafts is still under way: its row belongs to a text that is gone.
    bench.draft(6);
    assert_eq!((bench.provisional(), bench.drafter()), (vec![], Some((5, vec![9]))));
    assert_eq!(bench.device.counters().drafted, 2);
}

#[test]
fn a_token_that_was_foreseen_keeps_what_was_drafted_ahead() {
    let mut bench = Bench::under_way(config(2), &[4, 5], &[6, 7]);
    let running = bench.drafter();
    assert_eq!(running, Some((6, vec![7])));
    bench.verdict(2, 6);
    let commits = [committed(3, 4, Accepted), committed(4, 5, Accepted), committed(5, 6, Accepted)];
    assert_eq!(bench.happened(), commits);
    assert_eq!((bench.provisional(), bench.drafter()), (vec![7], running));
    bench.draft(8);
    let frame = bench.frame_sent();
    assert_eq!((frame.base, frame.prefix), (6, digest(&[1, 2, 3, 4, 5, 6]).short()));
    assert_eq!(frame.drafts.iter().map(|draft| draft.token).collect::<Vec<_>>(), [7, 8]);
}

#[test]
fn a_full_frame_drafted_ahead_is_sent_with_the_verdict() {
    let mut bench = Bench::under_way(config(2), &[4, 5], &[6, 7, 8]);
    assert_eq!(bench.drafter(), None);
    bench.verdict(2, 6);
    assert_eq!(bench.drafts_sent(), [7, 8]);
    assert_eq!(bench.drafter(), Some((7, vec![8])));
}

#[test]
fn a_miss_rolls_back_to_the_accepted_drafts() {
    let mut bench = Bench::under_way(config(2), &[4, 5], &[6]);
    bench.verdict(1, 9);
    assert_eq!(bench.happened(), [committed(3, 4, Accepted), committed(4, 9, Target)]);
    assert_eq!(bench.provisional(), []);
    bench.draft(7);
    assert_eq!((bench.provisional(), bench.drafter()), (vec![], Some((4, vec![9]))));
    let counters = bench.device.counters();
    assert_eq!((counters.accepted, counters.sent_drafts, counters.committed), (1, 2, 2));
}

#[test]
fn a_correction_that_repeats_the_guess_keeps_nothing() {
    // After a rejection the guess at the bonus is at another position than the correction.
    let mut bench = Bench::under_way(config(2), &[4, 5], &[9, 7]);
    bench.verdict(1, 9);
    assert_eq!(bench.happened(), [committed(3, 4, Accepted), committed(4, 9, Target)]);
    assert_eq!(bench.provisional(), []);
}

#[test]
fn a_stop_token_ends_the_reply_inside_a_verdict() {
    let mut bench = Bench::under_way(config(4), &[4, STOP], &[]);
    assert_eq!(bench.drafter(), None, "nothing is drafted behind a stop token");
    bench.verdict(2, 9);
    let events =
        [committed(3, 4, Accepted), committed(4, STOP, Accepted), DeviceEvent::Finished(Finish::Stop)];
    assert_eq!(bench.happened(), events);
    assert_eq!((bench.device.text(), bench.provisional()), (&[1, 2, 3, 4, STOP][..], vec![]));
    assert_eq!((bench.device.phase(), bench.device.poll_timeout()), (Phase::Idle, None));
}

#[test]
fn the_targets_own_stop_token_ends_the_reply() {
    let mut bench = Bench::under_way(config(2), &[4, 5], &[6]);
    bench.verdict(0, STOP);
    assert_eq!(bench.happened(), [committed(3, STOP, Target), DeviceEvent::Finished(Finish::Stop)]);
}

#[test]
fn a_reply_has_exactly_as_many_tokens_as_asked_for() {
    let mut bench = Bench::new(config(8));
    bench.say(&PROMPT, reply(3));
    bench.sent();
    bench.lease(&lease(EPOCH, &PROMPT));
    bench.draft(4);
    bench.draft(5);
    assert_eq!(bench.drafter(), None, "the verdict brings the third");
    assert_eq!(bench.drafts_sent(), [4, 5]);
    bench.happened();
    bench.verdict(2, 6);
    let events = bench.happened();
    assert_eq!(
        events[1..],
        [committed(4, 5, Accepted), committed(5, 6, Target), DeviceEvent::Finished(Finish::TokensMax)]
    );
}

#[test]
fn a_full_context_ends_the_reply() {
    let mut bench = Bench::leased(DeviceConfig { context_tokens_max: 6, ..config(8) });
    bench.draft(4);
    bench.draft(5);
    assert_eq!(bench.drafts_sent(), [4, 5]);
    bench.verdict(2, 6);
    assert_eq!(bench.happened().last(), Some(&DeviceEvent::Finished(Finish::ContextFull)));
    assert_eq!(bench.device.text().len(), 6);
}

#[test]
fn a_lease_too_short_for_the_text_ends_the_reply() {
    let mut bench = Bench::new(config(2));
    bench.say(&PROMPT, reply(9));
    bench.sent();
    bench.lease(&Lease { context_tokens_max: 3, ..lease(EPOCH, &[]) });
    assert_eq!(bench.happened().last(), Some(&DeviceEvent::Finished(Finish::ContextFull)));
    assert_eq!(bench.sent(), []);
}

#[test]
fn the_last_token_is_asked_for_without_drafts() {
    let mut bench = Bench::new(config(2));
    bench.say(&PROMPT, reply(1));
    assert_eq!(bench.drafter(), None);
    bench.sent();
    bench.lease(&lease(EPOCH, &PROMPT));
    assert_eq!((bench.drafts_sent(), bench.drafter()), (vec![], None));
    bench.happened();
    bench.verdict(0, 4);
    assert_eq!(bench.happened(), [committed(3, 4, Target), DeviceEvent::Finished(Finish::TokensMax)]);
}

#[test]
fn a_frame_has_no_more_drafts_than_the_lease_or_the_policy_takes() {
    for (policy, leased, expected) in [(16, 3, 3), (3, 16, 3), (16, 16, 16)] {
        let mut bench = Bench::new(config(policy));
        bench.say(&PROMPT, reply(40));
        bench.sent();
        let drafted: Vec<TokenId> = (4..4 + TokenId::from(policy)).collect();
        drafted.iter().for_each(|token| bench.draft(*token));
        assert_eq!(bench.drafter(), None, "no more than one frame without a lease");
        bench.lease(&Lease { draft_tokens_max: leased, ..lease(EPOCH, &PROMPT) });
        assert_eq!(bench.drafts_sent(), drafted[..expected]);
        assert_eq!(bench.provisional(), drafted, "the rest waits");
    }
}

#[test]
fn an_unanswered_frame_is_sent_again_then_the_lease_is_given_up() {
    let mut bench = Bench::under_way(config(2), &[4, 5], &[6]);
    let bytes = bench.frame.clone();
    // 100 ms of grace, and the least time for a round trip, since the lease was granted at once.
    assert_eq!(bench.until_timer(), 200);
    bench.wait(199);
    bench.device.handle_timeout(bench.now);
    assert_eq!(bench.sent(), []);
    for (next, send) in [(200, 2), (400, 3)] {
        bench.ring();
        bench.frame_sent();
        assert_eq!((&bench.frame, bench.until_timer()), (&Bench::sent_again(&bytes, send), next));
    }
    assert_eq!((bench.device.counters().frames_up, bench.device.counters().resent), (3, 2));
    bench.happened();
    bench.ring();
    assert_eq!(bench.sent(), [], "no verdict came since the last request: the next one waits");
    bench.ring();
    let open = bench.open_sent();
    assert_eq!((open.epoch, open.nonce, open.length), (EPOCH.wrapping_add(1), 10, 3));
    assert_eq!(bench.provisional(), [4, 5, 6]);
    let late = bench.verdict_of(2, 6);
    bench.lease(&lease(0, &PROMPT));
    let frame = bench.frame_sent();
    assert_eq!((frame.epoch, frame.round, frame.base), (0, 1, 3));
    assert_eq!(frame.drafts.iter().map(|draft| draft.token).collect::<Vec<_>>(), [4, 5]);
    bench.down(&Down::Verdict(late));
    assert_eq!((bench.device.text().len(), bench.device.counters().stale), (3, 1));
}

/// Three sends without any sign of the verifier are three in a row; a resync or a new connection is a sign.
#[test]
fn only_sends_in_a_row_without_an_answer_end_the_lease() {
    let mut bench = Bench::under_way(config(2), &[4, 5], &[]);
    for _ in 0..2 {
        bench.ring();
        bench.frame_sent();
    }
    let digest = digest(&PROMPT).full();
    bench.down(&Down::Resync(Resync { session: 7, epoch: EPOCH, round: 1, length: 3, digest }));
    bench.frame_sent();
    for _ in 0..2 {
        bench.ring();
        bench.frame_sent();
    }
    bench.device.handle_link(false, bench.now);
    bench.device.handle_link(true, bench.now);
    bench.frame_sent();
    bench.ring();
    assert_eq!(bench.frame_sent().send, 8);
}

#[test]
fn a_frame_sent_twice_says_nothing_of_the_round_trip() {
    let mut bench = Bench::under_way(config(2), &[4, 5], &[6, 7, 8]);
    bench.ring();
    bench.frame_sent();
    bench.wait(10);
    bench.verdict(2, 6);
    bench.frame_sent();
    assert_eq!(bench.until_timer(), 300, "no frame was measured, and what was doubled stays so");
    bench.wait(100);
    bench.verdict(0, 9);
    bench.draft(4);
    bench.draft(4);
    bench.draft(4);
    bench.frame_sent();
    assert_eq!(bench.until_timer(), 400, "a grace of 100 ms, 100 ms and four deviations of 50 ms");
}

#[test]
fn nothing_is_sent_while_the_link_is_down_and_the_open_frame_is_sent_again() {
    let mut bench = Bench::under_way(config(2), &[4, 5], &[6, 7, 8]);
    let bytes = bench.frame.clone();
    bench.device.handle_link(false, bench.now);
    assert_eq!(bench.until_timer(), GIVE_UP_MS, "no frame counts as unanswered");
    bench.wait(60_000);
    bench.device.handle_timeout(bench.now);
    assert_eq!(bench.sent(), []);
    bench.device.handle_link(true, bench.now);
    bench.frame_sent();
    assert_eq!(bench.frame, Bench::sent_again(&bytes, 2));
    assert_eq!(bench.device.counters().resent, 1);
    bench.verdict(2, 6);
    bench.device.handle_link(false, bench.now);
    assert_eq!(bench.sent(), [], "the next frame waits for the link");
    bench.device.handle_link(true, bench.now);
    assert_eq!(bench.drafts_sent(), [7, 8]);
    assert_eq!(bench.device.counters().resent, 1, "it was never sent before");
}

#[test]
fn a_request_waits_for_the_link_and_is_repeated_at_once_when_it_comes_back() {
    let mut bench = Bench::new(config(2));
    bench.device.handle_link(false, bench.now);
    bench.say(&PROMPT, reply(9));
    assert_eq!((bench.sent(), bench.until_timer()), (vec![], GIVE_UP_MS));
    bench.device.handle_link(true, bench.now);
    bench.open_sent();
    assert_eq!((bench.sent(), bench.until_timer()), (vec![], 2_000), "one request at a time");
    bench.device.handle_link(true, bench.now);
    bench.open_sent();
}

#[test]
fn silence_is_reported_once_and_the_return_too() {
    let mut bench = Bench::under_way(config(2), &[4, 5], &[]);
    bench.device.handle_link(false, bench.now);
    bench.happened();
    bench.ring();
    assert_eq!(bench.happened(), [DeviceEvent::Waiting]);
    assert_eq!(bench.device.poll_timeout(), None);
    bench.wait(GIVE_UP_MS);
    bench.device.handle_timeout(bench.now);
    bench.device.handle_link(true, bench.now);
    assert_eq!(bench.happened(), []);
    bench.frame_sent();
    bench.verdict(0, 9);
    assert_eq!(bench.happened(), [DeviceEvent::Returned, committed(3, 9, Target)]);
}

#[test]
fn a_device_that_trusts_itself_goes_on_unverified_and_returns() {
    let mut bench = Bench::under_way(DeviceConfig { offline: Offline::Trust, ..config(2) }, &[4, 5], &[]);
    bench.device.handle_link(false, bench.now);
    bench.happened();
    bench.ring();
    let events = [DeviceEvent::GaveUp, committed(3, 4, Unverified), committed(4, 5, Unverified)];
    assert_eq!((bench.happened(), bench.device.phase()), (events.to_vec(), Phase::Offline));
    bench.draft(6);
    assert_eq!(bench.happened(), [committed(5, 6, Unverified)]);
    bench.device.handle_link(true, bench.now);
    let open = bench.open_sent();
    assert_eq!((open.epoch, open.length), (0, 6));
    bench.lease(&lease(0, &[]));
    assert_eq!(bench.happened(), [leased(), DeviceEvent::Returned]);
    bench.draft(7);
    bench.draft(8);
    let sent = bench.sent();
    let [Sent::Context(context), Sent::Frame(frame)] = sent.as_slice() else { panic!("{sent:?}") };
    assert_eq!((context.epoch, context.offset, &context.tokens[..]), (0, 0, &[1, 2, 3, 4, 5, 6][..]));
    assert_eq!((frame.base, frame.round), (6, 1));
    bench.verdict(2, 9);
    let commits = [committed(6, 7, Accepted), committed(7, 8, Accepted), committed(8, 9, Target)];
    assert_eq!(bench.happened(), commits);
    assert_eq!((bench.device.counters().unverified, bench.device.counters().committed), (3, 6));
}

#[test]
fn a_lease_that_has_part_of_the_text_gets_the_rest() {
    for (shared, offset) in [(&[1, 2][..], 2), (&[][..], 0)] {
        let mut bench = Bench::new(config(2));
        bench.say(&PROMPT, reply(9));
        bench.sent();
        bench.lease(&lease(EPOCH, shared));
        let sent = bench.sent();
        let [Sent::Context(context)] = sent.as_slice() else { panic!("{sent:?}") };
        assert_eq!((context.offset as usize, &context.tokens[..]), (offset, &PROMPT[offset..]));
        assert_eq!(context.prefix, digest(&PROMPT[..offset]).short());
    }
}

/// Chunks that replace a foreign text may be lost, and then two bytes of prefix would decide between the two texts.
#[test]
fn a_verifier_with_another_text_has_to_forget_it_first() {
    for foreign in [&[1, 9][..], &[1, 2, 3, 4][..]] {
        let mut bench = Bench::new(config(2));
        bench.say(&PROMPT, reply(9));
        assert_eq!(bench.open_sent().length, 3);
        bench.lease(&lease(EPOCH, foreign));
        let open = bench.open_sent();
        assert_eq!((open.epoch, open.length), (0, 0), "the verifier cuts its text to nothing");
        bench.lease(&lease(0, &[]));
        let sent = bench.sent();
        let [Sent::Context(context)] = sent.as_slice() else { panic!("{sent:?}") };
        assert_eq!((context.offset, &context.tokens[..]), (0, &PROMPT[..]));
    }
}

#[test]
fn a_resync_sends_what_is_missing_and_the_frame_again() {
    let mut bench = Bench::under_way(config(2), &[4, 5], &[]);
    let bytes = bench.frame.clone();
    bench.happened();
    for (shared, offset, send) in [(&[1, 2][..], 2, 2), (&[9][..], 0, 3)] {
        let (length, digest) = (shared.len() as u32, digest(shared).full());
        bench.down(&Down::Resync(Resync { session: 7, epoch: EPOCH, round: 1, length, digest }));
        assert_eq!(bench.happened(), [DeviceEvent::Resynced]);
        let sent = bench.sent();
        let [Sent::Context(context), Sent::Frame(_)] = sent.as_slice() else { panic!("{sent:?}") };
        assert_eq!((context.offset, &bench.frame), (offset, &Bench::sent_again(&bytes, send)));
    }
    bench.verdict(0, 9);
    let (length, digest) = (0, digest(&[]).full());
    bench.down(&Down::Resync(Resync { session: 7, epoch: EPOCH, round: 1, length, digest }));
    assert_eq!((bench.sent(), bench.device.counters().stale), (vec![], 1), "no frame asked for it");
}

#[test]
fn a_refusal_for_good_ends_the_reply() {
    for reason in [RefusalReason::Sampling, RefusalReason::TooLong(2)] {
        let mut bench = Bench::new(config(2));
        bench.say(&PROMPT, reply(9));
        bench.open_sent();
        bench.refuse(reason);
        assert_eq!(bench.happened(), [DeviceEvent::Finished(Finish::Refused(reason))]);
        assert_eq!((bench.sent(), bench.device.poll_timeout()), (vec![], None));
    }
}

#[test]
fn a_busy_verifier_is_asked_again_later_and_later() {
    for reason in [RefusalReason::Full, RefusalReason::Draining] {
        let mut bench = Bench::new(config(2));
        bench.say(&PROMPT, reply(9));
        for doubled in [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
            bench.open_sent();
            bench.refuse(reason);
            assert_eq!((bench.happened(), bench.sent()), (vec![], vec![]));
            let wait = bench.until_timer();
            assert!((doubled * 3 / 4..=doubled).contains(&wait), "{wait} ms against {doubled} ms");
            bench.ring();
        }
    }
}

#[test]
fn a_rejected_frame_ends_the_reply() {
    let mut bench = Bench::under_way(config(2), &[4, 5], &[]);
    bench.happened();
    bench.closed(EPOCH, CloseReason::Rejected);
    assert_eq!(bench.happened(), [DeviceEvent::Finished(Finish::Rejected)]);
    assert_eq!((bench.sent(), bench.device.poll_timeout(), bench.provisional()), (vec![], None, vec![]));
    assert_eq!(bench.device.text(), PROMPT);
    // The next request has another epoch, so that late messages of this lease are stale.
    bench.say(&[7], reply(9));
    assert_eq!(bench.open_sent().epoch, EPOCH.wrapping_add(1));
}

#[test]
fn a_lost_lease_is_asked_for_at_once_and_later_where_no_verdict_came_between() {
    for reason in [CloseReason::Unknown, CloseReason::Draining, CloseReason::Failed] {
        let mut bench = Bench::under_way(config(2), &[4, 5], &[6, 7, 8]);
        bench.verdict(2, 6);
        bench.frame_sent();
        bench.closed(EPOCH - 1, reason);
        assert_eq!(bench.sent(), [], "another lease ended");
        bench.closed(EPOCH, reason);
        assert_eq!(bench.open_sent().epoch, 0);
        for (epoch, doubled) in [(0, 500), (1, 1_000), (2, 2_000)] {
            bench.lease(&lease(epoch, &[1, 2, 3, 4, 5, 6]));
            assert_eq!(bench.drafts_sent(), [7, 8]);
            bench.closed(epoch, reason);
            assert_eq!(bench.sent(), []);
            let wait = bench.until_timer();
            assert!((doubled * 3 / 4..=doubled).contains(&wait), "{wait} ms against {doubled} ms");
            bench.ring();
            assert_eq!(bench.open_sent().epoch, epoch + 1);
        }
    }
}

#[test]
fn bytes_that_are_no_message_are_counted_and_reported() {
    let mut bench = Bench::under_way(config(2), &[4, 5], &[]);
    bench.happened();
    let mut long = Down::Verdict(bench.verdict_of(2, 6)).encode().unwrap().to_vec();
    long.push(0);
    bench.device.handle_down(&[], bench.now);
    bench.device.handle_down(&long, bench.now);
    bench.device.handle_reply(&long, bench.now);
    let events = bench.happened();
    assert!(matches!(
        events.as_slice(),
        [DeviceEvent::Malformed(_), DeviceEvent::Malformed(_), DeviceEvent::Malformed(_)]
    ));
    assert_eq!(events[0], DeviceEvent::Malformed(DecodeError::Empty));
    let counters = bench.device.counters();
    assert_eq!((counters.malformed, counters.stale, counters.payload_bytes_down > 0), (3, 0, true));
    assert_eq!((bench.device.text(), bench.provisional()), (&PROMPT[..], vec![4, 5]));
    assert_eq!(bench.sent(), []);
}

#[test]
fn close_is_sent_once_when_the_link_is_up() {
    let mut bench = Bench::under_way(config(2), &[4, 5], &[]);
    bench.happened();
    bench.device.handle_link(false, bench.now);
    bench.device.close();
    assert_eq!((bench.happened(), bench.sent()), (vec![DeviceEvent::Finished(Finish::Cancelled)], vec![]));
    bench.device.handle_link(true, bench.now);
    assert_eq!(bench.sent(), [Sent::Close(Close { session: 7, epoch: EPOCH })]);
    bench.device.close();
    assert_eq!((bench.happened(), bench.sent(), bench.device.poll_timeout()), (vec![], vec![], None));
    let mut bench = Bench::new(config(2));
    bench.device.close();
    assert_eq!(bench.sent(), [], "nobody to tell");
}

#[test]
fn a_cancelled_reply_hears_no_verdict_and_the_next_one_starts_clean() {
    let mut bench = Bench::under_way(config(2), &[4, 5], &[6]);
    let late = bench.verdict_of(2, 6);
    bench.device.cancel();
    bench.down(&Down::Verdict(late));
    assert_eq!((bench.device.text(), bench.provisional()), (&PROMPT[..], vec![]));
    bench.say(&[8], reply(9));
    // The run of the cancelled reply ends first.
    bench.draft(7);
    assert_eq!((bench.provisional(), bench.drafter()), (vec![], Some((3, vec![8]))));
    bench.draft(9);
    bench.draft(10);
    let sent = bench.sent();
    let [Sent::Context(context), Sent::Frame(frame)] = sent.as_slice() else { panic!("{sent:?}") };
    assert_eq!((context.offset, &context.tokens[..], frame.round, frame.base), (3, &[8][..], 2, 4));
}

#[test]
fn a_row_of_no_run_is_ignored() {
    let mut bench = Bench::leased(config(4));
    bench.draft(4);
    let row = sure(9);
    let row = DraftRow { logits: &row, attention: None, took: Duration(1), refilled: false };
    for id in [0, 1, 3] {
        bench.device.handle_draft(DraftJobId(id), row, bench.now);
        bench.device.handle_draft_failed(DraftJobId(id), bench.now);
    }
    assert_eq!((bench.provisional(), bench.happened()), (vec![4], vec![]));
}

/// A drafter whose own context is full reads much of the text again before it gives the row.
#[test]
fn the_time_of_a_refill_is_that_of_no_draft() {
    for refilled in [true, false] {
        let mut bench = Bench::leased(config(4));
        bench.draft(4);
        bench.pump();
        let (job, before) = (bench.job.take().expect("a run of one token"), bench.device.record());
        assert_eq!(job.tokens, [4]);
        let row = DraftRow { logits: &sure(5), attention: None, took: Duration(9_000_000), refilled };
        bench.device.handle_draft(job.id, row, bench.now);
        assert_eq!(bench.device.record() == before, refilled);
        assert_eq!(bench.device.counters().refills, u64::from(refilled));
        assert_eq!(bench.provisional(), [4, 5]);
    }
}

#[test]
fn logits_beyond_the_vocabulary_are_ignored() {
    let mut bench = Bench::leased(config(4));
    let mut padded = sure(4);
    padded.resize(40, 99.0);
    bench.give(&padded, None);
    assert_eq!(bench.provisional(), [4]);
}

#[test]
fn a_drafter_without_a_usable_row_ends_the_reply() {
    for logits in [vec![0.0; SIZE as usize - 1], vec![f32::NAN; SIZE as usize], vec![]] {
        let mut bench = Bench::leased(config(4));
        bench.draft(4);
        bench.give(&logits, None);
        assert_eq!(bench.happened(), [DeviceEvent::Finished(Finish::DrafterFailed)]);
        assert_eq!((bench.device.text(), bench.provisional()), (&PROMPT[..], vec![]));
        assert_eq!(bench.drafter(), None);
    }
}

#[test]
fn a_drafter_that_failed_is_fed_from_nothing() {
    let mut bench = Bench::leased(config(4));
    bench.draft(4);
    let job = bench.job.take().unwrap();
    bench.device.handle_draft_failed(job.id, bench.now);
    assert_eq!(bench.happened(), [DeviceEvent::Finished(Finish::DrafterFailed)]);
    bench.say(&[5], reply(9));
    assert_eq!(bench.drafter(), Some((0, vec![1, 2, 3, 5])));
}

#[test]
fn drafting_ahead_stops_at_the_next_frame() {
    let mut bench = Bench::under_way(config(2), &[4, 5], &[6, 7]);
    assert_ne!(bench.drafter(), None);
    bench.draft(8);
    assert_eq!((bench.drafter(), bench.device.phase()), (None, Phase::Waiting));
}

#[test]
fn drafting_ahead_stops_where_the_reply_ends() {
    let mut bench = Bench::new(config(2));
    bench.say(&PROMPT, reply(4));
    bench.sent();
    bench.lease(&lease(EPOCH, &PROMPT));
    [4, 5, 6].into_iter().for_each(|token| bench.draft(token));
    assert_eq!(bench.drafter(), None);
}

#[test]
fn drafting_ahead_stops_where_the_drafts_are_unlikely_to_survive() {
    let mut bench = Bench::leased(config(2));
    bench.draft(4);
    bench.give(&[0.0; SIZE as usize], None);
    assert_eq!(bench.drafts_sent().len(), 2);
    assert_eq!(bench.drafter(), None);
}

#[test]
fn received_importance_is_what_later_drafts_pay() {
    let received_form = PolicyTable {
        draft_tokens_max: Some(4),
        stop_rule: Some(false),
        importance_form: Some(ImportanceForm::Received),
        ..PolicyTable::default()
    };
    let policy = Rules::new(&received_form).unwrap();
    let mut bench = Bench::leased(DeviceConfig { policy, ..config(4) });
    let attention = |j: usize| -> Vec<f32> { (0..3 + j).map(|i| (1 + (i * 5 + j * 3) % 7) as f32).collect() };
    for j in 0..4 {
        bench.give(&sure(4), Some(&attention(j)));
    }
    let frame = bench.frame_sent();
    let sent: Vec<u8> = frame.drafts.iter().map(|draft| draft.importance.get()).collect();
    let score = |unit: Unit| to_score4(unit).get();
    let expected = [
        score(received(&[attention(2), attention(3)], 3).unwrap()),
        score(received(&[attention(3)], 4).unwrap()),
        score(row(&attention(2))),
        score(row(&attention(3))),
    ];
    let rows: Vec<u8> = (0..2).map(|j| score(row(&attention(j)))).collect();
    assert_eq!(sent, expected);
    assert_ne!(sent[..2], rows, "the two forms differ here");
}

#[test]
fn what_was_learned_carries_over_to_the_next_session() {
    let mut bench = Bench::under_way(config(2), &[4, 5], &[]);
    bench.wait(100);
    bench.verdict(1, 9);
    let learned = bench.device.learned();
    let seen = |learned: &Learned| learned.calibration.bins().iter().map(|bin| bin.observed).sum::<f64>();
    assert!((seen(&learned) - 2.0).abs() < 0.01, "one accepted, one rejected");
    let next = Bench::after(config(2), learned.clone());
    assert_eq!(next.device.learned().calibration, learned.calibration);
    assert_eq!(next.device.learned().stop, learned.stop);
    let mut next = next;
    next.say(&PROMPT, reply(9));
    next.sent();
    next.lease(&lease(EPOCH, &PROMPT));
    next.draft(4);
    next.draft(5);
    next.frame_sent();
    assert_eq!(next.until_timer(), 400, "a grace of 100 ms, 100 ms and four deviations of 50 ms");
}

#[test]
fn what_came_behind_the_first_miss_says_nothing_of_the_drafter() {
    let mut bench = Bench::under_way(config(4), &[4, 5, 6, 7], &[8, 10]);
    bench.verdict(1, 9);
    let learned = bench.device.learned();
    let (observed, rejected) = learned
        .calibration
        .bins()
        .iter()
        .fold((0.0, 0.0), |(o, r), bin| (o + bin.observed, r + bin.rejected));
    assert!((observed - 2.0f64).abs() < 0.01 && (rejected - 1.0f64).abs() < 0.01, "{observed} {rejected}");
}

#[test]
fn only_runs_of_one_token_and_rounds_behind_the_first_have_a_price() {
    let mut bench = Bench::leased(config(2));
    let start = Learned::default().stop;
    bench.draft(4);
    assert_eq!(bench.device.learned().stop, start, "a prompt is no draft");
    bench.draft(5);
    let drafted = bench.device.learned().stop;
    assert_ne!(drafted, start);
    bench.frame_sent();
    [6, 7, 8].into_iter().for_each(|token| bench.draft(token));
    let rate = bench.device.learned().stop.rate();
    bench.wait(10_000);
    bench.verdict(2, 6);
    assert_eq!(bench.device.learned().stop.rate(), rate, "the first round pays for its prompt");
    bench.frame_sent();
    bench.wait(100);
    bench.verdict(0, 9);
    assert!(bench.device.learned().stop.rate() > rate);
}

#[test]
fn an_outage_is_no_price_of_a_round() {
    let mut bench = Bench::under_way(config(2), &[4, 5], &[6, 7, 8]);
    bench.verdict(2, 6);
    bench.frame_sent();
    let rate = bench.device.learned().stop.rate();
    bench.device.handle_link(false, bench.now);
    bench.ring();
    bench.device.handle_link(true, bench.now);
    bench.frame_sent();
    bench.verdict(0, 9);
    assert_eq!(bench.device.learned().stop.rate(), rate);
}

#[test]
fn an_outage_that_the_device_went_through_alone_is_no_price_of_a_round() {
    let mut bench = Bench::under_way(DeviceConfig { offline: Offline::Trust, ..config(2) }, &[4, 5], &[6, 7]);
    bench.verdict(2, 6);
    let rate = bench.device.learned().stop.rate();
    bench.device.handle_link(false, bench.now);
    bench.ring();
    assert_eq!(bench.device.phase(), Phase::Offline);
    bench.device.handle_link(true, bench.now);
    let epoch = bench.open_sent().epoch;
    let text = bench.device.text().to_vec();
    bench.lease(&lease(epoch, &text));
    [8, 9, 10].into_iter().for_each(|token| bench.draft(token));
    bench.frame_sent();
    bench.verdict(0, 11);
    assert_eq!(bench.device.learned().stop.rate(), rate);
}

#[test]
fn a_device_that_trusts_itself_ends_its_reply_alone() {
    let mut bench = Bench::new(DeviceConfig { offline: Offline::Trust, ..config(2) });
    bench.device.handle_link(false, bench.now);
    bench.say(&PROMPT, reply(3));
    bench.draft(4);
    bench.draft(5);
    assert_eq!(bench.drafter(), None, "with a verifier the last token is the target's");
    bench.ring();
    bench.draft(6);
    assert_eq!(
        bench.happened()[3..],
        [committed(5, 6, Unverified), DeviceEvent::Finished(Finish::TokensMax)]
    );
    assert_eq!((bench.drafter(), bench.device.poll_timeout()), (None, None));
}

#[test]
fn the_first_round_of_a_later_reply_has_no_price_either() {
    let mut bench = Bench::under_way(config(2), &[4, 5], &[6]);
    bench.verdict(0, STOP);
    let rate = bench.device.learned().stop.rate();
    bench.wait(10_000);
    bench.say(&[8], reply(1));
    bench.sent();
    bench.verdict(0, 9);
    assert_eq!(bench.happened().last(), Some(&DeviceEvent::Finished(Finish::TokensMax)));
    assert_eq!(bench.device.learned().stop.rate(), rate);
}

#[test]
fn the_round_trip_starts_when_the_frame_is_sent() {
    let mut bench = Bench::leased(config(2));
    bench.device.handle_link(false, bench.now);
    [4, 5, 6, 7, 8].into_iter().for_each(|token| bench.draft(token));
    bench.wait(5_000);
    bench.device.handle_link(true, bench.now);
    bench.frame_sent();
    bench.wait(100);
    bench.verdict(2, 6);
    bench.frame_sent();
    assert_eq!(bench.until_timer(), 400, "a grace of 100 ms, 100 ms and four deviations of 50 ms");
}

#[test]
fn a_lease_that_ends_between_two_frames_is_missed_too() {
    let mut bench = Bench::under_way(config(2), &[4, 5], &[]);
    bench.verdict(0, 9);
    bench.closed(EPOCH, CloseReason::Draining);
    bench.open_sent();
    [6, 7].into_iter().for_each(|token| bench.draft(token));
    bench.happened();
    let asked = bench.now;
    while bench.now.since(asked) < Duration::from_millis(GIVE_UP_MS) {
        bench.ring();
        bench.sent();
    }
    assert_eq!(bench.happened(), [DeviceEvent::Waiting]);
}
