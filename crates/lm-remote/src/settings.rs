//! The table `[remote]` of a verifier's configuration.

use dunlin_lm::{Error, Result};
use hyper::Uri;
use hyper::header::HeaderValue;
use serde::Deserialize;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Most requests under way at once.
const IN_FLIGHT_MAX: usize = 1024;
/// Longest time-out and longest patience, in seconds.
const SECONDS_MAX: u64 = 3600;
/// Largest file with a key, in bytes.
const KEY_BYTES_MAX: u64 = 4096;
/// Pause before the first repetition of a request; it doubles with each.
const PAUSE: Duration = Duration::from_millis(100);

/// The server's program, which decides the form of requests and answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServerKind {
    /// `vllm serve`.
    Vllm,
    /// `sglang.launch_server`.
    Sglang,
    /// llama.cpp's `llama-server`.
    LlamaServer,
}

impl ServerKind {
    /// Its name in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
            Self::LlamaServer => "llama-server",
        }
    }
}

/// The server that runs the target.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteSettings {
    /// The server's address: `http://host[:port]` or `https://host[:port]`, and a path if it has one before `/v1`.
    pub url: String,
    /// The server's program.
    pub kind: ServerKind,
    /// The model's name at the server; needed if the server has several.
    pub model: Option<String>,
    /// A file with nothing but the key that the server wants as a bearer token.
    pub key_file: Option<PathBuf>,
    /// Seconds after which a request is repeated.
    #[serde(default = "timeout_default")]
    pub timeout_s: u64,
    /// Seconds after which a frame fails that the server did not answer, all repetitions included.
    #[serde(default = "patience_default")]
    pub patience_s: u64,
    /// The most requests under way at once.
    #[serde(default = "in_flight_default")]
    pub in_flight: usize,
    /// The most tokens of a text, if the server doesn't report its limit or the limit should be lower.
    pub context: Option<usize>,
    /// True to have devices draw with the server's noise, so that more drafts stand: of SGLang with deterministic
    /// inference only. Untried on a GPU.
    #[serde(default)]
    pub shared_noise: bool,
    /// Pause before the first repetition; not a key.
    #[serde(skip, default = "pause_default")]
    pub pause: Duration,
}

fn timeout_default() -> u64 {
    30
}

fn patience_default() -> u64 {
    120
}

fn in_flight_default() -> usize {
    16
}

fn pause_default() -> Duration {
    PAUSE
}

impl RemoteSettings {
    /// Settings with defaults.
    pub fn new(url: &str, kind: ServerKind) -> Self {
        Self {
            url: url.into(),
            kind,
            model: None,
            key_file: None,
            timeout_s: timeout_default(),
            patience_s: patience_default(),
            in_flight: in_flight_default(),
            context: None,
            shared_noise: false,
            pause: PAUSE,
        }
    }

    /// Checks the address and every range.
    ///
    /// # Errors
    /// Names the first key that is invalid, without what a secret could be in.
    pub fn check(&self) -> Result<()> {
        self.base()?;
        let ranges = [
            ("timeout_s", self.timeout_s, SECONDS_MAX),
            ("patience_s", self.patience_s, SECONDS_MAX),
            ("in_flight", self.in_flight as u64, IN_FLIGHT_MAX as u64),
            ("context", self.context.unwrap_or(2) as u64, u64::from(u32::MAX)),
        ];
        for (key, value, most) in ranges {
            let least = if key == "context" { 2 } else { 1 };
            if !(least..=most).contains(&value) {
                return Err(refused(format!("remote.{key}: {value} is outside {least} to {most}")));
            }
        }
        if self.shared_noise && self.kind != ServerKind::Sglang {
            let kind = self.kind.name();
            return Err(refused(format!(
                "remote.shared_noise: a server of the kind {kind} draws with noise that a device can't know; remove it"
            )));
        }
        if self.patience_s < self.timeout_s {
            let (timeout, patience) = (self.timeout_s, self.patience_s);
            return Err(refused(format!(
                "remote.patience_s: {patience} is below remote.timeout_s, which is {timeout}"
            )));
        }
        Ok(())
    }

