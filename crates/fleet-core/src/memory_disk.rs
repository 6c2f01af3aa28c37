//! A disk in memory that loses power, for tests and simulations.
//!
//! What was not made lasting may be lost: each sector of each write, and each entry of each folder, by itself and in any
//! order. So it is more hostile than a journalling file system.

use crate::disk::Disk;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};

/// Bytes that are written whole or not at all.
const SECTOR_BYTES: usize = 512;

#[derive(Clone, Debug)]
enum Change {
    Clear,
    Write(usize, Vec<u8>),
}

#[derive(Clone, Debug)]
enum Entry {
    Add(String, usize),
    Remove(String),
    Rename(String, String, usize),
}

#[derive(Clone, Debug)]
enum Node {
    File { lasting: Vec<u8>, present: Vec<u8>, changes: Vec<Change> },
    Dir { lasting: BTreeMap<String, usize>, present: BTreeMap<String, usize>, changes: Vec<Entry> },
}

impl Node {
    fn dir() -> Self {
        Self::Dir { lasting: BTreeMap::new(), present: BTreeMap::new(), changes: Vec::new() }
    }

    fn file() -> Self {
        Self::File { lasting: Vec::new(), present: Vec::new(), changes: Vec::new() }
    }
}

#[derive(Clone, Debug)]
struct State {
    nodes: Vec<Node>,
    capacity: u64,
    steps: u32,
    fuse: Option<u32>,
}

/// A disk in memory.
#[derive(Clone, Debug)]
pub struct MemoryDisk {
    state: RefCell<State>,
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new(capacity: u64) -> Self {
        let state = State { nodes: vec![Node::dir()], capacity, steps: 0, fuse: None };
        Self { state: RefCell::new(state) }
    }

    /// The same disk, whose power fails at the `step`th change from now on, counted from 0.
    #[must_use]
    pub fn cut_at(&self, step: u32) -> Self {
        let cut = self.clone();
        let fuse = cut.state.borrow().steps + step;
        cut.state.borrow_mut().fuse = Some(fuse);
        cut
    }

    /// Changes so far.
    pub fn steps(&self) -> u32 {
        self.state.borrow().steps
    }

    /// True if its power failed.
    pub fn is_cut(&self) -> bool {
        let state = self.state.borrow();
        state.fuse.is_some_and(|fuse| state.steps > fuse)
    }

    /// The disk after a power cut. `chance` says of each thing that is not lasting whether it stays.
    #[must_use]
    pub fn after_cut(&self, mut chance: impl FnMut() -> bool) -> Self {
        let mut state = self.state.borrow().clone();
        for node in &mut state.nodes {
            match node {
                Node::File { lasting, present, changes } => {
                    for change in changes.drain(..) {
                        survive(lasting, change, &mut chance);
                    }
                    present.clone_from(lasting);
                }
                Node::Dir { lasting, present, changes } => {
                    for entry in changes.drain(..).filter(|_| chance()) {
                        apply(lasting, entry);
                    }
                    present.clone_from(lasting);
                }
            }
        }
        state.fuse = None;
        Self { state: RefCell::new(state) }
    }

    /// Takes a step that changes the disk; the power may fail in it, when it may be taken or not.
    fn step(&self, take: impl FnOnce(&mut State) -> io::Result<()>) -> io::Result<()> {
        let state = &mut *self.state.borrow_mut();
        let cut = || Err(io::Error::new(ErrorKind::BrokenPipe, "the power failed"));
        let (step, fuse) = (state.steps, state.fuse);
        if fuse.is_some_and(|fuse| step > fuse) {
            return cut();
        }
        state.steps += 1;
        if fuse == Some(step) {
            // What the step would do is not lasting yet: whether it stays is up to chance.
            take(state)?;
            return cut();
        }
        take(state)
    }
}

fn survive(lasting: &mut Vec<u8>, change: Change, chance: &mut impl FnMut() -> bool) {
    match change {
        Change::Clear if chance() => lasting.clear(),
        Change::Clear => {}
        Change::Write(offset, bytes) => {
            let mut at = offset;
            while at < offset + bytes.len() {
                let end = (at / SECTOR_BYTES + 1) * SECTOR_BYTES;
                let end = end.min(offset + bytes.len());
                if chance() {
                    put(lasting, at, &bytes[at - offset..end - offset]);
                }
                at = end;
            }
        }
    }
}

fn put(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if file.len() < offset + bytes.len() {
        file.resize(offset + bytes.len(), 0);
    }
    file[offset..offset + bytes.len()].copy_from_slice(bytes);
}

fn apply(entries: &mut BTreeMap<String, usize>, entry: Entry) {
    match entry {
        Entry::Add(name, node) => {
            entries.insert(name, node);
        }
        Entry::Remove(name) => {
            entries.remove(&name);
        }
        Entry::Rename(from, to, node) => {
            entries.remove(&from);
            entries.insert(to, node);
        }
    }
}

fn missing(path: &str) -> io::Error {
    io::Error::new(ErrorKind::NotFound, format!("{path} doesn't exist"))
}

