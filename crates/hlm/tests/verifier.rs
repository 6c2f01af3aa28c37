//! The verifier's rules one by one: in a whole session the protocol's recovery would hide a broken rule.

mod desk;
mod machines;

use desk::{
    Desk, EPOCH, IDLE_MS, PROMPT, SESSION, closed, config, context, device, frame, open, resync, rows,
    unknown, verdict,
};
use dunlin_hlm::TokenId;
use dunlin_hlm::coupling::couple;
use dunlin_hlm::probabilities::{Distribution, Sampling};
use dunlin_hlm::time::{Duration, Instant};
use dunlin_hlm::verifier::{OUTBOX_MAX, RowsError, Slot, Verifier, VerifierConfig, VerifierEvent, VerifyJob};
use dunlin_wire::limits::{DRAFT_TOKENS_MAX, SESSION_TOKENS_MAX, VOCABULARY_SIZE_MAX};
use dunlin_wire::{
    Close, CloseReason, Closed, Context, Credit, Down, DraftFrame, LogTime, Open, Price, RefusalReason,
    Reply, SamplingParams, Vocabulary,
};
use machines::{SIZE, VOCABULARY, digest};

#[test]
fn a_frame_behind_the_text_cuts_it_and_is_answered() {
    let mut desk = Desk::leased();
    let first = frame(1, &PROMPT, &[4, 5]);
    assert_eq!(desk.round(0, &first, &[4, 5, 6]), [verdict(&first, 2, 6)]);
    // The device kept only the first token of that verdict.
    let second = frame(2, &[1, 2, 3, 4], &[9]);
    desk.frame(0, &second);
    let job = desk.job();
    assert_eq!((job.keep, job.tokens.as_slice(), job.rows), (3, [4, 9].as_slice(), 2));
    desk.give(&job, Ok(&rows(&[9, 10])));
    assert_eq!(desk.said(), [verdict(&second, 1, 10)]);
    let third = frame(3, &[1, 2, 3, 4, 9, 10], &[]);
    assert_eq!(desk.round(0, &third, &[11]), [verdict(&third, 0, 11)]);
}

#[test]
fn the_same_frame_gets_the_same_answer_and_no_second_run() {
    let mut desk = Desk::leased();
    let asked = frame(1, &PROMPT, &[4, 5]);
    let first = desk.round(0, &asked, &[4, 8, 0]);
    assert_eq!(first, [verdict(&asked, 1, 8)]);
    desk.frame(0, &asked);
    assert_eq!(desk.events(), []);
    assert_eq!(desk.said(), first);
    let counters = *desk.verifier.counters();
    assert_eq!((counters.verdicts, counters.repeated, counters.stale), (1, 1, 0));
    // The repeated answer did not append to the text again.
    let lease = desk.lease(0, &open(EPOCH, 15));
    assert_eq!((lease.length, lease.digest), (5, digest(&[1, 2, 3, 4, 8]).full()));
}

#[test]
fn an_older_round_is_ignored() {
    let mut desk = Desk::leased();
    let asked = frame(5, &PROMPT, &[4]);
    desk.round(0, &asked, &[4, 5]);
    desk.frame(0, &frame(4, &PROMPT, &[4]));
    desk.assert_quiet();
    assert_eq!(desk.verifier.counters().stale, 1);
}

#[test]
fn a_round_that_is_being_verified_or_older_is_ignored() {
    let mut desk = Desk::leased();
    let asked = frame(5, &PROMPT, &[4]);
    desk.frame(0, &asked);
    let job = desk.job();
    desk.frame(0, &asked);
    desk.frame(0, &frame(4, &PROMPT, &[8]));
    desk.assert_quiet();
    assert_eq!(desk.verifier.counters().stale, 2);
    desk.give(&job, Ok(&rows(&[4, 5])));
    assert_eq!(desk.said(), [verdict(&asked, 1, 5)]);
    assert_eq!(desk.events(), []);
}

#[test]
fn a_newer_frame_during_the_work_supersedes_it() {
    let mut desk = Desk::leased();
    desk.frame(0, &frame(1, &PROMPT, &[4]));
    let old = desk.job();
    let newer = frame(3, &[1, 2], &[5]);
    desk.frame(0, &newer);
    desk.frame(0, &frame(2, &PROMPT, &[6]));
    desk.assert_quiet();
    desk.give(&old, Ok(&rows(&[4, 9])));
    assert_eq!(desk.said(), [], "the older frame gets no verdict");
    let job = desk.job();
    assert_eq!((job.keep, job.tokens.as_slice()), (1, [2, 5].as_slice()));
    desk.give(&job, Ok(&rows(&[5, 6])));
    assert_eq!(desk.said(), [verdict(&newer, 1, 6)]);
    assert_eq!(desk.verifier.counters().verdicts, 1);
}

