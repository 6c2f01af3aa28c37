use super::*;
use crate::lot::Lot;
use dunlin_wire::{FleetDetail, FleetPhase, FleetReason, ObjectId, SystemSlot};

const MINUTE: u64 = 60_000;
const DEVICES: usize = 200;

fn at(ms: u64) -> Moment {
    Moment { mono: Instant(ms * 1000), unix: 1_800_000_000 + ms / 1000 }
}

fn ring() -> RingId {
    "stable".parse().unwrap()
}

fn device(number: usize) -> DeviceId {
    format!("plover-{number}").parse().unwrap()
}

fn release(number: u32) -> ReleaseName {
    ReleaseName { number, object: ObjectId([number as u8; 32]), size: 100 }
}

fn plan() -> RolloutPlan {
    RolloutPlan {
        release: release(2),
        former: Some(release(1)),
        steps: vec![100, 500, 1000],
        soak_seconds: 600,
        finished_min: 5,
        success_percent: 95,
        abort_percent: 5,
        deadline_min: 60,
        bytes_per_s: 0,
        valid_seconds: 86_400,
    }
}

fn report(order: &RolloutFields, phase: FleetPhase) -> FleetReport {
    let kept = matches!(phase, FleetPhase::Committed);
    FleetReport {
        report: 1,
        rollout: order.number,
        command: 0,
        release: if kept { order.release } else { 1 },
        target: order.release,
        phase,
        permille: 0,
        reason: FleetReason::None,
        detail: FleetDetail::new(),
        slot: SystemSlot::None,
        system: 0,
        min_number: 0,
        tries: 3,
        failures: 0,
        free_mib: 0,
        board: "rpi4".parse().unwrap(),
        updater: 1,
    }
}

/// A controller whose book reaches the disk at once.
struct Desk {
    controller: Controller,
    disk: RolloutBook,
    published: Vec<(RolloutScope, RolloutFields)>,
    notes: Vec<RolloutNote>,
    asked: Vec<DeviceId>,
    now: u64,
}

impl Desk {
    fn new(book: RolloutBook) -> Self {
        let mut controller = Controller::new(book.clone());
        controller.handle_link(true, at(0));
        let (published, notes, asked) = (Vec::new(), Vec::new(), Vec::new());
        let mut desk = Self { controller, disk: book, published, notes, asked, now: 0 };
        desk.wait(11_000);
        desk
    }

    fn started() -> Self {
        let mut desk = Self::new(RolloutBook::default());
        desk.controller.start(ring(), plan(), 7, at(desk.now)).unwrap();
        desk.drain();
        desk
    }

    fn drain(&mut self) {
        while let Some(event) = self.controller.poll_event() {
            match event {
                ControllerEvent::Save(book) => {
                    self.disk = book;
                    self.controller.handle_saved();
                }
                ControllerEvent::Publish(scope, order) => {
                    assert!(order.number <= self.disk.number, "published before it was saved");
                    self.published.push((scope, order));
                }
                ControllerEvent::Ask(device) => self.asked.push(device),
                ControllerEvent::Note(_, note) => self.notes.push(note),
            }
        }
    }

    fn wait(&mut self, ms: u64) {
        let end = self.now + ms;
        loop {
            self.drain();
            let Some(due) = self.controller.poll_timeout().filter(|due| due.0 <= end * 1000) else { break };
            self.now = self.now.max(due.0.div_ceil(1000));
            self.controller.handle_timeout(at(self.now));
        }
        self.now = end;
    }

    fn order(&self) -> RolloutFields {
        self.published.iter().rev().find(|(scope, _)| *scope == RolloutScope::Ring(ring())).unwrap().1
    }

    fn say(&mut self, number: usize, phase: FleetPhase) {
        let report = report(&self.order(), phase);
        self.controller.handle_report(&device(number), &report, at(self.now));
    }

    /// All devices: members of the step end with `phase`, the others wait.
    fn all(&mut self, phase: FleetPhase) {
        let order = self.order();
        for number in 0..DEVICES {
            let member = Lot::of(order.salt, &device(number)).is_member(order.permille);
            self.say(number, if member { phase } else { FleetPhase::Queued });
        }
    }

