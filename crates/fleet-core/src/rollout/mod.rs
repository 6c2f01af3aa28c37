//! The controller's machine: which release goes to how many devices, and when that stops.
//!
//! Invariants:
//! - It holds no truth about devices. Their retained reports are counted, and its [book](RolloutBook) is only a plan.
//! - Each message has a number that was never used before, and is saved before it is published.
//! - While it is down nothing is raised, and nothing else changes.
//! - A device's report can't move a number: only signed messages and the book do.

mod count;
mod plan;

pub use count::RingCount;
pub use plan::{
    NUMBERS_MAX, PINS_MAX, PlanError, RINGS_MAX, ReleaseName, RingRollout, RolloutBook, RolloutPlan,
    RolloutState, STEPS_MAX,
};

use crate::moment::Moment;
use count::DeviceView;
use dunlin_hlm::time::{Duration, Instant};
use dunlin_wire::limits::PERMILLE_MAX;
use dunlin_wire::{DeviceId, FleetReport, RingId, RolloutFields, RolloutScope};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Devices whose reports are counted.
pub const DEVICES_MAX: usize = 16_384;
/// Events that wait for the shell; the machine decides nothing new while there are as many.
const EVENTS_MAX: usize = 1024;
/// Time in which a broker delivers what it retained.
const SETTLE: Duration = Duration::from_millis(10_000);
/// Time between two looks at the counts while reports come in.
const LOOK: Duration = Duration::from_millis(1000);
/// Time between two looks while none come.
const LOOK_IDLE: Duration = Duration::from_millis(10_000);
/// Devices asked for a report in each look.
const ASKED_MAX: usize = 50;

/// A change that the audit log keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RolloutNote {
    /// A rollout began.
    Started,
    /// A step was good, and the next one began with this permille.
    Raised(u16),
    /// Too many devices failed.
    Stopped(RingCount),
    /// All devices that are there have the release.
    Finished(RingCount),
    /// An operator paused it.
    Paused,
    /// An operator let it go on.
    Resumed,
    /// An operator sent all back to the former release.
    Aborted,
    /// A message with this number was found that this book doesn't know; it was taken over.
    Foreign(u32),
    /// The broker had lost the message with this number, and got it again.
    Restored(u32),
}

/// An order to the shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControllerEvent {
    /// Write the book to disk and answer with [`Controller::handle_saved`].
    Save(RolloutBook),
    /// Sign and publish a message, retained.
    Publish(RolloutScope, RolloutFields),
    /// Ask a device for its report.
    Ask(DeviceId),
    /// Note a change.
    Note(RingId, RolloutNote),
}

/// Counters of what was not taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ControllerCounters {
    /// Reports of devices beyond [`DEVICES_MAX`].
    pub devices_refused: u64,
}

/// The controller's machine.
#[derive(Debug)]
pub struct Controller {
    book: RolloutBook,
    devices: BTreeMap<DeviceId, DeviceView>,
    /// Messages that must not be published before the book is saved.
    unsaved: VecDeque<(RolloutScope, RolloutFields)>,
    /// The number of them that the save under way contains.
    saving: Option<usize>,
    /// True if the book changed since the last save began.
    changed: bool,
    /// The time since which a ring's step is good.
    good_since: BTreeMap<RingId, Instant>,
    /// Rings whose messages the broker has, by number.
    retained: BTreeMap<RingId, u32>,
    settled_at: Option<Instant>,
    look_at: Option<Instant>,
    asks: BTreeSet<DeviceId>,
    events: VecDeque<ControllerEvent>,
    counters: ControllerCounters,
}

impl Controller {
    /// A controller with what the disk kept.
    pub fn new(book: RolloutBook) -> Self {
        Self {
            book,
            devices: BTreeMap::new(),
            unsaved: VecDeque::new(),
            saving: None,
            changed: false,
            good_since: BTreeMap::new(),
            retained: BTreeMap::new(),
            settled_at: None,
            look_at: None,
            asks: BTreeSet::new(),
            events: VecDeque::new(),
            counters: ControllerCounters::default(),
        }
    }

    /// The rollouts and pins.
    pub fn book(&self) -> &RolloutBook {
        &self.book
    }

    /// The counters.
    pub fn counters(&self) -> ControllerCounters {
        self.counters
    }

    /// The count of a ring's devices; `None` for a ring without a rollout.
    pub fn count(&self, ring: &RingId, now: Moment) -> Option<RingCount> {
        let rollout = self.book.rings.get(ring)?;
        Some(RingCount::of(rollout, &self.devices, |device| is_pinned(&self.book, device), now))
    }

