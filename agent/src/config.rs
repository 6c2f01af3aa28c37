//! Configuration: a TOML file and a board's file, flags over both, checked into [`Settings`].

use crate::link::{INFLIGHT_MAX, LinkConfig};
use anyhow::{Context, Result, anyhow, bail};
use dunlin_board::{Board, DrafterTable, INSTALLED, PowerTable, find, read};
use dunlin_hlm::policy::{Policy, PolicyTable, Rules};
use dunlin_link::{
    BrokerAddress, ConnectOptions, Login, MQTT_PASSWORD, MqttTable, Security, TLS_INSTALLED, TLS_KEY,
    TlsTable, refuse_old_keys,
};
use dunlin_power::settings::PowerSettings;
use dunlin_service::credential;
use dunlin_wire::DeviceId;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

const BROKER: &str = "mqtt://localhost:1883";

/// The agent's file. Every key can be left out; paths are relative to the file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    device: Option<String>,
    broker: Option<String>,
    model: Option<PathBuf>,
    board: Option<PathBuf>,
    state: Option<PathBuf>,
    system: Option<String>,
    mqtt: MqttTable,
    tls: TlsTable,
    policy: PolicyTable,
    power: PowerTable,
}

/// The values of flags, which override the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--broker`
    pub broker: Option<String>,
    /// `--insecure`
    pub insecure: bool,
    /// `--device`
    pub device: Option<String>,
    /// `--model`
    pub model: Option<PathBuf>,
    /// `--board`
    pub board: Option<PathBuf>,
    /// `--state`
    pub state: Option<PathBuf>,
    /// `--system`
    pub system: Option<String>,
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
    /// The device's id.
    pub device: DeviceId,
    /// The broker's address.
    pub broker: BrokerAddress,
    /// User name and password.
    pub login: Option<Login>,
    /// The protection of the connection.
    pub security: Security,
    /// Silence after which the link is tested.
    pub keep_alive: Duration,
    /// The drafter's directory.
    pub model: Option<PathBuf>,
    /// The board, if one is configured.
    pub board: Option<Board>,
    /// Its file.
    pub board_file: Option<PathBuf>,
    /// The folder in which the agent keeps what it learned, if any.
    pub state: Option<PathBuf>,
    /// The system prompt before every conversation, if any.
    pub system: Option<String>,
    /// The policy.
    pub policy: Policy,
    /// Its settings.
    pub rules: Rules,
    /// The settings of power measurement.
    pub power: PowerSettings,
}

