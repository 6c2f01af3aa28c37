//! The way of a release onto the board: its document, its tables, its blocks, a generation.

use super::{ObjectFacts, ObjectState, ReleaseFacts, Stage, Updater, UpdaterEvent};
use crate::moment::Moment;
use crate::release::OBJECTS_MAX;
use crate::transfer::{ObjectCheck, TransferEvent, TransferObject};
use dunlin_wire::{FleetReason, ObjectId, SystemSlot};

impl Updater {
    /// Fetches the release's document.
    pub(super) fn begin(&mut self, now: Moment) {
        let Some(goal) = self.goal else { return };
        if let Some(reason) = self.refusal(&goal.order, now) {
            return self.refuse(reason);
        }
        if self.fetch_root(now) {
            self.stage = Stage::Queued(self.root.map(|(_, until)| until));
            return;
        }
        self.stage = Stage::Manifest;
        self.fetch_whole(goal.order.object, goal.order.size.into(), now);
    }

    fn fetch_whole(&mut self, id: ObjectId, size: u64, now: Moment) {
        let object = TransferObject { id, size, check: ObjectCheck::Whole };
        if !self.transfer.fetch(object, |_| false) {
            return self.refuse(FleetReason::Content);
        }
        self.drain_transfer(now);
    }

    pub(super) fn drain_transfer(&mut self, now: Moment) {
        while let Some(event) = self.transfer.poll_event() {
            match (event, self.stage) {
                (TransferEvent::Whole(id, bytes), stage) if self.is_root(id, stage) => {
                    self.root = None;
                    self.events.push_back(UpdaterEvent::AdoptRoot(bytes));
                    if let Stage::Queued(Some(_)) = stage {
                        self.stage = Stage::Queued(Some(now.mono));
                    }
                }
                (TransferEvent::Block { object, block, bytes }, Stage::Blocks(_)) => {
                    self.events.push_back(UpdaterEvent::KeepBlock { object, block, bytes });
                }
                (TransferEvent::Complete(_), Stage::Blocks(index)) => self.seal(index),
                (TransferEvent::Whole(_, bytes), Stage::Manifest) => {
                    self.stage = Stage::Judging;
                    let release = self.goal.map_or(0, |goal| goal.order.release);
                    self.events.push_back(UpdaterEvent::Judge { release, bytes });
                }
                (TransferEvent::Whole(id, bytes), Stage::Table(index)) => {
                    self.events.push_back(UpdaterEvent::KeepTable(id, bytes));
                    if let Some(state) = self.states.get_mut(index) {
                        state.table = true;
                    }
                    self.next_table(now);
                }
                _ => {}
            }
        }
    }

    fn is_root(&self, id: ObjectId, stage: Stage) -> bool {
        let wanted = self.root.is_some_and(|(notice, _)| notice.object == id);
        wanted && matches!(stage, Stage::Idle | Stage::Queued(_))
    }

    /// Takes the release that [`UpdaterEvent::Judge`] or [`UpdaterEvent::ReadGeneration`] asked for, or the reason why
    /// this board refuses it.
    pub fn handle_release(&mut self, release: Result<ReleaseFacts, FleetReason>, now: Moment) {
        if let Stage::Resuming = self.stage {
            return self.handle_trial_release(release, now);
        }
        let (Stage::Judging, Some(goal)) = (self.stage, self.goal) else { return };
        let facts = match release {
            Ok(facts) => facts,
            Err(reason) => return self.refuse(reason),
        };
        let systems = facts.objects.iter().filter(|object| object.system).count();
        if facts.number != goal.order.release || facts.objects.len() > OBJECTS_MAX || systems > 1 {
            return self.refuse(FleetReason::Content);
        }
        if systems > 0 && self.boot.slot == SystemSlot::None {
            return self.refuse(FleetReason::Unsupported);
        }
        self.stage = Stage::Preparing;
        self.events.push_back(UpdaterEvent::Prepare(facts.objects.clone()));
        self.facts = Some(facts);
    }

