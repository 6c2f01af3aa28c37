//! Time-outs by what the verifier announced: a slow one says that it works, a hung or lost one is left.

mod bench;
mod desk;
mod machines;

use bench::{Bench, EPOCH, PROMPT, Sent, config, lease, reply, verifier};
use desk::{Desk, frame};
use dunlin_hlm::device::PresenceScope;
use dunlin_hlm::time::Duration;
use dunlin_hlm::verifier::OUTBOX_MAX;
use dunlin_wire::{Down, DraftFrame, Lease, Liveness, LogTime, Price, VerifierPresence, Working};
use machines::presence;

const PASS: LogTime = LogTime(177);

/// 4.19 s, as the wire can say it.
fn pass_us() -> u64 {
    PASS.us().expect("a known time")
}

fn slow() -> Price {
    Price { pass: PASS, ..Price::default() }
}

/// 65.5 ms a pass.
fn quick() -> Price {
    Price { pass: LogTime(129), ..Price::default() }
}

fn working(epoch: u8, round: u32, wait_ms: u64) -> Down {
    Down::Working(Working { session: 7, epoch, round, wait: LogTime::of_us(wait_ms * 1000) })
}

fn wait_of(down: &Down) -> u64 {
    let Down::Working(working) = down else { panic!("{down:?}") };
    working.wait.us().expect("a known time")
}

fn desk_with(price: Price) -> Desk {
    let mut desk = Desk::new(desk::config());
    desk.verifier.set_price(price);
    desk.welcome(0);
    desk
}

#[test]
fn a_verifier_says_that_it_works_once_its_answer_is_late() {
    // A second before a pass is known, all of a quick one and a tenth of a second, and a quarter of a slow one.
    for (price, word) in [(Price::default(), 961_552), (quick(), 165_536), (slow(), pass_us() / 4)] {
        let mut desk = desk_with(price);
        desk.frame(0, &frame(1, &desk::PROMPT, &[]));
        let job = desk.job();
        let due = desk.now + Duration(word);
        assert_eq!(desk.verifier.poll_timeout(), Some(due));
        desk.verifier.handle_timeout(due - Duration(1));
        assert_eq!(desk.said(), []);
        for n in 0..3 {
            desk.now = desk.verifier.poll_timeout().expect("a timer");
            desk.verifier.handle_timeout(desk.now);
            let said = desk.said();
            // Between them no less than the least time, as the wire can say it.
            let between = word.max(240_388);
            assert!(said.len() == 1 && wait_of(&said[0]) == between, "{n}: {said:?}");
        }
        desk.give(&job, Ok(&desk::rows(&[4])));
        assert!(matches!(desk.said().as_slice(), [Down::Verdict(_)]));
        desk.verifier.handle_timeout(desk.now + Duration(2 * word));
        assert_eq!((desk.said(), desk.verifier.counters().working), (vec![], 3), "nothing is late any more");
    }
}

#[test]
fn a_frame_that_arrives_again_is_answered_at_once() {
    let mut desk = desk_with(slow());
    let first = frame(1, &desk::PROMPT, &[]);
    desk.frame(0, &first);
    let job = desk.job();
    desk.frame(0, &first);
    assert_eq!(desk.said(), [], "a copy that the network made");
    desk.frame(0, &DraftFrame { send: 2, ..first.clone() });
    let said = desk.said();
    assert!(said.len() == 1 && wait_of(&said[0]) <= pass_us(), "{said:?}");
    desk.give(&job, Ok(&desk::rows(&[4])));
    assert!(matches!(desk.said().as_slice(), [Down::Verdict(_)]));
    desk.frame(0, &DraftFrame { send: 3, ..first });
    assert!(matches!(desk.said().as_slice(), [Down::Verdict(_)]), "the answer and nothing else");
}

#[test]
fn working_gives_way_to_answers() {
    let mut desk = desk_with(slow());
    desk.frame(0, &frame(1, &desk::PROMPT, &[]));
    for _ in 0..OUTBOX_MAX {
        desk.frame(0, &DraftFrame { send: 2, ..frame(1, &desk::PROMPT, &[]) });
    }
    assert_eq!(desk.verifier.counters().working, OUTBOX_MAX as u64 / 2);
    assert_eq!(desk.verifier.counters().dropped, 0);
}

/// A device with a frame under way at a verifier that announced this price.
fn asking(price: Price) -> Bench {
    let mut bench = Bench::new(config(2));
    bench.say(&PROMPT, reply(40));
    bench.open_sent();
    bench.wait(20);
    bench.lease(&Lease { price, ..lease(EPOCH, &[]) });
    bench.sent();
    bench.happened();
    [4, 5].into_iter().for_each(|token| bench.draft(token));
    bench.frame_sent();
    bench
}

#[test]
fn a_word_is_waited_for_as_long_as_the_verifier_announced() {
    // The hand-shake took 20 ms, so a round trip is waited for 100 ms, the least.
    for (price, word_ms) in [(Price::default(), 962), (quick(), 166), (slow(), pass_us() / 4000)] {
        let mut bench = asking(price);
        let waits = [word_ms + 100, 200, 400];
        for wait in waits {
            let timer = bench.until_timer();
            assert!(timer.abs_diff(wait) <= 1, "{timer} for {wait} ms");
            bench.ring();
            let sent = bench.sent();
            assert_eq!(matches!(sent.as_slice(), [Sent::Frame(_)]), wait != waits[2], "{sent:?}");
        }
        bench.ring();
        bench.open_sent();
    }
}

