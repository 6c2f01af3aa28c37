//! Configuration: a TOML file and a board's file, flags over both, checked into [`Settings`].

use crate::link::{Broker, LinkConfig};
use anyhow::{Context, Result, anyhow, bail};
use dunlin_board::{
    AGENT_MIB, Board, INSTALLED, KEEP_ALIVE_SECONDS_MAX, KEEP_ALIVE_SECONDS_MIN, PowerTable, find, read,
};
use dunlin_hlm::policy::{Policy, PolicyTable, Rules};
use dunlin_power::settings::PowerSettings;
use dunlin_service::{MQTT_PASSWORD, credential, secret};
use dunlin_wire::DeviceId;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

const BROKER: &str = "mqtt://localhost:1883";
const PORT: u16 = 1883;
const KEEP_ALIVE_SECONDS: u64 = 30;

/// The agent's file. Every key can be left out; paths are relative to the file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    device: Option<String>,
    broker: Option<String>,
    model: Option<PathBuf>,
    board: Option<PathBuf>,
    mqtt: MqttTable,
    policy: PolicyTable,
    power: PowerTable,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct MqttTable {
    user: Option<String>,
    password_file: Option<PathBuf>,
    keep_alive_seconds: Option<u64>,
}

/// What flags say over the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--broker`
    pub broker: Option<String>,
    /// `--device`
    pub device: Option<String>,
    /// `--model`
    pub model: Option<PathBuf>,
    /// `--board`
    pub board: Option<PathBuf>,
    /// `--power`
    pub power: Option<String>,
    /// `--policy`
    pub policy: Option<String>,
    /// `--draft-tokens-max`
    pub draft_tokens_max: Option<u8>,
}

/// The configuration, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who this device is.
    pub device: DeviceId,
    /// Where the broker is.
    pub broker: Broker,
    /// User name and password.
    pub credentials: Option<(String, String)>,
    /// Silence after which the link is tested.
    pub keep_alive: Duration,
    /// The drafter's directory.
    pub model: Option<PathBuf>,
    /// The board, where one is named.
    pub board: Option<Board>,
    /// Its file.
    pub board_file: Option<PathBuf>,
    /// Which policy.
    pub policy: Policy,
    /// Its settings.
    pub rules: Rules,
    /// How power is measured.
    pub power: PowerSettings,
}

impl Settings {
    /// Reads `file` and what it names, and puts `flags` over it.
    ///
    /// # Errors
    /// Names the file, line, key or flag that is wrong.
    pub fn load(file: Option<&Path>, flags: &Overrides) -> Result<Self> {
        let (mut parsed, dir) = match file {
            Some(path) => (read::<File>(path)?, path.parent().unwrap_or(Path::new("")).to_owned()),
            None => (File::default(), PathBuf::new()),
        };
        let board_file = board_file(flags.board.as_deref(), parsed.board.as_deref(), &dir)?;
        let board = board_file.as_deref().map(Board::load).transpose()?;
        let of_board = board.as_ref().map(|board| board.power.clone()).unwrap_or_default();
        let power = std::mem::take(&mut parsed.power).within(&dir).over(of_board);
        let table = under(flags, std::mem::take(&mut parsed.policy))?;
        let (policy, rules) = (table.policy(), Rules::new(&table).context("policy")?);
        let device = flags.device.clone().or(parsed.device.take());
        let broker = flags.broker.as_deref().or(parsed.broker.as_deref()).unwrap_or(BROKER);
        Ok(Self {
            device: device.map_or_else(own_name, |device| device_id(&device))?,
            broker: broker_of(broker)?,
            credentials: parsed.mqtt.credentials(&dir, credential(MQTT_PASSWORD).as_deref())?,
            keep_alive: parsed.mqtt.keep_alive(board.as_ref())?,
            model: flags.model.clone().or_else(|| parsed.model.map(|path| dir.join(path))),
            board,
            board_file,
            policy,
            rules,
            power: PowerSettings::of(power, flags.power.as_deref())?,
        })
    }

