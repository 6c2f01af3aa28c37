//! The first partition as power cuts leave it: after each prefix of what was written since the last flush, and with parts of
//! it missing, as a disk may write in any order between two flushes.

use super::choice::BootState;
use super::disk::{SECTOR, SECTOR_BYTES, TestDisk, run, run_for_code};
use super::writes::{DiskEvent, SectorWrite};
use anyhow::{Context, Result, ensure};
use std::fs::{self, File};
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Most writes between two flushes of which every subset is judged; of more, only the prefixes are.
const SUBSETS_OF: usize = 6;
/// Place of the mark in FAT32's first sector that says "mounted for writing", and its bit.
const MOUNTED: (usize, u8) = (65, 1);
/// Place of the count of sectors before the table of clusters.
const RESERVED: usize = 14;

/// The first partition of a disk, in a file of its own.
#[derive(Debug)]
pub struct FatImage {
    files: TestDisk,
    file: File,
    /// The bytes before the partition, with the partition table.
    front: Vec<u8>,
}

/// The judgement of all cuts.
#[derive(Debug, Default)]
pub struct CutVerdict {
    /// Number of cuts that were judged.
    pub cuts: usize,
    /// The faults after a cut.
    pub bad: Vec<String>,
    /// The different states that the cuts left, each with a card that has it.
    pub cards: Vec<(BootState, PathBuf)>,
}

impl FatImage {
    /// A copy of a disk's first partition, at `path`.
    ///
    /// # Errors
    /// The disk can't be read, or the file not be written.
    pub fn copied(disk: &TestDisk, path: &Path) -> Result<Self> {
        let partition = disk.partition(1)?;
        disk.copy_out(partition, path)?;
        let file = File::options().read(true).write(true).open(path);
        let file = file.with_context(|| path.display().to_string())?;
        let mut front = vec![0; usize::try_from(partition.offset).context("a partition too far back")?];
        let whole = File::open(disk.path()).with_context(|| disk.path().display().to_string())?;
        whole.read_exact_at(&mut front, 0).context("the partition table")?;
        Ok(Self { files: TestDisk::without_table(path), file, front })
    }

    /// The contents of the state files.
    ///
    /// # Errors
    /// The partition can't be read.
    pub fn state(&self) -> Result<BootState> {
        self.files.state()
    }

    /// The offset of the first sector with these contents.
    ///
    /// # Errors
    /// The partition can't be read.
    pub fn find(&self, contents: &[u8]) -> Result<Option<u64>> {
        let mut reader = BufReader::with_capacity(1 << 20, &self.file);
        reader.seek(SeekFrom::Start(0)).context("the partition")?;
        let (mut offset, mut sector) = (0, [0; SECTOR_BYTES]);
        while reader.read_exact(&mut sector).is_ok() {
            if sector == contents {
                return Ok(Some(offset));
            }
            offset += SECTOR;
        }
        Ok(None)
    }

    /// The offset of the table of clusters.
    ///
    /// # Errors
    /// The partition can't be read.
    pub fn table(&self) -> Result<u64> {
        let first = self.sector(0)?;
        Ok(u64::from(u16::from_le_bytes([first[RESERVED], first[RESERVED + 1]])) * SECTOR)
    }

    /// A disk at `path` that has only this partition, and the table of the whole disk.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn card(&self, path: &Path) -> Result<()> {
        fs::write(path, &self.front).with_context(|| path.display().to_string())?;
        let mut dd = Command::new("dd");
        dd.arg(format!("if={}", self.files.path().display())).arg(format!("of={}", path.display()));
        dd.args(["bs=1M", "conv=sparse,notrunc", "oflag=seek_bytes", "status=none"]);
        run(dd.arg(format!("seek={}", self.front.len())))
    }

    /// The damage of the file system; `None` for a sound one. The mark of a mounted one is no damage.
    fn damage(&self) -> Result<Option<String>> {
        let first = self.sector(0)?;
        let mut unmarked = first;
        unmarked[MOUNTED.0] &= !MOUNTED.1;
        self.write(0, &unmarked)?;
        let checked = run_for_code(Command::new("fsck.fat").arg("-n").arg(self.files.path()));
        self.write(0, &first)?;
        let (code, text) = checked?;
        Ok((code != 0).then(|| format!("fsck.fat {code}: {text}")))
    }

    fn sector(&self, offset: u64) -> Result<[u8; SECTOR_BYTES]> {
        let mut bytes = [0; SECTOR_BYTES];
        self.file.read_exact_at(&mut bytes, offset).context("a sector of the partition")?;
        Ok(bytes)
    }

    fn write(&self, offset: u64, bytes: &[u8; SECTOR_BYTES]) -> Result<()> {
        self.file.write_all_at(bytes, offset).context("a sector of the partition")
    }
}

