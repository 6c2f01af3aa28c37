//! A board's file, its tables, and the checks for contradictions.

use crate::modelled::Modelled;
use crate::power::PowerTable;
use crate::problem::{Problem, ensure};
use crate::read::read_checked;
use anyhow::Result;
use serde::Deserialize;
use std::path::Path;

/// The 64-bit Arm target, the only one that images are made for.
pub const TARGET_ARM64: &str = "aarch64-unknown-linux-gnu";
/// The targets that programs and packages are made for.
pub const TARGETS: [&str; 3] = [TARGET_ARM64, "armv7-unknown-linux-gnueabihf", "x86_64-unknown-linux-gnu"];
/// The shortest keep-alive time that the agent's MQTT library accepts, s.
pub const KEEP_ALIVE_SECONDS_MIN: u64 = 5;
/// The longest keep-alive time of MQTT, s.
pub const KEEP_ALIVE_SECONDS_MAX: u64 = u16::MAX as u64;
/// Memory of the agent beside its model's weights, MiB, with the demo's small vocabulary: the aim that it is tested against.
pub const AGENT_MIB: u64 = 24;
/// Bytes for each token of the vocabulary: 1536 of the tokenizer, as measured with 32 000 and 49 152 tokens, and a prompt's
/// 64 rows of logits in three copies.
const TOKEN_BYTES: u64 = 1536 + 64 * 4 * 3;
/// Share of the weights that loading them takes in addition, one in so many, as measured with 100 and 600 MiB.
const LOADING_SHARE: u64 = 8;
/// Threads of the drafter; no larger number has an effect.
const THREADS: usize = 1;

/// A board's file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Board {
    /// The board's name; the file has the same name.
    pub name: String,
    /// The target of its programs.
    #[serde(default)]
    pub build: BuildTable,
    /// Limits of its processor and memory for the drafter.
    #[serde(default)]
    pub drafter: DrafterTable,
    /// Settings of its network.
    #[serde(default)]
    pub link: LinkTable,
    /// Settings of its power measurement.
    #[serde(default)]
    pub power: PowerTable,
    /// Constants by which an evaluation models it.
    pub modelled: Option<Modelled>,
    /// The recipe of its image; without one, only packages are built.
    pub image: Option<ImageTable>,
}

/// `[build]`: the target of a board's programs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BuildTable {
    /// One of [`TARGETS`]; without one, the build machine.
    pub target: Option<String>,
    /// Features of the processor beyond the target's own.
    pub cpu_features: Vec<String>,
    /// The oldest glibc that the programs must run on.
    pub glibc: Option<String>,
    /// QEMU's name of the processor that stands in for the board's.
    pub emulated_cpu: Option<String>,
}

/// `[drafter]`: a board's limits for the drafter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DrafterTable {
    /// Maximum context in tokens, if below the model's.
    pub context_tokens_max: Option<usize>,
    /// Threads of one run of the model.
    pub threads: Option<usize>,
    /// Memory limit of the whole agent, MiB.
    pub memory_mib: Option<u64>,
}

/// `[link]`: a board's network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LinkTable {
    /// MQTT keep-alive time, s.
    pub keep_alive_seconds: Option<u64>,
    /// The kind of its link.
    pub radio: Option<Radio>,
}

/// The kind of a board's link: a channel of the evaluation, with its energy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Radio {
    /// A wireless network of its own.
    Wifi,
    /// A cable.
    Ethernet,
    /// A cellular network for machines.
    LteM,
    /// Long range at a few hundred bytes a second.
    Lora,
}

/// `[image]`: the recipe of a board's image.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageTable {
    /// The boot method.
    pub boot: Boot,
    /// Debian packages in addition to those of every image.
    #[serde(default)]
    pub packages: Vec<String>,
    /// Device trees of the kernel's package that go into the slots, and beside U-Boot.
    #[serde(default)]
    pub device_trees: Vec<String>,
    /// Lines of `config.txt` in addition to those of every image.
    #[serde(default)]
    pub config: Vec<String>,
    /// Kernel arguments in addition to those of every image.
    #[serde(default)]
    pub kernel_arguments: Vec<String>,
    /// The QEMU machine that boots the image in tests.
    pub emulated_machine: Option<Emulated>,
}