    fn state(&self) -> RolloutState {
        self.controller.book().rings[&ring()].state
    }
}

#[test]
fn steps_follow_each_other_after_success_and_soak() {
    let mut desk = Desk::started();
    let mut steps = vec![desk.order().permille];
    for _ in 0..3 {
        desk.all(FleetPhase::Blocks);
        desk.wait(20 * MINUTE);
        assert_eq!(desk.order().permille, steps[steps.len() - 1], "none has finished");
        desk.all(FleetPhase::Committed);
        desk.wait(9 * MINUTE);
        assert_eq!(desk.order().permille, steps[steps.len() - 1], "the soak is not over");
        desk.wait(2 * MINUTE);
        steps.push(desk.order().permille);
    }
    assert_eq!((steps, desk.state()), (vec![100, 500, 1000, 1000], RolloutState::Finished));
    let numbers: Vec<u32> = desk.published.iter().map(|(_, order)| order.number).collect();
    assert_eq!(numbers, [1, 2, 3]);
    let order = desk.order();
    assert!(order.until == order.at + 86_400 && desk.disk == *desk.controller.book());
}

#[test]
fn failures_beyond_the_threshold_stop_the_rollout() {
    for bad in [FleetPhase::RolledBack, FleetPhase::TimedOut] {
        let mut desk = Desk::started();
        desk.all(FleetPhase::Committed);
        let members: Vec<usize> =
            (0..DEVICES).filter(|number| Lot::of(7, &device(*number)).is_member(100)).collect();
        let allowed = members.len() * 5 / 100;
        members[..allowed].iter().for_each(|number| desk.say(*number, bad));
        desk.wait(5 * MINUTE);
        assert_eq!(desk.state(), RolloutState::Running, "{allowed} of {}", members.len());
        desk.say(members[allowed], bad);
        desk.wait(10_000);
        assert!(desk.state() == RolloutState::Stopped && desk.order().paused);
        desk.all(FleetPhase::Committed);
        desk.wait(100 * MINUTE);
        assert_eq!((desk.order().permille, desk.order().number), (100, 2), "nothing is raised any more");
        let error = desk.controller.resume(&ring(), at(desk.now)).unwrap_err();
        assert_eq!(error.to_string(), "the rollout is not in a state for that: it is stopped by failures");
    }
}

#[test]
fn a_device_that_falls_silent_counts_as_failed_after_its_deadline() {
    let mut desk = Desk::started();
    desk.all(FleetPhase::Committed);
    for number in (0..DEVICES).filter(|number| Lot::of(7, &device(*number)).is_member(100)).take(5) {
        desk.say(number, FleetPhase::Gate);
    }
    desk.wait(9 * MINUTE);
    desk.all(FleetPhase::Gate);
    desk.wait(50 * MINUTE);
    assert_eq!(desk.state(), RolloutState::Running);
    desk.wait(12 * MINUTE);
    assert_eq!(desk.state(), RolloutState::Stopped);
}

#[test]
fn a_step_is_judged_when_enough_have_finished_or_all_of_a_small_one() {
    let mut desk = Desk::started();
    let members: Vec<usize> =
        (0..DEVICES).filter(|number| Lot::of(7, &device(*number)).is_member(100)).collect();
    desk.all(FleetPhase::Blocks);
    members[..4].iter().for_each(|number| desk.say(*number, FleetPhase::RolledBack));
    desk.wait(MINUTE);
    assert_eq!(desk.state(), RolloutState::Running, "four of five");
    desk.say(members[4], FleetPhase::RolledBack);
    desk.wait(MINUTE);
    assert_eq!(desk.state(), RolloutState::Stopped);
    // Three boards in all.
    let mut desk = Desk::started();
    let late = (0..DEVICES).filter(|number| !Lot::of(7, &device(*number)).is_member(500));
    let boards: Vec<usize> = late.take(3).collect();
    boards.iter().for_each(|number| desk.say(*number, FleetPhase::Queued));
    desk.wait(40 * MINUTE);
    assert_eq!(desk.order().permille, 1000, "steps without a board pass");
    boards[..2].iter().for_each(|number| desk.say(*number, FleetPhase::Committed));
    desk.wait(30 * MINUTE);
    assert_eq!(desk.state(), RolloutState::Running);
    desk.controller.handle_lost(&device(boards[2]), true);
    desk.wait(30 * MINUTE);
    assert_eq!(desk.state(), RolloutState::Finished, "one that is away takes the release later");
}