#[test]
fn context_that_changes_the_text_during_the_work_voids_the_result() {
    for change in [context(&PROMPT, &[9]), context(&[1, 2], &[9])] {
        let mut desk = Desk::leased();
        desk.frame(0, &frame(1, &PROMPT, &[4]));
        let job = desk.job();
        desk.context(0, &change);
        desk.give(&job, Ok(&rows(&[4, 5])));
        desk.assert_quiet();
        assert_eq!((desk.verifier.counters().stale, desk.verifier.counters().verdicts), (1, 0));
        // The round was not answered, so the device may send it again.
        let text: Vec<TokenId> = if change.offset == 3 { vec![1, 2, 3, 9] } else { vec![1, 2, 9] };
        let again = frame(1, &text, &[]);
        assert_eq!(desk.round(0, &again, &[6]), [verdict(&again, 0, 6)]);
    }
}

#[test]
fn context_that_is_known_changes_nothing() {
    let mut desk = Desk::leased();
    desk.context(0, &context(&PROMPT, &[4, 5]));
    desk.context(0, &context(&[], &PROMPT));
    desk.context(0, &context(&[1], &[2, 3, 4]));
    let asked = frame(1, &[1, 2, 3, 4, 5], &[6]);
    desk.frame(0, &asked);
    let job = desk.job();
    desk.context(0, &context(&[], &PROMPT));
    desk.give(&job, Ok(&rows(&[6, 7])));
    assert_eq!(desk.said(), [verdict(&asked, 1, 7)]);
    assert_eq!(desk.verifier.counters().stale, 0);
}

#[test]
fn context_that_differs_replaces_what_was_there() {
    let mut desk = Desk::leased();
    desk.context(0, &context(&[1], &[2, 8]));
    desk.frame(0, &frame(1, &[1, 2, 8], &[]));
    assert_eq!(desk.job().tokens, [1, 2, 8]);
}

#[test]
fn a_gap_is_left_to_the_frame_which_says_what_is_missing() {
    let mut desk = Desk::leased();
    desk.context(0, &context(&[1, 2, 3, 4, 5], &[6]));
    desk.assert_quiet();
    desk.context(0, &context(&[1, 9], &[6]));
    desk.assert_quiet();
    assert_eq!(desk.verifier.counters().stale, 2);
    desk.frame(0, &frame(1, &[1, 2, 3, 4, 5, 6], &[7]));
    assert_eq!((desk.events(), desk.said()), (vec![], vec![resync(1, &PROMPT)]));
    // A resync is no answer: once the context arrived, the same round is verified.
    desk.context(0, &context(&PROMPT, &[4, 5, 6]));
    let asked = frame(1, &[1, 2, 3, 4, 5, 6], &[7]);
    assert_eq!(desk.round(0, &asked, &[7, 8]), [verdict(&asked, 1, 8)]);
}

#[test]
fn a_prefix_that_differs_asks_for_context() {
    let mut desk = Desk::leased();
    desk.frame(0, &frame(1, &[1, 2, 9], &[4]));
    assert_eq!((desk.events(), desk.said()), (vec![], vec![resync(1, &PROMPT)]));
    // The reported length is at most that of the device's text.
    desk.frame(0, &frame(1, &[1, 9], &[4]));
    assert_eq!((desk.events(), desk.said()), (vec![], vec![resync(1, &[1, 2])]));
    assert_eq!(desk.verifier.counters().resyncs, 2);
}

#[test]
fn a_frame_without_drafts_gives_one_token() {
    let mut desk = Desk::leased();
    let asked = frame(1, &PROMPT, &[]);
    desk.frame(0, &asked);
    let job = desk.job();
    assert_eq!((job.tokens.as_slice(), job.rows), (PROMPT.as_slice(), 1));
    desk.give(&job, Ok(&rows(&[4])));
    assert_eq!(desk.said(), [verdict(&asked, 0, 4)]);
}

#[test]
fn a_frame_beyond_what_is_served_is_rejected() {
    let long: Vec<TokenId> = (1..=13).collect();
    let wide = DraftFrame { token_bits: 9, ..frame(1, &PROMPT, &[4]) };
    let cases = [
        ("unknown token", frame(1, &PROMPT, &[4, SIZE])),
        ("token_bits", wide),
        ("too many drafts", frame(1, &PROMPT, &[4, 5, 6, 7, 8])),
        ("beyond the context", frame(1, &long, &[4, 5, 6])),
        ("no text", frame(1, &[], &[4])),
    ];
    for (name, asked) in cases {
        let mut desk = Desk::leased();
        desk.context(0, &context(&PROMPT, &long[3..]));
        desk.frame(0, &asked);
        assert_eq!(desk.said(), [closed(EPOCH, CloseReason::Rejected)], "{name}");
        assert!(matches!(desk.events().as_slice(), [VerifierEvent::Release(_)]), "{name}");
        assert_eq!(desk.verifier.sessions(), 0, "{name}");
    }
}

#[test]
fn a_frame_at_every_limit_is_verified() {
    let long: Vec<TokenId> = (1..=11).collect();
    let mut desk = Desk::leased();
    desk.context(0, &context(&PROMPT, &long[3..]));
    let asked = frame(1, &long, &[SIZE - 1; 4]);
    assert_eq!(desk.round(0, &asked, &[SIZE - 1; 5]), [verdict(&asked, 4, SIZE - 1)]);
}

