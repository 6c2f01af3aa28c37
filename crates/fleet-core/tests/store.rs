//! The store, the records and the documents without attacks: a real disk, what is resumed, what is reused, what is read.

#![allow(clippy::unwrap_used, reason = "a test that can't go on stops")]

mod common;

use common::{draft, known, made, root_file};
use dunlin_fleet_core::{
    BlockTable, Disk, HexError, MemoryDisk, ObjectKind, Purpose, Rejection, Release, Root, SignError,
    SignedDocument, SigningKey, StdDisk, Store, StoreError, TriesRecord, UpdateState, hex, object_id,
    parse_hex,
};
use dunlin_wire::limits::DOCUMENT_BYTES_MAX;
use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

#[test]
fn a_generation_on_a_real_disk_is_links_to_its_objects() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StdDisk::new(dir.path())).unwrap();
    let made = known(5);
    for (object, bytes) in made.release.objects.iter().zip(&made.objects) {
        assert_eq!(store.put(bytes).unwrap(), object.sha256);
    }
    store.put(&made.file).unwrap();
    store.check_room(&made.release).unwrap();
    store.assemble(&made.id(), &made.release).unwrap();
    store.assemble(&made.id(), &made.release).unwrap();
    assert_eq!(store.generations().unwrap(), [5]);
    assert_eq!(store.release_of(5).unwrap(), made.release);
    for (object, bytes) in made.release.objects.iter().zip(&made.objects) {
        let place = dir.path().join("gen/5").join(object.place().unwrap());
        assert_eq!(fs::read(&place).unwrap(), *bytes);
        let whole = fs::metadata(dir.path().join("objects").join(hex(&object.sha256.0))).unwrap();
        assert_eq!(fs::metadata(&place).unwrap().ino(), whole.ino());
    }
    assert!(matches!(store.release_of(6), Err(StoreError::Damaged(6, _))));
    let mut state = UpdateState { good: 5, ..UpdateState::default() };
    state.save(store.disk()).unwrap();
    state.save(store.disk()).unwrap();
    assert_eq!(UpdateState::load(store.disk()).unwrap(), state);
    store.collect_garbage(&state, &[]).unwrap();
    assert_eq!(store.generations().unwrap(), [5]);
    assert_eq!(fs::read_dir(dir.path().join("objects")).unwrap().count(), 4);
    store.collect_garbage(&UpdateState::default(), &[made.id()]).unwrap();
    assert_eq!(store.generations().unwrap(), []);
    assert_eq!(store.read(&made.id(), 9999).unwrap(), made.file);
    assert_eq!(fs::read_dir(dir.path().join("objects")).unwrap().count(), 1);
    assert!(!dir.path().join("gen/5").exists());
}

#[test]
fn a_download_goes_on_where_it_was_lasting() {
    let (disk, made) = (MemoryDisk::new(1 << 20), known(5));
    let (agent, table) = (&made.release.objects[0], &made.tables[0]);
    let store = Store::open(disk).unwrap();
    let begin =
        |store: &Store<MemoryDisk>| store.begin(agent.sha256, agent.size, Some(table.clone())).unwrap();
    let blocks: Vec<&[u8]> = made.objects[0].chunks(4096).collect();
    let mut download = begin(&store);
    store.write(&mut download, 2, blocks[2], Duration::ZERO).unwrap();
    store.sync(&mut download, Duration::ZERO).unwrap();
    store.write(&mut download, 0, blocks[0], Duration::ZERO).unwrap();
    assert_eq!(download.missing().collect::<Vec<_>>(), [1]);
    // Nothing but what was made lasting stays.
    let store = Store::open(store.disk().after_cut(|| false)).unwrap();
    let resumed = begin(&store);
    assert_eq!((resumed.missing().collect::<Vec<_>>(), resumed.missing_count()), (vec![0, 1], 2));
    // Without its marks, the file is looked at again.
    let marks = format!("objects/{}.have", hex(&agent.sha256.0));
    let mut damaged = vec![0; store.disk().size(&marks).unwrap().unwrap() as usize];
    store.disk().read_at(&marks, 0, &mut damaged).unwrap();
    damaged[12] ^= 1;
    for bytes in [&damaged[..], b"garbage"] {
        store.disk().write(&marks, bytes).unwrap();
        assert_eq!(begin(&store).missing().collect::<Vec<_>>(), [0, 1]);
    }
    let mut resumed = begin(&store);
    assert_eq!(resumed.missing().collect::<Vec<_>>(), [0, 1]);
    for index in [0, 1] {
        store.write(&mut resumed, index, blocks[index as usize], Duration::ZERO).unwrap();
    }
    store.finish(resumed).unwrap();
    assert_eq!(store.read(&agent.sha256, 1 << 20).unwrap(), made.objects[0]);
    let unfinished = begin(&store);
    assert!(matches!(store.finish(unfinished), Err(StoreError::Missing(_))));
}

