//! The root of a fleet: which keys may sign what, and for how long.

use crate::document::{PublicKey, Purpose, SignedDocument};
use crate::hash::object_id;
use crate::hex::{self, hex, parse_hex};
use crate::record::UpdateState;
use crate::rejection::Rejection;
use crate::release::Release;
use crate::role::KeyRole;
use dunlin_wire::limits::SIGNATURES_MAX;
use dunlin_wire::{
    BoardCommand, DeviceId, EncodeError, FleetTime, ObjectId, Rollout, RolloutScope, Signatures,
};
use serde::{Deserialize, Serialize};

/// Keys of one role.
pub const ROLE_KEYS_MAX: usize = 8;
/// Roots that a board follows at once.
pub const CHAIN_MAX: usize = 16;

/// The keys of a role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleKeys {
    /// The least number of them that sign.
    pub threshold: u8,
    /// Public keys, 64 hexadecimal digits each.
    pub keys: Vec<String>,
}

impl RoleKeys {
    /// Keys of which `threshold` sign.
    pub fn new(threshold: u8, keys: &[PublicKey]) -> Self {
        Self { threshold, keys: keys.iter().map(|key| hex(&key.0)).collect() }
    }
}

/// The former root, which a root names so that a board can fetch those that it missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootLink {
    /// The object of the signed root.
    #[serde(with = "hex")]
    pub sha256: ObjectId,
    /// Its bytes.
    pub size: u16,
}

/// The content of `root.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootDraft {
    /// Its version; the first is 1.
    pub version: u32,
    /// Its end, in Unix seconds.
    pub until: u64,
    /// The keys of releases.
    pub release: RoleKeys,
    /// The keys of rollouts, commands and the time.
    pub rollout: RoleKeys,
    /// The keys of roots.
    pub root: RoleKeys,
    /// The former root; from version 2 on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<RootLink>,
}

/// A verified root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    draft: RootDraft,
    id: ObjectId,
    keys: [Vec<PublicKey>; 3],
}

/// The relation of a rollout to those that were seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RolloutNews {
    /// Above all numbers that were seen.
    New,
    /// The last one again.
    Known,
}

impl RootDraft {
    /// The text of `root.toml`.
    ///
    /// # Errors
    /// Names what is impossible in it.
    pub fn text(&self) -> Result<String, Rejection> {
        self.checked_keys()?;
        toml::to_string(self).map_err(|error| Rejection::Malformed(format!("root.toml: {error}")))
    }

    fn checked_keys(&self) -> Result<[Vec<PublicKey>; 3], Rejection> {
        if self.version == 0 || (self.version == 1) != self.previous.is_none() {
            return Err(malformed("version 1 has no `previous`, and every later one has"));
        }
        let keys = [
            self.release.read(KeyRole::Release)?,
            self.rollout.read(KeyRole::Rollout)?,
            self.root.read(KeyRole::Root)?,
        ];
        let mut all = keys.concat();
        all.sort_unstable();
        if all.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(malformed("a key stands there twice; each role has keys of its own"));
        }
        Ok(keys)
    }
}

impl RoleKeys {
    fn read(&self, role: KeyRole) -> Result<Vec<PublicKey>, Rejection> {
        let most = self.keys.len().min(SIGNATURES_MAX);
        if self.keys.len() > ROLE_KEYS_MAX || !(1..=most).contains(&usize::from(self.threshold)) {
            return Err(malformed(&format!(
                "the role {role} needs 1 to {ROLE_KEYS_MAX} keys, and a threshold of 1 to {SIGNATURES_MAX} of them"
            )));
        }
        let key = |text: &String| parse_hex(text).map(PublicKey);
        let keys: Result<_, _> = self.keys.iter().map(key).collect();
        keys.map_err(|_| malformed(&format!("a key of the role {role} is not 64 hexadecimal digits")))
    }
}

fn malformed(what: &str) -> Rejection {
    Rejection::Malformed(format!("root.toml: {what}"))
}

impl Root {
    fn parsed(document: &SignedDocument) -> Result<Self, Rejection> {
        let draft: RootDraft = toml::from_str(&document.text)
            .map_err(|error| Rejection::Malformed(format!("root.toml: {}", error.message())))?;
        let keys = draft.checked_keys()?;
        let root = Self { draft, id: document.id(), keys };
        root.verify(KeyRole::Root, &Purpose::Root.text(&document.text), &document.signatures)?;
        Ok(root)
    }

    /// The root whose file has this hash, which came with the board's image or its set-up file.
    ///
    /// # Errors
    /// The file is another one, is malformed, or is not signed by its own keys.
    pub fn pinned(file: &[u8], pin: &ObjectId) -> Result<Self, Rejection> {
        if object_id(file) != *pin {
            return Err(Rejection::Content);
        }
        Self::parsed(&SignedDocument::decode(file)?)
    }

    /// The root of a file that this board verified before.
    ///
    /// # Errors
    /// The file is malformed, or is not signed by its own keys.
    pub fn kept(file: &[u8]) -> Result<Self, Rejection> {
        Self::parsed(&SignedDocument::decode(file)?)
    }