#[test]
fn context_beyond_what_is_served_is_rejected() {
    let long: Vec<TokenId> = (4..=16).collect();
    let wide = Context { token_bits: 9, ..context(&PROMPT, &[4]) };
    for bad in [context(&PROMPT, &[SIZE]), context(&PROMPT, &long), wide] {
        let mut desk = Desk::leased();
        desk.context(0, &bad);
        assert_eq!(desk.said(), [closed(EPOCH, CloseReason::Rejected)]);
    }
    let mut desk = Desk::leased();
    desk.context(0, &context(&PROMPT, &long[1..]));
    desk.assert_quiet();
}

#[test]
fn an_unknown_lease_is_told_so_under_its_own_epoch() {
    let mut desk = Desk::new(config());
    desk.frame(0, &frame(1, &PROMPT, &[]));
    assert_eq!(desk.said(), [unknown(&frame(1, &PROMPT, &[]))]);
    desk.context(0, &context(&[], &PROMPT));
    desk.assert_quiet(); // the frame behind it will be answered
    let mut desk = Desk::leased();
    for epoch in [EPOCH - 1, EPOCH + 1] {
        let foreign = DraftFrame { epoch, ..frame(1, &PROMPT, &[]) };
        desk.frame(0, &foreign);
        desk.context(0, &Context { epoch, ..context(&[], &[9]) });
        assert_eq!(desk.said(), [unknown(&foreign)]);
    }
    desk.frame(1, &frame(1, &PROMPT, &[]));
    assert_eq!(desk.said(), [unknown(&frame(1, &PROMPT, &[]))], "another device's session is no one's");
    assert_eq!(desk.verifier.counters().stale, 5);
    let asked = frame(1, &PROMPT, &[]);
    assert_eq!(desk.round(0, &asked, &[4]), [verdict(&asked, 0, 4)]);
}

#[test]
fn epoch_zero_is_newer_than_255_and_older_requests_are_ignored() {
    let mut desk = Desk::new(config());
    assert_eq!(desk.lease(0, &open(255, 3)).epoch, 255);
    assert_eq!(desk.lease(0, &open(0, 3)).epoch, 0);
    for older in [255, 254, 128] {
        assert_eq!(desk.open(0, &open(older, 3)), None, "epoch {older}");
    }
    assert_eq!(desk.verifier.counters().stale, 3);
    desk.context(0, &Context { epoch: 0, ..context(&[], &PROMPT) });
    desk.assert_quiet();
    assert_eq!(desk.lease(0, &open(127, 3)).epoch, 127);
}

#[test]
fn a_new_epoch_keeps_the_text_and_forgets_rounds_and_work() {
    let mut desk = Desk::leased();
    let first = frame(1, &PROMPT, &[4]);
    desk.round(0, &first, &[4, 5]);
    desk.frame(0, &frame(2, &[1, 2, 3, 4, 5], &[6]));
    let job = desk.job();
    desk.frame(0, &frame(3, &[1, 2, 3, 4, 5], &[7]));
    let lease = desk.lease(0, &open(EPOCH + 1, 4));
    assert_eq!((lease.length, lease.digest), (4, digest(&[1, 2, 3, 4]).full()));
    desk.give(&job, Ok(&rows(&[6, 7])));
    desk.assert_quiet();
    let again = DraftFrame { epoch: EPOCH + 1, ..frame(1, &[1, 2, 3, 4], &[]) };
    desk.frame(0, &again);
    let job = desk.job();
    assert_eq!((job.keep, job.tokens.as_slice()), (3, [4].as_slice()), "the cache is still there");
    desk.give(&job, Ok(&rows(&[8])));
    assert_eq!(desk.said(), [verdict(&again, 0, 8)]);
}

#[test]
fn work_for_an_older_epoch_is_not_answered_though_the_text_is_the_same() {
    let mut desk = Desk::leased();
    desk.frame(0, &frame(1, &PROMPT, &[4]));
    let job = desk.job();
    desk.lease(0, &open(EPOCH + 1, 3));
    desk.give(&job, Ok(&rows(&[4, 5])));
    desk.assert_quiet();
}

#[test]
fn a_new_epoch_brings_its_seed_and_sampling() {
    let mut desk = Desk::leased();
    let sampling = SamplingParams { temperature: 1.0, top_p: 1.0, top_k: 0 };
    desk.lease(0, &Open { seed: 5, sampling, ..open(EPOCH + 1, 3) });
    desk.frame(0, &DraftFrame { epoch: EPOCH + 1, ..frame(1, &PROMPT, &[]) });
    let job = desk.job();
    let flat = [0.0; SIZE as usize];
    desk.give(&job, Ok(&flat));
    let even = Distribution::from_logits(&flat, &Sampling::new(1.0, 1.0, 0).unwrap()).unwrap();
    let [Down::Verdict(verdict)] = desk.said()[..] else { panic!("no verdict") };
    assert_eq!(verdict.token, couple(&even, 5, 3));
    assert_ne!(verdict.token, 0, "which is what a greedy target takes");
}