/// Judges every cut in the events of a partition, which `image` shows before the first one. A cut is bad if it damages the
/// file system, or leaves a state that is not one of `allowed`. A card of each state is kept under `cards`.
///
/// # Errors
/// A file can't be read or written, or a program is not installed.
pub fn judge_cuts(
    image: &FatImage,
    events: &[DiskEvent],
    allowed: &[BootState],
    cards: &Path,
) -> Result<CutVerdict> {
    fs::create_dir_all(cards).with_context(|| cards.display().to_string())?;
    let mut verdict = CutVerdict::default();
    for window in events.split(|event| *event == DiskEvent::Flush) {
        let writes: Vec<&SectorWrite> = window
            .iter()
            .filter_map(|event| match event {
                DiskEvent::Write(write) => Some(write),
                DiskEvent::Flush => None,
            })
            .collect();
        // With all of its writes, a window is the next one without any.
        for part in parts_of(writes.len()).iter().filter(|part| part.len() < writes.len()) {
            verdict.judge(image, part.iter().map(|index| writes[*index]), allowed, cards)?;
        }
        for write in writes {
            image.write(write.offset, &write.bytes)?;
        }
    }
    verdict.judge(image, [].into_iter(), allowed, cards)?;
    Ok(verdict)
}

impl CutVerdict {
    /// Judges the image with some more writes, which are undone.
    fn judge<'a>(
        &mut self,
        image: &FatImage,
        writes: impl Iterator<Item = &'a SectorWrite>,
        allowed: &[BootState],
        cards: &Path,
    ) -> Result<()> {
        let mut before = Vec::new();
        for write in writes {
            before.push((write.offset, image.sector(write.offset)?));
            image.write(write.offset, &write.bytes)?;
        }
        self.cuts += 1;
        let cut = self.cuts;
        if let Some(damage) = image.damage()? {
            self.bad.push(format!("cut {cut}: {damage}"));
        }
        match image.state() {
            Err(error) => self.bad.push(format!("cut {cut}: {error:#}")),
            Ok(state) => {
                if !allowed.contains(&state) {
                    self.bad.push(format!("cut {cut}: {state}"));
                }
                if self.cards.iter().all(|(known, _)| *known != state) {
                    let path = cards.join(format!("cut-{cut:03}.img"));
                    image.card(&path)?;
                    self.cards.push((state, path));
                }
            }
        }
        for (offset, bytes) in before.iter().rev() {
            image.write(*offset, bytes)?;
        }
        Ok(())
    }

    /// The first of what was wrong, as an error.
    ///
    /// # Errors
    /// Something was wrong.
    pub fn ensure_good(&self) -> Result<()> {
        let Self { cuts, bad, .. } = self;
        ensure!(bad.is_empty(), "{} of {cuts} cuts are bad: {}", bad.len(), bad[0]);
        Ok(())
    }
}

/// The parts of so many writes that a disk may have taken: the indices of each part, in order.
fn parts_of(count: usize) -> Vec<Vec<usize>> {
    if count > SUBSETS_OF {
        return (0..=count).map(|length| (0..length).collect()).collect();
    }
    let part = |mask: u32| (0..count).filter(|index| mask & (1 << index) != 0).collect();
    (0..1 << count).map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_takes_any_part_of_few_writes_and_any_prefix_of_many() {
        assert_eq!(parts_of(0), [Vec::<usize>::new()]);
        assert_eq!(parts_of(2), [vec![], vec![0], vec![1], vec![0, 1]]);
        assert_eq!(parts_of(SUBSETS_OF).len(), 1 << SUBSETS_OF);
        let many = parts_of(SUBSETS_OF + 1);
        assert_eq!((many.len(), many.last().map(Vec::len)), (SUBSETS_OF + 2, Some(SUBSETS_OF + 1)));
    }
}
