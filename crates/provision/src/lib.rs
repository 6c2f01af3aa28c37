//! Sets a board up from a text file on the card's FAT partition.
//!
//! Invariants:
//! - A file with a mistake changes nothing and stays on the card.
//! - All values of a valid file are on the data partition, whole and synced, before the file is overwritten and
//!   removed: power may fail at any moment, and the next boot finishes the work.
//! - No password or key appears on standard error, in the file of problems or in a broker's report.

pub mod broker_report;
mod configured;
pub mod disk;
mod identity;
pub mod mistakes;
mod parse;
pub mod setup;
mod ssh_key;
pub mod standing;
mod text;
mod wifi;

#[cfg(test)]
mod tests;

use anyhow::{Context, Result};
pub use configured::Defaults;
use configured::configured;
use disk::{Change, DataDisk};
use mistakes::Mistakes;
use setup::BoardSetup;
use standing::{DataPlaces, Standing};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

/// The file of problems, next to the set-up file.
const PROBLEMS: &str = "dunlin-problems.txt";
/// Mode of a file that everybody may read and only root may write.
pub const PUBLIC: u32 = 0o644;
/// Mode of a file that only root may read.
const SECRET: u32 = 0o600;

/// A set-up file, as found.
pub enum SetupFile {
    /// It doesn't exist.
    Missing,
    /// It was left by an interrupted removal.
    Overwritten,
    /// It exists, but nothing is filled in.
    Blank,
    /// It has mistakes; the values that could be read are included.
    Invalid(BoardSetup, Mistakes),
    /// It is valid.
    Valid(BoardSetup),
}

/// A board's set-up file, and the places and defaults for applying it.
pub struct Card {
    /// The file.
    pub file: PathBuf,
    /// The board's data partition.
    pub places: DataPlaces,
    /// Values of a new configuration that the file doesn't provide.
    pub defaults: Defaults,
}

/// Result of applying a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProvisionOutcome {
    /// There is nothing left to do.
    Done,
    /// The file has mistakes.
    Invalid,
    /// Something could not be written or removed.
    Failed,
}

/// The outcome for a file.
pub struct Provisioned {
    /// Its result.
    pub outcome: ProvisionOutcome,
    /// Its mistakes.
    pub wrong: Option<Mistakes>,
}

const WELL: Provisioned = Provisioned { outcome: ProvisionOutcome::Done, wrong: None };

/// Reads the file and checks it against the present state.
///
/// # Errors
/// The file exists but can't be read.
pub fn look(file: &Path, standing: &Standing) -> Result<SetupFile> {
    let bytes = match read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(SetupFile::Missing),
        Err(error) => return Err(error).with_context(|| file.display().to_string()),
    };
    if text::is_overwritten(&bytes) {
        return Ok(SetupFile::Overwritten);
    }
    let text = match text::decode(&bytes) {
        Ok(text) => text,
        Err((line, what)) => {
            let mut mistakes = Mistakes::default();
            mistakes.push(line, what);
            return Ok(SetupFile::Invalid(BoardSetup::default(), mistakes));
        }
    };
    let parsed = parse::parse(&text);
    if parsed.is_blank() {
        return Ok(SetupFile::Blank);
    }
    let (setup, mistakes) = setup::checked(parsed, standing);
    Ok(if mistakes.is_empty() { SetupFile::Valid(setup) } else { SetupFile::Invalid(setup, mistakes) })
}

