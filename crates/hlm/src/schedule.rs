//! The order of a target's work: which jobs, and which part of a long context, the next pass holds.
//!
//! Invariant: devices share a target, not sessions. Each device with a short job has one in a pass before any has two,
//! and all beyond that, long contexts above all, is served by deficit round robin within a bound that is relative to
//! the rest of the pass. No clock and no model is used here; durations are arguments.

use crate::fading::{FadingLine, fade};
use crate::passes::{BATCH_JOBS_MAX, MeasuredPasses, PassSize};
use crate::time::Duration;
use crate::verifier::{Slot, VerifyJob, VerifyJobId};
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::ops::Bound;
use dunlin_wire::DeviceId;

/// Tokens without rows that a short job has at most. A short job runs in one pass.
pub const SHORT_PREFILL_TOKENS_MAX: usize = 16;
/// Most tokens of long contexts in a pass, whatever it costs.
pub const PREFILL_TOKENS_MAX: usize = 256;
/// Tokens of long contexts for which a pass always has room.
pub const PREFILL_TOKENS_MIN: usize = 8;
/// Parts of a pass that are kept for long contexts while one waits, however many short jobs there are.
const LONG_PARTS_MIN: usize = 2;
/// Tokens of long contexts in a pass before any pass was measured.
const PREFILL_TOKENS_FIRST: usize = 32;
/// Time that long contexts add to a pass at most, as a share of the pass without them.
const PREFILL_SHARE: f64 = 0.25;
/// Time of a pass that only one device needs.
const LONE_PASS: Duration = Duration::from_millis(250);
/// Error of the durations that are measured without load, as a share of the shortest.
const MEASURING_ERROR: f64 = 0.05;
/// Tokens that a device gains with each of its turns.
const QUANTUM_TOKENS: usize = 64;
/// Passes for which a device is counted as active after its last job.
const ACTIVE_PASSES: u64 = 32;

/// A line through the durations of passes by their number of tokens, and the mean number of tokens of short jobs.
#[derive(Debug, Default)]
struct PassLine {
    line: FadingLine,
    short: f64,
    /// Seconds of a token when the passes last differed in size.
    token: Option<f64>,
    /// Least seconds of a token, by passes that were measured without load.
    least: Option<f64>,
}

impl PassLine {
    fn observe(&mut self, tokens: usize, short: usize, took: Duration) {
        if tokens == 0 {
            return;
        }
        if self.line.observe_usual(tokens as f64, took.as_secs_f64()) {
            fade(&mut self.short, short as f64);
            self.token = self.line.slope().or(self.token);
        }
    }

    /// Takes passes that were measured without load, the smallest first.
    fn expect(&mut self, passes: &[(usize, Duration)]) {
        for (tokens, took) in passes {
            self.observe(*tokens, *tokens, *took);
        }
        let (Some((few, short)), Some((many, long))) = (passes.first(), passes.last()) else { return };
        if many > few {
            let (short, long) = (short.as_secs_f64(), long.as_secs_f64());
            let least = ((long - short) / 2.0).max(MEASURING_ERROR * short) / (many - few) as f64;
            self.least = Some(least).filter(|least| *least > 0.0);
        }
    }

    /// Seconds of a pass, and of each token in it; `None` before the first pass.
    fn seconds(&self) -> Option<(f64, f64)> {
        let (tokens, seconds) = (self.line.mean_tokens(), self.line.mean_seconds());
        if self.line.is_empty() || seconds <= 0.0 {
            return None;
        }
        let proportional = seconds / tokens;
        // Texts on credit make passes of one size for long. What was known before counts then, and if nothing was, all
        // of the time is counted for the tokens, the careful guess.
        let slope = self.token.unwrap_or(proportional);
        // Noise may turn the slope around. A token is never free.
        let least = self.least.unwrap_or(proportional / 64.0).min(proportional);
        let token = slope.clamp(least, proportional);
        Some((seconds - token * tokens, token))
    }

    /// The number of tokens that may be added to a pass with `short` tokens.
    fn room(&self, short: usize, alone: bool) -> usize {
        let Some((pass, token)) = self.seconds() else { return PREFILL_TOKENS_FIRST };
        let usual = (short as f64).max(self.line.mean(self.short));
        let beside = PREFILL_SHARE * (pass + token * usual) / token;
        let lone = if alone { LONE_PASS.as_secs_f64() / token } else { 0.0 };
        (beside.max(lone) as usize).clamp(PREFILL_TOKENS_MIN, PREFILL_TOKENS_MAX)
    }
}