    /// The server's address without a slash at its end.
    pub(crate) fn base(&self) -> Result<Base> {
        let invalid = |reason: &str| {
            let form = "http://host[:port] or https://host[:port]";
            refused(format!("remote.url: {reason}; expected {form}"))
        };
        // A name and a password would be shown by logs; a key belongs into a file.
        if self.url.contains('@') {
            return Err(invalid("a user or password in an address is not supported, use key_file"));
        }
        let url: Uri = self.url.parse().map_err(|_| invalid("not an address"))?;
        let tls = match url.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(invalid("the scheme is neither http nor https")),
        };
        if url.query().is_some() || self.url.contains('#') {
            return Err(invalid("a query or fragment is not supported"));
        }
        let host = url.host().filter(|host| !host.is_empty()).ok_or_else(|| invalid("no host"))?;
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let local = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
        Ok(Base { url: self.url.trim_end_matches('/').into(), tls, local })
    }

    /// The key as the value of a header that no log shows.
    pub(crate) fn key(&self) -> Result<Option<HeaderValue>> {
        self.key_file.as_deref().map(read_key).transpose()
    }
}

/// A checked address.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    pub(crate) url: String,
    pub(crate) tls: bool,
    /// True for an address of this machine.
    pub(crate) local: bool,
}

fn read_key(path: &Path) -> Result<HeaderValue> {
    let size = path.metadata().map_err(|e| Error::io(path, e))?.len();
    if size > KEY_BYTES_MAX {
        return Err(Error::value(path, "key", format!("at most {KEY_BYTES_MAX} bytes"), size));
    }
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    let key = text.trim();
    let mut value = HeaderValue::from_str(&format!("Bearer {key}"))
        .ok()
        .filter(|_| !key.is_empty())
        .ok_or_else(|| Error::value(path, "key", "one line of visible characters", "another text"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The error of a setting or of a server that doesn't suit.
pub(crate) fn refused(message: impl ToString) -> Error {
    Error::engine("remote", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<RemoteSettings> {
        let settings: RemoteSettings =
            toml::from_str(&format!("kind = 'vllm'\n{text}")).map_err(|e| refused(e.to_string()))?;
        settings.check()?;
        Ok(settings)
    }

    #[test]
    fn every_mistake_names_its_key_and_shows_no_secret() {
        for (text, words) in [
            ("url = 'ftp://h'", "remote.url: the scheme is neither"),
            ("url = 'h:8000'", "remote.url: "),
            ("url = 'http://'", "remote.url: "),
            ("url = 'http://me:hush@h'", "remote.url: a user or password"),
            ("url = 'http://h/?key=hush'", "remote.url: a query"),
            ("url = 'http://h'\ntimeout_s = 0", "remote.timeout_s: 0 is outside 1 to 3600"),
            ("url = 'http://h'\npatience_s = 3601", "remote.patience_s: 3601"),
            ("url = 'http://h'\npatience_s = 10", "remote.patience_s: 10 is below remote.timeout_s"),
            ("url = 'http://h'\nin_flight = 0", "remote.in_flight: 0 is outside 1 to 1024"),
            ("url = 'http://h'\ncontext = 1", "remote.context: 1 is outside"),
            ("url = 'http://h'\nshared_noise = true", "remote.shared_noise: a server of the kind vllm"),
            ("url = 'http://h'\nkey = 'hush'", "unknown field `key`"),
            ("", "missing field `url`"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(words) && !error.contains("hush@"), "{text}: {error}");
        }
    }

    #[test]
    fn an_address_may_have_a_path_and_tells_where_it_leads() {
        let base = |url: &str| RemoteSettings::new(url, ServerKind::Vllm).base().unwrap();
        assert_eq!(base("https://h:8000/llm/").url, "https://h:8000/llm");
        let facts = |url| (base(url).tls, base(url).local);
        assert_eq!(facts("https://h"), (true, false));
        assert_eq!(facts("http://127.0.0.1:80"), (false, true));
        assert_eq!(facts("http://[::1]:80"), (false, true));
        assert_eq!(facts("http://localhost.example"), (false, false));
    }

    #[test]
    fn a_key_is_one_line_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        let mut settings = RemoteSettings::new("http://h", ServerKind::Vllm);
        assert!(settings.key().unwrap().is_none());
        settings.key_file = Some(file.clone());
        assert!(settings.key().unwrap_err().to_string().contains("key: No such file"));
        for bad in ["", "\n", "a\nb", "a\u{7f}b"] {
            std::fs::write(&file, bad).unwrap();
            assert!(settings.key().unwrap_err().to_string().contains("one line of visible"), "{bad:?}");
        }
        std::fs::write(&file, vec![b'a'; KEY_BYTES_MAX as usize + 1]).unwrap();
        assert!(settings.key().unwrap_err().to_string().contains("at most 4096 bytes"));
        std::fs::write(&file, "hush\n").unwrap();
        let key = settings.key().unwrap().unwrap();
        assert_eq!((key.to_str().unwrap(), format!("{key:?}").contains("hush")), ("Bearer hush", false));
    }
}
