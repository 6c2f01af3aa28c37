//! Everything that a scene needs: the machine, what is around it, and what it is held against.

use super::disk::TestDisk;
use super::guest::Guest;
use super::machine::{HOST_INSIDE, Machine, RunningMachine};
use super::outside::{BOARD, SiteBroker, SiteVerifier, TopicMessage, reference};
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
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The board's name.
pub const DEVICE: &str = "kestrel-1";
/// The file that a board is set up from.
pub const SETUP: &str = "dunlin.txt";
/// What is written beside it where it has mistakes.
pub const PROBLEMS: &str = "dunlin-problems.txt";
/// What a disk is larger than its image, as a card is: 256 MiB.
const ROOM: u64 = 256 << 20;
/// Tokens of a reply at most.
pub const TOKENS_MAX: usize = 48;
/// How long a boot may take: some twenty times what it takes on two idle cores.
pub const BOOT_WITHIN: Duration = Duration::from_secs(600);
/// How long anything that is to happen in a booted machine may take.
pub const SOON: Duration = Duration::from_secs(240);

/// Where things are.
#[derive(Clone, Debug)]
pub struct StandPlaces {
    /// The image.
    pub image: PathBuf,
    /// What it was made by.
    pub recipe: ImageTable,
    /// The verifier's program.
    pub verifier: PathBuf,
    /// The demo pair.
    pub models: PathBuf,
    /// Where logs and disks go.
    pub out: PathBuf,
}

/// The stand.
#[derive(Debug)]
pub struct Stand {
    /// Where things are.
    pub places: StandPlaces,
    /// Whether the end is wanted.
    pub stop: Stop,
    /// The sensor.
    pub sensor: Sensor,
    /// The broker.
    pub broker: SiteBroker,
    /// The verifier.
    pub verifier: Option<SiteVerifier>,
    /// The inside of the machine.
    pub guest: Guest,
    /// What is random.
    pub dice: fastrand::Rng,
    /// The machine, which boots whatever disk.
    pub machine: Machine,
    /// The disk that is kept from scene to scene.
    pub disk: TestDisk,
    boots: usize,
    prompts: Vec<String>,
    /// Sockets and secrets. Sockets need short paths.
    dir: TempDir,
}

/// A boot up to where the board said that it is there.
#[derive(Debug)]
pub struct Connected {
    /// The machine.
    pub running: RunningMachine,
    /// When the broker told of it.
    at: Instant,
}

impl StandPlaces {
    /// A new disk with what the image has.
    ///
    /// # Errors
    /// The image can't be copied.
    pub fn new_disk(&self, name: &str) -> Result<TestDisk> {
        // QEMU takes only cards whose size is a power of two, as the image's own is.
        let room = if self.recipe.emulated_machine == Some(Emulated::Virt) { ROOM } else { 0 };
        TestDisk::from_image(&self.image, &self.out.join(name), room)
    }
}

impl Stand {
    /// A stand with everything but broker, verifier and machine running.
    ///
    /// # Errors
    /// Something is not installed, or the image lacks something.
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

    /// Starts broker and verifier, where they don't run yet.
    ///
    /// # Errors
    /// They don't come up.
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

    /// The file that sets the board up as it should be.
    ///
    /// # Errors
    /// The key's public half was removed.
    pub fn setup_file(&self) -> Result<String> {
        Ok(format!(
            "# For the first boot.\nname = {DEVICE}\nbroker = mqtt://{HOST_INSIDE}:{}\nbroker_user = {}\n\
             broker_password = {}\nssh_key = {}\n",
            self.broker.port(),
            BOARD.user,
            BOARD.password,
            self.guest.public_key()?
        ))
    }

    /// Boots the disk, or another one; the console's log has the boot's number in its name.
    ///
    /// # Errors
    /// The emulator can't be started.
    pub fn boot(&mut self, name: &str, disk: Option<&TestDisk>) -> Result<RunningMachine> {
        self.boots += 1;
        self.guest.forget();
        self.machine.power_up(disk.unwrap_or(&self.disk), &format!("boot-{:02}-{name}", self.boots))
    }

    /// Boots the disk up to where the board says that it is there.
    ///
    /// # Errors
    /// It does not come.
    pub fn boot_connected(&mut self, name: &str, disk: Option<&TestDisk>) -> Result<Connected> {
        let from = self.broker.heard();
        let running = self.boot(name, disk)?;
        self.connected(running, from, BOOT_WITHIN)
    }

    /// Waits for the board to say that it is there, in a message from number `from` on.
    ///
    /// # Errors
    /// It does not come.
    pub fn connected(&self, mut running: RunningMachine, from: usize, limit: Duration) -> Result<Connected> {
        let what = format!("{DEVICE} says at the broker that it is there");
        running.until(&self.stop, &what, limit, |_| Ok(self.is_there(from).then_some(())))?;
        Ok(Connected { running, at: Instant::now() })
    }

    /// Waits until the machine takes commands.
    ///
    /// # Errors
    /// It does not.
    pub fn reachable(&self, running: &mut RunningMachine) -> Result<()> {
        running.until(&self.stop, "ssh into the machine", BOOT_WITHIN, |_| {
            Ok(self.guest.attempt("true")?.0.then_some(()))
        })
    }

    /// From the kernel's start to where the broker told of the board, in the machine's own seconds.
    ///
    /// # Errors
    /// The machine can't be asked.
    pub fn boot_seconds(&self, connected: &mut Connected) -> Result<f64> {
        self.reachable(&mut connected.running)?;
        let up = self.guest.uptime()?;
        Ok(up - connected.at.elapsed().as_secs_f64())
    }

    /// A prompt of the held-out ones.
    pub fn prompt(&mut self) -> String {
        self.prompts[self.dice.usize(..self.prompts.len())].clone()
    }

    /// Asks a prompt and holds the reply against the target alone.
    ///
    /// # Errors
    /// There is no reply, or it is another text.
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

    /// Messages of the board on one of its topics, from number `from` on.
    pub fn said(&self, topic: &str, from: usize) -> Vec<TopicMessage> {
        let topic = format!("dl1/d/{DEVICE}/u/{topic}");
        self.broker.said(from).into_iter().filter(|said| said.topic == topic).collect()
    }

    fn is_there(&self, from: usize) -> bool {
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
