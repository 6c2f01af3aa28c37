//! TLS: its table in a configuration, its files, and the client's configuration.

use crate::address::BrokerAddress;
use crate::clock::{CertificateClock, stored_floor};
use crate::identity::{
    CertificateFacts, PEM_BYTES_MAX, authorities, certificates, day, key_pair, private_key,
};
use crate::login::Secret;
use anyhow::{Context, Result, bail, ensure};
use rustls::client::ResolvesClientCert;
use rustls::crypto::ring;
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tracing::warn;

/// The name of the key among a service's credentials.
pub const TLS_KEY: &str = "dunlin.tls-key";
/// The folder from which the service manager takes credentials.
const CREDENTIAL_STORE: &str = "/etc/credstore";
/// The folder in which certificates are looked for by default.
pub const TLS_INSTALLED: &str = "/etc/dunlin/tls";
/// The file of a floor for the time, beside the CA's certificate.
const TIME_FLOOR: &str = "time-floor";
/// Time between two looks at a certificate's end.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Modes of a key that others may read or write.
const OTHERS: u32 = 0o007;

/// The files of a TLS connection, as in `[tls]` of a configuration; every key is optional.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsTable {
    /// The certificates of the authorities that may sign the broker's certificate, in PEM.
    pub ca_file: Option<PathBuf>,
    /// The certificate for this program, in PEM.
    pub cert_file: Option<PathBuf>,
    /// Its key, in PEM; by default, the service's credential.
    pub key_file: Option<PathBuf>,
}

impl TlsTable {
    /// The table with paths relative to `dir`.
    pub fn within(self, dir: &Path) -> Self {
        let within = |path: Option<PathBuf>| path.map(|path| dir.join(path));
        Self {
            ca_file: within(self.ca_file),
            cert_file: within(self.cert_file),
            key_file: within(self.key_file),
        }
    }

    /// The files of a connection: those of the table, or else those in `installed`; the key may be the service's
    /// `credential`. Checks that they are valid and belong together.
    ///
    /// # Errors
    /// Names the file that is missing or invalid.
    pub fn files(&self, installed: &Path, credential: Option<&Path>) -> Result<TlsFiles> {
        let named_or_found = |named: Option<PathBuf>, name: &str| match named {
            Some(file) => Ok(Some(file)),
            None => existing(installed.join(name)),
        };
        let ca = named_or_found(self.ca_file.clone(), "ca.pem")?;
        let certificate = named_or_found(self.cert_file.clone(), "cert.pem")?;
        let given = credential.map(Path::to_owned).map(existing).transpose()?.flatten();
        let key = named_or_found(self.key_file.clone().or(given), "key.pem")?;
        // A command that an administrator runs has no credentials: it takes the service's where that lies.
        let key = match key {
            None if certificate.is_some() => existing(Path::new(CREDENTIAL_STORE).join(TLS_KEY))?,
            key => key,
        };
        let pair = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(certificate), None) => bail!(
                "{} has no key: set tls.key_file, or install {TLS_KEY} as the service's credential",
                certificate.display()
            ),
            (None, Some(key)) => bail!("{} has no certificate: set tls.cert_file", key.display()),
        };
        if let (None, Some((certificate, _))) = (&ca, &pair) {
            bail!(
                "the CA is missing: {} names this program, but nothing says whom to trust; set tls.ca_file",
                certificate.display()
            );
        }
        let pair = pair.map(|(certificate, key)| (PemSource::File(certificate), PemSource::File(key)));
        let files = TlsFiles { ca: ca.map(PemSource::File), pair };
        files.client()?;
        Ok(files)
    }

    /// True if no key is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The path, if it exists.
fn existing(path: PathBuf) -> Result<Option<PathBuf>> {
    let exists = path.try_exists().with_context(|| path.display().to_string())?;
    Ok(exists.then_some(path))
}

/// The protection of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Security {
    /// Plain MQTT, which everybody on the way can read and change.
    Plain,
    /// TLS with these files.
    Tls(TlsFiles),
}

impl Security {
    /// The common name of this program's certificate; `None` without one.
    ///
    /// # Errors
    /// Names the file that can't be read or is invalid.
    pub fn own_name(&self) -> Result<Option<String>> {
        let Self::Tls(files) = self else { return Ok(None) };
        Ok(files.own()?.map(|facts| facts.common_name))
    }

    /// The protection in words, for a connection to `broker`.
    ///
    /// # Errors
    /// Names the file that can't be read or is invalid.
    pub fn described(&self, broker: &BrokerAddress) -> Result<String> {
        Ok(match self {
            Self::Plain if broker.is_loopback() => "without TLS, on this machine".into(),
            Self::Plain => "without TLS".into(),
            Self::Tls(files) => match files.own()? {
                Some(facts) => {
                    let name = facts.common_name.escape_debug().to_string();
                    format!("TLS 1.3, as {name} until {}", day(facts.ends))
                }
                None => "TLS 1.3, without a certificate of its own".into(),
            },
        })
    }

    /// A warning, for a connection to `broker`: that it is plain, or that this program's certificate ends soon.
    ///
    /// # Errors
    /// Names the file that can't be read or is invalid.
    pub fn caution(&self, broker: &BrokerAddress) -> Result<Option<String>> {
        Ok(match self {
            Self::Plain if broker.is_loopback() => None,
            Self::Plain => Some(format!(
                "everybody on the way to {} can read and change the text (insecure is set): use mqtts://, see docs/access.md",
                broker.url()
            )),
            Self::Tls(files) => match files.own()? {
                Some(facts) => facts.caution(files.now()?),
                None => None,
            },
        })
    }
}

