//! Attacks on a board's update, one test each: none of them changes anything.

#![allow(clippy::unwrap_used, reason = "a test that can't go on stops")]

mod common;

use common::{Made, NOW, UNTIL, draft, key, made, ring, root, root_file, signed};
use dunlin_fleet_core::document::Purpose;
use dunlin_fleet_core::{
    BlockError, Disk, KeyRole, MemoryDisk, Rejection, Release, ReleaseArch, RoleKeys, RolloutNews, Root,
    RootLink, SignedDocument, StartChoice, Store, StoreError, UpdateState, next_start, object_id,
    sign_command, sign_rollout, sign_time,
};
use dunlin_wire::{
    CommandFields, CommandVerb, FleetReason, ObjectId, Rollout, RolloutFields, RolloutScope, TimeFields,
};
use std::time::Duration;

/// The release of a file that a rollout names, with its real size and hash.
fn taken(file: &[u8], threshold: u8) -> Result<Release, Rejection> {
    let fields = RolloutFields { size: file.len() as u16, object: object_id(file), ..made(5, 1).fields(9) };
    let rollout = sign_rollout(fields, &ring(), &[&key(11)]).unwrap();
    root(threshold).check_release(file, &rollout, NOW)
}

fn signatures_missing(role: KeyRole, found: usize, needed: usize) -> Rejection {
    Rejection::Signature { role, found, needed }
}

#[test]
fn a_release_that_is_right_is_taken() {
    assert_eq!(taken(&made(5, 1).file, 1), Ok(made(5, 1).release));
    assert_eq!(taken(&signed(&made(5, 1).release, &[1, 2]), 2), Ok(made(5, 1).release));
    let rollout = made(5, 1).rollout(9);
    let checked = |last| {
        let mut state = UpdateState::default();
        state.take_rollout(&ring(), last);
        root(1).check_rollout(&rollout, &ring(), &state, NOW)
    };
    assert_eq!((checked(8), checked(9)), (Ok(RolloutNews::New), Ok(RolloutNews::Known)));
}

#[test]
fn an_unsigned_release_is_refused() {
    let text = made(5, 1).release.text().unwrap();
    assert!(matches!(taken(&[&[0], text.as_bytes()].concat(), 1), Err(Rejection::Malformed(_))));
    assert!(matches!(taken(text.as_bytes(), 1), Err(Rejection::Malformed(_))));
}

#[test]
fn a_release_signed_by_a_wrong_key_is_refused() {
    let refused = Err(signatures_missing(KeyRole::Release, 0, 1));
    assert_eq!(taken(&signed(&made(5, 1).release, &[99]), 1), refused);
    // The right key's name with another key's signature.
    let mut document = SignedDocument::decode(&signed(&made(5, 1).release, &[99])).unwrap();
    document.signatures[0].key = key(1).public().id();
    assert_eq!(taken(&document.encode(), 1), refused);
    // The right signature of another text.
    let other = SignedDocument {
        text: made(6, 1).release.text().unwrap(),
        ..SignedDocument::decode(&made(5, 1).file).unwrap()
    };
    assert_eq!(taken(&other.encode(), 1), refused);
}

#[test]
fn a_release_below_the_threshold_is_refused() {
    let refused = Err(signatures_missing(KeyRole::Release, 1, 2));
    assert_eq!(taken(&signed(&made(5, 1).release, &[1]), 2), refused);
    assert_eq!(taken(&signed(&made(5, 1).release, &[1, 99]), 2), refused);
    // The same key twice is no second key, and no file can name it twice.
    let mut document = SignedDocument::decode(&made(5, 1).file).unwrap();
    document.signatures.push(document.signatures[0]).unwrap();
    assert!(dunlin_wire::put_signatures(&document.signatures).is_err());
}

#[test]
fn a_release_signed_by_the_key_of_rollouts_is_refused() {
    assert_eq!(
        taken(&signed(&made(5, 1).release, &[11]), 1),
        Err(signatures_missing(KeyRole::Release, 0, 1))
    );
    let root_keys = signed(&made(5, 1).release, &[21, 22]);
    assert_eq!(taken(&root_keys, 1), Err(signatures_missing(KeyRole::Release, 0, 1)));
}

#[test]
fn a_rollout_signed_by_the_key_of_releases_is_refused() {
    let rollout = sign_rollout(made(5, 1).fields(9), &ring(), &[&key(1)]).unwrap();
    let checked = root(1).check_rollout(&rollout, &ring(), &UpdateState::default(), NOW);
    assert_eq!(checked, Err(signatures_missing(KeyRole::Rollout, 0, 1)));
}