    /// Begins a rollout, in place of the ring's present one. `salt` is random and decides which devices are first.
    ///
    /// # Errors
    /// The first number of the plan that is out of range, and too many rings.
    pub fn start(
        &mut self,
        ring: RingId,
        plan: RolloutPlan,
        salt: u32,
        now: Moment,
    ) -> Result<(), PlanError> {
        plan.check()?;
        if self.book.rings.len() >= RINGS_MAX && !self.book.rings.contains_key(&ring) {
            return Err(PlanError::Rings);
        }
        let permille = plan.steps[0];
        let order = RolloutFields {
            number: self.book.number,
            at: now.unix,
            until: now.unix,
            release: plan.release.number,
            object: plan.release.object,
            size: plan.release.size,
            permille,
            salt,
            paused: false,
            bytes_per_s: plan.bytes_per_s,
            deadline_min: plan.deadline_min,
        };
        let rollout = RingRollout { plan, state: RolloutState::Running, step: 0, order, numbers: Vec::new() };
        self.book.rings.insert(ring.clone(), rollout);
        self.change(&ring, RolloutNote::Started, now, |_| {});
        Ok(())
    }

    /// Stops devices that didn't begin their trial, until [`resume`](Self::resume).
    ///
    /// # Errors
    /// [`PlanError::NoRollout`] and [`PlanError::State`].
    pub fn pause(&mut self, ring: &RingId, now: Moment) -> Result<(), PlanError> {
        self.in_state(ring, &[RolloutState::Running, RolloutState::Finished])?;
        self.change(ring, RolloutNote::Paused, now, |rollout| {
            rollout.state = RolloutState::Paused;
            rollout.order.paused = true;
        });
        Ok(())
    }

    /// Goes on with what an operator paused. A rollout that failures stopped is started anew instead, or aborted.
    ///
    /// # Errors
    /// [`PlanError::NoRollout`] and [`PlanError::State`].
    pub fn resume(&mut self, ring: &RingId, now: Moment) -> Result<(), PlanError> {
        self.in_state(ring, &[RolloutState::Paused])?;
        self.change(ring, RolloutNote::Resumed, now, |rollout| {
            rollout.state = RolloutState::Running;
            rollout.order.paused = false;
            name(&mut rollout.order, rollout.plan.release);
            rollout.order.permille = rollout.plan.steps[rollout.step];
        });
        Ok(())
    }

    /// Sends all devices of the ring back to the former release.
    ///
    /// # Errors
    /// [`PlanError::NoRollout`], [`PlanError::NoFormer`] and [`PlanError::State`].
    pub fn abort(&mut self, ring: &RingId, now: Moment) -> Result<(), PlanError> {
        let states =
            [RolloutState::Running, RolloutState::Paused, RolloutState::Stopped, RolloutState::Finished];
        self.in_state(ring, &states)?;
        let former = self.book.rings.get(ring).and_then(|rollout| rollout.plan.former);
        let former = former.ok_or(PlanError::NoFormer)?;
        self.change(ring, RolloutNote::Aborted, now, |rollout| {
            rollout.state = RolloutState::Aborted;
            name(&mut rollout.order, former);
            rollout.order.permille = PERMILLE_MAX;
            rollout.order.paused = false;
        });
        Ok(())
    }

    /// Gives one device a release of its own, whatever its ring has, until [`unpin`](Self::unpin).
    ///
    /// # Errors
    /// [`PlanError::Pins`] and [`PlanError::Time`].
    pub fn pin(
        &mut self,
        device: DeviceId,
        release: ReleaseName,
        (valid_seconds, deadline_min): (u32, u16),
        now: Moment,
    ) -> Result<(), PlanError> {
        if valid_seconds == 0 || deadline_min == 0 {
            return Err(PlanError::Time);
        }
        if self.book.pins.len() >= PINS_MAX && !self.book.pins.contains_key(&device) {
            return Err(PlanError::Pins);
        }
        self.order_pin(device, release, PERMILLE_MAX, (valid_seconds, deadline_min), now);
        Ok(())
    }

    /// Lets a device follow its ring again.
    ///
    /// # Errors
    /// [`PlanError::NotPinned`].
    pub fn unpin(&mut self, device: DeviceId, valid_seconds: u32, now: Moment) -> Result<(), PlanError> {
        let pin = self.book.pins.get(&device).filter(|pin| pin.permille > 0).ok_or(PlanError::NotPinned)?;
        let release = ReleaseName { number: pin.release, object: pin.object, size: pin.size };
        self.order_pin(device, release, 0, (valid_seconds.max(1), 1), now);
        Ok(())
    }