impl VerifyJob {
    /// True if a job before it in its slot may become a part of it: that one has no rows, and this one keeps no more than
    /// its tokens.
    pub fn continues(&self, before: &Self) -> bool {
        before.slot == self.slot && before.rows == 0 && self.keep <= before.keep + before.tokens.len()
    }

    /// The job with what it keeps of the tokens of the one before it, which it [continues](Self::continues).
    #[must_use]
    pub fn behind(self, before: &Self) -> Self {
        let kept = self.keep.saturating_sub(before.keep).min(before.tokens.len());
        let mut tokens = before.tokens[..kept].to_vec();
        tokens.extend(self.tokens);
        Self { keep: self.keep.min(before.keep), tokens, ..self }
    }
}

/// A job that waits, as far as it was not done by earlier passes.
#[derive(Debug)]
struct WaitingJob<T> {
    job: VerifyJob,
    came: T,
    /// True before its first pass.
    whole: bool,
}

impl<T> WaitingJob<T> {
    /// Tokens whose rows nobody wants.
    fn prefill(&self) -> usize {
        self.job.tokens.len() - self.job.rows.min(self.job.tokens.len())
    }

    fn is_short(&self) -> bool {
        self.prefill() <= SHORT_PREFILL_TOKENS_MAX
    }
}

/// The jobs of a device.
#[derive(Debug)]
struct DeviceJobs<T> {
    jobs: VecDeque<WaitingJob<T>>,
    /// Tokens that the device may still use in its turn.
    deficit: usize,
}

impl<T> DeviceJobs<T> {
    /// Index of the first job that fits `wanted`: of a slot only its first job, and none behind another in the pass.
    fn first(&self, pass: &Pass<T>, wanted: impl Fn(&WaitingJob<T>) -> bool) -> Option<usize> {
        let mut behind = BTreeSet::new();
        self.jobs.iter().position(|waiting| {
            let VerifyJob { slot, id, .. } = &waiting.job;
            let follows = pass.slots.get(slot).is_none_or(|index| pass.parts[*index].job.id == *id);
            behind.insert(*slot) && follows && wanted(waiting)
        })
    }
}

/// A job of a pass, or a part of one: a job with the tokens and the rows of this pass.
#[derive(Clone, Debug, PartialEq)]
pub struct PassPart<T> {
    /// The slot, the tokens to keep and to append in this pass, and its rows.
    pub job: VerifyJob,
    /// The time at which the job came.
    pub came: T,
    /// True if no earlier pass had a part of it.
    pub begins: bool,
    /// True if no later pass has one: its rows answer the job.
    pub ends: bool,
}

/// The jobs that wait for a target.
#[derive(Debug)]
pub struct PassQueue<T> {
    /// The configured bound on prefill, instead of one by measured time.
    fixed: Option<usize>,
    devices: BTreeMap<DeviceId, DeviceJobs<T>>,
    waiting: usize,
    /// The device that was served last when a pass had no room for the next.
    served: Option<DeviceId>,
    /// The device whose turn it is to use what a pass has left.
    turn: Option<DeviceId>,
    /// Number of the last pass with a job, for each device that was active of late.
    active: BTreeMap<DeviceId, u64>,
    passes: u64,
    /// Tokens of short jobs in the last pass.
    short: usize,
    line: PassLine,
}

impl<T: Copy> PassQueue<T> {
    /// An empty queue. A pass holds at most `fixed` tokens of long contexts, or as many as its measured time allows.
    pub fn new(fixed: Option<usize>) -> Self {
        Self {
            fixed: fixed.map(|tokens| tokens.max(1)),
            devices: BTreeMap::new(),
            waiting: 0,
            served: None,
            turn: None,
            active: BTreeMap::new(),
            passes: 0,
            short: 0,
            line: PassLine::default(),
        }
    }

    /// Takes what was measured before there was work. Passes of several sizes tell the time of a token, which texts on credit don't: their passes are of one size.
    pub fn expect(&mut self, passes: &MeasuredPasses) {
        self.line.expect(passes.all());
    }

    /// The number of jobs that wait, those included that were begun.
    pub fn len(&self) -> usize {
        self.waiting
    }