impl State {
    fn find(&self, path: &str) -> Option<usize> {
        let mut at = 0;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let Node::Dir { present, .. } = &self.nodes[at] else { return None };
            at = *present.get(name)?;
        }
        Some(at)
    }

    fn dir(&mut self, path: &str) -> io::Result<(&mut BTreeMap<String, usize>, &mut Vec<Entry>)> {
        let at = self.find(path).ok_or_else(|| missing(path))?;
        match &mut self.nodes[at] {
            Node::Dir { present, changes, .. } => Ok((present, changes)),
            Node::File { .. } => Err(io::Error::new(ErrorKind::NotADirectory, path.to_owned())),
        }
    }

    fn change(&mut self, dir: &str, entry: Entry) -> io::Result<()> {
        let (present, changes) = self.dir(dir)?;
        apply(present, entry.clone());
        changes.push(entry);
        Ok(())
    }

    fn make(&mut self, path: &str, node: Node) -> io::Result<usize> {
        let (dir, name) = parts(path);
        let new = self.nodes.len();
        self.change(dir, Entry::Add(name.to_owned(), new))?;
        self.nodes.push(node);
        Ok(new)
    }

    /// Changes of a file, which is made if it doesn't exist.
    fn change_file(&mut self, path: &str, new: impl IntoIterator<Item = Change>) -> io::Result<()> {
        let at = match self.find(path) {
            Some(at) => at,
            None => self.make(path, Node::file())?,
        };
        let Node::File { present, changes, .. } = &mut self.nodes[at] else {
            return Err(io::Error::new(ErrorKind::IsADirectory, path.to_owned()));
        };
        for change in new {
            survive(present, change.clone(), &mut || true);
            changes.push(change);
        }
        if self.used() > self.capacity { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    /// Bytes of all files that have a name.
    fn used(&self) -> u64 {
        let mut named: Vec<usize> = Vec::new();
        for node in &self.nodes {
            if let Node::Dir { present, .. } = node {
                named.extend(present.values());
            }
        }
        named.sort_unstable();
        named.dedup();
        let size = |at: &usize| match &self.nodes[*at] {
            Node::File { present, .. } => present.len() as u64,
            Node::Dir { .. } => 0,
        };
        named.iter().map(size).sum()
    }
}

fn parts(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

impl Disk for MemoryDisk {
    fn size(&self, path: &str) -> io::Result<Option<u64>> {
        let state = self.state.borrow();
        Ok(state.find(path).map(|at| match &state.nodes[at] {
            Node::File { present, .. } => present.len() as u64,
            Node::Dir { .. } => 0,
        }))
    }

    fn read_at(&self, path: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let state = self.state.borrow();
        let at = state.find(path).ok_or_else(|| missing(path))?;
        let Node::File { present, .. } = &state.nodes[at] else {
            return Err(io::Error::new(ErrorKind::IsADirectory, path.to_owned()));
        };
        let rest = present.get(offset as usize..).unwrap_or_default();
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let state = self.state.borrow();
        let at = state.find(path).ok_or_else(|| missing(path))?;
        match &state.nodes[at] {
            Node::Dir { present, .. } => Ok(present.keys().cloned().collect()),
            Node::File { .. } => Err(io::Error::new(ErrorKind::NotADirectory, path.to_owned())),
        }
    }

    fn make_dir(&self, path: &str) -> io::Result<()> {
        self.step(|state| match state.find(path) {
            Some(_) => Ok(()),
            None => state.make(path, Node::dir()).map(drop),
        })
    }

    fn write(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.step(|state| state.change_file(path, [Change::Clear, Change::Write(0, bytes.to_vec())]))
    }

    fn write_at(&self, path: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.step(|state| state.change_file(path, [Change::Write(offset as usize, bytes.to_vec())]))
    }

    fn sync(&self, path: &str) -> io::Result<()> {
        // A sync in which the power fails has done nothing yet.
        self.step(|state| {
            let at = state.find(path).ok_or_else(|| missing(path))?;
            let failing = state.fuse == Some(state.steps - 1);
            if let (Node::File { lasting, present, changes }, false) = (&mut state.nodes[at], failing) {
                lasting.clone_from(present);
                changes.clear();
            }
            Ok(())
        })
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        self.step(|state| {
            let at = state.find(path).ok_or_else(|| missing(path))?;
            let failing = state.fuse == Some(state.steps - 1);
            if let (Node::Dir { lasting, present, changes }, false) = (&mut state.nodes[at], failing) {
                lasting.clone_from(present);
                changes.clear();
            }
            Ok(())
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.step(|state| {
            let node = state.find(from).ok_or_else(|| missing(from))?;
            let ((dir, from), (_, to)) = (parts(from), parts(to));
            state.change(dir, Entry::Rename(from.to_owned(), to.to_owned(), node))
        })
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.step(|state| {
            let node = state.find(from).ok_or_else(|| missing(from))?;
            if state.find(to).is_some() {
                return Err(io::Error::new(ErrorKind::AlreadyExists, to.to_owned()));
            }
            let (dir, name) = parts(to);
            state.change(dir, Entry::Add(name.to_owned(), node))
        })
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.step(|state| {
            let at = state.find(path).ok_or_else(|| missing(path))?;
            if let Node::Dir { present, .. } = &state.nodes[at]
                && !present.is_empty()
            {
                return Err(io::Error::new(ErrorKind::DirectoryNotEmpty, path.to_owned()));
            }
            let (dir, name) = parts(path);
            state.change(dir, Entry::Remove(name.to_owned()))
        })
    }

    fn free(&self) -> io::Result<u64> {
        let state = self.state.borrow();
        Ok(state.capacity.saturating_sub(state.used()))
    }
}