    /// The root that follows this one.
    ///
    /// It is signed by the keys of both, and may follow a root that has ended.
    ///
    /// # Errors
    /// It doesn't follow, is malformed, or is not signed by the keys of both.
    pub fn followed_by(&self, file: &[u8]) -> Result<Self, Rejection> {
        let document = SignedDocument::decode(file)?;
        let next = Self::parsed(&document)?;
        let (present, found) = (self.draft.version, next.draft.version);
        let follows = present.checked_add(1) == Some(found)
            && next.draft.previous.is_some_and(|previous| previous.sha256 == self.id);
        if !follows {
            return Err(Rejection::RootChain { present, found });
        }
        self.verify(KeyRole::Root, &Purpose::Root.text(&document.text), &document.signatures)?;
        Ok(next)
    }

    /// The content.
    pub fn draft(&self) -> &RootDraft {
        &self.draft
    }

    /// The object of the signed root.
    pub fn id(&self) -> ObjectId {
        self.id
    }

    fn role(&self, role: KeyRole) -> (&[PublicKey], usize) {
        let (keys, of) = match role {
            KeyRole::Release => (&self.keys[0], &self.draft.release),
            KeyRole::Rollout => (&self.keys[1], &self.draft.rollout),
            KeyRole::Root => (&self.keys[2], &self.draft.root),
        };
        (keys, of.threshold.into())
    }

    fn verify(&self, role: KeyRole, text: &[u8], signatures: &Signatures) -> Result<(), Rejection> {
        let (keys, needed) = self.role(role);
        // A key counts once: signatures have different keys.
        let valid = signatures.iter().filter(|signature| {
            keys.iter().any(|key| key.id() == signature.key && key.verifies(text, signature))
        });
        let found = valid.count();
        if found >= needed { Ok(()) } else { Err(Rejection::Signature { role, found, needed }) }
    }

    fn in_time(&self, now: u64) -> Result<(), Rejection> {
        let until = self.draft.until;
        if now > until { Err(Rejection::RootExpired { until, now }) } else { Ok(()) }
    }

    /// Checks a rollout for this ring or device against those that were seen, at the time `now` in Unix seconds.
    ///
    /// # Errors
    /// The root or the rollout has ended, the rollout is not signed for this addressee, or it is an older one.
    pub fn check_rollout(
        &self,
        rollout: &Rollout,
        scope: &RolloutScope,
        state: &UpdateState,
        now: u64,
    ) -> Result<RolloutNews, Rejection> {
        self.in_time(now)?;
        let text = rollout.fields.signed_text(scope).map_err(impossible)?;
        self.verify(KeyRole::Rollout, &text, &rollout.signatures)?;
        let (found, until, last) = (rollout.fields.number, rollout.fields.until, state.last_rollout(scope));
        if found < last {
            return Err(Rejection::Replayed { found, last });
        }
        if now > until {
            return Err(Rejection::Expired { until, now });
        }
        Ok(if found == last { RolloutNews::Known } else { RolloutNews::New })
    }

    /// Reads the release that a rollout names, at the time `now` in Unix seconds.
    ///
    /// # Errors
    /// The root has ended, or the file is not the one that the rollout names, is malformed, or is not signed by keys of
    /// releases.
    pub fn check_release(&self, file: &[u8], rollout: &Rollout, now: u64) -> Result<Release, Rejection> {
        self.in_time(now)?;
        let (found, expected) = (file.len() as u64, u64::from(rollout.fields.size));
        if found != expected {
            return Err(Rejection::Size { found, expected });
        }
        if object_id(file) != rollout.fields.object {
            return Err(Rejection::Content);
        }
        let document = SignedDocument::decode(file)?;
        self.verify(KeyRole::Release, &Purpose::Release.text(&document.text), &document.signatures)?;
        let release = Release::parse(&document.text)?;
        let (found, expected) = (release.number, rollout.fields.release);
        if found == expected { Ok(release) } else { Err(Rejection::Number { found, expected }) }
    }

    /// Checks a command for a device against the last one, at the time `now` in Unix seconds.
    ///
    /// # Errors
    /// The root or the command has ended, the command is not signed for this device, or it came before.
    pub fn check_command(
        &self,
        command: &BoardCommand,
        device: &DeviceId,
        state: &UpdateState,
        now: u64,
    ) -> Result<(), Rejection> {
        self.in_time(now)?;
        let text = command.fields.signed_text(device).map_err(impossible)?;
        self.verify(KeyRole::Rollout, &text, &command.signatures)?;
        let (found, until, last) = (command.fields.number, command.fields.until, state.command);
        if found <= last {
            return Err(Rejection::Replayed { found, last });
        }
        if now > until { Err(Rejection::Expired { until, now }) } else { Ok(()) }
    }

    /// Checks the time against the last one. A time behind the root's end is not taken.
    ///
    /// # Errors
    /// It is not signed, is behind the root's end, or is an older one.
    pub fn check_time(&self, time: &FleetTime, state: &UpdateState) -> Result<(), Rejection> {
        self.in_time(time.fields.at)?;
        let text = time.fields.signed_text().map_err(impossible)?;
        self.verify(KeyRole::Rollout, &text, &time.signatures)?;
        let (found, last) = (time.fields.number, state.time);
        if found <= last { Err(Rejection::Replayed { found, last }) } else { Ok(()) }
    }
}

fn impossible(error: EncodeError) -> Rejection {
    Rejection::Malformed(error.to_string())
}
