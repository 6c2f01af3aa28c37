//! Facts about a device: its kind, its users and its contents.

use super::Places;
use anyhow::{Context, Result, anyhow, ensure};
use std::fmt;
use std::fs::{self, FileType, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The kernel's unit of a device's size, bytes.
const SECTOR: u64 = 512;

/// A place to write to.
#[derive(Debug)]
pub(super) struct Device {
    path: PathBuf,
    name: String,
    pub(super) target: Target,
}

/// The kind of a place to write to.
#[derive(Debug)]
pub(super) enum Target {
    /// A whole device.
    Block(Facts),
    /// A regular file; its size in bytes if it exists.
    File(Option<u64>),
}

/// The system's facts about a block device.
#[derive(Debug)]
pub(super) struct Facts {
    bytes: u64,
    model: String,
    read_only: bool,
    removable: bool,
    /// The device of which this is a partition.
    part_of: Option<String>,
    users: Vec<String>,
    partitions: Vec<Partition>,
}

#[derive(Debug)]
struct Partition {
    name: String,
    bytes: u64,
    /// udev's description of its contents.
    content: String,
}

impl Device {
    /// Collects the facts about a path.
    pub(super) fn examine(path: &Path, places: &Places) -> Result<Self> {
        let named = |target, name: String| Self { path: path.into(), name, target };
        let file_name =
            || path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let metadata = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let parent =
                    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
                ensure!(
                    parent.is_dir(),
                    "{}: no such device, and no folder for a file of that name",
                    path.display()
                );
                ensure!(
                    fs::canonicalize(parent).is_ok_and(|dir| !dir.starts_with("/dev")),
                    "{}: no such device; `lsblk` lists all devices",
                    path.display()
                );
                return Ok(named(Target::File(None), file_name()));
            }
            other => other.with_context(|| path.display().to_string())?,
        };
        if metadata.is_file() {
            return Ok(named(Target::File(Some(metadata.len())), file_name()));
        }
        ensure!(
            metadata.file_type().is_block_device(),
            "{} is {}: expected a card's device, for example /dev/sdX, or a file",
            path.display(),
            kind(metadata.file_type())
        );
        let (name, facts) =
            Facts::of(&numbers(&metadata), places).with_context(|| path.display().to_string())?;
        Ok(named(Target::Block(facts), name))
    }

    /// The name that the user types to confirm.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// True if nothing would be lost.
    pub(super) fn is_new(&self) -> bool {
        matches!(self.target, Target::File(None))
    }

    /// The size in bytes, if known before writing.
    pub(super) fn capacity(&self) -> Option<u64> {
        match &self.target {
            Target::Block(facts) => Some(facts.bytes),
            Target::File(_) => None,
        }
    }

    /// Checks that the device may be overwritten.
    ///
    /// # Errors
    /// Names the reason and the remedy.
    pub(super) fn check(&self) -> Result<()> {
        match &self.target {
            Target::Block(facts) => facts.check().map_err(|why| anyhow!("{}: {why}", self.path.display())),
            Target::File(_) => Ok(()),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Target::Block(facts) = &self.target else {
            let size = if let Target::File(Some(bytes)) = self.target { bytes } else { 0 };
            return write!(f, "{} is a file of {}", self.path.display(), human(size));
        };
        write!(f, "{} is {}, {}", self.path.display(), facts.model, human(facts.bytes))?;
        if facts.partitions.is_empty() {
            return write!(f, ", without partitions");
        }
        for Partition { name, bytes, content } in &facts.partitions {
            write!(f, "\n  {name}: {}{content}", human(*bytes))?;
        }
        Ok(())
    }
}

impl Facts {
    /// The name and the facts of the device with the numbers `major:minor`.
    fn of(numbers: &str, places: &Places) -> Result<(String, Self)> {
        let dir = places.sysfs.join("dev/block").join(numbers);
        let dir = fs::canonicalize(&dir)
            .with_context(|| format!("the kernel shows nothing at {}", dir.display()))?;
        let name = last(&dir);
        let part_of = dir.join("partition").exists().then(|| dir.parent().map(last).unwrap_or_default());
        let bytes = sectors(&dir)?;
        let mut partitions = Vec::new();
        let mut users = users(&name, numbers, &dir, places)?;
        for part in children(&dir, |path| path.join("partition").exists()) {
            let numbers = text(&part.join("dev")).unwrap_or_default();
            users.extend(self::users(&last(&part), &numbers, &part, places)?);
            let content = content(&numbers, places);
            partitions.push(Partition { name: last(&part), bytes: sectors(&part)?, content });
        }
        let flag = |file: &str| text(&dir.join(file)).is_some_and(|text| text != "0");
        let plugged = dir.components().any(|part| {
            let part = part.as_os_str().to_string_lossy();
            part.starts_with("usb") || part == "mmc_host"
        });
        let facts = Self {
            bytes,
            model: model(&dir),
            read_only: flag("ro"),
            removable: flag("removable") || plugged,
            part_of,
            users,
            partitions,
        };
        Ok((name, facts))
    }