#[test]
fn nothing_is_raised_before_a_device_has_spoken() {
    let mut desk = Desk::started();
    desk.wait(600 * MINUTE);
    assert_eq!((desk.order().number, desk.state()), (1, RolloutState::Running));
}

#[test]
fn refusals_neither_stop_nor_finish_a_step() {
    let mut desk = Desk::started();
    desk.all(FleetPhase::Refused);
    desk.wait(100 * MINUTE);
    assert_eq!((desk.order().permille, desk.state()), (100, RolloutState::Running));
    // But one that refuses because the release failed there is a failure.
    let order = desk.order();
    for number in 0..DEVICES {
        let seen = FleetReport { reason: FleetReason::Failed, ..report(&order, FleetPhase::Refused) };
        desk.controller.handle_report(&device(number), &seen, at(desk.now));
    }
    desk.wait(MINUTE);
    assert_eq!(desk.state(), RolloutState::Stopped);
}

#[test]
fn pause_resume_and_abort_are_new_messages() {
    let mut desk = Desk::started();
    desk.all(FleetPhase::Committed);
    desk.controller.pause(&ring(), at(desk.now)).unwrap();
    desk.wait(100 * MINUTE);
    assert!(desk.order().paused && desk.order().number == 2 && desk.order().permille == 100);
    assert!(desk.controller.pause(&ring(), at(desk.now)).is_err());
    desk.controller.resume(&ring(), at(desk.now)).unwrap();
    desk.drain();
    assert!(!desk.order().paused && desk.order().number == 3);
    desk.controller.abort(&ring(), at(desk.now)).unwrap();
    desk.wait(100 * MINUTE);
    let order = desk.order();
    assert_eq!((order.number, order.release, order.permille, order.object), (4, 1, 1000, release(1).object));
    assert_eq!((desk.state(), desk.controller.abort(&ring(), at(0)).is_err()), (RolloutState::Aborted, true));
    let unknown: RingId = "early".parse().unwrap();
    assert_eq!(desk.controller.pause(&unknown, at(0)), Err(PlanError::NoRollout));
    desk.controller.start(unknown.clone(), RolloutPlan { former: None, ..plan() }, 1, at(0)).unwrap();
    assert_eq!(desk.controller.abort(&unknown, at(0)), Err(PlanError::NoFormer));
}

#[test]
fn a_pinned_device_does_not_count_and_both_share_one_sequence_of_numbers() {
    let mut desk = Desk::started();
    desk.all(FleetPhase::Committed);
    let before = desk.controller.count(&ring(), at(desk.now)).unwrap();
    let pinned = (0..DEVICES).map(device).find(|device| Lot::of(7, device).is_member(100)).unwrap();
    desk.controller.pin(pinned.clone(), release(9), (100, 10), at(desk.now)).unwrap();
    desk.drain();
    let (scope, order) = desk.published.last().unwrap().clone();
    assert_eq!((scope, order.number, order.release), (RolloutScope::Device(pinned.clone()), 2, 9));
    let after = desk.controller.count(&ring(), at(desk.now)).unwrap();
    assert_eq!((after.known, after.succeeded), (before.known - 1, before.succeeded - 1));
    desk.controller.unpin(pinned.clone(), 100, at(desk.now)).unwrap();
    desk.drain();
    let (_, order) = desk.published.last().unwrap();
    assert_eq!((order.number, order.release, order.permille), (3, 9, 0));
    assert_eq!(desk.controller.unpin(pinned.clone(), 100, at(0)), Err(PlanError::NotPinned));
    assert_eq!(desk.controller.pin(pinned, release(9), (0, 1), at(0)), Err(PlanError::Time));
    for number in 1..PINS_MAX {
        desk.controller.pin(device(number + 1_000_000), release(9), (1, 1), at(0)).unwrap();
        desk.drain();
    }
    assert_eq!(desk.controller.pin(device(0), release(9), (1, 1), at(0)), Err(PlanError::Pins));
}