#[test]
fn marks_of_an_earlier_download_are_not_taken_for_those_of_the_next() {
    let (disk, made) = (MemoryDisk::new(1 << 20), known(5));
    let (agent, table) = (&made.release.objects[0], &made.tables[0]);
    let store = Store::open(disk).unwrap();
    let mut download = store.begin(agent.sha256, agent.size, Some(table.clone())).unwrap();
    store.write(&mut download, 2, made.objects[0].chunks(4096).nth(2).unwrap(), Duration::ZERO).unwrap();
    store.sync(&mut download, Duration::ZERO).unwrap();
    let path = format!("objects/{}", hex(&agent.sha256.0));
    store.disk().remove(&format!("{path}.part")).unwrap();
    let begun = store.begin(agent.sha256, agent.size, Some(table.clone())).unwrap();
    assert_eq!(begun.missing_count(), 3);
    // The power fails before the first marks of the new download.
    store.disk().write_at(&format!("{path}.part"), 0, &[0; 9000]).unwrap();
    let resumed = store.begin(agent.sha256, agent.size, Some(table.clone())).unwrap();
    assert_eq!(resumed.missing_count(), 3);
}

#[test]
fn blocks_are_made_lasting_after_64_or_five_seconds() {
    let bytes: Vec<u8> = (0..70 * 4096_u32).map(|at| (at / 4096) as u8).collect();
    let (object, table) = common::object(ObjectKind::Model, "weights", &bytes);
    let lasting = |now: fn(u32) -> u64| {
        let store = Store::open(MemoryDisk::new(1 << 20)).unwrap();
        let mut download = store.begin(object.sha256, object.size, Some(table.clone())).unwrap();
        let mut first = None;
        for (block, index) in bytes.chunks(4096).zip(0..) {
            store.write(&mut download, index, block, Duration::from_secs(now(index))).unwrap();
            let after = Store::open(store.disk().after_cut(|| false)).unwrap();
            let kept = after.begin(object.sha256, object.size, Some(table.clone())).unwrap();
            if kept.missing_count() < 70 {
                first = first.or(Some(index + 1));
            }
        }
        first
    };
    assert_eq!(lasting(|_| 0), Some(64));
    assert_eq!(lasting(u64::from), Some(6));
}

#[test]
fn blocks_of_an_earlier_object_are_not_fetched_again() {
    let (old, new) = (known(5), made(9, 1));
    let mut bytes = old.objects[0].clone();
    bytes[4096..8192].copy_from_slice(&new.objects[0][..4096]);
    let (object, table) = common::object(ObjectKind::Agent, "agent", &bytes);
    let store = Store::open(MemoryDisk::new(1 << 20)).unwrap();
    store.put(&old.objects[0]).unwrap();
    let path = format!("objects/{}", hex(&old.release.objects[0].sha256.0));
    let mut download = store.begin(object.sha256, object.size, Some(table.clone())).unwrap();
    assert_eq!(store.reuse(&mut download, &path, &old.tables[0], Duration::ZERO).unwrap(), 2);
    assert_eq!(download.missing().collect::<Vec<_>>(), [1]);
    // A file that is not what its table says gives nothing.
    store.disk().write("damaged", &[0; 9000]).unwrap();
    let mut other = store.begin(object_id(b"other"), object.size, Some(table)).unwrap();
    assert_eq!(store.reuse(&mut other, "damaged", &old.tables[0], Duration::ZERO).unwrap(), 0);
    assert_eq!(other.missing_count(), 3);
}