    fn order_pin(
        &mut self,
        device: DeviceId,
        release: ReleaseName,
        permille: u16,
        (valid_seconds, deadline_min): (u32, u16),
        now: Moment,
    ) {
        self.book.number = self.book.number.saturating_add(1);
        let order = RolloutFields {
            number: self.book.number,
            at: now.unix,
            until: now.unix.saturating_add(u64::from(valid_seconds)),
            release: release.number,
            object: release.object,
            size: release.size,
            permille,
            salt: 0,
            paused: false,
            bytes_per_s: 0,
            deadline_min,
        };
        self.book.pins.insert(device.clone(), order);
        self.publish(RolloutScope::Device(device), order);
    }

    /// Takes the state of the connection to the broker. With a new one, the broker's retained messages come first.
    pub fn handle_link(&mut self, up: bool, now: Moment) {
        self.retained.clear();
        self.settled_at = up.then(|| now.mono + SETTLE);
        self.look_at = up.then(|| now.mono + SETTLE);
    }

    /// Takes a ring's message that the broker had, whose signature is good.
    pub fn handle_retained(&mut self, ring: &RingId, order: RolloutFields, now: Moment) {
        self.retained.insert(ring.clone(), order.number);
        if order.number > self.book.number {
            self.book.number = order.number;
            self.changed = true;
        }
        let Some(rollout) = self.book.rings.get_mut(ring) else { return self.save() };
        if order.number <= rollout.order.number {
            return self.save();
        }
        // Another controller was here, or this book is an old copy: what devices were told counts.
        remember(&mut rollout.numbers, order.number);
        rollout.order = order;
        let ours =
            order.release == rollout.plan.release.number && order.object == rollout.plan.release.object;
        rollout.state = if ours && !order.paused { RolloutState::Running } else { RolloutState::Paused };
        let reached = rollout.plan.steps.iter().rposition(|permille| *permille <= order.permille);
        rollout.step = reached.unwrap_or(0);
        self.good_since.remove(ring);
        self.changed = true;
        self.note(ring, RolloutNote::Foreign(order.number));
        self.look_at = self.look_at.or(Some(now.mono + LOOK));
        self.save();
    }

    /// Takes a device's report.
    pub fn handle_report(&mut self, device: &DeviceId, report: &FleetReport, now: Moment) {
        self.asks.remove(device);
        let lost = self.devices.get(device).is_some_and(|view| view.lost);
        if self.devices.len() >= DEVICES_MAX && !self.devices.contains_key(device) {
            self.counters.devices_refused += 1;
            return;
        }
        self.devices.insert(device.clone(), DeviceView::new(report, lost, now));
        if self.settled_at.is_none() {
            let soon = now.mono + LOOK;
            self.look_at = Some(self.look_at.map_or(soon, |at| at.min(soon)));
        }
    }

    /// Takes the state of a device's connection.
    pub fn handle_lost(&mut self, device: &DeviceId, lost: bool) {
        if let Some(view) = self.devices.get_mut(device) {
            view.lost = lost;
        }
    }

    /// Forgets a device that is gone for good.
    pub fn forget(&mut self, device: &DeviceId) {
        self.devices.remove(device);
        self.asks.remove(device);
    }

    /// Takes the news that the book of the last [`ControllerEvent::Save`] is on disk.
    pub fn handle_saved(&mut self) {
        for _ in 0..self.saving.take().unwrap_or(0) {
            if let Some((target, order)) = self.unsaved.pop_front() {
                self.events.push_back(ControllerEvent::Publish(target, order));
            }
        }
        self.save();
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Moment) {
        if self.look_at.is_none_or(|at| at > now.mono) || self.events.len() >= EVENTS_MAX {
            return;
        }
        if self.settled_at.is_some_and(|at| at <= now.mono) {
            self.settled_at = None;
            self.restore();
        }
        self.ask();
        let rings: Vec<RingId> = self.book.rings.keys().cloned().collect();
        rings.iter().for_each(|ring| self.look(ring, now));
        let busy = !self.asks.is_empty();
        self.look_at = Some(now.mono + if busy { LOOK } else { LOOK_IDLE });
    }

