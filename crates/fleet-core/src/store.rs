//! Objects and generations on a board's disk.
//!
//! ```text
//! objects/<sha256>         whole, verified       objects/<sha256>.part   being fetched
//! gen/<number>/            links to objects      objects/<sha256>.have   which of its blocks are there
//! ```
//!
//! An object gets its name once all of it has the right hash. A generation counts once it has `release.signed`, which is
//! linked last and removed first.

use crate::block_table::{BlockTable, blocks_of};
use crate::disk::{Disk, DiskReader, join, read_all};
use crate::document::SignedDocument;
use crate::hash::object_id;
use crate::hex::hex;
use crate::record::UpdateState;
use crate::rejection::Rejection;
use crate::release::{OBJECTS_MAX, Release, ReleaseObject};
use dunlin_wire::ObjectId;
use dunlin_wire::limits::{BLOCK_BYTES_MAX, SIGNED_DOCUMENT_BYTES_MAX};
use ring::digest::{Context, SHA256};
use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

/// Blocks that are written before they are made lasting.
const SYNC_BLOCKS: u32 = 64;
/// Time after which written blocks are made lasting.
const SYNC_AFTER: Duration = Duration::from_secs(5);
/// Bytes that stay free beside a release: records, folders, logs.
const SPARE_BYTES: u64 = 1024 * 1024;
/// Bytes of the head of a `.have` file: the object's size, its block.
const HAVE_HEAD: usize = 12;
/// The file that makes a generation count.
const RELEASE: &str = "release.signed";

