//! A small fleet: keys, a root, releases with their objects.
#![allow(dead_code)] // each test binary uses its part

use dunlin_fleet_core::document::Purpose;
use dunlin_fleet_core::{
    BlockTable, Gate, GateNeed, ObjectKind, Release, ReleaseArch, ReleaseObject, RoleKeys, Root, RootDraft,
    SignedDocument, SigningKey, object_id, sign_rollout,
};
use dunlin_wire::{ObjectId, Rollout, RolloutFields, RolloutScope};
use std::sync::LazyLock;

pub(crate) const NOW: u64 = 1_796_083_200;
pub(crate) const UNTIL: u64 = NOW + 86_400;

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32]).unwrap()
}

/// Two keys of each role, of which `threshold` sign.
pub(crate) fn draft(threshold: u8) -> RootDraft {
    let role = |first| RoleKeys::new(threshold, &[key(first).public(), key(first + 1).public()]);
    RootDraft {
        version: 1,
        until: UNTIL,
        release: role(1),
        rollout: role(11),
        root: role(21),
        previous: None,
    }
}

pub(crate) fn root_file(draft: &RootDraft, keys: &[u8]) -> Vec<u8> {
    let keys: Vec<_> = keys.iter().map(|seed| key(*seed)).collect();
    let text = draft.text().unwrap();
    SignedDocument::sign(Purpose::Root, text, &keys.iter().collect::<Vec<_>>()).unwrap().encode()
}

pub(crate) fn root(threshold: u8) -> Root {
    let file = root_file(&draft(threshold), &[21, 22]);
    Root::pinned(&file, &object_id(&file)).unwrap()
}

pub(crate) fn ring() -> RolloutScope {
    RolloutScope::Ring("stable".parse().unwrap())
}

/// A release with the bytes of its objects.
pub(crate) struct Made {
    pub(crate) release: Release,
    pub(crate) objects: Vec<Vec<u8>>,
    pub(crate) tables: Vec<BlockTable>,
    pub(crate) file: Vec<u8>,
}

impl Made {
    pub(crate) fn id(&self) -> ObjectId {
        object_id(&self.file)
    }

    pub(crate) fn rollout(&self, number: u32) -> Rollout {
        sign_rollout(self.fields(number), &ring(), &[&key(11)]).unwrap()
    }

    pub(crate) fn fields(&self, number: u32) -> RolloutFields {
        RolloutFields {
            number,
            at: NOW,
            until: UNTIL,
            release: self.release.number,
            object: self.id(),
            size: self.file.len() as u16,
            permille: 1000,
            salt: 0,
            paused: false,
            bytes_per_s: 0,
            deadline_min: 60,
        }
    }
}

pub(crate) fn object(kind: ObjectKind, name: &str, bytes: &[u8]) -> (ReleaseObject, BlockTable) {
    let table = BlockTable::read(bytes, 4096).unwrap();
    let object = ReleaseObject {
        kind,
        name: name.to_owned(),
        size: bytes.len() as u64,
        sha256: object_id(bytes),
        block: 4096,
        table: object_id(table.bytes()),
    };
    (object, table)
}

/// Bytes that only this release has.
pub(crate) fn content(number: u32, what: &str, length: usize) -> Vec<u8> {
    format!("{what} of release {number}\n").bytes().cycle().take(length).collect()
}

/// The releases 3 to 6, made once; 6 raises the floor to 5.
pub(crate) fn known(number: u32) -> &'static Made {
    static KNOWN: LazyLock<Vec<Made>> =
        LazyLock::new(|| (3..=6).map(|number| made(number, if number == 6 { 5 } else { 1 })).collect());
    &KNOWN[number as usize - 3]
}

/// A release with an agent, a file that all releases share, and settings.
pub(crate) fn made(number: u32, floor: u32) -> Made {
    let objects =
        vec![content(number, "agent", 9000), content(0, "tokenizer", 3000), content(number, "settings", 100)];
    let kinds = [
        (ObjectKind::Agent, "dunlin-agent"),
        (ObjectKind::Model, "tokenizer.json"),
        (ObjectKind::Settings, "settings.toml"),
    ];
    let described = kinds.iter().zip(&objects).map(|((kind, name), bytes)| object(*kind, name, bytes));
    let (described, tables) = described.unzip();
    let release = Release {
        number,
        boards: vec!["rpi4".parse().unwrap()],
        arch: ReleaseArch::Aarch64,
        floor,
        objects: described,
        gate: Gate { golden: Vec::new(), rss_mib: 64, soak_seconds: 120, needs: GateNeed::Lease },
    };
    let file = signed(&release, &[1]);
    Made { release, objects, tables, file }
}

pub(crate) fn signed(release: &Release, keys: &[u8]) -> Vec<u8> {
    let keys: Vec<_> = keys.iter().map(|seed| key(*seed)).collect();
    let text = release.text().unwrap();
    SignedDocument::sign(Purpose::Release, text, &keys.iter().collect::<Vec<_>>()).unwrap().encode()
}
