//! Which release the device is to run: rings, pins, and what it refuses.

use super::{DONE, Goal, ROOT_WITHIN, Stage, UpdateOutcome, Updater, bump};
use crate::lot::Lot;
use crate::moment::Moment;
use crate::transfer::{ObjectCheck, TransferObject};
use dunlin_hlm::time::Duration;
use dunlin_wire::{FleetPhase, FleetReason, RolloutFields, RolloutScope, RootNotice};

impl Updater {
    /// Takes a rollout's message whose signatures are good.
    pub fn handle_rollout(&mut self, scope: &RolloutScope, order: &RolloutFields, now: Moment) {
        let ours = match scope {
            RolloutScope::Ring(ring) => *ring == self.config.ring,
            RolloutScope::Device(device) => device == self.device(),
        };
        if !ours {
            bump(&mut self.counters.misaddressed);
            return;
        }
        let seen = self.state.last_rollout(scope);
        if order.number < seen {
            bump(&mut self.counters.replayed_rollouts);
            return;
        }
        match scope {
            RolloutScope::Ring(_) => self.ring = Some(*order),
            RolloutScope::Device(_) => self.pin = Some(*order),
        }
        if order.number > seen {
            self.state.take_rollout(scope, order.number);
            self.save(None);
        }
        self.reconsider(now);
    }

    /// Takes the news that a message was refused before it came here, for its signatures or its root. A device that has
    /// work goes on with it.
    pub fn handle_refused(&mut self, reason: FleetReason) {
        bump(&mut self.counters.unsigned);
        if matches!(self.stage, Stage::Idle) && self.outcome == DONE {
            self.outcome = UpdateOutcome { phase: FleetPhase::Refused, reason };
        }
    }

    /// Takes the announcement of a root that is newer than the present one. It is fetched between updates, and before
    /// the next one, as that may be signed by its keys.
    pub fn handle_root(&mut self, notice: &RootNotice, now: Moment) {
        self.root = Some((*notice, now.mono + ROOT_WITHIN));
        self.fetch_root(now);
    }

    /// Begins to fetch an announced root; true while one is on its way.
    pub(super) fn fetch_root(&mut self, now: Moment) -> bool {
        let (Stage::Idle | Stage::Queued(_), Some((notice, _))) = (self.stage, self.root) else {
            return false;
        };
        if !self.transfer.is_busy() {
            let check = ObjectCheck::Whole;
            let object = TransferObject { id: notice.object, size: notice.size.into(), check };
            if !self.transfer.fetch(object, |_| false) {
                self.root = None;
            }
            self.drain_transfer(now);
        }
        self.root.is_some()
    }

    /// Gives up a root that nobody has.
    pub(super) fn check_root(&mut self, now: Moment) {
        if self.root.is_some_and(|(_, until)| until <= now.mono) {
            self.root = None;
            if let Stage::Idle | Stage::Queued(_) = self.stage {
                self.transfer.cancel();
            }
        }
    }

    /// The message that counts: that of a pin, or else that of the ring.
    fn order(&self) -> Option<(RolloutFields, bool)> {
        let pin = self.pin.filter(|pin| pin.permille > 0);
        pin.map(|pin| (pin, true)).or_else(|| self.ring.map(|ring| (ring, false)))
    }

    /// Goes for the release that the messages ask for, unless one is on trial.
    pub(super) fn reconsider(&mut self, now: Moment) {
        self.choose(now);
        self.fetch_root(now);
    }