#[test]
fn a_controller_that_was_killed_goes_on_from_its_book_and_the_reports() {
    let mut desk = Desk::started();
    desk.all(FleetPhase::Committed);
    desk.wait(11 * MINUTE);
    assert_eq!(desk.order().permille, 500);
    // The broker has everything: nothing is published again.
    let kept = desk.order();
    let mut controller = Controller::new(desk.disk.clone());
    controller.handle_link(true, at(0));
    controller.handle_retained(&ring(), kept, at(0));
    let mut next = Desk { controller, published: Vec::new(), now: 0, ..desk };
    next.wait(11_000);
    assert_eq!(next.published, []);
    next.published.push((RolloutScope::Ring(ring()), kept));
    next.all(FleetPhase::Committed);
    next.wait(11 * MINUTE);
    assert_eq!((next.order().permille, next.order().number), (1000, 3));
}

#[test]
fn a_broker_that_lost_its_messages_gets_them_again_and_devices_are_asked() {
    let mut desk = Desk::started();
    desk.all(FleetPhase::Queued);
    let before = desk.order();
    desk.controller.pin(device(5), release(9), (100, 10), at(desk.now)).unwrap();
    desk.drain();
    desk.published.clear();
    desk.controller.handle_link(false, at(desk.now));
    desk.controller.handle_link(true, at(desk.now));
    desk.wait(9_000);
    assert_eq!(desk.published, [], "what was retained comes first");
    desk.wait(20_000);
    assert_eq!(desk.order(), before, "the same message under the same number");
    assert_eq!(desk.published.len(), 2, "and the pin");
    assert_eq!(desk.notes.last(), Some(&RolloutNote::Restored(1)));
    assert_eq!(desk.asked.len(), DEVICES);
    // An older message is no better than none.
    desk.controller.resume(&ring(), at(0)).unwrap_err();
    desk.controller.pause(&ring(), at(desk.now)).unwrap();
    desk.drain();
    desk.published.clear();
    desk.controller.handle_link(true, at(desk.now));
    desk.controller.handle_retained(&ring(), before, at(desk.now));
    desk.wait(20_000);
    assert!(desk.order().paused);
}

#[test]
fn a_message_of_another_controller_is_taken_over() {
    let mut desk = Desk::started();
    let foreign = RolloutFields { number: 40, permille: 500, ..desk.order() };
    desk.controller.handle_retained(&ring(), foreign, at(desk.now));
    desk.drain();
    assert_eq!((desk.controller.book().rings[&ring()].step, desk.state()), (1, RolloutState::Running));
    desk.controller.pause(&ring(), at(desk.now)).unwrap();
    desk.drain();
    assert_eq!(desk.order().number, 41);
    let other = RolloutFields { number: 60, release: 8, ..foreign };
    desk.controller.handle_retained(&ring(), other, at(desk.now));
    desk.drain();
    assert_eq!((desk.state(), desk.disk.number), (RolloutState::Paused, 60));
    let ours = desk.controller.book().rings[&ring()].plan.release.number;
    desk.controller.resume(&ring(), at(desk.now)).unwrap();
    desk.drain();
    assert_eq!((desk.order().release, desk.order().number), (ours, 61));
}