    /// The time of the next [`handle_timeout`](Self::handle_timeout).
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.look_at
    }

    /// The next order to the shell.
    pub fn poll_event(&mut self) -> Option<ControllerEvent> {
        self.events.pop_front()
    }

    /// Publishes again what the broker lost, and all pins, which a controller can't read.
    fn restore(&mut self) {
        let mut lost = false;
        for (ring, rollout) in &self.book.rings {
            let order = rollout.order;
            let unsaved = self.unsaved.iter().any(|(_, waiting)| waiting.number == order.number);
            if unsaved || self.retained.get(ring).is_some_and(|number| *number >= order.number) {
                continue;
            }
            lost = true;
            self.events.push_back(ControllerEvent::Publish(RolloutScope::Ring(ring.clone()), order));
            self.events.push_back(ControllerEvent::Note(ring.clone(), RolloutNote::Restored(order.number)));
        }
        for (device, pin) in &self.book.pins {
            let target = RolloutScope::Device(device.clone());
            self.events.push_back(ControllerEvent::Publish(target, *pin));
        }
        if lost {
            self.asks = self.devices.keys().cloned().collect();
        }
    }

    fn ask(&mut self) {
        for _ in 0..ASKED_MAX {
            let Some(device) = self.asks.pop_first() else { return };
            self.events.push_back(ControllerEvent::Ask(device));
        }
    }

    /// Judges a ring's step.
    fn look(&mut self, ring: &RingId, now: Moment) {
        let Some(count) = self.count(ring, now) else { return };
        let Some(rollout) = self.book.rings.get(ring) else { return };
        let plan = &rollout.plan;
        if rollout.state != RolloutState::Running || self.settled_at.is_some() {
            return;
        }
        let judged = count.finished() >= count.needed(plan.finished_min) && count.known > 0;
        if judged && count.bad() * 100 > count.started * u32::from(plan.abort_percent) {
            self.good_since.remove(ring);
            return self.change(ring, RolloutNote::Stopped(count), now, |rollout| {
                rollout.state = RolloutState::Stopped;
                rollout.order.paused = true;
            });
        }
        let good = judged && count.succeeded * 100 >= count.finished() * u32::from(plan.success_percent);
        if !good {
            self.good_since.remove(ring);
            return;
        }
        let since = *self.good_since.entry(ring.clone()).or_insert(now.mono);
        if now.mono.since(since) < Duration::from_millis(u64::from(plan.soak_seconds) * 1000) {
            return;
        }
        self.good_since.remove(ring);
        let next = rollout.step + 1;
        match plan.steps.get(next).copied() {
            Some(permille) => self.change(ring, RolloutNote::Raised(permille), now, |rollout| {
                rollout.step = next;
                rollout.order.permille = permille;
            }),
            None if count.finished() + count.refused >= count.members => self.finish(ring, count),
            None => {}
        }
    }

    /// Ends a rollout. Its message stays, so that a device which was away takes the release when it is back.
    fn finish(&mut self, ring: &RingId, count: RingCount) {
        if let Some(rollout) = self.book.rings.get_mut(ring) {
            rollout.state = RolloutState::Finished;
        }
        self.changed = true;
        self.note(ring, RolloutNote::Finished(count));
        self.save();
    }

    fn in_state(&self, ring: &RingId, states: &[RolloutState]) -> Result<(), PlanError> {
        let rollout = self.book.rings.get(ring).ok_or(PlanError::NoRollout)?;
        if states.contains(&rollout.state) { Ok(()) } else { Err(PlanError::State(rollout.state.name())) }
    }

    /// Changes a ring's rollout, and publishes that under the next number.
    fn change(&mut self, ring: &RingId, note: RolloutNote, now: Moment, edit: impl FnOnce(&mut RingRollout)) {
        let Some(rollout) = self.book.rings.get_mut(ring) else { return };
        edit(rollout);
        self.book.number = self.book.number.saturating_add(1);
        rollout.order.number = self.book.number;
        rollout.order.at = now.unix;
        rollout.order.until = now.unix.saturating_add(u64::from(rollout.plan.valid_seconds));
        remember(&mut rollout.numbers, self.book.number);
        let order = rollout.order;
        self.good_since.remove(ring);
        self.note(ring, note);
        self.publish(RolloutScope::Ring(ring.clone()), order);
    }

    fn publish(&mut self, target: RolloutScope, order: RolloutFields) {
        self.unsaved.push_back((target, order));
        self.changed = true;
        self.save();
    }

    fn note(&mut self, ring: &RingId, note: RolloutNote) {
        self.events.push_back(ControllerEvent::Note(ring.clone(), note));
    }

    /// Begins a save if one is due and none is under way.
    fn save(&mut self) {
        if self.saving.is_none() && self.changed {
            self.changed = false;
            self.saving = Some(self.unsaved.len());
            self.events.push_back(ControllerEvent::Save(self.book.clone()));
        }
    }
}

fn is_pinned(book: &RolloutBook, device: &DeviceId) -> bool {
    book.pins.get(device).is_some_and(|pin| pin.permille > 0)
}

fn name(order: &mut RolloutFields, release: ReleaseName) {
    (order.release, order.object, order.size) = (release.number, release.object, release.size);
}

fn remember(numbers: &mut Vec<u32>, number: u32) {
    if numbers.len() >= NUMBERS_MAX {
        numbers.remove(0);
    }
    numbers.push(number);
}

#[cfg(test)]
mod tests;
