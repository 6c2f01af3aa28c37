//! The slots of a test disk and the files that choose one. No machine runs while they are written.

use super::choice::{BootSlot, BootState};
use super::disk::{TestDisk, run};
use anyhow::{Context, Result, ensure};
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

/// Bytes at the start of a slot without which it is no file system.
const FIRST_BLOCK: [u8; 4096] = [0; 4096];
/// Size of a slot that only panics, MiB.
const PANIC_MIB: u64 = 64;
/// A slot's file of kernel arguments.
const ARGUMENTS: &str = "/boot/arguments.env";
/// Its text in a slot that panics: without an initrd it finds no root, and a second later starts again.
const PANIC_ARGUMENTS: &str = "arguments=console=ttyAMA0 panic=1\n";

impl TestDisk {
    /// The state files.
    ///
    /// # Errors
    /// The partition can't be read.
    pub fn state(&self) -> Result<BootState> {
        Ok(BootState { good: self.bytes("good.env")?, trial: self.bytes("try.env")? })
    }

    /// Writes both state files, or removes a missing one.
    ///
    /// # Errors
    /// There is no room.
    pub fn set_state(&self, state: &BootState) -> Result<()> {
        for (name, contents) in [("good.env", &state.good), ("try.env", &state.trial)] {
            match contents {
                Some(bytes) => self.put(name, bytes)?,
                None => self.remove(name)?,
            }
        }
        Ok(())
    }

    /// Copies a slot over the other one.
    ///
    /// # Errors
    /// The disk can't be read or written.
    pub fn copy_slot(&self, from: BootSlot, to: BootSlot) -> Result<()> {
        let [from, to] = [self.partition(from.partition())?, self.partition(to.partition())?];
        ensure!(from.length <= to.length, "the other slot is smaller");
        let source = self.open()?;
        (&source).seek(SeekFrom::Start(from.offset))?;
        let mut target = self.open()?;
        target.seek(SeekFrom::Start(to.offset))?;
        io::copy(&mut io::Read::take(&source, from.length), &mut target).context("the copy of a slot")?;
        Ok(())
    }

    /// Clears the start of a slot, as before it is written.
    ///
    /// # Errors
    /// The disk can't be written.
    pub fn clear_slot(&self, slot: BootSlot) -> Result<()> {
        let partition = self.partition(slot.partition())?;
        self.open()?.write_all_at(&FIRST_BLOCK, partition.offset).context("the start of a slot")
    }

    /// Writes a slot with the kernel of slot a and an initrd that is none, so that the kernel panics at once. Files are
    /// prepared under `dir`.
    ///
    /// # Errors
    /// A program is not installed, or the disk can't be written.
    pub fn write_panicking_slot(&self, slot: BootSlot, dir: &Path) -> Result<()> {
        let (boot, file) = (dir.join("panics/boot"), dir.join("panics.ext4"));
        fs::create_dir_all(&boot).with_context(|| boot.display().to_string())?;
        self.slot_file(BootSlot::A, "/boot/kernel", &boot.join("kernel"))?;
        fs::write(boot.join("initrd"), [0; 512])?;
        fs::write(boot.join("arguments.env"), PANIC_ARGUMENTS)?;
        File::create(&file)?.set_len(PANIC_MIB << 20)?;
        let mut make = Command::new("mke2fs");
        run(make.args(["-q", "-F", "-t", "ext4", "-b", "4096", "-d"]).arg(dir.join("panics")).arg(&file))?;
        let mut target = self.open()?;
        target.seek(SeekFrom::Start(self.partition(slot.partition())?.offset))?;
        io::copy(&mut File::open(&file)?, &mut target).context("a slot that panics")?;
        fs::remove_file(&file)?;
        fs::remove_dir_all(dir.join("panics"))?;
        Ok(())
    }

    /// Adds a kernel argument to a slot.
    ///
    /// # Errors
    /// The slot has no arguments, or can't be written.
    pub fn add_argument(&self, slot: BootSlot, argument: &str) -> Result<()> {
        let [own, back] = ["env", "back"].map(|name| self.path().with_extension(name));
        self.slot_file(slot, ARGUMENTS, &own)?;
        let text = fs::read_to_string(&own).context("the kernel's arguments")?;
        let text = format!("{} {argument}\n", text.trim_end());
        fs::write(&own, &text)?;
        self.debugfs(slot, &format!("rm {ARGUMENTS}"))?;
        self.debugfs(slot, &format!("write {} {ARGUMENTS}", own.display()))?;
        self.slot_file(slot, ARGUMENTS, &back)?;
        ensure!(fs::read_to_string(&back)? == text, "slot {} did not take {argument}", slot.name());
        for file in [own, back] {
            fs::remove_file(file)?;
        }
        Ok(())
    }

    /// Copies a slot's file to `to`.
    fn slot_file(&self, slot: BootSlot, path: &str, to: &Path) -> Result<()> {
        File::create(to).with_context(|| to.display().to_string())?;
        self.debugfs(slot, &format!("dump {path} {}", to.display()))?;
        ensure!(fs::metadata(to).is_ok_and(|file| file.len() > 0), "slot {} has no {path}", slot.name());
        Ok(())
    }

    /// Runs a request of debugfs, which does not fail where the request does.
    fn debugfs(&self, slot: BootSlot, request: &str) -> Result<()> {
        let offset = self.partition(slot.partition())?.offset;
        let file = format!("{}?offset={offset}", self.path().display());
        run(Command::new("debugfs").args(["-w", "-R", request]).arg(file))
    }

    fn open(&self) -> Result<File> {
        let file = File::options().read(true).write(true).open(self.path());
        file.with_context(|| self.path().display().to_string())
    }
}