impl Settings {
    /// Reads `file` and the files that it names, and applies `flags` over them.
    ///
    /// # Errors
    /// Names the file, line, key or flag that is wrong.
    pub fn load(file: Option<&Path>, flags: &Overrides) -> Result<Self> {
        let (mut parsed, dir) = match file {
            Some(path) => (parsed_file(path)?, path.parent().unwrap_or(Path::new("")).to_owned()),
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
        let broker: BrokerAddress = broker.parse()?;
        parsed.mqtt.insecure |= flags.insecure;
        let device = device.map_or_else(own_name, |device| device_id(&device))?;
        let login = parsed.mqtt.login(&broker, &dir, credential(MQTT_PASSWORD).as_deref())?;
        let tls = std::mem::take(&mut parsed.tls).within(&dir);
        let security =
            parsed.mqtt.security(&broker, &tls, Path::new(TLS_INSTALLED), credential(TLS_KEY).as_deref())?;
        same_name(&device, &security, login.as_ref())?;
        let board_seconds = board.as_ref().and_then(|board| board.link.keep_alive_seconds);
        Ok(Self {
            device,
            login,
            broker,
            security,
            keep_alive: parsed.mqtt.keep_alive(board_seconds)?,
            model: flags.model.clone().or_else(|| parsed.model.map(|path| dir.join(path))),
            board,
            board_file,
            state: flags
                .state
                .clone()
                .or_else(|| parsed.state.map(|path| dir.join(path)))
                .or_else(service_state),
            system: flags.system.clone().or(parsed.system),
            policy,
            rules,
            power: PowerSettings::of(power, flags.power.as_deref())?,
        })
    }

    /// The drafter's directory.
    ///
    /// # Errors
    /// No model is configured.
    pub fn model(&self) -> Result<&Path> {
        self.model.as_deref().context("no model: give --model DIR, or model = \"DIR\" in the configuration")
    }

    /// Tokens of context for a drafter whose model has room for `own`, limited by the board.
    pub fn context_tokens_max(&self, own: usize) -> usize {
        let limit = self.board.as_ref().and_then(|board| board.drafter.context_tokens_max);
        limit.map_or(own, |limit| limit.min(own))
    }

    /// The memory that a drafter with these weights and so many tokens needs of the board's limit, in words; `None`
    /// without a limit.
    ///
    /// # Errors
    /// They don't fit, or their size can't be read.
    pub fn memory(&self, weights: &Path, vocabulary: u32) -> Result<Option<String>> {
        let Some(board) = &self.board else { return Ok(None) };
        let Some(allowed) = board.drafter.memory_mib else { return Ok(None) };
        let file = self.board_file.as_deref().unwrap_or(Path::new(&board.name)).display();
        let (bytes, weights) = (bytes_of(weights)?, weights.display());
        match board.drafter.fits(bytes, vocabulary) {
            Ok(()) => Ok(Some(format!(
                "{weights} and the agent take up to {} MiB of the {allowed} that {file} allows",
                DrafterTable::needed_mib(bytes, vocabulary)
            ))),
            Err(needed) => bail!(
                "{weights} and the agent take up to {needed} MiB, and {file} allows {allowed} (drafter.memory_mib): \
                 take a smaller model, or allow more where the board has it"
            ),
        }
    }

    /// Parameters of this device's connection.
    pub fn link(&self) -> LinkConfig {
        LinkConfig {
            options: ConnectOptions {
                broker: self.broker.clone(),
                security: self.security.clone(),
                login: self.login.clone(),
                client_id: self.device.as_str().into(),
                keep_alive: self.keep_alive,
                inflight_max: INFLIGHT_MAX,
            },
            device: self.device.clone(),
            announce: true,
        }
    }
}

/// Applies the flags to a policy's table.
fn under(flags: &Overrides, file: PolicyTable) -> Result<PolicyTable> {
    let named = flags.policy.as_deref().map(Policy::from_str).transpose();
    Ok(PolicyTable {
        name: named.map_err(|error| anyhow!("--policy: {error}"))?.or(file.name),
        draft_tokens_max: flags.draft_tokens_max.or(file.draft_tokens_max),
        ..file
    })
}

/// The folder that the service manager provides; the first of several.
fn service_state() -> Option<PathBuf> {
    let dirs = std::env::var_os("STATE_DIRECTORY")?;
    std::env::split_paths(&dirs).next().filter(|dir| dir.is_absolute())
}

/// Reads a configuration.
///
/// # Errors
/// Names the file, line and key that is wrong, or a key of an earlier version.
fn parsed_file(path: &Path) -> Result<File> {
    // If the file can't be read, skip this check: the reader below reports it.
    if let Ok(text) = std::fs::read_to_string(path) {
        refuse_old_keys(path, &text)?;
    }
    read::<File>(path)
}

/// The size of a weights file in bytes, with the parts that ONNX keeps beside a large one under longer names.
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

/// The file of the board that a flag or, without one, the configuration in `dir` names. A name is looked up beside
/// the configuration, then where the package puts boards.
fn board_file(flag: Option<&Path>, file: Option<&Path>, dir: &Path) -> Result<Option<PathBuf>> {
    let (board, base) = match (flag, file) {
        (Some(board), _) => (board, Path::new("")),
        (None, Some(board)) => (board, dir),
        (None, None) => return Ok(None),
    };
    let dirs = [dir.to_owned(), dir.join("boards"), INSTALLED.into()];
    find(board, base, &dirs).map(Some).context(if flag.is_some() { "--board" } else { "board" })
}

/// Refuses a certificate of another device. Where there is a login, it and not the certificate is the device's name to the
/// broker.
fn same_name(device: &DeviceId, security: &Security, login: Option<&Login>) -> Result<()> {
    let name = security.own_name()?.filter(|name| login.is_none() && name != device.as_str());
    name.map_or(Ok(()), |name| {
        bail!("this device is {device}, and its certificate is for {name:?}: take the card of its own name")
    })
}

fn device_id(name: &str) -> Result<DeviceId> {
    name.parse().with_context(|| format!("device {name:?}"))
}

/// The host's name, reduced to the characters that an id may have.
fn own_name() -> Result<DeviceId> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let letters = name.trim().chars().map(|c| c.to_ascii_lowercase());
    let id: String = letters.map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(32).collect();
    id.parse().context("this host has no name: give --device ID, or device = \"ID\" in the configuration")
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_hlm::policy::Threshold;
    use dunlin_link::Secret;
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
        let text = "device = 'a'\nbroker = 'mqtt://one:1'\nboard = 'b.toml'\nmqtt.insecure = true\n[policy]\ndraft_tokens_max = 3\n";
        let settings = load(text, &Overrides::default()).unwrap();
        assert_eq!((settings.device.as_str(), settings.broker.to_string()), ("a", "one:1".into()));
        assert_eq!(settings.rules.draft_tokens_max(), 3);
        assert_eq!((settings.context_tokens_max(100), settings.context_tokens_max(50)), (64, 50));
        let flags = Overrides {
            broker: Some("mqtt://two".into()),
            insecure: true,
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
        assert!(
            message("[mqtt]\nkeep_alive_seconds = 4\n").contains("keep_alive_seconds: 4 is not within 5")
        );
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
    fn a_login_is_that_of_the_file_or_of_the_address() {
        let named = "device = 'a'\n[mqtt]\nuser = 'u'\npassword_file = 'password'\n";
        let login =
            |user: &str, password: &str| Some(Login { user: user.into(), password: Secret::new(password) });
        assert_eq!(load(named, &Overrides::default()).unwrap().login, login("u", "s3cret"));
        let flags = Overrides { broker: Some("mqtt://me:pw@localhost".into()), ..Overrides::default() };
        let settings = load(named, &flags).unwrap();
        assert_eq!(
            (settings.broker.to_string(), &settings.login),
            ("localhost:1883".into(), &login("me", "pw"))
        );
        assert!(!format!("{settings:?}").contains("pw"), "a password is not shown");
        assert!(message("[mqtt]\npassword_file = 'password'\n").contains("without mqtt.user"));
    }

    #[test]
    fn a_key_of_an_earlier_version_is_named_with_the_one_of_today() {
        let refused = message("device = 'a'\nusername = 'u'\n");
        assert!(refused.contains("agent.toml:2: username is now user under [mqtt]"), "{refused}");
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
        let said = with("b.toml").memory(&path("m.onnx"), 100).unwrap().unwrap();
        assert!(
            said.contains("m.onnx and the agent take up to 26 MiB of the 26 that ")
                && said.contains("b.toml")
        );
        write(path("m.onnx_data"), vec![0; (1 << 20) + 1]).unwrap();
        let said = format!("{:#}", with("b.toml").memory(&path("m.onnx"), 100).unwrap_err());
        assert!(
            said.contains("m.onnx and the agent take up to 27 MiB, and ")
                && said.contains("b.toml allows 26")
        );
        assert!(with("free.toml").memory(&path("m.onnx"), 100).unwrap().is_none());
        assert!(
            format!("{:#}", with("b.toml").memory(&path("n"), 100).unwrap_err()).contains("n: No such file")
        );
    }
}
