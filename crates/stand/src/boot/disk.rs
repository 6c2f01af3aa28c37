//! The disk of an emulated machine: a copy of an image, whose FAT partition is read and written without mounting it.
//!
//! Invariant: the image itself is never written.

use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Bytes of a sector.
pub const SECTOR: u64 = 512;
/// The same, as the length of an array.
pub const SECTOR_BYTES: usize = SECTOR as usize;
/// Offset of the first of the four entries of a partition table, and the length of each.
const TABLE: usize = 446;
const ENTRY: usize = 16;

/// A disk.
#[derive(Debug)]
pub struct TestDisk {
    path: PathBuf,
    /// Start of the FAT partition, kept here because the partition table changes: the last partition grows while the
    /// machine runs.
    fat_offset: u64,
}

/// The place of a partition, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskPartition {
    /// Its first byte.
    pub offset: u64,
    /// Its length.
    pub length: u64,
}

impl TestDisk {
    /// A disk at `path`: a copy of the image with `room` free bytes behind it.
    ///
    /// # Errors
    /// The image can't be copied, or has no partitions.
    pub fn from_image(image: &Path, path: &Path, room: u64) -> Result<Self> {
        // cp keeps the file sparse.
        let mut copy = Command::new("cp");
        copy.args(["--sparse=always", "--reflink=auto"]).args([image, path]);
        run(&mut copy)?;
        let file = File::options().write(true).open(path).with_context(|| path.display().to_string())?;
        file.set_len(file.metadata()?.len() + room).with_context(|| path.display().to_string())?;
        Self::at(path)
    }

    /// A disk at `path` that is a single FAT file system, without a partition table.
    pub(super) fn without_table(path: &Path) -> Self {
        Self { path: path.into(), fat_offset: 0 }
    }

