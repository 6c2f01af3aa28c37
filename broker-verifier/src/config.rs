//! A verifier's configuration: one file, then the command line over it, then one check of every range.

use crate::link::INFLIGHT_MAX;
use anyhow::{Context, Result, ensure};
use dunlin_link::{
    BrokerAddress, ConnectOptions, Login, MQTT_PASSWORD, MqttTable, Security, TLS_INSTALLED, TLS_KEY,
    TlsTable, refuse_old_keys,
};
use dunlin_lm_remote::RemoteSettings;
use dunlin_wire::VerifierId;
use dunlin_wire::limits::{CONTINUATION_TOKENS_MAX, DRAFT_TOKENS_MAX, SESSION_TOKENS_MAX};
use serde::Deserialize;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// Maximum number of sessions: a verifier's presence counts the free ones in 16 bits.
pub const SESSIONS_MAX: usize = u16::MAX as usize;
/// Tokens of one credit: what a device that went away costs at most.
const CREDIT_TOKENS_MAX: usize = 4096;
/// Tokens of long contexts that a pass may be set to hold.
const PREFILL_TOKENS_MAX: usize = 4096;
/// Threads the target may use.
pub const THREADS_MAX: usize = 256;
/// Default port of the embedded broker and of the broker.
const PORT_DEFAULT: u16 = 1883;

/// The engine that runs a target in this process.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum EngineName {
    /// candle.
    #[default]
    Candle,
    /// llama.cpp, in a program that was built with it.
    Llamacpp,
}

/// The refusal of an engine that a program was built without.
pub(crate) const NOT_BUILT_IN: &str = "engine: this program was built without llama.cpp; install the package \
    dunlin-verifier-llamacpp, or build it with `cargo build --release -p dunlin-verifier --features llamacpp`";

/// The type of the numbers in the sessions' caches.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum CacheType {
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit floats: half the memory, and other bits.
    F16,
}

/// A verifier's configuration. Every key except `model` is optional.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The verifier's name.
    pub id: VerifierId,
    /// The broker, as `mqtts://host[:port]`, or `mqtt://[user:password@]host[:port]` without TLS.
    pub broker: BrokerAddress,
    /// Login and keep-alive.
    pub mqtt: MqttTable,
    /// The files of TLS.
    pub tls: TlsTable,
    /// The login from the address or from keys and credential; see [`with_access`](Self::with_access).
    #[serde(skip)]
    pub login: Option<Login>,
    /// The protection of the connection; see [`with_access`](Self::with_access).
    #[serde(skip, default = "plain")]
    pub security: Security,
    /// The target: a model directory or a `.gguf` file.
    pub model: Option<PathBuf>,
    /// The server that runs the target; by default, this process runs it.
    pub remote: Option<RemoteSettings>,
    /// The engine that runs the target in this process.
    pub engine: EngineName,
    /// Threads of the target; by default, all cores except one.
    pub threads: Option<usize>,
    /// Maximum number of sessions; the least recently used one makes room for a new one.
    pub sessions: usize,
    /// MiB that the caches of all sessions may hold.
    pub kv_mib: usize,
    /// Type of the numbers in these caches; by default 32 bits with candle, and 16 bits with llama.cpp.
    pub kv_type: Option<CacheType>,
    /// Maximum number of tokens of a session, below that of the target.
    pub context_tokens: Option<usize>,
    /// Maximum number of tokens of long contexts in one pass of the target; by default as many as its measured time allows.
    pub prefill_tokens: Option<usize>,
    /// Seconds of silence after which a session is dropped.
    pub idle_s: u64,
    /// Maximum number of drafted tokens in one frame.
    pub draft_tokens_max: u8,
    /// Maximum number of tokens that one frame may ask the target to write; 0 serves no streams.
    pub credit_tokens_max: u16,
    /// Number of written tokens in one message.
    pub continuation_tokens: u8,
    /// Milliseconds after which written tokens are sent even if they are fewer.
    pub continuation_ms: u64,
    /// True to serve policies that keep tokens the target would not have chosen.
    pub lossy: bool,
    /// Seconds that a drain may take.
    pub drain_s: u64,
    /// True to run a broker in this process.
    pub embedded_broker: bool,
    /// Address of that broker; port 0 picks a free port.
    pub listen: SocketAddr,
    /// File to which the devices' energy reports are appended, one JSON object per line.
    pub energy_log: Option<PathBuf>,
}

/// The protection before [`Config::with_access`].
fn plain() -> Security {
    Security::Plain
}