#[test]
fn a_root_passes_for_no_release() {
    let text = made(5, 1).release.text().unwrap();
    let file = SignedDocument::sign(Purpose::Root, text, &[&key(1)]).unwrap().encode();
    assert_eq!(taken(&file, 1), Err(signatures_missing(KeyRole::Release, 0, 1)));
}

#[test]
fn a_release_for_another_board_is_refused() {
    let (release, state) = (made(5, 1).release, UpdateState::default());
    let check = |board: &str, arch| release.check_for(&board.parse().unwrap(), arch, &state);
    assert_eq!(check("rpi4", ReleaseArch::Aarch64), Ok(()));
    assert_eq!(check("rpi3", ReleaseArch::Aarch64), Err(Rejection::Board(5)));
    assert_eq!(check("rpi4", ReleaseArch::Arm), Err(Rejection::Arch(5)));
}

#[test]
fn a_release_below_the_floor_is_refused() {
    let mut state = UpdateState::default();
    state.begin_trial(7);
    assert_eq!(state.min_number, 0, "a trial raises nothing");
    state.commit(6);
    let check =
        |number| made(number, 1).release.check_for(&"rpi4".parse().unwrap(), ReleaseArch::Aarch64, &state);
    assert_eq!(check(5), Err(Rejection::Floor { number: 5, floor: 6 }));
    assert_eq!(check(6), Ok(()));
}

#[test]
fn a_release_that_failed_here_is_refused() {
    let mut state = UpdateState::default();
    state.begin_trial(5);
    state.roll_back();
    let check =
        |number| made(number, 1).release.check_for(&"rpi4".parse().unwrap(), ReleaseArch::Aarch64, &state);
    assert_eq!((check(5), check(6)), (Err(Rejection::Failed(5)), Ok(())));
    assert_eq!(check(5).unwrap_err().reason(), FleetReason::Failed);
}

#[test]
fn a_frozen_rollout_is_refused() {
    let (rollout, state) = (made(5, 1).rollout(9), UpdateState::default());
    let at = |now| root(1).check_rollout(&rollout, &ring(), &state, now);
    assert_eq!(at(UNTIL), Ok(RolloutNews::New));
    // The root ends with it in this fleet, so a longer root shows the rollout's own end.
    let file = root_file(&dunlin_fleet_core::RootDraft { until: UNTIL + 9, ..draft(1) }, &[21, 22]);
    let longer = Root::kept(&file).unwrap();
    let late = longer.check_rollout(&rollout, &ring(), &state, UNTIL + 1);
    assert_eq!(late, Err(Rejection::Expired { until: UNTIL, now: UNTIL + 1 }));
}

#[test]
fn nothing_is_taken_once_the_root_has_ended() {
    let (made, state, now) = (made(5, 1), UpdateState::default(), UNTIL + 1);
    let ended = Rejection::RootExpired { until: UNTIL, now };
    assert_eq!(root(1).check_rollout(&made.rollout(9), &ring(), &state, now), Err(ended.clone()));
    assert_eq!(root(1).check_release(&made.file, &made.rollout(9), now), Err(ended.clone()));
    let device = "plover-1".parse().unwrap();
    let fields = CommandFields { number: 1, until: u64::MAX, verb: CommandVerb::Reboot };
    let command = sign_command(fields, &device, &[&key(11)]).unwrap();
    assert_eq!(root(1).check_command(&command, &device, &state, now), Err(ended));
}

#[test]
fn an_endless_object_is_refused() {
    let made = made(5, 1);
    let longer = [&made.file[..], b" "].concat();
    let (found, expected) = (longer.len() as u64, made.file.len() as u64);
    let refused = root(1).check_release(&longer, &made.rollout(9), NOW);
    assert_eq!(refused, Err(Rejection::Size { found, expected }));

    let store = Store::open(MemoryDisk::new(1 << 20)).unwrap();
    let agent = &made.release.objects[0];
    let mut download = store.begin(agent.sha256, agent.size, Some(made.tables[0].clone())).unwrap();
    let mut write = |index, length| store.write(&mut download, index, &vec![0; length], Duration::ZERO);
    assert!(matches!(write(3, 1), Err(BlockError::Index(3))), "behind the end");
    assert!(matches!(write(u32::MAX, 4096), Err(BlockError::Index(_))));
    assert!(matches!(write(0, 4097), Err(BlockError::Size { .. })));
    assert!(matches!(write(2, 4096), Err(BlockError::Size { expected: 808, .. })), "the last block is short");
    assert!(matches!(write(0, 4096), Err(BlockError::Hash(0))), "wrong bytes");
    assert!(store.disk().list("objects").unwrap().is_empty(), "nothing was written");
}