    /// True if no job waits.
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Adds a job that came at `came`. A waiting job of its slot without rows becomes a part of it, as far as this one
    /// keeps its tokens. That job's number is returned: it needs no answer of its own.
    pub fn push(&mut self, job: VerifyJob, came: T) -> Option<VerifyJobId> {
        let device = self.devices.entry(job.device.clone());
        let device = device.or_insert_with(|| DeviceJobs { jobs: VecDeque::new(), deficit: 0 });
        let before = device.jobs.iter_mut().rev().find(|before| before.job.slot == job.slot);
        if let Some(before) = before.filter(|before| job.continues(&before.job)) {
            let id = before.job.id;
            before.job = job.behind(&before.job);
            return Some(id);
        }
        device.jobs.push_back(WaitingJob { job, came, whole: true });
        self.waiting += 1;
        None
    }

    /// Drops what waits for a slot; returns the numbers of the jobs.
    pub fn release(&mut self, slot: Slot) -> Vec<VerifyJobId> {
        let mut dropped = Vec::new();
        for device in self.devices.values_mut() {
            device.jobs.retain(|waiting| {
                let stays = waiting.job.slot != slot;
                if !stays {
                    dropped.push(waiting.job.id);
                }
                stays
            });
        }
        self.devices.retain(|_, device| !device.jobs.is_empty());
        self.waiting -= dropped.len();
        dropped
    }

    /// Takes the parts of the next pass: none if nothing waits, each slot at most once.
    ///
    /// `copied` is asked once for each job of an empty slot, when its first part is due, for the number of its first
    /// tokens that the slot holds by then, as a copy from another session. The rows of the last tokens are still due.
    pub fn next_pass(&mut self, copied: Copied<'_>) -> Vec<PassPart<T>> {
        self.passes += 1;
        let oldest = self.passes.saturating_sub(ACTIVE_PASSES);
        self.active.retain(|_, pass| *pass > oldest);
        let mut pass = Pass { parts: Vec::new(), slots: BTreeMap::new() };
        let alone = self.is_alone();
        let rest = self.short_jobs(&mut pass, alone, copied);
        self.short = pass.tokens();
        let room = self.fixed.unwrap_or_else(|| self.line.room(self.short, alone));
        self.turns(&mut pass, (room, rest), copied);
        for part in &pass.parts {
            match self.active.get_mut(&part.job.device) {
                Some(last) => *last = self.passes,
                None => drop(self.active.insert(part.job.device.clone(), self.passes)),
            }
        }
        pass.parts
    }

    /// Takes the duration of the last pass, whose size was `size`.
    pub fn observe(&mut self, size: PassSize, took: Duration) {
        self.line.observe(size.tokens, self.short, took);
    }

    /// True if only one device waits and no other was active of late.
    fn is_alone(&self) -> bool {
        let Some(device) = self.devices.keys().next() else { return true };
        self.devices.len() == 1 && self.active.keys().all(|active| active == device)
    }

    /// Adds short jobs: one of each device, then another of each while more than half of the active devices have one.
    /// A few with many sessions must not make the passes of the others longer. True if all that may run do.
    fn short_jobs(&mut self, pass: &mut Pass<T>, alone: bool, copied: Copied<'_>) -> bool {
        let active = self.active.len().max(self.devices.len());
        let is_long = |waiting: &WaitingJob<T>| !waiting.is_short();
        let long = self.devices.values().any(|device| device.jobs.iter().any(is_long));
        let most = BATCH_JOBS_MAX - if long { LONG_PARTS_MIN } else { 0 };
        for round in 0.. {
            let further =
                self.devices.values().filter(|jobs| jobs.first(pass, WaitingJob::is_short).is_some());
            if round > 0 && !alone && 2 * further.count() <= active {
                return true;
            }
            let mut added = false;
            let mut last = self.served.clone();
            for _ in 0..self.devices.len() {
                let Some(device) = self.behind(last.as_ref()) else { return true };
                if pass.parts.len() >= most {
                    return false;
                }
                let index = self.devices[&device].first(pass, WaitingJob::is_short);
                if let Some(index) = index {
                    self.take((&device, index), usize::MAX, pass, copied);
                    self.served = Some(device.clone());
                    added = true;
                }
                last = Some(device);
            }
            if !added {
                return true;
            }
        }
        true
    }