    fn choose(&mut self, now: Moment) {
        if !matches!(self.stage, Stage::Idle) && !self.is_working() {
            return;
        }
        let Some((order, pinned)) = self.order() else { return };
        let before = self.goal;
        let same = before
            .is_some_and(|goal| goal.order.release == order.release && goal.order.object == order.object);
        // Told once more what it was told; only a new number is a reason to try again.
        let told = same && before.is_some_and(|goal| goal.order.number == order.number);
        if told && matches!(self.stage, Stage::Idle) {
            return self.settle(&order);
        }
        self.goal = Some(Goal { order, pinned, deadline: before.and_then(|goal| goal.deadline) });
        self.transfer.set_rate(order.bytes_per_s, now.mono);
        self.transfer.set_paused(self.busy || order.paused, now.mono);
        if order.release == self.state.good {
            let kept = same && self.outcome.phase == FleetPhase::Committed;
            self.end(if kept { self.outcome } else { DONE });
            return;
        }
        if let Some(reason) = self.refusal(&order, now) {
            let failed_now = same && self.outcome.phase == FleetPhase::RolledBack;
            let refused = UpdateOutcome { phase: FleetPhase::Refused, reason };
            self.end(if failed_now { self.outcome } else { refused });
            return;
        }
        let drawn = pinned || Lot::of(order.salt, self.device()).is_member(order.permille);
        if !drawn {
            let removed = self.is_working() && !matches!(self.stage, Stage::Queued(_));
            self.end(UpdateOutcome { phase: FleetPhase::Removed, reason: FleetReason::None });
            if !removed {
                self.stage = Stage::Queued(None);
            }
            return;
        }
        match self.stage {
            Stage::Queued(None) | Stage::Idle => self.queue(now),
            _ if !same => self.queue(now),
            _ => self.refresh_deadline(before, now),
        }
    }

    /// Says that the release is kept, where it was kept without this machine's doing.
    fn settle(&mut self, order: &RolloutFields) {
        if order.release == self.state.good && self.outcome.phase != FleetPhase::Committed {
            self.outcome = DONE;
        }
    }

    /// Waits for the device's turn, which is spread over a quarter of its time.
    fn queue(&mut self, now: Moment) {
        self.end(DONE);
        let Some(goal) = &mut self.goal else { return };
        let span = Duration::from_millis(u64::from(goal.order.deadline_min) * 60_000);
        goal.deadline = Some(now.mono + span);
        let lot = Lot::of(goal.order.salt, &self.config.device);
        let delay = if goal.pinned { Duration(0) } else { lot.delay(Duration(span.0 / 4)) };
        self.stage = Stage::Queued(Some(now.mono + delay));
    }

    /// Gives a device that was stopped its time anew.
    fn refresh_deadline(&mut self, before: Option<Goal>, now: Moment) {
        let was_paused = before.is_some_and(|goal| goal.order.paused);
        if let Some(goal) = self.goal.as_mut().filter(|goal| was_paused && !goal.order.paused) {
            let span = Duration::from_millis(u64::from(goal.order.deadline_min) * 60_000);
            goal.deadline = Some(now.mono + span);
        }
        self.try_switch(now);
    }

    /// The reason to refuse a message.
    pub(super) fn refusal(&self, order: &RolloutFields, now: Moment) -> Option<FleetReason> {
        if order.until < self.clock(now) {
            return Some(FleetReason::Expired);
        }
        if self.state.failed.contains(&order.release) {
            return Some(FleetReason::Failed);
        }
        (order.release < self.state.min_number).then_some(FleetReason::Floor)
    }

    /// Ends an update that is not on trial.
    pub(super) fn end(&mut self, outcome: UpdateOutcome) {
        self.transfer.cancel();
        self.facts = None;
        self.states.clear();
        self.stage = Stage::Idle;
        self.outcome = outcome;
        if let Some(goal) = &mut self.goal {
            goal.deadline = None;
        }
    }

    /// Ends an update that can't be carried out.
    pub(super) fn refuse(&mut self, reason: FleetReason) {
        self.end(UpdateOutcome { phase: FleetPhase::Refused, reason });
    }

    /// True while the device works for an update, or waits for its turn, and nothing is on trial.
    pub(super) fn is_working(&self) -> bool {
        !matches!(
            self.stage,
            Stage::Idle
                | Stage::Resuming
                | Stage::Trial(_)
                | Stage::Gate(_)
                | Stage::CommittingSlot
                | Stage::Deciding
        )
    }

    pub(super) fn is_paused(&self) -> bool {
        self.goal.is_some_and(|goal| goal.order.paused)
    }

    pub(super) fn may_time_out(&self) -> bool {
        self.is_working() && !self.is_paused()
    }

    pub(super) fn check_deadline(&mut self, now: Moment) {
        let over = self.goal.and_then(|goal| goal.deadline).is_some_and(|deadline| deadline <= now.mono);
        if over && self.may_time_out() {
            self.end(UpdateOutcome { phase: FleetPhase::TimedOut, reason: FleetReason::Deadline });
        }
    }
}