#[test]
fn a_swapped_table_is_refused() {
    let (one, other) = (made(5, 1), made(6, 1));
    let bytes = other.tables[0].bytes().to_vec();
    assert_eq!(one.release.objects[0].read_table(bytes), Err(Rejection::Content));
    let short = one.tables[0].bytes()[32..].to_vec();
    assert_eq!(one.release.objects[0].read_table(short), Err(Rejection::Size { found: 64, expected: 96 }));
    let right = one.release.objects[0].read_table(one.tables[0].bytes().to_vec());
    assert_eq!(right.as_ref(), Ok(&one.tables[0]));
    // Even with the other release's table and blocks, the object does not get its name.
    let store = Store::open(MemoryDisk::new(1 << 20)).unwrap();
    let agent = &one.release.objects[0];
    let mut download = store.begin(agent.sha256, agent.size, Some(other.tables[0].clone())).unwrap();
    for (block, index) in other.objects[0].chunks(4096).zip(0..) {
        store.write(&mut download, index, block, Duration::ZERO).unwrap();
    }
    assert!(matches!(store.finish(download), Err(StoreError::Content(id)) if id == agent.sha256));
    assert!(store.disk().list("objects").unwrap().is_empty());
}

#[test]
fn a_mixed_release_is_refused() {
    let (one, mut other) = (made(5, 1), made(6, 1));
    let store = Store::open(MemoryDisk::new(1 << 20)).unwrap();
    for bytes in one.objects.iter().chain([&one.file, &other.file]) {
        store.put(bytes).unwrap();
    }
    // Release 6 with the agent of release 5 on the disk: its own agent is missing.
    assert!(
        matches!(store.assemble(&other.id(), &other.release), Err(StoreError::Missing(id)) if id == other.release.objects[0].sha256)
    );
    assert_eq!(store.generations().unwrap(), []);
    store.assemble(&one.id(), &one.release).unwrap();
    // The same number with another content.
    other.release.number = 5;
    let file = signed(&other.release, &[1]);
    store.put(&file).unwrap();
    other.objects.iter().for_each(|bytes| assert_eq!(store.put(bytes).unwrap(), object_id(bytes)));
    assert!(matches!(store.assemble(&object_id(&file), &other.release), Err(StoreError::Mixed(5))));
    // A file of one release named by a rollout of another.
    let rollout = Rollout { ..one.rollout(9) };
    assert_eq!(root(1).check_release(&made(7, 1).file, &rollout, NOW), Err(Rejection::Content));
    let fields = RolloutFields { release: 8, ..one.fields(9) };
    let rollout = sign_rollout(fields, &ring(), &[&key(11)]).unwrap();
    assert_eq!(
        root(1).check_release(&one.file, &rollout, NOW),
        Err(Rejection::Number { found: 5, expected: 8 })
    );
}

/// The second root, of keys 31 and 32, that follows the first one.
fn second_root(previous: &[u8], version: u32, signers: &[u8]) -> Vec<u8> {
    let mut next = draft(1);
    next.version = version;
    next.root = RoleKeys::new(1, &[key(31).public(), key(32).public()]);
    next.previous = Some(RootLink { sha256: object_id(previous), size: previous.len() as u16 });
    root_file(&next, signers)
}

#[test]
fn a_root_not_signed_by_the_old_keys_is_refused() {
    let first = root_file(&draft(1), &[21, 22]);
    let old = Root::pinned(&first, &object_id(&first)).unwrap();
    let refused = |signers: &[u8]| old.followed_by(&second_root(&first, 2, signers)).map(drop);
    assert_eq!(refused(&[21, 31]), Ok(()));
    assert_eq!(refused(&[31]), Err(signatures_missing(KeyRole::Root, 0, 1)), "the old keys");
    assert_eq!(refused(&[21]), Err(signatures_missing(KeyRole::Root, 0, 1)), "its own keys");
    assert_eq!(refused(&[1, 11]), Err(signatures_missing(KeyRole::Root, 0, 1)), "keys of other roles");
}

