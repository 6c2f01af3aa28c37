//! Releases: what belongs together, for which boards, and what it must show before it stays.

use crate::block_table::{BLOCK_SIZES, BlockTable, TABLE_BYTES_MAX, blocks_of};
use crate::hash::object_id;
use crate::hex;
use crate::record::UpdateState;
use crate::rejection::Rejection;
use dunlin_wire::{BoardId, ObjectId};
use serde::{Deserialize, Serialize};

/// Kinds of board in a release.
pub const BOARDS_MAX: usize = 32;
/// Objects of a release.
pub const OBJECTS_MAX: usize = 32;
/// Bytes of one object.
pub const OBJECT_BYTES_MAX: u64 = 1 << 32;
/// Golden prompts of a release.
pub const GOLDEN_MAX: usize = 32;
/// Bytes of a golden prompt.
pub const PROMPT_BYTES_MAX: usize = 512;
/// Bytes of an object's name.
pub const NAME_BYTES_MAX: usize = 64;

/// The content of `release.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// Its number, never 0; a later release has a higher one.
    pub number: u32,
    /// The kinds of board that it is for.
    pub boards: Vec<BoardId>,
    /// The processor that it is for.
    pub arch: ReleaseArch,
    /// The lowest release that is still allowed once this one stays; at most `number`.
    pub floor: u32,
    /// Its files.
    #[serde(rename = "object")]
    pub objects: Vec<ReleaseObject>,
    /// Its gate.
    pub gate: Gate,
}

/// A processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReleaseArch {
    /// 64-bit ARM.
    Aarch64,
    /// 32-bit ARM.
    Arm,
    /// 64-bit x86.
    #[serde(rename = "x86_64")]
    X86,
}

impl ReleaseArch {
    /// The processor with this name, as in [`std::env::consts::ARCH`].
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "aarch64" => Some(Self::Aarch64),
            "arm" => Some(Self::Arm),
            "x86_64" => Some(Self::X86),
            _ => None,
        }
    }
}

/// The kind of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ObjectKind {
    /// The agent's program.
    Agent,
    /// A file of the model's folder.
    Model,
    /// Settings that are merged over the board's own.
    Settings,
    /// A system's slot.
    System,
    /// A Debian package.
    Deb,
    /// A bundle of RAUC.
    Raucb,
}

/// A file of a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseObject {
    /// Its kind.
    pub kind: ObjectKind,
    /// Its file name.
    pub name: String,
    /// Its bytes.
    pub size: u64,
    /// Its SHA-256.
    #[serde(with = "hex")]
    pub sha256: ObjectId,
    /// Bytes of a block: 4096 or 32768.
    pub block: u32,
    /// The SHA-256 of its table of blocks, which is an object, too.
    #[serde(with = "hex")]
    pub table: ObjectId,
}

/// The conditions under which a release stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// Prompts whose drafted tokens are known.
    #[serde(default)]
    pub golden: Vec<GoldenPrompt>,
    /// Most memory of the agent, in MiB.
    pub rss_mib: u32,
    /// Seconds without a restart.
    pub soak_seconds: u16,
    /// The peer that the agent must reach.
    pub needs: GateNeed,
}

/// A prompt whose drafted tokens are known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenPrompt {
    /// The kind of board.
    pub board: BoardId,
    /// The prompt.
    pub prompt: String,
    /// The SHA-256 of the token ids that are drafted at temperature 0.
    #[serde(with = "hex")]
    pub tokens_sha256: ObjectId,
}

/// The peer that an agent must reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GateNeed {
    /// A verifier's lease.
    Lease,
    /// The broker.
    Broker,
    /// Nothing.
    None,
}

impl ReleaseObject {
    /// Its path in the folder of a generation; `None` for a system, which is written to a slot.
    pub fn place(&self) -> Option<String> {
        let name = &self.name;
        match self.kind {
            ObjectKind::Agent => Some("agent".to_owned()),
            ObjectKind::Settings => Some("settings.toml".to_owned()),
            ObjectKind::Model => Some(format!("model/{name}")),
            ObjectKind::Deb => Some(format!("deb/{name}")),
            ObjectKind::Raucb => Some(format!("raucb/{name}")),
            ObjectKind::System => None,
        }
    }

    /// Bytes of its table.
    pub fn table_size(&self) -> u64 {
        32 * blocks_of(self.size, self.block)
    }

    /// The table of its blocks.
    ///
    /// # Errors
    /// The bytes are not the table that the release names, or too many or too few for the object.
    pub fn read_table(&self, hashes: Vec<u8>) -> Result<BlockTable, Rejection> {
        let (found, expected) = (hashes.len() as u64, self.table_size());
        if found != expected {
            return Err(Rejection::Size { found, expected });
        }
        if object_id(&hashes) != self.table {
            return Err(Rejection::Content);
        }
        Ok(BlockTable::of(self.size, self.block, hashes))
    }