#[test]
fn nothing_is_published_before_the_book_is_on_disk() {
    let mut controller = Controller::new(RolloutBook::default());
    controller.start(ring(), plan(), 7, at(0)).unwrap();
    controller.pause(&ring(), at(0)).unwrap();
    let mut saved = None;
    while let Some(event) = controller.poll_event() {
        match event {
            ControllerEvent::Save(book) => saved = Some(book.number),
            ControllerEvent::Publish(..) => panic!("not saved"),
            _ => {}
        }
    }
    assert_eq!(saved, Some(1));
    controller.handle_saved();
    let events: Vec<ControllerEvent> = core::iter::from_fn(|| controller.poll_event()).collect();
    let published = |event: &ControllerEvent| match event {
        ControllerEvent::Publish(_, order) => Some(order.number),
        _ => None,
    };
    assert_eq!(events.iter().filter_map(published).collect::<Vec<_>>(), [1]);
    assert!(events.iter().any(|event| matches!(event, ControllerEvent::Save(book) if book.number == 2)));
}

#[test]
fn reports_cannot_move_the_numbers() {
    let mut desk = Desk::started();
    let high = FleetReport { rollout: u32::MAX, ..report(&desk.order(), FleetPhase::Committed) };
    desk.controller.handle_report(&device(1), &high, at(desk.now));
    desk.controller.pause(&ring(), at(desk.now)).unwrap();
    desk.drain();
    assert_eq!((desk.order().number, desk.controller.count(&ring(), at(desk.now)).unwrap().known), (2, 0));
}

#[test]
fn plans_that_cannot_be_carried_out_are_refused() {
    let wrong = [
        (RolloutPlan { steps: vec![], ..plan() }, PlanError::Steps),
        (RolloutPlan { steps: vec![0, 1000], ..plan() }, PlanError::Steps),
        (RolloutPlan { steps: vec![100, 100, 1000], ..plan() }, PlanError::Steps),
        (RolloutPlan { steps: vec![100, 500], ..plan() }, PlanError::Steps),
        (RolloutPlan { steps: (984..=1000).collect(), ..plan() }, PlanError::Steps),
        (RolloutPlan { success_percent: 101, ..plan() }, PlanError::Percent),
        (RolloutPlan { abort_percent: 101, ..plan() }, PlanError::Percent),
        (RolloutPlan { deadline_min: 0, ..plan() }, PlanError::Time),
        (RolloutPlan { valid_seconds: 0, ..plan() }, PlanError::Time),
        (RolloutPlan { release: ReleaseName { number: 0, ..release(2) }, ..plan() }, PlanError::Time),
        (RolloutPlan { former: Some(ReleaseName { size: 0, ..release(1) }), ..plan() }, PlanError::Time),
    ];
    let mut controller = Controller::new(RolloutBook::default());
    for (plan, error) in wrong {
        assert_eq!(controller.start(ring(), plan, 1, at(0)), Err(error));
    }
    for number in 0..RINGS_MAX {
        controller.start(format!("ring-{number}").parse().unwrap(), plan(), 1, at(0)).unwrap();
    }
    assert_eq!(controller.start(ring(), plan(), 1, at(0)), Err(PlanError::Rings));
    assert!(controller.start("ring-3".parse().unwrap(), plan(), 1, at(0)).is_ok());
}

#[test]
fn devices_beyond_the_limit_are_counted_and_not_kept() {
    let mut desk = Desk::started();
    for number in 0..DEVICES_MAX + 2 {
        desk.say(number, FleetPhase::Queued);
    }
    let known = desk.controller.count(&ring(), at(desk.now)).unwrap().known;
    assert_eq!((known as usize, desk.controller.counters().devices_refused), (DEVICES_MAX, 2));
    desk.controller.forget(&device(0));
    desk.say(DEVICES_MAX, FleetPhase::Queued);
    assert_eq!(desk.controller.counters().devices_refused, 2);
}

#[test]
fn old_numbers_of_a_long_rollout_are_forgotten() {
    let mut desk = Desk::started();
    for _ in 0..NUMBERS_MAX {
        desk.controller.pause(&ring(), at(desk.now)).unwrap();
        desk.controller.resume(&ring(), at(desk.now)).unwrap();
        desk.drain();
    }
    let numbers = &desk.controller.book().rings[&ring()].numbers;
    assert_eq!((numbers.len(), numbers.last()), (NUMBERS_MAX, Some(&desk.order().number)));
}