#[test]
fn a_root_that_does_not_follow_is_refused() {
    let first = root_file(&draft(1), &[21, 22]);
    let old = Root::pinned(&first, &object_id(&first)).unwrap();
    for version in [3, u32::MAX] {
        let skipped = old.followed_by(&second_root(&first, version, &[21, 31]));
        assert_eq!(skipped, Err(Rejection::RootChain { present: 1, found: version }));
    }
    assert!(old.followed_by(&first).is_err(), "the same root again");
    let elsewhere = old.followed_by(&second_root(b"another root", 2, &[21, 31]));
    assert_eq!(elsewhere, Err(Rejection::RootChain { present: 1, found: 2 }));
    assert_eq!(Root::pinned(&first, &ObjectId([0; 32])), Err(Rejection::Content));
}

#[test]
fn a_root_below_its_own_threshold_is_refused() {
    let file = root_file(&draft(2), &[21]);
    assert_eq!(Root::pinned(&file, &object_id(&file)), Err(signatures_missing(KeyRole::Root, 1, 2)));
}

#[test]
fn a_key_with_two_roles_is_refused() {
    let twice = dunlin_fleet_core::RootDraft { rollout: draft(1).release, ..draft(1) };
    assert!(matches!(twice.text(), Err(Rejection::Malformed(what)) if what.contains("twice")));
    let none = dunlin_fleet_core::RootDraft { root: RoleKeys::new(0, &[key(1).public()]), ..draft(1) };
    assert!(none.text().is_err(), "a threshold of 0");
    let many = dunlin_fleet_core::RootDraft { root: RoleKeys::new(2, &[key(50).public()]), ..draft(1) };
    assert!(many.text().is_err(), "a threshold above the keys");
}

#[test]
fn a_replayed_rollout_is_refused() {
    let mut state = UpdateState::default();
    state.take_rollout(&ring(), 10);
    let replayed = root(1).check_rollout(&made(5, 1).rollout(9), &ring(), &state, NOW);
    assert_eq!(replayed, Err(Rejection::Replayed { found: 9, last: 10 }));
    // A pin has its own last number, and stays until it is taken off.
    let pin = RolloutScope::Device("plover-1".parse().unwrap());
    let rollout = sign_rollout(made(5, 1).fields(9), &pin, &[&key(11)]).unwrap();
    assert_eq!(root(1).check_rollout(&rollout, &pin, &state, NOW), Ok(RolloutNews::New));
    state.take_rollout(&pin, 10);
    let replayed = root(1).check_rollout(&rollout, &pin, &state, NOW);
    assert_eq!(replayed, Err(Rejection::Replayed { found: 9, last: 10 }));
}

#[test]
fn a_rollout_moved_to_another_ring_or_device_is_refused() {
    let [one, other] = ["plover-1", "plover-2"].map(|name| RolloutScope::Device(name.parse().unwrap()));
    let beta = RolloutScope::Ring("beta".parse().unwrap());
    let same = RolloutScope::Ring("plover-1".parse().unwrap());
    let (root, state) = (root(1), UpdateState::default());
    for scope in [&ring(), &one] {
        let rollout = sign_rollout(made(5, 1).fields(9), scope, &[&key(11)]).unwrap();
        for to in [&ring(), &one, &other, &beta, &same] {
            let checked = root.check_rollout(&rollout, to, &state, NOW);
            assert_eq!(checked.is_ok(), to == scope, "{scope:?} to {to:?}");
        }
    }
}

#[test]
fn a_changed_rollout_is_refused() {
    let rollout = made(5, 1).rollout(9);
    let state = UpdateState::default();
    let changes: [fn(&mut RolloutFields); 6] = [
        |fields| fields.number += 1,
        |fields| fields.until += 1,
        |fields| fields.release += 1,
        |fields| fields.permille = 1,
        |fields| fields.paused = true,
        |fields| fields.object.0[0] ^= 1,
    ];
    for change in changes {
        let mut other = rollout.clone();
        change(&mut other.fields);
        let refused = root(1).check_rollout(&other, &ring(), &state, NOW);
        assert_eq!(refused, Err(signatures_missing(KeyRole::Rollout, 0, 1)));
    }
}

