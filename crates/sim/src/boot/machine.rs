//! The emulated machine: QEMU with a disk, a network behind which the broker is, and the sensor on USB.
//!
//! QEMU does not run a Raspberry Pi's firmware: kernel, initial file system and arguments are taken out of the image's
//! FAT partition as the firmware would, and given to it.

use super::disk::Disk;
use super::lines::Lines;
use crate::process::Process;
use crate::wait::Stop;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The emulator.
const QEMU: &str = "qemu-system-aarch64";
/// Where this machine is seen from inside.
pub const HOST_INSIDE: &str = "10.0.2.2";

/// What every boot of the machine has in common.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Where logs go.
    pub logs: PathBuf,
    /// The sensor's socket.
    pub sensor: PathBuf,
    /// The port that leads to the ssh server inside.
    pub ssh_port: u16,
    kernel: PathBuf,
    initrd: PathBuf,
    arguments: String,
}

/// A machine that runs.
#[derive(Debug)]
pub struct Running {
    process: Process,
    console: Lines,
    log: PathBuf,
    since: Instant,
}

impl Machine {
    /// The machine that boots what is in `disk`; its parts are kept under `parts`.
    ///
    /// # Errors
    /// The image lacks them.
    pub fn new(disk: &Disk, parts: &Path, logs: &Path, sensor: &Path, ssh_port: u16) -> Result<Self> {
        let [kernel, initrd, arguments] =
            ["kernel", "initrd", "cmdline.txt"].map(|name| (format!("a/{name}"), parts.join(name)));
        for (name, to) in [&kernel, &initrd, &arguments] {
            disk.take(name, to).with_context(|| format!("{name} of the image"))?;
        }
        let text = fs::read_to_string(&arguments.1).context("cmdline.txt of the image")?;
        Ok(Self {
            logs: logs.into(),
            sensor: sensor.into(),
            ssh_port,
            kernel: kernel.1,
            initrd: initrd.1,
            arguments: text.trim().into(),
        })
    }

    /// Powers it up with a disk; its console goes to `name.log`.
    ///
    /// # Errors
    /// The emulator is not installed, or the log can't be written.
    pub fn power_up(&self, disk: &Disk, name: &str) -> Result<Running> {
        let log = self.logs.join(format!("{name}.log"));
        let (process, console) = Process::heard(&mut self.command(disk), &log)?;
        Ok(Running { process, console, log, since: Instant::now() })
    }

    fn command(&self, disk: &Disk) -> Command {
        let mut command = Command::new(QEMU);
        command.args(["-M", "virt", "-cpu", "cortex-a72", "-smp", "2", "-m", "512", "-no-reboot"]);
        command.args(["-display", "none", "-monitor", "none", "-serial", "stdio"]);
        command.arg("-kernel").arg(&self.kernel).arg("-initrd").arg(&self.initrd);
        command.args(["-append", &self.arguments]);
        command.args(["-drive", &format!("if=none,id=disk,format=raw,file={}", disk.path().display())]);
        command.args(["-device", "virtio-blk-device,drive=disk", "-device", "virtio-rng-device"]);
        let forward = format!("user,id=net,hostfwd=tcp:127.0.0.1:{}-:22", self.ssh_port);
        command.args(["-netdev", &forward, "-device", "virtio-net-device,netdev=net"]);
        command.args(["-chardev", &format!("socket,id=sensor,path={}", self.sensor.display())]);
        command.args(["-device", "qemu-xhci", "-device", "usb-redir,chardev=sensor"]);
        command.stderr(Stdio::inherit());
        command
    }
}

impl Running {
    /// Cuts the power: what the machine had not handed to its disk is lost.
    pub fn cut(mut self) {
        self.process.kill();
    }

    /// How long it has been running.
    pub fn up(&self) -> Duration {
        self.since.elapsed()
    }

    /// What the console shows.
    pub fn console(&self) -> &Lines {
        &self.console
    }

    /// Where the console's log is.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Waits for something while the machine runs.
    ///
    /// # Errors
    /// It did not come within `limit`, or the machine ended; the console's log is named.
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
    /// As [`Self::until`].
    pub fn line(&mut self, stop: &Stop, limit: Duration, parts: &[&str]) -> Result<String> {
        let what = format!("a line on the console with {parts:?}");
        self.until(stop, &what, limit, |console| {
            Ok(console.find(0, |line| parts.iter().all(|part| line.contains(part))))
        })
    }
}
