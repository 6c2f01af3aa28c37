//! The test stand: the machine, its environment, and the reference for its replies.

use super::choice::BootSlot;
use super::disk::TestDisk;
use super::guest::Guest;
use super::machine::{Machine, PowerUp, RunningMachine};
use super::outside::{SiteBroker, SiteVerifier, TopicMessage, reference};
use super::sensor::Sensor;
use crate::wait::Stop;
use anyhow::{Context, Result, ensure};
use dunlin_board::{Emulated, ImageTable};
use dunlin_mosquitto::free_port;
use dunlin_power::simulated::waveform::StepWaveform;
use dunlin_wire::{DevicePresence, Liveness};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The board's name.
pub const DEVICE: &str = "kestrel-1";
/// The set-up file of a board.
pub const SETUP: &str = "dunlin.txt";
/// The file written beside it with its mistakes.
pub const PROBLEMS: &str = "dunlin-problems.txt";
/// Bytes by which a disk is larger than its image, as cards are: 256 MiB.
const ROOM: u64 = 256 << 20;
/// Most tokens of a reply.
pub const TOKENS_MAX: usize = 48;
/// Longest duration of a boot: about twenty times that on two idle cores.
pub const BOOT_WITHIN: Duration = Duration::from_secs(600);
/// Longest wait for any event in a booted machine.
pub const SOON: Duration = Duration::from_secs(240);

/// A kernel argument for QEMU's Raspberry Pi, which treats the start of the watchdog as a restart.
const NO_WATCHDOG: &str = "systemd.watchdog_sec=0";

/// Paths of the test's files.
#[derive(Clone, Debug)]
pub struct StandPlaces {
    /// The image.
    pub image: PathBuf,
    /// The recipe it was built by.
    pub recipe: ImageTable,
    /// The verifier's program.
    pub verifier: PathBuf,
    /// The demo pair.
    pub models: PathBuf,
    /// The script that puts a card's file on an image, as `make image CARD=` does.
    pub card_script: PathBuf,
    /// Directory of logs and disks.
    pub out: PathBuf,
}

/// The test stand.
#[derive(Debug)]
pub struct Stand {
    /// Paths of the test's files.
    pub places: StandPlaces,
    /// The request to stop.
    pub stop: Stop,
    /// The sensor.
    pub sensor: Sensor,
    /// The broker.
    pub broker: SiteBroker,
    /// The verifier.
    pub verifier: Option<SiteVerifier>,
    /// The inside of the machine.
    pub guest: Guest,
    /// The source of randomness.
    pub dice: fastrand::Rng,
    /// The machine, which can boot any disk.
    pub machine: Machine,
    /// The disk that scenes pass on.
    pub disk: TestDisk,
    boots: usize,
    prompts: Vec<String>,
    /// Directory of sockets, which need short paths, and of secrets.
    dir: TempDir,
}

/// A machine whose board has announced its presence.
#[derive(Debug)]
pub struct Connected {
    /// The machine.
    pub running: RunningMachine,
    /// Time of the announcement.
    at: Instant,
}

impl StandPlaces {
    /// A new disk with a copy of the image; for a Raspberry Pi with one more kernel argument.
    ///
    /// # Errors
    /// The image can't be copied.
    pub fn new_disk(&self, name: &str) -> Result<TestDisk> {
        // QEMU accepts only cards whose size is a power of two, which the image's size is already.
        let is_virt = self.recipe.emulated_machine == Some(Emulated::Virt);
        let disk = TestDisk::from_image(&self.image, &self.out.join(name), if is_virt { ROOM } else { 0 })?;
        if !is_virt {
            disk.add_argument(BootSlot::A, NO_WATCHDOG)?;
        }
        Ok(disk)
    }
}

impl Stand {
    /// A stand on which neither broker, verifier nor machine runs yet.
    ///
    /// # Errors
    /// A program is not installed, or the image is incomplete.
    pub fn new(places: StandPlaces, seed: u64, stop: &Stop) -> Result<Self> {
        fs::create_dir_all(&places.out).with_context(|| places.out.display().to_string())?;
        let dir = tempfile::Builder::new().prefix("dunlin").tempdir().context("a folder for sockets")?;
        let (out, socket, port) = (&places.out, dir.path().join("usb"), free_port());
        let sensor = Sensor::start(&socket, StepWaveform::constant(4.0))?;
        let disk = places.new_disk("disk.img")?;
        let machine = Machine::new(&disk, &places.recipe, dir.path(), out, &socket, port)?;
        Ok(Self {
            stop: stop.clone(),
            sensor,
            broker: SiteBroker::new(out)?,
            verifier: None,
            guest: Guest::new(port, dir.path(), out, stop)?,
            dice: fastrand::Rng::with_seed(seed),
            machine,
            disk,
            boots: 0,
            prompts: prompts(&places.models)?,
            dir,
            places,
        })
    }

    /// Starts broker and verifier unless they run already.
    ///
    /// # Errors
    /// They don't become ready.
    pub fn surround(&mut self) -> Result<()> {
        self.broker.start(&self.stop)?;
        if self.verifier.is_none() {
            let StandPlaces { verifier, models, out, .. } = &self.places;
            let target = models.join("target");
            let started =
                SiteVerifier::start(verifier, &target, &self.broker, self.dir.path(), out, &self.stop)?;
            self.verifier = Some(started);
        }
        Ok(())
    }