#[test]
fn a_command_twice_is_refused() {
    let device = "plover-1".parse().unwrap();
    let fields = CommandFields { number: 4, until: NOW + 60, verb: CommandVerb::Reboot };
    let command = sign_command(fields, &device, &[&key(11)]).unwrap();
    let mut state = UpdateState { command: 3, ..UpdateState::default() };
    assert_eq!(root(1).check_command(&command, &device, &state, NOW), Ok(()));
    state.command = command.fields.number;
    let disk = MemoryDisk::new(1 << 20);
    state.save(&disk).unwrap();
    // The number is on the disk, so that a restart doesn't make it new.
    let again = root(1).check_command(&command, &device, &UpdateState::load(&disk).unwrap(), NOW);
    assert_eq!(again, Err(Rejection::Replayed { found: 4, last: 4 }));
    let late = root(1).check_command(&command, &device, &UpdateState::default(), NOW + 61);
    assert_eq!(late, Err(Rejection::Expired { until: NOW + 60, now: NOW + 61 }));
}

#[test]
fn another_boards_command_is_refused() {
    let [device, other] = ["plover-1", "plover-2"].map(|name| name.parse().unwrap());
    let fields = CommandFields { number: 4, until: NOW + 60, verb: CommandVerb::Reboot };
    let command = sign_command(fields, &device, &[&key(11)]).unwrap();
    let refused = root(1).check_command(&command, &other, &UpdateState::default(), NOW);
    assert_eq!(refused, Err(signatures_missing(KeyRole::Rollout, 0, 1)));
}

#[test]
fn an_old_or_impossible_time_is_refused() {
    let time = |at, number, seed| sign_time(TimeFields { at, number }, &[&key(seed)]).unwrap();
    let state = UpdateState { time: 3, ..UpdateState::default() };
    assert_eq!(root(1).check_time(&time(NOW, 4, 11), &state), Ok(()));
    let replayed = root(1).check_time(&time(NOW, 3, 11), &state);
    assert_eq!(replayed, Err(Rejection::Replayed { found: 3, last: 3 }));
    let forged = root(1).check_time(&time(NOW, 4, 1), &state);
    assert_eq!(forged, Err(signatures_missing(KeyRole::Rollout, 0, 1)));
    // Whoever has the key of rollouts can't put a board's clock behind the root's end.
    assert!(matches!(
        root(1).check_time(&time(UNTIL + 1, 4, 11), &state),
        Err(Rejection::RootExpired { .. })
    ));
}

#[test]
fn a_release_without_room_is_refused_before_a_byte() {
    let Made { release, objects, .. } = made(5, 1);
    let needed: usize = objects.iter().map(Vec::len).sum::<usize>() + 32 * (3 + 1 + 1);
    for (capacity, fits) in [(needed + (1 << 20), true), (needed + (1 << 20) - 1, false)] {
        let store = Store::open(MemoryDisk::new(capacity as u64)).unwrap();
        let room = store.check_room(&release);
        assert_eq!(room.is_ok(), fits, "{room:?}");
        assert!(store.disk().list("objects").unwrap().is_empty());
    }
    let store = Store::open(MemoryDisk::new(4 << 20)).unwrap();
    store.put(&objects[1]).unwrap();
    assert_eq!(
        store.needed(&release).unwrap(),
        (needed - objects[1].len()) as u64,
        "what is there is not needed"
    );
}

#[test]
fn a_trial_has_three_starts_and_no_more() {
    let disk = MemoryDisk::new(4 << 20);
    let store = Store::open(disk.clone()).unwrap();
    for made in [made(5, 1), made(6, 1)] {
        made.objects
            .iter()
            .chain([&made.file])
            .for_each(|bytes| assert_eq!(store.put(bytes).unwrap(), object_id(bytes)));
        store.assemble(&made.id(), &made.release).unwrap();
    }
    let mut state = UpdateState { good: 5, ..UpdateState::default() };
    state.begin_trial(6);
    state.save(store.disk()).unwrap();
    let start = || next_start(store.disk()).choice;
    for left in [2, 1, 0] {
        assert_eq!(start(), StartChoice::Trial { number: 6, left });
    }
    assert_eq!((start(), start()), (StartChoice::Good(5), StartChoice::Good(5)));
    // Another trial has starts of its own.
    state.begin_trial(6);
    state.save(store.disk()).unwrap();
    assert_eq!(start(), StartChoice::Trial { number: 6, left: 2 });
    // A generation that is missing is not started.
    store.remove_generation(6).unwrap();
    let missing = next_start(store.disk());
    assert_eq!((missing.choice, missing.problem.is_some()), (StartChoice::Good(5), true));
}
