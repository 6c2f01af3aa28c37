//! The pause before a pass of a slow target that was idle.

mod desk;
mod machines;

use desk::{Desk, EPOCH, PROMPT, frame, open, rows};
use dunlin_hlm::time::Duration;
use dunlin_hlm::verifier::{VerifierConfig, VerifierEvent};
use dunlin_wire::{LogTime, Price};

/// 2.1 s a pass, of which a 16th is a pause of 131 ms.
const SLOW: Price = Price { pass: LogTime(169), row: LogTime(1), queue: LogTime(1) };
const PAUSE: Duration = Duration(131_072);

/// A verifier at this price with the leases of so many devices.
fn desk(price: Price, devices: u8) -> Desk {
    let mut desk = Desk::new(VerifierConfig { sessions_max: 8, ..desk::config() });
    desk.verifier.set_price(price);
    (0..devices).for_each(|device| desk.welcome(device));
    desk
}

fn jobs(desk: &mut Desk) -> usize {
    let is_job = |event: &VerifierEvent| matches!(event, VerifierEvent::Verify(_));
    desk.events().iter().filter(|event| is_job(event)).count()
}

#[test]
fn frames_that_come_together_share_a_pass_of_a_slow_target() {
    let mut desk = desk(SLOW, 3);
    desk.frame(0, &frame(1, &PROMPT, &[]));
    assert_eq!((jobs(&mut desk), desk.verifier.poll_timeout()), (0, Some(desk.now + PAUSE)));
    desk.wait(20);
    desk.frame(1, &frame(1, &PROMPT, &[]));
    assert_eq!(jobs(&mut desk), 0);
    desk.wait(20);
    // The last one that is expected ends the pause.
    desk.frame(2, &frame(1, &PROMPT, &[]));
    assert_eq!(jobs(&mut desk), 3);
}

#[test]
fn a_pause_ends_by_itself_and_nothing_waits_while_a_pass_is_under_way() {
    let mut desk = desk(SLOW, 3);
    desk.frame(0, &frame(1, &PROMPT, &[]));
    let until = desk.now + PAUSE;
    desk.verifier.handle_timeout(until - Duration(1));
    assert_eq!(jobs(&mut desk), 0);
    desk.now = until;
    desk.verifier.handle_timeout(until);
    let job = desk.job();
    desk.frame(1, &frame(1, &PROMPT, &[]));
    assert_eq!(jobs(&mut desk), 1, "it goes to the queue");
    desk.give(&job, Ok(&rows(&[4])));
    desk.frame(2, &frame(1, &PROMPT, &[]));
    assert_eq!(jobs(&mut desk), 1, "one is under way");
}

#[test]
fn devices_whose_verdicts_went_out_together_stay_together() {
    let mut desk = desk(SLOW, 2);
    (0..2).for_each(|device| desk.frame(device, &frame(1, &PROMPT, &[])));
    let events = desk.events();
    for event in &events {
        let VerifierEvent::Verify(job) = event else { panic!("{event:?}") };
        desk.give(job, Ok(&rows(&[4])));
    }
    desk.said();
    let text = [1, 2, 3, 4];
    desk.wait(30);
    desk.frame(0, &frame(2, &text, &[]));
    assert_eq!(jobs(&mut desk), 0, "the other one was answered at the same time");
    desk.wait(30);
    desk.frame(1, &frame(2, &text, &[]));
    assert_eq!(jobs(&mut desk), 2);
}

/// Its verdict was lost, so its next frame is a round trip away at least.
#[test]
fn a_device_that_repeats_its_frame_is_not_waited_for() {
    let mut desk = desk(SLOW, 2);
    (0..2).for_each(|device| desk.frame(device, &frame(1, &PROMPT, &[])));
    for event in &desk.events() {
        let VerifierEvent::Verify(job) = event else { panic!("{event:?}") };
        desk.give(job, Ok(&rows(&[4])));
    }
    let first = desk.said();
    desk.frame(1, &frame(1, &PROMPT, &[]));
    assert_eq!(desk.said(), first[1..], "the verdict again");
    desk.frame(0, &frame(2, &[1, 2, 3, 4], &[]));
    assert_eq!(jobs(&mut desk), 1);
}

#[test]
fn nobody_pauses_at_a_quick_target_or_alone_or_for_a_device_that_went_away() {
    let quick = Price { pass: LogTime(129), ..SLOW };
    for (price, devices, waited_ms) in
        [(quick, 2, 0), (Price::default(), 2, 0), (SLOW, 1, 0), (SLOW, 2, 1_000)]
    {
        let mut desk = desk(price, devices);
        desk.wait(waited_ms);
        desk.frame(0, &frame(1, &PROMPT, &[]));
        assert_eq!(jobs(&mut desk), 1, "{price:?} {devices} {waited_ms}");
    }
}

#[test]
fn a_lease_says_when_the_pass_under_way_ends() {
    let mut desk = desk(SLOW, 1);
    let queue = |desk: &mut Desk| desk.lease(3, &open(EPOCH, PROMPT.len())).price.queue.us();
    assert_eq!(queue(&mut desk), Some(1), "the target is idle");
    // The lease that was just given is expected to be used.
    desk.wait(1_000);
    desk.frame(0, &frame(1, &PROMPT, &[]));
    let job = desk.job();
    for (waited_ms, left_us) in [(0, 2_097_152), (500, 1_482_912), (1_000, 571_744), (1_000, 1)] {
        desk.wait(waited_ms);
        assert_eq!(queue(&mut desk), Some(left_us), "{waited_ms} ms more");
    }
    desk.give(&job, Ok(&rows(&[4])));
    desk.said();
    assert_eq!(queue(&mut desk), Some(1));
}