    /// The drafter's directory.
    ///
    /// # Errors
    /// None was named.
    pub fn model(&self) -> Result<&Path> {
        self.model.as_deref().context("no model: give --model DIR, or model = \"DIR\" in the configuration")
    }

    /// Tokens of context that a drafter with room for `own` may use on this board.
    pub fn context_tokens_max(&self, own: usize) -> usize {
        let limit = self.board.as_ref().and_then(|board| board.drafter.context_tokens_max);
        limit.map_or(own, |limit| limit.min(own))
    }

    /// What a drafter's weights take of the memory that the board allows, in words; nothing where it allows any.
    ///
    /// # Errors
    /// They don't fit, or can't be looked at.
    pub fn memory(&self, weights: &Path) -> Result<Option<String>> {
        let Some(board) = &self.board else { return Ok(None) };
        let Some(allowed) = board.drafter.memory_mib else { return Ok(None) };
        let file = self.board_file.as_deref().unwrap_or(Path::new(&board.name)).display();
        let (bytes, weights) = (bytes_of(weights)?, weights.display());
        match board.drafter.fits(bytes) {
            Ok(()) => Ok(Some(format!(
                "{weights} and the agent take up to {} MiB of the {allowed} that {file} allows",
                bytes.div_ceil(1 << 20) + AGENT_MIB
            ))),
            Err(needed) => bail!(
                "{weights} and the agent take up to {needed} MiB, and {file} allows {allowed} (drafter.memory_mib): \
                 take a smaller model, or allow more where the board has it"
            ),
        }
    }

    /// How to connect as this device.
    pub fn link(&self) -> LinkConfig {
        LinkConfig {
            broker: self.broker.clone(),
            device: self.device.clone(),
            client_id: self.device.as_str().into(),
            credentials: self.credentials.clone(),
            keep_alive: self.keep_alive,
            announce: true,
        }
    }
}

/// A policy's table with flags over it.
fn under(flags: &Overrides, file: PolicyTable) -> Result<PolicyTable> {
    let named = flags.policy.as_deref().map(Policy::from_str).transpose();
    Ok(PolicyTable {
        name: named.map_err(|error| anyhow!("--policy: {error}"))?.or(file.name),
        draft_tokens_max: flags.draft_tokens_max.or(file.draft_tokens_max),
        ..file
    })
}

impl MqttTable {
    /// User name and password; the password is in the file that is named, else in the service's credential.
    fn credentials(&self, dir: &Path, credential: Option<&Path>) -> Result<Option<(String, String)>> {
        let Some(user) = &self.user else {
            return match self.password_file {
                Some(_) => bail!("mqtt.password_file without mqtt.user"),
                None => Ok(None),
            };
        };
        let file = self.password_file.as_ref().map(|file| dir.join(file));
        let path = file.as_deref().or(credential.filter(|path| path.exists()));
        let read = |path: &Path| secret(path).with_context(|| path.display().to_string());
        let password = path.map(read).transpose()?;
        Ok(Some((user.clone(), password.unwrap_or_default())))
    }

    fn keep_alive(&self, board: Option<&Board>) -> Result<Duration> {
        let of_board = board.and_then(|board| board.link.keep_alive_seconds);
        let seconds = self.keep_alive_seconds.or(of_board).unwrap_or(KEEP_ALIVE_SECONDS);
        if !(KEEP_ALIVE_SECONDS_MIN..=KEEP_ALIVE_SECONDS_MAX).contains(&seconds) {
            bail!(
                "keep_alive_seconds {seconds} is not within {KEEP_ALIVE_SECONDS_MIN} and {KEEP_ALIVE_SECONDS_MAX}"
            );
        }
        Ok(Duration::from_secs(seconds))
    }
}