/// A boot method of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Boot {
    /// A Raspberry Pi's firmware, which starts U-Boot.
    RaspberryPi,
    /// QEMU, which receives U-Boot from outside.
    Virt,
}

/// A machine of QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Emulated {
    /// A generic board of QEMU, with any devices.
    Virt,
    /// A Raspberry Pi 3 Model B: SD card, USB and serial console, but no I2C, watchdog or wireless network.
    Raspi3b,
}

impl Radio {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Wifi, Self::Ethernet, Self::LteM, Self::Lora];

    /// The name of the kind and of its channel.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wifi => "wifi",
            Self::Ethernet => "ethernet",
            Self::LteM => "lte-m",
            Self::Lora => "lora",
        }
    }
}

impl Board {
    /// Reads a board's file.
    ///
    /// # Errors
    /// Names the file, line and key that is wrong.
    pub fn load(path: &Path) -> Result<Self> {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let board: Self = read_checked(path, |board: &Self| {
            board.check()?;
            ensure(board.name == stem, "name", || {
                format!("the file of a board called {:?} is called {0}.toml, not {stem}.toml", board.name)
            })
        })?;
        let dir = path.parent().unwrap_or(Path::new(""));
        Ok(Self { power: board.power.within(dir), ..board })
    }

    /// Checks values and contradictions.
    fn check(&self) -> Result<(), Problem> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        ensure(!self.name.is_empty() && self.name.chars().all(plain), "name", || {
            format!("invalid name {:?}: use a-z, 0-9 and '-'", self.name)
        })?;
        self.build.check()?;
        self.drafter.check()?;
        self.link.check()?;
        self.power.check()?;
        self.power.check_belongs()?;
        let Some(image) = &self.image else { return Ok(()) };
        ensure(self.build.target.as_deref() == Some(TARGET_ARM64), "image", || {
            format!("an image needs build.target = {TARGET_ARM64:?}")
        })?;
        image.check()
    }
}

impl BuildTable {
    fn check(&self) -> Result<(), Problem> {
        if let Some(target) = self.target.as_deref() {
            ensure(TARGETS.contains(&target), "build.target", || {
                format!("unknown target {target:?}; known are {}", TARGETS.join(", "))
            })?;
        }
        let word = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        let is_word = |text: &str| !text.is_empty() && text.chars().all(word);
        let wrong = self.cpu_features.iter().find(|feature| !is_word(feature));
        ensure(wrong.is_none(), "build.cpu_features", || {
            format!("invalid feature name {:?}", wrong.map_or("", |feature| feature))
        })?;
        let version = |text: &str| {
            text.split_once('.').is_some_and(|(major, minor)| is_number(major) && is_number(minor))
        };
        ensure(self.glibc.as_deref().is_none_or(version), "build.glibc", || {
            format!("invalid version {:?}; use a form like \"2.31\"", self.glibc.as_deref().unwrap_or(""))
        })?;
        ensure(self.emulated_cpu.as_deref().is_none_or(is_word), "build.emulated_cpu", || {
            "invalid processor name; `qemu-aarch64-static -cpu help` lists the known ones".into()
        })
    }
}

impl DrafterTable {
    /// Memory that an agent takes with weights of so many bytes and a vocabulary of so many tokens, before a text, MiB.
    pub fn needed_mib(weights_bytes: u64, vocabulary: u32) -> u64 {
        let loading = weights_bytes / LOADING_SHARE;
        let tokenizer = u64::from(vocabulary) * TOKEN_BYTES;
        weights_bytes.saturating_add(loading).saturating_add(tokenizer).div_ceil(1 << 20) + AGENT_MIB
    }

