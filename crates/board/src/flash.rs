//! Writes an image to a card or a file: first shows what would be lost, finally compares what was written.
//!
//! Invariant: nothing is written before the whole image has been read and matches its checksum, and the device is
//! known to be a whole, unused one.

mod device;
mod image;
mod tell;
mod write;

use anyhow::{Context, Result, bail, ensure};
use device::{Device, Target};
use image::Image;
use std::fs::{self, File};
use std::io::BufRead;
use std::path::{Path, PathBuf};
pub use tell::Tell;
use write::{read_back, write_image};

/// The folders in which the system describes its devices.
#[derive(Clone, Debug)]
pub struct Places {
    /// The kernel's tree of devices.
    pub sysfs: PathBuf,
    /// The kernel's tables of mounts and swap.
    pub proc: PathBuf,
    /// udev's database of devices.
    pub udev: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self { sysfs: "/sys".into(), proc: "/proc".into(), udev: "/run/udev/data".into() }
    }
}

/// Writes `image` to `device`, a block device or a regular file. `answer` provides the user's confirmation; with
/// `None`, no confirmation is requested.
///
/// # Errors
/// Names the problem of the image or the device, and how far writing got.
pub fn flash(
    image: &Path,
    device: &Path,
    places: &Places,
    answer: Option<&mut dyn BufRead>,
    tell: &Tell,
) -> Result<()> {
    let target = Device::examine(device, places)?;
    target.check()?;
    let image = Image::checked(image, tell)?;
    if let Some(size) = target.capacity() {
        ensure!(
            image.bytes <= size,
            "{} is too small: it holds {size} bytes, the image has {}; nothing was written",
            device.display(),
            image.bytes
        );
    }
    if !target.is_new() {
        tell.say(&target.to_string());
        confirm(target.name(), answer, tell)?;
    }
    match target.target {
        Target::Block(_) => write_device(&image, device, tell),
        Target::File(_) => write_file(&image, device, tell),
    }?;
    tell.say(&format!("{} holds the image: read back and compared, {} bytes", device.display(), image.bytes));
    Ok(())
}

fn confirm(name: &str, answer: Option<&mut dyn BufRead>, tell: &Tell) -> Result<()> {
    let Some(answer) = answer else { return Ok(()) };
    tell.say(&format!("All of it will be lost. Type {name} to go on:"));
    let mut typed = String::new();
    answer.read_line(&mut typed).context("standard input")?;
    if typed.trim() != name {
        bail!("that is not {name}: nothing was written");
    }
    Ok(())
}

fn write_device(image: &Image, device: &Path, tell: &Tell) -> Result<()> {
    let file = write::open_exclusive(device)?;
    write_image(image, &file, false, tell).with_context(|| damaged(device))?;
    read_back(image, &file, tell).with_context(|| damaged(device))
}

fn damaged(device: &Path) -> String {
    format!("{} is incomplete and can't be used: write it again", device.display())
}

/// Writes to a temporary file, then renames it into place once it is complete.
fn write_file(image: &Image, path: &Path, tell: &Tell) -> Result<()> {
    let mut name = path.file_name().context("the file has no name")?.to_owned();
    name.push(".part");
    let part = path.with_file_name(name);
    let written = write_part(image, &part, tell).and_then(|()| {
        fs::rename(&part, path).with_context(|| format!("{} as {}", part.display(), path.display()))
    });
    if written.is_err() {
        // An incomplete file is useless. Ignore the error: nothing can be done if it can't be removed.
        let _ = fs::remove_file(&part);
    }
    written
}

fn write_part(image: &Image, part: &Path, tell: &Tell) -> Result<()> {
    let mut options = File::options();
    let file = options.read(true).write(true).create(true).truncate(true).open(part);
    let file = file.with_context(|| part.display().to_string())?;
    write_image(image, &file, true, tell).with_context(|| part.display().to_string())?;
    read_back(image, &file, tell).with_context(|| part.display().to_string())
}

#[cfg(test)]
mod tests;