/// Logs a certificate that ends soon, now and every day, until the future is dropped.
pub async fn watch_certificate(security: Security, broker: BrokerAddress) {
    let mut days = tokio::time::interval(DAY);
    loop {
        days.tick().await;
        match security.caution(&broker) {
            Ok(None) => {}
            Ok(Some(caution)) => warn!("{caution}"),
            Err(error) => warn!("{error:#}"),
        }
    }
}

/// The files of a TLS connection. They are read again for each connection, so that a renewed certificate counts from
/// the next one on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authorities' certificates; `None`: those that the system trusts.
    ca: Option<PemSource>,
    /// This program's certificate and key.
    pair: Option<(PemSource, PemSource)>,
}

/// A PEM text.
#[derive(Clone, Debug, PartialEq, Eq)]
enum PemSource {
    /// In a file.
    File(PathBuf),
    /// At hand, and perhaps secret.
    Text(Secret),
}

impl PemSource {
    /// Its name in words.
    fn name(&self) -> String {
        match self {
            Self::File(file) => file.display().to_string(),
            Self::Text(_) => "the card".into(),
        }
    }

    /// The result of `parse` for its bytes.
    fn parsed<T, E>(&self, parse: impl FnOnce(&[u8]) -> Result<T, E>) -> Result<T>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        match self {
            Self::File(file) => in_file(file, parse),
            Self::Text(text) => Ok(parse(text.expose().as_bytes())?),
        }
    }
}

impl TlsFiles {
    /// A connection with certificates and a key at hand, in PEM.
    ///
    /// # Errors
    /// One of them is invalid, or they don't belong together.
    pub fn given(ca: &str, certificate: &str, key: &str) -> Result<Self> {
        let text = |text: &str| PemSource::Text(Secret::new(text));
        let files = Self { ca: Some(text(ca)), pair: Some((text(certificate), text(key))) };
        files.client()?;
        Ok(files)
    }

    /// The facts of this program's certificate; `None` without one.
    ///
    /// # Errors
    /// Names the file that can't be read or is invalid.
    pub fn own(&self) -> Result<Option<CertificateFacts>> {
        let Some((certificate, _)) = &self.pair else { return Ok(None) };
        let chain = certificate.parsed(certificates)?;
        Ok(Some(CertificateFacts::of(&chain[0])?))
    }

    /// The trusted authorities' file, in words.
    pub fn trusted(&self) -> String {
        self.ca.as_ref().map_or("the system's CAs".into(), PemSource::name)
    }

    /// The time by which certificates are judged, in seconds since 1970.
    ///
    /// # Errors
    /// The stored floor is invalid.
    pub fn now(&self) -> Result<u64> {
        Ok(self.clock()?.now())
    }

    fn clock(&self) -> Result<CertificateClock> {
        let Some(PemSource::File(ca)) = &self.ca else { return Ok(CertificateClock::from(None)) };
        let file = ca.with_file_name(TIME_FLOOR);
        Ok(CertificateClock::from(stored_floor(&file).with_context(|| file.display().to_string())?))
    }

    /// The client's side of a handshake, from the files as they are now: TLS 1.3 with ring.
    ///
    /// # Errors
    /// Names the file that is missing or invalid.
    pub(crate) fn client(&self) -> Result<Arc<ClientConfig>> {
        let roots = match &self.ca {
            Some(source) => source.parsed(|pem| authorities(&certificates(pem)?))?,
            None => system_roots()?,
        };
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_details(provider, Arc::new(self.clock()?));
        let builder = builder.with_protocol_versions(&[&TLS13]).context("TLS 1.3")?;
        let builder = builder.with_root_certificates(roots);
        let Some((certificate, key)) = &self.pair else {
            return Ok(Arc::new(builder.with_no_client_auth()));
        };
        let chain = certificate.parsed(certificates)?;
        if let PemSource::File(file) = key {
            refuse_readable(file)?;
        }
        let secret = key.parsed(private_key)?;
        let pair =
            key_pair(chain, secret).with_context(|| format!("{} and {}", certificate.name(), key.name()))?;
        let resolver: Arc<dyn ResolvesClientCert> = Arc::new(SingleCertAndKey::from(pair));
        Ok(Arc::new(builder.with_client_cert_resolver(resolver)))
    }
}

/// The result of `parse` for a file's bytes.
fn in_file<T, E>(file: &Path, parse: impl FnOnce(&[u8]) -> Result<T, E>) -> Result<T>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let named = || file.display().to_string();
    let mut bytes = Vec::new();
    let opened = File::open(file).with_context(named)?;
    opened.take(PEM_BYTES_MAX + 1).read_to_end(&mut bytes).with_context(named)?;
    ensure!(bytes.len() as u64 <= PEM_BYTES_MAX, "{}: larger than {PEM_BYTES_MAX} bytes", named());
    parse(&bytes).with_context(named)
}

/// Refuses a key that everybody on this machine can read.
fn refuse_readable(key: &Path) -> Result<()> {
    let mode = fs::metadata(key).with_context(|| key.display().to_string())?.permissions().mode();
    ensure!(
        mode & OTHERS == 0,
        "{}: everybody on this machine can read this key (mode {:o}): chmod 600 it, and replace it if others had access",
        key.display(),
        mode & 0o777
    );
    Ok(())
}

fn system_roots() -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    ensure!(!roots.is_empty(), "this system trusts no CA: set tls.ca_file, or install ca-certificates");
    Ok(roots)
}
