//! Programs that do not outlive this one.

use crate::boot::lines::Lines;
use anyhow::{Context, Result};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

/// A child process that is ended when this is dropped.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Starts a program without standard input.
    ///
    /// # Errors
    /// There is no such program.
    pub fn start(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::null()).spawn();
        child.map(Self).with_context(|| format!("{name} can't be run: is it installed?"))
    }

    /// Starts a program and reads its standard output, which is also copied to `log`.
    ///
    /// # Errors
    /// There is no such program, or the log can't be written.
    pub fn heard(command: &mut Command, log: &Path) -> Result<(Self, Lines)> {
        let mut process = Self::start(command.stdout(Stdio::piped()))?;
        let out = process.0.stdout.take().expect("standard output is a pipe");
        Ok((process, Lines::read(out, log)?))
    }

    /// Its exit status; `None` while it runs.
    ///
    /// # Errors
    /// The system reports an error.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.0.try_wait().context("a child's end")
    }

    /// Sends it SIGTERM.
    ///
    /// # Errors
    /// The signal can't be sent.
    pub fn terminate(&self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).context("a child can't be stopped")
    }

    /// Stops it until [`Self::resume`]; its connections stay open.
    ///
    /// # Errors
    /// The signal can't be sent.
    pub fn pause(&self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).context("a child can't be paused")
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// The signal can't be sent.
    pub fn resume(&self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::CONT).context("a child can't go on")
    }

    /// Kills it.
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl From<Child> for Process {
    fn from(child: Child) -> Self {
        Self(child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
