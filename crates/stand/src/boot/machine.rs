//! The emulated machine: QEMU with a disk, a network to the broker and, on `virt`, the sensor on USB.
//!
//! QEMU does not run a Raspberry Pi's firmware. So kernel, initial file system and arguments are read from the image's
//! FAT partition, as the firmware would do, and passed to QEMU.

use super::disk::TestDisk;
use super::lines::Lines;
use crate::process::Process;
use crate::wait::Stop;
use anyhow::{Context, Result, bail};
use dunlin_board::{Emulated, ImageTable};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The emulator.
const QEMU: &str = "qemu-system-aarch64";
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
    kernel: PathBuf,
    initrd: PathBuf,
    device_tree: Option<PathBuf>,
    arguments: String,
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
    /// The machine that boots the image on `disk` by the board's recipe; kernel and initial file system are kept under
    /// `parts`.
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
            disk.take(&format!("a/{name}"), &to).with_context(|| format!("{name} of the image"))?;
            Ok::<_, anyhow::Error>(to)
        };
        let file = recipe.device_trees.first().and_then(|path| path.rsplit('/').next());
        let text = fs::read_to_string(take("cmdline.txt")?).context("cmdline.txt of the image")?;
        Ok(Self {
            logs: logs.into(),
            sensor: sensor.into(),
            ssh_port,
            kind,
            kernel: take("kernel")?,
            initrd: take("initrd")?,
            device_tree: file.map(take).transpose()?,
            arguments: text.trim().into(),
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
    pub fn power_up(&self, disk: &TestDisk, name: &str) -> Result<RunningMachine> {
        let log = self.logs.join(format!("{name}.log"));
        let (process, console) = Process::heard(&mut self.command(disk), &log)?;
        Ok(RunningMachine { process, console, log, since: Instant::now() })
    }

    fn command(&self, disk: &TestDisk) -> Command {
        let mut command = Command::new(QEMU);
        command.args(["-no-reboot", "-display", "none", "-monitor", "none"]);
        command.arg("-kernel").arg(&self.kernel).arg("-initrd").arg(&self.initrd);
        let forward = format!("user,id=net,hostfwd=tcp:127.0.0.1:{}-:22", self.ssh_port);
        command.args(["-netdev", &forward]);
        if let Some(tree) = &self.device_tree {
            command.arg("-dtb").arg(tree);
        }
        match self.kind {
            Emulated::Virt => self.virt(&mut command, disk),
            Emulated::Raspi3b => self.raspi3b(&mut command, disk),
        }
        command.stderr(Stdio::inherit());
        command
    }

    fn virt(&self, command: &mut Command, disk: &TestDisk) {
        command.args(["-M", "virt", "-cpu", "cortex-a72", "-smp", "2", "-m", "512", "-serial", "stdio"]);
        command.args(["-append", &self.arguments]);
        command.args(["-drive", &format!("if=none,id=disk,format=raw,file={}", disk.path().display())]);
        command.args(["-device", "virtio-blk-device,drive=disk", "-device", "virtio-rng-device"]);
        command.args(["-device", "virtio-net-device,netdev=net"]);
        command.args(["-chardev", &format!("socket,id=sensor,path={}", self.sensor.display())]);
        command.args(["-device", "qemu-xhci", "-device", "usb-redir,chardev=sensor"]);
    }

    /// Arguments of the Raspberry Pi 3. The console is the second serial port. QEMU treats the start of the watchdog as
    /// a restart, so the watchdog must not be started.
    fn raspi3b(&self, command: &mut Command, disk: &TestDisk) {
        command.args(["-M", "raspi3b", "-serial", "null", "-serial", "stdio"]);
        command.args(["-append", &format!("{} systemd.watchdog_sec=0", self.arguments)]);
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