    /// Checks that such weights fit the agent's memory limit.
    ///
    /// # Errors
    /// They don't fit; the error is the memory they need, MiB.
    pub fn fits(&self, weights_bytes: u64, vocabulary: u32) -> Result<(), u64> {
        let needed = Self::needed_mib(weights_bytes, vocabulary);
        if self.memory_mib.is_none_or(|mib| needed <= mib) { Ok(()) } else { Err(needed) }
    }

    fn check(&self) -> Result<(), Problem> {
        ensure(self.context_tokens_max != Some(0), "drafter.context_tokens_max", || {
            "must be above 0".into()
        })?;
        ensure(self.threads.is_none_or(|threads| threads == THREADS), "drafter.threads", || {
            format!(
                "{} is invalid; use {THREADS}: a run of the drafter uses one thread",
                self.threads.unwrap_or(0)
            )
        })?;
        ensure(self.memory_mib.is_none_or(|mib| mib > AGENT_MIB), "drafter.memory_mib", || {
            format!(
                "{} leaves nothing for a model: the agent itself takes up to {AGENT_MIB}",
                self.memory_mib.unwrap_or(0)
            )
        })
    }
}

impl LinkTable {
    fn check(&self) -> Result<(), Problem> {
        let seconds = self.keep_alive_seconds.unwrap_or(KEEP_ALIVE_SECONDS_MIN);
        let bounds = KEEP_ALIVE_SECONDS_MIN..=KEEP_ALIVE_SECONDS_MAX;
        ensure(bounds.contains(&seconds), "link.keep_alive_seconds", || {
            format!("{seconds} is outside {KEEP_ALIVE_SECONDS_MIN} to {KEEP_ALIVE_SECONDS_MAX}")
        })
    }
}

impl ImageTable {
    fn check(&self) -> Result<(), Problem> {
        let none = |key: &str, good: fn(&str) -> bool, list: &[String], what: &str| {
            let wrong = list.iter().find(|entry| !good(entry));
            ensure(wrong.is_none(), key, || format!("{:?} is {what}", wrong.map_or("", |entry| entry)))
        };
        none("image.packages", is_package, &self.packages, "not a valid name of a Debian package")?;
        none(
            "image.device_trees",
            is_device_tree,
            &self.device_trees,
            "not a valid path; use a form like \"maker/board.dtb\"",
        )?;
        none("image.config", is_line, &self.config, "not one line")?;
        none("image.kernel_arguments", is_argument, &self.kernel_arguments, "not one argument")?;
        let sets = |key: &str| self.config.iter().find(|line| line.trim_start().starts_with(key));
        if let Some(line) = ["os_prefix=", "kernel="].iter().find_map(|key| sets(key)) {
            return Err(Problem::new(
                "image.config",
                format!("{line:?}: a board's file can't choose the system that starts"),
            ));
        }
        match self.boot {
            Boot::RaspberryPi => ensure(!self.device_trees.is_empty(), "image.device_trees", || {
                "a Raspberry Pi's kernel needs at least one device tree".into()
            }),
            Boot::Virt => {
                let nobody = || "has no effect with image.boot = \"virt\"; remove it".into();
                ensure(self.device_trees.is_empty(), "image.device_trees", nobody)?;
                ensure(self.config.is_empty(), "image.config", nobody)
            }
        }?;
        let is_virt = |machine| (machine == Emulated::Virt) == (self.boot == Boot::Virt);
        ensure(self.emulated_machine.is_none_or(is_virt), "image.emulated_machine", || {
            "the machine \"virt\" and boot = \"virt\" require each other".into()
        })
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_package(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() > 1
        && name.bytes().next().is_some_and(letter)
        && name.bytes().all(|byte| letter(byte) || b"+-.".contains(&byte))
}

fn is_device_tree(path: &str) -> bool {
    let parts = || path.split('/');
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
    path.ends_with(".dtb") && parts().all(|part| !part.is_empty() && part != ".." && part.chars().all(plain))
}

fn is_line(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(char::is_control)
}

fn is_argument(text: &str) -> bool {
    is_line(text) && !text.contains(char::is_whitespace)
}

#[cfg(test)]
mod tests;