#[test]
fn the_newest_valid_copy_of_a_record_counts() {
    let disk = MemoryDisk::new(1 << 20);
    assert_eq!(UpdateState::load(&disk).unwrap(), UpdateState::default());
    let mut state = UpdateState::default();
    for good in 1..=5 {
        state.good = good;
        state.save(&disk).unwrap();
    }
    let loaded = || UpdateState::load(&disk).unwrap().good;
    assert_eq!((loaded(), disk.list("").unwrap()), (5, vec!["state.0".to_owned(), "state.1".to_owned()]));
    let newest = "state.0";
    let mut bytes = vec![0; disk.size(newest).unwrap().unwrap() as usize];
    disk.read_at(newest, 0, &mut bytes).unwrap();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x40;
        disk.write(newest, &damaged).unwrap();
        assert_eq!(loaded(), 4, "byte {at}");
        disk.write(newest, &bytes[..at]).unwrap();
        assert_eq!(loaded(), 4, "{at} bytes");
    }
    disk.write(newest, &[0; 5000]).unwrap();
    assert_eq!(loaded(), 4);
    // The next write goes over the damaged copy.
    state.good = 6;
    state.save(&disk).unwrap();
    disk.write("state.1", b"").unwrap();
    assert_eq!(loaded(), 6);
    let mut largest = UpdateState { clock_floor: u64::MAX, failed: [u32::MAX; 16], ..UpdateState::default() };
    (largest.good, largest.trial, largest.min_number, largest.command) =
        (u32::MAX, u32::MAX, u32::MAX, u32::MAX);
    (largest.previous, largest.attempt, largest.rollout, largest.pin) =
        (u32::MAX, u32::MAX, u32::MAX, u32::MAX);
    (largest.time, largest.system) = (u32::MAX, u32::MAX);
    largest.save(&disk).unwrap();
    assert_eq!(UpdateState::load(&disk).unwrap(), largest);
}

#[test]
fn a_damaged_count_of_tries_gives_no_more_than_three() {
    let mut state = UpdateState::default();
    state.begin_trial(6);
    let of = |attempt, left| TriesRecord { attempt, left, ..TriesRecord::default() }.left_of(&state);
    assert_eq!([of(0, 9), of(1, 9), of(1, 2), of(1, 0)], [3, 3, 2, 0]);
}

#[test]
fn sixteen_failed_releases_are_remembered_and_the_oldest_is_forgotten() {
    let mut state = UpdateState::default();
    for number in 1..=17 {
        state.begin_trial(number);
        state.roll_back();
        state.begin_trial(number);
        state.roll_back();
    }
    assert_eq!(state.failed.to_vec(), (2..=17).rev().collect::<Vec<u32>>());
}

#[test]
fn a_table_knows_its_blocks() {
    let bytes = [vec![1; 4096], vec![2; 4096], vec![1; 4096], vec![3; 10]].concat();
    let table = BlockTable::read(&bytes[..], 4096).unwrap();
    assert_eq!((table.size(), table.block(), table.blocks()), (12_298, 4096, 4));
    assert_eq!(table.by_hash().values().copied().sum::<u32>(), 1 + 3, "the first block with each hash");
    assert_eq!(table.hash(0), table.hash(2));
    assert_eq!(table.hash(4), None);
}

#[test]
fn a_release_with_a_mistake_is_refused_and_the_mistake_is_named() {
    let wrong = |change: fn(&mut Release), named: &str| {
        let mut release = made(5, 1).release;
        change(&mut release);
        let Err(Rejection::Malformed(what)) = release.text() else { panic!("{named} is taken") };
        assert!(what.contains(named), "{what}");
    };
    wrong(|release| release.number = 0, "number");
    wrong(|release| release.floor = 6, "floor");
    wrong(|release| release.boards.clear(), "boards");
    wrong(|release| release.boards = vec!["a".parse().unwrap(); 33], "boards");
    wrong(|release| release.objects.clear(), "objects");
    wrong(|release| release.objects = vec![release.objects[1].clone(); 33], "objects");
    wrong(|release| release.objects[1].name = "../agent".to_owned(), "name");
    wrong(|release| release.objects[1].name = ".hidden".to_owned(), "name");
    wrong(|release| release.objects[1].name = "a/b".to_owned(), "name");
    wrong(|release| release.objects[1].name = "n".repeat(65), "name");
    wrong(|release| release.objects[1].name.clear(), "name");
    wrong(|release| release.objects[0].size = 0, "bytes");
    wrong(|release| release.objects[0].size = (1 << 32) + 1, "bytes");
    wrong(|release| release.objects[0].block = 512, "block");
    wrong(|release| release.objects[0].size = (1 << 30) + 1, "too large");
    wrong(|release| release.objects[0].table = release.objects[0].sha256, "table");
    wrong(|release| release.objects.push(release.objects[0].clone()), "two objects");
    wrong(|release| release.objects.push(release.objects[1].clone()), "two objects");
    wrong(
        |release| {
            let mut other = release.objects[1].clone();
            (other.name, other.size) = ("other".to_owned(), 1);
            release.objects.push(other);
        },
        "differ",
    );
    wrong(|release| release.gate.rss_mib = 0, "rss_mib");
    let golden = |prompt: &str| dunlin_fleet_core::GoldenPrompt {
        board: "rpi4".parse().unwrap(),
        prompt: prompt.to_owned(),
        tokens_sha256: object_id(b""),
    };
    for list in
        [vec![golden("")], vec![golden("a\u{7}")], vec![golden(&"p".repeat(513))], vec![golden("p"); 33]]
    {
        let mut release = made(5, 1).release;
        release.gate.golden = list;
        assert!(release.text().unwrap_err().to_string().contains("golden"));
    }
    let text = made(5, 1).release.text().unwrap();
    assert!(Release::parse(&format!("surprise = 1\n{text}")).is_err(), "an unknown key");
    assert_eq!(Release::parse(&text), Ok(made(5, 1).release));
}