    fn check(&self) -> Result<(), String> {
        let shown = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let name = &self.name;
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.starts_with('.') || !name.bytes().all(shown)
        {
            return Err(format!(
                "an object's name has 1 to {NAME_BYTES_MAX} characters of A-Z, a-z, 0-9, '.', '_' and '-', and no '.' first"
            ));
        }
        if !(1..=OBJECT_BYTES_MAX).contains(&self.size) {
            return Err(format!("{name}: an object has 1 to {OBJECT_BYTES_MAX} bytes"));
        }
        if !BLOCK_SIZES.contains(&self.block) {
            return Err(format!("{name}: a block has 4096 or 32768 bytes"));
        }
        if self.table_size() > TABLE_BYTES_MAX {
            return Err(format!("{name}: it is too large for blocks of {} bytes", self.block));
        }
        if self.sha256 == self.table {
            return Err(format!("{name}: it is its own table"));
        }
        Ok(())
    }
}

impl Release {
    /// The release of a text.
    ///
    /// # Errors
    /// Names what is wrong in it.
    pub fn parse(text: &str) -> Result<Self, Rejection> {
        let release: Self = toml::from_str(text)
            .map_err(|error| Rejection::Malformed(format!("release.toml: {}", error.message())))?;
        release.check()?;
        Ok(release)
    }

    /// The text of `release.toml`.
    ///
    /// # Errors
    /// Names what is impossible in it.
    pub fn text(&self) -> Result<String, Rejection> {
        self.check()?;
        toml::to_string(self).map_err(|error| Rejection::Malformed(format!("release.toml: {error}")))
    }

    fn check(&self) -> Result<(), Rejection> {
        self.checked().map_err(|what| Rejection::Malformed(format!("release.toml: {what}")))
    }

    fn checked(&self) -> Result<(), String> {
        if self.number == 0 || self.floor > self.number {
            return Err("`number` is at least 1, and `floor` is at most `number`".to_owned());
        }
        if !(1..=BOARDS_MAX).contains(&self.boards.len()) {
            return Err(format!("`boards` names 1 to {BOARDS_MAX} kinds of board"));
        }
        if !(1..=OBJECTS_MAX).contains(&self.objects.len()) {
            return Err(format!("a release has 1 to {OBJECTS_MAX} objects"));
        }
        self.objects.iter().try_for_each(ReleaseObject::check)?;
        for (at, object) in self.objects.iter().enumerate() {
            for other in &self.objects[..at] {
                object.beside(other)?;
            }
        }
        self.gate.check()
    }

    /// Checks that this board takes the release.
    ///
    /// # Errors
    /// It is for others, is below the lowest allowed, or failed here.
    pub fn check_for(
        &self,
        board: &BoardId,
        arch: ReleaseArch,
        state: &UpdateState,
    ) -> Result<(), Rejection> {
        let (number, floor) = (self.number, state.min_number);
        if !self.boards.contains(board) {
            return Err(Rejection::Board(number));
        }
        if self.arch != arch {
            return Err(Rejection::Arch(number));
        }
        if number < floor {
            return Err(Rejection::Floor { number, floor });
        }
        if state.failed.contains(&number) { Err(Rejection::Failed(number)) } else { Ok(()) }
    }
}

impl ReleaseObject {
    /// Checks that two objects can be in one release.
    fn beside(&self, other: &Self) -> Result<(), String> {
        let single = matches!(self.kind, ObjectKind::Agent | ObjectKind::Settings | ObjectKind::System);
        if self.kind == other.kind && (single || self.name == other.name) {
            return Err(format!("{}: there are two objects in its place", self.name));
        }
        let same = self.sha256 == other.sha256;
        let form = |object: &Self| (object.size, object.block, object.table);
        if same && form(self) != form(other) {
            return Err(format!("{} and {} are the same object and differ", self.name, other.name));
        }
        Ok(())
    }
}

impl Gate {
    fn check(&self) -> Result<(), String> {
        if self.golden.len() > GOLDEN_MAX {
            return Err(format!("a release has at most {GOLDEN_MAX} golden prompts"));
        }
        let shown = |prompt: &str| {
            (1..=PROMPT_BYTES_MAX).contains(&prompt.len()) && !prompt.chars().any(char::is_control)
        };
        if !self.golden.iter().all(|golden| shown(&golden.prompt)) {
            return Err(format!(
                "a golden prompt has 1 to {PROMPT_BYTES_MAX} bytes and no control characters"
            ));
        }
        if self.rss_mib == 0 { Err("`rss_mib` is at least 1".to_owned()) } else { Ok(()) }
    }
}
