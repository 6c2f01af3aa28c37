//! The emulated machine: QEMU with a disk, a network to the broker and, on `virt`, the sensor on USB.
//!
//! QEMU does not run a Raspberry Pi's firmware. So U-Boot and its device tree are read from the image's FAT partition, as the
//! firmware would do, and passed to QEMU. All else is U-Boot's: it chooses a slot of the disk and starts its kernel.

use super::disk::TestDisk;
use super::lines::Lines;
use crate::process::Process;
use crate::wait::Stop;
use anyhow::{Context, Result, bail};
use dunlin_board::{Emulated, ImageTable};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The emulator.
const QEMU: &str = "qemu-system-aarch64";
/// A disk whose writes are logged. The count of entries in the log's header is right after each of them.
const LOGGED_DISK: &str = "driver=blklogwrites,node-name=disk,file=file,log=log,log-super-update-interval=1";
/// The host's address inside the machine.
pub const HOST_INSIDE: &str = "10.0.2.2";

/// The settings common to all boots of the machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Directory of the logs.
    pub logs: PathBuf,
    /// The sensor's socket.
    pub sensor: PathBuf,
    /// The host's port that is forwarded to the ssh server inside.
    pub ssh_port: u16,
    kind: Emulated,
    u_boot: PathBuf,
    device_tree: Option<PathBuf>,
}

/// The ways in which a machine may be started.
#[derive(Clone, Copy, Debug, Default)]
pub struct PowerUp<'a> {
    /// True if a restart starts it again; otherwise a restart ends it.
    pub restarts: bool,
    /// A file that is to log all writes to the disk; only for `virt`.
    pub write_log: Option<&'a Path>,
    /// True for a machine without network and sensor, of which several may run at once; only for `virt`.
    pub alone: bool,
}

/// A running machine.
#[derive(Debug)]
pub struct RunningMachine {
    process: Process,
    console: Lines,
    log: PathBuf,
    since: Instant,
}

impl Machine {
    /// The machine that boots the image on `disk` by the board's recipe; U-Boot is kept under `parts`.
    ///
    /// # Errors
    /// The image lacks them, or QEMU has no such machine.
    pub fn new(
        disk: &TestDisk,
        recipe: &ImageTable,
        parts: &Path,
        logs: &Path,
        sensor: &Path,
        ssh_port: u16,
    ) -> Result<Self> {
        let kind = recipe.emulated_machine.context("the board's file names no image.emulated_machine")?;
        let take = |name: &str| {
            let to = parts.join(name);
            disk.take(name, &to).with_context(|| format!("{name} of the image"))?;
            Ok::<_, anyhow::Error>(to)
        };
        let file = recipe.device_trees.first().and_then(|path| path.rsplit('/').next());
        Ok(Self {
            logs: logs.into(),
            sensor: sensor.into(),
            ssh_port,
            kind,
            u_boot: take("u-boot.bin")?,
            device_tree: file.map(take).transpose()?,
        })
    }

    /// The kind of machine.
    pub fn kind(&self) -> Emulated {
        self.kind
    }

    /// Starts it with a disk; its console is logged to `name.log`.
    ///
    /// # Errors
    /// The emulator is not installed, or the log can't be written.
    pub fn power_up(&self, disk: &TestDisk, name: &str, how: PowerUp<'_>) -> Result<RunningMachine> {
        let log = self.logs.join(format!("{name}.log"));
        if let Some(path) = how.write_log {
            File::create(path).with_context(|| path.display().to_string())?;
        }
        let (process, console) = Process::heard(&mut self.command(disk, how), &log)?;
        Ok(RunningMachine { process, console, log, since: Instant::now() })
    }

    fn command(&self, disk: &TestDisk, how: PowerUp<'_>) -> Command {
        let mut command = Command::new(QEMU);
        command.args(["-display", "none", "-monitor", "none"]);
        if !how.restarts {
            command.arg("-no-reboot");
        }
        if how.alone {
            command.args(["-nic", "none"]);
        } else {
            let forward = format!("user,id=net,hostfwd=tcp:127.0.0.1:{}-:22", self.ssh_port);
            command.args(["-netdev", &forward]);
        }
        match self.kind {
            Emulated::Virt => self.virt(&mut command, disk, how),
            Emulated::Raspi3b => self.raspi3b(&mut command, disk),
        }
        command.stderr(Stdio::inherit());
        command
    }

    fn virt(&self, command: &mut Command, disk: &TestDisk, how: PowerUp<'_>) {
        command.args(["-M", "virt", "-cpu", "cortex-a72", "-smp", "2", "-m", "512", "-serial", "stdio"]);
        command.arg("-bios").arg(&self.u_boot);
        let file =
            |name: &str, path: &Path| format!("driver=file,node-name={name},filename={}", path.display());
        command.args(["-blockdev", &file("file", disk.path())]);
        if let Some(path) = how.write_log {
            command.args(["-blockdev", &file("log", path), "-blockdev", LOGGED_DISK]);
        } else {
            command.args(["-blockdev", "driver=raw,node-name=disk,file=file"]);
        }
        command.args(["-device", "virtio-blk-device,drive=disk", "-device", "virtio-rng-device"]);
        if how.alone {
            return;
        }
        command.args(["-device", "virtio-net-device,netdev=net"]);
        command.args(["-chardev", &format!("socket,id=sensor,path={}", self.sensor.display())]);
        command.args(["-device", "qemu-xhci", "-device", "usb-redir,chardev=sensor"]);
    }

    /// Arguments of the Raspberry Pi 3. The console is the second serial port.
    fn raspi3b(&self, command: &mut Command, disk: &TestDisk) {
        command.args(["-M", "raspi3b", "-serial", "null", "-serial", "stdio"]);
        command.arg("-kernel").arg(&self.u_boot);
        if let Some(tree) = &self.device_tree {
            command.arg("-dtb").arg(tree);
        }
        command.args(["-drive", &format!("if=sd,format=raw,file={}", disk.path().display())]);
        command.args(["-device", "usb-net,netdev=net"]);
    }
}

impl RunningMachine {
    /// Cuts the power; data that was not yet written to its disk is lost.
    pub fn cut(mut self) {
        self.process.kill();
    }

    /// The time since its start.
    pub fn up(&self) -> Duration {
        self.since.elapsed()
    }

    /// The lines of the console.
    pub fn console(&self) -> &Lines {
        &self.console
    }

    /// The path of the console's log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Repeats a check until it returns something, while the machine runs.
    ///
    /// # Errors
    /// It did not happen within `limit`, or the machine ended; the error names the console's log.
    pub fn until<T>(
        &mut self,
        stop: &Stop,
        what: &str,
        limit: Duration,
        mut look: impl FnMut(&Lines) -> Result<Option<T>>,
    ) -> Result<T> {
        let Self { process, console, log, .. } = self;
        let looked = stop.until(what, limit, || {
            if let Some(found) = look(console)? {
                return Ok(Some(found));
            }
            match process.ended()? {
                Some(status) => bail!("{what}: the machine ended with {status}"),
                None => Ok(None),
            }
        });
        looked.with_context(|| format!("console: {}", log.display()))
    }

    /// Waits for a line on the console.
    ///
    /// # Errors
    /// Those of [`Self::until`].
    pub fn line(&mut self, stop: &Stop, limit: Duration, parts: &[&str]) -> Result<String> {
        let what = format!("a line on the console with {parts:?}");
        self.until(stop, &what, limit, |console| {
            Ok(console.find(0, |line| parts.iter().all(|part| line.contains(part))))
        })
    }
}
