//! A text that moves from a silent verifier: how soon it leaves, and the choice between two others.

mod bench;
mod machines;

use bench::{Bench, EPOCH, PROMPT, config, lease, reply, verifier};
use dunlin_hlm::device::{Channel, PresenceScope};
use dunlin_wire::{Lease, LogTime, Open, Price, Up, VerifierId};
use machines::presence;

/// 4.19 s a pass.
const SLOW: Price = Price { pass: LogTime(177), row: LogTime(0), queue: LogTime(0) };

/// A message as a test reads it.
#[derive(Clone, Debug, PartialEq)]
enum Said {
    Open(VerifierId, u8),
    Close(VerifierId, u8),
    Frame(VerifierId),
}

fn said(bench: &mut Bench) -> Vec<Said> {
    let mut said = Vec::new();
    while let Some(message) = bench.device.poll_transmit(bench.now) {
        match message.channel {
            Channel::Open(to) => {
                let open = Open::decode(&message.bytes).expect("a valid request");
                bench.asked = Some(to.clone());
                said.push(Said::Open(to, open.epoch));
            }
            Channel::Frames(to) => match Up::decode(&message.bytes).expect("a valid message") {
                Up::Draft(_) => {
                    bench.frame = message.bytes.to_vec();
                    said.push(Said::Frame(to));
                }
                Up::Close(close) => said.push(Said::Close(to, close.epoch)),
                Up::Context(_) | Up::Codes(_) => {}
            },
        }
    }
    said
}

fn frame_to(name: &str) -> Vec<Said> {
    vec![Said::Frame(verifier(name))]
}

/// A device with a text and a frame under way at `desk`, which knows these other verifiers.
fn writing(others: &[&str]) -> Bench {
    let mut bench = Bench::new(config(1));
    bench.say(&PROMPT, reply(40));
    bench.open_sent();
    bench.wait(20);
    bench.lease(&Lease { price: SLOW, ..lease(EPOCH, &[]) });
    bench.sent();
    others.iter().for_each(|name| bench.presence(name, &presence()));
    bench.draft(9);
    assert_eq!(said(&mut bench), frame_to("desk"));
    bench.verdict(0, 4);
    // The run that was under way for another text, and one for this.
    (0..2).for_each(|_| bench.draft(9));
    assert_eq!(said(&mut bench), frame_to("desk"));
    bench
}

/// The same once `desk` was silent and the device has asked another verifier, which it names.
fn seeking(others: &[&str]) -> (Bench, VerifierId) {
    let mut bench = writing(others);
    bench.ring();
    assert_eq!(said(&mut bench), frame_to("desk"));
    bench.presence(others[0], &presence());
    bench.ring();
    let asked = said(&mut bench);
    let [Said::Open(first, 0)] = asked.as_slice() else { panic!("{asked:?}") };
    let first = first.clone();
    (bench, first)
}

fn offer(bench: &mut Bench, by: &VerifierId, epoch: u8, queue_ms: u64) {
    let price = Price { queue: LogTime::of_us(queue_ms * 1000), ..SLOW };
    bench.lease(&Lease { verifier: by.clone(), price, ..lease(epoch, &[]) });
}

fn other(than: &VerifierId) -> VerifierId {
    verifier(if *than == verifier("east") { "west" } else { "east" })
}

#[test]
fn a_silent_verifier_is_left_after_one_question_if_the_broker_answers_meanwhile() {
    let mut bench = writing(&["east"]);
    assert_eq!(bench.device.presence_scope(), PresenceScope::Lessor(verifier("desk")));
    bench.ring();
    assert_eq!(said(&mut bench), frame_to("desk"));
    // The others are asked for, and what comes of them shows that the link works.
    assert_eq!(bench.device.presence_scope(), PresenceScope::All);
    bench.wait(10);
    bench.presence("east", &presence());
    assert_eq!(bench.until_timer(), 100, "a round trip, not two");
    bench.ring();
    assert_eq!(said(&mut bench), [Said::Open(verifier("east"), 0)]);
}

#[test]
fn a_silent_verifier_is_asked_twice_if_nothing_shows_that_the_link_works() {
    let mut bench = writing(&["east"]);
    for _ in 0..2 {
        bench.ring();
        assert_eq!(said(&mut bench), frame_to("desk"));
        // What it announced before it fell silent, which came late.
        bench.presence("desk", &presence());
    }
    bench.ring();
    assert_eq!(said(&mut bench), [Said::Open(verifier("east"), 0)]);
}

#[test]
fn a_verifier_that_answers_the_question_is_not_left() {
    let mut bench = writing(&["east"]);
    bench.ring();
    assert_eq!(said(&mut bench), frame_to("desk"));
    bench.presence("east", &presence());
    bench.down(&dunlin_wire::Down::Working(dunlin_wire::Working {
        session: 7,
        epoch: EPOCH,
        round: 2,
        wait: LogTime::of_us(1_000_000),
    }));
    assert_eq!(bench.device.presence_scope(), PresenceScope::Lessor(verifier("desk")));
    // The next silence is a new one.
    for _ in 0..2 {
        bench.ring();
        assert_eq!(said(&mut bench), frame_to("desk"));
    }
}

#[test]
fn of_two_verifiers_the_one_that_is_free_sooner_gets_the_text() {
    for (first_ms, second_ms) in [(3_000, 1_000), (1_000, 3_000)] {
        let (mut bench, first) = seeking(&["east", "west"]);
        let second = other(&first);
        bench.wait(10);
        offer(&mut bench, &first, 0, first_ms);
        assert_eq!(said(&mut bench), [Said::Open(second.clone(), 1)]);
        bench.wait(10);
        offer(&mut bench, &second, 1, second_ms);
        let left = Said::Close(verifier("desk"), EPOCH);
        if second_ms < first_ms {
            assert_eq!(said(&mut bench), [left, Said::Close(first, 0), Said::Frame(second)]);
        } else {
            assert_eq!(said(&mut bench), [Said::Close(second, 1), Said::Open(first.clone(), 2)]);
            // It is taken whatever it says now.
            offer(&mut bench, &first, 2, 4_000);
            assert_eq!(said(&mut bench), [left, Said::Frame(first)]);
        }
        assert_eq!(bench.device.counters().opens, if second_ms < first_ms { 3 } else { 4 });
    }
}

#[test]
fn an_offer_is_taken_at_once_if_it_is_good_or_the_only_one() {
    for (others, wait_ms) in [(vec!["east", "west"], 150), (vec!["east"], 3_000)] {
        let (mut bench, first) = seeking(&others);
        bench.wait(10);
        offer(&mut bench, &first, 0, wait_ms);
        assert_eq!(said(&mut bench), [Said::Close(verifier("desk"), EPOCH), Said::Frame(first.clone())]);
        assert_eq!(bench.device.presence_scope(), PresenceScope::Lessor(first));
    }
}

#[test]
fn the_first_offer_stands_if_the_second_verifier_does_not_answer() {
    let (mut bench, first) = seeking(&["east", "west"]);
    bench.wait(10);
    offer(&mut bench, &first, 0, 3_000);
    said(&mut bench);
    assert!((90..=200).contains(&bench.until_timer()), "a round trip: {} ms", bench.until_timer());
    bench.ring();
    assert_eq!(said(&mut bench), [Said::Open(first, 2)]);
}