#[test]
fn another_nonce_replaces_the_session() {
    let mut desk = Desk::leased();
    desk.frame(0, &frame(1, &PROMPT, &[4]));
    let job = desk.job();
    let lease = desk.lease(0, &Open { nonce: 77, ..open(EPOCH, 3) });
    assert_eq!((lease.nonce, lease.length), (77, 0), "the text was another life's");
    assert_eq!(desk.events(), [VerifierEvent::Release(job.slot)]);
    desk.give(&job, Ok(&rows(&[4, 5])));
    desk.assert_quiet();
    assert_eq!(desk.verifier.sessions(), 1);
}

#[test]
fn rows_for_a_replaced_session_are_not_taken_for_the_new_ones() {
    let mut desk = Desk::leased();
    desk.frame(0, &frame(1, &PROMPT, &[4]));
    let old = desk.job();
    desk.lease(0, &Open { nonce: 77, ..open(EPOCH, 3) });
    desk.events();
    desk.context(0, &context(&[], &PROMPT));
    let asked = frame(1, &PROMPT, &[5]);
    desk.frame(0, &asked);
    let new = desk.job();
    assert_ne!((new.slot, new.id), (old.slot, old.id));
    desk.give(&old, Ok(&rows(&[4, 9])));
    desk.assert_quiet();
    desk.give(&new, Ok(&rows(&[5, 6])));
    assert_eq!(desk.said(), [verdict(&asked, 1, 6)]);
}

#[test]
fn a_request_is_refused_for_a_reason() {
    let mut desk = Desk::new(config());
    let foreign = Vocabulary { fingerprint: [8; 8], ..VOCABULARY };
    for vocabulary in [foreign, Vocabulary { size: SIZE + 1, ..VOCABULARY }] {
        let reason = desk.refusal(0, &Open { vocabulary, ..open(EPOCH, 3) });
        assert_eq!(reason, RefusalReason::Vocabulary(VOCABULARY));
    }
    for (temperature, top_p) in
        [(f32::NAN, 1.0), (-0.5, 1.0), (f32::INFINITY, 1.0), (1.0, 0.0), (1.0, f32::NAN)]
    {
        let sampling = SamplingParams { temperature, top_p, top_k: 0 };
        assert_eq!(desk.refusal(0, &Open { sampling, ..open(EPOCH, 3) }), RefusalReason::Sampling);
    }
    assert_eq!(desk.refusal(0, &open(EPOCH, 16)), RefusalReason::TooLong(16));
    assert_eq!((desk.verifier.sessions(), desk.verifier.counters().refusals), (0, 8));
    desk.lease(0, &open(EPOCH, 15));
}

#[test]
fn a_verifier_whose_sessions_are_all_busy_is_full() {
    let mut desk = Desk::leased();
    desk.welcome(1);
    for number in [0, 1] {
        desk.frame(number, &frame(1, &PROMPT, &[]));
    }
    assert_eq!(desk.refusal(2, &open(EPOCH, 3)), RefusalReason::Full);
    assert_eq!((desk.verifier.sessions(), desk.verifier.counters().evicted), (2, 0));
    desk.lease(1, &open(EPOCH, 3));
}

#[test]
fn the_least_recently_used_session_makes_room() {
    let mut desk = Desk::leased();
    desk.wait(1);
    desk.welcome(1);
    desk.wait(1);
    // The older session becomes the more recently used one.
    desk.frame(0, &frame(1, &PROMPT, &[]));
    let kept = desk.job();
    desk.give(&kept, Ok(&rows(&[4])));
    desk.said();
    desk.wait(1);
    desk.welcome(2);
    assert!(matches!(desk.events().as_slice(), [VerifierEvent::Release(slot)] if *slot != kept.slot));
    desk.frame(1, &frame(1, &PROMPT, &[]));
    assert_eq!(desk.said(), [unknown(&frame(1, &PROMPT, &[]))]);
    assert_eq!(desk.verifier.counters().evicted, 1);
}

/// With 256 numbers of its own, a device could displace the sessions of all others.
#[test]
fn a_device_with_many_sessions_displaces_its_own() {
    let mut desk = Desk::new(VerifierConfig { sessions_max: 3, ..config() });
    desk.welcome(1);
    desk.wait(1);
    for session in 0..9 {
        desk.wait(1);
        desk.lease(0, &Open { session, ..open(EPOCH, 0) });
    }
    assert_eq!((desk.verifier.sessions(), desk.verifier.counters().evicted), (3, 7));
    let first = frame(1, &PROMPT, &[4]);
    assert_eq!(desk.round_after_releases(1, &first, &[4, 5]), [verdict(&first, 1, 5)]);
}