#[test]
fn a_document_has_a_limit() {
    let keys = [common::key(1)];
    let sign = |length| {
        let text = " ".repeat(length);
        SignedDocument::sign(Purpose::Release, text, &[&keys[0]])
    };
    let largest = sign(DOCUMENT_BYTES_MAX).unwrap();
    assert_eq!(SignedDocument::decode(&largest.encode()), Ok(largest.clone()));
    assert!(sign(DOCUMENT_BYTES_MAX + 1).is_err());
    let longer = [&largest.encode()[..], b" "].concat();
    assert!(matches!(SignedDocument::decode(&longer), Err(Rejection::Malformed(_))));
}

#[test]
fn signatures_made_apart_are_joined() {
    let release = made(5, 1).release;
    let [one, two] = [1, 2].map(|key| SignedDocument::decode(&common::signed(&release, &[key])).unwrap());
    let both = common::signed(&release, &[1, 2]);
    assert_eq!(one.joined(&two).unwrap().encode(), both);
    assert_eq!(two.joined(&one).unwrap().encode(), both);
    let sign = |keys: &[&SigningKey]| SignedDocument::sign(Purpose::Release, release.text().unwrap(), keys);
    let keys = [1, 2, 3, 4].map(common::key);
    assert_eq!(sign(&[&keys[0], &keys[0]]), Err(SignError::Twice));
    assert_eq!(sign(&[]), Err(SignError::Keys(0)));
    assert_eq!(sign(&keys.each_ref()), Err(SignError::Keys(4)));
    let other = SignedDocument::decode(&common::signed(&made(6, 1).release, &[2])).unwrap();
    assert!(one.joined(&other).is_err());
}

#[test]
fn a_kept_root_is_the_pinned_one() {
    let file = root_file(&draft(1), &[21]);
    let pinned = Root::pinned(&file, &object_id(&file)).unwrap();
    assert_eq!(Root::kept(&file), Ok(pinned.clone()));
    assert_eq!((pinned.id(), pinned.draft()), (object_id(&file), &draft(1)));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_a_document_or_an_error(bytes in prop::collection::vec(prop_oneof![0..4u8, any::<u8>()], 0..300)) {
        if let Ok(document) = SignedDocument::decode(&bytes) {
            prop_assert_eq!(document.encode(), bytes.clone());
        }
        prop_assert!(Root::kept(&bytes).is_err());
    }

    #[test]
    fn a_changed_byte_of_a_root_is_refused(at in 0..800usize, flip in 1..=255u8) {
        let mut file = root_file(&draft(1), &[21]);
        let at = at % file.len();
        file[at] ^= flip;
        prop_assert!(Root::kept(&file).is_err(), "byte {}", at);
    }

    #[test]
    fn digits_are_32_bytes_or_an_error(bytes: [u8; 32], text in "[0-9a-fA-F]{60,66}") {
        prop_assert_eq!(parse_hex(&hex(&bytes)), Ok(bytes));
        match parse_hex(&text) {
            Ok(bytes) => prop_assert_eq!(hex(&bytes), text),
            Err(HexError) => prop_assert!(text.len() != 64 || text.contains(|digit: char| digit.is_ascii_uppercase())),
        }
    }
}