/// Reads the file, at most one byte more than allowed, which is enough to detect that it is too large.
fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(text::FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Applies and removes a valid file; reports the mistakes of an invalid one.
pub fn take(card: &Card, standing: &Standing, found: &SetupFile, disk: &mut DataDisk<'_>) -> Provisioned {
    let name = card.file.display();
    match found {
        SetupFile::Missing | SetupFile::Blank => {
            if standing.is_set_up() {
                say(&format!("{name} sets nothing; the board keeps its settings"));
            } else {
                say(&format!(
                    "this board is not set up yet: fill in {name}, which is dunlin.txt on the card's first \
                     partition on any computer, and start the board again"
                ));
            }
            forget_problems(&card.file, disk);
            WELL
        }
        SetupFile::Overwritten => gone(card, disk),
        SetupFile::Invalid(_, mistakes) => {
            refuse(&card.file, &Refusal::wrong(&card.file, mistakes), disk);
            Provisioned { outcome: ProvisionOutcome::Invalid, wrong: Some(mistakes.clone()) }
        }
        SetupFile::Valid(setup) => match apply(card, standing, setup, disk) {
            Ok(()) => {
                say(&taken(setup));
                if let Some(broker) = setup.plain_broker() {
                    say(&format!(
                        "{broker} has no TLS: everybody on the way can read and change the text; docs/access.md says how a \
                         broker gets it"
                    ));
                }
                gone(card, disk)
            }
            Err(error) => {
                let mistakes = Mistakes::of(format!("it is valid, but could not be applied: {error:#}"));
                refuse(&card.file, &Refusal::untaken(&card.file, &mistakes), disk);
                Provisioned { outcome: ProvisionOutcome::Failed, wrong: Some(mistakes) }
            }
        },
    }
}

/// The outcome for the second half of the work, if the first half left an invalid file.
pub fn untaken(file: &Path, found: &SetupFile) -> Provisioned {
    match found {
        SetupFile::Missing | SetupFile::Blank | SetupFile::Overwritten => WELL,
        SetupFile::Invalid(_, mistakes) => {
            Provisioned { outcome: ProvisionOutcome::Done, wrong: Some(mistakes.clone()) }
        }
        SetupFile::Valid(_) => {
            let why = format!("it is valid, but was not applied: see {}", problems(file).display());
            Provisioned { outcome: ProvisionOutcome::Done, wrong: Some(Mistakes::of(why)) }
        }
    }
}

/// Writes all values that `setup` provides.
fn apply(card: &Card, standing: &Standing, setup: &BoardSetup, disk: &mut DataDisk<'_>) -> Result<()> {
    let Card { places, defaults, .. } = card;
    let mut changes = Vec::new();
    let mut put = |place, text: &str, mode| {
        changes.push(Change { place, bytes: text.as_bytes().to_vec(), mode: Some(mode) });
    };
    if let Some((text, why)) = &standing.unreadable {
        say(&format!("{why}: it is kept as {}", places.unreadable().display()));
        put(places.unreadable(), text, PUBLIC);
    }
    put(places.agent_toml(), &configured(standing, setup, defaults)?, PUBLIC);
    if let Some(login) = &setup.login {
        put(places.password(), &login.password, SECRET);
    }
    if let Some(wifi) = &setup.wifi {
        put(places.wifi(), &wifi.file(), SECRET);
    }
    if let Some(name) = &setup.name {
        put(places.hostname(), &format!("{name}\n"), PUBLIC);
    }
    if let Some(key) = &setup.ssh_key {
        put(places.authorized_keys(), &standing.with_key(key), SECRET);
    }
    if let Some(tls) = &setup.tls {
        put(places.tls().join("ca.pem"), &tls.authority, PUBLIC);
        put(places.tls().join("cert.pem"), &tls.certificate, PUBLIC);
        put(places.tls_key(), &tls.key, SECRET);
    }
    if let Some(seal) = &setup.seal {
        put(places.seal().join("site.pub"), &seal.site, PUBLIC);
        put(places.seal().join("seal.cert"), &seal.certificate, PUBLIC);
        put(places.seal().join("collector.pub"), &seal.collector, PUBLIC);
        put(places.seal_key(), &seal.key, SECRET);
    }
    disk.put(&changes)
}

/// Overwrites and removes an applied file and the problems reported for an earlier one.
fn gone(card: &Card, disk: &mut DataDisk<'_>) -> Provisioned {
    forget_problems(&card.file, disk);
    match disk.erase(&card.file) {
        Ok(()) => WELL,
        Err(error) => {
            let advice = "remove it yourself, for its passwords can be read there";
            say(&format!("the set-up is done, but its file could not be removed: {error:#}; {advice}"));
            Provisioned { outcome: ProvisionOutcome::Failed, ..WELL }
        }
    }
}

/// The message about a file that was not applied.
struct Refusal {
    head: String,
    lines: String,
    foot: String,
}

impl Refusal {
    /// The message for a file with mistakes.
    fn wrong(file: &Path, mistakes: &Mistakes) -> Self {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        Self {
            head: format!("{name}: {}, and nothing was changed:", mistakes.counted()),
            lines: mistakes.lines().join("\n"),
            foot: format!("Correct {name} on the card's first partition and start the board again."),
        }
    }

    /// The message for a valid file that could not be applied.
    fn untaken(file: &Path, mistakes: &Mistakes) -> Self {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        Self {
            head: format!("{name}: this board is not set up:"),
            lines: mistakes.lines().join("\n"),
            foot: format!("{name} stays where it is, and the next start tries again."),
        }
    }
}

/// Reports the mistakes on standard error and in a file next to the set-up file, for whoever opens the card next.
fn refuse(file: &Path, refusal: &Refusal, disk: &mut DataDisk<'_>) {
    let Refusal { head, lines, foot } = refusal;
    say(&format!("{head}\n{lines}\n{foot}"));
    let bytes = format!("{head}\n\n{lines}\n\n{foot}\n").into_bytes();
    let place = problems(file);
    // Don't write the same text again: writing wears the card, and the board may boot many times.
    if fs::read(&place).is_ok_and(|there| there == bytes) {
        return;
    }
    if let Err(error) = disk.put(&[Change { place, bytes, mode: None }]) {
        say(&format!("{error:#}"));
    }
}

fn forget_problems(file: &Path, disk: &mut DataDisk<'_>) {
    let place = problems(file);
    if let Err(error) = disk.remove(&place)
        && error.kind() != ErrorKind::NotFound
    {
        say(&format!("{}: {error}", place.display()));
    }
}

fn problems(file: &Path) -> PathBuf {
    file.with_file_name(PROBLEMS)
}

/// The name in a board's file, if there is one.
pub fn board_of(file: &Path) -> Option<String> {
    let name = fs::read_to_string(file).ok()?.trim().to_owned();
    (!name.is_empty()).then_some(name)
}

/// A summary of what was set up, without secrets.
fn taken(setup: &BoardSetup) -> String {
    let parts = [
        setup.name.as_ref().map(|name| format!("name {name}")),
        setup.broker.as_ref().map(|broker| format!("broker {broker}")),
        setup.login.as_ref().map(|login| format!("user {:?} at the broker", login.user)),
        setup.wifi.as_ref().map(|wifi| format!("wireless network {:?}", wifi.ssid())),
        setup.ssh_key.is_some().then(|| "a key for ssh".into()),
        setup.tls.is_some().then(|| "a certificate for the broker".into()),
    ];
    format!("this board is set up: {}", parts.into_iter().flatten().collect::<Vec<String>>().join(", "))
}

/// Writes a line to standard error.
pub fn say(text: &str) {
    // Ignore the error: standard error may be closed.
    let _ = writeln!(io::stderr(), "{text}");
}
