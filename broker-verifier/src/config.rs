//! What a verifier is told: one file, then the command line over it, then one check of every range.

use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use dunlin_service::secret;
use dunlin_wire::VerifierId;
use dunlin_wire::limits::DRAFT_TOKENS_MAX;
use serde::Deserialize;

/// Sessions that one verifier keeps: its presence counts the free ones in 16 bits.
pub const SESSIONS_MAX: usize = u16::MAX as usize;
/// Threads the target may use.
pub const THREADS_MAX: usize = 256;
/// Shortest keep-alive that the MQTT client takes.
pub const KEEP_ALIVE_MIN: Duration = Duration::from_secs(5);
/// The port of MQTT without TLS.
const PORT_DEFAULT: u16 = 1883;

/// A verifier's configuration; every key may be left out but `model`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The verifier's name.
    pub id: VerifierId,
    /// The broker, as `mqtt://[user:password@]host[:port]`.
    pub broker: Broker,
    /// Name to log in with, where the address has none.
    pub username: Option<String>,
    /// Password to log in with, where the address has none.
    pub password: Option<Secret>,
    /// The target: a model directory or a `.gguf` file.
    pub model: Option<PathBuf>,
    /// Threads of the target; without it all cores but one.
    pub threads: Option<usize>,
    /// Sessions kept; the least recently used makes room for a new one.
    pub sessions: usize,
    /// MiB that the caches of all sessions may hold.
    pub kv_mib: usize,
    /// Seconds of silence after which a session is dropped.
    pub idle_s: u64,
    /// Drafted tokens taken in one frame.
    pub draft_tokens_max: u8,
    /// Whether policies are served that keep tokens the target would not have chosen.
    pub lossy: bool,
    /// Seconds between signs of life to the broker.
    pub keep_alive_s: u16,
    /// Seconds that a drain may take.
    pub drain_s: u64,
    /// Whether to run a broker in this process.
    pub embedded_broker: bool,
    /// Where that broker listens; port 0 picks a free one.
    pub listen: SocketAddr,
    /// A file to which what devices say of their energy is appended, one JSON object a line.
    pub energy_log: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT_DEFAULT));
        Self {
            id: "verifier-1".parse().expect("the default is an id"),
            broker: Broker::from(local),
            username: None,
            password: None,
            model: None,
            threads: None,
            sessions: 64,
            kv_mib: 512,
            idle_s: 600,
            draft_tokens_max: DRAFT_TOKENS_MAX as u8,
            lossy: true,
            keep_alive_s: 30,
            drain_s: 10,
            embedded_broker: false,
            listen: local,
            energy_log: None,
        }
    }
}

impl Config {
    /// Reads a file; its relative `model` and `energy_log` count from the file's directory.
    ///
    /// # Errors
    /// Names the file, and the line and key of a mistake.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("configuration {}", path.display()))?;
        let mut config: Self =
            toml::from_str(&text).with_context(|| format!("configuration {}", path.display()))?;
        let directory = path.parent().unwrap_or(Path::new(""));
        config.model = config.model.map(|model| directory.join(model));
        config.energy_log = config.energy_log.map(|file| directory.join(file));
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
        in_range("idle_s", self.idle_s as usize, 1, 7 * 24 * 3600)?;
        in_range("draft_tokens_max", drafts, 1, DRAFT_TOKENS_MAX)?;
        in_range(
            "keep_alive_s",
            self.keep_alive_s.into(),
            KEEP_ALIVE_MIN.as_secs() as usize,
            u16::MAX.into(),
        )?;
        in_range("drain_s", self.drain_s as usize, 1, 3600)?;
        ensure!(
            self.password.is_none() || self.username.is_some() || self.broker.login.is_some(),
            "password: a password needs a username"
        );
        Ok(())
    }

    /// The same configuration; a name without a password takes that of the service's credential, where it is there.
    ///
    /// # Errors
    /// The credential can't be read.
    pub fn with_credential(mut self, credential: Option<&Path>) -> Result<Self> {
        if let Some(path) = credential.filter(|path| path.exists())
            && self.username.is_some()
            && self.password.is_none()
        {
            let password = secret(path).with_context(|| format!("credential {}", path.display()))?;
            self.password = Some(Secret(password));
        }
        Ok(self)
    }

    /// The target's path.
    ///
    /// # Errors
    /// Says how to name one.
    pub fn model(&self) -> Result<&Path> {
        self.model.as_deref().context("no target: give --model DIR, or `model` in the configuration")
    }

    /// Name and password for the broker: the address's own, else those of the keys.
    pub fn login(&self) -> Option<Login> {
        let keys = || {
            let password = self.password.clone().unwrap_or_default();
            self.username.clone().map(|username| Login { username, password })
        };
        self.broker.login.clone().or_else(keys)
    }
}

fn in_range(key: &str, value: usize, min: usize, max: usize) -> Result<()> {
    ensure!((min..=max).contains(&value), "{key}: {value} is outside {min} to {max}");
    Ok(())
}

/// Where the broker is; shown without the password.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Broker {
    /// Name or address; a numeric IPv6 address is in brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    login: Option<Login>,
}