    /// Takes what is on the board of each object, in their order, or the reason why the rest can't be fetched.
    pub fn handle_prepared(&mut self, prepared: Result<Vec<ObjectState>, FleetReason>, now: Moment) {
        let Stage::Preparing = self.stage else { return };
        match prepared {
            Ok(states) if states.len() == self.objects().len() => {
                self.states = states;
                self.next_table(now);
            }
            Ok(_) => self.refuse(FleetReason::Disk),
            Err(reason) => self.refuse(reason),
        }
    }

    fn objects(&self) -> &[ObjectFacts] {
        self.facts.as_ref().map_or(&[], |facts| &facts.objects)
    }

    fn next_table(&mut self, now: Moment) {
        let due = self.states.iter().position(|state| !state.whole && !state.table);
        let Some((index, object)) = due.and_then(|index| Some((index, *self.objects().get(index)?))) else {
            return self.next_object();
        };
        self.stage = Stage::Table(index);
        self.fetch_whole(object.table, object.table_bytes(), now);
    }

    fn next_object(&mut self) {
        let due = self.states.iter().position(|state| !state.whole);
        if let Some((index, object)) = due.and_then(|index| Some((index, *self.objects().get(index)?))) {
            self.stage = Stage::Opening(index);
            self.events.push_back(UpdaterEvent::Open(object));
            return;
        }
        let Some(facts) = &self.facts else { return };
        self.stage = Stage::Staging;
        self.events.push_back(UpdaterEvent::Stage(facts.number));
    }

    /// Takes the table of the object that [`UpdaterEvent::Open`] named, and the blocks of it that are here; or the
    /// reason why there is no place for it.
    pub fn handle_opened(
        &mut self,
        table: Result<Vec<u8>, FleetReason>,
        has: impl Fn(u32) -> bool,
        now: Moment,
    ) {
        let Stage::Opening(index) = self.stage else { return };
        let (hashes, Some(object)) = (table, self.objects().get(index).copied()) else { return };
        let hashes = match hashes {
            Ok(hashes) => hashes,
            Err(reason) => return self.refuse(reason),
        };
        self.stage = Stage::Blocks(index);
        let check = ObjectCheck::Blocks { block_bytes: object.block_bytes, hashes };
        let object = TransferObject { id: object.id, size: object.size, check };
        if !self.transfer.fetch(object, has) {
            return self.refuse(FleetReason::Content);
        }
        self.drain_transfer(now);
    }

    fn seal(&mut self, index: usize) {
        let Some(object) = self.objects().get(index).copied() else { return };
        self.stage = Stage::Sealing(index);
        self.events.push_back(UpdaterEvent::Seal(object));
    }

    /// Takes the result of the check of the whole object. One whose blocks are right and whose whole is wrong has
    /// another object's table.
    pub fn handle_sealed(&mut self, sealed: Result<(), FleetReason>) {
        let Stage::Sealing(index) = self.stage else { return };
        match (sealed, self.states.get_mut(index)) {
            (Ok(()), Some(state)) => {
                state.whole = true;
                self.next_object();
            }
            (Err(reason), _) => self.refuse(reason),
            (Ok(()), None) => self.refuse(FleetReason::Disk),
        }
    }

    /// Takes the result of making the generation.
    pub fn handle_staged(&mut self, staged: Result<(), FleetReason>, now: Moment) {
        let Stage::Staging = self.stage else { return };
        match staged {
            Ok(()) => {
                self.stage = Stage::Waiting;
                self.try_switch(now);
            }
            Err(reason) => self.refuse(reason),
        }
    }

    /// Takes the news that a file can't be written, outside the answers to orders.
    pub fn handle_disk_failure(&mut self) {
        if self.is_working() {
            self.refuse(FleetReason::Disk);
        }
    }

    /// The part of the release's bytes that is here, as far as objects are whole or on their way.
    pub(super) fn fetched_permille(&self) -> u16 {
        let objects = self.objects().iter().zip(&self.states).enumerate();
        let (mut here, mut all) = (0, 0);
        for (index, (object, state)) in objects {
            let part = match self.stage {
                _ if state.whole => 1000,
                Stage::Blocks(current) if current == index => self.transfer.permille(),
                Stage::Sealing(current) if current == index => 1000,
                _ => 0,
            };
            here += u128::from(object.size) * u128::from(part);
            all += u128::from(object.size);
        }
        here.checked_div(all).unwrap_or(1000) as u16
    }
}