    /// A disk that is at `path` already.
    ///
    /// # Errors
    /// It has no partitions.
    pub fn at(path: &Path) -> Result<Self> {
        Ok(Self { path: path.into(), fat_offset: partitions(path)?[0].offset })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Copies a file of the FAT partition to `to`.
    ///
    /// # Errors
    /// There is no such file.
    pub fn take(&self, name: &str, to: &Path) -> Result<()> {
        let mut command = self.mtool("mcopy");
        run(command.args(["-n", "-o"]).arg(format!("::{name}")).arg(to))
    }

    /// The text of a file of the FAT partition; `None` if there is no such file.
    ///
    /// # Errors
    /// The partition can't be read.
    pub fn text(&self, name: &str) -> Result<Option<String>> {
        Ok(self.bytes(name)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// The contents of a file of the FAT partition; `None` if there is no such file.
    ///
    /// # Errors
    /// The partition can't be read.
    pub fn bytes(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let output = self.mtool("mtype").arg(format!("::{name}")).output().context("mtype")?;
        match output.status.success() {
            true => Ok(Some(output.stdout)),
            false if self.names()?.iter().any(|there| there == name) => {
                bail!("{name}: {}", String::from_utf8_lossy(&output.stderr))
            }
            false => Ok(None),
        }
    }

    /// The names of the files of the FAT partition, without folders.
    ///
    /// # Errors
    /// The partition can't be read.
    pub fn names(&self) -> Result<Vec<String>> {
        let output = self.mtool("mdir").args(["-b", "::"]).output().context("mdir")?;
        ensure!(output.status.success(), "mdir: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.lines().filter_map(|line| line.strip_prefix("::/")).map(str::to_owned).collect())
    }

    /// Writes a file of the FAT partition, as users do on their computer.
    ///
    /// # Errors
    /// There is no room.
    pub fn put(&self, name: &str, contents: impl AsRef<[u8]>) -> Result<()> {
        let own = self.path.with_extension("txt");
        fs::write(&own, contents).with_context(|| own.display().to_string())?;
        let mut command = self.mtool("mcopy");
        run(command.args(["-n", "-o"]).arg(&own).arg(format!("::{name}")))
    }

    /// Checks that an ext4 partition is valid after its journal is replayed, as at the next boot. The disk itself is
    /// not changed. Partitions count from 1.
    ///
    /// # Errors
    /// It has errors that the journal does not repair.
    pub fn check(&self, partition: usize) -> Result<()> {
        let copy = self.path.with_extension("part");
        self.copy_out(self.partition(partition)?, &copy)?;
        let fsck = |how: &str| run_for_code(Command::new("e2fsck").arg(how).arg(&copy));
        let replayed = fsck("-p")?;
        let checked = fsck("-fn");
        let _ = fs::remove_file(&copy);
        let (code, text) = checked?;
        ensure!(code == 0, "partition {partition} is damaged: {} {text}", replayed.1);
        Ok(())
    }

    /// Removes a file of the FAT partition.
    ///
    /// # Errors
    /// There is no such file.
    pub fn remove(&self, name: &str) -> Result<()> {
        let mut command = self.mtool("mdel");
        run(command.arg(format!("::{name}")))
    }

    /// The place of a partition; they count from 1.
    pub(super) fn partition(&self, number: usize) -> Result<DiskPartition> {
        let partitions = partitions(&self.path)?;
        let found = number.checked_sub(1).and_then(|index| partitions.get(index));
        found.copied().with_context(|| format!("the disk has no partition {number}"))
    }

    /// Copies a partition to a file.
    pub(super) fn copy_out(&self, partition: DiskPartition, to: &Path) -> Result<()> {
        let DiskPartition { offset, length } = partition;
        let mut dd = Command::new("dd");
        dd.arg(format!("if={}", self.path.display())).arg(format!("of={}", to.display()));
        dd.args(["bs=1M", "conv=sparse", "iflag=skip_bytes,count_bytes", "status=none"]);
        run(dd.args([format!("skip={offset}"), format!("count={length}")]))
    }

    fn mtool(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        let image = format!("{}@@{}", self.path.display(), self.fat_offset);
        command.env("MTOOLS_SKIP_CHECK", "1").arg("-i").arg(image);
        command
    }
}

/// The partitions of an image.
fn partitions(path: &Path) -> Result<Vec<DiskPartition>> {
    let mut sector = [0; SECTOR_BYTES];
    let mut file = File::open(path).with_context(|| path.display().to_string())?;
    file.seek(SeekFrom::Start(0))?;
    file.read_exact(&mut sector).with_context(|| format!("{} is no disk", path.display()))?;
    let found = of_table(&sector);
    ensure!(!found.is_empty(), "{} has no partition table", path.display());
    Ok(found)
}

/// The partitions of a table, up to the first empty entry.
fn of_table(sector: &[u8; SECTOR_BYTES]) -> Vec<DiskPartition> {
    if sector[510..] != [0x55, 0xaa] {
        return Vec::new();
    }
    let entries = sector[TABLE..510].chunks(ENTRY);
    let word = |entry: &[u8], at: usize| {
        u64::from(u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]])) * SECTOR
    };
    let all = entries.map(|entry| DiskPartition { offset: word(entry, 8), length: word(entry, 12) });
    all.take_while(|partition| partition.length > 0).collect()
}

/// Runs a program to its end; the error has its output.
pub(super) fn run(command: &mut Command) -> Result<()> {
    let (name, output) = output_of(command)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name}: {} ({})", said.trim(), output.status);
    Ok(())
}

/// Runs a program to its end; returns its exit code and its output on one line.
pub(super) fn run_for_code(command: &mut Command) -> Result<(i32, String)> {
    let (_, output) = output_of(command)?;
    let text = String::from_utf8_lossy(&output.stdout).trim().replace('\n', "; ");
    Ok((output.status.code().unwrap_or(-1), text))
}

/// The name of a program, and what it put out. Those for file systems are in folders that users' paths may lack.
fn output_of(command: &mut Command) -> Result<(String, Output)> {
    let name = command.get_program().to_string_lossy().into_owned();
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let output = command.env("PATH", path).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("{name} can't be run: is it installed?"))?;
    Ok((name, output))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_table_is_read() {
        let mut sector = [0; 512];
        sector[446 + 8..446 + 16].copy_from_slice(&[0, 8, 0, 0, 0, 0, 2, 0]);
        sector[462 + 8..462 + 16].copy_from_slice(&[0, 8, 2, 0, 1, 0, 0, 0]);
        assert_eq!(of_table(&sector), []);
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        let expected = [
            DiskPartition { offset: 1 << 20, length: 64 << 20 },
            DiskPartition { offset: 65 << 20, length: 512 },
        ];
        assert_eq!(of_table(&sector), expected);
    }

    #[test]
    fn what_is_no_image_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let (image, disk) = (dir.path().join("image"), dir.path().join("disk"));
        assert!(TestDisk::from_image(&image, &disk, SECTOR).unwrap_err().to_string().contains("cp: "));
        fs::write(&image, b"").unwrap();
        let error = TestDisk::from_image(&image, &disk, SECTOR).unwrap_err().to_string();
        assert!(error.ends_with("has no partition table"), "{error}");
    }
}