impl Default for Config {
    fn default() -> Self {
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT_DEFAULT));
        Self {
            id: "verifier-1".parse().expect("the default is an id"),
            broker: BrokerAddress::from(local),
            mqtt: MqttTable::default(),
            tls: TlsTable::default(),
            login: None,
            security: plain(),
            model: None,
            remote: None,
            engine: EngineName::default(),
            threads: None,
            sessions: 64,
            kv_mib: 512,
            kv_type: None,
            context_tokens: None,
            prefill_tokens: None,
            idle_s: 600,
            draft_tokens_max: DRAFT_TOKENS_MAX as u8,
            credit_tokens_max: 64,
            continuation_tokens: 8,
            continuation_ms: 100,
            lossy: true,
            drain_s: 10,
            embedded_broker: false,
            listen: local,
            energy_log: None,
        }
    }
}

impl Config {
    /// Reads a file; relative paths in it are relative to the file's directory.
    ///
    /// # Errors
    /// Names the file, and the line and key of a mistake or of a key from an earlier version.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        refuse_old_keys(path, &text)?;
        let mut config: Self = dunlin_board::read(path)?;
        let directory = path.parent().unwrap_or(Path::new(""));
        config.model = config.model.map(|model| directory.join(model));
        config.energy_log = config.energy_log.map(|file| directory.join(file));
        if let Some(remote) = &mut config.remote {
            remote.key_file = remote.key_file.take().map(|file| directory.join(file));
        }
        config.tls = config.tls.within(directory);
        config.mqtt.password_file = config.mqtt.password_file.map(|file| directory.join(file));
        Ok(config)
    }

    /// Checks the range of every value.
    ///
    /// # Errors
    /// Names the first key that is out of its range, and the range.
    pub fn check(&self) -> Result<()> {
        let drafts = usize::from(self.draft_tokens_max);
        in_range("sessions", self.sessions, 1, SESSIONS_MAX)?;
        in_range("kv_mib", self.kv_mib, 1, usize::MAX >> 20)?;
        in_range("threads", self.threads.unwrap_or(1), 1, THREADS_MAX)?;
        in_range("context_tokens", self.context_tokens.unwrap_or(2), 2, SESSION_TOKENS_MAX as usize)?;
        in_range("prefill_tokens", self.prefill_tokens.unwrap_or(1), 1, PREFILL_TOKENS_MAX)?;
        in_range("idle_s", self.idle_s as usize, 1, 7 * 24 * 3600)?;
        in_range("draft_tokens_max", drafts, 1, DRAFT_TOKENS_MAX)?;
        in_range("credit_tokens_max", self.credit_tokens_max.into(), 0, CREDIT_TOKENS_MAX)?;
        in_range("continuation_tokens", self.continuation_tokens.into(), 1, CONTINUATION_TOKENS_MAX)?;
        in_range("continuation_ms", self.continuation_ms as usize, 0, 60_000)?;
        in_range("drain_s", self.drain_s as usize, 1, 3600)?;
        self.mqtt.keep_alive(None)?;
        let is_llamacpp = self.engine == EngineName::Llamacpp;
        ensure!(!is_llamacpp || cfg!(feature = "llamacpp"), NOT_BUILT_IN);
        if let Some(remote) = &self.remote {
            ensure!(!is_llamacpp, "engine: a target on a server ([remote]) has none here; remove it");
            remote.check()?;
            ensure!(
                self.threads.is_none(),
                "threads: a target on a server ([remote]) has none here; remove it"
            );
        }
        Ok(())
    }

    /// Sets the login, which is that of the address or else that of the keys, and the protection of the connection.
    /// Password and key may be credentials of the service, which `credential` finds by name.
    ///
    /// # Errors
    /// A password without a user, a file that is missing or invalid, or plain MQTT to another machine.
    pub fn with_access(mut self, credential: impl Fn(&str) -> Option<PathBuf>) -> Result<Self> {
        self.login = self.mqtt.login(&self.broker, Path::new(""), credential(MQTT_PASSWORD).as_deref())?;
        if self.embedded_broker {
            return Ok(self);
        }
        let key = credential(TLS_KEY);
        self.security =
            self.mqtt.security(&self.broker, &self.tls, Path::new(TLS_INSTALLED), key.as_deref())?;
        Ok(self)
    }

    /// Parameters of a connection, with a client id that begins with `kind`.
    ///
    /// # Errors
    /// The keep-alive is out of its range.
    pub fn connect_options(&self, kind: &str) -> Result<ConnectOptions> {
        Ok(ConnectOptions {
            broker: self.broker.clone(),
            security: self.security.clone(),
            login: self.broker.login.clone().or_else(|| self.login.clone()),
            client_id: format!("{kind}-{}", self.id),
            keep_alive: self.mqtt.keep_alive(None)?,
            inflight_max: INFLIGHT_MAX,
        })
    }

    /// Type of the numbers in the caches.
    pub(crate) fn cache_type(&self) -> CacheType {
        self.kv_type.unwrap_or(match self.engine {
            EngineName::Candle => CacheType::F32,
            EngineName::Llamacpp => CacheType::F16,
        })
    }

    /// Most tokens of a session: those of a target's context, the protocol's and the configured limit.
    pub fn served_context(&self, context_max: usize) -> usize {
        let most = context_max.min(SESSION_TOKENS_MAX as usize);
        self.context_tokens.map_or(most, |tokens| tokens.min(most))
    }

    /// The target's path.
    ///
    /// # Errors
    /// No target is configured.
    pub fn model(&self) -> Result<&Path> {
        self.model.as_deref().context("no target: give --model DIR, or `model` in the configuration")
    }
}