    /// Fills `room` tokens of the pass by deficit round robin, with short jobs as well if `short`. While more devices
    /// have short jobs than a pass takes, contexts alone use the parts that are kept for them.
    fn turns(&mut self, pass: &mut Pass<T>, (mut room, short): (usize, bool), copied: Copied<'_>) {
        let mut fruitless = 0;
        while room > 0 && !pass.is_full() && fruitless <= self.devices.len() {
            let turn = self.turn.as_ref().and_then(|device| self.devices.get_key_value(device));
            let Some((device, jobs)) = turn else {
                self.begin_turn();
                fruitless += 1;
                continue;
            };
            let most = room.min(jobs.deficit);
            let fits =
                |waiting: &WaitingJob<T>| !waiting.is_short() || short && waiting.job.tokens.len() <= most;
            let Some(index) = jobs.first(pass, fits).filter(|_| most > 0) else {
                // What is left of a turn is kept only while there is work.
                let has_work = jobs.first(pass, |_| true).is_some();
                let device = device.clone();
                if let Some(jobs) = self.devices.get_mut(&device).filter(|_| !has_work) {
                    jobs.deficit = 0;
                }
                self.begin_turn();
                fruitless += 1;
                continue;
            };
            let device = device.clone();
            let used = self.take((&device, index), most, pass, copied);
            room -= used;
            fruitless = 0;
            if let Some(jobs) = self.devices.get_mut(&device) {
                jobs.deficit -= used;
            }
        }
    }

    /// The device behind `last` in the order of their ids, after the last one the first.
    fn behind(&self, last: Option<&DeviceId>) -> Option<DeviceId> {
        let bound = last.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = self.devices.range::<DeviceId, _>((bound, Bound::Unbounded)).next();
        behind.or_else(|| self.devices.first_key_value()).map(|(device, _)| device.clone())
    }

    /// Gives the turn to the next device, with its tokens.
    fn begin_turn(&mut self) {
        self.turn = self.behind(self.turn.as_ref());
        if let Some(device) = &self.turn
            && let Some(jobs) = self.devices.get_mut(device)
        {
            jobs.deficit = (jobs.deficit + QUANTUM_TOKENS).min(2 * QUANTUM_TOKENS);
        }
    }

    /// Moves a job to the pass, or its first `most` tokens; returns the number of tokens moved.
    fn take(
        &mut self,
        (device, index): (&DeviceId, usize),
        most: usize,
        pass: &mut Pass<T>,
        copied: Copied<'_>,
    ) -> usize {
        let Some(jobs) = self.devices.get_mut(device) else { return 0 };
        let Some(mut waiting) = jobs.jobs.remove(index) else { return 0 };
        if waiting.whole && waiting.job.keep == 0 {
            let held = copied(&waiting.job).min(waiting.prefill());
            waiting.job.tokens.drain(..held);
            waiting.job.keep = held;
        }
        let (came, begins, tokens) = (waiting.came, waiting.whole, waiting.job.tokens.len());
        if tokens <= most {
            self.waiting -= 1;
            if jobs.jobs.is_empty() {
                self.devices.remove(device);
            }
            pass.add(PassPart { job: waiting.job, came, begins, ends: true });
            return tokens;
        }
        let fed = most.min(waiting.prefill());
        let rest = waiting.job.tokens.split_off(fed);
        let VerifyJob { id, slot, keep, sampling, seed, .. } = waiting.job;
        let tokens = core::mem::replace(&mut waiting.job.tokens, rest);
        let job = VerifyJob { device: device.clone(), id, slot, keep, tokens, rows: 0, sampling, seed };
        waiting.job.keep += fed;
        waiting.whole = false;
        jobs.jobs.insert(index, waiting);
        pass.add(PassPart { job, came, begins, ends: false });
        fed
    }
}

/// The number of a job's first tokens that its slot holds as a copy.
type Copied<'a> = &'a mut dyn FnMut(&VerifyJob) -> usize;

/// The pass that is put together.
struct Pass<T> {
    parts: Vec<PassPart<T>>,
    /// Index of each slot's part.
    slots: BTreeMap<Slot, usize>,
}

impl<T> Pass<T> {
    fn is_full(&self) -> bool {
        self.parts.len() >= BATCH_JOBS_MAX
    }