    /// A valid set-up file for the board: its card, and a key for ssh.
    ///
    /// # Errors
    /// The card can't be made, or the key's public half was removed.
    pub fn setup_file(&mut self) -> Result<String> {
        let card = self.broker.card(&DEVICE.parse().expect("a device's name"))?;
        Ok(format!("# For the first boot.\n{card}ssh_key = {}\n", self.guest.public_key()?))
    }

    /// Replaces the stand's disk by the copy that `make image CARD=` makes of it with a valid set-up file.
    ///
    /// # Errors
    /// The script fails: its words.
    pub fn insert_card(&mut self) -> Result<()> {
        let (folder, copy) = (self.dir.path().join("card"), self.places.out.join("card.img"));
        fs::create_dir_all(&folder).context("a folder for the card")?;
        fs::write(folder.join(SETUP), self.setup_file()?).context("the card's file")?;
        let made =
            Command::new(&self.places.card_script).arg(self.disk.path()).args([&folder, &copy]).output();
        let made = made.with_context(|| self.places.card_script.display().to_string())?;
        ensure!(made.status.success(), "card.sh: {}", String::from_utf8_lossy(&made.stderr).escape_debug());
        fs::rename(&copy, self.disk.path()).context("the disk with its card")
    }

    /// Boots the stand's disk or another one; the console's log has the boot's number in its name.
    ///
    /// # Errors
    /// The emulator can't be started.
    pub fn boot(&mut self, name: &str, disk: Option<&TestDisk>) -> Result<RunningMachine> {
        self.boot_as(name, disk, PowerUp::default())
    }

    /// Boots the stand's disk or another one in another way than usual.
    ///
    /// # Errors
    /// The emulator can't be started.
    pub fn boot_as(
        &mut self,
        name: &str,
        disk: Option<&TestDisk>,
        how: PowerUp<'_>,
    ) -> Result<RunningMachine> {
        self.boots += 1;
        self.guest.forget();
        self.machine.power_up(disk.unwrap_or(&self.disk), &format!("boot-{:02}-{name}", self.boots), how)
    }

    /// Boots the disk and waits until the board announces its presence.
    ///
    /// # Errors
    /// The board does not connect in time.
    pub fn boot_connected(&mut self, name: &str, disk: Option<&TestDisk>) -> Result<Connected> {
        let from = self.broker.heard();
        let running = self.boot(name, disk)?;
        self.connected(running, from, BOOT_WITHIN)
    }

    /// Waits until the board announces its presence in a message from number `from` on.
    ///
    /// # Errors
    /// The board does not connect in time.
    pub fn connected(&self, mut running: RunningMachine, from: usize, limit: Duration) -> Result<Connected> {
        let what = format!("{DEVICE} says at the broker that it is there");
        running.until(&self.stop, &what, limit, |_| Ok(self.is_there(from).then_some(())))?;
        Ok(Connected { running, at: Instant::now() })
    }

    /// Waits until the machine accepts commands.
    ///
    /// # Errors
    /// It does not in time.
    pub fn reachable(&self, running: &mut RunningMachine) -> Result<()> {
        running.until(&self.stop, "ssh into the machine", BOOT_WITHIN, |_| {
            Ok(self.guest.attempt("true")?.0.then_some(()))
        })
    }

    /// Time from the kernel's start to the board's announcement at the broker, in the machine's own seconds.
    ///
    /// # Errors
    /// The machine can't be reached.
    pub fn boot_seconds(&self, connected: &mut Connected) -> Result<f64> {
        self.reachable(&mut connected.running)?;
        let up = self.guest.uptime()?;
        Ok(up - connected.at.elapsed().as_secs_f64())
    }

    /// A random held-out prompt.
    pub fn prompt(&mut self) -> String {
        self.prompts[self.dice.usize(..self.prompts.len())].clone()
    }

    /// Sends a prompt and compares the reply with the target-only one.
    ///
    /// # Errors
    /// There is no reply, or the texts differ.
    pub fn reply(&self, prompt: &str) -> Result<Value> {
        let reply = self.guest.reply(prompt, TOKENS_MAX, &self.places.out.join("reply.jsonl"))?;
        self.held_against(&reply)?;
        Ok(reply)
    }

    fn held_against(&self, reply: &Value) -> Result<()> {
        let StandPlaces { verifier, models, .. } = &self.places;
        let alone = reference(verifier, &models.join("target"), reply, TOKENS_MAX)?;
        let (got, expected) = (&reply["tokens"], &alone["tokens"]);
        ensure!(got == expected, "the text differs: {} for {}", reply["text"], alone["text"]);
        ensure!(reply["unverified_tokens"] == 0, "{} tokens unverified", reply["unverified_tokens"]);
        Ok(())
    }

    /// The board's messages on one of its topics, from number `from` on.
    pub fn said(&self, topic: &str, from: usize) -> Vec<TopicMessage> {
        let topic = format!("dl1/d/{DEVICE}/u/{topic}");
        self.broker.said(from).into_iter().filter(|said| said.topic == topic).collect()
    }

    /// True if the board's last message from number `from` on says that it is there.
    pub fn is_there(&self, from: usize) -> bool {
        let last = self.said("st", from).pop().and_then(|said| DevicePresence::decode(&said.payload).ok());
        last.is_some_and(|presence| presence.liveness == Liveness::Here)
    }
}

fn prompts(models: &Path) -> Result<Vec<String>> {
    let path = models.join("prompts.json");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let json: Value = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    let prompts: Vec<String> = serde_json::from_value(json["prompts"].clone())?;
    ensure!(!prompts.is_empty(), "{} has no prompts", path.display());
    Ok(prompts)
}