fn in_range(key: &str, value: usize, min: usize, max: usize) -> Result<()> {
    ensure!((min..=max).contains(&value), "{key}: {value} is outside {min} to {max}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range_is_checked() {
        assert!(Config::default().check().is_ok());
        for (text, key) in [
            ("sessions = 0", "sessions"),
            ("sessions = 65536", "sessions"),
            ("kv_mib = 0", "kv_mib"),
            ("threads = 257", "threads"),
            ("context_tokens = 1", "context_tokens"),
            ("context_tokens = 131073", "context_tokens"),
            ("prefill_tokens = 0", "prefill_tokens"),
            ("prefill_tokens = 4097", "prefill_tokens"),
            ("idle_s = 0", "idle_s"),
            ("draft_tokens_max = 17", "draft_tokens_max"),
            ("credit_tokens_max = 4097", "credit_tokens_max"),
            ("continuation_tokens = 0", "continuation_tokens"),
            ("continuation_ms = 60001", "continuation_ms"),
            ("mqtt.keep_alive_seconds = 4", "mqtt.keep_alive_seconds"),
            ("drain_s = 0", "drain_s"),
            ("threads = 2\nremote = { url = 'http://h', kind = 'vllm' }", "threads"),
            ("remote = { url = 'http://h', kind = 'vllm', in_flight = 0 }", "remote: remote.in_flight"),
            // Whether or not the engine was built in.
            ("engine = 'llamacpp'\nremote = { url = 'http://h', kind = 'vllm' }", "engine: "),
        ] {
            let config: Config = toml::from_str(text).unwrap();
            let error = config.check().unwrap_err().to_string();
            assert!(error.starts_with(key), "{text}: {error}");
        }
    }

    #[test]
    fn a_login_is_the_addresses_or_that_of_the_keys() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("v.toml");
        fs::write(dir.path().join("p"), "own\n").unwrap();
        let login = |text: &str| {
            fs::write(&file, text).unwrap();
            let config = Config::read(&file).and_then(|config| config.with_access(|_| None)).unwrap();
            assert!(!format!("{config:?}").contains("own"), "a password is not shown");
            config.login.map(|login| (login.user, login.password.expose().to_owned()))
        };
        let named = |user: &str| Some((user.to_owned(), "own".to_owned()));
        assert_eq!(login("[mqtt]\nuser = 'a'\npassword_file = 'p'"), named("a"));
        assert_eq!(login("broker = 'mqtt://b:own@localhost'\n[mqtt]\nuser = 'a'"), named("b"));
        assert_eq!(login(""), None);
    }

    #[test]
    fn no_mistake_shows_a_password() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("v.toml");
        for (text, words) in [
            ("\nbroker = 'wss://a:hush@h'", "v.toml:2: broker \"wss://***@h\""),
            ("password = 'hush'", "v.toml:1: password is now password_file under [mqtt]"),
            ("pasword = 'hush'", "v.toml:1: unknown field `pasword`"),
            ("[mqtt]\npassword = 'hush'", "v.toml:2: unknown field `password`"),
        ] {
            fs::write(&file, text).unwrap();
            let error = format!("{:#}", Config::read(&file).unwrap_err());
            assert!(error.contains(words) && !error.contains("hush"), "{error}");
        }
    }
}
