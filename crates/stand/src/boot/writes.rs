//! The log of a disk's writes that QEMU's `blklogwrites` keeps, in the format of Linux's `dm-log-writes`: a header of one
//! sector, then one sector of head and the data for each entry.

use super::disk::{DiskPartition, SECTOR, SECTOR_BYTES};
use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

/// First bytes of a log.
const MAGIC: u64 = 0x006a_7366_7773_6872;
/// Flags of an entry: what was written before is on the disk for good; the sectors were given up.
const FLUSH: u64 = 1;
const DISCARD: u64 = 4;
/// Most sectors that are read from a log.
const SECTORS_MAX: usize = 1 << 16;

/// One event of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskEvent {
    /// One sector was written.
    Write(SectorWrite),
    /// All that was written before is on the disk for good.
    Flush,
}

/// One written sector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SectorWrite {
    /// Offset in the partition, bytes.
    pub offset: u64,
    /// The new contents.
    pub bytes: Box<[u8; SECTOR_BYTES]>,
}

/// The events of one partition of the disk, in order.
///
/// # Errors
/// The file is not such a log, is cut off, or has too many writes to the partition.
pub fn partition_events(path: &Path, partition: DiskPartition) -> Result<Vec<DiskEvent>> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    read(&mut BufReader::new(file), partition).with_context(|| path.display().to_string())
}

fn read(log: &mut (impl Read + Seek), partition: DiskPartition) -> Result<Vec<DiskEvent>> {
    let [magic, _version, entries, bytes] = head(log).context("no header of a log")?;
    // The last field of the header has half the size.
    let sector = bytes & u64::from(u32::MAX);
    ensure!(magic == MAGIC, "no log of writes: it begins with {magic:#x}");
    ensure!(sector == SECTOR, "sectors of {sector} bytes, not of {SECTOR}");
    let mut events = Vec::new();
    for number in 0..entries {
        let [first, count, flags, _length] =
            head(log).with_context(|| format!("cut off before entry {number}"))?;
        let (offset, length) = first
            .checked_mul(SECTOR)
            .zip(count.checked_mul(SECTOR))
            .with_context(|| format!("entry {number} is behind every disk"))?;
        let own = offset < partition.offset + partition.length
            && offset.saturating_add(length) > partition.offset
            && length > 0;
        if flags & DISCARD != 0 {
            ensure!(!own, "entry {number} gives up sectors of the partition");
        } else if own {
            sectors(log, offset, count, partition, &mut events)
                .with_context(|| format!("cut off in entry {number}"))?;
        } else {
            log.seek_relative(i64::try_from(length).context("an entry longer than every file")?)?;
        }
        if flags & FLUSH != 0 {
            events.push(DiskEvent::Flush);
        }
        ensure!(events.len() <= SECTORS_MAX, "more than {SECTORS_MAX} events");
    }
    Ok(events)
}

/// The four numbers at the start of a sector.
fn head(log: &mut impl Read) -> Result<[u64; 4]> {
    let mut sector = [0; SECTOR_BYTES];
    log.read_exact(&mut sector)?;
    let mut numbers = [0; 4];
    for (number, bytes) in numbers.iter_mut().zip(sector.as_chunks::<8>().0) {
        *number = u64::from_le_bytes(*bytes);
    }
    Ok(numbers)
}

/// Reads the data of an entry, and keeps the partition's sectors.
fn sectors(
    log: &mut impl Read,
    offset: u64,
    count: u64,
    partition: DiskPartition,
    events: &mut Vec<DiskEvent>,
) -> Result<()> {
    for number in 0..count {
        let mut bytes = Box::new([0; SECTOR_BYTES]);
        log.read_exact(bytes.as_mut_slice())?;
        let inside = (offset + number * SECTOR).checked_sub(partition.offset);
        let Some(offset) = inside.filter(|offset| *offset < partition.length) else { continue };
        if events.len() > SECTORS_MAX {
            bail!("more than {SECTORS_MAX} sectors");
        }
        events.push(DiskEvent::Write(SectorWrite { offset, bytes }));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    const PARTITION: DiskPartition = DiskPartition { offset: 8 * SECTOR, length: 4 * SECTOR };

    fn sector_of(numbers: [u64; 4]) -> Vec<u8> {
        let mut sector: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        sector.resize(SECTOR_BYTES, 0);
        sector
    }

    /// A log with these entries: first sector, flags, and the byte that fills each sector.
    fn log_of(entries: &[(u64, u64, &[u8])]) -> Vec<u8> {
        let mut log = sector_of([MAGIC, 1, entries.len() as u64, SECTOR]);
        for (first, flags, fills) in entries {
            log.extend(sector_of([*first, fills.len() as u64, *flags, 0]));
            let data = if flags & DISCARD == 0 { *fills } else { &[] };
            log.extend(data.iter().flat_map(|fill| [*fill; SECTOR_BYTES]));
        }
        log
    }

    fn events_of(log: Vec<u8>) -> Result<Vec<DiskEvent>> {
        read(&mut Cursor::new(log), PARTITION)
    }

    fn write(sector: u64, fill: u8) -> DiskEvent {
        DiskEvent::Write(SectorWrite { offset: sector * SECTOR, bytes: Box::new([fill; SECTOR_BYTES]) })
    }

    #[test]
    fn the_sectors_of_the_partition_are_kept_in_order() {
        let log = log_of(&[
            (100, 0, &[9, 9, 9]),
            (7, 0, &[1, 2, 3]),
            (0, FLUSH, &[]),
            (11, 0, &[4, 5]),
            (20, DISCARD, &[0]),
            (10, 2, &[6]),
        ]);
        let expected = [write(0, 2), write(1, 3), DiskEvent::Flush, write(3, 4), write(2, 6)];
        assert_eq!(events_of(log).unwrap(), expected);
    }

    #[test]
    fn what_is_no_log_is_said() {
        let said = |log: Vec<u8>| format!("{:#}", events_of(log).unwrap_err());
        let whole = log_of(&[(8, 0, &[1, 2])]);
        assert!(said(Vec::new()).contains("no header"));
        assert!(said(vec![7; 1024]).contains("no log of writes"));
        assert!(said(whole[..700].to_vec()).contains("cut off before entry 0"));
        assert!(said(whole[..1600].to_vec()).contains("cut off in entry 0"));
        assert!(said(log_of(&[(9, DISCARD, &[0])])).contains("gives up sectors"));
        let mut wide = whole.clone();
        wide[25] = 16;
        assert!(said(wide).contains("sectors of 4096 bytes"));
        let mut endless = whole;
        endless[SECTOR_BYTES + 8..SECTOR_BYTES + 16].fill(0xff);
        assert!(said(endless).contains("behind every disk"));
    }
}