/// The target still works for a session that its device closed: closing must not be a way to queue without end.
#[test]
fn a_device_that_ends_its_sessions_at_work_is_full_after_some() {
    let mut desk = Desk::new(config());
    let mut jobs = Vec::new();
    while let Some(Reply::Lease(_)) = desk.open(0, &open(EPOCH, PROMPT.len())) {
        assert!(jobs.len() < 9, "no end to it");
        desk.context(0, &context(&[], &PROMPT));
        desk.frame(0, &frame(1, &PROMPT, &[4]));
        jobs.extend(desk.events().into_iter().filter_map(|event| match event {
            VerifierEvent::Verify(job) => Some(job),
            VerifierEvent::Release(_) => None,
        }));
        let close = Close { session: SESSION, epoch: EPOCH };
        desk.send(0, &close.encode().expect("a valid message"));
    }
    assert_eq!(jobs.len(), 4);
    assert!(matches!(desk.open(1, &open(EPOCH, 0)), Some(Reply::Lease(_))), "others are served");
    desk.give(&jobs[0], Ok(&rows(&[4, 5])));
    assert!(matches!(desk.open(0, &open(EPOCH, 0)), Some(Reply::Lease(_))));
}

/// A request 128 epochs ahead is never answered; its repetition must not keep the session for ever.
#[test]
fn a_request_that_is_not_answered_does_not_keep_a_session() {
    let mut desk = Desk::leased();
    desk.wait(IDLE_MS - 1);
    assert_eq!(desk.open(0, &open(EPOCH.wrapping_add(200), 0)), None);
    desk.wait(1);
    desk.verifier.handle_timeout(desk.now);
    assert_eq!(desk.verifier.sessions(), 0);
}

#[test]
fn a_busy_session_is_not_evicted_however_old() {
    let mut desk = Desk::leased();
    desk.frame(0, &frame(1, &PROMPT, &[]));
    let busy = desk.job();
    desk.wait(1);
    desk.welcome(1);
    desk.wait(1);
    desk.welcome(2);
    assert!(matches!(desk.events().as_slice(), [VerifierEvent::Release(slot)] if *slot != busy.slot));
    desk.give(&busy, Ok(&rows(&[4])));
    assert_eq!(desk.said(), [verdict(&frame(1, &PROMPT, &[]), 0, 4)]);
}

#[test]
fn a_silent_session_is_dropped_when_its_time_is_over() {
    let mut desk = Desk::leased();
    let due = desk.now + Duration::from_millis(IDLE_MS);
    assert_eq!(desk.verifier.poll_timeout(), Some(due));
    desk.verifier.handle_timeout(Instant(due.0 - 1));
    assert_eq!(desk.verifier.sessions(), 1);
    desk.verifier.handle_timeout(due);
    assert_eq!((desk.verifier.sessions(), desk.verifier.counters().evicted), (0, 1));
    assert_eq!(desk.said(), []);
    assert!(matches!(desk.events().as_slice(), [VerifierEvent::Release(_)]));
    assert_eq!(desk.verifier.poll_timeout(), None);
}

#[test]
fn a_busy_session_is_not_silent_and_its_time_starts_with_the_rows() {
    let mut desk = Desk::leased();
    desk.frame(0, &frame(1, &PROMPT, &[]));
    let job = desk.job();
    desk.wait(2 * IDLE_MS);
    desk.verifier.handle_timeout(desk.now);
    assert_eq!(desk.verifier.sessions(), 1);
    assert!(matches!(desk.said().as_slice(), [Down::Working(_)]));
    desk.give(&job, Ok(&rows(&[4])));
    assert_eq!(desk.verifier.poll_timeout(), Some(desk.now + Duration::from_millis(IDLE_MS)));
}

#[test]
fn draining_closes_idle_leases_at_once_and_busy_ones_after_their_answer() {
    let mut desk = Desk::leased();
    desk.welcome(1);
    let asked = frame(1, &PROMPT, &[]);
    desk.frame(1, &asked);
    let job = desk.job();
    assert!(!desk.verifier.is_drained());
    desk.verifier.drain();
    assert_eq!(desk.said(), [closed(EPOCH, CloseReason::Draining)]);
    assert!(matches!(desk.events().as_slice(), [VerifierEvent::Release(slot)] if *slot != job.slot));
    assert!(!desk.verifier.is_drained());
    assert_eq!(desk.refusal(2, &open(EPOCH, 3)), RefusalReason::Draining);
    assert_eq!(desk.refusal(1, &open(EPOCH, 3)), RefusalReason::Draining);
    desk.give(&job, Ok(&rows(&[4])));
    assert_eq!(desk.said(), [verdict(&asked, 0, 4), closed(EPOCH, CloseReason::Draining)]);
    assert_eq!(desk.events(), [VerifierEvent::Release(job.slot)]);
    assert!(desk.verifier.is_drained());
}

/// Its frame is gone with the epoch before, and without memory there is no answer after which it would end.
#[test]
fn a_drained_verifier_keeps_no_session_that_found_no_memory() {
    let mut desk = Desk::leased();
    desk.frame(0, &frame(1, &PROMPT, &[4]));
    let job = desk.job();
    desk.lease(0, &open(EPOCH + 1, PROMPT.len()));
    desk.verifier.drain();
    assert!(!desk.verifier.is_drained());
    desk.give(&job, Err(RowsError::Budget));
    assert!(desk.verifier.is_drained());
}