/// A name and a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The name.
    pub username: String,
    /// The password.
    pub password: Secret,
}

/// A text that isn't shown.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl FromStr for Broker {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("mqtt", text));
        match scheme {
            "mqtt" | "tcp" => {}
            "mqtts" | "ssl" | "ws" | "wss" => {
                bail!("{scheme}:// is not supported: this build speaks plain MQTT, as mqtt://host:port")
            }
            _ => bail!("unknown scheme {scheme}://: expected mqtt://[user:password@]host[:port]"),
        }
        let (login, place) = match rest.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, rest),
        };
        let (host, port) = split_port(place.trim_end_matches('/'))?;
        let login = login.map(|login| {
            let (username, password) = login.split_once(':').unwrap_or((login, ""));
            Login { username: username.into(), password: Secret(password.into()) }
        });
        Ok(Self { host, port, login })
    }
}

fn split_port(place: &str) -> Result<(String, u16)> {
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            let number: u16 = port
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .with_context(|| format!("broker port {port:?}: expected a number from 1 to 65535"))?;
            (host, number)
        }
        _ => (place, PORT_DEFAULT),
    };
    let bracketed = host.starts_with('[') && host.ends_with(']');
    ensure!(!host.is_empty(), "the broker's address has no host: expected mqtt://host:port");
    ensure!(bracketed || !host.contains(':'), "broker host {host:?}: write an IPv6 address in brackets");
    ensure!(!host.contains(['/', ' ', '?']), "broker host {host:?}: expected a name or an address");
    Ok((host.into(), port))
}

impl TryFrom<String> for Broker {
    type Error = anyhow::Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<SocketAddr> for Broker {
    fn from(address: SocketAddr) -> Self {
        let host = match address {
            SocketAddr::V4(v4) => v4.ip().to_string(),
            SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
        };
        Self { host, port: address.port(), login: None }
    }
}

impl fmt::Display for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let broker: Broker = "mqtt://me:a:b@c@host:42".parse().unwrap();
        assert_eq!((broker.host.as_str(), broker.port), ("host", 42));
        let login = broker.login.clone().unwrap();
        assert_eq!((login.username.as_str(), login.password.0.as_str()), ("me", "a:b@c"));
        assert_eq!(format!("{broker} {broker:?}"), "host:42 host:42");
        assert_eq!("[::1]".parse::<Broker>().unwrap().to_string(), "[::1]:1883");
        assert_eq!("[::1]:7".parse::<Broker>().unwrap().to_string(), "[::1]:7");
        assert_eq!("localhost".parse::<Broker>().unwrap().to_string(), "localhost:1883");
    }

    #[test]
    fn bad_addresses_are_refused_in_words() {
        for (text, words) in [
            ("mqtts://host", "plain MQTT"),
            ("http://host", "unknown scheme"),
            ("mqtt://", "no host"),
            ("mqtt://host:0", "1 to 65535"),
            ("mqtt://host:70000", "1 to 65535"),
            ("::1:1883", "brackets"),
            ("mqtt://host/path", "a name or an address"),
        ] {
            let error = text.parse::<Broker>().unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn every_range_is_checked() {
        assert!(Config::default().check().is_ok());
        for (text, key) in [
            ("sessions = 0", "sessions"),
            ("sessions = 65536", "sessions"),
            ("kv_mib = 0", "kv_mib"),
            ("threads = 257", "threads"),
            ("idle_s = 0", "idle_s"),
            ("draft_tokens_max = 17", "draft_tokens_max"),
            ("keep_alive_s = 4", "keep_alive_s"),
            ("drain_s = 0", "drain_s"),
            ("password = 'x'", "password"),
        ] {
            let config: Config = toml::from_str(text).unwrap();
            let error = config.check().unwrap_err().to_string();
            assert!(error.starts_with(key), "{text}: {error}");
        }
    }

    #[test]
    fn a_services_credential_is_the_password_where_none_is_configured() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dunlin.mqtt-password");
        let password = |text: &str| {
            let config: Config = toml::from_str(text).unwrap();
            config.with_credential(Some(&path)).map(|config| config.login().map(|login| login.password.0))
        };
        assert_eq!(password("username = 'a'").unwrap().as_deref(), Some(""), "it is not there");
        fs::write(&path, "given\n").unwrap();
        assert_eq!(password("username = 'a'").unwrap().as_deref(), Some("given"));
        assert_eq!(password("username = 'a'\npassword = 'own'").unwrap().as_deref(), Some("own"));
        assert_eq!(password("broker = 'mqtt://a:own@h'").unwrap().as_deref(), Some("own"));
        assert_eq!(password("").unwrap(), None, "nobody to log in as");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(password("username = 'a'").is_err(), "one that is there must be readable");
    }

    #[test]
    fn a_password_is_not_shown() {
        for text in ["broker = 'mqtt://a:hush@h'", "username = 'a'\npassword = 'hush'"] {
            let config: Config = toml::from_str(text).unwrap();
            let login = config.login().unwrap();
            assert_eq!((login.username.as_str(), login.password.0.as_str()), ("a", "hush"));
            assert!(!format!("{config:?} {login:?}").contains("hush"));
        }
    }
}