/// A step that the store could not take.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk.
    #[error("{0}: {1}")]
    Disk(String, #[source] io::Error),
    /// Less free space than a release needs.
    #[error("the release needs {needed} bytes, and {free} are free")]
    NoSpace {
        /// Bytes that are needed.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// An object that came whole and is another one. Its blocks were removed.
    #[error("object {} is not what its name says", hex(&.0.0))]
    Content(ObjectId),
    /// An object that is not whole.
    #[error("object {} is not whole", hex(&.0.0))]
    Missing(ObjectId),
    /// A generation of that number with another release.
    #[error("generation {0} exists with another release: publish this one under a new number")]
    Mixed(u32),
    /// A generation without its release, or with a damaged one.
    #[error("generation {0} is damaged: {1}")]
    Damaged(u32, Rejection),
}

/// A block that was not taken. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// Beyond the object's end.
    #[error("block {0} is beyond the object's end")]
    Index(u32),
    /// Too many or too few bytes.
    #[error("block {index} has {found} bytes instead of {expected}")]
    Size {
        /// The block.
        index: u32,
        /// Its bytes.
        found: usize,
        /// The bytes that it should have.
        expected: usize,
    },
    /// Another hash than in the table.
    #[error("block {0} is not the one in the table")]
    Hash(u32),
    /// The disk.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An object that is being fetched.
#[derive(Debug)]
pub struct Download {
    object: ObjectId,
    size: u64,
    block: u32,
    table: Option<BlockTable>,
    have: Vec<u8>,
    missing: u32,
    unsynced: u32,
    synced_at: Option<Duration>,
}

impl Download {
    /// The object.
    pub fn object(&self) -> ObjectId {
        self.object
    }

    /// Bytes of the object.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of a block.
    pub fn block(&self) -> u32 {
        self.block
    }

    /// The number of blocks.
    pub fn blocks(&self) -> u32 {
        blocks_of(self.size, self.block) as u32
    }

    /// True if a block is there.
    pub fn has(&self, index: u32) -> bool {
        let byte = self.have.get(index as usize / 8);
        byte.is_some_and(|byte| byte & (1 << (index % 8)) != 0)
    }

    /// The blocks that are not there.
    pub fn missing(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.blocks()).filter(|index| !self.has(*index))
    }

    /// The number of blocks that are not there.
    pub fn missing_count(&self) -> u32 {
        self.missing
    }

    fn mark(&mut self, index: u32) {
        if !self.has(index) {
            self.have[index as usize / 8] |= 1 << (index % 8);
            self.missing -= 1;
        }
    }

    fn length_of(&self, index: u32) -> Option<usize> {
        let start = u64::from(index) * u64::from(self.block);
        let left = self.size.checked_sub(start).filter(|left| *left > 0)?;
        Some(left.min(self.block.into()) as usize)
    }

    fn have_file(&self) -> Vec<u8> {
        let mut bytes = [&self.size.to_le_bytes()[..], &self.block.to_le_bytes(), &self.have].concat();
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    /// Takes the marks of a `.have` file; false if it is damaged or of another form.
    fn take_have(&mut self, bytes: &[u8]) -> bool {
        let Some((content, crc)) = bytes.split_last_chunk() else { return false };
        if content.len() != HAVE_HEAD + self.have.len()
            || crc32fast::hash(content) != u32::from_le_bytes(*crc)
            || content[..8] != self.size.to_le_bytes()
            || content[8..HAVE_HEAD] != self.block.to_le_bytes()
        {
            return false;
        }
        for index in 0..self.blocks() {
            if content[HAVE_HEAD + index as usize / 8] & (1 << (index % 8)) != 0 {
                self.mark(index);
            }
        }
        true
    }
}

/// The store below a folder of a disk.
#[derive(Debug)]
pub struct Store<D> {
    disk: D,
}

fn object_path(object: &ObjectId) -> String {
    format!("objects/{}", hex(&object.0))
}

/// True if a generation counts.
pub(crate) fn counts(disk: &impl Disk, number: u32) -> io::Result<bool> {
    Ok(disk.size(&format!("gen/{number}/{RELEASE}"))?.is_some())
}

trait Named<T> {
    fn named(self, what: &str) -> Result<T, StoreError>;
}

impl<T> Named<T> for io::Result<T> {
    fn named(self, what: &str) -> Result<T, StoreError> {
        self.map_err(|error| StoreError::Disk(what.to_owned(), error))
    }
}

impl<D: Disk> Store<D> {
    /// The store on a disk; its folders are made.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn open(disk: D) -> Result<Self, StoreError> {
        for dir in ["objects", "gen"] {
            disk.make_dir(dir).named(dir)?;
        }
        disk.sync_dir("").named("the store's folder")?;
        Ok(Self { disk })
    }

    /// The disk.
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// Bytes of an object that is whole; `None` if it is not.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn size_of(&self, object: &ObjectId) -> Result<Option<u64>, StoreError> {
        let path = object_path(object);
        self.disk.size(&path).named(&path)
    }

    /// The bytes of an object that is whole and has at most `limit` of them.
    ///
    /// # Errors
    /// It is missing, is larger, or is damaged; or those of the disk.
    pub fn read(&self, object: &ObjectId, limit: u64) -> Result<Vec<u8>, StoreError> {
        let path = object_path(object);
        let bytes = read_all(&self.disk, &path, limit).named(&path)?.ok_or(StoreError::Missing(*object))?;
        if object_id(&bytes) == *object { Ok(bytes) } else { Err(StoreError::Content(*object)) }
    }

    /// Begins to fetch an object of this size, or goes on with it. With a table each block is checked when it comes;
    /// without one, the object as a whole.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn begin(
        &self,
        object: ObjectId,
        size: u64,
        table: Option<BlockTable>,
    ) -> Result<Download, StoreError> {
        let block = table.as_ref().map_or(BLOCK_BYTES_MAX as u32, BlockTable::block);
        let blocks = blocks_of(size, block);
        let have = vec![0; blocks.div_ceil(8) as usize];
        let missing = blocks as u32;
        let mut download =
            Download { object, size, block, table, have, missing, unsynced: 0, synced_at: None };
        let path = object_path(&object);
        let (part, marks) = (format!("{path}.part"), format!("{path}.have"));
        if self.disk.size(&part).named(&part)?.is_none() {
            // Marks of an earlier download would be taken for those of this one.
            if self.disk.size(&marks).named(&marks)?.is_some() {
                self.remove_file(&marks)?;
                self.disk.sync_dir("objects").named("objects")?;
            }
            return Ok(download);
        }
        let limit = (HAVE_HEAD + download.have.len() + 4) as u64;
        let known = read_all(&self.disk, &marks, limit).ok().flatten();
        if !known.is_some_and(|bytes| download.take_have(&bytes)) {
            self.recognise(&mut download, &part)?;
        }
        Ok(download)
    }

    /// Marks the blocks that are in the file. Their marks were lost.
    fn recognise(&self, download: &mut Download, part: &str) -> Result<(), StoreError> {
        let Some(table) = download.table.take() else { return Ok(()) };
        let mut buffer = vec![0; download.block as usize];
        for index in 0..download.blocks() {
            let length = download.length_of(index).unwrap_or(0);
            let offset = u64::from(index) * u64::from(download.block);
            let read = self.disk.read_at(part, offset, &mut buffer[..length]).named(part)?;
            if read == length && table.is(index, &buffer[..length]) {
                download.mark(index);
            }
        }
        download.table = Some(table);
        Ok(())
    }

    /// Writes a block that came; `now` is the time since any fixed moment.
    ///
    /// # Errors
    /// It is not a block of the object; or those of the disk.
    pub fn write(
        &self,
        download: &mut Download,
        index: u32,
        bytes: &[u8],
        now: Duration,
    ) -> Result<(), BlockError> {
        let expected = download.length_of(index).ok_or(BlockError::Index(index))?;
        if bytes.len() != expected {
            return Err(BlockError::Size { index, found: bytes.len(), expected });
        }
        if download.table.as_ref().is_some_and(|table| !table.is(index, bytes)) {
            return Err(BlockError::Hash(index));
        }
        if download.has(index) {
            return Ok(());
        }
        let part = format!("{}.part", object_path(&download.object));
        let offset = u64::from(index) * u64::from(download.block);
        self.disk.write_at(&part, offset, bytes).named(&part)?;
        download.mark(index);
        download.unsynced += 1;
        let since = *download.synced_at.get_or_insert(now);
        if download.unsynced >= SYNC_BLOCKS || now.saturating_sub(since) >= SYNC_AFTER {
            self.sync(download, now)?;
        }
        Ok(())
    }

    /// Makes what came lasting: first the blocks, then the marks that say so.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn sync(&self, download: &mut Download, now: Duration) -> Result<(), StoreError> {
        if download.unsynced > 0 {
            let path = object_path(&download.object);
            let (part, marks) = (format!("{path}.part"), format!("{path}.have"));
            self.disk.sync(&part).named(&part)?;
            self.disk.write(&marks, &download.have_file()).named(&marks)?;
            self.disk.sync(&marks).named(&marks)?;
            // The entries of both are made lasting, or all of it would be lost with them.
            self.disk.sync_dir("objects").named("objects")?;
            (download.unsynced, download.synced_at) = (0, Some(now));
        }
        Ok(())
    }

    /// Copies the missing blocks that are in another file of the disk, which has this table. Returns their number.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn reuse(
        &self,
        download: &mut Download,
        path: &str,
        table: &BlockTable,
        now: Duration,
    ) -> Result<u32, BlockError> {
        let Some(own) = download.table.clone().filter(|own| own.block() == table.block()) else {
            return Ok(0);
        };
        let (known, before) = (table.by_hash(), download.missing);
        let mut buffer = vec![0; own.block() as usize];
        for index in 0..own.blocks() {
            let source = own.hash(index).filter(|_| !download.has(index)).and_then(|hash| known.get(hash));
            let (Some(source), Some(length)) = (source, download.length_of(index)) else { continue };
            let offset = u64::from(*source) * u64::from(own.block());
            let read = self.disk.read_at(path, offset, &mut buffer[..length]).named(path)?;
            match self.write(download, index, &buffer[..read], now) {
                // The other file is damaged there: the block is fetched.
                Err(BlockError::Size { .. } | BlockError::Hash(_)) => {}
                written => written?,
            }
        }
        Ok(before - download.missing)
    }

    /// Gives an object its name, once all of it is there and has the right hash.
    ///
    /// # Errors
    /// Blocks are missing; it is another object, whose blocks are removed; or those of the disk.
    pub fn finish(&self, download: Download) -> Result<(), StoreError> {
        let (object, path) = (download.object, object_path(&download.object));
        let (part, marks) = (format!("{path}.part"), format!("{path}.have"));
        if download.missing > 0 {
            return Err(StoreError::Missing(object));
        }
        let right = self.disk.size(&part).named(&part)? == Some(download.size)
            && self.hash(&part).named(&part)? == object;
        if !right {
            self.forget(&object)?;
            return Err(StoreError::Content(object));
        }
        self.disk.sync(&part).named(&part)?;
        self.disk.rename(&part, &path).named(&path)?;
        self.disk.sync_dir("objects").named("objects")?;
        self.remove_file(&marks)
    }

    fn hash(&self, path: &str) -> io::Result<ObjectId> {
        let (mut context, mut buffer) = (Context::new(&SHA256), vec![0; BLOCK_BYTES_MAX]);
        let mut reader = DiskReader::new(&self.disk, path);
        loop {
            match io::Read::read(&mut reader, &mut buffer)? {
                0 => break,
                read => context.update(&buffer[..read]),
            }
        }
        Ok(ObjectId(context.finish().as_ref().try_into().expect("a SHA-256 has 32 bytes")))
    }

    /// Removes what came of an object.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn forget(&self, object: &ObjectId) -> Result<(), StoreError> {
        let path = object_path(object);
        // The marks go first: blocks without marks are looked at again, marks without blocks would be wrong.
        self.remove_file(&format!("{path}.have"))?;
        self.disk.sync_dir("objects").named("objects")?;
        self.remove_file(&format!("{path}.part"))
    }

    fn remove_file(&self, path: &str) -> Result<(), StoreError> {
        match self.disk.remove(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.named(path),
        }
    }

    /// Puts a small object there, whose bytes came from elsewhere.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn put(&self, bytes: &[u8]) -> Result<ObjectId, StoreError> {
        let object = object_id(bytes);
        if self.size_of(&object)?.is_none() {
            let mut download = self.begin(object, bytes.len() as u64, None)?;
            for (block, index) in bytes.chunks(BLOCK_BYTES_MAX).zip(0..) {
                self.write(&mut download, index, block, Duration::ZERO).map_err(|error| match error {
                    BlockError::Store(error) => error,
                    _ => StoreError::Content(object),
                })?;
            }
            self.finish(download)?;
        }
        Ok(object)
    }

    /// Bytes that a release still needs. Objects in slots are not counted.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn needed(&self, release: &Release) -> Result<u64, StoreError> {
        let mut needed = 0_u64;
        let mut seen = BTreeSet::new();
        for object in release.objects.iter().filter(|object| object.place().is_some()) {
            for (id, size) in [(object.sha256, object.size), (object.table, object.table_size())] {
                if seen.insert(id) && self.size_of(&id)?.is_none() {
                    let part = format!("{}.part", object_path(&id));
                    let here = self.disk.size(&part).named(&part)?.unwrap_or(0);
                    needed = needed.saturating_add(size.saturating_sub(here));
                }
            }
        }
        Ok(needed)
    }

    /// Checks that a release has room, before a byte of it is fetched.
    ///
    /// # Errors
    /// It has none; or those of the disk.
    pub fn check_room(&self, release: &Release) -> Result<(), StoreError> {
        let needed = self.needed(release)?.saturating_add(SPARE_BYTES);
        let free = self.disk.free().named("the store's folder")?;
        if needed > free { Err(StoreError::NoSpace { needed, free }) } else { Ok(()) }
    }

    /// Makes the generation of a verified release, whose signed file is the object `file`.
    ///
    /// # Errors
    /// An object is not whole, or the number belongs to another release; or those of the disk.
    pub fn assemble(&self, file: &ObjectId, release: &Release) -> Result<(), StoreError> {
        let number = release.number;
        let dir = format!("gen/{number}");
        if counts(&self.disk, number).named(&dir)? {
            let same = self.hash(&join(&dir, RELEASE)).named(&dir)? == *file;
            return if same { Ok(()) } else { Err(StoreError::Mixed(number)) };
        }
        let placed: Vec<(String, &ReleaseObject)> =
            release.objects.iter().filter_map(|object| Some((object.place()?, object))).collect();
        for (_, object) in &placed {
            if self.size_of(&object.sha256)? != Some(object.size) {
                return Err(StoreError::Missing(object.sha256));
            }
        }
        self.size_of(file)?.ok_or(StoreError::Missing(*file))?;
        self.remove_generation(number)?;
        self.disk.make_dir(&dir).named(&dir)?;
        let mut folders = BTreeSet::new();
        for (place, object) in &placed {
            if let Some((folder, _)) = place.rsplit_once('/')
                && folders.insert(folder)
            {
                let folder = join(&dir, folder);
                self.disk.make_dir(&folder).named(&folder)?;
            }
            let place = join(&dir, place);
            self.disk.link(&object_path(&object.sha256), &place).named(&place)?;
        }
        for folder in folders {
            let folder = join(&dir, folder);
            self.disk.sync_dir(&folder).named(&folder)?;
        }
        self.disk.sync_dir(&dir).named(&dir)?;
        // Only now does it count.
        let release = join(&dir, RELEASE);
        self.disk.link(&object_path(file), &release).named(&release)?;
        self.disk.sync_dir(&dir).named(&dir)?;
        self.disk.sync_dir("gen").named("gen")
    }

    /// The numbers of the generations that count.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn generations(&self) -> Result<Vec<u32>, StoreError> {
        let mut numbers = Vec::new();
        for number in self.folders()? {
            if counts(&self.disk, number).named("gen")? {
                numbers.push(number);
            }
        }
        Ok(numbers)
    }

    fn folders(&self) -> Result<Vec<u32>, StoreError> {
        let names = self.disk.list("gen").named("gen")?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// The release of a generation that counts, which was verified before it was made.
    ///
    /// # Errors
    /// It doesn't count or is damaged; or those of the disk.
    pub fn release_of(&self, number: u32) -> Result<Release, StoreError> {
        let path = format!("gen/{number}/{RELEASE}");
        let bytes = read_all(&self.disk, &path, SIGNED_DOCUMENT_BYTES_MAX as u64).named(&path)?;
        let missing = || Rejection::Malformed("it has no release".to_owned());
        let parsed = bytes.ok_or_else(missing).and_then(|bytes| {
            let release = Release::parse(&SignedDocument::decode(&bytes)?.text)?;
            let (found, expected) = (release.number, number);
            if found == expected { Ok(release) } else { Err(Rejection::Number { found, expected }) }
        });
        parsed.map_err(|rejection| StoreError::Damaged(number, rejection))
    }

    /// Removes a generation. What makes it count goes first.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn remove_generation(&self, number: u32) -> Result<(), StoreError> {
        let dir = format!("gen/{number}");
        if !self.folders()?.contains(&number) {
            return Ok(());
        }
        self.remove_file(&join(&dir, RELEASE))?;
        self.disk.sync_dir(&dir).named(&dir)?;
        for name in self.disk.list(&dir).named(&dir)? {
            let path = join(&dir, &name);
            // Anything that is no file is a folder of files.
            for inner in self.disk.list(&path).unwrap_or_default() {
                self.remove_file(&join(&path, &inner))?;
            }
            self.remove_file(&path)?;
        }
        self.remove_file(&dir)?;
        self.disk.sync_dir("gen").named("gen")
    }

    /// Removes all generations but the good one, the one on trial and the one before, and all objects but theirs and
    /// those in `keep`. What came of an object that is not whole stays if it is in `keep`.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn collect_garbage(&self, state: &UpdateState, keep: &[ObjectId]) -> Result<(), StoreError> {
        let kept = [state.good, state.trial, state.previous];
        let fetched: BTreeSet<String> = keep.iter().map(|object| hex(&object.0)).collect();
        let mut needed = fetched.clone();
        for number in self.folders()? {
            if !kept.contains(&number) {
                self.remove_generation(number)?;
            } else if counts(&self.disk, number).named("gen")? {
                let release = self.release_of(number)?;
                needed.insert(hex(&self.hash(&format!("gen/{number}/{RELEASE}")).named("gen")?.0));
                for object in release.objects.iter().take(OBJECTS_MAX) {
                    needed.extend([hex(&object.sha256.0), hex(&object.table.0)]);
                }
            }
        }
        let names = self.disk.list("objects").named("objects")?;
        for name in &names {
            let stays = match name.split_once('.') {
                None => needed.contains(name),
                Some((object, _)) => fetched.contains(object) && !names.iter().any(|other| other == object),
            };
            if !stays {
                self.remove_file(&format!("objects/{name}"))?;
            }
        }
        self.disk.sync_dir("objects").named("objects")
    }
}