#[test]
fn while_the_verifier_works_nothing_is_sent_again_and_no_lease_is_given_up() {
    let mut bench = asking(slow());
    for _ in 0..50 {
        bench.wait(bench.until_timer() - 1);
        bench.device.handle_timeout(bench.now);
        bench.down(&working(EPOCH, 1, 5_000));
        assert_eq!(bench.sent(), []);
        assert!((4_700..=5_400).contains(&bench.until_timer()), "{}", bench.until_timer());
    }
    bench.verdict(2, 6);
    let counters = bench.device.counters();
    assert_eq!((counters.resent, counters.opens, counters.working), (0, 1, 50));
    assert_eq!(bench.device.text(), &[1, 2, 3, 4, 5, 6]);
}

#[test]
fn working_counts_for_the_frame_under_way_alone() {
    let mut bench = asking(slow());
    let timer = bench.until_timer();
    bench.wait(10);
    for other in [working(EPOCH, 2, 5_000), working(EPOCH, 9, 5_000), working(0, 1, 5_000)] {
        bench.down(&other);
    }
    assert_eq!((bench.until_timer(), bench.device.counters().stale), (timer - 10, 3));
}

#[test]
fn a_verifier_that_only_says_that_it_works_is_left_after_ten_minutes() {
    let mut bench = asking(slow());
    for _ in 0..70 {
        bench.wait(9_000);
        bench.down(&working(EPOCH, 1, 9_900));
        bench.device.handle_timeout(bench.now);
        if bench.device.counters().stale > 0 {
            break;
        }
    }
    let counters = *bench.device.counters();
    assert!((65..=68).contains(&counters.working) && counters.stale == 1, "{counters:?}");
    // It is sent again twice, and the next lease is asked for after a pause, since this one led to no verdict.
    (0..4).for_each(|_| {
        bench.ring();
        bench.device.poll_transmit(bench.now);
    });
    assert_eq!(bench.device.counters().opens, 2, "another lease is asked for");
}

fn lost(generation: u32) -> VerifierPresence {
    VerifierPresence { generation, liveness: Liveness::Lost, ..presence() }
}

#[test]
fn a_lost_lessor_is_left_at_once() {
    let mut bench = asking(slow());
    bench.presence("other", &presence());
    assert_eq!(bench.sent(), []);
    bench.presence("desk", &lost(0));
    assert_eq!(bench.sent(), [], "the Will of an older connection");
    bench.presence("desk", &lost(1));
    assert_eq!((bench.open_sent().epoch, bench.asked.clone()), (0, Some(verifier("other"))));
    // Again, before that one gave a verdict: still at once.
    bench.lease(&Lease { verifier: verifier("other"), ..lease(0, &[]) });
    bench.presence("desk", &VerifierPresence { generation: 2, ..presence() });
    bench.presence("other", &lost(1));
    let mut asked = None;
    while let Some(sent) = bench.device.poll_transmit(bench.now) {
        asked = Some(sent.channel);
    }
    assert_eq!(asked, Some(dunlin_hlm::device::Channel::Open(verifier("desk"))));
    assert_eq!(bench.device.counters().lessors_lost, 2);
}

#[test]
fn a_verifier_that_connected_anew_gets_the_frame_again_at_once() {
    let mut bench = asking(slow());
    bench.presence("desk", &VerifierPresence { load: 31, ..presence() });
    assert_eq!(bench.sent(), [], "its load changed");
    bench.presence("desk", &VerifierPresence { generation: 2, ..presence() });
    assert_eq!(bench.frame_sent().send, 2);
}

#[test]
fn the_next_verifier_is_asked_at_once_if_the_one_that_was_asked_is_gone() {
    let mut bench = Bench::new(config(2));
    bench.presence("other", &presence());
    bench.say(&PROMPT, reply(9));
    bench.open_sent();
    let first = bench.asked.clone().expect("one was asked");
    bench.presence(first.as_str(), &lost(1));
    bench.open_sent();
    assert_ne!(bench.asked, Some(first));
}

#[test]
fn presence_is_read_while_a_lease_is_sought_and_of_the_lessor_alone_while_there_is_one() {
    let mut bench = Bench::new(config(2));
    assert_eq!(bench.device.presence_scope(), PresenceScope::Nobody);
    bench.say(&PROMPT, reply(40));
    assert_eq!(bench.device.presence_scope(), PresenceScope::All);
    bench.open_sent();
    bench.lease(&lease(EPOCH, &[]));
    let lessor = PresenceScope::Lessor(verifier("desk"));
    assert_eq!(bench.device.presence_scope(), lessor);
    bench.device.cancel();
    assert_eq!(bench.device.presence_scope(), lessor, "the lease outlives the reply");
    bench.presence("desk", &lost(1));
    assert_eq!(bench.device.presence_scope(), PresenceScope::Nobody);
}

#[test]
fn one_that_left_a_request_without_an_answer_comes_last_in_the_next_session() {
    let mut bench = Bench::new(config(2));
    bench.presence("other", &presence());
    bench.say(&PROMPT, reply(9));
    bench.open_sent();
    let silent = bench.asked.clone().expect("one was asked");
    bench.ring();
    bench.open_sent();
    let second = bench.asked.clone().expect("one was asked");
    assert_ne!(silent, second);
    let mut next = Bench::after(config(2), bench.device.learned());
    next.say(&PROMPT, reply(9));
    next.open_sent();
    assert_eq!(next.asked, Some(second), "the nonce would choose {silent}");
}