/// The bytes of a weights' file, with the parts that ONNX keeps beside a large one under longer names.
fn bytes_of(weights: &Path) -> Result<u64> {
    let of = |path: &Path| {
        let metadata = path.metadata().with_context(|| path.display().to_string())?;
        Ok::<u64, anyhow::Error>(metadata.len())
    };
    let mut bytes = of(weights)?;
    for ending in ["_data", ".data"] {
        let mut name = weights.as_os_str().to_owned();
        name.push(ending);
        if Path::new(&name).exists() {
            bytes += of(Path::new(&name))?;
        }
    }
    Ok(bytes)
}

/// The file of the board that a flag names, or else the configuration in `dir`. A name is looked up beside the
/// configuration and where the package puts boards.
fn board_file(flag: Option<&Path>, file: Option<&Path>, dir: &Path) -> Result<Option<PathBuf>> {
    let (board, base) = match (flag, file) {
        (Some(board), _) => (board, Path::new("")),
        (None, Some(board)) => (board, dir),
        (None, None) => return Ok(None),
    };
    let dirs = [dir.to_owned(), dir.join("boards"), INSTALLED.into()];
    find(board, base, &dirs).map(Some).context(if flag.is_some() { "--board" } else { "board" })
}

fn device_id(name: &str) -> Result<DeviceId> {
    name.parse().with_context(|| format!("device {name:?}"))
}

/// The host's name, in the characters an id may have.
fn own_name() -> Result<DeviceId> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let letters = name.trim().chars().map(|c| c.to_ascii_lowercase());
    let id: String = letters.map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(32).collect();
    id.parse().context("this host has no name: give --device ID, or device = \"ID\" in the configuration")
}