    fn check(&self) -> Result<(), String> {
        if let Some(whole) = &self.part_of {
            return Err(format!("this is only a partition: name the whole device, /dev/{whole}"));
        }
        if let [first, ..] = &self.users[..] {
            let all = self.users.join(", ");
            let advice = if first.contains("mounted") { "unmount it" } else { "take it out of use" };
            return Err(format!("it is in use: {all}; {advice} first"));
        }
        if !self.removable {
            return Err(format!("{} is built in, not a card or a stick", self.model));
        }
        if self.read_only {
            return Err("it is write-protected: look for a switch on the card or its adapter".into());
        }
        if self.bytes == 0 {
            return Err("there is no card in it".into());
        }
        Ok(())
    }
}

/// The users of a device or a partition: a file system, swap, or a device made from it.
fn users(name: &str, numbers: &str, dir: &Path, places: &Places) -> Result<Vec<String>> {
    let node = format!("/dev/{name}");
    let table = |file: &str| {
        let path = places.proc.join(file);
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    };
    let mut users = Vec::new();
    for line in table("self/mountinfo")?.lines() {
        let mut words = line.split(' ');
        let (device, place) = (words.nth(2), words.nth(1));
        let source = line.split_once(" - ").and_then(|(_, rest)| rest.split(' ').nth(1));
        if device == Some(numbers) || source == Some(node.as_str()) {
            users.push(format!("{name} is mounted at {}", place.unwrap_or("?")));
        }
    }
    if table("swaps")?.lines().any(|line| line.split_whitespace().next() == Some(&node)) {
        users.push(format!("{name} is swap"));
    }
    for holder in children(&dir.join("holders"), |_| true) {
        users.push(format!("{name} belongs to {}", last(&holder)));
    }
    Ok(users)
}

/// udev's description of a partition's file system: `, ext4 "data"`.
fn content(numbers: &str, places: &Places) -> String {
    let found = fs::read_to_string(places.udev.join(format!("b{numbers}"))).unwrap_or_default();
    let value = |key: &str| {
        found.lines().find_map(|line| line.strip_prefix("E:")?.strip_prefix(key)?.strip_prefix('='))
    };
    let label = value("ID_FS_LABEL").map(|label| format!(" {label:?}")).unwrap_or_default();
    value("ID_FS_TYPE").map(|kind| format!(", {kind}{label}")).unwrap_or_default()
}

fn model(dir: &Path) -> String {
    let of = |file: &str| text(&dir.join("device").join(file)).filter(|text| !text.is_empty());
    let words: Vec<String> = ["vendor", "model", "name"].into_iter().filter_map(of).collect();
    if words.is_empty() { "a device without a name".into() } else { words.join(" ") }
}

fn sectors(dir: &Path) -> Result<u64> {
    let path = dir.join("size");
    let size = text(&path).and_then(|text| text.parse::<u64>().ok());
    size.and_then(|size| size.checked_mul(SECTOR))
        .with_context(|| format!("{} contains no valid size", path.display()))
}

/// A file's text without surrounding blanks; `None` if it can't be read.
fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// The entries of a folder, by name; none if the folder doesn't exist.
fn children(dir: &Path, wanted: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| wanted(path)).collect();
    paths.sort();
    paths
}

fn last(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn numbers(metadata: &Metadata) -> String {
    let device = metadata.rdev();
    format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device))
}

fn kind(file_type: FileType) -> &'static str {
    if file_type.is_dir() {
        "a folder"
    } else if file_type.is_char_device() {
        "a character device"
    } else {
        "no place for an image"
    }
}

/// A size as printed on cards, in powers of ten.
fn human(bytes: u64) -> String {
    match bytes {
        0..10_000_000 => format!("{bytes} bytes"),
        10_000_000..10_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{} GB", bytes / 1_000_000_000),
    }
}

#[cfg(test)]
mod tests;
