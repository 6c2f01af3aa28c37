//! Simulated releases: their objects, and how their agents behave.

use dunlin_fleet_core::rollout::ReleaseName;
use dunlin_fleet_core::store_server::ObjectShelf;
use dunlin_fleet_core::updater::{GateNeeds, ObjectFacts, ReleaseFacts};
use dunlin_wire::ObjectId;
use dunlin_wire::limits::{BLOCK_BYTES_MAX, PIECE_BYTES};
use fastrand::Rng;
use ring::digest::{SHA256, digest};
use std::collections::BTreeMap;

/// The behaviour of a release's agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// As it should be.
    Sound,
    /// Ends a few seconds after its start.
    Crashes,
    /// Is never ready.
    Hangs,
    /// Takes more memory each second.
    Leaks,
    /// Drafts other tokens than the release says.
    OtherTokens,
    /// Doesn't reach the broker.
    NoBroker,
    /// Crashes on one board in so many.
    CrashesOnSome(usize),
}

/// SHA-256 of the golden prompt's tokens.
pub(crate) const GOLDEN: [u8; 32] = [7; 32];
/// Most memory of an agent in MiB.
pub(crate) const RSS_MIB: u32 = 200;

/// A release with its bytes.
#[derive(Clone, Debug)]
pub(crate) struct SimRelease {
    pub(crate) facts: ReleaseFacts,
    pub(crate) name: ReleaseName,
    pub(crate) behaviour: Behaviour,
}

/// All objects and releases.
#[derive(Clone, Debug, Default)]
pub(crate) struct Catalogue {
    pub(crate) objects: BTreeMap<ObjectId, Vec<u8>>,
    pub(crate) releases: BTreeMap<u32, SimRelease>,
}

impl ObjectShelf for Catalogue {
    fn size(&self, object: &ObjectId) -> Option<u64> {
        self.objects.get(object).map(|bytes| bytes.len() as u64)
    }
}

/// The bytes of an agent: those of the blocks in `changed` are of this release alone.
fn content(seed: u64, blocks: u64, block: usize, changed: impl Fn(u64) -> bool, release: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in 0..blocks {
        let own = if changed(number) { u64::from(release) } else { 0 };
        let mut rng = Rng::with_seed(seed ^ number << 20 ^ own << 40);
        bytes.extend((0..block / 8).flat_map(|_| rng.u64(..).to_le_bytes()));
    }
    // Few objects end where a block does.
    bytes.truncate(bytes.len() - 100);
    bytes
}

impl Catalogue {
    fn keep(&mut self, bytes: Vec<u8>) -> ObjectId {
        let id = id_of(&bytes);
        self.objects.insert(id, bytes);
        id
    }

    fn object(&mut self, bytes: Vec<u8>, block_bytes: usize) -> ObjectFacts {
        let hashes: Vec<u8> =
            bytes.chunks(block_bytes).flat_map(|block| digest(&SHA256, block).as_ref().to_vec()).collect();
        let (size, table) = (bytes.len() as u64, self.keep(hashes));
        ObjectFacts { id: self.keep(bytes), size, table, block_bytes: block_bytes as u32, system: false }
    }

    /// Adds a release: half of its agent's blocks are new, and its model where `retrained`.
    pub(crate) fn add(&mut self, number: u32, behaviour: Behaviour, retrained: bool) {
        let agent = content(1, 48, PIECE_BYTES, |block| block % 2 == 0, number);
        let model = content(2, 8, BLOCK_BYTES_MAX, |_| retrained, number);
        let objects = vec![self.object(agent, PIECE_BYTES), self.object(model, BLOCK_BYTES_MAX)];
        let document = self.keep(format!("release {number}").repeat(100).into_bytes());
        let size = self.objects[&document].len() as u16;
        let facts = ReleaseFacts {
            number,
            floor: 1,
            objects,
            golden: Some(GOLDEN),
            rss_mib: RSS_MIB,
            soak_seconds: 120,
            needs: GateNeeds::Lease,
        };
        let name = ReleaseName { number, object: document, size };
        self.releases.insert(number, SimRelease { facts, name, behaviour });
    }

    /// The blocks of an object by their hashes.
    pub(crate) fn table(&self, object: &ObjectFacts) -> &[u8] {
        &self.objects[&object.table]
    }
}

/// The name of these bytes.
pub(crate) fn id_of(bytes: &[u8]) -> ObjectId {
    ObjectId(digest(&SHA256, bytes).as_ref().try_into().expect("a digest has 32 bytes"))
}