/// `mqtt://host[:port]`, an IPv6 address in brackets.
pub(crate) fn broker_of(url: &str) -> Result<Broker> {
    let wrong = |what: &str| anyhow!("broker {:?}: {what}; expected mqtt://host:port", without_login(url));
    let Some(rest) = url.strip_prefix("mqtt://") else {
        let tls = url.starts_with("mqtts://");
        return Err(wrong(if tls { "TLS is not part of this build" } else { "no mqtt:// in front" }));
    };
    if rest.contains('@') {
        return Err(wrong("name the user under [mqtt] in the configuration file"));
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match rest.strip_prefix('[') {
        Some(v6) => v6.split_once(']').ok_or_else(|| wrong("no closing bracket"))?,
        None => rest.split_at(rest.find(':').unwrap_or(rest.len())),
    };
    let port = match port.strip_prefix(':') {
        Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or_else(|| wrong("no such port"))?,
        None if port.is_empty() => PORT,
        None => return Err(wrong("text after the address")),
    };
    if host.is_empty() || host.contains('/') {
        return Err(wrong("no host"));
    }
    Ok(Broker { host: host.into(), port })
}

/// An address as it may be shown: a password in it stays out of logs and terminals.
fn without_login(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let separator = if scheme.is_empty() { "" } else { "://" };
    match rest.rsplit_once('@') {
        Some((_login, place)) => format!("{scheme}{separator}***@{place}"),
        None => url.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_hlm::policy::Threshold;
    use std::fs::write;

    fn load(text: &str, flags: &Overrides) -> Result<Settings> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        write(&path, text).unwrap();
        write(dir.path().join("password"), "s3cret\n").unwrap();
        write(dir.path().join("b.toml"), "name = \"b\"\n[drafter]\ncontext_tokens_max = 64\n").unwrap();
        Settings::load(Some(&path), flags)
    }

    fn message(text: &str) -> String {
        format!("{:#}", load(text, &Overrides::default()).unwrap_err())
    }

    #[test]
    fn flags_go_over_the_file() {
        let text =
            "device = 'a'\nbroker = 'mqtt://one:1'\nboard = 'b.toml'\n[policy]\ndraft_tokens_max = 3\n";
        let settings = load(text, &Overrides::default()).unwrap();
        assert_eq!((settings.device.as_str(), settings.broker.to_string()), ("a", "one:1".into()));
        assert_eq!(settings.rules.draft_tokens_max(), 3);
        assert_eq!((settings.context_tokens_max(100), settings.context_tokens_max(50)), (64, 50));
        let flags = Overrides {
            broker: Some("mqtt://two".into()),
            draft_tokens_max: Some(5),
            ..Overrides::default()
        };
        let settings = load(text, &flags).unwrap();
        assert_eq!(settings.broker.to_string(), "two:1883");
        assert_eq!(settings.rules.draft_tokens_max(), 5);
    }

    #[test]
    fn a_mistake_is_named_with_its_line() {
        let text = message("device = 'a'\n\nbrocker = 'x'\n");
        assert!(text.contains("agent.toml:3: unknown field `brocker`"), "{text}");
        assert!(message("[mqtt]\nkeep_alive_seconds = 4\n").contains("keep_alive_seconds 4 is not within 5"));
        assert!(message("device = 'A'").contains("device \"A\""));
        assert!(
            message("[policy]\nname = 'u-hml'").contains("agent.toml:2: unknown policy; known are hlm, ")
        );
        assert!(message("[policy]\nwithout = ['payload']").contains("agent.toml:2: unknown threshold"));
        assert!(message("[policy]\nheld = 'lost'").contains("agent.toml:2: unknown kind of held tokens"));
        assert!(message("[policy]\npayload = 'full'").contains("payload full does not go with the coupling"));
        assert!(message("[policy]\nepsilon = 2").contains("epsilon 2 is not within 0 and 1"));
    }

    #[test]
    fn a_policy_is_its_preset_with_what_differs() {
        let rules = |text: &str| load(text, &Overrides::default()).unwrap().rules;
        assert_eq!(rules("[policy]\nname = 'importance'"), Policy::Importance.rules());
        let alone =
            "[policy]\nname = 'importance-or'\nwithout = ['uncertainty_max']\nimportance_lambda = 1.5";
        let table = PolicyTable {
            without: vec![Threshold::UncertaintyMax],
            importance_lambda: Some(1.5),
            ..Policy::ImportanceOr.table()
        };
        assert_eq!(rules(alone), Rules::new(&table).unwrap());
        let lattice =
            "[policy]\npayload = 'lattice'\npayload_entries = 9\nresolution = 50\ncoupling = 'rejection'";
        let table =
            PolicyTable { payload_entries: Some(9), resolution: Some(50), ..Policy::LosslessSparse.table() };
        assert_eq!(rules(lattice), Rules::new(&table).unwrap());
    }

    #[test]
    fn a_password_comes_from_a_file() {
        let settings =
            load("device = 'a'\n[mqtt]\nuser = 'u'\npassword_file = 'password'\n", &Overrides::default())
                .unwrap();
        assert_eq!(settings.credentials, Some(("u".into(), "s3cret".into())));
        assert!(message("[mqtt]\npassword_file = 'password'\n").contains("without mqtt.user"));
    }

    #[test]
    fn a_services_credential_is_the_password_where_no_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (own, given) = (dir.path().join("own"), dir.path().join("given"));
        write(&own, "own\n").unwrap();
        write(&given, "given\n").unwrap();
        let password = |text: &str, credential: Option<&Path>| {
            let mqtt: MqttTable = toml::from_str(text).unwrap();
            mqtt.credentials(dir.path(), credential).map(|login| login.map(|(_, password)| password))
        };
        let user = "user = 'u'";
        assert_eq!(password(user, Some(&given)).unwrap().as_deref(), Some("given"));
        assert_eq!(password(user, Some(&dir.path().join("none"))).unwrap().as_deref(), Some(""));
        assert_eq!(password(user, None).unwrap().as_deref(), Some(""));
        let named = "user = 'u'\npassword_file = 'own'";
        assert_eq!(password(named, Some(&given)).unwrap().as_deref(), Some("own"));
        assert_eq!(password("", Some(&given)).unwrap(), None, "nobody to log in as");
        std::fs::create_dir(dir.path().join("dir")).unwrap();
        assert!(password(user, Some(&dir.path().join("dir"))).is_err(), "one that is there must be readable");
    }

    #[test]
    fn a_board_is_a_name_or_a_path() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("boards")).unwrap();
        write(dir.path().join("boards/near.toml"), "name = 'near'").unwrap();
        write(dir.path().join("own.toml"), "name = 'own'").unwrap();
        let load = |board: &str, flag: Option<&str>| {
            let file = dir.path().join("agent.toml");
            write(&file, format!("device = 'a'\nboard = '{board}'")).unwrap();
            let flags = Overrides { board: flag.map(PathBuf::from), ..Overrides::default() };
            Settings::load(Some(&file), &flags).map(|settings| settings.board.unwrap().name)
        };
        assert_eq!(load("near", None).unwrap(), "near");
        assert_eq!(load("own", None).unwrap(), "own");
        assert_eq!(load("boards/near.toml", None).unwrap(), "near");
        assert_eq!(load("own", Some("near")).unwrap(), "near");
        let path = dir.path().join("own.toml").display().to_string();
        assert_eq!(load("near", Some(&path)).unwrap(), "own");
        let said = format!("{:#}", load("far", None).unwrap_err());
        assert!(
            said.starts_with("board: unknown board \"far\"; known boards are ") && said.contains("near"),
            "{said}"
        );
        let said = format!("{:#}", load("near", Some("far")).unwrap_err());
        assert!(said.starts_with("--board: unknown board \"far\""), "{said}");
        assert!(format!("{:#}", load("far.toml", None).unwrap_err()).contains("far.toml: No such file"));
    }

    #[test]
    fn weights_must_fit_into_the_boards_memory() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        write(path("b.toml"), "name = 'b'\n[drafter]\nmemory_mib = 26").unwrap();
        write(path("free.toml"), "name = 'free'").unwrap();
        let with = |board: &str| {
            let flags =
                Overrides { board: Some(path(board)), device: Some("a".into()), ..Overrides::default() };
            Settings::load(None, &flags).unwrap()
        };
        write(path("m.onnx"), vec![0; 1 << 20]).unwrap();
        let said = with("b.toml").memory(&path("m.onnx")).unwrap().unwrap();
        assert!(
            said.contains("m.onnx and the agent take up to 25 MiB of the 26 that ")
                && said.contains("b.toml")
        );
        write(path("m.onnx_data"), vec![0; (1 << 20) + 1]).unwrap();
        let said = format!("{:#}", with("b.toml").memory(&path("m.onnx")).unwrap_err());
        assert!(
            said.contains("m.onnx and the agent take up to 27 MiB, and ")
                && said.contains("b.toml allows 26")
        );
        assert!(with("free.toml").memory(&path("m.onnx")).unwrap().is_none());
        assert!(format!("{:#}", with("b.toml").memory(&path("n")).unwrap_err()).contains("n: No such file"));
    }

    #[test]
    fn brokers() {
        let of = |url| broker_of(url).map(|broker| broker.to_string());
        assert_eq!(of("mqtt://host").unwrap(), "host:1883");
        assert_eq!(of("mqtt://[::1]:99/").unwrap(), "[::1]:99");
        for wrong in
            ["host", "mqtts://host", "mqtt://", "mqtt://u@h", "mqtt://h:0", "mqtt://h:x", "mqtt://[::1"]
        {
            assert!(of(wrong).unwrap_err().to_string().contains("expected mqtt://host:port"), "{wrong}");
        }
    }

    #[test]
    fn a_refused_address_is_shown_without_its_password() {
        for url in ["mqtt://me:hu@sh@host", "mqtts://me:hu@sh@host:1", "me:hu@sh@host", "mqtt://hu@sh@host:x"]
        {
            let refusal = broker_of(url).unwrap_err().to_string();
            assert!(refusal.contains("***@host") && !refusal.contains("hu"), "{refusal}");
        }
    }
}