#[test]
fn a_verifier_without_sessions_is_not_drained_until_told() {
    let mut desk = Desk::new(config());
    assert!(!desk.verifier.is_drained());
    desk.verifier.drain();
    assert!(desk.verifier.is_drained());
}

#[test]
fn without_memory_another_session_makes_room_and_all_is_verified_again() {
    let mut desk = Desk::leased();
    let first = frame(1, &PROMPT, &[4]);
    desk.round(0, &first, &[4, 5]);
    desk.wait(1);
    desk.welcome(1);
    let asked = frame(2, &[1, 2, 3, 4, 5], &[6]);
    desk.frame(0, &asked);
    let job = desk.job();
    assert_eq!(job.keep, 4);
    desk.give(&job, Err(RowsError::Budget));
    let events = desk.events();
    let [VerifierEvent::Release(evicted), VerifierEvent::Release(own), VerifierEvent::Verify(again)] =
        events.as_slice()
    else {
        panic!("{events:?}");
    };
    assert_eq!((*own, *evicted != job.slot, again.slot != job.slot), (job.slot, true, true));
    assert_eq!((again.keep, again.tokens.as_slice(), again.rows), (0, [1, 2, 3, 4, 5, 6].as_slice(), 2));
    desk.give(again, Ok(&rows(&[6, 7])));
    assert_eq!(desk.said(), [verdict(&asked, 1, 7)]);
    assert_eq!((desk.verifier.sessions(), desk.verifier.counters().evicted), (1, 1));
    let counts = |desk: &Desk| (desk.verifier.counters().displaced, desk.verifier.counters().returned);
    assert_eq!(counts(&desk), (1, 0));
    desk.welcome(1);
    assert_eq!(counts(&desk), (1, 1), "it came back");
    desk.welcome(2);
    assert_eq!((counts(&desk), desk.verifier.counters().evicted), ((1, 1), 2), "no place, but memory");
}

#[test]
fn without_memory_the_newest_frame_is_the_one_verified_again() {
    let mut desk = Desk::leased();
    desk.welcome(1);
    desk.frame(0, &frame(1, &PROMPT, &[4]));
    let job = desk.job();
    desk.frame(0, &frame(2, &PROMPT, &[5]));
    desk.give(&job, Err(RowsError::Budget));
    let events = desk.events();
    assert!(
        matches!(events.as_slice(), [_, _, VerifierEvent::Verify(job)] if job.tokens == [1, 2, 3, 5]),
        "{events:?}"
    );
}

#[test]
fn without_memory_and_with_nobody_to_evict_the_lease_ends() {
    let mut desk = Desk::leased();
    desk.welcome(1);
    desk.frame(1, &frame(1, &PROMPT, &[]));
    desk.job();
    desk.frame(0, &frame(1, &PROMPT, &[]));
    let job = desk.job();
    desk.give(&job, Err(RowsError::Budget));
    assert_eq!(desk.said(), [closed(EPOCH, CloseReason::Failed)]);
    assert_eq!(desk.events(), [VerifierEvent::Release(job.slot)]);
    assert_eq!(desk.verifier.sessions(), 1);
}

#[test]
fn without_memory_for_a_lease_that_ended_nobody_is_evicted() {
    let mut desk = Desk::leased();
    desk.welcome(1);
    desk.frame(0, &frame(1, &PROMPT, &[]));
    let job = desk.job();
    desk.lease(0, &open(EPOCH + 1, PROMPT.len()));
    desk.give(&job, Err(RowsError::Budget));
    assert_eq!(desk.events(), [VerifierEvent::Release(job.slot)]);
    assert_eq!((desk.verifier.sessions(), desk.verifier.counters().evicted), (2, 0));
}

#[test]
fn a_target_that_gives_no_usable_rows_ends_the_lease() {
    let nan = vec![f32::NAN; 3 * SIZE as usize];
    let all = rows(&[4, 5, 6]);
    let (short, torn) = (&all[..2 * SIZE as usize], &all[..3 * SIZE as usize - 1]);
    let failures: [Result<&[f32], RowsError>; 5] =
        [Err(RowsError::Failed), Ok(short), Ok(torn), Ok(&nan), Ok(&[])];
    for failure in failures {
        let mut desk = Desk::leased();
        desk.frame(0, &frame(1, &PROMPT, &[4, 5]));
        let job = desk.job();
        desk.give(&job, failure);
        assert_eq!(desk.said(), [closed(EPOCH, CloseReason::Failed)]);
        assert_eq!(desk.events(), [VerifierEvent::Release(job.slot)]);
    }
}

#[test]
fn a_full_outbox_drops_the_oldest_answer_and_counts_it() {
    let mut desk = Desk::new(config());
    for i in 0..OUTBOX_MAX + 3 {
        let (session, epoch) = ((i / 256) as u8, (i % 256) as u8);
        desk.frame(0, &DraftFrame { session, epoch, ..frame(1, &PROMPT, &[]) });
    }
    let said = desk.said();
    assert_eq!((said.len(), desk.verifier.counters().dropped), (OUTBOX_MAX, 3));
    let unknown = |session, epoch| {
        let Down::Closed(closed) = unknown(&DraftFrame { session, epoch, ..frame(1, &PROMPT, &[]) }) else {
            panic!()
        };
        Down::Closed(Closed { session, ..closed })
    };
    assert_eq!([&said[0], &said[OUTBOX_MAX - 1]], [&unknown(0, 3), &unknown(4, 2)]);
}