    /// Adds a part, or adds it to the part of the same job.
    fn add(&mut self, part: PassPart<T>) {
        let PassPart { job: VerifyJob { slot, mut tokens, rows, .. }, ends, .. } = part;
        match self.slots.get(&slot).and_then(|index| self.parts.get_mut(*index)) {
            Some(before) => {
                before.job.tokens.append(&mut tokens);
                (before.job.rows, before.ends) = (rows, ends);
            }
            None => {
                self.slots.insert(slot, self.parts.len());
                self.parts.push(PassPart { job: VerifyJob { tokens, ..part.job }, ..part });
            }
        }
    }

    fn tokens(&self) -> usize {
        self.parts.iter().map(|part| part.job.tokens.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probabilities::Sampling;
    use std::format;
    use std::vec;

    /// A job of `tokens` tokens of device and slot `slot / 100`, `slot`.
    fn job(id: u64, slot: u64, tokens: usize, rows: usize) -> VerifyJob {
        let device = format!("d{}", slot / 100).parse().unwrap();
        let tokens = (0..tokens as u32).collect();
        let (id, slot, sampling) = (VerifyJobId(id), Slot(slot), Sampling::greedy());
        VerifyJob { device, id, slot, keep: 0, tokens, rows, sampling, seed: 0 }
    }

    fn queue(fixed: Option<usize>, jobs: impl IntoIterator<Item = VerifyJob>) -> PassQueue<u64> {
        let mut queue = PassQueue::new(fixed);
        for job in jobs {
            assert_eq!(queue.push(job, 0), None);
        }
        queue
    }

    /// Slot, tokens and rows of each part of the next pass.
    fn pass(queue: &mut PassQueue<u64>) -> Vec<(u64, usize, usize)> {
        let parts = queue.next_pass(&mut |_| 0);
        parts.iter().map(|part| (part.job.slot.0, part.job.tokens.len(), part.job.rows)).collect()
    }

    #[test]
    fn a_long_context_is_cut_and_drafts_ride_along() {
        let mut queue = queue(Some(100), [job(1, 100, 260, 5), job(2, 200, 9, 9)]);
        assert_eq!(pass(&mut queue), [(200, 9, 9), (100, 100, 0)]);
        assert_eq!(queue.len(), 1);
        queue.push(job(3, 200, 9, 9), 0);
        assert_eq!(pass(&mut queue), [(200, 9, 9), (100, 100, 0)]);
        assert_eq!(pass(&mut queue), [(100, 60, 5)]);
    }

    #[test]
    fn the_parts_of_a_context_are_the_job() {
        for (fixed, tokens, rows) in [(1, 40, 5), (7, 100, 1), (64, 64, 0), (100, 260, 17), (256, 1000, 3)] {
            let mut queue = queue(Some(fixed), [job(1, 100, tokens, rows)]);
            let (mut fed, mut passes) = (Vec::<u32>::new(), 0);
            while !queue.is_empty() {
                let parts = queue.next_pass(&mut |_| 0);
                let [part] = parts.as_slice() else { panic!("{parts:?}") };
                assert_eq!((part.job.keep, part.begins), (fed.len(), passes == 0));
                assert!(part.job.tokens.len() <= fixed.max(SHORT_PREFILL_TOKENS_MAX + rows));
                fed.extend(&part.job.tokens);
                assert_eq!(part.ends, queue.is_empty());
                assert_eq!(part.job.rows, if part.ends { rows } else { 0 });
                passes += 1;
            }
            assert_eq!(fed, (0..tokens as u32).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_job_without_rows_is_continued_by_the_next() {
        let mut queue = queue(Some(32), [job(1, 100, 40, 0)]);
        assert_eq!(pass(&mut queue), [(100, 32, 0)]);
        let mut next = job(2, 100, 9, 9);
        next.keep = 40;
        assert_eq!(queue.push(next.clone(), 0), Some(VerifyJobId(1)), "the first is done with the second");
        assert_eq!(pass(&mut queue), [(100, 17, 9)]);
        queue.push(next.clone(), 0);
        (next.keep, next.id) = (49, VerifyJobId(3));
        assert_eq!(queue.push(next, 0), None, "one with rows has an answer of its own");
        assert_eq!(pass(&mut queue), [(100, 9, 9)]);
        assert_eq!(pass(&mut queue), [(100, 9, 9)]);
    }

    #[test]
    fn a_job_takes_over_only_what_it_keeps() {
        for (keep, parts) in
            [(40, vec![(32, 9)]), (36, vec![(32, 9)]), (20, vec![(20, 9)]), (0, vec![(0, 9)])]
        {
            let mut queue = queue(Some(32), [job(1, 100, 40, 0)]);
            pass(&mut queue);
            let mut next = job(2, 100, 9, 9);
            next.keep = keep;
            assert_eq!(queue.push(next, 0), Some(VerifyJobId(1)));
            let found: Vec<_> =
                queue.next_pass(&mut |_| 0).iter().map(|part| (part.job.keep, part.job.rows)).collect();
            assert_eq!((found, queue.len()), (parts, 0));
        }
    }

    #[test]
    fn copied_tokens_are_left_out_once() {
        let mut queue = queue(Some(32), [job(1, 100, 100, 2), job(2, 200, 10, 2)]);
        let mut asked = Vec::new();
        let mut parts = Vec::new();
        while !queue.is_empty() {
            let copied = &mut |job: &VerifyJob| {
                asked.push(job.slot.0);
                50
            };
            parts
                .extend(queue.next_pass(copied).iter().map(|p| (p.job.keep, p.job.tokens.len(), p.job.rows)));
        }
        // Of the short one, all but its rows.
        assert_eq!(parts, [(8, 2, 2), (50, 32, 0), (82, 18, 2)]);
        assert_eq!(asked, [200, 100]);
    }

    #[test]
    fn a_released_slot_leaves_the_queue() {
        let mut queue = queue(Some(32), [job(1, 100, 400, 1), job(2, 101, 9, 9)]);
        pass(&mut queue);
        assert_eq!(queue.release(Slot(100)), [VerifyJobId(1)]);
        assert!(queue.is_empty() && pass(&mut queue).is_empty());
        assert_eq!(queue.release(Slot(100)), []);
    }

    #[test]
    fn a_pass_has_one_short_job_of_each_device() {
        let mut queue = queue(Some(8), (0..10).map(|slot| job(slot, 100 + slot, 9, 9)));
        assert_eq!(pass(&mut queue).len(), 10, "alone, a device has them all");
        for slot in 0..10 {
            queue.push(job(slot, 100 + slot, 9, 9), 0);
        }
        queue.push(job(20, 200, 9, 9), 0);
        assert_eq!(pass(&mut queue), [(200, 9, 9), (100, 9, 9)]);
        for slot in 1..5 {
            queue.push(job(20, 200 + slot, 9, 9), 0);
        }
        // Both devices have as many as they can: neither makes the other's passes longer than its own.
        assert_eq!(pass(&mut queue).len(), 8);
    }

    #[test]
    fn what_a_pass_has_left_is_shared_by_device() {
        let greedy = (0..20).map(|slot| job(slot, 100 + slot, 4000, 1));
        let mut queue = queue(Some(24), greedy.chain([job(90, 200, 4000, 1), job(91, 300, 4000, 1)]));
        let mut fed = BTreeMap::new();
        for _ in 0..160 {
            for (slot, tokens, _) in pass(&mut queue) {
                *fed.entry(slot / 100).or_insert(0) += tokens;
            }
        }
        assert_eq!(fed.values().sum::<usize>(), 160 * 24);
        for (device, tokens) in fed {
            assert!(tokens.abs_diff(160 * 24 / 3) <= QUANTUM_TOKENS, "device {device}: {tokens} tokens");
        }
    }

    #[test]
    fn more_devices_than_a_pass_takes_take_turns() {
        let mut queue = queue(Some(8), (0..80).map(|device| job(device, 100 * device, 1, 1)));
        let mut slots = BTreeSet::new();
        for jobs in [BATCH_JOBS_MAX, BATCH_JOBS_MAX, 80 - 2 * BATCH_JOBS_MAX] {
            let parts = pass(&mut queue);
            assert_eq!(parts.len(), jobs);
            slots.extend(parts.iter().map(|(slot, ..)| *slot));
        }
        assert_eq!(slots.len(), 80);
    }

    #[test]
    fn short_jobs_leave_room_for_a_context() {
        let mut queue = queue(Some(8), [job(1000, 9900, 200, 1)]);
        for pass in 0..10 {
            for device in 0..80 {
                queue.push(job(100 * pass + device, 100 * device + pass, 1, 1), 0);
            }
            let parts = queue.next_pass(&mut |_| 0);
            assert_eq!(parts.len(), BATCH_JOBS_MAX - 1, "one of the two kept parts");
            assert_eq!(parts.last().unwrap().job.slot, Slot(9900), "pass {pass}");
        }
    }

    #[test]
    fn room_follows_the_measured_time() {
        let room = |pass_us: u64, token_us: u64, alone| {
            let mut line = PassLine::default();
            for i in 0..200 {
                let tokens = 20 + 40 * (i % 2);
                line.observe(tokens, 20, Duration(pass_us + token_us * tokens as u64));
            }
            line.room(60, alone)
        };
        // A quarter of 25 ms + 60 × 0.3 ms, and 250 ms.
        assert_eq!((room(25_000, 300, false), room(25_000, 300, true)), (35, PREFILL_TOKENS_MAX));
        assert_eq!((room(0, 1_000, false), room(0, 1_000, true)), (15, 250));
        assert_eq!((room(0, 450_000, false), room(0, 450_000, true)), (15, 15), "a slow target");
        assert_eq!(room(1_000_000, 1, false), PREFILL_TOKENS_MAX);
        assert_eq!(PassLine::default().room(60, true), PREFILL_TOKENS_FIRST);
    }

    /// Texts on credit make passes of one size, which must not make a context take many of them.
    #[test]
    fn the_time_of_a_token_is_remembered() {
        let mut line = PassLine::default();
        for i in 0..1000 {
            let tokens = if i < 20 { 1 + i % 8 } else { 8 };
            line.observe(tokens, tokens, Duration(1_000_000 + 300 * tokens as u64));
        }
        // A token counts as a 64th of a pass of one token at the least.
        assert_eq!(line.room(8, false), 128);
    }

    /// Passes that were measured without load bound the guess, in both directions.
    #[test]
    fn measured_passes_tell_the_room_before_any_work() {
        let room = |passes: &[(usize, u64)]| {
            let mut line = PassLine::default();
            let passes: Vec<(usize, Duration)> = passes.iter().map(|(n, us)| (*n, Duration(*us))).collect();
            line.expect(&passes);
            // Texts on credit, whose passes have one size.
            let last = passes.last().unwrap().1;
            (0..200).for_each(|_| line.observe(3, 3, last));
            line.room(3, false)
        };
        // A token costs next to nothing: 0.3 ms of a second.
        assert_eq!(
            room(&[(1, 1_000_000), (4, 1_001_000), (16, 1_005_000), (64, 1_019_000)]),
            PREFILL_TOKENS_MAX
        );
        // Of two sizes so near to each other, an error of the measurement could be all of the difference.
        assert_eq!(room(&[(1, 1_000_000), (4, 1_000_000)]), 15);
        // The whole pass is for its tokens.
        assert_eq!(room(&[(1, 450_000), (4, 1_800_000)]), PREFILL_TOKENS_MIN);
        // One size tells nothing: a token is then at least a 64th of the pass that it is a part of.
        assert_eq!(room(&[(1, 1_000_000)]), 47);
        assert!(room(&[(0, 0), (0, 0), (1, 1)]) >= PREFILL_TOKENS_MIN);
    }

    /// Between two frames a drafting device has no job. It must not find a pass of a quarter of a second then.
    #[test]
    fn a_device_is_not_alone_while_another_drafts() {
        let mut queue = queue(None, [job(1, 200, 9, 9)]);
        for _ in 0..20 {
            assert_eq!(pass(&mut queue), [(200, 9, 9)]);
            queue.observe(PassSize { jobs: 1, tokens: 9, longest: 9 }, Duration::from_millis(9));
            queue.push(job(1, 200, 9, 9), 0);
        }
        pass(&mut queue);
        queue.push(job(2, 100, 10_000, 1), 0);
        let chunks: Vec<usize> = (0..ACTIVE_PASSES).map(|_| pass(&mut queue)[0].1).collect();
        let (last, before) = chunks.split_last().unwrap();
        assert_eq!((before.iter().max(), *last), (Some(&PREFILL_TOKENS_MIN), 250), "{chunks:?}");
    }

    #[test]
    fn a_flood_of_devices_that_leave_keeps_the_state_bounded() {
        let mut queue = PassQueue::new(None);
        for i in 0..10_000 {
            queue.push(job(i, 100 * i, 30, 1), 0);
            queue.next_pass(&mut |_| 0);
            queue.release(Slot(100 * i));
        }
        assert!(queue.devices.is_empty() && queue.active.len() <= ACTIVE_PASSES as usize);
    }
}