#[test]
fn the_next_job_feeds_the_correction_and_the_drafts() {
    let mut desk = Desk::leased();
    desk.frame(0, &frame(1, &PROMPT, &[4, 5]));
    let job = desk.job();
    assert_eq!((job.keep, job.tokens.as_slice(), job.rows), (0, [1, 2, 3, 4, 5].as_slice(), 3));
    desk.give(&job, Ok(&rows(&[4, 9, 0])));
    desk.frame(0, &frame(2, &[1, 2, 3, 4, 9], &[6, 7]));
    let next = desk.job();
    assert_eq!((next.keep, next.tokens.as_slice(), next.rows), (4, [9, 6, 7].as_slice(), 3));
    assert_eq!(next.slot, job.slot);
    desk.give(&next, Ok(&rows(&[6, 7, 8])));
    desk.frame(0, &frame(3, &[1, 2, 3, 4, 9, 6, 7, 8], &[10]));
    let last = desk.job();
    assert_eq!((last.keep, last.tokens.as_slice(), last.rows), (7, [8, 10].as_slice(), 2));
}

#[test]
fn a_lease_repeats_and_changes_nothing() {
    let mut desk = Desk::leased();
    let asked = frame(1, &PROMPT, &[4]);
    desk.frame(0, &asked);
    let job = desk.job();
    let lease = desk.lease(0, &open(EPOCH, 2));
    assert_eq!((lease.length, lease.digest), (2, digest(&[1, 2]).full()));
    assert_eq!((lease.draft_tokens_max, lease.context_tokens_max, lease.nonce), (4, 16, 10));
    assert_eq!(desk.lease(0, &open(EPOCH, 2)), lease);
    desk.assert_quiet();
    desk.give(&job, Ok(&rows(&[4, 5])));
    assert_eq!(desk.said(), [verdict(&asked, 1, 5)], "the work under way still counts");
    assert_eq!((desk.verifier.sessions(), desk.verifier.counters().leases), (1, 3));
}

#[test]
fn close_ends_the_lease_of_its_epoch_alone() {
    let mut desk = Desk::leased();
    let close = |epoch| Close { session: SESSION, epoch }.encode().unwrap();
    desk.send(0, &close(EPOCH - 1));
    desk.send(1, &close(EPOCH));
    assert_eq!(desk.verifier.sessions(), 1);
    desk.send(0, &close(EPOCH));
    assert_eq!((desk.verifier.sessions(), desk.said()), (0, vec![]));
    assert!(matches!(desk.events().as_slice(), [VerifierEvent::Release(Slot(_))]));
}

#[test]
fn bytes_that_are_no_message_are_counted() {
    let mut desk = Desk::leased();
    desk.send(0, &[]);
    desk.send(0, &open(EPOCH, 3).encode().unwrap());
    desk.verifier.handle_open(&device(0), &[0xff; 9], None, desk.now);
    desk.assert_quiet();
    assert_eq!((desk.verifier.counters().malformed, desk.verifier.sessions()), (3, 1));
}

#[test]
fn a_setting_outside_the_limits_is_named() {
    let size = |size| VerifierConfig { vocabulary: Vocabulary { size, ..VOCABULARY }, ..config() };
    let context = |context_tokens_max| VerifierConfig { context_tokens_max, ..config() };
    let drafts = |draft_tokens_max| VerifierConfig { draft_tokens_max, ..config() };
    let bad = [
        ("vocabulary size", size(0)),
        ("vocabulary size", size(VOCABULARY_SIZE_MAX + 1)),
        ("context_tokens_max", context(1)),
        ("context_tokens_max", context(SESSION_TOKENS_MAX + 1)),
        ("draft_tokens_max", drafts(0)),
        ("draft_tokens_max", drafts(DRAFT_TOKENS_MAX as u8 + 1)),
        ("sessions_max", VerifierConfig { sessions_max: 0, ..config() }),
    ];
    for (name, config) in bad {
        let error = Verifier::new(config).expect_err(name).to_string();
        assert!(error.starts_with(name), "{error}");
    }
    let good = [
        size(1),
        size(VOCABULARY_SIZE_MAX),
        context(2),
        context(SESSION_TOKENS_MAX),
        drafts(1),
        drafts(DRAFT_TOKENS_MAX as u8),
        VerifierConfig { sessions_max: usize::MAX, ..config() },
    ];
    good.into_iter().for_each(|config| drop(Verifier::new(config).unwrap()));
}

#[test]
fn each_send_of_a_frame_gets_the_same_answer_under_its_own_number() {
    let mut desk = Desk::leased();
    let first = frame(1, &PROMPT, &[4]);
    assert_eq!(desk.round(0, &first, &[4, 5]), [verdict(&first, 1, 5)]);
    let again = DraftFrame { send: 2, ..first };
    desk.frame(0, &again);
    let Down::Verdict(answer) = verdict(&again, 1, 5) else { panic!("no verdict") };
    assert_eq!((answer.send, desk.said()), (2, vec![Down::Verdict(answer)]));
}

#[test]
fn credit_is_refused_since_no_lease_gives_any() {
    let mut desk = Desk::new(config());
    assert_eq!(desk.lease(0, &open(EPOCH, PROMPT.len())).credit_tokens_max, 0);
    desk.context(0, &context(&[], &PROMPT));
    let credit = Credit { until: 8, again: false, stop: Default::default() };
    desk.frame(0, &DraftFrame { credit: Some(credit), ..frame(1, &PROMPT, &[4]) });
    assert_eq!(desk.said(), [closed(EPOCH, CloseReason::Rejected)]);
}

/// A lease of a longer context, whose text of 40 tokens the target was asked to read.
fn reading() -> (Desk, Vec<TokenId>, VerifyJob) {
    let mut desk = Desk::new(VerifierConfig { context_tokens_max: 200, ..config() });
    let text: Vec<TokenId> = (0..40).map(|i| i % 5).collect();
    desk.lease(0, &open(EPOCH, text.len()));
    desk.context(0, &context(&[], &text));
    let job = desk.job();
    assert_eq!((job.keep, job.tokens.as_slice(), job.rows), (0, &text[..39], 0));
    (desk, text, job)
}

#[test]
fn context_is_read_before_a_frame_asks() {
    let (mut desk, mut text, read) = reading();
    let more: Vec<TokenId> = (0..60).map(|i| i % 7).collect();
    desk.context(0, &context(&text, &more));
    desk.assert_quiet();
    desk.give(&read, Ok(&[]));
    text.extend(more);
    let rest = desk.job();
    assert_eq!((rest.keep, rest.tokens.as_slice(), rest.rows), (39, &text[39..99], 0));
    let asked = frame(1, &text, &[4]);
    desk.frame(0, &asked);
    let job = desk.job();
    assert_eq!((job.slot, job.keep, job.tokens.as_slice(), job.rows), (read.slot, 99, &[text[99], 4][..], 2));
    // The queue may have made the one a part of the other.
    desk.give(&rest, Ok(&[]));
    desk.assert_quiet();
    desk.give(&job, Ok(&rows(&[4, 5])));
    assert_eq!(desk.said(), [verdict(&asked, 1, 5)]);
}

/// 39 tokens of 1 ms are little beside a pass of 200 ms, and much beside one of 100.
#[test]
fn context_that_takes_little_time_is_read_with_its_frame() {
    let text: Vec<TokenId> = (0..40).map(|i| i % 5).collect();
    for (pass_us, jobs) in [(200_000, 0), (100_000, 1)] {
        let mut desk = Desk::new(VerifierConfig { context_tokens_max: 200, ..config() });
        let (pass, row) = (LogTime::of_us(pass_us), LogTime::of_us(1000));
        desk.verifier.set_price(Price { pass, row, queue: LogTime::default() });
        desk.lease(0, &open(EPOCH, text.len()));
        desk.context(0, &context(&[], &text));
        assert_eq!(desk.events().len(), jobs, "{pass_us}");
        desk.frame(0, &frame(1, &text, &[4]));
        assert_eq!(desk.job().tokens.last(), Some(&4));
    }
}

#[test]
fn context_that_finds_no_memory_is_read_again_with_its_frame() {
    let (mut desk, text, read) = reading();
    desk.give(&read, Err(RowsError::Budget));
    assert_eq!(desk.events(), [VerifierEvent::Release(read.slot)]);
    desk.frame(0, &frame(1, &text, &[]));
    let job = desk.job();
    assert_eq!((job.keep, job.tokens.len(), job.slot != read.slot), (0, 40, true));
}

#[test]
fn a_cache_that_lost_its_tokens_is_filled_again() {
    let (mut desk, text, read) = reading();
    let asked = frame(1, &text, &[]);
    desk.frame(0, &asked);
    let job = desk.job();
    // The frame's job was on its way when the target failed on the context before it.
    desk.give(&read, Err(RowsError::Budget));
    desk.assert_quiet();
    desk.give(&job, Err(RowsError::Lost));
    let events = desk.events();
    let [VerifierEvent::Release(slot), VerifierEvent::Verify(again)] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!((*slot, again.keep, again.tokens.as_slice()), (read.slot, 0, text.as_slice()));
    desk.give(again, Ok(&rows(&[5])));
    assert_eq!(desk.said(), [verdict(&asked, 0, 5)]);
    assert_eq!(desk.verifier.counters().evicted, 0);
}

#[test]
fn a_target_that_fails_on_context_ends_the_lease() {
    let (mut desk, _, read) = reading();
    desk.give(&read, Err(RowsError::Failed));
    assert_eq!(desk.said(), [closed(EPOCH, CloseReason::Failed)]);
}
